//! One model of a refresh: is there anything to do, compute, check, stage, compare, enter.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use datafusion::catalog::TableProvider;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;

use super::anew::{self, states_that_stay};
use super::checks::{KEY_UNIQUE, RowChecks, TableChecks, describe, describe_failure};
use super::draft::{Description, Draft, quarantine_of};
use super::maintain::Attempt;
use super::net::NetChange;
use super::stage::{self, Staged, Target};
use super::{Refresh, Relation};
use crate::engine::maintain::GoesOn;
use crate::engine::{self, Changes};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::maintain::Maintenance;
use crate::plan::{self, CheckTest, PlannedModel};
use crate::run::commit::{CommitChain, StateFiles, TableEntry, TableKind};
use crate::run::history::{CheckOutcome, ModelOutcome};
use crate::run::version::{Read, table_digest};
use crate::spec::types::OnFail;
use crate::table::{TableFiles, parquet_table};

/// What a model reads in this run: relations by name and their digests.
pub(super) struct Inputs {
    pub(super) relations: HashMap<String, Arc<dyn TableProvider>>,
    pub(super) digests: BTreeMap<String, String>,
    /// What was read of each, and the commit of another pipeline that holds it.
    pub(super) reads: HashMap<String, (Read, Option<u64>)>,
}

/// Which rules over a whole table are looked at.
#[derive(Clone, Copy)]
pub(super) enum Scope<'a> {
    /// All of them.
    All,
    /// Only those that the clock alone can break.
    Clock,
    /// All, where rows that came are known.
    Change(&'a Alike<'a>),
}

/// Gives a table's rows that share their values of some columns with a row that came.
type Alike<'a> = dyn Fn(&[String]) -> Result<Arc<dyn TableProvider>> + Sync + 'a;

/// One model at work.
pub(super) struct Work<'a> {
    pub(super) model: &'a PlannedModel,
    pub(super) inputs: Inputs,
    pub(super) session: SessionContext,
    pub(super) chain: &'a CommitChain,
}

impl Refresh<'_> {
    /// Brings one model up to date in `draft`. Its failure is an outcome, not an error.
    pub(super) async fn model(&mut self, model: &PlannedModel, chain: &CommitChain, draft: &mut Draft) -> ModelOutcome {
        let started = Instant::now();
        let mut outcome =
            ModelOutcome { model: model.name.clone(), strategy: "none".into(), ..ModelOutcome::default() };
        let before = draft.of_model(&model.name);
        let result = match self.inputs(model, chain).await {
            Ok(Err(reason)) => {
                outcome.status = "skipped".into();
                outcome.reason = reason;
                self.relations.insert(model.name.clone(), Relation::Failed);
                Ok(())
            }
            Ok(Ok(inputs)) => {
                let work = Work { model, inputs, session: self.session.clone(), chain };
                match self.bring_up(&work, draft, &mut outcome).await {
                    Err(error) => {
                        draft.restore(before);
                        Err(self.explained(&work, error, draft.record.tables.get(&model.name)).await)
                    }
                    done => done,
                }
            }
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            outcome.status = "failed".into();
            outcome.reason = super::first_line(&error);
            outcome.may_pass = error.kind() == ErrorKind::External;
            (outcome.inserted, outcome.updated, outcome.deleted, outcome.quarantined) = (0, 0, 0, 0);
            self.failed(&model.name, &error);
        }
        outcome.seconds = started.elapsed().as_secs_f64();
        outcome
    }

    /// Everything that the model and its checks read, or why it can't be had.
    async fn inputs(&mut self, model: &PlannedModel, chain: &CommitChain) -> Result<Result<Inputs, String>> {
        let mut inputs = Inputs { relations: HashMap::new(), digests: BTreeMap::new(), reads: HashMap::new() };
        for name in model.inputs.iter().chain(&model.check_inputs) {
            match self.relation(name, chain).await? {
                Some(Relation::Ready { provider, digest, at, read }) => {
                    inputs.relations.insert(name.clone(), provider);
                    inputs.digests.insert(name.clone(), digest);
                    inputs.reads.insert(name.clone(), (*read, at));
                }
                Some(Relation::Failed) => return Ok(Err(is_skipped_for(name))),
                None => {
                    let reason = never_built(name, model);
                    self.failed(&model.name, &Error::usage(reason.clone()));
                    return Ok(Err(reason));
                }
            }
        }
        Ok(Ok(inputs))
    }

    async fn bring_up(&mut self, work: &Work<'_>, draft: &mut Draft, outcome: &mut ModelOutcome) -> Result<()> {
        let model = work.model;
        let old = draft.record.tables.get(&model.name).cloned();
        if let Some(entry) = &old
            && self.is_unchanged(work, entry)
        {
            outcome.status = "nothing".into();
            outcome.reason = "inputs and SQL are unchanged".into();
            return self.leave(work, entry, draft, outcome).await;
        }
        self.observer.working(&format!("computing {}", model.name));
        outcome.reason = self.why(work, old.as_ref());
        let rules = RowChecks::bind(&work.session, &model.schema, &model.checks, &model.key, &self.run)?;
        let rules = Arc::new(rules);
        match (&model.maintenance, &old) {
            (None, _) => {
                outcome.strategy = "recomputed".into();
                let plan = plan::bind(&model.plan, &work.inputs.relations)?;
                self.enter_whole(work, (plan, vec![]), &rules, old.as_ref(), draft, outcome).await
            }
            (Some(maintenance), Some(entry))
                if let Some(goes_on) = anew::goes_on(model, entry, self.options.full_refresh) =>
            {
                let (before, checks) = (draft.of_model(&model.name), self.checks.len());
                let failed = match self.go_on(work, maintenance, &rules, (entry, goes_on), draft, outcome).await {
                    Err(error) => error,
                    done => return done,
                };
                let reason = self.cannot_go_on(work, maintenance, entry, &failed).await;
                let Some(reason) = reason else { return Err(failed) };
                draft.restore(before);
                self.checks.truncate(checks);
                (outcome.warnings, outcome.reason) = (0, reason);
                self.rebuild(work, maintenance, &rules, old.as_ref(), draft, outcome).await
            }
            (Some(maintenance), _) => self.rebuild(work, maintenance, &rules, old.as_ref(), draft, outcome).await,
        }
    }

    /// Brings the model from the last commit to this one, or rebuilds it where that is better.
    async fn go_on(
        &mut self,
        work: &Work<'_>,
        maintenance: &Maintenance,
        rules: &Arc<RowChecks>,
        (entry, goes_on): (&TableEntry, GoesOn),
        draft: &mut Draft,
        outcome: &mut ModelOutcome,
    ) -> Result<()> {
        outcome.strategy = match goes_on {
            GoesOn::Result => "incremental".into(),
            GoesOn::States => "rebuilt".into(),
        };
        match self.advance(work, maintenance, (entry, goes_on), draft).await? {
            Attempt::Net { net, states } => {
                let change = NetChange { net, states, rules };
                if let Some(change) = self.refusing(work, change).await? {
                    return self.enter_net(work, change, entry, draft, outcome).await;
                }
                outcome.reason = "rows that a rule had refused changed".into();
            }
            Attempt::Whole { plan, states } => {
                if goes_on == GoesOn::States {
                    let (stay, all) = (states_that_stay(work.model, entry).len(), states.len());
                    outcome.reason.push_str(&match all - stay {
                        0 => "; its states stay".to_owned(),
                        _ => format!("; {stay} of its {all} states stay"),
                    });
                }
                return self.enter_whole(work, (plan, states), rules, Some(entry), draft, outcome).await;
            }
            Attempt::Anew(reason) => outcome.reason = reason,
        }
        self.rebuild(work, maintenance, rules, Some(entry), draft, outcome).await
    }

    async fn rebuild(
        &mut self,
        work: &Work<'_>,
        maintenance: &Maintenance,
        rules: &Arc<RowChecks>,
        old: Option<&TableEntry>,
        draft: &mut Draft,
        outcome: &mut ModelOutcome,
    ) -> Result<()> {
        outcome.strategy = "rebuilt".into();
        let made = self.build(work, maintenance, draft, BTreeMap::new()).await?;
        self.enter_whole(work, made, rules, old, draft, outcome).await
    }

    /// Computes and enters a plan's rows with the states that they were made of.
    async fn enter_whole(
        &mut self,
        work: &Work<'_>,
        (plan, states): (LogicalPlan, Vec<StateFiles>),
        rules: &Arc<RowChecks>,
        old: Option<&TableEntry>,
        draft: &mut Draft,
        outcome: &mut ModelOutcome,
    ) -> Result<()> {
        let entered = self.compute(work, plan, rules, states.clone(), old, draft, outcome).await;
        if entered.is_err() {
            self.discard_states(work, &states, draft).await;
        }
        entered
    }

    /// Runs `plan` and enters its rows as the model's next version.
    #[expect(clippy::too_many_arguments, reason = "one step of bringing up, with all that it knows")]
    async fn compute(
        &mut self,
        work: &Work<'_>,
        plan: LogicalPlan,
        rules: &Arc<RowChecks>,
        states: Vec<StateFiles>,
        old: Option<&TableEntry>,
        draft: &mut Draft,
        outcome: &mut ModelOutcome,
    ) -> Result<()> {
        let model = work.model;
        let streams = engine::execute(&work.session, plan).await?;
        let prefix = draft.prefix();
        let target = Target {
            warehouse: &self.warehouse,
            model: &model.name,
            schema: &model.schema,
            partition_by: &model.partition_by,
            prefix: &prefix,
        };
        let mut staged = stage::stage(&target, streams, rules).await?;
        let entered = self.check_and_enter(work, rules, &mut staged, states, old, draft, outcome).await;
        if entered.is_err() {
            staged.discard(&self.warehouse).await;
        }
        entered
    }

    fn is_unchanged(&self, work: &Work<'_>, entry: &TableEntry) -> bool {
        entry.fingerprint == work.model.fingerprint
            && entry.inputs == work.inputs.digests
            && !self.options.full_refresh
            && (!work.model.reads_clock || entry.clock_us == Some(self.options.now_us))
    }

    /// Leaves a model as it is: only rules that time alone can break are looked at.
    async fn leave(
        &mut self,
        work: &Work<'_>,
        entry: &TableEntry,
        draft: &mut Draft,
        outcome: &mut ModelOutcome,
    ) -> Result<()> {
        let files = work.chain.table_files(&work.model.name, entry).await?;
        let provider = parquet_table(&self.warehouse, &work.model.name, files.clone(), self.zone())?;
        let checked = self.table_checks(work, Arc::clone(&provider), Scope::Clock).await?;
        self.note_checks(work.model, checked, outcome)?;
        let digest = table_digest(&draft.record.pipeline, entry.changed_in);
        self.ready(&work.model.name, provider, digest, None, Read::Table(files));
        // Should this commit come to be, what the model read is in it too, and older ones needn't be kept for it.
        let read_at = inputs_at(work, draft);
        if let Some(entry) = draft.record.tables.get_mut(&work.model.name) {
            entry.inputs_at = read_at;
        }
        Ok(())
    }

    /// Why the model is computed, in a sentence.
    fn why(&self, work: &Work<'_>, old: Option<&TableEntry>) -> String {
        let Some(entry) = old else {
            let was_deleted = self.deleted.contains(&work.model.name);
            return if was_deleted { "its table was deleted".into() } else { "first build".into() };
        };
        if self.options.full_refresh {
            return "full refresh".into();
        }
        if entry.fingerprint != work.model.fingerprint {
            return "its SQL, parameters, key or checks changed".into();
        }
        let digests = work.inputs.digests.iter();
        let changed: Vec<&str> = digests
            .filter(|(name, digest)| entry.inputs.get(*name) != Some(digest))
            .map(|(name, _)| name.as_str())
            .collect();
        if changed.is_empty() { "it reads the clock".into() } else { format!("{} changed", changed.join(", ")) }
    }

    #[expect(clippy::too_many_arguments, reason = "one step of bringing up, with all that it knows")]
    /// Checks the staged version; unless a rule fails it, enters it into the draft where it differs from the old one.
    async fn check_and_enter(
        &mut self,
        work: &Work<'_>,
        rules: &RowChecks,
        staged: &mut Staged,
        states: Vec<StateFiles>,
        old: Option<&TableEntry>,
        draft: &mut Draft,
        outcome: &mut ModelOutcome,
    ) -> Result<()> {
        let model = work.model;
        self.refuse_unrelated(work, staged, draft).await?;
        // Rows, not failures: one row may fail several rules.
        outcome.quarantined = staged.quarantine.files.iter().map(|file| file.rows).sum();
        let provider = parquet_table(&self.warehouse, &model.name, staged.table.clone(), self.zone())?;
        let mut checked = rules.outcomes();
        checked.extend(self.table_checks(work, provider, Scope::All).await?);
        self.note_checks(model, checked, outcome)?;
        self.verify_pins(work, draft).await?;
        let changes = self.enter(work, TableKind::Model, &model.name, &staged.table, states, old, draft).await?;
        let quarantine = quarantine_of(&model.name);
        let old_quarantine = draft.record.tables.get(&quarantine).cloned();
        let refused = &staged.quarantine;
        self.enter(work, TableKind::ModelQuarantine, &quarantine, refused, vec![], old_quarantine.as_ref(), draft)
            .await?;
        outcome.status = "ok".into();
        (outcome.inserted, outcome.updated, outcome.deleted) = (changes.inserted, changes.updated, changes.deleted);
        self.entered(work, draft).await
    }

    /// Makes the model's entered version readable for models after it.
    pub(super) async fn entered(&mut self, work: &Work<'_>, draft: &Draft) -> Result<()> {
        let name = &work.model.name;
        let entry = draft.record.tables.get(name).ok_or_else(|| Error::internal("a table wasn't entered"))?.clone();
        let files = work.chain.table_files(name, &entry).await?;
        let provider = parquet_table(&self.warehouse, name, files.clone(), self.zone())?;
        let digest = table_digest(&draft.record.pipeline, entry.changed_in);
        self.ready(name, provider, digest, None, Read::Table(files));
        Ok(())
    }

    /// Files that are read in place must be the ones that the position names, to the end.
    pub(super) async fn verify_pins(&self, work: &Work<'_>, draft: &Draft) -> Result<()> {
        for name in &work.model.inputs {
            if self.open.source(name).is_some()
                && let Some(position) = draft.record.sources.get(name)
            {
                let position = crate::connect::Position::from_json(Some(position))?;
                self.open.connector(name)?.verify_pins(&position).await?;
            }
        }
        Ok(())
    }

    /// What a table's entry says besides its files.
    pub(super) fn description<'b>(
        &self,
        work: &'b Work<'_>,
        kind: TableKind,
        states: Vec<StateFiles>,
        draft: &Draft,
    ) -> Description<'b> {
        let model = work.model;
        let named = |(state, of): (StateFiles, &String)| StateFiles { of: of.clone(), ..state };
        Description {
            kind,
            fingerprint: &model.fingerprint,
            inputs: work.inputs.digests.clone(),
            inputs_at: inputs_at(work, draft),
            states: states.into_iter().zip(&model.states).map(named).collect(),
            key: if kind == TableKind::Model { &model.key } else { &[] },
            serve: model.serve,
            clock_us: model.reads_clock.then_some(self.options.now_us),
            now_us: self.options.now_us,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one step of entering, with all that it knows")]
    /// Enters a staged version, or keeps the old files where the rows are the same.
    async fn enter(
        &self,
        work: &Work<'_>,
        kind: TableKind,
        table: &str,
        files: &TableFiles,
        states: Vec<StateFiles>,
        old: Option<&TableEntry>,
        draft: &mut Draft,
    ) -> Result<Changes> {
        let description = self.description(work, kind, states, draft);
        let key = description.key;
        let changes = self.changes(work, table, files, old, key).await?;
        let same_shape = match old {
            Some(old) => {
                let before = work.chain.table_files(table, old).await?;
                let stored = crate::table::types::table_schema(&files.schema)?;
                before.schema == stored && before.partition_by == files.partition_by
            }
            None => false,
        };
        if changes.is_empty() && same_shape {
            stage::discard(&self.warehouse, table, files).await;
            draft.keep_files(table, description);
        } else {
            draft.set_files(table, files, description)?;
        }
        Ok(changes)
    }

    /// How a staged version differs from the one before; all rows are new where there was none or it had other columns.
    async fn changes(
        &self,
        work: &Work<'_>,
        table: &str,
        files: &TableFiles,
        old: Option<&TableEntry>,
        key: &[String],
    ) -> Result<Changes> {
        let rows = files.files.iter().map(|file| file.rows).sum();
        let all_new = Changes { inserted: rows, updated: 0, deleted: 0 };
        let Some(old) = old.filter(|old| old.rows > 0) else { return Ok(all_new) };
        let before = work.chain.table_files(table, old).await?;
        if before.schema != crate::table::types::table_schema(&files.schema)? {
            return Ok(Changes { deleted: old.rows, ..all_new });
        }
        // The id of the run that refused a row doesn't make it another row.
        let columns =
            files.schema.fields().iter().map(|f| f.name().clone()).filter(|name| name != "_run").collect::<Vec<_>>();
        let rows_before = parquet_table(&self.warehouse, table, before.clone(), self.zone())?;
        let rows = parquet_table(&self.warehouse, table, files.clone(), self.zone())?;
        match engine::diff(&work.session, rows_before, rows, &columns, key).await {
            // Damaged files must not be kept, nor hold up what replaces them.
            Err(_) if self.damage(work, table, &before).await?.is_some() => {
                Ok(Changes { deleted: old.rows, ..all_new })
            }
            changes => changes,
        }
    }

    /// Moves rows without a partner to quarantine, for relationships that say so.
    async fn refuse_unrelated(&self, work: &Work<'_>, staged: &mut Staged, draft: &Draft) -> Result<()> {
        let model = work.model;
        for check in model.checks.iter().filter(|check| check.on_fail() == OnFail::Quarantine) {
            let CheckTest::Relationship { column, to_relation, to_column } = &check.test else { continue };
            let provider = parquet_table(&self.warehouse, &model.name, staged.table.clone(), self.zone())?;
            let checks = TableChecks { ctx: &work.session, table: provider, now_us: self.options.now_us };
            let target = self.related(work, to_relation, &checks.table)?;
            let split = checks.split_by_partner(column, target, to_column).await?;
            if split.unrelated.is_empty() {
                continue;
            }
            let refused = checks.quarantined(&split.unrelated, check.name(), &self.run, &staged.quarantine.schema)?;
            staged.replace(&self.warehouse, split.related, refused, &draft.prefix()).await?;
        }
        Ok(())
    }

    /// The relation that a check compares with; the model's own name stands for the version at hand.
    fn related(&self, work: &Work<'_>, name: &str, at_hand: &Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
        if name == work.model.name {
            return Ok(Arc::clone(at_hand));
        }
        let rows = work.inputs.relations.get(name).cloned();
        self.open
            .as_queried(name, rows.ok_or_else(|| Error::internal("a related table wasn't opened").with("table", name))?)
    }

    /// Rules over the whole table, as far as the scope goes.
    pub(super) async fn table_checks(
        &self,
        work: &Work<'_>,
        table: Arc<dyn TableProvider>,
        scope: Scope<'_>,
    ) -> Result<Vec<CheckOutcome>> {
        let model = work.model;
        let on = |table: Arc<dyn TableProvider>| TableChecks { ctx: &work.session, table, now_us: self.options.now_us };
        let clock_only = matches!(scope, Scope::Clock);
        // Keys can only repeat where rows came.
        let alike = |columns: &[String]| match scope {
            Scope::Change(alike) => alike(columns),
            _ => Ok(Arc::clone(&table)),
        };
        let mut outcomes = Vec::new();
        if !clock_only && !model.key.is_empty() && !model.key_is_derived {
            let repeated = on(alike(&model.key)?).unique(KEY_UNIQUE, OnFail::Fail, &model.key).await?;
            outcomes.extend((repeated.failing_rows > 0).then_some(repeated));
        }
        for check in &model.checks {
            let (name, on_fail) = (check.name(), check.on_fail());
            match &check.test {
                CheckTest::Freshness { column, within_us } => {
                    let checks = on(Arc::clone(&table));
                    outcomes.push(checks.freshness(name, on_fail, column, *within_us).await?);
                }
                CheckTest::Unique(columns) if !clock_only => {
                    outcomes.push(on(alike(columns)?).unique(name, on_fail, columns).await?)
                }
                CheckTest::Relationship { column, to_relation, to_column } if !clock_only => {
                    let checks = on(Arc::clone(&table));
                    let target = self.related(work, to_relation, &checks.table)?;
                    outcomes.push(checks.relationship(name, on_fail, column, target, to_column).await?);
                }
                _ => {}
            }
        }
        Ok(outcomes)
    }

    /// Keeps what the checks came to; the first failed one is the model's error.
    pub(super) fn note_checks(
        &mut self,
        model: &PlannedModel,
        checked: Vec<CheckOutcome>,
        outcome: &mut ModelOutcome,
    ) -> Result<()> {
        let mut failed = None;
        for mut check in checked {
            check.model.clone_from(&model.name);
            let is_told = self.note_clock(&model.checks, &check);
            if check.status == "failed" {
                match check.on_fail.as_str() {
                    "warn" => {
                        outcome.warnings += check.failing_rows;
                        if !is_told {
                            self.observer.warned(&describe(&check));
                        }
                    }
                    "quarantine" => {}
                    _ => drop(failed.get_or_insert_with(|| describe_failure(&check))),
                }
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

/// Why a model is skipped whose `input` can't be read.
pub(super) fn is_skipped_for(input: &str) -> String {
    format!("`{input}` failed or was skipped")
}

/// Why a model can't be computed that reads `input`.
pub(in crate::run) fn never_built(input: &str, model: &PlannedModel) -> String {
    format!("`{input}` has no version yet; `tidemill run +{}` builds it first", model.name)
}

/// The commit of each input's pipeline that holds what this run read of it.
fn inputs_at(work: &Work<'_>, draft: &Draft) -> BTreeMap<String, u64> {
    let at = |name: &String| {
        let (_, at) = work.inputs.reads.get(name)?;
        Some((name.clone(), at.unwrap_or(draft.record.n)))
    };
    work.model.inputs.iter().filter_map(at).collect()
}
