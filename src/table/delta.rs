//! A table's Delta log: brought up to a list of files exactly once, and read at a version. Knows no commit record.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::Schema;
use deltalake_core::DeltaTableError;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake_core::kernel::{Action, Add, CommitInfo, Metadata, Protocol, StructType, Transaction, new_metadata};
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore, get_latest_version};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::table::state::DeltaTableState;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::prefix::PrefixStore;
use serde_json::{Value, json};
use url::Url;

use super::store::write_error_after;
use super::{DataFile, TableFiles, Warehouse, types};
use crate::error::{Error, Result, ResultExt};
use crate::limits;

/// A table's log, below its folder.
pub const LOG_FOLDER: &str = "_delta_log";

/// A Delta log follows a commit that stands.
const FULL: &str = "the disk is full; the commit stands, and the next run brings the table up to it";

/// Key of our own facts in a Delta commit's info.
const INFO_KEY: &str = "tidemill";
/// Of these facts: the instant that a version counts from, in microseconds since 1970.
const COMMITTED_AT: &str = "committedAtUs";

/// A moment of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Now.
    Latest,
    /// A Delta version.
    Version(i64),
    /// The last version committed at or before this instant, microseconds since 1970 UTC.
    TimestampUs(i64),
}

/// One version of a table, as its log tells.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionInfo {
    /// Delta version.
    pub version: i64,
    /// When it was committed, microseconds since 1970 UTC.
    pub committed_at_us: i64,
    /// What was given to [`apply`] as `info`; null for versions that others wrote.
    pub info: Value,
}

/// What a table's log is to be brought to.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Who counts commits: what another writer's number says is nothing to this one.
    pub writer: &'a str,
    /// The commit that `files` stand for.
    pub n: u64,
    /// The instant of that commit, microseconds since 1970 UTC.
    pub committed_at_us: i64,
    /// All files of the table after that commit.
    pub files: &'a TableFiles,
    /// Further facts for the version's info, a JSON object.
    pub info: &'a Value,
}

impl Target<'_> {
    fn app_id(&self, table: &str) -> String {
        app_id(self.writer, table)
    }
}

fn app_id(writer: &str, table: &str) -> String {
    format!("tidemill/{writer}/{table}")
}

/// Brings `table` to `target` by one Delta commit, creating it if it isn't there, and returns its latest version.
///
/// Exactly once: a log that has `target.n` or a later commit is left as it is, so repeating and racing are harmless. No
/// commit is made where nothing would change.
///
/// # Errors
/// External: the store, or a log that others keep changing. The table is then as it was, or has the whole commit.
pub async fn apply(warehouse: &Warehouse, table: &str, target: Target<'_>) -> Result<i64> {
    let log = log_store(warehouse, table)?;
    let n = i64::try_from(target.n).external("a commit number is out of range")?;
    let mut last = None;
    for _ in 0..limits::DELTA_COMMIT_TRIES {
        let state = load(&log, table).await?;
        if let Some(state) = &state
            && transaction(&log, state, &target.app_id(table)).await?.is_some_and(|done| done >= n)
        {
            return version_number(state.version());
        }
        let actions = actions(state.as_ref(), table, &target)?;
        if let Some(state) = &state
            && actions.is_empty()
        {
            return version_number(state.version());
        }
        match commit(&log, state.as_ref(), actions, table, &target).await {
            Ok(version) => return version_number(version),
            Err(error) => {
                // A put that seemed to fail may have succeeded: the next look at the log tells.
                let conflict = is_conflict(&error);
                last = Some(write_error_after(&warehouse.shown(table), error, FULL).with("table", table));
                if !conflict && !applied(&log, table, &target, n).await? {
                    break;
                }
            }
        }
    }
    Err(last.unwrap_or_else(|| Error::internal("a Delta commit was never tried").with("table", table)))
}

async fn applied(log: &LogStoreRef, table: &str, target: &Target<'_>, n: i64) -> Result<bool> {
    Ok(match load(log, table).await? {
        Some(state) => transaction(log, &state, &target.app_id(table)).await?.is_some_and(|done| done >= n),
        None => false,
    })
}

async fn commit(
    log: &LogStoreRef,
    state: Option<&DeltaTableState>,
    actions: Vec<Action>,
    table: &str,
    target: &Target<'_>,
) -> Result<u64, DeltaTableError> {
    let mut info = json!({ "commit": target.n, COMMITTED_AT: target.committed_at_us });
    if let (Some(info), Some(more)) = (info.as_object_mut(), target.info.as_object()) {
        info.extend(more.clone());
    }
    let properties = CommitProperties::default()
        .with_max_retries(0)
        .with_application_transaction(Transaction::new(target.app_id(table), target.n as i64))
        .with_metadata([(INFO_KEY.to_owned(), info)]);
    let operation = DeltaOperation::Write {
        mode: SaveMode::Overwrite,
        partition_by: (!target.files.partition_by.is_empty()).then(|| target.files.partition_by.clone()),
        predicate: None,
    };
    let reference = state.map(|state| state as &dyn deltalake_core::kernel::transaction::TableReference);
    let done =
        CommitBuilder::from(properties).with_actions(actions).build(reference, Arc::clone(log), operation).await?;
    Ok(done.version())
}

fn is_conflict(error: &DeltaTableError) -> bool {
    match error {
        DeltaTableError::VersionAlreadyExists(_) => true,
        DeltaTableError::Transaction { source } => matches!(
            source,
            TransactionError::MaxCommitAttempts(_)
                | TransactionError::CommitConflict(_)
                | TransactionError::VersionAlreadyExists(_)
        ),
        _ => false,
    }
}

/// What must be done to the log: protocol and columns where they differ, removes, adds.
fn actions(state: Option<&DeltaTableState>, table: &str, target: &Target<'_>) -> Result<Vec<Action>> {
    let columns = types::table_schema(&target.files.schema)?;
    let schema =
        types::to_delta(&if needs_wall_clock(&columns) { all_nullable(&columns) } else { columns.as_ref().clone() })?;
    let partition_by = &target.files.partition_by;
    let mut actions = Vec::new();
    let mut active = HashMap::new();
    match state {
        None => {
            actions.push(Action::Protocol(protocol(&target.files.schema)?));
            let retention = [("delta.logRetentionDuration", limits::DELTA_LOG_RETENTION)];
            let metadata =
                new_metadata(&schema, partition_by, retention).external("a Delta table can't be described")?;
            actions.push(Action::Metadata(changed(&metadata, |json| json["name"] = table.into())?));
        }
        Some(state) => {
            let metadata = state.metadata();
            // By position, too: readers have the columns in this order.
            if !state.schema().fields().eq(schema.fields()) || metadata.partition_columns() != partition_by.as_slice() {
                if needs_wall_clock(&target.files.schema) && state.protocol().min_writer_version() < 7 {
                    actions.push(Action::Protocol(protocol(&target.files.schema)?));
                }
                actions.push(Action::Metadata(described(metadata, &schema, partition_by)?));
            }
            active.extend(state.log_data().iter().map(|view| (view.path().into_owned(), view)));
        }
    }
    let after: HashSet<&str> = target.files.files.iter().map(|file| file.path.as_str()).collect();
    let mut gone: Vec<_> = active.iter().filter(|(path, _)| !after.contains(path.as_str())).collect();
    gone.sort_unstable_by(|a, b| a.0.cmp(b.0));
    actions.extend(gone.into_iter().map(|(_, view)| Action::Remove(view.remove_action(true))));
    let new = target.files.files.iter().filter(|file| !active.contains_key(&file.path));
    actions.extend(new.map(|file| Action::Add(add(file, partition_by, target.committed_at_us))));
    Ok(actions)
}

fn add(file: &DataFile, partition_by: &[String], committed_at_us: i64) -> Add {
    Add {
        path: file.path.clone(),
        size: i64::try_from(file.size).unwrap_or(i64::MAX),
        partition_values: partition_by.iter().cloned().zip(file.partition_values.iter().cloned()).collect(),
        modification_time: committed_at_us / 1000,
        data_change: true,
        stats: file.stats.clone(),
        ..Add::default()
    }
}

/// Wall-clock times need a protocol of their own; without them any reader of the last years will do.
fn protocol(schema: &Schema) -> Result<Protocol> {
    let json = if needs_wall_clock(schema) {
        let features = ["timestampNtz"];
        json!({ "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features })
    } else {
        json!({ "minReaderVersion": 1, "minWriterVersion": 2 })
    };
    serde_json::from_value(json).external("a Delta protocol can't be described")
}

/// With a feature listed, Spark opens no table whose columns may not be null unless `invariants` is listed too, and delta-rs
/// writes none that lists it. The contract is kept by whoever makes the rows, not by the log.
fn all_nullable(schema: &Schema) -> Schema {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone())
}

fn needs_wall_clock(schema: &Schema) -> bool {
    use arrow::datatypes::DataType;
    fn inside(data_type: &DataType) -> bool {
        match data_type {
            DataType::Timestamp(_, None) => true,
            DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => inside(item.data_type()),
            DataType::Struct(fields) => fields.iter().any(|field| inside(field.data_type())),
            _ => false,
        }
    }
    schema.fields().iter().any(|field| inside(field.data_type()))
}

fn described(metadata: &Metadata, schema: &StructType, partition_by: &[String]) -> Result<Metadata> {
    let text = serde_json::to_string(schema).external("the columns can't be written as JSON")?;
    changed(metadata, |json| {
        json["schemaString"] = text.into();
        json["partitionColumns"] = partition_by.into();
    })
}

fn changed(metadata: &Metadata, change: impl FnOnce(&mut Value)) -> Result<Metadata> {
    let mut json = serde_json::to_value(metadata).external("a Delta table can't be described")?;
    change(&mut json);
    serde_json::from_value(json).external("a Delta table can't be described")
}

/// The latest version of a table; none if it isn't there.
///
/// # Errors
/// External: a log that can't be read.
pub async fn version_of(warehouse: &Warehouse, table: &str) -> Result<Option<i64>> {
    let log = log_store(warehouse, table)?;
    match load(&log, table).await? {
        Some(state) => version_number(state.version()).map(Some),
        None => Ok(None),
    }
}

/// Where a table's log stands: its latest version, and the commit of `writer` that this holds; none if there is no table.
///
/// # Errors
/// External: a log that can't be read.
pub async fn position(warehouse: &Warehouse, writer: &str, table: &str) -> Result<Option<(i64, Option<u64>)>> {
    let log = log_store(warehouse, table)?;
    let Some(state) = load(&log, table).await? else { return Ok(None) };
    let n = transaction(&log, &state, &app_id(writer, table)).await?.and_then(|n| u64::try_from(n).ok());
    Ok(Some((version_number(state.version())?, n)))
}

/// The files of a table at a moment, and the version that this is.
///
/// # Errors
/// External: no such table, a moment before its first version, a version that isn't there, or whose log or files are gone.
/// Never the files of another version.
pub async fn files_at(warehouse: &Warehouse, table: &str, at: At) -> Result<(TableFiles, i64)> {
    let log = log_store(warehouse, table)?;
    let latest = load(&log, table).await?.ok_or_else(|| no_table(warehouse, table))?;
    let newest = version_number(latest.version())?;
    let version = match at {
        At::Latest => newest,
        At::Version(version) => version,
        At::TimestampUs(us) => version_at(&log, table, us).await?,
    };
    if version < 0 || version > newest {
        return Err(Error::external(format!("there is no version {version} of {table}")).with("latest version", newest));
    }
    if version == newest {
        return Ok((table_files(&latest)?, newest));
    }
    let gone = || {
        Error::external(format!("version {version} of {table} is no longer kept"))
            .with("kept for", limits::DELTA_LOG_RETENTION.trim_start_matches("interval "))
    };
    let state = DeltaTableState::try_new(&log, Some(version as u64)).await.map_err(|e| gone().caused_by(e))?;
    let files = table_files(&state)?;
    let present: HashSet<String> = latest.log_data().iter().map(|view| view.path().into_owned()).collect();
    let mut checks = Vec::new();
    for file in &files.files {
        if !present.contains(&file.path) {
            let path = warehouse.path(&format!("{table}/{}", file.path));
            checks.push(async move { warehouse.store.head(&path).await.map(drop) });
        }
    }
    let checked: std::result::Result<(), _> =
        futures::stream::iter(checks).buffer_unordered(limits::CONCURRENT_REQUESTS).try_collect().await;
    checked.map_err(|e| gone().caused_by(e))?;
    Ok((files, version))
}

fn no_table(warehouse: &Warehouse, table: &str) -> Error {
    Error::external(format!("there is no table {table} yet")).with("folder", warehouse.shown(table))
}

fn table_files(state: &DeltaTableState) -> Result<TableFiles> {
    let partition_by = state.metadata().partition_columns().to_vec();
    let log_data = state.log_data();
    let files = log_data.iter().map(|view| {
        let values = view.partition_values_map();
        DataFile {
            path: view.path().into_owned(),
            size: u64::try_from(view.size()).unwrap_or_default(),
            rows: view.num_records().map_or(0, |rows| rows as u64),
            partition_values: partition_by.iter().map(|name| values.get(name).cloned().flatten()).collect(),
            stats: view.stats(),
        }
    });
    let mut files: Vec<DataFile> = files.collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(TableFiles { schema: types::from_delta(&state.schema())?, partition_by, files })
}

/// The versions of a table whose log is kept, newest first, at most `limit`.
///
/// # Errors
/// External: no such table, or a log that can't be read.
pub async fn history(warehouse: &Warehouse, table: &str, limit: usize) -> Result<Vec<VersionInfo>> {
    let log = log_store(warehouse, table)?;
    let versions = log_versions(&log, table).await?;
    if versions.is_empty() {
        return Err(no_table(warehouse, table));
    }
    let newest = versions.into_iter().rev().take(limit);
    futures::stream::iter(newest.map(|version| version_info(&log, table, version)))
        .buffered(limits::CONCURRENT_REQUESTS)
        .try_collect()
        .await
}

/// The last version committed at or before `us`. Versions follow each other in time, so half of them go at each look.
async fn version_at(log: &LogStoreRef, table: &str, us: i64) -> Result<i64> {
    let versions = log_versions(log, table).await?;
    let (mut low, mut high) = (0, versions.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let Some(version) = versions.get(middle) else { break };
        if version_info(log, table, *version).await?.committed_at_us <= us {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    match low.checked_sub(1).and_then(|i| versions.get(i)) {
        Some(version) => version_number(*version),
        None => {
            let first = match versions.first() {
                Some(version) => version_info(log, table, *version).await?,
                None => return Err(Error::external(format!("there is no table {table} yet"))),
            };
            let at = chrono::DateTime::from_timestamp_micros(first.committed_at_us).unwrap_or_default();
            Err(Error::external(format!("{table} has no version of that time"))
                .with("first kept version", first.version)
                .with("committed at", at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)))
        }
    }
}

/// Versions whose log file is there, in order, without a gap before the newest.
async fn log_versions(log: &LogStoreRef, table: &str) -> Result<Vec<u64>> {
    let listed: Vec<_> = log
        .object_store(None)
        .list(Some(log.log_path()))
        .try_collect()
        .await
        .map_err(|e| Error::external("a Delta log can't be listed").with("table", table).caused_by(e))?;
    let number = |name: &str| name.strip_suffix(".json").filter(|stem| stem.len() == 20)?.parse::<u64>().ok();
    let mut versions: Vec<u64> = listed.iter().filter_map(|meta| number(meta.location.filename()?)).collect();
    versions.sort_unstable();
    Ok(versions)
}

async fn version_info(log: &LogStoreRef, table: &str, version: u64) -> Result<VersionInfo> {
    let failed =
        || Error::external("a version of a Delta log can't be read").with("table", table).with("version", version);
    let bytes = log.read_commit_entry(version).await.map_err(|e| failed().caused_by(e))?.ok_or_else(failed)?;
    let info = serde_json::Deserializer::from_slice(&bytes)
        .into_iter::<BTreeMap<String, Value>>()
        .filter_map(std::result::Result::ok)
        .find_map(|mut action| action.remove("commitInfo"))
        .unwrap_or_default();
    let written: Option<CommitInfo> = serde_json::from_value(info.clone()).ok();
    let ours = info.get(INFO_KEY).cloned().unwrap_or_default();
    let committed_at_us = ours.get(COMMITTED_AT).and_then(Value::as_i64);
    let stamped = written.and_then(|info| info.timestamp).map(|ms| ms.saturating_mul(1000));
    Ok(VersionInfo {
        version: version_number(version)?,
        committed_at_us: committed_at_us.or(stamped).unwrap_or_default(),
        info: ours,
    })
}

fn version_number(version: u64) -> Result<i64> {
    i64::try_from(version).external("a Delta version is out of range")
}

pub(super) async fn load(log: &LogStoreRef, table: &str) -> Result<Option<DeltaTableState>> {
    let failed = |e: DeltaTableError| Error::external("a Delta log can't be read").with("table", table).caused_by(e);
    if !log.is_delta_table_location().await.map_err(failed)? {
        return Ok(None);
    }
    DeltaTableState::try_new(log, None).await.map(Some).map_err(failed)
}

async fn transaction(log: &LogStoreRef, state: &DeltaTableState, app_id: &str) -> Result<Option<i64>> {
    state.transaction_version(log, app_id).await.external("a Delta log's transactions can't be read")
}

/// The log of a table, over the warehouse's own store: so that local log files are durable, and one credential serves all.
///
/// The store is rooted at the table, and so is the URL: no odd name of a folder above (`%` and the like) gets into one.
pub(super) fn log_store(warehouse: &Warehouse, table: &str) -> Result<LogStoreRef> {
    let location = if warehouse.is_local { "file:///" } else { &warehouse.url };
    let mut location = Url::parse(location).external("the warehouse's URL can't be used")?;
    location.set_path("/");
    let rooted = Arc::new(PrefixStore::new(Arc::clone(&warehouse.store), warehouse.path(table)));
    Ok(default_logstore(rooted.clone(), rooted, &location, &StorageConfig::default()))
}

/// Whether a version beyond `version` is in the log: cheap, for readers that watch.
///
/// # Errors
/// External: a log that can't be listed.
pub async fn is_newer(warehouse: &Warehouse, table: &str, version: i64) -> Result<bool> {
    let log = log_store(warehouse, table)?;
    let from = u64::try_from(version).external("a Delta version is out of range")?;
    let latest = get_latest_version(&log, from)
        .await
        .map_err(|e| Error::external("a Delta log can't be listed").with("table", table).caused_by(e))?;
    Ok(latest > from)
}
