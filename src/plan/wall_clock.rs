//! Wall-clock times in SQL that become instants of a zone whose clocks change: one in a gap goes forward by the gap, one that
//! comes twice is the earlier, as in sources. The engine's own casts fail on both. And instants that become wall-clock times are
//! those of their zone, as in SQL; the engine's own cast gives UTC's. Text is read with or without seconds (`without_seconds.rs`).
//! Knows no columns.

use std::sync::Arc;

use arrow::array::temporal_conversions::as_datetime;
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{
    ArrowTimestampType, DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;
use chrono::{FixedOffset, Offset as _, TimeDelta, TimeZone as _, Utc};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err, internal_err};
use datafusion::logical_expr::expr::{Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::casts::Around;
use super::coercion::where_concerned;
use super::types::offset_of_wall_clock;
use super::without_seconds::{add_seconds, read_time};

/// The function that stands for a cast to an instant.
pub const INSTANT: &str = "tidemill_instant";

/// The function that stands for a cast to a wall-clock time.
pub const WALL_CLOCK: &str = "tidemill_wall_clock";

/// Functions of text that read it as the session's zone has it.
const READERS: [&str; 5] =
    ["to_timestamp", "to_timestamp_seconds", "to_timestamp_millis", "to_timestamp_micros", "to_timestamp_nanos"];

/// Casts whose type is a text.
const CASTS: [&str; 2] = ["arrow_cast", "arrow_try_cast"];

/// Puts the function where the engine would cast; behind the rule that inserts casts.
#[derive(Debug)]
pub struct WallClocks;

impl AnalyzerRule for WallClocks {
    fn name(&self) -> &'static str {
        "wall_clocks"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        where_concerned(plan, may_become, with_zoned_casts)
    }
}

/// The expression over `schema` with its casts so; its names and types stay.
///
/// # Errors
/// When a name isn't of the schema.
pub fn with_zoned_casts(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|mut expr| {
        let is_read = may_become(&expr) && matches!(expr.get_type(schema)?, DataType::Timestamp(..));
        let is_changed = is_read && constant_of(&mut expr).is_some_and(add_seconds);
        let read = if is_changed { Transformed::yes(expr) } else { Transformed::no(expr) };
        read.transform_data(|expr| with_zoned_cast(expr, schema))
    })
}

/// The constant that a cast or a call makes a time of.
fn constant_of(expr: &mut Expr) -> Option<&mut ScalarValue> {
    let value = match expr {
        Expr::Cast(Cast { expr, .. }) | Expr::TryCast(TryCast { expr, .. }) => expr.as_mut(),
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            // A text that stands behind it would be its format.
            let is_read = match args.len() {
                1 => READERS.contains(&func.name()),
                2 => CASTS.contains(&func.name()),
                _ => false,
            };
            args.first_mut().filter(|_| is_read)?
        }
        _ => return None,
    };
    match value {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

fn with_zoned_cast(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let (value, to, is_try) = match &expr {
        Expr::Cast(Cast { expr, field }) => (expr.as_ref(), field.data_type().clone(), false),
        Expr::TryCast(TryCast { expr, field }) => (expr.as_ref(), field.data_type().clone(), true),
        Expr::ScalarFunction(call) => match (call.name(), call.args.as_slice()) {
            (name, [text]) if READERS.contains(&name) => (text, expr.get_type(schema)?, false),
            (name, [value, _]) if CASTS.contains(&name) => (value, expr.get_type(schema)?, name == CASTS[1]),
            _ => return Ok(Transformed::no(expr)),
        },
        _ => return Ok(Transformed::no(expr)),
    };
    let DataType::Timestamp(unit, zone) = to else { return Ok(Transformed::no(expr)) };
    let from = value.get_type(schema)?;
    // Of constants it is known by now that they have seconds.
    let may_lack_seconds = is_text(&from) && value.as_literal().is_none();
    let way = match (&from, zone) {
        (DataType::Timestamp(_, Some(zone)), None) if changing(zone).is_some() => Way::WallClock,
        (_, None) if may_lack_seconds => Way::WallClock,
        (_, Some(zone)) if may_lack_seconds && let Ok(changing) = zone.parse() => Way::Instant { zone, changing },
        (from, Some(zone))
            if is_wall_clock(from)
                && let Some(changing) = changing(&zone) =>
        {
            Way::Instant { zone, changing }
        }
        _ => return Ok(Transformed::no(expr)),
    };
    let may_be_null = expr.nullable(schema)? && !value.nullable(schema)?;
    let around = Around::of(&expr, value);
    let signature = Signature::any(1, Volatility::Immutable);
    let function = Read { way, unit, is_try, may_be_null, around, signature };
    let call = ScalarFunction::new_udf(Arc::new(ScalarUDF::from(function)), vec![value.clone()]);
    Ok(Transformed::yes(Expr::ScalarFunction(call)))
}

/// Whether it is of the kinds that are looked into; what they are over costs more to find out.
fn may_become(expr: &Expr) -> bool {
    match expr {
        Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) => {
            matches!(field.data_type(), DataType::Timestamp(..))
        }
        Expr::ScalarFunction(call) => READERS.contains(&call.name()) || CASTS.contains(&call.name()),
        _ => false,
    }
}

/// A zone by its name, unless it is UTC.
fn changing(zone: &str) -> Option<chrono_tz::Tz> {
    zone.parse().ok().filter(|zone| !matches!(zone, chrono_tz::Tz::UTC | chrono_tz::Tz::Etc__UTC))
}

fn is_wall_clock(data_type: &DataType) -> bool {
    match data_type {
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, None) => true,
        DataType::Dictionary(_, values) => is_wall_clock(values),
        other => other.is_string(),
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_text(values),
        other => other.is_string(),
    }
}

/// What becomes what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Way {
    /// A wall-clock time becomes an instant.
    Instant {
        zone: Arc<str>,
        /// The same zone.
        changing: chrono_tz::Tz,
    },
    /// An instant becomes a wall-clock time of its zone; text one of UTC, where it has an offset.
    WallClock,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Read {
    way: Way,
    unit: TimeUnit,
    /// Whether what can't be read is null.
    is_try: bool,
    /// Whether it is null of values too, as what it stands for.
    may_be_null: bool,
    around: Around,
    signature: Signature,
}

impl ScalarUDFImpl for Read {
    fn name(&self) -> &str {
        match self.way {
            Way::Instant { .. } => INSTANT,
            Way::WallClock => WALL_CLOCK,
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let [value] = args else { return internal_err!("{}() is of one value", self.name()) };
        let of = if self.is_try { "try " } else { "" };
        Ok(self.around.name(value).unwrap_or_else(|| match &self.way {
            Way::Instant { zone, .. } => format!("{INSTANT}({of}{value}, {:?}, {zone})", self.unit),
            Way::WallClock => format!("{WALL_CLOCK}({of}{value}, {:?})", self.unit),
        }))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(self.unit, self.zone()))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let is_nullable = self.may_be_null || args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&[])?, is_nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else { return internal_err!("{}() is of one value", self.name()) };
        let is_constant = matches!(value, ColumnarValue::Scalar(_));
        let values = value.to_array(if is_constant { 1 } else { args.number_rows })?;
        let read = match self.unit {
            TimeUnit::Second => self.read::<TimestampSecondType>(&values),
            TimeUnit::Millisecond => self.read::<TimestampMillisecondType>(&values),
            TimeUnit::Microsecond => self.read::<TimestampMicrosecondType>(&values),
            TimeUnit::Nanosecond => self.read::<TimestampNanosecondType>(&values),
        }?;
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&read, 0)?),
            false => ColumnarValue::Array(read),
        })
    }
}

impl Read {
    fn zone(&self) -> Option<Arc<str>> {
        match &self.way {
            Way::Instant { zone, .. } => Some(Arc::clone(zone)),
            Way::WallClock => None,
        }
    }

    fn read<T: ArrowTimestampType>(&self, values: &ArrayRef) -> Result<ArrayRef> {
        let read: PrimitiveArray<T> = match (&self.way, values.data_type()) {
            (_, DataType::Dictionary(_, of)) => return self.read::<T>(&cast(values, of)?),
            (Way::Instant { changing, .. }, of) if of.is_string() => self.of_texts::<T>(values, *changing)?,
            (Way::WallClock, of) if of.is_string() => self.of_texts::<T>(values, chrono_tz::Tz::UTC)?,
            (Way::Instant { changing, .. }, _) => {
                self.each::<T>(values, None, |local| moved::<T>(local, -seconds_of_wall_clock::<T>(local, *changing)?))?
            }
            (Way::WallClock, DataType::Timestamp(_, Some(zone))) => {
                let Some(offsets) = changing(zone) else { return internal_err!("{zone} is no zone") };
                let local = |at| moved::<T>(at, seconds_of_instant::<T>(at, offsets)?);
                self.each::<T>(values, Some(Arc::clone(zone)), local)?
            }
            (Way::WallClock, of) => return internal_err!("{of} has no zone"),
        };
        Ok(Arc::new(read.with_timezone_opt(self.zone())))
    }

    /// Texts as the engine reads them, in a zone.
    fn of_texts<T: ArrowTimestampType>(&self, texts: &ArrayRef, zone: chrono_tz::Tz) -> Result<PrimitiveArray<T>> {
        let texts = cast(texts, &DataType::Utf8View)?;
        let read = texts.as_string_view().iter().map(|text| match text.map(|text| instant_of_text::<T>(text, zone)) {
            Some(Err(_)) if self.is_try => Ok(None),
            read => read.transpose(),
        });
        Ok(read.collect::<Result<_, ArrowError>>()?)
    }

    /// Values in the unit, each made another; one that can't be is null or an error.
    fn each<T: ArrowTimestampType>(
        &self,
        values: &ArrayRef,
        zone: Option<Arc<str>>,
        made: impl Fn(i64) -> Option<i64>,
    ) -> Result<PrimitiveArray<T>> {
        let options = CastOptions { safe: self.is_try, ..CastOptions::default() };
        let values = cast_with_options(values, &DataType::Timestamp(T::UNIT, zone), &options)?;
        let values = values.as_primitive::<T>();
        match self.is_try {
            true => Ok(values.unary_opt(made)),
            false => values.try_unary(|at| match made(at) {
                Some(made) => Ok(made),
                None => exec_err!("the time {at} is out of range"),
            }),
        }
    }
}

/// A time so many seconds later.
fn moved<T: ArrowTimestampType>(at: i64, seconds: i64) -> Option<i64> {
    let per_second = match T::UNIT {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
    at.checked_add(seconds * per_second)
}

/// How far a zone is ahead of UTC at a wall-clock time since 1970 there.
fn seconds_of_wall_clock<T: ArrowTimestampType>(local: i64, zone: chrono_tz::Tz) -> Option<i64> {
    Some(offset_of_wall_clock(&as_datetime::<T>(local)?, zone).local_minus_utc().into())
}

/// How far a zone is ahead of UTC at an instant.
fn seconds_of_instant<T: ArrowTimestampType>(at: i64, zone: chrono_tz::Tz) -> Option<i64> {
    Some(zone.offset_from_utc_datetime(&as_datetime::<T>(at)?).fix().local_minus_utc().into())
}

/// Text as the engine reads it, in a zone, or without seconds.
fn instant_of_text<T: ArrowTimestampType>(text: &str, zone: chrono_tz::Tz) -> Result<i64, ArrowError> {
    let at = read_time(&Utc, text)?;
    // A text with an offset of its own is the same instant wherever it is read.
    let Some(elsewhere) = FixedOffset::east_opt(3600) else { return Ok(at.timestamp()) };
    let has_offset = read_time(&elsewhere, text)? == at;
    let local = at.naive_utc();
    let instant = match has_offset {
        true => Some(local),
        false => {
            let offset = offset_of_wall_clock(&local, zone);
            local.checked_sub_signed(TimeDelta::seconds(offset.local_minus_utc().into()))
        }
    };
    instant
        .and_then(|instant| T::from_naive_datetime(instant, None))
        .ok_or_else(|| ArrowError::CastError(format!("Overflow converting {local} to {:?}", T::UNIT)))
}
