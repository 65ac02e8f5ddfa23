//! Text that stands for a time without seconds, as sources read it: `2024-03-31 10:00`, `2024-03-31T10:00+02:00`. The engine asks for seconds.
//! Knows no columns.

use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::error::ArrowError;
use chrono::{DateTime, TimeZone, Utc};
use datafusion::common::ScalarValue;

/// Where seconds would stand: behind `2024-03-31 10:00`.
const SECONDS_AT: usize = 16;

/// A time as the engine reads it, seconds or none; one that it can't read fails by its own text.
///
/// # Errors
/// What the engine says of it.
pub fn read_time<T: TimeZone>(zone: &T, text: &str) -> Result<DateTime<T>, ArrowError> {
    let read = with_seconds(text).and_then(|whole| string_to_datetime(zone, &whole).ok());
    read.map_or_else(|| string_to_datetime(zone, text), Ok)
}

/// Gives a text seconds, if it is a time without; whether it did.
pub fn add_seconds(value: &mut ScalarValue) -> bool {
    let (ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text))) =
        value
    else {
        return false;
    };
    match with_seconds(text).filter(|whole| string_to_datetime(&Utc, whole).is_ok()) {
        Some(whole) => {
            *text = whole;
            true
        }
        None => false,
    }
}

/// The text with seconds, if it has a time of day without.
fn with_seconds(text: &str) -> Option<String> {
    let (minutes, rest) = text.split_at_checked(SECONDS_AT)?;
    let bytes = minutes.as_bytes();
    let is_time = [11, 12, 14, 15].iter().all(|at| bytes[*at].is_ascii_digit()) && bytes[13] == b':';
    (is_time && !rest.starts_with(':')).then(|| format!("{minutes}:00{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<i64> {
        read_time(&Utc, text).ok().map(|at| at.timestamp())
    }

    #[test]
    fn times_have_seconds_or_none() {
        let ten = seconds("1970-01-01T10:00:00Z");
        assert_eq!(ten, Some(36_000));
        for text in [
            "1970-01-01 10:00",
            "1970-01-01T10:00",
            "1970-01-01T10:00Z",
            "1970-01-01 12:00+02:00",
            "1970-01-01 07:30 -02:30",
            "1970-01-01 10:00:00",
        ] {
            assert_eq!(seconds(text), ten, "{text}");
        }
        assert_eq!(seconds("1970-01-01"), Some(0));
    }

    #[test]
    fn what_is_no_time_fails_by_its_own_text() {
        for text in
            ["noon", "1970-01-01 10", "1970-01-01 25:00", "1970-01-01 10:0", "1970-01-01 10:00:", "1970-01-01 10:00 am"]
        {
            let error = read_time(&Utc, text).unwrap_err().to_string();
            assert!(error.contains(&format!("'{text}'")) || text.ends_with("am"), "{error}");
        }
    }
}
