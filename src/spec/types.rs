//! The typed project: what the YAML says after parsing, merging overlays and reading variables.
//!
//! Values only: no I/O, no DataFusion, no defaults that depend on the machine.

mod files;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use files::{AfterTaken, CsvOptions, FileFormat, FilesMode, FilesSpec, TextOptions};

use super::fault::{Place, SourceText};
use super::sql_type::SqlType;
use crate::limits;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// The characters it was read from.
    pub place: Place,
}

/// A whole project.
#[derive(Debug)]
pub struct Project {
    /// The folder with `tidemill.yaml`, absolute.
    pub root: PathBuf,
    /// Catalog name that SQL clients see.
    pub name: Located<String>,
    /// Object store URL or a path relative to `root`.
    pub warehouse: Located<String>,
    /// IANA name; `UTC` if not given.
    pub timezone: Located<String>,
    /// Typed parameters in order of declaration; overridden by `--param`.
    pub params: Vec<Param>,
    /// `flight.listen`, `127.0.0.1:31337` if not given.
    pub flight_listen: Located<String>,
    /// `console.listen`, `127.0.0.1:8080` if `console` names none; without `console` there is no such server.
    pub console_listen: Option<Located<String>>,
    /// `lease_ttl`, 30 s if not given.
    pub lease_ttl: Duration,
    /// How `up` works.
    pub pace: Pace,
    /// `state_memory`, bytes that plans and states share; the machine decides if not given.
    pub state_memory_bytes: Option<usize>,
    /// `kafka.brokers`: of sinks that name none.
    pub kafka_brokers: Option<Located<String>>,
    /// Pipelines in order of file names.
    pub pipelines: Vec<Pipeline>,
    /// Files of unit tests, `tests/*.yaml`, in order of names.
    pub tests: Vec<TestFile>,
}

/// How continuous work goes on. `commit_interval` isn't here: each step is a commit, sooner than any interval asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// `linger`: rest between looks for messages.
    pub linger: Duration,
    /// `step_rows`: messages that one step takes of a topic that is followed; at least one.
    pub step_rows: usize,
    /// `publish_interval`: how often Delta tables follow.
    pub publish_interval: Duration,
    /// `shutdown_timeout`: how long draining may take.
    pub shutdown_timeout: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            linger: limits::LINGER,
            step_rows: limits::KAFKA_STEP_MESSAGES,
            publish_interval: limits::PUBLISH_INTERVAL,
            shutdown_timeout: limits::SHUTDOWN_TIMEOUT,
        }
    }
}

/// `params.NAME`.
#[derive(Debug, Clone)]
pub struct Param {
    /// Name without `$`.
    pub name: Located<String>,
    /// Its type.
    pub data_type: SqlType,
    /// Value as text, of the overriding `--param` if given, else the default.
    pub value: Option<Located<String>>,
}

/// One file of `pipelines/`.
#[derive(Debug)]
pub struct Pipeline {
    /// `pipeline:`, or the file's stem.
    pub name: Located<String>,
    /// Sources in order of declaration.
    pub sources: Vec<SourceSpec>,
    /// Models in order of declaration.
    pub models: Vec<ModelSpec>,
}

/// A named input with its contract.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    /// Name, unique in the project among sources and models.
    pub name: Located<String>,
    /// For people.
    pub description: Option<String>,
    /// The connector and its own keys.
    pub connector: ConnectorSpec,
    /// The contract, in order. Empty: taken from the files (Parquet only).
    pub columns: Vec<ColumnSpec>,
    /// Column that time goes by; also decides the first row under `deduplicate`.
    pub event_time: Option<Located<String>>,
    /// What becomes of rows that break the contract.
    pub on_invalid: OnInvalid,
    /// One row per value of these columns, the first by event time.
    pub deduplicate: Vec<Located<String>>,
    /// Rules on accepted rows or on the whole source.
    pub checks: Vec<CheckSpec>,
    /// Whether Flight clients see it.
    pub serve: bool,
    /// Free labels.
    pub tags: Vec<Located<String>>,
}

impl SourceSpec {
    /// Whether something says how far its events are: `event_time` of a topic whose messages are all rows.
    pub fn has_watermark(&self) -> bool {
        let is_log = matches!(&self.connector, ConnectorSpec::Kafka(spec) if spec.relation == MessageRelation::Append);
        is_log && self.event_time.is_some()
    }

    /// Whether it is a topic of which the last message of a key is its row.
    pub fn is_upsert(&self) -> bool {
        matches!(&self.connector, ConnectorSpec::Kafka(KafkaSpec { relation: MessageRelation::Upsert(_), .. }))
    }

    /// Whether rows of it never go: messages of a topic, or files that are taken once.
    pub fn is_log(&self) -> bool {
        let grows = match &self.connector {
            ConnectorSpec::Kafka(spec) => spec.relation == MessageRelation::Append,
            ConnectorSpec::Files(spec) => spec.mode == FilesMode::Append,
        };
        grows && self.deduplicate.is_empty()
    }

    /// Whether files of it may be read where they are: their rows are gone with them.
    pub fn is_read_in_place(&self) -> bool {
        matches!(&self.connector, ConnectorSpec::Files(spec) if spec.is_read_in_place())
    }

    /// Where it says that rows are let go once every model has read them; none: they are kept.
    pub fn unarchived(&self) -> Option<&Place> {
        match &self.connector {
            ConnectorSpec::Kafka(spec) => spec.unarchived.as_ref(),
            ConnectorSpec::Files(_) => None,
        }
    }
}

/// One column of a contract.
#[derive(Debug, Clone)]
pub struct ColumnSpec {
    /// Name, case kept.
    pub name: Located<String>,
    /// Type and its place.
    pub data_type: Located<SqlType>,
    /// Whether null is allowed; default true.
    pub nullable: bool,
    /// strftime format for timestamps of this column.
    pub timestamp_format: Option<Located<String>>,
    /// For people.
    pub description: Option<String>,
    /// Labels such as `pii`.
    pub tags: Vec<Located<String>>,
}

/// `on_invalid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInvalid {
    /// To `<source>_quarantine` (default).
    Quarantine,
    /// Left out.
    Drop,
    /// The source fails.
    Fail,
}

/// A connector's own keys.
#[derive(Debug, Clone)]
pub enum ConnectorSpec {
    /// `connector: files`
    Files(FilesSpec),
    /// `connector: kafka`
    Kafka(KafkaSpec),
}

/// `connector: kafka`.
#[derive(Debug, Clone)]
pub struct KafkaSpec {
    /// `HOST:PORT`, several with commas.
    pub brokers: Located<String>,
    /// The topic.
    pub topic: Located<String>,
    /// How a message's value is read.
    pub format: MessageFormat,
    /// What the messages are.
    pub relation: MessageRelation,
    /// Parquet files with what came before the first message: a path or URL with a glob.
    pub history: Option<Located<String>>,
    /// Where the first run begins.
    pub start: Start,
    /// Whether messages that are gone before they were read fail the source.
    pub accepts_gaps: bool,
    /// How far events may be behind the latest one of their partition.
    pub watermark_delay: Duration,
    /// When a silent partition stops holding the watermark back.
    pub idle_timeout: Duration,
    /// What becomes of rows behind the watermark.
    pub on_late: OnLate,
    /// Where `archive: false` stands: rows are let go once every model has read them. None: they are kept.
    pub unarchived: Option<Place>,
    /// Options of the client (`options:`), by librdkafka's names.
    pub options: BTreeMap<String, String>,
}

/// `format` of messages.
#[derive(Debug, Clone, PartialEq)]
pub enum MessageFormat {
    /// `json`: an object a message.
    Json(TextOptions),
    /// `connect-json`: Kafka Connect's schema and payload, or a payload alone.
    ConnectJson(TextOptions),
}

impl MessageFormat {
    /// How values stand in the text.
    pub fn text(&self) -> &TextOptions {
        match self {
            Self::Json(text) | Self::ConnectJson(text) => text,
        }
    }
}

/// `relation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageRelation {
    /// Each message is a row (default).
    Append,
    /// The last message of each value of these columns is a row; one without a value takes it away.
    Upsert(Vec<Located<String>>),
}

/// `on_late`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLate {
    /// They correct the results (default).
    Correct,
    /// Left out.
    Drop,
    /// To `<source>_quarantine`.
    Quarantine,
}

/// `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The first message that there is (default).
    Earliest,
    /// After the last one.
    Latest,
    /// The first one of this time or later, milliseconds since 1970 UTC.
    At(i64),
}

/// A named `SELECT` and its table.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// Name, unique in the project.
    pub name: Located<String>,
    /// For people.
    pub description: Option<String>,
    /// The SQL.
    pub sql: SqlText,
    /// Unique, not null; empty: a bag.
    pub key: Vec<Located<String>>,
    /// When it is refreshed.
    pub refresh: Located<Refresh>,
    /// Columns that the table is partitioned by.
    pub partition_by: Vec<Located<String>>,
    /// Contract on the result; empty if none.
    pub columns: Vec<ColumnSpec>,
    /// Rules.
    pub checks: Vec<CheckSpec>,
    /// Whether Flight clients see it; default true.
    pub serve: bool,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Labels for selectors.
    pub tags: Vec<Located<String>>,
    /// How far behind the watermark groups are kept in states; none: for ever.
    pub retention: Option<Located<Duration>>,
    /// Where its changes go.
    pub publish: Vec<SinkSpec>,
}

/// An entry of `publish`.
#[derive(Debug, Clone)]
pub struct SinkSpec {
    /// The connector and its own keys.
    pub target: SinkTarget,
    /// The entry.
    pub place: Place,
}

/// A sink's own keys, by connector.
#[derive(Debug, Clone)]
pub enum SinkTarget {
    /// `connector: kafka`
    Kafka(KafkaSinkSpec),
    /// `connector: files`
    Files(FilesSinkSpec),
}

/// `connector: files` of a sink.
#[derive(Debug, Clone)]
pub struct FilesSinkSpec {
    /// A folder: relative to the project, or a URL of an object store.
    pub path: Located<String>,
    /// How rows are written.
    pub format: SinkFormat,
    /// Which changes are told, and how.
    pub emit: Emit,
    /// Options of the object store (`options:`).
    pub options: BTreeMap<String, String>,
}

/// `format` of a sink of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkFormat {
    /// Parquet (default).
    Parquet,
    /// One object a line.
    Json,
    /// CSV with a header.
    Csv,
}

impl SinkFormat {
    /// As it is written: `parquet`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Json => "json",
            Self::Csv => "csv",
        }
    }
}

/// `connector: kafka` of a sink.
#[derive(Debug, Clone)]
pub struct KafkaSinkSpec {
    /// `HOST:PORT`, several with commas; the project's where a sink names none. None only with a fault.
    pub brokers: Option<Located<String>>,
    /// Whether `brokers` was meant, but can't be read.
    pub(super) has_unread_brokers: bool,
    /// The topic.
    pub topic: Located<String>,
    /// What messages say.
    pub emit: Emit,
    /// Whether decimals are strings, not numbers with full scale.
    pub decimals_as_text: bool,
    /// Options of the client (`options:`), by librdkafka's names.
    pub options: BTreeMap<String, String>,
}

impl KafkaSinkSpec {
    /// Whether it writes to this topic of these brokers: lists with an address in common are of one cluster.
    pub fn writes_to(&self, brokers: &str, topic: &str) -> bool {
        let of = |list: &str| list.split(',').map(|address| address.trim().to_ascii_lowercase()).collect::<Vec<_>>();
        let (here, there) = (self.brokers.as_ref().map(|brokers| of(&brokers.value)), of(brokers));
        self.topic.value == topic && here.is_some_and(|here| here.iter().any(|address| there.contains(address)))
    }
}

/// `emit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// The new row of a key, and nothing (a tombstone) where it went (default).
    Changes,
    /// The same, of windows that the watermark has closed.
    Final,
    /// Old and new row in Debezium's envelope.
    Debezium,
}

impl Emit {
    /// As it is written: `changes`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Changes => "changes",
            Self::Final => "final",
            Self::Debezium => "debezium",
        }
    }
}

impl SinkSpec {
    /// What the sink is called in messages and in bookkeeping: `kafka shop.sales`.
    pub fn name(&self) -> String {
        match &self.target {
            SinkTarget::Kafka(spec) => format!("kafka {}", spec.topic.value),
            SinkTarget::Files(spec) => format!("files {}", spec.path.value.trim_end_matches('/')),
        }
    }

    /// Which changes are told, and how.
    pub fn emit(&self) -> Emit {
        match &self.target {
            SinkTarget::Kafka(spec) => spec.emit,
            SinkTarget::Files(spec) => spec.emit,
        }
    }

    /// Whether it only gets rows of closed windows.
    pub fn is_final(&self) -> bool {
        self.emit() == Emit::Final
    }

    /// The form in which rows are told, one for all of a place: `rows`, `debezium with decimals as text`, `rows as csv`.
    pub fn form(&self) -> String {
        let form = if self.emit() == Emit::Debezium { "debezium" } else { "rows" };
        match &self.target {
            SinkTarget::Kafka(spec) if spec.decimals_as_text => format!("{form} with decimals as text"),
            SinkTarget::Kafka(_) => form.to_owned(),
            SinkTarget::Files(spec) => format!("{form} as {}", spec.format.word()),
        }
    }
}

/// SQL and where it stands: a whole `.sql` file or a block of YAML.
#[derive(Debug, Clone)]
pub struct SqlText {
    /// The SQL as the engine reads it.
    pub text: String,
    /// The text that it stands in.
    pub source: Arc<SourceText>,
    /// For each byte of `text` that starts a line: the byte in `source` where that line's characters begin.
    /// One entry a line, so that a block scalar's indentation can be added back.
    pub line_starts: Vec<usize>,
}

/// `refresh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refresh {
    /// Continuous where it can be maintained, else at most each minute when something changed.
    Auto,
    /// Within a second of each event; refused where it can only be recomputed.
    Continuous,
    /// `{ every: 1m }`
    Every(Duration),
    /// `{ cron: "0 6 1 * *" }`, in the project's zone
    Cron(String),
    /// Only when selected by name.
    Manual,
}

/// A rule.
#[derive(Debug, Clone)]
pub struct CheckSpec {
    /// Given, or made of the kind and columns (`not_null_product_id`); a bare expression is its own name.
    pub name: String,
    /// The whole rule in the YAML.
    pub place: Place,
    /// What it demands.
    pub kind: CheckKind,
    /// What happens when it fails.
    pub on_fail: OnFail,
}

/// What a rule demands.
#[derive(Debug, Clone)]
pub enum CheckKind {
    /// Boolean SQL over the row; only false fails.
    Expression(SqlText),
    /// `unique: [columns]`; rows with a null among them aren't compared.
    Unique(Vec<Located<String>>),
    /// `not_null: [columns]`
    NotNull(Vec<Located<String>>),
    /// `accepted_values`; null passes.
    AcceptedValues {
        /// Column.
        column: Located<String>,
        /// Values as text.
        values: Vec<String>,
    },
    /// `relationships`: every non-null value is found there.
    Relationships {
        /// Column of this relation.
        column: Located<String>,
        /// Source or model.
        to_relation: Located<String>,
        /// Its column.
        to_column: Located<String>,
    },
    /// `freshness`: the newest value is no older than `within` before the run's instant; an empty table fails.
    Freshness {
        /// A time column.
        column: Located<String>,
        /// Greatest age.
        within: Duration,
    },
}

impl CheckKind {
    /// The rule without its place: changes exactly when what it demands does.
    pub fn text(&self) -> String {
        let names =
            |columns: &[Located<String>]| columns.iter().map(|c| c.value.as_str()).collect::<Vec<_>>().join(", ");
        match self {
            Self::Expression(sql) => sql.text.clone(),
            Self::Unique(columns) => format!("unique({})", names(columns)),
            Self::NotNull(columns) => format!("not_null({})", names(columns)),
            Self::AcceptedValues { column, values } => format!("accepted_values({}, {values:?})", column.value),
            Self::Relationships { column, to_relation, to_column } => {
                format!("relationships({}, {}.{})", column.value, to_relation.value, to_column.value)
            }
            Self::Freshness { column, within } => format!("freshness({}, {within:?})", column.value),
        }
    }
}

impl SourceSpec {
    /// The columns by which a later row replaces an earlier one; none where each row stands for itself.
    pub fn upsert_key(&self) -> &[Located<String>] {
        match &self.connector {
            ConnectorSpec::Kafka(KafkaSpec { relation: MessageRelation::Upsert(key), .. }) => key,
            _ => &[],
        }
    }

    /// How its values are read, without places: changes exactly when the same bytes could give other rows.
    pub fn connector_text(&self) -> String {
        let text = |options: &TextOptions| {
            let value = |located: &Option<Located<String>>| located.as_ref().map(|l| l.value.clone());
            format!(
                "{:?} {:?} {:?} {:?} {}",
                value(&options.timestamp_format),
                value(&options.timestamp_zone),
                value(&options.encoding),
                options.null_values,
                options.decimal_separator
            )
        };
        let format = match &self.connector {
            ConnectorSpec::Files(files) => match &files.format {
                FileFormat::Parquet if files.archive => "parquet, kept".to_string(),
                FileFormat::Parquet => "parquet".to_string(),
                FileFormat::Json(options) => format!("json {}", text(options)),
                FileFormat::Csv(csv) => {
                    format!("csv {} {} {} {:?} {}", csv.delimiter, csv.header, csv.quote, csv.escape, text(&csv.text))
                }
            },
            ConnectorSpec::Kafka(kafka) => {
                let name = match &kafka.format {
                    MessageFormat::Json(_) => "messages json",
                    MessageFormat::ConnectJson(_) => "messages connect-json",
                };
                let key = match &kafka.relation {
                    MessageRelation::Append => Vec::new(),
                    MessageRelation::Upsert(key) => key.iter().map(|column| column.value.as_str()).collect(),
                };
                format!("{name} {} {key:?}", text(kafka.format.text()))
            }
        };
        let formats = self.columns.iter().map(|c| c.timestamp_format.as_ref().map_or("", |f| f.value.as_str()));
        format!("{format} {:?}", formats.collect::<Vec<_>>())
    }
}

/// `on_fail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFail {
    /// Counted and told.
    Warn,
    /// Failing rows go to `<name>_quarantine`.
    Quarantine,
    /// The model keeps its last version (default).
    Fail,
}

/// One file of `tests/`.
#[derive(Debug)]
pub struct TestFile {
    /// Its tests in order.
    pub tests: Vec<UnitTest>,
}

/// One SQL unit test (DESIGN 2.5).
#[derive(Debug)]
pub struct UnitTest {
    /// Name, unique in the file.
    pub name: Located<String>,
    /// Model under test.
    pub model: Located<String>,
    /// The instant of `now()`, RFC 3339.
    pub now: Option<Located<String>>,
    /// Rows of sources and models.
    pub given: Vec<(Located<String>, GivenRows)>,
    /// What must come out.
    pub expect: Expectation,
}

/// Rows given to, or expected from, a unit test; values are the text as written, none is null.
#[derive(Debug, Clone)]
pub enum GivenRows {
    /// `[ { column: value } ]`
    Rows(Vec<GivenRow>),
    /// `{ csv: "…" }` with a header; an empty unquoted field is null.
    Csv(Located<String>),
    /// `{ file: PATH }`, relative to the project; format by its name.
    File(Located<String>),
}

/// One row of a unit test.
#[derive(Debug, Clone)]
pub struct GivenRow {
    /// Column and value as text; none is null. Columns left out are null.
    pub values: Vec<(Located<String>, Option<Located<String>>)>,
    /// The whole row.
    pub place: Place,
}

/// `expect`.
#[derive(Debug, Clone, Default)]
pub struct Expectation {
    /// Rows of the model, any order, a subset of its columns.
    pub rows: Option<GivenRows>,
    /// Rows of `<model>_quarantine`.
    pub quarantine: Option<GivenRows>,
    /// A part of the error's text.
    pub error: Option<Located<String>>,
}
