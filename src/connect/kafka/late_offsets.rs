//! Offsets of rows that were refused for being late, kept as files beside the landed rows: a row is refused once, and whoever
//! reads the topic again refuses the same rows. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use crate::connect::position::{Offsets, Position};
use crate::connect::{Landing, kafka::late::JudgedBefore};
use crate::engine;
use crate::error::{Result, ResultExt};
use crate::table::{DataFile, TableFiles, parquet_table, write_files};

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("partition", DataType::Int32, false),
        // How often the topic was made anew before.
        Field::new("epoch", DataType::Int64, false),
        Field::new("offset", DataType::Int64, false),
    ]))
}

/// Writes partitions and offsets of refused rows; `offsets` is the position that they were read for.
pub(super) async fn write(landing: &Landing<'_>, offsets: &Offsets, refused: &[(i32, i64)]) -> Result<Vec<DataFile>> {
    if refused.is_empty() {
        return Ok(Vec::new());
    }
    let epoch = |partition: &i32| offsets.partitions.get(partition).map_or(0, |at| i64::from(at.epoch));
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(refused.iter().map(|(partition, _)| *partition))),
        Arc::new(Int64Array::from_iter_values(refused.iter().map(|(partition, _)| epoch(partition)))),
        Arc::new(Int64Array::from_iter_values(refused.iter().map(|(_, offset)| *offset))),
    ];
    let batch = RecordBatch::try_new(schema(), columns).external("offsets of late rows can't be kept")?;
    let stream = RecordBatchStreamAdapter::new(schema(), futures::stream::iter([Ok(batch)]));
    write_files(landing.warehouse, &landing.landed, &schema(), &[], &landing.prefix, vec![Box::pin(stream)]).await
}

/// What was judged of the messages of a position, by partition: of the topic as it was made last.
///
/// # Errors
/// External: a file is gone or can't be read. Without it nobody knows which rows are to stay refused.
pub(super) async fn read(landing: &Landing<'_>, zone: &str, prior: &Position) -> Result<BTreeMap<i32, JudgedBefore>> {
    let Some(offsets) = &prior.offsets else { return Ok(BTreeMap::new()) };
    let judged = |next: i64| JudgedBefore { below: next, refused: BTreeSet::new() };
    let mut before: BTreeMap<i32, JudgedBefore> =
        offsets.partitions.iter().map(|(number, at)| (*number, judged(at.next))).collect();
    let files: Vec<DataFile> = prior.files.iter().flat_map(|entry| entry.late_offsets.iter().cloned()).collect();
    if files.is_empty() {
        return Ok(before);
    }
    let table = TableFiles { schema: schema(), partition_by: Vec::new(), files };
    let table = parquet_table(landing.warehouse, &landing.landed, table, zone)?;
    let plan = LogicalPlanBuilder::scan("late", provider_as_source(table), None).and_then(LogicalPlanBuilder::build);
    for stream in engine::execute(&SessionContext::new(), plan.map_err(engine::failure)?).await? {
        let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(engine::failure)?;
        for batch in &batches {
            let (partitions, epochs, refused) = (
                batch.column(0).as_primitive::<Int32Type>(),
                batch.column(1).as_primitive::<Int64Type>(),
                batch.column(2).as_primitive::<Int64Type>(),
            );
            for row in 0..batch.num_rows() {
                let partition = partitions.value(row);
                let epoch = offsets.partitions.get(&partition).map(|at| i64::from(at.epoch));
                if epoch == Some(epochs.value(row))
                    && let Some(judged) = before.get_mut(&partition)
                {
                    judged.refused.insert(refused.value(row));
                }
            }
        }
    }
    Ok(before)
}
