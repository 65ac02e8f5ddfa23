//! Logs on stderr, as text or JSON. Log text is lower case, without full stop, with fields. Knows no layer.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Starts logging, once a process; `TIDEMILL_LOG` (a filter such as `tidemill=debug`) goes before `verbosity`.
pub fn init(format: Format, verbosity: u8) {
    let default = match verbosity {
        0 => "warn",
        1 => "warn,tidemill=info",
        2 => "info,tidemill=debug",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("TIDEMILL_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start, in tests, keeps the first.
    let _ = match format {
        Format::Text => builder.with_target(false).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
}
