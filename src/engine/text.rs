//! Columns as text, one way wherever a row is kept for people to read. Knows no format around it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};

use crate::error::{Error, Result, ResultExt};
use crate::limits;

/// The column's values as text, lists and structs as JSON; null stays null.
///
/// # Errors
/// External, for a type that has no text.
pub fn as_text(array: &ArrayRef) -> Result<StringArray> {
    if array.data_type().is_nested() {
        return as_json(array);
    }
    let array = match array.data_type() {
        // Text comes of bytes of any length only.
        DataType::FixedSizeBinary(_) => &cast(array, &DataType::Binary).external("a value can't be shown as text")?,
        _ => array,
    };
    let text = cast(array, &DataType::Utf8).external("a value can't be shown as text")?;
    let text = text.as_any().downcast_ref::<StringArray>().cloned();
    text.ok_or_else(|| Error::internal("text isn't text"))
}

/// Each row as a line of JSON, without members that are null.
///
/// # Errors
/// External, for a type that JSON has no values of.
pub fn json_lines(rows: &RecordBatch) -> Result<Vec<String>> {
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    writer.write(rows).external("a row can't be shown as JSON")?;
    writer.finish().external("a row can't be shown as JSON")?;
    // A line end inside of a text is escaped.
    Ok(String::from_utf8_lossy(&writer.into_inner()).lines().map(str::to_owned).collect())
}

/// A value as a message shows it: a long one by its beginning.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(limits::SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn as_json(array: &ArrayRef) -> Result<StringArray> {
    let schema = Arc::new(Schema::new(vec![Field::new("v", array.data_type().clone(), true)]));
    let rows = RecordBatch::try_new(schema, vec![Arc::clone(array)]).external("a value can't be shown as text")?;
    let value = |line: String| line.strip_prefix("{\"v\":")?.strip_suffix('}').map(str::to_owned);
    Ok(json_lines(&rows)?.into_iter().map(value).collect())
}
