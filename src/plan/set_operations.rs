//! INTERSECT ALL and EXCEPT ALL as bags: the engine only asks whether a row has an equal one on the other side, and not how many.
//! Equal rows are numbered on both sides, and each meets the one of its own number. Knows no names.

use std::sync::Arc;

use arrow::row::{RowConverter, SortField};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, JoinType, NullEquality, Result, ScalarValue, plan_err};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{
    Distinct, Expr, ExprFunctionExt, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, SortExpr,
};

use super::total_order::{has_order, order_key};
use super::types::sql_name;

/// What the number of a row among its equals is called, on either side.
const NUMBERS: [&str; 2] = ["__tidemill_left_number", "__tidemill_right_number"];

/// The plan with each INTERSECT ALL and EXCEPT ALL as one of bags.
///
/// # Errors
/// A bug: the plan was bound before.
pub fn of_bags(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) if is_of_bags(&join) => numbered(&join).map(Transformed::yes),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

/// Whether a join stands for a set operation with ALL. Nothing else that SQL says has nulls equal in a semi or anti join before it
/// is optimized; without ALL the left side has no equal rows.
fn is_of_bags(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && join.filter.is_none()
        && !matches!(join.left.as_ref(), LogicalPlan::Distinct(Distinct::All(_)))
}

fn numbered(join: &Join) -> Result<LogicalPlan> {
    let (left, right) = join.on.iter().cloned().unzip();
    let (left, ours) = with_number(&join.left, left, NUMBERS[0])?;
    let (right, theirs) = with_number(&join.right, right, NUMBERS[1])?;
    let on = ours.into_iter().zip(theirs).collect();
    let (join_type, constraint, nulls) = (join.join_type, join.join_constraint, join.null_equality);
    let joined = Join::try_new(left.into(), right.into(), on, None, join_type, constraint, nulls, false)?;
    let columns = join.left.schema().columns().into_iter().map(Expr::Column);
    LogicalPlanBuilder::from(LogicalPlan::Join(joined)).project(columns)?.build()
}

/// The rows, each with its number among those that are equal by `values`, and what to join them by.
fn with_number(input: &Arc<LogicalPlan>, values: Vec<Expr>, name: &str) -> Result<(LogicalPlan, Vec<Expr>)> {
    let schema = input.schema();
    let mut keys = Vec::with_capacity(values.len() + 1);
    let mut order: Vec<SortExpr> = Vec::new();
    for value in values {
        let of = value.get_type(schema)?;
        if !RowConverter::supports_fields(&[SortField::new(of.clone())]) {
            return plan_err!(
                "INTERSECT ALL and EXCEPT ALL compare whole rows, and values of {} can't be",
                sql_name(&of)
            );
        }
        keys.push(match &of {
            // −0.0 and 0.0 are equal to a join and not to a window. Which of them is the first is told by its bits.
            of if of.is_floating() => {
                order.push(value.clone().sort(true, false));
                value + Expr::Literal(ScalarValue::new_zero(of)?, None)
            }
            of if !has_order(of) => order_key(value),
            _ => value,
        });
    }
    let number = row_number().partition_by(keys.clone());
    let number = if order.is_empty() { number.build()? } else { number.order_by(order).build()? };
    let width = schema.fields().len();
    let plan = LogicalPlanBuilder::from(Arc::clone(input)).window(vec![number])?.build()?;
    let columns = plan.schema().columns().into_iter().enumerate().map(|(at, column)| match at < width {
        true => Expr::Column(column),
        false => Expr::Column(column).alias(name),
    });
    let columns: Vec<Expr> = columns.collect();
    keys.push(Expr::Column(Column::new_unqualified(name)));
    Ok((LogicalPlanBuilder::from(plan).project(columns)?.build()?, keys))
}
