//! A table's next files from its present ones and a change: files that lose rows are written anew, the others stay. Knows no
//! Delta log and no commit.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef, UInt64Type};
use datafusion::catalog::TableProvider;
use datafusion::common::stats::Precision;
use datafusion::common::{
    Column, JoinConstraint, JoinType, NullEquality, Result as DataFusionResult, ScalarValue, Statistics,
};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::functions_aggregate::expr_fn::sum;
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::Accumulator;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder, col, lit};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use super::crowding::crowded;
use super::hot::{Heat, Hot};
use super::{DataFile, TableFiles, Warehouse, parquet_table, stats, write_files};
use crate::engine::{self, failure};
use crate::error::Result;
use crate::{failpoint, limits};

/// Rows that come to a table and rows that go from it, under the table's schema.
pub struct TableChange<'a> {
    /// Rows that came.
    pub added: &'a [RecordBatch],
    /// Rows that went, each one in the table.
    pub removed: &'a [RecordBatch],
}

/// Where and how a table is kept.
pub struct TableTarget<'a> {
    /// Session that plans run in.
    pub session: &'a SessionContext,
    /// The warehouse.
    pub warehouse: &'a Warehouse,
    /// The table's folder.
    pub table: &'a str,
    /// The rows' schema.
    pub schema: &'a SchemaRef,
    /// Key columns; empty: rows go by all their columns.
    pub key: &'a [String],
    /// IANA name of the zone that instants are read in.
    pub zone: &'a str,
    /// Start of the names of new files.
    pub prefix: &'a str,
    /// Bytes of small files up to which they are written anew together; more of them are left to the caller.
    pub together_bytes: u64,
}

/// A table's files with a change made.
pub struct ChangedTable {
    /// All of them.
    pub files: TableFiles,
    /// Small ones among them that had better be put together.
    pub crowded: Vec<DataFile>,
}

/// The files of `old` with `change` made. New files are written and synced by nobody yet; kept ones are those of `old`.
///
/// Few small files stay: they are written anew together with others of their partition. Rows that are likely to change again soon
/// are kept apart from the others.
///
/// # Errors
/// As [`write_files`]; files written until then are deleted, as far as possible.
pub async fn change_table(
    target: &TableTarget<'_>,
    old: &TableFiles,
    change: &TableChange<'_>,
) -> Result<ChangedTable> {
    let keys = distinct_keys(target, change.removed)?;
    let hot = Hot::of(target, change)?;
    // Of no use where nothing goes and nothing is told apart.
    let asked = if keys.is_some() || hot.is_some() { &old.files[..] } else { &[] };
    let told = asked.iter().map(|file| stats::from_json(file.stats.as_deref(), file.rows, target.schema));
    let told: Vec<Statistics> = told.collect();
    let mut rewritten = match &keys {
        Some(keys) => holding(target, (old, &told), keys, change.removed).await?,
        None => vec![false; old.files.len()],
    };
    let heat: Vec<Heat> = match &hot {
        Some(hot) => told.iter().map(|told| hot.heat(told)).collect(),
        None => vec![Heat::All; old.files.len()],
    };
    let mut crowded = Vec::new();
    for places in crowded_partitions(&old.files, &heat) {
        if places.iter().map(|at| old.files[*at].size).sum::<u64>() <= target.together_bytes {
            places.into_iter().for_each(|at| rewritten[at] = true);
        } else if crowded.is_empty() && places.iter().all(|at| !rewritten[*at]) {
            crowded = places.into_iter().map(|at| old.files[at].clone()).collect();
        }
    }
    let part = |wanted: &dyn Fn(bool, Heat) -> bool| {
        let files = old.files.iter().zip(rewritten.iter().zip(&heat)).filter(|(_, (is, heat))| wanted(**is, **heat));
        files.map(|(file, _)| file.clone()).collect::<Vec<_>>()
    };
    let remaining = |files: Vec<DataFile>| {
        let files = TableFiles { files, ..old.clone() };
        let rows = parquet_table(target.warehouse, target.table, files, target.zone)?;
        without(rows, target, change.removed, keys.as_ref()).map_err(failure)
    };
    let execute = async |plan: LogicalPlan| engine::execute_as(target.session, plan, target.schema).await;
    let write = async |streams: Vec<SendableRecordBatchStream>| {
        let (folder, schema) = (target.table, target.schema);
        write_files(target.warehouse, folder, schema, &old.partition_by, target.prefix, streams).await
    };
    let (mut together, mut apart) = (Vec::new(), Vec::new());
    let (all, some) = (part(&|is, heat| is && heat == Heat::All), part(&|is, heat| is && heat != Heat::All));
    if !all.is_empty() {
        together.extend(execute(remaining(all)?).await?);
    }
    if let Some(hot) = hot.filter(|_| !some.is_empty()) {
        let [with, without] = hot.split(remaining(some)?).map_err(failure)?;
        together.extend(execute(with).await?);
        apart.extend(execute(without).await?);
    }
    if let Some(added) = engine::memory_table(target.schema, change.added)? {
        together.extend(execute(scan("added", added).map_err(failure)?).await?);
    }
    let mut files = part(&|is, _| !is);
    let apart = write(apart).await?;
    match write(together).await {
        Ok(written) => files.extend(apart.into_iter().chain(written)),
        Err(error) => {
            let paths = apart.iter().map(|file| target.warehouse.path(&format!("{}/{}", target.table, file.path)));
            // What can't be deleted now is by the next cleaning.
            let _ = target.warehouse.delete(paths.collect()).await;
            return Err(error);
        }
    }
    failpoint::hit("mid_table");
    let files = TableFiles { schema: Arc::clone(target.schema), partition_by: old.partition_by.clone(), files };
    Ok(ChangedTable { files, crowded })
}

/// Small files of each partition that has too many of them, by position; those without hot rows for themselves.
fn crowded_partitions(files: &[DataFile], heat: &[Heat]) -> Vec<Vec<usize>> {
    let mut partitions: BTreeMap<(&[Option<String>], bool), Vec<usize>> = BTreeMap::new();
    for (at, (file, heat)) in files.iter().zip(heat).enumerate() {
        partitions.entry((&file.partition_values, *heat == Heat::None)).or_default().push(at);
    }
    let crowded = |places: Vec<usize>| {
        let together = crowded(places.iter().map(|at| files[*at].size));
        together.into_iter().map(|at| places[at]).collect::<Vec<_>>()
    };
    partitions.into_values().map(crowded).filter(|places| !places.is_empty()).collect()
}

fn scan(name: &str, table: Arc<dyn TableProvider>) -> DataFusionResult<LogicalPlan> {
    LogicalPlanBuilder::scan(name, provider_as_source(table), None)?.build()
}

/// The columns that rows go by.
fn going_by(target: &TableTarget<'_>) -> Vec<String> {
    match target.key {
        [] => target.schema.fields().iter().map(|field| field.name().clone()).collect(),
        key => key.to_vec(),
    }
}

/// The keys of rows as a table; none where there are no rows.
fn distinct_keys(target: &TableTarget<'_>, removed: &[RecordBatch]) -> Result<Option<LogicalPlan>> {
    let Some(rows) = engine::memory_table(target.schema, removed)? else { return Ok(None) };
    let columns = going_by(target).into_iter().map(|name| Expr::Column(Column::new(Some("removed"), name)));
    let keys = scan("removed", rows)
        .and_then(|rows| LogicalPlanBuilder::from(rows).project(columns)?.build())
        .map_err(failure)?;
    Ok(Some(keys))
}

fn on_key(
    target: &TableTarget<'_>,
    rows: LogicalPlan,
    keys: LogicalPlan,
    join_type: JoinType,
) -> DataFusionResult<LogicalPlan> {
    let column = |table: &str, name: String| Expr::Column(Column::new(Some(table), name));
    let on = going_by(target).into_iter().map(|name| (column("rows", name.clone()), column("removed", name))).collect();
    Ok(LogicalPlan::Join(Join::try_new(
        Arc::new(rows),
        Arc::new(keys),
        on,
        None,
        join_type,
        JoinConstraint::On,
        NullEquality::NullEqualsNull,
        false,
    )?))
}

/// Whether rows can be looked up by the columns that they go by: lists and structs can't.
fn is_joinable(target: &TableTarget<'_>) -> bool {
    let columns = going_by(target);
    let fields = target.schema.fields().iter().filter(|field| columns.contains(field.name()));
    fields.into_iter().all(|field| !field.data_type().is_nested())
}

/// Which files have, or must be taken to have, a row with one of the keys of `removed`.
async fn holding(
    target: &TableTarget<'_>,
    (old, told): (&TableFiles, &[Statistics]),
    keys: &LogicalPlan,
    removed: &[RecordBatch],
) -> Result<Vec<bool>> {
    if old.files.len() == 1 || !is_joinable(target) {
        return Ok(vec![true; old.files.len()]);
    }
    let bounds = bounds(target, removed)?;
    let may_hold: Vec<bool> = told.iter().map(|told| may_hold(told, &bounds)).collect();
    let candidates = old.files.iter().zip(&may_hold).filter(|(_, may_hold)| **may_hold).map(|(file, _)| file.size);
    if candidates.sum::<u64>() <= limits::UNPROBED_BYTES {
        return Ok(may_hold);
    }
    let mut parts = Vec::new();
    for (at, (file, _)) in old.files.iter().zip(may_hold).enumerate().filter(|(_, (_, may_hold))| *may_hold) {
        let one = TableFiles { files: vec![file.clone()], ..old.clone() };
        let rows = scan("rows", parquet_table(target.warehouse, target.table, one, target.zone)?);
        let found = rows
            .and_then(|rows| on_key(target, rows, keys.clone(), JoinType::LeftSemi))
            .and_then(|found| LogicalPlanBuilder::from(found).limit(0, Some(1))?.project([lit(at as u64)])?.build());
        parts.push(found.map_err(failure)?);
    }
    let mut holding = vec![false; old.files.len()];
    let Some(first) = parts.pop() else { return Ok(holding) };
    let all = parts.into_iter().try_fold(LogicalPlanBuilder::from(first), LogicalPlanBuilder::union);
    let (_, mut found) =
        engine::rows(target.session, all.and_then(LogicalPlanBuilder::build).map_err(failure)?, None).await?;
    while let Some(batch) = found.try_next().await? {
        for at in batch.column(0).as_primitive::<UInt64Type>().values() {
            holding[*at as usize] = true;
        }
    }
    Ok(holding)
}

/// Whether files tell the exact least and greatest value of columns of a type: bounds of texts may be cut.
pub(super) fn is_bounded(data_type: &DataType) -> bool {
    data_type.is_integer() || data_type.is_temporal() || matches!(data_type, DataType::Decimal128(..))
}

/// Least and greatest value of the removed rows' key columns, by place in the schema; of texts none, whose bounds in files may be
/// cut.
fn bounds(target: &TableTarget<'_>, removed: &[RecordBatch]) -> Result<Vec<(usize, ScalarValue, ScalarValue)>> {
    let columns = going_by(target);
    let mut bounds = Vec::new();
    for (at, field) in target.schema.fields().iter().enumerate() {
        if !columns.contains(field.name()) || !is_bounded(field.data_type()) {
            continue;
        }
        let values: Vec<ArrayRef> = removed.iter().map(|batch| Arc::clone(batch.column(at))).collect();
        // A null is in no bounds.
        if values.iter().any(|values| values.null_count() > 0) {
            continue;
        }
        let least_and_greatest = || {
            let (mut least, mut greatest) =
                (MinAccumulator::try_new(field.data_type())?, MaxAccumulator::try_new(field.data_type())?);
            for values in values {
                least.update_batch(&[Arc::clone(&values)])?;
                greatest.update_batch(&[values])?;
            }
            Ok((least.evaluate()?, greatest.evaluate()?))
        };
        let (least, greatest) = least_and_greatest().map_err(failure)?;
        bounds.push((at, least, greatest));
    }
    Ok(bounds)
}

/// Whether what a file says of itself lets it have a row within the bounds.
fn may_hold(told: &Statistics, bounds: &[(usize, ScalarValue, ScalarValue)]) -> bool {
    bounds.iter().all(|(at, least, greatest)| {
        let Some(column) = told.column_statistics.get(*at) else { return true };
        let is_below = |one: &ScalarValue, other: &ScalarValue| one.partial_cmp(other) == Some(Ordering::Less);
        let ends_before = matches!(&column.max_value, Precision::Exact(max) if is_below(max, least));
        let begins_after = matches!(&column.min_value, Precision::Exact(min) if is_below(greatest, min));
        !ends_before && !begins_after
    })
}

/// The rows of a table without the removed ones.
fn without(
    rows: Arc<dyn TableProvider>,
    target: &TableTarget<'_>,
    removed: &[RecordBatch],
    keys: Option<&LogicalPlan>,
) -> DataFusionResult<LogicalPlan> {
    const WEIGHT: &str = "__weight";
    let rows = scan("rows", rows)?;
    let Some(keys) = keys else { return Ok(rows) };
    if !target.key.is_empty() {
        return on_key(target, rows, keys.clone(), JoinType::LeftAnti);
    }
    // Rows alike are interchangeable: as many of them stay as there are more than went.
    let columns = going_by(target);
    let named = |table: &str, weight: i64| -> Vec<Expr> {
        let names = columns.iter().map(|name| Expr::Column(Column::new(Some(table), name)).alias(name));
        names.chain([lit(weight).alias(WEIGHT)]).collect()
    };
    // Rows that no removed one is like needn't be netted.
    let (touched, untouched) = if is_joinable(target) {
        let touched = on_key(target, rows.clone(), keys.clone(), JoinType::LeftSemi)?;
        (touched, on_key(target, rows, keys.clone(), JoinType::LeftAnti)?)
    } else {
        let none = LogicalPlanBuilder::from(rows.clone()).filter(lit(false))?.build()?;
        (rows, none)
    };
    let gone = engine::memory_table(target.schema, removed).ok().flatten();
    let Some(gone) = gone else { return Ok(untouched) };
    let both = LogicalPlanBuilder::from(touched)
        .project(named("rows", 1))?
        .union(LogicalPlanBuilder::from(scan("removed", gone)?).project(named("removed", -1))?.build()?)?;
    let groups = columns.iter().map(|name| Expr::Column(Column::new_unqualified(name)));
    let net = both.aggregate(groups, [sum(col(WEIGHT)).alias(WEIGHT)])?.filter(col(WEIGHT).gt(lit(0i64)))?;
    let times = datafusion::functions_nested::expr_fn::range(lit(0i64), col(WEIGHT), lit(1i64));
    let mut exprs: Vec<Expr> = columns.iter().map(|name| Expr::Column(Column::new_unqualified(name))).collect();
    exprs.push(times.alias(WEIGHT));
    let repeated = net.project(exprs)?.unnest_column(Column::new_unqualified(WEIGHT))?;
    let stay = repeated.project(columns.iter().map(|name| Expr::Column(Column::new_unqualified(name))))?.build()?;
    LogicalPlanBuilder::from(untouched)
        .project(columns.iter().map(|name| Expr::Column(Column::new(Some("rows"), name)).alias(name)))?
        .union(stay)?
        .build()
}
