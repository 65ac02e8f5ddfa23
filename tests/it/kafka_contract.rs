//! Contracts that change after the topic forgot messages: what is there is read again, what isn't stays as it was kept.

use serde_json::json;

use crate::kafka_server::{Kafka, Message};
use crate::scratch::Scratch;

const COLUMNS: &str = "id: { type: bigint, nullable: false }, city: text, amount: integer";
const MODEL: &str = "select id, city, amount from payments";

fn pipeline(kafka: &Kafka, topic: &str, columns: &str, more: &str, sql: &str) -> String {
    format!(
        "pipeline: sales
sources:
  payments:
    connector: kafka
    brokers: \"{}\"
    topic: {topic}
    format: json
    columns: {{ {columns} }}
{more}models:
  m: {{ sql: '{sql}', key: [id] }}
",
        kafka.brokers()
    )
}

/// A topic with payments 0 to 4, read in two runs, which then forgot those below 3.
fn forgetful(kafka: &Kafka, name: &str, more: &str) -> (String, Scratch) {
    let topic = kafka.topic(name);
    kafka.create_topic(&topic, 1);
    let shop = Scratch::new(&pipeline(kafka, &topic, COLUMNS, more, MODEL));
    for ids in [0..2, 2..5] {
        send(kafka, &topic, ids);
        shop.exits(0, &["run"]);
    }
    kafka.delete_records(&topic, 0, 3);
    (topic, shop)
}

fn send(kafka: &Kafka, topic: &str, ids: std::ops::Range<i64>) {
    let of = |id: i64| Message {
        partition: Some(0),
        ..Message::of(
            json!({ "id": id, "city": format!("c{id}"), "amount": id * 10, "x": format!("x{id}") }).to_string(),
        )
    };
    kafka.produce(topic, &ids.map(of).collect::<Vec<_>>());
}

#[test]
fn an_added_column_is_null_in_rows_that_the_topic_forgot() {
    let kafka = Kafka::shared();
    let (topic, shop) = forgetful(kafka, "added", "");
    let wide = format!("{}, x: text", COLUMNS.replace("integer", "bigint"));
    let sql = "select id, city, amount, x from payments";
    shop.write("pipelines/sales.yaml", pipeline(kafka, &topic, &wide, "", sql));
    send(kafka, &topic, 5..6);
    let plan = shop.exits(0, &["plan"]).out;
    assert!(plan.contains("its contract changed: 2 offsets are read again, 1 new offset"), "{plan}");
    assert!(plan.contains("rows of the messages 0 to 2 of partition 0 stay as they were accepted"), "{plan}");
    let seen = shop.exits(0, &["run"]);
    assert!(seen.err.contains("rows of the messages 0 to 2 of partition 0 stay"), "{}", seen.err);
    let rows = "0,c0,0,\n1,c1,10,\n2,c2,20,\n3,c3,30,x3\n4,c4,40,x4\n5,c5,50,x5\n";
    assert_eq!(shop.rows("select id, city, amount, x from m order by id"), rows);
    shop.exits(0, &["verify"]);
    assert!(shop.exits(0, &["plan"]).out.contains("unchanged"));
    // Nothing of it changes as the topic goes on, or another contract comes.
    kafka.delete_records(&topic, 0, 5);
    send(kafka, &topic, 6..7);
    shop.exits(0, &["run"]);
    shop.write("pipelines/sales.yaml", pipeline(kafka, &topic, &format!("{wide}, y: text"), "", sql));
    shop.exits(0, &["run"]);
    shop.exits(0, &["run", "--full-refresh"]);
    assert_eq!(shop.rows("select id, city, amount, x from m order by id"), format!("{rows}6,c6,60,x6\n"));
    shop.exits(0, &["verify"]);
    // Also where all of it is gone.
    kafka.delete_records(&topic, 0, 7);
    shop.write("pipelines/sales.yaml", pipeline(kafka, &topic, &wide, "", sql));
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select id, city, amount, x from m order by id"), format!("{rows}6,c6,60,x6\n"));
}

#[test]
fn when_a_message_came_stays_where_it_is_read_again() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("arrived");
    kafka.create_topic(&topic, 1);
    let sql = "select id, _ingested_at as arrived from payments";
    let shop = Scratch::new(&pipeline(kafka, &topic, COLUMNS, "", sql));
    // More runs than a topic keeps units for: some are put together. All of them are told the same time.
    let now = ["run", "--now", "2026-03-01T12:00:00Z"];
    for id in 0..10 {
        send(kafka, &topic, id..id + 1);
        shop.exits(0, &now);
    }
    let arrived = "select id, arrived from m order by id";
    let before = shop.rows(arrived);
    let in_order = "select count(distinct arrived), count(*) filter (where arrived <= before) \
                    from (select arrived, lag(arrived) over (order by id) as before from m) x";
    assert_eq!(shop.rows(in_order), "10,0\n", "{before}");
    kafka.delete_records(&topic, 0, 3);
    let wide = format!("{COLUMNS}, x: text");
    let sql = "select id, _ingested_at as arrived, x from payments";
    shop.write("pipelines/sales.yaml", pipeline(kafka, &topic, &wide, "", sql));
    send(kafka, &topic, 10..12);
    shop.exits(0, &["run", "--now", "2026-03-02T12:00:00Z"]);
    let after = shop.rows(arrived);
    assert!(after.starts_with(&before), "{before}{after}");
    assert_eq!(shop.rows("select count(*), count(x), count(distinct arrived) from m"), "12,9,11\n", "{after}");
    // And once more, from a unit whose messages came at many times.
    shop.write("pipelines/sales.yaml", pipeline(kafka, &topic, &format!("{wide}, y: text"), "", sql));
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(arrived), after);
    shop.exits(0, &["verify"]);
}

#[test]
fn a_rule_that_comes_later_judges_what_is_read_again() {
    let kafka = Kafka::shared();
    let (topic, shop) = forgetful(kafka, "judged", "");
    let rule = "    checks: [ { name: small, check: amount > 0 and amount < 40, on_fail: quarantine } ]\n";
    shop.write("pipelines/sales.yaml", pipeline(kafka, &topic, COLUMNS, rule, MODEL));
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select id from m order by id"), "0\n1\n2\n3\n");
    assert_eq!(shop.rows("select _offset from payments_quarantine"), "4\n");
    shop.exits(0, &["verify"]);
    // What was refused stays so where its message is gone, and is read again where it isn't.
    send(kafka, &topic, 5..6);
    shop.exits(0, &["run"]);
    kafka.delete_records(&topic, 0, 5);
    let other = rule.replace("amount < 40", "amount < 90");
    shop.write("pipelines/sales.yaml", pipeline(kafka, &topic, COLUMNS, &other, MODEL));
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select id from m order by id"), "0\n1\n2\n3\n5\n");
    assert_eq!(shop.rows("select _offset from payments_quarantine"), "4\n");
    shop.exits(0, &["verify"]);
}

#[test]
fn rows_that_the_contract_cant_hold_are_given_up_only_if_asked_for() {
    let kafka = Kafka::shared();
    let (topic, shop) = forgetful(kafka, "unheld", "");
    let change = |columns: &str, more: &str, sql: &str| {
        shop.write("pipelines/sales.yaml", pipeline(kafka, &topic, columns, more, sql));
    };
    let needed = format!("{COLUMNS}, x: {{ type: text, nullable: false }}");
    for (columns, sql, reason) in [
        (needed.clone(), MODEL, "they have no `x`, which may not be null"),
        (COLUMNS.replace("integer", "text"), MODEL, "`amount` was integer and is text"),
        (COLUMNS.replace("city", "x"), "select id, x as city, amount from payments", "they have `city` and no `x`"),
    ] {
        change(&columns, "", sql);
        let seen = shop.exits(3, &["run"]);
        for part in
            ["rows of the messages 0 to 2 of partition 0 were read", reason, "`on_gap: accept` gives these rows up"]
        {
            assert!(seen.err.contains(part), "{part}: {}", seen.err);
        }
        assert_eq!(shop.rows("select id from m order by id"), "0\n1\n2\n3\n4\n");
    }
    // A column may go; another contract that holds the rows may come.
    change(&COLUMNS.replace(", amount: integer", ""), "", "select id, city from payments");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select id, city from m order by id limit 1"), "0,c0\n");
    change(&needed, "    on_gap: accept\n", MODEL);
    let seen = shop.exits(0, &["run"]);
    assert!(seen.err.contains("`on_gap: accept` gives them up"), "{}", seen.err);
    assert_eq!(shop.rows("select id, amount from m order by id"), "3,30\n4,40\n");
    shop.exits(0, &["verify"]);
}

#[test]
fn rows_that_werent_kept_are_told() {
    let kafka = Kafka::shared();
    let (topic, shop) = forgetful(kafka, "let-go", "    archive: false\n");
    let more = "    archive: false\n";
    shop.write("pipelines/sales.yaml", pipeline(kafka, &topic, &format!("{COLUMNS}, x: text"), more, MODEL));
    let text = "the messages 0 to 2 of partition 0 were read under another contract, their rows weren't kept";
    let plan = shop.tidemill(&["plan"]);
    assert!(format!("{}{}", plan.out, plan.err).contains(text), "{}{}", plan.out, plan.err);
    let seen = shop.exits(3, &["run"]);
    assert!(seen.err.contains(text), "{}", seen.err);
    assert_eq!(shop.rows("select id from m order by id"), "0\n1\n2\n3\n4\n");
}

/// What was read of the topic before it was made anew isn't there to be read again, whatever offsets it had.
#[test]
fn rows_of_a_topic_before_it_was_made_anew_stay() {
    let kafka = Kafka::shared();
    let (topic, shop) = forgetful(kafka, "renewed", "    on_gap: accept\n");
    let more = "    on_gap: accept\n";
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, 1);
    send(kafka, &topic, 10..12);
    shop.exits(0, &["run"]);
    shop.write("pipelines/sales.yaml", pipeline(kafka, &topic, &format!("{COLUMNS}, x: text"), more, MODEL));
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select id from m order by id"), "0\n1\n2\n3\n4\n10\n11\n");
    assert_eq!(shop.rows("select id from payments where x is not null order by id"), "10\n11\n");
    shop.exits(0, &["verify"]);
}
