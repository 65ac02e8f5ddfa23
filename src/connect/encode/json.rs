//! JSON, one object a line, in the order of the columns; null members are written, so that every line has every column.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::value::{Cells, Style, write_json_text};
use crate::error::Result;

/// Writes rows of the same columns.
pub(crate) struct JsonLines {
    /// `{"name":` or `,"name":`, a column each.
    openings: Vec<Vec<u8>>,
}

impl JsonLines {
    /// For rows with these columns.
    ///
    /// # Errors
    /// Internal, if a name can't be written.
    pub(crate) fn new(schema: &Schema) -> Result<Self> {
        let mut openings = Vec::with_capacity(schema.fields().len());
        for (at, field) in schema.fields().iter().enumerate() {
            let mut opening = vec![if at == 0 { b'{' } else { b',' }];
            write_json_text(field.name(), &mut opening)?;
            opening.push(b':');
            openings.push(opening);
        }
        Ok(Self { openings })
    }

    /// Appends a line a row.
    ///
    /// # Errors
    /// As [`Cells::write`].
    pub(crate) fn write(&self, batch: &RecordBatch, lines: &mut Vec<u8>) -> Result<()> {
        let columns = batch.columns().iter().map(|c| Cells::new(c, Style::Json)).collect::<Result<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            if columns.is_empty() {
                lines.push(b'{');
            }
            for (opening, cells) in self.openings.iter().zip(&columns) {
                lines.extend_from_slice(opening);
                cells.write(row, lines)?;
            }
            lines.extend_from_slice(b"}\n");
        }
        Ok(())
    }
}
