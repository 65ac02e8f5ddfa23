//! What runs did: one small file a run, and the tables `runs` and `check_results` made of them. Decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use chrono::Utc;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};

use super::process::ProcessId;
use crate::error::{Result, ResultExt};
use crate::limits;
use crate::table::{Warehouse, write_error_after};

/// How a run ended, or hasn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// At work.
    Running,
    /// All it was asked for is up to date.
    Ok,
    /// Something failed; `exit_code` says what kind.
    Failed,
    /// Ended by a signal.
    Stopped,
    /// Its process is gone and never said how it ended.
    Died,
}

impl RunStatus {
    /// As shown to users.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Died => "died",
        }
    }
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// ULID, so that names sort by time.
    pub run: String,
    /// Who runs it.
    pub process: ProcessId,
    /// Microseconds since 1970 UTC.
    pub started_at_us: i64,
    /// Its `now()`, microseconds since 1970 UTC; none of a run that an earlier version tells of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now_us: Option<i64>,
    /// Microseconds since 1970 UTC; none while it runs.
    pub ended_at_us: Option<i64>,
    /// Pipelines that it works on.
    pub pipelines: Vec<String>,
    /// The command line, without values of `--param`.
    pub command: String,
    /// How it ended.
    pub status: RunStatus,
    /// Exit code; none while it runs or if it died.
    pub exit_code: Option<u8>,
    /// One a model, in the order of work.
    pub models: Vec<ModelOutcome>,
    /// One a check that was evaluated.
    pub checks: Vec<CheckOutcome>,
    /// Rows of sources that went to quarantine, by source.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quarantined: BTreeMap<String, u64>,
}

/// What a run did to a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelOutcome {
    /// Model.
    pub model: String,
    /// `ok`, `nothing`, `failed` or `skipped`.
    pub status: String,
    /// `incremental`, `rebuilt`, `recomputed` or `none`.
    pub strategy: String,
    /// Why, in a sentence.
    pub reason: String,
    /// Rows that came.
    pub inserted: u64,
    /// Rows of a key that changed.
    pub updated: u64,
    /// Rows that went.
    pub deleted: u64,
    /// Rows of its own that a rule refused.
    pub quarantined: u64,
    /// Rows under `on_fail: warn`.
    pub warnings: u64,
    /// Delta version after the run; none if there is no table.
    pub version: Option<i64>,
    /// Wall-clock time spent.
    pub seconds: f64,
    /// Whether what made it fail may pass by itself, as a full disk does.
    #[serde(skip)]
    pub may_pass: bool,
}

impl ModelOutcome {
    /// Whether it failed, or was skipped because of what it reads.
    pub fn has_failed(&self) -> bool {
        is_failure(&self.status)
    }
}

/// Whether a model's status is that of one that failed or was skipped.
pub(super) fn is_failure(status: &str) -> bool {
    matches!(status, "failed" | "skipped")
}

/// What a run found by a check.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckOutcome {
    /// Model or source.
    pub model: String,
    /// The check's name.
    pub check: String,
    /// `warn`, `quarantine` or `fail`.
    pub on_fail: String,
    /// `passed`, `failed`, or `error` where it couldn't be evaluated.
    pub status: String,
    /// Rows that failed.
    pub failing_rows: u64,
    /// One failing row or position as text, or the error.
    pub sample: Option<String>,
}

impl RunRecord {
    /// A run that begins now in this process.
    pub fn begin(command: &str, now_us: i64, pipelines: Vec<String>) -> Self {
        Self {
            run: ulid::Ulid::r#gen().to_string(),
            process: ProcessId::current(),
            started_at_us: Utc::now().timestamp_micros(),
            now_us: Some(now_us),
            ended_at_us: None,
            pipelines,
            command: command.to_owned(),
            status: RunStatus::Running,
            exit_code: None,
            models: Vec::new(),
            checks: Vec::new(),
            quarantined: BTreeMap::new(),
        }
    }

    /// Sets the end: now.
    pub fn end(&mut self, status: RunStatus, exit_code: u8) {
        self.ended_at_us = Some(Utc::now().timestamp_micros());
        self.status = status;
        self.exit_code = Some(exit_code);
    }

    /// Writes or replaces the run's file. Called at its start, so that a run that dies is seen, and at its end.
    ///
    /// # Errors
    /// External: the store.
    pub async fn save(&self, warehouse: &Warehouse) -> Result<()> {
        let bytes = serde_json::to_vec(self).external("a run can't be written as JSON")?;
        let path = format!("{RUNS}/{}.json", self.run);
        let put = warehouse.store.put(&warehouse.path(&path), bytes.into()).await;
        put.map(drop).map_err(|e| write_error_after(&warehouse.shown(&path), e, FULL))
    }
}

/// A run is entered before and after it publishes.
const FULL: &str = "the disk is full: the run can't be entered in the history";

/// Below [`crate::table::BOOKKEEPING`].
const RUNS: &str = "_tidemill/runs";

/// The latest `limit` runs, newest first. Runs whose process is gone show as [`RunStatus::Died`]; files that can't be read
/// are left out.
///
/// # Errors
/// External: the store.
pub async fn list(warehouse: &Warehouse, limit: usize) -> Result<Vec<RunRecord>> {
    let newest = names(warehouse).await?.into_iter().rev().take(limit);
    let read = newest.map(|name| async move { warehouse.get(&format!("{RUNS}/{name}.json")).await });
    let files: Vec<_> = futures::stream::iter(read).buffered(limits::CONCURRENT_REQUESTS).try_collect().await?;
    let runs = files.into_iter().flatten().filter_map(|bytes| match serde_json::from_slice::<RunRecord>(&bytes) {
        Ok(mut run) => {
            if run.status == RunStatus::Running && run.process.is_dead() {
                run.status = RunStatus::Died;
            }
            Some(run)
        }
        Err(error) => {
            tracing::warn!(%error, "a run's file can't be read");
            None
        }
    });
    Ok(runs.collect())
}

/// Deletes all but the latest [`limits::RUNS_KEPT`] runs.
///
/// # Errors
/// External: the store.
pub async fn prune(warehouse: &Warehouse) -> Result<()> {
    let names = names(warehouse).await?;
    let gone = names.len().saturating_sub(limits::RUNS_KEPT);
    let paths = names.iter().take(gone).map(|name| warehouse.path(&format!("{RUNS}/{name}.json")));
    warehouse.delete(paths.collect()).await
}

/// Oldest first.
async fn names(warehouse: &Warehouse) -> Result<Vec<String>> {
    let files = warehouse.list(RUNS).await?;
    let stem = |name: &str| name.strip_suffix(".json").map(str::to_owned);
    let mut names: Vec<String> = files.iter().filter_map(|meta| stem(meta.location.filename()?)).collect();
    names.sort_unstable();
    Ok(names)
}

fn instant(zone: &str) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()))
}

/// Columns of the table `runs`; instants in `zone`.
pub fn runs_schema(zone: &str) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("run", DataType::Utf8, false),
        Field::new("started_at", instant(zone), false),
        Field::new("ended_at", instant(zone), true),
        Field::new("seconds", DataType::Float64, true),
        Field::new("command", DataType::Utf8, false),
        Field::new("pipelines", DataType::Utf8, false),
        Field::new("status", DataType::Utf8, false),
        Field::new("exit_code", DataType::Int32, true),
        Field::new("models", DataType::Int64, false),
        Field::new("models_failed", DataType::Int64, false),
        Field::new("models_skipped", DataType::Int64, false),
        Field::new("inserted", DataType::Int64, false),
        Field::new("updated", DataType::Int64, false),
        Field::new("deleted", DataType::Int64, false),
        Field::new("quarantined", DataType::Int64, false),
        Field::new("warnings", DataType::Int64, false),
    ]))
}

/// Runs as rows of the table `runs`.
///
/// # Errors
/// None that can happen: columns of equal length.
pub fn runs_batch(runs: &[RunRecord], zone: &str) -> Result<RecordBatch> {
    let text =
        |of: &dyn Fn(&RunRecord) -> String| Arc::new(StringArray::from_iter_values(runs.iter().map(of))) as ArrayRef;
    let count = |of: &dyn Fn(&RunRecord) -> u64| {
        let counts = runs.iter().map(|run| i64::try_from(of(run)).unwrap_or(i64::MAX));
        Arc::new(Int64Array::from_iter_values(counts)) as ArrayRef
    };
    let sum = |of: &dyn Fn(&ModelOutcome) -> u64| count(&|run| run.models.iter().map(of).sum());
    let started = runs.iter().map(|run| run.started_at_us);
    let ended: Vec<Option<i64>> = runs.iter().map(|run| run.ended_at_us).collect();
    let seconds = runs.iter().map(|run| run.ended_at_us.map(|end| (end - run.started_at_us) as f64 / 1e6));
    let columns: Vec<ArrayRef> = vec![
        text(&|run| run.run.clone()),
        Arc::new(TimestampMicrosecondArray::from_iter_values(started).with_timezone(zone)),
        Arc::new(TimestampMicrosecondArray::from(ended).with_timezone(zone)),
        Arc::new(seconds.collect::<Float64Array>()),
        text(&|run| run.command.clone()),
        text(&|run| run.pipelines.join(", ")),
        text(&|run| run.status.as_str().to_owned()),
        Arc::new(runs.iter().map(|run| run.exit_code.map(i32::from)).collect::<Int32Array>()),
        sum(&|_| 1),
        sum(&|model| u64::from(model.status == "failed")),
        sum(&|model| u64::from(model.status == "skipped")),
        sum(&|model| model.inserted),
        sum(&|model| model.updated),
        sum(&|model| model.deleted),
        // Each source's once, however many models read it.
        count(&|run| run.models.iter().map(|model| model.quarantined).chain(run.quarantined.values().copied()).sum()),
        sum(&|model| model.warnings),
    ];
    RecordBatch::try_new(runs_schema(zone), columns).external("the runs can't be shown as rows")
}

/// Columns of the table `check_results`; instants in `zone`.
pub fn checks_schema(zone: &str) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("run", DataType::Utf8, false),
        Field::new("started_at", instant(zone), false),
        Field::new("model", DataType::Utf8, false),
        Field::new("check", DataType::Utf8, false),
        Field::new("on_fail", DataType::Utf8, false),
        Field::new("status", DataType::Utf8, false),
        Field::new("failing_rows", DataType::Int64, false),
        Field::new("sample", DataType::Utf8, true),
    ]))
}

/// The checks of runs as rows of the table `check_results`.
///
/// # Errors
/// None that can happen: columns of equal length.
pub fn checks_batch(runs: &[RunRecord], zone: &str) -> Result<RecordBatch> {
    let rows: Vec<(&RunRecord, &CheckOutcome)> =
        runs.iter().flat_map(|run| run.checks.iter().map(move |check| (run, check))).collect();
    let text = |of: &dyn Fn(&CheckOutcome) -> String| {
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, check)| of(check)))) as ArrayRef
    };
    let count = |check: &CheckOutcome| i64::try_from(check.failing_rows).unwrap_or(i64::MAX);
    let started = rows.iter().map(|(run, _)| run.started_at_us);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(run, _)| &run.run))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(started).with_timezone(zone)),
        text(&|check| check.model.clone()),
        text(&|check| check.check.clone()),
        text(&|check| check.on_fail.clone()),
        text(&|check| check.status.clone()),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, check)| count(check)))),
        Arc::new(rows.iter().map(|(_, check)| check.sample.as_deref()).collect::<StringArray>()),
    ];
    RecordBatch::try_new(checks_schema(zone), columns).external("the checks can't be shown as rows")
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;

    use super::*;

    #[tokio::test]
    async fn runs_are_listed_newest_first_and_a_dead_one_shows() {
        let dir = tempfile::tempdir().unwrap();
        let warehouse = Warehouse::open("w", dir.path(), &Default::default()).await.unwrap();
        assert!(list(&warehouse, 10).await.unwrap().is_empty());
        let mut done = RunRecord::begin("run", 0, vec!["sales".into()]);
        done.run = "A".into();
        done.save(&warehouse).await.unwrap();
        assert_eq!(list(&warehouse, 10).await.unwrap()[0].status, RunStatus::Running);
        done.models.push(ModelOutcome {
            model: "m".into(),
            status: "failed".into(),
            inserted: 3,
            ..Default::default()
        });
        done.checks.push(CheckOutcome { check: "c".into(), failing_rows: 2, ..Default::default() });
        done.end(RunStatus::Failed, 1);
        done.save(&warehouse).await.unwrap();
        let mut dead = RunRecord::begin("run", 0, vec![]);
        dead.run = "B".into();
        dead.process.started_at_s -= 1000;
        dead.save(&warehouse).await.unwrap();
        warehouse.put("_tidemill/runs/C.json", "torn".into()).await.unwrap();

        let runs = list(&warehouse, 10).await.unwrap();
        assert_eq!(runs.len(), 2);
        assert_eq!((runs[0].run.as_str(), runs[0].status), ("B", RunStatus::Died));
        assert_eq!(runs[1], done);
        assert_eq!(list(&warehouse, 2).await.unwrap().len(), 1, "the torn one counts as looked at");
        let shown = pretty_format_batches(&[runs_batch(&runs, "UTC").unwrap()]).unwrap().to_string();
        assert!(shown.contains("died") && shown.contains("sales"), "{shown}");
        assert_eq!(checks_batch(&runs, "UTC").unwrap().num_rows(), 1);
    }
}
