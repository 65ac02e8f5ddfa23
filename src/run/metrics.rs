//! Numbers of continuous work, in the text form that Prometheus reads: what was done since the process began, and what the
//! newest commits hold. Knows no HTTP.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::commit::{CommitChain, CommitRecord, StateFiles, TableEntry, TableKind};
use super::history::ModelOutcome;
use super::reader::Reader;
use super::refresh::Observer;
use super::sinks;
use crate::connect::{Look, Position};
use crate::error::{Error, Result, ResultExt};
use crate::table::{DataFile, Warehouse};

type Labels = Vec<(&'static str, String)>;
type Counts = Family<Labels, Counter>;
type Seconds = Family<Labels, Counter<f64, std::sync::atomic::AtomicU64>>;
type Amounts = Family<Labels, Gauge>;
type Instants = Family<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>;

/// The numbers of one process.
pub struct Metrics {
    registry: Registry,
    steps: Histogram,
    commits: Family<Labels, Histogram>,
    refreshes: Counts,
    refresh_seconds: Seconds,
    changed_rows: Counts,
    refused_rows: Counts,
    failures: Counts,
    lag_rows: Amounts,
    lag_seconds: Instants,
    held: Held,
    /// When each source was last seen with nothing to read, or first of all.
    caught_up: Mutex<HashMap<String, Caught>>,
    /// Bytes of the files of tables, by the commit that changed them last.
    bytes: tokio::sync::Mutex<HashMap<String, (u64, i64)>>,
}

/// How a source stands.
#[derive(Clone, Copy)]
struct Caught {
    at: Instant,
    is_behind: bool,
}

/// What the newest commits hold.
#[derive(Default)]
struct Held {
    commit: Amounts,
    commit_at: Instants,
    source_rows: Amounts,
    source_bytes: Amounts,
    late_rows: Amounts,
    watermark: Instants,
    sink_commit: Amounts,
    sink_failed: Amounts,
    quarantined: Amounts,
    table_rows: Amounts,
    table_bytes: Amounts,
    state_rows: Amounts,
    state_bytes: Amounts,
    refreshed_at: Instants,
    failed: Amounts,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing done yet.
    pub fn new() -> Self {
        let durations = || Histogram::new(exponential_buckets(0.005, 2.0, 14));
        let mut metrics = Self {
            registry: Registry::with_prefix("tidemill"),
            steps: durations(),
            commits: Family::new_with_constructor(durations),
            refreshes: Family::default(),
            refresh_seconds: Family::default(),
            changed_rows: Family::default(),
            refused_rows: Family::default(),
            failures: Family::default(),
            lag_rows: Family::default(),
            lag_seconds: Family::default(),
            held: Held::default(),
            caught_up: Mutex::default(),
            bytes: tokio::sync::Mutex::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let to = &mut self.registry;
        let seconds = || Unit::Seconds;
        to.register_with_unit(
            "step_duration",
            "Time of steps: taking in, computing, committing",
            seconds(),
            self.steps.clone(),
        );
        to.register_with_unit("commit_duration", "Time of making commits durable", seconds(), self.commits.clone());
        to.register("model_refreshes", "Refreshes, by how they ended and how they were made", self.refreshes.clone());
        to.register_with_unit("model_refresh", "Time spent on refreshes", seconds(), self.refresh_seconds.clone());
        to.register("model_changed_rows", "Rows that came, changed under their key or went", self.changed_rows.clone());
        to.register("model_quarantined_rows", "Rows of models that a check refused", self.refused_rows.clone());
        to.register("failures", "Failures told, by source, model or pipeline", self.failures.clone());
        let help = "Messages of a topic that are known to wait for a commit; more than a step takes show as that many";
        to.register("source_lag_rows", help, self.lag_rows.clone());
        let help = "Time since nothing waited for a commit; 0 while nothing does";
        to.register_with_unit("source_lag", help, seconds(), self.lag_seconds.clone());
        let held = &self.held;
        to.register("commit_number", "Number of the newest commit", held.commit.clone());
        to.register_with_unit(
            "commit_timestamp",
            "When the newest commit was made, since 1970",
            seconds(),
            held.commit_at.clone(),
        );
        let help = "Accepted rows of a source's files and messages; of an upsert relation each message counts";
        to.register("source_rows", help, held.source_rows.clone());
        to.register_with_unit(
            "source",
            "Size of the files or messages that are the source",
            Unit::Bytes,
            held.source_bytes.clone(),
        );
        to.register("source_late_rows", "Rows that came behind the watermark", held.late_rows.clone());
        let help = "How far time is in a source, since 1970";
        to.register_with_unit("source_watermark_timestamp", help, seconds(), held.watermark.clone());
        let help = "The commit that changed what a sink was last known to hold";
        to.register("sink_commit_number", help, held.sink_commit.clone());
        let help = "1 while the last try to bring a sink up to a commit failed";
        to.register("sink_failed", help, held.sink_failed.clone());
        to.register("quarantine_rows", "Rows in quarantine tables", held.quarantined.clone());
        to.register("table_rows", "Rows of tables", held.table_rows.clone());
        to.register_with_unit("table", "Size of tables' files", Unit::Bytes, held.table_bytes.clone());
        to.register("state_rows", "Rows of the states that models are maintained by", held.state_rows.clone());
        to.register_with_unit("state", "Size of those states' files", Unit::Bytes, held.state_bytes.clone());
        let help = "When a model was last found or made up to date, since 1970";
        to.register_with_unit("model_refreshed_timestamp", help, seconds(), held.refreshed_at.clone());
        to.register("model_failed", "1 while a model's last refresh failed", held.failed.clone());
    }

    /// All numbers as text, with what the newest commits hold.
    ///
    /// # Errors
    /// External, when the commits can't be read.
    pub async fn text(&self, reader: &Reader) -> Result<String> {
        let snapshot = reader.snapshot().await?;
        for record in snapshot.records.values() {
            self.hold(reader.warehouse(), record).await?;
        }
        self.set_lags();
        let mut text = String::new();
        encode(&mut text, &self.registry).external("the metrics can't be written")?;
        Ok(text)
    }

    fn set_lags(&self) {
        for (source, caught) in self.caught_up.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let lag = if caught.is_behind { caught.at.elapsed().as_secs_f64() } else { 0.0 };
            self.lag_seconds.get_or_create(&of("source", source)).set(lag);
        }
    }

    /// Sets what a record says.
    async fn hold(&self, warehouse: &Warehouse, record: &CommitRecord) -> Result<()> {
        let held = &self.held;
        let pipeline = of("pipeline", &record.pipeline);
        held.commit.get_or_create(&pipeline).set(signed(record.n));
        held.commit_at.get_or_create(&pipeline).set(seconds(record.committed_at_us));
        for (source, position) in &record.sources {
            let position = Position::from_json(Some(position))?;
            let labels = of("source", source);
            held.source_rows.get_or_create(&labels).set(signed(position.files.iter().map(|file| file.rows).sum()));
            held.source_bytes.get_or_create(&labels).set(signed(position.files.iter().map(|file| file.size).sum()));
            let Some(offsets) = position.offsets else { continue };
            held.late_rows.get_or_create(&labels).set(signed(position.files.iter().map(|file| file.late).sum()));
            if let Some(reached_us) = offsets.reached_us {
                held.watermark.get_or_create(&labels).set(seconds(reached_us));
            }
        }
        for note in sinks::notes(warehouse, &record.pipeline).await?.into_values() {
            if let Some(cursor) = note.published {
                let labels = vec![("model", note.model), ("sink", note.sink)];
                held.sink_commit.get_or_create(&labels).set(signed(cursor.commit));
            }
        }
        let chain = CommitChain::open(warehouse, &record.pipeline);
        for (name, entry) in &record.tables {
            let kind = match entry.kind {
                TableKind::Model => None,
                TableKind::ModelQuarantine => Some("model"),
                TableKind::SourceQuarantine => Some("source"),
            };
            if let Some(kind) = kind {
                let relation = name.strip_suffix("_quarantine").unwrap_or(name);
                held.quarantined.get_or_create(&of(kind, relation)).set(signed(entry.rows));
                continue;
            }
            let labels = of("model", name);
            held.table_rows.get_or_create(&labels).set(signed(entry.rows));
            // Before its number is looked up, which is locked then.
            let bytes = self.table_bytes(&chain, name, entry).await?;
            held.table_bytes.get_or_create(&labels).set(bytes);
            let states = || entry.states.iter().flat_map(StateFiles::files);
            held.state_rows.get_or_create(&labels).set(rows_of(states()));
            held.state_bytes.get_or_create(&labels).set(bytes_of(states()));
            held.refreshed_at.get_or_create(&labels).set(seconds(entry.refreshed_at_us));
        }
        Ok(())
    }

    /// The record that names a table's files is read once.
    async fn table_bytes(&self, chain: &CommitChain, name: &str, entry: &TableEntry) -> Result<i64> {
        let mut known = self.bytes.lock().await;
        match known.get(name) {
            Some((at, bytes)) if *at == entry.changed_in => Ok(*bytes),
            _ => {
                let bytes = bytes_of(chain.table_files(name, entry).await?.files.iter());
                known.insert(name.to_owned(), (entry.changed_in, bytes));
                Ok(bytes)
            }
        }
    }
}

/// Counts what it is told, and hands it on.
pub struct Counting<'a> {
    /// The numbers.
    pub metrics: &'a Metrics,
    /// Who is told, too.
    pub inner: &'a dyn Observer,
}

impl Observer for Counting<'_> {
    fn working(&self, what: &str) {
        self.inner.working(what);
    }

    fn finished(&self, outcome: &ModelOutcome) {
        let model = &outcome.model;
        let how = [("model", model), ("status", &outcome.status), ("strategy", &outcome.strategy)];
        let how: Labels = how.map(|(name, value)| (name, value.clone())).into();
        self.metrics.refreshes.get_or_create(&how).inc();
        self.metrics.refresh_seconds.get_or_create(&of("model", model)).inc_by(outcome.seconds);
        for (change, rows) in
            [("inserted", outcome.inserted), ("updated", outcome.updated), ("deleted", outcome.deleted)]
        {
            let labels = vec![("model", model.clone()), ("change", change.to_owned())];
            self.metrics.changed_rows.get_or_create(&labels).inc_by(rows);
        }
        self.metrics.refused_rows.get_or_create(&of("model", model)).inc_by(outcome.quarantined);
        self.metrics.held.failed.get_or_create(&of("model", model)).set(i64::from(outcome.has_failed()));
        self.inner.finished(outcome);
    }

    fn warned(&self, text: &str) {
        self.inner.warned(text);
    }

    fn failed(&self, relation: &str, error: &Error) {
        self.metrics.failures.get_or_create(&of("relation", relation)).inc();
        self.inner.failed(relation, error);
    }

    fn looked(&self, source: &str, look: &Look) {
        let metrics = self.metrics;
        if let Some(waiting) = look.waiting_rows {
            metrics.lag_rows.get_or_create(&of("source", source)).set(signed(waiting));
        }
        let is_behind = look.changes.is_some();
        let mut caught_up = metrics.caught_up.lock().unwrap_or_else(PoisonError::into_inner);
        let caught = caught_up.entry(source.to_owned()).or_insert(Caught { at: Instant::now(), is_behind });
        caught.is_behind = is_behind;
        if !is_behind {
            caught.at = Instant::now();
        }
        drop(caught_up);
        self.inner.looked(source, look);
    }

    fn committed(&self, pipeline: &str, seconds: f64) {
        self.metrics.commits.get_or_create(&of("pipeline", pipeline)).observe(seconds);
        self.inner.committed(pipeline, seconds);
    }

    fn stepped(&self, seconds: f64) {
        self.metrics.steps.observe(seconds);
        self.inner.stepped(seconds);
    }

    fn sink_stands(&self, model: &str, sink: &str, has_failed: bool) {
        let labels = vec![("model", model.to_owned()), ("sink", sink.to_owned())];
        self.metrics.held.sink_failed.get_or_create(&labels).set(i64::from(has_failed));
        self.inner.sink_stands(model, sink, has_failed);
    }
}

fn of(label: &'static str, value: &str) -> Labels {
    vec![(label, value.to_owned())]
}

fn rows_of<'f>(files: impl Iterator<Item = &'f DataFile>) -> i64 {
    signed(files.map(|file| file.rows).sum())
}

fn bytes_of<'f>(files: impl Iterator<Item = &'f DataFile>) -> i64 {
    signed(files.map(|file| file.size).sum())
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Observer for Nobody {
        fn working(&self, _: &str) {}
        fn finished(&self, _: &ModelOutcome) {}
        fn warned(&self, _: &str) {}
        fn failed(&self, _: &str, _: &Error) {}
    }

    #[test]
    fn a_source_is_behind_from_when_something_waits_until_nothing_does() {
        let metrics = Metrics::new();
        let counting = Counting { metrics: &metrics, inner: &Nobody };
        let look = |waiting: u64| {
            let changes = (waiting > 0).then(|| format!("{waiting} new"));
            counting.looked("events", &Look { changes, waiting_rows: Some(waiting), ..Look::default() });
        };
        let text = || {
            metrics.set_lags();
            let mut text = String::new();
            encode(&mut text, &metrics.registry).unwrap();
            text
        };
        let lag = |text: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with("tidemill_source_lag_seconds{")).unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        look(0);
        assert_eq!(lag(&text()), 0.0);
        look(7);
        let (first, second) = (text(), text());
        assert!(first.contains("tidemill_source_lag_rows{source=\"events\"} 7\n"), "{first}");
        assert!(0.0 < lag(&first) && lag(&first) < lag(&second), "{first}{second}");
        look(0);
        let caught_up = text();
        assert_eq!(lag(&caught_up), 0.0);
        assert!(caught_up.contains("tidemill_source_lag_rows{source=\"events\"} 0\n"), "{caught_up}");
    }

    #[test]
    fn failures_are_counted_by_relation() {
        let metrics = Metrics::new();
        let counting = Counting { metrics: &metrics, inner: &Nobody };
        counting.failed("events", &Error::external("no broker answers"));
        counting.failed("events", &Error::external("no broker answers"));
        let mut text = String::new();
        encode(&mut text, &metrics.registry).unwrap();
        assert!(text.contains("tidemill_failures_total{relation=\"events\"} 2\n"), "{text}");
    }
}
