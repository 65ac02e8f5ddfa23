//! CSV after RFC 4180 with a header and LF. Null is an empty field and an empty text `""`, so that both can be read back.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::value::{Cells, Style};
use crate::error::Result;

/// The line that names the columns.
pub(crate) fn header(schema: &Schema) -> Vec<u8> {
    let mut header = Vec::new();
    for (at, field) in schema.fields().iter().enumerate() {
        if at > 0 {
            header.push(b',');
        }
        push_field(field.name().as_bytes(), &mut header);
    }
    header.push(b'\n');
    header
}

/// Appends a line a row.
///
/// # Errors
/// As [`Cells::write`].
pub(crate) fn write_lines(batch: &RecordBatch, lines: &mut Vec<u8>) -> Result<()> {
    let columns = batch.columns().iter().map(|c| Cells::new(c, Style::Text)).collect::<Result<Vec<_>>>()?;
    let mut value = Vec::new();
    for row in 0..batch.num_rows() {
        for (at, cells) in columns.iter().enumerate() {
            if at > 0 {
                lines.push(b',');
            }
            if !cells.is_null(row) {
                value.clear();
                cells.write(row, &mut value)?;
                push_field(&value, lines);
            }
        }
        lines.push(b'\n');
    }
    Ok(())
}

fn push_field(value: &[u8], out: &mut Vec<u8>) {
    let needs_quotes = value.is_empty() || value.iter().any(|b| matches!(b, b',' | b'"' | b'\n' | b'\r'));
    if !needs_quotes {
        out.extend_from_slice(value);
        return;
    }
    out.push(b'"');
    for &byte in value {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}
