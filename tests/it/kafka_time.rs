//! Event time of topics, on a real broker: what is late, what becomes of it, and that nobody changes his mind about it.

use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::held::Held;
use crate::kafka::Up;
use crate::kafka_server::{Kafka, Message};
use crate::scratch::{Scratch, TIDEMILL_YAML};

const MODELS: &str = "
models:
  kept: { sql: 'select id, at from events', key: [id] }
  per_minute:
    sql: select window_start, count(*) as n from events where at is not null group by tumble(at, interval '1 minute')
    key: [window_start]
  visits:
    sql: select visitor, window_start, window_end, count(*) as n from events group by visitor, session(at, interval '21 days')
  short_visits:
    sql: select visitor, window_start, window_end, count(*) as n from events group by visitor, session(at, interval '5 seconds')
";

/// A project that reads `topic`, with further keys of the source.
fn project(kafka: &Kafka, topic: &str, more: &str) -> Scratch {
    Scratch::new(&pipeline(kafka, topic, more))
}

fn pipeline(kafka: &Kafka, topic: &str, more: &str) -> String {
    let brokers = kafka.brokers();
    format!(
        "pipeline: sales
sources:
  events:
    connector: kafka
    brokers: \"{brokers}\"
    topic: {topic}
    format: json
    columns: {{ id: {{ type: bigint, nullable: false }}, visitor: text, at: timestamptz }}
    event_time: at
    watermark_delay: 10s
    idle_timeout: 1m
{more}{MODELS}"
    )
}

fn message(partition: i32, value: &Value) -> Message {
    Message { partition: Some(partition), value: Some(value.to_string().into_bytes()), ..Message::default() }
}

/// An event of the first of January 2026, or of the day that is written before the time.
fn event(partition: i32, id: i64, time: &str) -> Message {
    let at = if time.contains('T') { format!("{time}Z") } else { format!("2026-01-01T{time}Z") };
    message(partition, &json!({"id": id, "visitor": "a", "at": at}))
}

fn status(shop: &Scratch) -> Value {
    let lines = shop.exits(0, &["status", "--format", "json"]).json();
    lines.into_iter().find(|line| line["source"] == "events").unwrap()
}

fn ids(shop: &Scratch) -> String {
    shop.rows("select id from kept order by id").replace('\n', " ").trim().to_string()
}

/// `id@partition:offset` of rows that were refused for being late.
fn refused(shop: &Scratch) -> String {
    let sql =
        "select concat(id, '@', _partition, ':', _offset) from events_quarantine where _rule = 'on_late' order by 1";
    shop.rows(sql).replace('\n', " ").trim().to_string()
}

#[test]
fn late_rows_correct_the_results_and_are_counted() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("late");
    kafka.create_topic(&topic, 1);
    let shop = project(kafka, &topic, "");
    kafka.produce(&topic, &[event(0, 1, "00:00:00"), event(0, 2, "00:10:00")]);
    kafka.produce(&topic, &(11..=16).map(|id| event(0, id, "00:10:00")).collect::<Vec<_>>());
    shop.exits(0, &["run"]);
    assert_eq!((&status(&shop)["late"], &status(&shop)["rows"]), (&0.into(), &8.into()));
    let timeless = json!({"id": 5, "visitor": "a"});
    let more = [event(0, 3, "00:00:30"), event(0, 4, "00:09:50"), message(0, &timeless)];
    kafka.produce(&topic, &more);
    let outcomes = shop.exits(0, &["run", "--format", "json"]).json();
    assert!(outcomes.iter().all(|outcome| outcome["strategy"] == "incremental"), "{outcomes:?}");
    assert_eq!(ids(&shop), "1 2 3 4 5 11 12 13 14 15 16");
    assert_eq!(shop.rows("select n from per_minute where window_start = '2026-01-01T00:00:00Z'"), "2\n");
    let expected =
        json!({"source": "events", "rows": 11, "late": 1, "quarantined": 0, "watermark": "2026-01-01T00:09:50Z"});
    assert_eq!(status(&shop), expected);
    let text = shop.exits(0, &["status"]).out;
    let line = text.lines().find(|line| line.trim().starts_with("events")).unwrap();
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(cells[..5], ["events", "11", "1", "0", "2026-01-01T00:09:50Z"], "{text}");
    shop.exits(0, &["verify"]);
}

#[test]
fn late_rows_are_dropped_where_the_source_says_so() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("dropped");
    kafka.create_topic(&topic, 1);
    let shop = project(kafka, &topic, "    on_late: drop\n");
    let seen = shop.exits(0, &["validate"]);
    assert!((seen.out + &seen.err).contains("warning[late_rows]"));
    assert!(shop.exits(0, &["plan"]).err.contains("warning[late_rows]"));
    // In the very unit that moves the watermark, as in one after it; a unit of late rows alone.
    kafka.produce(&topic, &[event(0, 1, "00:10:00"), event(0, 2, "00:09:49"), event(0, 3, "00:09:50")]);
    assert_eq!(shop.exits(0, &["show", "--format", "csv", "select id from events order by id"]).out, "id\n1\n3\n");
    shop.exits(0, &["run"]);
    kafka.produce(&topic, &[event(0, 4, "00:00:00")]);
    shop.exits(0, &["run"]);
    kafka.produce(&topic, &[event(0, 5, "00:20:00"), event(0, 6, "00:10:00")]);
    shop.exits(0, &["run"]);
    assert_eq!(ids(&shop), "1 3 5");
    assert_eq!(shop.rows("select count(*) from events_quarantine"), "0\n");
    let told = status(&shop);
    assert_eq!((&told["rows"], &told["late"], &told["quarantined"]), (&3.into(), &3.into(), &0.into()));
    shop.exits(0, &["run", "--full-refresh"]);
    assert_eq!(ids(&shop), "1 3 5");
    shop.exits(0, &["verify"]);
}

#[test]
fn late_rows_are_kept_beside_with_their_place() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("beside");
    kafka.create_topic(&topic, 1);
    let checks = "    checks: [ { name: sane, check: \"at < '2026-06-01T00:00:00Z'\", on_fail: quarantine } ]\n";
    let shop = project(kafka, &topic, &format!("    on_late: quarantine\n{checks}"));
    // Neither what breaks the contract nor what breaks a rule moves the watermark.
    let broken = json!({"id": "x", "at": "2026-01-01T05:00:00Z"});
    let first =
        [event(0, 1, "00:10:00"), message(0, &broken), event(0, 2, "2026-07-01T00:00:00"), event(0, 3, "00:09:55")];
    kafka.produce(&topic, &first);
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select _offset, _rule from events_quarantine order by 1"), "1,contract\n2,sane\n");
    kafka.produce(&topic, &[event(0, 4, "00:09:49"), event(0, 5, "00:11:00")]);
    shop.exits(0, &["run"]);
    assert_eq!(ids(&shop), "1 3 5");
    let place = "select id, _reason, _topic, _partition, _offset, _raw, _source_file is null \
                 from events_quarantine where _rule = 'on_late'";
    let reason = "the event time 2026-01-01T00:09:49Z is behind the watermark 2026-01-01T00:09:50Z";
    let raw = r#""{""id"":4,""visitor"":""a"",""at"":""2026-01-01T00:09:49Z""}""#;
    assert_eq!(shop.rows(place), format!("4,{reason},{topic},0,4,{raw},true\n"));
    let told = status(&shop);
    assert_eq!((&told["late"], &told["quarantined"]), (&1.into(), &3.into()));
    shop.exits(0, &["verify"]);
}

#[test]
fn a_silent_partition_stops_holding_back_and_what_was_refused_stays_so() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("silent");
    kafka.create_topic(&topic, 3);
    let shop = project(kafka, &topic, "    on_late: quarantine\n");
    let run = |now: &str, messages: &[Message]| {
        kafka.produce(&topic, messages);
        shop.exits(0, &["run", "--now", &format!("2026-03-01T{now}Z")]);
    };
    // The third partition never says anything: it holds back for a minute from when it was seen.
    run("12:00:00", &[event(0, 1, "10:00:00"), event(1, 2, "10:00:00")]);
    assert_eq!(status(&shop)["watermark"], "2026-01-01T09:59:50Z");
    run("12:00:30", &[event(1, 3, "11:00:00"), event(1, 4, "10:30:00")]);
    assert_eq!((ids(&shop), refused(&shop)), ("1 2 3 4".into(), String::new()));
    // After that minute only the first partition holds back, and it is late behind its own time.
    run("12:00:59", &[event(0, 5, "10:01:00")]);
    run("12:01:01", &[event(0, 6, "09:59:00"), event(1, 7, "10:30:00")]);
    assert_eq!((ids(&shop), refused(&shop)), ("1 2 3 4 5 7".into(), "6@0:2".into()));
    // The first one is silent now, too: the second one is alone.
    run("12:03:00", &[event(1, 8, "11:10:00"), event(1, 9, "10:30:00")]);
    assert_eq!((ids(&shop), refused(&shop)), ("1 2 3 4 5 7 8".into(), "6@0:2 9@1:5".into()));
    assert_eq!(status(&shop)["watermark"], "2026-01-01T11:09:50Z");
    // What it says when it speaks again is behind what was said already.
    run("12:03:10", &[event(0, 10, "10:30:00"), event(1, 11, "11:09:55")]);
    let (kept, late) = ("1 2 3 4 5 7 8 11", "10@0:3 6@0:2 9@1:5");
    assert_eq!((ids(&shop), refused(&shop)), (kept.into(), late.into()));
    assert_eq!(status(&shop)["late"], 3);
    shop.exits(0, &["verify"]);
    shop.exits(0, &["run", "--full-refresh"]);
    assert_eq!((ids(&shop), refused(&shop)), (kept.into(), late.into()));
    // Under another contract all messages are read again in one go: neither is more refused than was, nor less. Twice, since
    // what was refused is then known from the second reading.
    for check in ["id > 0", "id > -1"] {
        let more = format!("    on_late: quarantine\n    checks: [ \"{check}\" ]\n");
        shop.write("pipelines/sales.yaml", pipeline(kafka, &topic, &more));
        shop.exits(0, &["run", "--now", "2026-03-01T12:03:20Z"]);
        assert_eq!((ids(&shop), refused(&shop)), (kept.into(), late.into()));
        assert_eq!(status(&shop)["late"], 3);
        shop.exits(0, &["verify"]);
    }
    // And messages that come with it are judged as ever.
    let more = "    on_late: drop\n    checks: [ \"id > -2\" ]\n";
    shop.write("pipelines/sales.yaml", pipeline(kafka, &topic, more));
    run("12:03:30", &[event(1, 12, "10:30:00"), event(1, 13, "11:20:00")]);
    assert_eq!((ids(&shop), refused(&shop)), ("1 2 3 4 5 7 8 11 13".into(), String::new()));
    assert_eq!(status(&shop)["late"], 4);
    shop.exits(0, &["verify"]);
}

#[test]
fn over_many_units_what_is_kept_is_what_one_reading_keeps() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("units");
    kafka.create_topic(&topic, 1);
    let shop = project(kafka, &topic, "    on_late: drop\n");
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let (mut latest, mut kept, mut sent) = (i64::MIN, Vec::new(), 0);
    // Enough units that small ones are put together.
    for round in 0..18 {
        let messages: Vec<Message> = (0..random.random_range(1..20))
            .map(|_| {
                let second = sent / 2 + random.random_range(0..25);
                if second >= latest.saturating_sub(10) {
                    kept.push(sent);
                }
                latest = latest.max(second);
                sent += 1;
                event(0, sent - 1, &format!("00:{:02}:{:02}", second / 60, second % 60))
            })
            .collect();
        kafka.produce(&topic, &messages);
        shop.exits(0, &["run"]);
        if round % 6 == 5 {
            shop.exits(0, &["verify"]);
        }
    }
    assert!(kept.len() + 20 < usize::try_from(sent).unwrap(), "{} of {sent} are kept", kept.len());
    let kept = kept.iter().map(i64::to_string).collect::<Vec<_>>().join(" ");
    let told = status(&shop);
    assert_eq!(ids(&shop), kept);
    assert_eq!(told["rows"].as_i64().unwrap() + told["late"].as_i64().unwrap(), sent);
    let tables =
        || ["per_minute", "short_visits"].map(|table| shop.rows(&format!("select * from {table} order by 1, 2")));
    let before = tables();
    shop.exits(0, &["run", "--full-refresh"]);
    assert_eq!(tables(), before);
    let more = "    on_late: drop\n    checks: [ id >= 0 ]\n";
    shop.write("pipelines/sales.yaml", pipeline(kafka, &topic, more));
    shop.exits(0, &["run"]);
    assert_eq!((ids(&shop), tables(), status(&shop)["late"].clone()), (kept, before, told["late"].clone()));
    shop.exits(0, &["verify"]);
}

#[test]
fn a_late_event_makes_one_session_of_two() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("sessions");
    kafka.create_topic(&topic, 1);
    let shop = project(kafka, &topic, "");
    let visits = || shop.rows("select window_start, window_end, n from visits order by 1");
    let day = |id, day: &str| event(0, id, &format!("2026-{day}T00:00:00"));
    kafka.produce(&topic, &[day(1, "01-01")]);
    shop.exits(0, &["run"]);
    kafka.produce(&topic, &[day(2, "02-05"), day(3, "02-25")]);
    shop.exits(0, &["run"]);
    assert_eq!(visits(), "2026-01-01T00:00:00Z,2026-01-22T00:00:00Z,1\n2026-02-05T00:00:00Z,2026-03-18T00:00:00Z,2\n");
    // Three weeks to the second after it would be a session of its own: a gap of exactly that doesn't join.
    kafka.produce(&topic, &[day(4, "01-15")]);
    shop.exits(0, &["run"]);
    assert_eq!(visits(), "2026-01-01T00:00:00Z,2026-02-05T00:00:00Z,2\n2026-02-05T00:00:00Z,2026-03-18T00:00:00Z,2\n");
    kafka.produce(&topic, &[day(5, "01-16")]);
    let outcomes = shop.exits(0, &["run", "--format", "json"]).json();
    assert!(outcomes.iter().all(|outcome| outcome["strategy"] == "incremental"), "{outcomes:?}");
    assert_eq!(visits(), "2026-01-01T00:00:00Z,2026-03-18T00:00:00Z,5\n");
    assert_eq!(status(&shop)["late"], 2);
    shop.exits(0, &["verify"]);
}

/// Accepted rows of the source after each commit that is still there, in order.
fn rows_by_commit(shop: &Scratch) -> Vec<u64> {
    let folder = shop.path("warehouse/_tidemill/sales/commits");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let rows = |record: Value| {
        let files = record["sources"]["events"]["files"].as_array().cloned().unwrap_or_default();
        files.iter().map(|file| file["rows"].as_u64().unwrap()).sum()
    };
    paths.iter().map(|path| rows(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())).collect()
}

#[test]
fn steps_are_as_long_and_as_large_as_the_project_says() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("paced");
    kafka.create_topic(&topic, 1);
    let shop = project(kafka, &topic, "");
    let pace = "step_rows: 20\nlinger: 1ms\ncommit_interval: 1s\npublish_interval: 100ms\n";
    shop.write("tidemill.yaml", format!("{TIDEMILL_YAML}{pace}"));
    let up = Up::start(&shop);
    kafka.produce(&topic, &[event(0, 90, "00:00:00")]);
    up.answers(&shop, "select count(*) from kept", "1");
    kafka.produce(&topic, &(0..90).map(|id| event(0, id, "00:00:00")).collect::<Vec<_>>());
    up.answers(&shop, "select count(*) from kept", "91");
    // Long before the usual minute the Delta table follows.
    let (answered, log) = (Instant::now(), shop.path("warehouse/kept/_delta_log/00000000000000000001.json"));
    while !log.exists() {
        assert!(answered.elapsed() < Duration::from_secs(40), "the table doesn't follow");
        std::thread::sleep(Duration::from_millis(20));
    }
    up.end();
    let rows = rows_by_commit(&shop);
    let steps: Vec<u64> = rows.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(rows.last() == Some(&91) && steps.iter().all(|rows| *rows <= 20), "{rows:?}");
}

#[test]
fn who_drains_too_long_leaves_the_rest_for_the_next_start() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("draining");
    kafka.create_topic(&topic, 1);
    let shop = project(kafka, &topic, "");
    shop.write("tidemill.yaml", format!("{TIDEMILL_YAML}shutdown_timeout: 100ms\n"));
    kafka.produce(&topic, &[event(0, 1, "00:00:00")]);
    shop.exits(0, &["run"]);
    kafka.produce(&topic, &[event(0, 2, "00:00:00")]);
    let held = Held::of(&shop, &["up", "--listen", "127.0.0.1:0"], "mid_file");
    held.signal("TERM");
    let seen = held.ends(&shop);
    assert_eq!(seen.code, 0, "{}", seen.err);
    assert!(seen.err.contains("warning: draining took longer than `shutdown_timeout` (100ms)"), "{}", seen.err);
    assert_eq!(ids(&shop), "1");
    shop.exits(0, &["verify"]);
    shop.exits(0, &["run"]);
    assert_eq!(ids(&shop), "1 2");
    shop.exits(0, &["verify"]);
}
