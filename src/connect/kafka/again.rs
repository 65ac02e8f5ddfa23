//! Under another contract a topic is read again as far as it holds what was read: what of each unit those messages replace, and
//! what stays. Decisions only, but for the questions to the brokers.

use std::collections::BTreeMap;

use datafusion::logical_expr::{Expr, lit};
use datafusion::prelude::col;

use super::Topic;
use super::client::Client;
use super::range::{self, Plan};
use super::take::prove;
use crate::connect::position::Position;
use crate::connect::{FileEntry, Look, Ranges, ranges};
use crate::error::{Error, Result};
use crate::spec::types::MessageRelation;

/// A unit of which something stays.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kept {
    pub(super) unit: FileEntry,
    /// The offsets that stay.
    stay: Ranges,
    /// Those that are read again.
    go: Ranges,
    /// Whether rows of `go` stay, too, that say that their key has no row any more.
    has_tombstones: bool,
}

/// A unit of which something is read again.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Replaced {
    pub(super) unit: FileEntry,
    /// The offsets that are read again.
    pub(super) go: Ranges,
}

/// What is to be read under another contract than that of `prior`: again, as far as it is there, and what came since.
///
/// # Errors
/// As [`range::plan`]; also where the topic was made anew.
pub(super) fn plan(
    client: &mut Client,
    topic: &Topic,
    prior: &Position,
    past: &BTreeMap<i32, i64>,
) -> Result<(Plan, Vec<Kept>)> {
    let mut plan = range::plan(client, topic, prior.offsets.as_ref(), past, true)?;
    // Messages of another topic aren't those that were read: before anything is given up for them.
    prove(client, topic, &mut plan)?;
    plan.proven();
    let is_upsert = matches!(topic.spec.relation, MessageRelation::Upsert(_));
    let kept = kept(&mut plan, &prior.files, topic.spec.history.is_some(), is_upsert);
    Ok((plan, kept))
}

/// What taking in under another contract would come to.
///
/// # Errors
/// As [`plan`], and where rows that can't be read again weren't kept.
pub(super) fn look(client: &mut Client, topic: &Topic, prior: &Position) -> Result<Look> {
    let (mut plan, kept) = plan(client, topic, prior, &BTreeMap::new())?;
    if let Some(text) = let_go(&kept) {
        plan.warnings.push(give_up(topic, &text)?);
    }
    let there: Vec<&Kept> = kept.iter().filter(|kept| !kept.unit.is_let_go && !kept.stay.is_empty()).collect();
    let mut notes = std::mem::take(&mut plan.warnings);
    if !there.is_empty() {
        let told = told(there);
        notes.push(format!(
            "rows of {told} stay as they were accepted, if the contract can hold them: they can't be read again"
        ));
    }
    let again = match plan.old_len() {
        0 => "its contract changed".to_string(),
        1 => "its contract changed: 1 offset is read again".to_string(),
        again => format!("its contract changed: {again} offsets are read again"),
    };
    let changes = [Some(again), range::new_offsets(&plan)].into_iter().flatten().collect::<Vec<_>>().join(", ");
    // All rows are others under another contract, also those that stay.
    let gone = prior.files.iter().map(|unit| unit.path.clone()).collect();
    let (waiting_rows, seen) = (u64::try_from(plan.len()).ok(), plan.seen());
    Ok(Look { changes: Some(changes), notes, waiting_rows, gone, seen })
}

/// What stays of `files`, in their order. Rows of the past are read again with `history_is_read`.
///
/// Landed rows say their partition and offset, not how often the topic had been made anew. Where a unit holds the same offsets
/// of the topic before and after that, its rows can't be told apart: then nothing of that partition is read again.
///
/// A compacted topic forgets a tombstone once it has forgotten what came before it. Rows that stay here would come back without
/// it, so that those of an upsert relation stay as well.
fn kept(plan: &mut Plan, files: &[FileEntry], history_is_read: bool, is_upsert: bool) -> Vec<Kept> {
    for partition in plan.again.keys().copied().collect::<Vec<_>>() {
        if files.iter().any(|unit| is_mixed(&split(plan, unit, history_is_read), partition)) {
            plan.leave(partition);
        }
    }
    let split = files.iter().map(|unit| split(plan, unit, history_is_read));
    let split: Vec<(Ranges, Ranges)> = split.collect();
    let has_tombstones = is_upsert && split.iter().any(|(stay, _)| !stay.is_empty());
    let units = files.iter().zip(split);
    let units = units.map(|(unit, (stay, go))| Kept { unit: unit.clone(), stay, go, has_tombstones });
    units.filter(|kept| !kept.stay.is_empty() || has_tombstones).collect()
}

/// What of `files` the plan reads again.
pub(super) fn replaced(plan: &Plan, files: &[FileEntry], history_is_read: bool) -> Vec<Replaced> {
    let units = files.iter().map(|unit| Replaced { unit: unit.clone(), go: split(plan, unit, history_is_read).1 });
    units.filter(|replaced| !replaced.go.is_empty()).collect()
}

/// The offsets of a unit that stay, and those that are read again.
fn split(plan: &Plan, unit: &FileEntry, history_is_read: bool) -> (Ranges, Ranges) {
    let (mut stay, mut go) = (Ranges::new(), Ranges::new());
    for (name, ranges) in &unit.ranges {
        // The topic's own part is in the position; the past is read whole or not at all.
        let (from, to) = match place(name) {
            Some((partition, epoch)) => match plan.again.get(&partition) {
                Some(again) if again.known.epoch == epoch => (again.from, again.known.next),
                _ => (0, 0),
            },
            None if history_is_read => (i64::MIN, i64::MAX),
            None => (0, 0),
        };
        let pieces = |cut: &dyn Fn(i64, i64) -> [(i64, i64); 2]| -> Vec<(i64, i64)> {
            ranges.iter().flat_map(|(first, end)| cut(*first, *end)).filter(|(first, end)| first < end).collect()
        };
        let outside = pieces(&|first, end| [(first, end.min(from)), (first.max(to), end)]);
        let within = pieces(&|first, end| [(first.max(from), end.min(to)), (0, 0)]);
        for (ranges, of) in [(outside, &mut stay), (within, &mut go)] {
            if !ranges.is_empty() {
                of.insert(name.clone(), ranges);
            }
        }
    }
    (stay, go)
}

/// Partition and epoch of a range's name; none for the past.
pub(super) fn place(name: &str) -> Option<(i32, u32)> {
    let (partition, epoch) = name.split_once('.')?;
    Some((partition.parse().ok()?, epoch.parse().ok()?))
}

/// Whether offsets of the partition stay and go that are the same but for the topic's being made anew in between.
fn is_mixed((stay, go): &(Ranges, Ranges), partition: i32) -> bool {
    let of = |ranges: &Ranges| of_partitions(ranges).remove(&partition).unwrap_or_default();
    let (stay, go) = (of(stay), of(go));
    stay.iter().any(|(first, end)| go.iter().any(|(from, to)| first < to && from < end))
}

/// Offsets by partition, whatever the topic was when they were read.
fn of_partitions(ranges: &Ranges) -> BTreeMap<i32, Vec<(i64, i64)>> {
    let mut of: BTreeMap<i32, Vec<(i64, i64)>> = BTreeMap::new();
    for (name, ranges) in ranges {
        if let Some((partition, _)) = place(name) {
            of.entry(partition).or_default().extend(ranges);
        }
    }
    of
}

impl Kept {
    /// Whether all of the unit stays.
    pub(super) fn is_whole(&self) -> bool {
        self.go.is_empty()
    }

    /// The offsets that stay, by the names of the unit's ranges.
    pub(super) fn ranges(&self) -> &Ranges {
        &self.stay
    }

    /// Whether a landed row stays.
    pub(super) fn filter(&self) -> Expr {
        match self.has_tombstones {
            true => self.refused_filter().or(col("_tombstone").is_true()),
            false => self.refused_filter(),
        }
    }

    /// Whether a refused row stays, by its partition and offset. Rows of the past are those that stand in no range of the topic.
    pub(super) fn refused_filter(&self) -> Expr {
        match self.stay.keys().all(|name| place(name).is_some()) {
            true => within(&self.stay).is_true(),
            false => within(&self.go).is_not_true(),
        }
    }
}

/// The messages of some units for people: `the messages 0 to 2 of partition 0`.
pub(super) fn told<'a>(kept: impl IntoIterator<Item = &'a Kept>) -> String {
    let all = ranges::union(kept.into_iter().map(Kept::ranges));
    let of = |(name, ranges): (String, Vec<(i64, i64)>)| match place(&name) {
        Some((partition, _)) => {
            let each: Vec<String> = ranges.iter().map(|(first, end)| format!("{first} to {}", end - 1)).collect();
            format!("the messages {} of partition {partition}", each.join(" and "))
        }
        None => name,
    };
    all.into_iter().map(of).collect::<Vec<_>>().join(", ")
}

/// Why some rows can't stay; none where all can. Those that were let go aren't there.
pub(super) fn let_go<'a>(kept: impl IntoIterator<Item = &'a Kept>) -> Option<String> {
    let gone: Vec<&Kept> = kept.into_iter().filter(|kept| kept.unit.is_let_go && !kept.stay.is_empty()).collect();
    (!gone.is_empty()).then(|| {
        format!(
            "{} were read under another contract, their rows weren't kept (`archive: false`), and the topic doesn't hold them \
             any more",
            told(gone)
        )
    })
}

/// Rows that were read and can't stay: an error, or a warning where the source gives them up.
///
/// # Errors
/// External: it doesn't.
pub(super) fn give_up(topic: &Topic, text: &str) -> Result<String> {
    if topic.spec.accepts_gaps {
        return Ok(format!("{text}; `on_gap: accept` gives them up"));
    }
    let hint =
        "take the change of the source's contract back; `on_gap: accept` gives these rows up for good, in tables too";
    Err(Error::external(text)
        .with("topic", &topic.spec.topic.value)
        .with("untouched", "its rows stay as they are")
        .with("hint", hint))
}

/// Messages that are fewer than the rows that they are to replace were taken away from among others, as compaction does.
///
/// # Errors
/// External: they are, unless the source gives up the rows that lack one; then a warning.
pub(super) fn check_whole(topic: &Topic, messages: u64, rows: u64) -> Result<Option<String>> {
    // The last message of a key is always there, and the others are no row.
    if messages >= rows || matches!(topic.spec.relation, MessageRelation::Upsert(_)) {
        return Ok(None);
    }
    let text = format!(
        "{rows} rows that were read are to be read again under another contract, and of their messages the topic holds only \
         {messages}: it forgot some from among the others, as compaction does"
    );
    give_up(topic, &text).map(Some)
}

/// Whether a row's partition and offset are among these.
pub(super) fn within(ranges: &Ranges) -> Expr {
    let of = |(partition, ranges): (i32, Vec<(i64, i64)>)| {
        let here =
            ranges.into_iter().map(|(first, end)| col("_offset").gt_eq(lit(first)).and(col("_offset").lt(lit(end))));
        let here = here.reduce(Expr::or).unwrap_or_else(|| lit(false));
        col("_partition").eq(lit(partition)).and(here)
    };
    of_partitions(ranges).into_iter().map(of).reduce(Expr::or).unwrap_or_else(|| lit(false))
}

#[cfg(test)]
#[path = "again_tests.rs"]
mod tests;
