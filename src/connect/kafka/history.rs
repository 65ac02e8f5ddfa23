//! A topic's past from Parquet files: landed as what came before its first message. Knows no broker.
//!
//! Files that hold `_partition` and `_offset`, as landed rows of a topic do, say at which offset each partition goes on, so that
//! nothing is missing; an offset that they hold twice is an error, so that nothing counts twice. Rows of the past aren't judged for being late.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray, UInt64Array, new_null_array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, SchemaRef};
use futures::StreamExt;
use object_store::ObjectMeta;

use super::offsets_seen::OffsetsSeen;
use super::rows::{Needed, landed_fields};
use crate::connect::decode::{Decoded, Origin};
use crate::connect::files::{FileStore, parquet_file};
use crate::connect::landing::{Counts, Sink};
use crate::connect::quarantine::Refused;
use crate::connect::{FileEntry, Landing, Ranges};
use crate::error::{Error, Result, ResultExt};
use crate::failpoint;
use crate::spec::types::{KafkaSpec, MessageRelation, OnInvalid};

/// What was read of the past.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// A unit a file.
    pub(super) units: Vec<FileEntry>,
    /// The offset after the last one of each partition that files tell of.
    pub(super) next: BTreeMap<i32, i64>,
}

/// Lands the rows of all files; `landing` is that of the topic's rows.
///
/// # Errors
/// As [`crate::connect::Source::take_in`]. What was landed is deleted again, as far as possible.
pub(super) async fn read(
    files: &FileStore,
    spec: &KafkaSpec,
    zone: &str,
    needed: &Needed,
    on_invalid: OnInvalid,
    landing: &Landing<'_>,
) -> Result<Past> {
    let (mut past, mut seen) = (Past::default(), OffsetsSeen::default());
    let listed = files.list().await?;
    if listed.is_empty() {
        return Err(Error::external("no file of the history is there").with("history", &files.pattern));
    }
    for meta in listed {
        let path = files.shown(&meta.location);
        let open = PastFile::open(files, &meta, spec, needed, &landing.contract, zone, landing.ingested_at_us);
        let read = match open.await {
            Ok(file) => read_file(file, std::mem::take(&mut seen), &meta, &path, zone, on_invalid, landing).await,
            Err(error) => Err(error),
        };
        match read.map_err(|error| error.with("history", &path)) {
            Ok((entry, so_far)) => {
                past.units.push(entry);
                seen = so_far;
            }
            Err(error) => {
                landing.discard(&past.units).await;
                return Err(error);
            }
        }
    }
    past.next = seen.next();
    Ok(past)
}

/// Lands a file's rows; `seen` are the offsets of the files before it, and comes back with its own.
async fn read_file(
    mut file: PastFile,
    mut seen: OffsetsSeen,
    meta: &ObjectMeta,
    path: &str,
    zone: &str,
    on_invalid: OnInvalid,
    landing: &Landing<'_>,
) -> Result<(FileEntry, OffsetsSeen)> {
    let mut entry = FileEntry {
        path: format!("{}-{path}", landing.prefix),
        size: meta.size,
        etag: meta.e_tag.clone(),
        hash: landing.prefix.clone(),
        ingested_at_us: landing.ingested_at_us,
        ..FileEntry::default()
    };
    let decode = async |mut sink: Sink| {
        Ok(tokio::spawn(async move {
            while let Some(decoded) = file.next_batch(&mut seen).await? {
                failpoint::hit("mid_file");
                for batch in sink.batches(decoded)? {
                    batch.send().await?;
                }
            }
            seen.settle()?;
            Ok::<(Counts, _), Error>((sink.counts(), seen))
        }))
    };
    let seen = landing.write(on_invalid, landed_fields(zone), path, &mut entry, decode).await?.decoded;
    let rows = i64::try_from(entry.rows + entry.refused).external("a file has too many rows")?;
    entry.ranges = Ranges::from([(format!("history {path}"), vec![(0, rows)])]);
    Ok((entry, seen))
}

/// A file that is read batch by batch.
pub(super) struct PastFile {
    batches: parquet_file::Batches,
    converter: parquet_file::Converter,
    needed: Needed,
    fields: Vec<Field>,
    ingested_at_us: i64,
    /// Number of the next row, from 1.
    first: u64,
}

impl PastFile {
    /// Opens a file to be read under `contract`.
    ///
    /// # Errors
    /// External: it isn't whole Parquet, or lacks what an upsert relation needs.
    pub(super) async fn open(
        files: &FileStore,
        meta: &ObjectMeta,
        spec: &KafkaSpec,
        needed: &Needed,
        contract: &SchemaRef,
        zone: &str,
        ingested_at_us: i64,
    ) -> Result<Self> {
        let builder = parquet_file::open(files, meta).await?;
        let has = |column: &str| builder.schema().field_with_name(column).is_ok();
        if matches!(spec.relation, MessageRelation::Upsert(_)) && !(has("_partition") && has("_offset")) {
            let text =
                "the past of an upsert relation needs `_partition` and `_offset`: they say which row is the last";
            return Err(Error::external(text));
        }
        Ok(Self {
            batches: parquet_file::with_batches(builder).build().external("the file isn't whole Parquet")?,
            converter: parquet_file::Converter::new(Arc::clone(contract), zone)?,
            needed: needed.clone(),
            fields: landed_fields(zone),
            ingested_at_us,
            first: 1,
        })
    }

    /// The next rows, whose offsets are added to those that were `seen`; none at the end.
    ///
    /// # Errors
    /// External: the file isn't whole, a hidden column is of another type, or an offset stands there twice.
    pub(super) async fn next_batch(&mut self, seen: &mut OffsetsSeen) -> Result<Option<Decoded>> {
        let Some(batch) = self.batches.next().await else { return Ok(None) };
        let batch = batch.external("the file isn't whole Parquet")?;
        let beside = beside(&batch, &self.fields, self.ingested_at_us)?;
        if let [partitions, offsets, ..] = beside.as_slice() {
            seen.add(partitions.as_primitive(), offsets.as_primitive())?;
        }
        let rows = batch.num_rows() as u64;
        let decoded = self.converter.decode(batch, self.first)?;
        self.first += rows;
        let origin = Box::new(PastRows { beside, file: decoded.origin });
        self.needed.applied(Decoded { origin, ..decoded }).map(Some)
    }
}

/// The hidden columns of landed rows, as far as the file has them.
fn beside(batch: &RecordBatch, fields: &[Field], ingested_at_us: i64) -> Result<Vec<ArrayRef>> {
    let rows = batch.num_rows();
    let column = |field: &Field| -> Result<ArrayRef> {
        let there = || match batch.column_by_name(field.name()) {
            Some(found) => cast(found, field.data_type()).external("a hidden column of the history is of another type"),
            None => Ok(new_null_array(field.data_type(), rows)),
        };
        Ok(match (field.name().as_str(), field.data_type()) {
            ("_ingested_at", DataType::Timestamp(_, Some(zone))) => {
                Arc::new(TimestampMicrosecondArray::from_value(ingested_at_us, rows).with_timezone(Arc::clone(zone)))
            }
            ("_tombstone", _) => {
                let known = there()?;
                Arc::new(known.as_boolean().iter().map(|is| Some(is == Some(true))).collect::<BooleanArray>())
            }
            _ => there()?,
        })
    };
    fields.iter().map(column).collect()
}

/// Rows of a file and what stands beside them.
struct PastRows {
    beside: Vec<ArrayRef>,
    file: Box<dyn Origin + Send>,
}

impl Origin for PastRows {
    fn hidden(&self, rows: &[usize]) -> Vec<ArrayRef> {
        let rows = UInt64Array::from_iter_values(rows.iter().map(|row| *row as u64));
        // Rows of the batch are in its range.
        self.beside.iter().map(|column| take(column, &rows, None).unwrap_or_else(|_| Arc::clone(column))).collect()
    }

    fn is_tombstone(&self, index: usize) -> bool {
        self.beside.last().and_then(|last| last.as_boolean_opt()).is_some_and(|is| is.value(index))
    }

    fn refused(&self, index: usize, rule: &str, reason: String) -> Result<Refused> {
        self.file.refused(index, rule, reason)
    }
}
