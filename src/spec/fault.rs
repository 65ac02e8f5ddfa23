//! Faults in what a user wrote, each with its place. Knows nothing of SQL planning or of terminals' width.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A text that faults point into.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct SourceText {
    /// Path as shown to the user: relative to the project folder, with `/`.
    pub path: String,
    /// The whole text, a byte-order mark included.
    pub text: String,
}

/// A byte range of a text: what a caret stands under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The text.
    pub source: Arc<SourceText>,
    /// Bytes of it; empty where something is missing at a point.
    pub span: Range<usize>,
}

/// How bad a fault is. Only errors make a project invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The project can't be run.
    Error,
    /// It runs, and the user should know.
    Warning,
    /// Worth a look.
    Note,
}

/// One fault: stable code, place, what was expected, and a way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Stable, snake case: `unknown_key`, `sql_syntax`, …
    pub code: &'static str,
    /// How bad.
    pub severity: Severity,
    /// Where; none only for faults without a file (a missing project, a wrong option).
    pub place: Option<Place>,
    /// What is wrong and what was expected, without full stop.
    pub message: String,
    /// The way out: nearest name, quoted form, option.
    pub hint: Option<String>,
}

impl Fault {
    /// An error at `place`.
    pub fn error(code: &'static str, place: impl Into<Option<Place>>, message: impl Into<String>) -> Self {
        Self { code, severity: Severity::Error, place: place.into(), message: message.into(), hint: None }
    }

    /// A warning at `place`.
    pub fn warning(code: &'static str, place: impl Into<Option<Place>>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, place, message) }
    }

    /// A note at `place`.
    pub fn note(code: &'static str, place: impl Into<Option<Place>>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Note, ..Self::error(code, place, message) }
    }

    /// Adds the way out.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl SourceText {
    /// A text under the path that users know it by.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { path: path.into(), text: text.into() })
    }

    /// The byte where the text begins once a byte-order mark is skipped.
    pub fn start(&self) -> usize {
        if self.text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 }
    }
}

impl Place {
    /// Bytes `span` of `source`.
    pub fn new(source: &Arc<SourceText>, span: Range<usize>) -> Self {
        Self { source: Arc::clone(source), span }
    }

    /// The characters.
    pub fn text(&self) -> &str {
        self.source.text.get(self.span.clone()).unwrap_or_default()
    }

    /// Line of the first character, from 1.
    pub fn line(&self) -> usize {
        self.position(self.span.start).0
    }

    /// Line and column (in characters) of a byte of the text, from 1; a byte-order mark has no column. A byte inside a
    /// character counts as the next one, a byte behind the end as the end.
    pub fn position(&self, byte: usize) -> (usize, usize) {
        let text = &self.source.text;
        let start = self.source.start();
        let byte = text.ceil_char_boundary(byte.clamp(start, text.len()));
        let before = &text[start..byte];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The part on the first line, without the space at its end: what a caret can stand under.
    pub fn first_line(&self) -> Range<usize> {
        let text = &self.source.text;
        let start = text.floor_char_boundary(self.span.start.min(text.len()));
        let (line, line_start) = self.line_text_at(start);
        let end = text.floor_char_boundary(self.span.end.clamp(start, (line_start + line.len()).max(start)));
        start..start + text[start..end].trim_end().len()
    }

    /// The line that the place starts in, without its end, and the byte where it starts.
    pub fn line_text(&self) -> (&str, usize) {
        self.line_text_at(self.span.start)
    }

    /// The line that holds `byte`, without its end, and the byte where it starts.
    pub fn line_text_at(&self, byte: usize) -> (&str, usize) {
        let text = &self.source.text;
        let byte = text.floor_char_boundary(byte.min(text.len()));
        let start = text[..byte].rfind('\n').map_or(self.source.start(), |at| at + 1);
        let line = text[start..].split('\n').next().unwrap_or_default();
        (line.strip_suffix('\r').unwrap_or(line), start)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.position(self.span.start);
        write!(f, "{}:{line}:{column}", self.source.path)
    }
}

/// Puts faults in the order of files and lines, and keeps one of those that say the same at the same place.
///
/// Files go by kind (`tidemill.yaml`, other files beside it, `pipelines/`, `sql/`, `tests/`), then by path; faults without a
/// place come first. Faults at one place keep their order.
pub fn sort(faults: &mut Vec<Fault>) {
    faults.sort_by(|a, b| order(a).cmp(&order(b)));
    let mut seen = std::collections::HashSet::new();
    faults.retain(|fault| {
        let at = fault.place.as_ref().map(|place| (place.source.path.clone(), place.span.clone()));
        seen.insert((fault.code, at, fault.message.clone()))
    });
}

fn order(fault: &Fault) -> (u8, &str, usize) {
    let Some(place) = &fault.place else { return (0, "", 0) };
    let path = place.source.path.as_str();
    let rank = match path {
        "tidemill.yaml" => 1,
        _ if path.starts_with("pipelines/") => 3,
        _ if path.starts_with("sql/") => 4,
        _ if path.starts_with("tests/") => 5,
        _ => 2,
    };
    (rank, path, place.span.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_skip_a_byte_order_mark() {
        let source = SourceText::new("a.yaml", "\u{feff}ção: x\r\nb: é!\n");
        let place = Place::new(&source, 0..source.text.len());
        let at = |needle: &str| place.position(source.text.find(needle).unwrap());
        assert_eq!((at("ção"), at("x"), at("!")), ((1, 1), (1, 6), (2, 5)));
        assert_eq!(place.position(usize::MAX), (3, 1));
        assert_eq!(place.position(source.text.find('ç').unwrap() + 1), (1, 2), "inside a character");
        assert_eq!(place.line_text(), ("ção: x", 3));
        assert_eq!(&source.text[place.first_line()], "\u{feff}ção: x");
    }

    #[test]
    fn sorted_by_kind_of_file_then_line_and_said_once() {
        let fault = |path: &str, at: usize| {
            Fault::error("x", Place::new(&SourceText::new(path, "0123456789"), at..at + 1), format!("{path} {at}"))
        };
        let mut faults = vec![
            fault("tests/a.yaml", 0),
            fault("sql/a.sql", 0),
            fault("pipelines/b.yaml", 0),
            fault("pipelines/a.yaml", 5),
            fault("pipelines/a.yaml", 2),
            fault("pipelines/a.yaml", 2),
            fault("dev.yaml", 1),
            fault("tidemill.yaml", 9),
            Fault::error("x", None, "nowhere"),
        ];
        sort(&mut faults);
        let order: Vec<_> = faults.iter().map(|f| f.message.as_str()).collect();
        assert_eq!(
            order,
            [
                "nowhere",
                "tidemill.yaml 9",
                "dev.yaml 1",
                "pipelines/a.yaml 2",
                "pipelines/a.yaml 5",
                "pipelines/b.yaml 0",
                "sql/a.sql 0",
                "tests/a.yaml 0"
            ]
        );
    }
}
