//! An aggregate as parts that merge, and the expression that makes its value of them. Knows no plans.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, internal_err};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::{AggregateUDF, Expr, ExprSchemable, cast, lit, when};

use super::Part;
use super::average::average;
use super::classes::{AggregateClass, class_of};

/// How the values of a part over two bags of rows come to its value over both.
#[derive(Debug, Clone)]
pub enum Merge {
    /// They add up, and subtract.
    Add,
    /// The aggregate of the two, where no row went.
    Of(Arc<AggregateUDF>),
    /// Not at all: the rows are needed.
    Rerun,
}

/// An aggregate's parts and its value.
pub struct Decomposed {
    /// In order.
    pub parts: Vec<Part>,
    value: Value,
}

enum Value {
    /// The only part.
    Same,
    /// A sum, null where nothing was summed up: sum, count of values.
    Sum,
    /// An average: sum, count of values.
    Average(DataType),
}

impl Decomposed {
    /// The aggregate's value, given its parts' merged values.
    pub fn value(&self, parts: &[Expr]) -> Result<Expr> {
        match (&self.value, parts) {
            (Value::Same, [only]) => Ok(only.clone()),
            (Value::Sum, [sum, count]) => when(count.clone().gt(lit(0i64)), sum.clone()).end(),
            (Value::Average(result), [sum, count]) => Ok(average(sum.clone(), count.clone(), result.clone())),
            _ => internal_err!("an aggregate has {} parts", parts.len()),
        }
    }
}

/// The aggregate inside `expr`, aliases taken off.
pub fn aggregate_of(expr: &Expr) -> Option<&AggregateFunction> {
    match expr {
        Expr::AggregateFunction(function) => Some(function),
        Expr::Alias(alias) => aggregate_of(&alias.expr),
        _ => None,
    }
}

/// Takes an aggregate over rows of `input` apart.
pub fn decompose(function: &AggregateFunction, input: &DFSchema) -> Result<Decomposed> {
    let params = &function.params;
    let plain = !params.distinct && params.order_by.is_empty() && params.null_treatment.is_none();
    let whole = || Decomposed {
        parts: vec![Part { aggregate: Expr::AggregateFunction(function.clone()), merge: Merge::Rerun }],
        value: Value::Same,
    };
    if !plain {
        return Ok(match (function.func.name(), params.args.as_slice()) {
            // Repeats change no extremum.
            ("min" | "max", [_]) if params.distinct && params.order_by.is_empty() => {
                let func = if function.func.name() == "min" { min_udaf() } else { max_udaf() };
                let plain = AggregateFunctionParams { distinct: false, ..params.clone() };
                return decompose(&AggregateFunction { func, params: plain }, input);
            }
            _ => whole(),
        });
    }
    let filter = params.filter.clone();
    let call = |func: Arc<AggregateUDF>, args: Vec<Expr>| {
        Expr::AggregateFunction(AggregateFunction::new_udf(func, args, false, filter.clone(), vec![], None))
    };
    let add = |aggregate: Expr| Part { aggregate, merge: Merge::Add };
    let sum_and_count = |summed: Expr, counted: Expr, value: Value| Decomposed {
        parts: vec![add(call(sum_udaf(), vec![summed])), add(call(count_udaf(), vec![counted]))],
        value,
    };
    Ok(match (class_of(function.func.name()), function.func.name(), params.args.as_slice()) {
        (AggregateClass::Additive, "count", args) => {
            Decomposed { parts: vec![add(call(count_udaf(), args.to_vec()))], value: Value::Same }
        }
        (AggregateClass::Additive, "sum", [x]) => match x.get_type(input)? {
            DataType::Int64 | DataType::Decimal128(..) => sum_and_count(x.clone(), x.clone(), Value::Sum),
            _ => whole(),
        },
        (AggregateClass::Additive, "avg", [x]) => {
            let result = Expr::AggregateFunction(function.clone()).get_type(input)?;
            match (x.get_type(input)?, &result) {
                (DataType::Decimal128(..), DataType::Decimal128(..)) => {
                    sum_and_count(x.clone(), x.clone(), Value::Average(result))
                }
                (_, DataType::Float64) => match integer_inside(x, input)? {
                    Some(integer) => {
                        let exact = cast(integer.clone(), DataType::Decimal128(20, 0));
                        sum_and_count(exact, integer, Value::Average(result))
                    }
                    None => whole(),
                },
                _ => whole(),
            }
        }
        (AggregateClass::Extremum, _, [x]) => match x.get_type(input)? {
            // Canonical plans take those of the integers in their order.
            float if float.is_floating() => return internal_err!("an extremum of floats isn't in their order"),
            nested if nested.is_nested() => whole(),
            _ => Decomposed {
                parts: vec![Part {
                    aggregate: Expr::AggregateFunction(function.clone()),
                    merge: Merge::Of(Arc::clone(&function.func)),
                }],
                value: Value::Same,
            },
        },
        _ => whole(),
    })
}

/// The integer that `expr` is, or that it makes a double of.
fn integer_inside(expr: &Expr, input: &DFSchema) -> Result<Option<Expr>> {
    if expr.get_type(input)?.is_integer() {
        return Ok(Some(expr.clone()));
    }
    Ok(match expr {
        Expr::Cast(cast) if cast.expr.get_type(input)?.is_integer() => Some(cast.expr.as_ref().clone()),
        _ => None,
    })
}
