//! `round(decimal, places)` has one type: the engine's hangs on whether it knows the places by the time that it asks, so that what was planned
//! beside it doesn't fit any more. Knows no columns.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::{Expr, ExprSchemable, cast, lit};

/// The expression over `schema` with places as the function takes them, where they are known, and else with the type that they leave open.
///
/// # Errors
/// None by itself.
pub fn with_one_type(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        let Expr::ScalarFunction(call) = &expr else { return Ok(Transformed::no(expr)) };
        let [value, places] = call.args.as_slice() else { return Ok(Transformed::no(expr)) };
        if call.name() != "round" || !value.get_type(schema).is_ok_and(|of| of.is_decimal()) {
            return Ok(Transformed::no(expr));
        }
        if let Expr::Literal(ScalarValue::Int32(_), _) = places {
            return Ok(Transformed::no(expr));
        }
        if let Some(places) = number(places) {
            let Expr::ScalarFunction(mut call) = expr else { return Ok(Transformed::no(expr)) };
            call.args[1] = lit(places);
            return Ok(Transformed::yes(Expr::ScalarFunction(call)));
        }
        // Places that only come to be known would make its scale another.
        let open = value.get_type(schema)?;
        Ok(Transformed::yes(cast(expr, open)))
    })
}

fn number(places: &Expr) -> Option<i32> {
    match places {
        Expr::Literal(ScalarValue::Int64(Some(number)), _) => i32::try_from(*number).ok(),
        Expr::Negative(of) => number(of)?.checked_neg(),
        _ => None,
    }
}
