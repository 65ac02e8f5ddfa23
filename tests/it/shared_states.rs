//! Models that are made of the same aggregate: its state is kept once, whatever becomes of each of them.

use std::collections::BTreeSet;
use std::fs;

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::kill_incremental::unreferenced;
use crate::process::Bounded;
use crate::scratch::Scratch;

const SOURCES: &str = "pipeline: sales\nsources:\n  orders:\n    connector: files\n    path: data/*.csv\n    format: csv
    settle: 0s\n    allow_empty: true\n    columns: { id: bigint, city: text, amount: bigint }
  names:\n    connector: files\n    path: names.csv\n    format: csv\n    settle: 0s\n    columns: { city: text, name: text }
models:\n";

/// Models over the sums of each city. The first fails while a city's sum is above a bound.
const MODELS: [(&str, &str, &str); 4] = [
    (
        "cities",
        "select city, count(*) as orders, sum(amount) as revenue from orders group by city",
        "[ revenue < 500 ]",
    ),
    (
        "named",
        "select name, revenue from (select city, sum(amount) as revenue, count(*) as orders from orders group by city) c
      join names using (city) where orders > 0",
        "[]",
    ),
    (
        "sizes",
        "select orders, count(*) as cities, max(revenue) as most
      from (select city, count(*) as orders, sum(amount) as revenue from orders group by city) c group by orders",
        "[]",
    ),
    (
        "large",
        "select city from (select city, count(*) as orders, sum(amount) as revenue from orders group by city) c
      where revenue > 20 and orders > 1",
        "[]",
    ),
];

fn write_models(shop: &Scratch, names: &BTreeSet<&str>) {
    let models = MODELS.iter().filter(|(name, ..)| names.contains(name));
    let models = models.map(|(name, sql, checks)| format!("  {name}:\n    sql: {sql}\n    checks: {checks}\n"));
    shop.write("pipelines/sales.yaml", SOURCES.to_string() + &models.collect::<String>());
}

fn shop(models: &[&str]) -> Scratch {
    let shop = Scratch::new("");
    write_models(&shop, &models.iter().copied().collect());
    // Enough groups that a change of one is no reason to write all of them anew.
    let villages: String = (100..140).map(|id| format!("{id},Village {id},1\n")).collect();
    shop.write("data/1.csv", format!("id,city,amount\n1,Rome,5\n2,Rome,6\n3,Oslo,7\n{villages}"));
    shop.write("names.csv", "city,name\nRome,Roma\n");
    shop
}

/// Where the files of a model's first state are, and their names.
fn state(shop: &Scratch, model: &str) -> (String, BTreeSet<String>) {
    let commits = fs::read_dir(shop.path("warehouse/_tidemill/sales/commits")).unwrap();
    let newest = commits.map(|entry| entry.unwrap().path()).max().unwrap();
    let record: Value = serde_json::from_slice(&fs::read(newest).unwrap()).unwrap();
    let state = &record["tables"][model]["states"][0];
    let files = [&state["base"], &state["changes"]].into_iter().filter_map(Value::as_array).flatten();
    let files = files.map(|file| file["path"].as_str().unwrap().to_string()).collect();
    (state["home"].as_str().unwrap_or(model).to_string(), files)
}

#[test]
fn a_state_of_two_models_is_kept_once() {
    let shop = shop(&["cities", "named"]);
    shop.exits(0, &["run"]);
    let plan = shop.exits(0, &["plan", "--format", "json"]).out;
    assert!(plan.contains("an aggregate's state: the one that cities has"), "{plan}");
    assert_eq!(state(&shop, "named"), state(&shop, "cities"));
    for (day, city) in (2..).zip(["Oslo", "Bern", "Rome"]) {
        shop.write(&format!("data/{day}.csv"), format!("id,city,amount\n{day},{city},3\n"));
        assert_eq!(shop.statuses(0, &[]), ["cities ok", "named ok"]);
        assert_eq!(state(&shop, "named"), state(&shop, "cities"));
        shop.exits(0, &["verify"]);
    }
    assert!(!shop.path("warehouse/_tidemill/sales/state/named").exists());
    assert!(state(&shop, "cities").1.len() > 1, "or it was written anew each time");
    assert_eq!(shop.rows("select * from named"), "Roma,14\n");
    assert_eq!(unreferenced(&shop, &["sales"]), [""; 0]);

    // The first one fails, and keeps what it was made of; the second goes on, and they meet again.
    shop.write("data/5.csv", "id,city,amount\n5,Rome,1000\n");
    let before = state(&shop, "cities");
    assert_eq!(shop.statuses(1, &[]), ["cities failed", "named ok"]);
    assert_eq!(state(&shop, "cities"), before);
    assert_ne!(state(&shop, "named"), before);
    assert_eq!(shop.rows("select * from named"), "Roma,1014\n");
    shop.write("data/6.csv", "id,city,amount\n6,Rome,-900\n");
    assert_eq!(shop.statuses(0, &[]), ["cities ok", "named ok"]);
    assert_eq!(state(&shop, "named"), state(&shop, "cities"));
    shop.exits(0, &["verify"]);
}

#[test]
fn a_new_model_is_made_of_what_another_has() {
    let shop = shop(&["cities"]);
    shop.exits(0, &["run"]);
    write_models(&shop, &["cities", "sizes"].into());
    let before = state(&shop, "cities");
    assert_eq!(shop.statuses(0, &[]), ["cities nothing", "sizes ok"]);
    assert_eq!((state(&shop, "cities"), state(&shop, "sizes")), (before.clone(), before.clone()));
    assert_eq!(shop.rows("select * from sizes order by orders"), "1,41,7\n2,1,11\n");
    // It doesn't take over what isn't whole any more.
    let path = shop.path(&format!("warehouse/_tidemill/sales/state/cities/{}", before.1.first().unwrap()));
    fs::remove_file(path).unwrap();
    write_models(&shop, &["cities", "sizes", "large"].into());
    assert_eq!(shop.statuses(0, &[]), ["cities nothing", "sizes nothing", "large ok"]);
    assert_eq!(state(&shop, "large").0, "large");
    shop.write("data/2.csv", "id,city,amount\n4,Oslo,30\n");
    shop.exits(0, &["run"]);
    shop.exits(0, &["verify"]);
    shop.write("data/3.csv", "id,city,amount\n5,Oslo,30\n");
    shop.exits(0, &["run"]);
    assert_eq!([state(&shop, "sizes"), state(&shop, "large")], [state(&shop, "cities"), state(&shop, "cities")]);
    // Who made it first goes; the others stay with it.
    write_models(&shop, &["sizes", "large"].into());
    shop.write("data/4.csv", "id,city,amount\n6,Bern,30\n");
    shop.exits(0, &["run"]);
    shop.exits(0, &["run", "--full-refresh"]);
    shop.exits(0, &["verify"]);
    assert_eq!(unreferenced(&shop, &["sales"]), [""; 0]);
}

#[test]
fn models_of_one_state_go_their_ways() {
    for seed in 0..2 {
        println!("seed {seed}");
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let all: BTreeSet<&str> = MODELS.iter().map(|(name, ..)| *name).collect();
        let shop = shop(&["cities", "named"]);
        let mut shared = 0;
        for round in 0..15 {
            let city = ["Rome", "Oslo", "Bern", "Bonn"].choose(&mut random).unwrap();
            let amount = if random.random_bool(0.1) { 600 } else { random.random_range(-20..20) };
            match random.random_range(0..10) {
                0..5 => shop
                    .write(&format!("data/x{}.csv", round % 6), format!("id,city,amount\n{round},{city},{amount}\n")),
                5 => {
                    // One that isn't there is no change.
                    let _ = fs::remove_file(shop.path(&format!("data/x{}.csv", random.random_range(0..6))));
                }
                6 => shop.write("names.csv", format!("city,name\n{city},{round}\nRome,Roma\n")),
                _ => write_models(
                    &shop,
                    &all.iter().copied().filter(|_| random.random_bool(0.7)).chain(["sizes"]).collect(),
                ),
            }
            let names: Vec<&str> = all
                .iter()
                .copied()
                .filter(|name| {
                    fs::read_to_string(shop.path("pipelines/sales.yaml"))
                        .unwrap()
                        .contains(&format!("  {name}:\n    sql"))
                })
                .collect();
            let mut args = vec!["run"];
            match random.random_range(0..12) {
                0 => args.push("--full-refresh"),
                1..5 => args.extend(["-s", *names.choose(&mut random).unwrap()]),
                _ => {}
            }
            if random.random_bool(0.2) {
                let place = ["mid_state", "mid_compact", "mid_table", "before_record", "after_record", "mid_clean"];
                shop.command(&args).env("TIDEMILL_FAILPOINT", place.choose(&mut random).unwrap()).finish();
            }
            let ran = shop.command(&args).finish();
            assert!(matches!(ran.status.code(), Some(0 | 1)), "{round}: {args:?}");
            shop.exits(0, &["verify"]);
            let states: Vec<_> = names.iter().filter(|name| shop.path(&format!("warehouse/{name}")).is_dir()).collect();
            shared += states.iter().filter(|name| state(&shop, name).0 != ***name).count();
        }
        assert!(shared > 5, "or this shows nothing: {shared}");
        // Cleaning comes with a commit.
        shop.write("data/last.csv", "id,city,amount\n1,Oslo,1\n");
        shop.command(&["run"]).finish();
        assert_eq!(unreferenced(&shop, &["sales"]), [""; 0]);
    }
}
