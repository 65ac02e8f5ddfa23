//! Takes away files that nothing names any longer, so that a disk doesn't fill for ever. Knows no commit record.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use futures::TryStreamExt;

use super::{Warehouse, delta};
use crate::error::{Error, Result, ResultExt};
use crate::limits;

/// What names of files have after their commit that were made beside steps: a later commit may still name them.
pub const BESIDE: &str = "beside";

/// How old files must be that are taken away.
#[derive(Debug, Clone, Copy, Default)]
pub struct MinAge {
    /// Any of them.
    pub of_any: Duration,
    /// Those that were made beside steps.
    pub beside: Duration,
}

/// What was taken away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Deletes the data files of `table` that are neither in `keep` (paths relative to the table's folder), nor active in its Delta
/// log, nor removed from it less than [`limits::RETENTION`] ago, that weren't written for a commit after `commit`, and that
/// are `min_age` old.
///
/// `keep` must have the files of the record `commit`. With an age of zero call it only after a record of one's own was put: a
/// paused writer's files for that commit then can't be committed any more. Who was paused here itself may come late: files
/// of later commits aren't its to judge. Without a Delta log nothing is known of other files, so that only age and `keep`
/// count.
///
/// # Errors
/// External: the store, or a log that can't be read. Nothing that is named was deleted.
pub async fn collect(
    warehouse: &Warehouse,
    table: &str,
    keep: &HashSet<String>,
    commit: u64,
    min_age: MinAge,
) -> Result<Collected> {
    let log = delta::log_store(warehouse, table)?;
    let mut named = keep.clone();
    if let Some(state) = delta::load(&log, table).await? {
        named.extend(state.log_data().iter().map(|view| view.path().into_owned()));
        let cutoff = (Utc::now() - age(limits::RETENTION)?).timestamp_millis();
        let removed: Vec<_> = state.all_tombstones(&log).try_collect().await.map_err(|e| {
            Error::external("a Delta log's removed files can't be listed").with("table", table).caused_by(e)
        })?;
        let recent = removed.iter().filter(|gone| gone.deletion_timestamp().is_none_or(|at| at >= cutoff));
        named.extend(recent.map(|gone| gone.path().into_owned()));
    }
    collect_folder(warehouse, table, &named, commit, min_age).await
}

/// Deletes the Parquet files below a folder of the warehouse that are not in `keep` (paths relative to the folder), that
/// weren't written for a commit after `commit`, and that are `min_age` old.
///
/// # Errors
/// External: the store.
pub async fn collect_folder(
    warehouse: &Warehouse,
    folder: &str,
    keep: &HashSet<String>,
    commit: u64,
    min_age: MinAge,
) -> Result<Collected> {
    let cutoff = Utc::now() - age(min_age.of_any)?;
    let beside_cutoff = cutoff.min(Utc::now() - age(min_age.beside)?);
    let root = warehouse.path(folder);
    let mut collected = Collected::default();
    let mut gone = Vec::new();
    for meta in warehouse.list(folder).await? {
        let Some(below) = meta.location.prefix_match(&root) else { continue };
        let below: Vec<String> = below.map(|part| part.as_ref().to_owned()).collect();
        let is_log = below.first().is_some_and(|first| first == delta::LOG_FOLDER);
        let path = below.join("/");
        let is_later = written_for(&path).is_some_and(|n| n > commit);
        let cutoff = if is_beside(&path) { beside_cutoff } else { cutoff };
        if is_log || !path.ends_with(".parquet") || keep.contains(&path) || is_later || meta.last_modified > cutoff {
            continue;
        }
        collected.files += 1;
        collected.bytes += meta.size;
        gone.push(meta.location);
    }
    warehouse.delete(gone).await?;
    if collected.files > 0 {
        tracing::debug!(folder, files = collected.files, bytes = collected.bytes, "took away files that nothing names");
    }
    Ok(collected)
}

/// The commit that a file was written for, by its name: `c00000012-…`.
fn written_for(path: &str) -> Option<u64> {
    Some(named(path)?.0)
}

/// Whether a file was made beside steps.
fn is_beside(path: &str) -> bool {
    named(path).is_some_and(|(_, rest)| rest.split('-').next() == Some(BESIDE))
}

fn named(path: &str) -> Option<(u64, &str)> {
    let (n, rest) = path.rsplit('/').next()?.strip_prefix('c')?.split_once('-')?;
    Some((n.parse().ok()?, rest))
}

fn age(age: Duration) -> Result<TimeDelta> {
    TimeDelta::from_std(age).external("an age is out of range")
}
