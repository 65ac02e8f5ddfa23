//! Changed keys as the bytes of a file: Parquet, JSON or CSV. Knows no name of the file and no cursor's meaning.
//!
//! Under `changes` and `final` a row has the table's columns, then `_op` (`insert`, `update`, `delete`) and `_commit`. A row
//! that went is told as it was: a reader needs its key, and may subtract the rest or find its partition by it.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::AsyncArrowWriter;
use parquet::file::metadata::KeyValue;
use tokio::io::AsyncWriteExt;

use crate::connect::encode::csv;
use crate::connect::encode::envelope::{self, Commit, Origin};
use crate::connect::encode::json::JsonLines;
use crate::engine::{KeyedChange, failure};
use crate::error::{Error, Result, ResultExt};
use crate::spec::SINK_COLUMNS;
use crate::spec::types::{Emit, SinkFormat};
use crate::table::{Expected, parquet_properties};

/// Name of the Parquet metadata that holds the cursor.
const CURSOR: &str = "tidemill";

/// What files of a sink hold.
pub(super) struct Layout {
    /// Key columns, by name.
    pub(super) key: Vec<String>,
    pub(super) format: SinkFormat,
    pub(super) emit: Emit,
    pub(super) origin: Origin,
}

impl Layout {
    /// Ending of files' names.
    pub(super) fn extension(&self) -> &'static str {
        self.format.word()
    }
}

/// A file being written; nothing of it is there before [`FileWriter::finish`], save parts that no listing shows.
pub(super) struct FileWriter<'a> {
    layout: &'a Layout,
    commit: Commit,
    cursor: String,
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// Begun with the first row.
    out: Option<Out>,
    rows: u64,
}

enum Out {
    Parquet(Box<AsyncArrowWriter<BufWriter>>),
    Json(BufWriter, JsonLines),
    Csv(BufWriter),
    Envelopes(BufWriter),
}

impl<'a> FileWriter<'a> {
    /// `cursor` is the cursor after the change, as JSON.
    pub(super) fn new(
        layout: &'a Layout,
        commit: Commit,
        cursor: String,
        store: &Arc<dyn ObjectStore>,
        path: Path,
    ) -> Self {
        Self { layout, commit, cursor, store: Arc::clone(store), path, out: None, rows: 0 }
    }

    /// Appends changed keys.
    ///
    /// # Errors
    /// External: the store, or a value that the format can't hold; internal, if a key column isn't there.
    pub(super) async fn write(&mut self, change: &KeyedChange) -> Result<()> {
        self.rows += change.after.num_rows() as u64;
        if self.layout.emit == Emit::Debezium {
            let mut lines = Vec::new();
            envelope::write_lines(change, &self.layout.key, &self.layout.origin, self.commit, &mut lines)?;
            if self.out.is_none() {
                self.out = Some(Out::Envelopes(self.buffer()));
            }
            return self.write_text(&lines).await;
        }
        let rows = told(change, &self.layout.key, self.commit.n)?;
        let is_first = self.out.is_none();
        if is_first {
            self.out = Some(self.begin(rows.schema())?);
        }
        match &mut self.out {
            Some(Out::Parquet(writer)) => {
                writer.write(&rows).await.external("the file can't be written")?;
                // What is encoded goes out, so that memory stays small whatever the change's size is.
                match writer.in_progress_size() > crate::limits::WRITE_BUFFER_BYTES {
                    true => writer.flush().await.external("the file can't be written"),
                    false => Ok(()),
                }
            }
            Some(Out::Json(_, lines)) => {
                let mut text = Vec::new();
                lines.write(&rows, &mut text)?;
                self.write_text(&text).await
            }
            _ => {
                let mut text = if is_first { csv::header(&rows.schema()) } else { Vec::new() };
                csv::write_lines(&rows, &mut text)?;
                self.write_text(&text).await
            }
        }
    }

    fn buffer(&self) -> BufWriter {
        BufWriter::new(Arc::clone(&self.store), self.path.clone())
    }

    fn begin(&self, schema: SchemaRef) -> Result<Out> {
        let out = self.buffer();
        Ok(match self.layout.format {
            SinkFormat::Parquet => {
                let properties = parquet_properties(&schema, Expected::Unknown)?;
                let writer = AsyncArrowWriter::try_new(out, schema, Some(properties));
                let mut writer = writer.external("a Parquet file can't be begun")?;
                writer.append_key_value_metadata(KeyValue::new(CURSOR.to_string(), self.cursor.clone()));
                Out::Parquet(Box::new(writer))
            }
            SinkFormat::Json => Out::Json(out, JsonLines::new(&schema)?),
            SinkFormat::Csv => Out::Csv(out),
        })
    }

    async fn write_text(&mut self, text: &[u8]) -> Result<()> {
        match &mut self.out {
            Some(Out::Json(out, _) | Out::Csv(out) | Out::Envelopes(out)) => {
                out.write_all(text).await.external("the file can't be written")
            }
            _ => Err(Error::internal("text for a file that holds none")),
        }
    }

    /// Ends the file, and gives its number of rows. Without rows there is no file.
    ///
    /// # Errors
    /// External: the store.
    pub(super) async fn finish(self) -> Result<u64> {
        match self.out {
            None => {}
            Some(Out::Parquet(writer)) => {
                writer.close().await.external("the file can't be written")?;
            }
            Some(Out::Json(mut out, _) | Out::Csv(mut out) | Out::Envelopes(mut out)) => {
                out.shutdown().await.external("the file can't be written")?;
            }
        }
        Ok(self.rows)
    }

    /// Gives up: takes away parts that were sent.
    pub(super) async fn abort(self) {
        let mut out = match self.out {
            None => return,
            Some(Out::Parquet(writer)) => writer.into_inner(),
            Some(Out::Json(out, _) | Out::Csv(out) | Out::Envelopes(out)) => out,
        };
        // Stores take unfinished parts away by themselves; no reader sees them.
        let _ = out.abort().await;
    }
}

/// The rows that tell of changed keys.
fn told(change: &KeyedChange, key: &[String], commit: u64) -> Result<RecordBatch> {
    let KeyedChange { before, after } = change;
    let schema = after.schema();
    let at = key.first().and_then(|name| schema.index_of(name).ok());
    let at = at.ok_or_else(|| Error::internal("a key column isn't among the columns"))?;
    // Key columns have no nulls, so that one says whether there is a row.
    let (was, is) = (before.column(at), after.column(at));
    let rows = after.num_rows();
    let is_there: BooleanArray = (0..rows).map(|row| Some(is.is_valid(row))).collect();
    let ops = (0..rows).map(|row| match (was.is_valid(row), is.is_valid(row)) {
        (false, _) => "insert",
        (true, true) => "update",
        (true, false) => "delete",
    });
    let ops: ArrayRef = Arc::new(StringArray::from_iter_values(ops));
    let commit = i64::try_from(commit).external("a commit's number is out of range")?;
    let mut columns = Vec::with_capacity(schema.fields().len() + SINK_COLUMNS.len());
    for (after, before) in after.columns().iter().zip(before.columns()) {
        columns.push(match is_there.has_false() {
            true => zip(&is_there, after, before).map_err(|error| failure(error.into()))?,
            false => Arc::clone(after),
        });
    }
    columns.extend([ops, Arc::new(Int64Array::from_value(commit, rows)) as ArrayRef]);
    let [op, commit] = SINK_COLUMNS;
    let own = [Field::new(op, DataType::Utf8, false), Field::new(commit, DataType::Int64, false)];
    let fields = schema.fields().iter().cloned().chain(own.into_iter().map(Arc::new));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    RecordBatch::try_new(schema, columns).external("a change can't be put together")
}
