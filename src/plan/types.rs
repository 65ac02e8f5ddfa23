//! Types: of a contract, of a stored column, and values read from text by their type. Knows no SQL and no files.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Fields, TimeUnit};
use chrono::{FixedOffset, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, Offset as _, TimeDelta, TimeZone as _};
use chrono_tz::GapInfo;
use datafusion::common::ScalarValue;

use crate::spec::sql_type::field_name;

/// The type that a model's column of type `computed` is stored as, or why it can't be.
///
/// Times become microseconds, instants stand in the project's zone, text and bytes become views, small unsigned
/// integers the next signed type, `unsigned64` (what a 64-bit unsigned integer is stored as) is the caller's choice, a time
/// of day becomes text (`hh:mm:ss`), since a Delta table has no such type.
pub fn stored_type(computed: &DataType, zone: &Arc<str>, unsigned64: &DataType) -> Result<DataType, String> {
    let nested = |field: &Arc<Field>| -> Result<Arc<Field>, String> {
        let stored = stored_type(field.data_type(), zone, unsigned64)?;
        Ok(Arc::new(Field::new(field.name(), stored, field.is_nullable())))
    };
    Ok(match computed {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::BinaryView
        }
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => unsigned64.clone(),
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Utf8View,
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::clone(zone))),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) if *s >= 0 => {
            DataType::Decimal128(*p, *s)
        }
        DataType::Decimal256(p, s) if *p <= DECIMAL128_MAX_PRECISION && *s >= 0 => DataType::Decimal128(*p, *s),
        DataType::Decimal256(..) => return Err("has more than the 38 digits that a decimal can hold".into()),
        DataType::Dictionary(_, values) => stored_type(values, zone, unsigned64)?,
        DataType::RunEndEncoded(_, values) => stored_type(values.data_type(), zone, unsigned64)?,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => DataType::List(nested(item)?),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(nested).collect::<Result<Fields, _>>()?),
        DataType::Map(entries, sorted) => DataType::Map(nested(entries)?, *sorted),
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32 => computed.clone(),
        DataType::Null => return Err("is always null and has no type".into()),
        DataType::Interval(_) | DataType::Duration(_) => return Err("is an interval, which a table can't hold".into()),
        other => return Err(format!("has the type {}, which a table can't hold", sql_name(other))),
    })
}

/// A type as users write it.
pub fn sql_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".into(),
        DataType::Int8 => "tinyint".into(),
        DataType::Int16 => "smallint".into(),
        DataType::Int32 => "integer".into(),
        DataType::Int64 => "bigint".into(),
        DataType::UInt8 => "tinyint unsigned".into(),
        DataType::UInt16 => "smallint unsigned".into(),
        DataType::UInt32 => "integer unsigned".into(),
        DataType::UInt64 => "bigint unsigned".into(),
        DataType::Float16 | DataType::Float32 => "real".into(),
        DataType::Float64 => "double".into(),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => format!("decimal({p}, {s})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "bytea".into()
        }
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::Time32(_) | DataType::Time64(_) => "time".into(),
        DataType::Timestamp(_, None) => "timestamp".into(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".into(),
        DataType::Interval(_) | DataType::Duration(_) => "interval".into(),
        DataType::Null => "null".into(),
        DataType::Dictionary(_, values) => sql_name(values),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("{}[]", sql_name(item.data_type()))
        }
        DataType::Struct(fields) => {
            let fields =
                fields.iter().map(|field| format!("{} {}", field_name(field.name()), sql_name(field.data_type())));
            format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// Reads `text` as a value of `data_type`; zoneless text read as an instant stands in `zone`.
/// Nothing is rounded: what the type can't hold exactly is an error, worded to follow "the value".
pub fn parse_value(text: &str, data_type: &DataType, zone: &Arc<str>) -> Result<ScalarValue, String> {
    let wrong = || format!("`{text}` isn't a {}", sql_name(data_type));
    let trimmed = text.trim();
    Ok(match data_type {
        DataType::Utf8 => ScalarValue::Utf8(Some(text.to_owned())),
        DataType::LargeUtf8 => ScalarValue::LargeUtf8(Some(text.to_owned())),
        DataType::Utf8View => ScalarValue::Utf8View(Some(text.to_owned())),
        DataType::Binary => ScalarValue::Binary(Some(text.as_bytes().to_vec())),
        DataType::Boolean => match trimmed.to_ascii_lowercase().as_str() {
            "true" | "t" => ScalarValue::Boolean(Some(true)),
            "false" | "f" => ScalarValue::Boolean(Some(false)),
            _ => return Err(wrong()),
        },
        DataType::Int8 => ScalarValue::Int8(Some(trimmed.parse().map_err(|_| wrong())?)),
        DataType::Int16 => ScalarValue::Int16(Some(trimmed.parse().map_err(|_| wrong())?)),
        DataType::Int32 => ScalarValue::Int32(Some(trimmed.parse().map_err(|_| wrong())?)),
        DataType::Int64 => ScalarValue::Int64(Some(trimmed.parse().map_err(|_| wrong())?)),
        DataType::Float32 => ScalarValue::Float32(Some(trimmed.parse().map_err(|_| wrong())?)),
        DataType::Float64 => ScalarValue::Float64(Some(trimmed.parse().map_err(|_| wrong())?)),
        DataType::Decimal128(precision, scale) => {
            let value = parse_decimal(trimmed, *precision, *scale).ok_or_else(wrong)?;
            ScalarValue::Decimal128(Some(value), *precision, *scale)
        }
        DataType::Date32 => {
            let date = NaiveDate::parse_from_str(trimmed, "%Y-%m-%d").map_err(|_| wrong())?;
            let days = date.signed_duration_since(NaiveDate::default()).num_days();
            ScalarValue::Date32(Some(i32::try_from(days).map_err(|_| wrong())?))
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            let since_midnight = parse_time(trimmed).ok_or_else(wrong)?.signed_duration_since(NaiveTime::MIN);
            ScalarValue::Time64Microsecond(since_midnight.num_microseconds())
        }
        DataType::Timestamp(TimeUnit::Microsecond, None) => match parse_timestamp(trimmed).ok_or_else(wrong)? {
            (local, None) => ScalarValue::TimestampMicrosecond(Some(local.and_utc().timestamp_micros()), None),
            (_, Some(_)) => return Err(format!("`{text}` has a zone, and a timestamp has none")),
        },
        DataType::Timestamp(TimeUnit::Microsecond, Some(tz)) => {
            let us = parse_instant(trimmed, zone).ok_or_else(wrong)?;
            ScalarValue::TimestampMicrosecond(Some(us), Some(Arc::clone(tz)))
        }
        other => return Err(format!("`{text}` can't be read as a {}", sql_name(other))),
    })
}

/// Reads an ISO 8601 instant; without an offset it stands in `zone`: gap forward, fold earlier. Microseconds since 1970 UTC.
pub fn parse_instant(text: &str, zone: &str) -> Option<i64> {
    let (local, offset) = parse_timestamp(text)?;
    let utc = match offset {
        Some(offset) => local.checked_sub_signed(offset)?,
        None => local_to_utc(local, zone.parse().ok()?)?,
    };
    Some(utc.and_utc().timestamp_micros())
}

/// A wall-clock time of `zone`, an IANA name, as an instant: gap forward, fold earlier. Both in microseconds, since 1970 there
/// and since 1970 UTC.
pub fn instant_of_wall_clock(local_us: i64, zone: &str) -> Option<i64> {
    let local = chrono::DateTime::from_timestamp_micros(local_us)?.naive_utc();
    Some(local_to_utc(local, zone.parse().ok()?)?.and_utc().timestamp_micros())
}

/// A wall-clock time of `zone` in UTC, by [`offset_of_wall_clock`].
fn local_to_utc(local: NaiveDateTime, zone: chrono_tz::Tz) -> Option<NaiveDateTime> {
    local.checked_sub_offset(offset_of_wall_clock(&local, zone))
}

/// The offset that a wall-clock time of `zone` is read with: in a gap that before it, so that the time goes forward by the gap;
/// of a time that comes twice that of the earlier.
pub fn offset_of_wall_clock(local: &NaiveDateTime, zone: chrono_tz::Tz) -> FixedOffset {
    match zone.offset_from_local_datetime(local) {
        LocalResult::Single(offset) | LocalResult::Ambiguous(offset, _) => offset.fix(),
        LocalResult::None => match GapInfo::new(local, &zone).and_then(|gap| gap.begin) {
            Some((_, offset)) => offset.fix(),
            // Every gap begins somewhere.
            None => zone.offset_from_utc_datetime(local).fix(),
        },
    }
}

/// Date, optional time, optional offset.
fn parse_timestamp(text: &str) -> Option<(NaiveDateTime, Option<TimeDelta>)> {
    let date = NaiveDate::parse_from_str(text.get(..10)?, "%Y-%m-%d").ok()?;
    let rest = &text[10..];
    if rest.is_empty() {
        return Some((date.and_time(NaiveTime::MIN), None));
    }
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time, offset) = match rest.find(['Z', 'z', '+', '-', 'U']) {
        Some(at) => (rest[..at].trim_end(), Some(parse_offset(&rest[at..])?)),
        None => (rest, None),
    };
    Some((date.and_time(parse_time(time)?), offset))
}

fn parse_time(text: &str) -> Option<NaiveTime> {
    if let Some((_, fraction)) = text.split_once('.')
        && fraction.trim_end_matches('0').len() > 6
    {
        return None;
    }
    ["%H:%M:%S%.f", "%H:%M"].iter().find_map(|format| NaiveTime::parse_from_str(text, format).ok())
}

fn parse_offset(text: &str) -> Option<TimeDelta> {
    if matches!(text, "Z" | "z" | "UTC") {
        return Some(TimeDelta::zero());
    }
    let negative = text.starts_with('-');
    let digits: String = text.get(1..)?.chars().filter(|c| *c != ':').collect();
    if digits.len() != 2 && digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let hours: i64 = digits[..2].parse().ok()?;
    let minutes: i64 = if digits.len() == 4 { digits[2..].parse().ok()? } else { 0 };
    let offset = TimeDelta::minutes(hours * 60 + minutes);
    Some(if negative { -offset } else { offset })
}

/// Exact: digits behind the scale must be zeros, and all must fit the precision.
fn parse_decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let scale = usize::try_from(scale).ok()?;
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > scale {
        return None;
    }
    let unscaled = format!("{whole}{fraction:0<scale$}");
    let unscaled = unscaled.trim_start_matches('0');
    if unscaled.len() > usize::from(precision) {
        return None;
    }
    let value: i128 = if unscaled.is_empty() { 0 } else { unscaled.parse().ok()? };
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Arc<str> {
        "America/Sao_Paulo".into()
    }

    #[test]
    fn decimals_are_exact() {
        let parse = |text: &str| parse_value(text, &DataType::Decimal128(5, 2), &zone());
        assert_eq!(parse("10.00"), Ok(ScalarValue::Decimal128(Some(1000), 5, 2)));
        assert_eq!(parse("-0.5"), Ok(ScalarValue::Decimal128(Some(-50), 5, 2)));
        assert_eq!(parse("7.100"), Ok(ScalarValue::Decimal128(Some(710), 5, 2)));
        assert_eq!(parse("58.999"), Err("`58.999` isn't a decimal(5, 2)".into()));
        assert!(parse("1000").is_err());
        assert!(parse("1e3").is_err());
        assert!(parse("").is_err());
    }

    #[test]
    fn instants_stand_in_the_zone() {
        let hours = |text: &str| parse_instant(text, "America/Sao_Paulo").map(|us| us / 3_600_000_000);
        assert_eq!(hours("1970-01-01"), Some(3));
        assert_eq!(hours("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(hours("1970-01-01 02:00:00+02:00"), Some(0));
        assert_eq!(hours("1970-01-01 02:00:00 UTC"), Some(2));
        // 2018-11-04 has no 00:00 to 01:00 there: forward. On 2018-02-17, 23:30 comes twice: the earlier.
        assert_eq!(
            parse_instant("2018-11-04 00:30", "America/Sao_Paulo"),
            parse_instant("2018-11-04T03:30:00Z", "UTC")
        );
        assert_eq!(
            parse_instant("2018-02-17 23:30", "America/Sao_Paulo"),
            parse_instant("2018-02-18T01:30:00Z", "UTC")
        );
        assert_eq!(hours("1970-01-01 25:00"), None);
        // Samoa had no 30 December 2011.
        assert_eq!(
            parse_instant("2011-12-30 12:00", "Pacific/Apia"),
            parse_instant("2011-12-31 12:00", "Pacific/Apia")
        );
    }

    #[test]
    fn stored_types_are_what_a_table_can_hold() {
        let stored = |t: DataType| stored_type(&t, &zone(), &DataType::Int64);
        assert_eq!(stored(DataType::Utf8), Ok(DataType::Utf8View));
        assert_eq!(
            stored(DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))),
            Ok(DataType::Timestamp(TimeUnit::Microsecond, Some(zone())))
        );
        assert_eq!(
            stored(DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))),
            Ok(DataType::Utf8View)
        );
        assert!(stored(DataType::Null).is_err());
        assert!(stored(DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano)).is_err());
    }
}
