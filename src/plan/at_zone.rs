//! `t AT TIME ZONE 'z'`: of an instant, what a clock of that zone shows; of what a clock shows, the instant. The engine gives an instant
//! for both. A function stands for it until types are known, and becomes casts (`wall_clock.rs` has what they mean). Knows no columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, cast,
};
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Value};

use super::types::sql_name;
use super::windows::function;

/// The function that stands for it; nobody can call it by name.
pub const AT_ZONE: &str = "tidemill_at_zone";

/// The expression as a call of the function.
pub fn as_call(expr: &mut SqlExpr) {
    if let SqlExpr::AtTimeZone { timestamp, time_zone } = expr {
        let nothing = || SqlExpr::value(Value::Null);
        let time = std::mem::replace(timestamp.as_mut(), nothing());
        let zone = std::mem::replace(time_zone.as_mut(), nothing());
        *expr = function(AT_ZONE, vec![time, zone]);
    }
}

/// The function, whose instants are `zone`'s, the project's.
pub fn at_zone(zone: &Arc<str>) -> ScalarUDF {
    let signature = Signature::any(2, Volatility::Immutable);
    ScalarUDF::from(AtZone { zone: Arc::clone(zone), signature })
}

/// The expression over `schema` with calls of the function as casts.
///
/// # Errors
/// When a name isn't of the schema.
pub fn with_casts(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        let Expr::ScalarFunction(call) = &expr else { return Ok(Transformed::no(expr)) };
        let (Some(function), [time, zone]) = (call.func.inner().downcast_ref::<AtZone>(), call.args.as_slice()) else {
            return Ok(Transformed::no(expr));
        };
        let there = timestamp(Some(&named_zone(zone.as_literal())?));
        let here = timestamp(Some(&function.zone));
        Ok(Transformed::yes(match shows_clock(&time.get_type(schema)?)? {
            true => cast(cast(cast(time.clone(), here), there), timestamp(None)),
            false => cast(cast(time.clone(), there), here),
        }))
    })
}

fn timestamp(zone: Option<&Arc<str>>) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, zone.cloned())
}

/// Whether a clock is what it gives of such a time, rather than an instant. Text is an instant, as in PostgreSQL.
fn shows_clock(of: &DataType) -> Result<bool> {
    match of {
        DataType::Timestamp(_, Some(_)) | DataType::Null => Ok(true),
        DataType::Timestamp(_, None) | DataType::Date32 | DataType::Date64 => Ok(false),
        of if of.is_string() => Ok(true),
        of => plan_err!("AT TIME ZONE is of a time, and this is {}", sql_name(of)),
    }
}

fn named_zone(zone: Option<&ScalarValue>) -> Result<Arc<str>> {
    let Some(Some(name)) = zone.and_then(ScalarValue::try_as_str) else {
        return plan_err!("AT TIME ZONE takes the name of a zone: 'Europe/Madrid'");
    };
    match name.parse::<chrono_tz::Tz>() {
        Ok(_) => Ok(name.into()),
        Err(_) => plan_err!("no time zone is named '{name}'; its name is one such as 'Europe/Madrid', or 'UTC'"),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AtZone {
    zone: Arc<str>,
    signature: Signature,
}

impl ScalarUDFImpl for AtZone {
    fn name(&self) -> &str {
        AT_ZONE
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let [time, zone] = args else { return internal_err!("{AT_ZONE}() is of two values") };
        Ok(format!("{} AT TIME ZONE {}", time.schema_name(), zone.schema_name()))
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("what {AT_ZONE}() gives hangs on its values")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let ([time, _], [_, zone]) = (args.arg_fields, args.scalar_arguments) else {
            return internal_err!("{AT_ZONE}() is of two values");
        };
        named_zone(*zone)?;
        let zone = (!shows_clock(time.data_type())?).then_some(&self.zone);
        Ok(Arc::new(Field::new(AT_ZONE, timestamp(zone), true)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("{AT_ZONE}() is run as casts")
    }
}
