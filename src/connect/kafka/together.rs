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
use crate::connect::{FileEntry, Landing, quarantine_schema};
use crate::engine;
use crate::error::Result;
use crate::table::{DataFile, TableFiles, Warehouse, crowded, garbage, parquet_table, write_files};

/// What is being put together beside the steps.
#[derive(Default)]
pub(super) struct Beside(Mutex<Option<background::Work<Result<Done>>>>);

/// What was put together.
enum Done {
    /// Units, and the one that stands for them.
    Units { parts: Vec<FileEntry>, together: Box<FileEntry> },
    /// Files of the quarantine table, whichever units they are of.
    Refused { parts: Vec<DataFile>, together: Vec<DataFile> },
}

impl Beside {
    /// Puts small units together once there are many, and small files of refused rows, at once or beside later steps. Units that
    /// are let go soon are known by their offsets: together with newer ones they would look like a change.
    pub(super) async fn compact(
        &self,
        files: &mut Vec<FileEntry>,
        landing: &Landing<'_>,
        (zone, units_stay): (&str, bool),
    ) -> Result<()> {
        if !landing.goes_on {
            while let Some(work) = Work::among(files, landing, (zone, units_stay)) {
                work.done().await?.enter(files);
            }
            return Ok(());
        }
        match self.finished().await {
            Some(Ok(done)) => done.enter(files),
            // The parts are there still: they are put together by the next try.
            Some(Err(error)) => tracing::warn!(%error, "small files of a topic weren't put together"),
            None => {}
        }
        let mut slot = self.slot();
        if slot.is_none() {
            *slot = Work::among(files, landing, (zone, units_stay)).map(|work| {
                background::Work::begin_yielding(async move {
                    let (warehouse, landed, quarantine) =
                        (work.warehouse.clone(), work.landed.clone(), work.quarantine.clone());
                    let done = work.done().await?;
                    // The commit that names them syncs only its own.
                    warehouse.sync_files(&done.made(&landed, &quarantine)).await?;
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
    /// Enters what was made in the place of its parts, if all of them are there still.
    fn enter(self, files: &mut Vec<FileEntry>) {
        match self {
            Self::Units { parts, together } => {
                let is_part = |file: &FileEntry| parts.iter().any(|part| part.is_but_for_filters(file));
                if files.iter().filter(|file| is_part(file)).count() == parts.len() {
                    files.retain(|file| !is_part(file));
                    files.push(*together);
                }
            }
            Self::Refused { parts, together } => {
                let there = files.iter().flat_map(|file| &file.quarantined);
                if there.filter(|file| parts.contains(file)).count() != parts.len() {
                    return;
                }
                let mut last = None;
                for file in files {
                    let before = file.quarantined.len();
                    file.quarantined.retain(|file| !parts.contains(file));
                    last = if file.quarantined.len() < before { Some(file) } else { last };
                }
                if let Some(last) = last {
                    last.quarantined.extend(together);
                }
            }
        }
    }

    /// Paths of its files in the warehouse.
    fn made(&self, landed: &str, quarantine: &str) -> Vec<String> {
        match self {
            Self::Units { together, .. } => {
                together.landed_files().map(|file| format!("{landed}/{}", file.path)).collect()
            }
            Self::Refused { together, .. } => {
                together.iter().map(|file| format!("{quarantine}/{}", file.path)).collect()
            }
        }
    }
}

/// What is to be put together, and where.
struct Work {
    warehouse: Warehouse,
    landed: String,
    quarantine: String,
    prefix: String,
    zone: String,
    contract: SchemaRef,
    parts: Parts,
}

enum Parts {
    Units(Vec<FileEntry>),
    Refused(Vec<DataFile>),
}

impl Work {
    /// Of a topic's units, or of their refused rows; none where small ones are few.
    fn among(files: &[FileEntry], landing: &Landing<'_>, (zone, units_stay): (&str, bool)) -> Option<Self> {
        let bytes = |entry: &FileEntry| entry.landed.iter().flatten().map(|file| file.size).sum::<u64>();
        // Of what was let go there is nothing to put together.
        let stays = |entry: &FileEntry| units_stay && !entry.is_let_go;
        let units = crowded(files.iter().map(|entry| if stays(entry) { bytes(entry) } else { u64::MAX }));
        let parts = if units.is_empty() {
            let refused: Vec<&DataFile> = files.iter().flat_map(|entry| &entry.quarantined).collect();
            let small = crowded(refused.iter().map(|file| file.size));
            Parts::Refused(small.into_iter().map(|at| refused[at].clone()).collect())
        } else {
            Parts::Units(units.into_iter().map(|at| files[at].clone()).collect())
        };
        if matches!(&parts, Parts::Refused(parts) if parts.is_empty()) {
            return None;
        }
        let beside = if landing.goes_on { format!("-{}", garbage::BESIDE) } else { String::new() };
        Some(Self {
            warehouse: landing.warehouse.clone(),
            landed: landing.landed.clone(),
            quarantine: landing.quarantine.clone(),
            prefix: format!("{}{beside}", landing.prefix),
            zone: zone.to_owned(),
            contract: Arc::clone(&landing.contract),
            parts,
        })
    }

    async fn done(self) -> Result<Done> {
        let parts = match &self.parts {
            Parts::Units(parts) => parts,
            Parts::Refused(parts) => {
                let schema = quarantine_schema(self.contract.fields().iter().map(|field| field.name().as_str()));
                let together = self.rewritten(&self.quarantine, &schema, parts.clone()).await?;
                return Ok(Done::Refused { parts: parts.clone(), together });
            }
        };
        let fields = self.contract.fields().iter().cloned();
        let fields = fields.chain(landed_fields(&self.zone).into_iter().map(Arc::new));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let landed = parts.iter().flat_map(|entry| entry.landed.iter().flatten().cloned()).collect();
        let written = self.rewritten(&self.landed, &schema, landed).await?;
        let name = format!("{}-together", self.prefix);
        let mut together = FileEntry::together(name, parts);
        if together.late_offsets.len() > 1 {
            let late_offsets = std::mem::take(&mut together.late_offsets);
            together.late_offsets = self.rewritten(&self.landed, &late_offsets::schema(), late_offsets).await?;
        }
        together.landed = Some(written);
        Ok(Done::Units { parts: parts.clone(), together: Box::new(together) })
    }

    /// Rows of a folder's files as new files, fewer and larger ones.
    async fn rewritten(&self, folder: &str, schema: &SchemaRef, files: Vec<DataFile>) -> Result<Vec<DataFile>> {
        let old = TableFiles { schema: Arc::clone(schema), partition_by: Vec::new(), files };
        let table = parquet_table(&self.warehouse, folder, old, &self.zone)?;
        let plan = LogicalPlanBuilder::scan("rows", provider_as_source(table), None);
        let plan = plan.and_then(LogicalPlanBuilder::build).map_err(engine::failure)?;
        // By one core: what goes on beside it has the others.
        let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let streams = engine::execute_as(&session, plan, schema).await?;
        write_files(&self.warehouse, folder, schema, &[], &self.prefix, streams).await
    }
}
