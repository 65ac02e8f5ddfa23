//! Proposes sources for text files: samples rows with the decoder itself, all columns as text, then finds their types.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};

use super::column::{Guess, Kind, guess, is_identifier, settle_orders};
use super::sample::{self, Sample};
use super::{Column, InferredSource, Shape, check_width, dialect, json_keys, leave_out, numbers};
use crate::connect::RefusedAt;
use crate::connect::decode::{Contract, TextReader};
use crate::error::{Error, Result};
use crate::limits;
use crate::spec::sql_type::SqlType;
use crate::spec::types::{CsvOptions, FileFormat, TextOptions};

/// How values stand in a sample, which is UTF-8 already.
const PLAIN: TextOptions = TextOptions {
    timestamp_format: None,
    timestamp_zone: None,
    encoding: None,
    null_values: None,
    decimal_separator: '.',
};

/// Fills in a source for a CSV file.
///
/// # Errors
/// As of [`super::infer`].
pub(super) fn infer_csv(source: &mut InferredSource) -> Result<()> {
    let sample = sample::read(&source.path)?;
    let (dialect, names) = dialect::find(&sample.text)?;
    if names.is_empty() {
        return Err(Error::usage("the file is empty: there are no columns to find"));
    }
    check_width(names.len())?;
    if !dialect.header {
        source.notes.push("the first row looks like data, so the columns have no names yet".to_string());
    }
    let names = leave_out(names, &mut source.notes);
    let format = FileFormat::Csv(CsvOptions {
        delimiter: dialect.delimiter,
        header: dialect.header,
        quote: b'"',
        escape: dialect.escape,
        text: PLAIN,
    });
    let rows = Rows::read(&format, &sample, &names)?;
    source.notes.extend(rows.note());
    let columns: Vec<Vec<Option<&str>>> = (0..names.len()).map(|index| rows.cells(index)).collect();
    let decimal_separator = numbers::separator(columns.iter().map(Vec::as_slice));
    let kinds = vec![Kind::Unknown; names.len()];
    source.columns = propose(names, &columns, &kinds, decimal_separator)?;
    source.shape = Shape::Csv { dialect, encoding: sample.encoding, decimal_separator };
    Ok(())
}

/// Fills in a source for a file of JSON lines.
///
/// # Errors
/// As of [`super::infer`].
pub(super) fn infer_json(source: &mut InferredSource) -> Result<()> {
    let sample = sample::read(&source.path)?;
    let keys = json_keys::find(&sample.text);
    if keys.is_empty() {
        return Err(Error::usage(match sample.text.trim_ascii_start().first() {
            None => "the file is empty: there are no columns to find",
            Some(b'[') => "the file is one JSON array; JSON files have one object a line",
            Some(_) => "no line of the file is a JSON object; JSON files have one object a line",
        }));
    }
    check_width(keys.len())?;
    let names = leave_out(keys.iter().map(|(name, _)| name.clone()).collect(), &mut source.notes);
    let kind = |name: &String| keys.iter().find(|(key, _)| key == name).map_or(Kind::String, |(_, kind)| *kind);
    let kinds: Vec<Kind> = names.iter().map(kind).collect();
    let rows = Rows::read(&FileFormat::Json(PLAIN), &sample, &names)?;
    source.notes.extend(rows.note());
    let columns: Vec<Vec<Option<&str>>> = (0..names.len()).map(|index| rows.cells(index)).collect();
    source.columns = propose(names, &columns, &kinds, '.')?;
    source.shape = Shape::Json { encoding: sample.encoding };
    Ok(())
}

fn propose(names: Vec<String>, columns: &[Vec<Option<&str>>], kinds: &[Kind], separator: char) -> Result<Vec<Column>> {
    let mut guesses: Vec<(String, Guess)> = Vec::with_capacity(names.len());
    for ((name, cells), kind) in names.into_iter().zip(columns).zip(kinds) {
        guesses.push((name, guess(cells, *kind, separator)?));
    }
    settle_orders(&mut guesses);
    let proposed = guesses.into_iter().zip(columns).map(|((name, guess), cells)| {
        let is_required = is_identifier(&name) && guess.data_type != SqlType::Boolean && !cells.is_empty();
        Column {
            nullable: !(is_required && cells.iter().all(Option::is_some)),
            name,
            data_type: guess.data_type,
            timestamp_format: guess.timestamp_format,
            note: guess.note,
        }
    });
    Ok(proposed.collect())
}

/// Sampled rows as texts.
struct Rows {
    batches: Vec<RecordBatch>,
    accepted: usize,
    /// Rows of another shape than the file's, and why the first is.
    refused: usize,
    reason: Option<String>,
}

impl Rows {
    fn read(format: &FileFormat, sample: &Sample, names: &[String]) -> Result<Self> {
        let fields: Vec<Field> = names.iter().map(|name| Field::new(name, DataType::Utf8View, true)).collect();
        let contract = Contract::new(Arc::new(Schema::new(fields)), &[], &PLAIN, "UTC")?;
        let mut reader = TextReader::new(format, Box::new(Cursor::new(sample.text.clone())), &contract)?;
        let mut rows = Self { batches: Vec::new(), accepted: 0, refused: 0, reason: None };
        while rows.accepted + rows.refused < limits::SAMPLE_ROWS
            && let Some(decoded) = reader.next_batch()?
        {
            let last = decoded.kept.last().copied();
            for (row, reason) in decoded.misfits {
                // The sample's end may cut a quoted text in two.
                if !(sample.is_cut && Some(row) > last) {
                    rows.refused += 1;
                    if let (None, RefusedAt::Row(number)) =
                        (&rows.reason, decoded.origin.refused(row, "", String::new())?.at)
                    {
                        rows.reason = Some(format!("row {number}: {reason}"));
                    }
                }
            }
            rows.accepted += decoded.fitting.num_rows();
            rows.batches.push(decoded.fitting);
        }
        Ok(rows)
    }

    /// Texts of a column.
    fn cells(&self, index: usize) -> Vec<Option<&str>> {
        let arrays =
            self.batches.iter().filter_map(|batch| batch.column(index).as_any().downcast_ref::<StringViewArray>());
        arrays.flat_map(|array| (0..array.len()).map(|row| array.is_valid(row).then(|| array.value(row)))).collect()
    }

    /// What the user should know of rows that don't fit the file's shape.
    fn note(&self) -> Option<String> {
        let reason = self.reason.as_ref()?;
        let all = self.accepted + self.refused;
        Some(format!("{} of {all} sampled rows would be refused; the first is {reason}", self.refused))
    }
}
