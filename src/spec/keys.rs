//! Every key of the YAML, declared once: drives unknown-key faults and the JSON Schema.

/// A mapping's keys.
pub(super) struct KeyTable {
    /// What the mapping is, for faults: `a files source`.
    pub(super) of: &'static str,
    /// Keys that this build reads.
    pub(super) keys: &'static [Key],
    /// Those of them that must be there.
    pub(super) required: &'static [&'static str],
    /// Keys of the contract whose feature this build lacks.
    pub(super) lacking: &'static [&'static str],
}

/// One key.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) doc: &'static str,
}

/// What stands under a key, as far as an editor can tell.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    Text,
    Boolean,
    Integer,
    /// `2s`, `1m`, `1h`, `1d`
    Duration,
    OneOf(&'static [&'static str]),
    Names,
    Texts,
    /// Any names, each with a value of this table (or just text).
    MapOf(&'static KeyTable),
    /// A text, or a mapping of this table.
    TextOr(&'static KeyTable),
    /// Any names, each with such a value.
    MapOfTextOr(&'static KeyTable),
    ListOf(&'static KeyTable),
    ListOfTextOr(&'static KeyTable),
    /// Rows of a unit test: a list of mappings, or a mapping of this table.
    Rows(&'static KeyTable),
    /// Names of relations, each with such rows.
    MapOfRows(&'static KeyTable),
    Table(&'static KeyTable),
    /// Any names, each with a text.
    TextMap,
}

impl Shape {
    /// Whether nothing may be written as its value: a list or mapping without entries, an empty table of rows.
    pub(super) fn may_be_empty(self) -> bool {
        !matches!(
            self,
            Shape::Text | Shape::Boolean | Shape::Integer | Shape::Duration | Shape::OneOf(_) | Shape::TextOr(_)
        )
    }
}

const fn key(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { name, shape, doc }
}

use Shape::{
    Boolean, Duration, Integer, ListOf, ListOfTextOr, MapOf, MapOfRows, MapOfTextOr, Names, OneOf, Rows, Table, Text,
    TextMap, TextOr, Texts,
};

pub(super) const PROJECT: KeyTable = KeyTable {
    of: "tidemill.yaml",
    keys: &[
        key("version", Integer, "Version of this format: 1"),
        key("name", Text, "Catalog that SQL clients see"),
        key("warehouse", Text, "Where tables are kept: a folder or s3://, gs://, az:// URL"),
        key("timezone", Text, "IANA zone of schedules, now() and every timestamptz; default UTC"),
        key("params", MapOf(&PARAM), "Typed parameters, $name in SQL"),
        key("flight", Table(&FLIGHT), "Arrow Flight SQL server"),
        key("kafka", Table(&KAFKA), "Kafka for sinks that name no brokers"),
        key("console", Table(&CONSOLE), "HTTP server of `up`: /metrics for Prometheus, /healthz; off without this key"),
        key("lease_ttl", Duration, "How long a silent process holds its tables; default 30s"),
        key("linger", Duration, "`up`: how long it rests between looks for new messages; default 50ms"),
        key("step_rows", Integer, "`up`: messages that one step takes of a topic that it follows; default 200000"),
        key(
            "commit_interval",
            Duration,
            "`up`: how long what was taken in may wait for its commit; default 5s. Each step is a commit, so it always holds",
        ),
        key("publish_interval", Duration, "`up`: how often Delta tables are brought up to the commits; default 1m"),
        key(
            "shutdown_timeout",
            Duration,
            "`up`: how long it drains when it is asked to end; what isn't committed then is left for the next start; default 25s",
        ),
        key("state_memory", Text, "Memory that plans and states share, such as 1GB; default 60 % of the machine's"),
    ],
    required: &["version", "name"],
    lacking: &[],
};

pub(super) const FLIGHT: KeyTable = KeyTable {
    of: "`flight`",
    keys: &[key("listen", Text, "HOST:PORT; default 127.0.0.1:31337")],
    required: &[],
    lacking: &[],
};

pub(super) const KAFKA: KeyTable = KeyTable {
    of: "`kafka`",
    keys: &[key("brokers", Text, "HOST:PORT, several with commas")],
    required: &["brokers"],
    lacking: &[],
};

pub(super) const CONSOLE: KeyTable = KeyTable {
    of: "`console`",
    keys: &[key("listen", Text, "HOST:PORT; default 127.0.0.1:8080")],
    required: &[],
    lacking: &[],
};

pub(super) const PARAM: KeyTable = KeyTable {
    of: "a parameter",
    keys: &[key("type", Text, "SQL type"), key("default", Text, "Value where no --param is given")],
    required: &["type"],
    lacking: &[],
};

pub(super) const PIPELINE: KeyTable = KeyTable {
    of: "a pipeline",
    keys: &[
        key("pipeline", Text, "Name; default the file's"),
        key("sources", MapOf(&SOURCE), "Named inputs"),
        key("models", MapOf(&MODEL), "Named SELECTs and their tables"),
    ],
    required: &[],
    lacking: &[],
};

/// Keys of an overlay besides those of the project file.
pub(super) const OVERLAY: KeyTable = KeyTable {
    of: "an overlay",
    keys: &[
        key("sources", MapOf(&SOURCE), "Changes to sources by name"),
        key("models", MapOf(&MODEL), "Changes to models by name"),
    ],
    required: &[],
    lacking: &[],
};

pub(super) const SOURCE: KeyTable = KeyTable {
    of: "a source",
    keys: &[
        key("connector", OneOf(&["files", "kafka"]), "Where rows come from"),
        key("description", Text, "For people"),
        key("columns", MapOfTextOr(&COLUMN), "The contract: names and SQL types"),
        key("event_time", Text, "Column that time goes by"),
        key("on_invalid", OneOf(&["quarantine", "drop", "fail"]), "What becomes of rows that break the contract"),
        key("deduplicate", Names, "One row a value of these columns, the first by event time"),
        key("checks", ListOfTextOr(&CHECK), "Rules"),
        key("serve", Boolean, "Whether Flight clients see it; default false"),
        key("tags", Names, "Labels"),
        key("path", Text, "Files: path or URL with a glob"),
        key("brokers", Text, "Kafka: HOST:PORT, several with commas"),
        key("topic", Text, "Kafka: the topic"),
        key(
            "format",
            OneOf(&["csv", "json", "parquet", "connect-json"]),
            "How values are read; compression goes by a file's name",
        ),
        key("mode", OneOf(&["snapshot", "append"]), "Files: those there now (default), or each file once"),
        key(
            "relation",
            OneOf(&["append", "upsert"]),
            "Kafka: each message is a row (default), or the last one of a key is",
        ),
        key("key", Names, "Kafka: columns that say which row a message of an upsert relation replaces"),
        key(
            "history",
            Text,
            "Kafka: Parquet files with what came before the first message; partitions go on after their offsets",
        ),
        key("start", Text, "Kafka: earliest (default), latest or an instant, for the first run"),
        key(
            "on_gap",
            OneOf(&["fail", "accept"]),
            "Kafka: what becomes of messages that are gone before they were read",
        ),
        key("watermark_delay", Duration, "Kafka: how far events may be behind the latest one; default 0s"),
        key("idle_timeout", Duration, "Kafka: when a silent partition stops holding the watermark back; default 1m"),
        key(
            "on_late",
            OneOf(&["correct", "drop", "quarantine"]),
            "Kafka: what becomes of rows behind the watermark; default correct: they correct the results",
        ),
        key(
            "archive",
            Boolean,
            "Whether rows are kept in the warehouse; of topics by default, of Parquet files that are read in place if true",
        ),
        key("after", TextOr(&AFTER), "What becomes of a taken file: keep, delete or { move: FOLDER }"),
        key("settle", Duration, "How long a file must stand still; default 2s"),
        key("allow_empty", Boolean, "Whether no file at all is fine"),
        key("options", TextMap, "Options of the object store, or of the Kafka client"),
        key("delimiter", Text, "CSV: one character; default ,"),
        key("header", Boolean, "CSV: whether the first row names columns; default true"),
        key("quote", Text, "CSV: one character; default \""),
        key("escape", Text, "CSV: one character; default doubling the quote"),
        key("encoding", Text, "Default utf-8"),
        key("null_values", Texts, "Texts that mean null"),
        key("decimal_separator", Text, "Default ."),
        key("timestamp_format", Text, "strftime; default ISO 8601"),
        key("timestamp_zone", Text, "Zone of zoneless text read as timestamptz; default the project's"),
    ],
    required: &["connector", "format"],
    lacking: &["on_drift"],
};

pub(super) const AFTER: KeyTable = KeyTable {
    of: "`after`",
    keys: &[key("move", Text, "Folder that taken files are moved to")],
    required: &["move"],
    lacking: &[],
};

pub(super) const COLUMN: KeyTable = KeyTable {
    of: "a column",
    keys: &[
        key("type", Text, "SQL type"),
        key("nullable", Boolean, "Whether null is allowed; default true"),
        key("description", Text, "For people"),
        key("tags", Names, "Labels such as pii"),
        key("timestamp_format", Text, "strftime of this column"),
    ],
    required: &["type"],
    lacking: &[],
};

/// A column of a model's result: nothing is read from text there.
pub(super) const MODEL_COLUMN: KeyTable = KeyTable {
    of: "a column",
    keys: &[
        key("type", Text, "SQL type"),
        key("nullable", Boolean, "Whether null is allowed; default true"),
        key("description", Text, "For people"),
        key("tags", Names, "Labels such as pii"),
    ],
    required: &["type"],
    lacking: &[],
};

pub(super) const MODEL: KeyTable = KeyTable {
    of: "a model",
    keys: &[
        key("description", Text, "For people"),
        key("sql", Text, "The SELECT; default sql/NAME.sql"),
        key("file", Text, "File with the SELECT"),
        key("key", Names, "Columns that are unique and not null"),
        key(
            "refresh",
            TextOr(&REFRESH),
            "auto (default), continuous, manual, { every: 1m } or { cron: \"0 6 1 * *\" }",
        ),
        key("partition_by", Names, "Columns that the table is partitioned by"),
        key("columns", MapOfTextOr(&MODEL_COLUMN), "A contract on the result"),
        key("checks", ListOfTextOr(&CHECK), "Rules"),
        key("serve", Boolean, "Whether Flight clients see it; default true"),
        key("owner", Text, "Who answers for it"),
        key("tags", Names, "Labels for selectors"),
        key(
            "retention",
            Duration,
            "How far behind the watermark groups are kept in states; default for ever. Later rows still correct the table",
        ),
        key("publish", ListOf(&SINK), "Where its changes go"),
    ],
    required: &[],
    lacking: &[],
};

pub(super) const SINK: KeyTable = KeyTable {
    of: "a sink",
    keys: &[
        key("connector", OneOf(&["kafka", "files"]), "Where changes go"),
        key("path", Text, "Files: the folder, or a URL of an object store; each change is a file"),
        key("brokers", Text, "Kafka: HOST:PORT, several with commas; default the project's"),
        key("topic", Text, "Kafka: the topic; made, compacted, where it isn't there"),
        key(
            "format",
            OneOf(&["json", "parquet", "csv"]),
            "How values are written; Kafka: json, files: parquet (default), json or csv",
        ),
        key(
            "emit",
            OneOf(&["changes", "final", "debezium"]),
            "Upserts and tombstones by key (default), those of closed windows only, or old and new rows",
        ),
        key(
            "decimals",
            OneOf(&["number", "text"]),
            "Kafka: decimals as JSON numbers with full scale (default), or as strings",
        ),
        key("options", TextMap, "Options of the Kafka client, or of the object store"),
    ],
    required: &["connector"],
    lacking: &[],
};

pub(super) const REFRESH: KeyTable = KeyTable {
    of: "`refresh`",
    keys: &[key("every", Duration, "An interval"), key("cron", Text, "A cron line in the project's zone")],
    required: &[],
    lacking: &[],
};

pub(super) const CHECK: KeyTable = KeyTable {
    of: "a check",
    keys: &[
        key("name", Text, "What it is called"),
        key("check", Text, "Boolean SQL over the row; only false fails"),
        key("unique", Names, "Columns that don't repeat together"),
        key("not_null", Names, "Columns without null"),
        key("accepted_values", Table(&ACCEPTED_VALUES), "A column and its values"),
        key("relationships", Table(&RELATIONSHIPS), "A column whose values stand in another relation"),
        key("freshness", Table(&FRESHNESS), "A time column and the greatest age of its newest value"),
        key("on_fail", OneOf(&["fail", "quarantine", "warn"]), "What happens; default fail"),
    ],
    required: &[],
    lacking: &[],
};

pub(super) const ACCEPTED_VALUES: KeyTable = KeyTable {
    of: "`accepted_values`",
    keys: &[key("column", Text, "The column"), key("values", Texts, "Its values")],
    required: &["column", "values"],
    lacking: &[],
};

pub(super) const RELATIONSHIPS: KeyTable = KeyTable {
    of: "`relationships`",
    keys: &[key("column", Text, "The column"), key("to", Text, "RELATION.COLUMN")],
    required: &["column", "to"],
    lacking: &[],
};

pub(super) const FRESHNESS: KeyTable = KeyTable {
    of: "`freshness`",
    keys: &[key("column", Text, "A time column"), key("within", Duration, "Greatest age")],
    required: &["column", "within"],
    lacking: &[],
};

pub(super) const TESTS: KeyTable = KeyTable {
    of: "a file of tests",
    keys: &[key("tests", ListOf(&TEST), "SQL unit tests")],
    required: &["tests"],
    lacking: &[],
};

pub(super) const TEST: KeyTable = KeyTable {
    of: "a test",
    keys: &[
        key("name", Text, "What it shows"),
        key("model", Text, "Model under test"),
        key("now", Text, "The instant of now()"),
        key("given", MapOfRows(&GIVEN), "Rows by source or model"),
        key("expect", Table(&EXPECT), "What comes out"),
    ],
    required: &["name", "model", "expect"],
    lacking: &[],
};

pub(super) const EXPECT: KeyTable = KeyTable {
    of: "`expect`",
    keys: &[
        key("rows", Rows(&GIVEN), "Rows of the model, in any order, a subset of its columns"),
        key("quarantine", Rows(&GIVEN), "Rows of its quarantine table"),
        key("error", Text, "A part of the error's text"),
    ],
    required: &[],
    lacking: &[],
};

pub(super) const GIVEN: KeyTable = KeyTable {
    of: "given rows",
    keys: &[key("csv", Text, "Rows as CSV with a header"), key("file", Text, "A file with rows")],
    required: &[],
    lacking: &[],
};
