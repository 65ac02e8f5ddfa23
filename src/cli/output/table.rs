//! Columns aligned for reading. The first rows decide the widths, so that any number of rows streams through.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use unicode_width::UnicodeWidthStr;

use crate::error::Result;
use crate::limits::TABLE_MEASURED_ROWS;

use super::{Out, RowWriter, unwritable};
use crate::connect::encode::value::{Cells, Style, is_number};

/// Writes an aligned table.
pub(super) struct TableWriter {
    out: Out,
    names: Vec<String>,
    right: Vec<bool>,
    /// Known once the first rows are measured; wider values that come later push their line out.
    widths: Option<Vec<usize>>,
    waiting: Vec<Vec<String>>,
}

impl TableWriter {
    pub(super) fn new(out: Out, schema: &SchemaRef) -> Self {
        let names = schema.fields().iter().map(|f| printable(f.name())).collect();
        let right = schema.fields().iter().map(|f| is_number(f.data_type())).collect();
        Self { out, names, right, widths: None, waiting: Vec::new() }
    }

    /// Fixes the widths if they aren't, and writes the waiting rows.
    fn flush(&mut self) -> Result<()> {
        let mut text = String::new();
        let widths = match &self.widths {
            Some(widths) => widths,
            None => {
                let mut widths: Vec<usize> = self.names.iter().map(|n| n.width()).collect();
                for row in &self.waiting {
                    widths.iter_mut().zip(row).for_each(|(width, value)| *width = value.width().max(*width));
                }
                line(&self.names, &widths, &self.right, &mut text);
                let rules: Vec<_> = widths.iter().map(|w| "-".repeat(w + 2)).collect();
                text.push_str(&rules.join("+"));
                text.push('\n');
                self.widths.insert(widths)
            }
        };
        for row in self.waiting.drain(..) {
            line(&row, widths, &self.right, &mut text);
        }
        unwritable(self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()))
    }
}

impl RowWriter for TableWriter {
    fn rows(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns = batch.columns().iter().map(|c| Cells::new(c, Style::Text)).collect::<Result<Vec<_>>>()?;
        let mut value = Vec::new();
        for row in 0..batch.num_rows() {
            let mut cells = Vec::with_capacity(columns.len());
            for column in &columns {
                value.clear();
                column.write(row, &mut value)?;
                let text = String::from_utf8_lossy(&value);
                cells.push(if column.is_null(row) { "NULL".to_string() } else { printable(&text) });
            }
            self.waiting.push(cells);
        }
        if self.widths.is_some() || self.waiting.len() >= TABLE_MEASURED_ROWS { self.flush() } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<()> {
        self.flush()
    }
}

fn line(cells: &[String], widths: &[usize], right: &[bool], out: &mut String) {
    for (at, ((cell, width), right)) in cells.iter().zip(widths).zip(right).enumerate() {
        let padding = " ".repeat(width.saturating_sub(cell.width()));
        out.push_str(if at == 0 { " " } else { " | " });
        if *right {
            out.push_str(&padding);
            out.push_str(cell);
        } else {
            out.push_str(cell);
            // No blanks at the ends of lines.
            if at + 1 < cells.len() {
                out.push_str(&padding);
            }
        }
    }
    out.push('\n');
}

/// Control characters would break the lines, or steer the terminal.
fn printable(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_string();
    }
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}
