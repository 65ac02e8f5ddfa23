//! Looks at local files and proposes a source for each: format, columns and types, as YAML.
//!
//! What it proposes is tried with the decoder that `run` uses: a type is only given where every sampled value fits it.
//! Knows no project, no store and no warehouse.

mod column;
mod dialect;
mod json_keys;
mod nested;
mod numbers;
mod parquet_schema;
mod sample;
#[cfg(test)]
mod tests;
mod texts;
mod times;
mod yaml;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use datafusion::sql::sqlparser::keywords;
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::spec::sql_type::SqlType;
use dialect::Dialect;

/// Endings of files that are read, compression aside.
const ENDINGS: &str = "csv, tsv, txt, json, jsonl, ndjson (each also with .gz or .zst) and parquet";

/// A source proposed for one file.
#[derive(Debug, Clone, PartialEq)]
pub struct InferredSource {
    /// From the file's name, unique among the proposed ones, usable unquoted in SQL.
    pub name: String,
    /// Absolute.
    path: PathBuf,
    shape: Shape,
    columns: Vec<Column>,
    /// What the user should know, a sentence each.
    notes: Vec<String>,
}

/// How a file is to be read.
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Csv { dialect: Dialect, encoding: Option<&'static str>, decimal_separator: char },
    Json { encoding: Option<&'static str> },
    Parquet,
}

/// A proposed column.
#[derive(Debug, Clone, PartialEq)]
struct Column {
    name: String,
    data_type: SqlType,
    nullable: bool,
    /// strftime; ISO 8601 if none.
    timestamp_format: Option<String>,
    /// Why it has this type, where that isn't plain.
    note: Option<String>,
}

/// Proposes a source for each of `paths`, in their order; a path given twice counts once.
///
/// Text files are sampled: their first [`limits::SAMPLE_ROWS`] rows. Of Parquet files the metadata is read.
///
/// # Errors
/// Usage, for a file that isn't there, has an ending that isn't read, or has no columns to find; external, for one that
/// can't be read.
pub fn infer(paths: &[PathBuf]) -> Result<Vec<InferredSource>> {
    let mut sources: Vec<InferredSource> = Vec::new();
    for given in paths {
        let path = absolute(given)?;
        if sources.iter().all(|known| known.path != path) {
            sources.push(infer_one(path).map_err(|e| e.with("file", given.display()))?);
        }
    }
    make_unique(&mut sources);
    Ok(sources)
}

fn infer_one(path: PathBuf) -> Result<InferredSource> {
    if !path.exists() {
        return Err(Error::usage("there is no such file"));
    }
    let (ending, is_compressed) = ending(&path);
    let mut source =
        InferredSource { name: name_of(&path), path, shape: Shape::Parquet, columns: Vec::new(), notes: Vec::new() };
    match ending.as_str() {
        "csv" | "tsv" | "txt" => texts::infer_csv(&mut source)?,
        "json" | "jsonl" | "ndjson" => texts::infer_json(&mut source)?,
        "parquet" if is_compressed => {
            return Err(Error::usage(
                "Parquet is compressed inside, and isn't read through .gz or .zst; decompress the file",
            ));
        }
        "parquet" => parquet_schema::infer(&mut source)?,
        _ => return Err(Error::usage(format!("the ending doesn't say how to read it; files are {ENDINGS}"))),
    }
    if source.columns.is_empty() {
        return Err(Error::usage(format!("no column was found: {}", source.notes.join("; "))));
    }
    Ok(source)
}

/// Whether so many columns can be a table; rows whose keys are data would give one column a value.
fn check_width(columns: usize) -> Result<()> {
    if columns <= limits::SAMPLE_COLUMNS {
        return Ok(());
    }
    Err(Error::usage(format!("{columns} columns are more than the {} that are proposed", limits::SAMPLE_COLUMNS)))
}

/// Takes away names that no contract can have, noting why.
fn leave_out(names: Vec<String>, notes: &mut Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let repeated: BTreeSet<String> = names.iter().filter(|name| !seen.insert(name.as_str())).cloned().collect();
    let mut kept = Vec::with_capacity(names.len());
    for (index, name) in names.into_iter().enumerate() {
        let reason = match name.as_str() {
            _ if name.trim().is_empty() => format!("column {} has no name", index + 1),
            // YAML merges mappings under this key.
            "<<" => "YAML can't have a column named <<".to_string(),
            _ if !yaml::is_key(&name) => format!("the name of column {} is too long", index + 1),
            _ if repeated.contains(&name) => format!("more than one column is named {}", yaml::shown(&name)),
            _ if column::is_reserved(&name) => format!("Tidemill adds a column {name} by itself"),
            _ => {
                kept.push(name);
                continue;
            }
        };
        let note = format!("left out: {reason}");
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    kept
}

/// The file's ending in lower case, without that of a compression, and whether there was one.
fn ending(path: &Path) -> (String, bool) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let plain = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst"));
    let ending = plain.unwrap_or(&name).rsplit_once('.').map(|(_, ending)| ending.to_string());
    (ending.unwrap_or_default(), plain.is_some())
}

/// The file's stem as a name that SQL takes without quotes.
fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let plain = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    let stem = plain.rsplit_once('.').map_or(plain, |(stem, _)| stem);
    let words = stem.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let name = words.collect::<Vec<_>>().join("_");
    match name.as_bytes().first() {
        None => "file".to_string(),
        Some(first) if first.is_ascii_digit() || !stands_in_sql(&name) => format!("file_{name}"),
        Some(_) => name,
    }
}

/// Whether a query can name it without quotes wherever a table can stand: words of SQL can't all be.
fn stands_in_sql(name: &str) -> bool {
    let reserved =
        [keywords::RESERVED_FOR_TABLE_ALIAS, keywords::RESERVED_FOR_COLUMN_ALIAS, keywords::RESERVED_FOR_IDENTIFIER];
    match Token::make_keyword(name) {
        Token::Word(word) => !reserved.concat().contains(&word.keyword),
        _ => false,
    }
}

/// Gives a number to names that are taken; the name of another source's quarantine table is taken too.
fn make_unique(sources: &mut [InferredSource]) {
    let given: BTreeSet<String> = sources.iter().map(|source| source.name.clone()).collect();
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for source in sources {
        let is_free = |name: &str, taken: &BTreeSet<String>| {
            let is_quarantine = |stem: &str| given.contains(stem) || taken.contains(stem);
            !taken.contains(name)
                && !taken.contains(&format!("{name}_quarantine"))
                && !name.strip_suffix("_quarantine").is_some_and(is_quarantine)
        };
        let mut name = source.name.clone();
        let mut number = 2;
        // A numbered name that is another file's own is left to that file.
        while !is_free(&name, &taken) || (name != source.name && given.contains(&name)) {
            name = format!("{}_{number}", source.name);
            number += 1;
        }
        taken.insert(name.clone());
        source.name = name;
    }
}

/// An absolute path without `.` and `..`. Links are kept: what they point to may change on purpose.
fn absolute(path: &Path) -> Result<PathBuf> {
    if path.to_str().is_none() {
        return Err(Error::usage("the path isn't UTF-8, so no project can name it").with("file", path.display()));
    }
    let absolute = std::path::absolute(path).external("the current folder can't be read")?;
    let climbs = absolute.components().any(|part| part == std::path::Component::ParentDir);
    if !climbs {
        return Ok(absolute);
    }
    // Only the file system knows what stands above a link.
    match (absolute.parent().map(std::fs::canonicalize), absolute.file_name()) {
        (Some(Ok(folder)), Some(name)) => Ok(folder.join(name)),
        _ => Ok(absolute),
    }
}
