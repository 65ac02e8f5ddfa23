//! Sources by connector: what they hold now, and how their rows come into the warehouse. Knows the warehouse only as a place to
//! land rows in; knows no model, no commit.

pub mod decode;
pub(crate) mod encode;
pub mod files;
#[cfg(feature = "kafka")]
pub mod kafka;
mod kept;
mod landing;
mod position;
mod quarantine;
mod ranges;
mod relation;
mod rules;
mod sink;
mod watermark;

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;

pub use landing::Landing;
pub use position::{FileEntry, KeyFilters, Offsets, PartitionOffset, Position};
pub use quarantine::{META_COLUMNS, Refused, RefusedAt, quarantine_schema};
pub use ranges::Ranges;
pub use relation::under;
pub use rules::RowRule;
pub use sink::{Sink, SinkChange, SinkCursor, open_sink};

use crate::error::Result;
use crate::spec::fault::Fault;
use crate::spec::types::{ConnectorSpec, Project, SourceSpec};
use crate::table::Warehouse;

/// A source, ready to be looked at. Each method may be called again after a failure; none changes what the source holds, save
/// [`Source::after_commit`].
#[async_trait]
pub trait Source: Send + Sync {
    /// The contract as the YAML gives it, without I/O; a fault where only the source itself knows it.
    fn declared_schema(&self) -> Result<SchemaRef, Vec<Fault>>;

    /// The contract, checked against what the source says of its columns. Reads no rows.
    async fn schema(&self) -> Result<SchemaRef, Vec<Fault>>;

    /// Notes the hash of the contract and rules that rows are to be read under, so that a look can tell that those of a position
    /// were read under others. To be called once, before the first look.
    fn reads_under(&self, _fingerprint: &str) {}

    /// How what is there now differs from `prior`. Reads no rows and waits for nothing.
    ///
    /// # Errors
    /// External, when the source can't be looked at or lost what it had.
    async fn look(&self, prior: &Position) -> Result<Look>;

    /// Columns that what came since `prior` has and `contract` lacks, as far as a glance tells. Fails nothing: what can't be
    /// read is told by a run.
    async fn ignored_columns(&self, _contract: &SchemaRef, _prior: &Position) -> Option<Ignored> {
        None
    }

    /// Takes in what came since `prior`, up to what is there when it is called. With `again`, rows that were taken in
    /// before are read once more as far as the source still has them.
    ///
    /// What it writes is staged: nobody reads it before a commit names it. On failure that is deleted, as far as possible.
    /// Dropping the future leaves staged files, which the cleaning after a later commit takes.
    ///
    /// # Errors
    /// Kind `Check` for a row under `on_invalid: fail` or a failed rule; external for rows that can't be read whole.
    async fn take_in(&self, prior: &Position, landing: &Landing<'_>, again: bool) -> Result<TakenIn>;

    /// The same position with the rows that were let go read and staged once more, as [`Source::take_in`] stages: exactly
    /// those, or none.
    ///
    /// # Errors
    /// External, where the source doesn't hold all of them any more.
    async fn restore(&self, position: &Position, _landing: &Landing<'_>) -> Result<Position> {
        Ok(position.clone())
    }

    /// The accepted rows of a position with all hidden columns; `landed` is the folder of landed rows in the warehouse.
    ///
    /// # Errors
    /// External, when statistics of landed files can't be read. Where rows were let go, reading fails.
    fn relation(
        &self,
        contract: &SchemaRef,
        position: &Position,
        warehouse: &Warehouse,
        landed: &str,
    ) -> Result<Arc<dyn TableProvider>>;

    /// Checks that rows that aren't landed are still those of the position: to be called before what was read is published.
    ///
    /// # Errors
    /// External, naming what changed or went.
    async fn verify_pins(&self, position: &Position) -> Result<()>;

    /// Tells the outside that a position is committed: moves taken files, commits offsets to a group. Repeating is harmless.
    ///
    /// # Errors
    /// External; the next commit's call makes up for it.
    async fn after_commit(&self, position: &Position) -> Result<()>;

    /// Accepted rows that are there now, hidden columns included; refused rows are left out. Nothing is landed.
    ///
    /// # Errors
    /// External, when the source can't be read.
    async fn live(&self, contract: &SchemaRef, rules: Vec<RowRule>, now_us: i64) -> Result<Arc<dyn TableProvider>>;
}

/// What is there now against a position.
#[derive(Debug, Default)]
pub struct Look {
    /// `files: 3 new, 1 changed`; none if the rows stay as they are.
    pub changes: Option<String>,
    /// Worth a look.
    pub notes: Vec<String>,
    /// Messages that are known to be there and weren't taken in; none where that can't be told without reading.
    pub waiting_rows: Option<u64>,
    /// Paths of the position's units whose rows go; all others stay.
    pub gone: Vec<String>,
    /// Another text wherever there is something else to take in: what failed once needn't be tried again under the same one.
    pub seen: String,
}

/// Columns of a file that no contract names.
#[derive(Debug, Clone)]
pub struct Ignored {
    /// The file, as shown.
    pub file: String,
    /// Their names, one at least, in order of the file.
    pub columns: Vec<String>,
}

/// What taking in came to.
#[derive(Debug)]
pub struct TakenIn {
    /// The new position.
    pub position: Position,
    /// Whether rows came or went, or were read again.
    pub has_changes: bool,
    /// What the user should know and what fails nothing.
    pub warnings: Vec<String>,
    /// The rows that came, where nothing else changed and they are at hand: columns by the names that they have in the relation,
    /// those that lack being null.
    pub added: Option<Vec<RecordBatch>>,
}

/// Opens a source; looks at nothing that it holds.
///
/// # Errors
/// Usage, for a URL, glob or option that can't be read.
pub fn open(project: &Project, source: &SourceSpec) -> Result<Arc<dyn Source>> {
    let root: &Path = &project.root;
    let zone = &project.timezone.value;
    Ok(match &source.connector {
        ConnectorSpec::Files(spec) => Arc::new(files::FilesSource::open(root, zone, source, spec)?),
        #[cfg(feature = "kafka")]
        ConnectorSpec::Kafka(spec) => Arc::new(kafka::KafkaSource::open(project, source, spec)?),
        #[cfg(not(feature = "kafka"))]
        ConnectorSpec::Kafka(_) => {
            return Err(without_kafka());
        }
    })
}

#[cfg(not(feature = "kafka"))]
fn without_kafka() -> crate::error::Error {
    crate::error::Error::usage("this build is without Kafka").with("hint", "build with `--features kafka`")
}

/// The contract's columns as the YAML types them.
fn declared_columns(source: &SourceSpec, zone: &str) -> SchemaRef {
    let fields = source
        .columns
        .iter()
        .map(|column| Field::new(&column.name.value, column.data_type.value.to_arrow(zone), column.nullable));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
