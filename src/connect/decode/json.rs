//! JSON lines: one object a line. A line that is none refuses itself alone. Numbers keep their text.

use std::io::{BufRead, BufReader, Read};

use arrow::datatypes::SchemaRef;
use serde_json::value::RawValue;

use super::rows::RawRows;
use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::spec::types::TextOptions;

/// Records of one file of JSON lines.
pub(super) struct JsonRecords {
    input: BufReader<Box<dyn Read + Send>>,
    objects: JsonObjects,
    line: Vec<u8>,
    next_number: u64,
}

impl JsonRecords {
    pub(super) fn new(options: &TextOptions, input: Box<dyn Read + Send>, schema: &SchemaRef) -> Self {
        Self {
            input: BufReader::with_capacity(limits::READ_BYTES, input),
            objects: JsonObjects::new(options, schema),
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
pub(in crate::connect) struct JsonObjects {
    names: Vec<String>,
    null_values: Vec<String>,
}

impl JsonObjects {
    pub(in crate::connect) fn new(options: &TextOptions, schema: &SchemaRef) -> Self {
        Self {
            names: schema.fields().iter().map(|f| f.name().clone()).collect(),
            null_values: options.null_values.clone().unwrap_or_default(),
        }
    }

    /// Records to fill.
    pub(in crate::connect) fn no_rows(&self) -> RawRows {
        RawRows::new(self.names.len())
    }

    /// Records that are complete.
    pub(in crate::connect) fn finish(&self, rows: RawRows) -> RawRows {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        rows.finish(&names)
    }

    /// Adds the record of one object. Text that is none is a broken record.
    pub(in crate::connect) fn push(&self, rows: &mut RawRows, number: u64, line: &[u8]) {
        let object = std::str::from_utf8(line)
            .map_err(|_| "the bytes aren't UTF-8".to_string())
            .and_then(|text| serde_json::from_str::<Object<'_>>(text).map_err(|e| format!("not a JSON object: {e}")));
        let object = match object {
            Ok(object) => object,
            Err(reason) => return rows.end_record(number, line, Some(reason)),
        };
        let mut broken = None;
        for name in &self.names {
            // As most readers do: of a key that stands twice, the last counts.
            match object.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| text(value.get())) {
                None | Some(Ok(None)) => rows.push_cell(None),
                Some(Ok(Some(cell))) if self.null_values.contains(&cell) => rows.push_cell(None),
                Some(Ok(Some(cell))) => rows.push_cell(Some(cell.as_bytes())),
                Some(Err(reason)) => {
                    broken.get_or_insert_with(|| format!("{name}: {reason}"));
                    rows.push_cell(None);
                }
            }
        }
        rows.end_record(number, line, broken);
    }
}

/// A value's text: what a string says, everything else as written; none for null.
fn text(value: &str) -> Result<Option<String>, String> {
    match value.as_bytes().first() {
        Some(b'"') => serde_json::from_str(value).map(Some).map_err(|e| e.to_string()),
        Some(b'n') => Ok(None),
        _ => Ok(Some(value.to_string())),
    }
}

/// Keys and unread values of one object.
struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Object<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::with_capacity(map.size_hint().unwrap_or(16));
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(Visitor).map(Object)
    }
}
