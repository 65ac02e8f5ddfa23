//! One pipeline of a refresh: recover, land, compute, commit, follow.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::model::Staged;
use super::{Refresh, Relation, first_line};
use crate::error::{Error, Result};
use crate::plan::PlannedModel;
use crate::run::commit::{CommitChain, CommitRecord, TableEntry};
use crate::run::history::ModelOutcome;
use crate::run::lease::Lease;
use crate::run::{failpoint, follow, schedule};
use crate::table::{delta, scan};

/// A pipeline at work: the record that is being made, on top of the last one.
pub(super) struct Draft {
    /// The last commit; an empty one before the first.
    pub(super) base: CommitRecord,
    /// Positions after this commit.
    pub(super) sources: BTreeMap<String, serde_json::Value>,
    /// Tables after this commit; `changed_in` of a changed one is the new commit's number.
    pub(super) tables: BTreeMap<String, TableEntry>,
    /// Whether anything differs from `base`.
    pub(super) changed: bool,
}

impl Draft {
    /// The number of the commit that is being made.
    pub(super) fn n(&self) -> u64 {
        self.base.n + 1
    }

    /// Sets a table's entry.
    pub(super) fn set(&mut self, table: &str, entry: TableEntry) {
        self.tables.insert(table.to_string(), entry);
        self.changed = true;
    }
}

impl Refresh<'_> {
    /// Brings the selected models of `pipeline` up to date and publishes them in one commit.
    pub(super) async fn pipeline(&mut self, pipeline: &str, leases: &[Lease]) -> Result<()> {
        let chain = CommitChain::open(&self.warehouse, pipeline);
        let base = chain.latest().await?;
        if let Some(record) = &base {
            // A run that died between its record and its tables is finished first.
            follow::catch_up(&self.warehouse, &self.open.project.name.value, &chain, record).await?;
        }
        let base = base.unwrap_or_else(|| CommitRecord::empty(pipeline));
        let mut draft =
            Draft { sources: base.sources.clone(), tables: base.tables.clone(), changed: false, base };
        let due = self.due_models(pipeline, &draft)?;
        let taken = self.land_sources(pipeline, &due, &chain, &mut draft).await?;
        let mut outcomes = Vec::new();
        for model in due {
            outcomes.push(self.model(model, &chain, &mut draft).await?);
        }
        let versions = self.publish(pipeline, &chain, draft, leases).await?;
        for mut outcome in outcomes {
            outcome.version = match versions.get(&outcome.model) {
                Some(version) => Some(*version),
                None => delta::version(&self.warehouse, &outcome.model).await?,
            };
            self.observer.finished(&outcome);
            self.models.push(outcome);
        }
        for (source, position) in taken {
            self.open.files(&source)?.finish_taken(&position).await?;
        }
        Ok(())
    }

    /// Selected models of the pipeline, in dependency order, without those that aren't due.
    fn due_models(&self, pipeline: &str, draft: &Draft) -> Result<Vec<&PlannedModel>> {
        let zone = &self.open.project.timezone.value;
        let mut due = Vec::new();
        for model in &self.open.plan.models {
            if model.pipeline != pipeline || !self.options.models.contains(&model.name) {
                continue;
            }
            let last_us = draft.base.tables.get(&model.name).map(|entry| entry.refreshed_at_us);
            if !self.options.due || schedule::is_due(&model.refresh, last_us, self.options.now_us, zone)? {
                due.push(model);
            }
        }
        Ok(due)
    }

    /// Puts the record and brings the tables up to it; the versions of the tables that changed.
    async fn publish(
        &self,
        pipeline: &str,
        chain: &CommitChain,
        draft: Draft,
        leases: &[Lease],
    ) -> Result<BTreeMap<String, i64>> {
        if !draft.changed {
            return Ok(BTreeMap::new());
        }
        if leases.iter().any(Lease::is_lost) {
            return Err(Error::new(crate::error::ErrorKind::Lease, "the lease on these tables was lost; nothing was published")
                .with("pipeline", pipeline));
        }
        let record = CommitRecord {
            n: draft.n(),
            run: self.run.clone(),
            committed_at_us: schedule::wall_clock_us(),
            now_us: self.options.now_us,
            sources: draft.sources,
            tables: draft.tables,
            ..CommitRecord::empty(pipeline)
        };
        failpoint("before_record");
        chain.put(&record).await?;
        failpoint("after_record");
        let versions = follow::catch_up(&self.warehouse, &self.open.project.name.value, chain, &record).await?;
        crate::run::garbage::collect(&self.warehouse, chain, &record).await?;
        Ok(versions)
    }
}
