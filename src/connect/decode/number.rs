//! Exact numbers from text: nothing is rounded.

use std::borrow::Cow;

/// Digits of a decimal text without its point, and how many of them stand after the point.
struct Digits {
    value: i128,
    scale: i32,
}

/// Reads `-12.50`, `1e3`, `.5`; the value and the digits after the point, trailing zeros cut.
fn digits(text: &str, separator: char) -> Option<Digits> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].strip_prefix('+').unwrap_or(&text[at + 1..]).parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, unsigned) = match mantissa.as_bytes().first()? {
        b'-' => (true, &mantissa[1..]),
        b'+' => (false, &mantissa[1..]),
        _ => (false, mantissa),
    };
    let (whole, fraction) = unsigned.split_once(separator).unwrap_or((unsigned, ""));
    let fraction = fraction.trim_end_matches('0');
    if whole.is_empty() && !unsigned.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut value: i128 = 0;
    for byte in whole.bytes().chain(fraction.bytes()) {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
    }
    let scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    Some(Digits { value: if negative { -value } else { value }, scale })
}

/// Digits that fit into 64 bits whatever they are.
const SHORT_DIGITS: usize = 18;

/// Reads a decimal of few digits, not more of them after the point than `scale`, which most are, as its unscaled value.
fn short_decimal(text: &str, precision: u8, scale: i8, separator: char) -> Option<i64> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mut value, mut digits, mut point) = (0_i64, 0, None);
    if unsigned.len() > SHORT_DIGITS {
        return None;
    }
    for byte in unsigned.bytes() {
        if byte.is_ascii_digit() {
            value = value * 10 + i64::from(byte - b'0');
            digits += 1;
        } else if point.is_none() && u32::from(byte) == u32::from(separator) {
            point = Some(digits);
        } else {
            return None;
        }
    }
    let fraction = digits - point.unwrap_or(digits);
    let missing = u32::try_from(scale).ok()?.checked_sub(fraction)?;
    let unscaled = value.checked_mul(10_i64.checked_pow(missing)?)?;
    let fits = 10_i64.checked_pow(precision.into()).is_none_or(|limit| unscaled < limit);
    (digits > 0 && fits).then_some(if unsigned.len() < text.len() { -unscaled } else { unscaled })
}

/// Reads a decimal of `precision` digits, `scale` of them after the point, as its unscaled value.
///
/// # Errors
/// Why it isn't one, to follow the text.
pub(super) fn decimal(text: &str, precision: u8, scale: i8, separator: char) -> Result<i128, String> {
    match short_decimal(text, precision, scale, separator) {
        Some(value) => Ok(value.into()),
        None => long_decimal(text, precision, scale, separator),
    }
}

fn long_decimal(text: &str, precision: u8, scale: i8, separator: char) -> Result<i128, String> {
    let not_a_number = || "isn't a number".to_string();
    let Digits { mut value, scale: mut has } = digits(text, separator).ok_or_else(not_a_number)?;
    while has > 0 && value % 10 == 0 && value != 0 {
        value /= 10;
        has -= 1;
    }
    if value == 0 {
        return Ok(0);
    }
    let missing = i32::from(scale) - has;
    if missing < 0 {
        return Err(format!("doesn't fit decimal({precision}, {scale}): {has} digits after the point"));
    }
    let too_large = || format!("doesn't fit decimal({precision}, {scale}): too many digits before the point");
    let power = u32::try_from(missing).ok().filter(|power| *power <= 38).ok_or_else(too_large)?;
    let unscaled = 10_i128.checked_pow(power).and_then(|factor| value.checked_mul(factor)).ok_or_else(too_large)?;
    let limit = 10_i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX);
    if unscaled.unsigned_abs() < limit.unsigned_abs() { Ok(unscaled) } else { Err(too_large()) }
}

/// Reads a whole number between `low` and `high`; `5.0` and `1e2` are whole.
///
/// # Errors
/// Why it isn't one, to follow the text.
pub(super) fn integer(text: &str, low: i64, high: i64, separator: char) -> Result<i64, String> {
    if let Ok(value) = text.parse::<i64>() {
        return if (low..=high).contains(&value) { Ok(value) } else { Err(out_of_range(low, high)) };
    }
    let Digits { value, scale } = digits(text, separator).ok_or_else(|| "isn't a whole number".to_string())?;
    let whole = match scale {
        0 => Some(value),
        1.. => {
            let factor = 10_i128.checked_pow(scale.unsigned_abs());
            match factor {
                Some(factor) if value % factor == 0 => Some(value / factor),
                _ => return Err("isn't a whole number".to_string()),
            }
        }
        _ => 10_i128.checked_pow(scale.unsigned_abs()).and_then(|factor| value.checked_mul(factor)),
    };
    whole
        .and_then(|whole| i64::try_from(whole).ok())
        .filter(|whole| (low..=high).contains(whole))
        .ok_or_else(|| out_of_range(low, high))
}

fn out_of_range(low: i64, high: i64) -> String {
    format!("is out of range: {low} to {high}")
}

/// Reads a floating-point number; digits beyond its precision are what such a type is about, but it must not overflow.
///
/// # Errors
/// Why it isn't one, to follow the text.
pub(super) fn float(text: &str, separator: char) -> Result<f64, String> {
    let point = if separator == '.' { Cow::Borrowed(text) } else { Cow::Owned(text.replace(separator, ".")) };
    match point.parse::<f64>() {
        Ok(value) if value.is_infinite() && !text.to_lowercase().contains("inf") => Err("is out of range".to_string()),
        Ok(value) => Ok(value),
        Err(_) => Err("isn't a number".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_or_refused() {
        let two = |text: &str| decimal(text, 12, 2, '.');
        for (text, value) in [
            ("58.90", 5890),
            ("58.9", 5890),
            ("58", 5800),
            ("-0.01", -1),
            (".5", 50),
            ("5.", 500),
            ("1e2", 10000),
            ("1.5E1", 1500),
            ("0.000", 0),
            ("58.9900", 5899),
            ("9999999999.99", 999_999_999_999),
            ("0e9", 0),
        ] {
            assert_eq!(two(text), Ok(value), "{text}");
        }
        assert_eq!(two("58.999"), Err("doesn't fit decimal(12, 2): 3 digits after the point".into()));
        assert_eq!(two("10000000000"), Err("doesn't fit decimal(12, 2): too many digits before the point".into()));
        for text in ["", "-", ".", "1,5", "1.2.3", "0x10", "1e", "NaN", " 1"] {
            assert!(two(text).is_err(), "{text}");
        }
        assert_eq!(decimal("1.234,5".replace('.', "").as_str(), 12, 2, ','), Ok(123_450));
        assert!(decimal("1e40", 38, 0, '.').is_err());
        assert_eq!(
            decimal("99999999999999999999999999999999999999", 38, 0, '.'),
            Ok(99_999_999_999_999_999_999_999_999_999_999_999_999)
        );
    }

    #[test]
    fn short_decimals_are_those_of_any_length() {
        for separator in ['.', ','] {
            for (precision, scale) in [(12, 2), (3, 3), (18, 0), (38, 10), (5, 5)] {
                for text in [
                    "0",
                    "-0",
                    "00.10",
                    "1",
                    "12",
                    "12.5",
                    "-12.50",
                    "12.505",
                    "999",
                    "1000",
                    "99999",
                    "-.5",
                    "5.",
                    ".",
                    "-",
                    "",
                    "+5",
                    "1e2",
                    "1.2.3",
                    "1,5",
                    "0.99999",
                    "999999999999999999",
                    "1234567890123456789",
                    "9999999999.99",
                ] {
                    let long = long_decimal(text, precision, scale, separator);
                    if let Some(short) = short_decimal(text, precision, scale, separator) {
                        assert_eq!(long, Ok(short.into()), "{text} as decimal({precision}, {scale})");
                    }
                    assert_eq!(decimal(text, precision, scale, separator), long, "{text}");
                }
            }
        }
    }

    #[test]
    fn integers_are_whole_and_in_range() {
        let small = |text: &str| integer(text, i64::from(i16::MIN), i64::from(i16::MAX), '.');
        assert_eq!((small("-32768"), small("5.0"), small("1e2"), small("007")), (Ok(-32768), Ok(5), Ok(100), Ok(7)));
        assert!(small("32768").unwrap_err().contains("out of range"));
        assert!(small("5.5").unwrap_err().contains("whole"));
        assert!(integer("9223372036854775808", i64::MIN, i64::MAX, '.').is_err());
        assert!(integer("1e400", i64::MIN, i64::MAX, '.').is_err());
    }

    #[test]
    fn floats_overflow_only_on_purpose() {
        assert_eq!(float("0,5", ','), Ok(0.5));
        assert!(float("1e999", '.').is_err());
        assert!(float("inf", '.').unwrap().is_infinite());
        assert!(float("five", '.').is_err());
    }
}
