//! The text of one value, for people and for JSON. Knows Arrow arrays and no format around them.
//!
//! | type | as text | as JSON |
//! |---|---|---|
//! | boolean, integers | `true`, `-7` | the same, 64 bits exact |
//! | decimal | full scale: `10.00` | a number with full scale |
//! | real, double | shortest that reads back: `0.1`, `1.0`, `1e300`, `NaN`, `Infinity` | the same; NaN and infinities are `null` |
//! | text | as it is | a string |
//! | bytea | `\x` and hex | base64 |
//! | date | `2018-08-31` | a string |
//! | time, timestamp | `22:00:00`, `2018-08-31T22:00:00.5`: a fraction only where there is one, without trailing zeros | a string |
//! | timestamptz | in UTC: `2018-09-01T01:00:00Z` | a string |
//! | list, struct, map | as JSON | array, object |
//! | interval, others | the engine's own text | a string |

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, GenericListArray, OffsetSizeTrait, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowNativeType, DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DecimalType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, DurationFormat, FormatOptions};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, NaiveDate, NaiveTime, Timelike};

use crate::engine::failure;
use crate::error::{Error, Result};

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Bare, for tables and CSV.
    Text,
    /// A JSON value.
    Json,
}

/// Writes the values of one column of a batch.
pub(crate) struct Cells {
    nulls: Option<NullBuffer>,
    write: WriteValue,
    style: Style,
}

type WriteValue = Box<dyn Fn(usize, &mut Vec<u8>) -> Result<()> + Send>;

impl Cells {
    /// Prepares the values of `array`.
    ///
    /// # Errors
    /// Internal, if a nested value of an encoding can't be decoded.
    pub(crate) fn new(array: &ArrayRef, style: Style) -> Result<Self> {
        let array = decoded(array)?;
        Ok(Self { nulls: array.logical_nulls(), write: writer_of(&array, style)?, style })
    }

    /// Whether the value of `row` is null.
    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// Appends the value of `row`. Null is `null` in JSON, and nothing as text.
    ///
    /// # Errors
    /// External, for a time that no calendar has.
    pub(crate) fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        match (self.is_null(row), self.style) {
            (false, _) => (self.write)(row, out),
            (true, Style::Json) => {
                out.extend_from_slice(b"null");
                Ok(())
            }
            (true, Style::Text) => Ok(()),
        }
    }
}

/// Whether columns of this type are read as numbers.
pub(crate) fn is_number(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_number(values),
        other => other.is_numeric(),
    }
}

/// Dictionaries and runs laid out plainly.
fn decoded(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Dictionary(_, values) => cast(array, values).map_err(|e| failure(e.into())),
        DataType::RunEndEncoded(_, values) => cast(array, values.data_type()).map_err(|e| failure(e.into())),
        _ => Ok(Arc::clone(array)),
    }
}

/// Appends a JSON string.
pub(crate) fn write_json_text(text: &str, out: &mut Vec<u8>) -> Result<()> {
    serde_json::to_writer(out, text).map_err(|e| Error::internal("a text can't be written as JSON").caused_by(e))
}

fn writer_of(array: &ArrayRef, style: Style) -> Result<WriteValue> {
    use DataType as T;
    Ok(match array.data_type() {
        T::Null => Box::new(|_, _| Ok(())),
        T::Boolean => {
            let values = array.as_boolean().clone();
            bare(move |row, out| put(out, values.value(row)))
        }
        T::Int8 => integers::<Int8Type>(array),
        T::Int16 => integers::<Int16Type>(array),
        T::Int32 => integers::<Int32Type>(array),
        T::Int64 => integers::<Int64Type>(array),
        T::UInt8 => integers::<UInt8Type>(array),
        T::UInt16 => integers::<UInt16Type>(array),
        T::UInt32 => integers::<UInt32Type>(array),
        T::UInt64 => integers::<UInt64Type>(array),
        T::Float16 => floats(array.as_primitive::<Float16Type>(), style, |v| v.to_f32()),
        T::Float32 => floats(array.as_primitive::<Float32Type>(), style, |v| v),
        T::Float64 => floats(array.as_primitive::<Float64Type>(), style, |v| v),
        T::Decimal32(..) => decimals::<Decimal32Type>(array),
        T::Decimal64(..) => decimals::<Decimal64Type>(array),
        T::Decimal128(..) => decimals::<Decimal128Type>(array),
        T::Decimal256(..) => decimals::<Decimal256Type>(array),
        T::Utf8 | T::LargeUtf8 | T::Utf8View => texts(array, style)?,
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => bytes(array, style)?,
        T::Date32 | T::Date64 | T::Time32(_) | T::Time64(_) | T::Timestamp(..) => times(array, style)?,
        T::List(_) => list(array.as_list::<i32>())?,
        T::LargeList(_) => list(array.as_list::<i64>())?,
        T::FixedSizeList(..) | T::ListView(_) | T::LargeListView(_) => as_plain_list(array)?,
        T::Struct(_) => objects(array)?,
        T::Map(..) => maps(array)?,
        _ => foreign(array, style),
    })
}

fn put(out: &mut Vec<u8>, value: impl fmt::Display) -> Result<()> {
    // Writing into memory can't fail.
    let _ = write!(out, "{value}");
    Ok(())
}

fn bare(write: impl Fn(usize, &mut Vec<u8>) -> Result<()> + Send + 'static) -> WriteValue {
    Box::new(write)
}

/// A value that is text in both styles: quoted in JSON. `write` must not make characters that JSON escapes.
fn quoted(style: Style, write: impl Fn(usize, &mut Vec<u8>) -> Result<()> + Send + 'static) -> WriteValue {
    match style {
        Style::Text => Box::new(write),
        Style::Json => Box::new(move |row, out| {
            out.push(b'"');
            write(row, out)?;
            out.push(b'"');
            Ok(())
        }),
    }
}

fn integers<T: ArrowPrimitiveType<Native: fmt::Display>>(array: &ArrayRef) -> WriteValue {
    let values = array.as_primitive::<T>().clone();
    bare(move |row, out| put(out, values.value(row)))
}

fn decimals<T: DecimalType>(array: &ArrayRef) -> WriteValue {
    let values = array.as_primitive::<T>().clone();
    bare(move |row, out| put(out, values.value_as_string(row)))
}

fn floats<T: ArrowPrimitiveType, F: Copy + Into<f64> + fmt::Debug + 'static>(
    array: &PrimitiveArray<T>,
    style: Style,
    read: impl Fn(T::Native) -> F + Send + 'static,
) -> WriteValue {
    let values = array.clone();
    bare(move |row, out| {
        let value = read(values.value(row));
        let wide: f64 = value.into();
        let special = match () {
            () if wide.is_nan() => "NaN",
            () if wide == f64::INFINITY => "Infinity",
            () if wide == f64::NEG_INFINITY => "-Infinity",
            // The narrow type's own shortest text: 0.1 stays 0.1 where a wider one would show 0.10000000149.
            () => return put(out, format_args!("{value:?}")),
        };
        put(out, if style == Style::Json { "null" } else { special })
    })
}

fn texts(array: &ArrayRef, style: Style) -> Result<WriteValue> {
    let array = cast(array, &DataType::LargeUtf8).map_err(|e| failure(e.into()))?;
    let values = array.as_string::<i64>().clone();
    Ok(match style {
        Style::Text => bare(move |row, out| {
            out.extend_from_slice(values.value(row).as_bytes());
            Ok(())
        }),
        Style::Json => bare(move |row, out| write_json_text(values.value(row), out)),
    })
}

fn bytes(array: &ArrayRef, style: Style) -> Result<WriteValue> {
    let array = cast(array, &DataType::LargeBinary).map_err(|e| failure(e.into()))?;
    let values = array.as_binary::<i64>().clone();
    Ok(match style {
        Style::Text => bare(move |row, out| {
            out.extend_from_slice(b"\\x");
            values.value(row).iter().try_for_each(|byte| put(out, format_args!("{byte:02x}")))
        }),
        Style::Json => quoted(style, move |row, out| put(out, BASE64.encode(values.value(row)))),
    })
}

fn times(array: &ArrayRef, style: Style) -> Result<WriteValue> {
    use TimeUnit as U;
    Ok(match array.data_type() {
        DataType::Date32 => each::<Date32Type>(array, style, |days, out| date(i64::from(days), out)),
        DataType::Date64 => each::<Date64Type>(array, style, |ms, out| date(ms.div_euclid(86_400_000), out)),
        DataType::Time32(U::Second) => each::<Time32SecondType>(array, style, |t, out| time(i64::from(t), 1, out)),
        DataType::Time32(_) => each::<Time32MillisecondType>(array, style, |t, out| time(i64::from(t), 1_000, out)),
        DataType::Time64(U::Nanosecond) => {
            each::<Time64NanosecondType>(array, style, |t, out| time(t, 1_000_000_000, out))
        }
        DataType::Time64(_) => each::<Time64MicrosecondType>(array, style, |t, out| time(t, 1_000_000, out)),
        DataType::Timestamp(unit, zone) => {
            // Arrow keeps instants in UTC whatever the zone's name is.
            let end = if zone.is_some() { "Z" } else { "" };
            match unit {
                U::Second => each::<TimestampSecondType>(array, style, move |t, out| timestamp(t, 1, end, out)),
                U::Millisecond => {
                    each::<TimestampMillisecondType>(array, style, move |t, out| timestamp(t, 1_000, end, out))
                }
                U::Microsecond => {
                    each::<TimestampMicrosecondType>(array, style, move |t, out| timestamp(t, 1_000_000, end, out))
                }
                U::Nanosecond => {
                    each::<TimestampNanosecondType>(array, style, move |t, out| timestamp(t, 1_000_000_000, end, out))
                }
            }
        }
        other => return Err(Error::internal(format!("{other} isn't a time"))),
    })
}

fn each<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    style: Style,
    write: impl Fn(T::Native, &mut Vec<u8>) -> Result<()> + Send + 'static,
) -> WriteValue {
    let values = array.as_primitive::<T>().clone();
    quoted(style, move |row, out| write(values.value(row), out))
}

fn no_such_time(value: i64) -> Error {
    Error::external(format!("a time in the result is outside of the calendar: {value}"))
}

fn date(days: i64, out: &mut Vec<u8>) -> Result<()> {
    // Days are counted from 1970, chrono counts from the year 1.
    let date = i32::try_from(days + 719_163).ok().and_then(NaiveDate::from_num_days_from_ce_opt);
    put(out, date.ok_or_else(|| no_such_time(days))?)
}

fn time(value: i64, per_second: i64, out: &mut Vec<u8>) -> Result<()> {
    let (second, nanosecond) = split(value, per_second);
    let time = u32::try_from(second).ok().and_then(|s| NaiveTime::from_num_seconds_from_midnight_opt(s, nanosecond));
    put_time(time.ok_or_else(|| no_such_time(value))?, out)
}

fn timestamp(value: i64, per_second: i64, end: &str, out: &mut Vec<u8>) -> Result<()> {
    let (second, nanosecond) = split(value, per_second);
    let at = DateTime::from_timestamp(second, nanosecond).ok_or_else(|| no_such_time(value))?.naive_utc();
    put(out, format_args!("{}T", at.date()))?;
    put_time(at.time(), out)?;
    put(out, end)
}

/// Seconds, and nanoseconds of the second.
fn split(value: i64, per_second: i64) -> (i64, u32) {
    let nanoseconds = value.rem_euclid(per_second) * (1_000_000_000 / per_second);
    (value.div_euclid(per_second), u32::try_from(nanoseconds).unwrap_or(0))
}

fn put_time(time: NaiveTime, out: &mut Vec<u8>) -> Result<()> {
    put(out, format_args!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second()))?;
    if time.nanosecond() == 0 {
        return Ok(());
    }
    let fraction = format!("{:09}", time.nanosecond());
    put(out, format_args!(".{}", fraction.trim_end_matches('0')))
}

fn list<O: OffsetSizeTrait>(array: &GenericListArray<O>) -> Result<WriteValue> {
    let items = Cells::new(array.values(), Style::Json)?;
    let offsets = array.offsets().clone();
    Ok(bare(move |row, out| {
        out.push(b'[');
        let (start, end) = (offsets[row].as_usize(), offsets[row + 1].as_usize());
        for item in start..end {
            if item > start {
                out.push(b',');
            }
            items.write(item, out)?;
        }
        out.push(b']');
        Ok(())
    }))
}

fn as_plain_list(array: &ArrayRef) -> Result<WriteValue> {
    let item = match array.data_type() {
        DataType::FixedSizeList(item, _) | DataType::ListView(item) | DataType::LargeListView(item) => Arc::clone(item),
        other => return Err(Error::internal(format!("{other} isn't a list"))),
    };
    let array = cast(array, &DataType::LargeList(item)).map_err(|e| failure(e.into()))?;
    list(array.as_list::<i64>())
}

fn objects(array: &ArrayRef) -> Result<WriteValue> {
    let array = array.as_struct();
    let mut members = Vec::with_capacity(array.num_columns());
    for (field, values) in array.fields().iter().zip(array.columns()) {
        let mut name = Vec::new();
        write_json_text(field.name(), &mut name)?;
        members.push((name, Cells::new(values, Style::Json)?));
    }
    Ok(bare(move |row, out| {
        out.push(b'{');
        for (at, (name, values)) in members.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name);
            out.push(b':');
            values.write(row, out)?;
        }
        out.push(b'}');
        Ok(())
    }))
}

fn maps(array: &ArrayRef) -> Result<WriteValue> {
    let array = array.as_map();
    let keys = Cells::new(array.keys(), Style::Text)?;
    let values = Cells::new(array.values(), Style::Json)?;
    let offsets = array.offsets().clone();
    Ok(bare(move |row, out| {
        out.push(b'{');
        let (start, end) = (offsets[row].as_usize(), offsets[row + 1].as_usize());
        let mut key = Vec::new();
        for entry in start..end {
            if entry > start {
                out.push(b',');
            }
            key.clear();
            keys.write(entry, &mut key)?;
            write_json_text(&String::from_utf8_lossy(&key), out)?;
            out.push(b':');
            values.write(entry, out)?;
        }
        out.push(b'}');
        Ok(())
    }))
}

/// Intervals, durations and whatever else Arrow has, in Arrow's own words.
fn foreign(array: &ArrayRef, style: Style) -> WriteValue {
    let array = Arc::clone(array);
    bare(move |row, out| {
        let options = FormatOptions::new().with_display_error(true).with_duration_format(DurationFormat::ISO8601);
        let formatter = ArrayFormatter::try_new(&array, &options).map_err(|e| failure(e.into()))?;
        match style {
            Style::Text => put(out, formatter.value(row)),
            Style::Json => write_json_text(&formatter.value(row).to_string(), out),
        }
    })
}
