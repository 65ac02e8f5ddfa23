//! Maintains models over a sequence of changes and compares each version with one batch run.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use futures::{FutureExt, TryStreamExt};
use tidemill::engine::maintain::{
    Advancing, Arrangement, Contexts, Extent, GoesOn, LetGo, Net, Relation, RootChange, Rows, advance, build_root,
    build_stage, state_rows, state_rows_after,
};
use tidemill::plan::maintain::{Maintenance, Stage};
use tidemill::plan::{self, Clock, PlannedModel};
use tidemill::spec::fault::Severity;

use super::data::{self, Row, Steps, World};
use super::lookup::looked_up;
use super::shrink::{describe, shrunk};
use crate::plan_project::{Builder, Planned, lines, render};

/// How much is run.
pub struct Options {
    first: u64,
    seeds: u64,
    only: Option<String>,
}

impl Options {
    /// From `PARITY_FIRST`, `PARITY_SEEDS` and `PARITY_CASE`.
    pub fn of_environment(seeds: u64) -> Self {
        Self {
            first: number("PARITY_FIRST").unwrap_or(1),
            seeds: number("PARITY_SEEDS").unwrap_or(seeds),
            only: std::env::var("PARITY_CASE").ok(),
        }
    }

    /// Whether this case is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == name)
    }

    /// Whether all cases are.
    pub fn wants_all(&self) -> bool {
        self.only.is_none()
    }

    /// The seeds of steps.
    pub fn seeds(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.seeds
    }
}

/// A number in the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// How a case is run.
#[derive(Clone, Copy)]
pub struct Way {
    pub partitions: usize,
    /// The engine's memory; none: without bounds.
    pub memory_bytes: Option<usize>,
    /// How far two numbers may be apart, as a part of the greater.
    pub tolerance: f64,
    /// States let go of the groups that this watermark has closed, by the step: microseconds since 1970 UTC.
    pub watermark: Option<fn(usize) -> i64>,
}

impl Default for Way {
    fn default() -> Self {
        Self { partitions: 2, memory_bytes: None, tolerance: 0.0, watermark: None }
    }
}

/// What is wrong with a case under some steps.
#[derive(Debug)]
pub enum Wrong {
    /// What is maintained differs from batch.
    Differs(String),
    /// Batch itself fails, or gives one answer and another.
    Unclear(String),
}

impl Wrong {
    pub fn differs(&self) -> bool {
        matches!(self, Self::Differs(_))
    }

    fn text(&self) -> &str {
        match self {
            Self::Differs(text) | Self::Unclear(text) => text,
        }
    }
}

/// Going on from the last result, with so much in memory.
fn advancing(delta_bytes_max: usize) -> Advancing<'static> {
    Advancing { goes_on: GoesOn::Result, let_go: &[], key: &[], delta_bytes_max: Some(delta_bytes_max) }
}

fn differs(what: impl std::fmt::Display) -> Wrong {
    Wrong::Differs(what.to_string())
}

/// Runs `work` on a thread with room for debug builds' deep plans.
pub fn with_runtime<T: Send>(work: impl FnOnce(&tokio::runtime::Runtime) -> T + Send) -> T {
    std::thread::scope(|scope| {
        let run = || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all().thread_stack_size(16 << 20).build().unwrap();
            work(&runtime)
        };
        let thread = std::thread::Builder::new().stack_size(64 << 20).spawn_scoped(scope, run).unwrap();
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Runs every case under every seed, and says how each is maintained. Returns the strategy of each.
pub fn run(
    world: &'static World,
    cases: &[(&str, &str)],
    options: &Options,
    way: Way,
) -> BTreeMap<String, &'static str> {
    with_runtime(|runtime| {
        let mut failures = Vec::new();
        let mut strategies = BTreeMap::new();
        for (name, sql) in cases {
            if !options.wants(name) {
                continue;
            }
            let case = runtime.block_on(Case::new(world, sql, way)).unwrap_or_else(|faults| panic!("{name}: {faults}"));
            let strategy = &case.last().strategy;
            strategies.insert((*name).to_owned(), strategy.name);
            if strategy.name == "recompute" {
                println!("{name}: {}", strategy.reason);
                continue;
            }
            for seed in options.seeds() {
                let steps = (world.steps)(seed);
                if let Err(wrong) = runtime.block_on(case.check(&steps)) {
                    failures.push(format!("{name}, seed {seed}: {}", report(runtime, &case, sql, steps, &wrong)));
                    break;
                }
            }
        }
        let incremental = strategies.values().filter(|name| **name == "incremental").count();
        println!("{incremental} of {} queries are incremental", strategies.len());
        assert!(failures.is_empty(), "{} queries differ from batch\n\n{}", failures.len(), failures.join("\n\n"));
        strategies
    })
}

/// What is wrong, after as few changes as show it.
pub fn report(runtime: &tokio::runtime::Runtime, case: &Case, sql: &str, steps: Steps, wrong: &Wrong) -> String {
    let steps = if wrong.differs() { runtime.block_on(shrunk(case, steps)) } else { steps };
    let again = runtime.block_on(case.check(&steps)).err();
    let what = again.as_ref().unwrap_or(wrong).text();
    format!("{what}\n{sql}\nafter {}", describe(case.world, &steps))
}

/// Planned queries, each over the relations of a world and the queries before it.
pub struct Case {
    pub world: &'static World,
    planned: Planned,
    way: Way,
    /// The session that maintains, and the two of batch.
    sessions: [SessionContext; 3],
    contexts: Contexts,
}

/// Rows that states are said to have: more than a change has in most steps.
const STATE_ROWS: u64 = 64;

/// What is kept of a model between commits.
#[derive(Default)]
struct Kept {
    states: Vec<Rows>,
    /// The same in memory, where a state has groups.
    arranged: Vec<Option<Arrangement>>,
    let_go: Vec<Option<LetGo>>,
    result: Vec<String>,
    /// The rows of batch, for the models that read this one.
    rows: Vec<RecordBatch>,
}

impl Case {
    /// Plans `sql`; more than one query, with a semicolon between them, are models `m1`, `m2` and so on.
    pub async fn new(world: &'static World, sql: &str, way: Way) -> Result<Self, String> {
        let mut builder = Builder::new(world.zone);
        for relation in world.relations {
            let not_null = relation.not_null.iter().map(|name| (*name).to_owned()).collect();
            builder = builder.source_with(relation.name, relation.columns, |draft| draft.not_null = not_null);
        }
        for (at, sql) in sql.split(';').enumerate() {
            builder = builder.model(&format!("m{}", at + 1), sql);
        }
        let (project, plan, faults) = builder.plan().await;
        let errors: Vec<_> = faults.into_iter().filter(|fault| fault.severity == Severity::Error).collect();
        if !errors.is_empty() {
            return Err(render(&errors));
        }
        let planned = Planned { project, plan };
        let sessions = [way.partitions, 1, 3].map(|partitions| session(world, &planned, &way, partitions));
        let contexts = Contexts::of(&sessions[0], Arc::default());
        Ok(Self { world, planned, way, sessions, contexts })
    }

    /// The model of the last query.
    pub fn last(&self) -> &PlannedModel {
        self.planned.plan.models.last().expect("a case has a model")
    }

    /// All models, in order.
    pub fn models(&self) -> &[PlannedModel] {
        &self.planned.plan.models
    }

    /// Whether any of the models is maintained.
    pub fn is_incremental(&self) -> bool {
        self.planned.plan.models.iter().any(|model| model.maintenance.is_some())
    }

    fn table(&self, at: usize, rows: &[Row]) -> Arc<dyn TableProvider> {
        let batch = self.batch_of(at, rows);
        memory(&batch.schema(), vec![batch])
    }

    fn batch_of(&self, at: usize, rows: &[Row]) -> RecordBatch {
        let name = self.world.relations[at].name;
        let source = self.planned.plan.sources.iter().find(|source| source.spec.name.value == name);
        let source = source.expect("each relation is a source");
        let mut fields: Vec<_> = source.schema.fields().iter().cloned().collect();
        fields.extend(plan::hidden_fields(&self.world.zone.into()).into_iter().map(Arc::new));
        data::batch(&Arc::new(Schema::new(fields)), rows)
    }

    /// The sources before and after a step; how much of them that is isn't told.
    fn sources(&self, before: &[Vec<Row>], after: &[Vec<Row>], changes: &[data::Change]) -> HashMap<String, Relation> {
        let whole = |at: usize, rows: &[Row]| looked_up(self.batch_of(at, rows));
        let side = |at: usize, rows: &[Row]| if rows.is_empty() { vec![] } else { vec![self.table(at, rows)] };
        let relation = |at: usize| Relation {
            old: whole(at, &before[at]),
            new: whole(at, &after[at]),
            added: side(at, &changes[at].added),
            removed: side(at, &changes[at].removed),
            arranged: None,
            net: None,
            extent: Extent::default(),
        };
        self.world.relations.iter().enumerate().map(|(at, spec)| (spec.name.to_owned(), relation(at))).collect()
    }

    /// Maintains the models over all steps, and counts the last one's rows over all of them; or the first difference from batch.
    pub async fn check(&self, steps: &Steps) -> Result<usize, Wrong> {
        let run = AssertUnwindSafe(self.steps(steps)).catch_unwind().await;
        run.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(differs(format!("a panic: {}", text.unwrap_or_else(|| "unknown".into()))))
        })
    }

    async fn steps(&self, steps: &Steps) -> Result<usize, Wrong> {
        let mut tables: Vec<Vec<Row>> = vec![vec![]; self.world.relations.len()];
        let mut seen = 0;
        let mut kept: Vec<Kept> = self.planned.plan.models.iter().map(|_| Kept::default()).collect();
        for (step, changes) in steps.iter().enumerate() {
            let before = tables.clone();
            for (table, change) in tables.iter_mut().zip(changes) {
                data::apply(table, change);
            }
            let mut relations = self.sources(&before, &tables, changes);
            let mut batch: HashMap<String, Arc<dyn TableProvider>> = HashMap::new();
            for (model, kept) in self.planned.plan.models.iter().zip(&mut kept) {
                let expected = self.batch(model, &tables, &batch).await.map_err(Wrong::Unclear)?;
                let net = self.step(model, &relations, kept, &expected, step).await?;
                let relation = downstream(model, kept, expected, net);
                batch.insert(model.name.clone(), Arc::clone(&relation.new.plain[0]));
                relations.insert(model.name.clone(), relation);
            }
            let rows = kept.last().map_or(0, |kept| kept.rows.iter().map(RecordBatch::num_rows).sum());
            seen += rows;
        }
        Ok(seen)
    }

    /// Brings one model on, and compares it with the rows expected. Its change; none where it was computed anew.
    async fn step(
        &self,
        model: &PlannedModel,
        relations: &HashMap<String, Relation>,
        kept: &mut Kept,
        expected: &[RecordBatch],
        step: usize,
    ) -> Result<Option<Net>, Wrong> {
        let Some(maintenance) = &model.maintenance else { return Ok(None) };
        let (name, session, mut relations) = (&model.name, &self.sessions[0], relations.clone());
        let failed = |error: String| differs(format!("{name}, step {step}: {error}"));
        let mut change = None;
        if step == 0 {
            kept.states = self.build_states(maintenance, &mut relations).await.map_err(failed)?;
            for (stage, rows) in maintenance.stages.iter().zip(&kept.states) {
                kept.arranged.push(arranged(session, stage, rows, None).await.map_err(failed)?);
            }
            let root = build_root(&self.contexts, maintenance, &relations).map_err(differs)?;
            kept.result = lines(&collect(session, root).await.map_err(failed)?);
        } else {
            let arranged: Vec<_> = kept.arranged.drain(..).map(|arranged| arranged.map(Arc::new)).collect();
            for ((stage, rows), arranged) in maintenance.stages.iter().zip(&kept.states).zip(&arranged) {
                // Each second step looks states up in memory.
                let arranged = arranged.clone().filter(|_| step % 2 == 1);
                let extent = Extent { before: STATE_ROWS, changed: 0 };
                relations
                    .insert(stage.name.clone(), Relation { arranged, extent, ..Relation::unchanged(rows.clone()) });
            }
            if step % 3 == 2 {
                // As if most was another: what is joined, or stands in windows, is run whole.
                let changed = relations.values_mut().filter(|relation| relation.is_changed());
                changed.for_each(|relation| relation.extent = Extent { before: STATE_ROWS, changed: STATE_ROWS * 2 });
            }
            // Rows may well share it: it is no more than a hint.
            let key = [model.schema.field(0).name().clone()];
            let advancing = Advancing { let_go: &kept.let_go, key: &key, ..advancing(1 << 30) };
            let advance = advance(&self.contexts, maintenance, relations, &advancing).await;
            let advance = advance.map_err(|e| failed(format!("{e:?}")))?.ok_or_else(|| differs("too large"))?;
            let stages = maintenance.stages.iter().zip(&advance.stages);
            for ((rows, arranged), (stage, net)) in kept.states.iter_mut().zip(arranged).zip(stages) {
                if step % 4 == 3 && kept.let_go.is_empty() {
                    let plan = state_rows_after(stage, rows, net, None).map_err(differs)?;
                    let batches = collect(session, plan).await.map_err(failed)?;
                    *rows = Rows::from(memory(&loose(&stage.schema), stored(stage, &batches)));
                } else {
                    rows.changes.extend(weighted(net));
                }
                let mut arranged = arranged.map(|arranged| Arc::into_inner(arranged).expect("nobody else holds it"));
                arranged.iter_mut().try_for_each(|arranged| arranged.apply(net)).map_err(differs)?;
                kept.arranged.push(arranged);
            }
            match advance.root {
                RootChange::Net(net) => {
                    apply_net(&mut kept.result, &net).map_err(failed)?;
                    change = Some(net);
                }
                RootChange::Whole(plan) => kept.result = lines(&collect(session, *plan).await.map_err(failed)?),
            }
        }
        if let Some(watermark) = self.way.watermark {
            self.let_go(maintenance, kept, watermark(step), step).await.map_err(failed)?;
        }
        let expected = lines(expected);
        if alike(&kept.result, &expected, self.way.tolerance) {
            return Ok(change);
        }
        let (maintained, batch) = (kept.result.join("\n  "), expected.join("\n  "));
        Err(failed(format!("maintained\n  {maintained}\nbatch\n  {batch}")))
    }

    async fn build_states(
        &self,
        maintenance: &Maintenance,
        relations: &mut HashMap<String, Relation>,
    ) -> Result<Vec<Rows>, String> {
        let mut states = Vec::new();
        for stage in &maintenance.stages {
            let plan = build_stage(&self.contexts, stage, relations).map_err(|e| format!("{e:?}"))?;
            let batches = collect(&self.sessions[0], plan).await?;
            let rows = Rows::from(memory(&loose(&stage.schema), stored(stage, &batches)));
            relations.insert(stage.name.clone(), Relation::unchanged(rows.clone()));
            states.push(rows);
        }
        Ok(states)
    }

    /// Lets groups go. Every other state is written anew without them; of the others they stay in the files, and don't count.
    async fn let_go(&self, maintenance: &Maintenance, kept: &mut Kept, us: i64, step: usize) -> Result<(), String> {
        kept.let_go.resize(maintenance.stages.len(), None);
        for (at, stage) in maintenance.stages.iter().enumerate() {
            let let_go =
                LetGo::at(&self.sessions[0], stage, us, kept.let_go[at].as_ref()).map_err(|e| format!("{e:?}"))?;
            if (at + step).is_multiple_of(2) {
                let plan = state_rows(stage, &kept.states[at], let_go.as_ref()).map_err(|e| format!("{e:?}"))?;
                let batches = collect(&self.sessions[0], plan).await?;
                let rows = Rows::from(memory(&loose(&stage.schema), stored(stage, &batches)));
                kept.states[at] = rows;
            }
            kept.arranged[at] = arranged(&self.sessions[0], stage, &kept.states[at], let_go.as_ref()).await?;
            kept.let_go[at] = let_go;
        }
        Ok(())
    }

    /// Whether a change is too large for `bytes`, after the first of `steps` is built.
    pub async fn is_too_large(&self, steps: &Steps, bytes: usize) -> bool {
        let maintenance = self.last().maintenance.as_ref().expect("the model is maintained");
        let nothing: Vec<Vec<Row>> = vec![vec![]; self.world.relations.len()];
        let applied = |tables: &[Vec<Row>], changes: &[data::Change]| {
            let mut tables = tables.to_vec();
            tables.iter_mut().zip(changes).for_each(|(table, change)| data::apply(table, change));
            tables
        };
        let first = applied(&nothing, &steps[0]);
        let second = applied(&first, &steps[1]);
        let mut built = self.sources(&nothing, &first, &steps[0]);
        let states = self.build_states(maintenance, &mut built).await.unwrap();
        let mut relations = self.sources(&first, &second, &steps[1]);
        for (stage, rows) in maintenance.stages.iter().zip(states) {
            relations.insert(stage.name.clone(), Relation::unchanged(rows));
        }
        advance(&self.contexts, maintenance, relations, &advancing(bytes)).await.unwrap().is_none()
    }

    /// The rows of one batch run; the oracle agrees with itself however many partitions and in whatever order.
    async fn batch(
        &self,
        model: &PlannedModel,
        tables: &[Vec<Row>],
        models: &HashMap<String, Arc<dyn TableProvider>>,
    ) -> Result<Vec<RecordBatch>, String> {
        let mut answers = Vec::new();
        for (at, session) in self.sessions[1..].iter().enumerate() {
            let is_reversed = at > 0;
            let mut relations = models.clone();
            for (at, rows) in tables.iter().enumerate() {
                let mut rows = rows.clone();
                if is_reversed {
                    rows.reverse();
                }
                relations.insert(self.world.relations[at].name.to_owned(), self.table(at, &rows));
            }
            let plan = plan::bind(&model.plan, &relations).map_err(|e| e.to_string())?;
            answers.push(collect(session, plan).await?);
        }
        let (one, other) = (lines(&answers[0]), lines(&answers[1]));
        if !alike(&one, &other, self.way.tolerance) {
            return Err(format!("batch disagrees with itself: {one:#?} {other:#?}"));
        }
        Ok(answers.swap_remove(0))
    }
}

fn session(world: &World, planned: &Planned, way: &Way, partitions: usize) -> SessionContext {
    let clock = Clock { now_us: 0, zone: world.zone.into() };
    let memory = way.memory_bytes.map(|bytes| tidemill::engine::runtime(bytes).unwrap());
    let session = plan::session(&planned.project, &clock, memory);
    let state = session.state();
    let config = state.config().clone().with_target_partitions(partitions).with_batch_size(16);
    let state = SessionStateBuilder::new_from_existing(state).with_config(config).build();
    SessionContext::new_with_state(state)
}

/// A model as the models that read it see it; keeps its rows for the next step.
fn downstream(model: &PlannedModel, kept: &mut Kept, rows: Vec<RecordBatch>, net: Option<Net>) -> Relation {
    let stored = |batches: &[RecordBatch]| -> Vec<RecordBatch> {
        batches.iter().map(|batch| tidemill::engine::conform(batch, &model.schema).unwrap()).collect()
    };
    let schema = loose(&model.schema);
    let (rows, before) = (stored(&rows), std::mem::take(&mut kept.rows));
    let (added, removed) = match net {
        Some(net) => (stored(&net.added), stored(&net.removed)),
        // A whole result that takes the place of another.
        None => (rows.clone(), before.clone()),
    };
    let side = |batches: Vec<RecordBatch>| match batches.iter().any(|batch| batch.num_rows() > 0) {
        true => vec![memory(&schema, batches)],
        false => vec![],
    };
    let whole = |batches: Vec<RecordBatch>| Rows::from(memory(&schema, batches));
    kept.rows = rows.clone();
    Relation {
        old: whole(before),
        new: whole(rows),
        added: side(added),
        removed: side(removed),
        arranged: None,
        net: None,
        extent: Extent::default(),
    }
}

fn loose(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn memory(schema: &SchemaRef, batches: Vec<RecordBatch>) -> Arc<dyn TableProvider> {
    Arc::new(MemTable::try_new(Arc::clone(schema), vec![batches]).unwrap())
}

/// A state in memory, where it has groups.
async fn arranged(
    session: &SessionContext,
    stage: &Stage,
    rows: &Rows,
    let_go: Option<&LetGo>,
) -> Result<Option<Arrangement>, String> {
    let plan = state_rows(stage, rows, let_go).map_err(|e| format!("{e:?}"))?;
    let rows = collect(session, plan).await?;
    let width = stage.group.len();
    let memory = MemoryConsumer::new("a state").register(&session.runtime_env().memory_pool);
    let arranged = (width > 0).then(|| Arrangement::new(memory, Arc::clone(&stage.schema), width, &rows));
    arranged.transpose().map_err(|e| format!("{e:?}"))
}

/// Rows of a state as they are kept.
fn stored(stage: &Stage, batches: &[RecordBatch]) -> Vec<RecordBatch> {
    batches.iter().map(|batch| tidemill::engine::conform(batch, &stage.schema).unwrap()).collect()
}

fn weighted(net: &Net) -> Option<Arc<dyn TableProvider>> {
    let batches = net.weighted().unwrap();
    let schema = batches.first()?.schema();
    Some(memory(&schema, batches))
}

fn apply_net(result: &mut Vec<String>, net: &Net) -> Result<(), String> {
    for gone in lines(&net.removed) {
        match result.binary_search(&gone) {
            Ok(at) => drop(result.remove(at)),
            Err(_) => return Err(format!("a row went that wasn't there: {gone}")),
        }
    }
    result.extend(lines(&net.added));
    result.sort();
    Ok(())
}

async fn collect(session: &SessionContext, plan: LogicalPlan) -> Result<Vec<RecordBatch>, String> {
    let (_, stream) = tidemill::engine::rows(session, plan, None).await.map_err(|e| format!("{e:?}"))?;
    stream.try_collect().await.map_err(|e| format!("{e:?}"))
}

/// Whether two sorted results are the same, numbers within the tolerance.
fn alike(one: &[String], other: &[String], tolerance: f64) -> bool {
    if one == other {
        return true;
    }
    let near = |a: &str, b: &str| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0),
        _ => false,
    };
    let same = |a: &String, b: &String| {
        let (a, b): (Vec<_>, Vec<_>) = (a.split(" | ").collect(), b.split(" | ").collect());
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| *a == b || near(a, b))
    };
    tolerance > 0.0 && one.len() == other.len() && one.iter().zip(other).all(|(a, b)| same(a, b))
}
