//! A date and an interval of hours give a time: `day + INTERVAL '36 hours'`. The engine gives a date, and loses what is below a day. Days and
//! months give dates. `date_trunc` of a date is a time, too: of microseconds, since the engine's nanoseconds end in 2262, and no table and no
//! state holds them. Knows no columns.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{BinaryExpr, ScalarFunction};
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, Operator, cast};

const NANOS_PER_DAY: i64 = 86_400_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
const MILLIS_PER_DAY: i32 = 86_400_000;

/// The expression over `schema` with dates as times where hours come to them or go, or where they are cut.
///
/// # Errors
/// None by itself.
pub fn with_day_parts(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|mut expr| {
        if let Expr::ScalarFunction(ScalarFunction { func, args }) = &mut expr
            && let ("date_trunc", [_, of]) = (func.name(), args.as_mut_slice())
            && is_date(of, schema)
        {
            *of = midnight(std::mem::take(of));
            return Ok(Transformed::yes(expr));
        }
        let Expr::BinaryExpr(BinaryExpr { mut left, op: op @ (Operator::Plus | Operator::Minus), mut right }) = expr
        else {
            return Ok(Transformed::no(expr));
        };
        // Of a long sum the right side is short, and tells enough of nearly all. A client's parameter has no type before it is bound.
        let is_changed = match right.get_type(schema) {
            Ok(DataType::Interval(_)) if is_date(&left, schema) && !is_of_days(&right) => {
                left = Box::new(midnight(*left));
                true
            }
            Ok(DataType::Date32 | DataType::Date64) if op == Operator::Plus && may_have_hours(&left, schema) => {
                right = Box::new(midnight(*right));
                true
            }
            _ => false,
        };
        let expr = Expr::BinaryExpr(BinaryExpr { left, op, right });
        Ok(if is_changed { Transformed::yes(expr) } else { Transformed::no(expr) })
    })
}

fn is_date(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(DataType::Date32 | DataType::Date64))
}

fn midnight(date: Expr) -> Expr {
    cast(date, DataType::Timestamp(TimeUnit::Microsecond, None))
}

/// Whether it is an interval that isn't known to be of whole days: of one that is computed it isn't.
fn may_have_hours(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(DataType::Interval(_))) && !is_of_days(expr)
}

fn is_of_days(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => are_days(value),
        Expr::Negative(of) => is_of_days(of),
        Expr::Alias(alias) => is_of_days(&alias.expr),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus | Operator::Minus, right }) => {
            is_of_days(left) && is_of_days(right)
        }
        Expr::Case(case) => {
            let mut values = case.when_then_expr.iter().map(|(_, value)| value).chain(&case.else_expr);
            values.all(|value| is_of_days(value))
        }
        Expr::Cast(Cast { expr, field }) => match expr.as_ref() {
            Expr::Literal(text, _) => text.cast_to(field.data_type()).is_ok_and(|value| are_days(&value)),
            _ => counts_days(expr),
        },
        _ => false,
    }
}

/// Whether it is what the engine makes of an integer beside a date: a duration of so many times a day's seconds.
fn counts_days(expr: &Expr) -> bool {
    let Expr::Cast(Cast { expr, field }) = expr else { return false };
    let Expr::BinaryExpr(BinaryExpr { op: Operator::Multiply, right, .. }) = expr.as_ref() else { return false };
    let is_a_day = matches!(right.as_ref(), Expr::Literal(value, _) if *value == ScalarValue::from(SECONDS_PER_DAY));
    is_a_day && *field.data_type() == DataType::Duration(TimeUnit::Second)
}

fn are_days(interval: &ScalarValue) -> bool {
    match interval {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => interval.nanoseconds % NANOS_PER_DAY == 0,
        ScalarValue::IntervalDayTime(Some(interval)) => interval.milliseconds % MILLIS_PER_DAY == 0,
        ScalarValue::IntervalYearMonth(_) => true,
        other => other.is_null(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, IntervalDayTime, IntervalMonthDayNano, Schema};
    use datafusion::logical_expr::simplify::SimplifyContext;
    use datafusion::logical_expr::{col, lit, when};
    use datafusion::optimizer::simplify_expressions::ExprSimplifier;

    use super::*;

    fn interval(days: i32, hours: i64) -> Expr {
        lit(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(1, days, hours * 3_600_000_000_000))))
    }

    fn is_date_still(expr: Expr) -> bool {
        let schema = DFSchema::try_from(Schema::new(vec![Field::new("d", DataType::Date32, true)])).unwrap();
        match with_day_parts(expr, &schema).unwrap().data.get_type(&schema).unwrap() {
            DataType::Date32 => true,
            DataType::Timestamp(TimeUnit::Microsecond, None) => false,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn hours_make_a_time_of_a_date() {
        assert!(!is_date_still(col("d") + interval(1, 6)));
        assert!(!is_date_still(col("d") - interval(0, 36)));
        assert!(!is_date_still(interval(0, -1) + col("d")));
        assert!(!is_date_still(col("d") - (interval(1, 0) + interval(0, 1))));
        assert!(!is_date_still(col("d") + Expr::Negative(Box::new(interval(0, 1)))));
        let either = when(lit(true), interval(1, 0)).otherwise(interval(0, 1)).unwrap();
        assert!(!is_date_still(col("d") + either));
        let millis = IntervalDayTime::new(1, 1);
        assert!(!is_date_still(col("d") + lit(ScalarValue::IntervalDayTime(Some(millis)))));
        // A part further in.
        assert!(!is_date_still(col("d") + interval(0, 1) - interval(3, 0)));
    }

    #[test]
    fn a_number_of_days_leaves_it_a_date_after_its_type_was_found_too() {
        let schema = DFSchema::try_from(Schema::new(vec![
            Field::new("d", DataType::Date32, true),
            Field::new("n", DataType::Int32, true),
        ]));
        let schema = Arc::new(schema.unwrap());
        let context = SimplifyContext::builder().with_schema(Arc::clone(&schema)).build();
        let simplifier = ExprSimplifier::new(context);
        for sum in [col("d") + col("n"), col("d") - lit(14), lit(3_i64) + col("d")] {
            let found = simplifier.coerce(sum, &schema).unwrap();
            let again = with_day_parts(found, &schema).unwrap();
            assert!(!again.transformed, "{}", again.data);
        }
    }

    #[test]
    fn days_and_months_leave_it_a_date() {
        assert!(is_date_still(col("d") + interval(1, 0)));
        assert!(is_date_still(interval(0, 48) + col("d")));
        assert!(is_date_still(col("d") - (interval(1, 0) - interval(2, 24))));
        let either = when(lit(true), interval(1, 0)).otherwise(lit(ScalarValue::IntervalMonthDayNano(None))).unwrap();
        assert!(is_date_still(col("d") + either));
    }
}
