//! Sources of a refresh: look at what is there, take it in, check it, and make it readable for models.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::catalog::TableProvider;

use super::checks::{TableChecks, describe, describe_failure, outcome};
use super::draft::{Description, Draft, quarantine_of};
use super::model::Scope;
use super::{Refresh, RefreshOptions, Relation, TableNet};
use crate::connect::quarantine_schema;
use crate::connect::{Landing, Position, under};
use crate::engine;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{self, CheckTest, PlannedSource};
use crate::run::commit::{CommitChain, TableKind};
use crate::run::failing::TakenIn;
use crate::run::history::CheckOutcome;
use crate::run::key_filters;
use crate::run::project::OpenProject;
use crate::run::version::{Read, landed_folder, table_digest};
use crate::spec::types::OnFail;
use crate::table::{TableFiles, parquet_table};

/// Sources that are to be told of the commit, with their positions.
pub(super) type Taken = Vec<(String, Position)>;

impl<'a> Refresh<'a> {
    /// Sources of the pipeline that this run needs.
    pub(super) fn sources_to_land(&self, pipeline: &str) -> Vec<&'a PlannedSource> {
        let needed = needed_sources(self.open, self.options, &self.due);
        let is_needed = |name: &str| needed.contains(name) && !self.options.silent.contains(name);
        let sources = self.open.plan.sources.iter().filter(|source| source.pipeline == pipeline);
        sources.filter(|source| is_needed(&source.spec.name.value)).collect()
    }

    /// Lands sources, each after those that its rules look into. A source that fails fails its models only.
    pub(super) async fn land_sources(
        &mut self,
        sources: Vec<&PlannedSource>,
        chain: &CommitChain,
        draft: &mut Draft,
    ) -> Result<Taken> {
        let mut taken = Vec::new();
        for source in sources {
            let name = source.spec.name.value.as_str();
            let taken_in = match self.land_source(source, chain, draft).await {
                Ok(position) => {
                    taken.push((name.to_string(), position));
                    TakenIn::Done
                }
                Err(error) => {
                    self.failed(name, &error);
                    TakenIn::Failed { may_pass: error.kind() == ErrorKind::External }
                }
            };
            self.sources.insert(name.to_string(), taken_in);
        }
        self.complete_filters(&mut taken, draft).await?;
        Ok(taken)
    }

    /// Makes the key filters that what was landed lacks, of all sources at the same time.
    async fn complete_filters(&mut self, taken: &mut Taken, draft: &mut Draft) -> Result<()> {
        let (open, warehouse, prefix) = (self.open, &self.warehouse, draft.prefix());
        let now_us = self.options.now_us;
        let making = taken.iter_mut().filter_map(|(name, position)| {
            let files = key_filters::Files { open, warehouse, source: open.source(name)? };
            let prefix = &prefix;
            Some(async move {
                match files.complete(now_us, position, prefix).await {
                    Ok(true) => Some((name.clone(), position.clone())),
                    Ok(false) => None,
                    Err(error) => {
                        // Rows are read instead, and who reads them says so if they can't be.
                        tracing::warn!(source = name.as_str(), %error, "key filters weren't made");
                        None
                    }
                }
            })
        });
        for (name, position) in futures::future::join_all(making).await.into_iter().flatten() {
            draft.record.sources.insert(name.clone(), position.to_json()?);
            draft.is_changed = true;
            if let Some(Relation::Ready { read, .. }) = self.relations.get_mut(&name) {
                **read = Read::Source(position);
            }
        }
        Ok(())
    }

    async fn land_source(
        &mut self,
        source: &PlannedSource,
        chain: &CommitChain,
        draft: &mut Draft,
    ) -> Result<Position> {
        let name = source.spec.name.value.as_str();
        self.observer.working(&format!("landing {name}"));
        let connector = self.open.connector(name)?;
        let prior = Position::from_json(draft.record.sources.get(name))?;
        // Rows taken in under another contract, and all of them under a full refresh, are read again.
        let is_stale = prior.is_stale(&source.fingerprint) || self.options.full_refresh;
        let rules = self.open.row_rules(&self.session, source)?;
        let landed_folder = landed_folder(&source.pipeline, name);
        let landing = Landing {
            warehouse: &self.warehouse,
            landed: landed_folder.clone(),
            quarantine: quarantine_of(name),
            prefix: draft.prefix(),
            contract: Arc::clone(&source.schema),
            rules: &rules,
            fingerprint: source.fingerprint.clone(),
            run: self.run.clone(),
            ingested_at_us: self.options.now_us,
            goes_on: self.held.is_some(),
        };
        let known = self.with_rows_again(source, &prior, &landing, draft).await?;
        let mut landed = connector.take_in(&known, &landing, is_stale).await?;
        landed.position.keep_filters(&prior);
        for warning in &landed.warnings {
            self.observer.warned(&format!("{name}: {warning}"));
        }
        let raw = connector.relation(&source.schema, &landed.position, &self.warehouse, &landed_folder)?;
        landed.position.checked_against = self.checked_against(source, chain).await?;
        let is_to_check = landed.has_changes || landed.position.checked_against != prior.checked_against;
        // Continuous work looks at the clock by itself, and knows what time has broken.
        let is_out_of_time = self.stale.iter().any(|(relation, _)| relation == name);
        if is_to_check || is_out_of_time || self.held.is_none() {
            let scope = if is_to_check { Scope::All } else { Scope::Clock };
            let relation = plan::source_relation(source, Arc::clone(&raw))?;
            self.check_source(source, &landed.position, relation, chain, scope).await?;
        }
        self.note_quarantined(name, &landed.position.beyond(&prior).quarantined_by());
        if landed.position != prior {
            draft.record.sources.insert(name.to_string(), landed.position.to_json()?);
            draft.is_changed = true;
        }
        self.enter_quarantine(source, &landed.position, draft)?;
        if let Some(added) = landed.added.as_ref().filter(|_| known == prior && known.contract == source.fingerprint) {
            let schema = raw.schema();
            let added = under(&schema, added)?;
            let net = TableNet {
                before: prior.digest(),
                after: landed.position.digest(),
                rows: added.iter().map(|batch| batch.num_rows() as u64).sum(),
                added: engine::memory_table(&schema, &added)?.into_iter().collect(),
                removed: Vec::new(),
            };
            self.nets.insert(name.to_string(), net);
        }
        self.ready(name, raw, landed.position.digest(), None, Read::Source(landed.position.clone()));
        Ok(landed.position)
    }

    /// Digests of the relations that the source's rules look into, of those that can be read.
    async fn checked_against(
        &mut self,
        source: &PlannedSource,
        chain: &CommitChain,
    ) -> Result<BTreeMap<String, String>> {
        let mut digests = BTreeMap::new();
        for name in &source.check_inputs {
            if let Some(Relation::Ready { digest, .. }) = self.relation(name, chain).await? {
                digests.insert(name.clone(), digest);
            }
        }
        Ok(digests)
    }

    /// Rules over the whole source, and counts of those over rows, as far as the scope goes.
    pub(super) async fn check_source(
        &mut self,
        source: &PlannedSource,
        position: &Position,
        table: Arc<dyn TableProvider>,
        chain: &CommitChain,
        scope: Scope<'_>,
    ) -> Result<()> {
        let clock_only = matches!(scope, Scope::Clock);
        let name = source.spec.name.value.as_str();
        let (warned, quarantined) = (position.warned(), position.quarantined_by());
        let session = self.session.clone();
        let checks = TableChecks { ctx: &session, table, now_us: self.options.now_us };
        let mut outcomes: Vec<CheckOutcome> = Vec::new();
        for check in source.checks.iter().filter(|check| !clock_only || check.hangs_on_the_clock()) {
            let (rule, on_fail) = (check.name(), check.on_fail());
            outcomes.push(match &check.test {
                CheckTest::Row(_) if on_fail == OnFail::Quarantine => {
                    outcome(rule, on_fail, quarantined.get(rule).copied().unwrap_or(0), None)
                }
                CheckTest::Row(_) => outcome(rule, on_fail, warned.get(rule).copied().unwrap_or(0), None),
                CheckTest::Unique(columns) => checks.unique(rule, on_fail, columns).await?,
                CheckTest::Freshness { column, within_us } => {
                    checks.freshness(rule, on_fail, column, *within_us).await?
                }
                CheckTest::Relationship { column, to_relation, to_column } if to_relation == name => {
                    let own = Arc::clone(&checks.table);
                    checks.relationship(rule, on_fail, column, own, to_column).await?
                }
                CheckTest::Relationship { column, to_relation, to_column } => {
                    match self.relation(to_relation, chain).await? {
                        Some(Relation::Ready { provider, .. }) => {
                            let target = self.open.as_queried(to_relation, provider)?;
                            checks.relationship(rule, on_fail, column, target, to_column).await?
                        }
                        // Its own failure is told; there is nothing to compare with.
                        _ => continue,
                    }
                }
            });
        }
        // What is no check's: the contract, and coming late.
        let others = quarantined
            .iter()
            .filter(|(rule, _)| !clock_only && source.checks.iter().all(|check| check.name() != *rule));
        outcomes.extend(others.map(|(rule, rows)| outcome(rule, OnFail::Quarantine, *rows, None)));
        let mut failed = None;
        for mut check in outcomes {
            check.model = name.to_string();
            let is_told = self.note_clock(&source.checks, &check);
            if check.status == "failed" && on_fail_is(source, &check.check, OnFail::Fail) {
                failed.get_or_insert_with(|| describe_failure(&check));
            } else if check.status == "failed" && !is_told && !quarantined.contains_key(&check.check) {
                self.observer.warned(&describe(&check));
            }
            self.checks.push(check);
        }
        match failed {
            None => Ok(()),
            Some(text) => {
                Err(Error::new(ErrorKind::Check, text).with("kept", "models that read it keep their last version"))
            }
        }
    }

    /// Counts the rows that this run sent to a source's quarantine, by rule, and tells of them.
    fn note_quarantined(&mut self, source: &str, by_rule: &BTreeMap<String, u64>) {
        let rows: u64 = by_rule.values().sum();
        if rows == 0 {
            return;
        }
        let noun = if rows == 1 { "row" } else { "rows" };
        let rules = by_rule.iter().map(|(rule, rows)| format!("`{rule}` {rows}")).collect::<Vec<_>>().join(", ");
        self.observer.warned(&format!("{source}: {rows} {noun} went to {} ({rules})", quarantine_of(source)));
        self.quarantined.insert(source.to_string(), rows);
    }

    /// The quarantine table is the parts of all files that are there.
    fn enter_quarantine(&self, source: &PlannedSource, position: &Position, draft: &mut Draft) -> Result<()> {
        let table = quarantine_of(&source.spec.name.value);
        let schema = quarantine_schema(source.schema.fields().iter().map(|f| f.name().as_str()));
        let files = TableFiles { schema, partition_by: Vec::new(), files: position.quarantined() };
        let digest =
            blake3::hash(serde_json::to_string(&files.files).unwrap_or_default().as_bytes()).to_hex()[..32].to_string();
        let fingerprint = format!("{} {digest}", source.fingerprint);
        if draft.record.tables.get(&table).is_some_and(|entry| entry.fingerprint == fingerprint) {
            return Ok(());
        }
        let description = Description {
            kind: TableKind::SourceQuarantine,
            fingerprint: &fingerprint,
            inputs: BTreeMap::new(),
            inputs_at: BTreeMap::new(),
            states: Vec::new(),
            key: &[],
            serve: true,
            clock_us: None,
            now_us: self.options.now_us,
        };
        draft.set_files(&table, &files, description)
    }

    /// What a relation holds in this run; the last committed version of one that the run doesn't work on; none if that was
    /// never built.
    pub(super) async fn relation(&mut self, name: &str, chain: &CommitChain) -> Result<Option<Relation>> {
        if let Some(known) = self.relations.get(name) {
            return Ok(Some(known.clone()));
        }
        let owners = self.open.pipelines_by_relation();
        let Some(owner) = owners.get(name) else { return Ok(None) };
        let chain_of_run = chain.pipeline().to_owned();
        let chain = if *owner == chain.pipeline() { chain.clone() } else { CommitChain::open(&self.warehouse, owner) };
        let Some(record) = chain.latest().await? else { return Ok(None) };
        if let Some(source) = self.open.source(name) {
            let Some(json) = record.sources.get(name) else { return Ok(None) };
            let position = Position::from_json(Some(json))?;
            let folder = landed_folder(&source.pipeline, name);
            let raw = self.open.connector(name)?.relation(&source.schema, &position, &self.warehouse, &folder)?;
            let at = (record.pipeline != chain_of_run).then_some(record.n);
            self.ready(name, raw, position.digest(), at, Read::Source(position));
            return Ok(self.relations.get(name).cloned());
        }
        let Some(entry) = record.tables.get(name) else { return Ok(None) };
        let files = chain.table_files(name, entry).await?;
        let provider = parquet_table(&self.warehouse, name, files.clone(), self.zone())?;
        let at = (record.pipeline != chain_of_run).then_some(record.n);
        self.ready(name, provider, table_digest(&record.pipeline, entry.changed_in), at, Read::Table(files));
        Ok(self.relations.get(name).cloned())
    }
}

/// Sources that `models`, of any pipeline, read in a refresh, or that were selected themselves, and those that their rules look into.
pub(super) fn needed_sources<'a>(
    open: &'a OpenProject,
    options: &RefreshOptions,
    models: &BTreeSet<String>,
) -> BTreeSet<&'a str> {
    let readers = open.plan.models.iter().filter(|m| models.contains(&m.name));
    let inputs = readers.flat_map(|m| m.inputs.iter().chain(&m.check_inputs)).map(String::as_str);
    let sources = open.plan.sources.iter().map(|s| s.spec.name.value.as_str());
    let own = sources.filter(|name| !options.due && options.sources.contains(*name));
    let mut needed: BTreeSet<&str> = inputs.chain(own).collect();
    // Each stands after those that its rules look into.
    for source in open.plan.sources.iter().rev() {
        if needed.contains(source.spec.name.value.as_str()) {
            needed.extend(source.check_inputs.iter().map(String::as_str));
        }
    }
    needed
}

/// Takes out the sources whose rules look into nothing that is `to_come`, such as a model that isn't computed yet.
pub(super) fn take_ready<'a>(
    sources: &mut Vec<&'a PlannedSource>,
    to_come: impl Fn(&str) -> bool,
) -> Vec<&'a PlannedSource> {
    let (mut ready, mut waiting): (Vec<_>, Vec<&PlannedSource>) = (Vec::new(), Vec::new());
    for source in sources.drain(..) {
        let is_waiting = |name: &str| waiting.iter().any(|source| source.spec.name.value == name);
        match source.check_inputs.iter().any(|target| to_come(target) || is_waiting(target)) {
            true => waiting.push(source),
            false => ready.push(source),
        }
    }
    *sources = waiting;
    ready
}

fn on_fail_is(source: &PlannedSource, check: &str, on_fail: OnFail) -> bool {
    source.checks.iter().any(|c| c.name() == check && c.on_fail() == on_fail)
}
