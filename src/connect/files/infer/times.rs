//! How a column's dates and times are written. Day or month first is decided by values, never by custom.

use super::column::{first_fault, fits};
use crate::error::Result;
use crate::spec::sql_type::SqlType;

/// Values that a format must fit before all are tried.
const PROBE_VALUES: usize = 20;
/// Characters of the shortest and the longest time: `1/2/17`, and a long month with zone and fraction.
const TIME_CHARACTERS: std::ops::RangeInclusive<usize> = 6..=48;

/// What times a column has.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Times {
    /// In ISO 8601.
    Iso { data_type: SqlType, note: Option<String> },
    /// As a strftime format says.
    Format { data_type: SqlType, format: String, order: Option<Order> },
    /// Day and month may each stand first.
    Unclear { data_type: SqlType, month_first: String, day_first: String },
    /// None, and why if many are.
    None(Option<String>),
}

/// What stands first in dates such as `1/2/2017`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    MonthFirst,
    DayFirst,
}

/// A way to write dates.
struct DateStyle {
    format: &'static str,
    order: Option<Order>,
    /// Digits that the year is written with, and characters around them that end them.
    year_digits: usize,
}

const fn style(format: &'static str, order: Option<Order>, year_digits: usize) -> DateStyle {
    DateStyle { format, order, year_digits }
}

/// Two-digit years only with slashes: elsewhere they are versions and codes. Dots are written day first everywhere.
const DATES: [DateStyle; 17] = [
    style("%m/%d/%Y", Some(Order::MonthFirst), 4),
    style("%d/%m/%Y", Some(Order::DayFirst), 4),
    style("%m-%d-%Y", Some(Order::MonthFirst), 4),
    style("%d-%m-%Y", Some(Order::DayFirst), 4),
    style("%m/%d/%y", Some(Order::MonthFirst), 2),
    style("%d/%m/%y", Some(Order::DayFirst), 2),
    style("%d.%m.%Y", None, 4),
    style("%Y-%m-%d", None, 4),
    style("%Y/%m/%d", None, 4),
    style("%Y.%m.%d", None, 4),
    style("%d-%b-%Y", None, 4),
    style("%d-%b-%y", None, 2),
    style("%d %b %Y", None, 4),
    style("%d %B %Y", None, 4),
    style("%b %d, %Y", None, 4),
    style("%B %d, %Y", None, 4),
    style("%d/%b/%Y", None, 4),
];

/// Ways to write the time of day after a date, shorter ones first.
const CLOCKS: [&str; 9] =
    ["", "%H:%M", "%H:%M:%S", "%H:%M:%S%.f", "%I:%M %p", "%I:%M:%S %p", "%I:%M%p", "%H:%M:%S %z", "%H:%M:%S%z"];

/// What stands between date and time of day.
const JOINTS: [&str; 4] = [" ", "T", ", ", "  "];

/// Finds how the times of a column are written, if they are times.
///
/// # Errors
/// None but bugs of ours.
pub(super) fn find(cells: &[Option<&str>]) -> Result<Times> {
    let values: Vec<Option<&str>> = cells.iter().filter(|cell| cell.is_some()).copied().collect();
    let probe = &values[..values.len().min(PROBE_VALUES)];
    let may_be = |text: &&str| TIME_CHARACTERS.contains(&text.len()) && text.bytes().any(|byte| byte.is_ascii_digit());
    let Some(first) = probe.first().copied().flatten().filter(may_be) else { return Ok(Times::None(None)) };
    if let Some(times) = iso(&values, first)? {
        return Ok(times);
    }
    let mut found: Vec<(String, &DateStyle, SqlType)> = Vec::new();
    let mut nearly = None;
    for date in &DATES {
        let Some(clock) = clock_of(date, probe)? else { continue };
        let data_type = type_of(&clock);
        let format = format!("{}{clock}", date.format);
        match first_fault(&values, &data_type, Some(&format), '.')? {
            None if has_years(&values, date.year_digits) => found.push((format, date, data_type)),
            None => {}
            Some(fault) => {
                // Seconds or fractions may come later in the column.
                match later_clock(date, &clock, &values)? {
                    Some(clock) => found.push((format!("{}{clock}", date.format), date, type_of(&clock))),
                    None => drop(nearly.get_or_insert(fault)),
                }
            }
        }
    }
    Ok(match found.as_slice() {
        [] => Times::None(nearly),
        [(format, date, data_type)] => {
            Times::Format { data_type: data_type.clone(), format: format.clone(), order: date.order }
        }
        all => {
            let of = |order| all.iter().find(|(_, date, _)| date.order == Some(order));
            match (of(Order::MonthFirst), of(Order::DayFirst)) {
                (Some((month_first, _, data_type)), Some((day_first, _, _))) => Times::Unclear {
                    data_type: data_type.clone(),
                    month_first: month_first.clone(),
                    day_first: day_first.clone(),
                },
                // Short and long names of months agree where all are in May.
                _ => Times::Format { data_type: all[0].2.clone(), format: all[0].0.clone(), order: all[0].1.order },
            }
        }
    })
}

/// Times in ISO 8601; a reason where they nearly are.
fn iso(values: &[Option<&str>], first: &str) -> Result<Option<Times>> {
    let found = |data_type, note| Ok(Some(Times::Iso { data_type, note }));
    if fits(values, &SqlType::Date, None, '.')? {
        return found(SqlType::Date, None);
    }
    if fits(values, &SqlType::Timestamp, None, '.')? {
        return found(SqlType::Timestamp, None);
    }
    let Some(fault) = first_fault(values, &SqlType::TimestampTz, None, '.')? else {
        let mut zoneless = 0;
        for value in values {
            zoneless += usize::from(fits(&[*value], &SqlType::Timestamp, None, '.')?);
        }
        let note = (zoneless > 0).then(|| {
            format!(
                "{zoneless} of {} sampled values have no zone: they are read in the project's, or `timestamp_zone`",
                values.len()
            )
        });
        return found(SqlType::TimestampTz, note);
    };
    // A column that starts as ISO 8601 has no other format.
    let is_iso = fits(&[Some(first)], &SqlType::TimestampTz, None, '.')? || fault.contains("digits of a second");
    Ok(is_iso.then_some(Times::None(Some(fault))))
}

/// The first way to write the time of day, with what joins it to the date, that fits all of `probe`.
fn clock_of(date: &DateStyle, probe: &[Option<&str>]) -> Result<Option<String>> {
    let first = &probe[..1];
    for joint in JOINTS {
        for clock in CLOCKS {
            let end = if clock.is_empty() { String::new() } else { format!("{joint}{clock}") };
            let format = format!("{}{end}", date.format);
            // Most formats fail on one value.
            if fits(first, &type_of(&end), Some(&format), '.')? && has_years(first, date.year_digits) {
                let longer = fits(probe, &type_of(&end), Some(&format), '.')?;
                return Ok(if longer { Some(end) } else { later_clock(date, &end, probe)?.or(Some(end)) });
            }
        }
    }
    Ok(None)
}

/// A time of day with optional fractions of a second, where `clock` has none.
fn later_clock(date: &DateStyle, clock: &str, values: &[Option<&str>]) -> Result<Option<String>> {
    if !clock.ends_with("%S") {
        return Ok(None);
    }
    let clock = format!("{clock}%.f");
    let format = format!("{}{clock}", date.format);
    let all = fits(values, &SqlType::Timestamp, Some(&format), '.')? && has_years(values, date.year_digits);
    Ok(all.then_some(clock))
}

fn type_of(clock: &str) -> SqlType {
    match clock {
        "" => SqlType::Date,
        _ if clock.ends_with("%z") => SqlType::TimestampTz,
        _ => SqlType::Timestamp,
    }
}

/// Whether each value has a year of so many digits: the formats themselves would take 17 for the year 17.
fn has_years(values: &[Option<&str>], digits: usize) -> bool {
    values.iter().flatten().all(|text| {
        let date = text.split(':').next().unwrap_or_default();
        let longest = date.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
        longest == digits || digits == 2 && longest == 1
    })
}
