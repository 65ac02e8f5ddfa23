//! What `plan` says is what `run` then does: what is rebuilt and why, what can't be read, what is read again.

use std::fs;

use serde_json::Value;

use crate::scratch::Scratch;

/// Orders in text files, prices in Parquet, and a model of each; `more` goes to the sources, `checks` to the model of orders.
fn pipeline(id: &str, more: &str, checks: &str) -> String {
    format!(
        "pipeline: sales\nsources:
  orders: {{ connector: files, path: data/*.csv, format: csv, settle: 0s, columns: {{ id: {id}, city: text, amount: bigint }} }}
  prices: {{ connector: files, path: data/*.parquet, format: parquet, settle: 0s, {more} columns: {{ k: bigint, v: bigint }} }}
models:
  listed: {{ sql: select city from orders where amount > 0 {checks} }}
  cities: {{ sql: \"select city, sum(amount) as n from orders group by city\" }}
  sums: {{ sql: \"select k, sum(v) as n from prices group by k\" }}
"
    )
}

fn shop(pipeline: &str) -> Scratch {
    let shop = Scratch::new(pipeline);
    shop.write("data/1.csv", orders(0..40));
    shop.write("data/2.csv", orders(40..42));
    prices(&shop, "1", 0..40, 1);
    prices(&shop, "2", 40..42, 1);
    shop.exits(0, &["run"]);
    shop
}

fn orders(ids: std::ops::Range<i32>) -> String {
    let rows = ids.map(|id| format!("{id},City {id},{id}\n"));
    "id,city,amount\n".to_owned() + &rows.collect::<String>()
}

fn prices(shop: &Scratch, file: &str, keys: std::ops::Range<i32>, value: i32) {
    let rows: Vec<String> = keys.map(|k| format!("({k}, {value})")).collect();
    let sql = format!("select * from (values {}) t(k, v)", rows.join(", "));
    shop.exits(0, &["query", &sql, "-o", "made.parquet"]);
    shop.write(&format!("data/{file}.parquet"), fs::read(shop.path("made.parquet")).unwrap());
}

/// The line of a model.
#[track_caller]
fn line(lines: &[Value], model: &str) -> Value {
    lines.iter().find(|line| line["model"] == model).unwrap().clone()
}

/// What a plan says is rebuilt of a model, then strategy and reason of the run.
#[track_caller]
fn planned_and_run(shop: &Scratch, model: &str) -> (Option<String>, String, String) {
    let planned = line(&shop.exits(0, &["plan", "--format", "json"]).json(), model);
    let text = shop.exits(0, &["plan"]).out;
    let rebuild = planned["rebuild"].as_str().map(str::to_owned);
    if let Some(rebuild) = &rebuild {
        assert!(text.contains(&format!("  rebuilds {rebuild}\n")), "{text}");
    }
    let outcome = line(&shop.exits(0, &["run", "--format", "json"]).json(), model);
    let of = |key: &str| outcome[key].as_str().unwrap().to_owned();
    (rebuild, of("strategy"), of("reason"))
}

/// The plan must say that all is rebuilt, and why the run then does so.
#[track_caller]
fn is_told(shop: &Scratch, model: &str, why: &str) {
    let (rebuild, strategy, reason) = planned_and_run(shop, model);
    assert_eq!((strategy.as_str(), reason.as_str()), ("rebuilt", why));
    assert_eq!(rebuild, Some(format!("the whole table: {why}")));
}

/// The plan must say nothing of rebuilding, and the run must go on.
#[track_caller]
fn goes_on(shop: &Scratch, model: &str) {
    let (rebuild, strategy, reason) = planned_and_run(shop, model);
    assert_eq!((rebuild, strategy.as_str()), (None, "incremental"), "{reason}");
}

#[test]
fn files_that_were_read_in_place_and_went() {
    let why = "rows of prices that went can't be read any more; `archive: true` keeps them";
    let in_place = shop(&pipeline("bigint", "", ""));
    prices(&in_place, "2", 40..42, 2);
    is_told(&in_place, "sums", why);
    in_place.remove("data/2.parquet");
    is_told(&in_place, "sums", why);
    prices(&in_place, "3", 50..52, 1);
    goes_on(&in_place, "sums");

    let archived = shop(&pipeline("bigint", "archive: true,", ""));
    prices(&archived, "2", 40..42, 2);
    goes_on(&archived, "sums");
}

#[test]
fn most_of_the_input_that_went() {
    let shop = shop(&pipeline("bigint", "", ""));
    shop.write("data/2.csv", orders(40..43));
    goes_on(&shop, "cities");
    // How many rows come isn't known before they are read, so that nothing is said of them.
    shop.write("data/3.csv", orders(50..150));
    let planned = line(&shop.exits(0, &["plan", "--format", "json"]).json(), "cities");
    assert_eq!(planned["rebuild"], Value::Null);
    shop.exits(0, &["run"]);
    shop.remove("data/3.csv");
    is_told(&shop, "cities", "most of its input changed");
}

#[test]
fn rows_that_were_read_under_another_contract() {
    let shop = shop(&pipeline("integer", "", ""));
    shop.write("pipelines/sales.yaml", pipeline("bigint", "", ""));
    // No state hangs on the column, so that only its input keeps it from going on.
    let why = "rows of orders that went can't be read any more";
    is_told(&shop, "cities", why);
    shop.write("data/3.csv", orders(50..52));
    goes_on(&shop, "cities");

    // No definition changes with what becomes of invalid rows, but all are read again.
    let read_again = "its contract or rules changed: its files are read again";
    shop.write(
        "pipelines/sales.yaml",
        pipeline("bigint", "", "").replace("format: csv,", "format: csv, on_invalid: drop,"),
    );
    shop.write("data/4.csv", orders(60..62));
    let plan = shop.exits(0, &["plan"]).out;
    assert!(plan.contains(&format!("source orders: {read_again}, file: 1 new\n")), "{plan}");
    shop.remove("data/4.csv");
    let plan = shop.exits(0, &["plan"]).out;
    assert!(plan.contains(&format!("source orders: {read_again}\nsource prices: unchanged\n")), "{plan}");
    assert!(plan.contains(&format!("model cities: unchanged, incremental: orders: {read_again}\n")), "{plan}");
    is_told(&shop, "cities", why);
    assert!(shop.exits(0, &["plan"]).out.contains("source orders: unchanged\n"));
}

#[test]
fn rows_that_a_rule_had_refused_may_go() {
    let checks = ", checks: [ { check: \"city <> 'City 41'\", on_fail: quarantine } ]";
    let shop = shop(&pipeline("bigint", "", checks));
    let told = "the whole table, if rows went that a rule had refused: listed_quarantine has 1 row";
    // It comes again with the file's next version.
    shop.write("data/2.csv", orders(40..43));
    let (rebuild, strategy, _) = planned_and_run(&shop, "listed");
    assert_eq!((rebuild.as_deref(), strategy.as_str()), (Some(told), "incremental"));
    shop.write("data/2.csv", orders(40..41));
    let (rebuild, strategy, reason) = planned_and_run(&shop, "listed");
    assert_eq!((rebuild.as_deref(), strategy.as_str()), (Some(told), "rebuilt"));
    assert_eq!(reason, "rows that a rule had refused changed");
    // None is left.
    shop.write("data/2.csv", orders(40..44));
    let (rebuild, ..) = planned_and_run(&shop, "listed");
    assert_eq!(rebuild.as_deref(), None);
}

#[test]
fn sources_that_cannot_be_read() {
    let shop = shop(&pipeline("bigint", "", ""));
    shop.write(
        "pipelines/more.yaml",
        "pipeline: more\nmodels:\n  large: { sql: select * from cities where n > 1 }\n  fine: { sql: select * from sums }\n",
    );
    shop.exits(0, &["run"]);
    for file in ["data/1.csv", "data/2.csv"] {
        shop.remove(file);
    }
    let plan = shop.exits(0, &["plan"]).out;
    assert!(plan.contains("source orders: can't be read\n  note: "), "{plan}");
    assert!(plan.contains("no file matches") && plan.contains("source prices: unchanged\n"), "{plan}");
    assert!(plan.contains("model cities: unchanged, skipped: `orders` can't be read\n"), "{plan}");
    assert!(plan.contains("model large: unchanged, skipped: `cities` is skipped\n"), "{plan}");
    let planned = shop.exits(0, &["plan", "--format", "json"]).json();
    let outcomes = shop.exits(3, &["run", "--format", "json"]).json();
    assert_eq!((planned.len(), outcomes.len()), (5, 5));
    for outcome in outcomes {
        let reason = line(&planned, outcome["model"].as_str().unwrap())["reason"].as_str().unwrap().to_owned();
        assert_eq!(reason.starts_with("skipped: "), outcome["status"] == "skipped", "{outcome}: {reason}");
    }
}

#[test]
fn models_over_one_that_was_never_built() {
    let shop = Scratch::new(&pipeline("bigint", "", ""));
    shop.write("data/1.csv", orders(0..3));
    shop.write("pipelines/more.yaml", "pipeline: more\nmodels:\n  large: { sql: select * from cities where n > 1 }\n");
    let planned = line(&shop.exits(0, &["plan", "large", "--format", "json"]).json(), "large");
    let outcome = line(&shop.exits(3, &["run", "large", "--format", "json"]).json(), "large");
    assert_eq!(planned["reason"], format!("skipped: {}", outcome["reason"].as_str().unwrap()));
    let both = shop.exits(0, &["plan", "+large", "--format", "json"]).json();
    assert_eq!(line(&both, "large")["reason"], "no version is published yet");
}

#[test]
fn what_a_check_looks_into_counts() {
    let checks = ", checks: [ { relationships: { column: city, to: names.city }, on_fail: warn } ]";
    let names =
        "  names: { connector: files, path: names.csv, format: csv, settle: 0s, columns: { city: text } }\nmodels:";
    let yaml = pipeline("bigint", "", checks).replace("models:", names);
    let shop = Scratch::new(&yaml);
    shop.write("data/1.csv", orders(0..3));
    prices(&shop, "1", 0..3, 1);
    shop.write("names.csv", "city\nCity 1\nCity 2\n");
    shop.exits(0, &["run"]);
    shop.write("names.csv", "city\nCity 1\n");
    let planned = line(&shop.exits(0, &["plan", "--format", "json"]).json(), "listed");
    assert_eq!(planned["reason"], "names: file: 1 changed");
    let outcome = line(&shop.exits(0, &["run", "--format", "json"]).json(), "listed");
    assert_eq!((&outcome["status"], &outcome["reason"]), (&"ok".into(), &"names changed".into()));
}
