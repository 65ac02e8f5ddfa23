//! One pipeline of a refresh: recover, land, compute, commit, follow.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Instant;

use super::draft::Draft;
use super::source::take_ready;
use super::{Publishing, Refresh};
use crate::connect::FileEntry;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::run::commit::{CommitChain, CommitRecord, state_folder};
use crate::run::durable;
use crate::run::follow::{self, Which};
use crate::run::lease::Lease;
use crate::run::version::landed_folder;
use crate::run::{commit, failpoint, schedule, sinks};
use crate::table::garbage::{self, MinAge};
use crate::table::{Warehouse, delta};

impl<'a> Refresh<'a> {
    /// Brings the selected models of `pipeline` up to date and publishes them in one commit.
    pub(super) async fn pipeline(&mut self, pipeline: &str, lease: &Lease) -> Result<()> {
        let chain = CommitChain::open(&self.warehouse, pipeline);
        let base = chain.latest().await?.map(|record| self.open.own_tables(record));
        let project = self.open.project.name.value.clone();
        let mut versions = BTreeMap::new();
        if let (Some(record), Publishing::Now) = (&base, self.publishing) {
            // A run that died between its record and its tables is finished first.
            versions = follow::catch_up(&self.warehouse, &project, &chain, record, Which::All).await?;
        }
        let mut draft = Draft::new(base.as_deref(), pipeline, lease.writer(), &self.run, self.options.now_us);
        if let Some(record) = &base {
            let deleted = match self.publishing {
                Publishing::Now => {
                    record.tables.keys().filter(|table| !versions.contains_key(*table)).cloned().collect()
                }
                Publishing::Later if self.is_recorded => follow::deleted(&self.warehouse, &chain, record).await?,
                Publishing::Later => BTreeSet::new(),
            };
            self.forget(deleted, &mut draft);
        }
        let begun = Instant::now();
        let open = self.open;
        // In dependency order, as they were planned.
        let planned = open.plan.models.iter().filter(|model| model.pipeline == pipeline);
        let models: Vec<_> = planned.filter(|model| self.due.contains(&model.name)).collect();
        let mut sources = self.sources_to_land(pipeline);
        let (mut taken, mut landed, mut outcomes) = (Vec::new(), begun.elapsed(), Vec::new());
        for at in 0..=models.len() {
            // A source whose rules look into models comes after these, and so does what reads it.
            let ready = take_ready(&mut sources, |name| models[at..].iter().any(|model| model.name == name));
            taken.extend(self.land_sources(ready, &chain, &mut draft).await?);
            if at == 0 {
                landed = begun.elapsed();
            }
            if let Some(model) = models.get(at) {
                outcomes.push(self.model(model, &chain, &mut draft).await);
            }
        }
        self.shared.clear();
        self.let_go(pipeline, &mut draft).await?;
        let computed = begun.elapsed();
        let has_failed = outcomes.iter().any(|outcome| outcome.status == "failed");
        if (draft.is_changed || has_failed) && lease.is_lost() {
            // Who came after has taken away what this run had staged, so that its failures say nothing either.
            return Err(lost(pipeline));
        }
        let n = if draft.is_changed { Some(draft.record.n) } else { base.as_ref().map(|record| record.n) };
        if draft.is_changed {
            versions.extend(self.publish(&chain, draft.record, lease).await?);
        }
        tracing::debug!(pipeline, ?landed, ?computed, committed = ?begun.elapsed(), "times since the beginning");
        if let Some(n) = n {
            self.settled_in(pipeline, n);
        }
        if self.publishing == Publishing::Now {
            self.publish_sinks(&chain).await?;
        }
        for mut outcome in outcomes {
            outcome.version = match (versions.get(&outcome.model), self.publishing) {
                (Some(version), _) => Some(*version),
                (None, Publishing::Now) => delta::version_of(&self.warehouse, &outcome.model).await?,
                (None, Publishing::Later) => None,
            };
            self.observer.finished(&outcome);
            self.models.push(outcome);
        }
        for (source, position) in taken {
            self.open.connector(&source)?.after_commit(&position).await?;
        }
        Ok(())
    }

    /// Takes tables that somebody deleted out of the draft, so that their models are built anew.
    fn forget(&mut self, deleted: BTreeSet<String>, draft: &mut Draft) {
        for table in deleted {
            match draft.forget(&table) {
                Some(model) => drop(self.deleted.insert(model)),
                None => self
                    .observer
                    .warned(&format!("the files of {table} were deleted: --full-refresh reads its source again")),
            }
        }
    }

    /// Brings the pipeline's sinks up to its last commit. One that fails doesn't hold the others.
    async fn publish_sinks(&mut self, chain: &CommitChain) -> Result<()> {
        let open = self.open;
        sinks::forget_others(open, &self.warehouse, chain.pipeline()).await?;
        if open.sinks_of(chain.pipeline()).next().is_none() {
            return Ok(());
        }
        let Some(record) = chain.latest().await? else { return Ok(()) };
        for (sink, error) in sinks::follow_all(open, &self.warehouse, chain, &record).await {
            if error.kind() == ErrorKind::Lease {
                return Err(error);
            }
            self.exit_code = self.exit_code.max(3);
            self.observer.failed(&sink.model, &error);
        }
        Ok(())
    }

    /// Puts the record and brings the tables up to it; the versions of the tables that changed.
    async fn publish(
        &self,
        chain: &CommitChain,
        mut record: CommitRecord,
        lease: &Lease,
    ) -> Result<BTreeMap<String, i64>> {
        self.observer.working(&format!("publishing {}", record.pipeline));
        record.committed_at_us = schedule::wall_clock_us();
        failpoint::hit("after_stage");
        let begun = Instant::now();
        let put = async {
            match self.durable {
                Some(durable) => durable.put(chain, &record).await,
                None => durable::put(&self.warehouse, chain, &record).await,
            }
        };
        put.await.map_err(|error| match error.kind() {
            // Staged files are gone because another's commit cleaned them away.
            ErrorKind::External if lease.is_lost() => lost(&record.pipeline).caused_by(error),
            _ => error,
        })?;
        self.observer.committed(&record.pipeline, begun.elapsed().as_secs_f64());
        if self.publishing == Publishing::Later {
            return Ok(BTreeMap::new());
        }
        let (project, none) = (&self.open.project.name.value, BTreeSet::new());
        publish_tables(&self.warehouse, project, chain, &record, Which::Changed, &none, MinAge::default()).await
    }
}

/// Brings Delta tables up to a record and deletes what nothing names any longer. Gives the versions of the tables. `published`
/// are the commits that the tables were brought up to before, where steps that no table saw stand between. Files that are deleted are
/// of `min_age`.
///
/// # Errors
/// As [`follow::catch_up`].
pub(in crate::run) async fn publish_tables(
    warehouse: &Warehouse,
    project: &str,
    chain: &CommitChain,
    record: &CommitRecord,
    which: Which,
    published: &BTreeSet<u64>,
    min_age: MinAge,
) -> Result<BTreeMap<String, i64>> {
    let versions = follow::catch_up(warehouse, project, chain, record, which).await?;
    if let Err(error) = clean(warehouse, chain, record, published, min_age).await {
        // Everything is published; what can't be cleaned now is cleaned after the next commit.
        tracing::warn!(%error, "cleaning up failed");
    }
    Ok(versions)
}

/// Deletes what neither this record nor a table's log names: after one's own record was put, nobody can commit it.
async fn clean(
    warehouse: &Warehouse,
    chain: &CommitChain,
    record: &CommitRecord,
    published: &BTreeSet<u64>,
    min_age: MinAge,
) -> Result<()> {
    let needed = sinks::needed(&sinks::notes(warehouse, chain.pipeline()).await?);
    for (table, entry) in &record.tables {
        let files = chain.table_files(table, entry).await?;
        let mut keep: HashSet<String> = files.files.into_iter().map(|file| file.path).collect();
        keep.extend(sinks::needed_files(chain, table, &needed).await?);
        failpoint::hit("mid_clean");
        garbage::collect(warehouse, table, &keep, record.n, min_age).await?;
    }
    for (folder, keep) in files_of_states(record) {
        garbage::collect_folder(warehouse, &folder, &keep, record.n, min_age).await?;
    }
    let read_at = read_at(warehouse, record).await?;
    let mut positions: Vec<_> = record.sources.iter().collect();
    let mut read = Vec::new();
    for n in &read_at {
        read.extend(chain.find(*n).await?);
    }
    positions.extend(read.iter().flat_map(|record| &record.sources));
    let landed_age = MinAge { of_any: limits::READ_RETENTION, ..min_age };
    for source in record.sources.keys() {
        let mut keep = HashSet::new();
        for (_, position) in positions.iter().filter(|(of, _)| *of == source) {
            let position = crate::connect::Position::from_json(Some(position))?;
            keep.extend(position.files.iter().flat_map(FileEntry::landed_files).map(|file| file.path.clone()));
        }
        let folder = landed_folder(&record.pipeline, source);
        garbage::collect_folder(warehouse, &folder, &keep, record.n, landed_age).await?;
    }
    let mut needed: BTreeSet<u64> = needed.into_iter().map(|(_, n)| n).collect();
    chain.prune(limits::RETENTION, &needed).await?;
    if let Some(first) = published.first() {
        needed.extend(read_at);
        needed.extend(published);
        chain.thin((*first, record.n), limits::STEP_RETENTION, &needed).await?;
    }
    Ok(())
}

/// The files of states by folder, of each table's own folder, too.
fn files_of_states(record: &CommitRecord) -> HashMap<String, HashSet<String>> {
    let mut files: HashMap<String, HashSet<String>> = HashMap::new();
    for (table, entry) in &record.tables {
        files.entry(state_folder(&record.pipeline, table)).or_default();
        for state in &entry.states {
            let named = files.entry(state.folder(&record.pipeline, table)).or_default();
            named.extend(state.files().map(|file| file.path.clone()));
        }
    }
    files
}

/// Numbers of the commits that the newest records of all pipelines hang on, whichever pipelines' they are.
async fn read_at(warehouse: &Warehouse, record: &CommitRecord) -> Result<BTreeSet<u64>> {
    let mut records = Vec::new();
    for pipeline in commit::pipelines(warehouse).await? {
        records.extend(CommitChain::open(warehouse, &pipeline).latest().await?);
    }
    let records = records.iter().map(AsRef::as_ref).chain([record]);
    let entries = records.flat_map(|record: &CommitRecord| record.tables.values());
    Ok(entries.flat_map(|entry| entry.inputs_at.values().copied().chain([entry.changed_in])).collect())
}

fn lost(pipeline: &str) -> Error {
    Error::new(ErrorKind::Lease, "the lease on these tables was lost; nothing was published").with("pipeline", pipeline)
}
