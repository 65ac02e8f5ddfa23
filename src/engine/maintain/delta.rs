//! A change between operators: a plan whose last column is the weight; settled, it is its net rows in memory. Knows no rules.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, DFSchema, Result as DataFusionResult};
use datafusion::datasource::{MemTable, provider_as_source, source_as_provider};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::functions_aggregate::expr_fn::sum;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Projection, TableScan, lit};
use futures::TryStreamExt;
use tokio::task::JoinSet;

use super::Engine;
use super::added_up::{added_up, netted_by_key};
use super::memory::{Memory, bytes_of};
use crate::background::joined;
use crate::engine::{failure, memory_table};
use crate::error::{Error, Result, ResultExt};
use crate::plan::float_bits;

/// The last column of a change: `bigint`, +n where a row came n times, −n where it went n times.
pub const WEIGHT: &str = "__weight";

/// A change of an operator's result.
#[derive(Clone, Debug)]
pub(super) struct Delta {
    /// The operator's columns, named as there, and [`WEIGHT`] last.
    pub(super) plan: LogicalPlan,
    /// Whether every weight is 1.
    pub(super) insert_only: bool,
    /// Whether its rows are in memory, net.
    pub(super) is_settled: bool,
}

/// A net change: no row is both in `added` and `removed`.
#[derive(Clone, Debug, Default)]
pub struct Net {
    /// Rows that came, each as often as it did.
    pub added: Vec<RecordBatch>,
    /// Rows that went.
    pub removed: Vec<RecordBatch>,
    /// How many of those that came stand for one that went, of the same key, where that was looked at.
    pub updated: Option<u64>,
}

impl Net {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }

    /// The rows of batches whose last column is the weight, none of them alike.
    ///
    /// # Errors
    /// External: memory.
    pub fn of(batches: &[RecordBatch]) -> Result<Self> {
        let mut net = Self::default();
        batches.iter().try_for_each(|batch| split(batch, &mut net))?;
        Ok(net)
    }

    /// The change and another, no row of which it has.
    pub(super) fn extend(&mut self, other: Self) {
        self.updated = None;
        self.added.extend(other.added);
        self.removed.extend(other.removed);
    }

    /// Rows that came and went.
    pub fn rows(&self) -> usize {
        self.added.iter().chain(&self.removed).map(RecordBatch::num_rows).sum()
    }
}

/// The column [`WEIGHT`].
pub(super) fn weight() -> Expr {
    Expr::Column(Column::new_unqualified(WEIGHT))
}

/// All columns of `schema`, in order.
pub(super) fn columns(schema: &DFSchema) -> Vec<Expr> {
    schema.columns().into_iter().map(Expr::Column).collect()
}

/// `plan`, whose columns are those of `schema` by position and maybe the weight, with the names of `schema`.
pub(super) fn named_as(plan: LogicalPlan, schema: &DFSchema, weighted: bool) -> DataFusionResult<LogicalPlan> {
    let mut exprs = Vec::with_capacity(schema.fields().len() + 1);
    let mut same = plan.schema().fields().len() == schema.fields().len() + usize::from(weighted);
    for at in 0..schema.fields().len() {
        let (have, wanted) = (plan.schema().qualified_field(at), schema.qualified_field(at));
        let column = Expr::Column(Column::from(have));
        if have.0 == wanted.0 && have.1.name() == wanted.1.name() {
            exprs.push(column);
        } else {
            same = false;
            exprs.push(column.alias_qualified(wanted.0.cloned(), wanted.1.name()));
        }
    }
    if weighted {
        let at = plan.schema().fields().len() - 1;
        let have = plan.schema().qualified_field(at);
        if have.0.is_none() && have.1.name() == WEIGHT {
            exprs.push(weight());
        } else {
            same = false;
            exprs.push(Expr::Column(Column::from(have)).alias(WEIGHT));
        }
    }
    if same {
        return Ok(plan);
    }
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?))
}

/// `plan`'s rows, each with this weight.
pub(super) fn weighing(plan: LogicalPlan, each: i64) -> DataFusionResult<LogicalPlan> {
    let mut exprs = columns(plan.schema());
    exprs.push(lit(each).alias(WEIGHT));
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?))
}

/// The rows of all of `plans`, which have the same columns by position; named as in the first.
pub(super) fn all_of(mut plans: Vec<LogicalPlan>) -> DataFusionResult<Option<LogicalPlan>> {
    if plans.len() < 2 {
        return Ok(plans.pop());
    }
    let mut parts = plans.into_iter();
    let Some(first) = parts.next() else { return Ok(None) };
    let schema = Arc::clone(first.schema());
    let mut union = LogicalPlanBuilder::from(by_place(first)?);
    for part in parts {
        union = union.union(by_place(part)?)?;
    }
    named_as(union.build()?, &schema, false).map(Some)
}

/// The plan with names for its columns that are its own: by those of relations the engine loses its way in unions, where it takes a
/// filter down, or one part for the whole.
fn by_place(plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let places = columns(plan.schema()).into_iter().enumerate();
    let named = places.map(|(at, column)| column.alias(format!("c{at}"))).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(named, Arc::new(plan))?))
}

/// A change's rows with equal ones added up; those that come to nothing are gone.
pub(super) fn consolidated(plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let schema = Arc::clone(plan.schema());
    let mut keys = columns(&schema);
    keys.pop();
    let added_up = |plan: LogicalPlan| {
        let net = LogicalPlanBuilder::from(plan).aggregate(keys, [sum(weight()).alias(WEIGHT)])?;
        net.filter(weight().not_eq(lit(0i64)))?.build()
    };
    // Grouping makes 0.0 of −0.0: floats are told apart by their bits.
    if !schema.fields().iter().any(|field| float_bits::are_of(field.data_type())) {
        return added_up(plan);
    }
    let each = |plan: &LogicalPlan, converted: fn(Expr, &DataType) -> Expr| -> Vec<Expr> {
        let of = |(column, field): (Expr, &Arc<Field>)| match (column, field.data_type()) {
            (Expr::Column(column), found) if float_bits::are_of(found) => {
                let (relation, name) = (column.relation.clone(), column.name.clone());
                converted(Expr::Column(column), found).alias_qualified(relation, name)
            }
            (column, _) => column,
        };
        columns(plan.schema()).into_iter().zip(schema.fields()).map(of).collect()
    };
    let as_bits = each(&plan, |column, _| float_bits::bits_of(column));
    let plan = LogicalPlan::Projection(Projection::try_new(as_bits, Arc::new(plan))?);
    let net = added_up(plan)?;
    let as_floats = each(&net, |column, found| float_bits::float_of(column, found.clone()));
    Ok(LogicalPlan::Projection(Projection::try_new(as_floats, Arc::new(net))?))
}

/// Batches as a table; none where there are no rows.
pub(super) fn table(batches: &[RecordBatch]) -> Result<Option<Arc<dyn TableProvider>>> {
    match batches.first() {
        Some(first) => memory_table(&first.schema(), batches),
        None => Ok(None),
    }
}

/// The batch with a last column [`WEIGHT`], the same for each row.
///
/// # Errors
/// A bug: a batch takes any column of its length.
pub(super) fn with_weight(batch: &RecordBatch, each: i64) -> Result<RecordBatch> {
    let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(WEIGHT, DataType::Int64, true)));
    let mut arrays = batch.columns().to_vec();
    arrays.push(Arc::new(Int64Array::from_value(each, batch.num_rows())) as ArrayRef);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).external("a change can't be weighed")
}

impl Engine<'_> {
    /// The rows of `plan` in memory, its partitions worked on at the same time.
    pub(super) async fn collect(&self, plan: LogicalPlan) -> Result<Vec<RecordBatch>> {
        let mut parts = JoinSet::new();
        let streams = self.contexts.execute(plan).await?;
        for (at, stream) in streams.into_iter().enumerate() {
            let rows = all_rows(stream, self.memory.clone());
            parts.spawn(async move { rows.await.map(|batches| (at, batches)) });
        }
        let mut collected = Vec::with_capacity(parts.len());
        while let Some(done) = parts.join_next().await {
            collected.push(joined(done)??);
        }
        collected.sort_by_key(|(at, _)| *at);
        Ok(collected.into_iter().flat_map(|(_, batches)| batches).collect())
    }

    /// The change with its net rows in memory; none where they come to nothing.
    pub(super) async fn settle(&self, delta: Option<Delta>) -> Result<Option<Delta>> {
        let Some(delta) = delta else { return Ok(None) };
        if delta.is_settled {
            return Ok(Some(delta));
        }
        let schema = Arc::clone(delta.plan.schema());
        let mut batches = self.collect(delta.plan).await?;
        if !delta.insert_only {
            batches = added_up(&batches)?;
        }
        for batch in &mut batches {
            *batch = once_each(batch)?;
        }
        let Some(memory) = in_memory(&batches)? else { return Ok(None) };
        let plan = named_as(memory, &schema, false).map_err(failure)?;
        let insert_only = delta.insert_only || batches.iter().all(|batch| weights(batch).is_some_and(all_ones));
        Ok(Some(Delta { plan, insert_only, is_settled: true }))
    }

    /// The net rows of a change, of which `key` is likely to have each value once before and once after it.
    pub(super) async fn net(&self, delta: Option<Delta>, key: &[String]) -> Result<Net> {
        let Some(delta) = delta else { return Ok(Net::default()) };
        let is_net = delta.insert_only || delta.is_settled;
        let of_key = key.iter().map(|name| delta.plan.schema().index_of_column_by_name(None, name));
        let of_key: Option<Vec<usize>> = of_key.collect();
        let batches = self.collect(delta.plan).await?;
        if is_net {
            return Net::of(&batches);
        }
        if let Some(of_key) = of_key.filter(|of_key| !of_key.is_empty())
            && let Some(net) = netted_by_key(&batches, &of_key)?
        {
            return Ok(net);
        }
        Net::of(&added_up(&batches)?)
    }
}

/// The batches of a stream that have rows.
async fn all_rows(mut stream: SendableRecordBatchStream, memory: Memory) -> Result<Vec<RecordBatch>> {
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = stream.try_next().await.map_err(failure)? {
        if batch.num_rows() == 0 {
            continue;
        }
        let more = bytes_of(&batch);
        bytes += more;
        memory.take(bytes, more)?;
        batches.push(batch);
    }
    Ok(batches)
}

/// Batches as a scan whose columns have plain names, so that a relation's own can be given to them.
pub(super) fn in_memory(batches: &[RecordBatch]) -> Result<Option<LogicalPlan>> {
    let Some(first) = batches.first() else { return Ok(None) };
    let types = first.columns().iter().map(|column| column.data_type().clone()).enumerate();
    let fields = types.map(|(at, data_type)| Field::new(format!("c{at}"), data_type, true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let batches = batches.iter().map(|batch| {
        RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec())
            .external("a change's rows don't fit together")
    });
    let batches = batches.collect::<Result<Vec<_>>>()?;
    let table = Arc::new(MemTable::try_new(schema, vec![batches]).map_err(failure)?);
    let scan = LogicalPlanBuilder::scan("__change", provider_as_source(table), None);
    scan.and_then(LogicalPlanBuilder::build).map(Some).map_err(failure)
}

/// The batches of a scan of rows in memory; none of any other.
pub(super) fn batches_of(scan: &TableScan) -> Option<Vec<RecordBatch>> {
    let table = source_as_provider(&scan.source).ok()?;
    let table = (table.as_ref() as &dyn Any).downcast_ref::<MemTable>()?;
    // Nobody writes to it.
    let parts = table.batches.iter().map(|part| Some(part.try_read().ok()?.clone()));
    Some(parts.collect::<Option<Vec<_>>>()?.concat())
}

fn weights(batch: &RecordBatch) -> Option<&Int64Array> {
    batch.columns().last().and_then(|column| column.as_primitive_opt::<Int64Type>())
}

fn all_ones(weights: &Int64Array) -> bool {
    weights.values().iter().all(|weight| *weight == 1)
}

/// The batch with each row as often as its weight says, so that every weight is 1 or −1.
fn once_each(batch: &RecordBatch) -> Result<RecordBatch> {
    let Some(weights) = weights(batch) else { return Err(Error::internal("a change has no weights")) };
    if weights.values().iter().all(|weight| weight.abs() == 1) {
        return Ok(batch.clone());
    }
    let times = |weight: i64| usize::try_from(weight.unsigned_abs()).unwrap_or(usize::MAX);
    let indices: UInt64Array = weights
        .values()
        .iter()
        .enumerate()
        .flat_map(|(row, weight)| std::iter::repeat_n(row as u64, times(*weight)))
        .collect();
    let signs: Int64Array = indices.values().iter().map(|row| weights.value(*row as usize).signum()).collect();
    let rows = take_record_batch(batch, &indices).external("a change's rows can't be taken")?;
    let mut arrays = rows.columns().to_vec();
    if let Some(last) = arrays.last_mut() {
        *last = Arc::new(signs);
    }
    RecordBatch::try_new(rows.schema(), arrays).external("a change's rows don't fit together")
}

/// Rows by the sign of their weight, each as often as it says.
fn split(batch: &RecordBatch, net: &mut Net) -> Result<()> {
    let Some(weights) = weights(batch) else { return Err(Error::internal("a change has no weights")) };
    let fields: Vec<usize> = (0..batch.num_columns() - 1).collect();
    let rows = batch.project(&fields).external("a change has no columns")?;
    if all_ones(weights) {
        net.added.push(rows);
        return Ok(());
    }
    for (sign, side) in [(1, &mut net.added), (-1, &mut net.removed)] {
        let mut indices = Vec::new();
        for row in 0..weights.len() {
            let times = usize::try_from(weights.value(row).saturating_mul(sign)).unwrap_or(0);
            indices.extend(std::iter::repeat_n(row as u64, times));
        }
        if !indices.is_empty() {
            side.push(
                take_record_batch(&rows, &UInt64Array::from(indices)).external("a change's rows can't be taken")?,
            );
        }
    }
    Ok(())
}
