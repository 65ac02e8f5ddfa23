//! Kills of runs that go on from changes: tables, states and what was promised to people stay whole through hundreds of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::files_parity::{Shop, TABLES};
use crate::house::root;
use crate::kill::{kill_after, kills, named_files, parquet_files, seed};
use crate::process::{Bounded, PATIENCE};
use crate::python;
use crate::scratch::Scratch;

/// Every named place that a run passes, most of them several times.
const PLACES: [&str; 9] = [
    "mid_file",
    "mid_state",
    "mid_compact",
    "mid_table",
    "after_stage",
    "before_record",
    "after_record",
    "before_delta",
    "mid_clean",
];

/// Parquet files of tables and states that neither the newest records nor Delta logs name, and named ones that aren't there.
pub(crate) fn unreferenced(shop: &Scratch, pipelines: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for pipeline in pipelines {
        let folder = shop.path(&format!("warehouse/_tidemill/{pipeline}/commits"));
        let newest = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
        let record: Value = serde_json::from_slice(&fs::read(newest).unwrap()).unwrap();
        let mut states: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (table, entry) in record["tables"].as_object().unwrap() {
            states.entry(table).or_default();
            for state in entry["states"].as_array().into_iter().flatten() {
                let files = [&state["base"], &state["changes"]].into_iter().filter_map(Value::as_array).flatten();
                let home = state["home"].as_str().unwrap_or(table);
                states.entry(home).or_default().extend(files.map(|file| file["path"].as_str().unwrap().to_string()));
            }
            let folder = format!("warehouse/{table}");
            let there = shop.path(&folder);
            let named = named_files(&there);
            // Files that a log took out stay for readers, so that only those without any mention count.
            let there = parquet_files(&there);
            found.extend(there.difference(&named).map(|file| format!("{folder}/{file}")));
        }
        for (home, named) in states {
            let folder = format!("warehouse/_tidemill/{pipeline}/state/{home}");
            found.extend(beside(&shop.path(&folder), &named).into_iter().map(|file| format!("{folder}/{file}")));
        }
    }
    found
}

fn beside(folder: &Path, named: &BTreeSet<String>) -> Vec<String> {
    let there = if folder.is_dir() { parquet_files(folder) } else { BTreeSet::new() };
    there.symmetric_difference(named).cloned().collect()
}

/// Asserts that a run to the end leaves what a warehouse has that nothing ever happened to.
fn assert_whole(shop: &mut Shop, what: &str) {
    shop.scratch.exits(0, &["run"]);
    // Cleaning comes with a commit.
    shop.add_orders();
    shop.scratch.exits(0, &["run"]);
    assert_eq!(shop.verify(what), BTreeMap::new(), "{what}");
    let tables: BTreeSet<String> = TABLES.iter().map(|(name, ..)| (*name).to_string()).collect();
    let (now, fresh) = (shop.dump(&tables, None), shop.fresh());
    for (table, rows) in &fresh {
        assert_eq!(now[table], *rows, "{what}: {table}");
    }
    assert_eq!(unreferenced(&shop.scratch, &["sales", "reports"]), [""; 0], "{what}");
}

#[test]
fn incremental_runs_killed_anywhere_leave_whole_tables() {
    let kills = kills(100);
    let mut shop = Shop::new(seed());
    let started = Instant::now();
    shop.scratch.exits(0, &["run"]);
    let whole_run = started.elapsed();
    let mut killed: BTreeMap<&str, u64> = BTreeMap::new();
    let mut runs = 0;
    while killed.values().sum::<u64>() < kills {
        let what = format!("after {runs} runs, killed {killed:?}");
        for _ in 0..shop.random.random_range(1..3) {
            shop.change_files();
        }
        let mut command = shop.scratch.command(&["run"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let (place, patience) = match shop.random.random_bool(0.5) {
            true => {
                let place = *PLACES.choose(&mut shop.random).unwrap();
                // Some are passed once a pipeline, others once a file or a table.
                let often = if place.ends_with("record") || place == "after_stage" { 2 } else { 6 };
                command.env("TIDEMILL_FAILPOINT", format!("{place}:{}", shop.random.random_range(1..=often)));
                (place, PATIENCE)
            }
            false => ("any instant", shop.random.random_range(Duration::ZERO..whole_run)),
        };
        let has_died = kill_after(command.start(), patience);
        *killed.entry(place).or_default() += u64::from(has_died);
        runs += 1;
        if runs % 40 == 0 {
            assert_whole(&mut shop, &what);
        }
    }
    assert_whole(&mut shop, "at the end");
    println!("{runs} runs, killed {} times: {killed:?}", killed.values().sum::<u64>());
    assert!(killed.len() > 3, "the places are passed, or this test shows little: {killed:?}");
}

const REWARDS: &str = "
pipeline: sales
sources:
  orders:
    connector: files
    path: data/orders/*.csv
    format: csv
    settle: 0s
    columns: { order_id: text, customer_id: text, order_status: text, order_delivered_customer_date: timestamp }
  items:
    connector: files
    path: data/items/*.csv
    format: csv
    settle: 0s
    columns: { order_id: text, price: \"decimal(12, 2)\" }
  customers:
    connector: files
    path: data/customers/*.csv
    format: csv
    settle: 0s
    columns: { customer_id: text, customer_unique_id: text }
models:
  reward_points:
    key: [order_id]
";

/// Day `day` of a shop: orders that were delivered on it, one that was cancelled, one without a delivery.
fn write_rewards_day(shop: &Scratch, day: u32) {
    let (mut orders, mut items, mut customers) = (
        "order_id,customer_id,order_status,order_delivered_customer_date\n".to_string(),
        "order_id,price\n".to_string(),
        "customer_id,customer_unique_id\n".to_string(),
    );
    for row in 0..10 {
        let id = format!("o{day:02}{row}");
        let status = if row == 8 { "canceled" } else { "delivered" };
        let delivered = if row == 9 { String::new() } else { format!("2020-01-{:02} {:02}:00:00", day + 1, row) };
        orders.push_str(&format!("{id},c{id},{status},{delivered}\n"));
        items.push_str(&format!("{id},{row}.60\n{id},{day}.50\n"));
        customers.push_str(&format!("c{id},person {row}\n"));
    }
    shop.write(&format!("data/orders/{day:02}.csv"), orders);
    shop.write(&format!("data/items/{day:02}.csv"), items);
    shop.write(&format!("data/customers/{day:02}.csv"), customers);
}

/// The rows that are due at noon of a day of January, of orders of the first `days` days.
fn due(days: u32, january: u32) -> Vec<String> {
    let mut due = Vec::new();
    for (day, row) in (0..days).flat_map(|day| (0..8_u32).map(move |row| (day, row))) {
        // Delivered on January day + 1, due eleven days later.
        if (day + 12) * 24 + row <= january * 24 + 12 {
            let points = (row * 100 + 60 + day * 100 + 50) / 100;
            due.push(format!("o{day:02}{row},person {row},{points}"));
        }
    }
    due.sort();
    due
}

#[test]
fn reward_points_are_given_once_and_never_missed_however_often_runs_are_killed() {
    let mut random = ChaCha8Rng::seed_from_u64(seed());
    let shop = Scratch::new(REWARDS);
    shop.write("sql/reward_points.sql", fs::read(root().join("sql/reward_points.sql")).unwrap());
    let given = |shop: &Scratch| -> Vec<String> {
        let rows = shop.rows("select order_id, customer_unique_id, points from reward_points order by order_id");
        rows.lines().map(str::to_string).collect()
    };
    let instant = |january: u32| format!("2020-01-{january:02}T12:00:00Z");
    write_rewards_day(&shop, 0);
    let started = Instant::now();
    shop.exits(0, &["run", "--now", &instant(5)]);
    let whole_run = started.elapsed();
    assert_eq!(given(&shop), [""; 0]);
    let (mut killed, mut seen) = (0, vec![]);
    for january in 6..31 {
        let days = (january - 4).min(18);
        write_rewards_day(&shop, days - 1);
        for _ in 0..2 {
            let mut command = shop.command(&["run", "--now", &instant(january)]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut patience = random.random_range(Duration::ZERO..whole_run);
            if random.random_bool(0.6) {
                command.env("TIDEMILL_FAILPOINT", *PLACES.choose(&mut random).unwrap());
                patience = PATIENCE;
            }
            killed += u32::from(kill_after(command.start(), patience));
            let now = given(&shop);
            assert!(seen.iter().all(|row| now.contains(row)), "points were taken back: {seen:?} {now:?}");
            let all = due(days, january);
            assert!(now.iter().all(|row| all.contains(row)), "points that nobody is due: {now:?}");
            assert!(now.windows(2).all(|pair| pair[0] != pair[1]), "points given twice: {now:?}");
            seen = now;
        }
        if january % 3 == 0 {
            shop.exits(0, &["run", "--now", &instant(january)]);
            assert_eq!(given(&shop), due(days, january), "on January {january}");
            seen = given(&shop);
        }
    }
    shop.exits(0, &["run", "--now", &instant(30)]);
    assert_eq!(given(&shop), due(18, 30));
    println!("killed {killed} times, {} orders were given points", due(18, 30).len());
    assert!(killed > 10, "{killed}");
    assert_rewards_only_grow(&shop);
}

/// Over all versions of the Delta table, read by another engine, an order has points once and for good.
fn assert_rewards_only_grow(shop: &Scratch) {
    let script = "
from deltalake import DeltaTable
newest, before = DeltaTable('warehouse/reward_points').version(), {}
for version in range(newest + 1):
    rows = DeltaTable('warehouse/reward_points', version=version).to_pyarrow_table().to_pylist()
    now = {row['order_id']: row['points'] for row in rows}
    assert len(now) == len(rows), ('twice', version)
    assert all(now.get(order) == points for order, points in before.items()), ('taken back', version)
    before = now
print(newest)
";
    let output = python::code(script).current_dir(shop.root()).finish();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let versions: u32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert!(versions > 3, "{versions}");
}
