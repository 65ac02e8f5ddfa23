//! Refused rows: the row's columns as text, the rule that refused it, and where it stands. Knows no connector.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::error::{Result, ResultExt};

/// Columns that every quarantine table has after those of the row.
pub const META_COLUMNS: [&str; 9] =
    ["_rule", "_reason", "_source_file", "_source_row", "_topic", "_partition", "_offset", "_raw", "_run"];

/// Schema of a quarantine table for rows with `columns`. A row's own column of one of [`META_COLUMNS`]' names stands in that.
pub fn quarantine_schema<'a>(columns: impl IntoIterator<Item = &'a str>) -> SchemaRef {
    let row = columns.into_iter().filter(|name| !META_COLUMNS.contains(name));
    let row = row.map(|name| Field::new(name, DataType::Utf8, true));
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

/// Where a refused row stands in its file or topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedAt {
    /// Data row of a file, from 1.
    Row(u64),
    /// Message of a topic.
    Message {
        /// Partition.
        partition: i32,
        /// Offset in it.
        offset: i64,
    },
}

/// A row that isn't part of its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Cells as text, as far as the row has them.
    pub cells: Vec<Option<String>>,
    /// `contract`, or the check's name.
    pub rule: String,
    /// Why, for people.
    pub reason: String,
    /// Where it stands.
    pub at: RefusedAt,
    /// The row as it stands there.
    pub raw: String,
}

/// Refused rows of one file or topic, its `place`, as a batch of [`quarantine_schema`].
pub(super) fn batch(schema: &SchemaRef, rows: &[Refused], place: &str, run: &str) -> Result<RecordBatch> {
    let width = schema.fields().len() - META_COLUMNS.len();
    let text = |cell: &dyn Fn(&Refused) -> Option<String>| -> ArrayRef {
        let mut builder = StringBuilder::new();
        rows.iter().for_each(|row| builder.append_option(cell(row)));
        Arc::new(builder.finish())
    };
    let mut columns: Vec<ArrayRef> =
        (0..width).map(|index| text(&|row| row.cells.get(index).cloned().flatten())).collect();
    let file = |row: &Refused| match row.at {
        RefusedAt::Row(row) => Some(i64::try_from(row).unwrap_or(i64::MAX)),
        RefusedAt::Message { .. } => None,
    };
    let topic = |row: &Refused| match row.at {
        RefusedAt::Row(_) => None,
        RefusedAt::Message { partition, offset } => Some((partition, offset)),
    };
    columns.push(text(&|row| Some(row.rule.clone())));
    columns.push(text(&|row| Some(row.reason.clone())));
    columns.push(text(&|row| file(row).map(|_| place.to_string())));
    columns.push(Arc::new(rows.iter().map(file).collect::<Int64Array>()));
    columns.push(text(&|row| topic(row).map(|_| place.to_string())));
    columns.push(Arc::new(rows.iter().map(|row| topic(row).map(|(partition, _)| partition)).collect::<Int32Array>()));
    columns.push(Arc::new(rows.iter().map(|row| topic(row).map(|(_, offset)| offset)).collect::<Int64Array>()));
    columns.push(text(&|row| Some(row.raw.clone())));
    columns.push(text(&|_| Some(run.to_string())));
    RecordBatch::try_new(Arc::clone(schema), columns).external("can't build refused rows")
}
