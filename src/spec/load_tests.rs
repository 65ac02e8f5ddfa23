//! Tests of loading whole projects, from files in memory.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value as Json;

use super::fault::{Fault, Place, Severity};
use super::files::ProjectFiles;
use super::sql_type::SqlType;
use super::types::*;
use super::*;

struct Memory<'a>(&'a [(&'a str, &'a str)]);

impl ProjectFiles for Memory<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let path = path.strip_prefix("/shop").map_err(|_| io::ErrorKind::NotFound)?;
        let found = self.0.iter().find(|(known, _)| Path::new(known) == path);
        found.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let folder = folder.strip_prefix("/shop").map_err(|_| io::ErrorKind::NotFound)?;
        let inside = |path: &&str| Path::new(path).parent() == Some(folder);
        let name = |path: &str| path.rsplit('/').next().unwrap().to_string();
        Ok(self.0.iter().map(|(path, _)| *path).filter(inside).map(name).collect())
    }
}

fn environment(name: &str) -> Option<String> {
    match name {
        "SHOP_DATA" => Some("s3://bucket/data".to_string()),
        "TOKEN" => Some("s3cret".to_string()),
        _ => None,
    }
}

fn load_files(files: &[(&str, &str)], overlays: &[&str], params: &[(&str, &str)]) -> (Option<Project>, Vec<Fault>) {
    let options = LoadOptions {
        root: PathBuf::from("/shop"),
        overlays: overlays.iter().map(PathBuf::from).collect(),
        params: params.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
    };
    load_from(&options, &environment, &Memory(files))
}

/// Code and place of each fault, with the characters that its caret covers.
fn shown(faults: &[Fault]) -> Vec<String> {
    let at = |place: &Place| format!("{place} `{}`", &place.source.text[place.first_line()]);
    faults.iter().map(|fault| format!("{} {}", fault.code, fault.place.as_ref().map_or_else(String::new, at))).collect()
}

const PROJECT: &str = r#"version: 1
name: shop
warehouse: ${WAREHOUSE:-./warehouse}
timezone: America/Sao_Paulo
params:
  vip_revenue: { type: "decimal(12, 2)", default: "1000.00" }
  since: { type: date, default: 2018-01-01 }
  limit: { type: bigint }
flight: { listen: "0.0.0.0:4000" }
lease_ttl: 1m
"#;

const SALES: &str = r#"pipeline: sales
sources:
  orders:
    connector: files
    description: Orders of $$ and more
    path: ${SHOP_DATA:-data}/orders/*.csv
    format: csv
    delimiter: ";"
    header: false
    quote: "'"
    escape: \
    encoding: latin1
    null_values: [NULL, "", n/a]
    decimal_separator: ","
    timestamp_format: "%m/%d/%Y %H:%M"
    timestamp_zone: Europe/Berlin
    mode: append
    after: { move: done }
    settle: 500ms
    allow_empty: true
    options: { aws_region: sa-east-1, secret: "${TOKEN}" }
    on_invalid: fail
    event_time: at
    deduplicate: [order_id, at]
    serve: true
    tags: [raw]
    columns:
      order_id: { type: text, nullable: false, description: Id, tags: [pii] }
      at: { type: timestamp, timestamp_format: "%d.%m.%Y" }
      price: decimal(12, 2)
      "Case Kept": BIGINT
    checks:
      - price >= 0                  # a comment
      - { unique: [order_id] }
      - { name: known, accepted_values: { column: order_id, values: [a, 1, 2.50] }, on_fail: quarantine }
      - { freshness: { column: at, within: 5m }, on_fail: warn }
  items: { connector: files, path: items/*.json.gz, format: json, columns: { order_id: text } }
  products: { connector: files, path: "az://c/p/*.parquet", format: parquet, mode: snapshot, after: keep, on_invalid: drop }
models:
  daily_sales:
    description: Sales by day
    key: [day]
    refresh: { cron: "0 6 1 * *" }
    partition_by: [month]
    columns: { day: date, revenue: { type: "decimal(38, 2)", nullable: false } }
    checks:
      - { check: "revenue >= 0", name: sane, on_fail: warn }
      - { not_null: [day, revenue], on_fail: quarantine }
      - { relationships: { column: day, to: products.day } }
    owner: analytics
    tags: [finance, daily]
    serve: false
  hourly: { sql: select 1 as h, refresh: { every: 1h } }
  by_file: { file: queries/x.sql, refresh: manual }
  bare:
"#;

const TESTS: &str = r#"tests:
  - name: cancelled orders don't count
    model: daily_sales
    now: 2018-09-01T03:00:00Z
    given:
      orders:
        - { order_id: 007, at: 2018-08-31 22:00, price: 10.00 }
        - { order_id: "null", at: ~ }
      items: { csv: "order_id\na\n" }
      products: { file: tests/products.csv }
    expect:
      rows: [ { day: 2018-08-31, revenue: 10.00 } ]
      quarantine: []
  - { name: fails, model: hourly, expect: { error: divide by zero } }
"#;

const WHOLE: &[(&str, &str)] = &[
    ("tidemill.yaml", PROJECT),
    ("pipelines/sales.yaml", SALES),
    ("sql/daily_sales.sql", "select 1"),
    ("sql/bare.sql", "select 2"),
    ("queries/x.sql", "select 3"),
    ("tests/sales.yaml", TESTS),
];

fn whole() -> Project {
    let (project, faults) = load_files(WHOLE, &[], &[("limit", "7")]);
    assert_eq!(shown(&faults), Vec::<String>::new());
    project.unwrap()
}

#[test]
fn every_key_of_the_project_is_read() {
    let project = whole();
    assert_eq!((project.name.value.as_str(), project.warehouse.value.as_str()), ("shop", "./warehouse"));
    assert_eq!(
        (project.timezone.value.as_str(), project.flight_listen.value.as_str()),
        ("America/Sao_Paulo", "0.0.0.0:4000")
    );
    assert_eq!(project.lease_ttl, Duration::from_secs(60));
    let params: Vec<_> = project
        .params
        .iter()
        .map(|p| format!("{} {} {}", p.name.value, p.data_type, p.value.as_ref().unwrap().value))
        .collect();
    assert_eq!(params, ["vip_revenue decimal(12, 2) 1000.00", "since date 2018-01-01", "limit bigint 7"]);
    assert_eq!(project.params[2].value.as_ref().unwrap().place.to_string(), "--param:1:7");
    let defaults = load_files(&[("tidemill.yaml", "version: 1\nname: x\n")], &[], &[]).0.unwrap();
    assert_eq!(defaults.timezone.value, "UTC");
    assert_eq!(
        (defaults.flight_listen.value.as_str(), defaults.lease_ttl),
        ("127.0.0.1:31337", Duration::from_secs(30))
    );
}

#[test]
fn sizes_have_a_unit_and_are_enough_to_run_in() {
    let of = |size: &str| {
        let text = format!("version: 1\nname: x\nstate_memory: {size}\n");
        let (project, faults) = load_files(&[("tidemill.yaml", &text)], &[], &[]);
        (project.and_then(|project| project.state_memory_bytes), faults.len())
    };
    assert_eq!(of("1GB"), (Some(1_000_000_000), 0));
    assert_eq!(of("512 MiB"), (Some(512 << 20), 0));
    for wrong in ["1", "GB", "1.5GB", "-1GB", "99999999999999GB", "1KB"] {
        assert_eq!(of(wrong).1, 1, "{wrong}");
    }
}

#[test]
fn every_key_of_a_source_is_read() {
    let project = whole();
    let [orders, items, products] = project.pipelines[0].sources.as_slice() else { panic!("three sources") };
    let ConnectorSpec::Files(files) = &orders.connector else { panic!("{:?}", orders.connector) };
    assert_eq!(files.path.value, "s3://bucket/data/orders/*.csv");
    assert_eq!(files.path.place.text(), "${SHOP_DATA:-data}/orders/*.csv");
    assert_eq!((files.mode, &files.after), (FilesMode::Append, &AfterTaken::Move("done".to_string())));
    assert_eq!((files.settle, files.allow_empty), (Duration::from_millis(500), true));
    assert_eq!(files.options["secret"], "s3cret");
    let FileFormat::Csv(csv) = &files.format else { panic!("csv") };
    assert_eq!((csv.delimiter, csv.header, csv.quote, csv.escape), (b';', false, b'\'', Some(b'\\')));
    let text = &csv.text;
    assert_eq!(text.null_values.as_deref(), Some(["NULL".to_string(), String::new(), "n/a".to_string()].as_slice()));
    assert_eq!(text.decimal_separator, ',');
    let value = |text: &Option<Located<String>>| text.as_ref().unwrap().value.clone();
    assert_eq!(value(&text.encoding), "latin1");
    assert_eq!(value(&text.timestamp_format), "%m/%d/%Y %H:%M");
    assert_eq!(value(&text.timestamp_zone), "Europe/Berlin");
    assert_eq!(orders.description.as_deref(), Some("Orders of $ and more"));
    assert_eq!((orders.on_invalid, orders.serve, orders.tags[0].value.as_str()), (OnInvalid::Fail, true, "raw"));
    assert_eq!((value(&orders.event_time), orders.deduplicate.len()), ("at".to_string(), 2));
    let columns: Vec<_> = orders
        .columns
        .iter()
        .map(|c| format!("{} {} {} {}", c.name.value, c.data_type.value, c.nullable, c.data_type.place.text()))
        .collect();
    assert_eq!(
        columns,
        [
            "order_id text false text",
            "at timestamp true timestamp",
            "price decimal(12, 2) true decimal(12, 2)",
            "Case Kept bigint true BIGINT"
        ]
    );
    assert_eq!(value(&orders.columns[1].timestamp_format), "%d.%m.%Y");
    let checks: Vec<_> = orders.checks.iter().map(|c| format!("{} {:?}", c.name, c.on_fail)).collect();
    assert_eq!(checks, ["price >= 0 Fail", "unique_order_id Fail", "known Quarantine", "freshness_at Warn"]);
    let CheckKind::AcceptedValues { values, .. } = &orders.checks[2].kind else { panic!("accepted values") };
    assert_eq!(values, &["a", "1", "2.50"]);
    let ConnectorSpec::Files(items_files) = &items.connector else { panic!("{:?}", items.connector) };
    assert!(matches!(items_files.format, FileFormat::Json(_)) && items_files.settle == Duration::from_secs(2));
    assert!(!items.serve && items.on_invalid == OnInvalid::Quarantine);
    assert!(products.columns.is_empty() && products.on_invalid == OnInvalid::Drop);
}

#[test]
fn every_key_of_a_model_is_read() {
    let project = whole();
    let [daily, hourly, by_file, bare] = project.pipelines[0].models.as_slice() else { panic!("four models") };
    assert_eq!((daily.sql.text.as_str(), daily.sql.source.path.as_str()), ("select 1", "sql/daily_sales.sql"));
    assert_eq!((daily.key[0].value.as_str(), daily.partition_by[0].value.as_str()), ("day", "month"));
    assert_eq!(daily.refresh.value, Refresh::Cron("0 6 1 * *".to_string()));
    assert_eq!((daily.owner.as_deref(), daily.serve, daily.tags.len()), (Some("analytics"), false, 2));
    assert_eq!((daily.columns[1].data_type.value.clone(), daily.columns[1].nullable), (SqlType::Decimal(38, 2), false));
    let checks: Vec<_> = daily.checks.iter().map(|c| format!("{} {:?}", c.name, c.on_fail)).collect();
    assert_eq!(checks, ["sane Warn", "not_null_day_revenue Quarantine", "relationships_day Fail"]);
    let CheckKind::Relationships { to_relation, to_column, .. } = &daily.checks[2].kind else {
        panic!("relationships")
    };
    assert_eq!((to_relation.value.as_str(), to_column.value.as_str()), ("products", "day"));
    assert_eq!((hourly.refresh.value.clone(), hourly.serve), (Refresh::Every(Duration::from_secs(3600)), true));
    assert_eq!(hourly.sql.place(7..8).to_string(), "pipelines/sales.yaml:53:25");
    assert_eq!((by_file.sql.text.as_str(), by_file.refresh.value.clone()), ("select 3", Refresh::Manual));
    assert_eq!((bare.sql.text.as_str(), bare.refresh.value.clone()), ("select 2", Refresh::Auto));
}

#[test]
fn every_key_of_a_unit_test_is_read_as_written() {
    let project = whole();
    let [counts, fails] = project.tests[0].tests.as_slice() else { panic!("two tests") };
    assert_eq!(counts.now.as_ref().unwrap().value, "2018-09-01T03:00:00Z");
    let GivenRows::Rows(rows) = &counts.given[0].1 else { panic!("rows") };
    let values: Vec<_> =
        rows.iter().flat_map(|row| &row.values).map(|(_, value)| value.as_ref().map(|v| v.value.as_str())).collect();
    assert_eq!(values, [Some("007"), Some("2018-08-31 22:00"), Some("10.00"), Some("null"), None]);
    assert!(matches!(&counts.given[1].1, GivenRows::Csv(csv) if csv.value == "order_id\na\n"));
    assert!(matches!(&counts.given[2].1, GivenRows::File(file) if file.value == "tests/products.csv"));
    assert!(matches!(&counts.expect.quarantine, Some(GivenRows::Rows(rows)) if rows.is_empty()));
    assert_eq!(fails.expect.error.as_ref().unwrap().value, "divide by zero");
}

#[test]
fn overlays_merge_key_by_key_and_keep_places() {
    let overlay = r#"
warehouse: s3://other/warehouse
params: { since: { default: 2019-01-01 }, limit: null }
sources:
  orders:
    path: small/*.csv
    deduplicate: null
    columns: { price: { nullable: false }, "Case Kept": null, extra: text }
  items: { connector: files, format: csv, delimiter: null }
  products: null
models:
  daily_sales: { refresh: manual, checks: null }
"#;
    let again = "sources: { orders: { path: smaller/*.csv } }\n";
    let mut files = WHOLE.to_vec();
    files.retain(|(path, _)| !path.starts_with("tests/"));
    files.extend([("dev.yaml", overlay), ("overlays/again.yaml", again)]);
    let (project, faults) = load_files(&files, &["dev.yaml", "/shop/overlays/again.yaml"], &[]);
    assert_eq!(shown(&faults), Vec::<String>::new());
    let project = project.unwrap();
    assert_eq!(project.warehouse.value, "s3://other/warehouse");
    assert_eq!(project.warehouse.place.to_string(), "dev.yaml:2:12");
    assert_eq!(project.params.len(), 2);
    assert_eq!(project.params[1].data_type, SqlType::Date);
    assert_eq!(project.params[1].value.as_ref().unwrap().value, "2019-01-01");
    let [orders, items] = project.pipelines[0].sources.as_slice() else { panic!("two sources") };
    let ConnectorSpec::Files(spec) = &orders.connector else { panic!("{:?}", orders.connector) };
    assert_eq!(
        (spec.path.value.as_str(), spec.path.place.to_string()),
        ("smaller/*.csv", "overlays/again.yaml:1:28".to_string())
    );
    assert_eq!((spec.mode, orders.deduplicate.len()), (FilesMode::Append, 0), "other keys stay");
    let columns: Vec<_> = orders.columns.iter().map(|c| format!("{} {}", c.name.value, c.nullable)).collect();
    assert_eq!(columns, ["order_id false", "at true", "price false", "extra true"]);
    assert_eq!(orders.columns[2].data_type.place.source.path, "pipelines/sales.yaml");
    let ConnectorSpec::Files(spec) = &items.connector else { panic!("{:?}", items.connector) };
    assert!(matches!(spec.format, FileFormat::Csv(_)) && spec.path.value == "items/*.json.gz");
    let daily = &project.pipelines[0].models[0];
    assert_eq!((daily.refresh.value.clone(), daily.checks.len(), daily.key.len()), (Refresh::Manual, 0, 1));
}

#[test]
fn another_connector_in_an_overlay_takes_the_old_ones_keys_away() {
    let kafka = "sources:\n  events:\n    connector: kafka\n    brokers: ${KAFKA_BROKERS}\n    topic: t\n    format: json\n    \
                 watermark_delay: 10s\n    on_late: correct\n    event_time: at\n    columns: { at: timestamptz }\n";
    let overlay = "sources: { events: { connector: files, path: e.csv, format: csv } }\n";
    let files = [("tidemill.yaml", "version: 1\nname: shop\n"), ("pipelines/e.yaml", kafka), ("dev.yaml", overlay)];
    let (project, faults) = load_files(&files, &["dev.yaml"], &[]);
    assert_eq!(shown(&faults), Vec::<String>::new());
    let source = &project.unwrap().pipelines[0].sources[0];
    assert_eq!((source.columns.len(), source.event_time.is_some()), (1, true));
    let (_, faults) = load_files(&files, &[], &[]);
    assert_eq!(shown(&faults), ["missing_variable pipelines/e.yaml:4:14 `${KAFKA_BROKERS}`"]);
}

#[test]
fn overlays_say_what_they_cannot_find() {
    let overlay = "warehose: x\nsources: { oders: { path: x } }\nmodels: [a]\n";
    let mut files = WHOLE.to_vec();
    files.push(("dev.yaml", overlay));
    let (_, faults) = load_files(&files, &["dev.yaml", "gone.yaml"], &[("limits", "1")]);
    assert_eq!(
        shown(&faults),
        [
            "unreadable_file ",
            "unknown_param ",
            "unknown_key dev.yaml:1:1 `warehose`",
            "unknown_relation dev.yaml:2:12 `oders`",
            "wrong_type dev.yaml:3:9 `[a]`",
        ]
    );
    let hints: Vec<_> = faults.iter().filter_map(|fault| fault.hint.as_deref()).collect();
    assert_eq!(hints[..3], ["did you mean `limit`?", "did you mean `warehouse`?", "did you mean `orders`?"]);
}

#[test]
fn anchors_and_merge_keys_are_read() {
    let text = "sources:\n  a: &csv { connector: files, path: a.csv, format: csv, columns: &c { id: bigint } }\n  \
                b: { <<: *csv, path: b.csv }\n  c: { connector: files, path: c.json, format: json, columns: *c }\n";
    let (project, faults) =
        load_files(&[("tidemill.yaml", "version: 1\nname: s\n"), ("pipelines/p.yaml", text)], &[], &[]);
    assert_eq!(shown(&faults), Vec::<String>::new());
    let sources = &project.unwrap().pipelines[0].sources;
    let paths: Vec<_> = sources
        .iter()
        .map(|source| {
            let ConnectorSpec::Files(files) = &source.connector else { panic!("{:?}", source.connector) };
            (files.path.value.as_str(), source.columns.len())
        })
        .collect();
    assert_eq!(paths, [("a.csv", 1), ("b.csv", 1), ("c.json", 1)]);
}

#[test]
fn a_name_is_no_longer_than_a_files_may_be() {
    let model =
        |letters: usize| format!("pipeline: p\nmodels:\n  {}: {{ sql: select 1 as one }}\n", "m".repeat(letters));
    let project = ("tidemill.yaml", "version: 1\nname: shop\nwarehouse: ./w\n");
    let faults = |text: &str| load_files(&[project, ("pipelines/p.yaml", text)], &[], &[]).1;
    assert!(shown(&faults(&model(200))).is_empty());
    let faults = faults(&model(201));
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].message, "a model has a name of at most 200 letters, and this one has 201");
}

#[test]
fn a_cause_is_told_once_and_without_what_follows_from_it() {
    let pipeline = "sources:\n  a: { connector: files, path: x, format: csv, colums: { id: bigint }, event_time: id }\n  \
                    b: { connector: files, path: x, format: csv, columns: { id: bigit }, deduplicate: [idd], event_time: at }\n  \
                    c: { connector: files }\nmodels:\n  reads_a: { sql: select * from a }\n  \
                    reads_that: { sql: select * from Reads_A }\n  fine: { sql: select 1 as x }\n  typo: { sq: select 1 }\n";
    let tests = "tests:\n  - { name: t, model: reads_that, given: { a: [] }, expect: { rows: [] } }\n  \
                 - { name: u, model: fine, expect: { rows: [] } }\n";
    let files = [("tidemill.yaml", "version: 1\nname: s\n"), ("pipelines/p.yaml", pipeline), ("tests/t.yaml", tests)];
    let (project, faults) = load_files(&files, &[], &[]);
    assert_eq!(
        shown(&faults),
        [
            "unknown_key pipelines/p.yaml:2:48 `colums`",
            "unknown_type pipelines/p.yaml:3:63 `bigit`",
            "missing_key pipelines/p.yaml:4:3 `c`",
            "missing_key pipelines/p.yaml:4:3 `c`",
            "unknown_key pipelines/p.yaml:9:11 `sq`",
        ]
    );
    let project = project.unwrap();
    let models: Vec<_> = project.pipelines[0].models.iter().map(|model| model.name.value.as_str()).collect();
    assert_eq!((models, project.pipelines[0].sources.len()), (vec!["fine"], 0));
    let tests: Vec<_> = project.tests[0].tests.iter().map(|test| test.name.value.as_str()).collect();
    assert_eq!(tests, ["u"]);
}

#[test]
fn a_broken_file_silences_only_what_reads_it() {
    let broken = "sources:\n  orders:\n    connector: [files\nmodels:\n  daily:\n    sql: x\n";
    let other =
        "models:\n  reads: { sql: select * from orders }\n  fine: { sql: select price }\n  bad: { kee: x, sql: a }\n";
    let tests = "tests:\n  - { name: t, model: daily, given: { orders: [] }, expect: { rows: [] } }\n";
    let files = [("pipelines/a.yaml", broken), ("pipelines/b.yaml", other), ("tests/t.yaml", tests), ("sql/x.sql", "")];
    let (project, faults) = load_files(&files, &[], &[]);
    assert!(project.is_none());
    assert_eq!(
        shown(&faults),
        ["no_project ", "yaml_syntax pipelines/a.yaml:4:7 `:`", "unknown_key pipelines/b.yaml:4:10 `kee`"]
    );
    let mut files = files.to_vec();
    files.push(("tidemill.yaml", "version: 1\nname: s\n"));
    let (project, _) = load_files(&files, &[], &[]);
    let models: Vec<_> = project.unwrap().pipelines[0].models.iter().map(|m| m.name.value.clone()).collect();
    assert_eq!(models, ["fine", "bad"]);
}

#[test]
fn unused_sql_is_noted() {
    let files = [
        ("tidemill.yaml", "version: 1\nname: s\n"),
        ("pipelines/p.yaml", "models:\n  daily: { sql: select 1 }\n"),
        ("sql/dayly.sql", "select 1"),
    ];
    let (project, faults) = load_files(&files, &[], &[]);
    assert!(project.is_some());
    assert_eq!(shown(&faults), ["unused_sql sql/dayly.sql:1:1 ``"]);
    assert_eq!((faults[0].severity, faults[0].hint.as_deref()), (Severity::Note, Some("did you mean `daily`?")));
}

#[test]
fn the_pace_is_read_and_has_defaults() {
    let read = |more: &str| {
        let text = format!("version: 1\nname: shop\n{more}");
        let (project, faults) = load_files(&[("tidemill.yaml", &text)], &[], &[]);
        assert_eq!(shown(&faults), [""; 0]);
        project.unwrap().pace
    };
    let usual = Pace {
        linger: Duration::from_millis(50),
        step_rows: 200_000,
        publish_interval: Duration::from_secs(60),
        shutdown_timeout: Duration::from_secs(25),
    };
    assert_eq!(read("commit_interval: 5s\n"), usual);
    assert_eq!(
        read("linger: 0s\nstep_rows: 7\npublish_interval: 2s\nshutdown_timeout: 1m\n"),
        Pace {
            linger: Duration::ZERO,
            step_rows: 7,
            publish_interval: Duration::from_secs(2),
            shutdown_timeout: Duration::from_secs(60),
        }
    );
}

#[test]
fn what_variables_hold_is_never_shown() {
    let project = "version: ${TOKEN}\nname: ${TOKEN}2\ntimezone: ${TOKEN}\nlease_ttl: ${TOKEN}\nflight: { listen: '${TOKEN}' }\n\
                   params: { a: { type: '${TOKEN}' } }\n";
    let pipeline = "pipeline: ${TOKEN}-x\nsources:\n  a:\n    connector: files\n    path: x\n    format: ${TOKEN}\n    mode: ${TOKEN}\n    \
                    settle: ${TOKEN}\n    serve: ${TOKEN}\n  b:\n    connector: files\n    path: x\n    format: csv\n    delimiter: ${TOKEN}\n    \
                    encoding: ${TOKEN}\n    timestamp_zone: ${TOKEN}\n    timestamp_format: '%${TOKEN}%'\n    columns: { id: '${TOKEN}' }\n    deduplicate: ['${TOKEN}', '${TOKEN}']\nmodels:\n  \
                    m: { sql: select 1, refresh: { cron: '${TOKEN}' } }\n  n: { file: '${TOKEN}', refresh: { every: '${TOKEN}' } }\n  \
                    o: { sql: select 1, refresh: '${TOKEN}', checks: [ { relationships: { column: x, to: '${TOKEN}' } } ] }\n";
    let tests = "tests:\n  - { name: t, model: o, now: '${TOKEN}', expect: { rows: { file: '${TOKEN}' } } }\n";
    let files = [("tidemill.yaml", project), ("pipelines/p.yaml", pipeline), ("tests/t.yaml", tests)];
    let (_, faults) = load_files(&files, &[], &[]);
    assert!(faults.len() >= 20, "{:#?}", shown(&faults));
    let text = render::text(&faults, false);
    assert!(!text.contains("s3cret"), "{text}");
    assert!(faults.iter().all(|fault| !render::json(fault).to_string().contains("s3cret")));
}

#[test]
fn files_that_are_not_text_are_told_at_the_byte() {
    struct Latin;
    impl ProjectFiles for Latin {
        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            match path.ends_with("tidemill.yaml") {
                true => Ok(b"version: 1\nname: \xe9\n".to_vec()),
                false => Err(io::ErrorKind::NotFound.into()),
            }
        }
        fn list(&self, _: &Path) -> io::Result<Vec<String>> {
            Ok(vec![])
        }
    }
    let options = LoadOptions { root: PathBuf::from("/shop"), ..LoadOptions::default() };
    let (_, faults) = load_from(&options, &environment, &Latin);
    assert_eq!(shown(&faults), ["not_utf8 tidemill.yaml:2:7 ``"]);
}

#[test]
fn places_hold_for_byte_order_marks_and_windows_lines() {
    let pipeline = SALES.replace("Sales by day", "Vendas por día").replace('\n', "\r\n");
    let pipeline = format!("\u{feff}{}", pipeline.replace("owner: analytics", "ownr: ção"));
    let mut files = WHOLE.to_vec();
    files[1].1 = &pipeline;
    let (project, faults) = load_files(&files, &[], &[]);
    assert_eq!(shown(&faults), ["unknown_key pipelines/sales.yaml:50:5 `ownr`"]);
    let project = project.unwrap();
    for model in &project.pipelines[0].models {
        assert_eq!(model.name.place.text(), model.name.value);
        for column in &model.key {
            assert_eq!(column.place.text(), column.value);
        }
    }
    for source in &project.pipelines[0].sources {
        for column in &source.columns {
            assert_eq!(column.name.place.text().trim_matches('"'), column.name.value);
        }
    }
}

/// A small validator of the keywords that the schema uses; of patterns it knows the two that are there.
fn fits(value: &Json, schema: &Json, root: &Json) -> bool {
    if let Some(name) = schema["$ref"].as_str() {
        return fits(value, root.pointer(name.trim_start_matches('#')).unwrap(), root);
    }
    let kind = match value {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(number) if number.is_f64() => "number",
        Json::Number(_) => "integer",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    };
    let is = |wanted: &Json| wanted == kind || (wanted == "number" && kind == "integer");
    let has_type = match &schema["type"] {
        Json::Null => true,
        Json::Array(types) => types.iter().any(is),
        wanted => is(wanted),
    };
    let any = schema["anyOf"].as_array().is_none_or(|all| all.iter().any(|schema| fits(value, schema, root)));
    let listed = schema["enum"].as_array().is_none_or(|values| values.contains(value));
    let whole = schema["required"]
        .as_array()
        .is_none_or(|keys| keys.iter().all(|key| value.get(key.as_str().unwrap()).is_some()));
    let inside = match value {
        Json::Object(fields) => {
            fields.iter().all(|(key, value)| match (schema["properties"].get(key), &schema["additionalProperties"]) {
                (Some(schema), _) => fits(value, schema, root),
                (None, Json::Bool(false)) => false,
                (None, Json::Object(_)) => fits(value, &schema["additionalProperties"], root),
                (None, _) => true,
            })
        }
        Json::Array(items) => items.iter().all(|item| schema["items"].is_null() || fits(item, &schema["items"], root)),
        _ => true,
    };
    let matches = match (schema["pattern"].as_str(), value.as_str()) {
        (Some(r"\$\{"), Some(text)) => text.contains("${"),
        (Some(_), Some(text)) => parse_duration(text).is_some(),
        _ => true,
    };
    has_type && any && listed && whole && inside && matches
}

/// YAML as an editor's YAML reader gives it to a validator.
fn as_json(text: &str) -> Json {
    fn convert(node: &tree::Node) -> Json {
        match &node.value {
            tree::Value::Null => Json::Null,
            tree::Value::Scalar(scalar) if scalar.style == tree::Style::Plain => {
                serde_json::from_str(&scalar.text).unwrap_or(Json::String(scalar.text.clone()))
            }
            tree::Value::Scalar(scalar) => Json::String(scalar.text.clone()),
            tree::Value::List(items) => items.iter().map(convert).collect(),
            tree::Value::Map(entries) => {
                Json::Object(entries.iter().map(|(key, node)| (key.value.clone(), convert(node))).collect())
            }
        }
    }
    convert(&tree::parse(&fault::SourceText::new("a", text), &mut vec![]).unwrap())
}

#[test]
fn the_json_schema_takes_what_the_loader_takes() {
    let schema = json_schema();
    let def = |name: &str| schema["$defs"][name].clone();
    assert!(fits(&as_json(PROJECT), &def("project"), &schema));
    assert!(fits(&as_json(SALES), &def("pipeline"), &schema));
    assert!(fits(&as_json(TESTS), &def("tests"), &schema));
    assert!(fits(&as_json("sources: { a: { path: x, columns: null } }\nwarehouse: x"), &def("overlay"), &schema));
    for (kind, refused) in [
        ("project", "version: 1\n"),
        ("project", "version: 1\nname: x\nkafka: {}\n"),
        ("project", "version: 1\nname: x\nconsole: { port: 8080 }\n"),
        ("pipeline", "sources: { a: { connector: postgres, path: x, format: csv } }\n"),
        ("pipeline", "sources: { a: { connector: files, path: x, format: csv, colums: {} } }\n"),
        ("pipeline", "models: { a: { serve: 1 } }\n"),
        ("pipeline", "models: { a: { refresh: { evry: 1m } } }\n"),
        ("pipeline", "models: { a: { refresh: { every: soon } } }\n"),
        ("tests", "tests: [ { name: x } ]\n"),
        ("overlay", "models: { a: { serv: true } }\n"),
    ] {
        assert!(!fits(&as_json(refused), &def(kind), &schema), "{refused}");
    }
    assert!(fits(&as_json(SALES), &schema, &schema) && !fits(&as_json("nothing: of ours\n"), &schema, &schema));
}

#[test]
fn the_json_schema_describes_every_key() {
    fn undescribed(schema: &Json, path: &str, out: &mut Vec<String>) {
        if let Json::Object(fields) = schema {
            for (key, property) in fields.get("properties").and_then(Json::as_object).into_iter().flatten() {
                if property["description"].as_str().is_none_or(|text| text.len() < 4) {
                    out.push(format!("{path}.{key}"));
                }
            }
        }
        match schema {
            Json::Object(fields) => {
                fields.iter().for_each(|(key, inner)| undescribed(inner, &format!("{path}/{key}"), out))
            }
            Json::Array(items) => items.iter().for_each(|inner| undescribed(inner, path, out)),
            _ => {}
        }
    }
    let mut missing = vec![];
    undescribed(&json_schema(), "", &mut missing);
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn no_key_is_both_read_and_lacking() {
    for table in [&keys::PROJECT, &keys::SOURCE, &keys::MODEL] {
        let names: BTreeMap<&str, usize> =
            table.keys.iter().map(|key| key.name).chain(table.lacking.iter().copied()).fold(
                BTreeMap::new(),
                |mut counts, name| {
                    *counts.entry(name).or_default() += 1;
                    counts
                },
            );
        assert!(names.values().all(|count| *count == 1), "{}: {names:?}", table.of);
        assert!(table.required.iter().all(|name| table.keys.iter().any(|key| key.name == *name)));
    }
}
