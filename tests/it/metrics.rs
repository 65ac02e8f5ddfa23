//! The numbers that `up` tells over HTTP, by the real program at work on files.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::process::{Bounded, PATIENCE, Process};
use crate::scratch::{Scratch, TIDEMILL_YAML};

const PIPELINE: &str = "
pipeline: sales
sources:
  orders:
    connector: files
    path: data/*.csv
    format: csv
    settle: 0s
    columns: { id: { type: bigint, nullable: false }, city: text }
models:
  kept: { sql: select * from orders, key: [id] }
  per_city: { sql: 'select city, count(*) as n from orders group by city', key: [city] }
";

/// `tidemill up`, killed when the value goes.
struct Up {
    process: Process,
    address: String,
}

impl Up {
    fn start(shop: &Scratch) -> Self {
        let mut command = shop.command(&["up", "--listen", "127.0.0.1:0", "--quiet"]);
        let mut process = command.stdout(Stdio::piped()).start();
        let told = process.lines().find(|line| line.contains("/metrics")).unwrap();
        let address = told.trim_start_matches("serving metrics at http://").trim_end_matches("/metrics").to_string();
        Self { process, address }
    }

    /// Head and body of what is answered.
    fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_string(), body.to_string())
    }

    /// Each number by its name and labels, once `is_so` of them.
    #[track_caller]
    fn metrics(&self, is_so: impl Fn(&BTreeMap<String, f64>) -> bool) -> BTreeMap<String, f64> {
        let begun = Instant::now();
        loop {
            let (head, body) = self.get("/metrics");
            assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/openmetrics-text"), "{head}");
            assert!(body.ends_with("# EOF\n"), "{body}");
            let numbers = body.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap());
            let numbers: BTreeMap<String, f64> =
                numbers.map(|(name, number)| (name.to_string(), number.parse().unwrap())).collect();
            if is_so(&numbers) {
                return numbers;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{body}");
        }
    }
}

#[test]
fn up_tells_its_numbers_to_prometheus() {
    let shop = Scratch::new(PIPELINE);
    shop.write("tidemill.yaml", format!("{TIDEMILL_YAML}console: {{ listen: \"127.0.0.1:0\" }}\n"));
    shop.write("data/1.csv", "id,city\n1,Natal\n2,Recife\nx,Olinda\n");
    let mut up = Up::start(&shop);
    let has = |name: &'static str, value: f64| {
        move |numbers: &BTreeMap<String, f64>| numbers.get(name).is_some_and(|number| *number == value)
    };
    let kept = "tidemill_table_rows{model=\"kept\"}";
    let first = up.metrics(has(kept, 2.0));
    for (name, value) in [
        ("tidemill_source_rows{source=\"orders\"}", 2.0),
        ("tidemill_source_bytes{source=\"orders\"}", 34.0),
        ("tidemill_quarantine_rows{source=\"orders\"}", 1.0),
        ("tidemill_quarantine_rows{model=\"kept\"}", 0.0),
        ("tidemill_state_rows{model=\"per_city\"}", 2.0),
        ("tidemill_state_rows{model=\"kept\"}", 0.0),
        ("tidemill_commit_number{pipeline=\"sales\"}", 1.0),
        ("tidemill_model_failed{model=\"kept\"}", 0.0),
    ] {
        assert_eq!(first.get(name), Some(&value), "{name}: {first:?}");
    }
    assert!(
        first["tidemill_table_bytes{model=\"kept\"}"] > 100.0
            && first["tidemill_state_bytes{model=\"per_city\"}"] > 100.0
    );

    shop.write("data/2.csv", "id,city\n3,Natal\n");
    up.metrics(has(kept, 3.0));
    let caught_up = "tidemill_source_lag_seconds{source=\"orders\"}";
    let second = up.metrics(has(caught_up, 0.0));
    for (name, value) in [
        ("tidemill_model_changed_rows_total{model=\"kept\",change=\"inserted\"}", 3.0),
        ("tidemill_model_changed_rows_total{model=\"per_city\",change=\"updated\"}", 1.0),
        ("tidemill_model_refreshes_total{model=\"per_city\",status=\"ok\",strategy=\"incremental\"}", 1.0),
        ("tidemill_commit_number{pipeline=\"sales\"}", 2.0),
        ("tidemill_commit_duration_seconds_count{pipeline=\"sales\"}", 2.0),
        ("tidemill_step_duration_seconds_count", 2.0),
        ("tidemill_step_duration_seconds_bucket{le=\"+Inf\"}", 2.0),
    ] {
        assert_eq!(second.get(name), Some(&value), "{name}: {second:?}");
    }
    let (before, after) = (
        first["tidemill_commit_timestamp_seconds{pipeline=\"sales\"}"],
        second["tidemill_commit_timestamp_seconds{pipeline=\"sales\"}"],
    );
    let now = chrono::Utc::now().timestamp() as f64;
    assert!(now - 600.0 < before && before < after && after <= now + 1.0, "{before} {after} {now}");

    assert_eq!(up.get("/healthz").1, "ok\n");
    assert!(up.get("/nowhere").0.starts_with("HTTP/1.1 404"));
    up.process.signal("TERM");
    assert_eq!(up.process.wait().code(), Some(0));
}

#[test]
fn a_source_that_cannot_be_read_is_told_by_status_until_it_can() {
    let shop = Scratch::new(PIPELINE);
    shop.write("tidemill.yaml", format!("{TIDEMILL_YAML}console: {{ listen: \"127.0.0.1:0\" }}\n"));
    shop.write("data/1.csv", "id,city\n1,Natal\n");
    let mut up = Up::start(&shop);
    let failed = |value: f64| {
        move |numbers: &BTreeMap<String, f64>| numbers.get("tidemill_model_failed{model=\"kept\"}") == Some(&value)
    };
    up.metrics(failed(0.0));
    std::fs::rename(shop.path("data"), shop.path("away")).unwrap();
    up.metrics(failed(1.0));
    let seen = shop.exits(1, &["status"]);
    assert!(seen.out.contains("skipped") && seen.out.contains("`orders` failed"), "{}", seen.out);
    assert_eq!(shop.rows("select count(*) from kept"), "1\n");
    std::fs::rename(shop.path("away"), shop.path("data")).unwrap();
    up.metrics(failed(0.0));
    shop.exits(0, &["status"]);
    up.process.signal("TERM");
    assert_eq!(up.process.wait().code(), Some(0));
}

#[cfg(feature = "kafka")]
#[test]
fn topics_tell_how_far_time_is_and_sinks_what_they_hold() {
    let kafka = crate::kafka_server::Kafka::shared();
    let (topic, sink) = (kafka.topic("numbers"), kafka.topic("numbers-sink"));
    kafka.create_topic(&topic, 1);
    let event = |time: &str| crate::kafka_server::Message::of(format!("{{\"at\":\"2026-01-01T00:{time}Z\"}}"));
    kafka.produce(&topic, &[event("01:00"), event("05:00"), event("02:00")]);
    let brokers = kafka.brokers();
    let shop = Scratch::new(&format!(
        "pipeline: sales
sources:
  events: {{ connector: kafka, brokers: \"{brokers}\", topic: {topic}, format: json, columns: {{ at: timestamptz }}, event_time: at, watermark_delay: 1m }}
models:
  hours:
    sql: select date_trunc('hour', at) as hour, count(*) as n from events group by 1
    key: [hour]
    publish: [ {{ connector: kafka, brokers: \"{brokers}\", topic: {sink} }} ]
"
    ));
    shop.write("tidemill.yaml", format!("{TIDEMILL_YAML}console: {{ listen: \"127.0.0.1:0\" }}\n"));
    let up = Up::start(&shop);
    let of_sink = format!("tidemill_sink_commit_number{{model=\"hours\",sink=\"kafka {sink}\"}}");
    let seen = up.metrics(|numbers| numbers.get(&of_sink) == Some(&1.0));
    let watermark = chrono::DateTime::parse_from_rfc3339("2026-01-01T00:04:00Z").unwrap().timestamp() as f64;
    assert_eq!(seen["tidemill_source_watermark_timestamp_seconds{source=\"events\"}"], watermark);
    assert_eq!(seen["tidemill_source_late_rows{source=\"events\"}"], 1.0);
}

/// Waits for `status` to end with `code`.
#[track_caller]
fn status_ends(shop: &Scratch, code: i32) {
    let begun = Instant::now();
    while shop.tidemill(&["status"]).code != code {
        assert!(begun.elapsed() < Duration::from_secs(60), "`status` doesn't end with {code}");
    }
}

#[test]
fn a_model_that_fails_while_up_works_is_told_by_status_and_numbers_until_it_no_longer_does() {
    let shop =
        Scratch::new(&PIPELINE.replace("select * from orders", "'select id, city, 6 / id as share from orders'"));
    shop.write("tidemill.yaml", format!("{TIDEMILL_YAML}console: {{ listen: \"127.0.0.1:0\" }}\n"));
    shop.write("data/1.csv", "id,city\n1,Natal\n");
    let up = Up::start(&shop);
    let failed = "tidemill_model_failed{model=\"kept\"}";
    up.metrics(|numbers| numbers.get(failed) == Some(&0.0));
    status_ends(&shop, 0);
    shop.write("data/2.csv", "id,city\n0,Natal\n");
    up.metrics(|numbers| numbers.get(failed) == Some(&1.0));
    status_ends(&shop, 1);
    assert_eq!(shop.rows("select city, n from per_city"), "Natal,2\n", "the other model goes on");
    shop.write("data/2.csv", "id,city\n2,Natal\n");
    up.metrics(|numbers| numbers.get(failed) == Some(&0.0));
    status_ends(&shop, 0);
}

#[test]
fn a_sink_that_fails_is_told_by_status_and_numbers_until_it_works_again() {
    let publish = "key: [id], publish: [ { connector: files, path: out, format: csv } ] }";
    let shop = Scratch::new(&PIPELINE.replace("key: [id] }", publish));
    shop.write("tidemill.yaml", format!("{TIDEMILL_YAML}console: {{ listen: \"127.0.0.1:0\" }}\n"));
    shop.write("data/1.csv", "id,city\n1,Natal\n");
    let of_sink = "{model=\"kept\",sink=\"files out\"}";
    let (failed, commit) = (format!("tidemill_sink_failed{of_sink}"), format!("tidemill_sink_commit_number{of_sink}"));
    let up = Up::start(&shop);
    let first = up.metrics(|numbers| numbers.get(&commit) == Some(&1.0));
    assert_eq!(first.get(&failed), Some(&0.0), "{first:?}");
    shop.exits(0, &["status"]);

    std::fs::rename(shop.path("out"), shop.path("away")).unwrap();
    shop.write("out", "in the way");
    shop.write("data/2.csv", "id,city\n2,Natal\n");
    let seen = up.metrics(|numbers| numbers.get(&failed) == Some(&1.0));
    assert_eq!(seen["tidemill_model_failed{model=\"kept\"}"], 0.0, "the table is there");
    assert_eq!(up.get("/healthz").1, "ok\n", "as of a model that fails: the process works");
    shop.exits(1, &["status"]);
    drop(up);
    let seen = shop.exits(1, &["status"]);
    assert!(seen.out.contains("files out"), "{}", seen.out);

    let up = Up::start(&shop);
    up.metrics(|numbers| numbers.get(&failed) == Some(&1.0));
    shop.remove("out");
    std::fs::rename(shop.path("away"), shop.path("out")).unwrap();
    up.metrics(|numbers| numbers.get(&failed) == Some(&0.0) && numbers.get(&commit) == Some(&2.0));
    shop.exits(0, &["status"]);
}

#[cfg(feature = "kafka")]
#[test]
fn a_broker_that_does_not_answer_holds_no_other_source() {
    let shop = Scratch::new(PIPELINE);
    shop.write("tidemill.yaml", format!("{TIDEMILL_YAML}console: {{ listen: \"127.0.0.1:0\" }}\n"));
    shop.write(
        "pipelines/dead.yaml",
        "pipeline: dead
sources:
  lost: { connector: kafka, brokers: \"127.0.0.1:1\", topic: lost, format: json, columns: { city: text } }
models:
  both: { sql: 'select city from lost union all select city from orders' }
",
    );
    shop.write("data/1.csv", "id,city\n1,Natal\n");
    let begun = Instant::now();
    let up = Up::start(&shop);
    let rows = "tidemill_table_rows{model=\"kept\"}";
    for n in 1..5 {
        up.metrics(|numbers| numbers.get(rows) == Some(&f64::from(n)));
        shop.write(&format!("data/{}.csv", n + 1), format!("id,city\n{},Natal\n", n + 1));
    }
    // A question to brokers may take half a minute.
    assert!(begun.elapsed() < Duration::from_secs(28), "{:?}", begun.elapsed());
}
