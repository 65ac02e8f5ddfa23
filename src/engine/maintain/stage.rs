//! An aggregate's state from its input's change: groups that changed are merged with what the state has of them, or computed
//! anew. Knows no other operator.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::Int64Type;
use datafusion::common::{Column, NullEquality, Result as DataFusionResult, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::expr_fn::{count, sum};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, TableScan, cast, col, lit,
};

use super::added_up::added_up;
use super::at::rows_of;
use super::delta::{Delta, Net, in_memory, named_as, table, weight, with_weight};
use super::merge::{Merged, merged};
use super::restrict::{self, Restriction};
use super::{Engine, Relation, Rows, Version};
use crate::engine::{conform, failure, memory_table};
use crate::error::{Error, Result, ResultExt};
use crate::plan::maintain::{Merge, Part, Stage};
use crate::plan::{RelationTable, bind_scan};

/// Column of changed groups: rows that went.
const GONE: &str = "__gone";

impl Engine<'_> {
    /// How the stage's state changes.
    pub(super) async fn advance_stage(&self, stage: &Stage) -> Result<Net> {
        if let Some(net) = self.merge_sessions(stage).await? {
            return Ok(net);
        }
        let Some(mut input) = self.delta(&stage.input).await? else { return Ok(Net::default()) };
        // Of a window that is run again most rows stay as they were: that isn't a change of groups that were let go.
        let lets_go = self.let_go.contains_key(stage.name.as_str());
        if !input.insert_only && (stage.has_irreversible_parts() || lets_go) {
            match self.settle(Some(input)).await? {
                Some(settled) => input = settled,
                None => return Ok(Net::default()),
            }
        }
        let touched = self.collect(changed_groups(stage, &input).map_err(failure)?).await?;
        let (kept, gone) = self.by_age(stage, touched)?;
        let mut net = self.advance_groups(stage, &input, kept).await?;
        if !gone.is_empty() {
            let rows = self.without_states(&stage.input).map_err(failure)?;
            let before = self.groups_anew(stage, (&rows, Version::Old), &gone).await?;
            let after = self.groups_anew(stage, (&rows, Version::New), &gone).await?;
            net.extend(difference(stage, &before, &after)?);
        }
        Ok(net)
    }

    /// How touched groups change from what the state has of them.
    async fn advance_groups(&self, stage: &Stage, input: &Delta, touched: Vec<RecordBatch>) -> Result<Net> {
        if touched.is_empty() {
            return Ok(Net::default());
        }
        let old = self.state_of(stage, &touched).await?;
        let (merging, rerunning) = by_way(stage, input, touched)?;
        let merged = self.merged(stage, &old, &merging)?;
        let mut net = merged.net()?;
        if !rerunning.is_empty() {
            let after = self.groups_anew(stage, (&stage.input, Version::New), &rerunning).await?;
            net.extend(difference(stage, &merged.unchanged()?, &after)?);
        }
        Ok(net)
    }

    /// The state's rows merged with how groups change, counted in memory.
    pub(super) fn merged(&self, stage: &Stage, old: &[RecordBatch], changed: &[RecordBatch]) -> Result<Merged> {
        let merged = merged(stage, old, changed)?;
        self.memory.take(merged.bytes(), merged.bytes())?;
        Ok(merged)
    }

    /// The stage's whole state, over relations as they are now.
    pub(super) fn whole_state(&self, stage: &Stage) -> DataFusionResult<LogicalPlan> {
        state_over(stage, self.at(&stage.input, Version::New, None)?)
    }

    /// The state's rows of the touched groups.
    async fn state_of(&self, stage: &Stage, touched: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        if let Some(arranged) = &self.state(stage)?.arranged {
            return arranged.find(touched);
        }
        let all: Vec<usize> = (0..stage.group.len()).collect();
        self.state_by(stage, touched, &all).await
    }

    fn state(&self, stage: &Stage) -> Result<&Relation> {
        let state = self.relations.get(&stage.name);
        state.ok_or_else(|| Error::internal("a stage's state wasn't given").with("stage", &stage.name))
    }

    /// The state's rows whose `columns`, some of the group's, are those of a touched one; all rows where there are none.
    pub(super) async fn state_by(
        &self,
        stage: &Stage,
        touched: &[RecordBatch],
        columns: &[usize],
    ) -> Result<Vec<RecordBatch>> {
        let scan = state_scan(stage).map_err(failure)?;
        let exprs = columns.iter().map(|at| of_state(stage, *at)).collect();
        let keys = groups(touched, columns, exprs)?;
        let plan = rows_of(&scan, &self.state(stage)?.old, keys.as_ref()).map_err(failure)?;
        let plan = self.without_gone(stage, plan).map_err(failure)?;
        let found = self.collect(plan).await?;
        found.iter().map(|batch| conform(batch, &stage.schema)).collect()
    }

    /// Groups computed anew from all their rows, those of a plan at a version.
    async fn groups_anew(
        &self,
        stage: &Stage,
        (input, version): (&LogicalPlan, Version),
        touched: &[RecordBatch],
    ) -> Result<Vec<RecordBatch>> {
        if touched.is_empty() {
            return Ok(vec![]);
        }
        let all: Vec<usize> = (0..stage.group.len()).collect();
        let restriction = groups(touched, &all, stage.group.clone())?;
        let input = self.at(input, version, restriction.as_ref()).map_err(failure)?;
        self.collect(state_over(stage, input).map_err(failure)?).await
    }
}

/// The values of some columns as a restriction of `exprs`; none where no column is named.
fn groups(rows: &[RecordBatch], columns: &[usize], exprs: Vec<Expr>) -> Result<Option<Restriction>> {
    if columns.is_empty() {
        return Ok(None);
    }
    let groups = rows.iter().map(|batch| batch.project(columns).external("a group has no columns"));
    let Some(keys) = in_memory(&groups.collect::<Result<Vec<_>>>()?)? else { return Ok(None) };
    let keys = restrict::keys(keys).map_err(failure)?;
    Ok(Some(Restriction { exprs, keys, nulls: NullEquality::NullEqualsNull, is_hint: false }))
}

/// A column of the state's scan.
fn of_state(stage: &Stage, at: usize) -> Expr {
    Expr::Column(Column::new(Some(stage.name.as_str()), stage.schema.field(at).name()))
}

/// The state's rows once they changed. A change has each group that it changes as it stood and as it stands: the other groups stay.
pub(super) fn rows_after(stage: &Stage, rows: &Rows, net: &Net) -> Result<LogicalPlan> {
    let scan = state_scan(stage).map_err(failure)?;
    let group: Vec<usize> = (0..stage.group.len()).collect();
    // Lists and structs can't be looked up.
    if group.is_empty() || group.iter().any(|at| stage.schema.field(*at).data_type().is_nested()) {
        let mut rows = rows.clone();
        rows.changes.extend(table(&net.weighted()?)?);
        return rows_of(&scan, &rows, None).map_err(failure);
    }
    let mut stay = rows_of(&scan, rows, None).map_err(failure)?;
    let exprs = group.iter().map(|at| of_state(stage, *at)).collect();
    if let Some(went) = groups(&net.removed, &group, exprs)? {
        stay = restrict::without(stay, &went).map_err(failure)?;
    }
    let Some(came) = memory_table(&stage.schema, &net.added)? else { return Ok(stay) };
    let came = bind_scan(&scan, &came).and_then(|came| LogicalPlanBuilder::from(stay).union(came)?.build());
    came.and_then(|rows| named_as(rows, &scan.projected_schema, false)).map_err(failure)
}

/// How rows of the stage's state change from `before` to `after`.
pub(super) fn difference(stage: &Stage, before: &[RecordBatch], after: &[RecordBatch]) -> Result<Net> {
    let mut changed = Vec::with_capacity(before.len() + after.len());
    for (batches, each) in [(before, -1), (after, 1)] {
        for batch in batches {
            changed.push(with_weight(&conform(batch, &stage.schema)?, each)?);
        }
    }
    Net::of(&added_up(&changed)?)
}

pub(super) fn integers(batch: &RecordBatch, at: usize) -> Result<&Int64Array> {
    let column = batch.columns().get(at).and_then(|column| column.as_primitive_opt::<Int64Type>());
    column.ok_or_else(|| Error::internal("a state's count isn't there"))
}

pub(super) fn filtered(batch: &RecordBatch, keep: &BooleanArray) -> Result<RecordBatch> {
    filter_record_batch(batch, keep).external("a change's rows can't be chosen")
}

pub(super) fn column(stage: &Stage, at: usize) -> Expr {
    Expr::Column(Column::new_unqualified(stage.schema.field(at).name()))
}

/// A placeholder scan of the state.
pub(super) fn state_scan(stage: &Stage) -> DataFusionResult<TableScan> {
    let table = Arc::new(RelationTable::new(&stage.name, Arc::clone(&stage.schema)));
    match LogicalPlanBuilder::scan(stage.name.as_str(), provider_as_source(table), None)?.build()? {
        LogicalPlan::TableScan(scan) => Ok(scan),
        other => datafusion::common::internal_err!("a scan is {}", other.display()),
    }
}

/// `plan`'s columns by position as the state's, maybe more behind them.
pub(super) fn renamed(plan: LogicalPlan, stage: &Stage) -> DataFusionResult<LogicalPlan> {
    let width = stage.schema.fields().len();
    let names = stage.schema.fields().iter().map(|field| field.name().as_str());
    let more = plan.schema().fields().len().saturating_sub(width);
    let exprs: Vec<Expr> = plan
        .schema()
        .columns()
        .into_iter()
        .zip(names.chain(std::iter::repeat_n(GONE, more)))
        .map(|(column, name)| Expr::Column(column).alias(name))
        .collect();
    LogicalPlanBuilder::from(plan).project(exprs)?.build()
}

/// `plan`'s columns by position, cast to the state's types and named so.
fn as_state(plan: LogicalPlan, stage: &Stage) -> DataFusionResult<LogicalPlan> {
    let mut exprs = Vec::new();
    for (at, field) in stage.schema.fields().iter().enumerate() {
        let (qualifier, have) = plan.schema().qualified_field(at);
        let column = Expr::Column(Column::from((qualifier, have)));
        let same = have.data_type() == field.data_type();
        exprs.push(if same { column } else { cast(column, field.data_type().clone()) }.alias(field.name()));
    }
    for at in stage.schema.fields().len()..plan.schema().fields().len() {
        exprs.push(Expr::Column(Column::from(plan.schema().qualified_field(at))).alias(GONE));
    }
    LogicalPlanBuilder::from(plan).project(exprs)?.build()
}

/// The state of the groups of `input`'s rows.
pub(super) fn state_over(stage: &Stage, input: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let mut aggregates = vec![count(lit(1i64)).alias("__n")];
    for (at, part) in stage.parts.iter().enumerate() {
        aggregates.push(part.aggregate.clone().unalias().alias(format!("__p{at}")));
    }
    let groups = named_groups(stage);
    let plan = Aggregate::try_new(Arc::new(input), groups, aggregates)?;
    as_state(LogicalPlan::Aggregate(plan), stage)
}

fn named_groups(stage: &Stage) -> Vec<Expr> {
    stage.group.iter().enumerate().map(|(at, expr)| expr.clone().unalias().alias(format!("__g{at}"))).collect()
}

/// For each group with changed rows, how its parts change: what came less what went, or only what came for parts that can't be
/// subtracted; and how many rows went.
pub(super) fn changed_groups(stage: &Stage, input: &Delta) -> DataFusionResult<LogicalPlan> {
    // Settled or not, a change's weights are 1 and −1.
    let came = if input.insert_only { None } else { Some(weight().gt(lit(0i64))) };
    let went = weight().lt(lit(0i64));
    let mut aggregates = vec![if input.insert_only { count(lit(1i64)) } else { sum(weight()) }.alias("__n")];
    for (at, part) in stage.parts.iter().enumerate() {
        aggregates.push(only(part, came.as_ref())?.alias(format!("__p{at}")));
        if !input.insert_only && matches!(part.merge, Merge::Add) {
            aggregates.push(only(part, Some(&went))?.alias(format!("__m{at}")));
        }
    }
    let gone = if input.insert_only { sum(lit(0i64)) } else { count_if(went) };
    aggregates.push(gone.alias(GONE));
    let rows = Arc::new(input.plan.clone());
    let plan = LogicalPlan::Aggregate(Aggregate::try_new(rows, named_groups(stage), aggregates)?);
    let mut exprs: Vec<Expr> = (0..stage.group.len()).map(|at| col(format!("__g{at}"))).collect();
    exprs.push(col("__n"));
    for (at, part) in stage.parts.iter().enumerate() {
        let came = col(format!("__p{at}"));
        exprs.push(match part.merge {
            Merge::Add if !input.insert_only => {
                let zero = Expr::Literal(ScalarValue::new_zero(&came.get_type(plan.schema())?)?, None);
                let known = |expr: Expr| coalesce(vec![expr, zero.clone()]);
                known(came) - known(col(format!("__m{at}")))
            }
            _ => came,
        });
    }
    exprs.push(col(GONE));
    let plan = LogicalPlanBuilder::from(plan).project(exprs)?.build()?;
    as_state(plan, stage)
}

fn count_if(condition: Expr) -> Expr {
    let filter = Some(Box::new(condition));
    Expr::AggregateFunction(AggregateFunction::new_udf(count_udaf(), vec![lit(1i64)], false, filter, vec![], None))
}

/// The part over the rows that meet `condition`.
fn only(part: &Part, condition: Option<&Expr>) -> DataFusionResult<Expr> {
    let aggregate = part.aggregate.clone().unalias();
    let (Expr::AggregateFunction(mut function), Some(condition)) = (aggregate.clone(), condition) else {
        return Ok(aggregate);
    };
    let both = match function.params.filter.take() {
        Some(own) => own.and(condition.clone()),
        None => condition.clone(),
    };
    function.params.filter = Some(Box::new(both));
    Ok(Expr::AggregateFunction(function))
}

/// Changed groups by how they go on: merged, or computed anew.
fn by_way(stage: &Stage, input: &Delta, touched: Vec<RecordBatch>) -> Result<(Vec<RecordBatch>, Vec<RecordBatch>)> {
    if stage.has_unmergeable_parts() {
        return Ok((vec![], touched));
    }
    if input.insert_only || !stage.has_irreversible_parts() {
        return Ok((touched, vec![]));
    }
    let (mut kept, mut lost) = (Vec::new(), Vec::new());
    for batch in touched {
        let gone = integers(&batch, stage.schema.fields().len())?;
        let loses: BooleanArray = gone.values().iter().map(|gone| Some(*gone > 0)).collect();
        let keeps = not(&loses).external("a change's rows can't be chosen")?;
        for (side, rows) in [(&mut lost, &loses), (&mut kept, &keeps)] {
            if rows.true_count() > 0 {
                side.push(filtered(&batch, rows)?);
            }
        }
    }
    Ok((kept, lost))
}
