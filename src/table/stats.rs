//! A data file's statistics: from Parquet's metadata to Delta's JSON, and from there to DataFusion. Knows no store.
//!
//! Only bounds that are sure are written: none of floats (Parquet leaves NaN out of them), none of years beyond 9999,
//! none that lost digits on the way. A bound that is missing costs time, a wrong one costs rows.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Decimal128Type, DecimalType, Schema};
use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::ParquetMetaData;
use serde_json::{Map, Value};

/// Digits that a JSON number keeps when it is read as a double.
const SURE_DIGITS: usize = 15;

/// Delta's statistics of a file with the columns `schema`, of which `null_counts` are known (in order; nested ones aren't told).
pub(crate) fn to_json(metadata: &ParquetMetaData, schema: &Schema, null_counts: &[u64]) -> String {
    let (mut lows, mut highs, mut nulls) = (Vec::new(), Vec::new(), Vec::new());
    for (field, null_count) in schema.fields().iter().zip(null_counts) {
        if field.data_type().is_nested() {
            continue;
        }
        let name = Value::from(field.name().as_str());
        nulls.push(format!("{name}:{null_count}"));
        let bounds = bounds(metadata, schema, field.name());
        if let Some((low, high)) = bounds.and_then(|(low, high)| to_text(&low).zip(to_text(&high))) {
            lows.push(format!("{name}:{low}"));
            highs.push(format!("{name}:{high}"));
        }
    }
    let rows = metadata.file_metadata().num_rows();
    // By hand, since a decimal must keep its digits and a JSON library's number is a double.
    format!(
        r#"{{"numRecords":{rows},"minValues":{{{}}},"maxValues":{{{}}},"nullCount":{{{}}}}}"#,
        lows.join(","),
        highs.join(","),
        nulls.join(",")
    )
}

/// Least and greatest value over all row groups, if each tells or has only nulls.
fn bounds(metadata: &ParquetMetaData, schema: &Schema, column: &str) -> Option<(ScalarValue, ScalarValue)> {
    let parquet = metadata.file_metadata().schema_descr();
    let converter = StatisticsConverter::try_new(column, schema, parquet).ok()?;
    let groups = metadata.row_groups();
    let lows = converter.row_group_mins(groups).ok()?;
    let highs = converter.row_group_maxes(groups).ok()?;
    let nulls = converter.row_group_null_counts(groups).ok()?;
    let mut bounds: Option<(ScalarValue, ScalarValue)> = None;
    for (group, rows) in groups.iter().map(|g| g.num_rows()).enumerate() {
        if lows.is_null(group) || highs.is_null(group) {
            let only_nulls = nulls.is_valid(group) && i64::try_from(nulls.value(group)) == Ok(rows);
            if only_nulls {
                continue;
            }
            return None;
        }
        let low = value(&lows, group)?;
        let high = value(&highs, group)?;
        bounds = Some(match bounds {
            None => (low, high),
            Some((least, greatest)) => (
                if low.partial_cmp(&least)?.is_lt() { low } else { least },
                if high.partial_cmp(&greatest)?.is_gt() { high } else { greatest },
            ),
        });
    }
    bounds
}

fn value(array: &ArrayRef, row: usize) -> Option<ScalarValue> {
    ScalarValue::try_from_array(array, row).ok()
}

/// A bound as JSON; none for types and values that Delta can't bound surely.
fn to_text(value: &ScalarValue) -> Option<String> {
    Some(match value {
        ScalarValue::Int8(Some(v)) => v.to_string(),
        ScalarValue::Int16(Some(v)) => v.to_string(),
        ScalarValue::Int32(Some(v)) => v.to_string(),
        ScalarValue::Int64(Some(v)) => v.to_string(),
        ScalarValue::Decimal128(Some(v), precision, scale) => Decimal128Type::format_decimal(*v, *precision, *scale),
        ScalarValue::Utf8(Some(v)) | ScalarValue::Utf8View(Some(v)) => Value::from(v.as_str()).to_string(),
        ScalarValue::Date32(Some(days)) => {
            let date =
                NaiveDate::from_ymd_opt(1970, 1, 1)?.checked_add_signed(chrono::TimeDelta::days((*days).into()))?;
            (0..=9999).contains(&date.year()).then(|| format!("\"{}\"", date.format("%Y-%m-%d")))?
        }
        ScalarValue::TimestampMicrosecond(Some(us), zone) => {
            let at = DateTime::from_timestamp_micros(*us)?;
            let suffix = if zone.is_some() { "Z" } else { "" };
            (0..=9999).contains(&at.year()).then(|| format!("\"{}{suffix}\"", at.format("%Y-%m-%dT%H:%M:%S%.6f")))?
        }
        _ => return None,
    })
}

/// DataFusion's statistics of a file with the columns `schema` (as read); what isn't told is absent.
pub(crate) fn from_json(stats: Option<&str>, rows: u64, schema: &Schema) -> Statistics {
    let told: Option<Value> = stats.and_then(|text| serde_json::from_str(text).ok());
    let part = |name: &str| told.as_ref().and_then(|t| t.get(name)).and_then(Value::as_object);
    let (lows, highs, nulls) = (part("minValues"), part("maxValues"), part("nullCount"));
    let column = |field: &arrow::datatypes::FieldRef| {
        let bound = |of: Option<&Map<String, Value>>| {
            let value = of.and_then(|m| m.get(field.name())).and_then(|v| from_text(v, field.data_type()));
            match value {
                // Text bounds may be cut to a prefix.
                Some(value @ ScalarValue::Utf8View(_)) => Precision::Inexact(value),
                Some(value) => Precision::Exact(value),
                None => Precision::Absent,
            }
        };
        let null_count = nulls.and_then(|m| m.get(field.name())).and_then(Value::as_u64);
        ColumnStatistics {
            null_count: null_count.and_then(|n| usize::try_from(n).ok()).map_or(Precision::Absent, Precision::Exact),
            min_value: bound(lows),
            max_value: bound(highs),
            ..ColumnStatistics::new_unknown()
        }
    };
    Statistics {
        num_rows: usize::try_from(rows).map_or(Precision::Absent, Precision::Exact),
        total_byte_size: Precision::Absent,
        column_statistics: schema.fields().iter().map(column).collect(),
    }
}

fn from_text(value: &Value, target: &DataType) -> Option<ScalarValue> {
    let text = match (value, target) {
        (Value::String(text), DataType::Utf8View | DataType::Date32 | DataType::Timestamp(..)) => text.clone(),
        (Value::Number(number), DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64) => {
            number.as_i64()?.to_string()
        }
        (Value::Number(number), DataType::Decimal128(..)) => {
            let text = number.to_string();
            let digits = text.bytes().filter(u8::is_ascii_digit).count();
            // A double that prints with an exponent or many digits may not be what was written.
            (digits <= SURE_DIGITS && !text.contains(['e', 'E'])).then_some(text)?
        }
        _ => return None,
    };
    super::partition::to_value("", Some(&text), target).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, TimeUnit};

    use super::*;

    fn read(json: &str, data_type: DataType) -> ColumnStatistics {
        let schema = Schema::new(vec![Field::new("c", data_type, true)]);
        from_json(Some(json), 3, &schema).column_statistics.remove(0)
    }

    fn bound(text: &str) -> String {
        format!(r#"{{"minValues":{{"c":{text}}},"maxValues":{{"c":{text}}},"nullCount":{{"c":1}}}}"#)
    }

    #[test]
    fn bounds_are_exact_or_absent() {
        let stats = read(&bound("12.34"), DataType::Decimal128(38, 2));
        assert_eq!(stats.min_value, Precision::Exact(ScalarValue::Decimal128(Some(1234), 38, 2)));
        assert_eq!(stats.null_count, Precision::Exact(1));
        assert_eq!(read(&bound("12345678901234567.89"), DataType::Decimal128(38, 2)).min_value, Precision::Absent);
        assert_eq!(read(&bound("1.5"), DataType::Float64).min_value, Precision::Absent);
        assert_eq!(
            read(&bound("9007199254740993"), DataType::Int64).max_value,
            Precision::Exact(ScalarValue::Int64(Some(9_007_199_254_740_993)))
        );
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("America/Sao_Paulo")));
        assert_eq!(
            read(&bound("\"1970-01-01T00:00:01.000002Z\""), zoned).max_value,
            Precision::Exact(ScalarValue::TimestampMicrosecond(Some(1_000_002), Some("America/Sao_Paulo".into())))
        );
        assert!(matches!(read(&bound("\"abc\""), DataType::Utf8View).min_value, Precision::Inexact(_)));
    }

    #[test]
    fn nothing_told_is_nothing_known() {
        let schema = Schema::new(vec![Field::new("c", DataType::Int64, true)]);
        let stats = from_json(None, 7, &schema);
        assert_eq!(stats.num_rows, Precision::Exact(7));
        assert_eq!(stats.column_statistics[0].min_value, Precision::Absent);
    }
}
