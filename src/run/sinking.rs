//! Brings sinks up to the commits of a process that goes on, beside its steps. Knows no connector.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::commit::CommitChain;
use super::durable::Durable;
use super::project::{OpenProject, OpenSink};
use super::refresh::Observer;
use super::sinks::{self, Asking};
use crate::error::{ErrorKind, Result};
use crate::limits;
use crate::table::Warehouse;

/// All sinks of a project.
pub(in crate::run) struct Sinking<'a> {
    open: &'a OpenProject,
    durable: &'a Durable,
    warehouse: Warehouse,
    observer: &'a dyn Observer,
    /// Those that are being brought up to a commit or couldn't be: model and name.
    behind: Mutex<BTreeSet<(&'a str, &'a str)>>,
}

impl<'a> Sinking<'a> {
    /// Nothing yet.
    pub(in crate::run) fn new(
        open: &'a OpenProject,
        durable: &'a Durable,
        warehouse: Warehouse,
        observer: &'a dyn Observer,
    ) -> Self {
        Self { open, durable, warehouse, observer, behind: Mutex::default() }
    }

    /// Brings each sink up to each commit that `commits` tells of, until there are no more, and then to the last one. A sink that
    /// fails is tried again, and holds no other one.
    ///
    /// # Errors
    /// Kind `Lease`: another process publishes to one of them.
    pub(in crate::run) async fn follow(&self, commits: watch::Receiver<u64>) -> Result<()> {
        let all = self.open.sinks.iter().map(|sink| self.publish_to(sink, commits.clone()));
        futures::future::try_join_all(all).await.map(drop)
    }

    /// What is to be said of the sinks that aren't at the last commit; none where all of them are.
    pub(in crate::run) fn told_behind(&self) -> Option<String> {
        let behind = self.behind();
        let names: Vec<String> = behind.iter().map(|(model, name)| format!("`{name}` of `{model}`")).collect();
        match names.as_slice() {
            [] => None,
            [name] => Some(format!("the sink {name} is behind and goes on at the next start")),
            names => Some(format!("the sinks {} are behind and go on at the next start", names.join(", "))),
        }
    }

    async fn publish_to(&self, sink: &'a OpenSink, mut commits: watch::Receiver<u64>) -> Result<()> {
        let chain = CommitChain::open(&self.warehouse, &sink.pipeline);
        let stands = |has_failed| self.observer.sink_stands(&sink.model, &sink.name, has_failed);
        // A note that can't be read says nothing; the first try does.
        let note = sinks::note_of(&self.warehouse, &sink.pipeline, sink).await.ok().flatten();
        stands(note.is_some_and(|note| note.failing.is_some()));
        let mut told = None;
        loop {
            let is_last = commits.has_changed().is_err();
            commits.mark_unchanged();
            self.behind().insert((&sink.model, &sink.name));
            let failed = match self.bring_up(sink, &chain).await {
                Ok(()) => {
                    told = None;
                    self.behind().remove(&(sink.model.as_str(), sink.name.as_str()));
                    false
                }
                Err(error) if error.kind() == ErrorKind::Lease => return Err(error),
                Err(error) => {
                    let text = error.to_string();
                    if told.replace(text.clone()) != Some(text) {
                        self.observer.failed(&sink.model, &error);
                    }
                    true
                }
            };
            stands(failed);
            if is_last {
                return Ok(());
            }
            match failed {
                true => drop(tokio::time::timeout(limits::RETRY_PAUSE, gone(&mut commits)).await),
                // An error says that there are no more: once again, for what came last.
                false => drop(commits.changed().await),
            }
        }
    }

    async fn bring_up(&self, sink: &OpenSink, chain: &CommitChain) -> Result<()> {
        let Some(record) = self.durable.newest(chain).await? else { return Ok(()) };
        sinks::follow(self.open, &self.warehouse, chain, &record, sink, Asking::IfBehind).await.map(drop)
    }

    fn behind(&self) -> MutexGuard<'_, BTreeSet<(&'a str, &'a str)>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until nobody tells of commits any more.
async fn gone(commits: &mut watch::Receiver<u64>) {
    while commits.changed().await.is_ok() {}
}
