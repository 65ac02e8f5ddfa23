//! Rules that time alone can break, looked at while nothing comes. Works on no rows.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use super::model::{Inputs, Scope, Work};
use super::{Refresh, Relation};
use crate::connect::Position;
use crate::error::Result;
use crate::plan::{self, PlannedCheck, PlannedModel, PlannedSource};
use crate::run::commit::CommitChain;
use crate::run::history::{CheckOutcome, ModelOutcome};
use crate::table::parquet_table;

impl Refresh<'_> {
    /// Looks at the rules of relations that time alone can break, at what was committed last. A model whose rule fails it has failed, and
    /// what reads it, or such a source, is skipped; one that had failed before is left alone, since time mends nothing.
    pub(super) async fn clocks_of(&mut self, relations: &BTreeSet<String>) -> Result<()> {
        let open = self.open;
        for source in open.plan.sources.iter().filter(|source| relations.contains(&source.spec.name.value)) {
            if let Err(error) = self.clocks_of_source(source).await {
                self.failed(&source.spec.name.value, &error);
            }
        }
        for model in &open.plan.models {
            if self.relations.contains_key(&model.name) {
                continue;
            }
            let started = Instant::now();
            let mut outcome =
                ModelOutcome { model: model.name.clone(), strategy: "none".into(), ..ModelOutcome::default() };
            if let Some(failed) = self.failed_input(model) {
                outcome.status = "skipped".into();
                outcome.reason = super::model::is_skipped_for(failed);
                self.relations.insert(model.name.clone(), Relation::Failed);
            } else if relations.contains(&model.name)
                && let Err(error) = self.clocks_of_model(model, &mut outcome).await
            {
                outcome.status = "failed".into();
                outcome.reason = super::first_line(&error);
                outcome.seconds = started.elapsed().as_secs_f64();
                self.failed(&model.name, &error);
            } else {
                continue;
            }
            self.observer.finished(&outcome);
            self.models.push(outcome);
        }
        Ok(())
    }

    /// What the model reads of that failed or was skipped in this refresh, if anything did.
    fn failed_input<'m>(&self, model: &'m PlannedModel) -> Option<&'m str> {
        let mut inputs = model.inputs.iter().chain(&model.check_inputs).map(String::as_str);
        inputs.find(|input| matches!(self.relations.get(*input), Some(Relation::Failed)))
    }

    async fn clocks_of_source(&mut self, source: &PlannedSource) -> Result<()> {
        let name = source.spec.name.value.as_str();
        let chain = CommitChain::open(&self.warehouse, &source.pipeline);
        let Some(Relation::Ready { provider, .. }) = self.relation(name, &chain).await? else { return Ok(()) };
        let table = plan::source_relation(source, provider)?;
        self.check_source(source, &Position::default(), table, &chain, Scope::Clock).await
    }

    async fn clocks_of_model(&mut self, model: &PlannedModel, outcome: &mut ModelOutcome) -> Result<()> {
        let chain = CommitChain::open(&self.warehouse, &model.pipeline);
        let Some(record) = chain.latest().await? else { return Ok(()) };
        let Some(entry) = record.tables.get(&model.name) else { return Ok(()) };
        let files = chain.table_files(&model.name, entry).await?;
        let table = parquet_table(&self.warehouse, &model.name, files, self.zone())?;
        let inputs = Inputs { relations: HashMap::new(), digests: Default::default(), reads: HashMap::new() };
        let work = Work { model, inputs, session: self.session.clone(), chain: &chain };
        let checked = self.table_checks(&work, table, Scope::Clock).await?;
        self.note_checks(model, checked, outcome)
    }

    /// Notes what a rule of a relation came to, if time alone can break it; whether it was told already that it has.
    pub(super) fn note_clock(&mut self, rules: &[PlannedCheck], came_to: &CheckOutcome) -> bool {
        if !rules.iter().any(|rule| rule.name() == came_to.check && rule.hangs_on_the_clock()) {
            return false;
        }
        let rule = (came_to.model.clone(), came_to.check.clone());
        let is_told = self.stale.contains(&rule);
        self.clocks.insert(rule, came_to.status == "failed");
        is_told
    }
}
