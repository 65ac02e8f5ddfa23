//! When a model is due. Pure: instants come in as microseconds since 1970 UTC.

use std::str::FromStr;

use jiff::{Timestamp, tz::TimeZone};

use crate::error::{Error, Result};
use crate::plan::PlannedModel;
use crate::spec::types::Refresh;

/// How long `auto` leaves a model alone that can only be recomputed, in microseconds.
const AUTO_INTERVAL_US: i64 = 60_000_000;

/// Whether each change of what it reads is to reach a model at once.
pub fn is_continuous(model: &PlannedModel) -> bool {
    match model.refresh {
        Refresh::Continuous => true,
        Refresh::Auto => model.maintenance.is_some(),
        Refresh::Every(_) | Refresh::Cron(_) | Refresh::Manual => false,
    }
}

/// Whether a model that was last refreshed at `last_us` is due at `now_us`, its cron lines read in `zone`.
///
/// A schedule that was missed is due once, whatever the number of times missed; a model that was never refreshed is due
/// unless it is manual.
///
/// # Errors
/// A cron line or zone that can't be read, which the loader should have told.
pub fn is_due(refresh: &Refresh, last_us: Option<i64>, now_us: i64, zone: &str) -> Result<bool> {
    if *refresh == Refresh::Manual {
        return Ok(false);
    }
    let Some(last_us) = last_us else { return Ok(true) };
    Ok(match refresh {
        Refresh::Manual => false,
        Refresh::Continuous => true,
        Refresh::Auto => now_us - last_us >= AUTO_INTERVAL_US,
        Refresh::Every(interval) => (now_us - last_us) as i128 >= interval.as_micros() as i128,
        Refresh::Cron(line) => next_after(line, last_us, zone)?.is_some_and(|next_us| next_us <= now_us),
    })
}

/// The first instant after `after_us` that the cron line names in `zone`.
fn next_after(line: &str, after_us: i64, zone: &str) -> Result<Option<i64>> {
    let internal =
        |e: &dyn std::fmt::Display| Error::internal(format!("can't read a schedule: {e}")).with("cron", line);
    let cron = croner::Cron::from_str(line).map_err(|e| internal(&e))?;
    let zone = chrono_tz::Tz::from_str(zone).map_err(|e| internal(&e))?;
    let after = chrono::DateTime::from_timestamp_micros(after_us)
        .ok_or_else(|| internal(&"an instant out of range"))?
        .with_timezone(&zone);
    Ok(cron.find_next_occurrence(&after, false).ok().map(|next| next.timestamp_micros()))
}

/// Reads an instant as users write it: RFC 3339, or a date or wall-clock time in `zone`.
///
/// # Errors
/// Usage, saying what was expected.
pub fn parse_instant(text: &str, zone: &str) -> Result<i64> {
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(instant.as_microsecond());
    }
    let zone = TimeZone::get(zone).map_err(|e| Error::usage(e.to_string()))?;
    let civil = text
        .parse::<jiff::civil::DateTime>()
        .or_else(|_| text.parse::<jiff::civil::Date>().map(|date| date.to_datetime(jiff::civil::Time::midnight())));
    civil
        .and_then(|civil| zone.to_ambiguous_zoned(civil).compatible())
        .map(|zoned| zoned.timestamp().as_microsecond())
        .map_err(|_| Error::usage(format!("expected an instant such as `2018-09-01T03:00:00Z`, found `{text}`")))
}

/// The instant at which clocks of `zone` show a time, both in microseconds: of a gap the one after it, of a fold the first; none
/// out of range.
pub fn instant_in(wall_clock_us: i64, zone: &str) -> Option<i64> {
    let civil = Timestamp::from_microsecond(wall_clock_us).ok()?.to_zoned(TimeZone::UTC).datetime();
    let zoned = TimeZone::get(zone).ok()?.to_ambiguous_zoned(civil).compatible().ok()?;
    Some(zoned.timestamp().as_microsecond())
}

/// The clock's instant now, in microseconds since 1970 UTC.
pub fn wall_clock_us() -> i64 {
    Timestamp::now().as_microsecond()
}

/// An instant as text: ISO 8601 in UTC.
pub fn instant_text(us: i64) -> String {
    Timestamp::from_microsecond(us).map(|instant| instant.to_string()).unwrap_or_else(|_| us.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn us(text: &str) -> i64 {
        parse_instant(text, "America/Sao_Paulo").unwrap()
    }

    #[test]
    fn a_missed_cron_time_is_due_once() {
        let monthly = Refresh::Cron("0 6 1 * *".into());
        let due = |last: &str, now: &str| is_due(&monthly, Some(us(last)), us(now), "America/Sao_Paulo").unwrap();
        assert!(due("2018-01-01T06:00:00", "2018-04-02T00:00:00"));
        assert!(!due("2018-04-02T00:00:00", "2018-04-30T23:59:00"));
        assert!(due("2018-04-30T23:59:00", "2018-05-01T06:00:00"), "due at the very minute, in the project's zone");
        assert!(!due("2018-04-30T23:59:00", "2018-05-01T05:59:59"));
    }

    #[test]
    fn intervals_count_from_the_last_refresh() {
        let hourly = Refresh::Every(Duration::from_secs(3600));
        assert!(is_due(&hourly, None, 0, "UTC").unwrap());
        assert!(!is_due(&hourly, Some(0), 3_599_999_999, "UTC").unwrap());
        assert!(is_due(&hourly, Some(0), 3_600_000_000, "UTC").unwrap());
        assert!(!is_due(&Refresh::Manual, None, 0, "UTC").unwrap());
    }

    #[test]
    fn instants_without_a_zone_are_the_projects() {
        assert_eq!(us("2018-09-01T00:00:00"), us("2018-09-01T03:00:00Z"));
        assert_eq!(us("2018-09-01"), us("2018-09-01T03:00:00Z"));
        assert!(parse_instant("yesterday", "UTC").is_err());
    }
}
