//! A decimal beside a double is a double, as in SQL: where the two are compared, and where one column or value is made of both. The
//! engine would make decimals of 15 places of them, which hold neither small nor large doubles. Knows no columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, Decimal128Type, DecimalType as _};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{BinaryExpr, ScalarFunction};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, Union, cast, when,
};
use datafusion::optimizer::AnalyzerRule;

use super::coercion::{before, each_expression};

/// Functions whose value is one of their arguments, or that compare them.
const CHOOSING: [&str; 7] = ["coalesce", "nvl", "ifnull", "nullif", "greatest", "least", "make_array"];

/// Comes before the rule by which the engine finds a common type.
#[derive(Debug)]
pub struct Doubles;

impl AnalyzerRule for Doubles {
    fn name(&self) -> &'static str {
        "doubles"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let doubled = plan.transform_up_with_subqueries(|node| {
            let node = each_expression(node, before)?;
            let node = node.transform_data(|node| match node {
                LogicalPlan::Join(join) => joined(join),
                LogicalPlan::Union(union) => united(union),
                other => Ok(Transformed::no(other)),
            })?;
            if node.transformed { node.map_data(LogicalPlan::recompute_schema) } else { Ok(node) }
        })?;
        Ok(doubled.data)
    }
}

/// The expression over `schema` with decimals beside doubles so.
///
/// # Errors
/// When a subquery can't be made another.
pub fn with_doubles(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|mut expr| {
        let is_changed = match &mut expr {
            Expr::Case(case) => {
                let (mut whens, mut values) = (Vec::new(), Vec::new());
                for (when, then) in &mut case.when_then_expr {
                    whens.push(&mut **when);
                    values.push(&mut **then);
                }
                values.extend(case.else_expr.as_deref_mut());
                let is_changed = settle(values, schema);
                // Without a value to compare with, they are conditions.
                match case.expr.as_deref_mut() {
                    Some(compared) => settle(std::iter::once(compared).chain(whens).collect(), schema) || is_changed,
                    None => is_changed,
                }
            }
            Expr::ScalarFunction(ScalarFunction { func, args }) => match func.name() {
                name if CHOOSING.contains(&name) => settle(args.iter_mut().collect(), schema),
                "nvl2" => settle(args.iter_mut().skip(1).collect(), schema),
                _ => false,
            },
            Expr::InSubquery(of) => settle_with_rows(&mut of.expr, &mut of.subquery, schema)?,
            Expr::SetComparison(of) => settle_with_rows(&mut of.expr, &mut of.subquery, schema)?,
            other => compared(other).is_some_and(|values| settle(values, schema)),
        };
        let expr = if is_changed { Transformed::yes(expr) } else { Transformed::no(expr) };
        expr.transform_data(|expr| equal(expr, schema))
    })
}

/// `CASE f WHEN v` and `nullif(f, v)` of floats by `=`, for which two zeros are equal; for the engine they aren't there.
fn equal(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let is_float = |expr: &Expr| expr.get_type(schema).is_ok_and(|of| of.is_floating());
    Ok(match expr {
        Expr::Case(mut case) if case.expr.as_deref().is_some_and(is_float) => {
            let compared = case.expr.take().map(|expr| *expr).unwrap_or_default();
            for (value, _) in &mut case.when_then_expr {
                **value = std::mem::take(&mut **value).eq(compared.clone());
            }
            Transformed::yes(Expr::Case(case))
        }
        Expr::ScalarFunction(ScalarFunction { func, mut args })
            if func.name() == "nullif" && args.len() == 2 && is_float(&args[0]) =>
        {
            let (value, other) = (std::mem::take(&mut args[0]), std::mem::take(&mut args[1]));
            let of = value.get_type(schema)?;
            let null = Expr::Literal(ScalarValue::try_from(&of)?, None);
            Transformed::yes(when(value.clone().eq(other), null).otherwise(value)?)
        }
        other => Transformed::no(other),
    })
}

/// The values that an expression compares with each other, if that is what it does.
pub(super) fn compared(expr: &mut Expr) -> Option<Vec<&mut Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(*op) => Some(vec![left, right]),
        Expr::Between(between) => Some(vec![&mut between.expr, &mut between.low, &mut between.high]),
        Expr::InList(list) => Some(std::iter::once(&mut *list.expr).chain(&mut list.list).collect()),
        _ => None,
    }
}

fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// Makes doubles of the decimals among values that are to be of one type, if there is a floating one; whether it did.
fn settle(values: Vec<&mut Expr>, schema: &DFSchema) -> bool {
    // The type of a client's parameter isn't known before it is bound.
    let types: Vec<_> = values.iter().map(|value| value.get_type(schema).unwrap_or(DataType::Null)).collect();
    if !mixes(&types) {
        return false;
    }
    for (value, _) in values.into_iter().zip(&types).filter(|(_, of)| of.is_decimal()) {
        *value = doubled(std::mem::take(value));
    }
    true
}

/// The same of a value and the rows that it is compared with.
fn settle_with_rows(value: &mut Expr, rows: &mut Subquery, schema: &DFSchema) -> Result<bool> {
    let Ok(of) = value.get_type(schema) else { return Ok(false) };
    let found = rows.subquery.schema().field(0).data_type();
    if !mixes(&[of.clone(), found.clone()]) {
        return Ok(false);
    }
    match of.is_decimal() {
        true => *value = doubled(std::mem::take(value)),
        false => rows.subquery = with_double_columns(Arc::clone(&rows.subquery), &[true])?,
    }
    Ok(true)
}

fn mixes(types: &[DataType]) -> bool {
    types.iter().any(DataType::is_floating) && types.iter().any(DataType::is_decimal)
}

/// The value as a double; of a literal, the nearest one.
fn doubled(value: Expr) -> Expr {
    if let Expr::Literal(ScalarValue::Decimal128(Some(digits), precision, scale), _) = &value
        && let Ok(nearest) = Decimal128Type::format_decimal(*digits, *precision, *scale).parse()
    {
        return Expr::Literal(ScalarValue::Float64(Some(nearest)), None);
    }
    cast(value, DataType::Float64)
}

/// What a join compares with `=`.
fn joined(mut join: Join) -> Result<Transformed<LogicalPlan>> {
    let mut is_changed = false;
    for (left, right) in &mut join.on {
        let types = [left.get_type(join.left.schema())?, right.get_type(join.right.schema())?];
        if mixes(&types) {
            let decimal = if types[0].is_decimal() { left } else { right };
            *decimal = doubled(std::mem::take(decimal));
            is_changed = true;
        }
    }
    let join = LogicalPlan::Join(join);
    Ok(if is_changed { Transformed::yes(join) } else { Transformed::no(join) })
}

/// The columns of a union, each made of one column of every input.
fn united(union: Union) -> Result<Transformed<LogicalPlan>> {
    let width = union.schema.fields().len();
    if union.inputs.iter().any(|input| input.schema().fields().len() != width) {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    // The schema may be from before one of the inputs became another.
    let schemas = || union.inputs.iter().map(|input| input.schema()).chain([&union.schema]);
    let is_mixed = |at| mixes(&schemas().map(|schema| schema.field(at).data_type().clone()).collect::<Vec<_>>());
    let mixed: Vec<bool> = (0..width).map(is_mixed).collect();
    if !mixed.contains(&true) {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    let inputs = union.inputs.into_iter().map(|input| with_double_columns(input, &mixed)).collect::<Result<_>>()?;
    Ok(Transformed::yes(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?)))
}

/// The rows with the decimals in those columns as doubles.
fn with_double_columns(rows: Arc<LogicalPlan>, of: &[bool]) -> Result<Arc<LogicalPlan>> {
    let columns = rows.schema().iter().zip(of).map(|((qualifier, field), is_double)| {
        let column = Expr::from((qualifier, field));
        match *is_double && field.data_type().is_decimal() {
            true => cast(column, DataType::Float64).alias_qualified(qualifier.cloned(), field.name()),
            false => column,
        }
    });
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::from(rows).project(columns)?.build().map(Arc::new)
}
