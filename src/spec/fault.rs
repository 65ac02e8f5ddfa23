//! Faults in what a user wrote, each with its place. Knows nothing of SQL planning or of terminals' width.

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

impl Place {
    /// The characters.
    pub fn text(&self) -> &str {
        self.source.text.get(self.span.clone()).unwrap_or_default()
    }

    /// Line of the first character, from 1.
    pub fn line(&self) -> usize {
        self.position(self.span.start).0
    }

    /// Line and column (in characters) of a byte of the text, from 1; a byte-order mark has no column.
    pub fn position(&self, byte: usize) -> (usize, usize) {
        let text = &self.source.text;
        let before = text.get(..byte.min(text.len())).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before[line_start..].chars().filter(|c| *c != '\u{feff}').count() + 1;
        (before.matches('\n').count() + 1, column)
    }

    /// The line that the place starts in, without its end, and the byte where it starts.
    pub fn line_text(&self) -> (&str, usize) {
        self.line_text_at(self.span.start)
    }

    /// The line that holds `byte`, without its end, and the byte where it starts.
    pub fn line_text_at(&self, byte: usize) -> (&str, usize) {
        let text = &self.source.text;
        let byte = byte.min(text.len());
        let start = text.get(..byte).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
        let line = text[start..].lines().next().unwrap_or_default();
        (line, start)
    }
}

/// Sorts faults as they are told: by file, then place; those without a file first.
pub fn sort(faults: &mut [Fault]) {
    faults.sort_by(|a, b| {
        let key = |f: &Fault| f.place.as_ref().map(|p| (p.source.path.clone(), p.span.start));
        key(a).cmp(&key(b)).then(a.severity.cmp(&b.severity))
    });
}
