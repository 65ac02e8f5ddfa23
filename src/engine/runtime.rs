//! The memory and spill space that plans run in. Knows no plan.

use std::num::NonZeroUsize;
use std::sync::Arc;

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use sysinfo::System;

use crate::error::Result;
use crate::limits::{ENGINE_MEMORY_PERCENT, MEMORY_CONSUMERS_NAMED, MEMORY_FLOOR_BYTES, SPILL_BYTES};

use super::failure;

/// A runtime whose operators share `memory_bytes` and spill to the system's temporary folder beyond it.
///
/// The pool is the fair one: several sorts and aggregates of one plan, or several plans, each get their share and spill,
/// where first come, first served would leave the last with nothing. An error names the largest consumers.
///
/// # Errors
/// External, if the temporary folder can't be used.
pub fn runtime(memory_bytes: u64) -> Result<Arc<RuntimeEnv>> {
    let bytes = usize::try_from(memory_bytes).unwrap_or(usize::MAX);
    let named = NonZeroUsize::new(MEMORY_CONSUMERS_NAMED).unwrap_or(NonZeroUsize::MIN);
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::OsTmpDirectory)
        .with_max_temp_directory_size(SPILL_BYTES);
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(TrackConsumersPool::new(FairSpillPool::new(bytes), named)))
        .with_disk_manager_builder(disk)
        .build_arc()
        .map_err(failure)
}

/// What plans may use unless the user says otherwise: a share of the machine's memory, or of the container's if that is less.
pub fn default_memory_bytes() -> u64 {
    let mut system = System::new();
    system.refresh_memory();
    let container = system.cgroup_limits().map_or(u64::MAX, |limits| limits.total_memory);
    share(system.total_memory(), container)
}

fn share(machine_bytes: u64, container_bytes: u64) -> u64 {
    // A container without a limit reports none of its own, or zero.
    let container_bytes = if container_bytes == 0 { u64::MAX } else { container_bytes };
    (machine_bytes.min(container_bytes) / 100 * ENGINE_MEMORY_PERCENT).max(MEMORY_FLOOR_BYTES)
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::MemoryConsumer;

    use super::*;

    #[test]
    fn the_share_goes_by_the_smaller_of_machine_and_container() {
        const GIB: u64 = 1 << 30;
        assert_eq!(share(100 * GIB, u64::MAX), 60 * GIB);
        assert_eq!(share(100 * GIB, 0), share(100 * GIB, u64::MAX));
        assert_eq!(share(100 * GIB, 10 * GIB), share(10 * GIB, 10 * GIB));
        assert_eq!(share(0, 0), MEMORY_FLOOR_BYTES);
        assert!(default_memory_bytes() >= MEMORY_FLOOR_BYTES);
    }

    #[test]
    fn the_pool_refuses_beyond_its_size_and_names_who_holds_it() {
        let runtime = runtime(1 << 20).unwrap();
        let first = MemoryConsumer::new("hash table").register(&runtime.memory_pool);
        first.try_grow(900 << 10).unwrap();
        let second = MemoryConsumer::new("sort").register(&runtime.memory_pool);
        let refused = failure(second.try_grow(900 << 10).unwrap_err());
        assert!(refused.to_string().contains("hash table"), "{refused}");
    }
}
