//! What a user sees of a project that isn't right: every fault of the YAML, at its place.

use std::fs;

use tempfile::TempDir;
use tidemill::spec::{self, LoadOptions};

/// A project of these files, and its faults as text.
fn faults(files: &[(&str, &str)]) -> String {
    let dir = TempDir::new().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let options = LoadOptions { root: dir.path().to_path_buf(), ..LoadOptions::default() };
    let (_, faults) = spec::load_with(&options, &|name| (name == "HOME_DIR").then(|| "/srv".to_string()));
    spec::render::text(&faults, false)
}

const PROJECT: (&str, &str) = ("tidemill.yaml", "version: 1\nname: shop\n");

/// A pipeline with one CSV source whose further lines are given.
fn with_source(lines: &str) -> String {
    let text = format!("sources:\n  orders:\n    connector: files\n    path: data/*.csv\n    format: csv\n{lines}");
    faults(&[PROJECT, ("pipelines/sales.yaml", &text)])
}

/// A pipeline with one inline model whose further lines are given.
fn with_model(lines: &str) -> String {
    let text = format!("models:\n  daily:\n    sql: select 1 as day\n{lines}");
    faults(&[PROJECT, ("pipelines/sales.yaml", &text)])
}

#[test]
fn broken_yaml_is_one_fault_and_other_files_are_still_read() {
    let seen = faults(&[
        ("tidemill.yaml", "version: 1\nname: shop\ntimezone: Mars/Olympus\n"),
        ("pipelines/a.yaml", "sources:\n  orders: [unclosed\nmodels:\n"),
        ("pipelines/b.yaml", "models:\n  daily:\n    sql: select 1\n    kee: [day]\n"),
    ]);
    insta::assert_snapshot!(seen);
}

#[test]
fn unknown_keys_name_the_nearest() {
    insta::assert_snapshot!(with_source(
        "    columns: { id: bigint }\n    on_invalidd: drop\n    delimeter: ';'\n    frobnicate: 1\n"
    ));
}

#[test]
fn wrong_types_and_values() {
    insta::assert_snapshot!(with_source(
        "    columns: { id: biggint, price: decimal, at: timestamp(3), name: varchar(10) }\n    header: maybe\n    settle: soon\n    mode: snap\n    checks: { a: b }\n"
    ));
}

#[test]
fn a_comma_inside_an_unquoted_type() {
    insta::assert_snapshot!(with_source("    columns:\n      price: {type: decimal(12, 2), nullable: false}\n"));
}

#[test]
fn lists_and_structs() {
    insta::assert_snapshot!(with_source(
        "    columns: { id: bigint, tags: text[], payload: json, more: struct<a bigint, b decimal(12, 2)> }\n"
    ));
    insta::assert_snapshot!(with_source(
        "    columns: { id: bigint, tags: \"text[]\", payload: json, more: \"struct<a bigint>\" }\n"
    ));
    let of_json = |columns: &str| {
        let source = "  orders: { connector: files, path: x, format: json, columns: ";
        faults(&[PROJECT, ("pipelines/a.yaml", &format!("sources:\n{source}{columns} }}\n"))])
    };
    assert_eq!(
        of_json(
            "{ id: bigint, tags: \"text[]\", items: \"struct<a: bigint, b: decimal(12, 2)>[]\", at: { type: \"struct<t date>\", timestamp_format: \"%d\" } }"
        ),
        ""
    );
    insta::assert_snapshot!(of_json(
        "{ a: \"bigint[3]\", b: \"struct<x>\", c: \"array<bigintt>\", d: \"struct<x text\", e: \"time[]\", f: { type: \"text[]\", timestamp_format: \"%d\" } }"
    ));
    insta::assert_snapshot!(with_source("    columns:\n      items: struct<id: bigint, name: text>\n"));
    insta::assert_snapshot!(with_source(
        "    columns:\n      items: { type: struct<id: bigint, name: text>, nullable: false }\n"
    ));
    insta::assert_snapshot!(with_source(
        "    columns:\n      items: { type: struct<id bigint, price decimal(12, 2)>[], nullable: false }\n"
    ));
    let others = "  a: { connector: files, path: x, format: parquet, columns: { id: bigint, j: json } }\n  b: { connector: kafka, brokers: b, topic: t, format: json, relation: upsert, key: [id], columns: { id: \"bigint[]\" } }\n";
    let project = "version: 1\nname: shop\nparams:\n  p: { type: json }\n  q: { type: \"text[]\" }\n";
    insta::assert_snapshot!(faults(&[
        ("tidemill.yaml", project),
        ("pipelines/a.yaml", &format!("sources:\n{others}"))
    ]));
}

#[test]
fn commas_inside_other_unquoted_values() {
    insta::assert_snapshot!(with_source(
        "    columns:\n      id: { type: bigint, description: Number, from 1, of the unit }\n    \
         checks: [coalesce(id, 1, 2) > 0, id > 0]\n    null_values: [a, b]\n"
    ));
}

#[test]
fn a_colon_inside_an_unquoted_rule() {
    insta::assert_snapshot!(with_model("    checks:\n      - city <> 'a: b'\n"));
    insta::assert_snapshot!(with_model(
        "    checks:\n      - { city <> 'a: b', on_fail: warn }\n      - { units > 0, on_fail: warn }\n"
    ));
    insta::assert_snapshot!(with_model("    checks:\n      - check: city <> 'a: b'\n"));
}

#[test]
fn a_hash_cuts_a_rule_off() {
    insta::assert_snapshot!(with_model(
        "    checks:\n      - city <> 'a #b'\n      - revenue >= 0   # a comment, and meant so\n"
    ));
}

#[test]
fn signs_that_start_an_unquoted_value() {
    insta::assert_snapshot!(with_model("    refresh: * * * * *\n"));
    insta::assert_snapshot!(with_model("    refresh: { cron: */5 * * * * }\n"));
    insta::assert_snapshot!(with_model("    checks:\n      - %a > 1\n"));
    insta::assert_snapshot!(with_model("    checks:\n      - \"Price\" > 0\n"));
    insta::assert_snapshot!(with_model("    checks:\n      - !active\n"));
    insta::assert_snapshot!(with_source("    columns: { id: bigint }\n    timestamp_format: %m/%d/%Y %H:%M\n"));
}

#[test]
fn a_missing_variable_is_told_at_its_characters() {
    let text = "version: 1\nname: shop\nwarehouse: ${HOME_DIR}/x/${NO_SUCH_DIR}/y\n";
    insta::assert_snapshot!(faults(&[("tidemill.yaml", text)]));
}

#[test]
fn names_are_unique_in_the_project() {
    let a = "models:\n  daily: { sql: select 1 }\n  daily_quarantine: { sql: select 1 }\n";
    let b = "models:\n  daily: { sql: select 2 }\n  Daily-2: { sql: select 2 }\n";
    insta::assert_snapshot!(faults(&[PROJECT, ("pipelines/a.yaml", a), ("pipelines/b.yaml", b)]));
}

#[test]
fn features_of_other_builds_are_never_ignored() {
    let text = "sources:\n  events: { connector: kafka, brokers: b, topic: t, format: avro, history: h, on_late: drop, archive: false }\n  calls: { connector: postgres, on_drift: evolve }\nmodels:\n  daily:\n    sql: select 1\n    publish: []\n";
    insta::assert_snapshot!(faults(&[PROJECT, ("pipelines/a.yaml", text)]));
}

#[test]
fn keys_of_a_topic_are_checked() {
    let events = "  events:\n    connector: kafka\n    topic: t\n    format: json\n    path: data/*.json\n    relation: upsert\n    start: yesterday\n    on_gap: ignore\n    columns: { id: bigint }\n";
    let others = "  orders: { connector: files, path: x, format: json, topic: t, columns: { id: bigint } }\n  products: { connector: kafka, brokers: b, topic: t, format: json, key: [id], columns: { id: bigint } }\n  prices: { connector: kafka, brokers: b, topic: t, format: json, relation: upsert, key: [ids], event_time: at, deduplicate: [id], columns: { id: bigint, at: timestamptz } }\n";
    insta::assert_snapshot!(faults(&[PROJECT, ("pipelines/a.yaml", &format!("sources:\n{events}{others}"))]));
}

#[test]
fn rows_that_models_are_made_of_are_kept() {
    let source = |keys: &str| {
        format!("sources:\n  orders: {{ connector: files, path: x, {keys}, columns: {{ id: bigint }} }}\n")
    };
    for keys in ["format: csv, archive: false", "format: parquet, mode: append, archive: false"] {
        let told = faults(&[PROJECT, ("pipelines/a.yaml", &source(keys))]);
        assert!(told.contains("models are made of rows that are kept, so they can't be let go"), "{told}");
    }
    for keys in ["format: csv, archive: true", "format: parquet, archive: true", "format: parquet, archive: false"] {
        assert_eq!(faults(&[PROJECT, ("pipelines/a.yaml", &source(keys))]), "", "{keys}");
    }
}

#[test]
fn keys_of_event_time_are_told_where_they_do_nothing() {
    let topic = "connector: kafka, brokers: b, topic: t, format: json, columns: { id: bigint, at: timestamptz }";
    let sources = [
        "fine: { TOPIC, event_time: at, on_late: quarantine, watermark_delay: 1s }",
        "drops: { TOPIC, event_time: at, on_late: drop }",
        "timeless: { TOPIC, on_late: quarantine, watermark_delay: 1s, idle_timeout: 1s }",
        "upserts: { TOPIC, event_time: at, relation: upsert, key: [id], watermark_delay: 1s, on_late: correct }",
        "misspelt: { TOPIC, event_time: at, on_late: quarantin }",
        "files: { connector: files, path: x, format: json, on_late: drop, columns: { id: bigint } }",
    ];
    let text = sources.map(|source| format!("  {}\n", source.replace("TOPIC", topic))).concat();
    insta::assert_snapshot!(faults(&[PROJECT, ("pipelines/a.yaml", &format!("sources:\n{text}"))]));
}

#[test]
fn the_pace_of_continuous_work_is_checked() {
    let pace = "linger: soon\nstep_rows: 0\ncommit_interval: 0s\npublish_interval: 0s\nshutdown_timeout: 1\n";
    insta::assert_snapshot!(faults(&[("tidemill.yaml", &format!("version: 1\nname: shop\n{pace}"))]));
}

#[test]
fn schedules_and_zones_are_checked() {
    let a = "models:\n  daily: { sql: select 1, refresh: { cron: \"0 6 1 *\" } }\n  other: { sql: select 1, refresh: { every: 1x } }\n";
    let project = ("tidemill.yaml", "version: 1\nname: shop\ntimezone: America/Sao_Paolo\n");
    insta::assert_snapshot!(faults(&[project, ("pipelines/a.yaml", a)]));
}

#[test]
fn duplicates_and_missing_keys() {
    let text = "sources:\n  orders:\n    connector: files\n    connector: files\n    format: csv\n  items: { path: x }\nmodels:\n  daily:\n";
    insta::assert_snapshot!(faults(&[PROJECT, ("pipelines/a.yaml", text)]));
}

#[test]
fn checks_say_what_they_lack() {
    insta::assert_snapshot!(with_model(
        "    checks:\n      - { unique: [a], on_fail: quarantine }\n      - { relationships: { column: a, to: products } }\n      - { name: empty }\n      - { freshness: { column: a } }\n"
    ));
}

#[test]
fn a_schedule_that_stands_bare_is_shown_where_it_belongs() {
    insta::assert_snapshot!(with_model("    refresh: \"0 6 1 * *\"\n"));
    insta::assert_snapshot!(with_model("    refresh: 5m\n"));
    insta::assert_snapshot!(with_model("    refresh: { cron: \"0 25 1 * *\" }\n"));
}

#[test]
fn what_text_files_need() {
    insta::assert_snapshot!(with_source("    after: move\n"));
    insta::assert_snapshot!(with_source(
        "    columns: { id: bigint, _source_row: bigint }\n    after: delete\n    delimiter: ab\n    timestamp_format: \"%Q\"\n    encoding: utf-9\n"
    ));
}

#[test]
fn rules_name_columns_of_the_contract() {
    insta::assert_snapshot!(with_source(
        "    columns: { id: bigint, at: timestamp, Price: real }\n    event_time: id\n    deduplicate: [id, idd, id]\n    \
         checks:\n      - { not_null: [price] }\n      - { freshness: { column: att, within: 1h }, on_fail: warn }\n"
    ));
}

#[test]
fn unit_tests_name_what_there_is() {
    let tests = "tests:\n  - name: a\n    model: dayly\n    now: 2018-09-01\n    given:\n      order: []\n      orders:\n        - { idd: 1 }\n        - 5\n    \
                 expect: {}\n  - { name: a, model: daily, expect: { rows: [] }, givn: {} }\n  - { name: a, model: orders, expect: { rows: 1 } }\n";
    let pipeline = "sources:\n  orders: { connector: files, path: x, format: csv, columns: { id: bigint } }\nmodels:\n  daily: { sql: select 1 }\n";
    insta::assert_snapshot!(faults(&[PROJECT, ("pipelines/a.yaml", pipeline), ("tests/a.yaml", tests)]));
}

#[test]
fn several_faults_over_two_files_come_in_order_and_as_json() {
    let project = "version: 2\nname: Shop\ntimezone: UTC\nflight: { listen: nowhere }\nparams:\n  a: { type: money }\n";
    let pipeline = "pipelines: sales\nmodels:\n  daily: { sql: select 1, key: [a, a], serve: yes, owner: }\n";
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("pipelines")).unwrap();
    fs::write(dir.path().join("tidemill.yaml"), project).unwrap();
    fs::write(dir.path().join("pipelines/a.yaml"), pipeline).unwrap();
    let options = LoadOptions { root: dir.path().to_path_buf(), ..LoadOptions::default() };
    let (_, faults) = spec::load_with(&options, &|_| None);
    insta::assert_snapshot!(spec::render::text(&faults, false));
    let lines: Vec<String> = faults.iter().map(|fault| spec::render::json(fault).to_string()).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn sinks_say_what_they_lack() {
    let sinks = "    publish:\n      - { connector: kafka, topic: a, format: avro }\n      - { connector: kafka, brokers: b, topic: a, \
                 emit: all, decimal: text }\n      - { connector: kafka, brokers: b }\n      - { brokers: b, topic: a }\n      - { connector: redis }\n      \
                 - { connector: kafka, brokers: b, topic: c }\n      - { connector: kafka, brokers: b, topic: c, emit: debezium }\n";
    insta::assert_snapshot!(with_model(sinks));
}

#[test]
fn folders_as_sinks_say_what_they_lack() {
    let other = "    publish:\n      - { connector: files }\n      - { connector: files, path: out/*.csv, format: csv }\n      - { connector: files, path: a, format: xml, \
                 topic: t }\n      - { connector: files, path: b, emit: debezium }\n      - { connector: kafka, brokers: b, topic: t, path: c }\n      \
                 - { connector: files, path: ./twice/, format: json }\n      - { connector: files, path: ./twice }\n      - { connector: files, path: warehouse/daily }\n      \
                 - { connector: files, path: d/../data, format: csv }\n      - { connector: files, path: s3://bucket/x, brokers: b, decimals: text }\n";
    let text = format!(
        "sources:\n  sales: {{ connector: files, path: data/*.parquet, format: parquet }}\nmodels:\n  daily:\n    sql: select 1 as day\n{other}  \
         weekly: {{ sql: select 1 as day, publish: [ {{ connector: files, path: x/../twice }}, {{ connector: files, path: \"s3://bucket/x/\" }} ] }}\n"
    );
    insta::assert_snapshot!(faults(&[PROJECT, ("pipelines/sales.yaml", &text)]));
}

#[test]
fn a_folder_without_a_project() {
    insta::assert_snapshot!(faults(&[("pipelines/a.yaml", "models:\n  daily: { kee: x, sql: select 1 }\n")]));
}
