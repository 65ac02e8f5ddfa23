//! `f(x) FILTER (WHERE …)`: the engine computes x of every row and then looks which it takes; x may fail of the others. What may fail is
//! computed of the rows that are taken. Knows no columns.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{AggregateFunction, Case};
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

use super::coercion::each_expression;

/// Comes behind the rule that finds types.
#[derive(Debug)]
pub struct Filtered;

impl AnalyzerRule for Filtered {
    fn name(&self) -> &'static str {
        "filtered"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let guarded = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Aggregate(_) => each_expression(node, guarded)?.map_data(LogicalPlan::recompute_schema),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(guarded.data)
    }
}

fn guarded(expr: Expr, _: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        let Expr::AggregateFunction(AggregateFunction { func, mut params }) = expr else {
            return Ok(Transformed::no(expr));
        };
        let mut is_changed = false;
        if let Some(filter) = &params.filter {
            for arg in &mut params.args {
                // Constants say what a function is to do, such as which percentile.
                if is_guarded(arg, filter) || arg.column_refs().is_empty() || !may_fail(arg)? {
                    continue;
                }
                let taken = (filter.clone(), Box::new(std::mem::take(arg)));
                *arg = Expr::Case(Case { expr: None, when_then_expr: vec![taken], else_expr: None });
                is_changed = true;
            }
        }
        let call = Expr::AggregateFunction(AggregateFunction { func, params });
        Ok(if is_changed { Transformed::yes(call) } else { Transformed::no(call) })
    })
}

fn is_guarded(arg: &Expr, filter: &Expr) -> bool {
    matches!(arg, Expr::Case(case) if case.when_then_expr.first().is_some_and(|(when, _)| when.as_ref() == filter))
}

/// Whether computing it may fail of some row.
fn may_fail(expr: &Expr) -> Result<bool> {
    expr.exists(|expr| {
        Ok(match expr {
            Expr::BinaryExpr(binary) => matches!(binary.op, Operator::Divide | Operator::Modulo),
            Expr::Cast(_) | Expr::ScalarFunction(_) => true,
            _ => false,
        })
    })
}
