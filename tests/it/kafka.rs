//! Topics as sources, on a real broker: each message counts once, whatever ends a run in its middle.

use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use serde_json::{Value, json};

use crate::kafka_server::{Kafka, Message};
use crate::process::{Bounded, Process};
use crate::scratch::Scratch;

const MODELS: &str = "
models:
  kept: { sql: 'select id, city, amount from payments where amount > 5', key: [id] }
  per_city:
    sql: select city, count(*) as n, sum(amount) as amount, max(at) as latest from payments group by city
    key: [city]
  per_minute:
    sql: select window_start, city, count(*) as n from payments group by tumble(at, interval '1 minute'), city
    key: [window_start, city]
    refresh: continuous
  payments_seen: { sql: 'select id from payments' }
  top: { sql: 'select id, amount from (select id, amount, row_number() over (partition by city order by amount desc) as r from payments) where r <= 2' }
";

/// A project that reads `topic`, with further keys of the source.
fn project(kafka: &Kafka, topic: &str, more: &str) -> Scratch {
    let brokers = kafka.brokers();
    Scratch::new(&format!(
        "pipeline: sales
sources:
  payments:
    connector: kafka
    brokers: \"{brokers}\"
    topic: {topic}
    format: json
    columns: {{ id: {{ type: bigint, nullable: false }}, city: text, amount: \"decimal(12, 2)\", at: timestamptz }}
    event_time: at
    watermark_delay: 10s
    idle_timeout: 1m
    on_late: correct
{more}{MODELS}"
    ))
}

fn payment(random: &mut ChaCha8Rng, id: i64) -> Value {
    let city = ["Natal", "Recife", "Olinda"][random.random_range(0..3)];
    let (cents, second) = (random.random_range(0..10_000), random.random_range(0..300));
    json!({
        "id": id, "city": city, "amount": format!("{}.{:02}", cents / 100, cents % 100),
        "at": format!("2026-01-01T00:{:02}:{:02}Z", second / 60, second % 60),
    })
}

fn message(partition: i32, value: &Value) -> Message {
    Message { partition: Some(partition), value: Some(value.to_string().into_bytes()), ..Message::default() }
}

/// Sends payments with these ids, each to one of `partitions`.
fn send(kafka: &Kafka, topic: &str, partitions: i32, ids: std::ops::Range<i64>) {
    let mut random = ChaCha8Rng::seed_from_u64(ids.start as u64);
    let messages: Vec<Message> = ids
        .map(|id| {
            let value = payment(&mut random, id);
            message(random.random_range(0..partitions), &value)
        })
        .collect();
    kafka.produce(topic, &messages);
}

/// Gives a topic that many partitions in all.
pub fn add_partitions(kafka: &Kafka, topic: &str, partitions: usize) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka.brokers()).create().unwrap();
    let more = NewPartitions::new(topic, partitions);
    let made = futures::executor::block_on(admin.create_partitions([&more], &AdminOptions::new())).unwrap();
    made.into_iter().for_each(|topic| drop(topic.unwrap()));
}

fn status_of(outcomes: &[Value], model: &str, key: &str) -> String {
    outcomes.iter().find(|outcome| outcome["model"] == model).unwrap()[key].as_str().unwrap().to_string()
}

#[test]
fn each_message_counts_once_over_many_runs() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("payments");
    kafka.create_topic(&topic, 3);
    let shop = project(kafka, &topic, "");
    for round in 0..5 {
        send(kafka, &topic, 3, round * 100..round * 100 + 100);
        let outcomes = shop.exits(0, &["run", "--format", "json"]).json();
        assert_eq!(shop.rows("select sum(n) from per_city"), format!("{}\n", (round + 1) * 100));
        if round > 1 {
            for model in ["kept", "per_city", "per_minute", "top"] {
                assert_eq!(status_of(&outcomes, model, "strategy"), "incremental", "{outcomes:?}");
            }
        }
        shop.exits(0, &["verify"]);
    }
    let again = shop.exits(0, &["run", "--format", "json"]).json();
    assert!(again.iter().all(|outcome| outcome["status"] == "nothing"), "{again:?}");
    let committed = kafka.committed("tidemill-shop-payments", &topic);
    assert_eq!(committed.values().sum::<i64>(), 500, "{committed:?}");
    // Where each row stood is data.
    let places = "select _topic, count(distinct _partition), count(*), min(_offset) from payments group by 1";
    assert_eq!(shop.rows(places), format!("{topic},3,500,0\n"));
    shop.exits(0, &["run", "--full-refresh"]);
    assert_eq!(shop.rows("select sum(n) from per_city"), "500\n");
}

#[test]
fn what_breaks_the_contract_is_kept_with_its_offset() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("broken");
    kafka.create_topic(&topic, 1);
    let text =
        |value: &str| Message { partition: Some(0), value: Some(value.as_bytes().to_vec()), ..Message::default() };
    kafka.produce(
        &topic,
        &[
            text(r#"{"id": 1, "city": "Natal", "amount": 7, "at": "2026-01-01T00:00:00Z", "more": {"x": [1]}}"#),
            text(r#"{"id": 2, "amount": 7.125}"#),
            text("not json"),
            text(r#"{"city": "Natal"}"#),
            Message { partition: Some(0), key: Some(b"gone".to_vec()), ..Message::default() },
            text(r#"{"id": 3, "city": "Natal", "amount": -1}"#),
            text(r#"{"id": 4, "city": "Recife", "amount": 10.50, "at": "2026-01-01T00:00:00Z"}"#),
        ],
    );
    let shop = project(kafka, &topic, "    checks: [ { name: positive, check: amount > 0, on_fail: quarantine } ]\n");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select id, city, amount from kept order by id"), "1,Natal,7.00\n4,Recife,10.50\n");
    let refused = "select _offset, _rule, _partition, _topic is not null, _source_file is null, _raw \
                   from payments_quarantine order by 1";
    let expected = "1,contract,0,true,true,\"{\"\"id\"\": 2, \"\"amount\"\": 7.125}\"\n\
        2,contract,0,true,true,not json\n\
        3,contract,0,true,true,\"{\"\"city\"\": \"\"Natal\"\"}\"\n\
        4,contract,0,true,true,\"\"\n\
        5,positive,0,true,true,\"{\"\"id\"\": 3, \"\"city\"\": \"\"Natal\"\", \"\"amount\"\": -1}\"\n";
    assert_eq!(shop.rows(refused), expected);
    shop.exits(0, &["verify"]);
}

#[test]
fn of_an_upsert_relation_the_last_message_of_a_key_counts() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("products");
    kafka.create_topic(&topic, 2);
    let shop = Scratch::new(&format!(
        "pipeline: sales
sources:
  products:
    connector: kafka
    brokers: \"{}\"
    topic: {topic}
    format: json
    relation: upsert
    key: [id]
    columns: {{ id: {{ type: bigint, nullable: false }}, name: {{ type: text, nullable: false }}, price: \"decimal(8, 2)\" }}
models:
  listed: {{ sql: 'select * from products', key: [id] }}
  prices: {{ sql: 'select count(*) as n, sum(price) as price from products' }}
",
        kafka.brokers()
    ));
    let put = |id: i64, name: Option<&str>, price: &str| Message {
        partition: Some((id % 2) as i32),
        key: Some(id.to_string().into_bytes()),
        value: name.map(|name| json!({"id": id, "name": name, "price": price}).to_string().into_bytes()),
        ..Message::default()
    };
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut expected: BTreeMap<i64, (String, String)> = BTreeMap::new();
    for round in 0..6 {
        let messages: Vec<Message> = (0..30)
            .map(|at| {
                let id = random.random_range(0..20);
                if random.random_bool(0.3) {
                    expected.remove(&id);
                    return put(id, None, "");
                }
                let (name, price) = (format!("name {round} {at}"), format!("{}.00", random.random_range(0..50)));
                expected.insert(id, (name.clone(), price.clone()));
                put(id, Some(&name), &price)
            })
            .collect();
        kafka.produce(&topic, &messages);
        let outcomes = shop.exits(0, &["run", "--format", "json"]).json();
        assert!(round < 2 || status_of(&outcomes, "listed", "strategy") == "incremental", "{outcomes:?}");
        let rows: String = expected.iter().map(|(id, (name, price))| format!("{id},{name},{price}\n")).collect();
        assert_eq!(shop.rows("select id, name, price from listed order by id"), rows, "round {round}");
        shop.exits(0, &["verify"]);
    }
    assert_eq!(shop.rows("select count(*) from products"), format!("{}\n", expected.len()));
}

#[test]
fn a_null_payload_takes_a_row_away_as_no_value_does() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("connected");
    kafka.create_topic(&topic, 1);
    let shop = Scratch::new(&format!(
        "pipeline: sales
sources:
  products:
    connector: kafka
    brokers: \"{}\"
    topic: {topic}
    format: connect-json
    relation: upsert
    key: [id]
    columns: {{ id: {{ type: bigint, nullable: false }}, name: text }}
models:
  listed: {{ sql: 'select id, name from products', key: [id] }}
",
        kafka.brokers()
    ));
    let put = |id: i64, value: Value| Message {
        partition: Some(0),
        key: Some(json!({ "schema": { "type": "int64" }, "payload": id }).to_string().into_bytes()),
        value: Some(value.to_string().into_bytes()),
        ..Message::default()
    };
    let schema = json!({ "type": "struct", "fields": [{ "field": "id", "type": "int64" }, { "field": "name", "type": "string" }] });
    let row = |id: i64| put(id, json!({ "schema": schema, "payload": { "id": id, "name": format!("name {id}") } }));
    let gone = |id: i64| put(id, json!({ "schema": schema, "payload": null }));
    kafka.produce(&topic, &[row(1), row(2), row(3), gone(2)]);
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select id, name from listed order by id"), "1,name 1\n3,name 3\n");
    kafka.produce(&topic, &[gone(1), row(2)]);
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select id, name from listed order by id"), "2,name 2\n3,name 3\n");
    shop.exits(0, &["verify"]);
}

#[test]
fn messages_that_are_gone_are_told_and_never_passed_over_in_silence() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("gaps");
    kafka.create_topic(&topic, 1);
    send(kafka, &topic, 1, 0..10);
    let shop = project(kafka, &topic, "    on_gap: ${ON_GAP:-fail}\n");
    let accepting = || {
        let mut command = shop.command(&["run"]);
        shop.seen(command.env("ON_GAP", "accept").finish())
    };
    shop.exits(0, &["run"]);
    send(kafka, &topic, 1, 10..20);
    kafka.delete_records(&topic, 0, 15);
    let seen = shop.exits(3, &["run"]);
    assert!(seen.err.contains("the messages 10 to 14 of partition 0 are gone before they were read"), "{}", seen.err);
    assert_eq!(shop.rows("select sum(n) from per_city"), "10\n");
    let seen = accepting();
    assert_eq!(seen.code, 0, "{}", seen.err);
    assert!(seen.err.contains("`on_gap: accept` goes on behind them"), "{}", seen.err);
    assert_eq!(shop.rows("select sum(n) from per_city"), "15\n");
    // Made anew: first with fewer messages than were read, then with more.
    kafka.delete_topic(&topic);
    let seen = shop.exits(3, &["run"]);
    assert!(seen.err.contains("there is no such topic"), "{}", seen.err);
    kafka.create_topic(&topic, 1);
    send(kafka, &topic, 1, 100..105);
    let seen = shop.exits(3, &["run"]);
    assert!(seen.err.contains("the topic was made anew or cut"), "{}", seen.err);
    send(kafka, &topic, 1, 105..140);
    let seen = shop.exits(3, &["run"]);
    assert!(seen.err.contains("holds other messages than those that were read"), "{}", seen.err);
    assert_eq!(shop.rows("select sum(n) from per_city"), "15\n");
    assert_eq!(accepting().code, 0);
    assert_eq!(shop.rows("select sum(n) from per_city"), "55\n");
    shop.exits(0, &["verify"]);
}

/// The client itself reads on in the new one, where it was in the old one.
#[test]
fn a_topic_made_anew_while_it_is_followed_is_told_whatever_it_holds_by_then() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("anew");
    kafka.create_topic(&topic, 1);
    send(kafka, &topic, 1, 0..5);
    let shop = project(kafka, &topic, "    on_gap: ${ON_GAP:-fail}\n");
    let up = Up::start(&shop);
    up.answers(&shop, "select sum(n) from per_city", "5");
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, 1);
    send(kafka, &topic, 1, 100..112);
    let begun = Instant::now();
    while shop.tidemill(&["status"]).code == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody noticed");
    }
    assert_eq!(shop.rows("select sum(n) from per_city"), "5\n");
    up.end();
    let seen = shop.exits(3, &["run"]);
    assert!(seen.err.contains("holds other messages than those that were read"), "{}", seen.err);
    let mut command = shop.command(&["run"]);
    let seen = shop.seen(command.env("ON_GAP", "accept").finish());
    assert_eq!(seen.code, 0, "{}", seen.err);
    assert_eq!(shop.rows("select sum(n) from per_city"), "17\n");
    shop.exits(0, &["verify"]);
}

#[test]
fn a_topic_made_anew_may_grow_to_as_many_partitions_as_it_had() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("regrown");
    kafka.create_topic(&topic, 2);
    let shop = project(kafka, &topic, "    on_gap: accept\n");
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let mut to = |partition: i32, ids: std::ops::Range<i64>| {
        let messages: Vec<Message> = ids.map(|id| message(partition, &payment(&mut random, id))).collect();
        kafka.produce(&topic, &messages);
    };
    to(1, 0..3);
    shop.exits(0, &["run"]);
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, 1);
    to(0, 10..11);
    shop.exits(0, &["run"]);
    add_partitions(kafka, &topic, 2);
    to(1, 20..22);
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select id from payments_seen order by id"), "0\n1\n2\n10\n20\n21\n");
    shop.exits(0, &["verify"]);
}

/// With nothing of what was read left, the topic can't prove that it is the same one, and needn't: each offset that is new is there.
#[test]
fn a_topic_that_forgot_all_that_was_read_is_read_on() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("forgotten");
    kafka.create_topic(&topic, 1);
    let shop = project(kafka, &topic, "");
    send(kafka, &topic, 1, 0..5);
    shop.exits(0, &["run"]);
    kafka.delete_records(&topic, 0, 5);
    shop.exits(0, &["run"]);
    send(kafka, &topic, 1, 5..7);
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select sum(n) from per_city"), "7\n");
    shop.exits(0, &["verify"]);
}

#[test]
fn only_committed_transactions_are_seen_and_new_partitions_are_found() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("transactions");
    kafka.create_topic(&topic, 1);
    let shop = project(kafka, &topic, "");
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let batch = |random: &mut ChaCha8Rng, ids: std::ops::Range<i64>| -> Vec<Message> {
        ids.map(|id| message(0, &payment(random, id))).collect()
    };
    kafka.produce_in_transaction(&topic, &batch(&mut random, 0..10), true);
    kafka.produce_in_transaction(&topic, &batch(&mut random, 10..20), false);
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select sum(n) from per_city"), "10\n");
    kafka.produce_in_transaction(&topic, &batch(&mut random, 20..25), false);
    shop.exits(0, &["run"]);
    kafka.produce_in_transaction(&topic, &batch(&mut random, 30..35), true);
    add_partitions(kafka, &topic, 3);
    kafka.produce(&topic, &[message(2, &payment(&mut random, 50))]);
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select sum(n) from per_city"), "16\n");
    shop.exits(0, &["verify"]);
}

#[test]
fn an_empty_topic_a_missing_one_and_a_broker_that_is_away() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("empty");
    kafka.create_topic(&topic, 1);
    let shop = project(kafka, &topic, "");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select count(*) from kept"), "0\n");
    let missing = project(kafka, "nowhere", "");
    assert!(missing.exits(3, &["run"]).err.contains("there is no such topic"));
    missing.exits(0, &["validate"]);
}

#[test]
fn messages_are_looked_at_without_a_run() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("looks");
    kafka.create_topic(&topic, 2);
    send(kafka, &topic, 2, 0..50);
    let shop = project(kafka, &topic, "");
    let shown = shop.exits(0, &["show", "per_city", "--format", "csv"]).out;
    assert_eq!(shown.lines().count(), 4, "{shown}");
    assert_eq!(shop.rows("select count(*), count(_timestamp), max(_headers) from payments"), "50,50,\n");
    let plan = shop.exits(0, &["plan"]).out;
    assert!(plan.contains("50 new offsets in 2 partitions"), "{plan}");
}

#[test]
fn a_broker_may_ask_for_a_password_over_tls() {
    let kafka = Kafka::start_secure();
    kafka.create_topic("payments", 1);
    send(&kafka, "payments", 1, 0..20);
    let options: String =
        kafka.options().iter().map(|(name, value)| format!("      {name}: {}\n", json!(value))).collect();
    let shop = project(&kafka, "payments", &format!("    options:\n{options}"));
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select sum(n) from per_city"), "20\n");
}

/// `tidemill up`, killed when the value goes.
pub struct Up {
    process: Process,
    address: String,
}

impl Up {
    pub fn start(shop: &Scratch) -> Self {
        let mut command = shop.command(&["up", "--listen", "127.0.0.1:0", "--quiet"]);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).start();
        let line = process.lines().next().unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().to_string();
        assert!(address.starts_with("grpc://"), "{line}");
        Self { process, address }
    }

    /// Waits until a query to the server gives this.
    #[track_caller]
    pub fn answers(&self, shop: &Scratch, sql: &str, expected: &str) {
        let started = Instant::now();
        loop {
            let seen = shop.tidemill(&["query", "--format", "csv", "--url", &self.address, sql]);
            let rows = seen.out.split_once('\n').map(|(_, rows)| rows.trim().to_string()).unwrap_or_default();
            if rows == expected {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(180), "{sql}: {rows} instead of {expected}: {}", seen.err);
        }
    }

    /// Kills it; how it ended.
    pub fn kill(mut self) -> ExitStatus {
        self.process.end()
    }

    /// Asks it to end; it must do so with 0.
    pub fn end(mut self) {
        self.process.signal("TERM");
        assert_eq!(self.process.wait().code(), Some(0));
    }
}

#[test]
fn continuous_work_follows_the_topic_through_kills() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("stream");
    kafka.create_topic(&topic, 3);
    let shop = project(kafka, &topic, "");
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut sent = 0;
    for round in 0..6 {
        let up = Up::start(&shop);
        for _ in 0..3 {
            let more = random.random_range(1..60);
            send(kafka, &topic, 3, sent..sent + more);
            sent += more;
            if random.random_bool(0.5) {
                up.answers(&shop, "select sum(n) from per_city", &sent.to_string());
            }
        }
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
            up.kill();
        } else {
            up.answers(&shop, "select count(*), count(distinct id) from payments_seen", &format!("{sent},{sent}"));
            up.end();
        }
    }
    let up = Up::start(&shop);
    up.answers(&shop, "select sum(n) from per_city", &sent.to_string());
    up.end();
    shop.exits(0, &["verify"]);
    let again = shop.exits(0, &["run", "--format", "json"]).json();
    assert!(again.iter().all(|outcome| outcome["status"] == "nothing"), "{again:?}");
    assert_eq!(
        shop.rows("select count(*), count(distinct _offset * 3 + _partition) from payments"),
        format!("{sent},{sent}\n")
    );
}

#[test]
fn continuous_work_finds_new_partitions() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("growing");
    kafka.create_topic(&topic, 1);
    let shop = project(kafka, &topic, "");
    let up = Up::start(&shop);
    send(kafka, &topic, 1, 0..10);
    up.answers(&shop, "select sum(n) from per_city", "10");
    add_partitions(kafka, &topic, 3);
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let more: Vec<Message> = (10..30).map(|id| message(1 + (id % 2) as i32, &payment(&mut random, id))).collect();
    kafka.produce(&topic, &more);
    up.answers(&shop, "select sum(n) from per_city", "30");
    send(kafka, &topic, 3, 30..60);
    up.answers(&shop, "select sum(n) from per_city", "60");
    up.end();
    shop.exits(0, &["verify"]);
}

/// The end of such a partition is told while the last messages of the others, which are large, are still being looked at once more.
#[test]
fn a_partition_whose_only_news_was_aborted_holds_nothing_up() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("aborted");
    let partitions = 12;
    kafka.create_topic(&topic, partitions);
    let large = "x".repeat(900_000);
    let all = |first: i64, city: &str| -> Vec<Message> {
        let of = |p: i32| json!({ "id": first + i64::from(p), "city": city, "at": "2026-01-01T00:00:00Z" });
        (0..partitions).map(|p| message(p, &of(p))).collect()
    };
    kafka.produce(&topic, &all(0, &large));
    let shop = project(kafka, &topic, "    options: { fetch.max.bytes: \"1000000\" }\n");
    shop.exits(0, &["run"]);
    kafka.produce_in_transaction(&topic, &[message(0, &json!({ "id": 1000 }))], false);
    kafka.produce(&topic, &all(100, "Natal")[1..]);
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select sum(n) from per_city"), "23\n");
    shop.exits(0, &["verify"]);
}

#[test]
fn a_second_process_finds_the_tables_taken() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("taken");
    kafka.create_topic(&topic, 1);
    let shop = project(kafka, &topic, "");
    let up = Up::start(&shop);
    up.answers(&shop, "select count(*) from kept", "0");
    shop.exits(75, &["run"]);
    // Also where its port is taken; where only that is, nothing stays held.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = other.local_addr().unwrap().to_string();
    shop.exits(75, &["up", "--listen", &listen]);
    up.end();
    shop.exits(3, &["up", "--listen", &listen]);
    shop.exits(0, &["run"]);
}
