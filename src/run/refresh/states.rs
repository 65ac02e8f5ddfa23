//! States of maintained models as files: how they change from commit to commit, and what of them is held in memory. Computes no change.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::logical_expr::LogicalPlan;
use futures::TryStreamExt;

use super::Refresh;
use super::beside::{Rewriting, Together};
use super::draft::Draft;
use super::held::HeldStates;
use super::maintain::stream_of;
use super::model::Work;
use crate::engine;
use crate::engine::maintain::{self, Arrangement, LetGo, Net, Rows, WEIGHT};
use crate::error::Result;
use crate::limits;
use crate::plan::maintain::{Maintenance, Stage};
use crate::run::commit::{StateFiles, TableEntry};
use crate::run::failpoint;
use crate::run::watermark::retained_from;
use crate::table::{DataFile, TableFiles, parquet_table, write_files};

impl StateFiles {
    /// Enters what was put together: all that it was, or changes alone.
    pub(super) fn enter(&mut self, together: &Together) {
        if together.is_whole {
            let (mut all, changes) = (self.files().cloned().collect(), self.changes.clone());
            if together.enter(&mut all) {
                self.base = together.made.clone();
                self.changes = changes.into_iter().filter(|file| !together.parts.contains(file)).collect();
            }
        } else {
            together.enter(&mut self.changes);
        }
    }
}

impl Refresh<'_> {
    /// The states with their changes.
    pub(super) async fn next_states(
        &self,
        work: &Work<'_>,
        maintenance: &Maintenance,
        entry: &TableEntry,
        nets: &[Net],
        draft: &Draft,
    ) -> Result<Vec<StateFiles>> {
        let (let_go, prefix) = (entry.let_go(), draft.prefix());
        let can_go = self.can_let_go(work, maintenance, &let_go, draft).await?;
        let mut states = Vec::with_capacity(entry.states.len());
        let stages = maintenance.stages.iter().zip(&entry.states).zip(nets).zip(&can_go);
        for (at, (((stage, state), net), can_go)) in stages.enumerate() {
            if let Some(shared) = self.shared_state(work, stage, draft) {
                states.push(shared);
                continue;
            }
            states.push(self.next_state(work, (at, stage), (state, can_go.as_ref()), net, &prefix).await?);
        }
        // Of all states at once, so that the rows of a group that one of them has are all in those under it.
        if states.iter().zip(&let_go).any(|(next, let_go)| next.let_go != *let_go) {
            for (state, can_go) in states.iter_mut().zip(can_go) {
                state.let_go = can_go;
            }
        }
        Ok(states)
    }

    /// The groups that each state can do without, those that it lacks already among them.
    pub(super) async fn can_let_go(
        &self,
        work: &Work<'_>,
        maintenance: &Maintenance,
        let_go: &[Option<LetGo>],
        draft: &Draft,
    ) -> Result<Vec<Option<LetGo>>> {
        let from_us = retained_from(self.open, &self.warehouse, &draft.record, work.model).await?;
        let Some(from_us) = from_us else { return Ok(let_go.to_vec()) };
        let stages = maintenance.stages.iter().zip(let_go);
        stages.map(|(stage, before)| LetGo::at(&work.session, stage, from_us, before.as_ref())).collect()
    }

    /// The state with its change. Changes are put together as they come to many files, each time with those before them that
    /// aren't much larger, so that a row is written anew as often as the state doubles; the whole state once half of it changed,
    /// without the groups that `can_go`.
    async fn next_state(
        &self,
        work: &Work<'_>,
        (at, stage): (usize, &Stage),
        (state, can_go): (&StateFiles, Option<&LetGo>),
        net: &Net,
        prefix: &str,
    ) -> Result<StateFiles> {
        if net.is_empty() {
            return Ok(state.clone());
        }
        let schema = weighted(&stage.schema);
        let folder = state.folder(work.chain.pipeline(), &work.model.name);
        let rows = |files: &[DataFile]| files.iter().map(|file| file.rows).sum::<u64>();
        // What lets go of groups does so in all of a model's states at once, and at once.
        let held = self.held.filter(|_| can_go.is_none() && state.let_go.is_none());
        let place = format!("{} {at}", work.model.name);
        let mut state = state.clone();
        if let Some(held) = held
            && let Some(together) = held.beside.finished(&place).await
        {
            state.enter(&together);
        }
        let state = &state;
        let is_half = (rows(&state.changes) + net.rows() as u64) * 2 > rows(&state.base);
        let newest = newest_tier(&state.changes, net.rows() as u64);
        let rewritten = match (is_half, state.changes.len() + 1 >= limits::STATE_CHANGE_FILES) {
            (true, _) => Some(state.clone()),
            (false, true) => {
                Some(StateFiles { base: vec![], changes: state.changes[newest..].to_vec(), ..state.clone() })
            }
            (false, false) => None,
        };
        let is_beside =
            |parts: &StateFiles| parts.files().map(|file| file.rows).sum::<u64>() > limits::STEP_TOGETHER_ROWS;
        let rewritten = match (held, rewritten) {
            (Some(held), Some(parts)) if is_beside(&parts) => {
                self.begin_together(held, &place, work, stage, (&parts, is_half), prefix)?;
                None
            }
            (_, rewritten) => rewritten,
        };
        let next = match rewritten {
            Some(parts) if is_half => {
                let plan = maintain::state_rows_after(stage, &self.state_rows(work, stage, &parts)?, net, can_go)?;
                let base = self.write_state(work, &folder, &stage.schema, plan, prefix).await?;
                failpoint::hit("mid_compact");
                StateFiles { base, changes: vec![], let_go: can_go.cloned(), ..state.clone() }
            }
            Some(parts) => {
                let mut rows = self.state_rows(work, stage, &parts)?;
                rows.changes.extend(engine::memory_table(&schema, &net.weighted()?)?);
                let plan = maintain::state_changes(stage, &rows)?;
                let files = self.write_state(work, &folder, &schema, plan, prefix).await?;
                failpoint::hit("mid_compact");
                let kept = &state.changes[..newest];
                StateFiles { changes: kept.iter().cloned().chain(files).collect(), ..state.clone() }
            }
            None => {
                let stream = stream_of(&schema, net.weighted()?);
                let files = write_files(&self.warehouse, &folder, &schema, &[], prefix, vec![stream]).await?;
                StateFiles { changes: state.changes.iter().cloned().chain(files).collect(), ..state.clone() }
            }
        };
        failpoint::hit("mid_state");
        Ok(next)
    }

    /// Has a state, the whole of it or changes, put together beside the steps.
    fn begin_together(
        &self,
        held: &HeldStates,
        place: &str,
        work: &Work<'_>,
        stage: &Stage,
        (parts, is_whole): (&StateFiles, bool),
        prefix: &str,
    ) -> Result<()> {
        let (rows, weighted) = (self.state_rows(work, stage, parts)?, weighted(&stage.schema));
        let (plan, schema) = match is_whole {
            true => (maintain::state_rows(stage, &rows, None)?, &stage.schema),
            false => (maintain::state_changes(stage, &rows)?, &weighted),
        };
        let folder = parts.folder(work.chain.pipeline(), &work.model.name);
        let (session, warehouse, partition_by) = (&work.session, &self.warehouse, &[]);
        let rewriting = Rewriting { session, plan, warehouse, folder: &folder, schema, partition_by, prefix };
        held.beside.begin(place, (parts.files().cloned().collect(), is_whole), rewriting);
        Ok(())
    }

    pub(super) async fn write_state(
        &self,
        work: &Work<'_>,
        folder: &str,
        schema: &SchemaRef,
        plan: LogicalPlan,
        prefix: &str,
    ) -> Result<Vec<DataFile>> {
        let streams = engine::execute_as(&work.session, plan, schema).await?;
        write_files(&self.warehouse, folder, schema, &[], prefix, streams).await
    }

    /// Deletes files of states that only this run made, as far as possible, but for those that another model has taken over.
    pub(super) async fn discard_states(&self, work: &Work<'_>, states: &[StateFiles], draft: &Draft) {
        let (prefix, own) = (draft.prefix(), &work.model.name);
        let others: Vec<&StateFiles> = draft
            .record
            .tables
            .iter()
            .filter(|(table, _)| *table != own)
            .flat_map(|(_, entry)| &entry.states)
            .collect();
        for state in states {
            let folder = state.folder(work.chain.pipeline(), own);
            // No two files of states have the same name.
            let is_others = |file: &DataFile| others.iter().any(|other| other.files().any(|named| named == file));
            let files = state.files().filter(|file| file.path.starts_with(&prefix) && !is_others(file));
            let (files, schema) = (files.cloned().collect(), Arc::new(Schema::empty()));
            super::stage::discard(&self.warehouse, &folder, &TableFiles { schema, partition_by: vec![], files }).await;
        }
    }

    /// A stage's state in memory, where this process goes on and it fits. A large one is read beside the steps.
    pub(super) async fn arranged(
        &self,
        work: &Work<'_>,
        (at, stage): (usize, &Stage),
        state: &StateFiles,
    ) -> Result<Option<Arrangement>> {
        let Some(held) = self.held.filter(|_| !stage.group.is_empty()) else { return Ok(None) };
        let place = (work.model.name.as_str(), at);
        if let Some(known) = held.take(place.0, at, state) {
            return Ok(Some(known));
        }
        if let Some((mut rows, since)) = held.arranging.finished(place, state).await {
            let since = StateFiles { changes: since, ..StateFiles::default() };
            let plan = maintain::state_changes(stage, &self.state_rows(work, stage, &since)?)?;
            let (_, stream) = engine::rows(&work.session, plan, None).await?;
            rows.apply(&Net::of(&stream.try_collect::<Vec<_>>().await?)?)?;
            return Ok(Some(rows));
        }
        if held.arranging.is_under_way(place) {
            return Ok(None);
        }
        let rows: u64 = state.files().map(|file| file.rows).sum();
        let bytes = rows.saturating_mul(stage.schema.fields().len() as u64 * limits::ARRANGED_VALUE_BYTES);
        let Ok(bytes) = usize::try_from(bytes) else { return Ok(None) };
        let Some(memory) = held.reserve(bytes) else { return Ok(None) };
        let plan = maintain::state_rows(stage, &self.state_rows(work, stage, state)?, state.let_go.as_ref())?;
        let (session, schema, width) = (work.session.clone(), Arc::clone(&stage.schema), stage.group.len());
        let arranged = async move {
            let (_, stream) = engine::rows(&session, plan, None).await?;
            let batches: Vec<RecordBatch> = stream.try_collect().await?;
            Arrangement::new(memory, schema, width, &batches)
        };
        if rows > limits::STEP_ARRANGED_ROWS {
            held.arranging.begin(place, (state, bytes), arranged);
            return Ok(None);
        }
        arranged.await.map(Some)
    }

    /// A state's rows as relations.
    pub(super) fn state_rows(&self, work: &Work<'_>, stage: &Stage, state: &StateFiles) -> Result<Rows> {
        let folder = state.folder(work.chain.pipeline(), &work.model.name);
        let table = |schema: SchemaRef, files: &[DataFile]| -> Result<Vec<Arc<dyn TableProvider>>> {
            if files.is_empty() {
                return Ok(vec![]);
            }
            let files = TableFiles { schema, partition_by: vec![], files: files.to_vec() };
            Ok(vec![parquet_table(&self.warehouse, &folder, files, self.zone())?])
        };
        Ok(Rows {
            plain: table(Arc::clone(&stage.schema), &state.base)?,
            changes: table(weighted(&stage.schema), &state.changes)?,
            lookup: None,
        })
    }
}

/// Where those of the changes begin that are put together with a new one of so many rows: each that isn't much larger than all
/// after it.
fn newest_tier(changes: &[DataFile], mut rows: u64) -> usize {
    let mut begin = changes.len();
    for file in changes.iter().rev() {
        if begin < changes.len() && file.rows > rows * 2 {
            break;
        }
        (begin, rows) = (begin - 1, rows + file.rows);
    }
    begin
}

/// A state's columns and the weight.
pub(super) fn weighted(schema: &SchemaRef) -> SchemaRef {
    let weight = Arc::new(Field::new(WEIGHT, DataType::Int64, false));
    Arc::new(Schema::new(schema.fields().iter().cloned().chain([weight]).collect::<Vec<_>>()))
}
