//! Which columns of sources and models joins look rows up by. Knows no rows.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::plan::placeholder_name;

/// Columns by the relation that has them.
pub type Lookups = BTreeMap<String, BTreeSet<String>>;

/// Adds the columns that the joins of `plan` compare, where they are a relation's own.
pub(super) fn add(plan: &LogicalPlan, lookups: &mut Lookups) -> Result<()> {
    plan.apply(|node| {
        if let LogicalPlan::Join(join) = node {
            for (left, right) in &join.on {
                for (expr, side) in [(left, &join.left), (right, &join.right)] {
                    if let Some((relation, column)) = column_of(expr, side) {
                        lookups.entry(relation).or_default().insert(column);
                    }
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// The column of a relation that an expression over `plan`'s columns is, if it is one.
fn column_of(expr: &Expr, plan: &LogicalPlan) -> Option<(String, String)> {
    let Expr::Column(column) = expr else { return None };
    let at = plan.schema().maybe_index_of_column(column)?;
    match plan {
        LogicalPlan::TableScan(scan) => {
            Some((placeholder_name(scan)?, column.name.clone())).filter(|(relation, _)| !relation.starts_with('#'))
        }
        LogicalPlan::Projection(projection) => {
            column_of(&projection.expr.get(at)?.clone().unalias_nested().data, &projection.input)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            column_of(&Expr::Column(alias.input.schema().columns().get(at)?.clone()), &alias.input)
        }
        LogicalPlan::Filter(filter) => column_of(expr, &filter.input),
        LogicalPlan::Sort(sort) => column_of(expr, &sort.input),
        LogicalPlan::Join(join) => {
            let side = [&join.left, &join.right].into_iter().find(|side| side.schema().has_column(column))?;
            column_of(expr, side)
        }
        _ => None,
    }
}
