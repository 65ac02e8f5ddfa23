//! Folders as sinks: who applies all files of one in order of names has exactly the table, whatever ended a run in its middle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::held::Held;
use crate::process::Bounded;
use crate::s3_server::S3Server;
use crate::scratch::{Scratch, TIDEMILL_YAML};

const FORMATS: [&str; 3] = ["parquet", "json", "csv"];

/// Sales per city, published in all ways, over files that come and go.
fn project() -> Scratch {
    let shop = Scratch::new(
        "pipeline: sales
sources:
  sales:
    connector: files
    path: data/*.csv
    format: csv
    settle: 0s
    allow_empty: true
    columns: { city: text, amount: \"decimal(20, 2)\", at: timestamptz, note: text, weight: double }
models:
  per_city:
    sql: >
      select city, count(*) as n, sum(amount) as amount, max(at) as latest, max(at)::date as day, max(note) as note,
      max(weight) as weight from sales where city is not null group by city
    key: [city]
    publish:
      - { connector: files, path: ./out/parquet }
      - { connector: files, path: out/json/, format: json, emit: changes }
      - { connector: files, path: out/csv, format: csv }
      - { connector: files, path: out/debezium, format: json, emit: debezium }
",
    );
    shop.write("data/none.csv", "city,amount,at,note,weight\n");
    shop
}

/// Writes, replaces or removes a file of sales.
fn change(shop: &Scratch, random: &mut ChaCha8Rng) {
    let path = format!("data/{}.csv", random.random_range(0..4));
    if random.random_bool(0.3) && shop.path(&path).exists() {
        return shop.remove(&path);
    }
    let mut rows = "city,amount,at,note,weight\n".to_string();
    for _ in 0..random.random_range(1..20) {
        let city = random.random_range(0..12);
        let amount = match random.random_bool(0.8) {
            true => format!("{}.{:02}", random.random_range(0..90_000_000_000_000_i64), random.random_range(0..100)),
            false => String::new(),
        };
        let note = ["", "\"\"", "\"a, \"\"b\"\"\"", "ü", "plain"][random.random_range(0..5)];
        let weight = ["", "0.1", "1e300", "-0.0"][random.random_range(0..4)];
        let at = match random.random_bool(0.8) {
            true => format!("2026-01-01T00:00:{}.{:06}Z", random.random_range(10..60), random.random_range(0..1000)),
            false => String::new(),
        };
        rows += &format!("c{city},{amount},{at},{note},{weight}\n");
    }
    shop.write(&path, rows);
}

/// A change's file: its name, and for each row what it does, its key, and the whole row.
type Applied = (String, Vec<(String, String, String)>);

fn parquet_rows(path: &Path) -> Vec<Vec<String>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    let options = FormatOptions::new().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|c| c.value(row).to_string()).collect()));
    }
    rows
}

/// The files of a folder that are there for readers, in order of names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let mut paths: Vec<PathBuf> = paths.collect();
    paths.sort();
    paths
}

fn key_of(row: &str) -> String {
    row.split(',').next().unwrap().to_string()
}

/// `insert`, and the row without what the sink adds.
fn split(path: &Path) -> Applied {
    let name = path.file_name().unwrap().to_str().unwrap().to_string();
    let rows = match path.extension().unwrap().to_str().unwrap() {
        "parquet" => parquet_rows(path)
            .into_iter()
            .map(|mut row| {
                let (commit, op) = (row.pop().unwrap(), row.pop().unwrap());
                (op, commit, row.join(","))
            })
            .collect::<Vec<_>>(),
        "csv" => fs::read_to_string(path)
            .unwrap()
            .lines()
            .skip(1)
            .map(|line| {
                let mut parts = line.rsplitn(3, ',');
                let (commit, op) = (parts.next().unwrap().to_string(), parts.next().unwrap().to_string());
                (op, commit, parts.next().unwrap().to_string())
            })
            .collect(),
        _ => fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| {
                let (row, own) = line.rsplit_once(",\"_op\":").unwrap();
                let (op, commit) = own.trim_end_matches('}').split_once(",\"_commit\":").unwrap();
                (op.trim_matches('"').to_string(), commit.to_string(), format!("{row}}}"))
            })
            .collect(),
    };
    let of_name: u64 = name.split('-').next().unwrap().parse().unwrap();
    let rows = rows.into_iter().map(|(op, commit, row)| {
        assert_eq!(commit.parse::<u64>().unwrap(), of_name, "{name}");
        (op, key_of(&row), row)
    });
    let rows = rows.collect();
    (name, rows)
}

/// The rows that a folder comes to; each change must fit what is there.
#[track_caller]
fn applied(folder: &Path) -> BTreeSet<String> {
    let mut rows: BTreeMap<String, String> = BTreeMap::new();
    for path in files(folder) {
        let (name, changes) = split(&path);
        let keys: BTreeSet<&String> = changes.iter().map(|(_, key, _)| key).collect();
        assert_eq!(keys.len(), changes.len(), "{name}: each key once");
        for (op, key, row) in changes {
            match op.as_str() {
                "insert" => assert_eq!(rows.insert(key, row), None, "{name}"),
                "update" => assert!(rows.insert(key, row.clone()).is_some_and(|old| old != row), "{name}"),
                "delete" => assert_eq!(rows.remove(&key), Some(row), "{name}: the row as it was"),
                other => panic!("{other}"),
            }
        }
    }
    rows.into_values().collect()
}

/// The same of Debezium's envelopes.
#[track_caller]
fn applied_envelopes(folder: &Path) -> BTreeSet<String> {
    let mut rows: BTreeMap<String, Value> = BTreeMap::new();
    for path in files(folder) {
        for line in fs::read_to_string(&path).unwrap().lines() {
            let value: Value = serde_json::from_str(line).unwrap();
            let side = if value["after"].is_null() { &value["before"] } else { &value["after"] };
            let key = side["city"].as_str().unwrap().to_string();
            assert_eq!(rows.get(&key).unwrap_or(&Value::Null), &value["before"], "{value}");
            match value["after"].is_null() {
                true => drop(rows.remove(&key)),
                false => drop(rows.insert(key, value["after"].clone())),
            }
        }
    }
    rows.into_values().map(|row| row.to_string()).collect()
}

/// The table as the program writes it.
fn table(shop: &Scratch, format: &str) -> BTreeSet<String> {
    let path = shop.path(&format!("table.{format}"));
    shop.exits(0, &["query", "--format", format, "-o", path.to_str().unwrap(), "select * from per_city"]);
    match format {
        "parquet" => parquet_rows(&path).into_iter().map(|row| row.join(",")).collect(),
        "csv" => fs::read_to_string(path).unwrap().lines().skip(1).map(str::to_string).collect(),
        _ => fs::read_to_string(path).unwrap().lines().map(str::to_string).collect(),
    }
}

#[track_caller]
fn holds_the_table(shop: &Scratch) {
    for format in FORMATS {
        assert_eq!(applied(&shop.path(&format!("out/{format}"))), table(shop, format), "{format}");
    }
    let rows = table(shop, "json");
    let rows: BTreeSet<String> =
        rows.iter().map(|row| serde_json::from_str::<Value>(row).unwrap().to_string()).collect();
    assert_eq!(applied_envelopes(&shop.path("out/debezium")), rows);
}

fn counts(shop: &Scratch) -> Vec<usize> {
    ["parquet", "json", "csv", "debezium"].map(|name| files(&shop.path(&format!("out/{name}"))).len()).to_vec()
}

#[test]
fn files_in_order_are_the_table() {
    let shop = project();
    let mut random = ChaCha8Rng::seed_from_u64(21);
    let mut ops = BTreeSet::new();
    for round in 0..8 {
        change(&shop, &mut random);
        shop.exits(0, &["run"]);
        holds_the_table(&shop);
        let there = counts(&shop);
        shop.exits(0, &["run"]);
        assert_eq!(counts(&shop), there, "round {round}: nothing is told twice");
    }
    files(&shop.path("data")).into_iter().for_each(|path| fs::remove_file(path).unwrap());
    shop.exits(0, &["run"]);
    holds_the_table(&shop);
    for path in files(&shop.path("out/parquet")) {
        ops.extend(split(&path).1.into_iter().map(|(op, _, _)| op));
    }
    assert_eq!(ops.into_iter().collect::<Vec<_>>(), ["delete", "insert", "update"], "or this test shows nothing");
    // The same rows by another way are no news either.
    let there = counts(&shop);
    shop.exits(0, &["run", "--full-refresh"]);
    assert_eq!(counts(&shop), there);
    let head = fs::read_to_string(&files(&shop.path("out/csv"))[0]).unwrap();
    assert_eq!(head.lines().next(), Some("city,n,amount,latest,day,note,weight,_op,_commit"));
    let file = File::open(&files(&shop.path("out/parquet"))[0]).unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let metadata = builder.metadata().file_metadata().key_value_metadata().unwrap();
    let cursor = metadata.iter().find(|pair| pair.key == "tidemill").unwrap().value.as_ref().unwrap();
    assert_eq!(serde_json::from_str::<Value>(cursor).unwrap()["commit"], 1);
    // Staged rows are gone.
    let own = fs::read_dir(shop.path("out/csv/_tidemill")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(own.into_iter().all(|name| name.to_str().unwrap().ends_with(".json")));
}

#[test]
fn a_run_that_dies_while_publishing_is_made_up_for() {
    let shop = project();
    let mut random = ChaCha8Rng::seed_from_u64(22);
    let points = ["after_record", "mid_sink", "mid_sink:3", "before_sink", "before_sink:3", "decided_sink"];
    for point in points.iter().chain(&["decided_sink:2", "decided_sink:4", "after_sink", "after_sink:3"]) {
        // Another row is always a change.
        let name = format!("data/more-{}.csv", point.replace(':', "-"));
        shop.write(&name, "city,amount,at,note,weight\nc1,1.00,2026-01-01T00:00:00Z,,\n");
        change(&shop, &mut random);
        let died = shop.command(&["run"]).env("TIDEMILL_FAILPOINT", point).finish().status;
        assert_eq!(died.code(), None, "{point} was reached");
        // What is there fits, whole or not at all.
        let _ = FORMATS.map(|format| applied(&shop.path(&format!("out/{format}"))));
        applied_envelopes(&shop.path("out/debezium"));
        if random.random_bool(0.5) {
            change(&shop, &mut random);
        }
        shop.exits(0, &["run"]);
        holds_the_table(&shop);
    }
}

#[test]
fn a_folder_that_somebody_emptied_is_filled_again() {
    let shop = project();
    let mut random = ChaCha8Rng::seed_from_u64(23);
    for _ in 0..3 {
        change(&shop, &mut random);
        shop.exits(0, &["run"]);
    }
    fs::remove_dir_all(shop.path("out/json")).unwrap();
    files(&shop.path("out/csv")).into_iter().for_each(|path| fs::remove_file(path).unwrap());
    fs::remove_file(files(&shop.path("out/parquet")).pop().unwrap()).unwrap();
    // Nothing else has changed.
    let ran = shop.statuses(0, &[]);
    assert_eq!(ran, ["per_city nothing"]);
    holds_the_table(&shop);
    assert_eq!(counts(&shop), [3, 1, 1, 3]);
    change(&shop, &mut random);
    shop.exits(0, &["run"]);
    holds_the_table(&shop);
    // An empty table has no file, and nobody asks for one.
    files(&shop.path("data")).into_iter().for_each(|path| fs::remove_file(path).unwrap());
    shop.exits(0, &["run"]);
    holds_the_table(&shop);
    fs::remove_dir_all(shop.path("out")).unwrap();
    for _ in 0..2 {
        shop.exits(0, &["run"]);
        assert_eq!(counts(&shop), [0, 0, 0, 0]);
    }
    change(&shop, &mut random);
    shop.exits(0, &["run"]);
    holds_the_table(&shop);
}

#[test]
fn a_folder_of_another_warehouse_or_model_is_left_alone() {
    let shop = project();
    let row = |city: &str| format!("city,amount,at,note,weight\n{city},1.00,2026-01-01T00:00:00Z,,\n");
    shop.write("data/1.csv", row("Natal"));
    shop.exits(0, &["run"]);
    fs::remove_dir_all(shop.path("warehouse")).unwrap();
    shop.write("data/2.csv", row("Recife"));
    let seen = shop.exits(3, &["run"]);
    assert!(seen.err.contains("another warehouse") && seen.err.contains("delete this one"), "{}", seen.err);
    assert_eq!(counts(&shop), [1, 1, 1, 1]);
    // As the hint says.
    fs::remove_dir_all(shop.path("out")).unwrap();
    shop.exits(0, &["run"]);
    holds_the_table(&shop);
    let pipeline = fs::read_to_string(shop.path("pipelines/sales.yaml")).unwrap();
    shop.write("pipelines/sales.yaml", pipeline.replace("per_city:", "by_city:"));
    let seen = shop.exits(3, &["run"]);
    assert!(seen.err.contains("another model's changes") && seen.err.contains("per_city"), "{}", seen.err);
    assert_eq!(counts(&shop), [1, 1, 1, 1]);
}

#[test]
fn a_folder_has_its_rows_in_one_form() {
    let shop = project();
    let row = |city: &str| format!("city,amount,at,note,weight\n{city},1.00,2026-01-01T00:00:00Z,,\n");
    shop.write("data/1.csv", row("Natal"));
    shop.exits(0, &["run"]);
    let pipeline = fs::read_to_string(shop.path("pipelines/sales.yaml")).unwrap();
    shop.write("pipelines/sales.yaml", pipeline.replace("emit: changes", "emit: debezium"));
    let refused = "the sink holds rows as json, and is to get debezium as json";
    let told = format!("  publishes to files out/json (debezium): nothing, unless it was emptied: {refused}\n");
    assert!(shop.exits(0, &["plan"]).out.contains(&told), "nothing is to be computed");
    shop.write("data/2.csv", row("Recife"));
    let plan = shop.exits(0, &["plan"]).out;
    assert!(plan.contains(&told) && plan.contains("out/csv (changes): what this run changes\n"), "{plan}");
    let seen = shop.exits(3, &["run"]);
    assert!(seen.err.contains(refused), "{}", seen.err);
    assert_eq!(counts(&shop), [2, 1, 2, 2]);
    assert!(shop.exits(0, &["plan"]).out.contains(&told), "a run tried it");
    // As the hint says.
    fs::remove_dir_all(shop.path("out/json")).unwrap();
    shop.exits(0, &["run"]);
    assert_eq!(applied_envelopes(&shop.path("out/json")), applied_envelopes(&shop.path("out/debezium")));
    assert!(!shop.exits(0, &["plan"]).out.contains(refused));
}

/// A model with one sink, and a lease that is soon over.
fn hasty() -> Scratch {
    let shop = project();
    let pipeline = fs::read_to_string(shop.path("pipelines/sales.yaml")).unwrap();
    let (pipeline, _) = pipeline.split_once("      - { connector: files, path: out/json/").unwrap();
    shop.write("pipelines/sales.yaml", pipeline);
    shop.write("tidemill.yaml", format!("{TIDEMILL_YAML}lease_ttl: 1s\n"));
    shop.write("data/1.csv", "city,amount,at,note,weight\nNatal,1.00,2026-01-01T00:00:00Z,,\n");
    shop.exits(0, &["run"]);
    shop.write("data/2.csv", "city,amount,at,note,weight\nRecife,1.00,2026-01-01T00:00:00Z,,\nNatal,2,,,\n");
    shop
}

/// A run that stands still before it decides meets another that published something newer: it comes in behind nobody.
#[test]
fn who_was_paused_while_another_published_is_fenced() {
    let shop = hasty();
    let paused = Held::of(&shop, &["run"], "before_sink");
    paused.stop();
    // Takes a part of the paused change back, so that a late file would do harm.
    shop.remove("data/2.csv");
    shop.write("data/3.csv", "city,amount,at,note,weight\nOlinda,1.00,2026-01-01T00:00:00Z,,\n");
    shop.exits(0, &["run", "--wait"]);
    let there = files(&shop.path("out/parquet"));
    let seen = paused.go_on(&shop);
    assert_eq!(seen.code, 75, "{}{}", seen.out, seen.err);
    assert!(seen.err.contains("another process publishes to this folder now"), "{}", seen.err);
    assert_eq!(files(&shop.path("out/parquet")), there);
    assert_eq!(applied(&shop.path("out/parquet")), table(&shop, "parquet"));
}

/// The same change by two runs is there once, and both are fine; so is one that was named by another than who decided on it.
#[test]
fn a_change_that_another_told_already_is_told_once() {
    for place in ["before_sink", "decided_sink"] {
        let shop = hasty();
        let paused = Held::of(&shop, &["run"], place);
        paused.stop();
        shop.exits(0, &["run", "--wait"]);
        assert_eq!(applied(&shop.path("out/parquet")), table(&shop, "parquet"), "{place}");
        let there = files(&shop.path("out/parquet"));
        assert_eq!(there.len(), 2, "{place}");
        let seen = paused.go_on(&shop);
        assert_eq!(seen.code, 0, "{place}: {}{}", seen.out, seen.err);
        assert_eq!(files(&shop.path("out/parquet")), there, "{place}");
        shop.exits(0, &["run"]);
        assert_eq!(files(&shop.path("out/parquet")), there, "{place}");
        let own = fs::read_dir(shop.path("out/parquet/_tidemill")).unwrap().count();
        assert_eq!(own, 2, "{place}: staged rows are gone");
    }
}

#[test]
fn plan_says_what_is_published() {
    let shop = project();
    shop.write("data/1.csv", "city,amount,at,note,weight\nNatal,1.00,2026-01-01T00:00:00Z,,\n");
    let told = |next: &str| {
        let seen = shop.exits(0, &["plan"]).out;
        for sink in ["./out/parquet (changes)", "out/json (changes)", "out/csv (changes)", "out/debezium (debezium)"] {
            assert!(seen.contains(&format!("  publishes to files {sink}: {next}\n")), "{next}: {seen}");
        }
        let json = shop.exits(0, &["plan", "--format", "json"]).json();
        assert_eq!(json[0]["publishes"].as_array().unwrap().len(), 4);
        assert_eq!(
            json[0]["publishes"][0],
            serde_json::json!({ "to": "files ./out/parquet", "emit": "changes", "next": next })
        );
    };
    told("the whole table: nothing is published yet");
    shop.exits(0, &["run"]);
    told("nothing: it is up to date");
    shop.write("data/2.csv", "city,amount,at,note,weight\nNatal,1.00,2026-01-01T00:00:00Z,,\n");
    told("what this run changes");
    let died = shop.command(&["run"]).env("TIDEMILL_FAILPOINT", "after_record").finish().status;
    assert_eq!(died.code(), None);
    told("what changed since commit 1");
}

/// Lines that have no key but their place.
#[test]
fn a_folder_goes_to_a_folder_line_by_line() {
    let shop = Scratch::new(
        "pipeline: sales
sources:
  lines: { connector: files, path: data/*.csv, format: csv, settle: 0s, columns: { city: text, amount: bigint } }
models:
  sent: { sql: select * from lines, publish: [ { connector: files, path: out, format: csv } ] }
",
    );
    shop.write("data/0.csv", "city,amount\nNatal,1\nNatal,1\n");
    shop.write("data/1.csv", "city,amount\nNatal,1\n");
    shop.exits(0, &["run"]);
    shop.remove("data/0.csv");
    shop.exits(0, &["run"]);
    let texts: Vec<String> = files(&shop.path("out")).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let sorted =
        |text: &String| text.lines().map(str::to_string).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
    let [first, second] = &texts[..] else { panic!("{texts:?}") };
    assert_eq!(
        sorted(first),
        [
            "Natal,1,data/0.csv,1,insert,1",
            "Natal,1,data/0.csv,2,insert,1",
            "Natal,1,data/1.csv,1,insert,1",
            "city,amount,_source_file,_source_row,_op,_commit"
        ]
    );
    assert_eq!(
        sorted(second),
        [
            "Natal,1,data/0.csv,1,delete,2",
            "Natal,1,data/0.csv,2,delete,2",
            "city,amount,_source_file,_source_row,_op,_commit"
        ]
    );
}

/// A change that takes several parts of an upload, in a real object store.
#[test]
fn a_large_change_comes_to_a_bucket_whole() {
    let server = S3Server::start();
    let options: Vec<String> = server.options().iter().map(|(key, value)| format!("{key}: \"{value}\"")).collect();
    let shop = Scratch::new(&format!(
        "pipeline: sales
sources:
  numbers: {{ connector: files, path: data/*.csv, format: csv, settle: 0s, columns: {{ n: bigint }} }}
models:
  long:
    sql: select n, repeat(cast(n as text), 40) as long_text from numbers
    key: [n]
    publish: [ {{ connector: files, path: \"{}\", format: json, options: {{ {} }} }} ]
  read:
    sql: select count(*) as n from numbers
",
        server.url("out/long"),
        options.join(", "),
    ));
    let numbers = |range: std::ops::Range<u32>| range.map(|n| format!("{n}\n")).collect::<String>();
    shop.write("data/1.csv", format!("n\n{}", numbers(100_000..170_000)));
    for place in ["mid_sink:2", "decided_sink"] {
        let died = shop.command(&["run"]).env("TIDEMILL_FAILPOINT", place).finish().status;
        assert_eq!(died.code(), None, "{place} was reached");
    }
    shop.exits(0, &["run"]);
    shop.write("data/2.csv", "n\n7\n");
    shop.exits(0, &["run"]);
    // Our own source reads what our sink writes.
    let columns = "{ n: bigint, long_text: text, _op: text, _commit: bigint }";
    let reader = Scratch::new(&format!(
        "sources:
  changes:
    connector: files
    path: \"{}\"
    format: json
    options: {{ {} }}
    columns: {columns}
models:
  sums:
    sql: select _op, _commit, count(*) as told, count(distinct n) as numbers, max(length(long_text)) as longest from changes group by 1, 2
",
        server.url("out/long/*.json"),
        options.join(", "),
    ));
    reader.exits(0, &["run"]);
    assert_eq!(reader.rows("select * from sums order by 2"), "insert,1,70000,70000,240\ninsert,2,1,1,40\n");
}

#[cfg(feature = "kafka")]
#[test]
fn a_window_is_published_when_the_watermark_closes_it() {
    let kafka = crate::kafka_server::Kafka::shared();
    let topic = kafka.topic("file-windows");
    kafka.create_topic(&topic, 1);
    let shop = Scratch::new(&format!(
        "pipeline: sales
sources:
  events:
    connector: kafka
    brokers: \"{}\"
    topic: {topic}
    format: json
    columns: {{ at: timestamptz }}
    event_time: at
    watermark_delay: 10s
    idle_timeout: 1h
models:
  tumbled:
    sql: select window_start, count(*) as n from events group by tumble(at, interval '1 minute')
    key: [window_start]
    publish: [ {{ connector: files, path: out, format: csv, emit: final }} ]
",
        kafka.brokers()
    ));
    let send = |times: &[&str]| {
        let of = |time: &&str| crate::kafka_server::Message::of(format!("{{\"at\":\"2026-01-01T00:{time}Z\"}}"));
        kafka.produce(&topic, &times.iter().map(of).collect::<Vec<_>>());
        shop.exits(0, &["run"]);
        let rows = files(&shop.path("out")).into_iter().flat_map(|path| split(&path).1);
        rows.map(|(op, _, row)| format!("{op} {}", &row[14..])).collect::<Vec<_>>()
    };
    assert_eq!(send(&["00:05", "00:10", "00:29"]), [""; 0]);
    assert_eq!(send(&["01:05"]), [""; 0], "the watermark is at 00:55");
    assert_eq!(files(&shop.path("out")).len(), 0, "what tells nothing is no file");
    let closed = send(&["01:10"]);
    assert_eq!(closed, ["insert 00:00Z,3"]);
    // A late event is a correction.
    let corrected = [closed[0].clone(), closed[0].replace("insert", "update").replace(",3", ",4")];
    assert_eq!(send(&["00:48"]), corrected);
    assert_eq!(send(&["01:11"]), corrected, "nothing closed: nothing is told");
    assert_eq!(files(&shop.path("out")).len(), 2);
    assert_eq!(send(&["02:11"]).len(), 3);
    // A lost folder gets the windows that are closed, and no other.
    fs::remove_dir_all(shop.path("out")).unwrap();
    shop.exits(0, &["run"]);
    assert_eq!(split(&files(&shop.path("out"))[0]).1.len(), 2);
}
