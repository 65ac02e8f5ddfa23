//! `date_trunc` of times of any year. The engine's own goes by nanoseconds, which begin in 1677 and end in 2262, and fails of others.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, FieldRef, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, Days, NaiveDateTime, NaiveTime, Offset as _, TimeDelta, TimeZone as _};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::functions::datetime::date_trunc;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::types::offset_of_wall_clock;

/// Microseconds since 1970 within which the engine's own is asked: some years less than it can do.
const NEAR_US: std::ops::RangeInclusive<i64> = -9_000_000_000_000_000..=9_000_000_000_000_000;

/// The engine's function, and ours for the rest of time.
pub fn date_trunc_of_any_year() -> ScalarUDF {
    ScalarUDF::from(DateTrunc { engine: date_trunc() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    engine: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn aliases(&self) -> &[String] {
        self.engine.aliases()
    }

    fn signature(&self) -> &Signature {
        self.engine.signature()
    }

    fn return_type(&self, found: &[DataType]) -> Result<DataType> {
        self.engine.return_type(found)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.engine.return_field_from_args(args)
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [ColumnarValue::Scalar(part), of] = args.args.as_slice() else { return self.engine.invoke_with_args(args) };
        let (part, is_one) = (part.clone(), matches!(of, ColumnarValue::Scalar(_)));
        let times = of.to_array(1)?;
        let Some((near, far)) = far_apart(&times) else { return self.engine.invoke_with_args(args) };
        let rows = near.len();
        args.args[1] = ColumnarValue::Array(near);
        let cut = self.engine.invoke_with_args(args)?.into_array(rows)?;
        let cut = with_far(&part, &far, &cut)?;
        Ok(match is_one {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&cut, 0)?),
            false => ColumnarValue::Array(cut),
        })
    }

    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        self.engine.output_ordering(input)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.engine.documentation()
    }
}

type Micros = PrimitiveArray<TimestampMicrosecondType>;

/// The times that the engine can do, and all of them; none where there are no others.
fn far_apart(times: &ArrayRef) -> Option<(ArrayRef, Micros)> {
    let all = times.as_primitive_opt::<TimestampMicrosecondType>()?;
    if all.iter().flatten().all(|time| NEAR_US.contains(&time)) {
        return None;
    }
    let near: Micros = all.iter().map(|time| time.filter(|time| NEAR_US.contains(time))).collect();
    Some((Arc::new(near.with_data_type(all.data_type().clone())), all.clone()))
}

/// What the engine cut, with the times that it wasn't asked for.
fn with_far(part: &ScalarValue, times: &Micros, cut: &ArrayRef) -> Result<ArrayRef> {
    let Some(cut) = cut.as_primitive_opt::<TimestampMicrosecondType>() else { return Ok(Arc::clone(cut)) };
    let zone = match times.data_type() {
        DataType::Timestamp(_, Some(zone)) => match zone.parse::<chrono_tz::Tz>() {
            Ok(zone) => Some(zone),
            Err(_) => return exec_err!("date_trunc of times in the zone {zone} goes from 1677 to 2262"),
        },
        _ => None,
    };
    let part = part.try_as_str().flatten().unwrap_or_default().to_lowercase();
    let each = times.iter().zip(cut.iter()).map(|(time, cut)| match time {
        Some(time) if !NEAR_US.contains(&time) => cut_at(&part, time, zone),
        _ => cut,
    });
    let all: Micros = each.collect();
    Ok(Arc::new(all.with_data_type(times.data_type().clone())))
}

/// The beginning of the part that a time is in, of the clock of `zone`; none beyond the calendar's ends.
fn cut_at(part: &str, time_us: i64, zone: Option<chrono_tz::Tz>) -> Option<i64> {
    let instant = DateTime::from_timestamp_micros(time_us)?.naive_utc();
    // As the engine: minutes are those of UTC, though clocks once stood apart by seconds.
    let zone = zone.filter(|_| !matches!(part, "minute" | "second" | "millisecond" | "microsecond"));
    let local = match zone {
        Some(zone) => instant.checked_add_offset(zone.offset_from_utc_datetime(&instant).fix())?,
        None => instant,
    };
    let cut = cut_local(part, local)?;
    let instant = match zone {
        Some(zone) => cut.checked_sub_offset(offset_of_wall_clock(&cut, zone))?,
        None => cut,
    };
    Some(instant.and_utc().timestamp_micros())
}

fn cut_local(part: &str, local: NaiveDateTime) -> Option<NaiveDateTime> {
    let day = local.date();
    let day = match part {
        "year" => day.with_day(1)?.with_month(1)?,
        "quarter" => day.with_day(1)?.with_month0(day.month0() / 3 * 3)?,
        "month" => day.with_day(1)?,
        "week" => day.checked_sub_days(Days::new(day.weekday().num_days_from_monday().into()))?,
        _ => day,
    };
    let midnight = day.and_time(NaiveTime::MIN);
    let since = local.signed_duration_since(midnight).num_microseconds()?;
    let length = match part {
        "hour" => 3_600_000_000,
        "minute" => 60_000_000,
        "second" => 1_000_000,
        "millisecond" => 1_000,
        "microsecond" => 1,
        _ => return Some(midnight),
    };
    midnight.checked_add_signed(TimeDelta::microseconds(since - since % length))
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;
    use chrono::NaiveDate;

    use super::*;

    const PARTS: [&str; 10] =
        ["year", "quarter", "month", "week", "day", "hour", "minute", "second", "millisecond", "microsecond"];

    fn us(year: i32, month: u32, day: u32, second: u32) -> i64 {
        let day = NaiveDate::from_ymd_opt(year, month, day).unwrap();
        day.and_hms_micro_opt(0, 0, second, 123_456).unwrap().and_utc().timestamp_micros() + 18_061_000_000
    }

    /// What the engine gives of times that it can do, ours must, too.
    #[test]
    fn both_agree_where_the_engine_can() {
        let times =
            [us(1999, 12, 31, 59), us(2024, 2, 29, 1), us(1969, 5, 6, 30), us(2018, 11, 4, 0), us(1700, 1, 1, 7)];
        for zone in [None, Some("America/Sao_Paulo"), Some("Europe/Berlin")] {
            for part in PARTS {
                let all: Micros = times.iter().map(|time| Some(*time)).collect();
                let all = all.with_timezone_opt(zone);
                let field = |of: &DataType| Arc::new(arrow::datatypes::Field::new("f", of.clone(), true));
                let args = ScalarFunctionArgs {
                    args: vec![
                        ColumnarValue::Scalar(ScalarValue::Utf8(Some(part.into()))),
                        ColumnarValue::Array(Arc::new(all.clone())),
                    ],
                    arg_fields: vec![field(&DataType::Utf8), field(all.data_type())],
                    number_rows: times.len(),
                    return_field: field(all.data_type()),
                    config_options: Arc::default(),
                };
                let engine = date_trunc().invoke_with_args(args).unwrap().into_array(times.len()).unwrap();
                let engine = engine.as_primitive::<TimestampMicrosecondType>().clone();
                let zone = zone.map(|zone| zone.parse().unwrap());
                let ours: Vec<_> = times.iter().map(|time| cut_at(part, *time, zone)).collect();
                assert_eq!(ours, engine.iter().collect::<Vec<_>>(), "{part} {zone:?}");
            }
        }
    }
}
