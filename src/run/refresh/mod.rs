//! One refresh: selected models of all pipelines brought up to the data there is at its start.
//!
//! Pipelines in dependency order; each one is leased, its sources landed, its models computed and staged, and all of it
//! published by one commit. Prints nothing: an [`Observer`] is told.

pub(in crate::run) mod anew;
mod arranging;
mod beside;
mod bisect;
pub(in crate::run) mod checks;
mod clocks;
mod culprit;
pub(in crate::run) mod draft;
pub(in crate::run) mod held;
mod let_go;
mod maintain;
pub(in crate::run) mod model;
mod net;
pub(in crate::run) mod pipeline;
mod shared;
mod source;
mod stage;
mod states;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;

use crate::connect::Look;
use crate::engine::maintain::Contexts;
use crate::error::{Error, ErrorKind, Result};
use crate::run::due;
use crate::run::durable::{self, Durable};
use crate::run::failing::{Clocked, Failing, TakenIn};
use crate::run::history::{self, CheckOutcome, ModelOutcome, RunRecord, RunStatus};
use crate::run::key_filters::LoadedFilters;
use crate::run::last;
use crate::run::lease::Lease;
use crate::run::project::OpenProject;
use crate::run::refresh::held::HeldStates;
use crate::run::refresh::shared::SharedNets;
use crate::run::version::{Read, Versions};
use crate::table::Warehouse;

/// What to refresh and how.
pub struct RefreshOptions {
    /// Models to bring up to date.
    pub models: BTreeSet<String>,
    /// Sources to land even if no selected model reads them.
    pub sources: BTreeSet<String>,
    /// Sources that nothing is to be asked of: they stay as they were committed.
    pub silent: BTreeSet<String>,
    /// Only models whose schedule says so.
    pub due: bool,
    /// Land every file and compute every model again.
    pub full_refresh: bool,
    /// `now()`, microseconds since 1970 UTC.
    pub now_us: i64,
    /// How long to wait for a lease: none not at all, `Duration::MAX` for ever.
    pub wait: Option<Duration>,
    /// The command line, for the history.
    pub command: String,
}

/// Is told how a refresh goes; must not block.
pub trait Observer: Send + Sync {
    /// Something is being worked on: `landing orders`, `computing daily_sales`.
    fn working(&self, what: &str);
    /// A model is done.
    fn finished(&self, outcome: &ModelOutcome);
    /// Something that the user should know and that fails nothing.
    fn warned(&self, text: &str);
    /// A source or model failed; the refresh goes on with what doesn't depend on it.
    fn failed(&self, relation: &str, error: &Error);
    /// Continuous work looked at a source.
    fn looked(&self, _source: &str, _look: &Look) {}
    /// A commit of a pipeline is durable, after so many seconds of making it so.
    fn committed(&self, _pipeline: &str, _seconds: f64) {}
    /// A step of continuous work ended, after so many seconds.
    fn stepped(&self, _seconds: f64) {}
    /// Continuous work knows how a model's sink stands: whether the last try to bring it up to a commit failed.
    fn sink_stands(&self, _model: &str, _sink: &str, _has_failed: bool) {}
}

/// What a refresh came to.
pub struct Report {
    /// Its id.
    pub run: String,
    /// One for each selected model, in order of work.
    pub models: Vec<ModelOutcome>,
    /// Sources that were to be taken in.
    pub(in crate::run) sources: BTreeMap<String, TakenIn>,
    /// 0, 1 or 3, as DESIGN's table of exit codes has it.
    pub exit_code: u8,
}

/// What a model may read in this run.
#[derive(Clone)]
enum Relation {
    /// A version to read and the digest of what is in it.
    Ready {
        provider: Arc<dyn TableProvider>,
        digest: String,
        /// The commit of its pipeline that holds it; none: the one that this run is making.
        at: Option<u64>,
        /// What was read.
        read: Box<Read>,
    },
    /// Failed or was skipped in this run.
    Failed,
}

/// How a table changed from one version to the next.
struct TableNet {
    /// Digests of the two versions.
    before: String,
    after: String,
    /// Rows that came and went, tables of them.
    added: Vec<Arc<dyn TableProvider>>,
    removed: Vec<Arc<dyn TableProvider>>,
    rows: u64,
}

/// State of one refresh that pipelines hand on to each other.
struct Refresh<'a> {
    open: &'a OpenProject,
    warehouse: Warehouse,
    options: &'a RefreshOptions,
    observer: &'a dyn Observer,
    run: String,
    /// What everything of it is planned and run in, at one instant.
    session: SessionContext,
    /// The same for changes.
    contexts: Contexts,
    publishing: Publishing,
    /// States that are held in memory from step to step; none where the process ends with its refresh.
    held: Option<&'a HeldStates>,
    /// What makes commits sure beside the steps; none where each is before it is seen.
    durable: Option<&'a Durable>,
    /// What tells where rows of sources can stand.
    filters: Arc<LoadedFilters>,
    /// Whether the history tells of it: the first refresh of a process does, and steps don't.
    is_recorded: bool,
    /// Models whose tables somebody deleted.
    deleted: BTreeSet<String>,
    /// Models to bring up to date: the selected ones, under `due` those whose schedule says so.
    due: BTreeSet<String>,
    relations: HashMap<String, Relation>,
    /// Net changes that this run made to tables, for the models that read them.
    nets: HashMap<String, TableNet>,
    /// The same of states, for the models that are made of the same ones.
    shared: SharedNets,
    models: Vec<ModelOutcome>,
    sources: BTreeMap<String, TakenIn>,
    checks: Vec<CheckOutcome>,
    /// Rules that time alone can break and that this run looked at, and whether it has.
    clocks: BTreeMap<Clocked, bool>,
    /// Those of which continuous work has told already.
    stale: BTreeSet<Clocked>,
    /// Rows that this run sent to quarantine, by source.
    quarantined: BTreeMap<String, u64>,
    /// The worst so far: 0, 1 or 3.
    exit_code: u8,
}

/// Runs a refresh to its end. A failing source or model doesn't end it; see [`Report::exit_code`].
///
/// Dropping the future at any point leaves every table whole; the next refresh goes on from there.
///
/// # Errors
/// Before anything was touched: a lease that is held (kind `Lease`), a warehouse that can't be opened. Later: a commit that
/// was fenced or can't be written.
pub async fn refresh(open: &OpenProject, options: &RefreshOptions, observer: &dyn Observer) -> Result<Report> {
    refresh_in(open, open.warehouse().await?, options, observer).await
}

/// The same in a warehouse that is open already.
///
/// # Errors
/// As [`refresh`].
pub async fn refresh_in(
    open: &OpenProject,
    warehouse: Warehouse,
    options: &RefreshOptions,
    observer: &dyn Observer,
) -> Result<Report> {
    let pipelines = pipelines_in_order(open, options);
    let mut leases = BTreeMap::new();
    for pipeline in pipelines.iter().collect::<BTreeSet<_>>() {
        let lease = Lease::acquire(&warehouse, pipeline, open.project.lease_ttl, options.wait).await;
        let lease = lease.map_err(|error| match error.kind() {
            ErrorKind::Lease => error.with("hint", "wait for it with --wait"),
            _ => error,
        })?;
        leases.insert(pipeline.clone(), lease);
    }
    let result = recorded(open, &warehouse, options, observer, &leases, None).await;
    for (_, lease) in leases {
        lease.release().await?;
    }
    result
}

/// What continuous work keeps from step to step.
pub(in crate::run) struct Ongoing<'a> {
    /// States that are held in memory.
    pub(in crate::run) states: &'a HeldStates,
    /// Models that failed or were skipped. What depends on one that isn't worked on is skipped, as by the step in which it failed.
    pub(in crate::run) failing: &'a mut Failing,
    /// What makes commits sure.
    pub(in crate::run) durable: &'a Durable,
}

/// A refresh under leases that are held already, with its row in the history. Where it is a step of continuous work, Delta tables
/// follow later.
pub(in crate::run) async fn recorded(
    open: &OpenProject,
    warehouse: &Warehouse,
    options: &RefreshOptions,
    observer: &dyn Observer,
    leases: &BTreeMap<String, Lease>,
    mut ongoing: Option<Ongoing<'_>>,
) -> Result<Report> {
    let mut record = RunRecord::begin(&options.command, options.now_us, pipelines_in_order(open, options));
    record.save(warehouse).await?;
    let mut refresh = Refresh::new(open, warehouse, options, observer, record.run.clone(), ongoing.as_ref());
    refresh.is_recorded = true;
    let result = refresh.pipelines(leases).await;
    if let (Ok(()), Some(ongoing)) = (&result, &mut ongoing) {
        ongoing.failing.note(&refresh.models);
        ongoing.failing.note_clocks(&refresh.clocks);
    }
    let exit_code = result.as_ref().map_or_else(Error::exit_code, |()| refresh.exit_code);
    refresh.tell_in(&mut record, exit_code);
    let saved = record.save(warehouse).await;
    if result.is_ok() {
        note_last(open, warehouse, &record).await?;
    }
    history::prune(warehouse).await?;
    result?;
    saved?;
    Ok(Report { run: refresh.run, models: refresh.models, sources: refresh.sources, exit_code })
}

/// A refresh under leases that are held already: a step of continuous work. The history tells of it where a model begins to fail, or
/// no longer does.
///
/// # Errors
/// As [`refresh`].
pub(in crate::run) async fn step(
    open: &OpenProject,
    warehouse: &Warehouse,
    options: &RefreshOptions,
    observer: &dyn Observer,
    leases: &BTreeMap<String, Lease>,
    ongoing: Ongoing<'_>,
) -> Result<Report> {
    let record = RunRecord::begin(&options.command, options.now_us, pipelines_in_order(open, options));
    let mut refresh = Refresh::new(open, warehouse, options, observer, record.run.clone(), Some(&ongoing));
    refresh.pipelines(leases).await?;
    refresh.ended(record, ongoing.failing).await
}

/// Looks at the rules of `relations` that time alone can break, at what was committed last; works on nothing. The history tells of it
/// as of a [`step`].
///
/// # Errors
/// External: the warehouse can't be read or written.
pub(in crate::run) async fn look_at_clocks(
    open: &OpenProject,
    warehouse: &Warehouse,
    relations: &BTreeSet<String>,
    options: &RefreshOptions,
    observer: &dyn Observer,
    ongoing: Ongoing<'_>,
) -> Result<()> {
    let owners = open.pipelines_by_relation();
    let pipelines: BTreeSet<_> = relations.iter().filter_map(|name| owners.get(name.as_str())).collect();
    let pipelines = pipelines.into_iter().map(ToString::to_string).collect();
    let record = RunRecord::begin(&options.command, options.now_us, pipelines);
    let mut refresh = Refresh::new(open, warehouse, options, observer, record.run.clone(), Some(&ongoing));
    refresh.clocks_of(relations).await?;
    refresh.ended(record, ongoing.failing).await.map(drop)
}

/// When Delta tables are brought up to a commit. Our own readers see it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Publishing {
    /// In the same refresh.
    Now,
    /// By a later call of [`crate::run::follow::catch_up`].
    Later,
}

impl<'a> Refresh<'a> {
    fn new(
        open: &'a OpenProject,
        warehouse: &Warehouse,
        options: &'a RefreshOptions,
        observer: &'a dyn Observer,
        run: String,
        ongoing: Option<&Ongoing<'a>>,
    ) -> Self {
        let held = ongoing.map(|ongoing| ongoing.states);
        let durable = ongoing.map(|ongoing| ongoing.durable);
        let failing = ongoing.iter().flat_map(|ongoing| ongoing.failing.models());
        let held_back = failing.filter(|model| !options.models.contains(*model));
        let publishing = if held.is_some() { Publishing::Later } else { Publishing::Now };
        let session = open.session(options.now_us);
        Self {
            open,
            warehouse: warehouse.clone(),
            options,
            observer,
            run,
            contexts: Contexts::of(&session, held.map(|held| Arc::clone(&held.prepared)).unwrap_or_default()),
            session,
            publishing,
            held,
            durable,
            filters: held.map(|held| Arc::clone(&held.filters)).unwrap_or_default(),
            is_recorded: false,
            deleted: BTreeSet::new(),
            due: BTreeSet::new(),
            relations: held_back.map(|model| (model.clone(), Relation::Failed)).collect(),
            nets: HashMap::new(),
            shared: SharedNets::default(),
            models: Vec::new(),
            sources: BTreeMap::new(),
            checks: Vec::new(),
            clocks: BTreeMap::new(),
            stale: ongoing.map(|ongoing| ongoing.failing.stale().clone()).unwrap_or_default(),
            quarantined: BTreeMap::new(),
            exit_code: 0,
        }
    }

    async fn pipelines(&mut self, leases: &BTreeMap<String, Lease>) -> Result<()> {
        let pipelines = pipelines_in_order(self.open, self.options);
        // All of them first: a pipeline's sources are landed for the due models of others too.
        self.due = match self.options.due {
            true => due::asked(self.open, &self.warehouse, &self.options.models, self.options.now_us).await?.models,
            false => self.options.models.clone(),
        };
        if self.durable.is_none() {
            // What is read of others is committed upon, too.
            for pipeline in &self.open.project.pipelines {
                let name = &pipeline.name.value;
                durable::settle(&self.warehouse, name, leases.contains_key(name)).await?;
            }
        }
        for pipeline in &pipelines {
            let Some(lease) = leases.get(pipeline) else { continue };
            self.pipeline(pipeline, lease).await?;
        }
        // Skipped for what failed in an earlier step.
        if self.exit_code == 0 && self.models.iter().any(ModelOutcome::has_failed) {
            self.exit_code = 3;
        }
        Ok(())
    }

    /// The end of a step: the history tells of what is news of it.
    async fn ended(self, mut record: RunRecord, failing: &mut Failing) -> Result<Report> {
        let is_news = failing.note(&self.models) | failing.note_clocks(&self.clocks);
        if is_news {
            self.tell_in(&mut record, self.exit_code);
            record.save(&self.warehouse).await?;
            note_last(self.open, &self.warehouse, &record).await?;
            history::prune(&self.warehouse).await?;
        }
        Ok(Report { run: self.run, models: self.models, sources: self.sources, exit_code: self.exit_code })
    }

    /// Ends a run's record with what came of it.
    fn tell_in(&self, record: &mut RunRecord, exit_code: u8) {
        record.models.clone_from(&self.models);
        record.checks.clone_from(&self.checks);
        record.quarantined.clone_from(&self.quarantined);
        record.end(if exit_code == 0 { RunStatus::Ok } else { RunStatus::Failed }, exit_code);
    }

    /// Notes a failure: its exit code wins if it is worse, and what depends on it is skipped.
    fn failed(&mut self, relation: &str, error: &Error) {
        self.exit_code = self.exit_code.max(match error.kind() {
            ErrorKind::Check => 1,
            _ => 3,
        });
        self.observer.failed(relation, error);
        self.relations.insert(relation.to_string(), Relation::Failed);
    }

    /// Notes a relation that models may read from now on.
    fn ready(&mut self, relation: &str, provider: Arc<dyn TableProvider>, digest: String, at: Option<u64>, read: Read) {
        self.relations.insert(relation.to_string(), Relation::Ready { provider, digest, at, read: Box::new(read) });
    }

    /// Notes that what this run made of a pipeline is in its commit `n`, for the pipelines that read it.
    fn settled_in(&mut self, pipeline: &str, n: u64) {
        let owners = self.open.pipelines_by_relation();
        for (name, relation) in &mut self.relations {
            if let Relation::Ready { at, .. } = relation
                && owners.get(name.as_str()) == Some(&pipeline)
            {
                at.get_or_insert(n);
            }
        }
    }

    fn versions(&self) -> Versions<'_> {
        Versions { open: self.open, warehouse: &self.warehouse }
    }

    fn zone(&self) -> &str {
        &self.open.project.timezone.value
    }
}

async fn note_last(open: &OpenProject, warehouse: &Warehouse, record: &RunRecord) -> Result<()> {
    last::note(warehouse, record, |model| open.model(model).map(|model| model.pipeline.clone())).await
}

/// The first line of an error, for a column of a table.
pub(in crate::run) fn first_line(error: &Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}

/// Pipelines of the selected models and of the sources that they read and their rules look into, each after those that it reads from.
fn pipelines_in_order<'a>(open: &'a OpenProject, options: &RefreshOptions) -> Vec<String> {
    let owners = open.pipelines_by_relation();
    let mut reads: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in &options.sources {
        if let Some(owner) = owners.get(source.as_str()) {
            reads.entry(owner).or_default();
        }
    }
    let mut stands_after = |pipeline: &'a str, inputs: &mut dyn Iterator<Item = &'a String>| {
        reads.entry(pipeline).or_default();
        for input in inputs {
            let Some(owner) = owners.get(input.as_str()) else { continue };
            let is_worked_on = open.source(input).is_some() || options.models.contains(input);
            if is_worked_on && *owner != pipeline {
                reads.entry(pipeline).or_default().insert(owner);
                reads.entry(owner).or_default();
            }
        }
    };
    for model in open.plan.models.iter().filter(|m| options.models.contains(&m.name)) {
        stands_after(&model.pipeline, &mut model.inputs.iter().chain(&model.check_inputs));
    }
    let needed = source::needed_sources(open, options, &options.models);
    for source in open.plan.sources.iter().filter(|source| needed.contains(source.spec.name.value.as_str())) {
        stands_after(&source.pipeline, &mut source.check_inputs.iter());
    }
    let mut order: Vec<String> = Vec::new();
    while let Some((pipeline, _)) = reads.iter().find(|(_, after)| after.iter().all(|p| order.iter().any(|o| o == p))) {
        let pipeline = *pipeline;
        order.push(pipeline.to_string());
        reads.remove(pipeline);
    }
    order
}
