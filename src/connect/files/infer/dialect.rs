//! How a CSV file is written: delimiter, escape, header. Goes by a few records; knows no types' details.

use csv_core::{ReadRecordResult, ReaderBuilder};

use super::column;
use crate::error::Result;

/// Bytes that the dialect is found in.
const HEAD_BYTES: usize = 256 * 1024;
/// Records that the dialect is found in.
const HEAD_RECORDS: usize = 500;
/// Delimiters, the rarer ones in prose and numbers first: where several fit as well, the first is meant.
const DELIMITERS: [u8; 4] = [b'\t', b';', b'|', b','];
/// Length from which texts that are all as long as each other are codes, not words.
const CODE_CHARACTERS: usize = 8;

/// How a CSV file is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    pub(super) escape: Option<u8>,
    pub(super) header: bool,
}

/// A record's cells.
type Record = Vec<String>;

/// The dialect of a file that starts with `text`, and the names of its columns.
///
/// # Errors
/// None but bugs of ours.
pub(super) fn find(text: &[u8]) -> Result<(Dialect, Vec<String>)> {
    let head = head(text);
    let (delimiter, escape) = separators(head);
    let records = records(head, delimiter, escape);
    let Some((first, rest)) = records.split_first() else {
        return Ok((Dialect { delimiter, escape, header: true }, Vec::new()));
    };
    let header = has_header(first, rest)?;
    let names = match header {
        true => first.clone(),
        false => (1..=first.len()).map(|number| format!("column_{number}")).collect(),
    };
    Ok((Dialect { delimiter, escape, header }, names))
}

/// The start of the text, whole lines where there are any.
fn head(text: &[u8]) -> &[u8] {
    let head = &text[..text.len().min(HEAD_BYTES)];
    match head.iter().rposition(|byte| *byte == b'\n') {
        Some(end) if head.len() < text.len() => &head[..=end],
        _ => head,
    }
}

/// The delimiter that cuts most records into as many fields as the first, and the escape if there is one.
fn separators(head: &[u8]) -> (u8, Option<u8>) {
    let mut best = (0.0, b',', None);
    for delimiter in DELIMITERS {
        let escapes: &[Option<u8>] = if has_escapes(head, delimiter) { &[Some(b'\\'), None] } else { &[None] };
        for escape in escapes {
            let score = agreement(&records(head, delimiter, *escape));
            if score > best.0 {
                best = (score, delimiter, *escape);
            }
        }
    }
    if best.0 >= 0.5 { (best.1, best.2) } else { (b',', None) }
}

/// Share of records as wide as the first; 0 where that has one field only.
fn agreement(records: &[Record]) -> f64 {
    let width = records.first().map_or(0, Vec::len);
    if width < 2 {
        return 0.0;
    }
    let agreeing = records.iter().filter(|record| record.len() == width).count();
    agreeing as f64 / records.len() as f64
}

/// Whether quotes are escaped by a backslash: one stands before a quote that doesn't end its field.
fn has_escapes(head: &[u8], delimiter: u8) -> bool {
    let escaped = |window: &[u8]| {
        matches!(window, [before, b'\\', b'"', after]
            if *before != b'\\' && *after != delimiter && !matches!(after, b'\r' | b'\n' | b'"'))
    };
    head.windows(4).any(escaped)
}

fn records(head: &[u8], delimiter: u8, escape: Option<u8>) -> Vec<Record> {
    let mut reader = ReaderBuilder::new().delimiter(delimiter).escape(escape).double_quote(escape.is_none()).build();
    // No cell is longer than what it is written with, and no record has more cells than bytes and one.
    let (mut fields, mut ends) = (vec![0; head.len() + 1], vec![0; head.len() + 2]);
    let mut records = Vec::new();
    let (mut at, mut written, mut ended) = (0, 0, 0);
    while records.len() < HEAD_RECORDS {
        let (result, read, out, bounds) = reader.read_record(&head[at..], &mut fields[written..], &mut ends[ended..]);
        at += read;
        written += out;
        ended += bounds;
        match result {
            ReadRecordResult::InputEmpty => {}
            ReadRecordResult::Record => {
                let mut start = 0;
                let cells = ends[..ended].iter().map(|end| {
                    let cell = String::from_utf8_lossy(&fields[start..*end]).into_owned();
                    start = *end;
                    cell
                });
                records.push(cells.collect());
                (written, ended) = (0, 0);
            }
            _ => break,
        }
    }
    records
}

/// Whether the first record names the columns.
fn has_header(first: &[String], rest: &[Record]) -> Result<bool> {
    let (mut is_name, mut is_value) = (0, 0);
    let mut looks_like_data = false;
    for (index, name) in first.iter().enumerate() {
        let cells: Vec<Option<&str>> = rest
            .iter()
            .filter_map(|record| record.get(index))
            .map(|cell| Some(cell.as_str()).filter(|c| !c.is_empty()))
            .collect();
        let first = [Some(name.as_str()).filter(|name| !name.is_empty())];
        if rest.is_empty() {
            is_value += usize::from(column::is_typed(&first)?);
            continue;
        }
        if column::is_typed(&cells)? {
            // An empty first cell says nothing.
            if first[0].is_some() {
                let all: Vec<Option<&str>> = first.iter().chain(&cells).copied().collect();
                *(if column::is_typed(&all)? { &mut is_value } else { &mut is_name }) += 1;
            }
        } else {
            looks_like_data |= cells.contains(&first[0]) && first[0].is_some() || are_codes(name, &cells);
        }
    }
    Ok(match (is_name, is_value) {
        (0, 0) => !looks_like_data,
        (is_name, is_value) => is_name >= is_value,
    })
}

/// Whether a text has the one length that all others of its column have.
fn are_codes(first: &str, cells: &[Option<&str>]) -> bool {
    let length = first.chars().count();
    let has_digits = first.contains(|c: char| c.is_ascii_digit());
    let mut values = cells.iter().flatten().peekable();
    let has_values = values.peek().is_some();
    length >= CODE_CHARACTERS && has_digits && has_values && values.all(|cell| cell.chars().count() == length)
}
