//! Every bound of a queue, buffer, cache or retry: unit in the name, reason in the doc.

/// Rows in a batch that a decoder or a plan hands on: large enough to spread per-batch cost, small enough for the cache.
pub const BATCH_ROWS: usize = 8192;

/// Bytes read at once from a file: enough to hide the cost of a call.
pub const READ_BYTES: usize = 256 * 1024;

/// Bytes of one record of a text file: an unclosed quote must not swallow memory.
pub const RECORD_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of stack of a worker thread: planning deep SQL recurses, more so in debug builds.
pub const THREAD_STACK_BYTES: usize = 16 * 1024 * 1024;
