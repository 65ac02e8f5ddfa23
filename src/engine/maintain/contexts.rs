//! The sessions that changes are found in: most of what a small change costs is planning it. Knows no operators and no rows.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::OptimizerRule;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion::optimizer::eliminate_filter::EliminateFilter;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::optimize_unions::OptimizeUnions;
use datafusion::optimizer::propagate_empty_relation::PropagateEmptyRelation;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::push_down_limit::PushDownLimit;
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::prelude::SessionContext;

use super::delta::batches_of;
use crate::limits;

/// What a model's changes are found in.
///
/// Their plans are put together of parts that were brought into the form of [`crate::plan::maintain`], so that unions alone want their
/// types found, and one pass of the rules that have something to do is enough.
pub struct Contexts {
    /// Uses all cores.
    wide: SessionContext,
    /// Uses one, which is sooner done with few rows.
    narrow: SessionContext,
}

impl Contexts {
    /// With functions, clock and memory of `session`.
    pub fn of(session: &SessionContext) -> Self {
        let mut config = session.copied_config();
        config.options_mut().optimizer.max_passes = 1;
        let with = |config| {
            let state = SessionStateBuilder::new_from_existing(session.state())
                .with_config(config)
                .with_analyzer_rules(vec![Arc::new(TypeCoercion::new())])
                .with_optimizer_rules(rules())
                .build();
            SessionContext::new_with_state(state)
        };
        Self { wide: with(config.clone()), narrow: with(config.with_target_partitions(1)) }
    }

    /// The one for `plan`.
    pub(super) fn of_plan(&self, plan: &LogicalPlan) -> &SessionContext {
        if is_small(plan) { &self.narrow } else { &self.wide }
    }

    /// The one for anything but running plans.
    pub(super) fn any(&self) -> &SessionContext {
        &self.wide
    }
}

/// In the engine's order.
fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    vec![
        Arc::new(OptimizeUnions::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(ReplaceDistinctWithAggregate::new()),
        Arc::new(ExtractEquijoinPredicate::new()),
        Arc::new(EliminateFilter::new()),
        Arc::new(PropagateEmptyRelation::new()),
        Arc::new(PushDownLimit::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(CommonSubexprEliminate::new()),
        Arc::new(OptimizeProjections::new()),
    ]
}

/// Whether the plan reads few rows, all of them in memory.
fn is_small(plan: &LogicalPlan) -> bool {
    let mut rows = Some(0);
    let walked = plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let more = batches_of(scan).map(|batches| batches.iter().map(RecordBatch::num_rows).sum::<usize>());
            rows = rows.zip(more).map(|(rows, more)| rows + more).filter(|rows| *rows <= limits::NARROW_ROWS);
        }
        Ok(if rows.is_some() { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    walked.is_ok() && rows.is_some()
}
