//! Brings Delta tables up to commit records. Repeating and racing are harmless: each table knows the commit it is at.
//!
//! Knows no model and no source: a record's tables and their files are all it needs.

use std::collections::BTreeMap;

use futures::StreamExt;
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

/// Brings tables up to `record`, several at a time, and returns the Delta version of each that was looked at.
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
        Ok((table.clone(), version))
    });
    // All are tried before an error is told: one table that can't be written must not hold back the others.
    let done: Vec<Result<(String, i64)>> =
        futures::stream::iter(work.collect::<Vec<_>>()).buffer_unordered(limits::FOLLOWED_TABLES).collect().await;
    done.into_iter().collect()
}

async fn follow(
    warehouse: &Warehouse,
    project: &str,
    chain: &CommitChain,
    record: &CommitRecord,
    which: Which,
    table: &str,
    entry: &TableEntry,
) -> Result<i64> {
    let writer = &record.log_writer(project);
    if which == Which::All
        && let Some((version, Some(n))) = delta::position(warehouse, writer, table).await?
        && n >= entry.changed_in
    {
        return Ok(version);
    }
    let (run, committed_at_us) = chain.last_change(record, entry).await?;
    let files = chain.table_files(table, entry).await?;
    let info = json!({ "run": run });
    let target = delta::Target { writer, n: entry.changed_in, committed_at_us, files: &files, info: &info };
    failpoint::hit("before_delta");
    let version = delta::apply(warehouse, table, target).await?;
    failpoint::hit("after_delta");
    Ok(version)
}
