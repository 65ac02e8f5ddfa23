//! A stream of sales that `up` takes in and publishes, on a real broker, and what must hold of it whatever happens meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::kafka_server::{Kafka, Message};
use crate::kafka_sinks::{applied, compacted, lines};
use crate::scratch::Scratch;

/// How long it may take until everything that was sent is in tables and topics.
const LIMIT: Duration = Duration::from_secs(180);

pub(crate) struct Stream {
    pub(crate) shop: Scratch,
    pub(crate) random: ChaCha8Rng,
    topic: String,
    topics: String,
    sent: u64,
}

/// A project over a topic of `source`; its models are published to topics of `sink`, if that is given.
fn project(source: &str, topic: &str, sink: Option<(&str, &str)>) -> Scratch {
    let publish = |name: &str, more: &str| match sink {
        Some((brokers, topics)) => {
            format!("    publish: [ {{ connector: kafka, brokers: \"{brokers}\", topic: {topics}.{name}{more} }} ]\n")
        }
        None => String::new(),
    };
    Scratch::new(&format!(
        "pipeline: sales
sources:
  sales: {{ connector: kafka, brokers: \"{source}\", topic: {topic}, format: json, columns: {{ id: bigint, city: text, amount: bigint }} }}
models:
  per_city:
    sql: select city, count(*) as n, sum(amount) as amount from sales group by city
    key: [city]
{}  large:
    sql: select id, city, amount from sales where amount > 50
    key: [id]
{}",
        publish("city", ""),
        publish("large", ", emit: debezium")
    ))
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

impl Stream {
    /// A new topic of three partitions, read through `source` and published through `sink`.
    pub(crate) fn new(kafka: &Kafka, source: &str, sink: &str, seed: u64) -> Self {
        let (topic, topics) = (kafka.topic("sales"), kafka.topic("sales-of"));
        kafka.create_topic(&topic, 3);
        let shop = project(source, &topic, Some((sink, &topics)));
        Self { shop, random: ChaCha8Rng::seed_from_u64(seed), topic, topics, sent: 0 }
    }

    /// Sends so many sales.
    pub(crate) fn send(&mut self, kafka: &Kafka, more: u64) {
        let messages: Vec<_> = (0..more)
            .map(|_| {
                self.sent += 1;
                let (city, amount) = (self.random.random_range(0..30), self.random.random_range(1..100));
                Message::of(json!({ "id": self.sent, "city": format!("c{city}"), "amount": amount }).to_string())
            })
            .collect();
        kafka.produce(&self.topic, &messages);
    }

    /// Sends a message that is no sale.
    pub(crate) fn send_refused(&self, kafka: &Kafka) {
        kafka.produce(&self.topic, &[Message::of(json!({ "id": "one" }).to_string())]);
    }

    /// The topic that a model is published to, and the group that holds how far it is.
    pub(crate) fn sink_of(&self, model: &str, name: &str) -> (String, String) {
        let topic = format!("{}.{name}", self.topics);
        let group = format!("tidemill-sink-shop-{model}-{topic}");
        (topic, group)
    }

    fn newest(&self) -> Option<Value> {
        let commits = fs::read_dir(self.shop.path("warehouse/_tidemill/sales/commits")).ok()?;
        // One that is being written has a longer name.
        let whole =
            commits.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
        whole.max().map(|path| json_of(&path))
    }

    /// In how many pieces the newest commit holds messages.
    pub(crate) fn units(&self) -> usize {
        self.newest().map_or(0, |record| record["sources"]["sales"]["files"].as_array().unwrap().len())
    }

    /// In how many files the newest commit holds refused messages.
    pub(crate) fn refused_files(&self) -> usize {
        let Some(record) = self.newest() else { return 0 };
        let files = record["sources"]["sales"]["files"].as_array().unwrap();
        files.iter().map(|file| file["quarantined"].as_array().map_or(0, Vec::len)).sum()
    }

    /// Whether the newest commit lacks messages.
    pub(crate) fn is_unread(&self) -> bool {
        let Some(record) = self.newest() else { return true };
        let files = record["sources"]["sales"]["files"].as_array().cloned().unwrap_or_default();
        files.iter().map(|file| file["rows"].as_u64().unwrap()).sum::<u64>() < self.sent
    }

    /// Whether there is something left to do: messages that no commit holds, or a commit that a sink hasn't.
    pub(crate) fn is_behind(&self) -> bool {
        if self.is_unread() {
            return true;
        }
        let Some(record) = self.newest() else { return true };
        let Ok(notes) = fs::read_dir(self.shop.path("warehouse/_tidemill/sales/sinks")) else { return true };
        // One that is being written may not be whole.
        let notes = notes.map(|entry| serde_json::from_slice(&fs::read(entry.unwrap().path()).ok()?).ok());
        let notes: Vec<Option<Value>> = notes.collect();
        let is_told = |note: &Option<Value>| {
            let Some(note) = note else { return false };
            let changed_in = &record["tables"][note["model"].as_str().unwrap()]["changed_in"];
            note["publishing"].is_null() && note["published"]["commit"] == *changed_in
        };
        notes.len() < 2 || !notes.iter().all(is_told)
    }

    /// Waits until something isn't so any longer.
    #[track_caller]
    pub(crate) fn wait_while(&self, what: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while what(self) {
            assert!(started.elapsed() < LIMIT, "not within {LIMIT:?}, of {} sales: {:?}", self.sent, self.newest());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Tables are those of a project that nothing ever happened to, and topics hold them, each row as often as it changed.
    #[track_caller]
    pub(crate) fn assert_whole(&self, source: &Kafka, sink: &Kafka) {
        let (shop, sent) = (&self.shop, self.sent);
        shop.exits(0, &["run"]);
        shop.exits(0, &["verify"]);
        let clean = project(&source.brokers(), &self.topic, None);
        clean.exits(0, &["run"]);
        for sql in ["select * from per_city", "select * from large"] {
            assert_eq!(lines(shop, sql), lines(&clean, sql), "{sql}");
        }
        assert_eq!(shop.rows("select sum(n) from per_city"), format!("{sent}\n"));
        assert_eq!(
            compacted(&sink.consume(&self.sink_of("per_city", "city").0)),
            lines(shop, "select * from per_city")
        );
        let rows: BTreeSet<String> = lines(shop, "select * from large")
            .iter()
            .map(|row| serde_json::from_str::<Value>(row).unwrap().to_string())
            .collect();
        let large = sink.consume(&self.sink_of("large", "large").0);
        assert_eq!(applied(&large), rows);
        assert_eq!(large.len(), rows.len(), "rows that only come are sent once");
    }
}
