//! One model of a refresh: is there anything to do, compute, check, stage.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;

use super::checks::{KEY_UNIQUE, RowChecks, TableChecks};
use super::pipeline::Draft;
use super::stage::{self, Staged};
use super::{Refresh, Relation};
use crate::engine::{self, Changes};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{self, CheckTest, PlannedModel};
use crate::run::commit::{CommitChain, TableEntry, TableKind};
use crate::run::history::{CheckOutcome, ModelOutcome};
use crate::spec::types::OnFail;
use crate::table::scan;

/// What a model reads in this run: relations by name and their digests.
struct Inputs {
    relations: HashMap<String, Arc<dyn TableProvider>>,
    digests: BTreeMap<String, String>,
}

impl Refresh<'_> {
    /// Brings one model up to date in `draft`. Its failure is an outcome, not an error.
    pub(super) async fn model(&mut self, model: &PlannedModel, chain: &CommitChain, draft: &mut Draft) -> ModelOutcome {
        let started = Instant::now();
        let mut outcome = ModelOutcome::new(&model.name);
        match self.inputs(model).await {
            Err(reason) => {
                outcome.status = "skipped".into();
                outcome.reason = reason.clone();
                self.relations.insert(model.name.clone(), Relation::Failed(reason));
            }
            Ok(inputs) => {
                if let Err(error) = self.bring_up(model, inputs, chain, draft, &mut outcome).await {
                    outcome.status = "failed".into();
                    outcome.reason = super::first_line(&error);
                    self.failed(&model.name, &error);
                }
            }
        }
        outcome.seconds = started.elapsed().as_secs_f64();
        outcome
    }

    /// Everything that the model and its checks read, or why it can't be had.
    async fn inputs(&mut self, model: &PlannedModel) -> Result<Inputs, String> {
        let mut inputs = Inputs { relations: HashMap::new(), digests: BTreeMap::new() };
        for name in model.inputs.iter().chain(&model.check_inputs) {
            match self.relation(name).await.map_err(|error| super::first_line(&error))? {
                Relation::Ready { provider, digest } => {
                    inputs.relations.insert(name.clone(), provider);
                    inputs.digests.insert(name.clone(), digest);
                }
                Relation::Failed(_) => return Err(format!("{name} failed or was skipped")),
            }
        }
        Ok(inputs)
    }

    async fn bring_up(
        &mut self,
        model: &PlannedModel,
        inputs: Inputs,
        chain: &CommitChain,
        draft: &mut Draft,
        outcome: &mut ModelOutcome,
    ) -> Result<()> {
        let old = draft.tables.get(&model.name).cloned();
        let session = self.open.session(self.options.now_us);
        if let Some(entry) = &old
            && let Some(reason) = self.unchanged(model, entry, &inputs)
        {
            outcome.status = "nothing".into();
            outcome.strategy = "none".into();
            outcome.reason = reason;
            let files = chain.table_files(entry).await?;
            let provider = scan::parquet_table(&self.warehouse, &model.name, &files, &self.open.project.timezone.value)?;
            let checked = self.whole_table_checks(model, &session, Arc::clone(&provider), &inputs, true).await?;
            self.note_checks(model, checked, outcome)?;
            self.ready(&model.name, provider, digest(draft, entry));
            return Ok(());
        }
        self.observer.working(&format!("computing {}", model.name));
        outcome.strategy = "recomputed".into();
        outcome.reason = self.why(model, old.as_ref(), &inputs);
        let staged = self.stage(model, &session, &inputs, draft.n()).await?;
        let result = self.check_and_enter(model, &session, &inputs, &staged, old.as_ref(), chain, draft, outcome).await;
        if result.is_err() {
            staged.discard(&self.warehouse).await;
        }
        result
    }

    /// Why there is nothing to do, if so.
    fn unchanged(&self, model: &PlannedModel, entry: &TableEntry, inputs: &Inputs) -> Option<String> {
        let same = entry.fingerprint == model.fingerprint
            && entry.inputs == inputs.digests
            && !self.options.full_refresh
            && (!model.reads_clock || entry.clock_us == Some(self.options.now_us));
        same.then(|| "inputs and SQL are unchanged".to_string())
    }

    /// Why the model is computed, in a sentence.
    fn why(&self, model: &PlannedModel, old: Option<&TableEntry>, inputs: &Inputs) -> String {
        let Some(entry) = old else { return "first build".into() };
        if self.options.full_refresh {
            return "full refresh".into();
        }
        if entry.fingerprint != model.fingerprint {
            return "its SQL, parameters, key or checks changed".into();
        }
        let changed: Vec<&str> = inputs
            .digests
            .iter()
            .filter(|(name, digest)| entry.inputs.get(*name) != Some(digest))
            .map(|(name, _)| name.as_str())
            .collect();
        if changed.is_empty() { "it reads the clock".into() } else { format!("{} changed", changed.join(", ")) }
    }

    /// Runs the model's plan into files that nobody sees yet, row checks on the way.
    async fn stage(&self, model: &PlannedModel, session: &SessionContext, inputs: &Inputs, n: u64) -> Result<Staged> {
        let plan = plan::bind(&model.plan, &inputs.relations)?;
        let checks = RowChecks::bind(session, &model.schema, &model.checks, &model.key, &self.run)?;
        let streams = engine::execute(session, plan).await?;
        stage::stage(&self.warehouse, &model.name, &model.schema, &model.partition_by, n, streams, checks).await
    }

    /// Checks the staged version and, unless a rule fails it or it equals the old one, enters it into the draft.
    #[expect(clippy::too_many_arguments, reason = "the parts of one decision, used nowhere else")]
    async fn check_and_enter(
        &mut self,
        model: &PlannedModel,
        session: &SessionContext,
        inputs: &Inputs,
        staged: &Staged,
        old: Option<&TableEntry>,
        chain: &CommitChain,
        draft: &mut Draft,
        outcome: &mut ModelOutcome,
    ) -> Result<()> {
        let zone = &self.open.project.timezone.value;
        let provider = scan::parquet_table(&self.warehouse, &model.name, &staged.table, zone)?;
        let mut checked = staged.checks.clone();
        checked.extend(self.whole_table_checks(model, session, Arc::clone(&provider), inputs, false).await?);
        self.note_checks(model, checked, outcome)?;

        let changes = self.enter(&model.name, TableKind::Model, model, &staged.table, chain, draft, session, &model.key, inputs).await?;
        outcome.inserted = changes.inserted;
        outcome.updated = changes.updated;
        outcome.deleted = changes.deleted;
        outcome.status = "ok".into();
        let _ = old;
        Ok(())
    }

    /// Rules over the whole table; only those that the clock can turn where `clock_only`.
    async fn whole_table_checks(
        &self,
        model: &PlannedModel,
        session: &SessionContext,
        table: Arc<dyn TableProvider>,
        inputs: &Inputs,
        clock_only: bool,
    ) -> Result<Vec<CheckOutcome>> {
        let checks = TableChecks { ctx: session, table, now_us: self.options.now_us };
        let mut outcomes = Vec::new();
        if !clock_only && !model.key.is_empty() && !model.key_is_derived {
            outcomes.push(checks.unique(KEY_UNIQUE, OnFail::Fail, &model.key).await?);
        }
        for check in &model.checks {
            let (name, on_fail) = (check.name(), check.on_fail());
            match &check.test {
                CheckTest::Freshness { column, within_us } => {
                    outcomes.push(checks.freshness(name, on_fail, column, *within_us).await?);
                }
                CheckTest::Unique(columns) if !clock_only => {
                    outcomes.push(checks.unique(name, on_fail, columns).await?);
                }
                CheckTest::Relationship { column, to_relation, to_column } if !clock_only => {
                    let target = inputs.relations.get(to_relation).cloned();
                    let target = target.ok_or_else(|| Error::internal("a related table wasn't opened"))?;
                    outcomes.push(checks.relationship(name, on_fail, column, target, to_column).await?);
                }
                _ => {}
            }
        }
        Ok(outcomes)
    }

    /// Keeps what the checks came to; the first failed one is the model's error.
    fn note_checks(&mut self, model: &PlannedModel, checked: Vec<CheckOutcome>, outcome: &mut ModelOutcome) -> Result<()> {
        let mut failed = None;
        for mut check in checked {
            check.model.clone_from(&model.name);
            match check.status.as_str() {
                "warned" => {
                    outcome.warnings += check.failing_rows;
                    self.observer.warned(&describe(&check));
                }
                "quarantined" => outcome.quarantined += check.failing_rows,
                "failed" if failed.is_none() => failed = Some(describe(&check)),
                _ => {}
            }
            self.checks.push(check);
        }
        match failed {
            None => Ok(()),
            Some(text) => Err(Error::new(ErrorKind::Check, text)
                .with("kept", "the table keeps its last version; what depends on it is skipped")),
        }
    }
}

/// `daily_sales: check revenue >= 0 failed on 3 rows, such as day=…`
fn describe(check: &CheckOutcome) -> String {
    let rows = if check.failing_rows == 1 { "row" } else { "rows" };
    let sample = check.sample.as_ref().map(|s| format!(", such as {s}")).unwrap_or_default();
    format!("{}: check `{}` failed on {} {rows}{sample}", check.model, check.check, check.failing_rows)
}
