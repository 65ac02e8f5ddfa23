//! The whole shop over topics, on a real broker: each model is what it is over files of the same rows.

use std::process::Command;

use serde_json::Value;

use crate::kafka_server::{Kafka, Message, Received};
use crate::process::Bounded;
use crate::scratch::Seen;
use crate::shop_models::{SOURCES, Shop};

const MODELS: [&str; 15] = [
    "daily_sales",
    "product_sales",
    "monthly_city_revenue",
    "previous_month_city_revenue",
    "category_unit_sales",
    "previous_month_category_unit_sales",
    "product_ratings",
    "bought_together",
    "customer_lifetime_value",
    "customer_segments",
    "reward_points",
    "sessions",
    "abandoned_carts",
    "funnel",
    "recommendations",
];

/// Those that the clock alone may change: no rows that come could say which rows of theirs do.
const BY_THE_CLOCK: [&str; 3] = ["previous_month_category_unit_sales", "previous_month_city_revenue", "reward_points"];

const NOW: &str = "2018-04-20T12:00:00Z";

/// What is generated for both.
const WHAT: [&str; 16] = [
    "--orders",
    "300",
    "--events",
    "3000",
    "--seed",
    "11",
    "--start",
    "2018-03-01",
    "--days",
    "50",
    "--late",
    "0.02",
    "--duplicates",
    "0.02",
    "--malformed",
    "0.02",
];

/// The project at work on its topics, or on files of the same rows.
struct Streamed<'a> {
    shop: Shop,
    kafka: &'a Kafka,
    /// Of the topics; without it the sources are files.
    prefix: Option<String>,
}

impl Streamed<'_> {
    #[track_caller]
    fn exits(&self, code: i32, args: &[&str]) -> Seen {
        let overlays: &[&str] = match self.prefix {
            Some(_) => &["--overlay", "overlays/kafka.yaml"],
            None => &["--overlay", "overlays/json.yaml", "--overlay", "overlays/young.yaml"],
        };
        let all = [overlays, args].concat();
        let mut command: Command = self.shop.0.command(&all);
        command.env_remove("SHOP_DATA").env_remove("WAREHOUSE").env("KAFKA_BROKERS", self.kafka.brokers());
        command.envs(self.prefix.as_ref().map(|prefix| ("SHOP_TOPICS", prefix)));
        let seen = self.shop.0.seen(command.finish());
        assert_eq!(seen.code, code, "{all:?}\nstdout: {}\nstderr: {}", seen.out, seen.err);
        seen
    }

    /// Rows of a table, sorted.
    fn table(&self, name: &str) -> Vec<String> {
        let out = self.exits(0, &["query", "--format", "csv", &format!("select * from {name}")]).out;
        let mut rows: Vec<String> = out.lines().skip(1).map(str::to_owned).collect();
        rows.sort();
        rows
    }

    fn run(&self) -> Vec<Value> {
        self.exits(0, &["run", "--now", NOW, "--format", "json"]).json()
    }
}

/// The models of which `key` is `value`, sorted.
fn those<'v>(outcomes: &'v [Value], key: &str, value: &Value) -> Vec<&'v str> {
    let mut names: Vec<&str> =
        outcomes.iter().filter(|told| told[key] == *value).map(|told| told["model"].as_str().unwrap()).collect();
    names.sort_unstable();
    names
}

/// Whether two rows are the same; floats, which hang on the order of rows, to nine digits.
fn same(a: &str, b: &str) -> bool {
    let is_near = |(a, b): (&str, &str)| {
        let floats = || Some((a.parse::<f64>().ok()?, b.parse::<f64>().ok()?));
        a == b || a.contains('.') && floats().is_some_and(|(x, y)| (x - y).abs() <= 1e-9 * x.abs().max(y.abs()))
    };
    let (a, b): (Vec<&str>, Vec<&str>) = (a.split(',').collect(), b.split(',').collect());
    a.len() == b.len() && a.into_iter().zip(b).all(is_near)
}

/// The part of `rows` that comes in a round: a half first, so that later rounds change less than that.
fn part(rows: &[Received], round: usize) -> Vec<Message> {
    const ROUNDS: [usize; 5] = [0, 50, 70, 90, 100];
    let at = |round: usize| rows.len() * ROUNDS[round] / 100;
    let message = |row: &Received| Message { key: row.key.clone(), value: row.value.clone(), ..Message::default() };
    rows[at(round)..at(round + 1)].iter().map(message).collect()
}

#[test]
fn the_shop_over_topics_is_the_shop_over_files() {
    let kafka = Kafka::shared();
    let files = Streamed { shop: Shop::new(), kafka, prefix: None };
    files.exits(0, &[&["generate", "data", "--format", "json"], &WHAT[..]].concat());
    files.run();

    let (whole, prefix) = (kafka.topic("whole"), kafka.topic("shop"));
    for source in SOURCES {
        kafka.create_topic(&format!("{whole}.{source}"), 1);
        kafka.create_topic(&format!("{prefix}.{source}"), 2);
    }
    let brokers = kafka.brokers();
    files.exits(0, &[&["generate", "--kafka", &brokers, "--topics", &whole], &WHAT[..]].concat());
    let rows = SOURCES.map(|source| (source, kafka.consume(&format!("{whole}.{source}"))));

    let shop = Streamed { shop: Shop::new(), kafka, prefix: Some(prefix.clone()) };
    let mut outcomes = Vec::new();
    for round in 0..4 {
        for (source, rows) in &rows {
            kafka.produce(&format!("{prefix}.{source}"), &part(rows, round));
        }
        outcomes = shop.run();
    }
    assert_eq!(those(&outcomes, "strategy", &"recomputed".into()), BY_THE_CLOCK, "{outcomes:?}");
    assert_eq!(those(&outcomes, "strategy", &"incremental".into()).len(), 12, "{outcomes:?}");
    let plan = shop.exits(0, &["plan", "--format", "json"]).json();
    assert_eq!(those(&plan, "incremental", &false.into()), BY_THE_CLOCK);

    for model in MODELS {
        let (streamed, batch) = (shop.table(model), files.table(model));
        assert!(!batch.is_empty(), "{model} has no rows");
        assert_eq!(streamed.len(), batch.len(), "{model}");
        let other = streamed.iter().zip(&batch).find(|(a, b)| !same(a, b));
        assert_eq!(other, None, "{model}");
    }
    let mut refused = 0;
    for source in SOURCES {
        let rows = |of: &Streamed<'_>| of.table(&format!("{source}_quarantine")).len();
        assert_eq!(rows(&shop), rows(&files), "{source}");
        refused += rows(&files);
    }
    assert!(refused > 50, "{refused} refused rows");
    shop.exits(0, &["verify"]);
}
