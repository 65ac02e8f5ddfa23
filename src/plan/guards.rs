//! Parts of SQL that may fail: `n <> 0 AND 100 / n > 1`, `sum(100 / n) FILTER (WHERE n <> 0)`. The engine may compute both sides of every
//! row, as values are spread over batches. Here what may fail is computed of the rows that the rest leaves open. Knows no names.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, NullEquality, Result, ScalarValue};
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::expr::{AggregateFunction, BinaryExpr, Case, Sort, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, merge_schema, split_conjunction_owned};
use datafusion::logical_expr::{Expr, ExprSchemable, Filter, Join, LogicalPlan, Operator, Projection, Window, lit};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

use super::coercion::each_expression;

/// Functions of any values, none of which they fail of. Of others it isn't known.
const SAFE: [&str; 18] = [
    "btrim",
    "ceil",
    "character_length",
    "coalesce",
    "concat",
    "date_part",
    "date_trunc",
    "floor",
    "get_field",
    "lower",
    "ltrim",
    "nullif",
    "octet_length",
    "round",
    "rtrim",
    "starts_with",
    "strpos",
    "upper",
];

/// The engine's planner of optimized plans. Guards come last: the optimizer would undo them, and read less of what they hide.
#[derive(Debug)]
pub struct GuardingPlanner;

#[async_trait]
impl QueryPlanner for GuardingPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = guarded_plan(plan.clone())?;
        DefaultPhysicalPlanner::default().create_physical_plan(&plan, session).await
    }
}

/// `f(x) FILTER (WHERE …)`, of which the engine computes x of every row before it looks which it takes. Comes behind the rule that finds
/// types, since where a model is maintained x and the condition are computed apart.
#[derive(Debug)]
pub struct Filtered;

impl AnalyzerRule for Filtered {
    fn name(&self) -> &'static str {
        "filtered"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let of_taken = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) => each_expression(node, of_taken_rows),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(of_taken.data)
    }
}

/// The expression over `schema` so.
///
/// # Errors
/// When a name isn't of the schema.
pub fn with_guards(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    guarded(expr, schema).map(|guarded| guarded.data)
}

fn guarded_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    let guarded = plan.transform_up_with_subqueries(|node| {
        let node = with_one_zero(with_columns(node)?)?;
        if matches!(node, LogicalPlan::TableScan(_)) || !is_concerned(&node)? {
            return Ok(Transformed::yes(node));
        }
        let node = match node {
            LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                let condition = guarded_condition(predicate, input.schema())?;
                return Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(condition, input)?)));
            }
            LogicalPlan::Join(mut join) => {
                let schema = merge_schema(&[&join.left, &join.right]);
                guard_keys(&mut join)?;
                join.filter = join.filter.map(|filter| guarded_condition(filter, &schema)).transpose()?;
                LogicalPlan::Join(join)
            }
            other => other,
        };
        each_expression(node, guarded)
    })?;
    Ok(guarded.data)
}

/// The join with one zero among its floating keys. The engine has two as equal, and yet leaves out rows by bounds of the other side's keys,
/// for which they aren't.
fn with_one_zero(node: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Join(mut join) = node else { return Ok(node) };
    for (left, right) in &mut join.on {
        for (key, side) in [(left, join.left.schema()), (right, join.right.schema())] {
            let of = key.get_type(side)?;
            if of.is_floating() {
                *key = std::mem::take(key) + Expr::Literal(ScalarValue::new_zero(&of)?, None);
            }
        }
    }
    Ok(LogicalPlan::Join(join))
}

/// Whether a part may be left out of some rows at all: most nodes are seen through quickly.
fn is_concerned(node: &LogicalPlan) -> Result<bool> {
    let mut found = matches!(node, LogicalPlan::Join(join) if join.filter.is_some());
    node.apply_expressions(|expr| {
        found |= expr.exists(|expr| {
            Ok(matches!(expr, Expr::BinaryExpr(binary) if matches!(binary.op, Operator::And | Operator::Or)))
        })?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Keys of a join that may fail are those of the rows that its condition leaves open: the others match nothing, and so does null.
fn guard_keys(join: &mut Join) -> Result<()> {
    let Some(filter) = join.filter.clone().filter(|_| join.null_equality == NullEquality::NullEqualsNothing) else {
        return Ok(());
    };
    let parts = split_conjunction_owned(filter);
    for (left, right) in &mut join.on {
        for (key, side) in [(left, join.left.schema()), (right, join.right.schema())] {
            if !may_fail(key, side)? {
                continue;
            }
            let is_of_side = |part: &&Expr| part.column_refs().into_iter().all(|column| side.has_column(column));
            let known = conjunction(parts.iter().filter(is_of_side).cloned());
            if let Some(known) = known {
                *key = decided(known, std::mem::take(key), None);
            }
        }
    }
    Ok(())
}

/// The window with the conditions that it goes by as columns: of rows that are sorted by one, the engine doesn't always know it.
fn with_columns(node: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Window(window) = &node else { return Ok(node) };
    let schema = window.input.schema();
    let names = NamePreserver::new(&node);
    let mut conditions: Vec<Expr> = Vec::new();
    let mut column_of = |expr: &mut Expr| -> Result<()> {
        if !matches!(expr, Expr::Column(_) | Expr::Literal(..)) && expr.get_type(schema)? == DataType::Boolean {
            let known = conditions.iter().position(|known| known == expr);
            let at = known.unwrap_or(conditions.len());
            let condition = std::mem::replace(expr, Expr::Column(Column::new_unqualified(condition_name(at))));
            conditions.extend(known.is_none().then_some(condition));
        }
        Ok(())
    };
    let mut functions = Vec::with_capacity(window.window_expr.len());
    for function in window.window_expr.clone() {
        let name = names.save(&function);
        let function = function.transform_up(|expr| {
            let Expr::WindowFunction(mut function) = expr else { return Ok(Transformed::no(expr)) };
            function.params.partition_by.iter_mut().try_for_each(&mut column_of)?;
            function.params.order_by.iter_mut().try_for_each(|sort| column_of(&mut sort.expr))?;
            Ok(Transformed::yes(Expr::WindowFunction(function)))
        })?;
        functions.push(name.restore(function.data));
    }
    if conditions.is_empty() {
        return Ok(node);
    }
    let named = conditions.into_iter().enumerate().map(|(at, condition)| condition.alias(condition_name(at)));
    let below = schema.columns().into_iter().map(Expr::Column).chain(named);
    let below = Projection::try_new(below.collect(), Arc::clone(&window.input))?;
    let below = each_expression(LogicalPlan::Projection(below), guarded)?.data;
    let columns = node.schema().columns().into_iter().map(Expr::Column).collect();
    let window = LogicalPlan::Window(Window::try_new(functions, Arc::new(below))?);
    let window = each_expression(window, guarded)?.data;
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(window))?))
}

fn condition_name(at: usize) -> String {
    format!("__tidemill_condition_{at}")
}

/// A condition on rows, what can't fail first: parts of several WHERE come in any order. What can't fail stays a part of its own, by
/// which scans skip.
fn guarded_condition(condition: Expr, schema: &DFSchema) -> Result<Expr> {
    let (mut failing, mut safe) = (Vec::new(), Vec::new());
    for part in split_conjunction_owned(condition) {
        if may_fail(&part, schema)? { failing.push(part) } else { safe.push(part) }
    }
    let rest = conjunction(failing).map(|failing| guarded(failing, schema)).transpose()?.map(|rest| rest.data);
    Ok(match (conjunction(safe), rest) {
        (Some(safe), Some(rest)) => safe.clone().and(decided(safe, rest, Some(false))),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => lit(true),
    })
}

/// The expression with what may fail computed where the rest doesn't decide.
fn guarded(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            if !may_fail(&right, schema)? {
                return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            }
            let decides = op == Operator::Or;
            let mut of_left = vec![(Box::new(lit(decides)), Box::new(lit(decides)))];
            let mut open = right.clone();
            if left.nullable(schema)? {
                // A null on the left leaves open what the whole is, and isn't the whole by itself.
                of_left.push((Box::new(lit(!decides)), right.clone()));
                let null = Box::new(Expr::Literal(ScalarValue::Boolean(None), None));
                open = Box::new(Expr::BinaryExpr(BinaryExpr { left: null, op, right }));
            }
            Ok(Transformed::yes(Expr::Case(Case { expr: Some(left), when_then_expr: of_left, else_expr: Some(open) })))
        }
        other => Ok(Transformed::no(other)),
    })
}

fn of_taken_rows(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| match expr {
        Expr::AggregateFunction(AggregateFunction { func, mut params }) => {
            let filter = params.filter.clone();
            let is_changed = taken(filter.as_deref(), &mut params.args, &mut params.order_by, schema)?;
            let call = Expr::AggregateFunction(AggregateFunction { func, params });
            Ok(if is_changed { Transformed::yes(call) } else { Transformed::no(call) })
        }
        Expr::WindowFunction(function) => {
            let WindowFunction { fun, mut params } = *function;
            let filter = params.filter.clone();
            // Its order is that of all rows, taken or not.
            let is_changed = taken(filter.as_deref(), &mut params.args, &mut [], schema)?;
            let call = Expr::WindowFunction(Box::new(WindowFunction { fun, params }));
            Ok(if is_changed { Transformed::yes(call) } else { Transformed::no(call) })
        }
        other => Ok(Transformed::no(other)),
    })
}

/// Has arguments and order computed of the rows that a FILTER takes; whether some are.
fn taken(filter: Option<&Expr>, args: &mut [Expr], order: &mut [Sort], schema: &DFSchema) -> Result<bool> {
    let Some(filter) = filter else { return Ok(false) };
    let mut is_changed = false;
    for value in args.iter_mut().chain(order.iter_mut().map(|sort| &mut sort.expr)) {
        // Constants say what a function is to do, such as which percentile.
        let is_taken =
            matches!(value, Expr::Case(case) if case.expr.as_deref() == Some(filter) && case.else_expr.is_none());
        if !is_taken && !value.column_refs().is_empty() && may_fail(value, schema)? {
            *value = decided(filter.clone(), std::mem::take(value), None);
            is_changed = true;
        }
    }
    Ok(is_changed)
}

/// The value where a condition is met, or else another one.
fn decided(condition: Expr, value: Expr, otherwise: Option<bool>) -> Expr {
    Expr::Case(Case {
        expr: Some(Box::new(condition)),
        when_then_expr: vec![(Box::new(lit(true)), Box::new(value))],
        else_expr: otherwise.map(|otherwise| Box::new(lit(otherwise))),
    })
}

/// Whether computing it may fail of some row.
fn may_fail(expr: &Expr, schema: &DFSchema) -> Result<bool> {
    expr.exists(|expr| {
        Ok(match expr {
            Expr::BinaryExpr(binary) => may_operation_fail(binary, schema)?,
            Expr::Cast(cast) => !holds_all(&cast.expr.get_type(schema)?, cast.field.data_type()),
            Expr::ScalarFunction(call) => !SAFE.contains(&call.name()),
            _ => false,
        })
    })
}

fn may_operation_fail(binary: &BinaryExpr, schema: &DFSchema) -> Result<bool> {
    use Operator::{Divide, Minus, Modulo, Multiply, Plus};
    use Operator::{RegexIMatch, RegexMatch, RegexNotIMatch, RegexNotMatch};
    let is_constant = matches!(binary.right.as_ref(), Expr::Literal(..));
    Ok(match binary.op {
        // Floats are divided by zero without failing; another constant is no zero, or it fails of all rows.
        Divide | Modulo => !is_constant && !binary.right.get_type(schema)?.is_floating(),
        RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch => !is_constant,
        // Decimals that have all digits overflow.
        Plus | Minus | Multiply => {
            let type_of = |side: &Expr| side.get_type(schema);
            let sides = [type_of(&binary.left)?, type_of(&binary.right)?];
            sides.iter().any(DataType::is_decimal) && may_overflow(binary, schema)?
        }
        _ => false,
    })
}

fn may_overflow(binary: &BinaryExpr, schema: &DFSchema) -> Result<bool> {
    let of = Expr::BinaryExpr(binary.clone()).get_type(schema)?;
    Ok(matches!(of, DataType::Decimal128(DECIMAL128_MAX_PRECISION, _)))
}

/// Whether each value of a type is one of another type.
fn holds_all(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        _ if from == to || from.is_null() => true,
        (DataType::Dictionary(_, values), _) => holds_all(values, to),
        (_, DataType::Dictionary(_, values)) => holds_all(from, values),
        _ if from.is_string() && to.is_string() => true,
        _ if from.is_numeric() && to.is_floating() => true,
        _ if from.is_nested() || to.is_nested() || from.is_binary() => false,
        _ if to.is_string() => true,
        (DataType::Date32, DataType::Timestamp(..)) => true,
        (DataType::Timestamp(from, _), DataType::Timestamp(to, _)) => from >= to,
        (DataType::Decimal128(p, s), DataType::Decimal128(to_p, to_s)) => {
            to_s >= s && digits(*to_p, *to_s) >= digits(*p, *s)
        }
        (_, DataType::Decimal128(p, s)) if from.is_signed_integer() => {
            from.primitive_width().is_some_and(|bytes| digits(*p, *s) >= [3, 5, 10, 19][bytes.ilog2() as usize])
        }
        _ if from.is_signed_integer() && to.is_signed_integer() => from.primitive_width() <= to.primitive_width(),
        _ => false,
    }
}

/// Digits before the point.
fn digits(precision: u8, scale: i8) -> i16 {
    i16::from(precision) - i16::from(scale)
}
