//! The warehouse: object store, data files, Delta tables, reading at a version. Knows no model and no source.

mod change;
mod crowding;
pub mod delta;
mod encoding;
pub mod garbage;
mod hot;
mod key_filter;
mod local;
mod parsed;
mod partition;
mod scan;
mod seen;
mod stats;
mod store;
pub mod types;
mod writer;

pub use change::{ChangedTable, TableChange, TableTarget, change_table};
pub use crowding::crowded;
pub(crate) use encoding::{Expected, parquet_properties};
pub use key_filter::{KeyFilter, KeyFilterBuilder, read_key_filters, without_repeats, write_key_filters};
pub(crate) use local::LocalStore;
pub use parsed::Parsed;
pub use scan::parquet_table;
pub use seen::Seen;
pub use store::{BOOKKEEPING, Put};
pub(crate) use store::{write_error, write_error_after};
pub use writer::write_files;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use object_store::ObjectStore;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

/// Where tables and bookkeeping live.
#[derive(Debug, Clone)]
pub struct Warehouse {
    /// The store, rooted so that `root` is the warehouse.
    pub store: Arc<dyn ObjectStore>,
    /// Path of the warehouse in the store.
    pub root: Path,
    /// For messages; secrets left out.
    pub url: String,
    /// Whether it is local disk: fsync and file locks apply.
    pub is_local: bool,
    /// How far this process saw its numbered files.
    pub seen: Seen,
    /// What this process read its unchanging files as.
    pub parsed: Parsed,
}

/// One Parquet file of a relation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataFile {
    /// Path relative to the table's folder (or, for landed rows, to the warehouse).
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Rows.
    pub rows: u64,
    /// Values of the partition columns as Delta writes them, in order of those columns.
    pub partition_values: Vec<Option<String>>,
    /// Delta's statistics JSON.
    pub stats: Option<String>,
}

/// The files that make up a relation at one moment.
#[derive(Debug, Clone)]
pub struct TableFiles {
    /// All columns, partition columns at their places.
    pub schema: SchemaRef,
    /// Partition columns.
    pub partition_by: Vec<String>,
    /// Files.
    pub files: Vec<DataFile>,
}
