//! A topic's past from files: what they hold and what the topic holds count once together, handed over at an exact offset.

use std::fs;

use serde_json::json;

use crate::kafka_server::{Kafka, Message};
use crate::scratch::Scratch;

fn project(kafka: &Kafka, topic: &str, more: &str) -> Scratch {
    Scratch::new(&pipeline(kafka, topic, more, "id: bigint, city: text"))
}

fn pipeline(kafka: &Kafka, topic: &str, more: &str, columns: &str) -> String {
    format!(
        "pipeline: sales
sources:
  payments: {{ connector: kafka, brokers: \"{}\", topic: {topic}, format: json, columns: {{ {columns} }}{more} }}
models:
  per_city: {{ sql: 'select city, count(*) as n, count(distinct id) as ids from payments group by city', key: [city] }}
",
        kafka.brokers()
    )
}

fn send(kafka: &Kafka, topic: &str, ids: std::ops::Range<i64>) {
    let of = |id: i64| Message {
        partition: Some(i32::try_from(id % 3).unwrap()),
        ..Message::of(json!({ "id": id, "city": format!("c{}", id % 7) }).to_string())
    };
    kafka.produce(topic, &ids.map(of).collect::<Vec<_>>());
}

/// Brings `from` up to date, and gives `to` what it landed of the topic.
fn archive(from: &Scratch, to: &Scratch) {
    from.exits(0, &["run"]);
    fs::create_dir_all(to.path("archive")).unwrap();
    for file in fs::read_dir(from.path("warehouse/_tidemill/sales/landed/payments")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.path("archive").join(file.file_name())).unwrap();
    }
}

#[test]
fn the_topic_goes_on_where_its_history_ends() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("history");
    kafka.create_topic(&topic, 3);
    send(kafka, &topic, 0..100);
    let more = ", history: archive/*.parquet";
    let (old, shop) = (project(kafka, &topic, ""), project(kafka, &topic, more));
    archive(&old, &shop);
    send(kafka, &topic, 100..150);
    let total = "select sum(n), sum(ids) from per_city";
    let places = "select count(*), count(distinct _offset * 3 + _partition) from payments";
    assert_eq!(shop.rows(places), "150,150\n");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(total), "150,150\n");
    shop.exits(0, &["verify"]);
    // The files aren't looked at again.
    fs::rename(shop.path("archive"), shop.path("elsewhere")).unwrap();
    send(kafka, &topic, 150..170);
    let outcomes = shop.exits(0, &["run", "--format", "json"]).json();
    assert_eq!(outcomes[0]["strategy"], "incremental", "{outcomes:?}");
    assert_eq!(shop.rows(total), "170,170\n");
    shop.exits(0, &["run", "--full-refresh"]);
    assert_eq!(shop.rows(total), "170,170\n");
    // Rows of another contract are read again, those of the past too: without them nothing is touched.
    shop.write("pipelines/sales.yaml", pipeline(kafka, &topic, more, "id: integer, city: text"));
    let seen = shop.exits(3, &["run"]);
    assert!(seen.err.contains("no file of the history is there"), "{}", seen.err);
    assert_eq!(shop.rows(total), "170,170\n");
    fs::rename(shop.path("elsewhere"), shop.path("archive")).unwrap();
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(total), "170,170\n");
    shop.exits(0, &["verify"]);
}

/// A key moves to another partition just where the history ends. Files know less of when their rows came than the topic does, and
/// are read once more under another contract.
#[test]
fn messages_of_an_upsert_relation_come_after_its_history() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("history-upsert");
    kafka.create_topic(&topic, 2);
    // Brokers forget what is old.
    let since_ms = jiff::Timestamp::now().as_millisecond() - 3_600_000;
    let put = |partition: i32, id: i64, city: &str, second: i64| Message {
        partition: Some(partition),
        key: Some(id.to_string().into_bytes()),
        timestamp_ms: Some(since_ms + second * 1000),
        ..Message::of(json!({ "id": id, "city": city }).to_string())
    };
    kafka.produce(&topic, &[put(0, 9, "filling", 0), put(0, 1, "old", 900), put(0, 2, "old", 900)]);
    let more = ", relation: upsert, key: [id]";
    let with_past = format!("{more}, history: archive/*.parquet");
    let columns = "id: { type: bigint, nullable: false }, city: text";
    let shop = Scratch::new(&pipeline(kafka, &topic, &with_past, columns));
    archive(&Scratch::new(&pipeline(kafka, &topic, more, columns)), &shop);
    kafka.produce(&topic, &[put(1, 1, "new", 100)]);
    shop.exits(0, &["run"]);
    let cities = "select city, n from per_city order by city";
    assert_eq!(shop.rows(cities), "filling,1\nnew,1\nold,1\n");
    shop.write("pipelines/sales.yaml", pipeline(kafka, &topic, &with_past, &format!("{columns}, x: text")));
    kafka.produce(&topic, &[put(1, 2, "new", 50)]);
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(cities), "filling,1\nnew,2\n");
    shop.exits(0, &["verify"]);
}

#[test]
fn what_is_gone_between_history_and_topic_is_told() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("history-gap");
    kafka.create_topic(&topic, 3);
    send(kafka, &topic, 0..90);
    let shop = project(kafka, &topic, ", history: archive/*.parquet");
    archive(&project(kafka, &topic, ""), &shop);
    send(kafka, &topic, 90..150);
    kafka.delete_records(&topic, 1, 40);
    let seen = shop.exits(3, &["run"]);
    let text = "the history of partition 1 ends at offset 29, and the topic begins at 40: what stood between is gone";
    assert!(seen.err.contains(text), "{}", seen.err);
    let accepting = pipeline(kafka, &topic, ", history: archive/*.parquet, on_gap: accept", "id: bigint, city: text");
    shop.write("pipelines/sales.yaml", accepting);
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select sum(n), sum(ids) from per_city"), "140,140\n");
}

#[test]
fn a_history_without_offsets_comes_before_where_the_topic_starts() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("history-plain");
    kafka.create_topic(&topic, 3);
    send(kafka, &topic, 0..30);
    let shop = project(kafka, &topic, ", history: past.parquet, start: latest");
    let past = shop.path("past.parquet");
    let rows = "select * from (values ('1', 'c1'), ('x', 'c2'), ('3', 'c3')) as t(id, city)";
    shop.exits(0, &["query", "--format", "parquet", "-o", past.to_str().unwrap(), rows]);
    shop.exits(0, &["run"]);
    send(kafka, &topic, 30..40);
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select sum(n), sum(ids) from per_city"), "12,12\n");
    let refused = "select _source_file, _source_row, _rule, _topic is null from payments_quarantine";
    assert_eq!(shop.rows(refused), "past.parquet,2,contract,true\n");
    shop.exits(0, &["verify"]);
}

#[test]
fn what_files_of_the_past_hold_twice_is_an_error() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("twice");
    kafka.create_topic(&topic, 3);
    send(kafka, &topic, 0..30);
    let (old, shop) = (project(kafka, &topic, ""), project(kafka, &topic, ", history: archive/*.parquet"));
    archive(&old, &shop);
    let file = fs::read_dir(shop.path("archive")).unwrap().next().unwrap().unwrap().path();
    fs::copy(&file, shop.path("archive/again.parquet")).unwrap();
    let told = shop.exits(3, &["run"]).err;
    assert!(told.contains("the history holds a message twice") && told.contains("offset: 0"), "{told}");
    fs::remove_file(file).unwrap();
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select sum(n) from per_city"), "30\n");
}
