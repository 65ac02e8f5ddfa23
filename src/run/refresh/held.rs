//! What a process that goes on keeps between its steps, first of all states of maintained models in memory. Each stands for files
//! that hold the same rows: who finds other files named reads those. Knows no rules of models.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};

use super::arranging::Arranging;
use super::beside::Beside;
use super::culprit::Culprits;
use crate::engine::maintain::{Arrangement, Prepared};
use crate::limits;
use crate::run::commit::StateFiles;
use crate::run::key_filters::LoadedFilters;

/// States by model and stage, as far as memory goes.
pub struct HeldStates {
    bytes_max: usize,
    pool: Arc<dyn MemoryPool>,
    states: Mutex<HashMap<(String, usize), Held>>,
    /// What is put together of their files, and of tables'.
    pub(in crate::run) beside: Beside,
    /// What tells where rows of sources can stand.
    pub(in crate::run) filters: Arc<LoadedFilters>,
    /// Plans of small changes.
    pub(super) prepared: Arc<Prepared>,
    /// Large states that are being read.
    pub(super) arranging: Arranging,
    /// What made models fail.
    pub(super) culprits: Culprits,
}

struct Held {
    files: StateFiles,
    rows: Arrangement,
    /// Its size as it was kept: finding it out looks at every buffer.
    bytes: usize,
}

impl HeldStates {
    /// None yet; their share of the engine's memory, so many bytes that a pool counts.
    pub fn new((memory_bytes, pool): (usize, &Arc<dyn MemoryPool>)) -> Self {
        let bytes_max = memory_bytes / 100 * limits::ARRANGED_PERCENT;
        Self {
            bytes_max,
            pool: Arc::clone(pool),
            states: Mutex::default(),
            beside: Beside::default(),
            filters: Arc::default(),
            prepared: Arc::default(),
            arranging: Arranging::default(),
            culprits: Culprits::default(),
        }
    }

    /// Takes out a stage's state, if it is that of `files`.
    pub(super) fn take(&self, model: &str, stage: usize, files: &StateFiles) -> Option<Arrangement> {
        let held = self.states().remove(&(model.to_owned(), stage))?;
        (held.files == *files).then_some(held.rows)
    }

    /// Keeps a stage's state, if there is room for it.
    pub(super) fn keep(&self, model: &str, stage: usize, files: StateFiles, rows: Arrangement) {
        let bytes = rows.bytes();
        if self.has_room(bytes) {
            self.states().insert((model.to_owned(), stage), Held { files, rows, bytes });
        }
    }

    /// Lets go of a stage's state: another model's stands for it.
    pub(super) fn forget(&self, model: &str, stage: usize) {
        self.states().remove(&(model.to_owned(), stage));
    }

    /// Memory for a state of so many bytes, where it fits beside the others and the pool has it.
    pub(super) fn reserve(&self, bytes: usize) -> Option<MemoryReservation> {
        let memory = MemoryConsumer::new("a state between steps").register(&self.pool);
        (self.has_room(bytes) && memory.try_grow(bytes).is_ok()).then_some(memory)
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.bytes().saturating_add(self.arranging.bytes()).saturating_add(bytes) <= self.bytes_max
    }

    /// Gives up what is being done beside the steps.
    pub(in crate::run) fn give_up(&self) {
        self.beside.give_up();
        self.arranging.give_up();
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.states().values().map(|held| held.bytes).sum()
    }

    fn states(&self) -> std::sync::MutexGuard<'_, HashMap<(String, usize), Held>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
