//! Upsert relations whose keys move: to a partition that was added, or into a topic that was made anew. What came later counts.

use std::sync::LazyLock;

use serde_json::json;

use crate::kafka::add_partitions;
use crate::kafka_server::{Kafka, Message};
use crate::process::Bounded;
use crate::scratch::Scratch;

/// An hour ago: brokers forget what is old, and refuse what is to come.
static SINCE_MS: LazyLock<i64> = LazyLock::new(|| jiff::Timestamp::now().as_millisecond() - 3_600_000);

const LISTED: &str = "select id, name from listed order by id";

fn pipeline(kafka: &Kafka, topic: &str, more: &str) -> String {
    format!(
        "pipeline: sales
sources:
  products:
    connector: kafka
    brokers: \"{}\"
    topic: {topic}
    format: json
    relation: upsert
    key: [id]
    columns: {{ id: {{ type: bigint, nullable: false }}, name: text{more} }}
    on_gap: ${{ON_GAP:-fail}}
models:
  listed: {{ sql: 'select id, name from products', key: [id] }}
  names: {{ sql: 'select name, count(*) as n from products group by name', key: [name] }}
",
        kafka.brokers()
    )
}

/// A message of a product, which takes it away without a name; `second` is when it says that it was written.
fn put(partition: i32, id: i64, name: Option<&str>, second: i64) -> Message {
    Message {
        partition: Some(partition),
        key: Some(id.to_string().into_bytes()),
        value: name.map(|name| json!({ "id": id, "name": name }).to_string().into_bytes()),
        timestamp_ms: Some(*SINCE_MS + second * 1000),
        ..Message::default()
    }
}

/// A topic, and a project that reads it.
fn project(kafka: &Kafka, name: &str, partitions: i32) -> (String, Scratch) {
    let topic = kafka.topic(name);
    kafka.create_topic(&topic, partitions);
    let shop = Scratch::new(&pipeline(kafka, &topic, ""));
    (topic, shop)
}

#[test]
fn keys_that_move_to_added_partitions_have_their_later_message() {
    let kafka = Kafka::shared();
    let (topic, shop) = project(kafka, "spread", 1);
    let old: Vec<Message> = (0..24).map(|at| put(0, at % 8, Some(&format!("old {}", at / 8)), 1000 + at)).collect();
    kafka.produce(&topic, &old);
    shop.exits(0, &["run"]);
    add_partitions(kafka, &topic, 3);
    // Low offsets, and times of before: neither says that they are older.
    let new = |id: i64| put(1, id, (id < 4).then_some("new"), id);
    kafka.produce(&topic, &(0..6).map(new).collect::<Vec<_>>());
    shop.exits(0, &["run"]);
    let rows = "0,new\n1,new\n2,new\n3,new\n6,old 2\n7,old 2\n";
    assert_eq!(shop.rows(LISTED), rows);
    shop.exits(0, &["verify"]);
    kafka.produce(&topic, &[put(2, 4, Some("again"), 0), put(2, 0, None, 0)]);
    let outcomes = shop.exits(0, &["run", "--format", "json"]).json();
    assert!(outcomes.iter().all(|outcome| outcome["strategy"] == "incremental"), "{outcomes:?}");
    let rows = "1,new\n2,new\n3,new\n4,again\n6,old 2\n7,old 2\n";
    assert_eq!(shop.rows(LISTED), rows);
    assert_eq!(shop.rows("select name, n from names order by name"), "again,1\nnew,3\nold 2,2\n");
    shop.exits(0, &["verify"]);
    shop.exits(0, &["run", "--full-refresh"]);
    assert_eq!(shop.rows(LISTED), rows);
}

/// Partitions that are read at once say nothing of which message came first: there the messages' times do, of the last of each.
#[test]
fn of_partitions_that_are_read_at_once_the_later_time_counts() {
    let kafka = Kafka::shared();
    let (topic, shop) = project(kafka, "at_once", 2);
    let messages = [
        put(0, 9, Some("filling"), 0),
        put(0, 1, Some("future"), 500),
        put(0, 1, Some("old"), 100),
        put(1, 1, Some("new"), 101),
        put(0, 2, None, 200),
        put(1, 2, Some("back"), 201),
        put(1, 3, Some("gone"), 300),
        put(0, 3, None, 301),
    ];
    kafka.produce(&topic, &messages);
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(LISTED), "1,new\n2,back\n9,filling\n");
    shop.exits(0, &["verify"]);
}

#[test]
fn of_a_topic_made_anew_the_new_messages_count_whatever_their_offsets() {
    let kafka = Kafka::shared();
    let (topic, shop) = project(kafka, "reborn", 1);
    let old: Vec<Message> = (0..12).map(|at| put(0, at % 4, Some(&format!("old {}", at / 4)), 1000)).collect();
    kafka.produce(&topic, &old);
    shop.exits(0, &["run"]);
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, 1);
    kafka.produce(&topic, &[put(0, 1, Some("new"), 0), put(0, 2, None, 0)]);
    let mut command = shop.command(&["run"]);
    let seen = shop.seen(command.env("ON_GAP", "accept").finish());
    assert_eq!(seen.code, 0, "{}", seen.err);
    assert!(seen.err.contains("`on_gap: accept` goes on behind them"), "{}", seen.err);
    assert_eq!(shop.rows(LISTED), "0,old 2\n1,new\n3,old 2\n");
    shop.exits(0, &["verify"]);
    kafka.produce(&topic, &[put(0, 3, Some("new"), 0), put(0, 1, Some("newer"), 0), put(0, 2, Some("back"), 0)]);
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(LISTED), "0,old 2\n1,newer\n2,back\n3,new\n");
    shop.exits(0, &["verify"]);
}

/// The order in which messages were taken in hangs on no clock, and stays under another contract.
#[test]
fn what_is_taken_in_later_counts_whatever_the_clock_says() {
    let kafka = Kafka::shared();
    let (topic, shop) = project(kafka, "clocks", 3);
    let noon = "2026-03-01T12:00:00Z";
    kafka.produce(&topic, &[put(0, 9, Some("filling"), 0), put(0, 1, Some("old"), 900), put(0, 2, Some("old"), 900)]);
    shop.exits(0, &["run", "--now", noon]);
    kafka.produce(&topic, &[put(1, 1, Some("new"), 800)]);
    shop.exits(0, &["run", "--now", noon]);
    assert_eq!(shop.rows(LISTED), "1,new\n2,old\n9,filling\n");
    kafka.produce(&topic, &[put(2, 1, Some("newest"), 700), put(2, 2, None, 700)]);
    shop.exits(0, &["run", "--now", "2026-03-01T11:00:00Z"]);
    assert_eq!(shop.rows(LISTED), "1,newest\n9,filling\n");
    shop.exits(0, &["verify"]);
    // All messages are read again at once.
    shop.write("pipelines/sales.yaml", pipeline(kafka, &topic, ", price: bigint"));
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(LISTED), "1,newest\n9,filling\n");
    kafka.produce(&topic, &[put(1, 2, Some("back"), 0)]);
    shop.exits(0, &["run", "--now", noon]);
    assert_eq!(shop.rows(LISTED), "1,newest\n2,back\n9,filling\n");
    shop.exits(0, &["verify"]);
}

#[test]
fn tombstones_have_nothing_to_be_judged_and_other_messages_have() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("judged");
    kafka.create_topic(&topic, 1);
    let pipeline = pipeline(kafka, &topic, "").replace("name: text", "name: { type: text, nullable: false }");
    let rules = "    checks: [{ not_null: [name], on_fail: quarantine }, \"length(name) < 3\"]\n    on_gap:";
    let shop = Scratch::new(&pipeline.replace("    on_gap:", rules));
    let without_name =
        Message { value: Some(json!({ "id": 2, "name": null }).to_string().into_bytes()), ..put(0, 2, None, 3) };
    kafka.produce(&topic, &[put(0, 1, Some("a"), 0), put(0, 2, Some("b"), 1), put(0, 1, None, 2), without_name]);
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(LISTED), "2,b\n");
    let refused = "select _offset, _reason from products_quarantine";
    assert_eq!(shop.rows(refused), "3,\"name: null, and the column isn't nullable\"\n");
    shop.exits(0, &["verify"]);
}

#[test]
fn keys_of_text_are_taken_as_they_stand() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("texts");
    kafka.create_topic(&topic, 1);
    let shop = Scratch::new(&pipeline(kafka, &topic, "").replace("id: { type: bigint,", "id: { type: text,"));
    let of = |id: &str, name: Option<&str>| Message {
        key: Some(id.as_bytes().to_vec()),
        value: name.map(|name| json!({ "id": id, "name": name }).to_string().into_bytes()),
        ..put(0, 0, None, 0)
    };
    let keys = ["null", " 5", "{x", "007", "true", "[1]"];
    let came = keys.iter().map(|key| of(key, Some("a")));
    kafka.produce(&topic, &came.chain(keys.iter().map(|key| of(key, None))).collect::<Vec<_>>());
    kafka.produce(&topic, &[of("stays", Some("b"))]);
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(LISTED), "stays,b\n");
}
