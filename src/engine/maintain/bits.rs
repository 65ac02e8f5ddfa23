//! Floats as their bits and back, so that −0.0 and each NaN is told apart. Knows no plans.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// Whether values of this type are compared by their bits.
pub(super) fn are_of(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float32 | DataType::Float64)
}

/// A float as the integer of its bits.
pub(super) fn bits_of(float: Expr) -> Expr {
    reinterpreted(float, None)
}

/// The float of these bits.
pub(super) fn float_of(bits: Expr, float: DataType) -> Expr {
    reinterpreted(bits, Some(float))
}

fn reinterpreted(value: Expr, float: Option<DataType>) -> Expr {
    ScalarUDF::from(Reinterpret { float, signature: Signature::any(1, Volatility::Immutable) }).call(vec![value])
}

/// To an integer, or back to this float.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Reinterpret {
    float: Option<DataType>,
    signature: Signature,
}

impl ScalarUDFImpl for Reinterpret {
    fn name(&self) -> &str {
        if self.float.is_some() { "tidemill_float" } else { "tidemill_bits" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, found: &[DataType]) -> Result<DataType> {
        match (&self.float, found) {
            (Some(float), _) => Ok(float.clone()),
            (None, [DataType::Float32]) => Ok(DataType::Int32),
            (None, [DataType::Float64]) => Ok(DataType::Int64),
            (None, other) => internal_err!("{other:?} isn't a float"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = args.args[0].to_array(args.number_rows)?;
        let of_32: Option<&PrimitiveArray<Int32Type>> = values.as_primitive_opt();
        let of_64: Option<&PrimitiveArray<Int64Type>> = values.as_primitive_opt();
        let float_32: Option<&PrimitiveArray<Float32Type>> = values.as_primitive_opt();
        let float_64: Option<&PrimitiveArray<Float64Type>> = values.as_primitive_opt();
        let array: ArrayRef = match (of_32, of_64, float_32, float_64) {
            (Some(bits), ..) => Arc::new(bits.unary::<_, Float32Type>(|bits| f32::from_bits(bits.cast_unsigned()))),
            (_, Some(bits), ..) => Arc::new(bits.unary::<_, Float64Type>(|bits| f64::from_bits(bits.cast_unsigned()))),
            (_, _, Some(float), _) => Arc::new(float.unary::<_, Int32Type>(|float| float.to_bits().cast_signed())),
            (.., Some(float)) => Arc::new(float.unary::<_, Int64Type>(|float| float.to_bits().cast_signed())),
            _ => return internal_err!("{} has no bits of a float", values.data_type()),
        };
        Ok(ColumnarValue::Array(array))
    }
}
