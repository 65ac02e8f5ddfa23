//! min, max and any_value as functions of bags: of floats in their total order, since which of a NaN and a number or of two zeros
//! the engine keeps hangs on the order of rows; and any value is the least. Over windows, bool_or and bool_and are extrema of booleans,
//! since the engine's own can't follow a frame that moves; what subtracts there is another function (`moving.rs`). Knows no names.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Aggregate, AggregateUDF, Expr, ExprSchemable, LogicalPlan, Projection, Window, WindowFunctionDefinition, cast,
};

use super::float_bits::{are_of, bits_of, float_of};
use super::moving::moving;

/// The plan with all of its extrema so.
///
/// # Errors
/// A bug: the plan was bound before.
pub fn extrema_in_order(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(in_order).map(|transformed| transformed.data)
}

/// An aggregate or a window over integers in the order of its floats, and a projection that makes floats of what it gives.
pub fn in_order(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let (exprs, input) = match &node {
        LogicalPlan::Aggregate(aggregate) => (&aggregate.aggr_expr, &aggregate.input),
        LogicalPlan::Window(window) => (&window.window_expr, &window.input),
        _ => return Ok(Transformed::no(node)),
    };
    let names = NamePreserver::new(&node);
    let mut ordered = Vec::with_capacity(exprs.len());
    let mut floats = Vec::with_capacity(exprs.len());
    let mut is_changed = false;
    for expr in exprs {
        let name = names.save(expr);
        let extremum = of_integers(expr.clone(), input.schema())?;
        is_changed |= extremum.is_changed;
        ordered.push(name.restore(extremum.expr));
        floats.push(extremum.float);
    }
    if !is_changed {
        return Ok(Transformed::no(node));
    }
    let first = node.schema().fields().len() - exprs.len();
    let plan = match &node {
        LogicalPlan::Aggregate(aggregate) => {
            let group = aggregate.group_expr.clone();
            LogicalPlan::Aggregate(Aggregate::try_new(Arc::clone(input), group, ordered)?)
        }
        _ => LogicalPlan::Window(Window::try_new(ordered, Arc::clone(input))?),
    };
    if floats.iter().all(Option::is_none) {
        return Ok(Transformed::yes(plan));
    }
    let columns = plan.schema().columns().into_iter().enumerate();
    let columns = columns.map(|(at, column)| match at.checked_sub(first).and_then(|at| floats[at].as_ref()) {
        Some(float) => as_float(column, float),
        None => Expr::Column(column),
    });
    let columns = columns.collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?)))
}

struct Extremum {
    expr: Expr,
    is_changed: bool,
    /// The float that its value stands for.
    float: Option<DataType>,
}

fn of_integers(expr: Expr, input: &DFSchema) -> Result<Extremum> {
    let mut float = None;
    let mut ordered = |args: &mut Vec<Expr>| -> Result<()> {
        let [arg] = args.as_mut_slice() else { return Ok(()) };
        // The type of a client's parameter isn't known before it is bound.
        let Ok(found) = arg.get_type(input) else { return Ok(()) };
        if found.is_floating() {
            let known = if are_of(&found) { std::mem::take(arg) } else { cast(std::mem::take(arg), DataType::Float32) };
            *arg = bits_of(known);
            float = Some(found);
        }
        Ok(())
    };
    let transformed = expr.transform_up(|expr| match expr {
        Expr::AggregateFunction(mut call) if is_extremum(call.func.name()) => {
            if call.func.name() == "any_value" {
                call.func = min_udaf();
                call.params.null_treatment = None;
            }
            ordered(&mut call.params.args)?;
            Ok(Transformed::yes(Expr::AggregateFunction(call)))
        }
        Expr::WindowFunction(mut call) if is_extremum(call.fun.name()) => {
            if call.fun.name() == "any_value" {
                call.fun = WindowFunctionDefinition::AggregateUDF(min_udaf());
                call.params.null_treatment = None;
            }
            ordered(&mut call.params.args)?;
            Ok(Transformed::yes(Expr::WindowFunction(call)))
        }
        Expr::WindowFunction(mut call) if let Some(extremum) = of_booleans(call.fun.name()) => {
            call.fun = WindowFunctionDefinition::AggregateUDF(extremum);
            for arg in &mut call.params.args {
                if !matches!(arg.get_type(input), Ok(DataType::Boolean)) {
                    *arg = cast(std::mem::take(arg), DataType::Boolean);
                }
            }
            Ok(Transformed::yes(Expr::WindowFunction(call)))
        }
        Expr::WindowFunction(mut call) if let Some(moving) = moving(&call, input) => {
            call.fun = WindowFunctionDefinition::AggregateUDF(moving);
            Ok(Transformed::yes(Expr::WindowFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(Extremum { expr: transformed.data, is_changed: transformed.transformed, float })
}

fn is_extremum(function: &str) -> bool {
    matches!(function, "min" | "max" | "any_value")
}

/// The extremum that is the same of booleans, of which false is the lesser.
fn of_booleans(function: &str) -> Option<Arc<AggregateUDF>> {
    match function {
        "bool_or" => Some(max_udaf()),
        "bool_and" => Some(min_udaf()),
        _ => None,
    }
}

fn as_float(column: Column, float: &DataType) -> Expr {
    let (relation, name) = (column.relation.clone(), column.name.clone());
    let value = Expr::Column(column);
    let value = match are_of(float) {
        true => float_of(value, float.clone()),
        false => cast(float_of(value, DataType::Float32), float.clone()),
    };
    value.alias_qualified(relation, name)
}
