//! CSV, see [`csv`].

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::error::Result;

use super::{Out, RowWriter, unwritable};
use crate::connect::encode::csv;

/// Writes CSV.
pub(super) struct CsvWriter {
    out: Out,
    header: Option<Vec<u8>>,
}

impl CsvWriter {
    pub(super) fn new(out: Out, schema: &SchemaRef) -> Self {
        Self { out, header: Some(csv::header(schema)) }
    }

    fn header(&mut self) -> Result<()> {
        match self.header.take() {
            Some(header) => unwritable(self.out.write_all(&header)),
            None => Ok(()),
        }
    }
}

impl RowWriter for CsvWriter {
    fn rows(&mut self, batch: &RecordBatch) -> Result<()> {
        self.header()?;
        let mut lines = Vec::new();
        csv::write_lines(batch, &mut lines)?;
        unwritable(self.out.write_all(&lines).and_then(|()| self.out.flush()))
    }

    fn finish(&mut self) -> Result<()> {
        self.header()?;
        unwritable(self.out.flush())
    }
}
