//! Runs a pinned statement: batches are made a little ahead of the network, and making them stops when the client does.
//! Knows no protocol message but the data itself.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_flight::FlightData;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use datafusion::logical_expr::LogicalPlan;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::sqlstate::{SqlError, SqlResult};
use super::statements::{Pinned, Statements};
use super::wire;
use crate::limits;
use crate::serve::{QueryInfo, QueryStatus, ServedTables};

/// Data as the network takes it.
pub(super) type DataStream = BoxStream<'static, Result<FlightData, Status>>;

/// Starts `statement` on `runtime` and hands back its rows. Dropping the stream stops it. `permit` is held until it ends.
pub(super) fn run(
    statement: Pinned,
    statements: Arc<Statements>,
    tables: Arc<dyn ServedTables>,
    permit: OwnedSemaphorePermit,
    runtime: &Handle,
) -> DataStream {
    let (sender, receiver) = mpsc::channel(limits::FLIGHT_BATCHES_AHEAD);
    let (tell, told) = oneshot::channel();
    let schema = Arc::clone(&statement.schema);
    let cancel = statements.start(&statement.id);
    runtime.spawn(async move {
        let mut query = Query { statement, sender, cancel, rows: 0 };
        let outcome = AssertUnwindSafe(query.run()).catch_unwind().await;
        let outcome = outcome.unwrap_or_else(|_| Err(SqlError::new("XX000", "the query panicked: a bug").into()));
        statements.finish(&query.statement.id);
        drop(permit);
        let (status, error) = match outcome {
            Ok(()) => (QueryStatus::Ok, None),
            Err(End::Gone) => (QueryStatus::Cancelled, None),
            Err(End::Error(error)) if error.state == "57014" => (QueryStatus::Cancelled, Some(error)),
            Err(End::Error(error)) => (QueryStatus::Failed, Some(error)),
        };
        tables.query_finished(QueryInfo {
            id: std::mem::take(&mut query.statement.id),
            sql: std::mem::take(&mut query.statement.sql),
            started_at_us: query.statement.started_at_us,
            seconds: query.statement.started.elapsed().as_secs_f64(),
            rows: query.rows,
            status,
            error: error.as_ref().map(SqlError::to_string),
        });
        // A client that is gone can't be told.
        let _ = tell.send(error.map_or(Ok(()), Err));
    });
    encode(schema, ReceiverStream::new(receiver).map(Ok).chain(ending(told)))
}

/// The end of the rows: nothing if all were sent. It has a way of its own, past the batches that wait to be read, since
/// rows that merely stop would look like a whole result.
fn ending(told: oneshot::Receiver<SqlResult<()>>) -> impl Stream<Item = Result<RecordBatch, FlightError>> + Send {
    let outcome = async move {
        let lost = || Err(SqlError::new("57P01", "the server is shutting down"));
        told.await.unwrap_or_else(|_| lost()).err().map(|error| Err(FlightError::Tonic(Box::new(error.into()))))
    };
    stream::once(outcome).filter_map(|end| async move { end })
}

/// Encodes batches that are already in `schema`'s types and small enough.
pub(super) fn encode(
    schema: arrow::datatypes::SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch, FlightError>> + Send + 'static,
) -> DataStream {
    FlightDataEncoderBuilder::new()
        .with_schema(schema)
        // The encoder would count whole buffers of slices and cut them to crumbs: batches come cut already.
        .with_max_flight_data_size(usize::MAX)
        .build(batches)
        .map_err(Status::from)
        .boxed()
}

enum End {
    /// The client went away.
    Gone,
    /// It has to be told.
    Error(SqlError),
}

impl<E: Into<SqlError>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

struct Query {
    statement: Pinned,
    sender: mpsc::Sender<RecordBatch>,
    cancel: CancellationToken,
    rows: u64,
}

impl Query {
    async fn run(&mut self) -> Result<(), End> {
        for plan in std::mem::take(&mut self.statement.plans) {
            self.run_plan(plan).await?;
        }
        Ok(())
    }

    async fn run_plan(&mut self, plan: LogicalPlan) -> Result<(), End> {
        let session = self.statement.session.clone();
        let start = async move { session.execute_logical_plan(plan).await?.execute_stream().await };
        let mut stream = self.unless_stopped(start).await??;
        while let Some(batch) = self.unless_stopped(stream.next()).await? {
            let batch = wire::to_wire(&batch?, &self.statement.schema)?;
            for part in wire::split(batch, limits::FLIGHT_MESSAGE_BYTES)? {
                if part.num_rows() > 0 {
                    self.send(part).await?;
                }
            }
        }
        Ok(())
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, End> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(cancelled("the query was cancelled").into()),
            () = self.sender.closed() => Err(End::Gone),
            done = work => Ok(done),
        }
    }

    async fn send(&mut self, batch: RecordBatch) -> Result<(), End> {
        let rows = batch.num_rows() as u64;
        let patience = Duration::from_secs(limits::FLIGHT_IDLE_READER_SECONDS);
        let sent = self.unless_stopped(self.sender.send_timeout(batch, patience)).await?;
        match sent {
            Ok(()) => {
                self.rows += rows;
                Ok(())
            }
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                Err(cancelled("the client read nothing for too long").into())
            }
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(End::Gone),
        }
    }
}

fn cancelled(why: &str) -> SqlError {
    SqlError::new("57014", why)
}

/// One small batch as a whole answer, such as a listing.
pub(super) fn one_batch(batch: &RecordBatch) -> SqlResult<DataStream> {
    let parts = wire::split(batch.clone(), limits::FLIGHT_MESSAGE_BYTES)?;
    Ok(encode(batch.schema(), stream::iter(parts.into_iter().map(Ok))))
}
