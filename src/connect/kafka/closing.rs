//! Clients that are kept between calls, and let go of. Closing one may wait for brokers that are away, for ever: nobody waits for
//! that longer than a moment. Knows nothing of what clients do.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::error::{Error, Result};
use crate::limits;

/// A place for a client, which is closed with it.
pub(super) struct Kept<T: Send + 'static>(Mutex<Option<T>>);

impl<T: Send + 'static> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Send + 'static> Kept<T> {
    /// The client that is there, for one call at a time.
    ///
    /// # Errors
    /// Internal: a call before ended amid its work.
    pub(super) fn lock(&self) -> Result<MutexGuard<'_, Option<T>>> {
        self.0.lock().map_err(|_| Error::internal("a Kafka client was left in the middle of its work"))
    }
}

impl<T: Send + 'static> Drop for Kept<T> {
    fn drop(&mut self) {
        if let Some(client) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            close(client);
        }
    }
}

/// Closes a client; one that takes longer than a moment goes on with that beside, until its brokers answer or the process ends.
pub(super) fn close<T: Send + 'static>(client: T) {
    let (done, closed) = channel::<()>();
    let closing = thread::Builder::new().name("kafka-closing".into()).spawn(move || {
        drop(client);
        drop(done);
    });
    if closing.is_ok() && closed.recv_timeout(limits::KAFKA_CLOSING) == Err(RecvTimeoutError::Timeout) {
        tracing::debug!("a Kafka client takes long to close");
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    struct Slow(Duration);

    impl Drop for Slow {
        fn drop(&mut self) {
            thread::sleep(self.0);
        }
    }

    #[test]
    fn closing_is_waited_for_but_not_for_ever() {
        let started = Instant::now();
        close(Slow(Duration::from_millis(50)));
        assert!(started.elapsed() >= Duration::from_millis(50));
        let kept = Kept::default();
        *kept.lock().unwrap() = Some(Slow(Duration::from_secs(600)));
        drop(kept);
        assert!(started.elapsed() < Duration::from_secs(300));
    }
}
