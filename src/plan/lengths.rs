//! Differences of times beside intervals are compared by how long they are, a month being thirty days and a day 24 hours, as PostgreSQL
//! does. The engine compares months, then days, then the rest, and a difference has neither; of its seconds it loses what is below one.
//! Knows no columns.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{BinaryExpr, ScalarFunction};
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, Operator, cast, lit};

use super::common_types::compared;

const NANOS_PER_DAY: i128 = 86_400_000_000_000;
const NANOS_PER_MILLI: i128 = 1_000_000;

/// The expression over `schema` with intervals beside differences, or beside each other, as lengths; `extract(epoch …)` of a difference is
/// exact.
///
/// # Errors
/// None by itself.
pub fn with_lengths(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|mut expr| {
        if let Expr::ScalarFunction(ScalarFunction { func, args }) = &expr
            && func.name() == "date_part"
            && let Some(seconds) = epoch(args, schema)
        {
            return Ok(Transformed::yes(seconds));
        }
        let is_changed = compared(&mut expr).is_some_and(|values| settle(values, schema));
        Ok(if is_changed { Transformed::yes(expr) } else { Transformed::no(expr) })
    })
}

/// Makes differences of constant intervals among values that are compared with each other; whether it did.
fn settle(values: Vec<&mut Expr>, schema: &DFSchema) -> bool {
    // The type of a client's parameter isn't known before it is bound.
    let types: Vec<_> = values.iter().map(|value| value.get_type(schema).unwrap_or(DataType::Null)).collect();
    let is_interval = |of: &DataType| matches!(of, DataType::Interval(_));
    if !types.iter().any(is_interval) {
        return false;
    }
    let unit = types.iter().find_map(|of| match of {
        DataType::Duration(unit) => Some(*unit),
        _ => None,
    });
    let unit = unit.unwrap_or(TimeUnit::Microsecond);
    let intervals = || values.iter().zip(&types).filter(|(_, of)| is_interval(of));
    let Some(lengths) = intervals().map(|(value, _)| nanos(value)).collect::<Option<Vec<_>>>() else { return false };
    for ((value, _), nanos) in values.into_iter().zip(&types).filter(|(_, of)| is_interval(of)).zip(lengths) {
        *value = Expr::Literal(difference(nanos, unit), None);
    }
    true
}

/// How long a constant interval is; none of one that isn't constant. The inner none is null.
fn nanos(interval: &Expr) -> Option<Option<i128>> {
    match interval {
        Expr::Literal(value, _) => nanos_of(value),
        Expr::Alias(alias) => nanos(&alias.expr),
        Expr::Negative(of) => Some(nanos(of)?.map(|nanos| -nanos)),
        Expr::Cast(Cast { expr, field }) => match expr.as_ref() {
            Expr::Literal(text, _) => nanos_of(&text.cast_to(field.data_type()).ok()?),
            _ => None,
        },
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
            let (left, right) = (nanos(left)?, nanos(right)?);
            let sign = if *op == Operator::Plus { 1 } else { -1 };
            Some(left.zip(right).map(|(left, right)| left + sign * right))
        }
        _ => None,
    }
}

fn nanos_of(interval: &ScalarValue) -> Option<Option<i128>> {
    let days = |months: i32, days: i32| (i128::from(months) * 30 + i128::from(days)) * NANOS_PER_DAY;
    match interval {
        ScalarValue::IntervalMonthDayNano(of) => {
            Some(of.map(|of| days(of.months, of.days) + i128::from(of.nanoseconds)))
        }
        ScalarValue::IntervalDayTime(of) => {
            Some(of.map(|of| days(0, of.days) + i128::from(of.milliseconds) * NANOS_PER_MILLI))
        }
        ScalarValue::IntervalYearMonth(of) => Some(of.map(|months| days(months, 0))),
        other => other.is_null().then_some(None),
    }
}

/// A difference of that length; beyond what there is, the longest.
fn difference(nanos: Option<i128>, unit: TimeUnit) -> ScalarValue {
    let of = |per: i128| {
        nanos.map(|nanos| i64::try_from(nanos / per).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX }))
    };
    match unit {
        TimeUnit::Second => ScalarValue::DurationSecond(of(1_000_000_000)),
        TimeUnit::Millisecond => ScalarValue::DurationMillisecond(of(1_000_000)),
        TimeUnit::Microsecond => ScalarValue::DurationMicrosecond(of(1_000)),
        TimeUnit::Nanosecond => ScalarValue::DurationNanosecond(of(1)),
    }
}

/// The seconds of a difference, if they are asked for.
fn epoch(args: &[Expr], schema: &DFSchema) -> Option<Expr> {
    let [Expr::Literal(part, _), of] = args else { return None };
    let DataType::Duration(unit) = of.get_type(schema).ok()? else { return None };
    let is_epoch = part.try_as_str().flatten().is_some_and(|part| part.eq_ignore_ascii_case("epoch"));
    let per_second = match unit {
        TimeUnit::Second => 1.0,
        TimeUnit::Millisecond => 1e3,
        TimeUnit::Microsecond => 1e6,
        TimeUnit::Nanosecond => 1e9,
    };
    is_epoch.then(|| cast(cast(of.clone(), DataType::Int64), DataType::Float64) / lit(per_second))
}
