//! Files as a source: where they are, how they are read, and what becomes of them. Values only.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Located;

/// `connector: files`.
#[derive(Debug, Clone)]
pub struct FilesSpec {
    /// Object store URL or path relative to the project, with a glob.
    pub path: Located<String>,
    /// How files are read.
    pub format: FileFormat,
    /// `snapshot` (default) or `append`.
    pub mode: FilesMode,
    /// What becomes of a file once it is taken (`append` only).
    pub after: AfterTaken,
    /// How long size and time stand still before a local file counts; default 2 s.
    pub settle: Duration,
    /// Whether a glob that matches nothing is fine.
    pub allow_empty: bool,
    /// Whether rows of Parquet files are kept in the warehouse, so that those of a file that is replaced or goes can be subtracted.
    /// Of other formats they always are.
    pub archive: bool,
    /// Options of the object store (`options:`).
    pub options: BTreeMap<String, String>,
}

impl FilesSpec {
    /// Whether files of it may be read where they are: their rows are gone with them.
    pub fn is_read_in_place(&self) -> bool {
        self.format == FileFormat::Parquet && self.mode == FilesMode::Snapshot && !self.archive
    }
}

/// `mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilesMode {
    /// The source is the rows of the files there now.
    Snapshot,
    /// A file is taken once and its rows stay.
    Append,
}

/// `after`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterTaken {
    /// Left where it is (default).
    Keep,
    /// Moved into this folder (`after: { move: PATH }`), after the commit that took it.
    Move(String),
    /// Deleted after the commit that took it.
    Delete,
}

/// `format` with its options. Compression goes by the name (`.gz`, `.zst`).
#[derive(Debug, Clone, PartialEq)]
pub enum FileFormat {
    /// `parquet`
    Parquet,
    /// `csv`
    Csv(CsvOptions),
    /// `json`: one object a line
    Json(TextOptions),
}

/// How values stand in a text file.
#[derive(Debug, Clone, PartialEq)]
pub struct TextOptions {
    /// strftime for timestamps and dates; ISO 8601 if none.
    pub timestamp_format: Option<Located<String>>,
    /// Zone of zoneless text read as `timestamptz`; the project's if none. Gap forward, fold earlier.
    pub timestamp_zone: Option<Located<String>>,
    /// Encoding label (WHATWG); `utf-8` by default.
    pub encoding: Option<Located<String>>,
    /// Texts that mean null besides the format's own; CSV: empty unquoted field if not given.
    pub null_values: Option<Vec<String>>,
    /// Decimal separator; `.` by default.
    pub decimal_separator: char,
}

/// `format: csv`.
#[derive(Debug, Clone, PartialEq)]
pub struct CsvOptions {
    /// One byte; `,` by default.
    pub delimiter: u8,
    /// Whether the first row names the columns; default true. Without: by position of the contract.
    pub header: bool,
    /// Quote; `"` by default.
    pub quote: u8,
    /// Escape inside quotes; doubling if none.
    pub escape: Option<u8>,
    /// Values.
    pub text: TextOptions,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self { timestamp_format: None, timestamp_zone: None, encoding: None, null_values: None, decimal_separator: '.' }
    }
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self { delimiter: b',', header: true, quote: b'"', escape: None, text: TextOptions::default() }
    }
}
