//! How one version of a relation differs from another, counted. Streams and spills; knows nothing of files.

use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch};
use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, Schema};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionStateBuilder;
use datafusion::functions_aggregate::expr_fn::sum;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, expr::TryCast, lit, when};
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt, stream};

use crate::error::{Error, Result};

use super::{RowStream, execute, failure, rows};

/// Rows that came, changed and went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Rows that are only in the new version: by key if there is one, else by multiplicity.
    pub inserted: u64,
    /// Keys in both whose other columns differ. Zero without a key.
    pub updated: u64,
    /// Rows that are only in the old version.
    pub deleted: u64,
}

impl Changes {
    /// Whether the versions hold the same rows.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

const WEIGHT: &str = "weight";

/// Counts what changes `old` into `new` in `columns`, a part of `new`'s. `key`, a part of `columns`, is unique in each; without
/// it both are bags.
///
/// Columns are matched by name; one that `old` lacks counts as null there, one of another type is read as `new`'s, and as null
/// where that can't be. Nulls equal nulls, NaN equals NaN, and −0 equals 0. Memory is that of the session's pool: what
/// doesn't fit is spilled. Versions that hold the same rows in the same order, or that only grew at the end, are compared by
/// one pass over both without any state.
///
/// # Errors
/// External, when a version can't be read or memory and disk don't suffice; usage if `new` lacks a column or `columns` a key.
pub async fn diff(
    ctx: &SessionContext,
    old: Arc<dyn TableProvider>,
    new: Arc<dyn TableProvider>,
    columns: &[String],
    key: &[String],
) -> Result<Changes> {
    if let Some(missing) = key.iter().find(|k| !columns.contains(k)) {
        return Err(Error::usage(format!("key column {missing} isn't a column of the relation")));
    }
    // Key columns first, so that their positions are known after columns are numbered.
    let (keys, others): (Vec<_>, Vec<_>) = columns.iter().partition(|c| key.contains(c));
    let schema = new.schema();
    let typed = keys.into_iter().chain(others).map(|name| match schema.field_with_name(name) {
        Ok(field) => Ok((name.clone(), field.data_type().clone())),
        Err(_) => Err(Error::usage(format!("{name} isn't a column of the relation"))),
    });
    let typed = typed.collect::<Result<Vec<_>>>()?;
    let old = aligned(scan("old", old)?, &typed)?;
    let new = aligned(scan("new", new)?, &typed)?;

    match compare_in_order(ctx, &old, &new).await? {
        InOrder::Equal => Ok(Changes::default()),
        InOrder::Grew(rows) => Ok(Changes { inserted: rows, ..Changes::default() }),
        InOrder::Shrank(rows) => Ok(Changes { deleted: rows, ..Changes::default() }),
        InOrder::Differs => count_changes(ctx, old, new, key.len(), typed.len()).await,
    }
}

pub(super) fn scan(name: &str, table: Arc<dyn TableProvider>) -> Result<LogicalPlan> {
    LogicalPlanBuilder::scan(name, provider_as_source(table), None).and_then(LogicalPlanBuilder::build).map_err(failure)
}

/// `plan` with just `columns`, named by their positions.
pub(super) fn aligned(plan: LogicalPlan, columns: &[(String, DataType)]) -> Result<LogicalPlan> {
    let mut exprs = Vec::with_capacity(columns.len());
    for (at, (name, data_type)) in columns.iter().enumerate() {
        let found = plan.schema().iter().find(|(_, field)| field.name() == name);
        let null = || ScalarValue::try_from(data_type).map(|null| Expr::Literal(null, None)).map_err(failure);
        let expr = match found {
            None => null()?,
            Some((qualifier, field)) => {
                let column = Expr::Column(Column::from((qualifier, field)));
                if field.data_type() == data_type {
                    column
                } else if can_cast_types(field.data_type(), data_type) {
                    Expr::TryCast(TryCast::new(Box::new(column), data_type.clone()))
                } else {
                    null()?
                }
            }
        };
        exprs.push(expr.alias(numbered(at)));
    }
    LogicalPlanBuilder::from(plan).project(exprs).and_then(LogicalPlanBuilder::build).map_err(failure)
}

fn numbered(at: usize) -> String {
    format!("c{at}")
}

fn column(name: impl Into<String>) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// What one pass over both relations in their own orders can tell.
enum InOrder {
    Equal,
    /// `new` is `old` and so many rows more.
    Grew(u64),
    /// `old` is `new` and so many rows more.
    Shrank(u64),
    /// Not the same rows in the same order: nothing is known yet.
    Differs,
}

async fn compare_in_order(ctx: &SessionContext, old: &LogicalPlan, new: &LogicalPlan) -> Result<InOrder> {
    let ctx = in_one_partition(ctx);
    let mut old = Rows::of(&ctx, old).await?;
    let mut new = Rows::of(&ctx, new).await?;
    loop {
        let (old_rows, new_rows) = (old.waiting().await?, new.waiting().await?);
        match (old_rows, new_rows) {
            (0, 0) => return Ok(InOrder::Equal),
            (0, _) => return new.count_rest().await.map(InOrder::Grew),
            (_, 0) => return old.count_rest().await.map(InOrder::Shrank),
            _ => {}
        }
        let rows = old_rows.min(new_rows);
        if old.take(rows).columns() != new.take(rows).columns() {
            return Ok(InOrder::Differs);
        }
    }
}

/// The same session with one partition, so that a scan's rows come in one order.
fn in_one_partition(ctx: &SessionContext) -> SessionContext {
    let state = ctx.state();
    let config = state.config().clone().with_target_partitions(1);
    SessionContext::new_with_state(SessionStateBuilder::new_from_existing(state).with_config(config).build())
}

/// A stream of rows that is taken in pieces of any size.
struct Rows {
    stream: RowStream,
    batch: Option<RecordBatch>,
}

impl Rows {
    async fn of(ctx: &SessionContext, plan: &LogicalPlan) -> Result<Self> {
        let partitions = execute(ctx, plan.clone()).await?;
        let batches = stream::iter(partitions).flatten().map(|batch| batch.map_err(failure));
        Ok(Self { stream: batches.boxed(), batch: None })
    }

    /// Rows at hand; zero only at the end.
    async fn waiting(&mut self) -> Result<usize> {
        loop {
            match &self.batch {
                Some(batch) if batch.num_rows() > 0 => return Ok(batch.num_rows()),
                _ => match self.stream.try_next().await? {
                    Some(batch) => self.batch = Some(batch),
                    None => return Ok(0),
                },
            }
        }
    }

    /// The next `rows` rows, which must be at hand.
    fn take(&mut self, rows: usize) -> RecordBatch {
        let batch = self.batch.take().unwrap_or_else(|| RecordBatch::new_empty(Schema::empty().into()));
        self.batch = Some(batch.slice(rows, batch.num_rows() - rows));
        batch.slice(0, rows)
    }

    async fn count_rest(mut self) -> Result<u64> {
        let mut rows = 0;
        loop {
            match self.waiting().await? {
                0 => return Ok(rows),
                some => {
                    rows += some as u64;
                    self.batch = None;
                }
            }
        }
    }
}

/// Nets equal rows out by grouping, which spills, unlike a hash join's build side.
async fn count_changes(
    ctx: &SessionContext,
    old: LogicalPlan,
    new: LogicalPlan,
    key_columns: usize,
    columns: usize,
) -> Result<Changes> {
    let netted = LogicalPlanBuilder::from(weighted(old, columns, -1)?)
        .union(weighted(new, columns, 1)?)
        .and_then(|union| {
            union.aggregate((0..columns).map(|c| column(numbered(c))), [sum(column(WEIGHT)).alias(WEIGHT)])
        })
        .and_then(|net| net.filter(column(WEIGHT).not_eq(lit(0i64))));
    let positive = |weight: Expr| when(weight.clone().gt(lit(0i64)), weight).otherwise(lit(0i64));
    let counted = netted
        .and_then(|net| {
            let sides = [
                sum(positive(column(WEIGHT))?).alias("gained"),
                sum(positive(lit(0i64) - column(WEIGHT))?).alias("lost"),
            ];
            if key_columns == 0 {
                net.aggregate(Vec::<Expr>::new(), sides)?.project([
                    column("gained"),
                    column("lost"),
                    lit(0i64).alias("both"),
                ])
            } else {
                let both = when(column("gained").lt(column("lost")), column("gained")).otherwise(column("lost"))?;
                net.aggregate((0..key_columns).map(|c| column(numbered(c))), sides)?.aggregate(
                    Vec::<Expr>::new(),
                    [sum(column("gained")).alias("gained"), sum(column("lost")).alias("lost"), sum(both).alias("both")],
                )
            }
        })
        .and_then(LogicalPlanBuilder::build)
        .map_err(failure)?;
    let (_, mut counts) = rows(ctx, counted, None).await?;
    let batch = counts.try_next().await?.ok_or_else(|| Error::internal("counting changes gave no row"))?;
    let at = |c: usize| -> Result<u64> {
        let counts = batch.column(c).as_any().downcast_ref::<Int64Array>();
        let counts = counts.ok_or_else(|| Error::internal("counting changes gave no integers"))?;
        if counts.is_null(0) {
            Ok(0)
        } else {
            u64::try_from(counts.value(0)).map_err(|_| Error::internal("a negative count"))
        }
    };
    let (gained, lost, updated) = (at(0)?, at(1)?, at(2)?);
    Ok(Changes { inserted: gained - updated, updated, deleted: lost - updated })
}

fn weighted(plan: LogicalPlan, columns: usize, weight: i64) -> Result<LogicalPlan> {
    let exprs = (0..columns).map(|c| column(numbered(c))).chain([lit(weight).alias(WEIGHT)]);
    LogicalPlanBuilder::from(plan).project(exprs).and_then(LogicalPlanBuilder::build).map_err(failure)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{ArrayRef, Float64Array, StringArray};
    use datafusion::datasource::{MemTable, ViewTable};
    use datafusion::prelude::SessionConfig;
    use proptest::prelude::*;

    use super::super::runtime;
    use super::*;

    fn session() -> SessionContext {
        SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3).with_batch_size(2))
    }

    fn table(batches: Vec<RecordBatch>, partitions: usize) -> Arc<dyn TableProvider> {
        let schema = batches[0].schema();
        let mut parts = vec![Vec::new(); partitions];
        for (at, batch) in batches.into_iter().enumerate() {
            parts[at % partitions].push(batch);
        }
        Arc::new(MemTable::try_new(schema, parts).unwrap())
    }

    /// Rows of (K, v): the key is upper case on purpose, names must not be folded.
    type Row = (Option<i64>, Option<f64>);

    fn relation(rows: &[Row], partitions: usize) -> Arc<dyn TableProvider> {
        let batch = |rows: &[Row]| {
            let keys: ArrayRef = Arc::new(rows.iter().map(|r| r.0).collect::<Int64Array>());
            let values: ArrayRef = Arc::new(rows.iter().map(|r| r.1).collect::<Float64Array>());
            RecordBatch::try_from_iter_with_nullable([("K", keys, true), ("v", values, true)]).unwrap()
        };
        let batches = rows.chunks(3).map(batch).collect::<Vec<_>>();
        table(if batches.is_empty() { vec![batch(&[])] } else { batches }, partitions)
    }

    async fn changes(old: &[Row], new: &[Row], key: &[&str]) -> Changes {
        diff(&session(), relation(old, 2), relation(new, 1), &names(&["K", "v"]), &names(key)).await.unwrap()
    }

    fn names(of: &[&str]) -> Vec<String> {
        of.iter().map(|name| name.to_string()).collect()
    }

    fn counts(inserted: u64, updated: u64, deleted: u64) -> Changes {
        Changes { inserted, updated, deleted }
    }

    #[tokio::test]
    async fn with_a_key_changed_rows_are_updates() {
        let old = [(Some(1), Some(1.0)), (Some(2), None), (Some(3), Some(f64::NAN)), (Some(4), Some(0.5))];
        let new = [(Some(5), None), (Some(3), Some(f64::NAN)), (Some(2), Some(2.0)), (Some(1), Some(1.0))];
        assert_eq!(changes(&old, &new, &["K"]).await, counts(1, 1, 1));
        assert_eq!(changes(&old, &new, &[]).await, counts(2, 0, 2));
    }

    #[tokio::test]
    async fn null_is_a_value_like_any_other() {
        let old = [(None, None), (Some(1), None)];
        assert_eq!(changes(&old, &[(Some(1), None), (None, None)], &["K"]).await, counts(0, 0, 0));
        assert_eq!(changes(&old, &[(Some(1), Some(0.0)), (None, None)], &["K"]).await, counts(0, 1, 0));
        assert_eq!(changes(&old, &[(Some(1), Some(0.0)), (None, None)], &[]).await, counts(1, 0, 1));
    }

    #[tokio::test]
    async fn equal_grown_shrunk_and_empty_relations_need_one_pass() {
        let five: Vec<Row> = (0..5).map(|k| (Some(k), Some(f64::NAN))).collect();
        for key in [&["K"][..], &[]] {
            let one = |old: &[Row], new: &[Row]| {
                let (old, new) = (aligned_rows(old), aligned_rows(new));
                async move { compare_in_order(&session(), &old, &new).await.unwrap() }
            };
            assert!(matches!(one(&five, &five).await, InOrder::Equal));
            assert!(matches!(one(&five[..2], &five).await, InOrder::Grew(3)));
            assert!(matches!(one(&five, &five[..4]).await, InOrder::Shrank(1)));
            assert!(matches!(one(&five, &five[1..]).await, InOrder::Differs));
            assert_eq!(changes(&[], &five, key).await, counts(5, 0, 0));
            assert_eq!(changes(&five, &[], key).await, counts(0, 0, 5));
            assert_eq!(changes(&[], &[], key).await, counts(0, 0, 0));
        }
    }

    fn aligned_rows(of: &[Row]) -> LogicalPlan {
        aligned(
            scan("old", relation(of, 1)).unwrap(),
            &[("K".into(), DataType::Int64), ("v".into(), DataType::Float64)],
        )
        .unwrap()
    }

    #[tokio::test]
    async fn columns_are_matched_by_name_and_read_as_the_new_type() {
        let one = |columns: Vec<(&str, ArrayRef)>| table(vec![RecordBatch::try_from_iter(columns).unwrap()], 1);
        let text = |values: [&'static str; 2]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
        let numbers = |values: [i64; 2]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        let (ctx, key) = (session(), names(&["k"]));
        let old = || one(vec![("v", text(["10", "x"])), ("gone", numbers([7, 8])), ("k", numbers([1, 2]))]);
        let new = one(vec![("k", numbers([2, 1])), ("v", numbers([20, 10]))]);
        assert_eq!(diff(&ctx, old(), new, &names(&["k", "v"]), &key).await.unwrap(), counts(0, 1, 0));
        let widened = || one(vec![("k", numbers([1, 2])), ("v", text(["10", "x"])), ("more", numbers([0, 0]))]);
        assert_eq!(diff(&ctx, old(), widened(), &names(&["v", "more", "k"]), &key).await.unwrap(), counts(0, 2, 0));
        assert_eq!(diff(&ctx, old(), widened(), &names(&["v", "k"]), &key).await.unwrap(), counts(0, 0, 0));
        let error = diff(&ctx, old(), widened(), &names(&["v"]), &key).await.unwrap_err();
        assert!(error.to_string().contains("key column k"), "{error}");
        let error = diff(&ctx, old(), widened(), &names(&["gone"]), &[]).await.unwrap_err();
        assert!(error.to_string().contains("gone isn't a column"), "{error}");
    }

    #[tokio::test]
    async fn more_rows_than_memory_holds_are_counted() {
        let state = SessionStateBuilder::new_with_default_features()
            .with_config(SessionConfig::new().with_target_partitions(2))
            .with_runtime_env(runtime(40 << 20).unwrap())
            .build();
        let ctx = SessionContext::new_with_state(state);
        let made = async |sql: &str| {
            let view = ViewTable::new(ctx.state().create_logical_plan(sql).await.unwrap(), None);
            Arc::new(view) as Arc<dyn TableProvider>
        };
        let old = made("select value as k, repeat('x', 60) || value as v from generate_series(1, 300000)").await;
        let new = made(
            "select value as k, repeat(case when value % 3 = 0 then 'y' else 'x' end, 60) || value as v
             from generate_series(1, 300010) order by k desc",
        )
        .await;
        let found = diff(&ctx, old, new, &names(&["k", "v"]), &names(&["k"])).await.unwrap();
        assert_eq!(found, counts(10, 100_000, 0));
    }

    fn naive_by_key(old: &BTreeMap<Option<i64>, Option<i64>>, new: &BTreeMap<Option<i64>, Option<i64>>) -> Changes {
        let inserted = new.keys().filter(|k| !old.contains_key(k)).count() as u64;
        let deleted = old.keys().filter(|k| !new.contains_key(k)).count() as u64;
        let updated = new.iter().filter(|(k, v)| old.get(k).is_some_and(|o| o != *v)).count() as u64;
        counts(inserted, updated, deleted)
    }

    fn naive_bag(old: &[(Option<i64>, Option<i64>)], new: &[(Option<i64>, Option<i64>)]) -> Changes {
        let mut net: BTreeMap<_, i64> = BTreeMap::new();
        new.iter().for_each(|r| *net.entry(*r).or_default() += 1);
        old.iter().for_each(|r| *net.entry(*r).or_default() -= 1);
        let inserted: i64 = net.values().filter(|w| **w > 0).sum();
        let deleted: i64 = -net.values().filter(|w| **w < 0).sum::<i64>();
        counts(inserted as u64, 0, deleted as u64)
    }

    fn floats(of: impl IntoIterator<Item = (Option<i64>, Option<i64>)>) -> Vec<Row> {
        // One of the values stands for NaN.
        of.into_iter().map(|(k, v)| (k, v.map(|v| if v == 0 { f64::NAN } else { v as f64 }))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn counts_are_those_of_the_plain_definition(
            old in prop::collection::vec((prop::option::of(0i64..6), prop::option::of(0i64..3)), 0..12),
            new in prop::collection::vec((prop::option::of(0i64..6), prop::option::of(0i64..3)), 0..12),
        ) {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let found = runtime.block_on(changes(&floats(old.clone()), &floats(new.clone()), &[]));
            prop_assert_eq!(found, naive_bag(&old, &new));
            let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) = (old.into_iter().collect(), new.into_iter().collect());
            let found = runtime.block_on(changes(&floats(old.clone()), &floats(new.clone()), &["K"]));
            prop_assert_eq!(found, naive_by_key(&old, &new));
        }
    }
}
