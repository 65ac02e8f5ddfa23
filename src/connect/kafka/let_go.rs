//! Messages whose rows were let go (`archive: false`): reading them is an error, and they are landed once more where the topic
//! still holds all of them. Decides nothing about when.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result as DataFusionResult};
use datafusion::datasource::TableType;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;

use super::again::Replaced;
use super::arrivals::Arrivals;
use super::take::{judge, land, landing_of_topic};
use super::{KafkaSource, range};
use crate::connect::position::Offsets;
use crate::connect::{FileEntry, Landing, Position, ranges};
use crate::error::{Error, Result};

/// See [`crate::connect::Source::restore`].
pub(super) async fn restore(source: &KafkaSource, position: &Position, landing: &Landing<'_>) -> Result<Position> {
    let (gone, kept): (Vec<FileEntry>, Vec<FileEntry>) =
        position.files.iter().cloned().partition(|file| file.is_let_go);
    let (Some(offsets), false) = (&position.offsets, gone.is_empty()) else { return Ok(position.clone()) };
    let landing = landing_of_topic(landing, &source.topic.spec);
    let (prior, held) = (offsets.clone(), ranges::union(gone.iter().map(|file| &file.ranges)));
    let mut plan = source.with_client(move |client| range::plan_again(client, &prior, &held)).await?;
    let judge = judge(source, position, &landing, &mut plan, true).await?;
    let path = format!("{}-again", landing.prefix);
    let units: Vec<Replaced> =
        gone.iter().map(|unit| Replaced { unit: unit.clone(), go: unit.ranges.clone() }).collect();
    let arrivals = Arrivals::again(&units, landing.ingested_at_us, &landing, &source.topic.zone).await?;
    let ingested_at_us = arrivals.latest_us(false);
    let mut entry = FileEntry { hash: path.clone(), path, ingested_at_us, ..FileEntry::default() };
    let (read, _) = land(source, &landing, plan, (judge, arrivals), &mut entry).await?;
    entry.late = gone.iter().map(|file| file.late).sum();
    let rows = gone.iter().map(|file| file.rows).sum::<u64>();
    if entry.rows != rows || !is_same_topic(&read.offsets, offsets) {
        landing.discard(std::slice::from_ref(&entry)).await;
        return Err(Error::external("the topic holds other rows than those that were read")
            .with("source", &source.topic.name)
            .with("rows before", rows)
            .with("rows now", entry.rows));
    }
    let mut files = kept;
    files.push(entry);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Position { files, ..position.clone() })
}

/// Whether no partition was found to be another one's.
fn is_same_topic(now: &Offsets, before: &Offsets) -> bool {
    before
        .partitions
        .iter()
        .all(|(partition, at)| now.partitions.get(partition).is_some_and(|now| now.epoch == at.epoch))
}

/// A topic's rows where some of them aren't kept.
#[derive(Debug)]
pub(super) struct LetGo {
    pub(super) topic: String,
    pub(super) schema: SchemaRef,
}

#[async_trait]
impl TableProvider for LetGo {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let text = format!("rows of `{}` were let go (`archive: false`) and can't be read again", self.topic);
        let error = Error::external(text).with(
            "hint",
            "`tidemill run --full-refresh` reads the topic again, as long as it holds all of its messages",
        );
        Err(DataFusionError::External(Box::new(error)))
    }
}
