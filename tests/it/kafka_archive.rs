//! Topics whose rows are let go once every model has read them (`archive: false`), on a real broker.

use serde_json::{Value, json};

use crate::kafka_server::{Kafka, Message};
use crate::scratch::Scratch;

const MODELS: &str = "
models:
  large: { sql: 'select id, city, amount from payments where amount > 5', key: [id] }
  per_city:
    sql: select city, count(*) as n, sum(amount) as amount, max(weight) as heaviest, count(distinct id) as ids from payments group by city
    key: [city]
  all_of_them: { sql: 'select sum(n) as n, max(heaviest) as heaviest from per_city' }
";

fn pipeline(kafka: &Kafka, topic: &str, more: &str, models: &str) -> String {
    let brokers = kafka.brokers();
    format!(
        "pipeline: sales
sources:
  payments:
    connector: kafka
    brokers: \"{brokers}\"
    topic: {topic}
    format: json
    columns: {{ id: {{ type: bigint, nullable: false }}, city: text, amount: bigint, weight: double }}
{more}{models}"
    )
}

const UNARCHIVED: &str = "    archive: false\n";

/// Sends payments with these ids, alternately to two partitions; those of odd ids are of Natal.
fn send(kafka: &Kafka, topic: &str, ids: std::ops::Range<i64>) {
    let messages = ids.map(|id| {
        let city = if id % 2 == 1 { "Natal" } else { "Recife" };
        let value = json!({ "id": id, "city": city, "amount": id % 10, "weight": id as f64 / 2.0 });
        let partition = i32::try_from(id / 2 % 2).unwrap();
        Message { partition: Some(partition), value: Some(value.to_string().into_bytes()), ..Message::default() }
    });
    kafka.produce(topic, &messages.collect::<Vec<_>>());
}

/// A topic with two partitions.
fn topic(kafka: &Kafka, name: &str) -> String {
    let topic = kafka.topic(name);
    kafka.create_topic(&topic, 2);
    topic
}

/// Units of the newest position: their rows, and whether these were let go.
fn units(shop: &Scratch) -> Vec<(u64, bool)> {
    let folder = shop.path("warehouse/_tidemill/sales/commits");
    let newest = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let record: Value = serde_json::from_str(&std::fs::read_to_string(newest).unwrap()).unwrap();
    let files = record["sources"]["payments"]["files"].as_array().unwrap();
    let of = |file: &Value| {
        let is_let_go = file["is_let_go"].as_bool().unwrap_or(false);
        assert_eq!(is_let_go, file["landed"].as_array().unwrap().is_empty(), "{file}");
        (file["rows"].as_u64().unwrap(), is_let_go)
    };
    files.iter().map(of).collect()
}

fn outcome<'a>(outcomes: &'a [Value], model: &str) -> (&'a str, &'a str) {
    let outcome = outcomes.iter().find(|outcome| outcome["model"] == model).unwrap();
    (outcome["status"].as_str().unwrap(), outcome["strategy"].as_str().unwrap())
}

const PER_CITY: &str = "select city, n, amount, heaviest, ids from per_city order by city";

/// What [`PER_CITY`] gives once ids below `end` are read.
fn per_city(end: i64) -> String {
    let of = |city: &str, odd: i64| {
        let ids: Vec<i64> = (0..end).filter(|id| id % 2 == odd).collect();
        let (n, amount) = (ids.len(), ids.iter().map(|id| id % 10).sum::<i64>());
        format!("{city},{n},{amount},{:?},{n}\n", *ids.last().unwrap() as f64 / 2.0)
    };
    of("Natal", 1) + &of("Recife", 0)
}

#[test]
fn models_go_on_without_the_rows_that_they_have_read() {
    let kafka = Kafka::shared();
    let topic = topic(kafka, "unarchived");
    let shop = Scratch::new(&pipeline(kafka, &topic, UNARCHIVED, MODELS));
    let warned = shop.exits(0, &["validate"]);
    assert!(warned.err.contains("warning[unarchived]") && warned.err.contains("large, per_city"), "{}", warned.err);
    // The third round is larger than all before.
    for (round, end) in [20, 30, 400, 410].into_iter().enumerate() {
        let begin = [0, 20, 30, 400][round];
        send(kafka, &topic, begin..end);
        let outcomes = shop.exits(0, &["run", "--format", "json"]).json();
        for model in ["large", "per_city"] {
            let strategy = if round == 0 { "rebuilt" } else { "incremental" };
            assert_eq!(outcome(&outcomes, model), ("ok", strategy), "{outcomes:?}");
        }
        assert_eq!(units(&shop), [(u64::try_from(end).unwrap(), true)], "of what is read only counts are left");
        assert_eq!(shop.rows(PER_CITY), per_city(end));
        let large = (0..end).filter(|id| id % 10 > 5).count();
        assert_eq!(shop.rows("select count(*), count(distinct id) from large"), format!("{large},{large}\n"));
        assert_eq!(shop.rows("select n from all_of_them"), format!("{end}\n"));
    }
    let again = shop.exits(0, &["run", "--format", "json"]).json();
    assert!(again.iter().all(|outcome| outcome["status"] == "nothing"), "{again:?}");
    let verified = shop.exits(0, &["verify"]).out;
    assert!(verified.contains("per_city  skipped: rows of payments aren't kept (`archive: false`)"), "{verified}");
    assert!(verified.contains("all_of_them  ok"), "{verified}");
}

#[test]
fn rows_stay_until_the_last_model_has_read_them() {
    let kafka = Kafka::shared();
    let topic = topic(kafka, "unarchived_shared");
    let shop = Scratch::new(&pipeline(kafka, &topic, UNARCHIVED, MODELS));
    let other =
        "pipeline: other\nmodels:\n  seen: { sql: 'select count(*) as n, min(weight) as least from payments' }\n";
    shop.write("pipelines/other.yaml", other);
    send(kafka, &topic, 0..20);
    shop.exits(0, &["run", "large", "per_city"]);
    assert_eq!(units(&shop), [(20, false)], "one was never built");
    shop.exits(0, &["run"]);
    send(kafka, &topic, 20..30);
    shop.exits(0, &["run", "pipeline:sales"]);
    assert_eq!(units(&shop), [(20, true), (10, false)]);
    send(kafka, &topic, 30..36);
    shop.exits(0, &["run", "large"]);
    assert_eq!(units(&shop), [(20, true), (10, false), (6, false)]);
    let outcomes = shop.exits(0, &["run", "--format", "json"]).json();
    assert_eq!(outcome(&outcomes, "seen"), ("ok", "incremental"), "{outcomes:?}");
    assert_eq!(shop.rows("select n, least from seen"), "36,0.0\n");
    assert_eq!(shop.rows(PER_CITY), per_city(36));
    // What another pipeline has read is known to the next run of the source's own.
    shop.exits(0, &["run"]);
    assert_eq!(units(&shop), [(36, true)]);
}

#[test]
fn a_changed_model_reads_the_topic_again_as_long_as_it_holds_everything() {
    let kafka = Kafka::shared();
    let topic = topic(kafka, "unarchived_anew");
    let shop = Scratch::new(&pipeline(kafka, &topic, UNARCHIVED, MODELS));
    send(kafka, &topic, 0..20);
    shop.exits(0, &["run"]);
    let changed = |amount: &str| MODELS.replace("amount > 5", amount);
    shop.write("pipelines/sales.yaml", pipeline(kafka, &topic, UNARCHIVED, &changed("amount > 8")));
    send(kafka, &topic, 20..30);
    let outcomes = shop.exits(0, &["run", "--format", "json"]).json();
    assert_eq!(outcome(&outcomes, "large"), ("ok", "rebuilt"), "{outcomes:?}");
    assert_eq!(outcome(&outcomes, "per_city"), ("ok", "incremental"), "for it nothing was read again: {outcomes:?}");
    assert_eq!(shop.rows("select id from large order by id"), "9\n19\n29\n");
    assert_eq!(shop.rows(PER_CITY), per_city(30));
    assert_eq!(units(&shop), [(30, true)]);
    shop.exits(0, &["run", "--full-refresh"]);
    assert_eq!(shop.rows(PER_CITY), per_city(30));

    kafka.delete_records(&topic, 1, 2);
    shop.write("pipelines/sales.yaml", pipeline(kafka, &topic, UNARCHIVED, &changed("amount > 7")));
    send(kafka, &topic, 30..40);
    let seen = shop.exits(3, &["run", "--format", "json"]);
    let outcomes = seen.json();
    assert_eq!(outcome(&outcomes, "large").0, "failed", "{outcomes:?}");
    assert_eq!(outcome(&outcomes, "per_city"), ("ok", "incremental"), "{outcomes:?}");
    assert!(seen.err.contains("the topic doesn't hold all messages that were read any more"), "{}", seen.err);
    assert!(seen.err.contains("rows of `payments` were let go (`archive: false`)"), "{}", seen.err);
    assert_eq!(shop.rows("select id from large order by id"), "9\n19\n29\n", "the old version stays");
    assert_eq!(shop.rows(PER_CITY), per_city(40));
    // As it was, it goes on from where it stands.
    shop.write("pipelines/sales.yaml", pipeline(kafka, &topic, UNARCHIVED, &changed("amount > 8")));
    let outcomes = shop.exits(0, &["run", "--format", "json"]).json();
    assert_eq!(outcome(&outcomes, "large"), ("ok", "incremental"), "{outcomes:?}");
    assert_eq!(shop.rows("select id from large order by id"), "9\n19\n29\n39\n");
}

#[test]
fn a_source_that_keeps_its_rows_from_now_on_reads_the_topic_again() {
    let kafka = Kafka::shared();
    let topic = topic(kafka, "unarchived_no_more");
    let late = "    event_time: at\n    on_late: quarantine\n";
    let pipeline = |more: &str| {
        pipeline(kafka, &topic, more, "models:\n  kept: { sql: 'select id, at from payments' }\n")
            .replace("weight: double", "at: timestamptz")
    };
    let shop = Scratch::new(&pipeline(&format!("{late}{UNARCHIVED}")));
    let text = |id: i64, at: &str| {
        let value = json!({ "id": id, "at": at }).to_string();
        Message { partition: Some(0), value: Some(value.into_bytes()), ..Message::default() }
    };
    kafka.produce(&topic, &[text(1, "2026-01-02T00:00:00Z"), text(2, "2026-01-01T00:00:00Z")]);
    kafka.produce(&topic, &[Message { partition: Some(1), ..text(3, "2026-01-03T00:00:00Z") }]);
    shop.exits(0, &["run"]);
    kafka.produce(&topic, &[text(4, "2026-01-01T00:00:00Z"), text(5, "2026-01-04T00:00:00Z")]);
    shop.exits(0, &["run"]);
    let rows =
        (shop.rows("select id from kept order by id"), shop.rows("select _offset from payments_quarantine order by 1"));
    assert!(rows.1.lines().count() > 0, "some came late: {rows:?}");
    assert!(units(&shop).iter().all(|(_, is_let_go)| *is_let_go));
    shop.write("pipelines/sales.yaml", pipeline(late));
    shop.exits(0, &["run"]);
    assert!(units(&shop).iter().all(|(_, is_let_go)| !is_let_go));
    let verified = shop.exits(0, &["verify"]).out;
    assert!(verified.contains("kept  ok"), "{verified}");
    let after =
        (shop.rows("select id from kept order by id"), shop.rows("select _offset from payments_quarantine order by 1"));
    assert_eq!(rows, after, "what was refused stays so");
}

#[test]
fn models_that_read_rows_again_are_faults() {
    let kafka = Kafka::shared();
    let models = "
models:
  joined: { sql: 'select p.id, q.city from payments p join payments q on p.id = q.id' }
  ranked: { sql: 'select id, row_number() over (partition by city order by id) as r from payments' }
  listed: { sql: 'select city, array_agg(id) as ids from payments group by city' }
  floats: { sql: 'select city, sum(weight) as weight from payments group by city' }
  timed: { sql: 'select id from payments where now() > timestamp ''2020-01-01''' }
  refusing:
    sql: select city, count(*) as n from payments group by city
    checks: [ { check: n < 5, on_fail: quarantine } ]
  related:
    sql: select id from payments
    checks: [ { relationships: { column: id, to: payments.id } } ]
";
    let checks = "    archive: false\n    checks: [ { unique: [id] }, id > 0 ]\n";
    let shop = Scratch::new(&pipeline(kafka, "t", checks, models).replace(&kafka.brokers(), "broker:9092"));
    insta::assert_snapshot!(shop.exits(2, &["validate", "--offline"]).err);
    let upsert = pipeline(kafka, "t", "    archive: false\n    relation: upsert\n    key: [id]\n", "models: {}\n");
    shop.write("pipelines/sales.yaml", upsert.replace(&kafka.brokers(), "broker:9092"));
    insta::assert_snapshot!("upsert_needs_its_archive", shop.exits(2, &["validate", "--offline"]).err);
}
