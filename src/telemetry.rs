//! Logs on stderr, as text or JSON. Log text is lower case, without full stop, with fields. Knows no layer.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// Variable with a filter, such as `tidemill=debug`.
const FILTER: &str = "TIDEMILL_LOG";

/// Keeps a library quiet that tells, with a backtrace, of statistics in a Delta log that are of a column's earlier type. They are
/// left out then, which changes no answer.
const QUIET: &str = "buoyant_kernel=error";

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
    let wanted = std::env::var(FILTER).ok();
    let (filter, fault) = filter(wanted.as_deref(), verbosity);
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let is_colored = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // A second start, in tests, keeps the first.
    let _ = match format {
        Format::Text => builder.with_target(false).with_ansi(is_colored).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Some(reason) = fault {
        tracing::warn!(filter = wanted, reason, "{FILTER} isn't a filter of logs; it is left out");
    }
}

/// What is logged, and what is wrong with the filter that was wanted.
fn filter(wanted: Option<&str>, verbosity: u8) -> (EnvFilter, Option<String>) {
    let default = match verbosity {
        0 => format!("warn,{QUIET}"),
        1 => format!("warn,tidemill=info,{QUIET}"),
        2 => format!("info,tidemill=debug,{QUIET}"),
        _ => "debug".to_owned(),
    };
    match wanted.filter(|text| !text.is_empty()).map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(default), Some(error.to_string())),
        None => (EnvFilter::new(default), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_goes_before_verbosity_and_a_wrong_one_is_told() {
        let shown = |wanted: Option<&str>, verbosity| filter(wanted, verbosity).0.to_string();
        // A filter shows its directives in no order of ours.
        let has = |shown: &str, directives: &[&str]| {
            let all: Vec<&str> = shown.split(',').collect();
            all.len() == directives.len() && directives.iter().all(|directive| all.contains(directive))
        };
        assert!(has(&shown(None, 0), &["warn", QUIET]) && has(&shown(Some(""), 0), &["warn", QUIET]));
        assert!(has(&shown(None, 1), &["warn", "tidemill=info", QUIET]));
        assert!(has(&shown(None, 2), &["info", "tidemill=debug", QUIET]));
        assert_eq!((shown(None, 3), shown(None, 9)), ("debug".into(), "debug".into()));
        assert_eq!(shown(Some("tidemill=trace"), 9), "tidemill=trace");
        let (kept, fault) = filter(Some("tidemill=loud"), 0);
        assert!(has(&kept.to_string(), &["warn", QUIET]));
        assert!(!fault.unwrap().is_empty());
    }
}
