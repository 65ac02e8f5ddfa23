//! Which models go on from new rows of a source alone, never reading those again that they have read. Knows no rows.

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;

use super::{Maintenance, Stage};
use crate::plan::placeholder_name;

/// Why a model reads rows of `source` again that it has read, in words; none where it never does. Rows of a relation that
/// `grows` never go.
///
/// # Errors
/// A bug: the plan was bound before.
pub fn reads_again(
    maintenance: &Maintenance,
    source: &str,
    grows: &dyn Fn(&str) -> bool,
) -> Result<Option<&'static str>> {
    for stage in &maintenance.stages {
        if let Some(reason) = beyond_rows(&stage.input, source)? {
            return Ok(Some(reason));
        }
        if scans(&stage.input, source)? > 0
            && let Some(reason) = merges_not(stage, grows)?
        {
            return Ok(Some(reason));
        }
    }
    beyond_rows(&maintenance.root, source)
}

fn merges_not(stage: &Stage, grows: &dyn Fn(&str) -> bool) -> Result<Option<&'static str>> {
    if stage.has_unmergeable_parts() {
        return Ok(Some("an aggregate that is computed from all rows of its group"));
    }
    let mut all_grow = true;
    stage.input.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            all_grow &= placeholder_name(scan).is_some_and(|name| grows(&name));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let loses = stage.has_irreversible_parts() && !all_grow;
    Ok(loses.then_some("a min or max over rows of another relation too, which may go"))
}

/// The operator over rows of `source` that looks beyond each of them for itself, if there is one.
pub(super) fn beyond_rows(plan: &LogicalPlan, source: &str) -> Result<Option<&'static str>> {
    let all = scans(plan, source)?;
    if all == 0 {
        return Ok(None);
    }
    let words = match plan {
        LogicalPlan::TableScan(_) => return Ok(None),
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::Union(_) => {
            let mut below = 0;
            for input in plan.inputs() {
                below += scans(input, source)?;
                if let Some(words) = beyond_rows(input, source)? {
                    return Ok(Some(words));
                }
            }
            if below == all {
                return Ok(None);
            }
            "a subquery"
        }
        LogicalPlan::Join(_) => "a join",
        LogicalPlan::Window(_) => "a window",
        LogicalPlan::Limit(_) | LogicalPlan::Sort(_) => "a LIMIT",
        LogicalPlan::Aggregate(_) => "grouping sets",
        _ => "an operator over all of them",
    };
    Ok(Some(words))
}

/// How often a plan reads `source`.
pub(super) fn scans(plan: &LogicalPlan, source: &str) -> Result<usize> {
    let mut count = 0;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && placeholder_name(scan).as_deref() == Some(source)
        {
            count += 1;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(count)
}
