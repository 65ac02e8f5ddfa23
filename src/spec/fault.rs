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
