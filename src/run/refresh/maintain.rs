//! One model's refresh from its inputs' changes: states and table go on from the last commit. Decides nothing about checks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{EmptyRelation, LogicalPlan};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;

use super::anew::{self, Before, InputChange, states_that_stay};
use super::draft::Draft;
use super::model::Work;
use super::states::weighted;
use super::{Refresh, TableNet};
use crate::engine::maintain::{self, Advancing, Extent, GoesOn, Net, Relation, RootChange};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::plan::maintain::Maintenance;
use crate::run::commit::{StateFiles, TableEntry, state_folder};
use crate::run::failpoint;
use crate::run::key_filters;
use crate::run::version::Read;
use crate::table::{TableFiles, parquet_table};

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
        &mut self,
        work: &Work<'_>,
        maintenance: &Maintenance,
        (entry, goes_on): (&TableEntry, GoesOn),
        draft: &Draft,
    ) -> Result<Attempt> {
        let of_states;
        if let Some(reason) = anew::lacks_states(maintenance, entry, goes_on) {
            return Ok(Attempt::Anew(reason));
        }
        let (maintenance, entry, rest) = match goes_on {
            GoesOn::Result => (maintenance, entry, None),
            GoesOn::States => {
                let stay = states_that_stay(work.model, entry);
                of_states = of_states_alone(maintenance, entry, &stay);
                let rest = (stay.len() < maintenance.stages.len()).then_some((maintenance, stay));
                (&of_states.0, &of_states.1, rest)
            }
        };
        let mut relations = HashMap::new();
        let mut change = InputChange::default();
        for name in &work.model.inputs {
            let Some((read, _)) = work.inputs.reads.get(name) else { continue };
            let Some(provider) = work.inputs.relations.get(name) else { continue };
            change.lacks_rows |= read.lacks_rows();
            let before = match anew::before(&self.versions(), name, entry, goes_on).await? {
                Before::Nothing => {
                    relations.insert(name.clone(), Relation::unchanged(Arc::clone(provider).into()));
                    continue;
                }
                Before::Read(before) => before,
                Before::Lost(reason) => return Ok(Attempt::Anew(reason)),
            };
            if let Some(net) = self.net_of(work, name, entry) {
                let versions = self.versions();
                let relation = Relation {
                    old: versions.provider(name, &before)?.into(),
                    new: Arc::clone(provider).into(),
                    added: net.added.clone(),
                    removed: net.removed.clone(),
                    arranged: None,
                    net: None,
                    extent: Extent { before: before.rows(), changed: net.rows },
                };
                change.add(net.rows, read.rows());
                relations.insert(name.clone(), relation);
                continue;
            }
            let Some(difference) = self.versions().difference(name, &before, read, provider).await? else {
                return Ok(Attempt::Anew(anew::unreadable(self.open, name)));
            };
            change.add(difference.relation.extent.changed, difference.rows);
            relations.insert(name.clone(), difference.relation);
        }
        self.add_lookups(work, maintenance, entry, &mut relations).await?;
        if let Some(reason) = change.is_too_much() {
            return Ok(Attempt::Anew(reason));
        }
        let mut held = Vec::with_capacity(entry.states.len());
        for (at, (stage, state)) in maintenance.stages.iter().zip(&entry.states).enumerate() {
            let rows = self.state_rows(work, stage, state)?;
            let mut relation = Relation::unchanged(rows);
            relation.extent.before = state.base.iter().chain(&state.changes).map(|file| file.rows).sum();
            relation.net = self.shared_net(work, stage, entry);
            if relation.net.is_some() {
                self.held.inspect(|held| held.forget(&work.model.name, at));
            } else {
                relation.arranged = self.arranged(work, (at, stage), state).await?.map(Arc::new);
            }
            held.push(relation.arranged.clone());
            relations.insert(stage.name.clone(), relation);
        }
        let (contexts, let_go) = (&self.contexts, entry.let_go());
        let bytes = if change.lacks_rows { None } else { Some(limits::CHANGE_BYTES) };
        let advancing = Advancing { goes_on, let_go: &let_go, key: &work.model.key, delta_bytes_max: bytes };
        let Some(advance) = maintain::advance(contexts, maintenance, relations, &advancing).await? else {
            return Ok(Attempt::Anew("the change is too large to be held in memory".into()));
        };
        for (stage, net) in maintenance.stages.iter().zip(&advance.stages) {
            self.share_net(work, stage, entry, net);
        }
        let states = self.next_states(work, maintenance, entry, &advance.stages, draft).await?;
        for (at, (arranged, net)) in held.into_iter().zip(&advance.stages).enumerate() {
            // What was let go is let go of in memory, too, by reading the state anew.
            let is_whole = states[at].let_go == entry.states[at].let_go;
            if let (Some(held), Some(mut rows)) = (self.held.filter(|_| is_whole), arranged.and_then(Arc::into_inner)) {
                rows.apply(net)?;
                held.keep(&work.model.name, at, states[at].clone(), rows);
            }
        }
        Ok(match (advance.root, rest) {
            (RootChange::Net(net), _) => Attempt::Net { net, states },
            (RootChange::Whole(plan), None) => Attempt::Whole { plan: *plan, states },
            (RootChange::Whole(_), Some((whole, stay))) => {
                let stay = stay.into_iter().map(|(at, _)| at).zip(states).collect();
                let (plan, states) = self.build(work, whole, draft, stay).await?;
                Attempt::Whole { plan, states }
            }
        })
    }

    /// Adds to sources what is known of where rows of some keys stand, in case the model's other inputs changed.
    async fn add_lookups(
        &self,
        work: &Work<'_>,
        maintenance: &Maintenance,
        entry: &TableEntry,
        relations: &mut HashMap<String, Relation>,
    ) -> Result<()> {
        let pool = &work.session.runtime_env().memory_pool;
        for (name, columns) in &maintenance.lookups {
            let Some(source) = self.open.source(name) else { continue };
            let others_stay = relations.iter().all(|(other, relation)| other == name || !relation.is_changed());
            let Some(relation) = relations.get_mut(name).filter(|_| !others_stay) else { continue };
            let files = key_filters::Files { open: self.open, warehouse: &self.warehouse, source };
            let Some((Read::Source(now), _)) = work.inputs.reads.get(name) else { continue };
            relation.new.lookup = files.lookup(now, columns, &self.filters, pool).await?;
            let before = match relation.is_changed() {
                true => self.versions().read_of(name, entry).await?,
                false => None,
            };
            relation.old.lookup = match before {
                Some(Read::Source(before)) => files.lookup(&before, columns, &self.filters, pool).await?,
                _ => relation.new.lookup.clone(),
            };
        }
        Ok(())
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
        let mut parts: Vec<(String, TableFiles)> = Vec::new();
        for (stage, state) in maintenance.stages.iter().zip(&entry.states) {
            let folder = state.folder(work.chain.pipeline(), &work.model.name);
            for (schema, files) in [(Arc::clone(&stage.schema), &state.base), (weighted(&stage.schema), &state.changes)]
            {
                parts.push((folder.clone(), TableFiles { schema, partition_by: vec![], files: files.clone() }));
            }
        }
        parts.push((work.model.name.clone(), work.chain.table_files(&work.model.name, entry).await.ok()?));
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

    /// Computes a maintained model's states anew, but for those that `stay`, by the places of their stages, or that another model has;
    /// its result's plan reads them.
    pub(super) async fn build(
        &self,
        work: &Work<'_>,
        maintenance: &Maintenance,
        draft: &Draft,
        mut stay: BTreeMap<usize, StateFiles>,
    ) -> Result<(LogicalPlan, Vec<StateFiles>)> {
        for (at, state) in self.shared_states(work, maintenance, draft).await? {
            stay.entry(at).or_insert(state);
        }
        let prefix = draft.prefix();
        let can_go = self.can_let_go(work, maintenance, &vec![None; maintenance.stages.len()], draft).await?;
        let folder = state_folder(work.chain.pipeline(), &work.model.name);
        let mut relations = HashMap::new();
        for (name, provider) in &work.inputs.relations {
            relations.insert(name.clone(), Relation::unchanged(Arc::clone(provider).into()));
        }
        let mut states = Vec::new();
        for (at, (stage, can_go)) in maintenance.stages.iter().zip(can_go).enumerate() {
            if let Some(state) = stay.remove(&at) {
                relations.insert(stage.name.clone(), Relation::unchanged(self.state_rows(work, stage, &state)?));
                states.push(state);
                continue;
            }
            let plan = maintain::build_stage(&self.contexts, stage, &relations)?;
            let base = self.write_state(work, &folder, &stage.schema, plan, &prefix).await?;
            failpoint::hit("mid_state");
            let mut state = StateFiles { base, ..StateFiles::default() };
            let rows = self.state_rows(work, stage, &state)?;
            relations.insert(stage.name.clone(), Relation::unchanged(rows.clone()));
            if can_go.is_some() {
                // The result is made of the whole state, whose files no record names.
                let plan = maintain::state_rows(stage, &rows, can_go.as_ref())?;
                let base = self.write_state(work, &folder, &stage.schema, plan, &prefix).await?;
                state = StateFiles { base, let_go: can_go, ..StateFiles::default() };
            }
            states.push(state);
        }
        Ok((maintain::build_root(&self.contexts, maintenance, &relations)?, states))
    }
}

/// The maintenance and the entry of some states alone, as if nothing was made of them where they aren't all.
fn of_states_alone(
    maintenance: &Maintenance,
    entry: &TableEntry,
    stay: &[(usize, usize)],
) -> (Maintenance, TableEntry) {
    let states = stay.iter().map(|(_, at)| entry.states[*at].clone()).collect();
    let entry = TableEntry { states, ..entry.clone() };
    if stay.len() == maintenance.stages.len() {
        return (maintenance.clone(), entry);
    }
    let stages = stay.iter().map(|(at, _)| maintenance.stages[*at].clone()).collect();
    let root = EmptyRelation { produce_one_row: false, schema: Arc::new(DFSchema::empty()) };
    (Maintenance { stages, root: LogicalPlan::EmptyRelation(root), ..maintenance.clone() }, entry)
}

/// Batches as a stream of this schema.
pub(super) fn stream_of(schema: &SchemaRef, batches: Vec<RecordBatch>) -> SendableRecordBatchStream {
    let rows = futures::stream::iter(batches.into_iter().map(Ok::<_, DataFusionError>));
    Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), rows))
}
