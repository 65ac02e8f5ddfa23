//! `/metrics` for Prometheus and `/healthz`, over HTTP/1.1. Knows no commits: what it tells is text that others make.

use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::run::metrics::Metrics;
use crate::run::reader::Reader;

/// What is told.
pub struct Monitor {
    /// Numbers of this process.
    pub metrics: Arc<Metrics>,
    /// What reads the commits beside them.
    pub reader: Arc<Reader>,
}

/// As Prometheus names the format: its own text form, with an end that says that nothing is missing.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers until `shutdown` resolves, then finishes what was asked, within [`limits::HTTP_DRAIN_SECONDS`].
///
/// # Errors
/// External, when the server stops by itself.
pub async fn serve(
    listener: TcpListener,
    monitor: Monitor,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let routes = Router::new().route("/metrics", get(metrics)).route("/healthz", get(healthz));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let asked = async move {
        shutdown.await;
        // Who listens is the drain below, and it is gone only with the server.
        let _ = stop.send(());
    };
    let server = axum::serve(listener, routes.with_state(Arc::new(monitor))).with_graceful_shutdown(asked);
    let drain = async {
        // A sender that is gone has ended the server, too.
        let _ = stopped.await;
        tokio::time::sleep(Duration::from_secs(limits::HTTP_DRAIN_SECONDS)).await;
    };
    tokio::select! {
        ended = server.into_future() => ended.external("the HTTP server stopped"),
        () = drain => Ok(()),
    }
}

async fn metrics(State(monitor): State<Arc<Monitor>>) -> Response {
    match monitor.metrics.text(&monitor.reader).await {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => unavailable(&error),
    }
}

/// The process is there and its warehouse can be read.
async fn healthz(State(monitor): State<Arc<Monitor>>) -> Response {
    match monitor.reader.snapshot().await {
        Ok(_) => "ok\n".into_response(),
        Err(error) => unavailable(&error),
    }
}

fn unavailable(error: &Error) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
}
