//! What a user sees when files, SQL or the warehouse aren't right: exit codes, messages, and tables that stay as they were.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{
    ArrayRef, Date32Array, Int64Array, RecordBatch, Time32MillisecondArray, Time32SecondArray, Time64MicrosecondArray,
    Time64NanosecondArray, TimestampMillisecondArray, TimestampSecondArray,
};
use parquet::arrow::ArrowWriter;
use tidemill::run::process::ProcessId;

use crate::process::Bounded;
use crate::scratch::{Scratch, filtered};

/// A CSV source `items` with these further lines, and a model over it.
fn items(lines: &str) -> Scratch {
    let shop = Scratch::new(&format!(
        "pipeline: sales\nsources:\n  items:\n    connector: files\n    path: data/*.csv\n    format: csv\n    settle: 0s\n{lines}
    columns:
      id: {{ type: bigint, nullable: false }}
      name: text
      price: \"decimal(12, 2)\"
models:
  sold:
    sql: select id, name, price from items
    key: [id]
"
    ));
    shop.write("data/1.csv", "id,name,price\n1,pen,1.50\n");
    shop
}

const SOLD: &str = "select * from sold order by id";
const REFUSED: &str = "select id, name, price, _rule, _reason, _source_file, _source_row, _raw from items_quarantine order by _source_file, _source_row";

/// A pipeline over `orders` of one file, with these models.
fn models(text: &str) -> Scratch {
    let shop = Scratch::new(&format!(
        "sources:\n  orders:\n    connector: files\n    path: data/*.csv\n    format: csv\n    settle: 0s\n    columns: {{ id: bigint, city: text, Amount: double }}\nmodels:\n{text}"
    ));
    shop.write("data/1.csv", "id,city,Amount\n1,Recife,2.5\n");
    shop
}

#[test]
fn a_glob_that_matches_nothing_fails_and_empties_no_table() {
    let shop = items("");
    shop.exits(0, &["run"]);
    fs::rename(shop.path("data"), shop.path("unmounted")).unwrap();
    let seen = shop.exits(3, &["run"]);
    filtered(|| insta::assert_snapshot!("glob_matches_nothing", format!("{}---\n{}", seen.out, seen.err)));
    assert_eq!(shop.rows(SOLD), "1,pen,1.50\n");
    fs::rename(shop.path("unmounted"), shop.path("data")).unwrap();
    assert_eq!(shop.statuses(0, &[]), ["sold nothing"]);
}

#[test]
fn an_empty_source_is_fine_where_the_project_says_so() {
    let shop = items("    allow_empty: true");
    shop.exits(0, &["run"]);
    shop.remove("data/1.csv");
    assert_eq!(shop.statuses(0, &[]), ["sold ok"]);
    assert_eq!(shop.rows(SOLD), "");
}

#[test]
fn short_and_long_lines_are_quarantined_whole() {
    let shop = items("");
    shop.write("data/1.csv", "id,name,price\n1,pen,1.50\n2,ink\n3,\"a \"\"b\"\"\nc\",2.00,x\n4,cap,0.10\n");
    let seen = shop.exits(0, &["run", "--format", "json"]);
    assert_eq!(shop.rows(SOLD), "1,pen,1.50\n4,cap,0.10\n");
    insta::assert_snapshot!("short_and_long_lines", shop.rows(REFUSED));
    drop(seen);
}

#[test]
fn values_that_their_type_cannot_hold_are_quarantined_never_rounded() {
    let shop = items("");
    shop.write(
        "data/1.csv",
        "id,name,price\n1,ok,-9999999999.99\n2,scale,58.999\n3,range,12345678901.00\n4,text,abc\n9223372036854775808,id,1\n,no id,1\n1.5,id,1\n7,zeros,58.990\n",
    );
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(SOLD), "1,ok,-9999999999.99\n7,zeros,58.99\n");
    insta::assert_snapshot!("values_out_of_range", shop.rows(REFUSED));
}

#[test]
fn bytes_that_are_not_text_are_quarantined() {
    let shop = items("");
    shop.write("data/1.csv", b"id,name,price\n1,pen,1.50\n2,caf\xe9,2.00\n3,caf\xc3\xa9,2.00\n");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(SOLD), "1,pen,1.50\n3,café,2.00\n");
    insta::assert_snapshot!("invalid_utf8", shop.rows(REFUSED));
}

#[test]
fn invalid_rows_can_be_dropped_or_fail_the_source() {
    let dropped = items("    on_invalid: drop");
    dropped.write("data/1.csv", "id,name,price\n1,pen,1.50\nx,ink,1\n");
    dropped.exits(0, &["run"]);
    assert_eq!(dropped.rows(SOLD), "1,pen,1.50\n");
    assert_eq!(dropped.rows(REFUSED), "");

    let failing = items("    on_invalid: fail");
    failing.exits(0, &["run"]);
    failing.write("data/2.csv", "id,name,price\n2,ink,1\nx,ink,1\n");
    let seen = failing.exits(1, &["run"]);
    filtered(|| insta::assert_snapshot!("on_invalid_fail", format!("{}---\n{}", seen.out, seen.err)));
    assert_eq!(failing.rows(SOLD), "1,pen,1.50\n");
    failing.write("data/2.csv", "id,name,price\n2,ink,1\n");
    failing.exits(0, &["run"]);
    assert_eq!(failing.rows(SOLD), "1,pen,1.50\n2,ink,1.00\n");
}

#[test]
fn a_header_without_a_column_that_must_be_there_is_one_fault() {
    let shop = items("");
    shop.write("data/1.csv", "ID,name,price\n1,pen,1.50\n2,ink,1\n");
    let validated = shop.exits(2, &["validate"]);
    insta::assert_snapshot!("missing_column", validated.err);
}

#[test]
fn a_file_that_lacks_a_column_fails_its_source_alone_once_others_held_it() {
    let shop = items("");
    shop.write("pipelines/apart.yaml", "pipeline: apart\nmodels:\n  one: { sql: select 1 as n }\n");
    shop.write("data/1.csv", "ID,name,price\n1,pen,1.50\n");
    shop.exits(2, &["run"]);
    shop.write("data/1.csv", "id,name,price\n1,pen,1.50\n");
    shop.exits(0, &["run"]);
    shop.write("data/0.csv", "ID,name,price\n1,pen,1.50\n");
    shop.exits(2, &["validate"]);
    shop.exits(2, &["plan"]);
    let seen = shop.exits(3, &["run"]);
    assert!(seen.err.contains("lacks the column `id`") && seen.err.contains("data/0.csv"), "{}", seen.err);
    assert_eq!(shop.rows(SOLD), "1,pen,1.50\n");
    assert_eq!(shop.rows("select n from one"), "1\n");
    shop.exits(1, &["status"]);
    shop.remove("data/0.csv");
    shop.exits(0, &["run"]);
}

#[test]
fn truncated_parquet_names_the_file_and_touches_nothing() {
    let shop = items("");
    shop.exits(0, &["run"]);
    shop.exits(0, &["query", "select id, name, price from sold", "-o", "sold.parquet"]);
    let whole = fs::read(shop.path("sold.parquet")).unwrap();
    let parquet = Scratch::new(
        "sources:\n  items: { connector: files, path: data/*.parquet, format: parquet, settle: 0s, columns: { id: bigint, name: text } }\nmodels:\n  sold:\n    sql: select id, name from items\n",
    );
    parquet.write("data/1.parquet", &whole);
    parquet.exits(0, &["run"]);
    assert_eq!(parquet.rows(SOLD), "1,pen\n");
    parquet.write("data/2.parquet", &whole[..whole.len() / 2]);
    let seen = parquet.exits(3, &["run"]);
    filtered(|| insta::assert_snapshot!("truncated_parquet", format!("{}---\n{}", seen.out, seen.err)));
    assert_eq!(parquet.rows(SOLD), "1,pen\n");
    parquet.write("data/2.parquet", &whole);
    parquet.exits(0, &["run"]);
    assert_eq!(parquet.rows(SOLD), "1,pen\n1,pen\n");
}

/// A Parquet source `visits` with dates and times and these further lines, and a model that copies it.
fn visits(lines: &str) -> Scratch {
    Scratch::new(&format!(
        "pipeline: sales\nsources:\n  visits:\n    connector: files\n    path: data/*.parquet\n    format: parquet\n    settle: 0s\n{lines}
    columns: {{ id: bigint, t: time, day: date, at: timestamp, since: timestamptz }}
models:
  copied: {{ sql: 'select id, t, day, at, since from visits', key: [id] }}
"
    ))
}

/// Visits in a file: days, seconds and milliseconds since 1970; times of day in any unit.
fn write_visits(shop: &Scratch, file: &str, first: i64, times: ArrayRef, others: &[(i32, i64, i64)]) {
    let days = Date32Array::from_iter_values(others.iter().map(|(days, ..)| *days));
    let seconds = TimestampSecondArray::from_iter_values(others.iter().map(|(_, seconds, _)| *seconds));
    let milliseconds = TimestampMillisecondArray::from_iter_values(others.iter().map(|(.., ms)| *ms));
    let columns: [(&str, ArrayRef); 5] = [
        ("id", Arc::new(Int64Array::from_iter_values(first..first + times.len() as i64))),
        ("t", times),
        ("day", Arc::new(days)),
        ("at", Arc::new(seconds)),
        ("since", Arc::new(milliseconds.with_timezone("UTC"))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    shop.write(&format!("data/{file}.parquet"), bytes);
}

#[test]
fn dates_and_times_of_no_calendar_are_quarantined() {
    let fine = (0, 0, 1_000);
    let day_us = 86_400_000_000;
    let bad = |shop: &Scratch| {
        let times = Time64MicrosecondArray::from(vec![day_us, -1, 0, 0, 0, day_us - 1]);
        let others =
            [fine, fine, (i32::MAX, 0, 1_000), (0, i64::MAX, 1_000), (0, 0, 1 << 62), (95_000_000, -62_135_596_800, 0)];
        write_visits(shop, "bad", 2, Arc::new(times), &others);
    };
    let shop = visits("");
    write_visits(&shop, "good", 1, Arc::new(Time64MicrosecondArray::from(vec![36_000_000_000])), &[fine]);
    shop.exits(0, &["run"]);
    let first = "1,10:00:00,1970-01-01,1970-01-01T00:00:00,1970-01-01T00:00:01Z\n";
    assert_eq!(shop.rows("select * from copied order by id"), first);
    assert!(!shop.path("warehouse/_tidemill/sales/landed").exists(), "statistics prove it: it is read in place");

    bad(&shop);
    write_visits(&shop, "ms", 10, Arc::new(Time32MillisecondArray::from(vec![36_000_000, 86_400_000])), &[fine; 2]);
    write_visits(&shop, "ns", 12, Arc::new(Time64NanosecondArray::from(vec![0, day_us * 1_000])), &[fine; 2]);
    write_visits(&shop, "s", 14, Arc::new(Time32SecondArray::from(vec![86_399, -5])), &[fine; 2]);
    shop.exits(0, &["run"]);
    assert_eq!(
        shop.rows("select id, t from copied order by id"),
        "1,10:00:00\n7,23:59:59.999999\n10,10:00:00\n12,00:00:00\n14,23:59:59\n"
    );
    let reasons =
        "select id, _reason, _source_file, _source_row from visits_quarantine order by _source_file, _source_row";
    assert_eq!(
        shop.rows(reasons),
        "2,t: 86400000000 (microseconds) doesn't fit time,data/bad.parquet,1
3,t: -1 (microseconds) doesn't fit time,data/bad.parquet,2
4,day: 2147483647 (days) doesn't fit date,data/bad.parquet,3
5,at: 9223372036854775807 (seconds) doesn't fit timestamp,data/bad.parquet,4
6,since: 4611686018427387904 (milliseconds) doesn't fit timestamptz,data/bad.parquet,5
11,t: 86400000 (milliseconds) doesn't fit time,data/ms.parquet,2
13,t: 86400000000000 (nanoseconds) doesn't fit time,data/ns.parquet,2
15,t: -5 (seconds) doesn't fit time,data/s.parquet,2
"
    );
    let row = shop.rows("select t, day, _raw from visits_quarantine where id = '2'");
    assert!(row.starts_with("86400000000,1970-01-01,") && row.contains("\"\"t\"\":86400000000"), "{row}");
    shop.exits(0, &["verify"]);

    let dropped = visits("    on_invalid: drop");
    bad(&dropped);
    dropped.exits(0, &["run"]);
    assert_eq!(dropped.rows("select id from copied"), "7\n");
    assert_eq!(dropped.rows(reasons), "");
    let failing = visits("    on_invalid: fail");
    bad(&failing);
    let seen = failing.exits(1, &["run"]).err;
    assert!(seen.contains("t: 86400000000 (microseconds) doesn't fit time"), "{seen}");
}

#[test]
fn unknown_names_in_sql_are_told_at_their_characters() {
    let shop = models(
        "  in_file:\n    file: sql/in_file.sql\n  block:\n    sql: |\n      select\n        id,\n        citty\n      from orders\n  folded:\n    sql: select amount from orders\n  calls:\n    sql: select uper(city) as city from orders\n",
    );
    shop.write("sql/in_file.sql", "-- revenue\nselect id,\n       city\nfrom ordes\n");
    let seen = shop.exits(2, &["validate"]);
    insta::assert_snapshot!("unknown_names", seen.err);
    let run = shop.exits(2, &["run"]);
    assert_eq!(format!("{}4 errors\n", run.err), seen.err, "run tells the same, without the count");
    assert!(!shop.path("warehouse").exists(), "nothing is touched");
}

#[test]
fn sql_that_does_not_parse_is_told_at_its_characters() {
    let shop = models(
        "  in_file:\n    file: sql/in_file.sql\n  block:\n    sql: |\n      select id\n      fro orders where\n",
    );
    shop.write("sql/in_file.sql", "select id,\nfrom orders\ngroup buy id\n");
    insta::assert_snapshot!("sql_syntax", shop.exits(2, &["validate"]).err);
}

#[test]
fn models_that_read_each_other_are_a_fault() {
    let shop = models(
        "  a:\n    sql: select id from b\n  b:\n    sql: select id from c\n  c:\n    sql: select id from a\n  d:\n    sql: select id from d\n",
    );
    insta::assert_snapshot!("cycle", shop.exits(2, &["validate"]).err);
}

#[test]
fn a_warehouse_that_cannot_be_written_is_named() {
    let shop = items("");
    shop.write("file.txt", "not a folder");
    for (name, warehouse) in [("warehouse_under_a_file", "./file.txt/warehouse"), ("warehouse_in_proc", "/proc/nope")] {
        shop.write("tidemill.yaml", format!("version: 1\nname: shop\nwarehouse: {warehouse}\n"));
        let seen = shop.exits(3, &["run"]);
        filtered(|| insta::assert_snapshot!(name, format!("{}---\n{}", seen.out, seen.err)));
    }
}

#[test]
fn a_warehouse_of_a_newer_version_is_left_alone() {
    let shop = items("");
    shop.exits(0, &["run"]);
    let path = shop.path("warehouse/_tidemill/format.json");
    let mut format: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let version = format.as_object_mut().unwrap().values_mut().find(|v| v.is_number()).unwrap();
    *version = 999.into();
    fs::write(&path, format.to_string()).unwrap();
    shop.write("data/2.csv", "id,name,price\n2,ink,1\n");
    let seen = shop.exits(2, &["run"]);
    filtered(|| insta::assert_snapshot!("newer_warehouse", seen.err));
    assert_eq!(fs::read_dir(shop.path("warehouse/sold/_delta_log")).unwrap().count(), 1);
}

#[test]
fn a_second_run_at_the_same_time_is_refused_and_can_wait() {
    let shop = items("");
    shop.exits(0, &["run"]);
    let process = ProcessId::current();
    hold(&shop, &process);
    let seen = shop.exits(75, &["run"]);
    filtered(|| insta::assert_snapshot!("two_runs", format!("{}---\n{}", seen.out, seen.err)));
    shop.exits(75, &["run", "--wait=1s"]);
    let refused = shop.exits(75, &["up", "--listen", "127.0.0.1:0"]).err;
    assert!(refused.contains("another process is at work") && !refused.contains("--wait"), "{refused}");
    assert_eq!(shop.rows(SOLD), "1,pen,1.50\n", "reading needs no lease");

    shop.write("data/2.csv", "id,name,price\n2,ink,1\n");
    let mut waiting = shop.command(&["run", "--wait"]).stdout(Stdio::null()).start();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(waiting.try_wait().unwrap().is_none(), "it waits");
    let mut gone = Command::new("true").start();
    gone.wait();
    hold(&shop, &ProcessId { pid: gone.id(), ..process });
    assert!(waiting.wait().success(), "a dead holder is followed at once");
    assert_eq!(shop.rows(SOLD), "1,pen,1.50\n2,ink,1.00\n");
}

/// Makes the lease of `sales` that of a process, for an hour to come.
fn hold(shop: &Scratch, process: &ProcessId) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let holder = serde_json::json!({
        "writer": "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "process": process,
        "expires_at_us": u64::try_from(now.as_micros()).unwrap() + 3_600_000_000,
    });
    shop.write("warehouse/_tidemill/sales/lease.json", holder.to_string());
}
