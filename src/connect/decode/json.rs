//! JSON lines: one object a line. A line that is none refuses itself alone. Numbers keep their text.

use std::io::{BufRead, BufReader, Read};

use super::Contract;
use super::rows::RawRows;
use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::plan::json_text::Lookup;

/// Records of one file of JSON lines.
pub(super) struct JsonRecords<'a> {
    input: BufReader<Box<dyn Read + Send>>,
    objects: JsonObjects<'a>,
    line: Vec<u8>,
    next_number: u64,
}

impl<'a> JsonRecords<'a> {
    pub(super) fn new(input: Box<dyn Read + Send>, contract: &'a Contract) -> Self {
        Self {
            input: BufReader::with_capacity(limits::READ_BYTES, input),
            objects: JsonObjects::new(contract),
            line: Vec::new(),
            next_number: 1,
        }
    }

    /// Up to `limit` records; none at the end. Empty lines are no records.
    pub(super) fn next_rows(&mut self, limit: usize) -> Result<Option<RawRows>> {
        let mut rows = self.objects.no_rows();
        while rows.len() < limit && self.next_line()? {
            if !self.line.trim_ascii().is_empty() {
                self.objects.push(&mut rows, self.next_number, self.line.trim_ascii());
                self.next_number += 1;
            }
        }
        Ok((rows.len() > 0).then(|| self.objects.finish(rows)))
    }

    fn next_line(&mut self) -> Result<bool> {
        self.line.clear();
        let mut bounded = (&mut self.input).take(limits::RECORD_BYTES as u64 + 1);
        let read = bounded.read_until(b'\n', &mut self.line).external("can't read on")?;
        if self.line.len() > limits::RECORD_BYTES {
            return Err(Error::external(format!("a line of over {} MiB", limits::RECORD_BYTES >> 20)));
        }
        Ok(read > 0)
    }
}

/// JSON objects to records: the contract's columns by name.
pub(in crate::connect) struct JsonObjects<'a> {
    contract: &'a Contract,
    lookup: Lookup,
}

impl<'a> JsonObjects<'a> {
    pub(in crate::connect) fn new(contract: &'a Contract) -> Self {
        let names = contract.schema.fields().iter().map(|field| field.name().clone());
        Self { contract, lookup: Lookup::new(names.collect()) }
    }

    /// Records to fill.
    pub(in crate::connect) fn no_rows(&self) -> RawRows {
        RawRows::new(self.contract.schema.fields().len())
    }

    /// Records that are complete.
    pub(in crate::connect) fn finish(&self, rows: RawRows) -> RawRows {
        let names: Vec<&str> = self.contract.schema.fields().iter().map(|field| field.name().as_str()).collect();
        rows.finish(&names)
    }

    /// Adds the record of one object. Text that is none is a broken record.
    pub(in crate::connect) fn push(&mut self, rows: &mut RawRows, number: u64, line: &[u8]) {
        let values = std::str::from_utf8(line)
            .map_err(|_| "the bytes aren't UTF-8".to_string())
            .and_then(|text| self.lookup.values(text).map_err(|e| format!("not a JSON object: {e}")));
        let values = match values {
            Ok(values) => values,
            Err(reason) => return rows.end_record(number, line, Some(reason)),
        };
        let mut broken = None;
        for ((field, reader), value) in self.contract.schema.fields().iter().zip(&self.contract.readers).zip(values) {
            match value.map_or(Ok(None), |value| reader.cell(0, value)) {
                Ok(cell) => rows.push_cell(cell.as_deref().map(str::as_bytes)),
                Err(misfit) => {
                    broken.get_or_insert_with(|| misfit.of_column(field.name()));
                    rows.push_cell(None);
                }
            }
        }
        rows.end_record(number, line, broken);
    }
}
