//! Which offsets of a topic a unit of messages holds.

use std::collections::BTreeMap;

/// By partition, and by how often the topic was made anew since: first offsets, and those after the last, in order.
pub type Ranges = BTreeMap<String, Vec<(i64, i64)>>;

/// All offsets of some ranges, adjacent ones joined.
pub(super) fn union<'a>(all: impl IntoIterator<Item = &'a Ranges>) -> Ranges {
    let mut union = Ranges::new();
    for (partition, ranges) in all.into_iter().flatten() {
        union.entry(partition.clone()).or_default().extend(ranges);
    }
    for ranges in union.values_mut() {
        ranges.sort_unstable();
        let mut joined: Vec<(i64, i64)> = Vec::with_capacity(ranges.len());
        for (from, to) in ranges.drain(..) {
            match joined.last_mut() {
                Some((_, end)) if from <= *end => *end = to.max(*end),
                _ => joined.push((from, to)),
            }
        }
        *ranges = joined;
    }
    union
}

/// Whether `whole`, adjacent ranges joined, has each offset of `part`.
pub(super) fn covers(whole: &Ranges, part: &Ranges) -> bool {
    part.iter().all(|(partition, ranges)| {
        let within = |(from, to): &(i64, i64)| {
            whole.get(partition).is_some_and(|whole| whole.iter().any(|(first, end)| first <= from && to <= end))
        };
        ranges.iter().all(within)
    })
}

/// Whether two have an offset in common.
pub(super) fn overlap(one: &Ranges, other: &Ranges) -> bool {
    one.iter().any(|(partition, ranges)| {
        let common = |(from, to): &(i64, i64)| {
            other.get(partition).is_some_and(|other| other.iter().any(|(first, end)| first < to && from < end))
        };
        ranges.iter().any(common)
    })
}
