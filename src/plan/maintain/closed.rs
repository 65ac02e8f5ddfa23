//! Which states can do without the groups that event time has passed, since nothing but a late row asks for them again. Knows no
//! rows.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};

use super::Stage;
use super::growing::{beyond_rows, scans};
use crate::plan::closing::{Closing, To, closing_of, traced};

/// How the groups of each stage are closed; none where rows of its state are read again though none of their group came or
/// went, or where no column of the group goes on with time.
///
/// # Errors
/// A bug: the plan was bound before.
pub(super) fn closings(stages: &[Stage], root: &LogicalPlan) -> Result<Vec<Option<Closing>>> {
    let mut closings: Vec<Option<Closing>> = vec![None; stages.len()];
    // Whether a state is read again hangs on the stages after it.
    for (at, stage) in stages.iter().enumerate().rev() {
        if beyond_rows(root, &stage.name)?.is_some() {
            continue;
        }
        let Some(closing) = own_closing(stages, stage) else { continue };
        let mut is_done_with = true;
        for (later, later_closing) in stages.iter().zip(&closings).skip(at + 1) {
            is_done_with &= is_done(stage, &closing, later, later_closing.as_ref())?;
        }
        closings[at] = is_done_with.then_some(closing);
    }
    Ok(closings)
}

fn own_closing(stages: &[Stage], stage: &Stage) -> Option<Closing> {
    let grouped = |name: &str| {
        let below = stages.iter().find(|stage| stage.name == name)?;
        Some((&below.input, below.group.as_slice()))
    };
    closing_of(&stage.input, stage.schema.fields().iter().zip(stage.group.iter().cloned()), &grouped)
}

/// Whether `later` asks for no row of `stage` that is closed: it merges what changes, or its groups are closed with those below.
fn is_done(stage: &Stage, closing: &Closing, later: &Stage, later_closing: Option<&Closing>) -> Result<bool> {
    if scans(&later.input, &stage.name)? == 0 {
        return Ok(true);
    }
    if beyond_rows(&later.input, &stage.name)?.is_some() {
        return Ok(false);
    }
    let by_same_column = || {
        let at = later.schema.index_of(later_closing?.column()).ok()?;
        let (value, schema) = traced(&later.input, later.group.get(at)?.clone(), &|_| None, To::Scans)?;
        let Expr::Column(column) = the_same(&value, &schema)? else { return None };
        let is_of_stage = column.relation.as_ref().is_some_and(|relation| relation.table() == stage.name);
        Some(is_of_stage && column.name == closing.column())
    };
    Ok(!later.has_irreversible_parts() || by_same_column() == Some(true))
}

/// `expr` without what changes no value: names, and casts among zones.
fn the_same<'a>(expr: &'a Expr, schema: &datafusion::common::DFSchema) -> Option<&'a Expr> {
    let is_instant = |of: &DataType| matches!(of, DataType::Timestamp(TimeUnit::Microsecond, Some(_)));
    match expr {
        Expr::Alias(alias) => the_same(&alias.expr, schema),
        Expr::Cast(cast) => {
            let (from, to) = (cast.expr.get_type(schema).ok()?, cast.field.data_type());
            if from == *to || (is_instant(&from) && is_instant(to)) { the_same(&cast.expr, schema) } else { None }
        }
        other => Some(other),
    }
}
