//! Dates and times from text: ISO 8601, or a strftime format. Wall-clock times are never shifted.

use jiff::civil::{Date, DateTime, Time};
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 24 * 3600 * SECOND_US;

/// Days from 1970-01-01 to a date.
fn days(date: Date) -> i32 {
    let epoch = jiff::civil::date(1970, 1, 1);
    epoch.until(date).map(|span| span.get_days()).unwrap_or_default()
}

/// Microseconds from 1970-01-01T00:00:00 to a wall-clock time, as if in UTC. By the calendar alone: jiff's instants end a day
/// before it does, and `9999-12-31` is how many say that something has no end.
fn wall_micros(at: DateTime) -> i64 {
    i64::from(days(at.date())) * DAY_US + micros_of_day(at.time())
}

fn micros_of_day(time: Time) -> i64 {
    time.duration_since(Time::midnight()).as_micros().try_into().unwrap_or_default()
}

/// A wall-clock time and the offset or zone that the text gave with it, if any.
struct Parsed {
    at: DateTime,
    offset: Option<Offset>,
}

/// How times of a column are written.
pub(super) struct TimeFormat {
    /// strftime; ISO 8601 if none.
    format: Option<String>,
    /// Zone of texts without one.
    zone: TimeZone,
}

impl TimeFormat {
    /// `zone` is where texts without a zone are at home.
    pub(super) fn new(format: Option<&str>, zone: &str) -> Result<Self, String> {
        let zone = TimeZone::get(zone).map_err(|e| e.to_string())?;
        Ok(Self { format: format.map(str::to_string), zone })
    }

    /// Days since 1970-01-01.
    pub(super) fn date(&self, text: &str) -> Result<i32, String> {
        let date = match &self.format {
            Some(format) => {
                BrokenDownTime::parse(format, text).and_then(|tm| tm.to_date()).map_err(|_| self.expected("a date"))?
            }
            None => match iso_date(text.as_bytes()) {
                Some((date, [])) => date,
                _ => return Err(self.expected("a date")),
            },
        };
        Ok(days(date))
    }

    /// Microseconds of a wall-clock time since 1970-01-01T00:00:00.
    pub(super) fn timestamp(&self, text: &str) -> Result<i64, String> {
        let parsed = self.parse(text)?;
        if parsed.offset.is_some() {
            return Err("has a zone, and timestamp is a wall-clock time; declare the column timestamptz".to_string());
        }
        Ok(wall_micros(parsed.at))
    }

    /// Microseconds of an instant since 1970-01-01T00:00:00Z. Without a zone in the text: in a gap the clock has gone
    /// forward, in a fold it is the earlier one.
    pub(super) fn instant(&self, text: &str) -> Result<i64, String> {
        let parsed = self.parse(text)?;
        let offset = parsed.offset.unwrap_or_else(|| match self.zone.to_ambiguous_timestamp(parsed.at).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset,
            AmbiguousOffset::Gap { before, .. } | AmbiguousOffset::Fold { before, .. } => before,
        });
        Ok(wall_micros(parsed.at) - i64::from(offset.seconds()) * SECOND_US)
    }

    fn parse(&self, text: &str) -> Result<Parsed, String> {
        let expected = || self.expected("a time");
        match &self.format {
            Some(format) => {
                let tm = BrokenDownTime::parse(format, text).map_err(|_| expected())?;
                let at = tm.to_datetime().or_else(|_| tm.to_date().map(|d| d.to_datetime(Time::midnight())));
                let at = at.map_err(|_| expected())?;
                check_micros(at.subsec_nanosecond())?;
                Ok(Parsed { at, offset: tm.offset() })
            }
            None => iso(text)?.ok_or_else(expected),
        }
    }

    fn expected(&self, what: &str) -> String {
        match &self.format {
            Some(format) => format!("isn't {what} as `{format}`"),
            None => format!("isn't {what} in ISO 8601"),
        }
    }
}

/// Microseconds of the day: `HH:MM`, `HH:MM:SS`, with a fraction.
pub(super) fn time_of_day(text: &str) -> Result<i64, String> {
    match iso_time(text.as_bytes())? {
        Some((time, [])) => Ok(micros_of_day(time)),
        _ => Err("isn't a time of day".to_string()),
    }
}

fn check_micros(nanos: i32) -> Result<(), String> {
    if nanos % 1000 == 0 { Ok(()) } else { Err("has more than 6 digits of a second".to_string()) }
}

/// `2018-01-31`, `2018-01-31T22:00`, `2018-01-31 22:00:05.123 UTC`, `…+03:00`; none where it is something else.
fn iso(text: &str) -> Result<Option<Parsed>, String> {
    let Some((date, rest)) = iso_date(text.as_bytes()) else { return Ok(None) };
    let rest = match rest {
        [] => return Ok(Some(Parsed { at: date.to_datetime(Time::midnight()), offset: None })),
        [b'T' | b't' | b' ', rest @ ..] => rest,
        _ => return Ok(None),
    };
    let Some((time, rest)) = iso_time(rest)? else { return Ok(None) };
    let at = date.to_datetime(time);
    let rest = if let [b' ', rest @ ..] = rest { rest } else { rest };
    let offset = match rest {
        [] => return Ok(Some(Parsed { at, offset: None })),
        b"Z" | b"z" | b"UTC" | b"GMT" => Offset::UTC,
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let (hours, minutes) = match rest {
                [a, b] => (two(*a, *b), Some(0)),
                [a, b, c, d] | [a, b, b':', c, d] => (two(*a, *b), two(*c, *d)),
                _ => return Ok(None),
            };
            let (Some(hours), Some(minutes)) = (hours, minutes) else { return Ok(None) };
            let seconds = (i32::from(hours) * 60 + i32::from(minutes)) * 60;
            match Offset::from_seconds(if *sign == b'-' { -seconds } else { seconds }) {
                Ok(offset) => offset,
                Err(_) => return Ok(None),
            }
        }
        _ => return Ok(None),
    };
    Ok(Some(Parsed { at, offset: Some(offset) }))
}

fn two(a: u8, b: u8) -> Option<i8> {
    (a.is_ascii_digit() && b.is_ascii_digit()).then(|| ((a - b'0') * 10 + (b - b'0')) as i8)
}

fn iso_date(text: &[u8]) -> Option<(Date, &[u8])> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, rest @ ..] = text else { return None };
    let year = i16::from(two(*y1, *y2)?) * 100 + i16::from(two(*y3, *y4)?);
    Date::new(year, two(*m1, *m2)?, two(*d1, *d2)?).ok().map(|date| (date, rest))
}

fn iso_time(text: &[u8]) -> Result<Option<(Time, &[u8])>, String> {
    let [h1, h2, b':', m1, m2, rest @ ..] = text else { return Ok(None) };
    let (Some(hour), Some(minute)) = (two(*h1, *h2), two(*m1, *m2)) else { return Ok(None) };
    let (mut second, mut nanos, mut rest) = (0, 0, rest);
    if let [b':', s1, s2, tail @ ..] = rest {
        let Some(value) = two(*s1, *s2) else { return Ok(None) };
        (second, rest) = (value, tail);
        if let [b'.' | b',', tail @ ..] = rest {
            let digits = tail.iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 {
                return Ok(None);
            }
            for (place, byte) in tail[..digits].iter().enumerate() {
                let digit = i32::from(byte - b'0');
                match u32::try_from(place).ok().filter(|place| *place < 9) {
                    Some(place) => nanos += digit * 10_i32.pow(8 - place),
                    None if digit != 0 => return Err("has more than 6 digits of a second".to_string()),
                    None => {}
                }
            }
            check_micros(nanos)?;
            rest = &tail[digits..];
        }
    }
    Ok(Time::new(hour, minute, second, nanos).ok().map(|time| (time, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iso_in(zone: &str) -> TimeFormat {
        TimeFormat::new(None, zone).unwrap()
    }

    #[test]
    fn instants_take_zones_offsets_and_utc() {
        let format = iso_in("America/Sao_Paulo");
        let second = 1_538_352_000_000_000; // 2018-10-01T00:00:00Z
        for text in [
            "2018-10-01 00:00:00 UTC",
            "2018-10-01T00:00Z",
            "2018-09-30T21:00:00-03:00",
            "2018-09-30 21:00",
            "2018-09-30T21:00:00.000000000-0300",
            "2018-10-01T05:30:00+05:30",
            "2018-09-30 21:00:00-03",
        ] {
            assert_eq!(format.instant(text), Ok(second), "{text}");
        }
        assert_eq!(format.instant("2018-10-01T00:00:00.5Z"), Ok(second + 500_000));
        assert!(format.instant("2018-10-01T00:00:00.1234567Z").unwrap_err().contains("6 digits"));
        for text in [
            "2018-13-01",
            "2018-02-30",
            "2018-10-01T25:00",
            "2018-10-01T00:00:00.",
            "yesterday",
            "2018-10-01T00:00Zulu",
            "",
        ] {
            assert!(format.instant(text).is_err(), "{text}");
        }
    }

    #[test]
    fn gaps_go_forward_and_folds_are_earlier() {
        let format = iso_in("Europe/Berlin");
        let utc = iso_in("UTC");
        assert_eq!(format.instant("2018-03-25 02:30"), utc.instant("2018-03-25 01:30"), "the gap");
        assert_eq!(format.instant("2018-10-28 02:30"), utc.instant("2018-10-28 00:30"), "the fold");
    }

    #[test]
    fn times_go_to_the_end_of_the_calendar() {
        let end = 253_402_300_800_000_000; // 10000-01-01T00:00:00Z
        let hour = 3600 * SECOND_US;
        let utc = iso_in("UTC");
        assert_eq!(utc.timestamp("9999-12-31"), Ok(end - DAY_US));
        assert_eq!(utc.timestamp("9999-12-31T23:59:59.999999"), Ok(end - 1));
        assert_eq!(utc.instant("9999-12-31T23:59:59.999999Z"), Ok(end - 1));
        assert_eq!(utc.instant("9999-12-31T23:59:59.999999+02:00"), Ok(end - 2 * hour - 1));
        assert_eq!(utc.instant("9999-12-31T22:00-03:00"), Ok(end + hour), "its text is in the calendar");
        assert_eq!(iso_in("America/Sao_Paulo").instant("9999-12-31"), Ok(end - 21 * hour));
        assert_eq!(iso_in("Pacific/Auckland").instant("9999-12-31T13:00"), Ok(end - 24 * hour), "summer there");
        let written = TimeFormat::new(Some("%d.%m.%Y"), "UTC").unwrap();
        assert_eq!(written.timestamp("31.12.9999"), Ok(end - DAY_US));
        assert_eq!(utc.instant("0001-01-01T00:00Z"), Ok(-62_135_596_800_000_000));
    }

    #[test]
    fn wall_clock_times_have_no_zone() {
        let format = iso_in("America/Sao_Paulo");
        assert_eq!(format.timestamp("1970-01-02 00:00"), Ok(86_400_000_000));
        assert!(format.timestamp("1970-01-02T00:00Z").unwrap_err().contains("timestamptz"));
        assert_eq!(format.date("1969-12-31"), Ok(-1));
        assert!(format.date("1969-12-31 00:00").is_err());
        assert_eq!(time_of_day("10:00:00.25"), Ok(36_000_250_000));
    }

    #[test]
    fn spreadsheet_times_have_single_digits() {
        let format = TimeFormat::new(Some("%m/%d/%Y %H:%M"), "UTC").unwrap();
        let utc = iso_in("UTC");
        assert_eq!(format.timestamp("10/2/2017 9:05"), utc.timestamp("2017-10-02 09:05"));
        assert_eq!(format.timestamp("1/12/2018 00:00"), utc.timestamp("2018-01-12"));
        assert!(format.timestamp("13/12/2018 00:00").is_err());
        let date = TimeFormat::new(Some("%d.%m.%Y"), "UTC").unwrap();
        assert_eq!(date.date("3.10.2017"), utc.date("2017-10-03"));
    }
}
