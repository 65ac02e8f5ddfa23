//! A proposed source as YAML that a project loads as it was meant. Writes nothing to disk.

use std::path::Path;

use super::{Column, InferredSource, Shape};
use crate::engine::shortened;
use crate::spec::sql_type::SqlType;

/// Bytes that a key of YAML may have on its line.
const KEY_BYTES: usize = 1000;
/// Words that YAML, or some reader of it, takes for something else than a text.
const WORDS: [&str; 7] = ["null", "true", "false", "yes", "no", "on", "off"];

impl InferredSource {
    /// One entry under `sources:` of a pipeline, two spaces in, which loads without faults in a project at `project_root`.
    ///
    /// The path is relative to `project_root` where the file is below it. Comments tell what the sample left open.
    pub fn to_yaml(&self, project_root: &Path) -> String {
        let mut out = format!("  {}:\n", key(&self.name));
        for note in &self.notes {
            out.push_str(&format!("    # {}\n", one_line(note)));
        }
        let common = self.common_format();
        let mut line = |name: &str, value: &str| out.push_str(&format!("    {name}: {value}\n"));
        line("connector", "files");
        line("path", &value(&pattern(&self.path_from(project_root))));
        let encoding = match &self.shape {
            Shape::Csv { dialect, encoding, decimal_separator } => {
                line("format", "csv");
                if dialect.delimiter != b',' {
                    line("delimiter", &quote(&char::from(dialect.delimiter).to_string()));
                }
                if !dialect.header {
                    line("header", "false");
                }
                if let Some(escape) = dialect.escape {
                    line("escape", &quote(&char::from(escape).to_string()));
                }
                if *decimal_separator != '.' {
                    line("decimal_separator", &quote(&decimal_separator.to_string()));
                }
                *encoding
            }
            Shape::Json { encoding } => {
                line("format", "json");
                *encoding
            }
            Shape::Parquet => {
                line("format", "parquet");
                None
            }
        };
        if let Some(encoding) = encoding {
            line("encoding", encoding);
        }
        if let Some(format) = common {
            line("timestamp_format", &quote(format));
        }
        out.push_str("    columns:\n");
        for column in &self.columns {
            out.push_str(&column.to_yaml(common));
        }
        out
    }

    /// The format of all dates and times, if they have one.
    fn common_format(&self) -> Option<&str> {
        let is_time =
            |column: &&Column| matches!(column.data_type, SqlType::Date | SqlType::Timestamp | SqlType::TimestampTz);
        let mut formats = self.columns.iter().filter(is_time).map(|column| column.timestamp_format.as_deref());
        let first = formats.next()??;
        formats.all(|format| format == Some(first)).then_some(first)
    }

    /// The file's path as a project names it.
    fn path_from(&self, project_root: &Path) -> String {
        let root = std::path::absolute(project_root).unwrap_or_else(|_| project_root.to_path_buf());
        let root = if root.components().any(|part| part == std::path::Component::ParentDir) {
            root.canonicalize().unwrap_or(root)
        } else {
            root
        };
        self.path.strip_prefix(&root).unwrap_or(&self.path).to_string_lossy().into_owned()
    }
}

impl Column {
    fn to_yaml(&self, common: Option<&str>) -> String {
        let own = self.timestamp_format.as_deref().filter(|format| common != Some(*format));
        let data_type = self.data_type.to_string();
        let declared = if self.nullable && own.is_none() {
            // A field's name may hold what YAML reads.
            if data_type.contains('"') { value_in_quotes(&data_type) } else { data_type }
        } else {
            let data_type = if data_type.contains([',', '[', '"']) { value_in_quotes(&data_type) } else { data_type };
            let nullable = if self.nullable { "" } else { ", nullable: false" };
            let format = own.map(|format| format!(", timestamp_format: {}", quote(format))).unwrap_or_default();
            format!("{{ type: {data_type}{nullable}{format} }}")
        };
        let note = self.note.as_ref().map(|note| format!("  # {}", one_line(note))).unwrap_or_default();
        format!("      {}: {declared}{note}\n", key(&self.name))
    }
}

/// A name as a key. Keys aren't searched for variables.
fn key(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !WORDS.contains(&name.to_lowercase().as_str());
    if is_plain { name.to_string() } else { quote(name) }
}

/// Whether YAML takes a name as a key.
pub(super) fn is_key(name: &str) -> bool {
    quote(name).len() <= KEY_BYTES
}

/// A text as a value, its dollars kept from being variables.
fn value(text: &str) -> String {
    let text = text.replace('$', "$$");
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '/'))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '.' | '-'));
    if is_plain { text } else { quote(&text) }
}

/// A text that holds no variables, in quotes.
fn value_in_quotes(text: &str) -> String {
    quote(&text.replace('$', "$$"))
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\t' => out.push_str("\\t"),
            _ if is_unprintable(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A file's path as a pattern that matches it alone.
fn pattern(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '*' | '?' | '[' | '{' | '}' => out.extend(['[', c, ']']),
            '\\' => out.push_str("\\\\"),
            _ => out.push(c),
        }
    }
    out
}

/// A value of the file as a comment or message shows it.
pub(super) fn shown(text: &str) -> String {
    one_line(&shortened(text))
}

/// A text that can't end its comment.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if is_unprintable(c) { ' ' } else { c }).collect()
}

fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}
