//! What stays of landed rows and what is read again, where messages are forgotten from the first on.

use super::*;
use crate::connect::PartitionOffset;
use crate::connect::kafka::range::Again;
use crate::connect::kafka::range::tests::topic;

/// A unit of ranges, each with its name.
fn unit(ranges: &[(&str, i64, i64)]) -> FileEntry {
    let mut unit = FileEntry::default();
    for (name, first, end) in ranges {
        unit.ranges.entry((*name).to_string()).or_default().push((*first, *end));
    }
    unit
}

/// Partition 0, made anew `epoch` times and read to `next`, of which the topic holds what is from `from` on.
fn planned(epoch: u32, from: i64, next: i64) -> Plan {
    let known = PartitionOffset { epoch, next, ..PartitionOffset::default() };
    let mut plan = Plan::default();
    plan.offsets.partitions.insert(0, known.anew(from));
    plan.again.insert(0, Again { known, from });
    plan
}

/// What stays of units, and of which of them all.
fn left(plan: &mut Plan, units: &[FileEntry], history_is_read: bool) -> Vec<(String, bool)> {
    kept(plan, units, history_is_read, false).iter().map(|kept| (told([kept]), kept.is_whole())).collect()
}

#[test]
fn what_the_topic_forgot_stays() {
    let units = [unit(&[("0.0", 0, 3)]), unit(&[("0.0", 3, 6), ("1.0", 0, 2)]), unit(&[("0.0", 6, 9)])];
    let part = ("the messages 3 to 3 of partition 0, the messages 0 to 1 of partition 1".to_string(), false);
    let whole = ("the messages 0 to 2 of partition 0".to_string(), true);
    assert_eq!(left(&mut planned(0, 4, 9), &units, false), [whole, part]);
    assert!(left(&mut planned(0, 0, 9), &units[..1], false).is_empty());
    // Messages of the topic before it was made anew have the same numbers.
    let before = [unit(&[("0.0", 0, 9)]), unit(&[("0.1", 0, 9)])];
    assert_eq!(left(&mut planned(1, 0, 9), &before, false), [("the messages 0 to 8 of partition 0".to_string(), true)]);
}

#[test]
fn the_past_stays_unless_it_is_read_again() {
    let units = [unit(&[("history a.b/past.parquet", 0, 7), ("0.0", 5, 9)])];
    let past = ("history a.b/past.parquet".to_string(), false);
    assert_eq!(left(&mut planned(0, 5, 9), &units, false), [past]);
    assert!(left(&mut planned(0, 5, 9), &units, true).is_empty());
    let rest = ("the messages 5 to 5 of partition 0".to_string(), false);
    assert_eq!(left(&mut planned(0, 6, 9), &units, true), [rest]);
}

#[test]
fn rows_that_cant_be_told_apart_stay_together() {
    let mut plan = planned(1, 2, 4);
    let units = [unit(&[("0.0", 0, 6), ("0.1", 0, 3)]), unit(&[("0.1", 3, 4)])];
    assert!(left(&mut plan, &units, false).iter().all(|(_, is_whole)| *is_whole));
    let at = &plan.offsets.partitions[&0];
    assert_eq!((plan.again.len(), at.epoch, at.next), (0, 1, 4), "it goes on where it was");
}

#[test]
fn what_is_read_again_is_known_by_its_units() {
    let units =
        [unit(&[("0.0", 0, 3)]), unit(&[("0.0", 3, 6), ("1.0", 0, 2)]), unit(&[("history past.parquet", 0, 7)])];
    let go = |history_is_read: bool| -> Vec<Ranges> {
        replaced(&planned(0, 4, 6), &units, history_is_read).into_iter().map(|replaced| replaced.go).collect()
    };
    let of = |name: &str, first: i64, end: i64| Ranges::from([(name.to_string(), vec![(first, end)])]);
    assert_eq!(go(false), [of("0.0", 4, 6)]);
    assert_eq!(go(true), [of("0.0", 4, 6), of("history past.parquet", 0, 7)]);
}

#[test]
fn tombstones_of_an_upsert_relation_stay_where_rows_do() {
    let units = [unit(&[("0.0", 0, 3)]), unit(&[("0.0", 3, 6)])];
    let of = |from: i64| kept(&mut planned(0, from, 6), &units, false, true);
    assert!(of(0).is_empty(), "all of it is read again");
    let both = of(3);
    assert_eq!((both.len(), both[0].is_whole(), both[1].is_whole()), (2, true, false));
    assert_eq!(both[1].filter().to_string(), "Boolean(false) IS TRUE OR _tombstone IS TRUE");
}

#[test]
fn fewer_messages_than_rows_are_told() {
    assert!(check_whole(&topic(false), 7, 7).unwrap().is_none());
    let error = check_whole(&topic(false), 6, 7).unwrap_err().to_string();
    assert!(error.starts_with("7 rows that were read are to be read again under another contract"), "{error}");
    assert!(check_whole(&topic(true), 6, 7).unwrap().unwrap().ends_with("`on_gap: accept` gives them up"));
}
