//! Writes rows as a table's Parquet files, which nobody sees until a commit names them. Knows no Delta log.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::AsyncArrowWriter;
use tokio::task::JoinSet;

use super::encoding::{Expected, parquet_properties};
use super::store::write_error;
use super::{DataFile, Warehouse, partition, stats, types};
use crate::background::joined;
use crate::engine::failure;
use crate::error::{Error, Result, ResultExt};
use crate::limits;

/// Writes the rows of `streams`, which run at the same time, as files in `folder` (relative to the warehouse), each named
/// `<prefix>-<ulid>.parquet`. Columns go by position. No rows: no files. Not synced: see [`Warehouse::sync_files`].
///
/// The files have the columns of `types::table_schema(schema)` without those of `partition_by`. Few rows end up in one file,
/// however many streams they came from.
///
/// # Errors
/// Those of the streams as they are, if they are ours; a value that a table can't hold; a store that can't be written.
/// All files are then deleted again, as far as possible.
pub async fn write_files(
    warehouse: &Warehouse,
    folder: &str,
    schema: &SchemaRef,
    partition_by: &[String],
    prefix: &str,
    streams: Vec<SendableRecordBatchStream>,
) -> Result<Vec<DataFile>> {
    let target = Arc::new(Target::new(warehouse, folder, schema, partition_by, prefix)?);
    let written = write_streams(&target, streams).await;
    if written.is_err() {
        let started = std::mem::take(&mut *target.started.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err(error) = warehouse.delete(started).await {
            tracing::warn!(%error, "unfinished files stay until the next cleaning");
        }
    }
    written
}

async fn write_streams(target: &Arc<Target>, streams: Vec<SendableRecordBatchStream>) -> Result<Vec<DataFile>> {
    let mut tasks = JoinSet::new();
    for stream in streams {
        tasks.spawn(write_stream(Arc::clone(target), stream));
    }
    let (mut files, mut held) = (Vec::new(), Vec::new());
    while let Some(done) = tasks.join_next().await {
        match joined(done).and_then(|done| done) {
            Ok((written, rest)) => {
                files.extend(written);
                held.extend(rest);
            }
            Err(error) => {
                // Wait for the others to be gone, so that what they wrote can be deleted.
                tasks.shutdown().await;
                return Err(error);
            }
        }
    }
    let are_few = held.iter().map(RecordBatch::num_rows).sum::<usize>() <= limits::FEW_ROWS;
    let mut rest = StreamWriter::new(Arc::clone(target), are_few)?;
    for batch in held {
        rest.write(&batch).await?;
    }
    files.extend(rest.finish().await?);
    files.sort_by(|a: &DataFile, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Writes one stream. The rows of a stream that stays small are given back instead.
async fn write_stream(
    target: Arc<Target>,
    mut stream: SendableRecordBatchStream,
) -> Result<(Vec<DataFile>, Vec<RecordBatch>)> {
    let mut held = Vec::new();
    let mut held_bytes = 0;
    let mut writer: Option<StreamWriter> = None;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(failure)?;
        if batch.num_rows() == 0 {
            continue;
        }
        if let Some(writer) = &mut writer {
            writer.write(&batch).await?;
            continue;
        }
        held_bytes += batch.get_array_memory_size();
        held.push(batch);
        if held_bytes > limits::SMALL_STREAM_BYTES {
            let mut opened = StreamWriter::new(Arc::clone(&target), false)?;
            for batch in held.drain(..) {
                opened.write(&batch).await?;
            }
            writer = Some(opened);
        }
    }
    let files = match writer {
        Some(writer) => writer.finish().await?,
        None => Vec::new(),
    };
    Ok((files, held))
}

/// Where files go and what they hold.
struct Target {
    warehouse: Warehouse,
    folder: String,
    prefix: String,
    table: SchemaRef,
    file: SchemaRef,
    /// Partition columns by index in `table`, in the order of `partition_by`.
    partitions: Vec<usize>,
    started: Mutex<Vec<Path>>,
}

impl Target {
    fn new(
        warehouse: &Warehouse,
        folder: &str,
        schema: &SchemaRef,
        partition_by: &[String],
        prefix: &str,
    ) -> Result<Self> {
        let table = types::table_schema(schema)?;
        let file = types::file_schema(&table, partition_by);
        let partitions = partition_by
            .iter()
            .map(|name| table.index_of(name).external("a table is partitioned by a column that it lacks"))
            .collect::<Result<_>>()?;
        Ok(Self {
            warehouse: warehouse.clone(),
            folder: folder.to_owned(),
            prefix: prefix.to_owned(),
            table,
            file,
            partitions,
            started: Mutex::default(),
        })
    }

    fn open(&self, partition_values: Vec<Option<String>>, rows: Expected<'_>) -> Result<OpenFile> {
        let columns: Vec<&str> = self.partitions.iter().map(|i| self.table.field(*i).name().as_str()).collect();
        let folder = partition::folder(&columns, &partition_values);
        let id = ulid::Ulid::r#gen().to_string().to_ascii_lowercase();
        let name = format!("{folder}{}-{id}.parquet", self.prefix);
        let path = self.warehouse.path(&format!("{}/{name}", self.folder));
        self.started.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        let properties = parquet_properties(&self.file, rows)?;
        let out = BufWriter::new(Arc::clone(&self.warehouse.store), path);
        let writer = AsyncArrowWriter::try_new(out, Arc::clone(&self.file), Some(properties))
            .external("a data file can't be begun")?;
        Ok(OpenFile { name, writer, rows: 0, null_counts: vec![0; self.file.fields().len()], partition_values })
    }

    fn failed(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        write_error(&self.warehouse.shown(&self.folder), error)
    }
}

/// One file being written.
struct OpenFile {
    name: String,
    writer: AsyncArrowWriter<BufWriter>,
    rows: u64,
    null_counts: Vec<u64>,
    partition_values: Vec<Option<String>>,
}

impl OpenFile {
    async fn write(&mut self, target: &Target, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        for (count, column) in self.null_counts.iter_mut().zip(batch.columns()) {
            *count += column.null_count() as u64;
        }
        self.writer.write(batch).await.map_err(|e| target.failed(e))
    }

    fn bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    async fn close(mut self, target: &Target) -> Result<DataFile> {
        let metadata = self.writer.finish().await.map_err(|e| target.failed(e))?;
        Ok(DataFile {
            path: self.name,
            size: self.writer.bytes_written() as u64,
            rows: self.rows,
            partition_values: self.partition_values,
            stats: Some(stats::to_json(&metadata, &target.file, &self.null_counts)),
        })
    }
}

/// The files that one stream has open, one a partition value.
struct StreamWriter {
    target: Arc<Target>,
    /// There are no more than [`limits::FEW_ROWS`] in all.
    are_few: bool,
    rows: Option<RowConverter>,
    open: HashMap<Option<OwnedRow>, OpenFile>,
    done: Vec<DataFile>,
}

impl StreamWriter {
    fn new(target: Arc<Target>, are_few: bool) -> Result<Self> {
        let sort = |i: &usize| SortField::new(target.table.field(*i).data_type().clone());
        let fields: Vec<_> = target.partitions.iter().map(sort).collect();
        let rows = match fields.is_empty() {
            true => None,
            false => Some(RowConverter::new(fields).external("the table can't be partitioned by these columns")?),
        };
        Ok(Self { target, are_few, rows, open: HashMap::new(), done: Vec::new() })
    }

    async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let target = Arc::clone(&self.target);
        let batch = types::cast_batch(batch, &target.table, &target.partitions)?;
        let Some(converter) = &self.rows else {
            return self.write_part(None, Vec::new, &self.stored(&batch)?).await;
        };
        let keys: Vec<ArrayRef> = target.partitions.iter().map(|i| Arc::clone(batch.column(*i))).collect();
        let rows = converter.convert_columns(&keys).external("partition values can't be compared")?;
        let mut parts: HashMap<OwnedRow, Vec<u32>> = HashMap::new();
        for (index, row) in (0u32..).zip(rows.iter()) {
            parts.entry(row.owned()).or_default().push(index);
        }
        let stored = self.stored(&batch)?;
        let mut parts: Vec<_> = parts.into_iter().collect();
        parts.sort_unstable_by_key(|(_, indices)| indices.first().copied());
        for (key, indices) in parts {
            let first = indices.first().copied().unwrap_or_default() as usize;
            let mut values = Vec::new();
            for (column, i) in keys.iter().zip(&target.partitions) {
                values.extend(partition::to_texts(target.table.field(*i).name(), &column.slice(first, 1))?);
            }
            let part = take_record_batch(&stored, &UInt32Array::from(indices)).external("rows can't be parted")?;
            self.write_part(Some(key), || values, &part).await?;
        }
        self.bound().await
    }

    /// Columns as the file has them.
    fn stored(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let kept: Vec<usize> = (0..batch.num_columns()).filter(|i| !self.target.partitions.contains(i)).collect();
        types::cast_batch(&batch.project(&kept).external("columns can't be chosen")?, &self.target.file, &[])
    }

    async fn write_part(
        &mut self,
        key: Option<OwnedRow>,
        values: impl FnOnce() -> Vec<Option<String>>,
        part: &RecordBatch,
    ) -> Result<()> {
        let file = match self.open.entry(key) {
            Entry::Occupied(slot) => slot.into_mut(),
            Entry::Vacant(slot) => {
                let rows = if self.are_few { Expected::Few } else { Expected::Beginning(part) };
                slot.insert(self.target.open(values(), rows)?)
            }
        };
        file.write(&self.target, part).await?;
        if file.bytes() >= limits::DATA_FILE_BYTES {
            self.close_where(|file| file.bytes() >= limits::DATA_FILE_BYTES).await?;
        }
        Ok(())
    }

    async fn close_where(&mut self, which: impl Fn(&OpenFile) -> bool) -> Result<()> {
        for (_, file) in self.open.extract_if(|_, file| which(file)) {
            self.done.push(file.close(&self.target).await?);
        }
        Ok(())
    }

    /// Keeps memory and open files under their bounds.
    async fn bound(&mut self) -> Result<()> {
        while self.open.len() > limits::OPEN_FILES {
            let largest = self.open.values().map(OpenFile::bytes).max().unwrap_or_default();
            self.close_where(|file| file.bytes() >= largest).await?;
        }
        let mut buffered: usize = self.open.values().map(|file| file.writer.memory_size()).sum();
        while buffered > limits::WRITE_BUFFER_BYTES {
            let Some(largest) = self.open.values_mut().max_by_key(|file| file.writer.memory_size()) else { break };
            let before = largest.writer.memory_size();
            largest.writer.flush().await.map_err(|e| self.target.failed(e))?;
            let freed = before.saturating_sub(largest.writer.memory_size());
            if freed == 0 {
                break;
            }
            buffered -= freed;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<DataFile>> {
        self.close_where(|_| true).await?;
        Ok(self.done)
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
