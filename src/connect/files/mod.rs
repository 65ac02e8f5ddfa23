//! Files as a source: find them, decode them under a contract, land their rows as Parquet.
//!
//! Text files, and Parquet files whose metadata doesn't prove the contract, are read once and landed. Other Parquet files
//! are *plain*: read in place, pinned by size and etag.

mod contract;
pub mod decode;
mod discover;
pub mod infer;
mod land;
mod live;
mod parquet_file;
mod pinned;
mod position;
mod relation;
mod rules;
mod store;

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

pub use discover::{Discovery, Found};
pub use land::{Landed, Landing};
pub use position::{FileEntry, FilesPosition};
pub use rules::RowRule;

use crate::error::Result;
use crate::spec::fault::Fault;
use crate::spec::types::{ConnectorSpec, FileFormat, FilesMode, FilesSpec, SourceSpec};
use store::FileStore;

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
    pub fn open(root: &Path, zone: &str, source: &SourceSpec) -> Result<Self> {
        let ConnectorSpec::Files(spec) = &source.connector;
        Ok(Self {
            name: source.name.value.clone(),
            source: source.clone(),
            spec: spec.clone(),
            zone: zone.to_string(),
            store: FileStore::open(root, spec)?,
        })
    }

    /// The contract as the YAML gives it; for Parquet without `columns` a fault, since only the files know.
    pub fn declared_schema(&self) -> Result<SchemaRef, Vec<Fault>> {
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
        let fields =
            self.source.columns.iter().map(|column| {
                Field::new(&column.name.value, column.data_type.value.to_arrow(&self.zone), column.nullable)
            });
        Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
    }

    /// The contract, checked against what the files' headers and schemas say.
    pub async fn schema(&self) -> Result<SchemaRef, Vec<Fault>> {
        contract::schema(self).await
    }

    /// Whether files are taken once and their rows stay.
    pub fn is_append(&self) -> bool {
        self.spec.mode == FilesMode::Append
    }

    fn is_parquet(&self) -> bool {
        self.spec.format == FileFormat::Parquet
    }
}
