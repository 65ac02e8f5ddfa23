//! How one version of a relation differs from another, key by key. Streams; knows nothing of files.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, JoinType};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Operator, binary_expr, lit};
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::diff::{aligned, scan};
use super::{failure, rows};
use crate::error::{Error, Result, ResultExt};

/// Changed keys: row `i` of both sides is of one key. Where a side has no row of it, all its columns are null.
#[derive(Debug, Clone)]
pub struct KeyedChange {
    /// As it was.
    pub before: RecordBatch,
    /// As it is.
    pub after: RecordBatch,
}

/// The rows of a version: of each table those that meet its condition, which names columns without a qualifier.
pub type Side = Vec<(Arc<dyn TableProvider>, Option<Expr>)>;

/// The keys whose rows differ between `old` and `new`, each once, in no particular order. `key` is unique and without nulls in
/// both; without `old` every row is new.
///
/// Columns are those of the first table of `new`, matched by name; one that `old` lacks counts as null there. Nulls equal nulls, and NaN equals NaN.
///
/// # Errors
/// Usage, if a key column isn't there; external, when a version can't be read or memory doesn't suffice.
pub async fn keyed_changes(
    ctx: &SessionContext,
    old: Option<Side>,
    new: Side,
    key: &[String],
) -> Result<BoxStream<'static, Result<KeyedChange>>> {
    let schema = match new.first() {
        Some((table, _)) => table.schema(),
        None => return Err(Error::internal("a version has no table")),
    };
    let typed: Vec<(String, DataType)> =
        schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect();
    let key = key.iter().map(|name| {
        let at = schema.index_of(name);
        at.map_err(|_| Error::usage(format!("key column {name} isn't a column of the relation")))
    });
    let key = key.collect::<Result<Vec<usize>>>()?;
    if key.is_empty() {
        return Err(Error::internal("changes by key need a key"));
    }
    let after = side("after", new, &typed, schema.fields().len())?;
    let plan = match old {
        None => after.build().map_err(failure)?,
        Some(old) => {
            let before = side("before", old, &typed, 0)?;
            let on = |offset: usize| key.iter().map(|at| column(offset + at)).collect::<Vec<_>>();
            let width = typed.len();
            let differs = (0..width)
                .map(|at| {
                    binary_expr(Expr::Column(column(at)), Operator::IsDistinctFrom, Expr::Column(column(width + at)))
                })
                .reduce(Expr::or)
                .unwrap_or_else(|| lit(false));
            let (before, after) = (before.build().map_err(failure)?, after.build().map_err(failure)?);
            LogicalPlanBuilder::from(before)
                .join(after, JoinType::Full, (on(0), on(width)), None)
                .and_then(|joined| joined.filter(differs))
                .and_then(LogicalPlanBuilder::build)
                .map_err(failure)?
        }
    };
    let nullable: SchemaRef = Arc::new(Schema::new(
        schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>(),
    ));
    let (_, stream) = rows(ctx, plan, None).await?;
    Ok(stream
        .filter_map(move |batch| {
            let split = batch.and_then(|batch| split(&batch, &nullable));
            std::future::ready(match split {
                Ok(change) if change.after.num_rows() == 0 => None,
                split => Some(split),
            })
        })
        .boxed())
}

fn column(at: usize) -> Column {
    Column::new_unqualified(format!("c{at}"))
}

/// The rows of a version, columns numbered from `first`.
fn side(name: &str, tables: Side, columns: &[(String, DataType)], first: usize) -> Result<LogicalPlanBuilder> {
    let mut whole: Option<LogicalPlanBuilder> = None;
    for (table, condition) in tables {
        let mut plan: LogicalPlan = scan(name, table)?;
        if let Some(condition) = condition {
            let filtered = LogicalPlanBuilder::from(plan).filter(condition);
            plan = filtered.and_then(LogicalPlanBuilder::build).map_err(failure)?;
        }
        let plan = aligned(plan, columns)?;
        whole = Some(match whole {
            None => LogicalPlanBuilder::from(plan),
            Some(before) => before.union(plan).map_err(failure)?,
        });
    }
    let whole = whole.ok_or_else(|| Error::internal("a version has no table"))?;
    let numbered = (0..columns.len()).map(|at| Expr::Column(column(at)).alias(format!("c{}", first + at)));
    whole.project(numbered.collect::<Vec<_>>()).map_err(failure)
}

/// The two sides of a joined batch; of one side alone, the rows are new.
fn split(batch: &RecordBatch, schema: &SchemaRef) -> Result<KeyedChange> {
    let width = schema.fields().len();
    let of = |columns: &[arrow::array::ArrayRef]| {
        RecordBatch::try_new(Arc::clone(schema), columns.to_vec()).external("a change can't be taken apart")
    };
    if batch.num_columns() == width {
        let absent: Vec<_> = schema
            .fields()
            .iter()
            .map(|field| arrow::array::new_null_array(field.data_type(), batch.num_rows()))
            .collect();
        return Ok(KeyedChange { before: of(&absent)?, after: of(batch.columns())? });
    }
    let (before, after) = batch.columns().split_at(width);
    Ok(KeyedChange { before: of(before)?, after: of(after)? })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch};
    use arrow::datatypes::{Float64Type, Int64Type};
    use datafusion::catalog::TableProvider;
    use datafusion::datasource::MemTable;
    use datafusion::prelude::{SessionContext, col, lit};
    use futures::TryStreamExt;

    use super::keyed_changes;

    fn table(rows: &[(i64, Option<f64>)]) -> Arc<dyn TableProvider> {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
        let values: ArrayRef = Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.1)));
        let batch = RecordBatch::try_from_iter_with_nullable([("id", ids, false), ("x", values, true)]).unwrap();
        Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap())
    }

    type Side = Option<(i64, Option<f64>)>;

    fn of(batch: &RecordBatch, row: usize) -> Side {
        let (id, x) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_primitive::<Float64Type>());
        use arrow::array::Array;
        id.is_valid(row).then(|| (id.value(row), x.is_valid(row).then(|| x.value(row))))
    }

    async fn changes(old: Option<Arc<dyn TableProvider>>, new: Arc<dyn TableProvider>, low: i64) -> Vec<(Side, Side)> {
        let condition = Some(col("id").gt(lit(low)));
        let old = old.map(|old| vec![(old, condition.clone())]);
        let new = vec![(new, condition)];
        let stream = keyed_changes(&SessionContext::new(), old, new, &["id".to_string()]).await.unwrap();
        let batches: Vec<_> = stream.try_collect().await.unwrap();
        let rows = batches.iter().flat_map(|b| (0..b.after.num_rows()).map(|at| (of(&b.before, at), of(&b.after, at))));
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by_key(|(before, after)| before.or(*after).map(|side| side.0));
        rows
    }

    #[tokio::test]
    async fn each_changed_key_comes_once_with_both_rows() {
        let old = table(&[(1, Some(1.0)), (2, Some(2.0)), (3, None), (4, Some(f64::NAN)), (5, Some(5.0)), (-9, None)]);
        let new = table(&[(1, Some(1.0)), (2, Some(2.5)), (3, Some(3.0)), (4, Some(f64::NAN)), (6, None)]);
        let found = changes(Some(old), Arc::clone(&new), 0).await;
        assert_eq!(
            found,
            [
                (Some((2, Some(2.0))), Some((2, Some(2.5)))),
                (Some((3, None)), Some((3, Some(3.0)))),
                (Some((5, Some(5.0))), None),
                (None, Some((6, None))),
            ]
        );
        let all = changes(None, new, 3).await;
        assert_eq!(
            all.iter().map(|(before, after)| (before.is_none(), after.map(|a| a.0))).collect::<Vec<_>>(),
            [(true, Some(4)), (true, Some(6))]
        );
    }
}
