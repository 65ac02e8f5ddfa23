//! Reading what runs made: formats, earlier versions, history, health, and a server that follows other processes.

use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{fs, thread};

use arrow::ipc::reader::{FileReader, StreamReader};

use crate::process::{Bounded, Lines, Process};
use crate::scratch::{Scratch, filtered};

const PIPELINE: &str = "
pipeline: sales
sources:
  orders:
    connector: files
    path: data/*.csv
    format: csv
    settle: 0s
    columns: { id: bigint, note: text, amount: \"decimal(12, 2)\", at: timestamptz, day: date }
models:
  kept:
    sql: select * from orders
    key: [id]
";

const FIRST: &str = "id,note,amount,at,day\n1,\"a, \"\"b\"\"\",1.50,2020-01-31T23:30:00Z,2020-01-31\n2,\"\",,,\n";
const KEPT: &str = "select * from kept order by id";

fn shop() -> Scratch {
    let shop = Scratch::new(PIPELINE);
    shop.write("data/1.csv", FIRST);
    shop.exits(0, &["run"]);
    shop
}

/// A second version: one row more.
fn add(shop: &Scratch) {
    shop.write("data/2.csv", "id,note,amount,at,day\n3,new,3,,\n");
    shop.exits(0, &["run"]);
}

#[test]
fn each_format_holds_the_same_rows() {
    let shop = shop();
    let text = |format: &str| shop.exits(0, &["query", "--format", format, KEPT]).out;
    insta::assert_snapshot!("formats", format!("{}---\n{}---\n{}", text("csv"), text("json"), text("table")));
    assert_eq!(shop.exits(0, &["query", KEPT]).out, text("table"), "a table unless told otherwise");

    let stream = shop.command(&["query", "--format", "arrow", KEPT]).finish().stdout;
    let rows: usize =
        StreamReader::try_new(stream.as_slice(), None).unwrap().map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!(rows, 2);
    shop.exits(0, &["query", KEPT, "-o", "out.arrow"]);
    let file = FileReader::try_new(fs::File::open(shop.path("out.arrow")).unwrap(), None).unwrap();
    assert_eq!(file.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 2);
    for name in ["out.csv", "out.jsonl"] {
        assert_eq!(shop.exits(0, &["query", KEPT, "-o", name]).out, "");
        let format = if name == "out.csv" { "csv" } else { "json" };
        assert_eq!(fs::read_to_string(shop.path(name)).unwrap(), text(format));
    }
    let piped = shop.command(&["query", "--format", "parquet", KEPT]).finish().stdout;
    shop.write("again.parquet", piped);
    let again = Scratch::new(
        "sources:\n  again: { connector: files, path: ./again.parquet, format: parquet, settle: 0s }\nmodels:\n  m:\n    sql: select * from again\n",
    );
    fs::copy(shop.path("again.parquet"), again.path("again.parquet")).unwrap();
    assert_eq!(again.exits(0, &["show", "m", "--format", "csv"]).out, text("csv"), "through Parquet and back");

    shop.write("q.sql", KEPT);
    assert_eq!(shop.exits(0, &["query", "-f", "q.sql"]).out, text("table"));
    let untold = shop.exits(2, &["query", KEPT, "-o", "out.xyz"]);
    assert!(untold.err.contains("--format"), "{}", untold.err);
}

#[test]
fn earlier_versions_stay_readable() {
    let shop = shop();
    let between = now();
    thread::sleep(Duration::from_millis(20));
    add(&shop);
    let count = |of: &str| shop.rows(&format!("select count(*) from kept {of}"));
    assert_eq!(count(""), "3\n");
    assert_eq!(count("version as of 0"), "2\n");
    assert_eq!(count("version as of 1"), "3\n");
    assert_eq!(count(&format!("timestamp as of '{between}'")), "2\n");
    assert_eq!(
        shop.rows("select n.id from kept n left join kept version as of 0 o on n.id = o.id where o.id is null"),
        "3\n"
    );
    let at = |time: &str| shop.tidemill(&["query", "--format", "csv", "--at", time, "select count(*) from kept"]);
    assert_eq!(at(&between).out, "count(*)\n2\n");
    assert_eq!(at(&now()).out, "count(*)\n3\n");
    for refused in [
        shop.tidemill(&["query", "select count(*) from kept version as of 7"]),
        shop.tidemill(&["query", "select count(*) from kept version as of -1"]),
        shop.tidemill(&["query", "select count(*) from kept timestamp as of '2001-01-01T00:00:00Z'"]),
        at("2001-01-01T00:00:00Z"),
        shop.tidemill(&["query", "select count(*) from kept timestamp as of '2101-01-01T00:00:00Z'"]),
        at("2101-01-01T00:00:00Z"),
    ] {
        assert!(refused.code == 2 || refused.code == 3, "{} {}", refused.out, refused.err);
        assert_eq!(refused.out, "", "never the present rows");
    }
    let late = shop.tidemill(&["query", "select count(*) from kept version as of 7"]);
    filtered(|| insta::assert_snapshot!("version_too_new", late.err));
}

#[test]
fn sql_that_the_engine_would_run_as_something_else_is_mended_or_refused() {
    let shop = shop();
    let of = "from (values ('a', 1), ('a', 2), ('b', 5)) t(k, v)";
    let sql = format!(
        "select v, sum(v) over (w) as total, rank() over (p order by v desc) as place, row_number() over q as n,
           sum(v) over (P order by v rows between 1 following and 1 following) as next
         {of} window p as (partition by k), w as (p order by v), Q as (w) order by v"
    );
    assert_eq!(shop.rows(&sql), "1,1,2,1,2\n2,3,1,2,\n5,5,1,1,\n");
    let seen = shop.exits(2, &["query", &format!("select sum(v) over (x order by v) {of} window w as (order by k)")]);
    assert!(seen.err.contains("no window `x` is defined before"), "{}", seen.err);
    let seen = shop.exits(2, &["query", "select id from kept where 'abc' similar to 'a%'"]);
    assert!(seen.err.contains("SIMILAR TO would be run as a regular expression"), "{}", seen.err);
    let of_each =
        "select * from kept a, lateral (select id, row_number() over (order by id) from kept b where b.id <> a.id) l";
    let seen = shop.exits(2, &["query", of_each]);
    assert!(seen.err.contains("in a way that can't be run"), "{}", seen.err);
}

/// What no rows could mend is told as other faults are: with its place, and the code of an invalid query.
#[test]
fn a_query_that_can_never_run_is_told_at_its_place() {
    let shop = shop();
    let faults = [
        "select * from kept where amount > 'abc'",
        "select id from kept where day = date '2020-13-01' or at = '2020-01-31 25:00:00'",
        "select regexp_like(note, '(') from kept",
        "select $limit",
        "select count(distinct id, note) from kept",
        "select * from kept VERSION AS OF 0 where id = 'one'",
    ];
    let told = faults.map(|sql| {
        let (asked, shown) = (shop.exits(2, &["query", sql]), shop.exits(2, &["show", sql]));
        if !sql.contains("VERSION") {
            assert_eq!(asked.err, shown.err, "{sql}");
        }
        asked.err
    });
    insta::assert_snapshot!("never", told.join("---\n"));
    let of_rows = shop.exits(3, &["query", "select cast(note as int) from kept"]).err;
    assert!(!of_rows.contains("Optimizer rule"), "{of_rows}");
    let address = shop.exits(2, &["serve", "--listen", "here"]).err;
    assert!(address.contains("expected a host and a port"), "{address}");
}

/// The wall clock, RFC 3339.
fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

#[test]
fn queries_change_nothing() {
    let shop = shop();
    for sql in [
        "create table t as select 1",
        "drop table kept",
        "insert into kept select * from kept",
        "delete from kept",
        "create external table x stored as csv location '/etc/passwd'",
        "copy kept to 'x.csv'",
        "set datafusion.execution.batch_size = 1",
        "select 1; select 2",
    ] {
        let seen = shop.exits(2, &["query", sql]);
        assert_eq!(seen.out, "", "{sql}");
        assert!(!seen.err.is_empty(), "{sql}");
    }
    assert_eq!(shop.rows("select count(*) from kept"), "2\n");
    assert!(!shop.path("x.csv").exists());
    let unknown = shop.exits(2, &["query", "select idd from kept"]);
    insta::assert_snapshot!("query_unknown_column", unknown.err);
}

#[test]
fn runs_and_status_tell_what_was() {
    let shop = shop();
    let runs = shop.exits(0, &["runs", "--format", "json"]).json();
    assert_eq!(runs.len(), 1);
    shop.exits(0, &["status", "--max-age", "1h"]);
    thread::sleep(Duration::from_millis(1100));
    shop.exits(1, &["status", "--max-age", "1s"]);
    shop.exits(0, &["run"]);
    shop.exits(0, &["status", "--max-age", "1h"]);

    shop.write("data/2.csv", "id,note,amount,at,day\n1,twice,3,,\n");
    shop.exits(1, &["run"]);
    let status = shop.exits(1, &["status", "--format", "json"]).json();
    assert_eq!(
        (&status[0]["model"], &status[0]["status"], &status[0]["rows"]),
        (&"kept".into(), &"failed".into(), &2.into())
    );
    assert_eq!(shop.exits(0, &["runs", "--limit", "2", "--format", "json"]).json().len(), 2);
    assert_eq!(shop.rows("select status, count(*) from shop.tidemill.runs group by 1 order by 1"), "failed,1\nok,2\n");
    shop.remove("data/2.csv");
    shop.exits(0, &["run"]);
    shop.exits(0, &["status"]);
}

#[test]
fn the_schema_of_the_yaml_is_json() {
    let shop = shop();
    let schema: serde_json::Value = serde_json::from_str(&shop.exits(0, &["schema"]).out).unwrap();
    assert!(schema["$schema"].is_string() && schema.to_string().contains("on_invalid"));
}

/// A server that ends with the test.
struct Server {
    _process: Process,
    url: String,
}

impl Server {
    fn start(shop: &Scratch) -> Self {
        let mut child = shop.command(&["serve", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).start();
        let line = child.lines().next().unwrap();
        let url = line.trim().rsplit(' ').next().unwrap().to_string();
        assert!(url.starts_with("grpc://127.0.0.1:"), "{line}");
        Self { _process: child, url }
    }
}

#[test]
fn clients_see_the_sources_that_are_served() {
    let shop = shop();
    let pipeline = std::fs::read_to_string(shop.path("pipelines/sales.yaml")).unwrap();
    let asked = "select count(*) as n, max(_source_row) as last from orders";
    let remote = |server: &Server| shop.tidemill(&["query", "--url", &server.url, "--format", "csv", asked]);
    let hidden = remote(&Server::start(&shop));
    assert_eq!(hidden.code, 2, "{}", hidden.out);
    shop.write("pipelines/sales.yaml", pipeline.replacen("connector: files", "connector: files\n    serve: true", 1));
    let server = Server::start(&shop);
    assert_eq!(remote(&server).out, "n,last\n2,2\n");
    add(&shop);
    let committed = Instant::now();
    while remote(&server).out != "n,last\n3,2\n" {
        assert!(committed.elapsed() < Duration::from_secs(10), "{}", remote(&server).err);
    }
}

#[test]
fn a_server_sees_commits_of_other_processes_within_a_second() {
    let shop = shop();
    let server = Server::start(&shop);
    let remote = |sql: &str| shop.tidemill(&["query", "--url", &server.url, "--format", "csv", sql]);
    assert_eq!(
        remote(KEPT).out,
        shop.exits(0, &["query", "--format", "csv", KEPT]).out,
        "the same bytes as a local query"
    );
    add(&shop);
    let committed = Instant::now();
    while remote("select count(*) from kept").out != "count(*)\n3\n" {
        assert!(committed.elapsed() < Duration::from_secs(1), "the new commit isn't seen");
    }
    assert_eq!(remote("select count(*) from kept version as of 0").out, "count(*)\n2\n");
    let unknown = remote("select idd from kept");
    assert_eq!((unknown.code, unknown.out.as_str()), (2, ""), "{}", unknown.err);
    assert_eq!(remote("drop table kept").code, 2);
    assert_eq!(remote("select * from orders").code, 2, "sources aren't served unless they say so");
}

/// `query --watch` at work.
struct Watch {
    child: Process,
    lines: Lines,
}

impl Watch {
    fn start(shop: &Scratch, args: &[&str]) -> Self {
        let args = [&["query"], args].concat();
        let mut child = shop.command(&args).stdout(Stdio::piped()).start();
        let lines = child.lines();
        Self { child, lines }
    }

    /// The next lines, as soon as they are there.
    #[track_caller]
    fn prints(&mut self, expected: &[&str]) {
        let lines: Vec<String> = self.lines.by_ref().take(expected.len()).collect();
        assert_eq!(lines, expected);
    }

    /// Ends it by a signal; nothing more may be printed.
    #[track_caller]
    fn ends(mut self, signal: &str, code: i32) {
        self.child.signal(signal);
        assert_eq!(self.child.wait().code(), Some(code));
        assert_eq!(self.lines.collect::<Vec<_>>(), [""; 0]);
    }
}

/// One more row, by a run of its own.
fn add_row(shop: &Scratch, id: u32) {
    shop.write(&format!("data/{id}.csv"), format!("id,note,amount,at,day\n{id},new,3,,\n"));
    shop.exits(0, &["run"]);
}

#[test]
fn a_watched_query_prints_each_new_result_once() {
    let shop = shop();
    let mut all = Watch::start(&shop, &["--watch", "--format", "csv", "select count(*) as n from kept"]);
    let mut some =
        Watch::start(&shop, &["--watch=20ms", "--format", "json", "select id from kept where id <> 3 order by 1"]);
    all.prints(&["n", "2"]);
    some.prints(&["{\"id\":1}", "{\"id\":2}"]);
    for (id, count) in [(3, "3"), (4, "4")] {
        add_row(&shop, id);
        all.prints(&["", "n", count]);
    }
    // The third row was a commit that changed nothing of this result.
    some.prints(&["", "{\"id\":1}", "{\"id\":2}", "{\"id\":4}"]);
    all.ends("INT", 130);
    some.ends("TERM", 143);
}

#[test]
fn a_watched_server_is_asked_again() {
    let shop = shop();
    let server = Server::start(&shop);
    let mut watch = Watch::start(
        &shop,
        &["--watch=50ms", "--url", &server.url, "--format", "csv", "select max(id) as n from kept"],
    );
    watch.prints(&["n", "2"]);
    add_row(&shop, 7);
    watch.prints(&["", "n", "7"]);
    watch.ends("INT", 130);
}

#[test]
fn what_cannot_be_watched_is_said() {
    let shop = shop();
    for (args, words) in [
        (&["--watch", KEPT, "-o", "out.csv"][..], "cannot be used with"),
        (&["--watch", KEPT, "--at", "2026-01-01T00:00:00Z"], "cannot be used with"),
        (&["--watch=0s", KEPT], "at least 10ms"),
        (&["--watch=often", KEPT], "expected a duration"),
        (&["--watch", "--format", "parquet", KEPT], "--watch writes text"),
        (&["--watch", "select idd from kept"], "idd"),
    ] {
        let seen = shop.exits(2, &[&["query"], args].concat());
        assert!(seen.err.contains(words) && seen.out.is_empty(), "{args:?}: {}", seen.err);
    }
}

#[test]
fn an_explanation_can_be_shown() {
    let shop = shop();
    for sql in ["explain select 1", "explain select id from kept", "explain analyze select id from kept"] {
        let seen = shop.exits(0, &["show", sql, "--limit", "1"]);
        assert!(seen.out.contains("plan"), "{sql}: {}", seen.out);
    }
}

#[test]
fn a_model_without_a_table_is_said_to_be_unbuilt() {
    let shop = Scratch::new(PIPELINE);
    let seen = shop.exits(2, &["query", KEPT]);
    assert!(seen.err.contains("not_built") && seen.err.contains("tidemill run kept"), "{}", seen.err);
    let seen = shop.exits(2, &["query", "select * from keptt"]);
    assert!(seen.err.contains("no table `keptt`"), "{}", seen.err);
}

#[test]
fn a_table_of_estimates_alone_is_not_verified() {
    let shop = Scratch::new(
        &PIPELINE.replace("select * from orders\n    key: [id]", "select approx_median(amount) as m from orders"),
    );
    shop.write("data/1.csv", FIRST);
    shop.exits(0, &["run"]);
    let seen = shop.exits(0, &["verify"]);
    assert!(seen.out.contains("kept  skipped: all of its columns are estimates"), "{}", seen.out);
}
