//! Plans run whole, in the memory they are given.

use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::prelude::SessionConfig;
use futures::TryStreamExt;

use super::*;
use crate::error::ErrorKind;

async fn plan(ctx: &SessionContext, sql: &str) -> LogicalPlan {
    ctx.state().create_logical_plan(sql).await.unwrap()
}

fn session(runtime: Arc<RuntimeEnv>) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(2).with_batch_size(1000);
    let state = SessionStateBuilder::new_with_default_features().with_config(config).with_runtime_env(runtime);
    SessionContext::new_with_state(state.build())
}

#[tokio::test]
async fn partitions_hold_every_row_once() {
    let ctx = session(runtime(64 << 20).unwrap());
    let sql = "select value % 1000 as k, count(*) as n from generate_series(1, 20000) group by 1";
    let partitions = execute(&ctx, plan(&ctx, sql).await).await.unwrap();
    assert!(partitions.len() > 1);
    let mut rows = 0;
    for partition in partitions {
        rows += partition.map_ok(|b| b.num_rows()).try_fold(0, async |a, b| Ok(a + b)).await.unwrap();
    }
    assert_eq!(rows, 1000);
}

#[tokio::test]
async fn a_limit_takes_the_first_rows_of_a_sort() {
    let ctx = session(runtime(64 << 20).unwrap());
    let sorted = plan(&ctx, "select value from generate_series(1, 20000) order by value desc").await;
    let (_, stream) = rows(&ctx, sorted, Some(3)).await.unwrap();
    let batches: Vec<_> = stream.try_collect().await.unwrap();
    let batch = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    let values: &arrow::array::Int64Array = arrow::array::AsArray::as_primitive(batch.column(0));
    assert_eq!(values.values(), &[20000, 19999, 19998]);
}

#[tokio::test]
async fn a_failing_row_fails_the_stream_and_says_why() {
    let ctx = session(runtime(64 << 20).unwrap());
    let failing = plan(&ctx, "select 1 / (value - 500) from generate_series(1, 1000)").await;
    let (_, stream) = rows(&ctx, failing, None).await.unwrap();
    let error = stream.try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("Divide by zero"), "{error}");
}

#[tokio::test]
async fn a_sort_larger_than_its_memory_spills() {
    const MEMORY_BYTES: usize = 24 << 20;
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let cannot = RuntimeEnvBuilder::new().with_memory_limit(MEMORY_BYTES, 1.0).with_disk_manager_builder(disk);
    let sorted = async |runtime: Arc<RuntimeEnv>| {
        let ctx = session(runtime);
        let sql = "select value, repeat('x', 40) || value as t from generate_series(1, 400000)
                   order by (value * 7919) % 400009";
        let (_, stream) = rows(&ctx, plan(&ctx, sql).await, None).await?;
        stream.map_ok(|b| b.num_rows()).try_fold(0, async |a, b| Ok(a + b)).await
    };
    assert_eq!(sorted(runtime(MEMORY_BYTES).unwrap()).await.unwrap(), 400_000);
    let error = sorted(cannot.build_arc().unwrap()).await.unwrap_err();
    assert!(error.to_string().starts_with("the query needs more memory"), "{error}");
}

#[test]
fn the_pool_refuses_beyond_its_size_and_names_who_holds_it() {
    let runtime = runtime(1 << 20).unwrap();
    let first = MemoryConsumer::new("hash table").register(&runtime.memory_pool);
    first.try_grow(900 << 10).unwrap();
    let second = MemoryConsumer::new("sort").register(&runtime.memory_pool);
    let refused = failure(second.try_grow(900 << 10).unwrap_err());
    assert!(refused.to_string().contains("hash table"), "{refused}");
}

#[test]
fn plans_get_a_share_of_the_machine() {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let (given, total) = (default_memory_bytes() as u64, system.total_memory());
    assert!(given > 0 && given < total, "{given} of {total}");
}
