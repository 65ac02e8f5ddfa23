//! A batch of records before their cells have types: one buffer for all cells, one for the raw lines.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};

use super::Origin;
use crate::connect::quarantine::{Refused, RefusedAt};
use crate::error::Result;

/// Records with `width` cells each.
#[derive(Default)]
pub(super) struct RawRows {
    width: usize,
    /// Cells, one after the other; empty once they are in `text`.
    cells: Vec<u8>,
    /// All cells, where they are UTF-8 and were finished.
    text: String,
    /// End of each cell in `cells`.
    ends: Vec<usize>,
    nulls: Vec<bool>,
    raw: Vec<u8>,
    raw_ends: Vec<usize>,
    numbers: Vec<u64>,
    broken: Vec<Option<String>>,
}

impl RawRows {
    pub(super) fn new(width: usize) -> Self {
        Self { width, ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Adds a cell of the record that [`RawRows::end_record`] ends.
    pub(super) fn push_cell(&mut self, cell: Option<&[u8]>) {
        if let Some(cell) = cell {
            self.cells.extend_from_slice(cell);
        }
        self.ends.push(self.cells.len());
        self.nulls.push(cell.is_none());
    }

    /// Ends a record whose cells were pushed; cells that are missing are null.
    pub(super) fn end_record(&mut self, number: u64, raw: &[u8], broken: Option<String>) {
        let complete = (self.numbers.len() + 1) * self.width;
        self.ends.truncate(complete);
        self.nulls.truncate(complete);
        self.ends.resize(complete, self.ends.last().copied().unwrap_or(0));
        self.nulls.resize(complete, true);
        self.raw.extend_from_slice(raw);
        self.raw_ends.push(self.raw.len());
        self.numbers.push(number);
        self.broken.push(broken);
    }

    /// Finds cells that aren't UTF-8; their records are broken.
    pub(super) fn finish(mut self, names: &[&str]) -> Self {
        // A cell may end in the middle of a character that the next one ends.
        let is_cut = self.ends.iter().any(|end| !self.is_boundary(*end));
        match String::from_utf8(std::mem::take(&mut self.cells)) {
            Ok(text) if !is_cut => {
                self.text = text;
                return self;
            }
            Ok(text) => self.cells = text.into_bytes(),
            Err(error) => self.cells = error.into_bytes(),
        }
        for row in 0..self.len() {
            let bad = (0..self.width).find(|column| std::str::from_utf8(self.bytes(row, *column)).is_err());
            if let Some(column) = bad {
                let name = names.get(column).copied().unwrap_or_default();
                self.broken[row].get_or_insert_with(|| format!("{name}: the bytes aren't UTF-8"));
            }
        }
        self
    }

    fn is_boundary(&self, end: usize) -> bool {
        self.cells.get(end).is_none_or(|byte| byte & 0xC0 != 0x80)
    }

    /// Where a cell begins and ends.
    fn bounds(&self, row: usize, column: usize) -> Range<usize> {
        let cell = row * self.width + column;
        let start = if cell == 0 { 0 } else { self.ends[cell - 1] };
        start..self.ends[cell]
    }

    fn bytes(&self, row: usize, column: usize) -> &[u8] {
        let bytes = if self.cells.is_empty() { self.text.as_bytes() } else { &self.cells };
        &bytes[self.bounds(row, column)]
    }

    /// Cells of a column; those that aren't UTF-8 count as null, their records are broken.
    pub(super) fn column(&self, column: usize) -> impl Iterator<Item = Option<&str>> {
        (0..self.len()).map(move |row| self.cell(row, column))
    }

    /// A cell; null for one that isn't UTF-8 or stands in a broken record.
    pub(super) fn cell(&self, row: usize, column: usize) -> Option<&str> {
        if self.nulls[row * self.width + column] || self.broken[row].is_some() {
            return None;
        }
        match self.cells.is_empty() {
            true => self.text.get(self.bounds(row, column)),
            false => std::str::from_utf8(self.bytes(row, column)).ok(),
        }
    }

    /// The cells of a record, also of a broken one, to be shown.
    pub(super) fn texts(&self, row: usize) -> Vec<Option<String>> {
        let text = |column| String::from_utf8_lossy(self.bytes(row, column)).into_owned();
        (0..self.width).map(|column| (!self.nulls[row * self.width + column]).then(|| text(column))).collect()
    }

    /// Why records are refused whatever their types, one entry a record.
    pub(super) fn broken(&self) -> &[Option<String>] {
        &self.broken
    }
}

impl Origin for RawRows {
    fn hidden(&self, rows: &[usize]) -> Vec<ArrayRef> {
        row_numbers(rows.iter().map(|row| self.numbers[*row]))
    }

    /// Bytes that aren't UTF-8 are shown as replacement characters.
    fn refused(&self, index: usize, rule: &str, reason: String) -> Result<Refused> {
        let start = if index == 0 { 0 } else { self.raw_ends[index - 1] };
        Ok(Refused {
            cells: self.texts(index),
            rule: rule.to_string(),
            reason,
            at: RefusedAt::Row(self.numbers[index]),
            raw: String::from_utf8_lossy(&self.raw[start..self.raw_ends[index]]).into_owned(),
        })
    }
}

/// `_source_row` of rows with these numbers.
pub(in crate::connect) fn row_numbers(numbers: impl Iterator<Item = u64>) -> Vec<ArrayRef> {
    let numbers = numbers.map(|number| i64::try_from(number).unwrap_or(i64::MAX));
    vec![Arc::new(Int64Array::from_iter_values(numbers))]
}
