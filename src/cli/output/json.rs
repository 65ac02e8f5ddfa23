//! JSON lines, see [`JsonLines`].

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::error::Result;

use super::{Out, RowWriter, unwritable};
use crate::connect::encode::json::JsonLines;

/// Writes JSON, one object a line.
pub(super) struct JsonWriter {
    out: Out,
    lines: JsonLines,
}

impl JsonWriter {
    pub(super) fn new(out: Out, schema: &SchemaRef) -> Result<Self> {
        Ok(Self { out, lines: JsonLines::new(schema)? })
    }
}

impl RowWriter for JsonWriter {
    fn rows(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut lines = Vec::new();
        self.lines.write(batch, &mut lines)?;
        unwritable(self.out.write_all(&lines).and_then(|()| self.out.flush()))
    }

    fn finish(&mut self) -> Result<()> {
        unwritable(self.out.flush())
    }
}
