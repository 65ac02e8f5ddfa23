//! Every bound of a queue, buffer, cache or retry: unit in the name, reason in the doc.

/// Rows in a batch that a decoder or a plan hands on: large enough to spread per-batch cost, small enough for the cache.
pub const BATCH_ROWS: usize = 8192;

/// Flight queries that run at once; further ones wait. Each holds memory and file handles for as long as its client reads.
pub const FLIGHT_RUNNING_QUERIES: usize = 64;

/// Seconds that a Flight query waits for its turn before it is refused: below the minute at which clients give up.
pub const FLIGHT_QUEUE_SECONDS: u64 = 30;

/// Flight statements announced but not yet fetched, and prepared statements, of each kind. A pinned one keeps its snapshot alive.
pub const FLIGHT_OPEN_STATEMENTS: usize = 4096;

/// Seconds until a Flight statement that wasn't fetched is forgotten: a client fetches at once.
pub const FLIGHT_STATEMENT_TTL_SECONDS: u64 = 300;

/// Seconds until an unused prepared statement is forgotten: a tool left open over a working day keeps its own.
pub const FLIGHT_PREPARED_TTL_SECONDS: u64 = 12 * 3600;

/// Seconds until the options of an unused client session are forgotten.
pub const FLIGHT_SESSION_TTL_SECONDS: u64 = 12 * 3600;

/// Client sessions with options of their own; beyond, the oldest goes.
pub const FLIGHT_SESSIONS: usize = 4096;

/// Rows of parameters bound to one prepared statement: each runs the query once more.
pub const FLIGHT_PARAMETER_ROWS: usize = 1024;

/// Bytes of a message from a client (SQL, parameters).
pub const FLIGHT_REQUEST_BYTES: usize = 16 << 20;

/// Bytes of data in a message to a client: gRPC libraries refuse 4 MiB by default; headers need some.
pub const FLIGHT_MESSAGE_BYTES: usize = 2 << 20;

/// Batches of a query made ahead of the network: enough to overlap the two, few enough that a slow client costs little.
pub const FLIGHT_BATCHES_AHEAD: usize = 4;

/// Seconds that a running query may stand still because its client reads nothing; a grid left open must not hold its place for ever.
pub const FLIGHT_IDLE_READER_SECONDS: u64 = 600;

/// Seconds that running queries get to finish at shutdown.
pub const FLIGHT_DRAIN_SECONDS: u64 = 10;

/// Seconds between pings on a quiet connection, so that a client that vanished is noticed.
pub const FLIGHT_PING_SECONDS: u64 = 30;

/// Characters of an error's text sent to a client: gRPC puts it into a header, and headers are limited to 8 KiB in places.
pub const FLIGHT_ERROR_CHARS: usize = 2000;
