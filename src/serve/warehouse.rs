//! The tables of a warehouse as clients see them: one snapshot a session, and the log of their queries.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;

use super::{QueryInfo, ServedTables};
use crate::engine;
use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::plan::{self, Clock};
use crate::run::commit::TableKind;
use crate::run::reader::Reader;
use crate::run::schedule;
use crate::spec::fault::Fault;
use crate::spec::types::Project;

/// Tables of one project's warehouse.
pub struct WarehouseTables {
    project: Arc<Project>,
    reader: Arc<Reader>,
    runtime: Arc<RuntimeEnv>,
    queries: Mutex<VecDeque<QueryInfo>>,
}

impl WarehouseTables {
    /// Serves what `reader` reads.
    ///
    /// # Errors
    /// When the engine's memory can't be set up.
    pub fn new(project: Arc<Project>, reader: Arc<Reader>) -> Result<Self> {
        let runtime = engine::runtime(engine::default_memory_bytes())?;
        Ok(Self { project, reader, runtime, queries: Mutex::new(VecDeque::new()) })
    }

    fn zone(&self) -> &str {
        &self.project.timezone.value
    }

    /// Queries that ended, oldest first.
    fn queries_batch(&self) -> Result<RecordBatch> {
        let queries = self.queries.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |value: fn(&QueryInfo) -> Option<&str>| -> ArrayRef {
            Arc::new(StringArray::from_iter(queries.iter().map(value)))
        };
        let started = TimestampMicrosecondArray::from_iter_values(queries.iter().map(|q| q.started_at_us));
        let instants = DataType::Timestamp(TimeUnit::Microsecond, Some(self.zone().into()));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("query_id", text(|q| Some(&q.id))),
            ("sql", text(|q| Some(&q.sql))),
            ("started_at", Arc::new(started.with_timezone(self.zone()))),
            ("seconds", Arc::new(Float64Array::from_iter_values(queries.iter().map(|q| q.seconds)))),
            (
                "rows",
                Arc::new(Int64Array::from_iter_values(
                    queries.iter().map(|q| i64::try_from(q.rows).unwrap_or(i64::MAX)),
                )),
            ),
            ("status", text(|q| Some(q.status.as_str()))),
            ("error", text(|q| q.error.as_deref())),
        ];
        let fields = columns.iter().map(|(name, column)| {
            let data_type = if *name == "started_at" { instants.clone() } else { column.data_type().clone() };
            Field::new(*name, data_type, *name == "error")
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        RecordBatch::try_new(schema, columns.into_iter().map(|(_, c)| c).collect())
            .external("the log of queries can't be shown")
    }
}

#[async_trait]
impl ServedTables for WarehouseTables {
    fn catalog(&self) -> &str {
        self.reader.catalog()
    }

    async fn session(&self) -> Result<SessionContext> {
        let clock = Clock { now_us: schedule::wall_clock_us(), zone: self.zone().into() };
        let session = plan::session(&self.project, &clock, Some(Arc::clone(&self.runtime)));
        let snapshot = self.reader.snapshot().await?;
        self.reader.register(&session, &snapshot, false, HashMap::new()).await?;
        let batch = self.queries_batch()?;
        let queries: Arc<dyn TableProvider> = Arc::new(
            MemTable::try_new(batch.schema(), vec![vec![batch]]).external("the log of queries can't be shown")?,
        );
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
        let mut queries = self.queries.lock().unwrap_or_else(PoisonError::into_inner);
        if queries.len() == limits::LOGGED_QUERIES {
            queries.pop_front();
        }
        queries.push_back(info);
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
