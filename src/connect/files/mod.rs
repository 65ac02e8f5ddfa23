//! Files as a source: find them, decode them under a contract, land their rows as Parquet.
//!
//! Text files, and Parquet files whose metadata doesn't prove the contract, are read once and landed. Other Parquet files
//! are *plain*: read in place, pinned by size and etag.

mod calendar;
mod contract;
mod discover;
mod ignored;
pub mod infer;
mod land;
mod live;
pub(in crate::connect) mod parquet_file;
mod pinned;
mod relation;
mod sink;
mod sink_rows;
mod store;

pub use sink::FilesSink;

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;

use super::{Ignored, Landing, Look, Position, RowRule, Source, TakenIn, declared_columns};
use crate::error::Result;
use crate::spec::fault::Fault;
use crate::spec::types::{FileFormat, FilesMode, FilesSpec, SourceSpec};
use crate::table::Warehouse;
pub(in crate::connect) use store::FileStore;

/// A files source, ready to be looked at.
pub struct FilesSource {
    name: String,
    source: SourceSpec,
    spec: FilesSpec,
    zone: String,
    store: FileStore,
}

impl FilesSource {
    /// Opens the store that holds the files; looks at none of them.
    ///
    /// `root` is the project's folder, `zone` its IANA time zone.
    ///
    /// # Errors
    /// Usage, for a URL or glob that can't be read.
    pub fn open(root: &Path, zone: &str, source: &SourceSpec, spec: &FilesSpec) -> Result<Self> {
        Ok(Self {
            name: source.name.value.clone(),
            source: source.clone(),
            spec: spec.clone(),
            zone: zone.to_string(),
            store: FileStore::open(root, spec)?,
        })
    }

    /// Whether files are taken once and their rows stay.
    fn is_append(&self) -> bool {
        self.spec.mode == FilesMode::Append
    }

    fn is_parquet(&self) -> bool {
        self.spec.format == FileFormat::Parquet
    }
}

#[async_trait]
impl Source for FilesSource {
    fn declared_schema(&self) -> Result<SchemaRef, Vec<Fault>> {
        if self.source.columns.is_empty() {
            let place = self.source.name.place.clone();
            return Err(vec![
                Fault::error(
                    "unknown_schema",
                    place,
                    "without `columns` the schema is only known by reading the files",
                )
                .hint("validate without --offline, or write `columns`"),
            ]);
        }
        Ok(declared_columns(&self.source, &self.zone))
    }

    async fn schema(&self) -> Result<SchemaRef, Vec<Fault>> {
        contract::schema(self).await
    }

    async fn look(&self, prior: &Position) -> Result<Look> {
        let found = self.discover(prior, false).await?;
        let (changes, notes, seen) = (found.changes(), found.notes(), found.seen());
        Ok(Look { changes, notes, waiting_rows: None, gone: found.gone(), seen })
    }

    async fn ignored_columns(&self, contract: &SchemaRef, prior: &Position) -> Option<Ignored> {
        ignored::ignored(self, contract, prior).await
    }

    async fn take_in(&self, prior: &Position, landing: &Landing<'_>, again: bool) -> Result<TakenIn> {
        let mut discovery = self.discover(prior, true).await?;
        if again {
            self.read_again(&mut discovery).await?;
            if prior.is_stale(&landing.fingerprint) {
                self.verify_kept(&discovery.kept, landing).await?;
            }
        }
        let (has_changes, warnings) = (discovery.changes().is_some() || again, discovery.warnings());
        let position = self.land(discovery, landing).await?;
        Ok(TakenIn { position, has_changes, warnings, added: None })
    }

    fn relation(
        &self,
        contract: &SchemaRef,
        position: &Position,
        warehouse: &Warehouse,
        landed: &str,
    ) -> Result<Arc<dyn TableProvider>> {
        self.position_relation(contract, position, warehouse, landed)
    }

    async fn verify_pins(&self, position: &Position) -> Result<()> {
        self.verify_files(position).await
    }

    async fn after_commit(&self, position: &Position) -> Result<()> {
        match self.is_append() {
            true => self.finish_taken(position).await,
            false => Ok(()),
        }
    }

    async fn live(&self, contract: &SchemaRef, rules: Vec<RowRule>, now_us: i64) -> Result<Arc<dyn TableProvider>> {
        self.live_rows(contract, rules, now_us).await
    }
}
