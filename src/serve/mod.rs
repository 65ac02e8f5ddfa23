//! Serves tables to clients. The protocol knows them only through [`ServedTables`]; one module says where they come from.

pub mod flight;
pub mod http;
mod warehouse;

pub use warehouse::WarehouseTables;

use async_trait::async_trait;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;

use crate::error::Result;

/// The tables that clients see, and where the log of their queries goes.
///
/// All methods may be called at once from many tasks. None may block its thread.
#[async_trait]
pub trait ServedTables: Send + Sync + 'static {
    /// The one catalog: the project's name.
    fn catalog(&self) -> &str;

    /// A session over one consistent snapshot of all tables, which stays the same for as long as the session lives.
    ///
    /// Its default catalog is [`catalog`](Self::catalog), with the schemas `main` (the default) and `tidemill`. It is used
    /// by one client's statement or listing, then dropped. Cheap: a client causes several an interaction. Dropping the
    /// future changes nothing. Errors are told to the client.
    async fn session(&self) -> Result<SessionContext>;

    /// Plans one read-only statement over `session`'s snapshot. Placeholders (`$1`, `$name`) stay in the plan.
    ///
    /// Whatever the user wrote wrong is an error of kind `Usage`. Its SQLSTATE is taken from a context pair `sqlstate` if
    /// there is one, else from the fault's `code`, else from the cause, see [`flight::sqlstate`]. The caller checks again
    /// that the plan only reads.
    async fn plan(&self, session: &SessionContext, sql: &str) -> Result<LogicalPlan> {
        flight::plan_read_only(session, sql).await
    }

    /// Key columns of the tables in schema `main` that have a key, in order.
    async fn keys(&self) -> Result<Vec<(String, Vec<String>)>>;

    /// Called once for each query that ended, after its last row left or its failure was told. Must return at once.
    fn query_finished(&self, info: QueryInfo);
}

/// One query of a client, once it has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryInfo {
    /// Unique, sorts by time of arrival (a ULID).
    pub id: String,
    /// As the client sent it.
    pub sql: String,
    /// When it was received, microseconds since 1970 UTC.
    pub started_at_us: i64,
    /// From arrival to end, the client's own pauses included.
    pub seconds: f64,
    /// Rows handed to the network.
    pub rows: u64,
    /// How it ended.
    pub status: QueryStatus,
    /// What the client was told, SQLSTATE first, if it failed.
    pub error: Option<String>,
}

/// How a query ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryStatus {
    /// All rows were sent.
    Ok,
    /// An error was told.
    Failed,
    /// The client cancelled, went away or read nothing for too long; or the server shut down.
    Cancelled,
}

impl QueryStatus {
    /// As shown in `tidemill.queries`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}
