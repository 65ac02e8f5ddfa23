//! `date_bin` of the project's instants as they are. The engine's own takes instants of a zone as nanoseconds only, which no table
//! holds, so that no state could be kept of their groups; and of times before 1677 or after 2262 it makes nulls.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::functions::datetime::date_bin;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

const NANOS_PER_DAY: i128 = 86_400_000_000_000;

/// The engine's function, over microseconds in `zone` besides.
pub fn date_bin_in(zone: &Arc<str>) -> ScalarUDF {
    let engine = date_bin();
    let stride = || DataType::Interval(IntervalUnit::MonthDayNano);
    let time = |unit, zone: Option<&Arc<str>>| DataType::Timestamp(unit, zone.cloned());
    let since_origin = |zone: Option<&Arc<str>>| {
        TypeSignature::Exact(vec![stride(), time(TimeUnit::Microsecond, zone), time(TimeUnit::Nanosecond, zone)])
    };
    let instants = TypeSignature::Exact(vec![stride(), time(TimeUnit::Microsecond, Some(zone))]);
    // What fits exactly goes before all that would be cast, wherever it stands; of the others the first is taken.
    let of_engine = engine.signature().type_signature.clone();
    let signatures = vec![since_origin(None), since_origin(Some(zone)), of_engine, instants];
    ScalarUDF::from(DateBin { engine, signature: Signature::one_of(signatures, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateBin {
    engine: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for DateBin {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, found: &[DataType]) -> Result<DataType> {
        self.engine.return_type(found)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let given = args.args.clone();
        let binned = self.engine.invoke_with_args(args)?;
        match (given.as_slice(), &binned) {
            ([ColumnarValue::Scalar(stride), ColumnarValue::Array(times), origin @ ..], ColumnarValue::Array(bins)) => {
                Ok(ColumnarValue::Array(with_far(stride, times, origin, bins)?))
            }
            ([ColumnarValue::Scalar(stride), ColumnarValue::Scalar(time), origin @ ..], ColumnarValue::Scalar(bin)) => {
                let bins = with_far(stride, &time.to_array()?, origin, &bin.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&bins, 0)?))
            }
            _ => Ok(binned),
        }
    }

    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        self.engine.output_ordering(input)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.engine.documentation()
    }
}

/// The bins of `times`, with those of times that the engine made nulls of.
fn with_far(stride: &ScalarValue, times: &ArrayRef, origin: &[ColumnarValue], bins: &ArrayRef) -> Result<ArrayRef> {
    let micros = |array: &ArrayRef| array.as_primitive_opt::<TimestampMicrosecondType>().cloned();
    let (Some(times), Some(bins)) = (micros(times), micros(bins)) else {
        return Ok(Arc::clone(bins));
    };
    if stride.is_null() || times.null_count() == bins.null_count() {
        return Ok(Arc::new(bins));
    }
    let stride = match stride {
        ScalarValue::IntervalMonthDayNano(Some(of)) if of.months == 0 => {
            i128::from(of.days) * NANOS_PER_DAY + i128::from(of.nanoseconds)
        }
        ScalarValue::IntervalDayTime(Some(of)) => {
            i128::from(of.days) * NANOS_PER_DAY + i128::from(of.milliseconds) * 1_000_000
        }
        _ => return exec_err!("date_bin by months is of times from 1677 to 2262"),
    };
    let origin = match origin {
        [ColumnarValue::Scalar(ScalarValue::TimestampNanosecond(Some(origin), _))] => i128::from(*origin),
        _ => 0,
    };
    let bin = |time: i64| {
        let since = i128::from(time) * 1_000 - origin;
        i64::try_from((since - since.rem_euclid(stride.abs()) + origin).div_euclid(1_000)).ok()
    };
    let far = times.iter().zip(bins.iter()).map(|(time, found)| found.or_else(|| time.and_then(bin)));
    let filled: PrimitiveArray<TimestampMicrosecondType> = far.collect();
    Ok(Arc::new(filled.with_data_type(bins.data_type().clone())))
}
