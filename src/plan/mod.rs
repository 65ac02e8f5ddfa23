//! Names to DataFusion plans, checks, selectors and the faults of SQL. Reads schemas through [`SchemaSource`], never rows.
//!
//! Knows no connector, no warehouse and no file.

mod approximate;
mod as_engine;
mod at_zone;
mod buildable;
mod canonical;
mod casts;
mod catalog;
mod checks;
mod clock;
mod closing;
mod coercion;
mod common_types;
mod constants;
mod date_bin;
mod date_trunc;
mod day_parts;
mod dialect;
mod distinct;
mod distinct_counts;
mod extrema;
pub mod float_bits;
mod guards;
mod hidden;
mod inspect;
mod interner;
mod json;
pub mod json_text;
mod keys;
mod lateral;
mod lengths;
mod loops;
pub mod maintain;
mod model;
mod moving;
mod named_windows;
mod names;
mod nearest;
mod notes;
mod one_row;
mod order;
mod output_names;
mod params;
mod place;
mod project;
mod query;
mod relation;
mod retention;
mod rounding;
mod row_wise;
pub mod select;
mod session;
mod set_operations;
mod shared;
mod shifts;
mod sieve;
mod skips;
mod sql_faults;
mod sql_text;
mod steady;
mod total_order;
pub mod types;
mod unarchived;
mod untimed;
mod using;
mod wall_clock;
mod window_plan;
mod windows;
mod without_seconds;
mod yielding;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::logical_expr::LogicalPlan;

pub use crate::spec::HIDDEN_COLUMNS;
pub use approximate::estimated_columns;
pub use catalog::{hidden_fields, loosened, read_hidden_fields};
pub use closing::Closing;
pub use coercion::coerced;
pub use guards::with_guards;
pub use interner::Interner;
pub use project::{plan_project, plan_unbuilt};
pub use query::{At, TimeTravel, query, query_faults, relations_of};
pub use relation::{
    RelationTable, bind, bind_accepted, bind_scan, bind_weighted_scan, placeholder_name, source_relation,
};
pub use row_wise::{InputRows, Piece, topmost_piece};
pub use session::{MAIN_SCHEMA, session, session_at, zone_of};

use crate::spec::fault::Fault;
use crate::spec::types::{CheckSpec, OnFail, Refresh, SinkSpec, SourceSpec};

/// Where a source's contract comes from when the YAML gives none.
#[async_trait]
pub trait SchemaSource: Send + Sync {
    /// The contract of `source`, hidden columns left out. Faults are the user's: columns that the files lack, an unreadable schema.
    async fn schema(&self, source: &SourceSpec) -> Result<SchemaRef, Vec<Fault>>;
}

/// The instant and zone that a plan is bound to.
#[derive(Debug, Clone)]
pub struct Clock {
    /// `now()`, microseconds since 1970 UTC.
    pub now_us: i64,
    /// IANA name of the project's zone.
    pub zone: Arc<str>,
}

/// A planned project: what runs work on.
pub struct Plan {
    /// Sources, each after those that its rules look into, otherwise by declaration.
    pub sources: Vec<PlannedSource>,
    /// Models so that each stands after what it reads.
    pub models: Vec<PlannedModel>,
}

/// A source with its schema and bound rules.
pub struct PlannedSource {
    /// As written.
    pub spec: SourceSpec,
    /// Its pipeline.
    pub pipeline: String,
    /// Contract columns as Arrow types (`timestamptz` in the project's zone), without hidden ones.
    pub schema: SchemaRef,
    /// The source's rows as models see them (deduplicated), hidden columns last, over the placeholder of its name.
    /// Models' plans have this in them already: their scans are of the accepted rows as they were read.
    pub relation_plan: LogicalPlan,
    /// Other relations that the rules look into, sorted.
    pub check_inputs: Vec<String>,
    /// Rules.
    pub checks: Vec<PlannedCheck>,
    /// Hash of contract and rules: rows taken in under another one are taken in again.
    pub fingerprint: String,
}

/// A model with its bound plan.
pub struct PlannedModel {
    /// Name.
    pub name: String,
    /// Its pipeline.
    pub pipeline: String,
    /// Sources and models that the SQL reads, sorted, once each.
    pub inputs: Vec<String>,
    /// Relations that only the rules look into or that they do besides, sorted: the model stands after them too.
    pub check_inputs: Vec<String>,
    /// Bound, unoptimized; scans are [`RelationTable`]s, see [`bind`]. Parameters are in, the clock is not.
    pub plan: LogicalPlan,
    /// Columns of the result, as stored.
    pub schema: SchemaRef,
    /// Key columns; empty: a bag.
    pub key: Vec<String>,
    /// Whether the key can't repeat by the plan's own functional dependencies.
    pub key_is_derived: bool,
    /// Columns that the table is partitioned by.
    pub partition_by: Vec<String>,
    /// Whether `now()` or the like is read.
    pub reads_clock: bool,
    /// Rules.
    pub checks: Vec<PlannedCheck>,
    /// When it is refreshed.
    pub refresh: Refresh,
    /// Whether Flight clients see it.
    pub serve: bool,
    /// Where its changes go.
    pub publish: Vec<SinkSpec>,
    /// When its rows are closed; none where no column tells.
    pub closing: Option<Closing>,
    /// Hash of the canonical plan, types, parameters, zone, key, partitioning, checks and function versions.
    pub fingerprint: String,
    /// For each of its states, in the order of stages, a hash of what it hangs on besides its inputs' rows.
    pub states: Vec<String>,
    /// How far behind the watermark groups are kept in states; none: for ever.
    pub retention: Option<Duration>,
    /// How it is maintained and why, for `plan`.
    pub strategy: Strategy,
    /// The plan to maintain it by; none where it can only be computed anew.
    pub maintenance: Option<maintain::Maintenance>,
}

/// How a model is maintained.
#[derive(Debug, Clone)]
pub struct Strategy {
    /// `incremental` or `recompute`.
    pub name: &'static str,
    /// Operators of the plan, top first.
    pub operators: Vec<String>,
    /// Why, in a sentence.
    pub reason: String,
}

/// A rule bound to its relation.
#[derive(Clone)]
pub struct PlannedCheck {
    /// As written.
    pub spec: CheckSpec,
    /// What to evaluate.
    pub test: CheckTest,
}

impl PlannedCheck {
    /// Name shown to users.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// What happens on failure.
    pub fn on_fail(&self) -> OnFail {
        self.spec.on_fail
    }

    /// Whether time alone can break it.
    pub fn hangs_on_the_clock(&self) -> bool {
        matches!(self.test, CheckTest::Freshness { .. })
    }

    /// Whether rows go to quarantine by what another relation holds, so that they may without a change of their own.
    pub fn moves_unrelated_rows(&self) -> bool {
        self.on_fail() == OnFail::Quarantine && matches!(self.test, CheckTest::Relationship { .. })
    }
}

/// How a rule is evaluated.
#[derive(Clone)]
pub enum CheckTest {
    /// Over each row: a row fails where this is false (null passes). Bound to the relation's schema, clock functions unresolved.
    Row(datafusion::logical_expr::Expr),
    /// No two rows share these values, rows with a null aside.
    Unique(Vec<String>),
    /// Every non-null `column` stands in `to_column` of `to_relation`.
    Relationship {
        /// Column here.
        column: String,
        /// Source or model.
        to_relation: String,
        /// Column there.
        to_column: String,
    },
    /// Newest `column` within so many microseconds of `now()`.
    Freshness {
        /// Time column.
        column: String,
        /// Microseconds.
        within_us: i64,
    },
}
