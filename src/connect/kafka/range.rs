//! Which messages are to be read: where partitions stand against what the topic holds. Decisions only, but for the questions
//! to the brokers.

use std::collections::{BTreeMap, BTreeSet};

use super::Topic;
use super::client::{Client, Extent};
use crate::connect::Look;
use crate::connect::Ranges;
use crate::connect::position::{LastMessage, Offsets, PartitionOffset};
use crate::error::{Error, Result};
use crate::spec::types::Start;

/// What is to be read, and where partitions stand before it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// The topic's partitions, those without anything new too.
    pub(super) offsets: Offsets,
    /// The offset that each partition is to be read to.
    pub(super) ends: BTreeMap<i32, i64>,
    /// The first offset that each partition holds.
    lows: BTreeMap<i32, i64>,
    /// Partitions that are read again under another contract: what of them.
    pub(super) again: BTreeMap<i32, Again>,
    /// Partitions that hold others than the messages that were read.
    others: BTreeSet<i32>,
    /// Whether they were found to be the same otherwise.
    is_proven: bool,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
}

/// What of a partition is read again.
#[derive(Debug, PartialEq)]
pub(super) struct Again {
    /// How the partition stood: what it was read to is read again.
    pub(super) known: PartitionOffset,
    /// The first offset of those that were read and are there still.
    pub(super) from: i64,
}

impl Plan {
    /// First offset to read, and the one after the last.
    pub(super) fn ranges(&self) -> BTreeMap<i32, (i64, i64)> {
        let partitions = self.offsets.partitions.iter();
        partitions.map(|(p, at)| (*p, (at.next, self.ends.get(p).copied().unwrap_or(at.next)))).collect()
    }

    /// Partitions that there are offsets to read of.
    pub(super) fn speaking(&self) -> BTreeSet<i32> {
        self.ranges().into_iter().filter(|(_, (from, to))| from < to).map(|(partition, _)| partition).collect()
    }

    /// Messages that are there still if the topic is the one that was read: the last one of each partition that there is more
    /// to read of. One that was taken away by age proves nothing, and whoever asks for it is told that its offset isn't there.
    pub(super) fn proofs(&self) -> BTreeMap<i32, LastMessage> {
        if self.is_proven {
            return BTreeMap::new();
        }
        let known = self.speaking().into_iter().filter_map(|partition| {
            let at = self.again.get(&partition).map(|again| &again.known);
            let last = at.or_else(|| self.offsets.partitions.get(&partition))?.last.clone()?;
            let low = self.lows.get(&partition).copied().unwrap_or_default();
            (last.offset >= low).then_some((partition, last))
        });
        known.collect()
    }

    /// Notes that the proofs were looked at.
    pub(super) fn proven(&mut self) {
        self.is_proven = true;
    }

    /// Whether what was read of a partition was of another topic of the same name.
    pub(super) fn is_another(&self, partition: i32) -> bool {
        self.others.contains(&partition)
    }

    /// Offsets that are read again.
    pub(super) fn old_len(&self) -> i64 {
        self.again.values().map(|again| again.known.next - again.from).sum()
    }

    /// Reads nothing again of a partition.
    pub(super) fn leave(&mut self, partition: i32) {
        if let Some(again) = self.again.remove(&partition) {
            self.offsets.partitions.insert(partition, again.known);
        }
    }

    /// Leaves for later what is more than a step takes, of each partition alike.
    fn cut(&mut self, step_rows: usize) {
        let share = (step_rows / self.ends.len().max(1)).max(1);
        let share = i64::try_from(share).unwrap_or(i64::MAX);
        for (partition, end) in &mut self.ends {
            if let Some(at) = self.offsets.partitions.get(partition) {
                *end = (*end).min(at.next.saturating_add(share));
            }
        }
    }

    /// Notes that the message before the next one isn't the one that was read: the topic is another of the same name.
    ///
    /// # Errors
    /// External, where the source doesn't accept that.
    pub(super) fn is_other_topic(&mut self, topic: &Topic, partition: i32) -> Result<()> {
        let text =
            format!("partition {partition} holds other messages than those that were read: the topic was made anew");
        gap(topic, self, &text)?;
        let low = self.lows.get(&partition).copied().unwrap_or_default();
        // What was read of the other one stays.
        self.leave(partition);
        self.others.insert(partition);
        let known = self.offsets.partitions.entry(partition).or_default();
        *known = known.anew(low);
        Ok(())
    }

    /// Offsets to read, whether there is a message at each or not.
    /// See [`Look::seen`].
    pub(super) fn seen(&self) -> String {
        format!("{:?}", self.ends)
    }

    pub(super) fn len(&self) -> i64 {
        self.ranges().values().map(|(from, to)| to - from).sum()
    }
}

/// What there is to read after `prior`, or after a `past` that was read elsewhere and goes to these offsets, up to what readers
/// may see now. With `again`, from the first offset that ever counted and is there still.
///
/// # Errors
/// External: brokers don't answer, the topic isn't there, or messages are gone that weren't read.
pub(super) fn plan(
    client: &mut Client,
    topic: &Topic,
    prior: Option<&Offsets>,
    past: &BTreeMap<i32, i64>,
    again: bool,
) -> Result<Plan> {
    // What a look has just seen of new partitions is taken in, although it has just asked.
    let whole = prior.filter(|prior| !again && !client.saw_others(&nexts(prior)));
    if let Some(plan) = followed(client, topic, whole)? {
        return Ok(plan);
    }
    // A look for new partitions while the topic is followed makes no larger step than others; a first step is what is there.
    let stands = |prior: &Offsets| client.stands_at(&nexts(prior));
    let is_followed = !again && prior.is_some_and(stands);
    let extents = client.extents()?;
    let starts = match (prior, topic.spec.start) {
        (None, Start::At(time_ms)) => client.offsets_at(time_ms, &extents)?,
        (None, Start::Latest) => extents.iter().map(|(p, extent)| (*p, extent.end)).collect(),
        _ => BTreeMap::new(),
    };
    let mut plan = decide(topic, prior, &extents, &Starts { starts, past: past.clone() }, again)?;
    if is_followed {
        plan.cut(topic.step_rows);
    }
    Ok(plan)
}

/// What came after `prior`, of which brokers needn't be asked; none where they must be.
fn followed(client: &mut Client, topic: &Topic, prior: Option<&Offsets>) -> Result<Option<Plan>> {
    let is_followed = |prior: &&Offsets| prior.topic == topic.spec.topic.value && client.follows(&nexts(prior));
    let Some(offsets) = prior.filter(is_followed).cloned() else { return Ok(None) };
    client.gather()?;
    Ok(Some(Plan { offsets, ends: client.gathered(), ..Plan::default() }))
}

/// The next offset of each partition.
fn nexts(offsets: &Offsets) -> BTreeMap<i32, i64> {
    offsets.partitions.iter().map(|(partition, at)| (*partition, at.next)).collect()
}

/// The messages of `held` once more, none of them new.
///
/// # Errors
/// External: brokers don't answer, or the topic doesn't hold all of these offsets any more.
pub(super) fn plan_again(client: &mut Client, prior: &Offsets, held: &Ranges) -> Result<Plan> {
    let extents = client.extents()?;
    let mut plan = Plan {
        offsets: prior.clone(),
        ends: prior.partitions.iter().map(|(partition, at)| (*partition, at.next)).collect(),
        lows: lows(&extents),
        ..Plan::default()
    };
    for (name, ranges) in held {
        let (Some((from, _)), Some((_, to))) = (ranges.first().copied(), ranges.last().copied()) else { continue };
        let known = plan.offsets.partitions.iter_mut().find(|(p, at)| format!("{p}.{}", at.epoch) == *name);
        let Some((partition, at)) = known else {
            return Err(Error::external("the topic was made anew since these rows were read").with("partition", name));
        };
        match extents.get(partition) {
            Some(extent) if extent.low <= from && to <= extent.end => {}
            Some(extent) => {
                let text = "the topic doesn't hold all messages that were read any more";
                let error = Error::external(text).with("partition", partition).with("first that counted", from);
                return Err(error.with("first that is there", extent.low));
            }
            None => return Err(Error::external("a partition isn't there any more").with("partition", partition)),
        }
        at.next = from;
        plan.ends.insert(*partition, to);
    }
    Ok(plan)
}

fn lows(extents: &BTreeMap<i32, Extent>) -> BTreeMap<i32, i64> {
    extents.iter().map(|(partition, extent)| (*partition, extent.low)).collect()
}

/// The first offsets of a topic that wasn't read before.
#[derive(Default)]
struct Starts {
    /// As the source says.
    starts: BTreeMap<i32, i64>,
    /// Where its past ends.
    past: BTreeMap<i32, i64>,
}

/// The decision of [`plan`].
fn decide(
    topic: &Topic,
    prior: Option<&Offsets>,
    extents: &BTreeMap<i32, Extent>,
    starts: &Starts,
    again: bool,
) -> Result<Plan> {
    let name = &topic.spec.topic.value;
    if let Some(prior) = prior
        && prior.topic != *name
    {
        let text = "the topic is another one than the rows were read from";
        return Err(Error::external(text)
            .with("before", &prior.topic)
            .with("now", name)
            .with("hint", "give the source another name: what it read stays under the old one"));
    }
    let mut plan = Plan {
        offsets: Offsets {
            topic: name.clone(),
            partitions: BTreeMap::new(),
            gone: prior.map_or_else(BTreeMap::new, |prior| prior.gone.clone()),
            reached_us: prior.and_then(|prior| prior.reached_us),
        },
        lows: lows(extents),
        ..Plan::default()
    };
    let known = prior.iter().flat_map(|prior| &prior.partitions);
    for (gone, at) in known.filter(|(partition, _)| !extents.contains_key(partition)) {
        gap(topic, &mut plan, &format!("partition {gone} isn't there any more: the topic was made anew"))?;
        plan.offsets.gone.insert(*gone, at.epoch);
    }
    for (partition, extent) in extents {
        let known = prior.and_then(|prior| prior.partitions.get(partition));
        let mut at = match known {
            // A partition that was added is read from its first message.
            None => {
                let first = match starts.past.get(partition).filter(|_| prior.is_none()) {
                    Some(next) => after_past(topic, &mut plan, *partition, *next, *extent)?,
                    None => match starts.starts.get(partition) {
                        Some(start) => *start,
                        // Files that tell of other partitions would tell of this one.
                        None if prior.is_none() && !starts.past.is_empty() => {
                            after_past(topic, &mut plan, *partition, 0, *extent)?
                        }
                        None => extent.low,
                    },
                };
                // One that was there before is another one of the same number.
                let epoch = plan.offsets.gone.remove(partition).map_or(0, |epoch| epoch + 1);
                PartitionOffset { epoch, first, next: first, ..PartitionOffset::default() }
            }
            // Under another contract a unit holds the same offsets as other rows. What isn't there any more isn't read again.
            Some(known) if again && reads_again(known, *extent) => {
                let from = known.first.max(extent.low);
                plan.again.insert(*partition, Again { known: known.clone(), from });
                known.anew(from)
            }
            Some(known) => known.clone(),
        };
        if at.next > extent.end {
            let text = format!(
                "partition {partition} ends at offset {}, and messages up to {} were read: the topic was made anew or cut",
                extent.end, at.next
            );
            gap(topic, &mut plan, &text)?;
            plan.others.insert(*partition);
            at = at.anew(extent.low);
        } else if at.next < extent.low && known.is_some() {
            let text = format!(
                "the messages {} to {} of partition {partition} are gone before they were read",
                at.next,
                extent.low - 1
            );
            gap(topic, &mut plan, &text)?;
            at = PartitionOffset { next: extent.low, last: None, ..at };
        }
        plan.ends.insert(*partition, extent.end);
        plan.offsets.partitions.insert(*partition, at);
    }
    Ok(plan)
}

/// Whether some of the messages that were read are there still.
fn reads_again(known: &PartitionOffset, extent: Extent) -> bool {
    known.first.max(extent.low) < known.next && known.next <= extent.end
}

/// Where a partition goes on whose past ends before `next`.
fn after_past(topic: &Topic, plan: &mut Plan, partition: i32, next: i64, extent: Extent) -> Result<i64> {
    if next < extent.low {
        let ends = match next {
            0 => format!("the history has nothing of partition {partition}"),
            _ => format!("the history of partition {partition} ends at offset {}", next - 1),
        };
        let text = format!("{ends}, and the topic begins at {}: what stood between is gone", extent.low);
        gap(topic, plan, &text)?;
    } else if next > extent.end {
        let text = format!(
            "the history of partition {partition} goes to offset {}, and the topic ends at {}: it isn't the history of this topic",
            next - 1,
            extent.end
        );
        gap(topic, plan, &text)?;
        return Ok(extent.low);
    }
    Ok(next.max(extent.low))
}

/// Messages that can't be read any more: an error, or a warning where the source accepts them.
fn gap(topic: &Topic, plan: &mut Plan, text: &str) -> Result<()> {
    if topic.spec.accepts_gaps {
        plan.warnings.push(format!("{text}; `on_gap: accept` goes on behind them"));
        return Ok(());
    }
    Err(Error::external(text)
        .with("topic", &topic.spec.topic.value)
        .with("untouched", "its rows stay as they are")
        .with("hint", "`on_gap: accept` goes on with what is there"))
}

/// How the topic differs from a position.
///
/// # Errors
/// As [`plan`].
pub(super) fn look(client: &mut Client, topic: &Topic, prior: Option<&Offsets>) -> Result<Look> {
    // Between two questions to the brokers a look doesn't ask, whether there are new partitions or not: those without messages
    // are nothing to take in.
    let plan = match followed(client, topic, prior)? {
        Some(plan) => plan,
        None => plan(client, topic, prior, &BTreeMap::new(), false)?,
    };
    let (changes, seen) = (new_offsets(&plan), plan.seen());
    let waiting_rows = u64::try_from(plan.len()).ok();
    // What was taken in stays, also where the topic lost it.
    Ok(Look { changes, notes: plan.warnings, waiting_rows, gone: Vec::new(), seen })
}

/// Offsets that come after those that were read, for people; none if there are none.
pub(super) fn new_offsets(plan: &Plan) -> Option<String> {
    let new = |(partition, (from, to)): (i32, (i64, i64))| {
        to - plan.again.get(&partition).map_or(from, |again| again.known.next)
    };
    let new: Vec<i64> = plan.ranges().into_iter().map(new).filter(|new| *new > 0).collect();
    match (new.iter().sum::<i64>(), new.len()) {
        (0, _) => None,
        (1, _) => Some("1 new offset".to_string()),
        (new, 1) => Some(format!("{new} new offsets")),
        (new, partitions) => Some(format!("{new} new offsets in {partitions} partitions")),
    }
}

#[cfg(test)]
#[path = "range_tests.rs"]
pub(super) mod tests;
