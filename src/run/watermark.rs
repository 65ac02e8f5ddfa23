//! How far time is in the topics under a model. Knows positions, no rows.

use super::commit::{CommitChain, CommitRecord};
use super::project::OpenProject;
use super::schedule;
use crate::connect::Position;
use crate::error::Result;
use crate::plan::PlannedModel;
use crate::spec::types::ConnectorSpec;
use crate::table::Warehouse;

/// How far time is in all topics that a model goes back to, microseconds since 1970 UTC; none where one of them doesn't tell
/// yet. `record` is of the model's pipeline.
pub(in crate::run) async fn watermark_under(
    open: &OpenProject,
    warehouse: &Warehouse,
    record: &CommitRecord,
    model: &str,
) -> Result<Option<i64>> {
    let now_us = schedule::wall_clock_us();
    let mut lowest: Option<i64> = None;
    for source in open.sources_under(model).into_iter().filter(|source| source.spec.has_watermark()) {
        let ConnectorSpec::Kafka(spec) = &source.spec.connector else { continue };
        let name = &source.spec.name.value;
        let other;
        let record = match source.pipeline == record.pipeline {
            true => Some(record),
            false => {
                other = CommitChain::open(warehouse, &source.pipeline).latest().await?;
                other.as_deref()
            }
        };
        let position = Position::from_json(record.and_then(|record| record.sources.get(name)))?;
        let offsets = position.offsets.unwrap_or_default();
        match offsets.watermark_us(now_us, spec.watermark_delay, spec.idle_timeout) {
            Some(us) => lowest = Some(lowest.map_or(us, |lowest| lowest.min(us))),
            None => return Ok(None),
        }
    }
    Ok(lowest)
}

/// The watermark that groups of a model's states are let go by: its `retention` behind that of `record`; none where it keeps
/// all of them or time doesn't tell yet.
pub(in crate::run) async fn retained_from(
    open: &OpenProject,
    warehouse: &Warehouse,
    record: &CommitRecord,
    model: &PlannedModel,
) -> Result<Option<i64>> {
    let Some(retention) = model.retention else { return Ok(None) };
    let retention_us = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
    let watermark = watermark_under(open, warehouse, record, &model.name).await?;
    Ok(watermark.map(|us| us.saturating_sub(retention_us)))
}
