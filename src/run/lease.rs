//! Who works on a pipeline. Spares doubled work and cleaning up; what keeps commits right is the create-only record.
//!
//! Knows nothing of what is done under the lease.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::process::ProcessId;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::limits;
use crate::table::{BOOKKEEPING, Warehouse, write_error};

/// What stands in `lease.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    writer: String,
    process: ProcessId,
    /// Microseconds since 1970 UTC; 0 once released.
    expires_at_us: i64,
}

/// A lease on a pipeline, renewed until it is released or dropped.
#[derive(Debug)]
pub struct Lease {
    slot: Slot,
    writer: String,
    state: Arc<State>,
    heartbeat: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    taken: AtomicBool,
    expires_at_us: AtomicI64,
}

impl Lease {
    /// Takes the lease of `pipeline` for `ttl` at a time, waiting up to `wait` for another holder.
    ///
    /// A holder that died on this host is followed at once; any other when its time is over.
    ///
    /// # Errors
    /// Lease, naming the holder: it is held. External: the store.
    pub async fn acquire(warehouse: &Warehouse, pipeline: &str, ttl: Duration, wait: Option<Duration>) -> Result<Self> {
        let slot = Slot {
            warehouse: warehouse.clone(),
            pipeline: pipeline.to_owned(),
            path: format!("{BOOKKEEPING}/{pipeline}/lease.json"),
        };
        let writer = ulid::Ulid::r#gen().to_string();
        let begun = tokio::time::Instant::now();
        let expires_at_us = loop {
            let holder = match slot.swap(|there| there.is_none_or(is_free), &writer, Some(ttl)).await? {
                Swapped::Held(mine) => break mine.expires_at_us,
                Swapped::Refused(holder) => holder,
            };
            if wait.is_none_or(|wait| begun.elapsed() >= wait) {
                return Err(held(pipeline, &holder));
            }
            tokio::time::sleep(limits::LEASE_POLL).await;
        };
        let state = Arc::new(State { taken: AtomicBool::new(false), expires_at_us: AtomicI64::new(expires_at_us) });
        let heartbeat = tokio::spawn(renew(slot.clone(), writer.clone(), ttl, Arc::clone(&state)));
        Ok(Self { slot, writer, state, heartbeat: Some(heartbeat) })
    }

    /// The id that this holder signs commits with; new with each lease.
    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// Whether another may hold the lease by now: it was taken over, or couldn't be renewed in time.
    pub fn is_lost(&self) -> bool {
        self.state.taken.load(Ordering::Acquire)
            || Utc::now().timestamp_micros() >= self.state.expires_at_us.load(Ordering::Acquire)
    }

    /// Gives the lease back, so that the next holder needn't wait. Where that can't be written, the lease runs out by itself,
    /// or goes to the next holder of this host as soon as this process has ended: no reason for a run to fail.
    ///
    /// # Errors
    /// None, so far.
    pub async fn release(mut self) -> Result<()> {
        if let Some(heartbeat) = self.heartbeat.take() {
            heartbeat.abort();
            // Gone before the release, so that it can't renew after it.
            let _ = heartbeat.await;
        }
        if let Err(error) = give_back(&self.slot, &self.writer).await {
            tracing::debug!(%error, "the lease runs out by itself");
        }
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(heartbeat) = self.heartbeat.take() {
            heartbeat.abort();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                let (slot, writer) = (self.slot.clone(), self.writer.clone());
                runtime.spawn(async move {
                    let _ = heartbeat.await;
                    if let Err(error) = give_back(&slot, &writer).await {
                        tracing::debug!(%error, "the lease runs out by itself");
                    }
                });
            }
        }
    }
}

async fn give_back(slot: &Slot, writer: &str) -> Result<()> {
    slot.swap(|there| there.is_some_and(|there| there.writer == writer), writer, None).await.map(drop)
}

async fn renew(slot: Slot, writer: String, ttl: Duration, state: Arc<State>) {
    loop {
        tokio::time::sleep(ttl / 3).await;
        match slot.swap(|there| there.is_some_and(|there| there.writer == writer), &writer, Some(ttl)).await {
            Ok(Swapped::Held(mine)) => state.expires_at_us.store(mine.expires_at_us, Ordering::Release),
            Ok(Swapped::Refused(holder)) => {
                tracing::warn!(pipeline = slot.pipeline, holder = ?holder.process, "the lease was taken over");
                state.taken.store(true, Ordering::Release);
                return;
            }
            // Tried again at the next beat; the lease is lost only when its time is over.
            Err(error) => tracing::warn!(pipeline = slot.pipeline, %error, "the lease couldn't be renewed"),
        }
    }
}

fn after(ttl: Duration) -> i64 {
    Utc::now().timestamp_micros().saturating_add(i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX))
}

fn is_free(holder: &Holder) -> bool {
    holder.expires_at_us <= Utc::now().timestamp_micros() || holder.process.is_dead()
}

fn held(pipeline: &str, holder: &Holder) -> Error {
    let until = DateTime::from_timestamp_micros(holder.expires_at_us).unwrap_or_default();
    Error::new(ErrorKind::Lease, "another process is at work on this pipeline")
        .with("pipeline", pipeline)
        .with("host", &holder.process.host)
        .with("process", holder.process.pid)
        .with("until", format!("{}, unless renewed", until.to_rfc3339_opts(SecondsFormat::Secs, true)))
}

/// The one object that holds a lease, changed only by comparing first.
#[derive(Debug, Clone)]
struct Slot {
    warehouse: Warehouse,
    pipeline: String,
    path: String,
}

/// What came of a try.
enum Swapped {
    /// What was written.
    Held(Holder),
    /// What is there instead.
    Refused(Holder),
}

impl Slot {
    /// Writes that `writer` holds the lease for `ttl` from now on, or without one that it has released it, if `allowed` by what is
    /// there.
    async fn swap(
        &self,
        allowed: impl Fn(Option<&Holder>) -> bool,
        writer: &str,
        ttl: Option<Duration>,
    ) -> Result<Swapped> {
        let _guard = self.lock().await?;
        // The lock may have taken its time.
        let expires_at_us = ttl.map_or(0, after);
        let new = Holder { writer: writer.to_owned(), process: ProcessId::current(), expires_at_us };
        let bytes = serde_json::to_vec(&new).external("a lease can't be written as JSON")?;
        for _ in 0..limits::LEASE_SWAP_TRIES {
            let (there, version) = self.read().await?;
            if !allowed(there.as_ref()) {
                return Ok(Swapped::Refused(there.unwrap_or(new)));
            }
            let mode = match version {
                // Local disk can't compare; there the file lock makes reading and writing one.
                _ if self.warehouse.is_local => PutMode::Overwrite,
                Some(version) => PutMode::Update(version),
                None => PutMode::Create,
            };
            let path = self.warehouse.path(&self.path);
            match self.warehouse.store.put_opts(&path, PutPayload::from(bytes.clone()), mode.into()).await {
                Ok(_) => return Ok(Swapped::Held(new)),
                Err(object_store::Error::Precondition { .. } | object_store::Error::AlreadyExists { .. }) => {
                    // A put of ours that seemed to fail and was repeated finds itself.
                    if self.read().await?.0.as_ref() == Some(&new) {
                        return Ok(Swapped::Held(new));
                    }
                }
                Err(e) => {
                    return Err(write_error(&self.warehouse.shown(&self.path), e));
                }
            }
        }
        Err(Error::new(ErrorKind::Lease, "too many processes want the lease at once").with("pipeline", &self.pipeline))
    }

    async fn read(&self) -> Result<(Option<Holder>, Option<UpdateVersion>)> {
        let failed = |e: object_store::Error| {
            Error::external("the lease can't be read").with("file", self.warehouse.shown(&self.path)).caused_by(e)
        };
        let result = match self.warehouse.store.get(&self.warehouse.path(&self.path)).await {
            Err(object_store::Error::NotFound { .. }) => return Ok((None, None)),
            other => other.map_err(failed)?,
        };
        let version = UpdateVersion { e_tag: result.meta.e_tag.clone(), version: result.meta.version.clone() };
        // Written atomically, so that what can't be read was torn by a power cut: free.
        let holder = serde_json::from_slice(&result.bytes().await.map_err(failed)?).ok();
        Ok((holder, Some(version)))
    }

    /// On local disk: the lock under which `lease.json` is read and written, held by the file's life.
    async fn lock(&self) -> Result<Option<File>> {
        if !self.warehouse.is_local {
            return Ok(None);
        }
        let path = self.warehouse.file(&format!("{BOOKKEEPING}/{}/lease.lock", self.pipeline))?;
        let shown = path.display().to_string();
        match tokio::task::spawn_blocking(move || locked(&path)).await {
            Ok(Ok(file)) => Ok(Some(file)),
            Ok(Err(e)) => Err(write_error(&shown, e)),
            Err(e) => Err(Error::internal("locking the lease ended early").caused_by(e)),
        }
    }
}

/// Locks the file. A process that was stopped while it holds the lock keeps it until it goes on, and nobody may hang on that: after
/// a while another file takes the place of the one that it has.
fn locked(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    loop {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        let until = Instant::now() + limits::LEASE_LOCK;
        let is_locked = loop {
            match file.try_lock() {
                Ok(()) => break true,
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(limits::LEASE_LOCK_POLL),
                Err(TryLockError::WouldBlock) => break false,
                Err(TryLockError::Error(error)) => return Err(error),
            }
        };
        // Else somebody put another one there meanwhile.
        if is_at(&file, path)? {
            return if is_locked { Ok(file) } else { in_its_place(path) };
        }
    }
}

/// Whether the open file is the one that is found there.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (file.metadata()?.dev(), file.metadata()?.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Puts a file of our own in the place of one that is locked, locked already when others find it.
fn in_its_place(path: &Path) -> io::Result<File> {
    tracing::warn!(path = %path.display(), "a process that stands still holds the lock of a lease: it is passed over");
    let own = path.with_extension(format!("lock.{}", ulid::Ulid::r#gen()));
    let file = File::create_new(&own)?;
    file.lock()?;
    std::fs::rename(&own, path)?;
    Ok(file)
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
