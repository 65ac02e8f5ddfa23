//! Casts whose values stand in another order than what they are of, or lose digits: a time of day of an instant, a truth of a number, an
//! integer of a decimal. The engine skips rows by bounds that it casts, and compares with what stands under a cast; both are wrong of these.
//! As functions they are seen through by none of its rules. Knows no columns.

use std::sync::Arc;

use arrow::compute::CastOptions;
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::util::display::FormatOptions;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, internal_err};
use datafusion::logical_expr::expr::{Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::coercion::where_concerned;

/// The function that stands for such a cast.
pub const OPAQUE_CAST: &str = "tidemill_cast";

/// Puts the function where the engine would cast; behind the rule that inserts casts.
#[derive(Debug)]
pub struct OpaqueCasts;

impl AnalyzerRule for OpaqueCasts {
    fn name(&self) -> &'static str {
        "opaque_casts"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        where_concerned(plan, may_lose, with_opaque_casts)
    }
}

/// The expression over `schema` with its casts so; its names and types stay.
///
/// # Errors
/// When a name isn't of the schema.
pub fn with_opaque_casts(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        let (value, to, is_try) = match &expr {
            Expr::Cast(Cast { expr, field }) => (expr.as_ref(), field.data_type(), false),
            Expr::TryCast(TryCast { expr, field }) => (expr.as_ref(), field.data_type(), true),
            _ => return Ok(Transformed::no(expr)),
        };
        if value.as_literal().is_some() || !may_lose(&expr) || !loses(&value.get_type(schema)?, to) {
            return Ok(Transformed::no(expr));
        }
        let may_be_null = expr.nullable(schema)? && !value.nullable(schema)?;
        let signature = Signature::any(1, Volatility::Immutable);
        let function = Opaque { to: to.clone(), is_try, may_be_null, around: Around::of(&expr, value), signature };
        let call = ScalarFunction::new_udf(Arc::new(ScalarUDF::from(function)), vec![value.clone()]);
        Ok(Transformed::yes(Expr::ScalarFunction(call)))
    })
}

/// Whether it is a cast to a type that may lose order or digits; from which one costs more to find out.
fn may_lose(expr: &Expr) -> bool {
    match expr {
        Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) => {
            let to = field.data_type();
            matches!(to, DataType::Time32(_) | DataType::Time64(_) | DataType::Boolean)
                || to.is_integer()
                || to.is_decimal()
        }
        _ => false,
    }
}

fn loses(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Timestamp(..), DataType::Time32(_) | DataType::Time64(_)) => true,
        (from, DataType::Boolean) => from.is_numeric(),
        (from, to) if from.is_decimal() && to.is_integer() => true,
        (from, to) => matches!((scale(from), scale(to)), (Some(from), Some(to)) if to < from),
    }
}

fn scale(of: &DataType) -> Option<i8> {
    match of {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => Some(*scale),
        _ => None,
    }
}

/// The name of a function that stands for a cast, from which a column may have got its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Around {
    before: String,
    after: String,
}

impl Around {
    /// What stands around `value`'s name in that of an expression over it.
    pub fn of(expr: &Expr, value: &Expr) -> Self {
        let (whole, inner) = (expr.schema_name().to_string(), value.schema_name().to_string());
        let (before, after) = whole.split_once(&inner).unwrap_or_default();
        Self { before: before.to_owned(), after: after.to_owned() }
    }

    /// The expression's name over another value. None where it is the value's own, as that of a cast is: only where casts stand beside
    /// their values does the engine tell the two apart.
    pub fn name(&self, value: &Expr) -> Option<String> {
        let is_its_own = self.before.is_empty() && self.after.is_empty();
        (!is_its_own).then(|| format!("{}{}{}", self.before, value.schema_name(), self.after))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Opaque {
    to: DataType,
    /// Whether what can't be cast is null.
    is_try: bool,
    /// Whether it is null of values too, as what it stands for.
    may_be_null: bool,
    around: Around,
    signature: Signature,
}

impl ScalarUDFImpl for Opaque {
    fn name(&self) -> &str {
        OPAQUE_CAST
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let [value] = args else { return internal_err!("{OPAQUE_CAST}() is of one value") };
        let of = if self.is_try { "try " } else { "" };
        Ok(self.around.name(value).unwrap_or_else(|| format!("{OPAQUE_CAST}({of}{value}, {})", self.to)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.to.clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let is_nullable = self.may_be_null || args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.to.clone(), is_nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else { return internal_err!("{OPAQUE_CAST}() is of one value") };
        let options = CastOptions { safe: self.is_try, format_options: FormatOptions::default() };
        value.cast_to(&self.to, Some(&options))
    }
}
