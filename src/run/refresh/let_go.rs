//! Rows of sources that say `archive: false`: let go once every model that reads them has done so, and read again for one that
//! needs all of them. Knows positions and entries, no rows.

use super::Refresh;
use super::draft::Draft;
use crate::connect::{Landing, Position};
use crate::error::Result;
use crate::plan::{PlannedModel, PlannedSource};
use crate::run::commit::{CommitChain, TableEntry};
use crate::run::version::Read;

impl Refresh<'_> {
    /// The position with all of its rows, where somebody needs those that were let go and the source still has them.
    pub(super) async fn with_rows_again(
        &self,
        source: &PlannedSource,
        prior: &Position,
        landing: &Landing<'_>,
        draft: &Draft,
    ) -> Result<Position> {
        let name = source.spec.name.value.as_str();
        // Under another contract all is read anew.
        let lacks = prior.lacks_rows() && prior.contract == source.fingerprint;
        if !lacks || !self.needs_all(source, draft).await? {
            return Ok(prior.clone());
        }
        match self.open.connector(name)?.restore(prior, landing).await {
            Ok(position) => Ok(position),
            Err(error) => {
                // Models that go on from changes alone need none of them; who does fails by itself.
                self.observer.warned(&format!("{name}: rows that were let go can't be read again: {error}"));
                Ok(prior.clone())
            }
        }
    }

    /// Whether rows that were read long ago are needed: a model is new, or built anew, or the source keeps its rows from now on.
    async fn needs_all(&self, source: &PlannedSource, draft: &Draft) -> Result<bool> {
        if source.spec.unarchived().is_none() {
            return Ok(true);
        }
        for model in self.readers(source).filter(|model| self.due.contains(&model.name)) {
            let goes_on = self.entry_of(model, draft).await?.is_some_and(|entry| {
                let stages = model.maintenance.as_ref().map_or(0, |maintenance| maintenance.stages.len());
                entry.fingerprint == model.fingerprint && entry.states.len() == stages
            });
            if !goes_on || self.options.full_refresh {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lets go of what every model has read, those of other pipelines too; one that was never built has read nothing.
    pub(super) async fn let_go(&self, pipeline: &str, draft: &mut Draft) -> Result<()> {
        let of_pipeline = self.open.plan.sources.iter().filter(|source| source.pipeline == pipeline);
        for source in of_pipeline.filter(|source| source.spec.unarchived().is_some()) {
            let name = source.spec.name.value.as_str();
            let Some(json) = draft.record.sources.get(name) else { continue };
            let mut position = Position::from_json(Some(json))?;
            let Some(read) = self.read_by_all(source, &position, draft).await? else { continue };
            if position.let_go(&read) {
                draft.record.sources.insert(name.to_owned(), position.to_json()?);
                draft.is_changed = true;
            }
        }
        Ok(())
    }

    /// What each model has read of a source; none where one has read nothing that is known, or needs all of it again.
    async fn read_by_all(
        &self,
        source: &PlannedSource,
        position: &Position,
        draft: &Draft,
    ) -> Result<Option<Vec<Position>>> {
        let name = source.spec.name.value.as_str();
        let mut read = Vec::new();
        for model in self.readers(source) {
            let entry = self.entry_of(model, draft).await?;
            // Groups that a state lacks are computed anew from all their rows.
            let entry = entry.filter(|entry| !entry.lacks_groups());
            let Some(entry) = entry.filter(|entry| entry.inputs_at.contains_key(name)) else { return Ok(None) };
            if entry.inputs_at.get(name) == Some(&draft.record.n) {
                read.push(position.clone());
                continue;
            }
            match self.versions().read_of(name, &entry).await? {
                Some(Read::Source(position)) => read.push(position),
                _ => return Ok(None),
            }
        }
        Ok(Some(read))
    }

    fn readers(&self, source: &PlannedSource) -> impl Iterator<Item = &PlannedModel> {
        let name = &source.spec.name.value;
        self.open.plan.models.iter().filter(move |model| model.inputs.contains(name))
    }

    /// A model's entry: in this run's draft, or in the last record of another pipeline.
    async fn entry_of(&self, model: &PlannedModel, draft: &Draft) -> Result<Option<TableEntry>> {
        if model.pipeline == draft.record.pipeline {
            return Ok(draft.record.tables.get(&model.name).cloned());
        }
        let record = CommitChain::open(&self.warehouse, &model.pipeline).latest().await?;
        Ok(record.and_then(|record| record.tables.get(&model.name).cloned()))
    }
}
