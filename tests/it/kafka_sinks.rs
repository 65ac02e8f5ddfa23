//! Topics as sinks, on a real broker: who reads a topic whole and keeps the last message of each key has exactly the table,
//! whatever ended a run in its middle.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::held::Held;
use crate::kafka::Up;
use crate::kafka_server::{Kafka, Received};
use crate::process::Bounded;
use crate::scratch::{Scratch, TIDEMILL_YAML};

/// Sales per city, published in three ways, over files that come and go.
fn project(kafka: &Kafka, topics: &str, more: &str) -> Scratch {
    let shop = Scratch::new(&format!(
        "pipeline: sales
sources:
  sales:
    connector: files
    path: data/*.csv
    format: csv
    settle: 0s
    allow_empty: true
    columns: {{ city: text, amount: \"decimal(12, 2)\", at: timestamptz }}
models:
  per_city:
    sql: select city, count(*) as n, sum(amount) as amount, max(at) as latest from sales where city is not null group by city
    key: [city]
    publish:
      - {{ connector: kafka, brokers: \"{}\", topic: {topics}.changes{more} }}
      - {{ connector: kafka, brokers: \"{}\", topic: {topics}.debezium, emit: debezium, decimals: text }}
",
        kafka.brokers(),
        kafka.brokers()
    ));
    shop.write("data/none.csv", "city,amount,at\n");
    shop
}

/// Writes, replaces or removes a file of sales.
fn change(shop: &Scratch, random: &mut ChaCha8Rng) {
    let path = format!("data/{}.csv", random.random_range(0..4));
    if random.random_bool(0.3) && shop.path(&path).exists() {
        return shop.remove(&path);
    }
    let mut rows = "city,amount,at\n".to_string();
    for _ in 0..random.random_range(1..20) {
        let city = random.random_range(0..12);
        let (amount, second) = (random.random_range(0..1000), random.random_range(10..60));
        rows += &format!("c{city},{}.{:02},2026-01-01T00:00:{second}Z\n", amount / 100, amount % 100);
    }
    shop.write(&path, rows);
}

fn text(bytes: Option<&Vec<u8>>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8(bytes.clone()).unwrap())
}

/// What is left of a topic when only the last message of each key counts.
pub(crate) fn compacted(messages: &[Received]) -> BTreeSet<String> {
    let mut rows = BTreeMap::new();
    for message in messages {
        let key = text(message.key.as_ref()).unwrap();
        match text(message.value.as_ref()) {
            Some(value) => drop(rows.insert(key, value)),
            None => drop(rows.remove(&key)),
        }
    }
    rows.into_values().collect()
}

/// The rows that Debezium's envelopes come to, each change applied to what is there, which it must name.
pub(crate) fn applied(messages: &[Received]) -> BTreeSet<String> {
    let mut rows: BTreeMap<String, Value> = BTreeMap::new();
    for message in messages {
        let key = text(message.key.as_ref()).unwrap();
        let Some(value) = text(message.value.as_ref()) else {
            assert!(!rows.contains_key(&key), "a tombstone comes after a delete");
            continue;
        };
        let value: Value = serde_json::from_str(&value).unwrap();
        assert_eq!(rows.get(&key).unwrap_or(&Value::Null), &value["before"], "{value}");
        let op = match (value["before"].is_null(), value["after"].is_null()) {
            (true, false) => "c",
            (false, false) => "u",
            _ => "d",
        };
        assert_eq!(value["op"], op, "{value}");
        match value["after"].is_null() {
            true => drop(rows.remove(&key)),
            false => drop(rows.insert(key, value["after"].clone())),
        }
    }
    rows.into_values().map(|row| row.to_string()).collect()
}

pub(crate) fn lines(shop: &Scratch, sql: &str) -> BTreeSet<String> {
    shop.exits(0, &["query", "--format", "json", sql]).out.lines().map(str::to_string).collect()
}

/// Both topics hold the table, and no key twice for one commit.
#[track_caller]
fn holds_the_table(kafka: &Kafka, topics: &str, shop: &Scratch) {
    let changes = kafka.consume(&format!("{topics}.changes"));
    assert_eq!(compacted(&changes), lines(shop, "select * from per_city"));
    let mut seen = BTreeSet::new();
    for message in &changes {
        let (name, cursor) = &message.headers[0];
        assert_eq!(name, "tidemill");
        assert!(seen.insert((message.key.clone(), cursor.clone())), "one change a key and commit: {message:?}");
    }
    let rows = lines(shop, "select city, n, cast(amount as text) as amount, latest from per_city");
    let rows: BTreeSet<String> =
        rows.iter().map(|row| serde_json::from_str::<Value>(row).unwrap().to_string()).collect();
    assert_eq!(applied(&kafka.consume(&format!("{topics}.debezium"))), rows);
}

#[test]
fn a_compacted_topic_is_the_table() {
    let kafka = Kafka::shared();
    let topics = kafka.topic("sinks");
    let shop = project(kafka, &topics, "");
    let mut random = ChaCha8Rng::seed_from_u64(11);
    for round in 0..6 {
        change(&shop, &mut random);
        shop.exits(0, &["run"]);
        holds_the_table(kafka, &topics, &shop);
        let sent = kafka.consume(&format!("{topics}.changes")).len();
        shop.exits(0, &["run"]);
        assert_eq!(kafka.consume(&format!("{topics}.changes")).len(), sent, "round {round}: nothing is sent twice");
    }
    // The same rows by another way are no news either.
    let sent = kafka.consume(&format!("{topics}.changes")).len();
    shop.exits(0, &["run", "--full-refresh"]);
    assert_eq!(kafka.consume(&format!("{topics}.changes")).len(), sent);
    let message = &kafka.consume(&format!("{topics}.changes"))[0];
    let key: Value = serde_json::from_slice(message.key.as_ref().unwrap()).unwrap();
    assert_eq!(key.as_object().unwrap().keys().collect::<Vec<_>>(), ["city"]);
}

#[test]
fn a_run_that_dies_while_publishing_is_made_up_for() {
    let kafka = Kafka::shared();
    let topics = kafka.topic("dying");
    let shop = project(kafka, &topics, "");
    let mut random = ChaCha8Rng::seed_from_u64(12);
    for round in 0..3 {
        for point in ["after_record", "mid_sink", "before_sink", "after_sink"] {
            // Another row is always a change.
            shop.write(&format!("data/more-{round}-{point}.csv"), "city,amount,at\nc1,1.00,2026-01-01T00:00:00Z\n");
            change(&shop, &mut random);
            let died = shop.command(&["run"]).env("TIDEMILL_FAILPOINT", point).finish().status;
            assert_eq!(died.code(), None, "{point} was reached");
            if random.random_bool(0.5) {
                change(&shop, &mut random);
            }
            shop.exits(0, &["run"]);
            holds_the_table(kafka, &topics, &shop);
        }
    }
}

#[test]
fn the_cursor_is_found_in_the_messages_once_the_group_is_gone() {
    let kafka = Kafka::shared();
    let topics = kafka.topic("expired");
    let shop = project(kafka, &topics, "");
    let mut random = ChaCha8Rng::seed_from_u64(13);
    for _ in 0..3 {
        change(&shop, &mut random);
        shop.exits(0, &["run"]);
    }
    let sent = kafka.consume(&format!("{topics}.changes")).len();
    kafka.delete_group(&format!("tidemill-sink-shop-per_city-{topics}.changes"));
    // What spares asking the sink goes as well.
    std::fs::remove_dir_all(shop.path("warehouse/_tidemill/sales/sinks")).unwrap();
    shop.exits(0, &["run"]);
    assert_eq!(kafka.consume(&format!("{topics}.changes")).len(), sent);
    change(&shop, &mut random);
    shop.exits(0, &["run"]);
    holds_the_table(kafka, &topics, &shop);
}

#[test]
fn a_sink_that_is_down_holds_nobody_and_is_made_up_for() {
    let mut kafka = Kafka::start();
    let topics = "down".to_string();
    let options = ", options: { socket.timeout.ms: \"1000\", transaction.timeout.ms: \"5000\" }";
    let shop = project(&kafka, &topics, options);
    let mut random = ChaCha8Rng::seed_from_u64(14);
    change(&shop, &mut random);
    shop.exits(0, &["run"]);
    holds_the_table(&kafka, &topics, &shop);
    kafka.stop();
    for _ in 0..2 {
        change(&shop, &mut random);
        let seen = shop.exits(3, &["run"]);
        assert!(seen.err.contains("down.changes"), "{}", seen.err);
        assert!(!seen.err.contains("librdkafka"), "a line for each try to connect: {}", seen.err);
    }
    let rows = lines(&shop, "select * from per_city");
    kafka.resume();
    shop.exits(0, &["run"]);
    assert_eq!(rows, lines(&shop, "select * from per_city"));
    holds_the_table(&kafka, &topics, &shop);
}

#[test]
fn a_topic_of_another_warehouse_is_left_alone() {
    let kafka = Kafka::shared();
    let topics = kafka.topic("other");
    let shop = project(kafka, &topics, "");
    shop.write("data/1.csv", "city,amount,at\nNatal,1.00,2026-01-01T00:00:00Z\n");
    shop.exits(0, &["run"]);
    let sent = kafka.consume(&format!("{topics}.changes"));
    std::fs::remove_dir_all(shop.path("warehouse")).unwrap();
    shop.write("data/2.csv", "city,amount,at\nRecife,1.00,2026-01-01T00:00:00Z\n");
    let seen = shop.exits(3, &["run"]);
    assert!(seen.err.contains("another warehouse") && seen.err.contains("delete this one"), "{}", seen.err);
    assert_eq!(kafka.consume(&format!("{topics}.changes")), sent);
    // As the hint says.
    kafka.delete_topic(&format!("{topics}.changes"));
    kafka.delete_topic(&format!("{topics}.debezium"));
    shop.exits(0, &["run"]);
    holds_the_table(kafka, &topics, &shop);
}

#[test]
fn continuous_work_publishes_each_commit() {
    let kafka = Kafka::shared();
    let (topic, topics) = (kafka.topic("live"), kafka.topic("live-sinks"));
    kafka.create_topic(&topic, 2);
    let brokers = kafka.brokers();
    let shop = Scratch::new(&format!(
        "pipeline: sales
sources:
  sales: {{ connector: kafka, brokers: \"{brokers}\", topic: {topic}, format: json, columns: {{ city: text, amount: bigint }} }}
models:
  per_city:
    sql: select city, sum(amount) as amount from sales group by city
    key: [city]
    publish: [ {{ connector: kafka, brokers: \"{brokers}\", topic: {topics} }} ]
"
    ));
    let mut random = ChaCha8Rng::seed_from_u64(15);
    let mut total = 0;
    for round in 0..4 {
        let up = Up::start(&shop);
        for _ in 0..3 {
            let amount: i64 = random.random_range(1..100);
            total += amount;
            let value = json!({ "city": format!("c{}", random.random_range(0..5)), "amount": amount });
            kafka.produce(&topic, &[crate::kafka_server::Message::of(value.to_string())]);
            let started = Instant::now();
            // While it works, the topic follows within moments.
            while round > 0 && sum(&kafka.consume(&topics)) != total {
                assert!(started.elapsed() < Duration::from_secs(120), "{total} isn't published");
            }
            if round == 0 {
                up.answers(&shop, "select sum(amount) from per_city", &total.to_string());
            }
        }
        match round % 2 {
            0 => up.end(),
            _ => drop(up.kill()),
        }
        if round % 2 == 0 {
            assert_eq!(sum(&kafka.consume(&topics)), total, "what was committed is published before the end");
        }
    }
    shop.exits(0, &["run"]);
    assert_eq!(compacted(&kafka.consume(&topics)), lines(&shop, "select * from per_city"));
}

fn sum(messages: &[Received]) -> i64 {
    let rows = compacted(messages);
    rows.iter().map(|row| serde_json::from_str::<Value>(row).unwrap()["amount"].as_i64().unwrap()).sum()
}

#[test]
fn a_folder_goes_to_a_topic_line_by_line() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("lines");
    let shop = Scratch::new(&format!(
        "pipeline: sales
sources:
  lines: {{ connector: files, path: data/*.csv, format: csv, settle: 0s, columns: {{ city: text, amount: bigint }} }}
models:
  sent: {{ sql: select * from lines, publish: [ {{ connector: kafka, brokers: \"{}\", topic: {topic} }} ] }}
",
        kafka.brokers()
    ));
    let mut random = ChaCha8Rng::seed_from_u64(16);
    let mut lines = BTreeSet::new();
    for file in 0..5 {
        let mut text = "city,amount\n".to_string();
        for row in 1..=random.random_range(1..9) {
            // Equal lines are two lines.
            text += "Natal,1\n";
            lines.insert((format!("data/{file}.csv"), row.to_string()));
        }
        shop.write(&format!("data/{file}.csv"), text);
        if let Some(point) = ["mid_sink", "before_sink", "after_sink"].get(file) {
            let died = shop.command(&["run"]).env("TIDEMILL_FAILPOINT", point).finish().status;
            assert_eq!(died.code(), None, "{point} was reached");
        }
        shop.exits(0, &["run"]);
        let sent = kafka.consume(&topic);
        let header = |message: &Received, name: &str| {
            let found = message.headers.iter().find(|(key, _)| key == name).unwrap();
            text_of(found.1.as_ref())
        };
        let places: Vec<_> =
            sent.iter().map(|message| (header(message, "_source_file"), header(message, "_source_row"))).collect();
        assert_eq!(places.len(), lines.len(), "each line once");
        assert_eq!(places.into_iter().collect::<BTreeSet<_>>(), lines);
        assert!(sent.iter().all(|message| text_of(message.value.as_ref()) == r#"{"city":"Natal","amount":1}"#));
    }
    shop.remove("data/0.csv");
    shop.exits(0, &["run"]);
    let left = lines.iter().filter(|(file, _)| file != "data/0.csv").count();
    let sent = kafka.consume(&topic);
    let keys: BTreeMap<_, _> = sent.iter().map(|message| (&message.key, &message.value)).collect();
    assert_eq!(keys.values().filter(|value| value.is_some()).count(), left, "lines that went are taken back");
}

fn text_of(bytes: Option<&Vec<u8>>) -> String {
    text(bytes).unwrap()
}

#[test]
fn a_window_is_published_when_the_watermark_closes_it() {
    let kafka = Kafka::shared();
    let (topic, topics) = (kafka.topic("windows"), kafka.topic("final"));
    kafka.create_topic(&topic, 1);
    let brokers = kafka.brokers();
    let sink =
        |name: &str| format!("{{ connector: kafka, brokers: \"{brokers}\", topic: {topics}.{name}, emit: final }}");
    let shop = Scratch::new(&format!(
        "pipeline: sales
sources:
  events:
    connector: kafka
    brokers: \"{brokers}\"
    topic: {topic}
    format: json
    columns: {{ at: timestamptz }}
    event_time: at
    watermark_delay: 10s
    idle_timeout: 1h
models:
  tumbled:
    sql: select window_start, count(*) as n from events group by tumble(at, interval '1 minute')
    key: [window_start]
    publish: [ {} ]
  cut:
    sql: select date_trunc('minute', at) as minute, count(*) as n from events group by 1
    key: [minute]
    publish: [ {} ]
  sessions:
    sql: select window_start, window_end, count(*) as n from events group by session(at, interval '20 seconds')
    key: [window_start]
    publish: [ {} ]
",
        sink("tumbled"),
        sink("cut"),
        sink("sessions")
    ));
    let send = |times: &[&str]| {
        let of = |time: &&str| crate::kafka_server::Message::of(format!("{{\"at\":\"2026-01-01T00:{time}Z\"}}"));
        kafka.produce(&topic, &times.iter().map(of).collect::<Vec<_>>());
        shop.exits(0, &["run"]);
        // What isn't asked for isn't there either.
        ["tumbled", "cut", "sessions"].map(|name| {
            let messages = match kafka.partitions(&format!("{topics}.{name}")) {
                0 => vec![],
                _ => kafka.consume(&format!("{topics}.{name}")),
            };
            let counts = messages.iter().map(|message| match message.value.as_ref() {
                Some(value) => serde_json::from_slice::<Value>(value).unwrap()["n"].as_i64().unwrap(),
                None => -1,
            });
            counts.collect::<Vec<_>>()
        })
    };
    let none: Vec<i64> = vec![];
    assert_eq!(send(&["00:05", "00:10", "00:29"]), [none.clone(), none.clone(), none.clone()]);
    // The watermark is at 00:55: the session from 00:05 to 00:49 is closed, no minute is.
    assert_eq!(send(&["01:05"]), [none.clone(), none, vec![3]]);
    // Now it is at 01:00, the end of the first minute.
    assert_eq!(send(&["01:10"]), [vec![3], vec![3], vec![3]]);
    // A late event is a correction; it makes two sessions one, that isn't closed: the closed one is taken back.
    assert_eq!(send(&["00:48"]), [vec![3, 4], vec![3, 4], vec![3, -1]]);
    // Nothing closed: nothing is sent.
    assert_eq!(send(&["01:11"]), [vec![3, 4], vec![3, 4], vec![3, -1]]);
    assert_eq!(send(&["02:11"]), [vec![3, 4, 3], vec![3, 4, 3], vec![3, -1, 7]]);
}

#[test]
fn sinks_need_a_key_and_an_end() {
    let sources = "sources:
  lines: { connector: files, path: data/*.csv, format: csv, columns: { city: text, at: timestamptz } }
";
    let sink = |emit: &str| {
        format!("publish: [ {{ connector: kafka, brokers: \"localhost:1\", topic: {emit}, emit: {emit} }} ]")
    };
    let shop = Scratch::new(&format!(
        "{sources}models:
  bag: {{ sql: select city from lines where city is not null union all select city from lines, {} }}
  counted: {{ sql: 'select city, count(*) as n from lines group by city', key: [city], {} }}
",
        sink("changes"),
        sink("final"),
    ));
    shop.write("data/a.csv", "city,at\n");
    let seen = shop.exits(2, &["validate"]).err;
    for part in [
        "missing_key",
        "`bag` has no key, and a topic holds one row a key",
        "never_final",
        "no column of `counted` says when a row is final",
        "`counted` reads no topic that has an `event_time`",
        "pipelines/sales.yaml:4:",
        "pipelines/sales.yaml:5:",
    ] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
}

#[test]
fn an_upsert_relation_has_no_watermark_that_closes_windows() {
    let topic = "connector: kafka, brokers: \"localhost:1\", format: json, event_time: at, columns: { id: bigint, at: timestamptz }";
    let sql =
        |from: &str| format!("select window_start, count(*) as n from {from} group by tumble(at, interval ''1 hour'')");
    let model = |name: &str, from: &str, more: &str| {
        format!("  {name}: {{ sql: '{}', key: [window_start]{more} }}\n", sql(from))
    };
    let publish = |topic: &str| {
        format!(", publish: [ {{ connector: kafka, brokers: \"localhost:1\", topic: {topic}, emit: final }} ]")
    };
    let shop = Scratch::new(&format!(
        "sources:\n  states: {{ {topic}, topic: a, relation: upsert, key: [id] }}\n  events: {{ {topic}, topic: b }}\n\
         models:\n{}{}{}{}{}",
        model("closed", "states", &publish("c")),
        model("kept", "states", ", retention: 90d"),
        model("both", "(select at from states union all select at from events) x", &publish("d")),
        "  handed: { sql: 'select id, at from states', key: [id] }\n",
        model("further", "handed", &publish("e")),
    ));
    let seen = shop.exits(2, &["validate", "--offline"]).err;
    let reason =
        "reads `states`, an upsert relation, which has no watermark since any row of it may change at any time";
    for part in [
        format!("error[never_final]: `closed` {reason}: nothing says how late it is"),
        format!("error[never_final]: `further` {reason}: nothing says how late it is"),
        format!("error[retention]: `kept` {reason}: nothing says how far time is"),
        "`emit: changes` publishes each change".to_string(),
    ] {
        assert!(seen.contains(&part), "{part}: {seen}");
    }
    assert!(!seen.contains("`both` reads") && !seen.contains("reads no topic"), "{seen}");
}

#[test]
fn a_sink_without_brokers_is_told_once() {
    let model = |brokers: &str| {
        format!(
            "sources:
  lines: {{ connector: files, path: data/*.csv, format: csv, columns: {{ city: text }} }}
models:
  counted: {{ sql: 'select city, count(*) as n from lines group by city', key: [city], publish: [ {{ connector: kafka, {brokers}topic: t }} ] }}
"
        )
    };
    let shop = Scratch::new(&model(""));
    shop.write("data/a.csv", "city\n");
    let seen = shop.exits(2, &["validate"]).err;
    assert!(seen.contains("`brokers` is missing") && seen.matches("error[").count() == 1, "{seen}");
    shop.write("pipelines/sales.yaml", model("brokers: \"${NOT_SET_ANYWHERE}\", "));
    let seen = shop.exits(2, &["validate"]).err;
    assert!(seen.contains("NOT_SET_ANYWHERE") && seen.matches("error[").count() == 1, "{seen}");
}

/// A run that stands still before its transaction's end meets another that publishes the same commit.
#[test]
fn who_was_paused_while_another_published_is_fenced() {
    let kafka = Kafka::shared();
    let topics = kafka.topic("paused");
    let shop = project(kafka, &topics, "");
    shop.write("tidemill.yaml", format!("{TIDEMILL_YAML}lease_ttl: 1s\n"));
    shop.write("data/1.csv", "city,amount,at\nNatal,1.00,2026-01-01T00:00:00Z\n");
    shop.exits(0, &["run"]);
    shop.write("data/2.csv", "city,amount,at\nRecife,1.00,2026-01-01T00:00:00Z\n");
    let paused = Held::of(&shop, &["run"], "before_sink");
    paused.stop();
    shop.exits(0, &["run", "--wait"]);
    holds_the_table(kafka, &topics, &shop);
    let seen = paused.go_on(&shop);
    assert_eq!(seen.code, 75, "{}{}", seen.out, seen.err);
    assert!(seen.err.contains("another process publishes to this topic now"), "{}", seen.err);
    holds_the_table(kafka, &topics, &shop);
}

#[test]
fn a_topic_is_of_one_model_and_of_none_that_is_computed_of_it() {
    let events = "sources:
  ev: { connector: kafka, brokers: 'localhost:1, other:1', topic: events, format: json, columns: { k: text, v: bigint } }
models:
";
    let model = |name: &str, from: &str, sink: &str| {
        format!("  {name}: {{ sql: select * from {from}, key: [k], publish: [ {{ connector: kafka, {sink} }} ] }}\n")
    };
    let shop = Scratch::new("");
    shop.write("tidemill.yaml", format!("{TIDEMILL_YAML}kafka: {{ brokers: 'localhost:1' }}\n"));
    let validated = |code: i32, models: &[String]| {
        shop.write("pipelines/sales.yaml", format!("{events}{}", models.concat()));
        shop.exits(code, &["validate", "--offline"]).err
    };
    validated(
        0,
        &[
            model("a", "ev", "topic: two"),
            model("b", "ev", "topic: three"),
            model("c", "ev", "brokers: far, topic: two"),
        ],
    );
    let seen = validated(2, &[model("a", "ev", "topic: two"), model("b", "ev", "brokers: 'localhost:1', topic: two")]);
    let twice = "error[duplicate]: `a` is published to this topic as well\n --> pipelines/sales.yaml:5:";
    assert!(seen.contains(twice) && seen.matches("error[").count() == 1, "{seen}");
    let seen = validated(
        2,
        &[
            model("near", "ev", "brokers: 'OTHER:1', topic: events"),
            model("apart", "ev", "brokers: far, topic: events"),
            "  between: { sql: 'select * from ev', key: [k] }\n".to_string(),
            model("beyond", "between", "topic: events, emit: debezium"),
        ],
    );
    for (name, line) in [("near", 4), ("beyond", 7)] {
        let told = format!(
            "error[cycle]: `{name}` is computed of `ev`, which reads this topic: what it publishes would come back, for ever\n \
             --> pipelines/sales.yaml:{line}:"
        );
        assert!(seen.contains(&told), "{told}: {seen}");
    }
    assert!(!seen.contains("`apart`"), "{seen}");
}
