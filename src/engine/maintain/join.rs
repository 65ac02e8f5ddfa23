//! The change of a join. A side's changed rows look up the other side; only keys that changed on the looked-up side are run
//! again. Knows no other operator.

use std::sync::Arc;

use datafusion::common::{JoinType, NullEquality, Result as DataFusionResult};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder, Projection, TableScan};

use super::delta::{Delta, all_of, columns, named_as, weighing, weight};
use super::derive::Sides;
use super::restrict::{Restriction, hint, matching};
use super::{Engine, Version};
use crate::engine::failure;
use crate::error::{Error, Result};

/// A side of a join.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }

    pub(super) fn of(self, join: &Join) -> &LogicalPlan {
        match self {
            Self::Left => &join.left,
            Self::Right => &join.right,
        }
    }

    fn keys(self, join: &Join) -> Vec<Expr> {
        join.on.iter().map(|(left, right)| if self == Self::Left { left.clone() } else { right.clone() }).collect()
    }
}

impl Engine<'_> {
    /// The change of `join`, which isn't null-aware.
    pub(super) async fn join(&self, join: &Join) -> Result<Option<Delta>> {
        let left = self.settle(self.delta(&join.left).await?).await?;
        let right = self.settle(self.delta(&join.right).await?).await?;
        if left.is_none() && right.is_none() {
            return Ok(None);
        }
        match join.join_type {
            JoinType::Inner => self.inner(join, left, right).await,
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
                self.one_sided(join, Side::Left, left, right).await
            }
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
                self.one_sided(join, Side::Right, right, left).await
            }
            JoinType::Full => self.full(join, left, right).await,
        }
    }

    /// ΔA ⋈ B + A' ⋈ ΔB.
    async fn inner(&self, join: &Join, left: Option<Delta>, right: Option<Delta>) -> Result<Option<Delta>> {
        let mut parts = Vec::new();
        let mut insert_only = true;
        for (side, delta, version) in [(Side::Left, left, Version::Old), (Side::Right, right, Version::New)] {
            let Some(delta) = delta else { continue };
            insert_only &= delta.insert_only;
            let other = self.partners(join, side, &delta, version).await?;
            parts.push(joined(join, side, delta.plan, other).map_err(failure)?);
        }
        let plan = all_of(parts).map_err(failure)?;
        Ok(plan.map(|plan| Delta { plan, insert_only, is_settled: false }))
    }

    /// A join that keeps the rows of one side: linear in that side, f(ΔA, B); and for the keys K of ΔB,
    /// f(A'|K, B') − f(A'|K, B), or what that comes to where rows only came to B.
    async fn one_sided(
        &self,
        join: &Join,
        kept: Side,
        own: Option<Delta>,
        others: Option<Delta>,
    ) -> Result<Option<Delta>> {
        let (mut parts, mut insert_only) = (Vec::new(), true);
        let looked_up = kept.other();
        let keys = looked_up.keys(join);
        let touched = match &others {
            // Null keys meet nothing, unless nulls are equal.
            Some(delta) if !keys.is_empty() => self.keys_of(delta, &keys, join.null_equality).await?,
            _ => None,
        };
        let once = match (&own, &touched) {
            (Some(own), Some(touched)) => Some(self.partners_of_both(join, kept, own, touched).await?),
            _ => None,
        };
        if let Some(delta) = own {
            insert_only &= delta.insert_only;
            let other = match &once {
                Some(rows) => rows.clone(),
                None => self.partners(join, kept, &delta, Version::Old).await?,
            };
            parts.push(joined(join, kept, delta.plan, other).map_err(failure)?);
        }
        if let Some(delta) = others {
            if touched.is_none() && !keys.is_empty() {
                return finished(parts, insert_only);
            }
            let (rows, sides) = match &touched {
                Some(touched) => {
                    let on = |side: Side| Restriction { exprs: side.keys(join), ..touched.clone() };
                    let rows = self.held(kept.of(join), Version::New, &on(kept)).await?;
                    let once = once.map(|once| matching(once, &on(looked_up))).transpose().map_err(failure)?;
                    if delta.insert_only {
                        let met = self.first_partners((join, kept), rows, &delta, once).await?;
                        insert_only &= met.as_ref().is_none_or(|met| met.insert_only);
                        parts.extend(met.map(|met| met.plan));
                        return finished(parts, insert_only);
                    }
                    let old = match once {
                        Some(once) => once,
                        None => self.held(looked_up.of(join), Version::Old, &on(looked_up)).await?,
                    };
                    (rows, self.after(looked_up.of(join), old, Some(&delta), &on(looked_up)).await?)
                }
                None => {
                    let at = |side: Side, version| self.at(side.of(join), version, None).map_err(failure);
                    let sides = Sides { old: at(looked_up, Version::Old)?, new: at(looked_up, Version::New)? };
                    (at(kept, Version::New)?, sides)
                }
            };
            insert_only = false;
            for (other, each) in [(sides.new, 1), (sides.old, -1)] {
                let rerun = rejoined(join, kept, rows.clone(), other)
                    .and_then(|plan| weighing(named_as(plan, &join.schema, false)?, each));
                parts.push(rerun.map_err(failure)?);
            }
        }
        finished(parts, insert_only)
    }

    /// For all keys that changed on either side, the join after less the join before.
    async fn full(&self, join: &Join, left: Option<Delta>, right: Option<Delta>) -> Result<Option<Delta>> {
        let plan = LogicalPlan::Join(join.clone());
        let mut keys = Vec::new();
        for (side, delta) in [(Side::Left, &left), (Side::Right, &right)] {
            let Some(delta) = delta else { continue };
            let named = side.keys(join).into_iter().enumerate().map(|(at, expr)| expr.alias(format!("k{at}")));
            let projected = LogicalPlanBuilder::from(delta.plan.clone()).project(named);
            keys.push(projected.and_then(LogicalPlanBuilder::build).map_err(failure)?);
        }
        let all = all_of(keys).map_err(failure)?.map(|all| LogicalPlanBuilder::from(all).distinct());
        let touched = match all {
            Some(all) if !join.on.is_empty() => {
                let all = all.and_then(LogicalPlanBuilder::build).map_err(failure)?;
                self.restriction(all, vec![], NullEquality::NullEqualsNull).await?
            }
            _ => None,
        };
        let Some(touched) = touched else { return self.whole(&plan).map_err(failure).map(Some) };
        // Rows with a null key stay by themselves, so that they are run again where one of them changed.
        let on = |side: Side| Restriction { exprs: side.keys(join), ..touched.clone() };
        let lefts = self.before_and_after(&join.left, left.as_ref(), &on(Side::Left)).await?;
        let rights = self.before_and_after(&join.right, right.as_ref(), &on(Side::Right)).await?;
        let mut parts = Vec::new();
        for (left, right, each) in [(lefts.new, rights.new, 1), (lefts.old, rights.old, -1)] {
            let rerun = rejoined(join, Side::Left, left, right)
                .and_then(|plan| weighing(named_as(plan, &join.schema, false)?, each));
            parts.push(rerun.map_err(failure)?);
        }
        finished(parts, false)
    }

    /// The rows that the looked-up side had of keys that changed on either side, read once.
    async fn partners_of_both(
        &self,
        join: &Join,
        kept: Side,
        own: &Delta,
        touched: &Restriction,
    ) -> Result<LogicalPlan> {
        let keys = match self.keys_of(own, &kept.keys(join), join.null_equality).await? {
            Some(own) => {
                let both = all_of(vec![own.keys, touched.keys.clone()]).map_err(failure)?;
                let both = both.map(|both| LogicalPlanBuilder::from(both).distinct()?.build()).transpose();
                let both = both.map_err(failure)?.ok_or_else(|| Error::internal("there are keys"))?;
                self.restriction(both, vec![], join.null_equality).await?
            }
            None => None,
        };
        let looked_up = kept.other();
        let keys = Restriction { exprs: looked_up.keys(join), ..keys.unwrap_or_else(|| touched.clone()) };
        self.held(looked_up.of(join), Version::Old, &keys).await
    }

    /// The rows of the side opposite to `side` that the change's rows may meet.
    pub(super) async fn partners(
        &self,
        join: &Join,
        side: Side,
        delta: &Delta,
        version: Version,
    ) -> Result<LogicalPlan> {
        let other = side.other();
        let keys = match (join.on.is_empty(), is_plain_scan(other.of(join))) {
            (true, _) => None,
            // It is cut down by the join itself, by the keys of its smaller side: what is left to say is where these can't stand.
            (false, true) => Some(hint_of(join, side, delta).map_err(failure)?),
            (false, false) => self.keys_of(delta, &side.keys(join), join.null_equality).await?,
        };
        let keys = keys.map(|keys| Restriction { exprs: other.keys(join), ..keys });
        self.at(other.of(join), version, keys.as_ref()).map_err(failure)
    }
}

fn finished(parts: Vec<LogicalPlan>, insert_only: bool) -> Result<Option<Delta>> {
    let plan = all_of(parts).map_err(failure)?;
    Ok(plan.map(|plan| Delta { plan, insert_only, is_settled: false }))
}

/// The keys of a settled change's rows, which are in memory, for the other side to be looked up by.
fn hint_of(join: &Join, side: Side, delta: &Delta) -> DataFusionResult<Restriction> {
    let named = side.keys(join).into_iter().enumerate().map(|(at, expr)| expr.alias(format!("k{at}")));
    let keys = LogicalPlanBuilder::from(delta.plan.clone()).project(named)?.build()?;
    Ok(Restriction { exprs: vec![], keys: hint(keys)?, nulls: join.null_equality, is_hint: true })
}

/// Whether the plan reads one source or model row by row.
fn is_plain_scan(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => is_plain_scan(&projection.input),
        LogicalPlan::Filter(filter) => is_plain_scan(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => is_plain_scan(&alias.input),
        LogicalPlan::TableScan(TableScan { table_name, .. }) => !table_name.table().starts_with('#'),
        _ => false,
    }
}

/// The join with other inputs, `one` on `side`.
pub(super) fn rejoined(join: &Join, side: Side, one: LogicalPlan, other: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    joined_as(join, join.join_type, side, one, other)
}

/// The same as a join of another type.
pub(super) fn joined_as(
    join: &Join,
    join_type: JoinType,
    side: Side,
    one: LogicalPlan,
    other: LogicalPlan,
) -> DataFusionResult<LogicalPlan> {
    let (left, right) = if side == Side::Left { (one, other) } else { (other, one) };
    Ok(LogicalPlan::Join(Join::try_new(
        Arc::new(left),
        Arc::new(right),
        join.on.clone(),
        join.filter.clone(),
        join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?))
}

/// A change of `side` joined with rows of the other; the change's weight comes last.
fn joined(join: &Join, side: Side, delta: LogicalPlan, other: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let plan = rejoined(join, side, delta, other)?;
    let is_weight = |expr: &Expr| *expr == weight();
    let mut exprs: Vec<Expr> = columns(plan.schema()).into_iter().filter(|expr| !is_weight(expr)).collect();
    exprs.push(weight());
    let plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?);
    named_as(plan, &join.schema, true)
}
