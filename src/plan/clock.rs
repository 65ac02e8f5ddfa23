//! The clock functions: symbolic in a plan, resolved by the session that runs it. Knows no wall clock.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use chrono::{TimeZone as _, Timelike as _};
use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_datafusion_err, internal_datafusion_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::Clock;

/// The instant of a session, kept among its options so that functions see it wherever they are evaluated.
#[derive(Debug, Clone)]
pub struct ClockOption(pub Clock);

impl ConfigExtension for ClockOption {
    const PREFIX: &'static str = "tidemill";
}

impl ExtensionOptions for ClockOption {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _value: &str) -> Result<()> {
        Err(DataFusionError::Configuration(format!("tidemill.{key} can't be set in SQL")))
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}

/// Names that read the clock, aliases included.
pub const CLOCK_FUNCTIONS: [&str; 5] = ["now", "current_timestamp", "current_date", "today", "current_time"];

/// `now()`, `current_date` and `current_time` in `zone`.
pub fn clock_functions(zone: &Arc<str>) -> Vec<ScalarUDF> {
    [Reading::Now, Reading::Date, Reading::Time]
        .into_iter()
        .map(|reading| ScalarUDF::from(ClockFunction::new(reading, Arc::clone(zone))))
        .collect()
}

/// What is read off the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reading {
    Now,
    Date,
    Time,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ClockFunction {
    reading: Reading,
    zone: Arc<str>,
    signature: Signature,
    aliases: Vec<String>,
}

impl ClockFunction {
    fn new(reading: Reading, zone: Arc<str>) -> Self {
        let aliases = match reading {
            Reading::Now => vec!["current_timestamp".to_owned()],
            Reading::Date => vec!["today".to_owned()],
            Reading::Time => vec![],
        };
        Self { reading, zone, signature: Signature::nullary(Volatility::Stable), aliases }
    }

    fn read(&self, options: &ConfigOptions) -> Result<ScalarValue> {
        let ClockOption(clock) = options
            .extensions
            .get::<ClockOption>()
            .ok_or_else(|| internal_datafusion_err!("a session without a clock runs {}()", self.name()))?;
        let out_of_range = || exec_datafusion_err!("now() is out of range: {} microseconds", clock.now_us);
        let utc = chrono::DateTime::from_timestamp_micros(clock.now_us).ok_or_else(out_of_range)?;
        let zone: chrono_tz::Tz =
            self.zone.parse().map_err(|_| exec_datafusion_err!("unknown time zone {}", self.zone))?;
        let local = zone.from_utc_datetime(&utc.naive_utc()).naive_local();
        Ok(match self.reading {
            Reading::Now => ScalarValue::TimestampMicrosecond(Some(clock.now_us), Some(Arc::clone(&self.zone))),
            Reading::Date => {
                let days = local.date().signed_duration_since(chrono::NaiveDate::default()).num_days();
                ScalarValue::Date32(Some(i32::try_from(days).map_err(|_| out_of_range())?))
            }
            Reading::Time => {
                let time = local.time();
                let us = i64::from(time.num_seconds_from_midnight()) * 1_000_000 + i64::from(time.nanosecond() / 1000);
                ScalarValue::Time64Microsecond(Some(us))
            }
        })
    }
}

impl ScalarUDFImpl for ClockFunction {
    fn name(&self) -> &str {
        match self.reading {
            Reading::Now => "now",
            Reading::Date => "current_date",
            Reading::Time => "current_time",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.reading {
            Reading::Now => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::clone(&self.zone))),
            Reading::Date => DataType::Date32,
            Reading::Time => DataType::Time64(TimeUnit::Microsecond),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.read(&args.config_options)?))
    }

    fn simplify(&self, _: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(ExprSimplifyResult::Simplified(Expr::Literal(self.read(info.config_options())?, None)))
    }
}
