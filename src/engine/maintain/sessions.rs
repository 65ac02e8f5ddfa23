//! A state of sessions from rows that came: those that a new row touches become one with it. Knows no other aggregate.
//!
//! A session covers the time from its start to its end, which is a gap after its last row; a row alone covers that from itself to a
//! gap after it. Rows are of one session where what they cover overlaps, so that the sessions after the change are what the
//! sessions before it and the new rows cover together: none of the old rows is asked for.

use arrow::array::{BooleanArray, RecordBatch};
use datafusion::common::{Result as DataFusionResult, ScalarValue};
use datafusion::functions_aggregate::min_max::max_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, WindowFrame, WindowFrameBound, WindowFrameUnits,
    WindowFunctionDefinition, col, lit, when,
};

use super::Engine;
use super::delta::{Net, all_of, in_memory, weighing, weight};
use super::stage::{changed_groups, column, difference, filtered, integers, renamed};
use crate::engine::{conform, failure};
use crate::error::{Error, Result, ResultExt};
use crate::plan::maintain::{Sessions, Stage};

/// Columns of sessions at work: the latest end before, the start where one opens.
const BEFORE: &str = "__before";
const OPENS: &str = "__opens";
/// Start and end of the session that a session becomes a part of, and how many new rows' sessions are in it.
const START: &str = "__start";
const END: &str = "__end";
const TOUCHED: &str = "__touched";

impl Engine<'_> {
    /// How the stage's state changes by rows that came; none where rows went too, or sessions may be touched that it lacks.
    pub(super) async fn merge_sessions(&self, stage: &Stage) -> Result<Option<Net>> {
        let Some(sessions) = &stage.sessions else { return Ok(None) };
        let Some(delta) = self.delta(&sessions.alone).await? else { return Ok(Some(Net::default())) };
        if !delta.insert_only {
            return Ok(None);
        }
        let came = self.collect(changed_groups(stage, &delta).map_err(failure)?).await?;
        if came.is_empty() {
            return Ok(Some(Net::default()));
        }
        if self.reaches_back(stage, sessions.start, &came)? {
            return Ok(None);
        }
        let keys: Vec<usize> =
            (0..stage.group.len()).filter(|at| ![sessions.start, sessions.end].contains(at)).collect();
        let old = self.state_by(stage, &came, &keys).await?;
        let joined = self.collect(joined(stage, sessions, &keys, (&came, &old))?).await?;
        let old = side(stage, &joined, false, &own_bounds(stage))?;
        let bounds = joined_bounds(stage, sessions);
        let (before, came) = (side(stage, &joined, false, &bounds)?, side(stage, &joined, true, &bounds)?);
        let after = self.merged(stage, &before, &came)?.left()?;
        difference(stage, &old, &[after]).map(Some)
    }
}

/// The sessions of `came` and `old` that become one with any of `came`: their columns, the weight, which is 1 for those of `came`
/// and else 0, and the bounds of what they become.
fn joined(
    stage: &Stage,
    sessions: &Sessions,
    keys: &[usize],
    (came, old): (&[RecordBatch], &[RecordBatch]),
) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = (0..stage.schema.fields().len()).map(|at| column(stage, at)).collect();
    let mut sides = Vec::new();
    for (batches, each) in [(came, 1), (old, 0)] {
        let Some(plan) = in_memory(batches)? else { continue };
        let of_state = renamed(plan, stage).and_then(|plan| LogicalPlanBuilder::from(plan).project(columns.clone()));
        let of_state = of_state.and_then(LogicalPlanBuilder::build).and_then(|plan| weighing(plan, each));
        sides.push(of_state.map_err(failure)?);
    }
    let both = all_of(sides).map_err(failure)?.ok_or_else(|| Error::internal("no sessions to join"))?;
    overlapping(stage, sessions, keys, both).map_err(failure)
}

/// The same of both together, which have the state's columns and the weight.
fn overlapping(stage: &Stage, sessions: &Sessions, keys: &[usize], both: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let columns: Vec<Expr> = (0..stage.schema.fields().len()).map(|at| column(stage, at)).collect();
    let keys: Vec<Expr> = keys.iter().map(|at| column(stage, *at)).collect();
    let (start, end) = (column(stage, sessions.start), column(stage, sessions.end));
    let over = |function: WindowFunctionDefinition, arg: Expr, keys: &[Expr], until: Option<WindowFrameBound>| {
        let function = Expr::from(WindowFunction::new(function, vec![arg])).partition_by(keys.to_vec());
        let Some(until) = until else { return function.build() };
        let first = WindowFrameBound::Preceding(ScalarValue::UInt64(None));
        let order = [start.clone(), end.clone()].map(|bound| bound.sort(true, false)).to_vec();
        function.order_by(order).window_frame(WindowFrame::new_bounds(WindowFrameUnits::Rows, first, until)).build()
    };
    let (max, sum) =
        (WindowFunctionDefinition::AggregateUDF(max_udaf()), WindowFunctionDefinition::AggregateUDF(sum_udaf()));
    let before = WindowFrameBound::Preceding(ScalarValue::UInt64(Some(1)));
    let plan = with(both, over(max.clone(), end.clone(), &keys, Some(before))?, BEFORE)?;
    // What is without a time is a group by itself, behind all others.
    let opens = start.clone().is_not_null().and(col(BEFORE).is_null().or(start.clone().gt_eq(col(BEFORE))));
    let plan = with(plan, when(opens, start.clone()).end()?, OPENS)?;
    let plan = with(plan, over(max.clone(), col(OPENS), &keys, Some(WindowFrameBound::CurrentRow))?, "__first")?;
    let plan = with(plan, when(start.clone().is_not_null(), col("__first")).end()?, START)?;
    let of_one: Vec<Expr> = keys.iter().cloned().chain([col(START)]).collect();
    let plan = with(plan, over(max, end.clone(), &of_one, None)?, END)?;
    let plan = with(plan, over(sum, weight(), &of_one, None)?, TOUCHED)?;
    let kept = columns.into_iter().chain([weight(), col(START), col(END)]);
    LogicalPlanBuilder::from(plan).filter(col(TOUCHED).gt(lit(0i64)))?.project(kept.collect::<Vec<_>>())?.build()
}

/// `plan` with a further column.
fn with(plan: LogicalPlan, expr: Expr, name: &str) -> DataFusionResult<LogicalPlan> {
    let mut columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let plan = LogicalPlanBuilder::from(plan);
    if !matches!(expr, Expr::WindowFunction(_)) {
        columns.push(expr.alias(name));
        return plan.project(columns)?.build();
    }
    let plan = plan.window([expr])?;
    let Some(added) = plan.schema().columns().pop() else {
        return datafusion::common::internal_err!("a window adds a column");
    };
    columns.push(Expr::Column(added).alias(name));
    plan.project(columns)?.build()
}

/// Places of the state's columns among those of joined sessions, with the bounds that each had.
fn own_bounds(stage: &Stage) -> Vec<usize> {
    (0..stage.schema.fields().len()).collect()
}

/// The same with the bounds of what it becomes.
fn joined_bounds(stage: &Stage, sessions: &Sessions) -> Vec<usize> {
    let mut places = own_bounds(stage);
    (places[sessions.start], places[sessions.end]) = (places.len() + 1, places.len() + 2);
    places
}

/// Joined sessions that are new, or that the state had.
fn side(stage: &Stage, joined: &[RecordBatch], is_new: bool, places: &[usize]) -> Result<Vec<RecordBatch>> {
    let of_side = |batch: &RecordBatch| {
        let weights = integers(batch, stage.schema.fields().len())?;
        let chosen: BooleanArray = weights.values().iter().map(|weight| Some((*weight > 0) == is_new)).collect();
        let rows = batch.project(places).external("a session has no bounds")?;
        conform(&filtered(&rows, &chosen)?, &stage.schema)
    };
    let sides = joined.iter().map(of_side).collect::<Result<Vec<_>>>()?;
    Ok(sides.into_iter().filter(|batch| batch.num_rows() > 0).collect())
}
