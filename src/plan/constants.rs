//! Constants that a function fails of, whatever its other arguments are: a part of time that there isn't, a pattern that can't be read, a
//! step of zero. Evaluates them beside values that do no harm; knows no rows.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::{BinaryExpr, ScalarFunction};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, lit};

/// Functions that look at such a constant before they look at a value.
const FUNCTIONS: [&str; 11] = [
    "date_bin",
    "date_part",
    "date_trunc",
    "decode",
    "digest",
    "encode",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
];

/// Finds the constants in a plan's expressions that a run would fail of with its first row.
///
/// # Errors
/// That of the first one.
pub fn check_constants(state: &SessionState, plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        let mut schema = None;
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if has_constants(expr) {
                    check(state, expr, schema.get_or_insert_with(|| merge_schema(&node.inputs())))?;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })
    .map(drop)
}

fn has_constants(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            FUNCTIONS.contains(&func.name()) && args.iter().any(is_constant)
        }
        Expr::BinaryExpr(BinaryExpr { op, right, .. }) => is_match(*op) && is_constant(right),
        _ => false,
    }
}

fn is_match(op: Operator) -> bool {
    use Operator::{RegexIMatch, RegexMatch, RegexNotIMatch, RegexNotMatch};
    matches!(op, RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch)
}

fn is_null(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => value.is_null(),
        Expr::Cast(cast) => is_null(&cast.expr),
        _ => false,
    }
}

fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(..) => true,
        Expr::Cast(cast) => is_constant(&cast.expr),
        Expr::Negative(of) => is_constant(of),
        _ => false,
    }
}

fn check(state: &SessionState, expr: &Expr, schema: &DFSchema) -> Result<()> {
    let Some(harmless) = harmless(expr, schema) else { return Ok(()) };
    // What it is made of only fails where the real one does, too, which is told by others.
    let Ok(harmless) = state.create_physical_expr(harmless, &DFSchema::empty()) else { return Ok(()) };
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?;
    harmless.evaluate(&row).map(drop)
}

/// The same call with its constants, and all else made an empty text or a null. None of one that has a null for a constant, which is
/// what stands for an expression at fault.
fn harmless(expr: &Expr, schema: &DFSchema) -> Option<Expr> {
    let argument = |expr: &Expr| {
        if is_constant(expr) {
            return (!is_null(expr)).then(|| expr.clone());
        }
        let of = expr.get_type(schema).ok()?;
        let value = if of.is_string() { ScalarValue::Utf8(Some(String::new())).cast_to(&of) } else { (&of).try_into() };
        value.ok().map(lit)
    };
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let args = args.iter().map(argument).collect::<Option<Vec<_>>>()?;
            Some(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(func), args)))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            Some(Expr::BinaryExpr(BinaryExpr::new(Box::new(argument(left)?), *op, Box::new(argument(right)?))))
        }
        _ => None,
    }
}
