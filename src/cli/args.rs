//! What each command takes, with help and examples. Parsing only.

use std::path::PathBuf;
use std::time::Duration;

use super::output::Format;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Keeps SQL tables fresh: a SELECT and a few lines of YAML become a table that any BI tool queries.
#[derive(Debug, Parser)]
#[command(
    name = "tidemill",
    version,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  tidemill init shop && cd shop && tidemill run     a first project
  tidemill run                                      bring every table up to date; made for cron
  tidemill query \"select * from daily_sales\"        look at a table
  tidemill serve                                    JDBC, ADBC, DBeaver, Grafana: grpc://127.0.0.1:31337

Exit codes:
  0 done or nothing to do    1 a check or test failed    2 usage or an invalid project
  3 runtime failure          75 another process is at work on these tables"
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Project folder [default: the nearest one upwards with tidemill.yaml]
    #[arg(short, long, global = true, value_name = "DIR")]
    pub project: Option<PathBuf>,
    /// A partial project merged over this one, key by key; repeatable
    #[arg(long, global = true, value_name = "FILE")]
    pub overlay: Vec<PathBuf>,
    /// Sets a parameter; repeatable
    #[arg(long, global = true, value_name = "NAME=VALUE", value_parser = key_value)]
    pub param: Vec<(String, String)>,
    /// How logs are written on stderr
    #[arg(long, global = true, value_enum, default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// More logs; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

impl From<LogFormat> for crate::telemetry::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

/// How a listing is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a small project that works at once, or one made for your files
    #[command(after_help = "\
Examples:
  tidemill init shop                                a project with sample data
  tidemill init sales --from orders.csv items.parquet   sources with columns, types and formats filled in")]
    Init(InitArgs),
    /// Parse and plan everything, reading schemas but no rows, and report all faults
    #[command(after_help = "\
Examples:
  tidemill validate
  tidemill validate --format json | jq .message")]
    Validate(ValidateArgs),
    /// Run a model or a query over the sources as they are now and print rows; publishes nothing
    #[command(after_help = "\
Examples:
  tidemill show daily_sales --limit 5
  tidemill show \"select order_status, count(*) from orders group by 1\"")]
    Show(ShowArgs),
    /// Tell what a run would do
    #[command(after_help = "\
Examples:
  tidemill plan
  tidemill plan daily_sales+ --format json")]
    Plan(PlanArgs),
    /// Bring models up to date with the data there is now, then exit
    #[command(after_help = "\
Examples:
  tidemill run                         every model
  tidemill run +daily_sales            a model and what it reads
  tidemill run tag:finance --quiet     from cron: silent unless something fails
  tidemill run --due                   those whose schedule says so")]
    Run(RunArgs),
    /// Run one query over the tables
    #[command(after_help = "\
Examples:
  tidemill query \"select * from daily_sales order by day desc limit 7\"
  tidemill query -f report.sql --format csv -o report.csv
  tidemill query \"select count(*) from daily_sales version as of 3\"
  tidemill query --watch \"select * from funnel order by day desc limit 5\"     beside `tidemill up`
  tidemill query --url grpc://127.0.0.1:31337 \"select 1\"")]
    Query(QueryArgs),
    /// Keep models up to date continuously and serve the tables over Arrow Flight SQL
    #[command(after_help = "\
Examples:
  tidemill up
  tidemill up --listen 0.0.0.0:31337 --quiet")]
    Up(UpArgs),
    /// Serve the tables over Arrow Flight SQL
    #[command(after_help = "\
Examples:
  tidemill serve
  tidemill serve --listen 0.0.0.0:31337")]
    Serve(ServeArgs),
    /// Run the SQL unit tests in tests/*.yaml
    #[command(after_help = "\
Examples:
  tidemill test
  tidemill test daily_sales")]
    Test(TestArgs),
    /// Compare each table with one batch run of its SQL over the same input, and print rows that differ
    #[command(after_help = "\
Examples:
  tidemill verify
  tidemill verify daily_sales --format json")]
    Verify(VerifyArgs),
    /// List past runs
    #[command(after_help = "\
Examples:
  tidemill runs --limit 5
  tidemill runs --format json")]
    Runs(RunsArgs),
    /// Freshness and health of models, topics and sinks
    #[command(after_help = "\
Examples:
  tidemill status
  tidemill status --max-age 1d         exits 1 when a model or a sink is failed, or a model older")]
    Status(StatusArgs),
    /// Write seeded shop data to a folder, or stream it to Kafka topics
    #[command(after_help = "\
Examples:
  tidemill generate data --orders 10000 --events 200000
  tidemill generate big --orders 1000000 --events 100000000 --format parquet --seed 7
  tidemill generate --kafka localhost:9092 --topic shop.events --rate 100 --events 1000000
  tidemill generate --kafka localhost:9092 --topics shop --orders 5000 --events 50000")]
    Generate(GenerateArgs),
    /// Print the JSON Schema of the YAML, for editors
    #[command(after_help = "\
Examples:
  tidemill schema > tidemill.schema.json")]
    Schema,
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// Folder to write; must be new or empty
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Files to read columns, types and formats from
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub from: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ValidateArgs {
    #[arg(long, value_enum, default_value = "text")]
    pub format: ListFormat,
    /// Don't read the sources' schemas
    #[arg(long)]
    pub offline: bool,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// A model's name, or a query
    #[arg(value_name = "MODEL|SQL")]
    pub what: String,
    /// Rows to print at most
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub limit: usize,
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
    /// The instant of now(), RFC 3339
    #[arg(long, value_name = "T")]
    pub now: Option<String>,
}

/// Which models.
#[derive(Debug, Clone, Args)]
pub struct Selection {
    /// Models, with dbt's selectors: daily_sales, +m, m+, @m, tag:t, source:s, pipeline:p, state:modified
    #[arg(value_name = "SELECTOR")]
    pub selectors: Vec<String>,
    /// The same, as dbt spells it
    #[arg(short, long = "select", value_name = "SELECTOR", num_args = 1..)]
    pub select: Vec<String>,
    /// Models to leave out
    #[arg(long, value_name = "SELECTOR", num_args = 1..)]
    pub exclude: Vec<String>,
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub selection: Selection,
    #[arg(long, value_enum, default_value = "text")]
    pub format: ListFormat,
    /// Plan as a full refresh would
    #[arg(long)]
    pub full_refresh: bool,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub selection: Selection,
    /// Only models whose `refresh` says so
    #[arg(long)]
    pub due: bool,
    /// Read every file and compute every model again
    #[arg(long)]
    pub full_refresh: bool,
    /// The instant of now(), RFC 3339
    #[arg(long, value_name = "T")]
    pub now: Option<String>,
    /// Wait for another process that works on these tables, for so long or without end
    #[arg(long, value_name = "D", num_args = 0..=1, require_equals = true, value_parser = duration)]
    pub wait: Option<Option<Duration>>,
    /// Print nothing on success
    #[arg(short, long)]
    pub quiet: bool,
    #[arg(long, value_enum, default_value = "text")]
    pub format: ListFormat,
}

#[derive(Debug, Args)]
pub struct QueryArgs {
    /// The query; `-` reads stdin
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    pub sql: Option<String>,
    /// Read the query from a file
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Write rows to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Tables as they were at this instant, RFC 3339
    #[arg(long, value_name = "TIME", conflicts_with = "url")]
    pub at: Option<String>,
    /// Ask a server instead
    #[arg(long, value_name = "grpc://HOST:PORT")]
    pub url: Option<String>,
    /// The instant of now(), RFC 3339
    #[arg(long, value_name = "T", conflicts_with = "url")]
    pub now: Option<String>,
    /// Show the result anew whenever it changes, until Ctrl-C
    ///
    /// Runs the query again after each new commit, looked for every INTERVAL [default: 250ms]; with --url the server is asked
    /// every INTERVAL [default: 1s]. A terminal is drawn anew in place. Else a result that differs from the last one, in its
    /// rows or in their order, follows it after an empty line, whole: csv with its header again, json one object a line.
    #[arg(
        long,
        value_name = "INTERVAL",
        num_args = 0..=1,
        require_equals = true,
        value_parser = interval,
        conflicts_with_all = ["output", "at"]
    )]
    pub watch: Option<Option<Duration>>,
}

#[derive(Debug, Args)]
pub struct UpArgs {
    /// Address of Flight SQL; default: the project's `flight.listen`
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub listen: Option<String>,
    /// Print only failures
    #[arg(long)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address to listen on [default: `flight.listen` of the project]
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub listen: Option<String>,
}

#[derive(Debug, Args)]
pub struct TestArgs {
    #[command(flatten)]
    pub selection: Selection,
    #[arg(long, value_enum, default_value = "text")]
    pub format: ListFormat,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub selection: Selection,
    #[arg(long, value_enum, default_value = "text")]
    pub format: ListFormat,
}

#[derive(Debug, Args)]
pub struct RunsArgs {
    /// Runs to list, newest first
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub limit: usize,
    #[arg(long, value_enum, default_value = "text")]
    pub format: ListFormat,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Exit 1 when a model's last refresh is longer ago
    #[arg(long, value_name = "D", value_parser = duration)]
    pub max_age: Option<Duration>,
    #[arg(long, value_enum, default_value = "text")]
    pub format: ListFormat,
}

#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Folder to write, one folder a source
    pub dir: Option<PathBuf>,
    /// Send events, or the whole shop, to Kafka instead, one JSON object a message: where its brokers are, HOST:PORT,…
    #[arg(long, value_name = "BROKERS", conflicts_with = "dir")]
    pub kafka: Option<String>,
    /// The Kafka topic of events
    #[arg(long, value_name = "T")]
    pub topic: Option<String>,
    /// Send the whole shop, each table to the topic PREFIX.TABLE, in the order in which things happen
    ///
    /// The rows are those of the files, keyed by what they are about. An order is sent again each time that it gets on (created,
    /// approved, shipped, delivered): its last message is its row of the files, so that its source is `relation: upsert`.
    #[arg(long, value_name = "PREFIX", conflicts_with = "topic")]
    pub topics: Option<String>,
    /// Messages a second that are sent; 0: as fast as possible [default: 0]
    #[arg(long, value_name = "N")]
    pub rate: Option<u64>,
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub orders: u64,
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub events: u64,
    /// The same seed gives the same bytes
    #[arg(long, default_value_t = 1, value_name = "S")]
    pub seed: u64,
    /// First day [default: 2018-01-01; of events sent to a --topic: each happens when it is sent]
    #[arg(long, value_name = "D")]
    pub start: Option<String>,
    /// Days from the first on [default: 151; of events that happen when they are sent: as many as they take]
    #[arg(long, value_name = "N")]
    pub days: Option<u32>,
    /// How files are written [default: csv]
    #[arg(long, value_enum)]
    pub format: Option<DataFormat>,
    /// Share of events that come late, 0 to 1
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    pub late: f64,
    /// Share of events that come twice
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    pub duplicates: f64,
    /// Share of rows that break their format
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    pub malformed: f64,
}

/// File formats of `generate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DataFormat {
    Parquet,
    Csv,
    Json,
}

fn address(text: &str) -> Result<String, String> {
    let hint = "expected a host and a port, such as 127.0.0.1:31337";
    if crate::spec::is_address(text) { Ok(text.to_string()) } else { Err(hint.to_string()) }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .ok_or_else(|| format!("expected NAME=VALUE, found `{text}`"))
}

/// Durations as in the YAML: `500ms`, `2s`, `1m`, `1h`, `1d`.
fn duration(text: &str) -> Result<Duration, String> {
    crate::spec::parse_duration(text)
        .ok_or_else(|| format!("expected a duration such as `30s`, `5m`, `1h` or `1d`, found `{text}`"))
}

/// Durations at which something is asked for again.
fn interval(text: &str) -> Result<Duration, String> {
    let least = crate::limits::WATCH_INTERVAL_MIN;
    let interval = duration(text)?;
    if interval < least { Err(format!("at least {least:?}, found `{text}`")) } else { Ok(interval) }
}
