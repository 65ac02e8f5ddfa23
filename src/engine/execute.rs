//! Runs a bound plan on all cores and hands its rows on as streams. Knows nothing of where rows come from or go to.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream, execute_stream_partitioned};
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::error::Result;

use super::failure;

/// Rows of a result, in batches. Dropping it stops the work behind it.
pub type RowStream = BoxStream<'static, Result<RecordBatch>>;

/// A plan at work: one stream a partition, each of which works only while it is polled.
pub struct Execution {
    /// Columns of every batch.
    pub schema: SchemaRef,
    /// Partitions. Poll them from different tasks to use several cores. One alone keeps the plan's order.
    pub partitions: Vec<RowStream>,
}

/// Starts `plan` with the session's partition count and memory pool.
///
/// # Errors
/// Usage if the plan can't be planned further; what [`failure`] says for each batch that fails.
pub async fn execute(ctx: &SessionContext, plan: &LogicalPlan) -> Result<Execution> {
    let physical = physical(ctx, plan).await?;
    let schema = physical.schema();
    let streams = execute_stream_partitioned(physical, ctx.task_ctx()).map_err(failure)?;
    Ok(Execution { schema, partitions: streams.into_iter().map(ours).collect() })
}

/// Like [`execute`], as one stream: all partitions work at once, and a plan that sorts keeps its order.
///
/// # Errors
/// As [`execute`].
pub async fn execute_merged(ctx: &SessionContext, plan: &LogicalPlan) -> Result<(SchemaRef, RowStream)> {
    let physical = physical(ctx, plan).await?;
    let schema = physical.schema();
    Ok((schema, ours(execute_stream(physical, ctx.task_ctx()).map_err(failure)?)))
}

async fn physical(ctx: &SessionContext, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
    ctx.state().create_physical_plan(plan).await.map_err(failure)
}

fn ours(stream: SendableRecordBatchStream) -> RowStream {
    stream.map(|batch| batch.map_err(failure)).boxed()
}

#[cfg(test)]
mod tests {
    use datafusion::execution::SessionStateBuilder;
    use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
    use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
    use datafusion::prelude::SessionConfig;
    use futures::TryStreamExt;

    use super::super::runtime;
    use super::*;
    use crate::error::ErrorKind;

    async fn plan(ctx: &SessionContext, sql: &str) -> LogicalPlan {
        ctx.state().create_logical_plan(sql).await.unwrap()
    }

    fn session(memory_bytes: u64) -> SessionContext {
        session_in(runtime(memory_bytes).unwrap())
    }

    fn session_in(runtime: Arc<RuntimeEnv>) -> SessionContext {
        let config = SessionConfig::new().with_target_partitions(2).with_batch_size(1000);
        let state =
            SessionStateBuilder::new_with_default_features().with_config(config).with_runtime_env(runtime).build();
        SessionContext::new_with_state(state)
    }

    #[tokio::test]
    async fn partitions_hold_every_row_once() {
        let ctx = session(64 << 20);
        let grouped =
            plan(&ctx, "select value % 1000 as k, count(*) as n from generate_series(1, 20000) group by 1").await;
        let execution = execute(&ctx, &grouped).await.unwrap();
        assert!(execution.partitions.len() > 1);
        let mut rows = 0;
        for partition in execution.partitions {
            rows += partition.map_ok(|b| b.num_rows()).try_fold(0, async |a, b| Ok(a + b)).await.unwrap();
        }
        assert_eq!(rows, 1000);
    }

    #[tokio::test]
    async fn a_failing_row_fails_the_stream_and_says_why() {
        let ctx = session(64 << 20);
        let failing = plan(&ctx, "select 1 / (value - 500) from generate_series(1, 1000)").await;
        let (_, stream) = execute_merged(&ctx, &failing).await.unwrap();
        let error = stream.try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::External);
        assert!(error.to_string().contains("Divide by zero"), "{error}");
    }

    #[tokio::test]
    async fn a_sort_larger_than_its_memory_spills() {
        const MEMORY_BYTES: u64 = 24 << 20;
        let spills = runtime(MEMORY_BYTES).unwrap();
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let cannot =
            RuntimeEnvBuilder::new().with_memory_limit(MEMORY_BYTES as usize, 1.0).with_disk_manager_builder(disk);
        let sorted = async |runtime: Arc<RuntimeEnv>| {
            let ctx = session_in(runtime);
            let sql = "select value, repeat('x', 40) || value as t from generate_series(1, 400000)
                       order by (value * 7919) % 400009";
            let (_, stream) = execute_merged(&ctx, &plan(&ctx, sql).await).await?;
            stream.map_ok(|b| b.num_rows()).try_fold(0, async |a, b| Ok(a + b)).await
        };
        assert_eq!(sorted(spills).await.unwrap(), 400_000);
        let error = sorted(cannot.build_arc().unwrap()).await.unwrap_err();
        assert!(error.to_string().starts_with("the query needs more memory"), "{error}");
    }
}
