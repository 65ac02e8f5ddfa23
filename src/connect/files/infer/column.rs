//! The type of a column by its texts. A type is only given where the decoder takes every value as it.

use arrow::datatypes::DataType;

use super::nested;
use super::numbers::{self, Numbers};
use super::times::{self, Order, Times};
use super::yaml::shown;
use crate::connect::decode::{ColumnReader, parse_column};
use crate::connect::quarantine::META_COLUMNS;
use crate::error::Result;
use crate::plan::HIDDEN_COLUMNS;
use crate::spec::sql_type::SqlType;

/// Endings in `id` of words that identify nothing.
const NO_IDENTIFIERS: [&str; 8] = ["paid", "valid", "void", "bid", "grid", "liquid", "solid", "hybrid"];

/// What the format says of a column's values beyond their texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing: all values are texts.
    Unknown,
    /// They are strings, and not numbers or booleans even where they look like it.
    String,
    /// They are numbers.
    Number,
    /// They are true or false.
    Boolean,
    /// They are objects or lists.
    Nested,
    /// They differ.
    Mixed,
}

/// A column's type and how sure it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Guess {
    pub(super) data_type: SqlType,
    pub(super) timestamp_format: Option<String>,
    pub(super) note: Option<String>,
    /// What stands first in its dates, where values tell it.
    pub(super) order: Option<Order>,
    /// Formats with the month and with the day first, and the type, where values don't tell which is meant.
    pub(super) unclear: Option<(String, String, SqlType)>,
}

impl Guess {
    pub(super) fn of(data_type: SqlType, note: Option<String>) -> Self {
        Self { data_type, timestamp_format: None, note, order: None, unclear: None }
    }

    fn text(note: impl Into<Option<String>>) -> Self {
        Self::of(SqlType::Text, note.into())
    }
}

/// The type of a column; `separator` is the file's decimal separator.
///
/// # Errors
/// None but bugs of ours.
pub(super) fn guess(cells: &[Option<&str>], kind: Kind, separator: char) -> Result<Guess> {
    if cells.iter().all(Option::is_none) {
        return Ok(Guess::text("no value in the sample".to_string()));
    }
    match kind {
        Kind::Nested => return nested::guess_nested(cells),
        Kind::Mixed => return Ok(Guess::text("values of more than one JSON type".to_string())),
        Kind::Boolean => return Ok(Guess::of(SqlType::Boolean, None)),
        Kind::Unknown if are_booleans(cells) => return Ok(Guess::of(SqlType::Boolean, None)),
        Kind::Unknown | Kind::Number => {
            if let Some(guess) = guess_number(cells, separator, kind == Kind::Number)? {
                return Ok(guess);
            }
        }
        Kind::String => {}
    }
    guess_time(cells)
}

fn guess_number(cells: &[Option<&str>], separator: char, any_exponent: bool) -> Result<Option<Guess>> {
    let numbers = Numbers::of(cells, separator, any_exponent);
    if numbers.is_all() {
        let types = match numbers.types() {
            Ok(types) => types,
            Err(why) => return Ok(Some(Guess::text(why))),
        };
        for data_type in types {
            if fits(cells, &data_type, None, separator)? {
                return Ok(Some(Guess::of(data_type, None)));
            }
        }
        return Ok(Some(Guess::text("numbers that no type holds exactly".to_string())));
    }
    if separator == '.' && numbers::is_unclear(cells) {
        return Ok(Some(Guess::text("commas may stand before decimals or between thousands".to_string())));
    }
    // Nearly all are numbers: say what the others are, so that it can be mended.
    let Some(misfit) = numbers.misfit.as_ref().filter(|_| numbers.fitting * 10 >= numbers.values * 9) else {
        return Ok(None);
    };
    let misfits = numbers.values - numbers.fitting;
    let hint = if numbers.has_one_misfit { "; if it means null, name it in `null_values`" } else { "" };
    let note =
        format!("{misfits} of {} sampled values aren't numbers, such as {}{hint}", numbers.values, shown(misfit));
    Ok(Some(Guess::text(note)))
}

fn guess_time(cells: &[Option<&str>]) -> Result<Guess> {
    Ok(match times::find(cells)? {
        Times::Iso { data_type, note } => Guess::of(data_type, note),
        Times::Format { data_type, format, order } => {
            Guess { timestamp_format: Some(format), order, ..Guess::of(data_type, None) }
        }
        Times::Unclear { data_type, month_first, day_first } => {
            let note = format!("no value tells whether month or day comes first: {month_first} or {day_first}");
            Guess { unclear: Some((month_first, day_first, data_type)), ..Guess::text(note) }
        }
        Times::None(why) => Guess::text(why.map(|why| format!("not a time: {}", shown(&why)))),
    })
}

/// Dates whose order no value tells follow the other columns of their file, where those all have one order.
pub(super) fn settle_orders(guesses: &mut [(String, Guess)]) {
    let told: Vec<(String, Order)> =
        guesses.iter().filter_map(|(name, guess)| guess.order.map(|order| (name.clone(), order))).collect();
    let Some((witness, order)) = told.first().filter(|(_, first)| told.iter().all(|(_, order)| order == first)) else {
        return;
    };
    for (_, guess) in guesses {
        if let Some((month_first, day_first, data_type)) = guess.unclear.take() {
            let (format, words) = match order {
                Order::MonthFirst => (month_first, "month first"),
                Order::DayFirst => (day_first, "day first"),
            };
            guess.note = Some(format!("{words}, as in {}", shown(witness)));
            guess.timestamp_format = Some(format);
            guess.data_type = data_type;
        }
    }
}

/// Whether texts are numbers, times or booleans, whatever the decimal separator.
///
/// # Errors
/// None but bugs of ours.
pub(super) fn is_typed(cells: &[Option<&str>]) -> Result<bool> {
    if cells.iter().all(Option::is_none) {
        return Ok(false);
    }
    if are_booleans(cells) || ['.', ','].iter().any(|separator| Numbers::of(cells, *separator, false).is_all()) {
        return Ok(true);
    }
    Ok(!matches!(times::find(cells)?, Times::None(_)))
}

/// Whether a column may be taken to be never null: it identifies rows, and none lacks it.
pub(super) fn is_identifier(name: &str) -> bool {
    let lower = name.to_lowercase();
    let last = lower.rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    last.ends_with("id") && !NO_IDENTIFIERS.iter().any(|word| last.ends_with(word))
}

/// Whether Tidemill adds a column of this name to sources or quarantine tables by itself.
pub(super) fn is_reserved(name: &str) -> bool {
    META_COLUMNS.contains(&name) || HIDDEN_COLUMNS.contains(&name)
}

fn are_booleans(cells: &[Option<&str>]) -> bool {
    cells.iter().flatten().all(|text| text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false"))
}

/// Whether the decoder takes every cell as this type.
///
/// # Errors
/// None but bugs of ours.
pub(super) fn fits(cells: &[Option<&str>], data_type: &SqlType, format: Option<&str>, separator: char) -> Result<bool> {
    Ok(first_fault(cells, data_type, format, separator)?.is_none())
}

/// Why the decoder doesn't take the first cell that it doesn't take.
///
/// # Errors
/// None but bugs of ours.
pub(super) fn first_fault(
    cells: &[Option<&str>],
    data_type: &SqlType,
    format: Option<&str>,
    separator: char,
) -> Result<Option<String>> {
    let arrow: DataType = data_type.to_arrow("UTC");
    let reader = ColumnReader::new(&arrow, format, "UTC", separator)?.declared(data_type);
    let (_, faults) = parse_column(&reader, cells.iter().copied(), cells.len());
    Ok(faults.into_iter().next().map(|misfit| misfit.reason()))
}
