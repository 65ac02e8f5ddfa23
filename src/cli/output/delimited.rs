//! CSV after RFC 4180 with a header and LF. Null is an empty field and an empty text `""`, so that both can be read back.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::error::Result;

use super::{Out, RowWriter, unwritable};
use crate::connect::encode::value::{Cells, Style};

/// Writes CSV.
pub(super) struct CsvWriter {
    out: Out,
    header: Option<Vec<u8>>,
}

impl CsvWriter {
    pub(super) fn new(out: Out, schema: &SchemaRef) -> Self {
        let mut header = Vec::new();
        for (at, field) in schema.fields().iter().enumerate() {
            if at > 0 {
                header.push(b',');
            }
            push_field(field.name().as_bytes(), &mut header);
        }
        header.push(b'\n');
        Self { out, header: Some(header) }
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
        let columns = batch.columns().iter().map(|c| Cells::new(c, Style::Text)).collect::<Result<Vec<_>>>()?;
        let (mut lines, mut value) = (Vec::new(), Vec::new());
        for row in 0..batch.num_rows() {
            for (at, cells) in columns.iter().enumerate() {
                if at > 0 {
                    lines.push(b',');
                }
                if !cells.is_null(row) {
                    value.clear();
                    cells.write(row, &mut value)?;
                    push_field(&value, &mut lines);
                }
            }
            lines.push(b'\n');
        }
        unwritable(self.out.write_all(&lines).and_then(|()| self.out.flush()))
    }

    fn finish(&mut self) -> Result<()> {
        self.header()?;
        unwritable(self.out.flush())
    }
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
