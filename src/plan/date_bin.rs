//! `date_bin` of the project's instants as they are. The engine's own takes instants of a zone as nanoseconds only, which no table
//! holds, so that no state could be kept of their groups.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::common::Result;
use datafusion::functions::datetime::date_bin;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

/// The engine's function, over microseconds in `zone` besides.
pub fn date_bin_in(zone: &Arc<str>) -> ScalarUDF {
    let engine = date_bin();
    let instants = vec![
        DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::clone(zone))),
    ];
    // What fits exactly goes before all that would be cast, wherever it stands.
    let signatures = vec![engine.signature().type_signature.clone(), TypeSignature::Exact(instants)];
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
        self.engine.invoke_with_args(args)
    }

    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        self.engine.output_ordering(input)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.engine.documentation()
    }
}
