//! When things happen: the period, busy months, weekdays and hours. Knows no table.

use chrono::{Datelike, Days, NaiveDate};

use crate::error::{Error, Result};

/// Seconds of a day.
pub(super) const DAY: i64 = 86_400;

/// Greatest weight that a day may have, for thinning.
pub(super) const HEAVIEST_DAY: f64 = 3.0;

/// The generated days.
pub(super) struct Period {
    /// Midnight of the first day, in seconds since 1970.
    pub(super) start: i64,
    /// Weight of each day; a plain one weighs about 1.
    weights: Vec<f64>,
    /// Name of each day, `2018-01-05`.
    names: Vec<String>,
}

impl Period {
    /// `days` from `start` on.
    pub(super) fn new(start: NaiveDate, days: u32) -> Result<Self> {
        let outside = || Error::usage("the days must lie between the years 1 and 9999").with("start", start);
        let mut weights = Vec::with_capacity(days as usize);
        let mut names = Vec::with_capacity(days as usize);
        for n in 0..u64::from(days) {
            let day = start.checked_add_days(Days::new(n)).filter(|d| (1..=9999).contains(&d.year()));
            let day = day.ok_or_else(outside)?;
            weights.push(weight(day));
            names.push(day.to_string());
        }
        let epoch = NaiveDate::default();
        Ok(Self { start: start.signed_duration_since(epoch).num_seconds(), weights, names })
    }

    /// How many days.
    pub(super) fn days(&self) -> usize {
        self.weights.len()
    }

    /// First second after the last day.
    pub(super) fn end(&self) -> i64 {
        self.start + self.days() as i64 * DAY
    }

    /// Weight of a day, 0 outside the period.
    pub(super) fn weight(&self, day: usize) -> f64 {
        self.weights.get(day).copied().unwrap_or(0.0)
    }

    /// The day's name, which names its files.
    pub(super) fn name(&self, day: usize) -> &str {
        self.names.get(day).map_or("", String::as_str)
    }

    /// `total` split over the days by weight: exact in sum, the same whatever is asked first.
    pub(super) fn split(&self, total: u64) -> Vec<u64> {
        let whole: f64 = self.weights.iter().sum();
        let mut below = 0.0;
        let mut taken = 0;
        let last = self.days().saturating_sub(1);
        let mut parts = Vec::with_capacity(self.days());
        for (day, weight) in self.weights.iter().enumerate() {
            below += weight;
            let upto = if day == last { total } else { ((total as f64 * (below / whole)) as u64).clamp(taken, total) };
            parts.push(upto - taken);
            taken = upto;
        }
        parts
    }
}

/// Weekends are slower, Mondays busier; December's gifts and the sale of late November stand out.
fn weight(day: NaiveDate) -> f64 {
    let weekday = [1.16, 1.14, 1.10, 1.05, 1.00, 0.75, 0.80][day.weekday().num_days_from_monday() as usize];
    let month = [0.98, 0.93, 1.00, 0.97, 1.08, 0.95, 0.99, 1.02, 0.94, 0.98, 1.12, 1.04][day.month0() as usize];
    let sale = match (day.month(), day.day()) {
        (11, 23..=26) => 2.1,
        (12, 24 | 25 | 31) | (1, 1) => 0.55,
        _ => 1.0,
    };
    f64::min(weekday * month * sale, HEAVIEST_DAY)
}

/// How busy each local hour is.
const HOURS: [f64; 24] = [
    2.4, 1.2, 0.6, 0.35, 0.3, 0.4, 0.9, 2.0, 3.4, 4.8, 5.8, 6.1, 5.9, 6.2, 6.4, 6.3, 6.3, 5.9, 5.6, 5.8, 6.0, 5.9, 5.4,
    3.9,
];

/// Quantiles of the hours of a day.
pub(super) struct Clock {
    /// Share of the day before each hour, and 1.
    below: [f64; 25],
}

impl Clock {
    /// A day whose hours start `shift` hours after local ones: 3 for UTC in a shop at UTC-3.
    pub(super) fn new(shift: usize) -> Self {
        let whole: f64 = HOURS.iter().sum();
        let mut below = [0.0; 25];
        for hour in 0..24 {
            below[hour + 1] = below[hour] + HOURS[(hour + 24 - shift % 24) % 24] / whole;
        }
        below[24] = 1.0;
        Self { below }
    }

    /// The second of the day before which the share `q` of the day's doings lies, q in [0, 1).
    pub(super) fn second(&self, q: f64) -> i64 {
        let hour = self.below.partition_point(|b| *b <= q).saturating_sub(1).min(23);
        let within = (q - self.below[hour]) / (self.below[hour + 1] - self.below[hour]);
        (hour as i64 * 3600 + (within * 3600.0) as i64).clamp(0, DAY - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_is_whole_and_follows_weekdays() {
        let monday = NaiveDate::from_ymd_opt(2018, 1, 8).unwrap();
        let parts = Period::new(monday, 7).unwrap().split(10_000);
        assert_eq!(parts.iter().sum::<u64>(), 10_000);
        assert!(parts[0] > parts[5], "{parts:?}");
        assert_eq!(Period::new(monday, 3).unwrap().split(1).iter().sum::<u64>(), 1);
    }

    #[test]
    fn the_clock_shifts_and_stays_in_the_day() {
        let (local, utc) = (Clock::new(0), Clock::new(3));
        assert_eq!(local.second(0.0), 0);
        assert!(local.second(0.999_999_999) < DAY);
        // Night is quiet from 2 to 6 here, so from 5 to 9 in UTC.
        assert!(local.second(0.06) / 3600 >= 6, "{}", local.second(0.06));
        let night = |clock: &Clock, from: i64| {
            (0..1000).filter(|q| (from..from + 4).contains(&(clock.second(f64::from(*q) / 1000.0) / 3600))).count()
        };
        // Quantiles at the edges of hours may fall on either side.
        assert!(night(&local, 2).abs_diff(night(&utc, 5)) <= 1);
        assert!(night(&utc, 2) > 2 * night(&local, 2));
        assert!(night(&local, 2) < 30);
    }

    #[test]
    fn no_day_is_heavier_than_the_bound() {
        let start = NaiveDate::from_ymd_opt(2016, 1, 1).unwrap();
        let period = Period::new(start, 4000).unwrap();
        assert!((0..4000).all(|d| period.weight(d) > 0.0 && period.weight(d) <= HEAVIEST_DAY));
        assert!((0..4000).any(|d| period.weight(d) > 2.0));
    }
}
