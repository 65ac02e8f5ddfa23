//! The change of an operator's result from the changes of its inputs; joins and aggregates have files of their own.

use std::sync::Arc;

use datafusion::common::{DFSchemaRef, NullEquality, Result as DataFusionResult};
use datafusion::logical_expr::{
    EmptyRelation, Expr, Filter, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias, TableScan, Window, lit,
};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::delta::{Delta, all_of, columns, in_memory, named_as, weighing, weight};
use super::restrict::{self, Restriction};
use super::{Engine, Version};
use crate::engine::failure;
use crate::error::Result;
use crate::plan::bind_scan;
use crate::plan::maintain::common_partition;

/// Whether the topmost operator that does anything looks at all rows.
pub(super) fn whole_top(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => whole_top(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => whole_top(&alias.input),
        LogicalPlan::Filter(filter) => whole_top(&filter.input),
        LogicalPlan::Limit(_) => true,
        LogicalPlan::Sort(sort) => sort.fetch.is_some() || whole_top(&sort.input),
        LogicalPlan::Window(window) => common_partition(&window.window_expr).is_empty(),
        _ => false,
    }
}

/// Rows before and after a change.
pub(super) struct Sides {
    pub(super) old: LogicalPlan,
    pub(super) new: LogicalPlan,
}

fn has_window(plan: &LogicalPlan) -> bool {
    use datafusion::common::tree_node::TreeNode;
    plan.exists(|node| Ok(matches!(node, LogicalPlan::Window(_)))).unwrap_or(true)
}

pub(super) fn nothing(schema: &DFSchemaRef) -> LogicalPlan {
    LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema: Arc::clone(schema) })
}

/// A change's rows, all of them with weight 1, without the weight.
pub(super) fn without_weight(plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let mut exprs = columns(plan.schema());
    exprs.pop();
    LogicalPlanBuilder::from(plan).project(exprs)?.build()
}

impl Engine<'_> {
    /// How the result of `plan` changes; none where it doesn't.
    pub(super) fn delta<'a>(&'a self, plan: &'a LogicalPlan) -> BoxFuture<'a, Result<Option<Delta>>> {
        async move {
            if !self.is_touched(plan).map_err(failure)? {
                return Ok(None);
            }
            match plan {
                LogicalPlan::TableScan(scan) => self.scan(scan).map_err(failure),
                LogicalPlan::Projection(projection) => {
                    let input = self.delta(&projection.input).await?;
                    linear(input, |input| {
                        let mut exprs = projection.expr.clone();
                        exprs.push(weight());
                        Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
                    })
                }
                LogicalPlan::Filter(filter) => {
                    let input = self.delta(&filter.input).await?;
                    linear(input, |input| {
                        Ok(LogicalPlan::Filter(Filter::try_new(filter.predicate.clone(), Arc::new(input))?))
                    })
                }
                LogicalPlan::SubqueryAlias(alias) => {
                    let input = self.delta(&alias.input).await?;
                    linear(input, |input| {
                        let aliased = SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?;
                        named_as(LogicalPlan::SubqueryAlias(aliased), plan.schema(), true)
                    })
                }
                LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.delta(&sort.input).await,
                LogicalPlan::Unnest(unnest) => {
                    let input = self.delta(&unnest.input).await?;
                    linear(input, |input| {
                        let columns = unnest.exec_columns.clone();
                        LogicalPlanBuilder::from(input)
                            .unnest_columns_with_options(columns, unnest.options.clone())?
                            .build()
                    })
                }
                LogicalPlan::Union(union) => {
                    let mut parts = Vec::new();
                    let mut insert_only = true;
                    for input in &union.inputs {
                        if let Some(delta) = self.delta(input).await? {
                            insert_only &= delta.insert_only;
                            parts.push(delta.plan);
                        }
                    }
                    let all = all_of(parts).map_err(failure)?;
                    let plan = all.map(|all| named_as(all, plan.schema(), true)).transpose().map_err(failure)?;
                    Ok(plan.map(|plan| Delta { plan, insert_only, is_settled: false }))
                }
                LogicalPlan::Join(join) if !join.null_aware => self.join(join).await,
                LogicalPlan::Window(window) => self.window(window, plan).await,
                other => self.whole(other).map_err(failure).map(Some),
            }
        }
        .boxed()
    }

    /// Whether a relation that `plan` reads is changed.
    pub(super) fn is_touched(&self, plan: &LogicalPlan) -> DataFusionResult<bool> {
        use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
        let mut is_touched = false;
        plan.apply(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                is_touched |= self.relation_of(scan).is_some_and(|relation| relation.is_changed());
            }
            Ok(if is_touched { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        Ok(is_touched)
    }

    fn scan(&self, scan: &TableScan) -> DataFusionResult<Option<Delta>> {
        let Some(relation) = self.relation_of(scan) else { return Ok(None) };
        let mut parts = Vec::new();
        for (tables, each) in [(&relation.added, 1), (&relation.removed, -1)] {
            for table in tables {
                parts.push(weighing(bind_scan(scan, table)?, each)?);
            }
        }
        let plan = all_of(parts)?;
        Ok(plan.map(|plan| Delta { plan, insert_only: relation.removed.is_empty(), is_settled: false }))
    }

    /// The result after less the result before.
    pub(super) fn whole(&self, plan: &LogicalPlan) -> DataFusionResult<Delta> {
        let new = weighing(self.at(plan, Version::New, None)?, 1)?;
        let old = weighing(self.at(plan, Version::Old, None)?, -1)?;
        let both = all_of(vec![new, old])?.unwrap_or_else(|| nothing(plan.schema()));
        Ok(Delta { plan: named_as(both, plan.schema(), true)?, insert_only: false, is_settled: false })
    }

    /// Partitions with changed rows are computed anew, and with them those of windows under this one that are parts of them: what
    /// they are of is read once.
    async fn window(&self, window: &Window, plan: &LogicalPlan) -> Result<Option<Delta>> {
        let partition = common_partition(&window.window_expr);
        if partition.is_empty() {
            return self.whole(plan).map_err(failure).map(Some);
        }
        let (base, partition) = restrict::under_windows(&window.input, &partition).map_err(failure)?;
        let Some(input) = self.settle(self.delta(base).await?).await? else { return Ok(None) };
        let Some(keys) = self.keys_of(&input, &partition, NullEquality::NullEqualsNull).await? else { return Ok(None) };
        let sides = self.before_and_after(base, Some(&input), &keys).await?;
        let over = |side: LogicalPlan, each: i64| {
            let input = restrict::over(&window.input, base, side)?;
            let window = Window::try_new(window.window_expr.clone(), Arc::new(input))?;
            weighing(named_as(LogicalPlan::Window(window), plan.schema(), false)?, each)
        };
        let parts = over(sides.new, 1).and_then(|new| Ok(vec![new, over(sides.old, -1)?]));
        let both = parts.and_then(all_of).map_err(failure)?;
        Ok(both.map(|plan| Delta { plan, insert_only: false, is_settled: false }))
    }

    /// The rows of some keys before the change, read once, and after it: those with the settled change.
    pub(super) async fn before_and_after(
        &self,
        plan: &LogicalPlan,
        delta: Option<&Delta>,
        keys: &Restriction,
    ) -> Result<Sides> {
        let old = self.held(plan, Version::Old, keys).await?;
        self.after(plan, old, delta, keys).await
    }

    /// The rows of some keys before the change, which are given, and after it.
    pub(super) async fn after(
        &self,
        plan: &LogicalPlan,
        old: LogicalPlan,
        delta: Option<&Delta>,
        keys: &Restriction,
    ) -> Result<Sides> {
        let Some(delta) = delta else { return Ok(Sides { new: old.clone(), old }) };
        if has_window(plan) {
            // Windows under windows, those of sessions, give rows of one time their neighbours in any order: what one run took
            // away another needn't have had.
            return Ok(Sides { old, new: self.held(plan, Version::New, keys).await? });
        }
        let both = weighing(old.clone(), 1).and_then(|old| all_of(vec![old, delta.plan.clone()])).map_err(failure)?;
        let both = both.map(|plan| Delta { plan, insert_only: delta.insert_only, is_settled: false });
        let new = match self.settle(both).await? {
            Some(settled) => without_weight(settled.plan).map_err(failure)?,
            None => nothing(plan.schema()),
        };
        Ok(Sides { old, new })
    }

    /// The rows of some keys in memory.
    pub(super) async fn held(&self, plan: &LogicalPlan, version: Version, keys: &Restriction) -> Result<LogicalPlan> {
        let batches = self.collect(self.at(plan, version, Some(keys)).map_err(failure)?).await?;
        match in_memory(&batches)? {
            Some(held) => named_as(held, plan.schema(), false).map_err(failure),
            None => Ok(nothing(plan.schema())),
        }
    }

    /// The distinct values of `exprs` in a settled change, as a restriction by them; none where there are none.
    pub(super) async fn keys_of(
        &self,
        delta: &Delta,
        exprs: &[Expr],
        nulls: NullEquality,
    ) -> Result<Option<Restriction>> {
        let named = exprs.iter().enumerate().map(|(at, expr)| expr.clone().alias(format!("k{at}")));
        let mut keys = LogicalPlanBuilder::from(delta.plan.clone());
        keys = keys.project(named).map_err(failure)?;
        if nulls == NullEquality::NullEqualsNothing {
            let known = (0..exprs.len()).map(|at| datafusion::logical_expr::col(format!("k{at}")).is_not_null());
            let known = known.reduce(Expr::and).unwrap_or_else(|| lit(true));
            keys = keys.filter(known).map_err(failure)?;
        }
        let keys = keys.distinct().and_then(LogicalPlanBuilder::build).map_err(failure)?;
        self.restriction(keys, exprs.to_vec(), nulls).await
    }

    /// The rows of `keys`, no two alike, as a restriction of `exprs`; none where there are none.
    pub(super) async fn restriction(
        &self,
        keys: LogicalPlan,
        exprs: Vec<Expr>,
        nulls: NullEquality,
    ) -> Result<Option<Restriction>> {
        let batches = self.collect(keys).await?;
        let Some(keys) = in_memory(&batches)? else { return Ok(None) };
        Ok(Some(Restriction { exprs, keys: restrict::keys(keys).map_err(failure)?, nulls, is_hint: false }))
    }
}

/// The change through an operator that treats each row for itself.
fn linear(
    input: Option<Delta>,
    through: impl FnOnce(LogicalPlan) -> DataFusionResult<LogicalPlan>,
) -> Result<Option<Delta>> {
    let Some(input) = input else { return Ok(None) };
    let plan = through(input.plan).map_err(failure)?;
    Ok(Some(Delta { plan, insert_only: input.insert_only, is_settled: false }))
}
