//! Debezium's envelope of a changed row: `{"before":…,"after":…,"source":…,"op":"c"|"u"|"d","ts_ms":…}`. Knows no broker and
//! no file.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields};

use super::value::{Cells, Style, write_json_text};
use crate::engine::{KeyedChange, failure};
use crate::error::{Error, Result};

/// The commit that is told of.
#[derive(Debug, Clone, Copy)]
pub(in crate::connect) struct Commit {
    pub(in crate::connect) n: u64,
    /// Microseconds since 1970 UTC.
    pub(in crate::connect) at_us: i64,
}

/// What is published, as a database and a table.
#[derive(Debug, Clone)]
pub(in crate::connect) struct Origin {
    pub(in crate::connect) project: String,
    pub(in crate::connect) model: String,
}

/// Appends an envelope a changed row, one a line.
///
/// # Errors
/// External, for a time that no calendar has; internal, if a key column isn't there.
pub(in crate::connect) fn write_lines(
    change: &KeyedChange,
    key: &[String],
    origin: &Origin,
    commit: Commit,
    out: &mut Vec<u8>,
) -> Result<()> {
    let (before, after) = (Rows::new(&change.before, false)?, Rows::new(&change.after, false)?);
    let key = key.iter().map(|name| before.position(name)).collect::<Result<Vec<_>>>()?;
    let columns: Vec<usize> = (0..before.width()).collect();
    for row in 0..change.after.num_rows() {
        let (was, is) = (before.has(row, &key), after.has(row, &key));
        Changed { before: &before, after: &after, row, columns: &columns, was, is }.write(origin, commit, out)?;
        out.push(b'\n');
    }
    Ok(())
}

/// A row that changed, in batches of both sides.
pub(super) struct Changed<'a> {
    pub(super) before: &'a Rows,
    pub(super) after: &'a Rows,
    pub(super) row: usize,
    /// Columns that are told.
    pub(super) columns: &'a [usize],
    /// Whether there is a row before and after.
    pub(super) was: bool,
    pub(super) is: bool,
}

impl Changed<'_> {
    /// Appends the envelope.
    pub(super) fn write(&self, origin: &Origin, commit: Commit, out: &mut Vec<u8>) -> Result<()> {
        let side = |rows: &Rows, is_there: bool, out: &mut Vec<u8>| match is_there {
            true => rows.write(self.row, self.columns.iter().copied(), out),
            false => {
                out.extend_from_slice(b"null");
                Ok(())
            }
        };
        out.extend_from_slice(b"{\"before\":");
        side(self.before, self.was, out)?;
        out.extend_from_slice(b",\"after\":");
        side(self.after, self.is, out)?;
        out.extend_from_slice(b",\"source\":{\"connector\":\"tidemill\",\"db\":");
        write_json_text(&origin.project, out)?;
        out.extend_from_slice(b",\"table\":");
        write_json_text(&origin.model, out)?;
        let op = match (self.was, self.is) {
            (false, _) => "c",
            (true, true) => "u",
            (true, false) => "d",
        };
        let ts_ms = commit.at_us.div_euclid(1000);
        out.extend_from_slice(format!(",\"commit\":{}}},\"op\":\"{op}\",\"ts_ms\":{ts_ms}}}", commit.n).as_bytes());
        Ok(())
    }
}

/// The rows of one side, ready to be written.
pub(super) struct Rows {
    /// `"name":`, by column.
    names: Vec<(String, Vec<u8>)>,
    cells: Vec<Cells>,
}

impl Rows {
    pub(super) fn new(batch: &RecordBatch, decimals_as_text: bool) -> Result<Self> {
        let mut rows = Self { names: Vec::new(), cells: Vec::new() };
        for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            let mut name = Vec::new();
            write_json_text(field.name(), &mut name)?;
            name.push(b':');
            rows.names.push((field.name().clone(), name));
            let array = if decimals_as_text { with_text_decimals(array)? } else { Arc::clone(array) };
            rows.cells.push(Cells::new(&array, Style::Json)?);
        }
        Ok(rows)
    }

    pub(super) fn position(&self, name: &str) -> Result<usize> {
        let at = self.names.iter().position(|(known, _)| known == name);
        at.ok_or_else(|| Error::internal("a key column isn't among the columns").with("column", name))
    }

    /// Number of columns.
    pub(super) fn width(&self) -> usize {
        self.cells.len()
    }

    /// Whether there is a row. Key columns have no nulls, so that one says it.
    pub(super) fn has(&self, row: usize, key: &[usize]) -> bool {
        key.first().is_some_and(|at| !self.cells[*at].is_null(row))
    }

    /// An object of some columns.
    pub(super) fn write(&self, row: usize, columns: impl Iterator<Item = usize>, out: &mut Vec<u8>) -> Result<()> {
        for (at, column) in columns.enumerate() {
            out.push(if at == 0 { b'{' } else { b',' });
            out.extend_from_slice(&self.names[column].1);
            self.cells[column].write(row, out)?;
        }
        out.push(b'}');
        Ok(())
    }
}

/// The same values with decimals as texts of their full scale, nested ones too.
fn with_text_decimals(array: &ArrayRef) -> Result<ArrayRef> {
    match text_decimals(array.data_type()) {
        Some(texts) => cast(array, &texts).map_err(|error| failure(error.into())),
        None => Ok(Arc::clone(array)),
    }
}

/// The type with texts for decimals; none if it has no decimals.
fn text_decimals(data_type: &DataType) -> Option<DataType> {
    let inner = |field: &Arc<Field>| {
        let data_type = text_decimals(field.data_type())?;
        Some(Arc::new(field.as_ref().clone().with_data_type(data_type)))
    };
    match data_type {
        other if other.is_decimal() => Some(DataType::Utf8),
        DataType::List(field) => inner(field).map(DataType::List),
        DataType::LargeList(field) => inner(field).map(DataType::LargeList),
        DataType::Struct(fields) => {
            let changed: Vec<Option<Arc<Field>>> = fields.iter().map(inner).collect();
            changed.iter().any(Option::is_some).then(|| {
                let fields = fields.iter().zip(changed).map(|(old, new)| new.unwrap_or_else(|| Arc::clone(old)));
                DataType::Struct(Fields::from_iter(fields))
            })
        }
        _ => None,
    }
}
