//! A decimal beside a double is a double, as in SQL, and a date beside a time is that day's midnight: where the two are compared, and where
//! one column or value is made of both. The engine would make decimals of 15 places of the former, which hold neither small nor large
//! doubles, and nanoseconds of the latter, which end in 2262. Knows no columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, Decimal128Type, DecimalType as _, TimeUnit};
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
pub struct CommonTypes;

impl AnalyzerRule for CommonTypes {
    fn name(&self) -> &'static str {
        "common_types"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let settled = plan.transform_up_with_subqueries(|node| {
            let node = each_expression(node, before)?;
            let node = node.transform_data(|node| match node {
                LogicalPlan::Join(join) => joined(join),
                LogicalPlan::Union(union) => united(union),
                other => Ok(Transformed::no(other)),
            })?;
            if node.transformed { node.map_data(LogicalPlan::recompute_schema) } else { Ok(node) }
        })?;
        Ok(settled.data)
    }
}

/// The expression over `schema` with decimals beside doubles and dates beside times so.
///
/// # Errors
/// When a subquery can't be made another.
pub fn with_common_types(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
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
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => settle_times(left, right, schema),
            Expr::SetComparison(of) => settle_with_rows(&mut of.expr, &mut of.subquery, schema)?,
            other => compared(other).is_some_and(|values| settle(values, schema)),
        };
        let expr = if is_changed { Transformed::yes(expr) } else { Transformed::no(expr) };
        expr.transform_data(|expr| equal(expr, schema))
    })
}

/// `CASE f WHEN v` and `nullif(f, v)` of floats by `=`, for which two zeros are equal; for the engine they aren't there. Nor are they in
/// longer lists of IN, so that these get but one zero.
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
        Expr::InList(mut list) if is_float(&list.expr) && list.list.iter().any(may_be_zero) => {
            let of = list.expr.get_type(schema)?;
            let zero = Expr::Literal(ScalarValue::new_zero(&of)?, None);
            let mut is_changed = false;
            for value in std::iter::once(&mut *list.expr).chain(&mut list.list).filter(|value| may_be_zero(value)) {
                *value = std::mem::take(value) + zero.clone();
                is_changed = true;
            }
            let list = Expr::InList(list);
            if is_changed { Transformed::yes(list) } else { Transformed::no(list) }
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

/// Whether it may be one of the two zeros of a float: what zero was added to is the one.
fn may_be_zero(expr: &Expr) -> bool {
    let is_zero = |value: &ScalarValue| {
        ScalarValue::new_zero(&value.data_type()).is_ok_and(|zero| {
            // Whichever it is: the two aren't the same value here.
            value == &zero || value.arithmetic_negate().is_ok_and(|value| value == zero)
        })
    };
    match expr {
        Expr::Literal(value, _) => is_zero(value),
        Expr::BinaryExpr(BinaryExpr { op: Operator::Plus, right, .. }) => {
            !matches!(right.as_ref(), Expr::Literal(value, _) if is_zero(value))
        }
        _ => true,
    }
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

/// Types beside each other of which SQL makes the one that holds both.
enum Mix {
    /// Decimals and floats.
    Doubles,
    /// Dates and times, which are of this zone; of microseconds at most, which hold all dates.
    Times(Option<Arc<str>>),
}

impl Mix {
    /// That of values or columns of these types, if they are of both kinds.
    fn of(types: &[DataType]) -> Option<Self> {
        if types.iter().any(DataType::is_floating) && types.iter().any(DataType::is_decimal) {
            return Some(Self::Doubles);
        }
        let zones = types.iter().filter_map(|of| match of {
            DataType::Timestamp(_, zone) => Some(zone.clone()),
            _ => None,
        });
        // One that has none becomes an instant of the other's.
        let zone = zones.reduce(Option::or)?;
        types.iter().any(is_date).then_some(Self::Times(zone))
    }

    /// What values of that type are to become, if they don't stay as they are.
    fn changed_type(&self, of: &DataType) -> Option<DataType> {
        match (self, of) {
            (Self::Doubles, of) => of.is_decimal().then_some(DataType::Float64),
            (Self::Times(zone), of) if is_date(of) => Some(DataType::Timestamp(TimeUnit::Microsecond, zone.clone())),
            (Self::Times(_), DataType::Timestamp(TimeUnit::Nanosecond, zone)) => {
                Some(DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))
            }
            (Self::Times(_), _) => None,
        }
    }
}

/// The value as another type; of a literal decimal, the nearest double.
fn changed(value: Expr, to: DataType) -> Expr {
    if let Expr::Literal(ScalarValue::Decimal128(Some(digits), precision, scale), _) = &value
        && let Ok(nearest) = Decimal128Type::format_decimal(*digits, *precision, *scale).parse()
    {
        return Expr::Literal(ScalarValue::Float64(Some(nearest)), None);
    }
    cast(value, to)
}

fn is_date(of: &DataType) -> bool {
    matches!(of, DataType::Date32 | DataType::Date64)
}

/// Brings values that are to be of one type to what SQL makes of them; whether one wasn't.
fn settle(values: Vec<&mut Expr>, schema: &DFSchema) -> bool {
    // The type of a client's parameter isn't known before it is bound.
    let types: Vec<_> = values.iter().map(|value| value.get_type(schema).unwrap_or(DataType::Null)).collect();
    let Some(mix) = Mix::of(&types) else { return false };
    for (value, of) in values.into_iter().zip(&types) {
        if let Some(to) = mix.changed_type(of) {
            *value = changed(std::mem::take(value), to);
        }
    }
    true
}

/// The same of a time and a date whose difference is asked for.
fn settle_times(left: &mut Expr, right: &mut Expr, schema: &DFSchema) -> bool {
    let is_time = |expr: &Expr| expr.get_type(schema).is_ok_and(|of| matches!(of, DataType::Timestamp(..)));
    (is_time(left) || is_time(right)) && settle(vec![left, right], schema)
}

/// The same of a value and the rows that it is compared with.
fn settle_with_rows(value: &mut Expr, rows: &mut Subquery, schema: &DFSchema) -> Result<bool> {
    let Ok(of) = value.get_type(schema) else { return Ok(false) };
    let found = rows.subquery.schema().field(0).data_type();
    let Some(mix) = Mix::of(&[of.clone(), found.clone()]) else { return Ok(false) };
    if let Some(to) = mix.changed_type(&of) {
        *value = changed(std::mem::take(value), to);
    }
    if mix.changed_type(found).is_some() {
        rows.subquery = with_changed_columns(Arc::clone(&rows.subquery), &[Some(mix)])?;
    }
    Ok(true)
}

/// What a join compares with `=`.
fn joined(mut join: Join) -> Result<Transformed<LogicalPlan>> {
    let mut is_changed = false;
    for (left, right) in &mut join.on {
        let types = [left.get_type(join.left.schema())?, right.get_type(join.right.schema())?];
        let Some(mix) = Mix::of(&types) else { continue };
        for (key, of) in [left, right].into_iter().zip(&types) {
            if let Some(to) = mix.changed_type(of) {
                *key = changed(std::mem::take(key), to);
            }
        }
        is_changed = true;
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
    let mix = |at| Mix::of(&schemas().map(|schema| schema.field(at).data_type().clone()).collect::<Vec<_>>());
    let mixes: Vec<Option<Mix>> = (0..width).map(mix).collect();
    if mixes.iter().all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    let inputs = union.inputs.into_iter().map(|input| with_changed_columns(input, &mixes)).collect::<Result<_>>()?;
    Ok(Transformed::yes(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?)))
}

/// The rows with what is mixed in a column brought to one type.
fn with_changed_columns(rows: Arc<LogicalPlan>, mixes: &[Option<Mix>]) -> Result<Arc<LogicalPlan>> {
    let columns = rows.schema().iter().zip(mixes).map(|((qualifier, field), mix)| {
        let column = Expr::from((qualifier, field));
        match mix.as_ref().and_then(|mix| mix.changed_type(field.data_type())) {
            Some(to) => cast(column, to).alias_qualified(qualifier.cloned(), field.name()),
            None => column,
        }
    });
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::from(rows).project(columns)?.build().map(Arc::new)
}
