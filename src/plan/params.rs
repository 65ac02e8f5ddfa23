//! `$name` parameters: typed functions without arguments, so that a value is bound and never part of the SQL. Knows no YAML.

use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::types::parse_value;
use crate::spec::fault::Fault;
use crate::spec::types::Project;

/// The parameters of a project as functions named `$name`, and the faults of their values.
/// A parameter without a (right) value is a null of its type, so that the SQL that names it can still be checked.
pub fn parameters(project: &Project) -> (Vec<ScalarUDF>, Vec<Fault>) {
    let zone: std::sync::Arc<str> = project.timezone.value.as_str().into();
    let mut faults = Vec::new();
    let mut functions = Vec::new();
    for param in &project.params {
        let data_type = param.data_type.to_arrow(&zone);
        let parsed = match &param.value {
            Some(text) => parse_value(&text.value, &data_type, &zone).map_err(|why| {
                Fault::error(
                    "wrong_value",
                    text.place.clone(),
                    format!("the value of parameter `{}` {why}", param.name.value),
                )
            }),
            None => Err(Fault::error(
                "missing_parameter",
                param.name.place.clone(),
                format!("parameter `{}` has no value", param.name.value),
            )
            .hint(format!("give it a `default`, or pass `--param {}=VALUE`", param.name.value))),
        };
        let value = match parsed {
            Ok(value) => Some(value),
            Err(fault) => {
                faults.push(fault);
                ScalarValue::try_from(&data_type).ok()
            }
        };
        if let Some(value) = value {
            functions.push(ScalarUDF::from(Parameter {
                name: function_name(&param.name.value),
                value,
                signature: Signature::nullary(Volatility::Immutable),
            }));
        }
    }
    (functions, faults)
}

/// The function that stands for parameter `name`.
pub fn function_name(name: &str) -> String {
    format!("${name}")
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Parameter {
    name: String,
    value: ScalarValue,
    signature: Signature,
}

impl ScalarUDFImpl for Parameter {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }

    fn simplify(&self, _: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(ExprSimplifyResult::Simplified(Expr::Literal(self.value.clone(), None)))
    }
}
