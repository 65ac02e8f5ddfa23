//! Kafka topics as a source: bounded ranges of messages, decoded under a contract, landed as Parquet, which is the archive.
//!
//! A position is the next offset of each partition. It is kept in the commit that holds the rows, so that each message counts
//! once; offsets are committed to a group as well, but only for Kafka's own tools to see.

mod again;
mod arrivals;
mod carried;
mod client;
mod closing;
mod connect_json;
mod history;
mod late;
mod late_offsets;
mod let_go;
mod live;
mod offsets_seen;
mod quiet;
mod range;
mod records;
mod rows;
mod sink;
mod take;
mod together;
mod trouble;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;

use super::{Landing, Look, Position, RowRule, Source, TakenIn, declared_columns};
use crate::connect::files::FileStore;
use crate::error::{Error, Result, ResultExt};
use crate::spec::fault::Fault;
use crate::spec::types::{KafkaSpec, Located, OnInvalid, Project, SourceSpec};
use crate::table::Warehouse;
use arrivals::Arrivals;
use client::Client;
use closing::Kept;
use late::Lateness;
use rows::Decoder;
pub use sink::KafkaSink;
use together::Beside;

/// A topic, ready to be looked at.
pub struct KafkaSource {
    topic: Arc<Topic>,
    source: SourceSpec,
    /// Kept between calls: connecting costs more than reading a few messages.
    client: Arc<Kept<Client>>,
    /// Files that hold what came before the topic's first message.
    history: Option<FileStore>,
    together: Beside,
    /// Hash of the contract and rules that rows are to be read under, once that is known.
    fingerprint: OnceLock<String>,
}

/// How a topic is read.
struct Topic {
    /// The source's name.
    name: String,
    spec: KafkaSpec,
    /// Consumer group that offsets are committed to.
    group: String,
    zone: String,
    /// Messages that one step takes of it while it is followed.
    step_rows: usize,
}

impl KafkaSource {
    /// Notes how to read the topic; connects to nothing.
    ///
    /// # Errors
    /// Usage, for an option that the client doesn't know or that Tidemill sets itself.
    pub fn open(project: &Project, source: &SourceSpec, spec: &KafkaSpec) -> Result<Self> {
        let name = source.name.value.clone();
        let own = || format!("tidemill-{}-{name}", project.name.value);
        let group = spec.options.get("group.id").cloned().unwrap_or_else(own);
        let (zone, step_rows) = (project.timezone.value.clone(), project.pace.step_rows);
        let topic = Topic { name, spec: spec.clone(), group, zone, step_rows };
        client::config(&topic)?;
        let files = |path: &Located<String>| FileStore::at(&project.root, &path.value, &BTreeMap::new());
        let history = spec.history.as_ref().map(files).transpose()?;
        Ok(Self {
            topic: Arc::new(topic),
            source: source.clone(),
            client: Arc::default(),
            history,
            together: Beside::default(),
            fingerprint: OnceLock::new(),
        })
    }

    fn decoder(&self, contract: &SchemaRef, arrivals: Arrivals) -> Result<Decoder> {
        Decoder::new(&self.topic.spec, &self.source.columns, contract, &self.topic.zone, arrivals)
    }

    /// How late rows are known; none where rows have no event time.
    fn lateness(&self, contract: &SchemaRef) -> Option<Lateness> {
        Lateness::of(&self.topic.spec, self.source.event_time.as_ref()?.value.as_str(), contract, &self.topic.zone)
    }

    /// Calls the client in a thread for blocking work.
    async fn with_client<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Client) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (topic, slot) = (Arc::clone(&self.topic), Arc::clone(&self.client));
        let done = tokio::task::spawn_blocking(move || client::with(&slot, &topic, work));
        let done = done.await.external("the Kafka client ended early")?;
        done.map_err(|error: Error| error.with("source", &self.topic.name))
    }

    fn on_invalid(&self) -> OnInvalid {
        self.source.on_invalid
    }
}

#[async_trait]
impl Source for KafkaSource {
    fn declared_schema(&self) -> Result<SchemaRef, Vec<Fault>> {
        Ok(declared_columns(&self.source, &self.topic.zone))
    }

    /// Messages say nothing of their columns before they are read.
    async fn schema(&self) -> Result<SchemaRef, Vec<Fault>> {
        self.declared_schema()
    }

    fn reads_under(&self, fingerprint: &str) {
        // A source is planned once.
        let _ = self.fingerprint.set(fingerprint.to_string());
    }

    async fn look(&self, prior: &Position) -> Result<Look> {
        let (topic, offsets) = (Arc::clone(&self.topic), prior.offsets.clone());
        if offsets.is_some() && self.fingerprint.get().is_some_and(|now| *now != prior.contract) {
            let prior = prior.clone();
            return self.with_client(move |client| again::look(client, &topic, &prior)).await;
        }
        self.with_client(move |client| range::look(client, &topic, offsets.as_ref())).await
    }

    async fn take_in(&self, prior: &Position, landing: &Landing<'_>, again: bool) -> Result<TakenIn> {
        take::take_in(self, prior, landing, again).await
    }

    async fn restore(&self, position: &Position, landing: &Landing<'_>) -> Result<Position> {
        let_go::restore(self, position, landing).await
    }

    fn relation(
        &self,
        contract: &SchemaRef,
        position: &Position,
        warehouse: &Warehouse,
        landed: &str,
    ) -> Result<Arc<dyn TableProvider>> {
        take::relation(&self.topic, contract, position, warehouse, landed)
    }

    /// Every row is landed.
    async fn verify_pins(&self, _: &Position) -> Result<()> {
        Ok(())
    }

    async fn after_commit(&self, position: &Position) -> Result<()> {
        let Some(offsets) = position.offsets.clone() else { return Ok(()) };
        if let Err(error) = self.with_client(move |client| client.commit(&offsets)).await {
            // Nothing hangs on the group's offsets: they only show the lag.
            tracing::warn!(source = %self.topic.name, %error, "the group's offsets are behind");
        }
        Ok(())
    }

    async fn live(&self, contract: &SchemaRef, rules: Vec<RowRule>, now_us: i64) -> Result<Arc<dyn TableProvider>> {
        live::relation(self, contract, rules, now_us)
    }
}
