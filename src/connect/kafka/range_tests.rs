//! Which messages are read of a topic that grows, forgets, shrinks or is another one.

use std::time::Duration;

use super::*;
use crate::spec::fault::{Place, SourceText};
use crate::spec::types::{KafkaSpec, Located, MessageFormat, MessageRelation, OnLate, TextOptions};

pub(in super::super) fn topic(accepts_gaps: bool) -> Topic {
    let located = |value: &str| Located {
        value: value.to_string(),
        place: Place { source: SourceText::new("pipelines/p.yaml", ""), span: 0..0 },
    };
    let text = TextOptions {
        timestamp_format: None,
        timestamp_zone: None,
        encoding: None,
        null_values: None,
        decimal_separator: '.',
    };
    let spec = KafkaSpec {
        brokers: located("broker:9092"),
        topic: located("payments"),
        format: MessageFormat::Json(text),
        relation: MessageRelation::Append,
        history: None,
        start: Start::Earliest,
        accepts_gaps,
        watermark_delay: Duration::ZERO,
        idle_timeout: Duration::ZERO,
        on_late: OnLate::Correct,
        unarchived: None,
        options: BTreeMap::new(),
    };
    Topic { name: "payments".into(), spec, group: "group".into(), zone: "UTC".into(), step_rows: 1000 }
}

/// Partitions from 0 on, each with its first offset and the one after its last.
fn extents(partitions: &[(i64, i64)]) -> BTreeMap<i32, Extent> {
    (0..).zip(partitions.iter().map(|(low, end)| Extent { low: *low, end: *end })).collect()
}

/// A position of partitions from 0 on that were read from 0 to these offsets.
fn read_to(next: &[i64]) -> Offsets {
    let at = |next: i64| PartitionOffset {
        next,
        last: (next > 0).then(|| LastMessage { offset: next - 1, hash: "h".into() }),
        ..PartitionOffset::default()
    };
    let partitions = (0..).zip(next.iter().map(|next| at(*next))).collect();
    Offsets { topic: "payments".into(), partitions, ..Offsets::default() }
}

fn decided(accepts_gaps: bool, prior: &Offsets, there: &[(i64, i64)]) -> Result<Plan> {
    decide(&topic(accepts_gaps), Some(prior), &extents(there), &Starts::default(), false)
}

#[test]
fn a_message_that_was_taken_away_by_age_isnt_asked_for() {
    let prior = read_to(&[5, 5, 5]);
    // All that was read is gone from the first, all but the last message from the second, nothing new is in the third.
    let plan = decided(false, &prior, &[(5, 7), (4, 7), (0, 5)]).unwrap();
    assert_eq!(plan.ranges(), BTreeMap::from([(0, (5, 7)), (1, (5, 7)), (2, (5, 5))]));
    assert_eq!(plan.proofs().keys().copied().collect::<Vec<_>>(), [1]);
}

#[test]
fn a_partition_that_comes_back_is_another_one() {
    let prior = read_to(&[1, 3]);
    assert!(decided(false, &prior, &[(0, 1)]).unwrap_err().to_string().contains("partition 1 isn't there any more"));
    let without = decided(true, &prior, &[(0, 1)]).unwrap().offsets;
    assert_eq!((without.partitions.len(), &without.gone), (1, &BTreeMap::from([(1, 0)])));
    let kept = decided(true, &without, &[(0, 1)]).unwrap().offsets;
    assert_eq!(kept, without, "for as long as it takes");
    let plan = decided(true, &kept, &[(0, 1), (0, 2)]).unwrap();
    let back = &plan.offsets.partitions[&1];
    assert_eq!((back.epoch, plan.ranges()[&1]), (1, (0, 2)), "the offsets 0 and 1 were others before");
    assert!(plan.offsets.gone.is_empty());
}

#[test]
fn under_another_contract_what_is_there_is_read_again() {
    let again = |accepts: bool, prior: &Offsets, there: &[(i64, i64)]| {
        decide(&topic(accepts), Some(prior), &extents(there), &Starts::default(), true)
    };
    let prior = read_to(&[6, 6, 6]);
    // All of it is there, some of it, none of it.
    let plan = again(false, &prior, &[(0, 8), (4, 8), (6, 8)]).unwrap();
    assert_eq!(plan.ranges(), BTreeMap::from([(0, (0, 8)), (1, (4, 8)), (2, (6, 8))]));
    let at: Vec<_> = plan.offsets.partitions.values().map(|at| (at.epoch, at.first)).collect();
    assert_eq!(at, [(1, 0), (1, 4), (0, 0)], "what isn't read again stays what it is");
    assert_eq!((plan.old_len(), new_offsets(&plan).unwrap().as_str()), (8, "6 new offsets in 3 partitions"));
    assert_eq!(plan.proofs().keys().copied().collect::<Vec<_>>(), [0, 1], "it must be the topic that was read");
    // A gap is one of messages that weren't read.
    let error = again(false, &prior, &[(7, 8), (0, 6), (0, 6)]).unwrap_err().to_string();
    assert!(error.contains("the messages 6 to 6 of partition 0 are gone before they were read"), "{error}");
    assert!(again(false, &prior, &[(0, 5), (0, 6), (0, 6)]).unwrap_err().to_string().contains("made anew or cut"));
    let other = again(true, &prior, &[(0, 5), (0, 6), (0, 6)]).unwrap();
    assert!(other.is_another(0) && !other.again.contains_key(&0));
    let renamed = Offsets { topic: "others".into(), ..prior };
    assert!(again(true, &renamed, &[(0, 6), (0, 6), (0, 6)]).is_err(), "nor is another topic read for it");
}

#[test]
fn of_another_topic_nothing_is_read_again() {
    let prior = read_to(&[6]);
    let mut plan = decide(&topic(true), Some(&prior), &extents(&[(2, 9)]), &Starts::default(), true).unwrap();
    plan.is_other_topic(&topic(true), 0).unwrap();
    assert_eq!((plan.old_len(), plan.ranges()[&0], plan.offsets.partitions[&0].epoch), (0, (2, 9), 1));
    let mut plan = decide(&topic(false), Some(&prior), &extents(&[(2, 9)]), &Starts::default(), true).unwrap();
    assert!(plan.is_other_topic(&topic(false), 0).is_err());
}
