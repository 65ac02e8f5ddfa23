//! How two versions of a relation differ, counted.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::catalog::TableProvider;
use datafusion::common::JoinType;
use datafusion::functions_aggregate::expr_fn::{count, sum};
use datafusion::logical_expr::{Operator, binary_expr, lit, when};
use datafusion::prelude::{DataFrame, Expr, SessionContext, col, ident};

use crate::engine::failure;
use crate::error::{Error, Result};

/// Rows that came, changed and went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Rows, or keys, that are new.
    pub inserted: u64,
    /// Keys whose other columns changed; none without a key.
    pub updated: u64,
    /// Rows, or keys, that are gone.
    pub deleted: u64,
}

impl Changes {
    /// Whether the versions hold the same rows.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Counts how `new` differs from `old`, both with `columns`: by `key` where there is one, else as bags. Null equals null.
///
/// # Errors
/// External, when a version can't be read or memory and disk don't suffice.
pub async fn diff(
    ctx: &SessionContext,
    old: Arc<dyn TableProvider>,
    new: Arc<dyn TableProvider>,
    columns: &[String],
    key: &[String],
) -> Result<Changes> {
    let old = read(ctx, old, columns, "old")?;
    let new = read(ctx, new, columns, "new")?;
    if key.is_empty() { bags(old, new, columns).await } else { keyed(old, new, columns, key).await }
}

/// The columns, each named `<side>_<name>`.
fn read(ctx: &SessionContext, table: Arc<dyn TableProvider>, columns: &[String], side: &str) -> Result<DataFrame> {
    let renamed = columns.iter().map(|name| ident(name).alias(format!("{side}_{name}")));
    ctx.read_table(table).and_then(|frame| frame.select(renamed.collect::<Vec<_>>())).map_err(failure)
}

fn side(side: &str, name: &str) -> Expr {
    ident(format!("{side}_{name}"))
}

async fn keyed(old: DataFrame, new: DataFrame, columns: &[String], key: &[String]) -> Result<Changes> {
    let marked = |frame: DataFrame, name: &str| frame.with_column(name, lit(true));
    let on: Vec<Expr> = key.iter().map(|name| side("old", name).eq(side("new", name))).collect();
    let differs = columns
        .iter()
        .filter(|name| !key.contains(name))
        .map(|name| binary_expr(side("old", name), Operator::IsDistinctFrom, side("new", name)))
        .reduce(Expr::or)
        .unwrap_or(lit(false));
    let (is_old, is_new) = (col("is_old").is_not_null(), col("is_new").is_not_null());
    let one = |condition: Expr| when(condition, lit(1_i64)).otherwise(lit(0_i64));
    let joined = marked(old, "is_old")
        .and_then(|old| old.join_on(marked(new, "is_new")?, JoinType::Full, on))
        .map_err(failure)?;
    let counts = [one(!is_old.clone()), one(is_old.clone().and(is_new.clone()).and(differs)), one(!is_new)];
    let counts = counts.into_iter().map(|c| c.map(sum)).collect::<Result<Vec<_>, _>>().map_err(failure)?;
    let [inserted, updated, deleted] = totals(joined, counts).await?;
    Ok(Changes { inserted, updated, deleted })
}

async fn bags(old: DataFrame, new: DataFrame, columns: &[String]) -> Result<Changes> {
    let weighted = |frame: DataFrame, name: &str, weight: i64| {
        let mut all: Vec<Expr> = columns.iter().map(|column| side(name, column).alias(column)).collect();
        all.push(lit(weight).alias("_weight"));
        frame.select(all)
    };
    let both = weighted(new, "new", 1).and_then(|new| new.union(weighted(old, "old", -1)?)).map_err(failure)?;
    let groups = columns.iter().map(ident).collect();
    let net = both.aggregate(groups, vec![sum(ident("_weight")).alias("_net")]).map_err(failure)?;
    let part = |condition: Expr, value: Expr| when(condition, value).otherwise(lit(0_i64)).map(sum);
    let counts = vec![
        part(ident("_net").gt(lit(0_i64)), ident("_net")).map_err(failure)?,
        part(ident("_net").lt(lit(0_i64)), lit(0_i64) - ident("_net")).map_err(failure)?,
        count(lit(1)),
    ];
    let [inserted, deleted, _] = totals(net, counts).await?;
    Ok(Changes { inserted, updated: 0, deleted })
}

/// One row of sums; none of no rows is 0.
async fn totals(frame: DataFrame, sums: Vec<Expr>) -> Result<[u64; 3]> {
    let batches = frame.aggregate(vec![], sums).map_err(failure)?.collect().await.map_err(failure)?;
    let batch = batches.iter().find(|b| b.num_rows() > 0).ok_or_else(|| Error::internal("a count gave no row"))?;
    let mut totals = [0; 3];
    for (total, column) in totals.iter_mut().zip(batch.columns()) {
        let values = column.as_primitive_opt::<Int64Type>().ok_or_else(|| Error::internal("a count isn't a number"))?;
        *total = u64::try_from(values.iter().next().flatten().unwrap_or(0)).unwrap_or(0);
    }
    Ok(totals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::datasource::MemTable;

    fn table(rows: &[(Option<i64>, Option<f64>)]) -> Arc<dyn TableProvider> {
        let schema = Arc::new(Schema::new(vec![
            Field::new("K", DataType::Int64, true),
            Field::new("v", DataType::Float64, true),
        ]));
        let keys = Int64Array::from_iter(rows.iter().map(|r| r.0));
        let values = Float64Array::from_iter(rows.iter().map(|r| r.1));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(keys), Arc::new(values)]).unwrap();
        Arc::new(MemTable::try_new(schema, vec![vec![batch]]).unwrap())
    }

    async fn compare(
        old: &[(Option<i64>, Option<f64>)],
        new: &[(Option<i64>, Option<f64>)],
        key: &[&str],
    ) -> (u64, u64, u64) {
        let columns = ["K".to_string(), "v".to_string()];
        let key: Vec<String> = key.iter().map(|k| (*k).to_string()).collect();
        let changes = diff(&SessionContext::new(), table(old), table(new), &columns, &key).await.unwrap();
        (changes.inserted, changes.updated, changes.deleted)
    }

    #[tokio::test]
    async fn by_key_rows_come_change_and_go() {
        let old = [(Some(1), Some(1.0)), (Some(2), None), (Some(3), Some(f64::NAN)), (Some(4), Some(4.0))];
        let new = [(Some(1), Some(1.0)), (Some(2), Some(2.0)), (Some(3), Some(f64::NAN)), (Some(5), None)];
        assert_eq!(compare(&old, &new, &["K"]).await, (1, 1, 1));
        assert_eq!(compare(&old, &old, &["K"]).await, (0, 0, 0));
        assert_eq!(compare(&[], &new, &["K"]).await, (4, 0, 0));
        assert_eq!(compare(&[], &[], &["K"]).await, (0, 0, 0));
    }

    #[tokio::test]
    async fn without_a_key_equal_rows_count_each() {
        let old = [(Some(1), None), (Some(1), None), (None, Some(2.0))];
        let new = [(Some(1), None), (None, Some(2.0)), (None, Some(2.0)), (Some(3), Some(3.0))];
        assert_eq!(compare(&old, &new, &[]).await, (2, 0, 1));
        assert_eq!(compare(&old, &old, &[]).await, (0, 0, 0));
        assert_eq!(compare(&[], &[], &[]).await, (0, 0, 0));
    }
}
