//! Which columns of a result are estimates by design. Reads plans; knows no SQL text.

use std::collections::BTreeSet;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Estimates of percentiles hang on how rows are cut into parts. `approx_distinct` isn't among them: its registers are maxima, so
/// that the same rows give the same number however they come.
const ESTIMATES: [&str; 3] = ["approx_median", "approx_percentile_cont", "approx_percentile_cont_with_weight"];

/// Names of estimating aggregates that the plan calls.
///
/// # Errors
/// None that a bound plan gives.
pub fn estimates(plan: &LogicalPlan) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                found.extend(estimate(expr).map(str::to_owned));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// Columns of the result, by position, whose values come out of an estimate.
pub fn estimated_columns(plan: &LogicalPlan) -> BTreeSet<usize> {
    let below: Vec<(&LogicalPlan, BTreeSet<usize>)> =
        plan.inputs().into_iter().map(|input| (input, estimated_columns(input))).collect();
    let is_estimated = |expr: &Expr| {
        let calls = expr.exists(|expr| Ok(estimate(expr).is_some())).unwrap_or(true);
        calls
            || expr
                .column_refs()
                .into_iter()
                .any(|column| stands_in(&below, |schema| schema.maybe_index_of_column(column)))
    };
    let chosen = |exprs: &mut dyn Iterator<Item = &Expr>| {
        exprs.enumerate().filter(|(_, expr)| is_estimated(expr)).map(|(at, _)| at).collect::<BTreeSet<usize>>()
    };
    match plan {
        LogicalPlan::Projection(projection) => chosen(&mut projection.expr.iter()),
        LogicalPlan::Aggregate(aggregate) => chosen(&mut aggregate.group_expr.iter().chain(&aggregate.aggr_expr)),
        // The same columns under other names, or those of several inputs on top of one another.
        LogicalPlan::SubqueryAlias(_) | LogicalPlan::Union(_) => {
            below.into_iter().flat_map(|(_, found)| found).collect()
        }
        LogicalPlan::Window(window) => {
            let width = window.input.schema().fields().len();
            let added = chosen(&mut window.window_expr.iter()).into_iter().map(|at| width + at);
            below.iter().flat_map(|(_, found)| found.iter().copied()).chain(added).collect()
        }
        // The rest hands columns on by name.
        _ => {
            let is_kept = |at: &usize| {
                let (qualifier, field) = plan.schema().qualified_field(*at);
                stands_in(&below, |schema| schema.index_of_column_by_name(qualifier, field.name()))
            };
            (0..plan.schema().fields().len()).filter(is_kept).collect()
        }
    }
}

fn stands_in(below: &[(&LogicalPlan, BTreeSet<usize>)], find: impl Fn(&DFSchema) -> Option<usize>) -> bool {
    below.iter().any(|(input, found)| find(input.schema()).is_some_and(|at| found.contains(&at)))
}

fn estimate(expr: &Expr) -> Option<&str> {
    let name = match expr {
        Expr::AggregateFunction(function) => function.func.name(),
        Expr::WindowFunction(function) => function.fun.name(),
        _ => return None,
    };
    ESTIMATES.contains(&name).then_some(name)
}
