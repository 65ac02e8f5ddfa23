//! When messages were taken in, which is data of their rows: `_ingested_at`. Rows that come later have a later instant, whatever the
//! clock says, and messages that are read again keep theirs. Knows no broker and no message.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::datasource::provider_as_source;
use datafusion::functions_aggregate::expr_fn::{max, min};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::prelude::{SessionContext, col};
use futures::TryStreamExt;

use super::again::{Replaced, place, within};
use super::rows::landed_fields;
use crate::connect::{FileEntry, Landing, Position, Ranges};
use crate::engine;
use crate::error::{Error, Result};
use crate::table::{DataFile, TableFiles, parquet_table};

/// When messages came, microseconds since 1970 UTC.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Arrivals {
    /// Of those that came before: by partition, the last offset of all that came at an instant.
    known: BTreeMap<i32, BTreeMap<i64, i64>>,
    now_us: i64,
}

/// The instant of rows that come at `now_us` by the clock: later than that of all that came before. So the order of instants is
/// that of taking in, even where a clock goes back or two runs are told the same time.
pub(super) fn next_us<'a>(now_us: i64, before: impl IntoIterator<Item = &'a FileEntry>) -> i64 {
    let last = before.into_iter().map(|unit| unit.ingested_at_us).max();
    last.map_or(now_us, |last| now_us.max(last.saturating_add(1)))
}

/// The instant of rows of the past, which is before that of any message: what it was if they were read before.
///
/// # Errors
/// External: landed rows can't be read.
pub(super) async fn of_past(prior: &Position, landing: &Landing<'_>, zone: &str) -> Result<i64> {
    let files: Vec<DataFile> = prior.files.iter().flat_map(|unit| unit.landed.iter().flatten().cloned()).collect();
    let mut first = prior.files.iter().map(|unit| unit.ingested_at_us).min();
    for batch in landed(files, landing, zone, None, (vec![], vec![min(col("_ingested_at"))])).await? {
        let of_rows = batch.column(0).as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(other_type)?;
        first = of_rows.iter().flatten().chain(first).min();
    }
    let has_past = prior.files.iter().flat_map(|unit| unit.ranges.keys()).any(|name| place(name).is_none());
    Ok(match first {
        Some(first) if has_past => first,
        Some(first) => first.saturating_sub(1).min(landing.ingested_at_us),
        None => landing.ingested_at_us,
    })
}

impl Arrivals {
    /// All messages come at `now_us`.
    pub(super) fn at(now_us: i64) -> Self {
        Self { known: BTreeMap::new(), now_us }
    }

    /// Those of `units` are read again, the others come at `now_us`. Units that were put together have rows of several instants,
    /// which stand in the rows alone; what was let go came when the last of it did.
    ///
    /// # Errors
    /// External: landed rows can't be read.
    pub(super) async fn again(units: &[Replaced], now_us: i64, landing: &Landing<'_>, zone: &str) -> Result<Self> {
        let mut arrivals = Self::at(now_us);
        for Replaced { unit, go } in units {
            let files = unit.landed.clone().unwrap_or_default();
            let by = (vec![col("_partition"), col("_ingested_at")], vec![max(col("_offset"))]);
            let mut rows = Vec::new();
            for batch in landed(files, landing, zone, Some(within(go)), by).await? {
                rows.extend(lasts(&batch)?);
            }
            arrivals.add(&rows, unit, go);
        }
        Ok(arrivals)
    }

    /// Notes a unit's instants: partition, last offset and instant of its rows.
    fn add(&mut self, rows: &[(i32, i64, i64)], unit: &FileEntry, go: &Ranges) {
        for (partition, last, us) in rows {
            self.known.entry(*partition).or_default().insert(*last, *us);
        }
        // Refused rows aren't landed: those behind the last row came with it at the earliest.
        for (name, ranges) in go {
            let (Some((partition, _)), Some((_, end))) = (place(name), ranges.last()) else { continue };
            let of_rows = rows.iter().filter(|(of, ..)| *of == partition).map(|(_, _, us)| *us).max();
            let known = self.known.entry(partition).or_default();
            known.entry(end - 1).or_insert(of_rows.unwrap_or(unit.ingested_at_us));
        }
    }

    /// When a message came.
    pub(super) fn of(&self, partition: i32, offset: i64) -> i64 {
        let known = self.known.get(&partition).and_then(|lasts| lasts.range(offset..).next());
        known.map_or(self.now_us, |(_, us)| *us)
    }

    /// When the last one came; `has_new`: whether some come now.
    pub(super) fn latest_us(&self, has_new: bool) -> i64 {
        let known = self.known.values().flat_map(BTreeMap::values).copied().max();
        known.filter(|_| !has_new).unwrap_or(self.now_us)
    }
}

/// Partition, last offset and instant of each row of a batch.
fn lasts(batch: &RecordBatch) -> Result<Vec<(i32, i64, i64)>> {
    let partitions = batch.column(0).as_primitive_opt::<Int32Type>().ok_or_else(other_type)?;
    let instants = batch.column(1).as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(other_type)?;
    let offsets = batch.column(2).as_primitive_opt::<Int64Type>().ok_or_else(other_type)?;
    let rows = partitions.iter().zip(offsets).zip(instants);
    Ok(rows.filter_map(|((partition, offset), us)| Some((partition?, offset?, us?))).collect())
}

fn other_type() -> Error {
    Error::internal("hidden columns of landed rows are of other types")
}

/// Groups of the hidden columns of landed rows, with what is made of each.
async fn landed(
    files: Vec<DataFile>,
    landing: &Landing<'_>,
    zone: &str,
    filter: Option<Expr>,
    (groups, values): (Vec<Expr>, Vec<Expr>),
) -> Result<Vec<RecordBatch>> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let schema: SchemaRef = Arc::new(Schema::new(landed_fields(zone)));
    let table = TableFiles { schema, partition_by: Vec::new(), files };
    let table = parquet_table(landing.warehouse, &landing.landed, table, zone)?;
    let mut plan = LogicalPlanBuilder::scan("rows", provider_as_source(table), None).map_err(engine::failure)?;
    if let Some(filter) = filter {
        plan = plan.filter(filter).map_err(engine::failure)?;
    }
    let plan = plan.aggregate(groups, values).and_then(LogicalPlanBuilder::build).map_err(engine::failure)?;
    let mut batches = Vec::new();
    for stream in engine::execute(&SessionContext::new(), plan).await? {
        batches.extend(stream.try_collect::<Vec<_>>().await.map_err(engine::failure)?);
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(ingested_at_us: i64) -> FileEntry {
        FileEntry { ingested_at_us, ..FileEntry::default() }
    }

    #[test]
    fn later_units_have_later_instants_whatever_the_clock_says() {
        assert_eq!(next_us(500, &[]), 500);
        let before = [unit(700), unit(600)];
        assert_eq!(next_us(500, &before), 701, "the clock went back");
        assert_eq!(next_us(700, &before), 701, "the same time twice");
        assert_eq!(next_us(900, &before), 900);
    }

    #[test]
    fn messages_that_are_read_again_keep_their_instants() {
        let mut arrivals = Arrivals::at(900);
        let ranges = |partitions: &[(&str, i64, i64)]| -> Ranges {
            partitions.iter().map(|(name, from, to)| ((*name).to_string(), vec![(*from, *to)])).collect()
        };
        // Two units that were put together, the last row refused; partition 1 has none but refused rows.
        let go = ranges(&[("0.0", 0, 10), ("1.0", 0, 4), ("history past.parquet", 0, 3)]);
        arrivals.add(&[(0, 3, 100), (0, 8, 200)], &unit(200), &go);
        arrivals.add(&[(0, 14, 300)], &unit(300), &ranges(&[("0.0", 10, 15)]));
        let of = |offsets: &[i64], partition: i32| -> Vec<i64> {
            offsets.iter().map(|offset| arrivals.of(partition, *offset)).collect()
        };
        assert_eq!(of(&[0, 3, 4, 8, 9, 10, 14, 15], 0), [100, 100, 200, 200, 200, 300, 300, 900]);
        assert_eq!((of(&[0, 3, 4], 1), of(&[0], 2)), (vec![200, 200, 900], vec![900]));
        assert_eq!(
            (arrivals.latest_us(false), arrivals.latest_us(true), Arrivals::at(900).latest_us(false)),
            (300, 900, 900)
        );
    }
}
