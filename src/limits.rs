//! Every bound of a queue, buffer, cache or retry: unit in the name, reason in the doc.

/// Rows in a batch that a decoder or a plan hands on: large enough to spread per-batch cost, small enough for the cache.
pub const BATCH_ROWS: usize = 8192;

/// Rows of generated events made and written as one piece: enough to spread the cost of a piece, few enough that the pieces
/// in flight, two a core, stay under 100 MB.
pub const GENERATED_EVENTS_PER_CHUNK: u64 = 65_536;

/// Orders made and written as one piece, each with its customer, items, payments and review: about 8 MB of text.
pub const GENERATED_ORDERS_PER_CHUNK: usize = 16_384;

/// Orders held at once while they are sorted by time, 16 bytes each. Customers are played again for each such window.
pub const GENERATED_ORDERS_PER_WINDOW: u64 = 4_000_000;

/// Customers played from one random stream.
pub const GENERATED_CUSTOMERS_PER_CHUNK: u64 = 16_384;

/// Orders of one generated customer at most: a bound on one customer's work, far above what rates give.
pub const GENERATED_ORDERS_PER_CUSTOMER: u16 = 1_000;

/// Pieces in flight for each core: one made while another waits to be written.
pub const GENERATED_CHUNKS_PER_CORE: usize = 2;

/// Products of a generated shop at most: the catalog is held in memory, about 100 bytes each.
pub const GENERATED_PRODUCTS_MAX: u64 = 500_000;
