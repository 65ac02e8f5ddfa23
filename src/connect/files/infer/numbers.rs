//! What numbers a column's texts are: digits, decimal separator, and signs that they aren't numbers but codes.

use crate::spec::sql_type::SqlType;

/// Least digits of a proposed decimal: amounts grow.
const LEAST_PRECISION: usize = 12;
/// Digits before the point that a proposed decimal has beyond those seen.
const SPARE_DIGITS: usize = 3;
/// Digits after the point of amounts; a decimal has at least these.
const MONEY_SCALE: usize = 2;
/// Digits that a decimal can have.
const MOST_DIGITS: usize = 38;

/// What the values of a column have in common as numbers.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// Values, nulls aside.
    pub(super) values: usize,
    /// Values that are numbers.
    pub(super) fitting: usize,
    /// The first that isn't one.
    pub(super) misfit: Option<String>,
    /// Whether all that aren't are the same text, as a sign for null would be.
    pub(super) has_one_misfit: bool,
    /// The first number with leading zeros.
    zero_led: Option<String>,
    whole_digits: usize,
    scale: usize,
    /// Least digits after the point among numbers that have any.
    least_scale: Option<usize>,
    has_exponent: bool,
    /// Whether a separator is seen where none between thousands can be.
    is_clear: bool,
}

/// One number's digits.
struct Number {
    whole_digits: usize,
    fraction_digits: Option<usize>,
    has_exponent: bool,
    is_zero_led: bool,
    is_zero: bool,
}

impl Numbers {
    /// Looks at every cell. Without `any_exponent`, `12E5` is a code: exponents need a point or a sign.
    pub(super) fn of(cells: &[Option<&str>], separator: char, any_exponent: bool) -> Self {
        let mut all = Self { has_one_misfit: true, ..Self::default() };
        for text in cells.iter().flatten() {
            all.values += 1;
            match number(text, separator, any_exponent) {
                Some(number) => all.add(text, &number),
                None => {
                    all.has_one_misfit &= all.misfit.as_ref().is_none_or(|known| known == text);
                    all.misfit.get_or_insert_with(|| text.to_string());
                }
            }
        }
        all
    }

    fn add(&mut self, text: &str, number: &Number) {
        self.fitting += 1;
        self.whole_digits = self.whole_digits.max(number.whole_digits);
        self.has_exponent |= number.has_exponent;
        if number.is_zero_led && self.zero_led.is_none() {
            self.zero_led = Some(text.to_string());
        }
        if let Some(digits) = number.fraction_digits {
            self.scale = self.scale.max(digits);
            self.least_scale = Some(self.least_scale.map_or(digits, |least| least.min(digits)));
            self.is_clear |= digits != 3 || number.is_zero || number.whole_digits > 3;
        }
    }

    /// Whether there are values, and all of them are numbers, codes with leading zeros included.
    pub(super) fn is_all(&self) -> bool {
        self.values > 0 && self.fitting == self.values
    }

    fn has_fractions(&self) -> bool {
        self.least_scale.is_some()
    }

    /// Types that hold the numbers, the better first; none where they are codes, with why.
    pub(super) fn types(&self) -> Result<Vec<SqlType>, String> {
        if let Some(text) = &self.zero_led {
            return Err(format!("leading zeros, as in {}", super::yaml::shown(text)));
        }
        if self.has_exponent {
            return Ok(vec![SqlType::Double]);
        }
        if !self.has_fractions() {
            let long = (self.whole_digits <= MOST_DIGITS).then(|| decimal(self.whole_digits, 0));
            return Ok([SqlType::BigInt].into_iter().chain(long).collect());
        }
        if self.whole_digits + self.scale > MOST_DIGITS {
            return Err(format!("more than {MOST_DIGITS} digits"));
        }
        // Digits after the point that differ in number have had zeros cut off: there may be longer ones.
        let spare = if self.scale > MONEY_SCALE && self.least_scale < Some(self.scale) { 2 } else { 0 };
        let scale = (self.scale + spare).max(MONEY_SCALE);
        let scale = if self.whole_digits + scale > MOST_DIGITS { self.scale } else { scale };
        Ok(vec![decimal(self.whole_digits, scale)])
    }
}

fn decimal(whole: usize, scale: usize) -> SqlType {
    let precision = (whole + scale + SPARE_DIGITS).clamp(LEAST_PRECISION, MOST_DIGITS);
    SqlType::Decimal(u8::try_from(precision).unwrap_or(38), i8::try_from(scale).unwrap_or(0))
}

/// The decimal separator of a file: a comma only where some column is clear about it and none against it.
pub(super) fn separator<'a>(columns: impl Iterator<Item = &'a [Option<&'a str>]>) -> char {
    let mut is_comma = false;
    for cells in columns {
        let (point, comma) = (Numbers::of(cells, '.', false), Numbers::of(cells, ',', false));
        if point.is_all() && point.has_fractions() && point.is_clear {
            return '.';
        }
        is_comma |= comma.is_all() && comma.has_fractions() && comma.is_clear && comma.zero_led.is_none();
    }
    if is_comma { ',' } else { '.' }
}

/// Whether all texts would be numbers with commas in them, which may stand between thousands or before decimals.
pub(super) fn is_unclear(cells: &[Option<&str>]) -> bool {
    let comma = Numbers::of(cells, ',', false);
    comma.is_all() && comma.has_fractions()
}

fn number(text: &str, separator: char, any_exponent: bool) -> Option<Number> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once(separator) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(whole)
        || !are_digits(fraction.unwrap_or_default())
        || whole.len() + fraction.map_or(0, str::len) == 0
    {
        return None;
    }
    if let Some(exponent) = exponent {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let is_told = any_exponent || fraction.is_some() || digits.len() < exponent.len();
        if digits.is_empty() || !are_digits(digits) || !is_told {
            return None;
        }
    }
    Some(Number {
        whole_digits: whole.trim_start_matches('0').len(),
        fraction_digits: fraction.map(str::len),
        has_exponent: exponent.is_some(),
        is_zero_led: whole.len() > 1 && whole.starts_with('0'),
        is_zero: whole.is_empty() || whole == "0",
    })
}
