//! Runs canonical plans and compares relations. Knows no connector and no warehouse.

mod diff;
mod failure;
mod keyed;
pub mod maintain;
mod text;

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{DataFusionError, ToDFSchema};
use datafusion::datasource::MemTable;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ExecutionPlan, ExecutionPlanProperties, PhysicalExpr, displayable, execute_stream_partitioned,
};
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use futures::stream::BoxStream;

pub use diff::{Changes, diff};
pub use failure::failure;
pub use keyed::{KeyedChange, keyed_changes};
pub use text::{as_text, json_lines, shortened};

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::limits;
use crate::plan::{coerced, with_guards};

/// Rows of a result, in batches. Dropping it stops the work behind it.
pub type RowStream = BoxStream<'static, Result<RecordBatch>>;

/// The rows of a plan as one stream, a sort's order kept; at most `limit` of them. What EXPLAIN says is short, and the engine has
/// nothing stand above it: it comes whole.
///
/// # Errors
/// When the plan can't be made physical. Errors of rows come in the stream.
pub async fn rows(ctx: &SessionContext, plan: LogicalPlan, limit: Option<usize>) -> Result<(SchemaRef, RowStream)> {
    let explains = matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_));
    let mut frame = ctx.execute_logical_plan(plan).await.map_err(failure)?;
    if limit.is_some() && !explains {
        frame = frame.limit(0, limit).map_err(failure)?;
    }
    let stream = frame.execute_stream().await.map_err(failure)?;
    let schema = stream.schema();
    Ok((schema, stream.map(|batch| batch.map_err(failure)).boxed()))
}

/// The rows of a plan, one stream a partition; to be read at the same time, or the slowest holds the others.
///
/// # Errors
/// External, when the plan can't be made physical. Errors of rows come in the streams.
pub async fn execute(ctx: &SessionContext, plan: LogicalPlan) -> Result<Vec<SendableRecordBatchStream>> {
    let plan = ctx.state().create_physical_plan(&plan).await.map_err(failure)?;
    streams(ctx, plan)
}

/// The rows of a physical plan, one stream a partition.
fn streams(ctx: &SessionContext, plan: Arc<dyn ExecutionPlan>) -> Result<Vec<SendableRecordBatchStream>> {
    tracing::debug!(partitions = plan.output_partitioning().partition_count(), "executing a plan");
    tracing::trace!(plan = %displayable(plan.as_ref()).indent(false), "a plan");
    execute_stream_partitioned(plan, ctx.task_ctx()).map_err(failure)
}

/// The same with its rows under a schema, by [`conforming`].
///
/// # Errors
/// As [`execute`].
pub async fn execute_as(
    ctx: &SessionContext,
    plan: LogicalPlan,
    schema: &SchemaRef,
) -> Result<Vec<SendableRecordBatchStream>> {
    let streams = execute(ctx, plan).await?;
    Ok(streams.into_iter().map(|stream| conforming(stream, schema)).collect())
}

/// An expression to be evaluated over batches of `schema` outside of a plan, at the session's instant.
///
/// Some functions have no evaluation of their own and are rewritten as a plan is optimized: `coalesce`, `nvl`, `nvl2`,
/// `arrow_cast`. So the expression is simplified as it would be there, but for columns that can't be null: whether they are is
/// what rules ask.
///
/// # Errors
/// External, when a name or a type doesn't fit `schema`.
pub fn row_expression(ctx: &SessionContext, expr: Expr, schema: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>> {
    let schema = loose(schema).to_dfschema_ref().map_err(failure)?;
    let state = ctx.state();
    let context = SimplifyContext::builder()
        .with_schema(Arc::clone(&schema))
        .with_config_options(Arc::clone(state.config_options()))
        .with_query_execution_start_time(state.execution_props().query_execution_start_time)
        .build();
    let simplifier = ExprSimplifier::new(context);
    let expr = coerced(&simplifier, expr, &schema).map_err(failure)?;
    let expr = simplifier.simplify(expr).and_then(|expr| with_guards(expr, &schema)).map_err(failure)?;
    state.create_physical_expr(expr, &schema).map_err(failure)
}

/// The schema with all of its columns nullable.
pub fn loose(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The batch with the names and types of the schema that its plan was bound to, all of it nullable. Columns go by position.
///
/// An optimized plan may give a wider type than the bound one said: a sum that is split in two widens its decimals twice.
///
/// # Errors
/// Kind `Data`, when a value doesn't fit the type that was promised.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (column, field) in batch.columns().iter().zip(schema.fields()) {
        columns.push(match column.data_type() == field.data_type() {
            true => Arc::clone(column),
            false => cast_with_options(column, field.data_type(), &strict).map_err(|e| {
                Error::new(ErrorKind::Data, "a value doesn't fit its column").with("column", field.name()).caused_by(e)
            })?,
        });
    }
    // Nulls where none may be are a rule's to tell, with its row.
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(loose(schema), columns, &options).external("a row doesn't fit its table")
}

/// The stream with each batch as [`conform`] makes it.
pub fn conforming(stream: SendableRecordBatchStream, schema: &SchemaRef) -> SendableRecordBatchStream {
    let wanted = Arc::clone(schema);
    let rows =
        stream.map(move |batch| conform(&batch?, &wanted).map_err(|error| DataFusionError::External(Box::new(error))));
    Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), rows))
}

/// Rows in memory as a table, any column of which may be null; none where there are no rows. Columns go by position.
///
/// # Errors
/// External, when a batch isn't of `schema`'s types.
pub fn memory_table(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Option<Arc<dyn TableProvider>>> {
    if batches.iter().all(|batch| batch.num_rows() == 0) {
        return Ok(None);
    }
    let schema = loose(schema);
    let batches = batches.iter().map(|batch| {
        RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec()).external("a row doesn't fit its table")
    });
    let table = MemTable::try_new(Arc::clone(&schema), vec![batches.collect::<Result<Vec<_>>>()?]);
    Ok(Some(Arc::new(table.map_err(failure)?)))
}

/// A runtime whose plans share `memory_bytes` and spill to disk beyond.
pub fn runtime(memory_bytes: usize) -> Result<Arc<RuntimeEnv>> {
    let pool = TrackConsumersPool::new(FairSpillPool::new(memory_bytes), limits::REPORTED_CONSUMERS);
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::OsTmpDirectory))
        .build_arc()
        .external("the engine's memory can't be set up")
}

/// The share of this machine's memory that plans may use.
pub fn default_memory_bytes() -> usize {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let total = system.cgroup_limits().map_or(system.total_memory(), |limits| limits.total_memory);
    usize::try_from(total / 100 * limits::MEMORY_PERCENT).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
