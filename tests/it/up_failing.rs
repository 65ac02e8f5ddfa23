//! `up` over a model that fails: what depends on it waits for it, as in a run.

use std::time::{Duration, Instant};

use crate::process::PATIENCE;
use crate::scratch::Scratch;
use crate::up_schedules::{overheard, until, up};

/// Asks `status` until it exits with `code`.
#[track_caller]
fn until_status(shop: &Scratch, code: i32) -> String {
    let begun = Instant::now();
    loop {
        let seen = shop.tidemill(&["status"]);
        if seen.code == code {
            return seen.out;
        }
        assert!(begun.elapsed() < PATIENCE, "{} {}", seen.out, seen.err);
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn what_depends_on_a_failed_model_waits_until_it_works_again() {
    let shop = Scratch::new(
        "
pipeline: main
sources:
  f: { connector: files, path: f/*.csv, format: csv, settle: 0s, columns: { k: text, v: bigint } }
  g: { connector: files, path: g/*.csv, format: csv, settle: 0s, columns: { k: text, q: bigint } }
models:
  bad: { sql: 'select k, sum(100 / v) as r from f group by k', key: [k] }
  dep: { sql: 'select b.k, b.r, g.q from bad b join g on b.k = g.k' }
  behind: { sql: 'select count(*) as n from dep d join g on d.k = g.k' }
  hourly: { refresh: { every: 1h }, sql: select count(*) as n from bad }
  apart: { sql: select count(*) as n from g }
",
    );
    shop.write("f/1.csv", "k,v\na,1\n");
    shop.write("g/1.csv", "k,q\na,1\n");
    shop.exits(0, &["run", "bad", "dep", "behind", "apart"]);
    shop.write("f/2.csv", "k,v\na,0\n");
    let up = up(&shop);
    until_status(&shop, 1);
    shop.write("g/2.csv", "k,q\na,10\n");
    // One step takes this in for all of them.
    until(&shop, "select n from apart", "2");
    assert_eq!(shop.rows("select q from dep"), "1\n");
    assert_eq!(shop.rows("select n from behind"), "1\n");

    shop.write("f/2.csv", "k,v\na,2\n");
    until(&shop, "select count(*) from dep where r = 150", "2");
    until(&shop, "select n from behind", "4");
    // It was skipped for the failure: it doesn't wait for its hour.
    until(&shop, "select n from hourly", "1");
    let told = until_status(&shop, 0);
    assert!(!told.contains("skipped"), "{told}");
    up.signal("TERM");
    assert_eq!(shop.seen(up.finish()).code, 0);
    shop.exits(0, &["verify"]);
}

#[test]
fn what_may_have_passed_is_tried_again_though_nothing_came() {
    let shop = Scratch::new(
        "
pipeline: main
sources:
  f: { connector: files, path: f/*.csv, format: csv, settle: 0s, columns: { k: text, v: bigint } }
models:
  kept: { sql: 'select k, sum(v) as v from f group by k', key: [k] }
  dep: { sql: 'select count(*) as n from kept' }
",
    );
    shop.write("f/1.csv", "k,v\na,1\nb,2\n");
    // Where a folder must stand is a file, as a stand-in for any fault of the warehouse that somebody mends.
    shop.write("warehouse/_tidemill/main/state/kept", "");
    let up = up(&shop);
    let told = until_status(&shop, 1);
    assert!(told.contains("kept"), "{told}");
    std::fs::remove_file(shop.path("warehouse/_tidemill/main/state/kept")).unwrap();
    until(&shop, "select n from dep", "2");
    until_status(&shop, 0);
    up.signal("TERM");
    assert_eq!(shop.seen(up.finish()).code, 0);
    shop.exits(0, &["verify"]);
}

#[test]
fn what_gets_old_while_nothing_comes_is_told_once() {
    let shop = Scratch::new(
        "
pipeline: main
sources:
  f: { connector: files, path: f/*.csv, format: csv, settle: 0s, columns: { at: timestamptz } }
models:
  fresh: { sql: select at from f, checks: [ { name: recent, freshness: { column: at, within: 4s } } ] }
  warned: { sql: select at from f, checks: [ { freshness: { column: at, within: 4s }, on_fail: warn } ] }
",
    );
    let now = || chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string();
    shop.write("f/1.csv", format!("at\n{}\n", now()));
    let up = overheard(&shop);
    until(&shop, "select count(*) from fresh", "1");
    let told = until_status(&shop, 1);
    assert!(told.contains("recent"), "{told}");
    let failed = |model: &str| {
        format!("select count(*) from shop.tidemill.check_results where model = '{model}' and status = 'failed'")
    };
    until(&shop, &failed("warned"), "1");
    std::thread::sleep(Duration::from_secs(3));
    // A run for each that got old, or one for both; not one for each look.
    let told = shop.rows(&failed("fresh"));
    assert!(["1\n", "2\n"].contains(&told.as_str()), "{told}");
    shop.write("f/2.csv", format!("at\n{}\n", now()));
    until_status(&shop, 0);
    up.signal("TERM");
    let seen = shop.seen(up.finish());
    assert_eq!(seen.code, 0, "{}", seen.err);
    assert_eq!(seen.err.matches("warned: the check").count(), 1, "{}", seen.err);
}

#[test]
fn what_reads_a_source_that_got_old_is_skipped_until_something_new_is_there() {
    let shop = Scratch::new(
        "
pipeline: main
sources:
  f:
    connector: files
    path: f/*.csv
    format: csv
    settle: 0s
    columns: { k: bigint, at: timestamptz }
    checks: [ { name: recent, freshness: { column: at, within: 4s } } ]
  g: { connector: files, path: g/*.csv, format: csv, settle: 0s, columns: { k: bigint } }
models:
  both: { sql: \"select f.k, at from f join g on f.k = g.k\" }
  counted: { sql: \"select k, count(*) as c from both group by k\" }
  apart: { sql: select k from g }
",
    );
    let now = || chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string();
    shop.write("f/1.csv", format!("k,at\n1,{}\n", now()));
    shop.write("g/1.csv", "k\n1\n");
    let up = overheard(&shop);
    until(&shop, "select count(*) from both", "1");
    let told = until_status(&shop, 1);
    assert!(told.contains("`f` failed or was skipped"), "{told}");
    // What it reads besides may come: that mends nothing.
    shop.write("g/2.csv", "k\n2\n");
    until(&shop, "select count(*) from apart", "2");
    std::thread::sleep(Duration::from_secs(3));
    until_status(&shop, 1);
    assert_eq!(shop.rows("select k, c from counted"), "1,1\n");
    shop.write("f/2.csv", format!("k,at\n2,{}\n", now()));
    until(&shop, "select count(*) from counted", "2");
    up.signal("TERM");
    let seen = shop.seen(up.finish());
    assert_eq!(seen.code, 0, "{}", seen.err);
    let told = seen.err.matches("error: f: the check `recent` failed").count();
    assert!((1..=2).contains(&told), "{told}: {}", seen.err);
}

#[test]
fn a_rule_that_the_other_side_breaks_is_told_and_so_is_its_end() {
    let source = |name: &str, more: &str| {
        format!(
            "sources:\n  {name}:\n    connector: files\n    path: {name}/*.csv\n    format: csv\n    settle: 0s\n    columns: {{ id: bigint }}\n{more}"
        )
    };
    let rule = "    checks: [ { relationships: { column: id, to: orders.id } } ]\n";
    // What it looks into is of a pipeline that comes later by its name.
    let shop = Scratch::new(&format!(
        "pipeline: a\n{}models:\n  sold: {{ sql: select id from lines }}\n",
        source("lines", rule)
    ));
    shop.write(
        "pipelines/b.yaml",
        format!("pipeline: b\n{}models:\n  known: {{ sql: select id from orders }}\n", source("orders", "")),
    );
    shop.write("lines/1.csv", "id\n10\n");
    shop.write("orders/1.csv", "id\n11\n");
    shop.exits(1, &["run"]);
    shop.write("orders/2.csv", "id\n10\n");
    shop.exits(0, &["run"]);
    shop.exits(0, &["run", "sold"]);
    let up = up(&shop);
    shop.write("orders/2.csv", "id\n12\n");
    until_status(&shop, 1);
    shop.write("orders/2.csv", "id\n10\n");
    until_status(&shop, 0);
    drop(up);
    shop.exits(0, &["verify"]);
}

#[test]
fn a_source_that_fails_is_left_alone_until_something_else_is_there() {
    let shop = Scratch::new(
        "
pipeline: main
sources:
  f: { connector: files, path: f/*.csv, format: csv, settle: 0s, on_invalid: fail, columns: { v: bigint } }
models:
  kept: { sql: select v from f }
",
    );
    shop.write("f/1.csv", "v\n1\n");
    shop.exits(0, &["run"]);
    shop.write("f/2.csv", "v\nx\n");
    let up = overheard(&shop);
    until_status(&shop, 1);
    std::thread::sleep(Duration::from_secs(4));
    shop.write("f/2.csv", "v\n2\n");
    until(&shop, "select count(*) from kept", "2");
    until_status(&shop, 0);
    up.signal("TERM");
    let seen = shop.seen(up.finish());
    assert_eq!(seen.code, 0, "{}", seen.err);
    assert_eq!(seen.err.matches("error: f: ").count(), 1, "{}", seen.err);
    // The history tells of steps where something is news.
    let command = "command like '%up%' and status = 'failed'";
    assert_eq!(shop.rows(&format!("select count(*) from shop.tidemill.runs where {command}")), "1\n");
    shop.exits(0, &["verify"]);
}
