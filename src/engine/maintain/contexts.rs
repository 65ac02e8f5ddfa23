//! The sessions that changes are found in: most of what a small change costs is planning it. Knows no operators and no rows.

use std::sync::Arc;

use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
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

use super::prepared::{Prepared, Small};
use crate::engine::{execute, failure, streams};
use crate::error::Result;

/// What a model's changes are found in.
///
/// Their plans are put together of parts that were brought into the form of [`crate::plan::maintain`], so that unions alone want their
/// types found, and one pass of the rules that have something to do is enough.
pub struct Contexts {
    /// Uses all cores.
    wide: SessionContext,
    /// Uses one, which is sooner done with few rows.
    narrow: SessionContext,
    /// Plans of few rows that were made before.
    prepared: Arc<Prepared>,
}

impl Contexts {
    /// With functions, clock and memory of `session`, which is one of the sessions that `prepared` has plans of.
    pub fn of(session: &SessionContext, prepared: Arc<Prepared>) -> Self {
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
        let wide = with(config.clone());
        // Rows in memory aren't skipped, and what a plan learned of them is none of the next ones' business.
        config.options_mut().optimizer.enable_dynamic_filter_pushdown = false;
        Self { wide, narrow: with(config.with_target_partitions(1)), prepared }
    }

    /// The rows of `plan`, one stream a partition.
    ///
    /// # Errors
    /// External, when the plan can't be made physical. Errors of rows come in the streams.
    pub(super) async fn execute(&self, plan: LogicalPlan) -> Result<Vec<SendableRecordBatchStream>> {
        match Small::of(plan).map_err(failure)? {
            Ok(small) => streams(&self.narrow, self.prepared.physical(&self.narrow, small).await?),
            Err(plan) => execute(&self.wide, plan).await,
        }
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
