//! Which offsets files of a topic's past hold, each of them once. Knows no file.

use std::collections::BTreeMap;

use arrow::array::{Int32Array, Int64Array};

use crate::error::{Error, Result};

/// Ranges that may gather before they are put together.
const UNSETTLED_MAX: usize = 1 << 16;

/// By partition.
#[derive(Debug, Default)]
pub(super) struct OffsetsSeen {
    partitions: BTreeMap<i32, Seen>,
}

/// First offsets, and those after the last.
#[derive(Debug, Default)]
struct Seen {
    /// In order, none of them adjacent.
    settled: Vec<(i64, i64)>,
    /// As they came.
    unsettled: Vec<(i64, i64)>,
}

impl OffsetsSeen {
    /// Adds those of some rows, as far as they have one.
    ///
    /// # Errors
    /// External: one was seen before. It may be told of only later, by [`Self::settle`].
    pub(super) fn add(&mut self, partitions: &Int32Array, offsets: &Int64Array) -> Result<()> {
        for (partition, offset) in partitions.iter().zip(offsets) {
            let (Some(partition), Some(offset)) = (partition, offset) else { continue };
            let seen = self.partitions.entry(partition).or_default();
            match seen.unsettled.last_mut() {
                Some((_, end)) if *end == offset => *end += 1,
                _ => seen.unsettled.push((offset, offset + 1)),
            }
            if seen.unsettled.len() > UNSETTLED_MAX.max(seen.settled.len()) {
                seen.settle(partition)?;
            }
        }
        Ok(())
    }

    /// Puts all of them together.
    ///
    /// # Errors
    /// External: one was seen twice.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.partitions.iter_mut().try_for_each(|(partition, seen)| seen.settle(*partition))
    }

    /// The offset after the last one of each partition, once they are settled.
    pub(super) fn next(&self) -> BTreeMap<i32, i64> {
        let last = |(partition, seen): (&i32, &Seen)| seen.settled.last().map(|(_, end)| (*partition, *end));
        self.partitions.iter().filter_map(last).collect()
    }
}

impl Seen {
    fn settle(&mut self, partition: i32) -> Result<()> {
        let mut all = std::mem::take(&mut self.settled);
        all.append(&mut self.unsettled);
        all.sort_unstable();
        for (from, to) in all {
            match self.settled.last_mut() {
                Some((_, end)) if from < *end => {
                    return Err(Error::external("the history holds a message twice")
                        .with("partition", partition)
                        .with("offset", from)
                        .with("untouched", "its rows stay as they are")
                        .with("hint", "leave one of the files, or of the rows, out"));
                }
                Some((_, end)) if from == *end => *end = to,
                _ => self.settled.push((from, to)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(seen: &mut OffsetsSeen, rows: &[(Option<i32>, Option<i64>)]) -> Result<()> {
        let (partitions, offsets): (Vec<_>, Vec<_>) = rows.iter().copied().unzip();
        seen.add(&partitions.into(), &offsets.into())
    }

    fn of(partition: i32, offsets: impl IntoIterator<Item = i64>) -> Vec<(Option<i32>, Option<i64>)> {
        offsets.into_iter().map(|offset| (Some(partition), Some(offset))).collect()
    }

    #[test]
    fn offsets_in_any_order_are_seen_once_and_the_last_tells_the_next() {
        let mut seen = OffsetsSeen::default();
        add(&mut seen, &of(0, (0..100).rev())).unwrap();
        add(&mut seen, &of(1, [7, 9, 8])).unwrap();
        add(&mut seen, &[(None, Some(8)), (Some(1), None)]).unwrap();
        seen.settle().unwrap();
        assert_eq!(seen.next(), BTreeMap::from([(0, 100), (1, 10)]));
        assert_eq!(seen.partitions[&0].settled, [(0, 100)]);
        add(&mut seen, &of(0, 100..200)).unwrap();
        seen.settle().unwrap();
        assert_eq!(seen.partitions[&0].settled, [(0, 200)]);
    }

    #[test]
    fn an_offset_that_stands_twice_is_named() {
        for (before, then) in [(of(0, 0..4), of(0, 2..6)), (of(0, [1, 3, 5]), of(0, [5])), (of(3, [4, 4]), vec![])] {
            let mut seen = OffsetsSeen::default();
            let told = add(&mut seen, &before).and_then(|()| add(&mut seen, &then)).and_then(|()| seen.settle());
            let told = told.unwrap_err();
            assert!(told.to_string().contains("twice"), "{told}");
        }
        let mut seen = OffsetsSeen::default();
        let scattered = || of(0, (0..UNSETTLED_MAX as i64).map(|n| n * 2));
        add(&mut seen, &scattered()).unwrap();
        assert!(add(&mut seen, &scattered()).is_err(), "it isn't put off for ever");
    }
}
