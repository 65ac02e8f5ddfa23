//! Every bound of a queue, buffer, cache or retry: unit in the name, reason in the doc.

/// Rows in a batch that a decoder or a plan hands on: large enough to spread per-batch cost, small enough for the cache.
pub const BATCH_ROWS: usize = 8192;

/// Requests to the warehouse's store in flight from one call: enough to hide an object store's latency, few enough for a disk.
pub const CONCURRENT_REQUESTS: usize = 16;
