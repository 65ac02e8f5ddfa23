//! Which messages are read of a topic that grows, forgets, shrinks or is another one.

use std::time::Duration;

use super::*;
use crate::spec::fault::{Place, SourceText};
use crate::spec::types::{KafkaSpec, Located, MessageFormat, MessageRelation, OnLate, TextOptions};

fn topic(accepts_gaps: bool) -> Topic {
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
