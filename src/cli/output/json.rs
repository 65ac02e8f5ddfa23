//! JSON, one object a line, in the order of the columns; null members are written, so that every line has every column.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::error::Result;

use super::{Out, RowWriter, unwritable};
use crate::connect::encode::value::{Cells, Style, write_json_text};

/// Writes JSON lines.
pub(super) struct JsonWriter {
    out: Out,
    /// `{"name":` or `,"name":`, a column each.
    openings: Vec<Vec<u8>>,
}

impl JsonWriter {
    pub(super) fn new(out: Out, schema: &SchemaRef) -> Result<Self> {
        let mut openings = Vec::with_capacity(schema.fields().len());
        for (at, field) in schema.fields().iter().enumerate() {
            let mut opening = vec![if at == 0 { b'{' } else { b',' }];
            write_json_text(field.name(), &mut opening)?;
            opening.push(b':');
            openings.push(opening);
        }
        Ok(Self { out, openings })
    }
}

impl RowWriter for JsonWriter {
    fn rows(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns = batch.columns().iter().map(|c| Cells::new(c, Style::Json)).collect::<Result<Vec<_>>>()?;
        let mut lines = Vec::new();
        for row in 0..batch.num_rows() {
            if columns.is_empty() {
                lines.push(b'{');
            }
            for (opening, cells) in self.openings.iter().zip(&columns) {
                lines.extend_from_slice(opening);
                cells.write(row, &mut lines)?;
            }
            lines.extend_from_slice(b"}\n");
        }
        unwritable(self.out.write_all(&lines).and_then(|()| self.out.flush()))
    }

    fn finish(&mut self) -> Result<()> {
        unwritable(self.out.flush())
    }
}
