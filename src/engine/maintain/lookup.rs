//! The part of a relation that can have rows of some keys, told without reading it. Knows no files.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::{concat, filter};
use datafusion::catalog::TableProvider;
use datafusion::common::{Result as DataFusionResult, ScalarValue};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, TableScan};

use super::Rows;
use super::delta::batches_of;
use super::restrict::Restriction;
use crate::error::Result;
use crate::limits;
use crate::plan::bind_scan;

/// Knows of a relation's columns which values they can't have.
pub trait KeyLookup: fmt::Debug + Send + Sync {
    /// Where rows can stand that have one of `values` in `column`; a null stands for rows with null. None where nothing is
    /// known of that column, or of values of that type.
    ///
    /// # Errors
    /// External: the relation's part can't be opened.
    fn find(&self, column: &str, values: &ArrayRef) -> Result<Option<Found>>;
}

/// Where rows of some values can stand.
#[derive(Debug, Default)]
pub struct Found {
    /// Tables that have all rows with one of the values, and others; of each, which of the values may be there. A few may be named
    /// that aren't.
    pub parts: Vec<(Arc<dyn TableProvider>, BooleanArray)>,
}

impl Found {
    fn hits(&self) -> usize {
        self.parts.iter().map(|(_, may_be)| may_be.true_count()).sum()
    }
}

/// What `scan` is to read of a relation's plain rows for some keys: all rows of these, and others; none where nothing narrows it
/// down.
pub(super) fn narrowed(
    scan: &TableScan,
    rows: &Rows,
    keys: &Restriction,
) -> DataFusionResult<Option<Vec<LogicalPlan>>> {
    let Some(lookup) = &rows.lookup else { return Ok(None) };
    let mut best: Option<(Expr, ArrayRef, Found)> = None;
    for (at, expr) in keys.exprs.iter().enumerate() {
        let Expr::Column(column) = expr else { continue };
        let Some(values) = values_of(&keys.keys, at)? else { continue };
        let Some(found) = lookup.find(&column.name, &values).map_err(external)? else { continue };
        if best.as_ref().is_none_or(|(.., fewest)| found.hits() < fewest.hits()) {
            best = Some((expr.clone(), values, found));
        }
    }
    let Some((column, values, found)) = best else { return Ok(None) };
    tracing::trace!(relation = %scan.table_name, %column, keys = values.len(), hits = found.hits(), "looked keys up");
    let mut plans = Vec::with_capacity(found.parts.len());
    for (part, may_be) in &found.parts {
        let plan = bind_scan(scan, part)?;
        let values = filter(&values, may_be)?;
        if values.len() > limits::KEYS_NAMED || values.null_count() > 0 {
            plans.push(plan);
            continue;
        }
        let named = (0..values.len()).map(|at| Ok(Expr::Literal(ScalarValue::try_from_array(&values, at)?, None)));
        let is_named = column.clone().in_list(named.collect::<DataFusionResult<Vec<_>>>()?, false);
        plans.push(LogicalPlan::Filter(Filter::try_new(is_named, Arc::new(plan))?));
    }
    Ok(Some(plans))
}

/// The values of a column of rows in memory, through projections; none where `plan` is another.
fn values_of(plan: &LogicalPlan, at: usize) -> DataFusionResult<Option<ArrayRef>> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => values_of(&alias.input, at),
        LogicalPlan::Projection(projection) => {
            let Some(expr) = projection.expr.get(at) else { return Ok(None) };
            let Expr::Column(column) = expr.clone().unalias_nested().data else { return Ok(None) };
            let place = projection.input.schema().maybe_index_of_column(&column);
            place.map_or(Ok(None), |at| values_of(&projection.input, at))
        }
        LogicalPlan::TableScan(scan) if scan.projection.is_none() => {
            let Some(batches) = batches_of(scan) else { return Ok(None) };
            let columns: Vec<_> = batches.iter().map(|batch| batch.column(at).as_ref()).collect();
            if columns.is_empty() {
                return Ok(None);
            }
            Ok(Some(concat(&columns)?))
        }
        _ => Ok(None),
    }
}

fn external(error: crate::error::Error) -> datafusion::common::DataFusionError {
    datafusion::common::DataFusionError::External(Box::new(error))
}
