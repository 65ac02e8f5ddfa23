//! The tables of a warehouse as clients see them: one snapshot a session, and the log of their queries.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use futures::{FutureExt as _, future};

use super::{QueryInfo, ServedTables};
use crate::engine;
use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::plan::{self, Clock};
use crate::run::commit::TableKind;
use crate::run::listing::Listing;
use crate::run::reader::Reader;
use crate::run::schedule;
use crate::spec::fault::Fault;
use crate::spec::types::Project;

/// Tables of one project's warehouse.
pub struct WarehouseTables {
    project: Arc<Project>,
    reader: Arc<Reader>,
    /// What each session is made of.
    session: SessionContext,
    queries: Arc<QueryLog>,
}

impl WarehouseTables {
    /// Serves what `reader` reads.
    ///
    /// # Errors
    /// When the engine's memory can't be set up.
    pub fn new(project: Arc<Project>, reader: Arc<Reader>) -> Result<Self> {
        let runtime = engine::runtime(engine::default_memory_bytes())?;
        let clock = Clock { now_us: schedule::wall_clock_us(), zone: project.timezone.value.as_str().into() };
        let session = plan::session(&project, &clock, Some(runtime));
        Ok(Self { project, reader, session, queries: Arc::default() })
    }
}

/// Queries that ended, oldest first.
#[derive(Default)]
struct QueryLog {
    queries: Mutex<VecDeque<QueryInfo>>,
}

impl QueryLog {
    fn push(&self, info: QueryInfo) {
        let mut queries = self.queries.lock().unwrap_or_else(PoisonError::into_inner);
        if queries.len() == limits::LOGGED_QUERIES {
            queries.pop_front();
        }
        queries.push_back(info);
    }

    /// As a table whose instants appear in `zone`.
    fn table(self: &Arc<Self>, zone: &str) -> Listing {
        let (schema, log) = (Self::schema(zone), Arc::clone(self));
        let listed = Arc::clone(&schema);
        Listing::new(schema, move || future::ready(log.batch(&listed)).boxed())
    }

    fn schema(zone: &str) -> SchemaRef {
        let field = |name: &str, data_type| Field::new(name, data_type, name == "error");
        Arc::new(Schema::new(vec![
            field("query_id", DataType::Utf8),
            field("sql", DataType::Utf8),
            field("started_at", DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()))),
            field("seconds", DataType::Float64),
            field("rows", DataType::Int64),
            field("status", DataType::Utf8),
            field("error", DataType::Utf8),
        ]))
    }

    fn batch(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        let queries = self.queries.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |value: fn(&QueryInfo) -> Option<&str>| -> ArrayRef {
            Arc::new(StringArray::from_iter(queries.iter().map(value)))
        };
        let started = TimestampMicrosecondArray::from_iter_values(queries.iter().map(|q| q.started_at_us));
        let rows = queries.iter().map(|q| i64::try_from(q.rows).unwrap_or(i64::MAX));
        let columns = vec![
            text(|q| Some(&q.id)),
            text(|q| Some(&q.sql)),
            Arc::new(started.with_data_type(schema.field(2).data_type().clone())),
            Arc::new(Float64Array::from_iter_values(queries.iter().map(|q| q.seconds))),
            Arc::new(Int64Array::from_iter_values(rows)),
            text(|q| Some(q.status.as_str())),
            text(|q| q.error.as_deref()),
        ];
        RecordBatch::try_new(Arc::clone(schema), columns).external("the log of queries can't be shown")
    }
}

#[async_trait]
impl ServedTables for WarehouseTables {
    fn catalog(&self) -> &str {
        self.reader.catalog()
    }

    async fn session(&self) -> Result<SessionContext> {
        let session = plan::session_at(&self.session, schedule::wall_clock_us());
        let snapshot = self.reader.snapshot().await?;
        self.reader.register(&session, &snapshot, false, HashMap::new()).await?;
        let queries = Arc::new(self.queries.table(&self.project.timezone.value));
        session
            .register_table(datafusion::common::TableReference::full(self.catalog(), "tidemill", "queries"), queries)
            .external("the log of queries can't be shown")?;
        Ok(session)
    }

    async fn plan(&self, session: &SessionContext, sql: &str) -> Result<LogicalPlan> {
        plan::query(session, sql, Some(self.reader.as_ref())).await.map_err(|faults| told(&faults))
    }

    async fn keys(&self) -> Result<Vec<(String, Vec<String>)>> {
        let snapshot = self.reader.snapshot().await?;
        let tables = snapshot.records.values().flat_map(|record| &record.tables);
        let keyed = tables.filter(|(_, entry)| entry.kind == TableKind::Model && !entry.key.is_empty());
        Ok(keyed.map(|(name, entry)| (name.clone(), entry.key.clone())).collect())
    }

    fn query_finished(&self, info: QueryInfo) {
        tracing::info!(
            id = info.id,
            seconds = info.seconds,
            rows = info.rows,
            status = info.status.as_str(),
            "query ended"
        );
        self.queries.push(info);
    }
}

/// The faults of a query as one error, its first line the first of them.
fn told(faults: &[Fault]) -> Error {
    let Some(first) = faults.first() else { return Error::internal("the query can't be planned") };
    let mut error = Error::usage(first.message.clone()).with("code", first.code);
    if let Some(place) = &first.place {
        let (line, column) = place.position(place.span.start);
        error = error.with("at", format!("line {line}, column {column}"));
    }
    if let Some(hint) = &first.hint {
        error = error.with("hint", hint);
    }
    for fault in &faults[1..] {
        error = error.with("also", &fault.message);
    }
    error
}
