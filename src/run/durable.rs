//! Writes the steps of continuous work through to the disk beside them, each second and before anything hangs on them: steps don't wait
//! for a disk that is busy with what others write. Knows no rows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::commit::{CommitChain, CommitRecord};
use super::lease::Lease;
use super::project::OpenProject;
use super::synced::{Mark, Marks, boot};
use super::version::landed_folder;
use crate::connect::{FileEntry, Position};
use crate::error::{Error, Result};
use crate::limits;
use crate::spec::types::{AfterTaken, ConnectorSpec, SourceSpec};
use crate::table::{DataFile, Warehouse};

/// Commits of all pipelines of a project, as far as they are sure.
pub(in crate::run) struct Durable {
    warehouse: Warehouse,
    /// Pipelines whose commits are put before they are sure, and who puts them.
    deferring: BTreeMap<String, String>,
    noted: Mutex<Vec<Noted>>,
    /// The last commit of each pipeline that is.
    sure: Mutex<BTreeMap<String, u64>>,
    /// Held by who syncs, one at a time: whether that failed once. The system tells of a write that failed but one of those who ask.
    has_failed: tokio::sync::Mutex<bool>,
}

/// A commit that was put, in the order of putting.
struct Noted {
    pipeline: String,
    n: u64,
    /// What it is made of.
    files: Vec<String>,
}

impl Durable {
    /// Makes sure of what is there, by who holds the leases.
    ///
    /// # Errors
    /// External: the store.
    pub(in crate::run) async fn begin(
        open: &OpenProject,
        warehouse: &Warehouse,
        leases: &BTreeMap<String, Lease>,
    ) -> Result<Self> {
        let (mut deferring, mut sure) = (BTreeMap::new(), BTreeMap::new());
        for pipeline in &open.project.pipelines {
            let name = &pipeline.name.value;
            settle(warehouse, name, true).await?;
            let last = CommitChain::open(warehouse, name).latest_n().await?;
            let may_defer = warehouse.is_local && !pipeline.sources.iter().any(takes_away);
            if let (Some(boot), Some(lease), true) = (boot(), leases.get(name), may_defer) {
                let mark = Mark { n: last.unwrap_or(0), boot: boot.to_string(), writer: lease.writer().to_string() };
                Marks::of(warehouse, name).set(&mark).await?;
                deferring.insert(name.clone(), mark.writer);
            }
            sure.extend(last.map(|last| (name.clone(), last)));
        }
        let (noted, has_failed) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Self { warehouse: warehouse.clone(), deferring, noted, sure: Mutex::new(sure), has_failed })
    }

    /// Puts a record whose files are written. It is sure at once, or once they are synced.
    ///
    /// # Errors
    /// As [`CommitChain::put`].
    pub(in crate::run) async fn put(&self, chain: &CommitChain, record: &CommitRecord) -> Result<()> {
        let (pipeline, n) = (record.pipeline.clone(), record.n);
        if self.deferring.contains_key(&pipeline) {
            let files = staged_files(record)?;
            chain.put_soon(record).await?;
            held(&self.noted).push(Noted { pipeline, n, files });
            return Ok(());
        }
        put(&self.warehouse, chain, record).await?;
        held(&self.sure).insert(pipeline, n);
        Ok(())
    }

    /// Syncs all commits that were put so far.
    ///
    /// # Errors
    /// External: the disk. What was put isn't sure.
    pub(in crate::run) async fn sync(&self) -> Result<()> {
        let mut has_failed = self.has_failed.lock().await;
        if *has_failed {
            return Err(Error::external("commits couldn't be written through to the disk"));
        }
        let mut noted = std::mem::take(&mut *held(&self.noted));
        let Some(boot) = boot().filter(|_| !noted.is_empty()) else { return Ok(()) };
        let mut files = Vec::new();
        for noted in &noted {
            files.extend(noted.files.iter().cloned());
            files.push(CommitChain::open(&self.warehouse, &noted.pipeline).record_path(noted.n));
        }
        let synced = sync_those_there(&self.warehouse, files).await;
        *has_failed = synced.is_err();
        synced?;
        if let Err(error) = self.mark(&noted, boot).await {
            // A full disk has room again some time; until then nothing hangs on these.
            tracing::warn!(%error, "what is written through can't be noted");
            let mut later = held(&self.noted);
            noted.append(&mut later);
            *later = noted;
        }
        Ok(())
    }

    /// Says that these are sure, in the order of putting, since a pipeline reads those before it: where one of them is taken back, so is
    /// what it read.
    async fn mark(&self, noted: &[Noted], boot: &str) -> Result<()> {
        let mut noted = noted.iter().peekable();
        while let Some(Noted { pipeline, n, .. }) = noted.next() {
            if noted.peek().is_none_or(|next| next.pipeline != *pipeline)
                && let Some(writer) = self.deferring.get(pipeline)
            {
                let mark = Mark { n: *n, boot: boot.to_string(), writer: writer.clone() };
                Marks::of(&self.warehouse, pipeline).set(&mark).await?;
                held(&self.sure).insert(pipeline.clone(), *n);
            }
        }
        Ok(())
    }

    /// The newest record that is sure, once what was put so far is; none before the first.
    ///
    /// # Errors
    /// As [`Self::sync`] and [`CommitChain::load`].
    pub(in crate::run) async fn newest(&self, chain: &CommitChain) -> Result<Option<Arc<CommitRecord>>> {
        self.sync().await?;
        let sure = held(&self.sure).get(chain.pipeline()).copied();
        match sure {
            Some(n) => chain.load(n).await.map(Some),
            None => Ok(None),
        }
    }

    /// Syncs after commits that `commits` tells of, now and then, until there are no more.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub(in crate::run) async fn follow(&self, mut commits: watch::Receiver<u64>) -> Result<()> {
        while commits.changed().await.is_ok() {
            self.sync().await?;
            let gone = async { while commits.changed().await.is_ok() {} };
            if tokio::time::timeout(limits::SYNC_INTERVAL, gone).await.is_ok() {
                break;
            }
            commits.mark_changed();
        }
        self.sync().await
    }

    /// Syncs what is left: from here on each commit that is there is sure.
    ///
    /// # Errors
    /// External: the disk.
    pub(in crate::run) async fn end(&self) -> Result<()> {
        self.sync().await?;
        if !held(&self.noted).is_empty() {
            // Who comes next makes sure of them.
            return Ok(());
        }
        for (pipeline, writer) in &self.deferring {
            Marks::of(&self.warehouse, pipeline).clear(Some(writer)).await?;
        }
        Ok(())
    }
}

/// Makes sure of what an earlier process left, before anything is committed that hangs on it. Who holds the lease (`is_held`) takes back
/// what isn't.
///
/// # Errors
/// External: the store.
pub(in crate::run) async fn settle(warehouse: &Warehouse, pipeline: &str, is_held: bool) -> Result<()> {
    let marks = Marks::of(warehouse, pipeline);
    let Some(mark) = marks.last()? else { return Ok(()) };
    let chain = CommitChain::open(warehouse, pipeline);
    let mut beyond = chain.beyond(mark.n).await?;
    if mark.is_of_this_boot() {
        let mut files = Vec::new();
        for n in beyond.iter().copied() {
            if let Some(record) = chain.find(n).await? {
                files.extend(staged_files(&record)?);
                files.push(chain.record_path(n));
            }
        }
        sync_those_there(warehouse, files).await?;
    } else if is_held {
        let sure = chain.sure(&mark).await?;
        beyond.retain(|n| *n > sure);
        if !beyond.is_empty() {
            let commits = beyond.len();
            tracing::warn!(
                pipeline,
                from = sure,
                commits,
                "the machine went down: steps that weren't sure are taken again"
            );
        }
        chain.take_back(beyond).await?;
        return marks.clear(None).await;
    } else {
        return Ok(());
    }
    match beyond.last() {
        _ if is_held => marks.clear(None).await,
        Some(last) => marks.set(&Mark { n: *last, ..mark }).await,
        None => Ok(()),
    }
}

/// Puts a record that is sure at once: what it is made of is synced before it.
///
/// # Errors
/// As [`CommitChain::put`].
pub(in crate::run) async fn put(warehouse: &Warehouse, chain: &CommitChain, record: &CommitRecord) -> Result<()> {
    warehouse.sync_files(&staged_files(record)?).await?;
    chain.put(record).await
}

/// Syncs files but for those that were deleted since: nothing that is kept names them then.
async fn sync_those_there(warehouse: &Warehouse, files: Vec<String>) -> Result<()> {
    let mut there = Vec::with_capacity(files.len());
    for file in files {
        if warehouse.file(&file)?.exists() {
            there.push(file);
        }
    }
    warehouse.sync_files(&there).await
}

/// The files that were made for a record, of the warehouse: those that it names of earlier commits were synced by them.
///
/// # Errors
/// External: a source's position can't be read.
fn staged_files(record: &CommitRecord) -> Result<Vec<String>> {
    let prefix = format!("c{:08}", record.n);
    let is_fresh =
        |file: &&DataFile| file.path.rsplit_once('/').map_or(&*file.path, |(_, name)| name).starts_with(&prefix);
    let mut paths = Vec::new();
    for (table, entry) in &record.tables {
        let files = entry.files.iter().flatten().filter(is_fresh);
        paths.extend(files.map(|file| format!("{table}/{}", file.path)));
        for state in &entry.states {
            let folder = state.folder(&record.pipeline, table);
            paths.extend(state.files().filter(is_fresh).map(|file| format!("{folder}/{}", file.path)));
        }
    }
    for (source, position) in &record.sources {
        let position = Position::from_json(Some(position))?;
        let fresh = position.files.iter().flat_map(FileEntry::landed_files).filter(is_fresh);
        paths.extend(fresh.map(|file| format!("{}/{}", landed_folder(&record.pipeline, source), file.path)));
    }
    Ok(paths)
}

/// Whether the files of a source go once their rows are committed: then these must be sure.
fn takes_away(source: &SourceSpec) -> bool {
    matches!(&source.connector, ConnectorSpec::Files(files) if files.after != AfterTaken::Keep)
}

fn held<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
