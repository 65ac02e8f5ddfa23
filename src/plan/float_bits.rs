//! Floats as integers in their order and back: IEEE 754's total order, in which −0.0 is less than 0.0 and each NaN has its place, a
//! negative one below −∞, a positive one above ∞, by its bits. Knows no plans.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// Whether values of this type are compared by their bits.
pub fn are_of(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float32 | DataType::Float64)
}

/// A float as an integer; which of two is less is the same for both.
pub fn bits_of(float: Expr) -> Expr {
    reinterpreted(float, None)
}

/// The float of such an integer.
pub fn float_of(bits: Expr, float: DataType) -> Expr {
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
            (Some(of), ..) => Arc::new(of.unary::<_, Float32Type>(|n| f32::from_bits(ordered_32(n).cast_unsigned()))),
            (_, Some(of), ..) => {
                Arc::new(of.unary::<_, Float64Type>(|n| f64::from_bits(ordered_64(n).cast_unsigned())))
            }
            (.., Some(of), _) => Arc::new(of.unary::<_, Int32Type>(|float| ordered_32(float.to_bits().cast_signed()))),
            (.., Some(of)) => Arc::new(of.unary::<_, Int64Type>(|float| ordered_64(float.to_bits().cast_signed()))),
            _ => return internal_err!("{} has no bits of a float", values.data_type()),
        };
        Ok(ColumnarValue::Array(array))
    }
}

/// The bits of negative floats grow as the floats get less: all but the sign are turned over. Done twice, it is undone.
fn ordered_64(bits: i64) -> i64 {
    bits ^ ((bits >> 63) & i64::MAX)
}

/// As [`ordered_64`].
fn ordered_32(bits: i32) -> i32 {
    bits ^ ((bits >> 31) & i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_stand_in_the_total_order_of_their_floats() {
        let nan = |bits: u64| f64::from_bits(f64::NAN.to_bits() | bits);
        let floats = [
            -nan(7),
            -nan(0),
            f64::NEG_INFINITY,
            f64::MIN,
            -1.0,
            -f64::MIN_POSITIVE,
            -5e-324,
            -0.0,
            0.0,
            5e-324,
            1.5,
            f64::MAX,
            f64::INFINITY,
            nan(0),
            nan(7),
        ];
        assert!(floats.is_sorted_by(|a, b| a.total_cmp(b).is_lt()));
        let numbers = floats.map(|float| ordered_64(float.to_bits().cast_signed()));
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert_eq!(numbers.map(|n| ordered_64(n).cast_unsigned()), floats.map(f64::to_bits));

        let floats = [-f32::NAN, f32::NEG_INFINITY, -1.0, -0.0, 0.0, 1.5, f32::INFINITY, f32::NAN];
        let numbers = floats.map(|float| ordered_32(float.to_bits().cast_signed()));
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert_eq!(numbers.map(|n| ordered_32(n).cast_unsigned()), floats.map(f32::to_bits));
    }
}
