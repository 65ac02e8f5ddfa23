//! Lets others have a turn where few rows become many: a join that is asked for rows would go on for as long as there are some, and nobody
//! could stop the query. Knows no SQL.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;

/// Operators that can give many more batches than they take. The engine's own rule lets leaves alone yield.
const MULTIPLYING: [&str; 6] = [
    "CrossJoinExec",
    "HashJoinExec",
    "NestedLoopJoinExec",
    "PiecewiseMergeJoinExec",
    "SortMergeJoinExec",
    "UnnestExec",
];

/// Counts the batches of [`MULTIPLYING`] operators by the task's budget, as the engine does those of leaves.
#[derive(Debug)]
pub struct Yielding;

impl PhysicalOptimizerRule for Yielding {
    fn name(&self) -> &str {
        "yielding"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let yielding = plan.transform_up(|node| match MULTIPLYING.contains(&node.name()) {
            true => Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as _)),
            false => Ok(Transformed::no(node)),
        })?;
        Ok(yielding.data)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use datafusion::execution::SessionStateBuilder;
    use datafusion::prelude::SessionContext;

    use super::*;

    #[tokio::test]
    async fn a_query_of_few_rows_that_become_many_can_be_stopped() {
        let state = SessionStateBuilder::new().with_default_features();
        let session = SessionContext::new_with_state(state.with_physical_optimizer_rule(Arc::new(Yielding)).build());
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
        session.register_batch("t", RecordBatch::try_from_iter([("n", numbers)]).unwrap()).unwrap();
        for sql in [
            "select count(*) from t a, t b, t c, t d where a.n + b.n + c.n + d.n > 3",
            "select sum(a.n + b.n + c.n + d.n) from t a, t b, t c, t d",
            "select count(*) from t a join t b on a.n % 2 = b.n % 2 join t c on a.n % 2 = c.n % 2 join t d on d.n % 2 = c.n % 2 and a.n + d.n > b.n",
        ] {
            let frame = session.sql(sql).await.unwrap();
            // On one thread the clock has a turn only where the query leaves it one.
            let ended = tokio::time::timeout(Duration::from_millis(300), frame.collect()).await;
            assert!(ended.is_err(), "nobody could stop {sql}");
        }
    }
}
