//! States that let go of groups which the watermark has passed (`retention`), on a real broker: they stay small, and late rows
//! behind that are counted as ever.

use serde_json::{Value, json};

use crate::kafka_server::{Kafka, Message};
use crate::scratch::Scratch;

const COLUMNS: &str = "{ id: { type: bigint, nullable: false }, visitor: text, at: timestamptz }";

fn source(brokers: &str, topic: &str, more: &str) -> String {
    format!(
        "pipeline: sales
sources:
  events:
    connector: kafka
    brokers: \"{brokers}\"
    topic: {topic}
    format: json
    columns: {COLUMNS}
    event_time: at
{more}models:
"
    )
}

/// Three models with `retention`, the line of it.
fn models(retention: &str) -> String {
    format!(
        "  per_minute:
    sql: select window_start, count(*) as n, max(id) as last from events where at is not null group by tumble(at, interval '1 minute')
    key: [window_start]
{retention}  visitors:
    sql: select window_start, window_end, count(distinct visitor) as visitors, count(*) as n from events group by tumble(at, interval '1 minute')
{retention}  visits:
    sql: select visitor, window_start, window_end, count(*) as n from events group by visitor, session(at, interval '20 seconds')
{retention}"
    )
}

/// An event so many seconds after midnight of the first of January 2026.
fn event(id: i64, second: i64) -> Message {
    let at = format!("2026-01-01T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60);
    let value = json!({ "id": id, "visitor": format!("v{}", id % 3), "at": at });
    Message { partition: Some(0), value: Some(value.to_string().into_bytes()), ..Message::default() }
}

/// Rows of each state of a model in the newest record.
fn state_rows(shop: &Scratch, model: &str) -> Vec<u64> {
    let folder = shop.path("warehouse/_tidemill/sales/commits");
    let newest = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let record: Value = serde_json::from_str(&std::fs::read_to_string(newest).unwrap()).unwrap();
    let rows =
        |files: &Value| -> u64 { files.as_array().into_iter().flatten().map(|f| f["rows"].as_u64().unwrap()).sum() };
    let states = record["tables"][model]["states"].as_array().unwrap();
    states.iter().map(|state| rows(&state["base"]) + rows(&state["changes"])).collect()
}

/// A run, and whether every model went on from its last commit; one that didn't says that it had better not.
fn goes_on(shop: &Scratch) -> bool {
    let outcomes = shop.exits(0, &["run", "--format", "json"]).json();
    let goes_on = outcomes.iter().all(|outcome| outcome["strategy"] == "incremental");
    // Where units of the topic are put together with new ones.
    let rather_not = outcomes.iter().any(|outcome| outcome["reason"] == "most of its input changed");
    assert!(goes_on || rather_not, "{outcomes:?}");
    goes_on
}

#[test]
fn states_stay_small_and_late_rows_are_counted() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("retention");
    kafka.create_topic(&topic, 1);
    let pipeline =
        |retention: &str| source(&kafka.brokers(), &topic, "    watermark_delay: 10s\n") + &models(retention);
    let shop = Scratch::new(&pipeline("    retention: 5m\n"));
    let mut id = 0;
    // Six rows a minute, five minutes a run.
    let mut send = |minutes: std::ops::Range<i64>, late: &[i64]| {
        let seconds = minutes.flat_map(|minute| (0..6).map(move |nth| minute * 60 + nth * 10));
        let messages = seconds.chain(late.iter().copied()).map(|second| {
            id += 1;
            event(id, second)
        });
        kafka.produce(&topic, &messages.collect::<Vec<_>>());
    };
    send(0..10, &[]);
    shop.exits(0, &["run"]);
    let mut gone_on = 0;
    for round in 2..12 {
        // Into groups that are long gone, twice the same.
        let late: &[i64] = if round % 3 == 0 { &[65, 65, 125, 599] } else { &[] };
        send(round * 5..round * 5 + 5, late);
        gone_on += u32::from(goes_on(&shop));
        shop.exits(0, &["verify"]);
        // Five minutes that are kept and five that came, and as many changes as half of that.
        assert!(state_rows(&shop, "per_minute")[0] <= 20, "{:?}", state_rows(&shop, "per_minute"));
        assert!(state_rows(&shop, "visitors")[0] <= 60, "{:?}", state_rows(&shop, "visitors"));
        assert!(state_rows(&shop, "visitors")[1] <= 20, "{:?}", state_rows(&shop, "visitors"));
    }
    assert!(gone_on > 7, "only {gone_on} of ten runs went on");
    assert_eq!(shop.rows("select count(*), max(n), max(last) >= 360 from per_minute"), "60,12,true\n");
    assert_eq!(shop.rows("select n from visitors where window_start = '2026-01-01T00:01:00Z'"), "12\n");

    // What is let go stays so where it is kept for longer from now on, or for ever.
    for retention in ["    retention: 1h\n", ""] {
        shop.write("pipelines/sales.yaml", pipeline(retention));
        let unchanged = shop.exits(0, &["plan", "--format", "json"]).json();
        assert!(unchanged.iter().all(|line| line["change"] == "unchanged"), "{unchanged:?}");
        send(60..62, &[65, 125, 1805]);
        goes_on(&shop);
        shop.exits(0, &["verify"]);
    }
    // Built anew, a state has all groups again, or those that it keeps from the start.
    shop.exits(0, &["run", "--full-refresh"]);
    assert_eq!(state_rows(&shop, "per_minute"), [62]);
    shop.write("pipelines/sales.yaml", pipeline("    retention: 5m\n"));
    shop.exits(0, &["run", "--full-refresh"]);
    assert_eq!(state_rows(&shop, "per_minute"), [6]);
    send(62..63, &[65, 125, 1805]);
    assert!(goes_on(&shop));
    shop.exits(0, &["verify"]);
    // A table can't be made of states that lack groups.
    let changed =
        pipeline("    retention: 5m\n").replace("count(*) as n, max(id) as last", "max(id) as last, count(*) + 0 as n");
    shop.write("pipelines/sales.yaml", changed);
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select count(*) from per_minute"), "63\n");
    shop.exits(0, &["verify"]);
}

#[test]
fn plan_says_which_groups_are_let_go() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("retention_plan");
    kafka.create_topic(&topic, 1);
    let best = "  best:
    sql: select d, max(n) as n from (select date_trunc('day', at) as d, date_trunc('hour', at) as h, count(*) as n from events group by 1, 2) x group by d
    retention: 90d
  all_time:
    sql: select visitor, max(n) as n from (select visitor, date_trunc('hour', at) as h, count(*) as n from events group by 1, 2) x where n > 1 group by visitor
  rolled_up:
    sql: select visitor, sum(n) as n from (select visitor, date_trunc('hour', at) as h, count(*) as n from events group by 1, 2) x group by visitor
    retention: 90d
";
    let shop = Scratch::new(&(source(&kafka.brokers(), &topic, "") + &models("    retention: 90d\n") + best));
    let lines = shop.exits(0, &["plan", "--format", "json"]).json();
    let aggregates = |model: &str| {
        let line = lines.iter().find(|line| line["model"] == model).unwrap();
        let operators = line["operators"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
        operators.filter(|text| text.starts_with("aggregate")).map(str::to_owned).collect::<Vec<_>>()
    };
    let extremum = "aggregate: added up; groups that lose a row are computed anew, for max";
    let (additive, let_go) = ("aggregate: added up and subtracted", "; groups beyond `retention` are let go");
    assert_eq!(aggregates("per_minute"), [format!("{extremum}{let_go}")]);
    assert_eq!(aggregates("visitors"), [format!("{additive}{let_go}"), format!("{additive}{let_go}")]);
    assert_eq!(aggregates("visits"), [format!("{additive}; new rows join the sessions that they touch{let_go}")]);
    assert_eq!(aggregates("best"), [format!("{extremum}{let_go}"), format!("{additive}{let_go}")]);
    assert_eq!(aggregates("all_time"), [extremum, additive]);
    assert_eq!(aggregates("rolled_up"), [format!("{additive}; all groups are kept"), format!("{additive}{let_go}")]);
}

#[test]
fn what_retention_needs_is_told() {
    let models = "  listed: { sql: 'select id, at from events', retention: 90d }
  recomputed: { sql: 'select at, count(*) as n from events where at < now() group by at', retention: 90d }
  untimed: { sql: 'select visitor, count(*) as n from events group by visitor', retention: 90d }
  ranked:
    sql: select h, rank() over (partition by visitor order by n) as r from (select date_trunc('hour', at) as h, visitor, count(*) as n from events group by 1, 2) x
    retention: 90d
  fine: { sql: 'select date_trunc(''hour'', at) as h, count(*) as n from events group by 1', retention: 90d }
  soon: { sql: 'select date_trunc(''hour'', at) as h, count(*) as n from events group by 1', retention: 0d }
  of_files: { sql: 'select date_trunc(''hour'', at) as h, count(*) as n from visits group by 1', retention: 90d }
";
    let files = "  visits: { connector: files, path: visits/*.csv, format: csv, columns: { at: timestamptz } }\n";
    let shop = Scratch::new(&(source("broker:9092", "t", files) + models));
    insta::assert_snapshot!(shop.exits(2, &["validate", "--offline"]).err);
    let fine = "  fine: { sql: 'select date_trunc(''hour'', at) as h, count(*) as n from events group by 1', retention: 90d }\n";
    shop.write("pipelines/sales.yaml", source("broker:9092", "t", "    archive: false\n") + fine);
    insta::assert_snapshot!("retention_needs_the_archive", shop.exits(2, &["validate", "--offline"]).err);
}
