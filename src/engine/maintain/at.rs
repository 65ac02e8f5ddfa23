//! An operator's whole result before or after the change, maybe only for some keys. Knows no changes.

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{EmptyRelation, LogicalPlan, LogicalPlanBuilder, TableScan};

use super::delta::{WEIGHT, all_of, columns, consolidated, named_as, weighing};
use super::lookup::narrowed;
use super::restrict::{Restriction, matching, matching_of, restricted};
use super::{Engine, Relation, Rows, Version};
use crate::plan::{bind_scan, bind_weighted_scan, placeholder_name};

impl Engine<'_> {
    /// `plan` over the relations as they are in `version`. With a restriction: the rows whose values of its expressions are
    /// among its keys; where that is a hint, others may be there too.
    pub(super) fn at(&self, plan: &LogicalPlan, version: Version, keys: Option<&Restriction>) -> Result<LogicalPlan> {
        let plan = match keys {
            Some(restriction) => restricted(plan, restriction)?,
            None => plan.clone(),
        };
        let bound = plan.transform_down(|node| {
            if let Some((scan, keys)) = matching_of(&node)
                && let Some(relation) = self.relation_of(&scan)
            {
                let plan = rows_of(&scan, rows_in(relation, version), Some(&keys))?;
                return Ok(Transformed::new(plan, true, TreeNodeRecursion::Jump));
            }
            if let LogicalPlan::TableScan(scan) = &node
                && let Some(relation) = self.relation_of(scan)
            {
                let plan = rows_of(scan, rows_in(relation, version), None)?;
                return Ok(Transformed::new(plan, true, TreeNodeRecursion::Jump));
            }
            Ok(Transformed::no(node))
        })?;
        // What relations say of nulls may differ from their placeholders.
        bound.data.transform_up(|node| node.recompute_schema().map(Transformed::yes)).map(|plan| plan.data)
    }

    /// The relation that a placeholder stands for.
    pub(super) fn relation_of(&self, scan: &TableScan) -> Option<&Relation> {
        placeholder_name(scan).and_then(|name| self.relations.get(&name))
    }
}

fn rows_in(relation: &Relation, version: Version) -> &Rows {
    match version {
        Version::Old => &relation.old,
        Version::New => &relation.new,
    }
}

/// The rows of a relation as the scan's columns. Keys are looked for in each part, below the netting of parts; where they are a hint,
/// other rows may come too.
pub(super) fn rows_of(scan: &TableScan, rows: &Rows, keys: Option<&Restriction>) -> Result<LogicalPlan> {
    let kept = |plan: LogicalPlan| match keys.filter(|keys| !keys.is_hint) {
        Some(restriction) => matching(plan, restriction),
        None => Ok(plan),
    };
    let narrowed = keys.map(|keys| narrowed(scan, rows, keys)).transpose()?.flatten();
    let plain = match narrowed {
        Some(parts) => parts,
        None => rows.plain.iter().map(|table| bind_scan(scan, table)).collect::<Result<Vec<_>>>()?,
    };
    let plain = plain.into_iter().map(kept).collect::<Result<Vec<_>>>()?;
    if rows.changes.is_empty() {
        return Ok(all_of(plain)?.unwrap_or_else(|| empty(scan)));
    }
    let mut parts = plain.into_iter().map(|plan| weighing(plan, 1)).collect::<Result<Vec<_>>>()?;
    for table in &rows.changes {
        parts.push(kept(bind_weighted_scan(scan, table, WEIGHT)?)?);
    }
    let Some(all) = all_of(parts)? else { return Ok(empty(scan)) };
    // Only states have changes, and a state has one row a group: what is left has weight 1.
    let net = consolidated(all)?;
    let mut exprs = columns(net.schema());
    exprs.pop();
    let plan = LogicalPlanBuilder::from(net).project(exprs)?.build()?;
    named_as(plan, &scan.projected_schema, false)
}

/// The changes of a relation netted, with their weights in a last column.
pub(super) fn changes_of(scan: &TableScan, rows: &Rows) -> Result<LogicalPlan> {
    let changes =
        rows.changes.iter().map(|table| bind_weighted_scan(scan, table, WEIGHT)).collect::<Result<Vec<_>>>()?;
    all_of(changes)?.map_or_else(|| Ok(empty(scan)), consolidated)
}

/// No rows, with the scan's columns.
fn empty(scan: &TableScan) -> LogicalPlan {
    LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema: scan.projected_schema.clone() })
}
