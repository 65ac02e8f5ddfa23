//! Makes a plan a function of bags of rows: where order decides a value, all other columns break ties. Knows no names.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Distinct, Expr, ExprSchemable, LogicalPlan, Projection, SortExpr, Window, WindowFrame, WindowFrameBound,
    WindowFrameUnits,
};

use super::extrema::extrema_in_order;
use super::set_operations::of_bags;
use super::skips::with_ends;
use super::total_order::{has_order, order_key};
use super::window_plan::{QUALIFIER, SESSION_TIME};

/// Aggregates whose value hangs on the order of their rows.
const ORDERED_AGGREGATES: [&str; 5] = ["array_agg", "string_agg", "first_value", "last_value", "nth_value"];
/// Aggregates whose value is the least or greatest of their arguments.
const COMPARING: [&str; 3] = ["min", "max", "any_value"];
/// Window functions that number or pick rows, so that ties must be broken; ranks give ties one value and need none.
const ORDERED_WINDOWS: [&str; 7] = ["row_number", "ntile", "lag", "lead", "first_value", "last_value", "nth_value"];

/// The plan with every tie broken, so that equal bags of rows give equal results however they are split and ordered.
pub fn canonical(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = of_bags(plan).and_then(with_ends)?;
    plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Limit(mut limit) => {
            let Some(input) = with_ties_broken(&limit.input) else {
                return Ok(Transformed::no(LogicalPlan::Limit(limit)));
            };
            limit.input = input.into();
            Ok(Transformed::yes(LogicalPlan::Limit(limit)))
        }
        LogicalPlan::Distinct(Distinct::On(mut on)) => {
            let Some(order) = on.sort_expr.as_mut() else {
                return Ok(Transformed::no(LogicalPlan::Distinct(Distinct::On(on))));
            };
            extend(order, on.input.schema().columns());
            Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(on))))
        }
        LogicalPlan::Aggregate(_) => aggregate_ties(node),
        LogicalPlan::Window(_) => window_ties(node),
        other => Ok(Transformed::no(other)),
    })
    .and_then(|transformed| extrema_in_order(transformed.data))
}

/// The first aggregate that compares values of a type without an order: its name, and the type.
///
/// # Errors
/// A bug: the plan was bound before.
pub fn without_order(plan: &LogicalPlan) -> Result<Option<(String, DataType)>> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        let inputs = node.inputs();
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                let (name, args, is_distinct) = match expr {
                    Expr::AggregateFunction(call) => (call.func.name(), &call.params.args, call.params.distinct),
                    Expr::WindowFunction(call) => (call.fun.name(), &call.params.args, call.params.distinct),
                    _ => return Ok(TreeNodeRecursion::Continue),
                };
                let compares = COMPARING.contains(&name) || is_distinct && ORDERED_AGGREGATES.contains(&name);
                if let (Some(input), Some(arg), true) = (inputs.first(), args.first(), compares) {
                    let of = arg.get_type(input.schema())?;
                    if !has_order(&of) {
                        found.get_or_insert((name.to_owned(), of));
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// The sorted input of a limit, also under the projection that takes away columns that were only sorted by.
fn with_ties_broken(input: &LogicalPlan) -> Option<LogicalPlan> {
    match input {
        LogicalPlan::Sort(sort) => {
            let mut sort = sort.clone();
            extend(&mut sort.expr, sort.input.schema().columns());
            Some(LogicalPlan::Sort(sort))
        }
        LogicalPlan::Projection(projection) => {
            let mut projection = projection.clone();
            projection.input = with_ties_broken(&projection.input)?.into();
            Some(LogicalPlan::Projection(projection))
        }
        _ => None,
    }
}

fn extend(order: &mut Vec<SortExpr>, columns: impl IntoIterator<Item = Column>) {
    extend_by(order, columns.into_iter().map(Expr::Column));
}

fn extend_by(order: &mut Vec<SortExpr>, exprs: impl IntoIterator<Item = Expr>) {
    for expr in exprs {
        if !order.iter().any(|sort| sort.expr == expr) {
            order.push(expr.sort(true, false));
        }
    }
}

/// Orders by keys where values have no order; whether any has none.
fn order_by_keys(order: &mut [SortExpr], schema: &DFSchema) -> Result<bool> {
    let mut is_changed = false;
    for sort in order {
        if !has_order(&sort.expr.get_type(schema)?) {
            sort.expr = order_key(std::mem::take(&mut sort.expr));
            is_changed = true;
        }
    }
    Ok(is_changed)
}

/// Ties of an aggregate's order are broken by its arguments: rows alike in both give the same value.
fn aggregate_ties(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&node);
    let input = node.inputs().first().map(|input| Arc::clone(input.schema()));
    node.map_expressions(|expr| {
        let saved = names.save(&expr);
        let transformed = expr.transform_up(|expr| match expr {
            Expr::AggregateFunction(AggregateFunction { func, mut params })
                if ORDERED_AGGREGATES.contains(&func.name()) =>
            {
                // The separator of string_agg is a constant, and nth_value's n too: they order nothing.
                let arguments = params.args.iter().filter(|arg| !matches!(arg, Expr::Literal(..))).cloned();
                extend_by(&mut params.order_by, arguments.collect::<Vec<_>>());
                if let Some(input) = &input {
                    order_by_keys(&mut params.order_by, input)?;
                }
                Ok(Transformed::yes(Expr::AggregateFunction(AggregateFunction { func, params })))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(transformed.update_data(|expr| saved.restore(expr)))
    })
}

/// Ties of a window's order are broken by all columns of its input, since equal rows are interchangeable.
fn window_ties(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&node);
    let LogicalPlan::Window(window) = &node else { return Ok(Transformed::no(node)) };
    let schema = Arc::clone(window.input.schema());
    let columns = schema.columns();
    node.map_expressions(|expr| {
        let saved = names.save(&expr);
        let transformed = expr.transform_up(|expr| match expr {
            Expr::WindowFunction(mut function) if lists_partition(&function) => {
                let arguments = function.params.args.iter().filter(|arg| !matches!(arg, Expr::Literal(..)));
                function.params.order_by = arguments.map(|arg| arg.clone().sort(true, false)).collect();
                let all = ScalarValue::UInt64(None);
                let (first, last) = (WindowFrameBound::Preceding(all.clone()), WindowFrameBound::Following(all));
                function.params.window_frame = WindowFrame::new_bounds(WindowFrameUnits::Rows, first, last);
                Ok(Transformed::yes(Expr::WindowFunction(function)))
            }
            Expr::WindowFunction(function) => {
                let breaks_ties = needs_ties(&function);
                let WindowFunction { fun, mut params } = *function;
                if breaks_ties {
                    let partition = params.partition_by.clone();
                    let others = columns.iter().cloned().map(Expr::Column).filter(|c| !partition.contains(c));
                    extend_by(&mut params.order_by, others.collect::<Vec<_>>());
                }
                // Peers are compared value by value, which the engine can't do of some lists.
                let is_changed = order_by_keys(&mut params.order_by, &schema)? || breaks_ties;
                let function = Expr::WindowFunction(Box::new(WindowFunction { fun, params }));
                Ok(if is_changed { Transformed::yes(function) } else { Transformed::no(function) })
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(transformed.update_data(|expr| saved.restore(expr)))
    })?
    .map_data(split_by_order)
}

/// The functions of one window operator share a sort, which is the first one's: those whose ties are broken and those that
/// have none stand in two operators.
fn split_by_order(node: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Window(window) = &node else { return Ok(node) };
    let first = window.window_expr.first().map(order_of);
    let (alike, others): (Vec<Expr>, Vec<Expr>) =
        window.window_expr.iter().cloned().partition(|expr| Some(order_of(expr)) == first);
    if others.is_empty() {
        return Ok(node);
    }
    let below = LogicalPlan::Window(Window::try_new(alike, Arc::clone(&window.input))?);
    let both = LogicalPlan::Window(Window::try_new(others, Arc::new(below))?);
    let columns = node.schema().columns().into_iter().map(Expr::Column).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(both))?))
}

fn order_of(expr: &Expr) -> &[SortExpr] {
    match expr {
        Expr::Alias(alias) => order_of(&alias.expr),
        Expr::WindowFunction(function) => &function.params.order_by,
        _ => &[],
    }
}

/// Whether the function lists a whole partition in no order: as without a window, its values are then sorted.
fn lists_partition(function: &WindowFunction) -> bool {
    matches!(function.fun.name(), "array_agg" | "string_agg") && function.params.order_by.is_empty()
}

fn needs_ties(function: &WindowFunction) -> bool {
    let params = &function.params;
    // Sessions look at neighbours' times only, and hand on what they find over all peers.
    let is_session_time = |sort: &SortExpr| {
        matches!(&sort.expr, Expr::Column(c)
            if c.name == SESSION_TIME && c.relation.as_ref().is_some_and(|r| r.table() == QUALIFIER))
    };
    if params.order_by.first().is_some_and(is_session_time) {
        return false;
    }
    let by_rows = params.window_frame.units == WindowFrameUnits::Rows && !params.order_by.is_empty();
    // In a RANGE frame these pick among peers by order; the others see all peers at once.
    let picks = ORDERED_WINDOWS.contains(&function.fun.name()) && !params.order_by.is_empty();
    by_rows || picks
}
