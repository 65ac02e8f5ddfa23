//! OFFSET without a LIMIT: the engine takes the order under it for one that nobody asks for, unless it ends somewhere. Knows no names.

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{LogicalPlan, lit};

/// More rows than there are anywhere.
const ALL_ROWS: i64 = i64::MAX / 2;

/// The plan with an end to each skip.
///
/// # Errors
/// A bug: the plan was bound before.
pub fn with_ends(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Limit(mut limit) if limit.fetch.is_none() => {
            limit.fetch = Some(Box::new(lit(ALL_ROWS)));
            Ok(Transformed::yes(LogicalPlan::Limit(limit)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}
