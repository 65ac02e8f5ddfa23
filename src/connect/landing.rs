//! Rows on their way into the warehouse: ruled, then written as Parquet, the accepted ones to the landed folder and the refused
//! ones to quarantine. Files that are written here are staged: nobody reads them before a commit names them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use super::decode::Decoded;
use super::position::FileEntry;
use super::quarantine;
use super::rules::{self, RowRule, Ruled};
use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::spec::types::OnInvalid;
use crate::table::{DataFile, Warehouse, write_files};

/// Where and how rows are taken in.
pub struct Landing<'a> {
    /// The warehouse.
    pub warehouse: &'a Warehouse,
    /// Folder of landed rows, relative to the warehouse.
    pub landed: String,
    /// Folder of the quarantine table, relative to the warehouse.
    pub quarantine: String,
    /// Start of the names of files that are written.
    pub prefix: String,
    /// The contract, without hidden columns.
    pub contract: SchemaRef,
    /// Row rules.
    pub rules: &'a [RowRule],
    /// Hash of contract and rules.
    pub fingerprint: String,
    /// Id of the run, for quarantined rows.
    pub run: String,
    /// Microseconds since 1970 UTC.
    pub ingested_at_us: i64,
    /// Whether the process goes on after this: work that rows needn't wait for can be left to later calls.
    pub goes_on: bool,
}

/// Accepted rows, refused rows, warnings and quarantined rows by rule.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) rows: u64,
    pub(super) refused: u64,
    pub(super) warned: BTreeMap<String, u64>,
    pub(super) quarantined_by: BTreeMap<String, u64>,
}

/// What came of landing: what the decoder says, and the accepted rows as they were written, hidden columns behind those of the
/// contract, where the process goes on and they are few enough to be held.
pub(super) struct Written<D> {
    pub(super) decoded: D,
    pub(super) rows: Option<Vec<RecordBatch>>,
}

/// Rows that are held while they are written.
struct Held {
    rows: Option<Vec<RecordBatch>>,
    bytes: usize,
}

impl Held {
    fn add(&mut self, batch: &RecordBatch) {
        self.bytes += batch.get_array_memory_size();
        match &mut self.rows {
            Some(rows) if self.bytes <= limits::LANDED_HELD_BYTES => rows.push(batch.clone()),
            _ => self.rows = None,
        }
    }
}

impl Landing<'_> {
    /// Writes what a decoder hands to its sink, until it ends, and enters files and counts. `hidden` are the columns that
    /// stand in landed files after those of the contract; `place` is the file or topic for refused rows.
    pub(super) async fn write<D>(
        &self,
        on_invalid: OnInvalid,
        hidden: Vec<Field>,
        place: &str,
        entry: &mut FileEntry,
        decode: impl AsyncFnOnce(Sink) -> Result<JoinHandle<Result<(Counts, D)>>>,
    ) -> Result<Written<D>> {
        let quarantine_schema = quarantine::quarantine_schema(self.contract.fields().iter().map(|f| f.name().as_str()));
        let fields = self.contract.fields().iter().cloned().chain(hidden.into_iter().map(Arc::new));
        let landed_schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let (accepted_tx, accepted) = mpsc::channel(limits::LANDING_BATCHES);
        let (refused_tx, refused) = mpsc::channel(limits::LANDING_BATCHES);
        let sink = Sink {
            rulebook: Arc::new(Rulebook { on_invalid, rules: self.rules.to_vec() }),
            landed_schema: Arc::clone(&landed_schema),
            quarantine_schema: Arc::clone(&quarantine_schema),
            place: place.to_string(),
            run: self.run.clone(),
            accepted: accepted_tx,
            refused: refused_tx,
            counts: Counts::default(),
        };
        let decoding = decode(sink).await?;
        let held = Arc::new(Mutex::new(Held { rows: self.goes_on.then(Vec::new), bytes: 0 }));
        let landed = stream(&landed_schema, accepted, {
            let held = Arc::clone(&held);
            move |batch| held.lock().unwrap_or_else(PoisonError::into_inner).add(batch)
        });
        let rows = write_files(self.warehouse, &self.landed, &landed_schema, &[], &self.prefix, vec![landed]);
        let refused = stream(&quarantine_schema, refused, |_| {});
        let quarantined =
            write_files(self.warehouse, &self.quarantine, &quarantine_schema, &[], &self.prefix, vec![refused]);
        let (decoded, rows, quarantined) = tokio::join!(decoding, rows, quarantined);
        entry.landed = Some(rows.as_ref().ok().cloned().unwrap_or_default());
        entry.quarantined = quarantined.as_ref().ok().cloned().unwrap_or_default();
        let outcome = decoded.external("decoding ended early").and_then(|counts| counts);
        match (outcome, rows, quarantined) {
            (Ok((counts, more)), Ok(_), Ok(_)) => {
                (entry.rows, entry.refused, entry.warned) = (counts.rows, counts.refused, counts.warned);
                entry.quarantined_by = counts.quarantined_by;
                let rows = held.lock().unwrap_or_else(PoisonError::into_inner).rows.take();
                Ok(Written { decoded: more, rows })
            }
            (outcome, rows, quarantined) => {
                self.discard(std::slice::from_ref(entry)).await;
                // A writer's failure ends the decoder too: it is the cause.
                Err(rows
                    .err()
                    .or(quarantined.err())
                    .or(outcome.err())
                    .unwrap_or_else(|| Error::internal("landing failed")))
            }
        }
    }

    /// Deletes what was written for entries that won't be used, as far as possible.
    pub(super) async fn discard(&self, entries: &[FileEntry]) {
        let path = |folder: &str, file: &DataFile| self.warehouse.path(&format!("{folder}/{}", file.path));
        let mut paths = Vec::new();
        for entry in entries {
            paths.extend(entry.landed_files().map(|file| path(&self.landed, file)));
            paths.extend(entry.quarantined.iter().map(|file| path(&self.quarantine, file)));
        }
        if let Err(error) = self.warehouse.delete(paths).await {
            tracing::warn!(%error, "staged files stay until the next cleaning");
        }
    }
}

/// What becomes of rows that break the contract or a rule.
pub(super) struct Rulebook {
    on_invalid: OnInvalid,
    rules: Vec<RowRule>,
}

impl Rulebook {
    /// Applies contract and rules to a batch.
    pub(super) fn rule(&self, decoded: Decoded) -> Result<Ruled> {
        rules::apply(decoded, self.on_invalid, &self.rules)
    }
}

/// Takes rows as they are decoded and hands them to the writers.
pub(super) struct Sink {
    rulebook: Arc<Rulebook>,
    landed_schema: SchemaRef,
    quarantine_schema: SchemaRef,
    place: String,
    run: String,
    accepted: mpsc::Sender<RecordBatch>,
    refused: mpsc::Sender<RecordBatch>,
    counts: Counts,
}

/// A batch on its way to its writer.
pub(super) struct Outgoing(mpsc::Sender<RecordBatch>, RecordBatch);

impl Outgoing {
    pub(super) fn blocking_send(self) -> Result<()> {
        self.0.blocking_send(self.1).map_err(|_| writer_gone())
    }

    pub(super) async fn send(self) -> Result<()> {
        self.0.send(self.1).await.map_err(|_| writer_gone())
    }
}

fn writer_gone() -> Error {
    Error::external("the rows can't be written")
}

impl Sink {
    /// Rules a batch and gives what is to be written of it.
    pub(super) fn batches(&mut self, decoded: Decoded) -> Result<Vec<Outgoing>> {
        let ruled = self.rulebook.rule(decoded)?;
        self.outgoing(&ruled)
    }

    /// The rules, for batches that are ruled elsewhere.
    #[cfg(feature = "kafka")]
    pub(super) fn rulebook(&self) -> Arc<Rulebook> {
        Arc::clone(&self.rulebook)
    }

    /// What is to be written of a batch that was ruled.
    pub(super) fn outgoing(&mut self, ruled: &Ruled) -> Result<Vec<Outgoing>> {
        let mut out = Vec::new();
        self.counts.rows += ruled.accepted.num_rows() as u64;
        self.counts.refused += ruled.refused.len() as u64 + ruled.dropped;
        for (rule, rows) in &ruled.warned {
            *self.counts.warned.entry(rule.clone()).or_default() += rows;
        }
        for row in &ruled.refused {
            *self.counts.quarantined_by.entry(row.rule.clone()).or_default() += 1;
        }
        if ruled.accepted.num_rows() > 0 {
            let mut columns = ruled.accepted.columns().to_vec();
            columns.extend(ruled.origin.hidden(&ruled.rows));
            let batch = RecordBatch::try_new(Arc::clone(&self.landed_schema), columns).external("can't number rows")?;
            out.push(Outgoing(self.accepted.clone(), batch));
        }
        if !ruled.refused.is_empty() {
            let batch = quarantine::batch(&self.quarantine_schema, &ruled.refused, &self.place, &self.run)?;
            out.push(Outgoing(self.refused.clone(), batch));
        }
        Ok(out)
    }

    pub(super) fn counts(self) -> Counts {
        self.counts
    }
}

fn stream(
    schema: &SchemaRef,
    batches: mpsc::Receiver<RecordBatch>,
    mut seen: impl FnMut(&RecordBatch) + Send + 'static,
) -> SendableRecordBatchStream {
    let batches = ReceiverStream::new(batches).inspect(move |batch| seen(batch)).map(Ok::<_, DataFusionError>);
    Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), batches))
}
