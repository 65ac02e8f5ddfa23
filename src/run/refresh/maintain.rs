//! One model's refresh from its inputs' changes: states and table go on from the last commit. Decides nothing about checks.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;

use super::draft::Draft;
use super::model::Work;
use super::{Refresh, TableNet};
use crate::engine::maintain::{self, Arrangement, GoesOn, LetGo, Net, Relation, RootChange, Rows, WEIGHT};
use crate::engine::{self};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::plan::maintain::{Maintenance, Stage};
use crate::run::commit::{StateFiles, TableEntry, state_folder};
use crate::run::failpoint;
use crate::run::watermark::retained_from;
use crate::table::{DataFile, TableFiles, parquet_table, write_files};

/// What came of going on from the last commit.
pub(super) enum Attempt {
    /// The result changes by these rows.
    Net { net: Net, states: Vec<StateFiles> },
    /// The result is this plan's, made of states that went on.
    Whole { plan: LogicalPlan, states: Vec<StateFiles> },
    /// It must be, or had better be, computed anew, and why.
    Anew(String),
}

impl Refresh<'_> {
    /// Finds how a model changes since `entry`, and stages its states' changes.
    pub(super) async fn advance(
        &self,
        work: &Work<'_>,
        maintenance: &Maintenance,
        (entry, goes_on): (&TableEntry, GoesOn),
        draft: &Draft,
    ) -> Result<Attempt> {
        if entry.states.len() != maintenance.stages.len() {
            return Ok(Attempt::Anew("its states aren't there".into()));
        }
        let mut relations = HashMap::new();
        let (mut changed_rows, mut rows) = (0, 0);
        for name in &work.model.inputs {
            let Some((read, _)) = work.inputs.reads.get(name) else { continue };
            let Some(provider) = work.inputs.relations.get(name) else { continue };
            if goes_on == GoesOn::States && !entry.inputs_at.contains_key(name) {
                // No state reads it: the old definition did not.
                let rows = Rows { plain: vec![Arc::clone(provider)], changes: vec![] };
                relations.insert(name.clone(), Relation::unchanged(rows));
                continue;
            }
            let before = match entry.inputs_at.get(name) {
                Some(n) => self.versions().read_at(name, *n).await?,
                None => None,
            };
            let Some(before) = before else {
                return Ok(Attempt::Anew(format!("what it last read of {name} isn't kept any more")));
            };
            if let Some(net) = self.net_of(work, name, entry) {
                let versions = self.versions();
                let whole = |table: Arc<dyn TableProvider>| Rows { plain: vec![table], changes: vec![] };
                let relation = Relation {
                    old: whole(versions.provider(name, &before)?),
                    new: whole(Arc::clone(provider)),
                    added: net.added.clone(),
                    removed: net.removed.clone(),
                    arranged: None,
                };
                (changed_rows, rows) = (changed_rows + net.rows, rows + read.rows());
                relations.insert(name.clone(), relation);
                continue;
            }
            let Some(difference) = self.versions().difference(name, &before, read, provider).await? else {
                return Ok(Attempt::Anew(format!("rows of {name} that went can't be read any more")));
            };
            changed_rows += difference.changed_rows;
            rows += difference.rows;
            relations.insert(name.clone(), difference.relation);
        }
        // What was let go can't be computed anew, however much came.
        let reads = work.model.inputs.iter().filter_map(|name| work.inputs.reads.get(name));
        let lacks_rows = reads.into_iter().any(|(read, _)| read.lacks_rows());
        if changed_rows > rows / 2 && !lacks_rows {
            return Ok(Attempt::Anew("most of its input changed".into()));
        }
        let mut held = Vec::with_capacity(entry.states.len());
        for (at, (stage, state)) in maintenance.stages.iter().zip(&entry.states).enumerate() {
            let arranged = self.arranged(work, (at, stage), state).await?.map(Arc::new);
            relations
                .insert(stage.name.clone(), Relation::state(self.state_rows(work, stage, state)?, arranged.clone()));
            held.push(arranged);
        }
        let (session, let_go) = (&work.session, entry.let_go());
        let bytes = if lacks_rows { None } else { Some(limits::CHANGE_BYTES) };
        let Some(advance) = maintain::advance(session, maintenance, relations, &let_go, bytes, goes_on).await? else {
            return Ok(Attempt::Anew("the change is too large to be held in memory".into()));
        };
        let states = self.next_states(work, maintenance, entry, &advance.stages, draft).await?;
        for (at, (arranged, net)) in held.into_iter().zip(&advance.stages).enumerate() {
            // What was let go is let go of in memory, too, by reading the state anew.
            let is_whole = states[at].let_go == entry.states[at].let_go;
            if let (Some(held), Some(mut rows)) = (self.held.filter(|_| is_whole), arranged.and_then(Arc::into_inner)) {
                rows.apply(net)?;
                held.keep(&work.model.name, at, states[at].clone(), rows);
            }
        }
        Ok(match advance.root {
            RootChange::Net(net) => Attempt::Net { net, states },
            RootChange::Whole(plan) => Attempt::Whole { plan: *plan, states },
        })
    }

    /// Why a model that failed with `error` can't go on from its last commit but can be computed anew: a file that only going
    /// on needs is gone or damaged.
    pub(super) async fn cannot_go_on(
        &self,
        work: &Work<'_>,
        maintenance: &Maintenance,
        entry: &TableEntry,
        error: &Error,
    ) -> Option<String> {
        if matches!(error.kind(), ErrorKind::Check | ErrorKind::Lease) {
            return None;
        }
        let folder = state_folder(work.chain.pipeline(), &work.model.name);
        let mut parts: Vec<(&str, TableFiles)> = Vec::new();
        for (stage, state) in maintenance.stages.iter().zip(&entry.states) {
            for (schema, files) in [(Arc::clone(&stage.schema), &state.base), (weighted(&stage.schema), &state.changes)]
            {
                parts.push((&folder, TableFiles { schema, partition_by: vec![], files: files.clone() }));
            }
        }
        parts.push((&work.model.name, work.chain.table_files(&work.model.name, entry).await.ok()?));
        for (folder, files) in &parts {
            if let Some(damage) = self.damage(work, folder, files).await.ok()? {
                return Some(damage);
            }
        }
        None
    }

    /// What is wrong with files of the warehouse, if anything is, in words. Reads all of them.
    pub(super) async fn damage(&self, work: &Work<'_>, folder: &str, files: &TableFiles) -> Result<Option<String>> {
        for file in &files.files {
            let path = format!("{folder}/{}", file.path);
            match self.warehouse.size(&path).await? {
                None => return Ok(Some(format!("{path} is gone"))),
                Some(size) if size != file.size => {
                    return Ok(Some(format!("{path} has {size} bytes, and had {} when it was written", file.size)));
                }
                Some(_) => {}
            }
            let one = TableFiles { files: vec![file.clone()], ..files.clone() };
            let rows = parquet_table(&self.warehouse, folder, one, self.zone())?;
            let read = async {
                let mut rows = work.session.read_table(rows)?.execute_stream().await?;
                while rows.try_next().await?.is_some() {}
                Ok::<_, DataFusionError>(())
            };
            if read.await.is_err() {
                return Ok(Some(format!("{path} can't be read any more")));
            }
        }
        Ok(None)
    }

    /// How this run changed an input, if that is how it changed since the model last read it.
    fn net_of(&self, work: &Work<'_>, name: &str, entry: &TableEntry) -> Option<&TableNet> {
        let net = self.nets.get(name)?;
        let is_between =
            entry.inputs.get(name) == Some(&net.before) && work.inputs.digests.get(name) == Some(&net.after);
        is_between.then_some(net)
    }

    /// The states with their changes.
    async fn next_states(
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
        for (((stage, state), net), can_go) in stages {
            states.push(self.next_state(work, stage, (state, can_go.as_ref()), net, &prefix).await?);
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
    async fn can_let_go(
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

    /// Computes a maintained model's states anew; its result's plan reads them.
    pub(super) async fn build(
        &self,
        work: &Work<'_>,
        maintenance: &Maintenance,
        draft: &Draft,
    ) -> Result<(LogicalPlan, Vec<StateFiles>)> {
        let prefix = draft.prefix();
        let can_go = self.can_let_go(work, maintenance, &vec![None; maintenance.stages.len()], draft).await?;
        let mut relations = HashMap::new();
        for (name, provider) in &work.inputs.relations {
            let rows = Rows { plain: vec![Arc::clone(provider)], changes: vec![] };
            relations.insert(name.clone(), Relation::unchanged(rows));
        }
        let mut states = Vec::new();
        for (stage, can_go) in maintenance.stages.iter().zip(can_go) {
            let plan = maintain::build_stage(&work.session, stage, &relations)?;
            let base = self.write_state(work, &stage.schema, plan, &prefix).await?;
            failpoint::hit("mid_state");
            let mut state = StateFiles { base, changes: vec![], let_go: None };
            let rows = self.state_rows(work, stage, &state)?;
            relations.insert(stage.name.clone(), Relation::unchanged(rows.clone()));
            if can_go.is_some() {
                // The result is made of the whole state, whose files no record names.
                let plan = maintain::state_rows(stage, &rows, can_go.as_ref())?;
                let base = self.write_state(work, &stage.schema, plan, &prefix).await?;
                state = StateFiles { base, changes: vec![], let_go: can_go };
            }
            states.push(state);
        }
        Ok((maintain::build_root(&work.session, maintenance, &relations)?, states))
    }

    /// Deletes files of states that only this run made, as far as possible.
    pub(super) async fn discard_states(&self, work: &Work<'_>, states: &[StateFiles], prefix: &str) {
        let files: Vec<DataFile> =
            states.iter().flat_map(StateFiles::files).filter(|f| f.path.starts_with(prefix)).cloned().collect();
        let folder = state_folder(work.chain.pipeline(), &work.model.name);
        let schema = Arc::new(Schema::empty());
        super::stage::discard(&self.warehouse, &folder, &TableFiles { schema, partition_by: vec![], files }).await;
    }

    /// A stage's state in memory, where this process goes on and it fits.
    async fn arranged(
        &self,
        work: &Work<'_>,
        (at, stage): (usize, &Stage),
        state: &StateFiles,
    ) -> Result<Option<Arrangement>> {
        let Some(held) = self.held.filter(|_| !stage.group.is_empty()) else { return Ok(None) };
        if let Some(known) = held.take(&work.model.name, at, state) {
            return Ok(Some(known));
        }
        let rows: u64 = state.files().map(|file| file.rows).sum();
        let bytes = rows.saturating_mul(stage.schema.fields().len() as u64 * limits::ARRANGED_VALUE_BYTES);
        let Some(memory) = usize::try_from(bytes).ok().and_then(|bytes| held.reserve(bytes)) else { return Ok(None) };
        let plan = maintain::state_rows(stage, &self.state_rows(work, stage, state)?, state.let_go.as_ref())?;
        let (_, stream) = engine::rows(&work.session, plan, None).await?;
        let batches: Vec<RecordBatch> = stream.try_collect().await?;
        Arrangement::new(memory, Arc::clone(&stage.schema), stage.group.len(), &batches).map(Some)
    }

    /// A state's rows as relations.
    fn state_rows(&self, work: &Work<'_>, stage: &Stage, state: &StateFiles) -> Result<Rows> {
        let folder = state_folder(work.chain.pipeline(), &work.model.name);
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
        })
    }

    /// The state with its change. Changes are put together as they come to many files, each time with those before them that
    /// aren't much larger, so that a row is written anew as often as the state doubles; the whole state once half of it changed,
    /// without the groups that `can_go`.
    async fn next_state(
        &self,
        work: &Work<'_>,
        stage: &Stage,
        (state, can_go): (&StateFiles, Option<&LetGo>),
        net: &Net,
        prefix: &str,
    ) -> Result<StateFiles> {
        if net.is_empty() {
            return Ok(state.clone());
        }
        let schema = weighted(&stage.schema);
        let rows = |files: &[DataFile]| files.iter().map(|file| file.rows).sum::<u64>();
        let with_net = |mut rows: Rows| -> Result<Rows> {
            rows.changes.extend(engine::memory_table(&schema, &net.weighted()?)?);
            Ok(rows)
        };
        let is_half = (rows(&state.changes) + net.rows() as u64) * 2 > rows(&state.base);
        let next = if is_half {
            let plan = maintain::state_rows(stage, &with_net(self.state_rows(work, stage, state)?)?, can_go)?;
            let base = self.write_state(work, &stage.schema, plan, prefix).await?;
            failpoint::hit("mid_compact");
            StateFiles { base, changes: vec![], let_go: can_go.cloned() }
        } else if state.changes.len() + 1 >= limits::STATE_CHANGE_FILES {
            let (kept, newest) = state.changes.split_at(newest_tier(&state.changes, net.rows() as u64));
            let newest = StateFiles { changes: newest.to_vec(), ..StateFiles::default() };
            let plan = maintain::state_changes(stage, &with_net(self.state_rows(work, stage, &newest)?)?)?;
            let files = self.write_state(work, &schema, plan, prefix).await?;
            failpoint::hit("mid_compact");
            StateFiles { changes: kept.iter().cloned().chain(files).collect(), ..state.clone() }
        } else {
            let folder = state_folder(work.chain.pipeline(), &work.model.name);
            let stream = stream_of(&schema, net.weighted()?);
            let files = write_files(&self.warehouse, &folder, &schema, &[], prefix, vec![stream]).await?;
            StateFiles { changes: state.changes.iter().cloned().chain(files).collect(), ..state.clone() }
        };
        failpoint::hit("mid_state");
        Ok(next)
    }

    async fn write_state(
        &self,
        work: &Work<'_>,
        schema: &SchemaRef,
        plan: LogicalPlan,
        prefix: &str,
    ) -> Result<Vec<DataFile>> {
        let folder = state_folder(work.chain.pipeline(), &work.model.name);
        let streams = engine::execute(&work.session, plan).await?;
        let streams = streams.into_iter().map(|stream| engine::conforming(stream, schema)).collect();
        write_files(&self.warehouse, &folder, schema, &[], prefix, streams).await
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
fn weighted(schema: &SchemaRef) -> SchemaRef {
    let weight = Arc::new(Field::new(WEIGHT, DataType::Int64, false));
    Arc::new(Schema::new(schema.fields().iter().cloned().chain([weight]).collect::<Vec<_>>()))
}

/// Batches as a stream of this schema.
pub(super) fn stream_of(schema: &SchemaRef, batches: Vec<RecordBatch>) -> SendableRecordBatchStream {
    let rows = futures::stream::iter(batches.into_iter().map(Ok::<_, DataFusionError>));
    Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), rows))
}
