//! Values of partition columns as Delta writes them: text in the log, none for null. Knows no file.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use datafusion::common::ScalarValue;

use crate::error::{Error, Result, ResultExt};

/// Texts of a column of a table schema, one a row.
///
/// # Errors
/// External: a type that can't partition a table, or an empty text, which Delta can't tell from null.
pub(crate) fn to_texts(name: &str, column: &ArrayRef) -> Result<Vec<Option<String>>> {
    let texts: Vec<Option<String>> = match column.data_type() {
        DataType::Timestamp(..) => {
            let values = column.as_primitive::<TimestampMicrosecondType>();
            // Instants in UTC, without saying so: as all engines write them.
            let text = |us: i64| match chrono::DateTime::from_timestamp_micros(us) {
                Some(at) => Ok(at.format("%Y-%m-%d %H:%M:%S%.6f").to_string()),
                None => Err(Error::external("an instant is out of range").with("column", name)),
            };
            values.iter().map(|us| us.map(text).transpose()).collect::<Result<_>>()?
        }
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Decimal128(..)
        | DataType::Utf8
        | DataType::Date32 => {
            let texts = cast(column, &DataType::Utf8).external("a partition value can't be written as text")?;
            texts.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
        }
        other => {
            return Err(Error::external(format!("a table can't be partitioned by a column of type {other}"))
                .with("column", name));
        }
    };
    if texts.iter().any(|text| text.as_deref() == Some("")) {
        return Err(Error::external("an empty text can't be a partition value: Delta tables can't tell it from null")
            .with("column", name)
            .with("hint", "partition by another column, or use nullif(column, '')"));
    }
    Ok(texts)
}

/// The folder of the files of one partition value, as Hive wrote it; some engines (Polars) read the value from there.
pub(crate) fn folder(names: &[&str], texts: &[Option<String>]) -> String {
    let part = |(name, text): (&&str, &Option<String>)| match text {
        Some(text) => format!("{}={}/", encoded(name), encoded(text)),
        None => format!("{}=__HIVE_DEFAULT_PARTITION__/", encoded(name)),
    };
    names.iter().zip(texts).map(part).collect()
}

/// All but letters, digits and a few harmless signs as `%` and two digits, so that any text is a file name anywhere.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The value that a text of the log stands for, as `target`.
///
/// # Errors
/// External if it isn't one.
pub(crate) fn to_value(name: &str, text: Option<&str>, target: &DataType) -> Result<ScalarValue> {
    let parsed = match text {
        None | Some("") => ScalarValue::try_from(target),
        Some(text) => match target {
            // As a text without zone, since the log's texts are in UTC and the target's zone only shows them.
            DataType::Timestamp(unit, Some(_)) => {
                let utc = DataType::Timestamp(*unit, Some("UTC".into()));
                ScalarValue::try_from_string(text.to_owned(), &utc).and_then(|value| value.cast_to(target))
            }
            _ => ScalarValue::try_from_string(text.to_owned(), target),
        },
    };
    parsed
        .map_err(|e| Error::external("a partition value of the table can't be read").with("column", name).caused_by(e))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray,
    };

    use super::*;

    #[test]
    fn texts_give_back_their_values() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(-7), None])),
            Arc::new(StringArray::from(vec![Some("São Paulo/=%"), None])),
            Arc::new(Date32Array::from(vec![Some(17_000), None])),
            Arc::new(BooleanArray::from(vec![Some(true), None])),
            Arc::new(Decimal128Array::from(vec![Some(-1234), None]).with_precision_and_scale(12, 2).unwrap()),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1_500_000_000_000_001), None])),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1_500_000_000_000_001), None]).with_timezone("UTC")),
        ];
        for column in columns {
            let texts = to_texts("c", &column).unwrap();
            for (row, text) in texts.iter().enumerate() {
                let value = to_value("c", text.as_deref(), column.data_type()).unwrap();
                assert_eq!(value, ScalarValue::try_from_array(&column, row).unwrap(), "{text:?}");
            }
        }
        let zoned: DataType = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("Asia/Tokyo".into()));
        let value = to_value("c", Some("1970-01-01T00:00:01.000000Z"), &zoned).unwrap();
        assert_eq!(value, ScalarValue::TimestampMicrosecond(Some(1_000_000), Some("Asia/Tokyo".into())));
    }

    #[test]
    fn empty_text_is_refused() {
        let column: ArrayRef = Arc::new(StringArray::from(vec![""]));
        assert!(to_texts("city", &column).unwrap_err().to_string().contains("column: city"));
    }
}
