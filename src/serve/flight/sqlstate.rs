//! Errors as clients see them: `SQLSTATE 42P01: table … not found`, and the gRPC code that goes with it.
//!
//! The state stands at the front of the text, since neither JDBC nor ADBC has a place for it in Flight, and once more in
//! the gRPC metadata as `sqlstate`. Knows no statement and no connection.
//!
//! | SQLSTATE | when | gRPC |
//! |---|---|---|
//! | `42601` | syntax | INVALID_ARGUMENT |
//! | `42P01`, `3F000` | unknown table, schema or catalog | NOT_FOUND |
//! | `42703`, `42702`, `42701` | unknown, ambiguous, repeated column | INVALID_ARGUMENT |
//! | `42883`, `42804`, `42000` | no such function, wrong types, other faults of SQL | INVALID_ARGUMENT |
//! | `07001` | parameters missing, too many, or of an unusable type | INVALID_ARGUMENT |
//! | `22012`, `22003`, `22018`, `22000` | division by zero, out of range, bad cast, other bad data | INVALID_ARGUMENT |
//! | `25006` | a statement that writes | INVALID_ARGUMENT |
//! | `26000` | a statement that isn't there (any more) | NOT_FOUND |
//! | `0A000` | not supported | UNIMPLEMENTED |
//! | `57014`, `57P01` | cancelled; server shutting down | CANCELLED, UNAVAILABLE |
//! | `53200`, `53300`, `53400` | memory, too many queries, a limit | RESOURCE_EXHAUSTED |
//! | `58030` | I/O | INTERNAL |
//! | `XX000` | a bug | INTERNAL |

use std::borrow::Cow;
use std::fmt;

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use tonic::{Code, Status};

use crate::error::{Error, ErrorKind};
use crate::limits;

/// An error with its SQLSTATE, ready to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError {
    /// Five characters.
    pub state: Cow<'static, str>,
    /// What is wrong, for people.
    pub message: String,
}

/// Result of all that a client asks for.
pub type SqlResult<T> = std::result::Result<T, SqlError>;

impl SqlError {
    /// An error of a known state.
    pub fn new(state: &'static str, message: impl Into<String>) -> Self {
        Self { state: Cow::Borrowed(state), message: message.into() }
    }

    /// Something that isn't part of this server.
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::new("0A000", format!("{what} isn't supported"))
    }

    /// A statement that writes.
    pub fn read_only(what: impl fmt::Display) -> Self {
        Self::new("25006", format!("{what}: tables are read-only to clients; they change through the project's models"))
    }

    /// A request that doesn't follow the protocol.
    pub fn protocol(message: impl Into<String>) -> Self {
        Self::new("08P01", message)
    }

    fn code(&self) -> Code {
        match &*self.state {
            "42P01" | "3F000" | "26000" => Code::NotFound,
            "0A000" => Code::Unimplemented,
            "57014" => Code::Cancelled,
            "57P01" => Code::Unavailable,
            state if state.starts_with("53") => Code::ResourceExhausted,
            state if ["42", "25", "22", "07", "08"].iter().any(|class| state.starts_with(class)) => {
                Code::InvalidArgument
            }
            _ => Code::Internal,
        }
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SQLSTATE {}: {}", self.state, self.message)
    }
}

impl std::error::Error for SqlError {}

impl From<SqlError> for Status {
    fn from(error: SqlError) -> Self {
        let text: String = error.to_string();
        let text = match text.char_indices().nth(limits::FLIGHT_ERROR_CHARS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        };
        let mut status = Self::new(error.code(), text);
        if let Ok(value) = error.state.parse() {
            status.metadata_mut().insert("sqlstate", value);
        }
        status
    }
}

impl From<DataFusionError> for SqlError {
    fn from(error: DataFusionError) -> Self {
        let root = error.find_root();
        let state = of_datafusion(root);
        let message = match root {
            DataFusionError::Plan(text) | DataFusionError::Execution(text) | DataFusionError::NotImplemented(text) => {
                text.clone()
            }
            DataFusionError::SQL(parser, _) => parser.to_string(),
            other => other.strip_backtrace(),
        };
        Self::new(state, message)
    }
}

impl From<ArrowError> for SqlError {
    fn from(error: ArrowError) -> Self {
        Self::new(of_arrow(&error), error.to_string())
    }
}

impl From<Error> for SqlError {
    fn from(error: Error) -> Self {
        let given = error.context().iter().find(|(key, _)| *key == "sqlstate").map(|(_, value)| value.clone());
        let fault = error.context().iter().find(|(key, _)| *key == "code").and_then(|(_, code)| of_fault(code));
        let state = match (given, fault) {
            (Some(state), _) => Cow::Owned(state),
            (None, Some(state)) => Cow::Borrowed(state),
            (None, None) => Cow::Borrowed(of_cause(&error)),
        };
        let own = format!("\n  sqlstate: {state}");
        Self { state, message: error.to_string().replace(&own, "") }
    }
}

/// The SQLSTATE that stands for a fault's code; none for codes that SQL can't cause.
pub fn of_fault(code: &str) -> Option<&'static str> {
    Some(match code {
        "sql_syntax" => "42601",
        "unknown_relation" | "unknown_table" | "unknown_model" | "unknown_source" => "42P01",
        "unknown_column" => "42703",
        "ambiguous_column" => "42702",
        "unknown_function" | "wrong_arguments" => "42883",
        "wrong_type" | "sql_type" => "42804",
        "unknown_param" => "07001",
        "not_read_only" | "read_only" => "25006",
        _ => return None,
    })
}

fn of_cause(error: &Error) -> &'static str {
    let mut cause = std::error::Error::source(error);
    while let Some(found) = cause {
        if let Some(found) = found.downcast_ref::<SqlError>()
            && let Some(state) = KNOWN.iter().find(|state| **state == found.state)
        {
            return state;
        }
        if let Some(found) = found.downcast_ref::<DataFusionError>() {
            return of_datafusion(found.find_root());
        }
        if let Some(found) = found.downcast_ref::<ArrowError>() {
            return of_arrow(found);
        }
        cause = found.source();
    }
    match error.kind() {
        ErrorKind::Usage => of_plan_text(&error.to_string()),
        ErrorKind::Data => "22000",
        ErrorKind::External | ErrorKind::Lease => "58030",
        ErrorKind::Check | ErrorKind::Internal => "XX000",
    }
}

/// States that survive being wrapped in the one runtime error.
const KNOWN: [&str; 8] = ["42601", "42P01", "42703", "25006", "0A000", "57014", "07001", "3F000"];

fn of_datafusion(error: &DataFusionError) -> &'static str {
    match error {
        DataFusionError::SQL(..) => "42601",
        DataFusionError::SchemaError(error, _) => match error.as_ref() {
            SchemaError::FieldNotFound { .. } => "42703",
            SchemaError::AmbiguousReference { .. } => "42702",
            _ => "42701",
        },
        DataFusionError::Plan(text) | DataFusionError::Configuration(text) => of_plan_text(text),
        DataFusionError::NotImplemented(_) => "0A000",
        DataFusionError::ResourcesExhausted(_) => "53200",
        DataFusionError::ArrowError(error, _) => of_arrow(error),
        DataFusionError::Execution(text) => of_execution_text(text),
        DataFusionError::Collection(errors) => errors.first().map_or("XX000", |error| of_datafusion(error.find_root())),
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) | DataFusionError::ParquetError(_) => "58030",
        _ => "XX000",
    }
}

/// Planning errors are told apart by text alone in DataFusion; its words are pinned by tests.
fn of_plan_text(text: &str) -> &'static str {
    let text = text.to_ascii_lowercase();
    let has = |part: &str| text.contains(part);
    if has("not found") && (has("table ") || has("table_")) {
        "42P01"
    } else if has("failed to resolve schema") || has("failed to resolve catalog") {
        "3F000"
    } else if has("invalid function") || has("no function matches") || has("failed to coerce") {
        "42883"
    } else if has("column") && has("not found") || has("no field named") {
        "42703"
    } else if has("placeholder") || has("parameter") {
        "07001"
    } else if has("sql error") || has("parsererror") {
        "42601"
    } else if has("ddl not supported") || has("dml not supported") || has("statement not supported") {
        "25006"
    } else if has("coerc") || has("cannot infer common") || has("type mismatch") {
        "42804"
    } else {
        "42000"
    }
}

fn of_execution_text(text: &str) -> &'static str {
    let text = text.to_ascii_lowercase();
    if text.contains("divide by zero") || text.contains("division by zero") {
        "22012"
    } else if ["overflow", "out of range", "too large", "can't cast value"].iter().any(|words| text.contains(words)) {
        "22003"
    } else {
        "22000"
    }
}

fn of_arrow(error: &ArrowError) -> &'static str {
    match error {
        ArrowError::DivideByZero => "22012",
        ArrowError::ArithmeticOverflow(_) => "22003",
        ArrowError::CastError(text) | ArrowError::ParseError(text) => match of_execution_text(text) {
            "22000" => "22018",
            known => known,
        },
        ArrowError::InvalidArgumentError(_) | ArrowError::ComputeError(_) => of_execution_text(&error.to_string()),
        ArrowError::IoError(..) | ArrowError::ParquetError(_) => "58030",
        ArrowError::MemoryError(_) => "53200",
        ArrowError::ExternalError(inner) => match inner.downcast_ref::<DataFusionError>() {
            Some(inner) => of_datafusion(inner.find_root()),
            None => "XX000",
        },
        _ => "XX000",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::flight::plan_read_only;
    use datafusion::prelude::SessionContext;

    async fn state(sql: &str) -> String {
        let session = SessionContext::new();
        session.sql("create table t(a bigint, s varchar) as values (1, 'x')").await.unwrap();
        let failed = match plan_read_only(&session, sql).await {
            Err(error) => SqlError::from(error),
            Ok(plan) => match session.execute_logical_plan(plan).await.unwrap().collect().await {
                Err(error) => SqlError::from(error),
                Ok(_) => panic!("{sql} runs"),
            },
        };
        failed.state.into_owned()
    }

    #[tokio::test]
    async fn words_of_the_engine_have_their_states() {
        for (sql, expected) in [
            ("select * from nowhere", "42P01"),
            ("select b from t", "42703"),
            ("select t.b from t", "42703"),
            ("select a from t x join t y on x.a = y.a", "42702"),
            ("select a from", "42601"),
            ("select nofunction(a) from t", "42883"),
            ("select abs() from t", "42883"),
            ("select sum(s, a) from t", "42883"),
            ("select a / 0 from t", "22012"),
            ("select cast(s as bigint) from t", "22018"),
            ("select cast(a * 300 as tinyint) from t", "22003"),
            ("select cast(a * 99999 as decimal(5, 2)) from t", "22003"),
            ("update t set a = 1", "25006"),
        ] {
            assert_eq!(state(sql).await, expected, "{sql}");
        }
    }

    #[test]
    fn a_given_state_wins_over_words_and_is_said_once() {
        let error = Error::usage("table x not found").with("sqlstate", "3F000").with("hint", "try y");
        let error = SqlError::from(error);
        assert_eq!(error.to_string(), "SQLSTATE 3F000: table x not found\n  hint: try y");
        assert_eq!(SqlError::from(Error::usage("no such thing").with("code", "unknown_column")).state, "42703");
        assert_eq!(SqlError::from(Error::external("the disk is gone")).state, "58030");
    }

    #[test]
    fn a_long_text_is_cut_for_the_header() {
        let status = Status::from(SqlError::new("42601", "é".repeat(10_000)));
        assert_eq!(status.message().chars().count(), limits::FLIGHT_ERROR_CHARS + 1);
        assert_eq!(status.code(), Code::InvalidArgument);
    }
}
