//! What a run reads of a relation, and how it differs from what an earlier run read. Knows positions and files, no rows.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use futures::{StreamExt, TryStreamExt};

use super::project::OpenProject;
use crate::connect::Position;
use crate::engine::maintain::{Extent, Relation};
use crate::error::{Error, Result};
use crate::limits;
use crate::run::commit::{CommitChain, TableEntry};
use crate::table::{BOOKKEEPING, DataFile, TableFiles, Warehouse, parquet_table};

/// A version of a relation by its files.
#[derive(Clone, Debug)]
pub(in crate::run) enum Read {
    /// A source, as of a position.
    Source(Position),
    /// A table.
    Table(TableFiles),
}

impl Read {
    /// Rows in it.
    pub(in crate::run) fn rows(&self) -> u64 {
        match self {
            Self::Source(position) => position.files.iter().map(|file| file.rows).sum(),
            Self::Table(files) => files.files.iter().map(|file| file.rows).sum(),
        }
    }
}

impl Read {
    /// Whether some of its rows aren't kept any more.
    pub(in crate::run) fn lacks_rows(&self) -> bool {
        matches!(self, Self::Source(position) if position.lacks_rows())
    }
}

/// A relation before and after, and how much of it changed.
pub(in crate::run) struct Difference {
    pub(in crate::run) relation: Relation,
    /// Rows in all.
    pub(in crate::run) rows: u64,
}

/// Changes exactly when a table's rows may.
pub(in crate::run) fn table_digest(pipeline: &str, changed_in: u64) -> String {
    format!("{pipeline}@{changed_in}")
}

/// Folder of a source's landed rows in the warehouse.
pub(in crate::run) fn landed_folder(pipeline: &str, source: &str) -> String {
    format!("{BOOKKEEPING}/{pipeline}/landed/{source}")
}

/// Reads relations as they were at commits.
pub(in crate::run) struct Versions<'a> {
    /// The project.
    pub(in crate::run) open: &'a OpenProject,
    /// Its warehouse.
    pub(in crate::run) warehouse: &'a Warehouse,
}

impl Versions<'_> {
    /// What `entry`'s model last read of the relation; none where that isn't kept any more.
    pub(in crate::run) async fn read_of(&self, name: &str, entry: &TableEntry) -> Result<Option<Read>> {
        let owners = self.open.pipelines_by_relation();
        let (Some(owner), Some(n)) = (owners.get(name), entry.inputs_at.get(name)) else { return Ok(None) };
        let digest = entry.inputs.get(name);
        let chain = CommitChain::open(self.warehouse, owner);
        let Some(record) = chain.find(*n).await? else { return Ok(None) };
        if self.open.source(name).is_some() {
            let Some(json) = record.sources.get(name) else { return Ok(None) };
            let position = Position::from_json(Some(json))?;
            return Ok((digest == Some(&position.digest())).then_some(Read::Source(position)));
        }
        let Some(entry) = record.tables.get(name) else { return Ok(None) };
        // The relation may have been another pipeline's, whose commit of that number was another.
        if digest != Some(&table_digest(owner, entry.changed_in)) {
            return Ok(None);
        }
        if entry.files.is_none() && chain.find(entry.changed_in).await?.is_none() {
            return Ok(None);
        }
        chain.table_files(name, entry).await.map(Read::Table).map(Some)
    }

    /// What `new` lacks of `old`; none where that can't be read any more.
    pub(in crate::run) async fn went(&self, name: &str, old: &Read, new: &Read) -> Result<Option<Read>> {
        match (old, new) {
            (Read::Source(old), Read::Source(new)) => {
                if old.contract != new.contract {
                    return Ok(None);
                }
                let went = old.beyond(new);
                // Rows that were read in place are gone with their file.
                let is_landed = went.files.iter().all(|file| file.landed.is_some());
                Ok((is_landed && self.are_there(name, &went).await?).then_some(Read::Source(went)))
            }
            (Read::Table(old), Read::Table(new)) => {
                if old.schema != new.schema || old.partition_by != new.partition_by {
                    return Ok(None);
                }
                let went = rows_beyond(old, new);
                let paths = went.files.iter().map(|file| format!("{name}/{}", file.path));
                Ok(self.all_there(paths).await?.then_some(Read::Table(went)))
            }
            _ => Ok(None),
        }
    }

    /// How `new`, which `provider` reads, differs from `old`; none where rows that went can't be read any more.
    pub(in crate::run) async fn difference(
        &self,
        name: &str,
        old: &Read,
        new: &Read,
        provider: &Arc<dyn TableProvider>,
    ) -> Result<Option<Difference>> {
        let Some(removed) = self.went(name, old, new).await? else { return Ok(None) };
        let added = match (old, new) {
            (Read::Source(old), Read::Source(new)) => Read::Source(new.beyond(old)),
            (Read::Table(old), Read::Table(new)) => Read::Table(rows_beyond(new, old)),
            _ => return Ok(None),
        };
        let side = |read: &Read| -> Result<Vec<Arc<dyn TableProvider>>> {
            Ok(if read.rows() == 0 { vec![] } else { vec![self.provider(name, read)?] })
        };
        let changed_rows = added.rows() + removed.rows();
        let relation = Relation {
            old: if changed_rows == 0 { Arc::clone(provider).into() } else { self.provider(name, old)?.into() },
            new: Arc::clone(provider).into(),
            added: side(&added)?,
            removed: side(&removed)?,
            arranged: None,
            net: None,
            extent: Extent { before: old.rows(), changed: changed_rows },
        };
        Ok(Some(Difference { relation, rows: new.rows() }))
    }

    /// The rows of a version.
    pub(in crate::run) fn provider(&self, name: &str, read: &Read) -> Result<Arc<dyn TableProvider>> {
        match read {
            Read::Table(files) => parquet_table(self.warehouse, name, files.clone(), &self.open.project.timezone.value),
            Read::Source(position) => {
                let source = self
                    .open
                    .source(name)
                    .ok_or_else(|| Error::internal("a source that was read isn't planned").with("source", name))?;
                let folder = landed_folder(&source.pipeline, name);
                self.open.connector(name)?.relation(&source.schema, position, self.warehouse, &folder)
            }
        }
    }

    async fn are_there(&self, name: &str, position: &Position) -> Result<bool> {
        let Some(source) = self.open.source(name) else { return Ok(false) };
        let folder = landed_folder(&source.pipeline, name);
        let landed = position.files.iter().flat_map(|file| file.landed.iter().flatten());
        self.all_there(landed.map(|file| format!("{folder}/{}", file.path))).await
    }

    /// Whether a version of a relation can still be read: files that nothing names any longer go one day.
    pub(in crate::run) async fn is_kept(&self, name: &str, read: &Read) -> Result<bool> {
        match read {
            // Where files were read in place, the user may have replaced them.
            Read::Source(position) => Ok(!position.lacks_rows()
                && self.are_there(name, position).await?
                && self.open.connector(name)?.verify_pins(position).await.is_ok()),
            Read::Table(files) => self.all_there(files.files.iter().map(|file| format!("{name}/{}", file.path))).await,
        }
    }

    async fn all_there(&self, paths: impl Iterator<Item = String>) -> Result<bool> {
        let sizes = paths.map(|path| async move { self.warehouse.size(&path).await });
        let sizes = futures::stream::iter(sizes.collect::<Vec<_>>()).buffer_unordered(limits::CONCURRENT_REQUESTS);
        sizes.try_all(|size| std::future::ready(size.is_some())).await
    }
}

/// Data files of `one` that `other` hasn't.
pub(in crate::run) fn rows_beyond(one: &TableFiles, other: &TableFiles) -> TableFiles {
    let known: HashSet<&str> = other.files.iter().map(|file| file.path.as_str()).collect();
    let files: Vec<DataFile> = one.files.iter().filter(|file| !known.contains(file.path.as_str())).cloned().collect();
    TableFiles { files, ..one.clone() }
}
