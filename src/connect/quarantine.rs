//! Refused rows: the row's columns as text, the rule that refused it, and where it stands. Knows no connector.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Builder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::error::{Result, ResultExt};

/// Columns that every quarantine table has after those of the row.
pub const META_COLUMNS: [&str; 9] =
    ["_rule", "_reason", "_source_file", "_source_row", "_topic", "_partition", "_offset", "_raw", "_run"];

/// Schema of a quarantine table for rows with `columns`.
pub fn quarantine_schema<'a>(columns: impl IntoIterator<Item = &'a str>) -> SchemaRef {
    let row = columns.into_iter().map(|name| Field::new(name, DataType::Utf8, true));
    let meta = META_COLUMNS.into_iter().map(|name| {
        let data_type = match name {
            "_source_row" | "_offset" => DataType::Int64,
            "_partition" => DataType::Int32,
            _ => DataType::Utf8,
        };
        Field::new(name, data_type, true)
    });
    Arc::new(Schema::new(row.chain(meta).collect::<Vec<_>>()))
}

/// A row of a file that isn't part of its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Cells as text, as far as the row has them.
    pub cells: Vec<Option<String>>,
    /// `contract`, or the check's name.
    pub rule: String,
    /// Why, for people.
    pub reason: String,
    /// Data row of the file, from 1.
    pub row: u64,
    /// The row as it stands in the file.
    pub raw: String,
}

/// Refused rows of one file as a batch of [`quarantine_schema`].
pub(super) fn batch(schema: &SchemaRef, rows: &[Refused], file: &str, run: &str) -> Result<RecordBatch> {
    let width = schema.fields().len() - META_COLUMNS.len();
    let text = |cell: &dyn Fn(&Refused) -> Option<String>| -> ArrayRef {
        let mut builder = StringBuilder::new();
        rows.iter().for_each(|row| builder.append_option(cell(row)));
        Arc::new(builder.finish())
    };
    let mut columns: Vec<ArrayRef> =
        (0..width).map(|index| text(&|row| row.cells.get(index).cloned().flatten())).collect();
    let mut numbers = Int64Builder::with_capacity(rows.len());
    rows.iter().for_each(|row| numbers.append_value(i64::try_from(row.row).unwrap_or(i64::MAX)));
    let none = |data_type: &DataType| arrow::array::new_null_array(data_type, rows.len());
    columns.push(text(&|row| Some(row.rule.clone())));
    columns.push(text(&|row| Some(row.reason.clone())));
    columns.push(text(&|_| Some(file.to_string())));
    columns.push(Arc::new(numbers.finish()));
    columns.push(none(&DataType::Utf8));
    columns.push(Arc::new(Int32Array::new_null(rows.len())));
    columns.push(none(&DataType::Int64));
    columns.push(text(&|row| Some(row.raw.clone())));
    columns.push(text(&|_| Some(run.to_string())));
    RecordBatch::try_new(Arc::clone(schema), columns).external("can't build refused rows")
}
