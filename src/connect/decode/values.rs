//! Columns of text to Arrow arrays, exactly. A cell that doesn't fit becomes null and a reason.

use std::borrow::Cow;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, TimeUnit};

use super::column::{Cell, Column};
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
        if self.keeps_json() {
            return Ok((!value.starts_with('n')).then_some(Cow::Borrowed(value)));
        }
        let no_text = |_| Misfit::new(row, shown(value, "holds half of a surrogate pair, which is no text"));
        let cell = text(value).map_err(no_text)?;
        Ok(cell.filter(|cell| !self.is_null(cell)))
    }

    /// Whether a JSON value is read as it is written.
    pub(super) fn keeps_json(&self) -> bool {
        self.is_json || self.data_type.is_nested()
    }

    /// Whether a text means null.
    pub(super) fn is_null(&self, text: &str) -> bool {
        self.null_values.iter().any(|null| null == text)
    }

    /// Whether its values are in one another.
    pub(super) fn is_nested(&self) -> bool {
        self.data_type.is_nested()
    }

    /// An empty column of what this reads, which isn't nested.
    pub(super) fn column(&self, rows: usize) -> Column {
        Column::new(&self.data_type, rows)
    }

    /// Reads the text of one value, which isn't nested.
    ///
    /// # Errors
    /// Why it doesn't fit, to follow the text.
    pub(super) fn read<'a>(&self, text: &'a str) -> Result<Cell<'a>, String> {
        let separator = self.decimal_separator;
        let whole = |low: i64, high: i64| number::integer(text, low, high, separator).map(Cell::Whole);
        match &self.data_type {
            DataType::Boolean => boolean(text).map(Cell::Boolean),
            DataType::Int16 => whole(i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => whole(i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => whole(i64::MIN, i64::MAX),
            DataType::Float32 => short_float(text, separator).map(Cell::Float),
            DataType::Float64 => number::float(text, separator).map(Cell::Float),
            DataType::Decimal128(precision, scale) => {
                number::decimal(text, *precision, *scale, separator).map(Cell::Decimal)
            }
            DataType::Date32 => self.time.date(text).map(|days| Cell::Whole(days.into())),
            DataType::Time64(_) => datetime::time_of_day(text).map(Cell::Whole),
            DataType::Timestamp(_, None) => self.time.timestamp(text).map(Cell::Whole),
            DataType::Timestamp(_, Some(_)) => self.time.instant(text).map(Cell::Whole),
            DataType::BinaryView => bytes(text).map(Cell::Bytes),
            _ if self.is_json && !is_json(text) => Err("isn't JSON".to_string()),
            _ => Ok(Cell::Text(Cow::Borrowed(text))),
        }
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
    match &reader.data_type {
        DataType::List(field) if let [item] = reader.inside.as_slice() => return nested::lists(field, item, cells),
        DataType::Struct(fields) => return nested::structs(fields, &reader.inside, cells, rows),
        _ => {}
    }
    let (mut column, mut faults) = (Column::new(&reader.data_type, rows), Vec::new());
    for (row, text) in cells.enumerate() {
        let cell = text.map_or(Ok(Cell::Null), |text| reader.read(text).map_err(|reason| shown(text, &reason)));
        match cell {
            Ok(cell) => column.push(&cell),
            Err(reason) => {
                faults.push(Misfit::new(row, reason));
                column.push(&Cell::Null);
            }
        }
    }
    (column.finish(), faults)
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

fn boolean(text: &str) -> Result<bool, String> {
    let is = |known: &[&str]| known.iter().any(|known| known.eq_ignore_ascii_case(text));
    match () {
        () if is(&["true", "t", "1", "yes", "y"]) => Ok(true),
        () if is(&["false", "f", "0", "no", "n"]) => Ok(false),
        () => Err("isn't true or false".to_string()),
    }
}

/// A number of four bytes; one that they can't hold isn't infinite.
fn short_float(text: &str, separator: char) -> Result<f64, String> {
    let value = number::float(text, separator)?;
    if (value as f32).is_infinite() && value.is_finite() { Err("is out of range".to_string()) } else { Ok(value) }
}

/// Bytes as SQL shells write them: `\x` and hexadecimal digits.
fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let bytes = text.strip_prefix("\\x").and_then(from_hex);
    bytes.ok_or_else(|| "isn't bytes as \\x and hexadecimal digits".to_string())
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
}
