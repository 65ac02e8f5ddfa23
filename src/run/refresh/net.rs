//! Enters a model's net change: rows through its rules, the table's files, the checks that the change can break. Computes nothing.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, JoinConstraint, JoinType, NullEquality};
use datafusion::datasource::{MemTable, ViewTable, provider_as_source};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder};

use super::beside::Rewriting;
use super::checks::RowChecks;
use super::draft::{Draft, quarantine_of};
use super::maintain::stream_of;
use super::model::{Scope, Work};
use super::{Refresh, TableNet};
use crate::engine::maintain::Net;
use crate::engine::{self, Changes, failure};
use crate::error::{Result, ResultExt};
use crate::limits;
use crate::plan::Interner;
use crate::run::commit::{StateFiles, TableEntry, TableKind};
use crate::run::history::ModelOutcome;
use crate::run::version::table_digest;
use crate::table::{
    ChangedTable, DataFile, TableChange, TableFiles, TableTarget, change_table, crowded, parquet_table, write_files,
};

/// How a model's result changes.
pub(super) struct NetChange<'a> {
    pub(super) net: Net,
    pub(super) states: Vec<StateFiles>,
    pub(super) rules: &'a Arc<RowChecks>,
}

/// The same with its rows ruled on.
pub(super) struct RuledChange<'a> {
    added: Vec<RecordBatch>,
    removed: Vec<RecordBatch>,
    refused: Vec<RecordBatch>,
    /// As the change has it; none where rows were refused.
    updated: Option<u64>,
    states: Vec<StateFiles>,
    rules: &'a Arc<RowChecks>,
}

impl Refresh<'_> {
    /// Rules on the rows that come; none where a row goes that a rule had refused, since the quarantine only grows here.
    pub(super) async fn refusing<'a>(&self, work: &Work<'_>, change: NetChange<'a>) -> Result<Option<RuledChange<'a>>> {
        let model = work.model;
        let NetChange { net, states, rules } = change;
        let mut ruled =
            RuledChange { added: vec![], removed: vec![], refused: vec![], updated: net.updated, states, rules };
        // What these rules say of rows that go is no outcome.
        let before = RowChecks::bind(&work.session, &model.schema, &model.checks, &model.key, &self.run)?;
        for batch in &net.removed {
            let (rows, refused) = before.split(engine::conform(batch, &model.schema)?)?;
            if refused.is_some() {
                return Ok(None);
            }
            ruled.removed.push(rows);
        }
        for batch in &net.added {
            let (rows, refused) = rules.split(engine::conform(batch, &model.schema)?)?;
            ruled.added.push(rows);
            ruled.refused.extend(refused);
        }
        ruled.updated = ruled.updated.filter(|_| ruled.refused.is_empty());
        Ok(Some(ruled))
    }

    /// Writes the change into the table's files, checks it and enters it into the draft.
    pub(super) async fn enter_net(
        &mut self,
        work: &Work<'_>,
        change: RuledChange<'_>,
        old: &TableEntry,
        draft: &mut Draft,
        outcome: &mut ModelOutcome,
    ) -> Result<()> {
        let entered = self.write_net(work, &change, old, draft, outcome).await;
        if entered.is_err() {
            self.discard_states(work, &change.states, draft).await;
        }
        entered
    }

    async fn write_net(
        &mut self,
        work: &Work<'_>,
        change: &RuledChange<'_>,
        old: &TableEntry,
        draft: &mut Draft,
        outcome: &mut ModelOutcome,
    ) -> Result<()> {
        let model = work.model;
        let prefix = draft.prefix();
        let quarantine = quarantine_of(&model.name);
        let mut before = work.chain.table_files(&model.name, old).await?;
        let rows = |batches: &[RecordBatch]| batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        let is_same = rows(&change.added) + rows(&change.removed) == 0;
        let table = match is_same {
            true => before.clone(),
            false => {
                if let Some(held) = self.held
                    && let Some(together) = held.beside.finished(&model.name).await
                {
                    together.enter(&mut before.files);
                }
                let zone = self.zone();
                let target = TableTarget {
                    session: &work.session,
                    warehouse: &self.warehouse,
                    table: &model.name,
                    schema: &model.schema,
                    key: &model.key,
                    zone,
                    prefix: &prefix,
                    together_bytes: if self.held.is_some() { limits::STEP_TOGETHER_BYTES } else { u64::MAX },
                };
                let change = TableChange { added: &change.added, removed: &change.removed };
                let changed = change_table(&target, &before, &change).await?;
                self.put_together(&target, &changed)?;
                changed.files
            }
        };
        let schema = Arc::clone(change.rules.quarantine_schema());
        let stream = stream_of(&schema, change.refused.clone());
        let refused = write_files(&self.warehouse, &quarantine, &schema, &[], &prefix, vec![stream]).await;
        let checked = match refused {
            Ok(refused) => {
                outcome.quarantined = refused.iter().map(|file| file.rows).sum();
                let checked = self.check_net(work, change, &table, draft, outcome).await;
                checked.map(|()| refused)
            }
            Err(error) => Err(error),
        };
        let refused = match checked {
            Ok(refused) => refused,
            Err(error) => {
                self.discard_new(&model.name, &table, &prefix).await;
                return Err(error);
            }
        };
        let description = self.description(work, TableKind::Model, change.states.clone(), draft);
        match is_same {
            true => draft.keep_files(&model.name, description),
            false => draft.set_files(&model.name, &table, description)?,
        }
        self.enter_refused(work, &quarantine, schema, refused, draft).await?;
        if !is_same {
            let pipeline = &draft.record.pipeline;
            let side = |batches: &[RecordBatch]| {
                engine::memory_table(&model.schema, batches).map(|table| table.into_iter().collect())
            };
            let net = TableNet {
                before: table_digest(pipeline, old.changed_in),
                after: table_digest(pipeline, draft.record.n),
                added: side(&change.added)?,
                removed: side(&change.removed)?,
                rows: (rows(&change.added) + rows(&change.removed)) as u64,
            };
            self.nets.insert(model.name.clone(), net);
        }
        outcome.status = "ok".into();
        let changes = counted(change, &model.key)?;
        (outcome.inserted, outcome.updated, outcome.deleted) = (changes.inserted, changes.updated, changes.deleted);
        self.entered(work, draft).await
    }

    /// Has small files put together beside the steps, if there are any.
    fn put_together(&self, target: &TableTarget<'_>, changed: &ChangedTable) -> Result<()> {
        let Some(held) = self.held.filter(|_| !changed.crowded.is_empty()) else { return Ok(()) };
        let parts = TableFiles { files: changed.crowded.clone(), ..changed.files.clone() };
        let rows = parquet_table(target.warehouse, target.table, parts, target.zone)?;
        let rewriting = Rewriting {
            session: target.session,
            plan: scan("rows", &rows)?,
            warehouse: target.warehouse,
            folder: target.table,
            schema: target.schema,
            partition_by: &changed.files.partition_by,
            prefix: target.prefix,
        };
        held.beside.begin(target.table, (changed.crowded.clone(), true), rewriting);
        Ok(())
    }

    /// Rules over the change's rows, and over the table as far as the change can break them.
    async fn check_net(
        &mut self,
        work: &Work<'_>,
        change: &RuledChange<'_>,
        table: &TableFiles,
        draft: &Draft,
        outcome: &mut ModelOutcome,
    ) -> Result<()> {
        let provider = parquet_table(&self.warehouse, &work.model.name, table.clone(), self.zone())?;
        let added = engine::memory_table(&work.model.schema, &change.added)?;
        let provider = &provider;
        let alike = |columns: &[String]| -> Result<Arc<dyn TableProvider>> {
            match &added {
                Some(added) => sharing(provider, added, columns),
                None => empty(provider),
            }
        };
        let mut checked = change.rules.outcomes();
        checked.extend(self.table_checks(work, provider.clone(), Scope::Change(&alike)).await?);
        self.note_checks(work.model, checked, outcome)?;
        self.verify_pins(work, draft).await
    }

    async fn enter_refused(
        &self,
        work: &Work<'_>,
        quarantine: &str,
        schema: SchemaRef,
        refused: Vec<DataFile>,
        draft: &mut Draft,
    ) -> Result<()> {
        let description = self.description(work, TableKind::ModelQuarantine, vec![], draft);
        let Some(entry) = draft.record.tables.get(quarantine).filter(|_| refused.is_empty()).cloned() else {
            let mut files = match draft.record.tables.get(quarantine) {
                Some(entry) => work.chain.table_files(quarantine, entry).await?.files,
                None => vec![],
            };
            files.extend(refused);
            let mut files = TableFiles { schema, partition_by: vec![], files };
            self.fewer_refused(work, quarantine, &mut files, &draft.prefix()).await?;
            return draft.set_files(quarantine, &files, description);
        };
        debug_assert!(entry.kind == TableKind::ModelQuarantine);
        draft.keep_files(quarantine, description);
        Ok(())
    }

    /// Puts small files of a quarantine table together once there are many: a step may write one.
    async fn fewer_refused(&self, work: &Work<'_>, table: &str, files: &mut TableFiles, prefix: &str) -> Result<()> {
        let crowded = crowded(files.files.iter().map(|file| file.size));
        if crowded.is_empty() {
            return Ok(());
        }
        let parts: Vec<DataFile> = crowded.into_iter().map(|at| files.files[at].clone()).collect();
        let rows = TableFiles { files: parts.clone(), ..files.clone() };
        let rows = scan("rows", &parquet_table(&self.warehouse, table, rows, self.zone())?)?;
        let streams = engine::execute_as(&work.session, rows, &files.schema).await?;
        let together = write_files(&self.warehouse, table, &files.schema, &[], prefix, streams).await?;
        files.files.retain(|file| !parts.contains(file));
        files.files.extend(together);
        Ok(())
    }

    /// Deletes the files of a table that only this run made, as far as possible.
    async fn discard_new(&self, table: &str, files: &TableFiles, prefix: &str) {
        let new = files.files.iter().filter(|file| file_name(&file.path).starts_with(prefix)).cloned().collect();
        super::stage::discard(&self.warehouse, table, &TableFiles { files: new, ..files.clone() }).await;
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn scan(name: &str, table: &Arc<dyn TableProvider>) -> Result<LogicalPlan> {
    let scan = LogicalPlanBuilder::scan(name, provider_as_source(Arc::clone(table)), None);
    scan.and_then(LogicalPlanBuilder::build).map_err(failure)
}

/// The rows of `table` that share their values of `columns` with one of `rows`.
fn sharing(
    table: &Arc<dyn TableProvider>,
    rows: &Arc<dyn TableProvider>,
    columns: &[String],
) -> Result<Arc<dyn TableProvider>> {
    let column = |relation: &str, name: &String| Expr::Column(Column::new(Some(relation), name));
    let on = columns.iter().map(|name| (column("rows", name), column("added", name))).collect();
    let join = Join::try_new(
        Arc::new(scan("rows", table)?),
        Arc::new(scan("added", rows)?),
        on,
        None,
        JoinType::LeftSemi,
        JoinConstraint::On,
        NullEquality::NullEqualsNothing,
        false,
    );
    Ok(Arc::new(ViewTable::new(LogicalPlan::Join(join.map_err(failure)?), None)))
}

fn empty(table: &Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(MemTable::try_new(table.schema(), vec![vec![]]).map_err(failure)?))
}

/// What the change comes to: by key where there is one, else by rows.
fn counted(change: &RuledChange<'_>, key: &[String]) -> Result<Changes> {
    let (added, removed) = (&change.added, &change.removed);
    let rows = |batches: &[RecordBatch]| batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
    let known = if key.is_empty() { Some(0) } else { change.updated };
    if let Some(updated) = known {
        return Ok(Changes { inserted: rows(added) - updated, updated, deleted: rows(removed) - updated });
    }
    let Some(first) = added.first().or(removed.first()) else { return Ok(Changes::default()) };
    let columns = key.iter().map(|name| first.schema_ref().index_of(name)).collect::<std::result::Result<Vec<_>, _>>();
    let columns = columns.external("a key column isn't there")?;
    let of = |batch: &RecordBatch| columns.iter().map(|at| Arc::clone(batch.column(*at))).collect::<Vec<_>>();
    let mut keys = Interner::new(of(first).iter().map(|column| column.data_type()), rows(removed) as usize)?;
    for batch in removed {
        keys.intern(&of(batch))?;
    }
    let mut stays = vec![false; keys.count()];
    for batch in added {
        keys.find(&of(batch))?.into_iter().flatten().for_each(|number| stays[number as usize] = true);
    }
    let updated = stays.iter().filter(|stays| **stays).count() as u64;
    Ok(Changes { inserted: rows(added) - updated, updated, deleted: rows(removed) - updated })
}
