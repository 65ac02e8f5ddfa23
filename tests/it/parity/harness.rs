//! Maintains a model over a sequence of changes and compares each version with one batch run; shrinks what fails.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tidemill::engine::maintain::{Net, Relation, RootChange, Rows, advance, build_root, build_stage};
use tidemill::plan::maintain::Maintenance;
use tidemill::plan::{self, Clock, PlannedModel};

use super::data::{self, Change, RELATIONS, Row};
use crate::plan_project::{Builder, Planned, lines};

/// How much is run.
pub struct Options {
    first: u64,
    seeds: u64,
    only: Option<String>,
}

impl Options {
    /// From `PARITY_FIRST`, `PARITY_SEEDS` and `PARITY_CASE`.
    pub fn of_environment(seeds: u64) -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        Self {
            first: number("PARITY_FIRST").unwrap_or(1),
            seeds: number("PARITY_SEEDS").unwrap_or(seeds),
            only: std::env::var("PARITY_CASE").ok(),
        }
    }
}

/// Runs every case under every seed, and says how each is maintained.
pub fn run(cases: &[(&str, &str)], options: &Options) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().thread_stack_size(16 << 20).build().unwrap();
    let mut failures = Vec::new();
    let mut strategies: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, sql) in cases {
        if options.only.as_deref().is_some_and(|only| only != *name) {
            continue;
        }
        let case = runtime.block_on(Case::new(sql));
        let strategy = case.planned.model("m").strategy.name;
        strategies.entry(strategy).or_default().push(name);
        if strategy == "recompute" {
            println!("{name}: {}", case.planned.model("m").strategy.reason);
            continue;
        }
        for seed in options.first..options.first + options.seeds {
            let steps = random_steps(seed);
            if let Err(what) = runtime.block_on(case.check(&steps)) {
                let steps = runtime.block_on(shrunk(&case, steps));
                let what = runtime.block_on(case.check(&steps)).err().unwrap_or(what);
                failures.push(format!("{name}, seed {seed}: {what}\n{sql}\nafter {}", describe(&steps)));
                break;
            }
        }
    }
    for (strategy, names) in strategies {
        println!("{strategy}: {} queries", names.len());
    }
    assert!(failures.is_empty(), "{} queries differ from batch\n\n{}", failures.len(), failures.join("\n\n"));
}

fn describe(steps: &Steps) -> String {
    let mut text = String::new();
    for (step, changes) in steps.iter().enumerate() {
        for (change, (name, _)) in changes.iter().zip(RELATIONS) {
            text.extend(change.added.iter().map(|row| format!("\n  {step} {name} + {row:?}")));
            text.extend(change.removed.iter().map(|row| format!("\n  {step} {name} - {row:?}")));
        }
    }
    text
}

/// Changes of all relations, one commit after the other; the first is the first build.
type Steps = Vec<[Change; 3]>;

fn random_steps(seed: u64) -> Steps {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut tables: [Vec<Row>; 3] = Default::default();
    let mut steps = Steps::new();
    for step in 0..7 {
        let mut changes: [Change; 3] = Default::default();
        for at in 0..RELATIONS.len() {
            changes[at] = match (step, seed % 5) {
                // Some seeds begin with nothing at all.
                (0, 0) => Change::default(),
                (0, _) => Change { added: (0..12).map(|_| data::row(at, &mut rng)).collect(), removed: vec![] },
                _ => data::change(at, &tables[at], &mut rng),
            };
            data::apply(&mut tables[at], &changes[at]);
        }
        steps.push(changes);
    }
    steps
}

/// Fewer changes that fail too: each row and step is left out where it can be.
async fn shrunk(case: &Case, mut steps: Steps) -> Steps {
    let mut smaller = true;
    while smaller {
        smaller = false;
        let mut places = Vec::new();
        for (step, changes) in steps.iter().enumerate() {
            for (table, change) in changes.iter().enumerate() {
                places.extend((0..change.added.len()).map(|row| (step, table, row, true)));
                places.extend((0..change.removed.len()).map(|row| (step, table, row, false)));
            }
        }
        for (step, table, row, is_added) in places.into_iter().rev() {
            let mut fewer = steps.clone();
            let change = &mut fewer[step][table];
            let side = if is_added { &mut change.added } else { &mut change.removed };
            if row >= side.len() {
                continue;
            }
            side.remove(row);
            if is_possible(&fewer) && case.check(&fewer).await.is_err() {
                steps = fewer;
                smaller = true;
            }
        }
    }
    steps.retain(|changes| changes.iter().any(|change| !change.added.is_empty() || !change.removed.is_empty()));
    steps
}

fn is_possible(steps: &Steps) -> bool {
    let mut tables: [Vec<Row>; 3] = Default::default();
    for changes in steps {
        for (table, change) in tables.iter_mut().zip(changes) {
            for gone in &change.removed {
                let Some(at) = table.iter().position(|row| row == gone) else { return false };
                table.swap_remove(at);
            }
            table.extend(change.added.iter().cloned());
        }
    }
    true
}

/// A planned query.
pub struct Case {
    planned: Planned,
}

impl Case {
    pub async fn new(sql: &str) -> Self {
        let mut builder = Builder::new("UTC");
        for (name, columns) in RELATIONS {
            builder = builder.source(name, columns);
        }
        Self { planned: builder.model("m", sql).planned().await }
    }

    fn model(&self) -> &PlannedModel {
        self.planned.model("m")
    }

    fn session(&self, partitions: usize) -> SessionContext {
        let clock = Clock { now_us: 0, zone: "UTC".into() };
        let session = plan::session(&self.planned.project, &clock, None);
        let state = session.state();
        let config = state.config().clone().with_target_partitions(partitions).with_batch_size(16);
        let state = datafusion::execution::SessionStateBuilder::new_from_existing(state).with_config(config).build();
        SessionContext::new_with_state(state)
    }

    fn table(&self, at: usize, rows: &[Row]) -> Arc<dyn TableProvider> {
        let source = &self.planned.plan.sources[at];
        assert_eq!(source.spec.name.value, RELATIONS[at].0);
        let mut fields: Vec<_> = source.schema.fields().iter().cloned().collect();
        fields.extend(plan::hidden_fields(&"UTC".into()).into_iter().map(Arc::new));
        let schema = Arc::new(datafusion::arrow::datatypes::Schema::new(fields));
        let batch = data::batch(&schema, rows);
        Arc::new(MemTable::try_new(schema, vec![vec![batch]]).unwrap())
    }

    /// Maintains the model over all steps; the first difference from batch, if there is one.
    pub async fn check(&self, steps: &Steps) -> Result<(), String> {
        let maintenance = self.model().maintenance.as_ref().expect("the model is maintained");
        let session = self.session(2);
        let mut tables: [Vec<Row>; 3] = Default::default();
        let mut states: Vec<Rows> = Vec::new();
        let mut result: Vec<String> = Vec::new();
        for (step, changes) in steps.iter().enumerate() {
            let before = tables.clone();
            for (table, change) in tables.iter_mut().zip(changes) {
                data::apply(table, change);
            }
            let mut relations = HashMap::new();
            for at in 0..RELATIONS.len() {
                let whole = |rows: &[Row]| Rows { plain: vec![self.table(at, rows)], changes: vec![] };
                let side = |rows: &[Row]| if rows.is_empty() { vec![] } else { vec![self.table(at, rows)] };
                let relation = Relation {
                    old: whole(&before[at]),
                    new: whole(&tables[at]),
                    added: side(&changes[at].added),
                    removed: side(&changes[at].removed),
                };
                relations.insert(RELATIONS[at].0.to_owned(), relation);
            }
            if step == 0 {
                states = build_states(&session, maintenance, &mut relations).await?;
                let root = build_root(&session, maintenance, &relations).map_err(|e| e.to_string())?;
                result = sorted(&collect(&session, root).await?);
            } else {
                for (stage, rows) in maintenance.stages.iter().zip(&states) {
                    relations.insert(stage.name.clone(), Relation::unchanged(rows.clone()));
                }
                let advance = advance(&session, maintenance, relations.clone(), 1 << 30).await;
                let advance = advance.map_err(|e| format!("step {step}: {e:?}"))?.ok_or("too large")?;
                for (rows, net) in states.iter_mut().zip(&advance.stages) {
                    rows.changes.extend(weighted(net));
                }
                match advance.root {
                    RootChange::Net(net) => apply_net(&mut result, &net, step)?,
                    RootChange::Whole(plan) => result = sorted(&collect(&session, *plan).await?),
                }
            }
            let expected = self.batch(&tables).await?;
            if result != expected {
                return Err(format!(
                    "step {step}: maintained\n  {}\nbatch\n  {}",
                    result.join("\n  "),
                    expected.join("\n  ")
                ));
            }
        }
        Ok(())
    }

    /// The rows of one batch run; the oracle agrees with itself however many partitions and in whatever order.
    async fn batch(&self, tables: &[Vec<Row>; 3]) -> Result<Vec<String>, String> {
        let mut answers = Vec::new();
        for partitions in [1, 3] {
            let mut relations = HashMap::new();
            for (at, rows) in tables.iter().enumerate() {
                let mut rows = rows.clone();
                if partitions > 1 {
                    rows.reverse();
                }
                relations.insert(RELATIONS[at].0.to_owned(), self.table(at, &rows));
            }
            let plan = plan::bind(&self.model().plan, &relations).map_err(|e| e.to_string())?;
            answers.push(sorted(&collect(&self.session(partitions), plan).await?));
        }
        if answers[0] != answers[1] {
            return Err(format!("batch disagrees with itself: {answers:#?}"));
        }
        Ok(answers.swap_remove(0))
    }
}

async fn build_states(
    session: &SessionContext,
    maintenance: &Maintenance,
    relations: &mut HashMap<String, Relation>,
) -> Result<Vec<Rows>, String> {
    let mut states = Vec::new();
    for stage in &maintenance.stages {
        let plan = build_stage(session, stage, relations).map_err(|e| e.to_string())?;
        let batches = collect(session, plan).await?;
        let batches = batches.iter().map(|b| tidemill::engine::conform(b, &stage.schema).unwrap()).collect::<Vec<_>>();
        let schema = batches.first().map_or_else(|| Arc::clone(&stage.schema), RecordBatch::schema);
        let table: Arc<dyn TableProvider> = Arc::new(MemTable::try_new(schema, vec![batches]).unwrap());
        let rows = Rows { plain: vec![table], changes: vec![] };
        relations.insert(stage.name.clone(), Relation::unchanged(rows.clone()));
        states.push(rows);
    }
    Ok(states)
}

fn weighted(net: &Net) -> Option<Arc<dyn TableProvider>> {
    let batches = net.weighted().unwrap();
    let schema = batches.first()?.schema();
    Some(Arc::new(MemTable::try_new(schema, vec![batches]).unwrap()))
}

fn apply_net(result: &mut Vec<String>, net: &Net, step: usize) -> Result<(), String> {
    for gone in sorted(&net.removed) {
        match result.binary_search(&gone) {
            Ok(at) => drop(result.remove(at)),
            Err(_) => return Err(format!("step {step}: a row went that wasn't there: {gone}")),
        }
    }
    result.extend(sorted(&net.added));
    result.sort();
    Ok(())
}

async fn collect(
    session: &SessionContext,
    plan: datafusion::logical_expr::LogicalPlan,
) -> Result<Vec<RecordBatch>, String> {
    let (_, stream) = tidemill::engine::rows(session, plan, None).await.map_err(|e| format!("{e:?}"))?;
    stream.try_collect().await.map_err(|e| format!("{e:?}"))
}

fn sorted(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows = lines(batches);
    rows.sort();
    rows
}
