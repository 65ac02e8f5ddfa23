//! Brings Delta tables up to commit records. Repeating and racing are harmless: each table knows the commit it is at.
//!
//! Knows no model and no source: a record's tables and their files are all it needs.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt};
use serde_json::json;

use super::commit::{CommitChain, CommitRecord, TableEntry};
use super::failpoint;
use crate::error::Result;
use crate::limits;
use crate::table::{Warehouse, delta};

/// Which tables of a record are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that this very commit changed: right after putting the record.
    Changed,
    /// All: at the start of a run, since a process may have died between a record and its tables.
    All,
}

/// Brings tables up to `record`, several at a time, and returns the Delta version of each that was looked at and isn't
/// [deleted].
///
/// # Errors
/// External: a table that can't be written. Others are brought up to it all the same as far as they got; the record stands,
/// and the next call goes on.
pub async fn catch_up(
    warehouse: &Warehouse,
    project: &str,
    chain: &CommitChain,
    record: &CommitRecord,
    which: Which,
) -> Result<BTreeMap<String, i64>> {
    let wanted = record.tables.iter().filter(|(_, entry)| which == Which::All || entry.changed_in == record.n);
    let work = wanted.map(|(table, entry)| async move {
        let version = follow(warehouse, project, chain, record, which, table, entry).await?;
        Ok(version.map(|version| (table.clone(), version)))
    });
    // All are tried before an error is told: one table that can't be written must not hold back the others.
    let done: Vec<Result<Option<(String, i64)>>> =
        futures::stream::iter(work.collect::<Vec<_>>()).buffer_unordered(limits::FOLLOWED_TABLES).collect().await;
    done.into_iter().filter_map(Result::transpose).collect()
}

/// Tables of `record` that somebody deleted: neither a Delta log nor all their files are there.
///
/// # Errors
/// External: the store.
pub async fn deleted(warehouse: &Warehouse, chain: &CommitChain, record: &CommitRecord) -> Result<BTreeSet<String>> {
    let work = record.tables.iter().map(|(table, entry)| async move {
        let has_log = warehouse.has_any(&format!("{table}/{}", delta::LOG_FOLDER)).await?;
        let is_deleted = !has_log && lacks_files(warehouse, chain, table, entry).await?;
        Ok(is_deleted.then(|| table.clone()))
    });
    let found = futures::stream::iter(work.collect::<Vec<_>>()).buffer_unordered(limits::FOLLOWED_TABLES);
    found.try_filter_map(|table| async { Ok(table) }).try_collect().await
}

async fn lacks_files(warehouse: &Warehouse, chain: &CommitChain, table: &str, entry: &TableEntry) -> Result<bool> {
    for file in chain.table_files(table, entry).await?.files {
        if warehouse.size(&format!("{table}/{}", file.path)).await?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn follow(
    warehouse: &Warehouse,
    project: &str,
    chain: &CommitChain,
    record: &CommitRecord,
    which: Which,
    table: &str,
    entry: &TableEntry,
) -> Result<Option<i64>> {
    let writer = &record.log_writer(project);
    if which == Which::All {
        match delta::position(warehouse, writer, table).await? {
            Some((version, Some(n))) if n >= entry.changed_in => return Ok(Some(version)),
            None if lacks_files(warehouse, chain, table, entry).await? => return Ok(None),
            _ => {}
        }
    }
    let (run, committed_at_us) = chain.last_change(record, entry).await?;
    let files = chain.table_files(table, entry).await?;
    let info = json!({ "run": run });
    let target = delta::Target { writer, n: entry.changed_in, committed_at_us, files: &files, info: &info };
    failpoint::hit("before_delta");
    let version = delta::apply(warehouse, table, target).await?;
    failpoint::hit("after_delta");
    Ok(Some(version))
}
