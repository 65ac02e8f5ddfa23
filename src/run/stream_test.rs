//! A model maintained over given rows that come in pieces, in a random order, some of them twice over: what a unit test expects
//! of one batch run must come out of this too. Knows no expectations.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use datafusion::catalog::TableProvider;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::engine::maintain::{self, Advancing, Contexts, Extent, GoesOn, Net, Relation, RootChange, Rows};
use crate::engine::{self, failure};
use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::plan::PlannedModel;
use crate::plan::maintain::Maintenance;

/// Steps that given rows are spread over, the first build included.
const STEPS: usize = 4;

/// The model's rows after `relations` came to it in pieces; the same `seed` gives the same pieces. Halfway its states are
/// read anew, as after a restart.
///
/// # Errors
/// As running the model's plan.
pub(super) async fn maintained(
    session: &SessionContext,
    model: &PlannedModel,
    maintenance: &Maintenance,
    relations: &HashMap<String, Arc<dyn TableProvider>>,
    seed: u64,
) -> Result<Vec<RecordBatch>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut inputs = HashMap::new();
    for name in &model.inputs {
        let table = relations.get(name).ok_or_else(|| Error::internal("a relation wasn't given"))?;
        let rows = collect(session, table).await?;
        let steps = pieces(rows.num_rows(), seed, &mut rng);
        inputs.insert(name.clone(), Input { rows, steps, present: vec![] });
    }
    let contexts = Contexts::of(session, Arc::default());
    let mut run = Run { session, contexts, maintenance, key: &model.key, states: vec![], result: Net::default() };
    for step in 0..STEPS {
        let mut changed = HashMap::new();
        for (name, input) in &mut inputs {
            changed.insert(name.clone(), input.step(step)?);
        }
        if step == 0 {
            run.build(changed).await?;
        } else {
            run.advance(changed).await?;
        }
        if step == STEPS / 2 {
            run.restart().await?;
        }
    }
    run.rows()
}

/// Given rows of one relation, and which of them are there.
struct Input {
    rows: RecordBatch,
    steps: Vec<Piece>,
    present: Vec<u64>,
}

/// Rows that come and go in one step, by index.
#[derive(Default)]
struct Piece {
    added: Vec<u64>,
    removed: Vec<u64>,
}

/// Every row comes in some step; some go again and come back before the end.
fn pieces(rows: usize, seed: u64, rng: &mut ChaCha8Rng) -> Vec<Piece> {
    let mut order: Vec<u64> = (0..rows as u64).collect();
    order.shuffle(rng);
    let mut steps: Vec<Piece> = (0..STEPS).map(|_| Piece::default()).collect();
    for row in order {
        // Every other seed begins with nothing.
        let first = usize::from(seed.is_multiple_of(2));
        let step = rng.random_range(first..STEPS);
        if let Some(piece) = steps.get_mut(step) {
            piece.added.push(row);
        }
        if step + 2 < STEPS && rng.random_bool(0.3) {
            steps[step + 1].removed.push(row);
            steps[step + 2].added.push(row);
        }
    }
    steps
}

impl Input {
    fn step(&mut self, step: usize) -> Result<Relation> {
        let before = self.table(&self.present)?;
        let piece = std::mem::take(&mut self.steps[step]);
        self.present.retain(|row| !piece.removed.contains(row));
        self.present.extend(&piece.added);
        let side = |rows: &[u64]| -> Result<Vec<Arc<dyn TableProvider>>> {
            Ok(if rows.is_empty() { vec![] } else { vec![self.table(rows)?] })
        };
        Ok(Relation {
            old: before.into(),
            new: self.table(&self.present)?.into(),
            added: side(&piece.added)?,
            removed: side(&piece.removed)?,
            arranged: None,
            net: None,
            extent: Extent::default(),
        })
    }

    fn table(&self, rows: &[u64]) -> Result<Arc<dyn TableProvider>> {
        let taken = take_record_batch(&self.rows, &UInt64Array::from(rows.to_vec()));
        memory(vec![taken.external("given rows can't be taken")?])
    }
}

fn memory(batches: Vec<RecordBatch>) -> Result<Arc<dyn TableProvider>> {
    let schema = batches.first().map(RecordBatch::schema).ok_or_else(|| Error::internal("no rows to keep"))?;
    Ok(Arc::new(MemTable::try_new(schema, vec![batches]).map_err(failure)?))
}

async fn collect(session: &SessionContext, table: &Arc<dyn TableProvider>) -> Result<RecordBatch> {
    let scan = LogicalPlanBuilder::scan("given", provider_as_source(Arc::clone(table)), None);
    let scan = scan.and_then(LogicalPlanBuilder::build).map_err(failure)?;
    let (schema, stream) = engine::rows(session, scan, None).await?;
    let batches: Vec<RecordBatch> = stream.try_collect().await?;
    concat_batches(&schema, &batches).external("given rows don't fit together")
}

/// A model as it is maintained.
struct Run<'a> {
    session: &'a SessionContext,
    contexts: Contexts,
    maintenance: &'a Maintenance,
    key: &'a [String],
    states: Vec<Rows>,
    /// Rows that came less rows that went.
    result: Net,
}

impl Run<'_> {
    async fn build(&mut self, mut relations: HashMap<String, Relation>) -> Result<()> {
        for stage in &self.maintenance.stages {
            let plan = maintain::build_stage(&self.contexts, stage, &relations)?;
            let (_, stream) = engine::rows(self.session, plan, None).await?;
            let batches: Vec<RecordBatch> = stream.try_collect().await?;
            let rows = self.state(&batches, &stage.schema)?;
            relations.insert(stage.name.clone(), Relation::unchanged(rows.clone()));
            self.states.push(rows);
        }
        let root = maintain::build_root(&self.contexts, self.maintenance, &relations)?;
        let (_, stream) = engine::rows(self.session, root, None).await?;
        self.result = Net { added: stream.try_collect().await?, ..Net::default() };
        Ok(())
    }

    fn state(&self, batches: &[RecordBatch], schema: &arrow::datatypes::SchemaRef) -> Result<Rows> {
        let batches = batches.iter().map(|batch| engine::conform(batch, schema)).collect::<Result<Vec<_>>>()?;
        Ok(if batches.is_empty() { Rows::default() } else { memory(batches)?.into() })
    }

    async fn advance(&mut self, mut relations: HashMap<String, Relation>) -> Result<()> {
        for (stage, state) in self.maintenance.stages.iter().zip(&self.states) {
            relations.insert(stage.name.clone(), Relation::unchanged(state.clone()));
        }
        let advancing = Advancing {
            goes_on: GoesOn::Result,
            let_go: &[],
            key: self.key,
            delta_bytes_max: Some(limits::CHANGE_BYTES),
        };
        let advance = maintain::advance(&self.contexts, self.maintenance, relations, &advancing).await?;
        let advance = advance.ok_or_else(|| Error::external("a test's change is too large to be held in memory"))?;
        for (state, net) in self.states.iter_mut().zip(&advance.stages) {
            let weighted = net.weighted()?;
            if !weighted.is_empty() {
                state.changes.push(memory(weighted)?);
            }
        }
        match advance.root {
            RootChange::Net(net) => {
                self.result.added.extend(net.added);
                self.result.removed.extend(net.removed);
            }
            RootChange::Whole(plan) => {
                let (_, stream) = engine::rows(self.session, *plan, None).await?;
                self.result = Net { added: stream.try_collect().await?, ..Net::default() };
            }
        }
        Ok(())
    }

    /// States as another process would find them.
    async fn restart(&mut self) -> Result<()> {
        for (at, stage) in self.maintenance.stages.iter().enumerate() {
            let plan = maintain::state_rows(stage, &self.states[at], None)?;
            let (_, stream) = engine::rows(self.session, plan, None).await?;
            let batches: Vec<RecordBatch> = stream.try_collect().await?;
            self.states[at] = self.state(&batches, &stage.schema)?;
        }
        Ok(())
    }

    fn rows(&self) -> Result<Vec<RecordBatch>> {
        Ok(self.result.added_up()?.added)
    }
}
