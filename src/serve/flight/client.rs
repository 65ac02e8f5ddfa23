//! The client side: one query to a Flight SQL server, its rows as they come. Knows no server of ours.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tonic::transport::{Channel, Endpoint};

use crate::error::{Error, Result, ResultExt};

/// Seconds until a server that doesn't answer is given up.
const CONNECT_SECONDS: u64 = 20;

/// Rows in order, as they arrive.
pub type Rows = BoxStream<'static, Result<RecordBatch>>;

/// Runs `sql` at `url` (`grpc://host:port`, also `grpc+tcp://` and `http://`). A refusal by the server is a usage error
/// with its SQLSTATE; that it can't be reached is external. Dropping the rows cancels the query.
pub async fn query(url: &str, sql: &str) -> Result<(SchemaRef, Rows)> {
    let mut client = FlightSqlServiceClient::new(connect(url).await?);
    let info = client.execute(sql.to_owned(), None).await.map_err(|error| refused(error, url))?;
    let schema = SchemaRef::new(info.clone().try_decode_schema().external("the server's schema is unreadable")?);
    let mut streams = Vec::new();
    for endpoint in info.endpoint {
        let ticket = endpoint.ticket.ok_or_else(|| Error::external("the server gave no ticket").with("url", url))?;
        streams.push(client.do_get(ticket).await.map_err(|error| refused(error, url))?);
    }
    let url = url.to_owned();
    let rows = stream::iter(streams).flatten().map(move |batch| batch.map_err(|error| refused(error, &url)));
    Ok((schema, rows.boxed()))
}

async fn connect(url: &str) -> Result<Channel> {
    let bad = |why: &str| Error::usage(format!("{why}; expected grpc://HOST:PORT")).with("url", url);
    let (scheme, address) = url.split_once("://").ok_or_else(|| bad("the URL has no scheme"))?;
    match scheme {
        "grpc" | "grpc+tcp" | "http" => {}
        "grpc+tls" | "https" => return Err(bad("TLS isn't supported")),
        _ => return Err(bad("the URL has an unknown scheme")),
    }
    let endpoint =
        Endpoint::from_shared(format!("http://{address}")).map_err(|error| bad("not a URL").caused_by(error))?;
    let endpoint = endpoint.connect_timeout(Duration::from_secs(CONNECT_SECONDS)).tcp_nodelay(true);
    let channel = endpoint.connect().await;
    channel.map_err(|error| Error::external("can't reach the server").with("url", url).caused_by(error).retryable())
}

fn refused(error: FlightError, url: &str) -> Error {
    match error {
        FlightError::Tonic(status) if status.message().starts_with("SQLSTATE") => {
            let kind = match status.code() {
                tonic::Code::Internal | tonic::Code::Unavailable | tonic::Code::ResourceExhausted => Error::external,
                _ => Error::usage,
            };
            kind(status.message().to_owned())
        }
        FlightError::Tonic(status) => Error::external("the server failed").with("url", url).caused_by(*status),
        other => Error::external("the server's answer is unreadable").with("url", url).caused_by(other),
    }
}
