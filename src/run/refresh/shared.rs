//! States that several models of a pipeline are made of: each is kept once, and its change is found once. What a state holds follows
//! from what its stage is and from the versions of what that reads, so that states alike in both are the same. Finds no change.

use std::collections::{BTreeMap, HashMap};

use super::Refresh;
use super::draft::Draft;
use super::model::Work;
use crate::engine::maintain::Net;
use crate::error::Result;
use crate::plan::PlannedModel;
use crate::plan::maintain::{Maintenance, Stage};
use crate::run::commit::{StateFiles, TableEntry};

/// How states changed in this run, by what they are.
#[derive(Default)]
pub(super) struct SharedNets(HashMap<String, Between>);

/// A change from one version of what a state reads to another.
struct Between {
    before: BTreeMap<String, String>,
    after: BTreeMap<String, String>,
    net: Net,
}

impl SharedNets {
    /// Forgets all of them: their pipeline is done.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Refresh<'_> {
    /// The state of a stage as another model has it, as of what is read now.
    pub(super) fn shared_state(&self, work: &Work<'_>, stage: &Stage, draft: &Draft) -> Option<StateFiles> {
        let of = state_of(work.model, stage).filter(|_| !self.options.full_refresh)?;
        let now = read_by(stage, &work.inputs.digests)?;
        let is_this = |state: &&StateFiles| state.of == *of && state.let_go.is_none();
        let others = draft.record.tables.iter().filter(|(table, _)| **table != work.model.name);
        others
            .filter(|(_, entry)| read_by(stage, &entry.inputs).as_ref() == Some(&now))
            .find_map(|(table, entry)| Some(entry.states.iter().find(is_this)?.seen_from_elsewhere(table)))
    }

    /// The same for each stage of a model that is built anew, by its place: only states whose files are there, and none of those that the
    /// model has already, since it may be built because of them.
    pub(super) async fn shared_states(
        &self,
        work: &Work<'_>,
        maintenance: &Maintenance,
        draft: &Draft,
    ) -> Result<BTreeMap<usize, StateFiles>> {
        let own = draft.record.tables.get(&work.model.name).map_or(&[][..], |entry| &entry.states);
        let mut shared = BTreeMap::new();
        for (at, stage) in maintenance.stages.iter().enumerate() {
            let Some(state) = self.shared_state(work, stage, draft) else { continue };
            let is_own = state.files().any(|file| own.iter().flat_map(StateFiles::files).any(|own| own == file));
            if !is_own && self.is_there(work, &state).await? {
                shared.insert(at, state);
            }
        }
        Ok(shared)
    }

    /// Whether all files of a state are there, as long as they were written.
    async fn is_there(&self, work: &Work<'_>, state: &StateFiles) -> Result<bool> {
        let folder = state.folder(work.chain.pipeline(), &work.model.name);
        for file in state.files() {
            if self.warehouse.size(&format!("{folder}/{}", file.path)).await? != Some(file.size) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How a stage's state changes since `entry`, where another model has found it in this run.
    pub(super) fn shared_net(&self, work: &Work<'_>, stage: &Stage, entry: &TableEntry) -> Option<Net> {
        let between = self.shared.0.get(state_of(work.model, stage)?)?;
        let (before, after) = (read_by(stage, &entry.inputs)?, read_by(stage, &work.inputs.digests)?);
        (between.before == before && between.after == after).then(|| between.net.clone())
    }

    /// Keeps how a stage's state changed since `entry` for other models of the pipeline that are made of the same.
    pub(super) fn share_net(&mut self, work: &Work<'_>, stage: &Stage, entry: &TableEntry, net: &Net) {
        let Some(of) = state_of(work.model, stage) else { return };
        let is_others =
            |model: &PlannedModel| model.name != work.model.name && model.shareable_states().any(|other| other == of);
        let mut others = self.open.plan.models.iter().filter(|model| model.pipeline == work.model.pipeline);
        let (before, after) = (read_by(stage, &entry.inputs), read_by(stage, &work.inputs.digests));
        if let (Some(before), Some(after)) = (before, after)
            && others.any(is_others)
        {
            self.shared.0.insert(of.clone(), Between { before, after, net: net.clone() });
        }
    }
}

/// What a stage's state is, where it can be shared.
fn state_of<'m>(model: &'m PlannedModel, stage: &Stage) -> Option<&'m String> {
    let stages = model.maintenance.iter().flat_map(|maintenance| &maintenance.stages);
    let at = stages.into_iter().position(|own| own.name == stage.name)?;
    model.shareable_states().nth(at)
}

/// The versions of what a stage reads; none where one isn't known.
fn read_by(stage: &Stage, digests: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    stage.reads.iter().map(|name| Some((name.clone(), digests.get(name)?.clone()))).collect()
}
