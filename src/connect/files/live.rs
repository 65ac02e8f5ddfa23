//! The files that are there now as a relation, decoded as it is read: for looking, not for keeping.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::DataFusionError;
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::discover::Found;
use super::land::text_options;
use super::relation::hidden;
use super::store::FileStore;
use super::{FilesSource, parquet_file};
use crate::connect::decode::{Contract, Decoded, TextReader, open_text};
use crate::connect::position::{FileEntry, Position};
use crate::connect::relation::relation_schema;
use crate::connect::rules::{self, RowRule};
use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::spec::types::{ColumnSpec, FileFormat, OnFail, OnInvalid};

impl FilesSource {
    /// Accepted rows of the files that match now, hidden columns included; refused rows are left out. Nothing is landed.
    ///
    /// # Errors
    /// External, when nothing matches and may not, or the store can't be listed.
    pub(super) async fn live_rows(
        &self,
        contract: &SchemaRef,
        rules: Vec<RowRule>,
        now_us: i64,
    ) -> Result<Arc<dyn TableProvider>> {
        let discovery = self.discover(&Position::default(), false).await?;
        let schema = relation_schema(contract, &self.zone);
        let rules: Vec<RowRule> = rules.into_iter().filter(|rule| rule.on_fail == OnFail::Quarantine).collect();
        let reading = Arc::new(Reading {
            schema: Arc::clone(&schema),
            contract: Arc::clone(contract),
            rules,
            format: self.spec.format.clone(),
            columns: self.source.columns.clone(),
            zone: self.zone.clone(),
            store: self.store.clone(),
            now_us,
        });
        let files = discovery.fresh.into_iter();
        let partitions: Vec<Arc<dyn PartitionStream>> = files
            .map(|found| Arc::new(LiveFile { found, reading: Arc::clone(&reading) }) as Arc<dyn PartitionStream>)
            .collect();
        if partitions.is_empty() {
            return Ok(Arc::new(EmptyTable::new(schema)));
        }
        let table = StreamingTable::try_new(schema, partitions);
        Ok(Arc::new(table.map_err(|e| Error::internal("a table of files can't be made").caused_by(e))?))
    }
}

/// How all files of the source are read.
struct Reading {
    schema: SchemaRef,
    contract: SchemaRef,
    rules: Vec<RowRule>,
    format: FileFormat,
    columns: Vec<ColumnSpec>,
    zone: String,
    store: FileStore,
    now_us: i64,
}

struct LiveFile {
    found: Found,
    reading: Arc<Reading>,
}

impl std::fmt::Debug for LiveFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveFile").field("path", &self.found.path).finish_non_exhaustive()
    }
}

impl PartitionStream for LiveFile {
    fn schema(&self) -> &SchemaRef {
        &self.reading.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (tx, rx) = mpsc::channel(limits::LANDING_BATCHES);
        let (found, reading) = (self.found.clone(), Arc::clone(&self.reading));
        tokio::spawn(async move {
            let path = found.path.clone();
            if let Err(error) = reading.read(found, tx.clone()).await {
                let error = DataFusionError::External(Box::new(error.with("file", path)));
                // A reader that stopped listening needs no error.
                let _ = tx.send(Err(error)).await;
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.reading.schema), ReceiverStream::new(rx)))
    }
}

type Batches = mpsc::Sender<Result<RecordBatch, DataFusionError>>;

impl Reading {
    async fn read(self: Arc<Self>, found: Found, out: Batches) -> Result<()> {
        let entry = FileEntry { path: found.path.clone(), ingested_at_us: self.now_us, ..FileEntry::default() };
        if self.format == FileFormat::Parquet {
            return self.read_parquet(&found, &entry, &out).await;
        }
        let bytes = self.store.read(&found.meta.location).await?;
        let reading = tokio::task::spawn_blocking(move || {
            let options = text_options(&self.format)?;
            let encoding = options.encoding.as_ref().map(|e| e.value.as_str());
            let contract = Contract::new(Arc::clone(&self.contract), &self.columns, options, &self.zone)?;
            let mut reader = TextReader::new(&self.format, open_text(&found.path, encoding, bytes)?, &contract)?;
            while let Some(decoded) = reader.next_batch()? {
                let batch = self.accepted(decoded, &entry)?;
                if out.blocking_send(Ok(batch)).is_err() {
                    break;
                }
            }
            Ok(())
        });
        reading.await.external("reading ended early")?
    }

    async fn read_parquet(&self, found: &Found, entry: &FileEntry, out: &Batches) -> Result<()> {
        let mut batches = parquet_file::with_batches(parquet_file::open(&self.store, &found.meta).await?)
            .build()
            .external("the file isn't whole Parquet")?;
        let converter = parquet_file::Converter::new(Arc::clone(&self.contract), &self.zone)?;
        let mut first = 1;
        while let Some(batch) = batches.next().await {
            let batch = batch.external("the file isn't whole Parquet")?;
            let rows = batch.num_rows() as u64;
            let batch = self.accepted(converter.decode(batch, first)?, entry)?;
            first += rows;
            if out.send(Ok(batch)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Accepted rows with their hidden columns.
    fn accepted(&self, decoded: Decoded, entry: &FileEntry) -> Result<RecordBatch> {
        let ruled = rules::apply(decoded, OnInvalid::Drop, &self.rules)?;
        let mut columns = ruled.accepted.columns().to_vec();
        let numbers = ruled.origin.hidden(&ruled.rows);
        columns.extend(hidden(&self.schema, columns.len(), entry, &numbers)?);
        RecordBatch::try_new(Arc::clone(&self.schema), columns).external("can't number rows")
    }
}
