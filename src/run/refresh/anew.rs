//! Why a model is computed anew instead of going on from its last commit, as far as positions and lists of files tell. Runs ask it
//! before they compute, `plan` before they run. Reads no rows.

use std::collections::HashMap;

use crate::engine::maintain::GoesOn;
use crate::error::Result;
use crate::plan::maintain::Maintenance;
use crate::plan::{PlannedCheck, PlannedModel};
use crate::run::commit::{StateFiles, TableEntry};
use crate::run::project::OpenProject;
use crate::run::version::{Read, Versions};

/// What of a model's last commit is to go on from, if anything.
pub(in crate::run) fn goes_on(model: &PlannedModel, entry: &TableEntry, full_refresh: bool) -> Option<GoesOn> {
    if full_refresh {
        return None;
    }
    let moves_rows = model.checks.iter().any(PlannedCheck::moves_unrelated_rows);
    if entry.fingerprint == model.fingerprint && !moves_rows {
        return Some(GoesOn::Result);
    }
    (!states_that_stay(model, entry).is_empty()).then_some(GoesOn::States)
}

/// What a model's last version has of its present stages: places of the stages and of their states. None of it where groups were let
/// go, which a table made anew needs.
pub(in crate::run) fn states_that_stay(model: &PlannedModel, entry: &TableEntry) -> Vec<(usize, usize)> {
    if entry.lacks_groups() {
        return vec![];
    }
    let there = |(at, of): (usize, &String)| {
        let is_it = |state: &StateFiles| state.of == *of;
        Some((at, entry.states.iter().position(is_it)?))
    };
    let stay: Vec<_> = model.states.iter().enumerate().filter_map(there).collect();
    // What may be let go while the others are built would be missing in the table.
    let is_whole = stay.len() == model.states.len();
    if is_whole || model.retention.is_none() { stay } else { vec![] }
}

/// Why a result can't go on that is made of states.
pub(super) fn lacks_states(maintenance: &Maintenance, entry: &TableEntry, goes_on: GoesOn) -> Option<String> {
    let lacks = goes_on == GoesOn::Result && entry.states.len() != maintenance.stages.len();
    lacks.then(|| "its states aren't there".to_owned())
}

/// What a model read of an input when it was last computed.
pub(super) enum Before {
    /// Nothing that counts: no state is made of it.
    Nothing,
    /// This.
    Read(Read),
    /// What isn't kept any more; in words.
    Lost(String),
}

/// What is to be known of an input to go on from `entry`.
pub(super) async fn before(versions: &Versions<'_>, name: &str, entry: &TableEntry, goes_on: GoesOn) -> Result<Before> {
    if goes_on == GoesOn::States && !entry.inputs_at.contains_key(name) {
        // No state reads it: the old definition did not.
        return Ok(Before::Nothing);
    }
    Ok(match versions.read_of(name, entry).await? {
        Some(read) => Before::Read(read),
        None => Before::Lost(format!("what it last read of {name} isn't kept any more")),
    })
}

/// Why a model can't go on that reads `name`, where [`Versions::went`] gives nothing.
pub(super) fn unreadable(open: &OpenProject, name: &str) -> String {
    let is_in_place = open.source(name).is_some_and(|source| source.spec.is_read_in_place());
    let hint = if is_in_place { "; `archive: true` keeps them" } else { "" };
    format!("rows of {name} that went can't be read any more{hint}")
}

/// How much of what a model reads changed.
#[derive(Default)]
pub(super) struct InputChange {
    changed_rows: u64,
    rows: u64,
    /// Whether some of it isn't kept any more.
    pub(super) lacks_rows: bool,
}

impl InputChange {
    /// Adds an input of which so many rows came and went, and that has `rows` now.
    pub(super) fn add(&mut self, changed_rows: u64, rows: u64) {
        self.changed_rows += changed_rows;
        self.rows += rows;
    }

    /// Why it had better be computed anew. Rows that come beside those that were added change nothing of it: each is a change and a row.
    pub(super) fn is_too_much(&self) -> Option<String> {
        // What was let go can't be computed anew, however much came.
        let is_most = self.changed_rows > self.rows / 2 && !self.lacks_rows;
        is_most.then(|| "most of its input changed".to_owned())
    }
}

/// What is known of a model's next computation before it is run.
#[derive(Default)]
pub(in crate::run) struct Known {
    /// Why it is going to be computed anew, for sure.
    pub(in crate::run) reason: Option<String>,
    /// Rows that go from what it reads.
    pub(in crate::run) gone_rows: u64,
}

/// What is known of the next computation of a model that goes on from `entry`. `now` is what it is going to read at least: rows that
/// nobody has read yet aren't among it.
///
/// # Errors
/// External: the warehouse can't be read.
pub(in crate::run) async fn known(
    versions: &Versions<'_>,
    (model, maintenance): (&PlannedModel, &Maintenance),
    (entry, goes_on): (&TableEntry, GoesOn),
    now: &HashMap<String, Read>,
) -> Result<Known> {
    let (mut gone_rows, mut change) = (0, InputChange::default());
    let anew = |reason| Ok(Known { reason: Some(reason), ..Known::default() });
    if let Some(reason) = lacks_states(maintenance, entry, goes_on) {
        return anew(reason);
    }
    for name in &model.inputs {
        let before = match before(versions, name, entry, goes_on).await? {
            Before::Nothing => continue,
            Before::Read(before) => before,
            Before::Lost(reason) => return anew(reason),
        };
        let Some(read) = now.get(name) else { continue };
        change.lacks_rows |= read.lacks_rows();
        let Some(went) = versions.went(name, &before, read).await? else {
            return anew(unreadable(versions.open, name));
        };
        gone_rows += went.rows();
        change.add(went.rows(), read.rows());
    }
    Ok(Known { reason: change.is_too_much(), gone_rows })
}

#[cfg(test)]
mod tests {
    use super::InputChange;

    #[test]
    fn more_than_half_is_too_much_whatever_comes_beside_it() {
        let is_too_much = |changed_rows, rows, lacks_rows| {
            let change = InputChange { changed_rows, rows, lacks_rows };
            change.is_too_much().is_some()
        };
        assert!(!is_too_much(0, 0, false) && !is_too_much(5, 10, false));
        assert!(is_too_much(6, 10, false) && is_too_much(1, 0, false));
        assert!(!is_too_much(6, 10, true), "what was let go is needed");
        // What comes is a change and a row: what is too much without it is so with it.
        for (changed, rows) in (0..8).flat_map(|changed| (0..8).map(move |rows| (changed, rows))) {
            for came in (0..20).filter(|_| is_too_much(changed, rows, false)) {
                assert!(is_too_much(changed + came, rows + came, false), "{changed} of {rows}, and {came}");
            }
        }
    }
}
