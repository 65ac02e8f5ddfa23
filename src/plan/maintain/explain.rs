//! What can be maintained, and the words for how. Knows no rows.

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan};

use super::cut::reads_relations;
use super::decompose::{Merge, aggregate_of};
use super::{Maintenance, Stage};

/// Why a plan as it is written can't be maintained at all.
pub(super) fn unsupported(plan: &LogicalPlan) -> Result<Option<String>> {
    let mut reason = None;
    plan.apply_with_subqueries(|node| {
        let found = match node {
            LogicalPlan::RecursiveQuery(_) => Some("a recursive query"),
            LogicalPlan::Extension(_) => Some("an operator of its own"),
            LogicalPlan::TableScan(scan) if super::super::relation::placeholder(scan).is_none() => {
                Some("a table function")
            }
            _ => None,
        };
        reason = found.map(|what| format!("{what} is computed anew whenever an input changes"));
        Ok(if reason.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(reason)
}

/// Each operator with how it is maintained, top first; or why the model can only be computed anew.
pub(super) fn operators(maintenance: &Maintenance, lets_go: bool) -> Result<Result<Vec<String>, String>> {
    let mut words = Vec::new();
    let mut refused = None;
    let mut describe = |plan: &LogicalPlan, words: &mut Vec<String>| {
        plan.apply(|node| {
            if let Some((operator, whole)) = operator(node) {
                if whole && reads_relations(node)? {
                    refused.get_or_insert_with(|| why_not(node));
                }
                words.push(operator);
            }
            Ok(TreeNodeRecursion::Continue)
        })
    };
    describe(&maintenance.root, &mut words)?;
    for stage in maintenance.stages.iter().rev() {
        let kept = match (lets_go, &stage.closing) {
            (false, _) => "",
            (true, Some(_)) => "; groups beyond `retention` are let go",
            (true, None) => "; all groups are kept",
        };
        words.push(aggregate(stage) + kept);
        describe(&stage.input, &mut words)?;
    }
    for stage in &maintenance.stages {
        if stage.group.is_empty() && stage.has_unmergeable_parts() && reads_relations(&stage.input)? {
            refused.get_or_insert_with(|| {
                format!("{} over all rows is computed anew from all of them", names(stage, true))
            });
        }
    }
    Ok(match refused {
        Some(reason) => Err(reason),
        None => Ok(words),
    })
}

/// What an operator is called, and whether all of it is computed anew when an input changes.
fn operator(node: &LogicalPlan) -> Option<(String, bool)> {
    Some(match node {
        LogicalPlan::Join(join) => {
            let kind = match join.join_type {
                JoinType::Inner => "inner",
                JoinType::Left | JoinType::Right => "outer",
                JoinType::Full => "full",
                JoinType::LeftSemi | JoinType::RightSemi => "semi",
                JoinType::LeftAnti | JoinType::RightAnti => "anti",
                JoinType::LeftMark | JoinType::RightMark => "mark",
            };
            if join.null_aware {
                (format!("{kind} join: whole, for NOT IN over nulls"), true)
            } else if join.on.is_empty() {
                (format!("{kind} join without keys: whole"), !has_one_row_side(join))
            } else {
                (format!("{kind} join: changed rows look up the other side"), false)
            }
        }
        LogicalPlan::Window(window) => match common_partition(&window.window_expr).is_empty() {
            true => ("window over all rows: whole".into(), true),
            false => ("window: partitions that changed are computed anew".into(), false),
        },
        LogicalPlan::Limit(_) => ("limit: whole".into(), true),
        LogicalPlan::Sort(sort) if sort.fetch.is_some() => ("limit: whole".into(), true),
        LogicalPlan::Aggregate(_) => ("grouping sets: whole".into(), true),
        LogicalPlan::Filter(_) => ("filter".into(), false),
        LogicalPlan::Union(_) => ("union".into(), false),
        LogicalPlan::Unnest(_) => ("unnest".into(), false),
        LogicalPlan::TableScan(scan) if !scan.table_name.table().starts_with('#') => {
            (format!("scan {}", scan.table_name.table()), false)
        }
        LogicalPlan::Projection(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::TableScan(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Repartition(_) => return None,
        other => (format!("{}: whole", other.display().to_string().to_lowercase()), true),
    })
}

/// Whether a side of the join is one row of an aggregate: what hangs on it changes as a whole anyway.
fn has_one_row_side(join: &datafusion::logical_expr::Join) -> bool {
    let one = |plan: &LogicalPlan| plan.max_rows() == Some(1) || is_global_state(plan);
    one(&join.left) || one(&join.right)
}

fn is_global_state(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => is_global_state(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_global_state(&alias.input),
        LogicalPlan::Filter(filter) => is_global_state(&filter.input),
        LogicalPlan::TableScan(scan) => {
            scan.table_name.table().starts_with('#')
                && scan.source.schema().fields().first().is_some_and(|f| f.name() == super::COUNT)
        }
        _ => false,
    }
}

/// The partition columns that all window expressions share.
pub fn common_partition(window: &[Expr]) -> Vec<Expr> {
    let mut common: Option<Vec<Expr>> = None;
    for expr in window {
        let own = partition_of(expr);
        common = Some(match common {
            None => own,
            Some(known) => known.into_iter().filter(|expr| own.contains(expr)).collect(),
        });
    }
    common.unwrap_or_default()
}

fn partition_of(expr: &Expr) -> Vec<Expr> {
    match expr {
        Expr::Alias(alias) => partition_of(&alias.expr),
        Expr::WindowFunction(function) => function.params.partition_by.clone(),
        _ => Vec::new(),
    }
}

fn aggregate(stage: &Stage) -> String {
    let reruns = names(stage, true);
    let how = if !reruns.is_empty() {
        format!("groups that changed are computed anew, for {reruns}")
    } else if stage.has_irreversible_parts() {
        format!("added up; groups that lose a row are computed anew, for {}", names(stage, false))
    } else {
        "added up and subtracted".into()
    };
    let joined = if stage.sessions.is_some() { "; new rows join the sessions that they touch" } else { "" };
    format!("aggregate: {how}{joined}")
}

/// Functions of the parts that can't be merged, or those that can't be subtracted.
fn names(stage: &Stage, unmergeable: bool) -> String {
    let mut names: Vec<&str> = Vec::new();
    for part in &stage.parts {
        let counts = match part.merge {
            Merge::Rerun => true,
            Merge::Of(_) => !unmergeable,
            Merge::Add => false,
        };
        if let Some(function) = aggregate_of(&part.aggregate).filter(|_| counts)
            && !names.contains(&function.func.name())
        {
            names.push(function.func.name());
        }
    }
    names.join(", ")
}

/// Why `node` makes the model one to compute anew, and what would help.
fn why_not(node: &LogicalPlan) -> String {
    match node {
        LogicalPlan::Join(join) if join.null_aware => {
            "NOT IN looks at all rows for a null; NOT EXISTS would be maintained".into()
        }
        LogicalPlan::Join(_) => "a join without an equality looks at all pairs; a join by equal keys would be maintained".into(),
        LogicalPlan::Window(_) => "a window over all rows; with PARTITION BY it would be maintained".into(),
        LogicalPlan::Limit(_) | LogicalPlan::Sort(_) => {
            "a LIMIT over rows of a source; over an aggregate, or as row_number() with PARTITION BY, it would be maintained".into()
        }
        LogicalPlan::Aggregate(_) => "grouping sets; as a union of GROUP BYs they would be maintained".into(),
        other => format!("`{}` is computed anew", other.display()),
    }
}
