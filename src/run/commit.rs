//! The commit chain of a pipeline: one create-only record a commit, which names everything that the commit holds.
//!
//! Knows files by path only: what is in them, and how tables follow, is told elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use serde::{Deserialize, Serialize};

use super::failpoint;
use super::synced::{Mark, Marks};
use crate::engine::maintain::LetGo;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::limits;
use crate::table::{BOOKKEEPING, DataFile, Put, TableFiles, Warehouse, types};

/// Format of records that this build writes, and the newest that it reads.
pub const RECORD_FORMAT: u64 = 1;

/// What a table of the record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    /// A model's own table.
    Model,
    /// Rows of a model that a rule refused.
    ModelQuarantine,
    /// Rows of a source that its contract or a rule refused.
    SourceQuarantine,
}

/// One commit of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// [`RECORD_FORMAT`].
    pub format: u64,
    /// The pipeline.
    pub pipeline: String,
    /// Which chain of records it is one of: a pipeline whose bookkeeping was taken away, or that has another name, begins another one.
    /// Empty in chains of the first release.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub chain: String,
    /// Its number, from 1.
    pub n: u64,
    /// Who wrote it: the lease's writer id.
    pub writer: String,
    /// The run that made it.
    pub run: String,
    /// When it was put, microseconds since 1970 UTC.
    pub committed_at_us: i64,
    /// The run's `now()`, microseconds since 1970 UTC.
    pub now_us: i64,
    /// Position of each source, in its connector's own words.
    pub sources: BTreeMap<String, serde_json::Value>,
    /// Tables by name, also those that this commit didn't change.
    pub tables: BTreeMap<String, TableEntry>,
}

/// A table as of a commit. Carried forward from record to record while nothing changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableEntry {
    /// The last commit that changed the table's files: its record holds them.
    pub changed_in: u64,
    /// What it is.
    pub kind: TableKind,
    /// Of the plan that it was computed by.
    pub fingerprint: String,
    /// Digest of each input that it was computed from.
    pub inputs: BTreeMap<String, String>,
    /// Key columns; empty: a bag.
    pub key: Vec<String>,
    /// Whether Flight clients see it.
    pub serve: bool,
    /// The commit of each input's pipeline that holds what was read of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs_at: BTreeMap<String, u64>,
    /// States that it is maintained by, in the order of stages; empty where it has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<StateFiles>,
    /// When it was last found or made up to date, microseconds since 1970 UTC.
    pub refreshed_at_us: i64,
    /// The `now()` that it was computed at, if its plan reads the clock.
    pub clock_us: Option<i64>,
    /// Rows in it.
    pub rows: u64,
    /// Its columns, as [`types::schema_to_json`] writes them.
    pub schema: serde_json::Value,
    /// Columns that it is partitioned by.
    pub partition_by: Vec<String>,
    /// All its files after this commit; there only in the record `changed_in`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<DataFile>>,
}

impl TableEntry {
    /// Whether a state let go of groups.
    pub fn lacks_groups(&self) -> bool {
        self.states.iter().any(|state| state.let_go.is_some())
    }

    /// The groups that each state let go of.
    pub fn let_go(&self) -> Vec<Option<LetGo>> {
        self.states.iter().map(|state| state.let_go.clone()).collect()
    }
}

/// Files of one state of a maintained model, relative to a model's state folder.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StateFiles {
    /// What it hangs on besides rows, as the plan says: [`crate::plan::PlannedModel::states`].
    #[serde(default)]
    pub of: String,
    /// The model whose folder they are in, where another one made them first: equal states of a pipeline's models are kept once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// Rows that count once each.
    pub base: Vec<DataFile>,
    /// Rows that count by their weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<DataFile>,
    /// Groups that aren't there any more; none: all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub let_go: Option<LetGo>,
}

impl StateFiles {
    /// All of them.
    pub fn files(&self) -> impl Iterator<Item = &DataFile> {
        self.base.iter().chain(&self.changes)
    }

    /// The folder that they are in, where they are `model`'s.
    pub fn folder(&self, pipeline: &str, model: &str) -> String {
        state_folder(pipeline, self.home.as_deref().unwrap_or(model))
    }

    /// The same state as one of another model, where it is `model`'s.
    pub fn seen_from_elsewhere(&self, model: &str) -> Self {
        Self { home: Some(self.home.clone().unwrap_or_else(|| model.to_owned())), ..self.clone() }
    }
}

/// Folder of states in the warehouse that a model was the first to make.
pub fn state_folder(pipeline: &str, model: &str) -> String {
    format!("{BOOKKEEPING}/{pipeline}/state/{model}")
}

impl CommitRecord {
    /// The record that follows `self`: everything carried forward, files left behind in the records that hold them.
    pub fn next(&self, writer: &str, run: &str, now_us: i64) -> Self {
        let mut tables = self.tables.clone();
        for entry in tables.values_mut() {
            entry.files = None;
        }
        Self {
            chain: self.chain.clone(),
            n: self.n + 1,
            sources: self.sources.clone(),
            tables,
            ..Self::first(&self.pipeline, writer, run, now_us)
        }
    }

    /// The first record of a pipeline, with no tables yet.
    pub fn first(pipeline: &str, writer: &str, run: &str, now_us: i64) -> Self {
        Self {
            format: RECORD_FORMAT,
            pipeline: pipeline.to_owned(),
            chain: ulid::Ulid::r#gen().to_string().to_ascii_lowercase(),
            n: 1,
            writer: writer.to_owned(),
            run: run.to_owned(),
            committed_at_us: Utc::now().timestamp_micros(),
            now_us,
            sources: BTreeMap::new(),
            tables: BTreeMap::new(),
        }
    }

    /// Under what name its commits are counted in tables' Delta logs: numbers of two chains say nothing of each other.
    pub fn log_writer(&self, project: &str) -> String {
        if self.chain.is_empty() { project.to_owned() } else { format!("{project}/{}", self.chain) }
    }

    /// The record without the tables that `is_others` tells.
    pub fn without(self: Arc<Self>, is_others: impl Fn(&str) -> bool) -> Arc<Self> {
        if !self.tables.keys().any(|table| is_others(table)) {
            return self;
        }
        let mut record = Arc::unwrap_or_clone(self);
        record.tables.retain(|table, _| !is_others(table));
        Arc::new(record)
    }
}

/// Leaves each table in the record only that brought it up to date last, where it went from one pipeline to another.
pub fn keep_newest(records: &mut BTreeMap<String, Arc<CommitRecord>>) {
    if records.len() < 2 {
        return;
    }
    let mut newest: BTreeMap<&str, (i64, i64, &str)> = BTreeMap::new();
    for (pipeline, record) in records.iter() {
        for (table, entry) in &record.tables {
            let at = (entry.refreshed_at_us, record.committed_at_us, pipeline.as_str());
            let known = newest.entry(table).or_insert(at);
            *known = at.max(*known);
        }
    }
    let owners: BTreeMap<String, String> =
        newest.into_iter().map(|(table, (.., pipeline))| (table.to_owned(), pipeline.to_owned())).collect();
    for (pipeline, record) in records {
        let own = Arc::clone(record);
        *record = own.without(|table| owners.get(table).is_some_and(|owner| owner != pipeline));
    }
}

/// The records of one pipeline.
#[derive(Debug, Clone)]
pub struct CommitChain {
    warehouse: Warehouse,
    pipeline: String,
}

impl CommitChain {
    /// The chain of `pipeline`, there or not. Reads nothing yet.
    pub fn open(warehouse: &Warehouse, pipeline: &str) -> Self {
        Self { warehouse: warehouse.clone(), pipeline: pipeline.to_owned() }
    }

    /// The pipeline.
    pub fn pipeline(&self) -> &str {
        &self.pipeline
    }

    fn folder(&self) -> String {
        format!("{BOOKKEEPING}/{}/commits", self.pipeline)
    }

    /// Where record `n` stands.
    pub(super) fn record_path(&self, n: u64) -> String {
        format!("{}/{n:020}.json", self.folder())
    }

    /// A hint where to begin listing; it may lag, and is never trusted beyond that.
    fn hint_path(&self) -> String {
        format!("{BOOKKEEPING}/{}/latest.json", self.pipeline)
    }

    /// The newest commit's number; none before the first.
    ///
    /// # Errors
    /// External: the store.
    pub async fn latest_n(&self) -> Result<Option<u64>> {
        let mark = Marks::of(&self.warehouse, &self.pipeline).last()?;
        match mark.filter(|mark| !mark.is_of_this_boot()) {
            Some(mark) => Ok(Some(self.sure(&mark).await?).filter(|n| *n > 0)),
            None => self.newest_put().await,
        }
    }

    /// The last number that is sure after another boot than that of the mark: later ones may be there by halves.
    ///
    /// # Errors
    /// External: the store.
    pub(super) async fn sure(&self, mark: &Mark) -> Result<u64> {
        for n in self.beyond(mark.n).await?.into_iter().rev() {
            // One that can't be read is of the mark's writer: others sync theirs.
            if let Ok(Some(record)) = self.find(n).await
                && record.writer != mark.writer
            {
                return Ok(n);
            }
        }
        Ok(mark.n)
    }

    /// Numbers after `n`.
    ///
    /// # Errors
    /// External: the store.
    pub(super) async fn beyond(&self, n: u64) -> Result<Vec<u64>> {
        Ok(self.numbers_from(n).await?.into_iter().map(|(found, _)| found).collect())
    }

    /// Deletes the newest records, the last one first.
    ///
    /// # Errors
    /// External: the store.
    pub(super) async fn take_back(&self, numbers: Vec<u64>) -> Result<()> {
        for n in numbers.into_iter().rev() {
            self.drop_records(vec![n]).await?;
        }
        Ok(())
    }

    async fn newest_put(&self) -> Result<Option<u64>> {
        let now = Utc::now();
        let newest = match self.warehouse.seen.last(&self.folder(), now - limits::COMMITS_SEEN..=now) {
            Some(seen) => self.newest_from(seen).await?,
            None => None,
        };
        let newest = match newest {
            None => self.newest_listed().await?,
            found => found,
        };
        if let Some(n) = newest {
            self.warehouse.seen.note(&self.folder(), n, now);
        }
        Ok(newest)
    }

    /// The newest commit's number, from one on that was the newest lately: its successors are there without a gap, since nothing
    /// as young is deleted. None where it is gone: then the warehouse was made anew.
    async fn newest_from(&self, seen: u64) -> Result<Option<u64>> {
        if !self.is_there(seen).await? {
            return Ok(None);
        }
        let mut newest = seen;
        while self.is_there(newest + 1).await? {
            newest += 1;
        }
        Ok(Some(newest))
    }

    async fn is_there(&self, n: u64) -> Result<bool> {
        Ok(self.warehouse.size(&self.record_path(n)).await?.is_some())
    }

    /// The newest commit's number as the store lists them. On local disk that reads the whole folder, which `up` fills with a
    /// record a step.
    async fn newest_listed(&self) -> Result<Option<u64>> {
        let hint = self.warehouse.get(&self.hint_path()).await?;
        let known = hint.and_then(|bytes| serde_json::from_slice::<u64>(&bytes).ok()).unwrap_or(0);
        // Begins before the hint's own record, so that a hint beyond the truth can't hide it for long.
        let newest = self.numbers_from(known.saturating_sub(1)).await?.last().map(|(n, _)| *n);
        match newest {
            None if known > 0 => Ok(self.numbers_from(0).await?.last().map(|(n, _)| *n)),
            found => Ok(found),
        }
    }

    /// The newest record; none before the first.
    ///
    /// # Errors
    /// External: the store, or a record that can't be read.
    pub async fn latest(&self) -> Result<Option<Arc<CommitRecord>>> {
        match self.latest_n().await? {
            Some(n) => self.load(n).await.map(Some),
            None => Ok(None),
        }
    }

    /// Record `n`.
    ///
    /// # Errors
    /// External: not there, not readable; usage: written by a newer Tidemill.
    pub async fn load(&self, n: u64) -> Result<Arc<CommitRecord>> {
        let shown = self.warehouse.shown(&self.record_path(n));
        let gone = || Error::external("a commit record is gone").with("file", shown);
        self.find(n).await?.ok_or_else(gone)
    }

    /// Record `n`, if it is kept still.
    ///
    /// # Errors
    /// As [`Self::load`] otherwise.
    pub async fn find(&self, n: u64) -> Result<Option<Arc<CommitRecord>>> {
        let path = self.record_path(n);
        let shown = self.warehouse.shown(&path);
        let parse = |bytes: bytes::Bytes| {
            let unreadable = |e: serde_json::Error| {
                Error::external("a commit record can't be read").with("file", &shown).caused_by(e)
            };
            let format: Format = serde_json::from_slice(&bytes).map_err(unreadable)?;
            if format.format > RECORD_FORMAT {
                return Err(Error::usage(format!(
                    "a commit was written by a newer Tidemill (format {}, this one knows {RECORD_FORMAT})",
                    format.format
                ))
                .with("file", &shown));
            }
            serde_json::from_slice(&bytes).map_err(unreadable)
        };
        self.warehouse.parsed(&path, parse).await
    }

    /// Commits `record`. That one put commits everything that the record names, which must be written through to the disk already.
    ///
    /// # Errors
    /// Lease: the number was taken by another writer, so this one is fenced and has touched nothing. External: the store.
    pub async fn put(&self, record: &CommitRecord) -> Result<()> {
        self.put_synced(record, true).await
    }

    /// The same for a record that is synced later, with all that it names.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub(super) async fn put_soon(&self, record: &CommitRecord) -> Result<()> {
        self.put_synced(record, false).await
    }

    async fn put_synced(&self, record: &CommitRecord, is_synced: bool) -> Result<()> {
        let path = self.record_path(record.n);
        let bytes = serde_json::to_vec(record).external("a commit record can't be written as JSON")?;
        failpoint::hit("before_record");
        let put = match is_synced {
            true => self.warehouse.put_new(&path, bytes.into()).await?,
            false => self.warehouse.put_new_soon(&path, bytes.into()).await?,
        };
        match put {
            Put::Created => failpoint::hit("after_record"),
            Put::Exists => {
                let by = self.load(record.n).await.map(|there| format!("{} in run {}", there.writer, there.run));
                return Err(Error::new(
                    ErrorKind::Lease,
                    "another process committed first; this one published nothing",
                )
                .with("pipeline", &self.pipeline)
                .with("commit", record.n)
                .with("committed by", by.unwrap_or_else(|_| "unknown".to_owned())));
            }
        }
        // Only a hint: the record stands whether or not it gets there.
        if let Err(error) = self.warehouse.put(&self.hint_path(), record.n.to_string().into()).await {
            tracing::debug!(%error, "the hint to the newest commit wasn't written");
        }
        Ok(())
    }

    /// The newest record committed at or before an instant, microseconds since 1970 UTC.
    ///
    /// # Errors
    /// External: none is as old or still kept, or it isn't known which one of those that are gone was in force.
    pub async fn at(&self, timestamp_us: i64) -> Result<Arc<CommitRecord>> {
        let numbers = self.numbers_from(0).await?;
        let (mut low, mut high) = (0, numbers.len());
        let mut best = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let Some((n, _)) = numbers.get(middle) else { break };
            let record = self.load(*n).await?;
            if record.committed_at_us <= timestamp_us {
                low = middle + 1;
                best = Some(record);
            } else {
                high = middle;
            }
        }
        let Some(best) = best else {
            return Err(Error::external("there is no commit as old as that, or it is no longer kept")
                .with("pipeline", &self.pipeline)
                .with("first kept commit", numbers.first().map_or(0, |(n, _)| *n)));
        };
        match numbers.get(low) {
            // One of those between may have been in force then.
            Some((next, _)) if *next > best.n + 1 => {
                Err(Error::external("the commits of that time are no longer kept one by one")
                    .with("pipeline", &self.pipeline)
                    .with("kept before", shown_instant(best.committed_at_us))
                    .with("kept after", shown_instant(self.load(*next).await?.committed_at_us)))
            }
            _ => Ok(best),
        }
    }

    /// The run that changed a table last, as of a record that has `entry`, and when that was put, microseconds since 1970 UTC.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub async fn last_change(&self, record: &CommitRecord, entry: &TableEntry) -> Result<(String, i64)> {
        if entry.changed_in == record.n {
            return Ok((record.run.clone(), record.committed_at_us));
        }
        let holding = self.load(entry.changed_in).await?;
        Ok((holding.run.clone(), holding.committed_at_us))
    }

    /// All files of a table as of a record that has `entry`.
    ///
    /// # Errors
    /// External: the record that holds them is gone or unreadable.
    pub async fn table_files(&self, table: &str, entry: &TableEntry) -> Result<TableFiles> {
        let files = match &entry.files {
            Some(files) => files.clone(),
            None => {
                let record = self.load(entry.changed_in).await?;
                record.tables.get(table).and_then(|there| there.files.clone()).ok_or_else(|| {
                    Error::internal("a commit record lacks the files of a table that it changed")
                        .with("table", table)
                        .with("commit", entry.changed_in)
                })?
            }
        };
        Ok(TableFiles {
            schema: types::schema_from_json(&entry.schema)?,
            partition_by: entry.partition_by.clone(),
            files,
        })
    }

    /// Deletes records that ended more than `keep` ago, save those that still hold a kept record's files and those `needed`;
    /// returns how many.
    ///
    /// # Errors
    /// External: the store.
    pub async fn prune(&self, keep: std::time::Duration, needed: &BTreeSet<u64>) -> Result<usize> {
        let cutoff = Utc::now() - chrono::TimeDelta::from_std(keep).external("a retention is out of range")?;
        let numbers = self.numbers_from(0).await?;
        // The record in force at the cutoff is the oldest that anyone may still ask for.
        let Some((oldest, _)) = numbers.iter().rev().find(|(_, at)| *at <= cutoff) else { return Ok(0) };
        // A later record's reference below `oldest` is one that `oldest` carries too.
        let held: BTreeSet<u64> = self.load(*oldest).await?.tables.values().map(|entry| entry.changed_in).collect();
        let gone = numbers.iter().map(|(n, _)| *n).filter(|n| n < oldest && !held.contains(n) && !needed.contains(n));
        self.drop_records(gone.collect()).await
    }

    /// Deletes the records between `from` and `to`, both kept, that are older than `min_age` and not `needed`: steps between two
    /// versions of the tables, whose files are gone. `needed` must have what kept records hang on. Returns how many.
    ///
    /// # Errors
    /// External: the store.
    pub async fn thin(
        &self,
        (from, to): (u64, u64),
        min_age: std::time::Duration,
        needed: &BTreeSet<u64>,
    ) -> Result<usize> {
        let cutoff = Utc::now() - chrono::TimeDelta::from_std(min_age).external("an age is out of range")?;
        let numbers = self.numbers_from(from).await?;
        let gone = numbers.into_iter().filter(|(n, at)| *n > from && *n < to && *at <= cutoff && !needed.contains(n));
        self.drop_records(gone.map(|(n, _)| n).collect()).await
    }

    async fn drop_records(&self, numbers: Vec<u64>) -> Result<usize> {
        let paths: Vec<_> = numbers.iter().map(|n| self.warehouse.path(&self.record_path(*n))).collect();
        let count = paths.len();
        self.warehouse.delete(paths).await?;
        Ok(count)
    }

    /// Numbers beyond `after` in order, with the time of each put.
    async fn numbers_from(&self, after: u64) -> Result<Vec<(u64, DateTime<Utc>)>> {
        let folder = self.warehouse.path(&self.folder());
        let offset = self.warehouse.path(&self.record_path(after));
        let listed = self.warehouse.store.list_with_offset(Some(&folder), &offset).map(|meta| {
            let meta = meta?;
            let n = meta.location.filename().and_then(|name| name.strip_suffix(".json")?.parse::<u64>().ok());
            Ok::<_, object_store::Error>(n.map(|n| (n, meta.last_modified)))
        });
        let found: Vec<Option<_>> = listed.try_collect().await.map_err(|e| {
            Error::external("the commits can't be listed")
                .with("folder", self.warehouse.shown(&self.folder()))
                .caused_by(e)
        })?;
        let mut numbers: Vec<_> = found.into_iter().flatten().collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}

fn shown_instant(us: i64) -> String {
    DateTime::<Utc>::from_timestamp_micros(us).map_or_else(|| us.to_string(), |at| at.to_rfc3339())
}

/// Pipelines that have commits in the warehouse, in order of names.
///
/// # Errors
/// External: the store.
pub async fn pipelines(warehouse: &Warehouse) -> Result<Vec<String>> {
    let folder = warehouse.path(BOOKKEEPING);
    let listed = warehouse.store.list_with_delimiter(Some(&folder)).await;
    let listed = listed.external("the pipelines can't be listed")?;
    let names = listed.common_prefixes.iter().filter_map(|prefix| prefix.filename().map(str::to_owned));
    let mut names: Vec<String> = names.filter(|name| name != "runs").collect();
    names.sort_unstable();
    Ok(names)
}

#[derive(Deserialize)]
struct Format {
    format: u64,
}
