//! A run that dies at any point leaves whole tables; the next one goes on, and nothing tells it from a run that never died.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::scratch::Scratch;

pub(crate) const PIPELINE: &str = "
pipeline: sales
sources:
  orders:
    connector: files
    path: data/*.csv
    format: csv
    settle: 0s
    columns: { id: bigint, city: text, amount: \"decimal(12, 2)\" }
models:
  kept:
    sql: select id, city, amount from orders
    key: [id]
    checks: [ { check: amount > 0, name: positive, on_fail: quarantine } ]
  cities:
    sql: select city, count(*) as orders, sum(amount) as revenue from kept group by city
    key: [city]
  total:
    sql: select sum(revenue) as revenue, sum(orders) as orders from cities
";

const TABLES: [&str; 5] = ["kept", "cities", "total", "kept_quarantine", "orders_quarantine"];

/// Day `day` of data: 40 good rows, one that a rule refuses, one that the contract refuses.
pub(crate) fn write_day(shop: &Scratch, day: u32) {
    let mut text = "id,city,amount\n".to_string();
    for row in 0..40 {
        text.push_str(&format!("{},city {},{}.25\n", day * 100 + row, (day + row) % 7, row + 1));
    }
    text.push_str(&format!("{},nowhere,-1\n{},nowhere,much\n", day * 100 + 90, day * 100 + 91));
    shop.write(&format!("data/{day:02}.csv"), text);
}

/// All that a reader sees, as text; a query that fails fails the test.
pub(crate) fn contents(shop: &Scratch) -> String {
    let mut all = String::new();
    for query in [
        "select * from kept order by id",
        "select * from cities order by city",
        "select * from total",
        "select id, city, amount, _rule, _reason from kept_quarantine order by id",
        "select id, amount, _rule, _reason, _source_file, _source_row, _raw from orders_quarantine order by id",
    ] {
        all.push_str(&shop.rows(query));
        all.push_str("--\n");
    }
    all
}

/// What a project of `days` holds that was never disturbed.
pub(crate) fn undisturbed(days: u32) -> String {
    let shop = Scratch::new(PIPELINE);
    (0..days).for_each(|day| write_day(&shop, day));
    shop.exits(0, &["run"]);
    contents(&shop)
}

/// Names of the Parquet files under a folder, relative to it.
pub(crate) fn parquet_files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|e| e == "parquet") {
                found.insert(entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_string());
            }
        }
    }
    found
}

/// Files that a table's log has named, at any version.
pub(crate) fn named_files(table: &Path) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for entry in fs::read_dir(table.join("_delta_log")).unwrap().map(Result::unwrap) {
        if entry.path().extension().is_none_or(|e| e != "json") {
            continue;
        }
        for line in fs::read_to_string(entry.path()).unwrap().lines() {
            let action: serde_json::Value = serde_json::from_str(line).unwrap();
            named.extend(action["add"]["path"].as_str().map(decoded));
        }
    }
    named
}

/// A path as a Delta log writes it, which is that of a URL.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        match (byte, code) {
            (b'%', Some(code)) => (bytes, rest) = ([bytes, vec![code]].concat(), &after[2..]),
            _ => (bytes, rest) = ([bytes, vec![*byte]].concat(), after),
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Parquet files in the tables' folders that no log names.
pub(crate) fn orphans(shop: &Scratch) -> Vec<String> {
    let mut all = Vec::new();
    for table in TABLES {
        let folder = shop.path(&format!("warehouse/{table}"));
        let named = named_files(&folder);
        all.extend(parquet_files(&folder).difference(&named).map(|file| format!("{table}/{file}")));
    }
    all
}

#[test]
fn a_run_that_dies_at_a_named_place_is_finished_by_the_next() {
    let (one, two, three) = (undisturbed(1), undisturbed(2), undisturbed(3));
    for (place, published) in [
        ("after_stage", false),
        ("before_record", false),
        ("after_record", true),
        ("before_delta", true),
        ("before_delta:3", true),
        ("after_delta", true),
        ("after_delta:3", true),
    ] {
        let shop = Scratch::new(PIPELINE);
        write_day(&shop, 0);
        shop.exits(0, &["run"]);
        write_day(&shop, 1);
        let died = shop.command(&["run"]).env("TIDEMILL_FAILPOINT", place).output().unwrap();
        assert_eq!(died.status.code(), None, "{place}: the run has to die: {}", String::from_utf8_lossy(&died.stderr));
        let seen = contents(&shop);
        assert_eq!(
            seen,
            if published { two.clone() } else { one.clone() },
            "{place}: one commit or the other, never a mix"
        );

        assert!(published || !orphans(&shop).is_empty(), "{place}: staged files are there, or this test shows nothing");
        let again = shop.exits(0, &["run"]);
        assert_eq!(contents(&shop), two, "{place}: after the next run: {}", again.out);
        shop.exits(0, &["run"]);
        assert_eq!(contents(&shop), two, "{place}: after one more");
        write_day(&shop, 2);
        shop.exits(0, &["run"]);
        assert_eq!(contents(&shop), three, "{place}: with another day");
        assert_eq!(orphans(&shop), [""; 0], "{place}");
    }
}

#[test]
fn a_first_run_that_dies_leaves_nothing_half_made() {
    let one = undisturbed(1);
    for place in ["after_stage", "before_record", "after_record", "before_delta", "after_delta:2"] {
        let shop = Scratch::new(PIPELINE);
        write_day(&shop, 0);
        let died = shop.command(&["run"]).env("TIDEMILL_FAILPOINT", place).output().unwrap();
        assert_eq!(died.status.code(), None, "{place}");
        shop.exits(0, &["run"]);
        assert_eq!(contents(&shop), one, "{place}");
        assert_eq!(orphans(&shop), [""; 0], "{place}");
    }
}

#[test]
fn a_landing_folder_loses_no_file_to_a_run_that_dies() {
    for place in ["after_stage", "before_record", "after_record", "before_delta", "after_delta:3"] {
        let landing = PIPELINE.replace("    settle: 0s\n", "    settle: 0s\n    mode: append\n    after: delete\n");
        let shop = Scratch::new(&landing);
        write_day(&shop, 0);
        let died = shop.command(&["run"]).env("TIDEMILL_FAILPOINT", place).output().unwrap();
        assert_eq!(died.status.code(), None, "{place}");
        assert!(shop.path("data/00.csv").is_file(), "{place}: a file goes after its commit is whole, not before");
        write_day(&shop, 1);
        shop.exits(0, &["run"]);
        assert_eq!(contents(&shop), undisturbed(2), "{place}");
        assert_eq!(fs::read_dir(shop.path("data")).unwrap().count(), 0, "{place}: taken files are gone");
        shop.exits(0, &["run"]);
        assert_eq!(contents(&shop), undisturbed(2), "{place}: nothing is taken twice");
    }
}

#[test]
fn runs_killed_at_any_instant_leave_whole_tables() {
    let seed = std::env::var("TIDEMILL_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("seed {seed}; again with TIDEMILL_SEED={seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let shop = Scratch::new(PIPELINE);
    write_day(&shop, 0);
    let started = Instant::now();
    shop.exits(0, &["run"]);
    let whole_run = started.elapsed();

    let clean = Scratch::new(PIPELINE);
    let states: Vec<String> = (0..16)
        .map(|day| {
            write_day(&clean, day);
            clean.exits(0, &["run"]);
            contents(&clean)
        })
        .collect();
    assert_eq!(states[15], undisturbed(16), "sixteen runs hold what one does");
    let mut at_least = 0;
    for day in 1..16_u32 {
        write_day(&shop, day);
        let mut run = shop.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(random.random_range(Duration::ZERO..whole_run.mul_f64(1.2)));
        run.kill().unwrap();
        run.wait().unwrap();
        let seen = contents(&shop);
        let state = states.iter().position(|s| *s == seen);
        let state = state.unwrap_or_else(|| panic!("seed {seed}, day {day}: a mix of commits:\n{seen}"));
        assert!((at_least..=day as usize).contains(&state), "seed {seed}, day {day}: went from {at_least} to {state}");
        at_least = state;
    }
    shop.exits(0, &["run"]);
    assert_eq!(contents(&shop), states[15], "seed {seed}");
    shop.write("data/99.csv", "id,city,amount\n9999,end,1.00\n");
    shop.exits(0, &["run"]);
    assert_eq!(orphans(&shop), [""; 0], "seed {seed}");
}
