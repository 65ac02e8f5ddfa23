//! Arrow Flight SQL over [`ServedTables`]: what JDBC, ADBC and the tools on top of them speak. Knows no commits and no files.
//!
//! A statement is planned at GetFlightInfo, over a snapshot that stays pinned until DoGet, where execution begins; its
//! ticket is good for one DoGet. There are no users in this version: whoever reaches the port may read, with or without
//! name and password, so it listens on loopback unless told otherwise.

mod actions;
mod catalog;
pub mod client;
mod execute;
mod planning;
mod service;
mod sessions;
mod sql_info;
pub mod sqlstate;
mod statements;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

pub use planning::plan_read_only;

use self::service::Service;
use self::sessions::Sessions;
use self::statements::Statements;
use super::ServedTables;
use crate::error::{Result, ResultExt};
use crate::limits;

/// Serves `tables` on `listener` until `shutdown` is done. Then new requests are refused, running queries get
/// [`limits::FLIGHT_DRAIN_SECONDS`] to finish, and are stopped. Dropping the future stops everything at once.
///
/// Queries run on threads of their own, so that a heavy one doesn't keep others from connecting. An error means that the
/// socket failed; a client's error never does.
pub async fn serve(
    listener: TcpListener,
    tables: Arc<dyn ServedTables>,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let workers = QueryThreads::start()?;
    let statements = Arc::new(Statements::default());
    let service = Service {
        tables,
        statements: Arc::clone(&statements),
        sessions: Sessions::default(),
        turns: Arc::new(Semaphore::new(limits::FLIGHT_RUNNING_QUERIES)),
        runtime: workers.handle(),
    };
    let service = FlightServiceServer::new(service)
        .max_decoding_message_size(limits::FLIGHT_REQUEST_BYTES)
        .max_encoding_message_size(usize::MAX);
    let stop = CancellationToken::new();
    // Answers are small and go back and forth: each would wait for the client's delayed acknowledgement.
    let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(limits::FLIGHT_PING_SECONDS)))
        .add_service(service)
        .serve_with_incoming_shutdown(connections, stop.clone().cancelled_owned());
    tokio::pin!(server);
    tokio::select! {
        ended = &mut server => return ended.external("the Flight SQL server stopped"),
        () = shutdown => {}
        () = sweep(&statements) => {}
    }
    stop.cancel();
    if let Ok(ended) = tokio::time::timeout(Duration::from_secs(limits::FLIGHT_DRAIN_SECONDS), &mut server).await {
        return ended.external("the Flight SQL server stopped");
    }
    statements.cancel_all();
    // Those that still don't go within a moment have clients that read nothing: they are cut off.
    match tokio::time::timeout(Duration::from_secs(1), &mut server).await {
        Ok(ended) => ended.external("the Flight SQL server stopped"),
        Err(_) => Ok(()),
    }
}

async fn sweep(statements: &Statements) {
    let mut ticks = tokio::time::interval(Duration::from_secs(limits::FLIGHT_STATEMENT_TTL_SECONDS / 4));
    loop {
        ticks.tick().await;
        statements.sweep();
    }
}

/// Threads that queries run on.
struct QueryThreads(Option<Runtime>);

impl QueryThreads {
    fn start() -> Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.enable_all().thread_name("flight-query").build();
        Ok(Self(Some(runtime.external("can't start threads for queries")?)))
    }

    fn handle(&self) -> tokio::runtime::Handle {
        self.0.as_ref().map_or_else(tokio::runtime::Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for QueryThreads {
    fn drop(&mut self) {
        // An ordinary drop waits for the threads, which isn't allowed where other futures run.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
