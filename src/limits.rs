//! Every bound of a queue, buffer, cache or retry: unit in the name, reason in the doc.

/// Rows in a batch that a decoder or a plan hands on: large enough to spread per-batch cost, small enough for the cache.
pub const BATCH_ROWS: usize = 8192;

/// Share of the machine's (or the container's) memory that plans may use, in percent: the rest is for the system's file
/// cache, decoders, network buffers and what operators don't account for.
pub const ENGINE_MEMORY_PERCENT: u64 = 60;

/// Least memory that plans get by default, in bytes: below it, even small sorts of wide rows would spill.
pub const MEMORY_FLOOR_BYTES: u64 = 64 << 20;

/// Consumers that an out-of-memory error names: enough to see the culprit, few enough to read.
pub const MEMORY_CONSUMERS_NAMED: usize = 3;

/// Bytes of spilled rows on disk at once, over all plans of a process: a runaway join ends before most disks are full.
pub const SPILL_BYTES: u64 = 512 << 30;

/// Rows of a printed table that decide its columns' widths: more than anyone reads, and little memory.
pub const TABLE_MEASURED_ROWS: usize = 10_000;
