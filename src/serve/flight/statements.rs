//! What clients have open: pinned statements, prepared ones, running queries. Bounded, and forgotten in time.
//! Knows no SQL and no network.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use tokio_util::sync::CancellationToken;

use super::sqlstate::{SqlError, SqlResult};
use crate::limits;

/// A statement planned over a snapshot that stays pinned until it is fetched.
pub(super) struct Pinned {
    /// Its handle and the query's id.
    pub id: String,
    /// As the client wrote it.
    pub sql: String,
    /// When it arrived, microseconds since 1970 UTC.
    pub started_at_us: i64,
    /// The same, to measure by.
    pub started: Instant,
    /// The snapshot.
    pub session: SessionContext,
    /// One execution after another.
    pub plans: Vec<LogicalPlan>,
    /// Schema on the wire.
    pub schema: SchemaRef,
}

/// A prepared statement.
#[derive(Clone)]
pub(super) struct Prepared {
    /// As the client wrote it.
    pub sql: String,
    /// Its parameters.
    pub parameters: Arc<Schema>,
    /// Rows bound last.
    pub bound: Vec<RecordBatch>,
}

/// All that is open.
#[derive(Default)]
pub(super) struct Statements {
    pinned: Mutex<Expiring<Pinned>>,
    prepared: Mutex<Expiring<Prepared>>,
    running: Mutex<HashMap<String, CancellationToken>>,
}

/// Whether there was something to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cancelled {
    /// It hadn't begun, and won't.
    Forgotten,
    /// It runs, and is being stopped.
    Stopping,
}

impl Statements {
    /// Keeps a statement until it is fetched.
    pub fn pin(&self, statement: Pinned) -> SqlResult<()> {
        let ttl = Duration::from_secs(limits::FLIGHT_STATEMENT_TTL_SECONDS);
        lock(&self.pinned).insert(statement.id.clone(), statement, ttl, "statements that were not fetched")
    }

    /// Takes a statement out to run it: once.
    pub fn take(&self, id: &str) -> SqlResult<Pinned> {
        let gone = || SqlError::new("26000", "this statement was already fetched, cancelled, or has expired");
        lock(&self.pinned).remove(id).ok_or_else(gone)
    }

    /// Keeps a prepared statement.
    pub fn prepare(&self, id: String, statement: Prepared) -> SqlResult<()> {
        lock(&self.prepared).insert(id, statement, prepared_ttl(), "open prepared statements")
    }

    /// A prepared statement; it lives on from now.
    pub fn prepared(&self, id: &str) -> SqlResult<Prepared> {
        lock(&self.prepared).touch(id, prepared_ttl()).map(|found| found.clone()).ok_or_else(unknown_prepared)
    }

    /// Binds rows of parameters.
    pub fn bind(&self, id: &str, rows: Vec<RecordBatch>) -> SqlResult<()> {
        lock(&self.prepared).touch(id, prepared_ttl()).ok_or_else(unknown_prepared)?.bound = rows;
        Ok(())
    }

    /// Closes a prepared statement; closing twice is harmless.
    pub fn close(&self, id: &str) {
        lock(&self.prepared).remove(id);
    }

    /// Registers a running query; [`finish`](Self::finish) takes it out.
    pub fn start(&self, id: &str) -> CancellationToken {
        let token = CancellationToken::new();
        lock(&self.running).insert(id.to_owned(), token.clone());
        token
    }

    /// A running query has ended.
    pub fn finish(&self, id: &str) {
        lock(&self.running).remove(id);
    }

    /// Stops a query, begun or not.
    pub fn cancel(&self, id: &str) -> Option<Cancelled> {
        if lock(&self.pinned).remove(id).is_some() {
            return Some(Cancelled::Forgotten);
        }
        let token = lock(&self.running).get(id).cloned()?;
        token.cancel();
        Some(Cancelled::Stopping)
    }

    /// Stops all running queries.
    pub fn cancel_all(&self) {
        lock(&self.running).values().for_each(CancellationToken::cancel);
    }

    /// Forgets what has expired.
    pub fn sweep(&self) {
        let now = Instant::now();
        lock(&self.pinned).sweep(now);
        lock(&self.prepared).sweep(now);
    }
}

fn prepared_ttl() -> Duration {
    Duration::from_secs(limits::FLIGHT_PREPARED_TTL_SECONDS)
}

fn unknown_prepared() -> SqlError {
    SqlError::new("26000", "this prepared statement was closed or has expired")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while one was held leaves a map whole: every change is a single insert or remove.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Expiring<T> {
    entries: HashMap<String, (Instant, T)>,
}

impl<T> Default for Expiring<T> {
    fn default() -> Self {
        Self { entries: HashMap::new() }
    }
}

impl<T> Expiring<T> {
    fn insert(&mut self, id: String, value: T, ttl: Duration, what: &str) -> SqlResult<()> {
        let now = Instant::now();
        if self.entries.len() >= limits::FLIGHT_OPEN_STATEMENTS {
            self.sweep(now);
        }
        if self.entries.len() >= limits::FLIGHT_OPEN_STATEMENTS {
            return Err(SqlError::new("53400", format!("too many {what}: {}", limits::FLIGHT_OPEN_STATEMENTS)));
        }
        self.entries.insert(id, (now + ttl, value));
        Ok(())
    }

    fn touch(&mut self, id: &str, ttl: Duration) -> Option<&mut T> {
        let now = Instant::now();
        let (until, value) = self.entries.get_mut(id)?;
        if *until < now {
            return None;
        }
        *until = now + ttl;
        Some(value)
    }

    fn remove(&mut self, id: &str) -> Option<T> {
        let (until, value) = self.entries.remove(id)?;
        (until >= Instant::now()).then_some(value)
    }

    fn sweep(&mut self, now: Instant) {
        self.entries.retain(|_, (until, _)| *until >= now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_expired_is_gone_and_room_is_bounded() {
        let mut open = Expiring::default();
        open.insert("late".into(), 1, Duration::ZERO, "things").unwrap();
        std::thread::sleep(Duration::from_millis(2));
        assert!(open.touch("late", Duration::ZERO).is_none());
        for n in 0..limits::FLIGHT_OPEN_STATEMENTS {
            // The expired one makes room for the last.
            open.insert(n.to_string(), n, Duration::from_secs(60), "things").unwrap();
        }
        let full = open.insert("more".into(), 0, Duration::from_secs(60), "things").unwrap_err();
        assert_eq!(full.state, "53400");
        assert_eq!(open.remove("7"), Some(7));
        open.insert("more".into(), 0, Duration::from_secs(60), "things").unwrap();
    }
}
