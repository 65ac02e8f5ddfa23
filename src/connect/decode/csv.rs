//! CSV records. `csv-core` finds fields; row numbers, raw lines and the difference between `` and `""` are kept here.

use std::io::Read;

use arrow::datatypes::SchemaRef;
use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::rows::RawRows;
use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::spec::types::CsvOptions;

/// Records of one CSV file.
pub(super) struct CsvRecords {
    scanner: Scanner,
    quote: u8,
    delimiter: u8,
    null_values: Vec<Vec<u8>>,
    /// Field of the file for each contract column; none where the file lacks it.
    fields: Vec<Option<usize>>,
    /// Fields that each record has.
    width: usize,
    names: Vec<String>,
    next_number: u64,
}

impl CsvRecords {
    pub(super) fn new(options: &CsvOptions, input: Box<dyn Read + Send>, schema: &SchemaRef) -> Result<Self> {
        let mut scanner = Scanner::new(options, input);
        let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
        let (fields, width) = if options.header {
            match scanner.next_record()? {
                true => by_name(&scanner.texts(), schema)?,
                // An empty file has no rows, whatever it lacks.
                false => (vec![None; names.len()], 0),
            }
        } else {
            ((0..names.len()).map(Some).collect(), names.len())
        };
        let null_values = options.text.null_values.iter().flatten().map(|v| v.clone().into_bytes()).collect();
        let (quote, delimiter) = (options.quote, options.delimiter);
        Ok(Self { scanner, quote, delimiter, null_values, fields, width, names, next_number: 1 })
    }

    /// Up to `limit` records; none at the end.
    pub(super) fn next_rows(&mut self, limit: usize) -> Result<Option<RawRows>> {
        let mut rows = RawRows::new(self.fields.len());
        while rows.len() < limit && self.scanner.next_record()? {
            self.push_record(&mut rows);
            self.next_number += 1;
        }
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        Ok((rows.len() > 0).then(|| rows.finish(&names)))
    }

    fn push_record(&self, rows: &mut RawRows) {
        let found = self.scanner.ends;
        let has_quotes = self.scanner.raw().contains(&self.quote);
        let mut quoted: Option<Vec<bool>> = None;
        for field in &self.fields {
            let Some(index) = field.filter(|index| *index < found) else {
                rows.push_cell(None);
                continue;
            };
            let cell = self.scanner.field(index);
            let may_be_null = cell.is_empty() || self.null_values.iter().any(|null| null == cell);
            let is_null = may_be_null
                && !(has_quotes
                    && quoted.get_or_insert_with(|| self.quoted_fields()).get(index).copied().unwrap_or(false));
            rows.push_cell((!is_null).then_some(cell));
        }
        let broken = (found != self.width).then(|| format!("the line has {found} fields, and the file {}", self.width));
        rows.end_record(self.next_number, self.scanner.raw(), broken);
    }

    /// Which fields of the record were written in quotes.
    fn quoted_fields(&self) -> Vec<bool> {
        let mut quoted = Vec::new();
        let (mut inside, mut at_start) = (false, true);
        for byte in self.scanner.raw() {
            if at_start {
                quoted.push(*byte == self.quote);
                at_start = false;
            }
            if *byte == self.quote {
                inside = !inside;
            } else if *byte == self.delimiter && !inside {
                at_start = true;
            }
        }
        quoted
    }
}

/// Names of the first record, or none for an empty file or one without a header.
pub(super) fn header(options: &CsvOptions, input: Box<dyn Read + Send>) -> Result<Option<Vec<String>>> {
    if !options.header {
        return Ok(None);
    }
    let mut scanner = Scanner::new(options, input);
    Ok(scanner.next_record()?.then(|| scanner.texts()))
}

fn by_name(header: &[String], schema: &SchemaRef) -> Result<(Vec<Option<usize>>, usize)> {
    let mut fields = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let mut found = header.iter().enumerate().filter(|(_, name)| *name == field.name()).map(|(index, _)| index);
        let first = found.next();
        if found.next().is_some() {
            return Err(Error::external(format!("the header names the column `{}` twice", field.name())));
        }
        if first.is_none() && !field.is_nullable() {
            return Err(Error::external(format!(
                "the header lacks the column `{}`, which may not be null",
                field.name()
            ))
            .with("header", header.join(", ")));
        }
        fields.push(first);
    }
    Ok((fields, header.len()))
}

/// One record at a time out of a stream of bytes.
struct Scanner {
    reader: Reader,
    input: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
    /// Fields of the record, one after the other, and their ends.
    fields: Vec<u8>,
    bounds: Vec<usize>,
    ends: usize,
    raw: Vec<u8>,
    ended: bool,
}

impl Scanner {
    fn new(options: &CsvOptions, input: Box<dyn Read + Send>) -> Self {
        let reader = ReaderBuilder::new()
            .delimiter(options.delimiter)
            .quote(options.quote)
            .escape(options.escape)
            .double_quote(options.escape.is_none())
            .build();
        Self {
            reader,
            input,
            buffer: vec![0; limits::READ_BYTES],
            at: 0,
            filled: 0,
            fields: vec![0; 4096],
            bounds: vec![0; 64],
            ends: 0,
            raw: Vec::new(),
            ended: false,
        }
    }

    fn field(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.bounds[index - 1] };
        &self.fields[start..self.bounds[index]]
    }

    fn texts(&self) -> Vec<String> {
        (0..self.ends).map(|index| String::from_utf8_lossy(self.field(index)).into_owned()).collect()
    }

    /// The record's characters without its line end.
    fn raw(&self) -> &[u8] {
        let start = self.raw.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(self.raw.len());
        let end = self.raw.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(start, |at| at + 1);
        &self.raw[start..end]
    }

    /// Reads one record; false at the end. Empty lines are no records.
    fn next_record(&mut self) -> Result<bool> {
        let (mut written, mut ends) = (0, 0);
        self.raw.clear();
        loop {
            if self.at == self.filled && !self.ended {
                self.at = 0;
                self.filled = self.input.read(&mut self.buffer).external("can't read on")?;
                self.ended = self.filled == 0;
            }
            let input = &self.buffer[self.at..self.filled];
            let (result, read, out, bounds) =
                self.reader.read_record(input, &mut self.fields[written..], &mut self.bounds[ends..]);
            self.raw.extend_from_slice(&input[..read]);
            self.at += read;
            written += out;
            ends += bounds;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.fields.resize(self.fields.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.bounds.resize(self.bounds.len() * 2, 0),
                ReadRecordResult::Record => {
                    self.ends = ends;
                    return Ok(true);
                }
                ReadRecordResult::End => return Ok(false),
            }
            if self.raw.len() > limits::RECORD_BYTES {
                let start: String = String::from_utf8_lossy(&self.raw[..80]).into_owned();
                return Err(Error::external(format!(
                    "a line of over {} MiB; is a quote never closed?",
                    limits::RECORD_BYTES >> 20
                ))
                .with("line", start));
            }
        }
    }
}

/// Names and cells of a whole text with a header.
pub(super) fn cells(text: &str) -> Result<super::NamedCells> {
    let options = CsvOptions::default();
    let input = || Box::new(std::io::Cursor::new(text.as_bytes().to_vec()));
    let names = header(&options, input())?.ok_or_else(|| Error::external("expected a header with column names"))?;
    let fields = names.iter().map(|name| arrow::datatypes::Field::new(name, arrow::datatypes::DataType::Utf8, true));
    let schema = std::sync::Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()));
    let mut records = CsvRecords::new(&options, input(), &schema)?;
    let mut cells = Vec::new();
    while let Some(rows) = records.next_rows(limits::BATCH_ROWS)? {
        if let Some(reason) = rows.broken().iter().flatten().next() {
            return Err(Error::external(reason.clone()));
        }
        for row in 0..rows.len() {
            cells.push((0..names.len()).map(|column| rows.cell(row, column).map(str::to_string)).collect());
        }
    }
    Ok((names, cells))
}
