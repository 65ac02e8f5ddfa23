//! Sums of floats hang on the order in which they are added: windows add the rows of a partition in the same order each time, so
//! that equal rows give equal bits. What is maintained takes its old rows out by their values. Knows no SQL.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr, replace_children_if_necessary};

/// Lengthens the sort under a window by what its functions of floats are of: peers, and the rows of a partition without an order,
/// otherwise come in any.
#[derive(Debug)]
pub struct SteadyWindows;

impl PhysicalOptimizerRule for SteadyWindows {
    fn name(&self) -> &'static str {
        "steady_windows"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let steady = plan.transform_up(|node| {
            let Some(windows) = windows_of(&node) else { return Ok(Transformed::no(node)) };
            let mut values = Vec::new();
            for window in windows {
                if window.field()?.data_type().is_floating() {
                    let of_rows = |value: &Arc<dyn PhysicalExpr>| !collect_columns(value).is_empty();
                    values.extend(window.expressions().into_iter().filter(of_rows));
                }
            }
            let child = node.children().first().map(|child| Arc::clone(child));
            match child.filter(|_| !values.is_empty()).map(|child| sorted_by(&child, values)).transpose()?.flatten() {
                Some(sorted) => replace_children_if_necessary(node, vec![sorted]).map(Transformed::yes),
                None => Ok(Transformed::no(node)),
            }
        })?;
        Ok(steady.data)
    }
}

fn windows_of(node: &Arc<dyn ExecutionPlan>) -> Option<&[Arc<dyn WindowExpr>]> {
    if let Some(window) = node.downcast_ref::<WindowAggExec>() {
        return Some(window.window_expr());
    }
    node.downcast_ref::<BoundedWindowAggExec>().map(BoundedWindowAggExec::window_expr)
}

/// The plan with `values` behind what it sorts by; none where it doesn't sort, or takes the first rows of an order, in which ties are
/// broken already.
fn sorted_by(
    plan: &Arc<dyn ExecutionPlan>,
    values: Vec<Arc<dyn PhysicalExpr>>,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if plan.fetch().is_some() {
        return Ok(None);
    }
    if let Some(sort) = plan.downcast_ref::<SortExec>() {
        let Some(order) = longer(sort.expr(), values) else { return Ok(None) };
        let sorted = SortExec::new(order, Arc::clone(sort.input()));
        return Ok(Some(Arc::new(sorted.with_preserve_partitioning(sort.preserve_partitioning()))));
    }
    let children = plan.children();
    let [child] = children.as_slice() else { return Ok(None) };
    if let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() {
        let Some(order) = longer(merge.expr(), values.clone()) else { return Ok(None) };
        let sorted = sorted_by(child, values)?;
        return Ok(sorted.map(|sorted| Arc::new(SortPreservingMergeExec::new(order, sorted)) as _));
    }
    let below = if windows_of(plan).is_some() {
        // What is of another window's values is as steady as that one, once its rows are.
        let width = child.schema().fields().len();
        let own: Vec<_> =
            values.iter().filter(|value| collect_columns(value).iter().all(|c| c.index() < width)).cloned().collect();
        if own.len() < values.len() { all_columns(child) } else { own }
    } else if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let replaced = |value: Arc<dyn PhysicalExpr>| -> Result<Arc<dyn PhysicalExpr>> {
            let of_input = value.transform_up(|expr| match expr.downcast_ref::<Column>() {
                Some(column) => Ok(Transformed::yes(Arc::clone(&projection.expr()[column.index()].expr))),
                None => Ok(Transformed::no(expr)),
            })?;
            Ok(of_input.data)
        };
        values.into_iter().map(replaced).collect::<Result<_>>()?
    } else {
        return Ok(None);
    };
    let sorted = sorted_by(child, below)?;
    sorted.map(|sorted| replace_children_if_necessary(Arc::clone(plan), vec![sorted])).transpose()
}

/// All columns that can be sorted by.
fn all_columns(plan: &Arc<dyn ExecutionPlan>) -> Vec<Arc<dyn PhysicalExpr>> {
    let schema = plan.schema();
    let columns = schema.fields().iter().enumerate().filter(|(_, field)| !field.data_type().is_nested());
    columns.map(|(at, field)| Arc::new(Column::new(field.name(), at)) as _).collect()
}

fn longer(order: &LexOrdering, values: Vec<Arc<dyn PhysicalExpr>>) -> Option<LexOrdering> {
    LexOrdering::new(order.iter().cloned().chain(values.into_iter().map(PhysicalSortExpr::new_default)))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
    use datafusion::execution::SessionStateBuilder;
    use datafusion::physical_plan::displayable;
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;

    async fn planned(sql: &str) -> (String, usize) {
        // On one core nothing stands between a sort and its window.
        let config = SessionConfig::new().with_target_partitions(1);
        let state = SessionStateBuilder::new().with_default_features().with_config(config);
        let session =
            SessionContext::new_with_state(state.with_physical_optimizer_rule(Arc::new(SteadyWindows)).build());
        let g: ArrayRef = Arc::new(Int64Array::from_iter_values((0..10).map(|n| n % 2)));
        let f: ArrayRef = Arc::new(Float64Array::from_iter_values((0..10).map(f64::from)));
        session.register_batch("t", RecordBatch::try_from_iter([("g", g), ("f", f)]).unwrap()).unwrap();
        let frame = session.sql(sql).await.unwrap();
        let plan = frame.clone().create_physical_plan().await.unwrap();
        let plan = displayable(plan.as_ref()).indent(false).to_string();
        (plan, frame.count().await.unwrap())
    }

    #[tokio::test]
    async fn peers_are_added_in_one_order() {
        let (plan, rows) = planned("SELECT sum(f) OVER (PARTITION BY g) AS s FROM t").await;
        assert!(plan.contains("SortExec: expr=[g@0 ASC NULLS LAST, f@1 ASC]"), "{plan}");
        assert_eq!(rows, 10);
        let (plan, _) = planned("SELECT sum(g) OVER (PARTITION BY g) AS s FROM t").await;
        assert!(plan.contains("SortExec: expr=[g@0 ASC NULLS LAST]"), "{plan}");
    }

    #[tokio::test]
    async fn the_first_rows_of_an_order_stay_the_first() {
        let first = "(SELECT * FROM t ORDER BY g ASC NULLS LAST LIMIT 3) x";
        let (plan, rows) = planned(&format!("SELECT sum(f) OVER (PARTITION BY g) AS s FROM {first}")).await;
        assert!(plan.contains("TopK(fetch=3)"), "{plan}");
        assert_eq!(rows, 3);
    }
}
