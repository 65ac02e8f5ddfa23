//! avg from its sum and count, to the digit that the engine's own avg gives. Knows no plans.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Float64Array, PrimitiveArray};
use arrow::datatypes::{DataType, Decimal128Type, DecimalType, Int64Type};
use datafusion::common::cast::as_int64_array;
use datafusion::common::{Result, exec_err, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// `avg` of values that sum up to `sum` (decimal) and are `count` (bigint) in number, as `result`: double, or a decimal of at
/// least the sum's scale. Null where `count` is 0.
pub fn average(sum: Expr, count: Expr, result: DataType) -> Expr {
    ScalarUDF::from(Average { result, signature: Signature::any(2, Volatility::Immutable) }).call(vec![sum, count])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Average {
    result: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for Average {
    fn name(&self) -> &str {
        "tidemill_avg"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.result.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let sums = args.args[0].to_array(args.number_rows)?;
        let counts = args.args[1].to_array(args.number_rows)?;
        let Some(sums) = sums.as_primitive_opt::<Decimal128Type>() else {
            return internal_err!("an average's sum isn't a decimal");
        };
        let counts = as_int64_array(&counts)?;
        match &self.result {
            DataType::Float64 => Ok(ColumnarValue::Array(Arc::new(doubles(sums, counts)))),
            DataType::Decimal128(precision, scale) => {
                let averages = decimals(sums, counts, *precision, *scale)?;
                Ok(ColumnarValue::Array(Arc::new(averages.with_data_type(self.result.clone()))))
            }
            other => internal_err!("an average can't be {other}"),
        }
    }
}

fn pairs<'a>(
    sums: &'a PrimitiveArray<Decimal128Type>,
    counts: &'a PrimitiveArray<Int64Type>,
) -> impl Iterator<Item = Option<(i128, i64)>> + 'a {
    let count = |row: usize| if counts.is_null(row) { 0 } else { counts.value(row) };
    (0..sums.len()).map(move |row| match count(row) {
        0 => None,
        _ if sums.is_null(row) => None,
        count => Some((sums.value(row), count)),
    })
}

/// The engine adds doubles one by one, which is this as long as the sum is below 2^53.
#[expect(clippy::cast_precision_loss, reason = "a double is what avg of integers gives")]
fn doubles(sums: &PrimitiveArray<Decimal128Type>, counts: &PrimitiveArray<Int64Type>) -> Float64Array {
    pairs(sums, counts).map(|pair| pair.map(|(sum, count)| sum as f64 / count as f64)).collect()
}

/// The sum is brought to the result's scale and divided with truncation, as the engine's avg of decimals does it.
fn decimals(
    sums: &PrimitiveArray<Decimal128Type>,
    counts: &PrimitiveArray<Int64Type>,
    precision: u8,
    scale: i8,
) -> Result<PrimitiveArray<Decimal128Type>> {
    let DataType::Decimal128(_, sum_scale) = sums.data_type() else {
        return internal_err!("an average's sum isn't a decimal");
    };
    let digits = u32::try_from(scale - sum_scale).unwrap_or(0);
    let factor = 10i128.pow(digits);
    let average = |(sum, count): (i128, i64)| {
        let value = sum.checked_mul(factor).map(|scaled| scaled / i128::from(count));
        match value {
            Some(value) if Decimal128Type::validate_decimal_precision(value, precision, scale).is_ok() => Ok(value),
            _ => exec_err!("an average is out of the range of decimal({precision}, {scale})"),
        }
    };
    pairs(sums, counts).map(|pair| pair.map(average).transpose()).collect()
}
