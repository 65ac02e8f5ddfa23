//! Tables that are kept up by changes of files hold what a warehouse made afresh holds, after every run of a long random series.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::process::Bounded;
use crate::python;
use crate::scratch::Scratch;

const SALES: &str = "
pipeline: sales
sources:
  orders:
    connector: files
    path: data/orders/*.csv
    format: csv
    settle: 0s
    columns:
      id: { type: bigint, nullable: false }
      customer: bigint
      city: text
      amount: \"decimal(12, 2)\"
      at: timestamp
    event_time: at
  customers:
    connector: files
    path: data/customers/*.parquet
    format: parquet
    archive: ARCHIVE
    settle: 0s
    columns: { id: bigint, name: text }
models:
  kept:
    sql: select id, customer, city, amount, at from orders where amount > 5
    key: [id]
    partition_by: [city]
    checks: [ { name: affordable, check: amount < 90, on_fail: quarantine } ]
  both:
    sql: |
      select city, amount from orders where amount < LIMIT
      union all select city, amount from orders where amount >= 30
  per_city:
    sql: |
      select coalesce(city, '?') as city, count(*) as n, sum(amount) as revenue, min(amount) as low, max(amount) as high
      from orders group by 1
    key: [city]
    checks: [ n > 0, { name: modest, check: revenue < MODEST, on_fail: warn } ]
  buyers:
    sql: select city, count(distinct customer) as buyers from orders group by city
  by_customer:
    sql: |
      select c.id, c.name, count(o.id) as orders, coalesce(sum(o.amount), 0) as spent
      from customers c left join orders o on o.customer = c.id group by c.id, c.name
    key: [id]
  top:
    sql: |
      select city, id, amount, rank from
        (select city, id, amount, row_number() over (partition by city order by amount desc, id) as rank
         from orders where city is not null)
      where rank <= 3
    key: [city, rank]
  visits:
    sql: |
      select customer, window_start, count(*) as n, sum(amount) as spent from orders
      group by customer, session(at, interval '30 minutes')
  capped:
    sql: select id, amount from orders
    checks: [ { name: cap, check: amount < 1000 }, { unique: [id] } ]
";

const REPORTS: &str = "
pipeline: reports
models:
  tiers:
    sql: |
      select case when spent > 150 then 'gold' else 'none' end as tier, count(*) as customers, sum(spent) as spent
      from by_customer group by 1
    key: [tier]
  listing:
    sql: select city, customer from kept
    partition_by: [city]
  strict:
    sql: select count(*) as n, sum(amount) as amount from capped
";

/// Each model's key columns (none: whole rows) and the others.
pub(crate) const TABLES: [(&str, &[&str], &[&str]); 12] = [
    ("kept", &["id"], &["customer", "city", "amount", "at"]),
    ("both", &[], &["city", "amount"]),
    ("per_city", &["city"], &["n", "revenue", "low", "high"]),
    ("buyers", &[], &["city", "buyers"]),
    ("by_customer", &["id"], &["name", "orders", "spent"]),
    ("top", &["city", "rank"], &["id", "amount"]),
    ("visits", &[], &["customer", "window_start", "n", "spent"]),
    ("capped", &[], &["id", "amount"]),
    ("tiers", &["tier"], &["customers", "spent"]),
    ("listing", &[], &["city", "customer"]),
    ("strict", &[], &["n", "amount"]),
    ("kept_quarantine", &[], &["id", "customer", "city", "amount", "at", "_rule", "_reason"]),
];

/// Rows of a table: key and the rest, as text, in order.
pub(crate) type Rows = Vec<(String, String)>;

/// The project with its files, and what is drawn next.
pub(crate) struct Shop {
    pub(crate) scratch: Scratch,
    pub(crate) random: ChaCha8Rng,
    /// Text of each file of orders that is there.
    there: BTreeMap<String, Vec<String>>,
    /// Text of each that was taken away.
    gone: BTreeMap<String, Vec<String>>,
    customers: BTreeMap<String, Vec<(i64, String)>>,
    next_file: i64,
    limit: u32,
    modest: u32,
    /// Whether the rows of customers are kept.
    archive: bool,
}

const HEADER: &str = "id,customer,city,amount,at";
const BAD: &str = "data/orders/bad.csv";

impl Shop {
    pub(crate) fn new(seed: u64) -> Self {
        let mut shop = Self {
            scratch: Scratch::new(""),
            random: ChaCha8Rng::seed_from_u64(seed),
            there: BTreeMap::new(),
            gone: BTreeMap::new(),
            customers: BTreeMap::new(),
            next_file: 0,
            limit: 40,
            modest: 1_000_000,
            archive: seed.is_multiple_of(2),
        };
        shop.write_yaml();
        (0..10).for_each(|_| shop.add_orders());
        (0..3).for_each(|_| shop.add_customers());
        shop
    }

    fn write_yaml(&self) {
        let sales = SALES.replace("LIMIT", &self.limit.to_string()).replace("MODEST", &self.modest.to_string());
        let sales = sales.replace("ARCHIVE", &self.archive.to_string());
        self.scratch.write("pipelines/sales.yaml", sales);
        self.scratch.write("pipelines/reports.yaml", REPORTS);
    }

    /// A line of orders. Instants stand close together, so that sessions come and go.
    fn order(&mut self, id: i64) -> String {
        let random = &mut self.random;
        let customer = match random.random_range(0..12) {
            0 => String::new(),
            _ => random.random_range(0..40).to_string(),
        };
        let city = ["Natal", "Recife", "Olinda", "São Paulo", "a/b=c %", ""].choose(random).unwrap();
        let (cents, minute) = (random.random_range(0..10_000), random.random_range(0..60 * 24));
        format!(
            "{id},{customer},{city},{}.{:02},2020-01-01 {:02}:{:02}:00",
            cents / 100,
            cents % 100,
            minute / 60,
            minute % 60
        )
    }

    fn write_orders(&self, name: &str) {
        self.scratch.write(name, format!("{HEADER}\n{}\n", self.there[name].join("\n")));
    }

    pub(crate) fn add_orders(&mut self) {
        let file = self.next_file;
        self.next_file += 1;
        let name = format!("data/orders/{file:04}.csv");
        let lines = (0..24).map(|row| self.order(file * 1000 + row)).collect();
        self.there.insert(name.clone(), lines);
        self.write_orders(&name);
    }

    fn change_orders(&mut self) {
        let Some(name) = self.there.keys().choose(&mut self.random).cloned() else { return };
        let mut lines = self.there[&name].clone();
        for _ in 0..2 {
            lines.remove(self.random.random_range(0..lines.len()));
        }
        for _ in 0..2 {
            let at = self.random.random_range(0..lines.len());
            let id = lines[at].split(',').next().unwrap().parse().unwrap();
            lines[at] = self.order(id);
        }
        let file: i64 = lines[0].split(',').next().unwrap().parse::<i64>().unwrap() / 1000;
        for _ in 0..2 {
            let id = file * 1000 + self.random.random_range(30..1000);
            if !lines.iter().any(|line| line.starts_with(&format!("{id},"))) {
                let line = self.order(id);
                lines.push(line);
            }
        }
        self.there.insert(name.clone(), lines);
        self.write_orders(&name);
    }

    fn remove_orders(&mut self) {
        if self.there.len() < 6 {
            return;
        }
        let Some(name) = self.there.keys().choose(&mut self.random).cloned() else { return };
        self.scratch.remove(&name);
        let lines = self.there.remove(&name).unwrap();
        self.gone.insert(name, lines);
    }

    fn bring_back_orders(&mut self) {
        let Some(name) = self.gone.keys().choose(&mut self.random).cloned() else { return };
        let lines = self.gone.remove(&name).unwrap();
        self.there.insert(name.clone(), lines);
        self.write_orders(&name);
    }

    fn add_customers(&mut self) {
        let file = i64::try_from(self.customers.len()).unwrap();
        let rows = (0..12).map(|row| (file * 12 + row, format!("name {}", (file * 12 + row) % 7))).collect();
        self.customers.insert(format!("data/customers/{file:02}.parquet"), rows);
        self.write_customers(&format!("data/customers/{file:02}.parquet"));
    }

    fn change_customers(&mut self) {
        let Some(name) = self.customers.keys().choose(&mut self.random).cloned() else { return };
        let rows = self.customers.get_mut(&name).unwrap();
        let at = self.random.random_range(0..rows.len());
        rows[at].1 = format!("renamed {}", self.random.random_range(0..1000));
        self.write_customers(&name);
    }

    fn write_customers(&self, name: &str) {
        let (ids, names): (Vec<i64>, Vec<&str>) =
            self.customers[name].iter().map(|(id, name)| (*id, name.as_str())).unzip();
        let batch = RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from(ids)) as _),
            ("name", Arc::new(StringArray::from(names)) as _),
        ])
        .unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        self.scratch.write(name, bytes);
    }

    /// One random change of what is there; says which.
    pub(crate) fn change_files(&mut self) -> &'static str {
        match self.random.random_range(0..9) {
            0..2 => {
                self.add_orders();
                "add"
            }
            2..5 => {
                self.change_orders();
                "change"
            }
            5 => {
                self.remove_orders();
                "remove"
            }
            6 => {
                self.bring_back_orders();
                "bring back"
            }
            7 => {
                self.change_customers();
                "change customers"
            }
            _ => {
                self.add_customers();
                "add customers"
            }
        }
    }

    /// All tables by name. With `overlay`, those of another warehouse; those that aren't there are left out.
    pub(crate) fn dump(&self, tables: &BTreeSet<String>, overlay: Option<&str>) -> BTreeMap<String, Rows> {
        let text = |columns: &[&str]| match columns {
            [] => "''".to_string(),
            columns => {
                let columns = columns.iter().map(|name| format!("coalesce(cast(\"{name}\" as varchar), '∅')"));
                format!("concat_ws('|', {})", columns.collect::<Vec<_>>().join(", "))
            }
        };
        let parts = TABLES.iter().filter(|(name, ..)| tables.contains(*name)).map(|(name, key, rest)| {
            format!("select '{name}' as t, {} as k, {} as r from {name}", text(key), text(rest))
        });
        let sql = parts.collect::<Vec<_>>().join(" union all ");
        if sql.is_empty() {
            return BTreeMap::new();
        }
        let mut args = vec!["query", "--format", "json"];
        args.extend(overlay.iter().flat_map(|overlay| ["--overlay", overlay]));
        args.push(&sql);
        let mut all: BTreeMap<String, Rows> = tables.iter().map(|name| (name.clone(), vec![])).collect();
        for row in self.scratch.exits(0, &args).json() {
            let cell = |name: &str| row[name].as_str().unwrap_or_default().to_string();
            all.get_mut(&cell("t")).unwrap().push((cell("k"), cell("r")));
        }
        all.values_mut().for_each(|rows| rows.sort());
        all
    }

    /// What a warehouse holds that is made afresh of what is there now, and the models that fail there.
    pub(crate) fn fresh(&self) -> BTreeMap<String, Rows> {
        self.scratch.write("fresh.yaml", "warehouse: ./fresh\n");
        let _ = fs::remove_dir_all(self.scratch.path("fresh"));
        let run = self.scratch.tidemill(&["run", "--format", "json", "--overlay", "fresh.yaml"]);
        assert!(run.code <= 1, "{}", run.err);
        let done = run.json().into_iter().filter(|model| model["status"] == "ok");
        let mut tables: BTreeSet<String> = done.map(|model| model["model"].as_str().unwrap().to_string()).collect();
        tables.insert("kept_quarantine".into());
        self.dump(&tables, Some("fresh.yaml"))
    }

    /// `verify` finds no difference; returns models that it skipped, with the reason.
    #[track_caller]
    pub(crate) fn verify(&self, what: &str) -> BTreeMap<String, String> {
        let seen = self.scratch.tidemill(&["verify", "--format", "json"]);
        assert_eq!(seen.code, 0, "{what}: verify: {}{}", seen.out, seen.err);
        let skipped = seen.json().into_iter().filter(|verdict| verdict["status"] == "skipped");
        let text = |value: &Value| value.as_str().unwrap().to_string();
        skipped.map(|verdict| (text(&verdict["model"]), text(&verdict["reason"]))).collect()
    }
}

/// Rows that only come, that change under the same key, and that only go.
fn difference(before: &Rows, after: &Rows, is_keyed: bool) -> (u64, u64, u64) {
    let mut weights: BTreeMap<&(String, String), i64> = BTreeMap::new();
    before.iter().for_each(|row| *weights.entry(row).or_default() -= 1);
    after.iter().for_each(|row| *weights.entry(row).or_default() += 1);
    let count = |sign: i64| weights.values().filter(|w| w.signum() == sign).map(|w| w.unsigned_abs()).sum::<u64>();
    let (added, removed) = (count(1), count(-1));
    if !is_keyed {
        return (added, 0, removed);
    }
    let keys = |sign: i64| {
        let rows = weights.iter().filter(move |(_, w)| w.signum() == sign);
        rows.map(|(row, _)| row.0.as_str()).collect::<BTreeSet<_>>()
    };
    let updated = keys(1).intersection(&keys(-1)).count() as u64;
    (added - updated, updated, removed - updated)
}

/// Why a model may be made anew although it was there before.
fn may_rebuild(model: &str, reason: &str, is_redefined: bool, is_kept: bool) -> bool {
    match reason {
        "most of its input changed" => true,
        "its SQL, parameters, key or checks changed" => is_redefined,
        "its SQL, parameters, key or checks changed; its states stay" => is_redefined,
        // What was read in place can't be subtracted once it was replaced.
        "rows of customers that went can't be read any more; `archive: true` keeps them" => {
            model == "by_customer" && !is_kept
        }
        "rows that a rule had refused changed" => model == "kept",
        _ => false,
    }
}

struct Series {
    shop: Shop,
    seed: u64,
    /// Tables as the last run left them.
    now: BTreeMap<String, Rows>,
    incremental: BTreeMap<String, u32>,
    reasons: BTreeMap<String, u32>,
    is_bad: bool,
    redefined: BTreeSet<&'static str>,
}

impl Series {
    fn begin(seed: u64) -> Self {
        let shop = Shop::new(seed);
        let (now, incremental, reasons, redefined) = Default::default();
        let mut series = Self { shop, seed, now, incremental, reasons, is_bad: false, redefined };
        series.run("first", &[]);
        series
    }

    fn step(&mut self, step: u32) {
        let mut what = vec![self.shop.change_files()];
        if self.shop.random.random_bool(0.4) {
            what.push(self.shop.change_files());
        }
        match step {
            2 => {
                self.shop.scratch.write(BAD, format!("{HEADER}\n999999,1,Natal,5000.00,2020-01-01 00:00:00\n"));
                (self.is_bad, what) = (true, [what, vec!["fail a check"]].concat());
            }
            4 => {
                self.shop.scratch.remove(BAD);
                (self.is_bad, what) = (false, [what, vec!["recover"]].concat());
            }
            5 => {
                self.shop.limit += 1;
                self.redefined.insert("both");
                what.push("other SQL");
            }
            6 => {
                self.shop.modest = 200;
                self.redefined.insert("per_city");
                what.push("other check");
            }
            _ => {}
        }
        self.shop.write_yaml();
        let selections: [&[&str]; 4] =
            [&["-s", "+listing"], &["-s", "+tiers"], &["-s", "top", "visits"], &["-s", "+strict", "both"]];
        let chosen = (step != 7 && self.shop.random.random_bool(0.5)).then(|| {
            let at = self.shop.random.random_range(0..selections.len());
            selections[at]
        });
        self.run(&format!("seed {}, run {step}: {}, {chosen:?}", self.seed, what.join(", ")), chosen.unwrap_or(&[]));
    }

    fn run(&mut self, what: &str, selected: &[&str]) {
        let args = [&["run", "--format", "json"], selected].concat();
        let seen = self.shop.scratch.tidemill(&args);
        let outcomes = seen.json();
        let is_failing = self.is_bad && outcomes.iter().any(|outcome| outcome["model"] == "capped");
        assert_eq!(seen.code, i32::from(is_failing), "{what}: {}{}", seen.out, seen.err);
        let skipped = self.shop.verify(what);
        let fresh = self.shop.fresh();
        let tables: BTreeSet<String> = TABLES.iter().map(|(name, ..)| (*name).to_string()).collect();
        let now = self.shop.dump(&tables, None);
        for outcome in &outcomes {
            let model = outcome["model"].as_str().unwrap();
            let status = outcome["status"].as_str().unwrap();
            if matches!(status, "failed" | "skipped") {
                assert!(is_failing && ["capped", "strict"].contains(&model), "{what}: {outcome}");
                continue;
            }
            assert!(!skipped.contains_key(model), "{what}: {model} wasn't verified: {}", skipped[model]);
            assert_eq!(now[model], fresh[model], "{what}: {model} isn't what a fresh warehouse has: {outcome}");
            let key = TABLES.iter().find(|(name, ..)| *name == model).unwrap().1;
            let before = self.now.get(model).cloned().unwrap_or_default();
            let counts = ["inserted", "updated", "deleted"].map(|count| outcome[count].as_u64().unwrap());
            let (inserted, updated, deleted) = difference(&before, &now[model], !key.is_empty());
            assert_eq!(counts, [inserted, updated, deleted], "{what}: {outcome}");
            self.went_on(what, outcome);
            if model == "kept" {
                assert_eq!(now["kept_quarantine"], fresh["kept_quarantine"], "{what}");
            }
        }
        // What wasn't worked on, or failed, stays as it was.
        let worked: BTreeSet<&str> = outcomes
            .iter()
            .filter(|outcome| matches!(outcome["status"].as_str(), Some("ok" | "nothing")))
            .map(|outcome| outcome["model"].as_str().unwrap())
            .collect();
        for (model, before) in &self.now {
            let owner = model.trim_end_matches("_quarantine");
            assert!(worked.contains(owner) || *before == now[model], "{what}: {model} changed");
        }
        self.now = now;
    }

    /// A model that was there goes on by changes, unless there is a reason.
    fn went_on(&mut self, what: &str, outcome: &Value) {
        let model = outcome["model"].as_str().unwrap();
        match outcome["strategy"].as_str().unwrap() {
            "incremental" => *self.incremental.entry(model.into()).or_default() += 1,
            "rebuilt" if self.now.is_empty() => {}
            "rebuilt" => {
                let reason = outcome["reason"].as_str().unwrap();
                assert!(
                    may_rebuild(model, reason, self.redefined.contains(model), self.shop.archive),
                    "{what}: {outcome}"
                );
                *self.reasons.entry(format!("{model}: {reason}")).or_default() += 1;
            }
            "none" => assert_eq!(outcome["status"], "nothing", "{what}: {outcome}"),
            other => panic!("{what}: {model} was {other}: {outcome}"),
        }
    }

    /// Other engines read the same from the Delta tables.
    fn read_by_others(&self) {
        let models: Vec<&str> = TABLES.iter().map(|(name, ..)| *name).collect();
        for model in &models {
            let sql = format!("select * from {model}");
            self.shop.scratch.exits(0, &["query", &sql, "-o", &format!("{model}.parquet")]);
        }
        let script = "
import sys, pyarrow.parquet as pq
from deltalake import DeltaTable
for model in sys.argv[1:]:
    ours = pq.read_table(model + '.parquet')
    theirs = DeltaTable('warehouse/' + model).to_pyarrow_table().select(ours.column_names)
    one, other = [sorted(map(repr, t.to_pylist())) for t in (ours, theirs)]
    assert one == other, (model, len(one), len(other), [r for r in one if r not in other][:3], [r for r in other if r not in one][:3])
";
        let output = python::code(script).current_dir(self.shop.scratch.root()).args(&models).finish();
        assert!(output.status.success(), "seed {}: {}", self.seed, String::from_utf8_lossy(&output.stderr));
    }
}

fn series(seed: u64) {
    println!("seed {seed}; again with FILES_PARITY_FIRST={seed} FILES_PARITY_SEEDS=1");
    let mut series = Series::begin(seed);
    (1..8).for_each(|step| series.step(step));
    series.read_by_others();
    println!("incremental runs by model: {:?}", series.incremental);
    println!("rebuilt: {:?}", series.reasons);
    // Cross-checked against doing nothing at all: every model that reads files alone has gone on by changes.
    for model in ["both", "per_city", "buyers", "top", "visits", "capped"] {
        assert!(series.incremental.contains_key(model), "seed {seed}: {model} never went on by a change");
    }
}

#[test]
fn tables_kept_up_over_files_hold_what_fresh_ones_hold() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, seeds) = (number("FILES_PARITY_FIRST").unwrap_or(1), number("FILES_PARITY_SEEDS").unwrap_or(2));
    std::thread::scope(|scope| {
        // Two at a time: each mostly waits for the program.
        let lanes: Vec<_> = (0..2)
            .map(|lane| {
                let seeds = (first..first + seeds).filter(move |seed| seed % 2 == lane);
                scope.spawn(move || seeds.for_each(series))
            })
            .collect();
        lanes.into_iter().for_each(|lane| lane.join().unwrap());
    });
}
