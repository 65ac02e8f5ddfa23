//! Takes fresh files in: their accepted rows become Parquet in the warehouse, their refused rows quarantine.
//!
//! Nothing of a file is used unless all of it was read and it didn't change meanwhile. Files that are written here are
//! staged: nobody reads them before a commit names them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use object_store::ObjectMeta;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::decode::{Contract, Decoded, TextReader, open_text};
use super::discover::{Discovery, Found, changed, is_same};
use super::position::{FileEntry, FilesPosition};
use super::rules::{self, RowRule};
use super::{FilesSource, parquet_file};
use crate::connect::quarantine;
use crate::error::{Error, Result, ResultExt};
use crate::spec::types::{AfterTaken, FileFormat, OnInvalid, TextOptions};
use crate::table::{DataFile, Warehouse, write_files};
use crate::{failpoint, limits};

/// Where and how files are taken in.
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
}

/// What taking files in came to.
pub struct Landed {
    /// The new position.
    pub position: FilesPosition,
    /// Rows of fresh files that were refused.
    pub refused: u64,
}

impl FilesSource {
    /// Takes the fresh files of a discovery in. Files that were written are deleted again on failure.
    ///
    /// # Errors
    /// Kind `Check` for a row under `on_invalid: fail` or a failed rule; external for a file that can't be read whole or that
    /// changed meanwhile.
    pub async fn land(&self, discovery: Discovery, landing: &Landing<'_>) -> Result<Landed> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut taken = futures::stream::iter(&discovery.fresh)
            .map(|found| async move {
                self.take(found, landing).await.map_err(|e| e.with("source", &self.name).with("file", &found.path))
            })
            .buffer_unordered(cores);
        let mut entries = Vec::new();
        let mut failed = None;
        while let Some(result) = taken.next().await {
            match result {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        drop(taken);
        if let Some(error) = failed {
            discard(landing, &entries).await;
            return Err(error);
        }
        let refused = entries.iter().map(|entry| entry.refused).sum();
        entries.extend(discovery.kept);
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Landed { position: FilesPosition { contract: landing.fingerprint.clone(), files: entries }, refused })
    }

    /// Moves or deletes the files of a landing folder as `after` says; to be called after the commit that took them.
    /// Files that are gone already are fine; one whose bytes aren't those that were taken is left for the next run.
    pub async fn finish_taken(&self, position: &FilesPosition) -> Result<()> {
        if self.spec.after == AfterTaken::Keep {
            return Ok(());
        }
        for meta in self.store.list().await? {
            let path = self.store.shown(&meta.location);
            if self.is_taken(position, &path, &meta).await? {
                self.store.finish(&self.spec.after, &meta.location).await?;
            }
        }
        Ok(())
    }

    async fn is_taken(&self, position: &FilesPosition, path: &str, meta: &ObjectMeta) -> Result<bool> {
        let known = || position.files.iter().filter(|entry| entry.path == path);
        if known().any(|entry| is_same(entry, meta)) {
            return Ok(true);
        }
        // Sent once more as it was: nothing new, and hashed only where the size fits.
        if !known().any(|entry| entry.size == meta.size) {
            return Ok(false);
        }
        let hash = self.hash(meta).await?;
        Ok(known().any(|entry| entry.hash == hash))
    }

    async fn take(&self, found: &Found, landing: &Landing<'_>) -> Result<FileEntry> {
        let mut entry = FileEntry {
            path: found.path.clone(),
            size: found.meta.size,
            etag: found.meta.e_tag.clone(),
            modified_us: found.meta.last_modified.timestamp_micros(),
            hash: found.hash.clone(),
            rows: 0,
            refused: 0,
            warned: BTreeMap::new(),
            landed: None,
            quarantined: Vec::new(),
            ingested_at_us: landing.ingested_at_us,
        };
        if self.is_parquet() {
            let builder = parquet_file::open(&self.store, &found.meta).await?;
            let is_plain = landing.rules.is_empty()
                && !self.is_append()
                && parquet_file::is_plain(builder.metadata(), builder.schema(), &landing.contract);
            if is_plain {
                entry.rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
                return Ok(entry);
            }
        }
        self.decode_into(found, landing, &mut entry).await?;
        // Bytes that were read while somebody wrote them are nobody's version.
        let now = self.store.head(&found.meta.location).await?;
        if now.is_none_or(|meta| !is_same(&entry, &meta)) {
            discard(landing, std::slice::from_ref(&entry)).await;
            return Err(changed(&found.path));
        }
        Ok(entry)
    }

    /// Decodes the file in a thread of its own while its rows are written.
    async fn decode_into(&self, found: &Found, landing: &Landing<'_>, entry: &mut FileEntry) -> Result<()> {
        let quarantine_schema =
            quarantine::quarantine_schema(landing.contract.fields().iter().map(|f| f.name().as_str()));
        let landed_schema = with_row_number(&landing.contract);
        let (accepted_tx, accepted) = mpsc::channel(limits::LANDING_BATCHES);
        let (refused_tx, refused) = mpsc::channel(limits::LANDING_BATCHES);
        let sink = Sink {
            on_invalid: self.source.on_invalid,
            rules: landing.rules.to_vec(),
            landed_schema: Arc::clone(&landed_schema),
            quarantine_schema: Arc::clone(&quarantine_schema),
            file: found.path.clone(),
            run: landing.run.clone(),
            accepted: accepted_tx,
            refused: refused_tx,
            rows: 0,
            refused_rows: 0,
            warned: BTreeMap::new(),
        };
        let decoding = self.start_decoding(found, &landing.contract, sink).await?;
        let rows = write_files(
            landing.warehouse,
            &landing.landed,
            &landed_schema,
            &[],
            &landing.prefix,
            vec![stream(&landed_schema, accepted)],
        );
        let quarantined = write_files(
            landing.warehouse,
            &landing.quarantine,
            &quarantine_schema,
            &[],
            &landing.prefix,
            vec![stream(&quarantine_schema, refused)],
        );
        let (decoded, rows, quarantined) = tokio::join!(decoding, rows, quarantined);
        entry.landed = Some(rows.as_ref().ok().cloned().unwrap_or_default());
        entry.quarantined = quarantined.as_ref().ok().cloned().unwrap_or_default();
        let outcome = decoded.external("decoding ended early").and_then(|counts| counts);
        match (outcome, rows, quarantined) {
            (Ok(counts), Ok(_), Ok(_)) => {
                (entry.rows, entry.refused, entry.warned) = counts;
                Ok(())
            }
            (outcome, rows, quarantined) => {
                discard(landing, std::slice::from_ref(entry)).await;
                // A writer's failure ends the decoder too: it is the cause.
                Err(rows
                    .err()
                    .or(quarantined.err())
                    .or(outcome.err())
                    .unwrap_or_else(|| Error::internal("landing failed")))
            }
        }
    }

    async fn start_decoding(
        &self,
        found: &Found,
        contract: &SchemaRef,
        mut sink: Sink,
    ) -> Result<tokio::task::JoinHandle<Result<Counts>>> {
        let format = self.spec.format.clone();
        if format == FileFormat::Parquet {
            let mut batches = parquet_file::with_batches(parquet_file::open(&self.store, &found.meta).await?)
                .build()
                .external("the file isn't whole Parquet")?;
            let converter = parquet_file::Converter::new(Arc::clone(contract), &self.zone)?;
            return Ok(tokio::spawn(async move {
                let mut first = 1;
                while let Some(batch) = batches.next().await {
                    let batch = batch.external("the file isn't whole Parquet")?;
                    failpoint::hit("mid_file");
                    let rows = batch.num_rows() as u64;
                    for batch in sink.batches(converter.decode(batch, first)?)? {
                        batch.send().await?;
                    }
                    first += rows;
                }
                Ok(sink.counts())
            }));
        }
        let bytes = self.store.read(&found.meta.location).await?;
        let (name, zone) = (found.path.clone(), self.zone.clone());
        let (columns, contract) = (self.source.columns.clone(), Arc::clone(contract));
        Ok(tokio::task::spawn_blocking(move || {
            let options = text_options(&format)?;
            let encoding = options.encoding.as_ref().map(|e| e.value.as_str());
            let contract = Contract::new(contract, &columns, options, &zone)?;
            let mut reader = TextReader::new(&format, open_text(&name, encoding, bytes)?, &contract)?;
            while let Some(decoded) = reader.next_batch()? {
                failpoint::hit("mid_file");
                for batch in sink.batches(decoded)? {
                    batch.blocking_send()?;
                }
            }
            Ok(sink.counts())
        }))
    }
}

/// Options of a text format.
pub(super) fn text_options(format: &FileFormat) -> Result<&TextOptions> {
    match format {
        FileFormat::Csv(options) => Ok(&options.text),
        FileFormat::Json(options) => Ok(options),
        FileFormat::Parquet => Err(Error::internal("Parquet isn't a text format")),
    }
}

/// Accepted rows, refused rows, warnings by rule.
type Counts = (u64, u64, BTreeMap<String, u64>);

/// Takes rows as they are decoded and hands them to the writers.
struct Sink {
    on_invalid: OnInvalid,
    rules: Vec<RowRule>,
    landed_schema: SchemaRef,
    quarantine_schema: SchemaRef,
    file: String,
    run: String,
    accepted: mpsc::Sender<RecordBatch>,
    refused: mpsc::Sender<RecordBatch>,
    rows: u64,
    refused_rows: u64,
    warned: BTreeMap<String, u64>,
}

/// A batch on its way to its writer.
struct Outgoing(mpsc::Sender<RecordBatch>, RecordBatch);

impl Outgoing {
    fn blocking_send(self) -> Result<()> {
        self.0.blocking_send(self.1).map_err(|_| writer_gone())
    }

    async fn send(self) -> Result<()> {
        self.0.send(self.1).await.map_err(|_| writer_gone())
    }
}

fn writer_gone() -> Error {
    Error::external("the rows can't be written")
}

impl Sink {
    fn batches(&mut self, decoded: Decoded) -> Result<Vec<Outgoing>> {
        let ruled = rules::apply(decoded, self.on_invalid, &self.rules, &mut self.warned)?;
        let mut out = Vec::new();
        self.rows += ruled.accepted.num_rows() as u64;
        self.refused_rows += ruled.refused.len() as u64;
        if ruled.accepted.num_rows() > 0 {
            let mut columns = ruled.accepted.columns().to_vec();
            columns.push(Arc::new(Int64Array::from(ruled.numbers)) as ArrayRef);
            let batch = RecordBatch::try_new(Arc::clone(&self.landed_schema), columns).external("can't number rows")?;
            out.push(Outgoing(self.accepted.clone(), batch));
        }
        if !ruled.refused.is_empty() {
            let batch = quarantine::batch(&self.quarantine_schema, &ruled.refused, &self.file, &self.run)?;
            out.push(Outgoing(self.refused.clone(), batch));
        }
        Ok(out)
    }

    fn counts(self) -> Counts {
        (self.rows, self.refused_rows, self.warned)
    }
}

/// Contract columns and `_source_row`.
fn with_row_number(contract: &SchemaRef) -> SchemaRef {
    let row = Arc::new(Field::new("_source_row", DataType::Int64, true));
    Arc::new(Schema::new(contract.fields().iter().cloned().chain([row]).collect::<Vec<_>>()))
}

fn stream(schema: &SchemaRef, batches: mpsc::Receiver<RecordBatch>) -> SendableRecordBatchStream {
    let batches = ReceiverStream::new(batches).map(Ok::<_, DataFusionError>);
    Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), batches))
}

/// Deletes what was written for entries that won't be used, as far as possible.
async fn discard(landing: &Landing<'_>, entries: &[FileEntry]) {
    let path = |folder: &str, file: &DataFile| landing.warehouse.path(&format!("{folder}/{}", file.path));
    let mut paths = Vec::new();
    for entry in entries {
        paths.extend(entry.landed.iter().flatten().map(|file| path(&landing.landed, file)));
        paths.extend(entry.quarantined.iter().map(|file| path(&landing.quarantine, file)));
    }
    if let Err(error) = landing.warehouse.delete(paths).await {
        tracing::warn!(%error, "staged files stay until the next cleaning");
    }
}
