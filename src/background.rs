//! Work beside that of the calling task, by other threads; what no row waits for by one that yields to all others. Knows nothing of
//! what is done.

use std::sync::OnceLock;

use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinError, JoinHandle};

use crate::error::{Error, Result};
use crate::limits;

/// Work under way, given up where this is dropped.
pub struct Work<T>(JoinHandle<T>);

impl<T: Send + 'static> Work<T> {
    /// Begins it on the threads of the runtime that it is called in.
    pub fn begin(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    /// Begins it on a thread that yields to all others: where cores are busy, it takes its time.
    pub fn begin_yielding(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(match runtime() {
            Some(runtime) => runtime.spawn(work),
            None => tokio::spawn(work),
        })
    }

    /// Whether waiting for it takes no time.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for what comes of it.
    ///
    /// # Errors
    /// Internal: it panicked.
    pub async fn outcome(mut self) -> Result<T> {
        (&mut self.0).await.map_err(|e| Error::internal("work beside the steps ended early").caused_by(e))
    }
}

impl<T> Drop for Work<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a task came to; its panic goes on here.
///
/// # Errors
/// Internal: it was ended.
pub fn joined<T>(task: std::result::Result<T, JoinError>) -> Result<T> {
    match task {
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        task => task.map_err(|e| Error::internal("a task ended early").caused_by(e)),
    }
}

/// The process's runtime for such work; none where its threads can't be had.
fn runtime() -> Option<&'static Runtime> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let build = || {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).max_blocking_threads(limits::BACKGROUND_BLOCKING_THREADS).enable_all();
        builder
            .thread_name("background")
            .thread_stack_size(limits::THREAD_STACK_BYTES)
            .on_thread_start(yield_to_others);
        builder.build().map_err(|error| tracing::warn!(%error, "no thread for work beside the steps")).ok()
    };
    RUNTIME.get_or_init(build).as_ref()
}

/// Where that isn't allowed, the thread has the priority of any other.
fn yield_to_others() {
    let priority = ThreadPriorityValue::try_from(limits::BACKGROUND_PRIORITY).map(ThreadPriority::Crossplatform);
    if let Ok(priority) = priority
        && let Err(error) = set_current_thread_priority(priority)
    {
        tracing::debug!(?error, "a thread's priority can't be lowered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_yields_ends_and_is_given_up() {
        let work = Work::begin_yielding(async { std::fs::read_to_string("/proc/thread-self/stat") });
        if let Ok(stat) = work.outcome().await.unwrap() {
            // The nineteenth field; the name in front may have blanks.
            let nice = stat.rsplit(')').next().and_then(|fields| fields.split_whitespace().nth(16));
            assert!(nice.unwrap().parse::<i32>().unwrap() > 0, "{stat}");
        }
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let waiting = Work::begin_yielding(receiver);
        assert!(!waiting.is_finished());
        drop(waiting);
        tokio::time::timeout(std::time::Duration::from_secs(10), async {
            while !sender.is_closed() {
                tokio::task::yield_now().await
            }
        })
        .await
        .unwrap();
    }
}
