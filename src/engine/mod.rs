//! Runs canonical plans and compares relations. Knows no connector and no warehouse.

mod diff;

use std::sync::Arc;

use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlanProperties, execute_stream_partitioned};
use datafusion::prelude::SessionContext;

pub use diff::{Changes, diff};

use crate::error::{Error, Result, ResultExt};
use crate::limits;

/// The rows of a plan, one stream a partition; to be read at the same time, or the slowest holds the others.
///
/// # Errors
/// External, when the plan can't be made physical. Errors of rows come in the streams.
pub async fn execute(ctx: &SessionContext, plan: LogicalPlan) -> Result<Vec<SendableRecordBatchStream>> {
    let frame = ctx.execute_logical_plan(plan).await.map_err(error)?;
    let task = Arc::new(frame.task_ctx());
    let plan = frame.create_physical_plan().await.map_err(error)?;
    tracing::debug!(partitions = plan.output_partitioning().partition_count(), "executing a plan");
    execute_stream_partitioned(plan, task).map_err(error)
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

/// Words what went wrong while a plan ran: an error of ours as it is, everything else by its root.
pub fn error(error: DataFusionError) -> Error {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::external("the rows can't be computed").caused_by(other),
        },
        DataFusionError::ArrowError(inner, at) => match *inner {
            arrow::error::ArrowError::ExternalError(inner) => self::error(DataFusionError::External(inner)),
            other => Error::external("the rows can't be computed").caused_by(DataFusionError::ArrowError(Box::new(other), at)),
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => self::error(*inner),
        DataFusionError::Shared(inner) => Error::external("the rows can't be computed").caused_by(inner.to_string()),
        DataFusionError::ResourcesExhausted(text) => Error::external("there isn't memory enough")
            .with("used", text.lines().next().unwrap_or_default())
            .with("hint", "run on a larger machine, or with less at the same time"),
        other => Error::external("the rows can't be computed").caused_by(other.strip_backtrace()),
    }
}
