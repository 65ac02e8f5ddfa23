//! Small units of a topic put together as one: a reader opens each. It is no change of the source, since units are compared by the
//! offsets that they hold. The old files stay for those who still read them.
//!
//! A process that goes on does so beside its steps, which would wait for it, and a later step enters what came of it.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::late_offsets;
use super::rows::landed_fields;
use crate::background;
use crate::connect::{FileEntry, Landing};
use crate::engine;
use crate::error::Result;
use crate::table::{DataFile, TableFiles, Warehouse, crowded, parquet_table, write_files};

/// What is being put together beside the steps.
#[derive(Default)]
pub(super) struct Beside(Mutex<Option<background::Work<Result<Done>>>>);

/// Units, and the one that stands for them.
struct Done {
    parts: Vec<FileEntry>,
    together: FileEntry,
}

impl Beside {
    /// Puts small units together once there are many, at once or beside later steps.
    pub(super) async fn compact(&self, files: &mut Vec<FileEntry>, landing: &Landing<'_>, zone: &str) -> Result<()> {
        if !landing.goes_on {
            if let Some(work) = Work::among(files, landing, zone) {
                work.done().await?.enter(files);
            }
            return Ok(());
        }
        match self.finished().await {
            Some(Ok(done)) => done.enter(files),
            // The units are there still: they are put together by the next try.
            Some(Err(error)) => tracing::warn!(%error, "small files of a topic weren't put together"),
            None => {}
        }
        let mut slot = self.slot();
        if slot.is_none() {
            *slot = Work::among(files, landing, zone).map(|work| {
                background::Work::begin_yielding(async move {
                    let (warehouse, landed) = (work.warehouse.clone(), work.landed.clone());
                    let done = work.done().await?;
                    // The commit that names them syncs only its own.
                    let paths: Vec<_> =
                        done.together.landed_files().map(|file| format!("{landed}/{}", file.path)).collect();
                    warehouse.sync_files(&paths).await?;
                    Ok(done)
                })
            });
        }
        Ok(())
    }

    /// What came of the work that ended since.
    async fn finished(&self) -> Option<Result<Done>> {
        let work = {
            let mut slot = self.slot();
            slot.as_ref().is_some_and(background::Work::is_finished).then(|| slot.take()).flatten()?
        };
        Some(work.outcome().await.and_then(|done| done))
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<background::Work<Result<Done>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Done {
    /// Enters the one unit in the place of the others, if all of them are there still.
    fn enter(self, files: &mut Vec<FileEntry>) {
        if self.parts.iter().all(|part| files.contains(part)) {
            files.retain(|file| !self.parts.contains(file));
            files.push(self.together);
        }
    }
}

/// Units to be put together, and where.
struct Work {
    warehouse: Warehouse,
    landed: String,
    prefix: String,
    zone: String,
    schema: SchemaRef,
    ingested_at_us: i64,
    parts: Vec<FileEntry>,
}

impl Work {
    /// Of a topic's units; none where they are few, or large.
    fn among(files: &[FileEntry], landing: &Landing<'_>, zone: &str) -> Option<Self> {
        let bytes = |entry: &FileEntry| entry.landed.iter().flatten().map(|file| file.size).sum::<u64>();
        // Of what was let go there is nothing to put together.
        let crowded = crowded(files.iter().map(|entry| if entry.is_let_go { u64::MAX } else { bytes(entry) }));
        if crowded.is_empty() {
            return None;
        }
        let fields = landing.contract.fields().iter().cloned().chain(landed_fields(zone).into_iter().map(Arc::new));
        Some(Self {
            warehouse: landing.warehouse.clone(),
            landed: landing.landed.clone(),
            prefix: landing.prefix.clone(),
            zone: zone.to_owned(),
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            ingested_at_us: landing.ingested_at_us,
            parts: crowded.into_iter().map(|at| files[at].clone()).collect(),
        })
    }

    async fn done(self) -> Result<Done> {
        let landed = self.parts.iter().flat_map(|entry| entry.landed.iter().flatten().cloned()).collect();
        let written = self.rewritten(&self.schema, landed).await?;
        let name = format!("{}-together", self.prefix);
        let mut together = FileEntry::together(name, &self.parts, self.ingested_at_us);
        if together.late_offsets.len() > 1 {
            let late_offsets = std::mem::take(&mut together.late_offsets);
            together.late_offsets = self.rewritten(&late_offsets::schema(), late_offsets).await?;
        }
        together.landed = Some(written);
        Ok(Done { parts: self.parts, together })
    }

    /// Rows of files as new files, fewer and larger ones.
    async fn rewritten(&self, schema: &SchemaRef, files: Vec<DataFile>) -> Result<Vec<DataFile>> {
        let old = TableFiles { schema: Arc::clone(schema), partition_by: Vec::new(), files };
        let table = parquet_table(&self.warehouse, &self.landed, old, &self.zone)?;
        let plan = LogicalPlanBuilder::scan("landed", provider_as_source(table), None);
        let plan = plan.and_then(LogicalPlanBuilder::build).map_err(engine::failure)?;
        // By one core: what goes on beside it has the others.
        let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let streams = engine::execute_as(&session, plan, schema).await?;
        write_files(&self.warehouse, &self.landed, schema, &[], &self.prefix, streams).await
    }
}
