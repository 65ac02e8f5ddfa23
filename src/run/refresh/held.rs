//! States of maintained models in memory, between the steps of a process that goes on. Each stands for files that hold the same
//! rows: who finds other files named reads those. Knows no plans.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::engine::maintain::Arrangement;
use crate::limits;
use crate::run::commit::StateFiles;

/// States by model and stage, as far as memory goes.
pub struct HeldStates {
    bytes_max: usize,
    states: Mutex<HashMap<(String, usize), Held>>,
}

struct Held {
    files: StateFiles,
    rows: Arrangement,
}

impl HeldStates {
    /// None yet; their share of the engine's memory.
    pub fn new(memory_bytes: usize) -> Self {
        Self { bytes_max: memory_bytes / 100 * limits::ARRANGED_PERCENT, states: Mutex::default() }
    }

    /// Takes out a stage's state, if it is that of `files`.
    pub(super) fn take(&self, model: &str, stage: usize, files: &StateFiles) -> Option<Arrangement> {
        let held = self.states().remove(&(model.to_owned(), stage))?;
        (held.files == *files).then_some(held.rows)
    }

    /// Keeps a stage's state, if there is room for it.
    pub(super) fn keep(&self, model: &str, stage: usize, files: StateFiles, rows: Arrangement) {
        if self.has_room(rows.bytes()) {
            self.states().insert((model.to_owned(), stage), Held { files, rows });
        }
    }

    /// Whether a state of so many bytes fits beside the others.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.bytes().saturating_add(bytes) <= self.bytes_max
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.states().values().map(|held| held.rows.bytes()).sum()
    }

    fn states(&self) -> std::sync::MutexGuard<'_, HashMap<(String, usize), Held>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
