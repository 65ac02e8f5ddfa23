//! How far events are, by the event times of a topic's rows. Decisions only: the clock is passed in.

use std::collections::BTreeSet;
use std::time::Duration;

use super::position::{Offsets, PartitionOffset};

impl Offsets {
    /// The source's watermark as of `now_us`: up to when events are taken to be there, all in microseconds since 1970 UTC. None
    /// where nothing is known yet.
    ///
    /// It is the minimum over partitions that were heard within `idle`; a partition without a row counts from when it was first
    /// seen, and until then nothing is known. Where all are silent, those that were heard last count: as `now_us` goes on,
    /// partitions fall silent one by one, and the watermark only rises. It is never below that of an earlier reading
    /// ([`Offsets::reached_us`]), also where a silent partition speaks again or `delay` grows, and never past the
    /// time of ingestion.
    pub fn watermark_us(&self, now_us: i64, delay: Duration, idle: Duration) -> Option<i64> {
        self.watermark_with(now_us, delay, idle, &BTreeSet::new())
    }

    /// The same, with partitions that are known not to be silent, whatever was heard of them.
    pub(super) fn watermark_with(
        &self,
        now_us: i64,
        delay: Duration,
        idle: Duration,
        speaking: &BTreeSet<i32>,
    ) -> Option<i64> {
        let is_heard = |number: &i32, at: &PartitionOffset| speaking.contains(number) || !at.is_idle(now_us, idle);
        let heard: Vec<&PartitionOffset> =
            self.partitions.iter().filter(|(number, at)| is_heard(number, at)).map(|(_, at)| at).collect();
        let aligned = if heard.is_empty() {
            let known = || self.partitions.values().filter(|at| at.latest_event_us.is_some());
            let last = known().filter_map(|at| at.heard_us).max();
            known().filter(|at| at.heard_us == last).filter_map(|at| at.watermark_us(delay)).min()
        } else {
            let all: Option<Vec<i64>> = heard.iter().map(|at| at.watermark_us(delay)).collect();
            all.and_then(|all| all.into_iter().min())
        };
        aligned.max(self.reached_us)
    }
}

impl PartitionOffset {
    /// Its own watermark; none before its first row.
    pub(super) fn watermark_us(&self, delay: Duration) -> Option<i64> {
        let behind = self.latest_event_us?.saturating_sub(micros(delay));
        Some(self.heard_us.map_or(behind, |heard| behind.min(heard)))
    }

    /// Whether nothing was heard of it for so long.
    pub(super) fn is_idle(&self, now_us: i64, idle: Duration) -> bool {
        self.heard_us.is_none_or(|heard| now_us.saturating_sub(heard) >= micros(idle))
    }

    /// Notes a row that came at `ingested_at_us`. An event time in the future counts as far as it can move the watermark now:
    /// a clock that is wrong once doesn't make all later rows late.
    #[cfg(feature = "kafka")]
    pub(super) fn hear(&mut self, event_us: i64, ingested_at_us: i64, delay: Duration) {
        let latest = event_us.min(ingested_at_us.saturating_add(micros(delay)));
        self.latest_event_us = self.latest_event_us.max(Some(latest));
        self.heard_us = self.heard_us.max(Some(ingested_at_us));
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const DELAY: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(60);

    /// Partitions by their latest event and when they were heard, in seconds.
    fn offsets(partitions: &[(Option<i64>, i64)]) -> Offsets {
        let at = |(latest, heard): &(Option<i64>, i64)| PartitionOffset {
            latest_event_us: latest.map(|latest| latest * SECOND),
            heard_us: Some(heard * SECOND),
            ..PartitionOffset::default()
        };
        Offsets { partitions: (0..).zip(partitions.iter().map(at)).collect(), ..Offsets::default() }
    }

    fn watermark(offsets: &Offsets, now: i64) -> Option<i64> {
        offsets.watermark_us(now * SECOND, DELAY, IDLE).map(|us| us / SECOND)
    }

    #[test]
    fn the_slowest_partition_that_is_heard_decides() {
        let two = offsets(&[(Some(500), 1000), (Some(900), 1030)]);
        assert_eq!(watermark(&two, 1030), Some(490));
        assert_eq!(watermark(&two, 1059), Some(490));
        // The first falls silent, then both: the one that was heard last stays what counts.
        assert_eq!(watermark(&two, 1060), Some(890));
        assert_eq!(watermark(&two, 1090), Some(890));
        assert_eq!(watermark(&two, 9999), Some(890));
        // Silent at once: neither is ahead of the other.
        assert_eq!(watermark(&offsets(&[(Some(500), 1000), (Some(900), 1000)]), 9999), Some(490));
    }

    #[test]
    fn a_partition_without_a_row_holds_back_from_when_it_was_seen() {
        let one_empty = offsets(&[(Some(500), 1000), (None, 1020)]);
        assert_eq!(watermark(&one_empty, 1000), None);
        assert_eq!(watermark(&one_empty, 1079), None);
        assert_eq!(watermark(&one_empty, 1080), Some(490));
        assert_eq!(watermark(&offsets(&[(None, 0)]), 9999), None);
        assert_eq!(watermark(&Offsets::default(), 9999), None);
        // A record of before event times were kept.
        let old = Offsets { partitions: [(0, PartitionOffset::default())].into(), ..Offsets::default() };
        assert_eq!(watermark(&old, 0), None);
    }

    #[test]
    fn it_never_goes_back() {
        let mut two = offsets(&[(Some(500), 1000), (Some(900), 1000)]);
        two.reached_us = Some(700 * SECOND);
        assert_eq!(watermark(&two, 1000), Some(700));
        assert_eq!(two.watermark_us(1000 * SECOND, Duration::from_secs(9999), IDLE), Some(700 * SECOND));
        two.partitions.insert(2, PartitionOffset { heard_us: Some(1000 * SECOND), ..PartitionOffset::default() });
        assert_eq!(watermark(&two, 1000), Some(700));
        // As time goes on and nothing comes, it only rises.
        let some = offsets(&[(Some(500), 1000), (Some(900), 1010), (None, 1020), (Some(300), 1030)]);
        let seen: Vec<Option<i64>> = (1000..1200).map(|now| watermark(&some, now)).collect();
        assert!(seen.is_sorted(), "{seen:?}");
    }

    #[test]
    fn partitions_that_speak_now_are_not_silent() {
        let two = offsets(&[(Some(500), 1000), (Some(900), 2000)]);
        let with = |speaking: &[i32]| {
            two.watermark_with(2000 * SECOND, DELAY, IDLE, &speaking.iter().copied().collect()).map(|us| us / SECOND)
        };
        assert_eq!((with(&[]), with(&[0])), (Some(890), Some(490)));
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn it_is_never_past_ingestion() {
        let mut at = PartitionOffset::default();
        at.hear(9999 * SECOND, 1000 * SECOND, DELAY);
        assert_eq!(at.watermark_us(DELAY), Some(1000 * SECOND));
        assert_eq!(at.watermark_us(Duration::ZERO), Some(1000 * SECOND));
        // The wrong clock is forgotten by time: it doesn't drag the watermark along.
        at.hear(1050 * SECOND, 1055 * SECOND, DELAY);
        assert_eq!(at.watermark_us(DELAY), Some(1040 * SECOND));
        at.hear(900 * SECOND, 1056 * SECOND, DELAY);
        assert_eq!((at.watermark_us(DELAY), at.heard_us), (Some(1040 * SECOND), Some(1056 * SECOND)));
    }

    #[test]
    fn positions_of_before_still_open() {
        let old = r#"{"topic": "t", "partitions": {"0": {"first": 0, "next": 7}}}"#;
        let offsets: Offsets = serde_json::from_str(old).unwrap();
        assert_eq!((offsets.partitions[&0].next, watermark(&offsets, 1)), (7, None));
    }
}
