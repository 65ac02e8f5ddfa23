//! Only the rows of some keys: a semi join with the keys, put as low as it can stand. Knows no relation.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, JoinConstraint, JoinType, NullEquality, Result};
use datafusion::logical_expr::{Aggregate, Expr, Join, LogicalPlan, LogicalPlanBuilder, TableScan};

/// Name of keys in plans.
const KEYS: &str = "__keys";
/// Name of keys that only say what is of no use.
const HINT: &str = "__hint";

/// Which rows of an operator's result are asked for.
#[derive(Clone, Debug)]
pub(super) struct Restriction {
    /// Over the operator's columns.
    pub(super) exprs: Vec<Expr>,
    /// A scan of the keys, as many columns as there are expressions.
    pub(super) keys: LogicalPlan,
    /// Whether a null key asks for rows with nulls.
    pub(super) nulls: NullEquality,
    /// Whether other rows do no harm: they are dropped by whoever asks.
    pub(super) is_hint: bool,
}

impl Restriction {
    fn on(&self, exprs: Vec<Expr>) -> Self {
        Self { exprs, ..self.clone() }
    }

    /// What of the restriction is by expressions that `is_of` holds for; none where no expression is.
    fn part(&self, is_of: impl Fn(&Expr) -> bool) -> Result<Option<Self>> {
        let (mut exprs, mut columns) = (Vec::new(), Vec::new());
        for (expr, column) in self.exprs.iter().zip(self.keys.schema().columns()) {
            if is_of(expr) {
                exprs.push(expr.clone());
                columns.push(Expr::Column(column));
            }
        }
        if exprs.len() == self.exprs.len() {
            return Ok(Some(self.clone()));
        }
        if exprs.is_empty() {
            return Ok(None);
        }
        let some = LogicalPlanBuilder::from(self.keys.clone()).project(columns)?.distinct()?.build()?;
        Ok(Some(Self { exprs, keys: keys(some)?, ..self.clone() }))
    }
}

/// Names keys, so that [`matching_of`] knows them again.
pub(super) fn keys(plan: LogicalPlan) -> Result<LogicalPlan> {
    LogicalPlanBuilder::from(plan).alias(KEYS)?.build()
}

/// Names keys that are a hint.
pub(super) fn hint(plan: LogicalPlan) -> Result<LogicalPlan> {
    LogicalPlanBuilder::from(plan).alias(HINT)?.build()
}

/// The rows of `plan` that the restriction asks for.
pub(super) fn matching(plan: LogicalPlan, restriction: &Restriction) -> Result<LogicalPlan> {
    joined(plan, restriction, JoinType::LeftSemi)
}

/// The rows of `plan` that the restriction doesn't ask for.
pub(super) fn without(plan: LogicalPlan, restriction: &Restriction) -> Result<LogicalPlan> {
    joined(plan, restriction, JoinType::LeftAnti)
}

fn joined(plan: LogicalPlan, restriction: &Restriction, join_type: JoinType) -> Result<LogicalPlan> {
    let keys = restriction.keys.schema().columns().into_iter().map(Expr::Column);
    let on = restriction.exprs.iter().cloned().zip(keys).collect();
    let join = Join::try_new(
        Arc::new(plan),
        Arc::new(restriction.keys.clone()),
        on,
        None,
        join_type,
        JoinConstraint::On,
        restriction.nulls,
        false,
    )?;
    Ok(LogicalPlan::Join(join))
}

/// The scan that keys are asked of, and the restriction, where `node` is what [`matching`] made.
pub(super) fn matching_of(node: &LogicalPlan) -> Option<(TableScan, Restriction)> {
    let LogicalPlan::Join(join) = node else { return None };
    let LogicalPlan::TableScan(scan) = join.left.as_ref() else { return None };
    let LogicalPlan::SubqueryAlias(alias) = join.right.as_ref() else { return None };
    let is_hint = alias.alias.table() == HINT;
    if !(is_hint || alias.alias.table() == KEYS) || join.join_type != JoinType::LeftSemi {
        return None;
    }
    let exprs = join.on.iter().map(|(expr, _)| expr.clone()).collect();
    let keys = join.right.as_ref().clone();
    Some((scan.clone(), Restriction { exprs, keys, nulls: join.null_equality, is_hint }))
}

/// `plan` with the restriction as low as it can stand. The same rows as [`matching`] gives.
pub(super) fn restricted(plan: &LogicalPlan, restriction: &Restriction) -> Result<LogicalPlan> {
    if let Some((input, exprs)) = through_rows(plan, &restriction.exprs)? {
        let input = restricted(input, &restriction.on(exprs))?;
        return plan.with_new_exprs(plan.expressions(), vec![input]);
    }
    let below = match plan {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => Some(vec![restricted(&sort.input, restriction)?]),
        LogicalPlan::Union(union) => {
            let inputs = union.inputs.iter().map(|input| {
                let inner: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
                restricted(input, &restriction.on(through(&restriction.exprs, plan.schema(), &inner)?))
            });
            Some(inputs.collect::<Result<Vec<_>>>()?)
        }
        LogicalPlan::Window(window) => {
            let partition = crate::plan::maintain::common_partition(&window.window_expr);
            match restriction.part(|expr| partition.contains(expr))? {
                Some(whole) if whole.exprs.len() == restriction.exprs.len() => {
                    Some(vec![restricted(&window.input, &whole)?])
                }
                Some(of_partition) => {
                    let input = restricted(&window.input, &of_partition)?;
                    return matching(plan.with_new_exprs(plan.expressions(), vec![input])?, restriction);
                }
                None => None,
            }
        }
        LogicalPlan::Unnest(unnest) => {
            let known = restriction.exprs.iter().all(|expr| reads_only(expr, unnest.input.schema()));
            let unnested = |column: &Column| unnest.exec_columns.contains(column);
            let touched = restriction.exprs.iter().any(|expr| expr.column_refs().into_iter().any(unnested));
            if known && !touched { Some(vec![restricted(&unnest.input, restriction)?]) } else { None }
        }
        LogicalPlan::Aggregate(aggregate) => {
            let groups = group_exprs(aggregate, &restriction.exprs)?;
            groups
                .map(|exprs| restricted(&aggregate.input, &restriction.on(exprs)))
                .transpose()?
                .map(|input| vec![input])
        }
        LogicalPlan::Join(join) => join_sides(join, restriction)?,
        _ => None,
    };
    match below {
        Some(inputs) => plan.with_new_exprs(plan.expressions(), inputs),
        None => matching(plan.clone(), restriction),
    }
}

/// The lowest input under windows of which rows alike in `exprs` give the rows of `plan` that are alike in them: what is alike
/// in them in `plan` hangs on nothing else. `plan` itself where no such window is under it. Also `exprs` over that input.
pub(super) fn under_windows<'p>(plan: &'p LogicalPlan, exprs: &[Expr]) -> Result<(&'p LogicalPlan, Vec<Expr>)> {
    let (mut found, mut at, mut here) = ((plan, exprs.to_vec()), plan, exprs.to_vec());
    loop {
        if let Some((input, exprs)) = through_rows(at, &here)? {
            (at, here) = (input, exprs);
            continue;
        }
        let LogicalPlan::Window(window) = at else { return Ok(found) };
        let partition = crate::plan::maintain::common_partition(&window.window_expr);
        if !here.iter().all(|expr| partition.contains(expr)) {
            return Ok(found);
        }
        at = window.input.as_ref();
        found = (at, here.clone());
    }
}

/// The input of an operator that gives rows as they are, or computes each from itself, and `exprs` over it; none of another operator.
fn through_rows<'p>(plan: &'p LogicalPlan, exprs: &[Expr]) -> Result<Option<(&'p LogicalPlan, Vec<Expr>)>> {
    Ok(match plan {
        LogicalPlan::Projection(projection) => {
            Some((projection.input.as_ref(), through(exprs, plan.schema(), &projection.expr)?))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let inner: Vec<Expr> = alias.input.schema().columns().into_iter().map(Expr::Column).collect();
            Some((alias.input.as_ref(), through(exprs, plan.schema(), &inner)?))
        }
        LogicalPlan::Filter(filter) => Some((filter.input.as_ref(), exprs.to_vec())),
        _ => None,
    })
}

/// `plan` over `input` in the place of `base`, which is what [`under_windows`] gave.
pub(super) fn over(plan: &LogicalPlan, base: &LogicalPlan, input: LogicalPlan) -> Result<LogicalPlan> {
    if std::ptr::eq(plan, base) {
        return Ok(input);
    }
    match plan.inputs().as_slice() {
        [only] => plan.with_new_exprs(plan.expressions(), vec![over(only, base, input)?]),
        _ => datafusion::common::internal_err!("what stands under windows isn't there"),
    }
}

/// `exprs` over an aggregate's columns as expressions over its input; none where they are not of the group alone.
fn group_exprs(aggregate: &Aggregate, exprs: &[Expr]) -> Result<Option<Vec<Expr>>> {
    let is_set = aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_)));
    let groups = |column: &Column| {
        let at = aggregate.schema.maybe_index_of_column(column);
        at.is_some_and(|at| at < aggregate.group_expr.len())
    };
    let by_group = exprs.iter().all(|expr| {
        let columns = expr.column_refs();
        !columns.is_empty() && columns.into_iter().all(groups)
    });
    if is_set || !by_group {
        return Ok(None);
    }
    through(exprs, &aggregate.schema, &aggregate.group_expr).map(Some)
}

/// Both inputs of a join, restricted where that takes away only rows that the result wouldn't have; none where neither can be.
fn join_sides(join: &Join, restriction: &Restriction) -> Result<Option<Vec<LogicalPlan>>> {
    let of_left = restriction.exprs.iter().all(|expr| reads_only(expr, join.left.schema()));
    let of_right = restriction.exprs.iter().all(|expr| reads_only(expr, join.right.schema()));
    // Only rows of the side that a join keeps whole, or of an inner join, can be left out before it.
    let (left_whole, right_whole) = match join.join_type {
        JoinType::Inner => (true, true),
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (true, false),
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (false, true),
        JoinType::Full => (false, false),
    };
    if join.null_aware {
        return Ok(None);
    }
    let partner = |from_left: bool| -> Option<Vec<Expr>> {
        restriction
            .exprs
            .iter()
            .map(|expr| {
                let pair = join.on.iter().find(|(left, right)| if from_left { left == expr } else { right == expr })?;
                Some(if from_left { pair.1.clone() } else { pair.0.clone() })
            })
            .collect()
    };
    let other = |side: &LogicalPlan, exprs: Option<Vec<Expr>>| match exprs {
        Some(exprs) => restricted(side, &restriction.on(exprs)),
        None => Ok(side.clone()),
    };
    Ok(if of_left && left_whole {
        Some(vec![restricted(&join.left, restriction)?, other(&join.right, partner(true))?])
    } else if of_right && right_whole {
        Some(vec![other(&join.left, partner(false))?, restricted(&join.right, restriction)?])
    } else {
        None
    })
}

fn reads_only(expr: &Expr, schema: &DFSchema) -> bool {
    let columns = expr.column_refs();
    !columns.is_empty() && columns.into_iter().all(|column| schema.has_column(column))
}

/// `exprs` over an operator's columns as expressions over its input, where `inner` gives each column.
fn through(exprs: &[Expr], schema: &DFSchema, inner: &[Expr]) -> Result<Vec<Expr>> {
    let replace = |expr: &Expr| {
        expr.clone().transform_up(|expr| match &expr {
            Expr::Column(column) => match schema.maybe_index_of_column(column).and_then(|at| inner.get(at)) {
                Some(inner) => Ok(Transformed::yes(inner.clone().unalias_nested().data)),
                None => Ok(Transformed::no(expr)),
            },
            _ => Ok(Transformed::no(expr)),
        })
    };
    exprs.iter().map(|expr| replace(expr).map(|replaced| replaced.data)).collect()
}
