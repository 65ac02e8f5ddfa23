//! What the parts of a change hold in memory, counted in the pool that plans share. Knows no rows.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, RecordBatch};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};

use super::contexts::Contexts;
use crate::error::{Error, Result};

const TOO_LARGE: &str = "a change is too large to be held in memory";

/// Whether [`Memory::take`] refused.
pub(super) fn is_too_large(error: &Error) -> bool {
    error.to_string().starts_with(TOO_LARGE)
}

/// Bytes of a batch's rows. Buffers that it shares with other batches count by the part that it has of them: aggregates hand their
/// result on in slices.
pub(super) fn bytes_of(batch: &RecordBatch) -> usize {
    let bytes = |column: &ArrayRef| column.to_data().get_slice_memory_size();
    batch.columns().iter().map(|column| bytes(column).unwrap_or_else(|_| column.get_array_memory_size())).sum()
}

/// The bytes that one change holds, until it is dropped.
#[derive(Clone)]
pub(super) struct Memory {
    part_bytes_max: Option<usize>,
    held: Arc<MemoryReservation>,
}

impl Memory {
    /// Nothing yet. Parts may have so many bytes, as far as the pool has room; without a bound nothing is refused.
    pub(super) fn new(contexts: &Contexts, part_bytes_max: Option<usize>) -> Self {
        let held = MemoryConsumer::new("a change").register(&contexts.any().runtime_env().memory_pool);
        Self { part_bytes_max, held: Arc::new(held) }
    }

    /// Whether a change may be refused.
    pub(super) fn is_bounded(&self) -> bool {
        self.part_bytes_max.is_some()
    }

    /// Counts `more` bytes of a part that holds `bytes` with them.
    ///
    /// # Errors
    /// The change is too large.
    pub(super) fn take(&self, bytes: usize, more: usize) -> Result<()> {
        let Some(part_bytes_max) = self.part_bytes_max else {
            self.held.grow(more);
            return Ok(());
        };
        if bytes > part_bytes_max || self.held.try_grow(more).is_err() {
            return Err(Error::external(TOO_LARGE));
        }
        Ok(())
    }
}
