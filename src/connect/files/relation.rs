//! A position as a relation: landed rows and plain Parquet files under one schema, hidden columns included.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result as DataFusionResult};
use datafusion::datasource::TableType;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::union::UnionExec;
use futures::StreamExt;
use object_store::path::Path;

use super::FilesSource;
use super::discover::verify_pin;
use super::parquet_file::{self, Converter};
use super::pinned::PinnedStore;
use super::store::FileStore;
use crate::connect::decode::row_numbers;
use crate::connect::position::{FileEntry, Position};
use crate::connect::relation::{instant, relation_schema};
use crate::error::{Error, Result};
use crate::failpoint;
use crate::table::{DataFile, Parsed, Seen, TableFiles, Warehouse, parquet_table};

impl FilesSource {
    /// The accepted rows of a position; `landed` is the folder of landed rows in the warehouse. Plain files are checked
    /// against their pins when a scan begins.
    ///
    /// # Errors
    /// External, when statistics of landed files can't be read.
    pub(super) fn position_relation(
        &self,
        contract: &SchemaRef,
        position: &Position,
        warehouse: &Warehouse,
        landed: &str,
    ) -> Result<Arc<dyn TableProvider>> {
        let schema = relation_schema(contract, &self.zone);
        let pinned: Vec<FileEntry> = position.files.iter().filter(|e| e.landed.is_none()).cloned().collect();
        let in_place = Warehouse {
            store: Arc::new(PinnedStore::new(&self.store, &pinned)),
            root: Path::default(),
            url: format!("source:{}", self.name),
            is_local: self.store.is_local,
            seen: Seen::default(),
            parsed: Parsed::default(),
        };
        let mut landed_files = Vec::new();
        let mut plain_files = Vec::new();
        for entry in &position.files {
            let constants = vec![Some(entry.path.clone()), Some(instant(entry.ingested_at_us))];
            match &entry.landed {
                Some(files) => landed_files
                    .extend(files.iter().map(|file| DataFile { partition_values: constants.clone(), ..file.clone() })),
                None => plain_files.push(DataFile {
                    path: self.store.path(&entry.path).to_string(),
                    size: entry.size,
                    rows: entry.rows,
                    partition_values: constants,
                    stats: None,
                }),
            }
        }
        let partition_by = vec!["_source_file".to_string(), "_ingested_at".to_string()];
        let table = |warehouse: &Warehouse, folder: &str, files: Vec<DataFile>| {
            let files = TableFiles { schema: Arc::clone(&schema), partition_by: partition_by.clone(), files };
            parquet_table(warehouse, folder, files, &self.zone)
        };
        Ok(Arc::new(SourceTable {
            has_landed: !landed_files.is_empty(),
            landed: table(warehouse, landed, landed_files)?,
            plain: table(&in_place, "", plain_files)?,
            numbered: numbered(&schema, contract, &self.store, &self.zone, &pinned)?,
            store: self.store.clone(),
            pinned,
            schema,
        }))
    }
}

/// Landed and plain files of one source.
#[derive(Debug)]
struct SourceTable {
    schema: SchemaRef,
    landed: Arc<dyn TableProvider>,
    plain: Arc<dyn TableProvider>,
    /// Plain files with `_source_row`: read one by one, so only where that column is named.
    numbered: Arc<dyn TableProvider>,
    has_landed: bool,
    store: FileStore,
    pinned: Vec<FileEntry>,
}

#[async_trait]
impl TableProvider for SourceTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        for entry in &self.pinned {
            verify_pin(&self.store, entry).await.map_err(|e| DataFusionError::External(Box::new(e)))?;
        }
        if !self.pinned.is_empty() {
            failpoint::hit("pinned");
        }
        let row = self.schema.index_of("_source_row")?;
        let names_row = projection.is_none_or(|columns| columns.contains(&row));
        let in_place = if names_row { &self.numbered } else { &self.plain };
        if self.pinned.is_empty() {
            return self.landed.scan(state, projection, filters, limit).await;
        }
        if !self.has_landed {
            return in_place.scan(state, projection, filters, limit).await;
        }
        let parts = vec![
            self.landed.scan(state, projection, filters, limit).await?,
            in_place.scan(state, projection, filters, limit).await?,
        ];
        UnionExec::try_new(parts)
    }
}

/// Plain files read one by one, each a partition, with row numbers.
fn numbered(
    schema: &SchemaRef,
    contract: &SchemaRef,
    store: &FileStore,
    zone: &str,
    entries: &[FileEntry],
) -> Result<Arc<dyn TableProvider>> {
    let mut partitions: Vec<Arc<dyn PartitionStream>> = Vec::new();
    for entry in entries {
        partitions.push(Arc::new(NumberedFile {
            schema: Arc::clone(schema),
            converter: Arc::new(Converter::new(Arc::clone(contract), zone)?),
            store: store.clone(),
            entry: entry.clone(),
        }));
    }
    if partitions.is_empty() {
        return Ok(Arc::new(datafusion::datasource::empty::EmptyTable::new(Arc::clone(schema))));
    }
    let table = StreamingTable::try_new(Arc::clone(schema), partitions);
    Ok(Arc::new(table.map_err(|e| Error::internal("a table of files can't be made").caused_by(e))?))
}

struct NumberedFile {
    schema: SchemaRef,
    converter: Arc<Converter>,
    store: FileStore,
    entry: FileEntry,
}

impl std::fmt::Debug for NumberedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NumberedFile").field("path", &self.entry.path).finish_non_exhaustive()
    }
}

impl PartitionStream for NumberedFile {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        let (store, entry, converter) = (self.store.clone(), self.entry.clone(), Arc::clone(&self.converter));
        let batches = futures::stream::once(async move { open(store, entry, schema, converter).await })
            .flat_map(|opened| match opened {
                Ok(stream) => stream,
                Err(error) => futures::stream::iter([Err(error)]).boxed(),
            })
            .map(|batch| batch.map_err(|e: Error| DataFusionError::External(Box::new(e))));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

type Batches = futures::stream::BoxStream<'static, Result<RecordBatch>>;

async fn open(store: FileStore, entry: FileEntry, schema: SchemaRef, converter: Arc<Converter>) -> Result<Batches> {
    let path = verify_pin(&store, &entry).await?;
    let meta = store.head(&path).await?.ok_or_else(|| Error::external("a file went away").with("file", &entry.path))?;
    let batches = parquet_file::with_batches(parquet_file::open(&store, &meta).await?).build();
    let batches =
        batches.map_err(|e| Error::external("the file isn't whole Parquet").with("file", &entry.path).caused_by(e))?;
    let mut before = 0;
    Ok(batches
        .map(move |batch| {
            let batch = batch
                .map_err(|e| Error::external("the file isn't whole Parquet").with("file", &entry.path).caused_by(e))?;
            let (mut columns, _) = converter.convert(&batch)?;
            let rows = batch.num_rows();
            let numbers = row_numbers(before + 1..before + 1 + rows as u64);
            columns.extend(hidden(&schema, columns.len(), &entry, &numbers)?);
            before += rows as u64;
            RecordBatch::try_new(Arc::clone(&schema), columns)
                .map_err(|e| Error::internal("can't number rows").caused_by(e))
        })
        .boxed())
}

/// Hidden columns of rows with these numbers.
pub(super) fn hidden(
    schema: &SchemaRef,
    width: usize,
    entry: &FileEntry,
    numbers: &[ArrayRef],
) -> Result<Vec<ArrayRef>> {
    let Some(numbers) = numbers.first() else { return Err(Error::internal("rows of a file have no numbers")) };
    let rows = numbers.len();
    let fault = |e: DataFusionError| Error::internal("a hidden column can't be made").caused_by(e);
    let mut columns: Vec<ArrayRef> = Vec::new();
    for field in &schema.fields()[width..] {
        columns.push(match (field.name().as_str(), field.data_type()) {
            ("_source_file", _) => datafusion::common::ScalarValue::Utf8View(Some(entry.path.clone()))
                .to_array_of_size(rows)
                .map_err(fault)?,
            ("_source_row", _) => Arc::clone(numbers),
            ("_ingested_at", DataType::Timestamp(_, zone)) => {
                let value =
                    datafusion::common::ScalarValue::TimestampMicrosecond(Some(entry.ingested_at_us), zone.clone());
                value.to_array_of_size(rows).map_err(fault)?
            }
            (_, other) => arrow::array::new_null_array(other, rows),
        });
    }
    Ok(columns)
}
