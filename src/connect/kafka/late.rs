//! Which rows came behind the watermark: judged one by one in the order of their partition. Decisions only, but for reading
//! event times out of a column.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Date32Type, SchemaRef, TimeUnit, TimestampMicrosecondType};

use crate::connect::position::{Offsets, PartitionOffset};
use crate::connect::rules::Ruled;
use crate::error::{Error, Result};
use crate::plan::types::instant_of_wall_clock;
use crate::spec::types::{KafkaSpec, MessageRelation, OnLate};

/// Name of the rule that refuses late rows.
pub(super) const LATE_RULE: &str = "on_late";

const DAY_US: i64 = 86_400_000_000;

/// How late rows of a source are known, and what becomes of them.
#[derive(Debug, Clone)]
pub(super) struct Lateness {
    /// The event time's column in the contract.
    column: usize,
    zone: Arc<str>,
    delay: Duration,
    idle: Duration,
    on_late: OnLate,
    /// Whether rows can be late at all: of an upsert relation the last message of a key counts, whatever its time.
    judges: bool,
}

/// Messages of a partition that were judged before, and are read again.
#[derive(Debug, Clone, Default)]
pub(super) struct JudgedBefore {
    /// Offsets below this were.
    pub(super) below: i64,
    /// Those of them that were refused for being late.
    pub(super) refused: BTreeSet<i64>,
}

impl Lateness {
    /// None where the contract has no such column.
    pub(super) fn of(spec: &KafkaSpec, event_time: &str, contract: &SchemaRef, zone: &str) -> Option<Self> {
        Some(Self {
            column: contract.index_of(event_time).ok()?,
            zone: zone.into(),
            delay: spec.watermark_delay,
            idle: spec.idle_timeout,
            on_late: spec.on_late,
            judges: spec.relation == MessageRelation::Append,
        })
    }

    /// A judge of one unit that is taken in at `now_us`, microseconds since 1970 UTC. `offsets` is the position before it, with
    /// each partition that there is; `speaking` are the partitions that the unit has messages of.
    pub(super) fn judge(
        &self,
        offsets: &Offsets,
        speaking: &BTreeSet<i32>,
        now_us: i64,
        before: BTreeMap<i32, JudgedBefore>,
    ) -> Judge {
        let holds_back =
            |(number, at): &(&i32, &PartitionOffset)| speaking.contains(*number) || !at.is_idle(now_us, self.idle);
        let holding: BTreeMap<i32, i64> = offsets
            .partitions
            .iter()
            .filter(holds_back)
            .map(|(number, at)| (*number, at.watermark_us(self.delay).unwrap_or(i64::MIN)))
            .collect();
        let mut before = before;
        let progress = |(number, at): (&i32, &PartitionOffset)| {
            let others = holding.iter().filter(|(other, _)| *other != number).map(|(_, us)| *us);
            let progress = Progress {
                at: at.clone(),
                others_us: others.min().unwrap_or(i64::MAX),
                before: before.remove(number).unwrap_or_default(),
            };
            (*number, progress)
        };
        let partitions = offsets.partitions.iter().map(progress).collect();
        let floor_us = offsets.watermark_with(now_us, self.delay, self.idle, speaking);
        Judge { lateness: self.clone(), now_us, floor_us, partitions, late: 0, refused: Vec::new() }
    }
}

/// Judges the rows of one unit.
///
/// A row is late when its event time is behind the watermark as of the row: that of its own partition up to the row, and those
/// of the other partitions as of the position before the unit; and never below what the watermark was before. So how one
/// partition is cut into units doesn't matter to its own rows.
pub(super) struct Judge {
    lateness: Lateness,
    now_us: i64,
    /// The source's watermark before the unit.
    floor_us: Option<i64>,
    partitions: BTreeMap<i32, Progress>,
    late: u64,
    refused: Vec<(i32, i64)>,
}

/// How far a partition is within the unit.
struct Progress {
    at: PartitionOffset,
    /// What the other partitions hold the watermark back to: `i64::MIN` where one of them says nothing yet.
    others_us: i64,
    before: JudgedBefore,
}

/// What a judge says of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    InTime,
    /// Behind this watermark.
    Late(i64),
    /// It was late when it was read first.
    StaysRefused,
}

impl Judge {
    /// Takes late rows out of a batch as the source says, and counts them. `places` are partition and offset of all messages
    /// that the batch was read from.
    pub(super) fn judge(&mut self, ruled: &mut Ruled, places: &[(i32, i64)]) -> Result<()> {
        let times = event_times(ruled.accepted.column(self.lateness.column), &self.lateness.zone)?;
        let mut refused: BTreeMap<usize, Option<String>> = BTreeMap::new();
        for (row, (event_us, at)) in times.into_iter().zip(&ruled.rows).enumerate() {
            let (partition, offset) = *places.get(*at).ok_or_else(|| Error::internal("a row comes from no message"))?;
            let reason = match self.verdict(event_us, partition, offset) {
                Verdict::InTime => continue,
                Verdict::Late(watermark_us) => {
                    self.late += 1;
                    if self.lateness.on_late == OnLate::Correct {
                        continue;
                    }
                    let (event, watermark) = (instant(event_us.unwrap_or_default()), instant(watermark_us));
                    format!("the event time {event} is behind the watermark {watermark}")
                }
                Verdict::StaysRefused => "it was refused for being late when it was read first".to_string(),
            };
            self.refused.push((partition, offset));
            refused.insert(row, (self.lateness.on_late != OnLate::Drop).then_some(reason));
        }
        ruled.refuse(LATE_RULE, &refused)
    }

    fn verdict(&mut self, event_us: Option<i64>, partition: i32, offset: i64) -> Verdict {
        let (delay, now_us) = (self.lateness.delay, self.now_us);
        let Some(progress) = self.partitions.get_mut(&partition) else { return Verdict::InTime };
        let own_us = progress.at.watermark_us(delay).unwrap_or(i64::MIN);
        let watermark_us = own_us.min(progress.others_us).max(self.floor_us.unwrap_or(i64::MIN));
        if let Some(event_us) = event_us {
            progress.at.hear(event_us, now_us, delay);
        }
        if !self.lateness.judges {
            return Verdict::InTime;
        }
        if offset < progress.before.below {
            let was_refused = progress.before.refused.contains(&offset);
            return if was_refused { Verdict::StaysRefused } else { Verdict::InTime };
        }
        match event_us {
            Some(event_us) if event_us < watermark_us => Verdict::Late(watermark_us),
            _ => Verdict::InTime,
        }
    }

    /// Enters how far time is after the unit. Gives the number of late rows, and the places of those that were refused.
    pub(super) fn settle(self, offsets: &mut Offsets) -> (u64, Vec<(i32, i64)>) {
        for (number, progress) in self.partitions {
            if let Some(at) = offsets.partitions.get_mut(&number) {
                (at.latest_event_us, at.heard_us) = (progress.at.latest_event_us, progress.at.heard_us);
            }
        }
        let after = offsets.watermark_us(self.now_us, self.lateness.delay, self.lateness.idle);
        offsets.reached_us = after.max(self.floor_us);
        (self.late, self.refused)
    }
}

fn instant(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).map_or_else(|_| us.to_string(), |instant| instant.to_string())
}

/// A column's instants, microseconds since 1970 UTC; wall-clock times and days are those of `zone`, a day begins at midnight.
fn event_times(column: &dyn Array, zone: &str) -> Result<Vec<Option<i64>>> {
    let of_wall_clock = |us: Option<i64>| us.and_then(|us| instant_of_wall_clock(us, zone));
    Ok(match column.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => {
            column.as_primitive::<TimestampMicrosecondType>().iter().collect()
        }
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            column.as_primitive::<TimestampMicrosecondType>().iter().map(of_wall_clock).collect()
        }
        DataType::Date32 => {
            let midnight = |days: i32| i64::from(days) * DAY_US;
            column.as_primitive::<Date32Type>().iter().map(|days| of_wall_clock(days.map(midnight))).collect()
        }
        other => return Err(Error::internal("an event time of another type").with("type", other)),
    })
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn lateness(delay_s: u64) -> Lateness {
        Lateness {
            column: 0,
            zone: "UTC".into(),
            delay: Duration::from_secs(delay_s),
            idle: Duration::from_secs(60),
            on_late: OnLate::Drop,
            judges: true,
        }
    }

    /// A position of that many partitions, first seen at `now`.
    fn fresh(partitions: i32, now: i64) -> Offsets {
        let at = PartitionOffset { heard_us: Some(now * SECOND), ..PartitionOffset::default() };
        Offsets { partitions: (0..partitions).map(|p| (p, at.clone())).collect(), ..Offsets::default() }
    }

    /// Takes rows in at `now`, each a partition and an event time in seconds; the numbers of those that are late.
    fn late(offsets: &mut Offsets, lateness: &Lateness, now: i64, rows: &[(i32, i64)]) -> Vec<usize> {
        let speaking = rows.iter().map(|(partition, _)| *partition).collect();
        let mut judge = lateness.judge(offsets, &speaking, now * SECOND, BTreeMap::new());
        let verdicts: Vec<Verdict> =
            rows.iter().map(|(partition, event)| judge.verdict(Some(event * SECOND), *partition, 0)).collect();
        judge.settle(offsets);
        verdicts.iter().enumerate().filter(|(_, v)| **v != Verdict::InTime).map(|(at, _)| at).collect()
    }

    #[test]
    fn of_one_partition_the_cut_into_units_does_not_matter() {
        for seed in 0..50 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let rows: Vec<(i32, i64)> = (0..200).map(|at| (0, at + random.random_range(0..40))).collect();
            let mut offsets = fresh(1, 1000);
            let whole = late(&mut offsets, &lateness(10), 1000, &rows);
            assert!(!whole.is_empty() && whole.len() < 150, "seed {seed}: {whole:?}");
            let (mut cut, mut from, mut offsets) = (Vec::new(), 0, fresh(1, 1000));
            while from < rows.len() {
                let to = (from + random.random_range(1..30)).min(rows.len());
                // Any pause between them, silences included.
                let now = 1000 + from as i64 * random.random_range(0..5);
                let found = late(&mut offsets, &lateness(10), now, &rows[from..to]);
                cut.extend(found.into_iter().map(|at| at + from));
                from = to;
            }
            assert_eq!(whole, cut, "seed {seed}");
        }
    }

    #[test]
    fn other_partitions_hold_back_as_of_the_position_before() {
        let mut offsets = fresh(2, 1000);
        // Nothing is known of the other one yet.
        assert_eq!(late(&mut offsets, &lateness(0), 1000, &[(0, 500), (0, 400)]), [0; 0]);
        assert_eq!(late(&mut offsets, &lateness(0), 1001, &[(1, 450), (0, 400), (1, 450)]), [0; 0]);
        // Now both are: 500 and 450.
        assert_eq!(late(&mut offsets, &lateness(0), 1002, &[(0, 449), (0, 450), (1, 449)]), [0, 2]);
        // The first one falls silent: the second is alone.
        assert_eq!(late(&mut offsets, &lateness(0), 1062, &[(1, 900), (1, 899), (1, 901)]), [1]);
        assert_eq!(offsets.reached_us, Some(901 * SECOND));
        // And what the first one then says of before is behind what was said already; it holds back again, but not to before.
        assert_eq!(late(&mut offsets, &lateness(0), 1063, &[(0, 600), (1, 950), (1, 902)]), [0]);
        assert_eq!(offsets.reached_us, Some(901 * SECOND));
    }

    #[test]
    fn what_was_judged_before_stays_as_it_was() {
        let offsets = fresh(1, 1000);
        let before = JudgedBefore { below: 3, refused: BTreeSet::from([0]) };
        let mut judge = lateness(0).judge(&offsets, &BTreeSet::from([0]), 1000 * SECOND, BTreeMap::from([(0, before)]));
        let verdicts: Vec<Verdict> = [100, 200, 150, 150]
            .into_iter()
            .zip(0..)
            .map(|(event, at)| judge.verdict(Some(event * SECOND), 0, at))
            .collect();
        assert_eq!(verdicts, [Verdict::StaysRefused, Verdict::InTime, Verdict::InTime, Verdict::Late(200 * SECOND)]);
    }

    #[test]
    fn wall_clocks_and_days_are_of_the_zone() {
        let hour = 3_600_000_000;
        let wall = arrow::array::TimestampMicrosecondArray::from(vec![Some(0), None]);
        assert_eq!(event_times(&wall, "America/Sao_Paulo").unwrap(), [Some(3 * hour), None]);
        assert_eq!(
            event_times(&wall.with_timezone("America/Sao_Paulo"), "America/Sao_Paulo").unwrap(),
            [Some(0), None]
        );
        let days = arrow::array::Date32Array::from(vec![1]);
        assert_eq!(event_times(&days, "America/Sao_Paulo").unwrap(), [Some(27 * hour)]);
    }
}
