//! A run that dies at any point leaves whole tables; the next one goes on, and nothing tells it from a run that never died.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::process::{Bounded, Process};
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
    // One query, so that a look costs one process.
    shop.rows(
        "select 'kept' as t, cast(id as varchar) as a, city as b, cast(amount as varchar) as c, '' as d, '' as e, '' as f from kept
         union all
         select 'cities', city, cast(orders as varchar), cast(revenue as varchar), '', '', '' from cities
         union all
         select 'total', cast(revenue as varchar), cast(orders as varchar), '', '', '', '' from total
         union all
         select 'kept_quarantine', id, city, amount, _rule, _reason, '' from kept_quarantine
         union all
         select 'orders_quarantine', id, amount, _rule, _reason, _source_file, concat(cast(_source_row as varchar), ' ', _raw)
         from orders_quarantine
         order by 1, 2, 3, 4, 5, 6, 7",
    )
}

/// What a project of `days` holds that was never disturbed.
pub(crate) fn undisturbed(days: u32) -> String {
    let shop = Scratch::new(PIPELINE);
    (0..days).for_each(|day| write_day(&shop, day));
    shop.exits(0, &["run"]);
    contents(&shop)
}

/// Names of the Parquet files under a folder, relative to it, without the checkpoints of a Delta log.
pub(crate) fn parquet_files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.extend((entry.file_name() != "_delta_log").then(|| entry.path()));
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
        let died = shop.command(&["run"]).env("TIDEMILL_FAILPOINT", place).finish();
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
        let died = shop.command(&["run"]).env("TIDEMILL_FAILPOINT", place).finish();
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
        let died = shop.command(&["run"]).env("TIDEMILL_FAILPOINT", place).finish();
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

/// How many kills a test makes that counts them: as many as fit into the suite, or what the environment's KILLS says.
pub(crate) fn kills(usual: u64) -> u64 {
    std::env::var("KILLS").map_or(usual, |kills| kills.parse().expect("KILLS is a number"))
}

/// A seed of its own for each time, or the one that the environment gives.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("TIDEMILL_SEED").map(|seed| seed.parse().expect("TIDEMILL_SEED is a number"));
    let seed = given.unwrap_or_else(|_| u64::from(std::process::id()));
    println!("seed {seed}; again with TIDEMILL_SEED={seed}");
    seed
}

/// Waits for a process until an instant, then kills it; whether it died of that or at a fail point.
pub(crate) fn kill_after(mut run: Process, patience: Duration) -> bool {
    let status = run.wait_until(Instant::now() + patience).unwrap_or_else(|| run.end());
    status.code().is_none()
}

/// Days of one warehouse; then comes another, so that runs stay short however many are killed.
const DAYS: u32 = 24;

#[test]
fn runs_killed_at_any_instant_leave_whole_tables() {
    let (wanted, mut random) = (kills(100), ChaCha8Rng::seed_from_u64(seed()));
    let clean = Scratch::new(PIPELINE);
    let mut states: Vec<String> = Vec::new();
    let (mut killed, mut runs, mut whole_run) = (0, 0, Duration::ZERO);
    while killed < wanted {
        let shop = Scratch::new(PIPELINE);
        let (mut day, mut at_least) = (0, 0);
        while day < DAYS && (killed < wanted || day == 0) {
            write_day(&shop, day);
            if states.len() == day as usize {
                write_day(&clean, day);
                let started = Instant::now();
                clean.exits(0, &["run"]);
                whole_run = started.elapsed();
                states.push(contents(&clean));
            }
            // Until one gets to its end; the first day always does, so that there is something to look at.
            for _ in 0..8 {
                let run = shop.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).start();
                let has_died = kill_after(run, random.random_range(Duration::ZERO..whole_run.mul_f64(1.2)));
                (runs, killed) = (runs + 1, killed + u64::from(has_died));
                if !has_died {
                    break;
                }
            }
            if day == 0 {
                shop.exits(0, &["run"]);
            }
            let seen = contents(&shop);
            let state = states.iter().position(|state| *state == seen);
            let state = state.unwrap_or_else(|| panic!("day {day}: a mix of commits:\n{seen}"));
            assert!((at_least..=day as usize).contains(&state), "day {day}: went from {at_least} to {state}");
            (at_least, day) = (state, day + 1);
        }
        shop.exits(0, &["run"]);
        assert_eq!(contents(&shop), states[day as usize - 1]);
        assert_eq!(contents(&shop), undisturbed(day), "so many runs hold what one does");
        shop.exits(0, &["verify"]);
        // Cleaning comes with a commit.
        shop.write("data/99.csv", "id,city,amount\n9999,end,1.00\n");
        shop.exits(0, &["run"]);
        assert_eq!(orphans(&shop), [""; 0]);
    }
    println!("{runs} runs, {killed} of them killed");
}
