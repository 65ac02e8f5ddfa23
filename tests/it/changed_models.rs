//! Models whose definition changes: what of their states is still valid stays, and tables are right.

use serde_json::Value;

use crate::scratch::Scratch;

fn pipeline(cities: &str) -> String {
    format!(
        "pipeline: sales\nsources:\n  orders:\n    connector: files\n    path: data/*.csv\n    format: csv\n    settle: 0s
    columns: {{ id: bigint, city: text, amount: bigint }}
  names:\n    connector: files\n    path: names.csv\n    format: csv\n    settle: 0s\n    columns: {{ city: text, name: text }}
models:\n  cities:\n    sql: {cities}\n"
    )
}

const FIRST: &str = "select city, count(*) as orders, sum(amount) as revenue from orders group by city";

fn shop() -> Scratch {
    let shop = Scratch::new(&pipeline(FIRST));
    // Enough groups that a change of one is no reason to write all of them anew.
    let villages: String = (100..140).map(|id| format!("{id},Village {id},1\n")).collect();
    shop.write("data/1.csv", format!("id,city,amount\n1,Rome,5\n2,Rome,6\n3,Oslo,7\n{villages}"));
    shop.write("names.csv", "city,name\nRome,Roma\n");
    shop.exits(0, &["run"]);
    shop
}

/// Runs, and checks the table against a batch run; strategy and reason.
#[track_caller]
fn run(shop: &Scratch) -> (String, String) {
    let outcome: Value = shop.exits(0, &["run", "--format", "json"]).json().remove(0);
    assert_eq!(outcome["status"], "ok", "{outcome}");
    let verified = shop.exits(0, &["verify"]).out;
    assert!(!verified.contains("skipped"), "{verified}");
    (outcome["strategy"].as_str().unwrap().into(), outcome["reason"].as_str().unwrap().into())
}

#[test]
fn states_stay_where_only_what_is_made_of_them_changes() {
    let shop = shop();
    let states = || {
        let folder = std::fs::read_dir(shop.path("warehouse/_tidemill/sales/state/cities")).unwrap();
        let mut files: Vec<_> = folder.map(|file| file.unwrap().file_name()).collect();
        files.sort();
        files
    };
    let before = states();
    shop.write(
        "pipelines/sales.yaml",
        pipeline("select upper(city) as city, sum(amount) / count(*) as mean, sum(amount) as revenue from orders group by city having count(*) > 1"),
    );
    let plan = shop.exits(0, &["plan"]).out;
    assert!(plan.contains("the table, of its states: they stay"), "{plan}");
    // New rows at the same time.
    shop.write("data/2.csv", "id,city,amount\n4,Oslo,1\n");
    let (strategy, reason) = run(&shop);
    assert_eq!(strategy, "rebuilt");
    assert_eq!(reason, "its SQL, parameters, key or checks changed; its states stay");
    assert_eq!(shop.rows("select * from cities order by city"), "OSLO,4,8\nROME,5,11\n");
    let after = states();
    assert!(before.iter().all(|file| after.contains(file)), "{before:?} {after:?}: the state was written anew");
    // And goes on from there.
    shop.write("data/3.csv", "id,city,amount\n5,Bonn,1\n6,Bonn,3\n");
    assert_eq!(run(&shop).0, "incremental");
    assert_eq!(shop.rows("select count(*) from cities"), "3\n");

    // A relation that no state reads, and a check.
    shop.write(
        "pipelines/sales.yaml",
        pipeline("select name, revenue from (select city, sum(amount) as revenue, count(*) as n from orders group by city) t join names using (city) where n > 0")
            + "    checks: [ revenue > 0 ]\n",
    );
    assert!(run(&shop).1.ends_with("; its states stay"));
    assert_eq!(shop.rows("select * from cities"), "Roma,11\n");
    shop.write("names.csv", "city,name\nRome,Roma\nOslo,Kristiania\n");
    assert_eq!(run(&shop).0, "incremental");
    assert_eq!(shop.rows("select * from cities order by name"), "Kristiania,8\nRoma,11\n");
}

#[test]
fn states_of_another_aggregate_are_built_anew() {
    let others = [
        "select city, count(*) as orders, sum(amount) as revenue from orders where amount > 5 group by city",
        "select city, count(*) as orders, sum(amount * 2) as revenue from orders group by city",
        "select city, count(*) as orders, max(amount) as revenue from orders group by city",
        "select id % 2 as city, count(*) as orders, sum(amount) as revenue from orders group by 1",
        "select city, count(*) filter (where id in (1, 3)) as orders, sum(amount) as revenue from orders group by city",
    ];
    for other in others {
        let shop = shop();
        shop.write("pipelines/sales.yaml", pipeline(other));
        let plan = shop.exits(0, &["plan"]).out;
        assert!(plan.contains("the whole table: its definition changed"), "{other}: {plan}");
        let (strategy, reason) = run(&shop);
        assert_eq!(
            (strategy.as_str(), reason.as_str()),
            ("rebuilt", "its SQL, parameters, key or checks changed"),
            "{other}"
        );
    }
}

#[test]
fn a_state_stays_where_another_is_built_anew() {
    let shop = shop();
    let model = |most: &str| {
        pipeline(&format!(
            "select c.city, orders, revenue, most from (select city, count(*) as orders, sum(amount) as revenue from orders group by city) c
      join (select city, {most} as most from orders where amount > 1 group by city) m on c.city = m.city"
        ))
    };
    shop.write("pipelines/sales.yaml", model("max(amount)"));
    let plan = shop.exits(0, &["plan"]).out;
    assert!(plan.contains("the table and 1 of 2 states: what the others hold stays"), "{plan}");
    shop.write("data/2.csv", "id,city,amount\n4,Oslo,1\n5,Oslo,9\n");
    assert_eq!(run(&shop).1, "its SQL, parameters, key or checks changed; 1 of its 2 states stay");
    assert_eq!(shop.rows("select * from cities order by city"), "Oslo,3,17,9\nRome,2,11,6\n");
    // The other way round, while a file goes.
    shop.write("pipelines/sales.yaml", model("sum(id)"));
    shop.remove("data/2.csv");
    assert!(run(&shop).1.ends_with("; 1 of its 2 states stay"));
    assert_eq!(shop.rows("select * from cities order by city"), "Oslo,1,7,3\nRome,2,11,3\n");
    shop.write("data/3.csv", "id,city,amount\n6,Rome,7\n");
    assert_eq!(run(&shop).0, "incremental");
    assert_eq!(shop.rows("select * from cities order by city"), "Oslo,1,7,3\nRome,3,18,9\n");
    // Only the first is left, and is the model's own again.
    shop.write("pipelines/sales.yaml", pipeline(FIRST));
    assert!(run(&shop).1.ends_with("; its states stay"));
    assert_eq!(shop.rows("select sum(orders) from cities"), "44\n");
}

#[test]
fn an_aggregate_that_is_named_twice_is_kept_once() {
    let shop = shop();
    shop.write(
        "pipelines/sales.yaml",
        pipeline(
            "with t as (select city, sum(amount) as revenue from orders group by city)
      select a.city, b.revenue - a.revenue as less from t a join t b on a.revenue + 4 = b.revenue",
        ),
    );
    run(&shop);
    assert_eq!(shop.rows("select * from cities order by city"), "Oslo,4\n");
    shop.write("data/2.csv", "id,city,amount\n4,Oslo,4\n5,Bonn,7\n");
    assert_eq!(run(&shop).0, "incremental");
    assert_eq!(shop.rows("select * from cities order by city"), "Bonn,4\nBonn,4\n");
    let commits = std::fs::read_dir(shop.path("warehouse/_tidemill/sales/commits")).unwrap();
    let newest = commits.map(|file| file.unwrap().path()).max().unwrap();
    let record: Value = serde_json::from_slice(&std::fs::read(newest).unwrap()).unwrap();
    assert_eq!(record["tables"]["cities"]["states"].as_array().unwrap().len(), 1);
}

#[test]
fn a_table_that_was_deleted_is_built_anew() {
    let shop = shop();
    shop.write(
        "pipelines/more.yaml",
        "pipeline: more\nmodels:\n  large: { sql: select * from cities where orders > 1 }\n",
    );
    shop.exits(0, &["run"]);
    let rows = shop.rows("select * from cities order by city");
    for model in ["cities", "large"] {
        let folder = shop.path(&format!("warehouse/{model}"));
        std::fs::remove_dir_all(&folder).unwrap();
        let planned = shop.exits(0, &["plan", "--format", "json"]).out;
        assert!(planned.contains("its table was deleted"), "{planned}");
        let outcomes = shop.exits(0, &["run", "--format", "json"]).json();
        let of = |outcome: &&Value| outcome["model"] == model;
        assert_eq!(outcomes.iter().find(of).unwrap()["reason"], "its table was deleted", "{outcomes:?}");
        shop.exits(0, &["verify"]);
        assert_eq!(shop.rows("select * from cities order by city"), rows);
        let as_of = format!("select count(*) from {model} version as of 0");
        assert_eq!(shop.rows(&as_of), if model == "cities" { "42\n" } else { "1\n" });
        assert!(folder.join("_delta_log").is_dir());
        assert!(!shop.exits(0, &["plan"]).out.contains("deleted"));
    }
    // One without rows has no files that could be missed.
    std::fs::remove_dir_all(shop.path("warehouse/cities_quarantine")).unwrap();
    shop.exits(0, &["run"]);
    assert!(shop.path("warehouse/cities_quarantine/_delta_log").is_dir());
}

#[test]
fn a_table_has_its_columns_in_the_order_of_its_sql() {
    let shop = shop();
    let turned = "select sum(amount) as revenue, city, count(*) as orders from orders group by city";
    shop.write("pipelines/sales.yaml", pipeline(turned));
    run(&shop);
    let log = std::fs::read_dir(shop.path("warehouse/cities/_delta_log")).unwrap();
    let mut log: Vec<_> =
        log.map(|entry| entry.unwrap().path()).filter(|path| path.extension().unwrap() == "json").collect();
    log.sort();
    let actions = std::fs::read_to_string(log.last().unwrap()).unwrap();
    let described = actions.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let described =
        described.filter_map(|action| action["metaData"]["schemaString"].as_str().map(str::to_owned)).next();
    let schema: Value = serde_json::from_str(&described.expect("another order is another schema")).unwrap();
    let names: Vec<_> =
        schema["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["revenue", "city", "orders"]);
}
