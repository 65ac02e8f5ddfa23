//! The one runtime error type. Faults in what the user wrote are `spec::fault::Fault`, not this.
//!
//! Knows nothing of any layer above: kinds map to exit codes, context is plain text.

use std::fmt;

/// Who has to act on an error; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Wrong usage, or a project that can't be planned: exit 2, nothing was touched.
    Usage,
    /// A check, an `on_invalid: fail` row or a unit test failed: exit 1.
    Check,
    /// A value that a query can't work with, such as a text that is no number: exit 3.
    Data,
    /// I/O, a missing source, memory, a full disk: exit 3.
    External,
    /// Another process holds the lease, or this one was fenced: exit 75.
    Lease,
    /// A bug of ours: exit 3, worded as such.
    Internal,
}

/// An error with what was being done, innermost cause last.
pub struct Error {
    kind: ErrorKind,
    message: String,
    retryable: bool,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Result of everything that can fail at run time.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` that says what happened in one sentence, lower case, without full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retryable: false, context: Vec::new(), source: None }
    }

    /// Wrong usage or an invalid project.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// Something outside Tidemill failed.
    pub fn external(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::External, message)
    }

    /// Something that can't happen did.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Adds a fact (`model`, `file`, `commit`…), shown after the message in the order of adding; one that is there already
    /// isn't told twice.
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        let fact = (key, value.to_string());
        if !self.context.contains(&fact) {
            self.context.push(fact);
        }
        self
    }

    /// Sets the cause.
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Marks an error that may pass when tried again. Unknown errors never are.
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// The facts added with [`Error::with`].
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.context
    }

    /// The process exit code that stands for this error.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::Check => 1,
            ErrorKind::Usage => 2,
            ErrorKind::Data | ErrorKind::External | ErrorKind::Internal => 3,
            ErrorKind::Lease => 75,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for (key, value) in &self.context {
            write!(f, "\n  {key}: {value}")?;
        }
        let mut cause: Option<&dyn std::error::Error> = self.source.as_deref().map(|e| e as _);
        let mut before = String::new();
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors repeat their own cause.
            if !before.contains(&text) {
                write!(f, "\n  because: {text}")?;
                before = text;
            }
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

/// Adds what was being done to a foreign error.
pub trait ResultExt<T> {
    /// Turns a foreign error into an external [`Error`] with `message`.
    fn external(self, message: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> ResultExt<T> for std::result::Result<T, E> {
    fn external(self, message: impl Into<String>) -> Result<T> {
        self.map_err(|e| Error::external(message).caused_by(e))
    }
}
