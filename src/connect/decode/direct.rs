//! JSON objects to columns in one pass over their text. It judges nothing: a record that isn't plainly fine is refused without a
//! word, and the general way decides on it. Knows no source.

use std::borrow::Cow;

use arrow::array::ArrayRef;

use super::Contract;
use super::column::{Cell, Column};
use super::scan::{Kind, Scan, Token};
use super::values::{ColumnReader, Misfit, parse_column};

/// Columns of a contract that are filled record by record; the records' text lives for `'t`.
pub(super) struct Direct<'c, 't> {
    contract: &'c Contract,
    /// The columns' names in their quotes.
    names: Vec<String>,
    /// By the column of the member before, 0 for none: which column came next last time.
    next: Vec<usize>,
    /// What was read of the record.
    cells: Vec<Cell<'t>>,
    /// The last record that had the column's member.
    seen: Vec<usize>,
    columns: Vec<Gathered<'t>>,
    rows: usize,
    tried: usize,
}

/// What was read of a column.
enum Gathered<'t> {
    Flat(Column),
    /// Texts of lists and structs, which are read together.
    Nested(Vec<Option<Cow<'t, str>>>),
}

impl<'c, 't> Direct<'c, 't> {
    /// No records yet, and room for `rows`.
    pub(super) fn new(contract: &'c Contract, rows: usize) -> Self {
        let gathered = |reader: &ColumnReader| match reader.is_nested() {
            true => Gathered::Nested(Vec::with_capacity(rows)),
            false => Gathered::Flat(reader.column(rows)),
        };
        let width = contract.readers.len();
        Self {
            contract,
            names: contract.schema.fields().iter().map(|field| quoted(field.name())).collect(),
            next: (0..=width).collect(),
            cells: vec![Cell::Null; width],
            seen: vec![0; width],
            columns: contract.readers.iter().map(gathered).collect(),
            rows: 0,
            tried: 0,
        }
    }

    /// Adds a record; false, and nothing happened, where it isn't plainly fine.
    pub(super) fn push(&mut self, object: &'t [u8]) -> bool {
        let Some(()) = std::str::from_utf8(object).ok().and_then(|text| self.read(text)) else { return false };
        for (column, cell) in self.columns.iter_mut().zip(&mut self.cells) {
            match column {
                Gathered::Flat(column) => column.push(cell),
                Gathered::Nested(texts) => texts.push(match std::mem::replace(cell, Cell::Null) {
                    Cell::Text(text) => Some(text),
                    _ => None,
                }),
            }
        }
        self.rows += 1;
        true
    }

    fn read(&mut self, text: &'t str) -> Option<()> {
        self.cells.iter_mut().for_each(|cell| *cell = Cell::Null);
        self.tried += 1;
        let mut scan = Scan::new(text)?;
        let (mut before, mut is_first) = (0, true);
        while scan.next_member(is_first)? {
            is_first = false;
            let column = self.column(&mut scan, before)?;
            let token = scan.value()?;
            let Some(at) = column else { continue };
            // Of a name that stands twice the last counts, also where the first doesn't fit.
            if self.seen[at] == self.tried {
                return None;
            }
            self.seen[at] = self.tried;
            self.cells[at] = cell(&self.contract.readers[at], &token)?;
            before = at + 1;
        }
        let is_missing = |(cell, at): (&Cell<'_>, usize)| matches!(cell, Cell::Null) && !self.contract.nullable[at];
        (!self.cells.iter().zip(0..).any(is_missing)).then_some(())
    }

    /// The column of the member here, if there is one; most records have their members in the order of the one before.
    fn column(&mut self, scan: &mut Scan<'t>, before: usize) -> Option<Option<usize>> {
        let guess = self.next[before];
        if self.names.get(guess).is_some_and(|name| scan.is_named(name)) {
            return Some(Some(guess));
        }
        let name = scan.name()?;
        let found = self.names.iter().position(|known| known == name);
        if let Some(found) = found {
            self.next[before] = found;
        }
        Some(found)
    }

    /// Records so far.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The columns, each with what doesn't fit: inside of lists and structs, which aren't looked into before.
    pub(super) fn finish(self) -> Vec<(ArrayRef, Vec<Misfit>)> {
        let rows = self.rows;
        let array = |(gathered, reader): (Gathered<'t>, &ColumnReader)| match gathered {
            Gathered::Flat(column) => (column.finish(), Vec::new()),
            Gathered::Nested(texts) => parse_column(reader, texts.iter().map(Option::as_deref), rows),
        };
        self.columns.into_iter().zip(self.contract.readers.iter()).map(array).collect()
    }
}

/// A name as it stands in JSON. One with escapes is never met: a member of such a name is left to the general way.
fn quoted(name: &str) -> String {
    let quoted = format!("\"{name}\"");
    let written = serde_json::Value::from(name).to_string();
    if written == quoted { quoted } else { String::from("?") }
}

/// What a column reads of a value, if it fits.
fn cell<'t>(reader: &ColumnReader, token: &Token<'t>) -> Option<Cell<'t>> {
    let text = match token.kind {
        Kind::Null => return Some(Cell::Null),
        // That it is JSON is known.
        _ if reader.keeps_json() => return Some(Cell::Text(Cow::Borrowed(token.raw))),
        Kind::Plain => &token.raw[1..token.raw.len() - 1],
        Kind::Scalar => token.raw,
        Kind::Other => {
            return match reader.cell(0, token.raw).ok()? {
                None => Some(Cell::Null),
                Some(Cow::Borrowed(text)) => reader.read(text).ok(),
                Some(Cow::Owned(text)) => reader.read(&text).ok().map(Cell::into_owned),
            };
        }
    };
    if reader.is_null(text) { Some(Cell::Null) } else { reader.read(text).ok() }
}

#[cfg(test)]
#[path = "direct_tests.rs"]
mod tests;
