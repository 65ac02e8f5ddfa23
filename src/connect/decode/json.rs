//! JSON lines: one object a line. A line that is none refuses itself alone. Numbers keep their text.

use std::borrow::Cow;
use std::io::{BufRead, BufReader, Read};

use arrow::array::ArrayRef;

use super::direct::Direct;
use super::rows::{RawRows, row_numbers};
use super::{Contract, Decoded, Misfits, Origin, arrow_error};
use crate::connect::quarantine::{Refused, RefusedAt};
use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::plan::json_text::Lookup;

/// Records of one file of JSON lines.
pub(super) struct JsonRecords {
    input: BufReader<Box<dyn Read + Send>>,
    next_number: u64,
}

impl JsonRecords {
    pub(super) fn new(input: Box<dyn Read + Send>) -> Self {
        Self { input: BufReader::with_capacity(limits::READ_BYTES, input), next_number: 1 }
    }

    /// Up to `limit` records; none at the end. Empty lines are no records.
    pub(super) fn next_lines(&mut self, limit: usize) -> Result<Option<Lines>> {
        let mut lines = Lines { first: self.next_number, text: Vec::new(), ends: Vec::new() };
        while lines.ends.len() < limit && self.next_line(&mut lines.text)? {
            let start = lines.ends.last().copied().unwrap_or(0);
            if lines.text[start..].trim_ascii().is_empty() {
                lines.text.truncate(start);
            } else {
                lines.ends.push(lines.text.len());
            }
        }
        self.next_number += lines.ends.len() as u64;
        Ok((!lines.ends.is_empty()).then_some(lines))
    }

    fn next_line(&mut self, text: &mut Vec<u8>) -> Result<bool> {
        let mut bounded = (&mut self.input).take(limits::RECORD_BYTES as u64 + 1);
        let read = bounded.read_until(b'\n', text).external("can't read on")?;
        if read > limits::RECORD_BYTES {
            return Err(Error::external(format!("a line of over {} MiB", limits::RECORD_BYTES >> 20)));
        }
        Ok(read > 0)
    }
}

/// Lines of a file that are records.
pub(super) struct Lines {
    /// Number of the first.
    first: u64,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Lines {
    pub(super) fn decode(self, contract: &Contract) -> Result<Decoded> {
        let objects = (0..self.ends.len()).map(|index| self.object(index));
        let (columns, misfits) = contract.read_objects(&objects.collect::<Vec<_>>())?;
        let (rows, contract) = (self.ends.len(), contract.clone());
        Decoded::new(&contract.schema.clone(), columns, rows, misfits, ReadLines { lines: self, contract })
    }

    fn object(&self, index: usize) -> Object<'_> {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Object::Text(Cow::Borrowed(self.text[start..self.ends[index]].trim_ascii()))
    }

    fn number(&self, index: usize) -> u64 {
        self.first + index as u64
    }
}

/// Lines and the contract that they were read under.
struct ReadLines {
    lines: Lines,
    contract: Contract,
}

impl Origin for ReadLines {
    fn hidden(&self, rows: &[usize]) -> Vec<ArrayRef> {
        row_numbers(rows.iter().map(|row| self.lines.number(*row)))
    }

    /// Bytes that aren't UTF-8 are shown as replacement characters.
    fn refused(&self, index: usize, rule: &str, reason: String) -> Result<Refused> {
        let object = self.lines.object(index);
        let raw = match &object {
            Object::Text(text) => String::from_utf8_lossy(text).into_owned(),
            _ => String::new(),
        };
        let at = RefusedAt::Row(self.lines.number(index));
        Ok(Refused { cells: self.contract.cells_of_object(&object), rule: rule.to_string(), reason, at, raw })
    }
}

/// What there is of a record.
pub(in crate::connect) enum Object<'a> {
    /// Its text, which should be an object.
    Text(Cow<'a, [u8]>),
    /// A record of nulls.
    #[cfg_attr(not(feature = "kafka"), expect(dead_code, reason = "lines always have a text"))]
    Nothing,
    /// None, and why.
    #[cfg_attr(not(feature = "kafka"), expect(dead_code, reason = "lines always have a text"))]
    Broken(String),
}

impl Contract {
    /// Columns of objects, and which rows don't fit: by one pass over the text of those that are plainly fine, and by a closer
    /// look at the others.
    pub(in crate::connect) fn read_objects(&self, objects: &[Object<'_>]) -> Result<(Vec<ArrayRef>, Misfits)> {
        let mut direct = Direct::new(self, objects.len());
        let mut general = Objects::new(self);
        // The rows of both, in their order: which of the two, and its row there.
        let mut places: Vec<(usize, usize)> = Vec::with_capacity(objects.len());
        for object in objects {
            if let Object::Text(text) = object
                && direct.push(text)
            {
                places.push((0, direct.rows() - 1));
            } else {
                general.push(object);
                places.push((1, general.rows.len() - 1));
            }
        }
        let (mut columns, mut misfits) = (Vec::with_capacity(self.readers.len()), Misfits::new());
        let rows_of =
            |which: usize| places.iter().zip(0..).filter(move |((of, _), _)| *of == which).map(|(_, row)| row);
        let rows: Vec<usize> = rows_of(0).collect();
        for ((array, faults), field) in direct.finish().into_iter().zip(self.schema.fields()) {
            for misfit in faults {
                misfits.entry(rows[misfit.row]).or_insert_with(|| misfit.of_column(field.name()));
            }
            columns.push(array);
        }
        if rows.len() == objects.len() {
            return Ok((columns, misfits));
        }
        let (others, other_misfits) = self.columns(&general.finish());
        let rows: Vec<usize> = rows_of(1).collect();
        misfits.extend(other_misfits.into_iter().map(|(row, reason)| (rows[row], reason)));
        let together = |(one, other): (&ArrayRef, &ArrayRef)| {
            arrow::compute::interleave(&[one.as_ref(), other.as_ref()], &places).map_err(arrow_error)
        };
        let columns = columns.iter().zip(&others).map(together).collect::<Result<_>>()?;
        Ok((columns, misfits))
    }

    /// The cells of an object as text, as far as it has them.
    pub(in crate::connect) fn cells_of_object(&self, object: &Object<'_>) -> Vec<Option<String>> {
        let mut objects = Objects::new(self);
        objects.push(object);
        objects.finish().texts(0)
    }
}

/// Objects to records of text: the contract's columns by name. This way decides what is wrong with an object.
pub(super) struct Objects<'a> {
    contract: &'a Contract,
    lookup: Lookup,
    rows: RawRows,
}

impl<'a> Objects<'a> {
    pub(super) fn new(contract: &'a Contract) -> Self {
        let names = contract.schema.fields().iter().map(|field| field.name().clone());
        Self { contract, lookup: Lookup::new(names.collect()), rows: RawRows::new(contract.readers.len()) }
    }

    pub(super) fn finish(self) -> RawRows {
        let names: Vec<&str> = self.contract.schema.fields().iter().map(|field| field.name().as_str()).collect();
        self.rows.finish(&names)
    }

    pub(super) fn push(&mut self, object: &Object<'_>) {
        let broken = match object {
            Object::Text(text) => self.push_text(text),
            Object::Nothing => Ok(()),
            Object::Broken(reason) => Err(reason.clone()),
        };
        // Where it stands and its raw text are known to who has the object.
        self.rows.end_record(0, b"", broken.err());
    }

    fn push_text(&mut self, text: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(text).map_err(|_| "the bytes aren't UTF-8".to_string())?;
        let values = self.lookup.values(text).map_err(|e| format!("not a JSON object: {e}"))?;
        let mut broken = None;
        for ((field, reader), value) in
            self.contract.schema.fields().iter().zip(self.contract.readers.iter()).zip(values)
        {
            match value.map_or(Ok(None), |value| reader.cell(0, value)) {
                Ok(cell) => self.rows.push_cell(cell.as_deref().map(str::as_bytes)),
                Err(misfit) => {
                    broken.get_or_insert_with(|| misfit.of_column(field.name()));
                    self.rows.push_cell(None);
                }
            }
        }
        broken.map_or(Ok(()), Err)
    }
}
