//! Aggregates over sessions that merge: each row as a session of its own, and where a session's start and end stand. Knows no
//! rows.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, SubqueryAlias, Window};

use super::{Stage, common_partition};
use crate::plan::window_plan::{CLOSES, OPENS, QUALIFIER, SESSION_TIME, WINDOW_END, WINDOW_START};

/// How the sessions of a state go on with rows that come. A session covers the time from its start to its end, a row alone that
/// until a gap after it, and what overlaps is one session.
#[derive(Debug, Clone)]
pub struct Sessions {
    /// The stage's input, with each row as a session of its own.
    pub alone: LogicalPlan,
    /// Place of the state's column with the first instant of a session.
    pub start: usize,
    /// Place of that with the first instant after it.
    pub end: usize,
}

/// How the stage's groups are sessions that merge; none where they aren't, or where values hang on their bounds.
///
/// # Errors
/// A bug: the plan was bound before.
pub(super) fn sessions(stage: &Stage) -> Result<Option<Sessions>> {
    if stage.has_unmergeable_parts() {
        return Ok(None);
    }
    let (mut start, mut end, mut keys) = (None, None, Vec::new());
    for (at, group) in stage.group.iter().enumerate() {
        match use_of(&stage.input, group.clone()) {
            Some(Use::Start) if start.is_none() => start = Some(at),
            Some(Use::End) if end.is_none() => end = Some(at),
            Some(Use::Neither(key)) => keys.push(key),
            _ => return Ok(None),
        }
    }
    // Otherwise a session is of several groups, as where values are told apart before they are counted.
    let partition = partition_of(&stage.input).unwrap_or_default();
    if !(keys.iter().all(|key| partition.contains(key)) && partition.iter().all(|key| keys.contains(key))) {
        return Ok(None);
    }
    let hangs_on_neither = |expr: Expr| matches!(use_of(&stage.input, expr), Some(Use::Neither(_)));
    if !stage.parts.iter().all(|part| hangs_on_neither(part.aggregate.clone())) {
        return Ok(None);
    }
    let (Some(start), Some(end)) = (start, end) else { return Ok(None) };
    Ok(alone(&stage.input)?.map(|alone| Sessions { alone, start, end }))
}

/// What an expression has of a session's bounds.
enum Use {
    /// It is the start.
    Start,
    /// It is the end.
    End,
    /// It hangs on neither: over the columns that sessions are made of.
    Neither(Expr),
}

/// What `expr` over `plan` has of the bounds of sessions; none where it is made of one, or where `plan` isn't of sessions alone.
fn use_of(plan: &LogicalPlan, expr: Expr) -> Option<Use> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let Some(window) = bounds(projection) else {
                let inner = replaced(expr, plan, &|at| projection.expr.get(at).cloned())?;
                return use_of(&projection.input, inner);
            };
            if let Expr::Column(Column { relation: Some(relation), name, .. }) = unaliased(&expr)
                && relation.table() == QUALIFIER
            {
                match name.as_str() {
                    WINDOW_START => return Some(Use::Start),
                    WINDOW_END => return Some(Use::End),
                    _ => {}
                }
            }
            let width = window.input.schema().fields().len();
            let inner = replaced(expr, plan, &|at| projection.expr.get(at).cloned())?;
            let places = inner.column_refs().into_iter().map(|column| window.schema.maybe_index_of_column(column));
            let is_free = places.collect::<Option<Vec<usize>>>()?.into_iter().all(|at| at < width);
            is_free.then(|| Use::Neither(unaliased(&inner).clone()))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let columns = alias.input.schema().columns();
            use_of(&alias.input, replaced(expr, plan, &|at| columns.get(at).cloned().map(Expr::Column))?)
        }
        _ => None,
    }
}

/// What sessions are told apart by, where `plan` is of sessions.
fn partition_of(plan: &LogicalPlan) -> Option<Vec<Expr>> {
    match plan {
        LogicalPlan::Projection(projection) => match bounds(projection) {
            Some(window) => Some(common_partition(&window.window_expr)),
            None => partition_of(&projection.input),
        },
        LogicalPlan::SubqueryAlias(alias) => partition_of(&alias.input),
        _ => None,
    }
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}

/// `expr` over the columns of `plan` with each one replaced by what stands at its place; none where nothing does.
fn replaced(expr: Expr, plan: &LogicalPlan, place: &dyn Fn(usize) -> Option<Expr>) -> Option<Expr> {
    let mut is_whole = true;
    let replaced = expr.transform(|expr| {
        let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
        match plan.schema().maybe_index_of_column(column).and_then(place) {
            Some(put) => Ok(Transformed::new(put.unalias_nested().data, true, TreeNodeRecursion::Jump)),
            None => {
                is_whole = false;
                Ok(Transformed::no(expr))
            }
        }
    });
    replaced.ok().map(|replaced| replaced.data).filter(|_| is_whole)
}

/// The windows of the bounds of sessions, where `projection` gives them.
fn bounds(projection: &Projection) -> Option<&Window> {
    match projection.input.as_ref() {
        LogicalPlan::Window(window) if all_over(window, &[("max", OPENS), ("min", CLOSES)]) => Some(window),
        _ => None,
    }
}

/// Whether all functions of the window are of these, each by its name and the column of sessions that it is over.
fn all_over(window: &Window, known: &[(&str, &str)]) -> bool {
    window.window_expr.iter().all(|expr| {
        let Expr::WindowFunction(function) = unaliased(expr) else { return false };
        let Some(Expr::Column(column)) = function.params.args.first() else { return false };
        let is_of_sessions = column.relation.as_ref().is_some_and(|relation| relation.table() == QUALIFIER);
        is_of_sessions && known.contains(&(function.fun.name(), column.name.as_str()))
    })
}

/// A plan whose sessions are over `plan`'s rows, with each row as a session of its own.
fn alone(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    Ok(match plan {
        LogicalPlan::Projection(projection) => {
            let input = match bounds(projection) {
                Some(window) => bounds_alone(window)?,
                None => alone(&projection.input)?,
            };
            let Some(input) = input else { return Ok(None) };
            Some(LogicalPlan::Projection(Projection::try_new(projection.expr.clone(), Arc::new(input))?))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(input) = alone(&alias.input)? else { return Ok(None) };
            Some(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?))
        }
        _ => None,
    })
}

fn bounds_alone(window: &Window) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::Projection(edges) = window.input.as_ref() else { return Ok(None) };
    let LogicalPlan::Window(near) = edges.input.as_ref() else { return Ok(None) };
    if !all_over(near, &[("lag", SESSION_TIME), ("lead", SESSION_TIME)]) {
        return Ok(None);
    }
    let near = without_others(near, near.input.as_ref().clone())?;
    let edges = LogicalPlan::Projection(Projection::try_new(edges.expr.clone(), Arc::new(near))?);
    without_others(window, edges).map(Some)
}

/// The window's columns for rows without any other: no neighbours, and an extremum is the row's own value.
fn without_others(window: &Window, input: LogicalPlan) -> Result<LogicalPlan> {
    let mut exprs: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    for (expr, field) in window.window_expr.iter().zip(window.schema.fields().iter().skip(exprs.len())) {
        let value = match unaliased(expr) {
            Expr::WindowFunction(function) if matches!(function.fun.name(), "max" | "min") => {
                function.params.args.first().cloned()
            }
            _ => None,
        };
        let value = match value {
            Some(value) => value,
            None => Expr::Literal(ScalarValue::try_from(field.data_type())?, None),
        };
        exprs.push(value.alias(field.name()));
    }
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
}
