//! How far this process saw folders of numbered files, so that it needn't list them each time. Knows nothing of what is in them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};

/// The last file of each folder, and when it was the last. Clones share what they know.
#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<Mutex<BTreeMap<String, At>>>);

/// A number, and when it was the newest.
type At = (u64, DateTime<Utc>);

impl Seen {
    /// Notes that `n` was the last file of a folder at an instant.
    pub fn note(&self, folder: &str, n: u64, at: DateTime<Utc>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_string(), (n, at));
    }

    /// The last file of a folder that was the last at an instant of these. Clocks may be set back.
    pub fn last(&self, folder: &str, instants: RangeInclusive<DateTime<Utc>>) -> Option<u64> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(folder).filter(|(_, at)| instants.contains(at)).map(|(n, _)| *n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_long_ago_is_not_known() {
        let (seen, now, second) = (Seen::default(), Utc::now(), chrono::TimeDelta::seconds(1));
        seen.note("a", 3, now);
        assert_eq!((seen.last("a", now - second..=now), seen.last("b", now - second..=now)), (Some(3), None));
        assert_eq!(seen.clone().last("a", now + second..=now + second), None);
        assert_eq!(seen.last("a", now - second..=now - second), None);
    }
}
