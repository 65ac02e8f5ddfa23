//! `unnest` of a row's own list in FROM, LATERAL or not: the engine plans it as a subquery of each row, which it then can't run.
//! It becomes an unnest of the rows before it. Knows no names.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{
    Column, DFSchema, JoinType, NullHandling, Result, ScalarValue, UnnestOptions, plan_datafusion_err, plan_err,
};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder, Subquery, Unnest};
use datafusion::optimizer::Optimizer;
use datafusion::optimizer::decorrelate_lateral_join::DecorrelateLateralJoin;

/// What a FROM is told that reads the tables before it in a way that the engine can't run.
pub const NOT_RUN: &str = "this reads columns of the tables before it in a way that can't be run";

/// Begins the names of lists on their way into rows. They have no qualifier: the engine's rules lose it.
const ITEM: &str = "__tidemill_item";

/// The plan with each unnest of a row's own list as one of the rows before it.
///
/// # Errors
/// [`NOT_RUN`], of a subquery of each row that the engine can't run in any form.
pub fn without_laterals(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut number = 0;
    let plan = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Join(join) = &node else { return Ok(Transformed::no(node)) };
        if let Some((before, after)) = with_rows_before(join)? {
            let Some(left) = unnested(&before, &mut number)? else { return Ok(Transformed::no(node)) };
            return Ok(Transformed::yes(LogicalPlan::Join(Join { left: left.into(), ..after })));
        }
        let has_lateral = matches!(bare(&join.right), LogicalPlan::Subquery(_));
        let rewritten = if has_lateral { unnested(join, &mut number)? } else { None };
        Ok(rewritten.map_or_else(|| Transformed::no(node), Transformed::yes))
    })?;
    runnable(state, plan.data)
}

/// `a, unnest(…) u JOIN b` as `(a, unnest(…) u) JOIN b`: the join with the subquery alone, and the one that comes after. None where it
/// isn't of that form.
fn with_rows_before(join: &Join) -> Result<Option<(Join, Join)>> {
    let LogicalPlan::Join(after) = join.right.as_ref() else { return Ok(None) };
    let has_lateral = matches!(bare(&after.left), LogicalPlan::Subquery(_));
    let is_product =
        join.join_type == JoinType::Inner && join.on.is_empty() && join.filter.as_ref().is_none_or(is_true);
    if !has_lateral || !is_product || !matches!(after.join_type, JoinType::Inner | JoinType::Left) {
        return Ok(None);
    }
    let joined = |left: &Arc<LogicalPlan>, right: &Arc<LogicalPlan>, of: &Join| {
        let (on, filter) = (of.on.clone(), of.filter.clone());
        let (left, right) = (Arc::clone(left), Arc::clone(right));
        Join::try_new(left, right, on, filter, of.join_type, of.join_constraint, of.null_equality, of.null_aware)
    };
    let before = joined(&join.left, &after.left, join)?;
    let after = joined(&Arc::new(LogicalPlan::Join(before.clone())), &after.right, after)?;
    Ok(Some((before, after)))
}

fn is_true(filter: &Expr) -> bool {
    matches!(filter, Expr::Literal(ScalarValue::Boolean(Some(true)), _))
}

/// The plan, if the engine makes joins of all subqueries of a row that are left. Of one with a window it makes a join too, and the window
/// would be over the rows of all rows.
fn runnable(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    if !has_laterals(&plan, |_| Ok(true))? {
        return Ok(plan);
    }
    if has_laterals(&plan, is_window_of_a_row)? {
        return plan_err!("{NOT_RUN}");
    }
    let rule = Optimizer::with_rules(vec![Arc::new(DecorrelateLateralJoin::new())]);
    match has_laterals(&rule.optimize(plan.clone(), state, |_, _| {})?, |_| Ok(true))? {
        true => plan_err!("{NOT_RUN}"),
        false => Ok(plan),
    }
}

/// Whether a subquery of each row for which `is` so stands in a FROM.
fn has_laterals(plan: &LogicalPlan, is: impl Fn(&Subquery) -> Result<bool>) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Join(join) = node
            && let LogicalPlan::Subquery(subquery) = bare(&join.right)
        {
            found |= is(subquery)?;
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Whether a subquery that reads columns of the tables before it has a window.
fn is_window_of_a_row(subquery: &Subquery) -> Result<bool> {
    let has_window = subquery.subquery.exists(|node| Ok(matches!(node, LogicalPlan::Window(_))))?;
    Ok(has_window && !subquery.outer_ref_columns.is_empty())
}

fn bare(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => bare(&alias.input),
        other => other,
    }
}

/// A join with a subquery of each row that only unnests, filters and computes; none for another one.
fn unnested(join: &Join, number: &mut usize) -> Result<Option<LogicalPlan>> {
    let condition = join.filter.as_ref().filter(|filter| !is_true(filter));
    let keeps_all = match join.join_type {
        JoinType::Inner => false,
        // A condition would have to be asked of every item before the row is known to have none.
        JoinType::Left if condition.is_none() && join.on.is_empty() => true,
        _ => return Ok(None),
    };
    let left = join.left.as_ref();
    let mut applied = Applied { plan: left.clone(), left: left.schema().as_ref(), keeps_all, number };
    let Some(values) = applied.apply(&join.right)? else { return Ok(None) };
    if keeps_all && !values.iter().all(|value| matches!(value, Expr::Column(column) if is_item(column))) {
        return Ok(None);
    }
    let mut plan = applied.plan;
    let right = join.right.schema();
    let conditions = join.on.iter().map(|(one, other)| one.clone().eq(other.clone())).chain(condition.cloned());
    if let Some(condition) = conditions.reduce(Expr::and) {
        plan = LogicalPlanBuilder::from(plan).filter(replaced(condition, right, &values, left.schema())?)?.build()?;
    }
    let named = values.into_iter().zip(right.iter());
    let named = named.map(|(value, (qualifier, field))| value.alias_qualified(qualifier.cloned(), field.name()));
    let exprs = left.schema().columns().into_iter().map(Expr::Column).chain(named);
    LogicalPlanBuilder::from(plan).project(exprs)?.build().map(Some)
}

fn is_item(column: &Column) -> bool {
    column.relation.is_none() && column.name.starts_with(ITEM)
}

fn unnamed(expr: Expr) -> Expr {
    match expr {
        Expr::Alias(alias) => unnamed(*alias.expr),
        other => other,
    }
}

/// The rows before, and what a subquery has made of each so far.
struct Applied<'a> {
    plan: LogicalPlan,
    left: &'a DFSchema,
    keeps_all: bool,
    /// Makes names of items different.
    number: &'a mut usize,
}

impl Applied<'_> {
    /// Applies `subquery` to each row: the values of its columns over the plan. None where it does more than can be done here.
    fn apply(&mut self, subquery: &LogicalPlan) -> Result<Option<Vec<Expr>>> {
        match subquery {
            LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => Ok(Some(vec![])),
            LogicalPlan::SubqueryAlias(alias) => self.apply(&alias.input),
            LogicalPlan::Subquery(inner) => self.apply(&inner.subquery),
            LogicalPlan::Projection(projection) => {
                let Some(values) = self.apply(&projection.input)? else { return Ok(None) };
                let input = projection.input.schema();
                let exprs = projection.expr.iter().map(|expr| replaced(expr.clone(), input, &values, self.left));
                exprs.map(|expr| Ok(unnamed(expr?))).collect::<Result<_>>().map(Some)
            }
            LogicalPlan::Filter(filter) if !self.keeps_all => {
                let Some(values) = self.apply(&filter.input)? else { return Ok(None) };
                let predicate = replaced(filter.predicate.clone(), filter.input.schema(), &values, self.left)?;
                let plan = std::mem::take(&mut self.plan);
                self.plan = LogicalPlanBuilder::from(plan).filter(predicate)?.build()?;
                Ok(Some(values))
            }
            LogicalPlan::Unnest(unnest) => {
                // Of two, one inside of the other, the outer one's rows without items would stay with the inner one's.
                if self.keeps_all && !matches!(unnest.input.as_ref(), LogicalPlan::Projection(_)) {
                    return Ok(None);
                }
                let Some(values) = self.apply(&unnest.input)? else { return Ok(None) };
                if self.keeps_all && values.iter().any(|value| value.column_refs().into_iter().any(is_item)) {
                    return Ok(None);
                }
                self.unnest(unnest, values).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// A name that nothing has.
    fn item(&mut self) -> Column {
        *self.number += 1;
        Column::from_name(format!("{ITEM}{}", self.number))
    }

    /// Unnests the values of an unnest's input: what comes of each stands under a name of its own.
    fn unnest(&mut self, unnest: &Unnest, values: Vec<Expr>) -> Result<Vec<Expr>> {
        let input = unnest.input.schema();
        let names: Vec<Column> = values.iter().map(|_| self.item()).collect();
        let kept = self.plan.schema().columns();
        let named = values.into_iter().zip(&names);
        let named = named.map(|(value, name)| value.alias(&name.name));
        let exprs: Vec<Expr> = kept.iter().cloned().map(Expr::Column).chain(named).collect();
        let renamed = |column: &Column| -> Result<Column> {
            let at = input.index_of_column(column)?;
            names.get(at).cloned().ok_or_else(|| plan_datafusion_err!("an unnest lacks its column {column}"))
        };
        let columns = unnest.exec_columns.iter().map(renamed).collect::<Result<Vec<_>>>()?;
        let mut options = UnnestOptions::new().with_null_handling(match self.keeps_all {
            true => NullHandling::PreserveAndExpandEmpty,
            false => unnest.options.null_handling,
        });
        // Lists of lists come out under names of their own as well, which stand for the columns of the result in order.
        for recursion in &unnest.options.recursions {
            let mut recursion = recursion.clone();
            recursion.input_column = renamed(&recursion.input_column)?;
            recursion.output_column = self.item();
            options.recursions.push(recursion);
        }
        let plan = LogicalPlanBuilder::from(std::mem::take(&mut self.plan)).project(exprs)?;
        self.plan = plan.unnest_columns_with_options(columns, options)?.build()?;
        Ok(self.plan.schema().columns().into_iter().skip(kept.len()).map(Expr::Column).collect())
    }
}

/// `expr` over a subquery's columns and those of the rows before, as one over the values of the former beside the latter.
fn replaced(expr: Expr, schema: &DFSchema, values: &[Expr], left: &DFSchema) -> Result<Expr> {
    let replaced = expr.transform(|expr| match &expr {
        Expr::Column(column) => match schema.maybe_index_of_column(column).and_then(|at| values.get(at)) {
            Some(value) => Ok(Transformed::new(value.clone(), true, TreeNodeRecursion::Jump)),
            None => Ok(Transformed::no(expr)),
        },
        Expr::OuterReferenceColumn(_, column) if left.has_column(column) => {
            Ok(Transformed::new(Expr::Column(column.clone()), true, TreeNodeRecursion::Jump))
        }
        _ => Ok(Transformed::no(expr)),
    })?;
    Ok(replaced.data)
}
