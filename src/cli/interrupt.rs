//! SIGINT and SIGTERM: what a command does with them.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use super::Exit;
use crate::error::{Result, ResultExt};

/// Resolves with 130 or 143 when the process is asked to end.
pub(super) async fn asked_to_end() -> Result<Exit> {
    let mut interrupt = signal(SignalKind::interrupt()).external("can't listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).external("can't listen for SIGTERM")?;
    Ok(tokio::select! {
        _ = interrupt.recv() => 130,
        _ = terminate.recv() => 143,
    })
}

/// Runs `work` until it ends or the process is asked to; what was dropped in the middle left nothing visible.
pub(super) async fn or_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<std::result::Result<T, Exit>> {
    tokio::select! {
        result = work => result.map(Ok),
        exit = asked_to_end() => exit.map(Err),
    }
}
