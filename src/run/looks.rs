//! Looks for what is new in sources, all at the same time: one whose broker or disk doesn't answer holds none of the others. Knows no
//! pipeline.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::background::joined;
use crate::connect::{Look, Position, Source};
use crate::error::Result;

/// Looks that are under way, and when sources were last looked at.
#[derive(Default)]
pub(super) struct Looks {
    under_way: BTreeMap<String, JoinHandle<Result<Look>>>,
    looked: BTreeMap<String, Instant>,
    silent: BTreeSet<String>,
}

impl Looks {
    /// Whether a source wasn't looked at within `pause`, and isn't being looked at.
    pub(super) fn is_due(&self, source: &str, pause: Duration) -> bool {
        !self.under_way.contains_key(source) && self.looked.get(source).is_none_or(|looked| looked.elapsed() >= pause)
    }

    /// Begins a look at a source that stands at `position`.
    pub(super) fn begin(&mut self, name: &str, source: &Arc<dyn Source>, position: Position) {
        let source = Arc::clone(source);
        let look = tokio::spawn(async move { source.look(&position).await });
        self.under_way.insert(name.to_owned(), look);
    }

    /// What looks came to, and whether the source was silent before: of those that ended meanwhile, and of those of `begun` that end
    /// within `patience`. The others are silent until their look ends, and so are those whose look failed.
    pub(super) async fn ended(&mut self, begun: &[String], patience: Duration) -> Vec<(String, Result<Look>, bool)> {
        let until = tokio::time::Instant::now() + patience;
        let mut ended = Vec::new();
        for (name, look) in &mut self.under_way {
            let outcome = match begun.contains(name) {
                true => tokio::time::timeout_at(until, look).await.ok(),
                false if look.is_finished() => Some(look.await),
                false => None,
            };
            let was_silent = self.silent.contains(name);
            match outcome {
                None => drop(self.silent.insert(name.clone())),
                Some(outcome) => ended.push((name.clone(), joined(outcome).and_then(|look| look), was_silent)),
            }
        }
        for (name, look, _) in &ended {
            self.under_way.remove(name);
            self.looked.insert(name.clone(), Instant::now());
            match look {
                Ok(_) => self.silent.remove(name),
                Err(_) => self.silent.insert(name.clone()),
            };
        }
        ended
    }

    /// Sources that don't answer, or not yet: nothing is to be asked of them now.
    pub(super) fn silent(&self) -> &BTreeSet<String> {
        &self.silent
    }
}
