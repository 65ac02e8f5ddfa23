//! Every bound of a queue, buffer, cache or retry: unit in the name, reason in the doc.

/// Rows in a batch that a decoder or a plan hands on: large enough to spread per-batch cost, small enough for the cache.
pub const BATCH_ROWS: usize = 8192;

/// Requests to the warehouse's store in flight from one call: enough to hide an object store's latency, few enough for a disk.
pub const CONCURRENT_REQUESTS: usize = 16;

/// Bytes after which a data file is closed and the next begun: large enough for scans, small enough to rewrite.
pub const DATA_FILE_BYTES: usize = 128 << 20;

/// Rows in a row group: the unit that readers skip and share among cores.
pub const ROW_GROUP_ROWS: usize = 1 << 20;

/// Encoded bytes that one stream may keep in unfinished row groups over all its open files; beyond, the largest is finished.
pub const WRITE_BUFFER_BYTES: usize = 128 << 20;

/// Files that one stream keeps open, one a partition value; beyond, the one with the most bytes is closed.
pub const OPEN_FILES: usize = 256;

/// Bytes of rows that one stream holds back before it opens a file: what ends sooner goes into one file with the others.
pub const SMALL_STREAM_BYTES: usize = 8 << 20;

/// Tries of one Delta commit that others keep getting ahead of. Only followers of the same pipeline write our tables.
pub const DELTA_COMMIT_TRIES: usize = 10;

/// How long a table's log, and the files that it no longer names, are kept, as Delta writes it.
pub const DELTA_LOG_RETENTION: &str = "interval 7 days";

/// How long commit records and files that nothing names any longer are kept: as long as the tables' logs.
pub const RETENTION: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 60 * 60);

/// Tables that follow a record at the same time: each is a few small requests.
pub const FOLLOWED_TABLES: usize = 8;

/// How often a waiting process looks whether a lease has become free: soon enough for a person, rare enough for a store.
pub const LEASE_POLL: std::time::Duration = std::time::Duration::from_millis(250);

/// Tries to swap a lease that others swap at the same time.
pub const LEASE_SWAP_TRIES: usize = 10;

/// Runs that the history keeps, one small file each.
pub const RUNS_KEPT: usize = 2000;
