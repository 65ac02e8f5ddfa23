//! Columns of text to Arrow arrays, exactly. A cell that doesn't fit becomes null and a reason.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryViewBuilder, BooleanBuilder, PrimitiveBuilder, StringBuilder, StringViewBuilder};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};

use super::datetime::{self, TimeFormat};
use super::{nested, number};
use crate::error::{Error, Result};
use crate::plan::json_text::{is_json, text};
use crate::spec::sql_type::SqlType;

/// How the texts of one column are read.
pub struct ColumnReader {
    data_type: DataType,
    time: TimeFormat,
    decimal_separator: char,
    /// Whether its text is a JSON value that is kept as it is.
    is_json: bool,
    /// Of a list its values' reader, of a struct those of its fields.
    inside: Vec<ColumnReader>,
    /// Strings inside of lists and structs that mean null.
    null_values: Vec<String>,
}

impl ColumnReader {
    /// Reads texts as `data_type`: times by the strftime `format` (ISO 8601 if none), those without a zone in `zone`. Lists and
    /// structs stand as JSON.
    ///
    /// # Errors
    /// Usage, for a type that text isn't read as and for an unknown zone.
    pub fn new(data_type: &DataType, format: Option<&str>, zone: &str, decimal_separator: char) -> Result<Self> {
        let time = TimeFormat::new(format, zone).map_err(Error::usage)?;
        let of = |data_type: &DataType| Self::new(data_type, format, zone, decimal_separator);
        let inside = match data_type {
            DataType::List(item) => vec![of(item.data_type())?],
            DataType::Struct(fields) => fields.iter().map(|field| of(field.data_type())).collect::<Result<_>>()?,
            _ => Vec::new(),
        };
        match data_type {
            DataType::Boolean
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal128(_, _)
            | DataType::Utf8
            | DataType::Utf8View
            | DataType::BinaryView
            | DataType::Date32
            | DataType::Time64(TimeUnit::Microsecond)
            | DataType::Timestamp(TimeUnit::Microsecond, _)
            | DataType::List(_)
            | DataType::Struct(_) => {}
            other => return Err(Error::usage(format!("text can't be read as {other}"))),
        }
        let (is_json, null_values) = (false, Vec::new());
        Ok(Self { data_type: data_type.clone(), time, decimal_separator, is_json, inside, null_values })
    }

    /// The same for a column declared as `declared`, of whose text Arrow's type doesn't tell whether it is JSON.
    pub fn declared(mut self, declared: &SqlType) -> Self {
        let inside = std::mem::take(&mut self.inside).into_iter();
        self.inside = match declared {
            SqlType::List(item) => inside.map(|reader| reader.declared(item)).collect(),
            SqlType::Struct(fields) => inside.zip(fields).map(|(reader, (_, of))| reader.declared(of)).collect(),
            _ => inside.collect(),
        };
        self.is_json = *declared == SqlType::Json;
        self
    }

    /// The same, with strings inside of lists and structs that mean null.
    pub(super) fn with_null_values(mut self, null_values: &[String]) -> Self {
        let inside = std::mem::take(&mut self.inside).into_iter();
        self.inside = inside.map(|reader| reader.with_null_values(null_values)).collect();
        self.null_values = null_values.to_vec();
        self
    }

    /// The text that this reads of a JSON value: none for null, what a string says, and everything else as it is written.
    /// A list, a struct and what stays JSON are read as they are written.
    pub(super) fn cell<'a>(&self, row: usize, value: &'a str) -> Result<Option<Cow<'a, str>>, Misfit> {
        if self.is_json || self.data_type.is_nested() {
            return Ok((!value.starts_with('n')).then_some(Cow::Borrowed(value)));
        }
        let no_text = |_| Misfit::new(row, shown(value, "holds half of a surrogate pair, which is no text"));
        let cell = text(value).map_err(no_text)?;
        Ok(cell.filter(|cell| !self.null_values.iter().any(|null| null == cell)))
    }
}

/// A cell that doesn't fit.
#[derive(Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Its row.
    pub row: usize,
    /// What of a list or struct doesn't, as in `[2].price`; lists count from 0.
    path: String,
    reason: String,
}

impl Misfit {
    pub(super) fn new(row: usize, reason: String) -> Self {
        Self { row, path: String::new(), reason }
    }

    /// The same at `step` of a value in `row`.
    pub(super) fn below(self, row: usize, step: &str) -> Self {
        Self { row, path: format!("{step}{}", self.path), reason: self.reason }
    }

    /// Why the row doesn't fit, for people.
    pub fn of_column(&self, name: &str) -> String {
        format!("{name}{}: {}", self.path, self.reason)
    }

    /// Why the value doesn't fit.
    pub fn reason(&self) -> String {
        match self.path.as_str() {
            "" => self.reason.clone(),
            path => format!("{}: {}", path.trim_start_matches('.'), self.reason),
        }
    }
}

/// Cells that don't fit.
type Faults = Vec<Misfit>;

/// Reads `rows` cells.
pub fn parse_column<'a>(
    reader: &ColumnReader,
    cells: impl Iterator<Item = Option<&'a str>>,
    rows: usize,
) -> (ArrayRef, Faults) {
    let separator = reader.decimal_separator;
    let whole = |low: i64, high: i64| move |text: &str| number::integer(text, low, high, separator);
    match &reader.data_type {
        DataType::Boolean => booleans(cells, rows),
        DataType::Int16 => {
            let parse = whole(i16::MIN.into(), i16::MAX.into());
            primitive::<Int16Type>(cells, rows, None, |text| parse(text).map(|v| v as i16))
        }
        DataType::Int32 => {
            let parse = whole(i32::MIN.into(), i32::MAX.into());
            primitive::<Int32Type>(cells, rows, None, |text| parse(text).map(|v| v as i32))
        }
        DataType::Int64 => primitive::<Int64Type>(cells, rows, None, whole(i64::MIN, i64::MAX)),
        DataType::Float32 => primitive::<Float32Type>(cells, rows, None, |text| {
            let value = number::float(text, separator)?;
            let narrow = value as f32;
            if narrow.is_infinite() && value.is_finite() { Err("is out of range".to_string()) } else { Ok(narrow) }
        }),
        DataType::Float64 => primitive::<Float64Type>(cells, rows, None, |text| number::float(text, separator)),
        DataType::Decimal128(precision, scale) => {
            primitive::<Decimal128Type>(cells, rows, Some(&reader.data_type), |text| {
                number::decimal(text, *precision, *scale, separator)
            })
        }
        DataType::Date32 => primitive::<Date32Type>(cells, rows, None, |text| reader.time.date(text)),
        DataType::Time64(_) => primitive::<Time64MicrosecondType>(cells, rows, None, datetime::time_of_day),
        DataType::Timestamp(_, None) => {
            primitive::<TimestampMicrosecondType>(cells, rows, None, |text| reader.time.timestamp(text))
        }
        DataType::Timestamp(_, Some(_)) => {
            primitive::<TimestampMicrosecondType>(cells, rows, Some(&reader.data_type), |text| {
                reader.time.instant(text)
            })
        }
        DataType::BinaryView => binary(cells, rows),
        DataType::List(field) if let [item] = reader.inside.as_slice() => nested::lists(field, item, cells),
        DataType::Struct(fields) => nested::structs(fields, &reader.inside, cells, rows),
        _ if reader.is_json => json(cells, rows),
        DataType::Utf8 => {
            let mut builder = StringBuilder::with_capacity(rows, rows * 16);
            cells.for_each(|cell| builder.append_option(cell));
            (Arc::new(builder.finish()), Vec::new())
        }
        _ => {
            let mut builder = StringViewBuilder::with_capacity(rows);
            cells.for_each(|cell| builder.append_option(cell));
            (Arc::new(builder.finish()), Vec::new())
        }
    }
}

/// Texts longer than this are cut in reasons; the raw row has them whole.
const SHOWN_CHARACTERS: usize = 60;

pub(super) fn shown(text: &str, reason: &str) -> String {
    let mut cut: String = text.chars().take(SHOWN_CHARACTERS).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    if cut.is_empty() {
        cut.push_str("\"\"");
    }
    format!("{cut} {reason}")
}

fn primitive<'a, T: ArrowPrimitiveType>(
    cells: impl Iterator<Item = Option<&'a str>>,
    rows: usize,
    data_type: Option<&DataType>,
    parse: impl Fn(&str) -> Result<T::Native, String>,
) -> (ArrayRef, Faults) {
    let mut builder = PrimitiveBuilder::<T>::with_capacity(rows);
    if let Some(data_type) = data_type {
        builder = builder.with_data_type(data_type.clone());
    }
    let mut faults = Vec::new();
    for (row, cell) in cells.enumerate() {
        let value = cell
            .and_then(|text| parse(text).map_err(|reason| faults.push(Misfit::new(row, shown(text, &reason)))).ok());
        builder.append_option(value);
    }
    (Arc::new(builder.finish()), faults)
}

fn booleans<'a>(cells: impl Iterator<Item = Option<&'a str>>, rows: usize) -> (ArrayRef, Faults) {
    let mut builder = BooleanBuilder::with_capacity(rows);
    let mut faults = Vec::new();
    for (row, cell) in cells.enumerate() {
        builder.append_option(cell.and_then(|text| match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "1" | "yes" | "y" => Some(true),
            "false" | "f" | "0" | "no" | "n" => Some(false),
            _ => {
                faults.push(Misfit::new(row, shown(text, "isn't true or false")));
                None
            }
        }));
    }
    (Arc::new(builder.finish()), faults)
}

/// Text that is one JSON value, as it is written.
fn json<'a>(cells: impl Iterator<Item = Option<&'a str>>, rows: usize) -> (ArrayRef, Faults) {
    let mut builder = StringViewBuilder::with_capacity(rows);
    let mut faults = Vec::new();
    for (row, cell) in cells.enumerate() {
        let (json, other) =
            cell.map_or((None, None), |text| if is_json(text) { (cell, None) } else { (None, Some(text)) });
        faults.extend(other.map(|text| Misfit::new(row, shown(text, "isn't JSON"))));
        builder.append_option(json);
    }
    (Arc::new(builder.finish()), faults)
}

/// Bytes as SQL shells write them: `\x` and hexadecimal digits.
fn binary<'a>(cells: impl Iterator<Item = Option<&'a str>>, rows: usize) -> (ArrayRef, Faults) {
    let mut builder = BinaryViewBuilder::with_capacity(rows);
    let mut faults = Vec::new();
    for (row, cell) in cells.enumerate() {
        let bytes = cell.and_then(|text| {
            let bytes = text.strip_prefix("\\x").and_then(from_hex);
            if bytes.is_none() {
                faults.push(Misfit::new(row, shown(text, "isn't bytes as \\x and hexadecimal digits")));
            }
            bytes
        });
        builder.append_option(bytes);
    }
    (Arc::new(builder.finish()), faults)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
}
