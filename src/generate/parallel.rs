//! Work on all cores with results in order. Knows nothing of what the work is.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::error::{Error, Result};

/// So many workers. How many never shows in what they make.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crew {
    /// At least 1.
    pub(super) workers: usize,
}

impl Crew {
    /// One worker a core.
    pub(super) fn of_all_cores() -> Self {
        Self { workers: thread::available_parallelism().map_or(1, NonZero::get) }
    }

    /// `work(0)` to `work(n - 1)`, results in order; the first error in order wins.
    pub(super) fn map<T: Send>(self, n: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
        let threads = self.workers.min(n);
        if threads <= 1 {
            return (0..n).map(work).collect();
        }
        let next = AtomicUsize::new(0);
        let slots: Vec<Mutex<Option<Result<T>>>> = (0..n).map(|_| Mutex::new(None)).collect();
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(slot) = slots.get(i) else { break };
                        let done = work(i);
                        if let Ok(mut slot) = slot.lock() {
                            *slot = Some(done);
                        }
                    }
                });
            }
        });
        let lost = || Error::internal("a piece of generated data was lost");
        slots.into_iter().map(|slot| slot.into_inner().map_err(|_| lost())?.ok_or_else(lost)?).collect()
    }
}
