//! Every bound of a queue, buffer, cache or retry: unit in the name, reason in the doc.

use std::time::Duration;

/// Rows in a batch that a decoder or a plan hands on: large enough to spread per-batch cost, small enough for the cache.
pub const BATCH_ROWS: usize = 8192;

/// Bytes read at once from a file: enough to hide the cost of a call.
pub const READ_BYTES: usize = 256 * 1024;

/// Bytes of one record of a text file: an unclosed quote must not swallow memory.
pub const RECORD_BYTES: usize = 16 * 1024 * 1024;

/// How long threads may take to end once the work is done: what they do then is of use to nobody.
pub const THREADS_END: Duration = Duration::from_millis(200);

/// Bytes of stack of a worker thread: planning deep SQL recurses, more so in debug builds.
pub const THREAD_STACK_BYTES: usize = 16 * 1024 * 1024;

/// Priority of threads that work on what no row waits for, of 0 to 99 with 50 as the usual: a tenth of a core where all are busy.
pub const BACKGROUND_PRIORITY: u8 = 25;

/// Files that such work reads and writes at a time.
pub const BACKGROUND_BLOCKING_THREADS: usize = 8;

/// Requests to the warehouse's store in flight from one call: enough to hide an object store's latency, few enough for a disk.
pub const CONCURRENT_REQUESTS: usize = 16;

/// Bytes after which a data file is closed and the next begun: large enough for scans, small enough to rewrite.
pub const DATA_FILE_BYTES: usize = 128 << 20;

/// Physical plans of small changes that a process keeps: each model has some tens of them, and each is some kilobytes.
pub const PREPARED_PLANS: usize = 4096;

/// Rows in memory up to which a plan that reads nothing else runs on one core: sharing them would take longer than the work.
pub const NARROW_ROWS: usize = if cfg!(debug_assertions) { 16 } else { 8192 };

/// Rows in a row group: the unit that readers skip and share among cores.
pub const ROW_GROUP_ROWS: usize = 1 << 20;

/// Rows at the beginning of a data file by which it is decided how its columns are encoded: enough to tell numbers that repeat.
pub const ENCODING_ROWS: usize = 8192;

/// Rows of a data file up to which it is written in the way that takes least time, not least space: a step's are far fewer.
pub const FEW_ROWS: usize = 16_384;

/// Times that values of a column come again, from which on a dictionary of them is worth its work.
pub const ENCODED_REPEATS: usize = 4;

/// Encoded bytes that one stream may keep in unfinished row groups over all its open files; beyond, the largest is finished.
pub const WRITE_BUFFER_BYTES: usize = 128 << 20;

/// Bytes below which a data file of a maintained table counts as small.
pub const SMALL_FILE_BYTES: u64 = 8 << 20;

/// Bytes of files that may have a row that goes, up to which all of them are written anew: to look which do takes as long.
pub const UNPROBED_BYTES: u64 = 256 << 10;

/// Values of a key's column in a change, up to which files with rows of theirs are kept apart from those without: windows that
/// are still open, days that are still delivered.
pub const HOT_VALUES: usize = 64;

/// Rows of a change for each such value, at least: else the column tells rows apart and not which of them change.
pub const HOT_ROWS: usize = 4;

/// Small files of about the same size at which they are written anew as one: each costs a reader a request, each rewrite bytes.
pub const SMALL_FILES: usize = 8;

/// Bytes of a table's small files that a step of continuous work puts together itself; more are beside the steps.
pub const STEP_TOGETHER_BYTES: u64 = 1 << 20;

/// Rows of a state that a step of continuous work reads into memory itself; more are read beside the steps. Fewer in debug builds, so that
/// tests meet it.
pub const STEP_ARRANGED_ROWS: u64 = if cfg!(debug_assertions) { 16 } else { 262_144 };

/// Rows of a state that a step of continuous work writes anew itself; more are beside the steps.
pub const STEP_TOGETHER_ROWS: u64 = 16_384;

/// Bits by which the sizes of files that are put together may differ: by a factor of 8, so that each row is written anew once a factor.
pub const SMALL_FILE_CLASS_BITS: u32 = 3;

/// Bytes of rows that one partition of a change may hold in memory between operators; a larger change is computed anew.
pub const CHANGE_BYTES: usize = 256 << 20;

/// The part of a result's rows that a change touches, from 0 to 1, at which the result is run whole over its states: following a change
/// reads what it touches before and after, and compares both. More in debug builds, whose tests' changes are large beside what is there.
pub const WHOLE_SHARE: f64 = if cfg!(debug_assertions) { 0.75 } else { 0.25 };

/// Rows under a result from which on that is asked: below, either way is soon done. Fewer in debug builds, so that tests meet it.
pub const WHOLE_ROWS: f64 = if cfg!(debug_assertions) { 16.0 } else { 262_144.0 };

/// Files with changes of a state at which it is written anew as one.
pub const STATE_CHANGE_FILES: usize = 12;

/// Parts that a state in memory may lie in before it is put together: each step that changes it adds one.
pub const ARRANGED_CHUNKS: usize = 4096;

/// Percent of the engine's memory that states may be held in by a process that goes on; plans and changes have the rest for sure.
pub const ARRANGED_PERCENT: usize = 25;

/// Bytes that a value of a state takes in memory, its share of the index included; by it is told beforehand whether a state fits.
pub const ARRANGED_VALUE_BYTES: u64 = 24;

/// Files that one stream keeps open, one a partition value; beyond, the one with the most bytes is closed.
pub const OPEN_FILES: usize = 256;

/// Bytes of rows that one stream holds back before it opens a file: what ends sooner goes into one file with the others.
pub const SMALL_STREAM_BYTES: usize = 8 << 20;

/// Batches of messages that are decoded at the same time: as many as cores are likely to be free, each holds its bytes and rows.
pub const DECODING_BATCHES: usize = 4;

/// Batches between a file's decoder and its writer: both stay busy, memory stays small.
pub const LANDING_BATCHES: usize = 4;

/// Bytes of rows that a step lands and that its models then read from memory rather than from the file.
pub const LANDED_HELD_BYTES: usize = 64 << 20;

/// Percent of the machine's memory that plans share; the rest is for decoding, encoding, the system and its file cache.
pub const MEMORY_PERCENT: u64 = 60;

/// Largest users of memory that an out-of-memory error names.
pub const REPORTED_CONSUMERS: std::num::NonZeroUsize = std::num::NonZeroUsize::MIN.saturating_add(2);

/// Depth of a YAML file in nested lists and mappings: deeper ones are generated or hostile, and dropping a tree recurses.
pub const YAML_DEPTH_MAX: usize = 64;

/// Lists and structs that a column's type may have in one another: reading a type and its values recurses.
pub const TYPE_DEPTH: usize = 16;

/// Values of a YAML file with its aliases written out: a few lines of aliases can stand for billions of values.
pub const YAML_NODES_MAX: usize = 1_000_000;

/// Defaults within defaults of `${A:-${B:-…}}`: more is a mistake, and reading them recurses.
pub const VARIABLE_DEPTH_MAX: usize = 8;

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

/// Seconds that `generate --kafka` waits for a broker and for the topic: enough for a broker that makes the topic when asked.
pub const GENERATED_TOPIC_SECONDS: u64 = 10;

/// Seconds that a generated message may take to its broker, tries included: longer than a broker's restart.
pub const GENERATED_DELIVERY_SECONDS: u64 = 60;

/// How long a generator sleeps that is ahead of its broker: the client's queue holds many times as many messages.
pub const GENERATED_QUEUE_WAIT: std::time::Duration = std::time::Duration::from_millis(5);

/// Tries of one Delta commit that others keep getting ahead of. Only followers of the same pipeline write our tables.
pub const DELTA_COMMIT_TRIES: usize = 10;

/// How long a table's log, and the files that it no longer names, are kept, as Delta writes it.
pub const DELTA_LOG_RETENTION: &str = "interval 7 days";

/// How long commit records and files that nothing names any longer are kept: as long as the tables' logs.
pub const RETENTION: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 60 * 60);

/// How long the records of steps between two versions of the Delta tables are kept: longer than a reader of another process works
/// on one. Ten a second of them would otherwise fill a folder within days.
pub const STEP_RETENTION: std::time::Duration = std::time::Duration::from_secs(10 * 60);

/// How long a process that saw the newest commit looks for later ones by their numbers instead of listing all: far below
/// [`STEP_RETENTION`], so that none after it can have been deleted.
pub const COMMITS_SEEN: std::time::Duration = std::time::Duration::from_secs(60);

/// Unchanging files of which a process remembers what it read: the newest record of each of some pipelines, and those that they
/// refer to. One is up to some hundred kilobytes.
pub const PARSED_FILES: usize = 16;

/// How long landed rows that no kept version hangs on stay on disk: as long as a run may take that is reading them.
pub const READ_RETENTION: std::time::Duration = std::time::Duration::from_secs(60 * 60);

/// Tables that follow a record at the same time: each is a few small requests.
pub const FOLLOWED_TABLES: usize = 8;

/// How often a waiting process looks whether a lease has become free: soon enough for a person, rare enough for a store.
pub const LEASE_POLL: std::time::Duration = std::time::Duration::from_millis(250);

/// How long the lock under which a lease is changed is waited for: each change takes milliseconds, and who holds it longer was
/// stopped amid one.
pub const LEASE_LOCK: std::time::Duration = std::time::Duration::from_secs(5);

/// How often a waiting process tries to lock: about as long as one change takes.
pub const LEASE_LOCK_POLL: std::time::Duration = std::time::Duration::from_millis(2);

/// Tries to swap a lease that others swap at the same time.
pub const LEASE_SWAP_TRIES: usize = 10;

/// Runs that the history keeps, one small file each.
pub const RUNS_KEPT: usize = 2000;

/// How long a look at the commits serves further queries: many queries cost one look, and each is fresh within a second.
pub const SNAPSHOT_TTL: std::time::Duration = std::time::Duration::from_millis(250);

/// Runs that `status` and the system tables look back on.
pub const LISTED_RUNS: usize = 1000;

/// Lines of a JSON file whose keys `plan` holds against the contract: a glance, not a reading.
pub const GLANCE_ROWS: usize = 100;

/// Bytes that such a glance takes at most, however long the lines are.
pub const GLANCE_BYTES: u64 = 1 << 20;

/// Ignored columns that `plan` names in text: more of them are data rather than names.
pub const NAMED_COLUMNS: usize = 20;

/// Rows of a text file that `init --from` goes by: enough to meet a day above the twelfth, few enough to be read at once.
pub const SAMPLE_ROWS: usize = 10_000;

/// Bytes of a text file that `init --from` goes by, however long its rows are.
pub const SAMPLE_BYTES: usize = 32 << 20;

/// Columns that `init --from` proposes: beyond, keys of the rows are data rather than names.
pub const SAMPLE_COLUMNS: usize = 2000;

/// Fields that a struct is proposed with: objects with more members are more likely looked up by name.
pub const SAMPLE_FIELDS: usize = 50;

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

/// Seconds that HTTP requests get to finish at shutdown: each is a small text.
pub const HTTP_DRAIN_SECONDS: u64 = 5;

/// Queries that the log of a server keeps, the newest ones.
pub const LOGGED_QUERIES: usize = 1000;

/// Rows that a printed table is measured by before its first line is written: later ones may be wider.
pub const TABLE_MEASURED_ROWS: usize = 10_000;

/// The shortest pause between two looks of `query --watch`: each reads a small file a pipeline, or is a query to a server.
pub const WATCH_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// How often `query --watch` looks for new commits: at once to an eye, rare enough for a store.
pub const WATCH_LOOK: Duration = Duration::from_millis(250);

/// How often `query --watch` asks a server again.
pub const WATCH_ASK: Duration = Duration::from_secs(1);

/// Bytes of a result that `query --watch` holds to compare it with the one before: more is nothing to watch.
pub const WATCHED_BYTES: usize = 64 << 20;

/// Windows that one row may stand in under `hop(ts, slide, size)`: each is a row of its own on the way to the groups.
pub const HOP_WINDOWS_PER_ROW_MAX: i64 = 10_000;

/// Bytes of a name of a pipeline, source or model: with what is put behind it, it is the name of a file or folder, which has 255.
pub const NAME_BYTES_MAX: usize = 200;

/// Faults of names looked for in one SQL: each costs planning it once more.
pub const NAME_FAULTS_PER_SQL_MAX: usize = 50;

/// Sub-expressions planned one by one to find the one that a type fault is in; past this the whole query is pointed at.
pub const FAULT_PROBES_PER_SQL_MAX: usize = 2_000;

/// Differing rows that `verify` holds to pair those that differ in the last digits of floats alone.
pub const VERIFY_ROWS: usize = 1_000_000;

/// Differing rows of a table that `verify` prints.
pub const VERIFY_SAMPLE_ROWS: usize = 20;

/// Kilobytes of messages that a Kafka client fetches ahead of their decoding, for all partitions of a topic.
pub const KAFKA_QUEUE_KILOBYTES: u32 = 64 * 1024;

/// Milliseconds that a Kafka client rests when its queue is full: a client's own second would leave a fast reader idle.
pub const KAFKA_QUEUE_BACKOFF_MS: u32 = 5;

/// Milliseconds that a broker may hold a fetch back where there is nothing to send: the price of an idle topic is a request
/// each time.
pub const KAFKA_FETCH_WAIT_MS: u32 = 50;

/// How long brokers may take to answer a question about topics and offsets.
pub const KAFKA_ANSWER: Duration = Duration::from_secs(30);

/// How long a first question waits until it is looked whether brokers refuse the client, which no waiting mends.
pub const KAFKA_ASKED: Duration = Duration::from_secs(3);

/// How long one call of the client waits for a message.
pub const KAFKA_POLL: Duration = Duration::from_millis(100);

/// How long brokers may send nothing of a range that they hold before reading fails: longer than a broker's restart.
pub const KAFKA_SILENCE: Duration = Duration::from_secs(60);

/// How long a Kafka client may take to close, which takes milliseconds while brokers answer: the process may be asked to end.
pub const KAFKA_CLOSING: Duration = Duration::from_secs(3);

/// How often `up` brings Delta tables up to the commits: each costs every table a log entry.
pub const PUBLISH_INTERVAL: Duration = Duration::from_secs(60);

/// How often `up` writes its steps through to the disk: what a power cut may take back, and its topics give again.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// How long `up` drains when it is asked to end: less than the half minute after which containers are killed.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(25);

/// How long `up` rests between looks for new messages.
pub const LINGER: Duration = Duration::from_millis(50);

/// How often `up` lists the files of a source.
pub const FILES_LOOK: Duration = Duration::from_secs(1);

/// How long the other sources wait for one that is looked at; at the start, when all is to be brought up to date, and then.
pub const LOOK_PATIENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(250));

/// How often `up` looks at a rule that time alone can break: a quarter of what the rule allows, from the first to the second.
pub const CLOCK_LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long `up` leaves alone what failed; of a model that goes on failing for what may pass, the longest of its pauses.
pub const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// See [`RETRY_PAUSE`]. What it costs is the work of a try that fails.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(300);

/// How long a partition whose end was told may still send messages that came before.
pub const KAFKA_SETTLE: Duration = Duration::from_millis(20);

/// Messages that one step takes of a topic that is followed: what each costs beside its bytes is some hundred bytes.
pub const KAFKA_STEP_MESSAGES: usize = 200_000;

/// Bytes of keys and values that one step takes of a topic that is followed, but for the last message: they stand in memory.
pub const KAFKA_STEP_BYTES: usize = 64 << 20;

/// How often brokers are asked for new partitions of a topic that is followed.
pub const KAFKA_TOPIC_LOOK: Duration = Duration::from_secs(10);

/// How long a transaction of a sink may stay open: readers wait for it if its process dies and doesn't come back.
pub const KAFKA_TRANSACTION: Duration = Duration::from_secs(300);

/// Batches of a change that wait for a sink.
pub const SINK_BATCHES: usize = 4;

/// How long rows that a sink has staged stay if nobody decides on them: longer than any change takes to be written.
pub const SINK_STAGED: Duration = Duration::from_secs(24 * 3600);

/// Offsets from a partition's end in which a sink's last message is looked for first; ten times as many each time it isn't there.
pub const SINK_LOOK_BACK: i64 = 100;

/// Rows from which on a source's file gets filters of the columns that joins look it up by. Fewer in debug builds, so that tests meet them.
pub const KEY_FILTER_ROWS: u64 = if cfg!(debug_assertions) { 1_000 } else { 16_384 };

/// How often at most a key filter takes a value for one that is there: some two bytes a value.
pub const KEY_FILTER_ERROR: f64 = 1e-3;

/// Distinct values that a key filter is laid out for: 64 MiB while it is made. With more of them it errs more often.
pub const KEY_FILTER_VALUES: u64 = 32 << 20;

/// Rows by which it is seen how often values of a column repeat side by side.
pub const KEY_FILTER_WINDOW: u64 = 65_536;

/// Values after which it is seen whether a column's repeat too often for a filter to be of use.
pub const KEY_FILTER_LOOKED_AT: u64 = 4_096;

/// How often values may repeat.
pub const KEY_FILTER_REPEATS: u64 = 32;

/// Values that may be there which are named in a plan, so that it reads only the parts of files whose bounds have one of them:
/// the engine looks at no more.
pub const KEYS_NAMED: usize = 20;

/// Bytes of key filters that a process holds from step to step: some two bytes a row of what joins look up.
pub const KEY_FILTERS_BYTES: usize = 256 << 20;

/// How long the row is looked for that made a model fail: a run has failed anyway, and who reads why shouldn't wait for long.
pub const SUSPECT_SEARCH: Duration = Duration::from_secs(10);

/// The same in a step of continuous work, which other models wait for.
pub const STEP_SUSPECT_SEARCH: Duration = Duration::from_secs(2);

/// How long a step doesn't look for it again where nothing tells whether it is still the same.
pub const SUSPECT_PAUSE: Duration = Duration::from_secs(60);

/// Rows that are held at once while it is looked for: enough to spread the cost of a plan, few enough for memory.
pub const SUSPECT_ROWS: usize = 65_536;

/// Columns of a row that an error shows: enough to know it by.
pub const SHOWN_COLUMNS: usize = 5;

/// Characters of each value that an error shows, so that a long text doesn't hide the rest.
pub const SHOWN_CHARACTERS: usize = 80;
