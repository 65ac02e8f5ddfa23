//! EXISTS, IN, ANY and ALL over an aggregate of all rows that belong to a row. Without GROUP BY it gives one row of none, too, which the engine
//! loses as it makes a join of the subquery: so they become what they say of that one row. Knows no names.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, Spans};
use datafusion::logical_expr::expr::SetQuantifier;
use datafusion::logical_expr::{
    Distinct, Expr, LogicalPlan, LogicalPlanBuilder, Operator, Projection, Subquery, SubqueryAlias, binary_expr, lit,
    not, when,
};
use datafusion::optimizer::AnalyzerRule;

use super::coercion::each_expression;

/// Comes before types are found.
#[derive(Debug)]
pub struct OneRow;

impl AnalyzerRule for OneRow {
    fn name(&self) -> &'static str {
        "one_row"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let written_out =
            plan.transform_up_with_subqueries(|node| each_expression(node, |expr, _| expr.transform_up(of_one_row)))?;
        Ok(written_out.data)
    }
}

fn of_one_row(expr: Expr) -> Result<Transformed<Expr>> {
    match expr {
        Expr::Exists(exists) => {
            let Some(row) = Row::of(&exists.subquery) else { return Ok(Transformed::no(Expr::Exists(exists))) };
            let is_there = row.is_there()?;
            Ok(Transformed::yes(if exists.negated { not(is_there) } else { is_there }))
        }
        Expr::InSubquery(of) => {
            let Some(row) = Row::of(&of.subquery) else { return Ok(Transformed::no(Expr::InSubquery(of))) };
            let op = if of.negated { Operator::NotEq } else { Operator::Eq };
            // Nothing is in no rows.
            row.compared(*of.expr, op, of.negated).map(Transformed::yes)
        }
        Expr::SetComparison(of) => {
            let Some(row) = Row::of(&of.subquery) else { return Ok(Transformed::no(Expr::SetComparison(of))) };
            // All of no rows are so, and none is.
            row.compared(*of.expr, of.op, of.quantifier == SetQuantifier::All).map(Transformed::yes)
        }
        other => Ok(Transformed::no(other)),
    }
}

/// The row of an aggregate without GROUP BY.
struct Row {
    /// Its values, whether it meets the condition or not.
    values: LogicalPlan,
    /// HAVING, over the aggregate.
    condition: Option<(Expr, LogicalPlan)>,
}

impl Row {
    /// None where the subquery isn't of that form, or doesn't hang on the row around it.
    fn of(subquery: &Subquery) -> Option<Self> {
        if subquery.outer_ref_columns.is_empty() {
            return None;
        }
        Self::in_plan(&subquery.subquery)
    }

    fn in_plan(plan: &LogicalPlan) -> Option<Self> {
        match plan {
            LogicalPlan::Distinct(Distinct::All(rows)) => Self::in_plan(rows),
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => {
                Some(Self { values: plan.clone(), condition: None })
            }
            LogicalPlan::Filter(having) => {
                let below = Self::in_plan(&having.input)?;
                let is_having = matches!(having.input.as_ref(), LogicalPlan::Aggregate(_));
                let condition = (having.predicate.clone(), below.values.clone());
                is_having.then_some(Self { condition: Some(condition), ..below })
            }
            LogicalPlan::Projection(projection) => {
                let below = Self::in_plan(&projection.input)?;
                let values = Projection::try_new(projection.expr.clone(), Arc::new(below.values)).ok()?;
                Some(Self { values: LogicalPlan::Projection(values), condition: below.condition })
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let below = Self::in_plan(&alias.input)?;
                let values = SubqueryAlias::try_new(Arc::new(below.values), alias.alias.clone()).ok()?;
                Some(Self { values: LogicalPlan::SubqueryAlias(values), condition: below.condition })
            }
            _ => None,
        }
    }

    /// What a comparison with its value says, or where there is no row, `of_none`.
    fn compared(&self, value: Expr, op: Operator, of_none: bool) -> Result<Expr> {
        let compared = binary_expr(value, op, scalar(self.values.clone()));
        match &self.condition {
            None => Ok(compared),
            Some(_) => when(self.is_there()?, compared).otherwise(lit(of_none)),
        }
    }

    /// Whether there is the row.
    fn is_there(&self) -> Result<Expr> {
        let Some((condition, aggregate)) = &self.condition else { return Ok(lit(true)) };
        let met =
            LogicalPlanBuilder::from(aggregate.clone()).project([condition.clone().alias("is_there")])?.build()?;
        Ok(scalar(met).is_true())
    }
}

/// The one value of a row.
fn scalar(row: LogicalPlan) -> Expr {
    let outer_ref_columns = row.all_out_ref_exprs();
    Expr::ScalarSubquery(Subquery { subquery: Arc::new(row), outer_ref_columns, spans: Spans::new() })
}
