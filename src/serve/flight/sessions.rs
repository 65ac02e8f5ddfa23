//! Options of client sessions (`catalog`, `schema`, `read_level`), known again by a cookie. Knows no statement.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use datafusion::prelude::SessionContext;
use tonic::metadata::MetadataMap;

use super::sqlstate::{SqlError, SqlResult};
use crate::limits;

/// Name of the cookie, as the Flight specification has it.
const COOKIE: &str = "arrow_flight_session_id";

/// The messages of the Flight session actions, which `arrow-flight` lacks.
pub(super) mod messages {
    use std::collections::HashMap;

    /// A value of an option.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct OptionValue {
        /// None takes the option away.
        #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5")]
        pub value: Option<Value>,
    }

    /// Kinds of values.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Value {
        /// Text.
        #[prost(string, tag = "1")]
        Text(String),
        /// Boolean.
        #[prost(bool, tag = "2")]
        Bool(bool),
        /// Integer.
        #[prost(sfixed64, tag = "3")]
        Int(i64),
        /// Float.
        #[prost(double, tag = "4")]
        Double(f64),
        /// Texts.
        #[prost(message, tag = "5")]
        Texts(Texts),
    }

    /// A list of texts.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Texts {
        /// Its values.
        #[prost(string, repeated, tag = "1")]
        pub values: Vec<String>,
    }

    /// `SetSessionOptions`, and the answer to `GetSessionOptions`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Options {
        /// By name.
        #[prost(map = "string, message", tag = "1")]
        pub options: HashMap<String, OptionValue>,
    }

    /// Why an option wasn't set: 1 the name, 2 the value.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct OptionError {
        /// Code.
        #[prost(int32, tag = "1")]
        pub code: i32,
    }

    /// Answer to `SetSessionOptions`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct SetResult {
        /// Refused options by name.
        #[prost(map = "string, message", tag = "1")]
        pub errors: HashMap<String, OptionError>,
    }

    /// Answer to `CloseSession`: 1 is closed.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct CloseResult {
        /// Code.
        #[prost(int32, tag = "1")]
        pub status: i32,
    }
}

use messages::{OptionError, OptionValue, Options, SetResult, Value};

/// What a client may ask to read: the last step, or the last commit. Each step is a commit, so that both are the same rows.
const READ_LEVELS: [&str; 2] = ["live", "committed"];

const INVALID_NAME: i32 = 1;
const INVALID_VALUE: i32 = 2;

/// Sessions that set options. A client without any has no session.
#[derive(Default)]
pub(super) struct Sessions {
    by_id: Mutex<HashMap<String, Session>>,
}

#[derive(Clone)]
struct Session {
    last_used: Instant,
    schema: Option<String>,
    read_level: Option<String>,
}

impl Sessions {
    /// Applies a client's options to `context`.
    pub fn apply(&self, headers: &MetadataMap, context: &SessionContext) {
        if let Some(schema) = self.find(headers).and_then(|session| session.schema) {
            context.state_ref().write().config_mut().options_mut().catalog.default_schema = schema;
        }
    }

    /// Sets options; the second value is the id of the session if it is new. `schemas` are those that exist.
    pub fn set(
        &self,
        headers: &MetadataMap,
        request: Options,
        catalog: &str,
        schemas: &[String],
    ) -> (SetResult, Option<String>) {
        let found = self.find(headers);
        let (id, is_new) = match (session_id(headers), &found) {
            (Some(id), Some(_)) => (id, false),
            _ => (ulid::Ulid::r#gen().to_string(), true),
        };
        let mut session = found.unwrap_or(Session { last_used: Instant::now(), schema: None, read_level: None });
        let mut errors = HashMap::new();
        for (name, value) in request.options {
            let outcome = match (name.as_str(), value.value) {
                ("catalog", Some(Value::Text(given))) if given == catalog => Ok(()),
                ("catalog", None) => Ok(()),
                ("schema", Some(Value::Text(given))) if schemas.contains(&given) => {
                    session.schema = Some(given);
                    Ok(())
                }
                ("schema", None) => {
                    session.schema = None;
                    Ok(())
                }
                ("read_level", Some(Value::Text(given))) if READ_LEVELS.contains(&given.as_str()) => {
                    session.read_level = Some(given);
                    Ok(())
                }
                ("read_level", None) => {
                    session.read_level = None;
                    Ok(())
                }
                ("catalog" | "schema" | "read_level", Some(_)) => Err(INVALID_VALUE),
                _ => Err(INVALID_NAME),
            };
            if let Err(code) = outcome {
                errors.insert(name, OptionError { code });
            }
        }
        self.keep(id.clone(), session);
        (SetResult { errors }, is_new.then_some(id))
    }

    /// Options as they are in force.
    pub fn get(&self, headers: &MetadataMap, catalog: &str, default_schema: &str) -> Options {
        let (schema, read_level) = self.find(headers).map(|session| (session.schema, session.read_level)).unzip();
        let of = |set: Option<Option<String>>, default: &str| set.flatten().unwrap_or_else(|| default.to_owned());
        let options = [
            ("catalog", catalog.to_owned()),
            ("schema", of(schema, default_schema)),
            ("read_level", of(read_level, READ_LEVELS[0])),
        ];
        let options = options.map(|(name, value)| (name.to_owned(), OptionValue { value: Some(Value::Text(value)) }));
        Options { options: HashMap::from(options) }
    }

    /// Forgets a session.
    pub fn close(&self, headers: &MetadataMap) {
        if let Some(id) = session_id(headers) {
            self.lock().remove(&id);
        }
    }

    fn find(&self, headers: &MetadataMap) -> Option<Session> {
        let id = session_id(headers)?;
        let mut sessions = self.lock();
        let session = sessions.get_mut(&id)?;
        session.last_used = Instant::now();
        Some(session.clone())
    }

    fn keep(&self, id: String, session: Session) {
        let mut sessions = self.lock();
        let ttl = Duration::from_secs(limits::FLIGHT_SESSION_TTL_SECONDS);
        sessions.retain(|_, session| session.last_used.elapsed() < ttl);
        if sessions.len() >= limits::FLIGHT_SESSIONS {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.last_used).map(|(id, _)| id.clone());
            oldest.and_then(|oldest| sessions.remove(&oldest));
        }
        sessions.insert(id, session);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Session>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a new session's cookie on a response.
pub(super) fn set_cookie(headers: &mut MetadataMap, id: &str) -> SqlResult<()> {
    let value = format!("{COOKIE}={id}; HttpOnly").parse();
    headers.insert("set-cookie", value.map_err(|_| SqlError::new("XX000", "the session's id isn't ASCII"))?);
    Ok(())
}

fn session_id(headers: &MetadataMap) -> Option<String> {
    let cookies = headers.get_all("cookie").iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, id)| id.trim_matches('"').to_owned())
}
