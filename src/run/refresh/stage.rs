//! Writes a model's rows as files that nobody sees yet, refusing rows on the way.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::checks::RowChecks;
use super::draft::quarantine_of;
use crate::error::{Error, Result};
use crate::limits;
use crate::table::{TableFiles, Warehouse, write_files};

/// A new version of a model and of its quarantine, in files that no record names.
pub(super) struct Staged {
    pub(super) model: String,
    pub(super) table: TableFiles,
    pub(super) quarantine: TableFiles,
}

impl Staged {
    /// Deletes the files, as far as possible.
    pub(super) async fn discard(&self, warehouse: &Warehouse) {
        discard(warehouse, &self.model, &self.table).await;
        discard(warehouse, &quarantine_of(&self.model), &self.quarantine).await;
    }
}

impl Staged {
    /// Writes the rows of `kept` anew as the table and adds `refused` to its quarantine; the first files are deleted.
    pub(super) async fn replace(
        &mut self,
        warehouse: &Warehouse,
        kept: datafusion::prelude::DataFrame,
        refused: Vec<RecordBatch>,
        prefix: &str,
    ) -> Result<()> {
        let streams = kept.execute_stream_partitioned().await.map_err(crate::engine::failure)?;
        let table = &self.table;
        let files = write_files(warehouse, &self.model, &table.schema, &table.partition_by, prefix, streams).await?;
        let schema = Arc::clone(&self.quarantine.schema);
        let rows = futures::stream::iter(refused.into_iter().map(Ok::<_, DataFusionError>));
        let rows: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), rows));
        let more = write_files(warehouse, &quarantine_of(&self.model), &schema, &[], prefix, vec![rows]).await;
        let first = std::mem::replace(&mut self.table.files, files);
        discard(warehouse, &self.model, &TableFiles { files: first, ..self.table.clone() }).await;
        self.quarantine.files.extend(more?);
        Ok(())
    }
}

/// Deletes staged files of a table, as far as possible: what stays is collected after a later commit.
pub(super) async fn discard(warehouse: &Warehouse, table: &str, files: &TableFiles) {
    let paths = files.files.iter().map(|file| warehouse.path(&format!("{table}/{}", file.path))).collect();
    if let Err(error) = warehouse.delete(paths).await {
        tracing::warn!(%error, table, "staged files stay until the next cleaning");
    }
}

/// Where a model's rows go.
pub(super) struct Target<'a> {
    pub(super) warehouse: &'a Warehouse,
    pub(super) model: &'a str,
    pub(super) schema: &'a SchemaRef,
    pub(super) partition_by: &'a [String],
    pub(super) prefix: &'a str,
}

/// Writes the rows that stay as the model's data files and those that a rule refuses as its quarantine's.
pub(super) async fn stage(
    target: &Target<'_>,
    streams: Vec<SendableRecordBatchStream>,
    checks: &Arc<RowChecks>,
) -> Result<Staged> {
    let (refused_tx, refused) = mpsc::channel(limits::LANDING_BATCHES);
    let checked = streams.into_iter().map(|stream| checked(stream, target.schema, checks, refused_tx.clone())).collect();
    // The quarantine's writer ends when the last stream has.
    drop(refused_tx);
    let quarantine = quarantine_of(target.model);
    let refused = ReceiverStream::new(refused).map(Ok::<_, DataFusionError>);
    let refused: SendableRecordBatchStream =
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(checks.quarantine_schema()), refused));
    let rows = write_files(target.warehouse, target.model, target.schema, target.partition_by, target.prefix, checked);
    let quarantined =
        write_files(target.warehouse, &quarantine, checks.quarantine_schema(), &[], target.prefix, vec![refused]);
    let (rows, quarantined) = tokio::join!(rows, quarantined);
    let table = |files: &Result<_>, schema: &SchemaRef, partition_by: &[String]| TableFiles {
        schema: Arc::clone(schema),
        partition_by: partition_by.to_vec(),
        files: files.as_ref().ok().cloned().unwrap_or_default(),
    };
    let staged = Staged {
        model: target.model.to_string(),
        table: table(&rows, target.schema, target.partition_by),
        quarantine: table(&quarantined, checks.quarantine_schema(), &[]),
    };
    match rows.and(quarantined) {
        Ok(_) => Ok(staged),
        Err(error) => {
            staged.discard(target.warehouse).await;
            Err(error)
        }
    }
}

/// A stream whose refused rows go to `refused`.
fn checked(
    stream: SendableRecordBatchStream,
    schema: &SchemaRef,
    checks: &Arc<RowChecks>,
    refused: mpsc::Sender<RecordBatch>,
) -> SendableRecordBatchStream {
    let (checks, schema_of_rows) = (Arc::clone(checks), Arc::clone(schema));
    let rows = stream.then(move |batch| {
        let (checks, schema, refused) = (Arc::clone(&checks), Arc::clone(&schema_of_rows), refused.clone());
        async move {
            let batch = crate::engine::conform(&batch?, &schema);
            let split = batch.and_then(|batch| checks.split(batch));
            let (rows, gone) = split.map_err(|e| DataFusionError::External(Box::new(e)))?;
            if let Some(gone) = gone
                && refused.send(gone).await.is_err()
            {
                return Err(DataFusionError::External(Box::new(Error::external("refused rows can't be written"))));
            }
            Ok(rows)
        }
    });
    Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), rows))
}
