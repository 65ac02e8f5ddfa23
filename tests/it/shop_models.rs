//! The shop's models over generated data, by the real program: what no given row of a unit test can show.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::process::Command;

use chrono::{Days, NaiveDate, NaiveDateTime};
use tidemill::generate::{Format, Options, Summary, shop};

use crate::house::root;
use crate::process::Bounded;
use crate::scratch::{Scratch, Seen};

/// This repository's project over data of its own in `data`. Its files needn't stand still first.
pub struct Shop(pub Scratch);

impl Shop {
    pub fn new() -> Self {
        let scratch = Scratch::new("");
        for folder in ["pipelines", "sql", "overlays"] {
            for file in fs::read_dir(root().join(folder)).unwrap().map(Result::unwrap) {
                let name = format!("{folder}/{}", file.file_name().to_str().unwrap());
                scratch.write(&name, fs::read(file.path()).unwrap());
            }
        }
        scratch.write("tidemill.yaml", fs::read(root().join("tidemill.yaml")).unwrap());
        let young = SOURCES.map(|source| format!("  {source}: {{ settle: 0s }}\n")).concat();
        scratch.write("overlays/young.yaml", format!("sources:\n{young}"));
        Self(scratch)
    }

    fn generate(&self, options: Options) -> Summary {
        shop(&Options { dir: self.0.path("data"), ..options }).unwrap()
    }

    #[track_caller]
    fn exits(&self, code: i32, overlays: &[&str], args: &[&str]) -> Seen {
        let overlays = overlays.iter().flat_map(|overlay| ["--overlay", *overlay]);
        let all: Vec<&str> = overlays.chain(["--overlay", "overlays/young.yaml"]).chain(args.iter().copied()).collect();
        let mut command: Command = self.0.command(&all);
        let seen = self.0.seen(command.env_remove("SHOP_DATA").env_remove("WAREHOUSE").finish());
        assert_eq!(seen.code, code, "{all:?}\nstdout: {}\nstderr: {}", seen.out, seen.err);
        seen
    }

    /// Rows of a query, by their fields. Not for values with commas.
    #[track_caller]
    fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        let out = self.exits(0, &[], &["query", "--format", "csv", sql]).out;
        out.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
    }

    #[track_caller]
    fn count(&self, sql: &str) -> u64 {
        self.rows(sql)[0][0].parse().unwrap()
    }
}

pub const SOURCES: [&str; 9] =
    ["customers", "sellers", "products", "product_categories", "orders", "items", "payments", "reviews", "events"];

fn options(seed: u64) -> Options {
    Options {
        dir: std::path::PathBuf::new(),
        orders: 400,
        events: 4_000,
        seed,
        start: NaiveDate::from_ymd_opt(2018, 3, 1).unwrap(),
        days: 60,
        format: Format::Csv,
        late: 0.0,
        duplicates: 0.0,
        malformed: 0.0,
    }
}

#[test]
fn every_model_runs_over_generated_data_and_malformed_lines_land_in_quarantine() {
    for (format, overlays) in [(Format::Csv, &[] as &[&str]), (Format::Json, &["overlays/json.yaml"])] {
        let shop = Shop::new();
        let faulty = Options { days: 8, format, late: 0.05, duplicates: 0.05, malformed: 0.05, ..options(5) };
        let summary = shop.generate(faulty);
        let run = shop.exits(0, overlays, &["run", "--now", "2018-04-05T12:00:00Z", "--format", "json"]);
        let models = run.json();
        assert!(models.len() >= 15, "{} models", models.len());
        for model in &models {
            assert_eq!(model["status"], "ok", "{format:?}: {model}");
            assert!(model["inserted"].as_u64().unwrap() > 0, "{format:?}: {model}");
            assert_eq!(model["quarantined"], 0, "{format:?}: {model}");
        }
        let mut broken = 0;
        for told in &summary.tables {
            let sql = format!("select count(*) from {}_quarantine", told.table);
            assert_eq!(shop.count(&sql), told.malformed, "{format:?}: {}", told.table);
            broken += told.malformed;
        }
        assert!(broken > 100 && summary.tables.iter().filter(|t| t.malformed > 0).count() == 5, "{:?}", summary.tables);
    }
}

/// Ten products to show beside one, by a recommender.
type Ten<'a> = &'a dyn Fn(&str) -> Vec<String>;

/// Events by session in order of time: what was done with which product.
fn by_session(text: &str) -> BTreeMap<String, Vec<(String, String)>> {
    let mut sessions: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        sessions.entry(fields[8].to_owned()).or_default().push((fields[1].to_owned(), fields[2].to_owned()));
    }
    sessions
}

/// From a product to the one that its session turned to next, and from the first product to those put into the cart later.
fn cases(sessions: &BTreeMap<String, Vec<(String, String)>>) -> [Vec<(String, String)>; 2] {
    let (mut next, mut carted) = (Vec::new(), Vec::new());
    for events in sessions.values() {
        let steps = events.windows(2).filter(|pair| pair[0].1 != pair[1].1);
        next.extend(steps.map(|pair| (pair[0].1.clone(), pair[1].1.clone())));
        let first = &events[0].1;
        let later = events.iter().filter(|(kind, product)| kind == "cart" && product != first);
        carted.extend(later.map(|(_, product)| (first.clone(), product.clone())));
    }
    [next, carted]
}

fn hit_rate(cases: &[(String, String)], ten: Ten) -> f64 {
    let hits = cases.iter().filter(|(from, to)| ten(from).contains(to)).count();
    hits as f64 / cases.len() as f64
}

#[test]
fn recommendations_hit_more_of_a_held_out_day_than_the_most_popular_products() {
    for seed in [11, 12] {
        let shop = Shop::new();
        let days = 20;
        shop.generate(Options { orders: 20, events: 80_000, days, ..options(seed) });
        let last = options(seed).start.checked_add_days(Days::new(u64::from(days) - 1)).unwrap();
        let held_out_file = format!("data/events/{last}.csv");
        let held_out = fs::read_to_string(shop.0.path(&held_out_file)).unwrap();
        shop.0.remove(&held_out_file);
        shop.exits(0, &[], &["run", "recommendations"]);

        let mut recommended: HashMap<String, Vec<String>> = HashMap::new();
        for row in shop.rows("select product_id, rank, recommended_id from recommendations order by product_id, rank") {
            let ten = recommended.entry(row[0].clone()).or_default();
            assert_eq!(row[1], (ten.len() + 1).to_string(), "ranks have no gaps");
            ten.push(row[2].clone());
        }
        let mut known: HashSet<String> = HashSet::new();
        let mut seen_by: HashMap<String, u64> = HashMap::new();
        for file in fs::read_dir(shop.0.path("data/events")).unwrap().map(Result::unwrap) {
            for (session, events) in by_session(&fs::read_to_string(file.path()).unwrap()) {
                known.insert(session);
                let products: HashSet<String> = events.into_iter().map(|(_, product)| product).collect();
                products.into_iter().for_each(|product| *seen_by.entry(product).or_default() += 1);
            }
        }
        let mut popular: Vec<(String, u64)> = seen_by.into_iter().collect();
        popular.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let ours = |from: &str| recommended.get(from).cloned().unwrap_or_default();
        let theirs = |from: &str| {
            let others = popular.iter().map(|(product, _)| product).filter(|product| *product != from);
            others.take(10).cloned().collect()
        };
        let mut sessions = by_session(&held_out);
        sessions.retain(|session, _| !known.contains(session));
        for (what, cases) in ["next product", "product put into the cart later"].iter().zip(cases(&sessions)) {
            assert!(cases.len() > 100, "{what}: {} cases", cases.len());
            let (ours, popular) = (hit_rate(&cases, &ours), hit_rate(&cases, &theirs));
            println!(
                "seed {seed}, {what}, {} cases: hit rate at 10 {ours:.3} against {popular:.3} by popularity",
                cases.len()
            );
            assert!(ours > popular, "{what}, seed {seed}: {ours} against {popular}");
        }
        if seed == 11 {
            let none = ["--param", "recommendation_session_products=1", "show", "recommendations", "--format", "csv"];
            assert_eq!(shop.exits(0, &[], &none).out.lines().count(), 1, "longer sessions are left out");
        }
    }
}

/// Orders with their points and when they come, worked out from the files, `awarded` by a wall clock.
fn rewards(shop: &Shop, wall: NaiveDateTime) -> BTreeMap<String, (String, String, String)> {
    let read = |table: &str| -> Vec<Vec<String>> {
        let files = fs::read_dir(shop.0.path(&format!("data/{table}"))).unwrap().map(Result::unwrap);
        let texts = files.map(|file| fs::read_to_string(file.path()).unwrap());
        texts.flat_map(|t| t.lines().skip(1).map(fields).collect::<Vec<_>>()).collect()
    };
    let people: HashMap<String, String> = read("customers").into_iter().map(|c| (c[0].clone(), c[1].clone())).collect();
    let mut cents: HashMap<String, u64> = HashMap::new();
    for item in read("items") {
        *cents.entry(item[0].clone()).or_default() += item[5].replace('.', "").parse::<u64>().unwrap();
    }
    let mut rewards = BTreeMap::new();
    for order in read("orders") {
        if order[2] != "delivered" || order[6].is_empty() {
            continue;
        }
        let delivered = NaiveDateTime::parse_from_str(&order[6], "%Y-%m-%d %H:%M:%S").unwrap();
        let awarded = delivered.checked_add_days(Days::new(11)).unwrap();
        if awarded <= wall {
            let points = cents.get(&order[0]).copied().unwrap_or(0) / 100;
            let person = people.get(&order[1]).cloned().unwrap_or_default();
            let awarded = awarded.format("%Y-%m-%dT%H:%M:%S").to_string();
            rewards.insert(order[0].clone(), (person, points.to_string(), awarded));
        }
    }
    rewards
}

fn fields(line: &str) -> Vec<String> {
    line.split(',').map(str::to_owned).collect()
}

/// Changes a line of the day's file in which it stands.
fn change(shop: &Shop, table: &str, line: &str, with: &str) {
    let files = fs::read_dir(shop.0.path(&format!("data/{table}"))).unwrap().map(Result::unwrap);
    for path in files.map(|file| file.path()) {
        let text = fs::read_to_string(&path).unwrap();
        if text.contains(line) {
            return fs::write(&path, text.replacen(line, with, 1)).unwrap();
        }
    }
    panic!("no such line in {table}: {line}");
}

#[test]
fn reward_points_are_given_once_and_none_is_missed_whenever_runs_come() {
    let shop = Shop::new();
    shop.generate(options(21));
    // The shop is three hours behind UTC in April and May.
    let wall =
        |text: &str| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%SZ").unwrap() - chrono::TimeDelta::hours(3);
    let run = |now: &str| {
        let seen = shop.exits(0, &[], &["run", "reward_points", "--now", now, "--format", "json"]).json();
        ["inserted", "updated", "deleted"].map(|key| seen[0][key].as_u64().unwrap_or(0))
    };
    let given = || {
        let rows = shop.rows("select order_id, customer_unique_id, points, awarded_at from reward_points");
        let count = rows.len();
        let by_order: BTreeMap<_, _> =
            rows.into_iter().map(|r| (r[0].clone(), (r[1].clone(), r[2].clone(), r[3].clone()))).collect();
        assert_eq!(by_order.len(), count, "an order has points twice");
        by_order
    };
    let (early, late) = ("2018-04-10T12:00:00Z", "2018-04-28T12:00:00Z");

    let first = rewards(&shop, wall(early));
    assert!(first.len() > 50, "{}", first.len());
    assert_eq!(run(early), [first.len() as u64, 0, 0]);
    assert_eq!(given(), first);
    assert_eq!(run(early), [0, 0, 0]);

    let second = rewards(&shop, wall(late));
    assert!(second.len() > first.len() + 50, "{}", second.len());
    assert_eq!(run(late), [(second.len() - first.len()) as u64, 0, 0], "those due since, and no other");
    assert_eq!(given(), second);

    // A given order's delivery is corrected by an hour, another given order is canceled, and one that was on its way turns
    // out to have come so long ago that the first run would have given its points.
    let lines: Vec<String> = fs::read_dir(shop.0.path("data/orders"))
        .unwrap()
        .flat_map(|file| {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let mut old: Vec<&String> = lines.iter().filter(|line| first.contains_key(&fields(line)[0])).collect();
    old.sort();
    let moved = fields(old[0]);
    let delivered = NaiveDateTime::parse_from_str(&moved[6], "%Y-%m-%d %H:%M:%S").unwrap();
    let corrected = (delivered - chrono::TimeDelta::hours(1)).format("%Y-%m-%d %H:%M:%S").to_string();
    change(&shop, "orders", old[0], &old[0].replace(&moved[6], &corrected));
    change(&shop, "orders", old[1], &old[1].replace(",delivered,", ",canceled,"));
    let shipped = lines.iter().find(|line| fields(line)[2] == "shipped").unwrap();
    let mut arrived = fields(shipped);
    arrived[2] = "delivered".to_owned();
    arrived[6] = "2018-03-20 10:00:00".to_owned();
    change(&shop, "orders", shipped, &arrived.join(","));

    let third = rewards(&shop, wall(late));
    assert_eq!((third.len(), third.contains_key(&arrived[0])), (second.len(), true));
    assert_eq!(run(late), [1, 1, 1]);
    assert_eq!(given(), third);
    assert_eq!(run(late), [0, 0, 0]);
}
