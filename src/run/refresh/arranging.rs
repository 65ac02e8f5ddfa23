//! Large states on their way into memory beside the steps of a process that goes on, which read their files meanwhile. Knows no plans.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::background::Work;
use crate::engine::maintain::Arrangement;
use crate::error::Result;
use crate::run::commit::StateFiles;
use crate::table::DataFile;

/// What is being read, by model and stage.
#[derive(Default)]
pub(in crate::run) struct Arranging(Mutex<HashMap<(String, usize), Under>>);

struct Under {
    files: StateFiles,
    bytes: usize,
    work: Work<Result<Arrangement>>,
}

impl Arranging {
    /// Begins to read a state of so many bytes.
    pub(super) fn begin(
        &self,
        (model, stage): (&str, usize),
        (files, bytes): (&StateFiles, usize),
        work: impl Future<Output = Result<Arrangement>> + Send + 'static,
    ) {
        let under = Under { files: files.clone(), bytes, work: Work::begin_yielding(work) };
        self.under().insert((model.to_owned(), stage), under);
    }

    /// What was read, and the changes that the state has had since; none while it is being read, or where it isn't the same any more.
    pub(super) async fn finished(
        &self,
        (model, stage): (&str, usize),
        state: &StateFiles,
    ) -> Option<(Arrangement, Vec<DataFile>)> {
        let (place, under) = {
            let mut all = self.under();
            let place = (model.to_owned(), stage);
            let under = all.get(&place)?;
            if under.files.beyond(state).is_some() && !under.work.is_finished() {
                return None;
            }
            all.remove(&place).map(|under| (place, under))?
        };
        let since = under.files.beyond(state)?;
        match under.work.outcome().await.and_then(|rows| rows) {
            Ok(rows) => Some((rows, since)),
            Err(error) => {
                tracing::warn!(model = place.0, %error, "a state wasn't read into memory");
                None
            }
        }
    }

    /// Whether a stage's state is being read.
    pub(super) fn is_under_way(&self, (model, stage): (&str, usize)) -> bool {
        self.under().contains_key(&(model.to_owned(), stage))
    }

    /// Bytes of what is being read.
    pub(super) fn bytes(&self) -> usize {
        self.under().values().map(|under| under.bytes).sum()
    }

    /// Gives up what is under way.
    pub(super) fn give_up(&self) {
        self.under().clear();
    }

    fn under(&self) -> MutexGuard<'_, HashMap<(String, usize), Under>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateFiles {
    /// The changes of `later` that this hasn't, where it is the same state before them.
    fn beyond(&self, later: &Self) -> Option<Vec<DataFile>> {
        let is_same = self.of == later.of && self.base == later.base && self.let_go == later.let_go;
        later.changes.strip_prefix(self.changes.as_slice()).filter(|_| is_same).map(<[_]>::to_vec)
    }
}
