//! Sinks: places that the changes of a model's table are published to. Knows no commit chain: whoever publishes says what changed.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::engine::KeyedChange;
use crate::error::Result;
use crate::spec::types::{Project, SinkSpec, SinkTarget};

/// How far a sink is: the version of the table that it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkCursor {
    /// The commit that changed the table last.
    pub commit: u64,
    /// The run that made this commit, by which a chain of another warehouse is known.
    pub run: String,
    /// Under `emit: final`, the watermark that windows were closed by, microseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_us: Option<i64>,
    /// The form in which all its rows were told; none where that wasn't noted yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
}

/// A change to publish.
pub struct SinkChange {
    /// Where the sink is after it.
    pub cursor: SinkCursor,
    /// When the commit was put, microseconds since 1970 UTC.
    pub committed_at_us: i64,
    /// Each key at most once.
    pub rows: BoxStream<'static, Result<KeyedChange>>,
}

/// A place that holds what a model's table holds, one change after the other.
///
/// The cursor is kept inside the place itself, so that a change and its cursor come into effect together, and repeating or
/// racing is harmless.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Where the sink is; none: it holds nothing. Whoever asks takes the sink over: another process that still publishes to it
    /// fails from then on, or, where the place knows no askers, from the first change that this one publishes.
    ///
    /// A sink that was asked before may answer by what it published since.
    ///
    /// # Errors
    /// External, when the place can't be asked.
    async fn cursor(&self) -> Result<Option<SinkCursor>>;

    /// Whether asking for the cursor costs so little that each run may do it, to notice a place that somebody emptied.
    fn is_quickly_asked(&self) -> bool;

    /// Publishes a change whole, with its cursor, and gives the number of messages or rows. A change without rows may leave the
    /// cursor where it is: the place holds the same before and after. On an error, or when the future is
    /// dropped, readers see nothing of it, unless it took effect as a whole: [`Sink::cursor`] tells which. Not to be called
    /// before `cursor` was, and again after each error.
    ///
    /// # Errors
    /// External, when the place can't be written; kind `Lease`, when another process took it over; what the change's rows give.
    async fn publish(&self, change: SinkChange) -> Result<u64>;
}

/// The sink of a model; connects to nothing. `key` is the table's key.
///
/// # Errors
/// Usage, for an option that the client doesn't know or that Tidemill sets itself.
pub fn open_sink(project: &Project, model: &str, key: &[String], spec: &SinkSpec) -> Result<Arc<dyn Sink>> {
    match &spec.target {
        #[cfg(feature = "kafka")]
        SinkTarget::Kafka(spec) => Ok(Arc::new(super::kafka::KafkaSink::open(&project.name.value, model, key, spec)?)),
        #[cfg(not(feature = "kafka"))]
        SinkTarget::Kafka(_) => Err(super::without_kafka()),
        SinkTarget::Files(spec) => Ok(Arc::new(super::files::FilesSink::open(project, model, key, spec)?)),
    }
}
