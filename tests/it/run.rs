//! `tidemill run` and its companions as a user meets them: the real program, folders of files, exit codes and what is printed.

use std::fs;
use std::process::Stdio;

use crate::process::Bounded;
use crate::scratch::{Scratch, filtered};

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
      city: text
      amount: \"decimal(12, 2)\"
models:
  big_orders:
    sql: select id, city, amount from orders where amount >= 10
    key: [id]
  cities:
    sql: select city, count(*) as orders, sum(amount) as revenue from big_orders group by city
    key: [city]
    tags: [report]
  counted:
    sql: select count(*) as orders from orders
";

const MONDAY: &str = "id,city,amount\n1,Recife,10.00\n2,Natal,5.50\n3,Recife,20.25\n";
const TUESDAY: &str = "id,city,amount\n4,Natal,11.00\n";

fn shop() -> Scratch {
    let shop = Scratch::new(SALES);
    shop.write("data/orders/1.csv", MONDAY);
    shop
}

const CITIES: &str = "select * from cities order by city";

#[test]
fn a_first_run_makes_every_table_and_a_second_has_nothing_to_do() {
    let shop = shop();
    let first = shop.exits(0, &["run"]);
    filtered(|| insta::assert_snapshot!("first_run", first.out));
    assert_eq!(shop.rows(CITIES), "Recife,2,30.25\n");
    assert_eq!(shop.rows("select orders from counted"), "3\n");
    let table = |name: &str| shop.path(&format!("warehouse/{name}/_delta_log/00000000000000000000.json")).is_file();
    for name in ["big_orders", "cities", "counted", "big_orders_quarantine", "orders_quarantine"] {
        assert!(table(name), "{name} isn't a Delta table");
    }
    let second = shop.exits(0, &["run"]);
    filtered(|| insta::assert_snapshot!("second_run", second.out));
    assert_eq!(shop.rows(CITIES), "Recife,2,30.25\n");
}

#[test]
fn a_snapshot_source_is_the_files_there_are_now() {
    let shop = shop();
    shop.exits(0, &["run"]);

    shop.write("data/orders/2.csv", TUESDAY);
    let added = shop.exits(0, &["run", "--format", "json"]).json();
    assert_eq!((&added[0]["inserted"], &added[0]["updated"], &added[0]["deleted"]), (&1.into(), &0.into(), &0.into()));
    assert_eq!(shop.rows(CITIES), "Natal,1,11.00\nRecife,2,30.25\n");

    shop.write("data/orders/1.csv", "id,city,amount\n1,Recife,12.00\n9,Belo Horizonte,99.00\n");
    let changed = shop.exits(0, &["run", "--format", "json"]).json();
    assert_eq!(
        (&changed[0]["inserted"], &changed[0]["updated"], &changed[0]["deleted"]),
        (&1.into(), &1.into(), &1.into())
    );
    assert_eq!(shop.rows(CITIES), "Belo Horizonte,1,99.00\nNatal,1,11.00\nRecife,1,12.00\n");

    shop.remove("data/orders/2.csv");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(CITIES), "Belo Horizonte,1,99.00\nRecife,1,12.00\n");

    let path = shop.path("data/orders/1.csv");
    let later = fs::metadata(&path).unwrap().modified().unwrap() + std::time::Duration::from_secs(90);
    fs::File::options().append(true).open(&path).unwrap().set_modified(later).unwrap();
    let touched = shop.statuses(0, &[]);
    assert_eq!(touched, ["big_orders nothing", "cities nothing", "counted nothing"]);
}

#[test]
fn two_files_with_the_same_bytes_are_two_files() {
    let shop = shop();
    shop.write("data/orders/copy.csv", "id,city,amount\n1,Recife,10.00\n");
    shop.write("data/orders/copy2.csv", "id,city,amount\n1,Recife,10.00\n");
    shop.tidemill(&["run", "counted"]);
    assert_eq!(shop.rows("select orders from counted"), "5\n");
    let plan = shop.exits(0, &["plan"]);
    assert!(plan.out.contains("copy2.csv"), "{}", plan.out);
}

#[test]
fn json_lines_have_exactly_the_promised_keys() {
    let shop = shop();
    let keys = |args: &[&str]| {
        let lines = shop.exits(0, args).json();
        assert_eq!(lines.len(), 3);
        lines.iter().map(|l| l.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(",")).collect::<Vec<_>>()
    };
    let plan = "model,change,incremental,strategy,operators,reason,rebuild,publishes";
    assert_eq!(keys(&["plan", "--format", "json"]), [plan; 3]);
    let run = "model,status,strategy,reason,inserted,updated,deleted,quarantined,warnings,version,seconds";
    assert_eq!(keys(&["run", "--format", "json"]), [run; 3]);
    assert_eq!(keys(&["run", "--format", "json"]), [run; 3], "with nothing to do");
    assert_eq!(keys(&["plan", "--format", "json"]), [plan; 3]);
}

#[test]
fn quiet_prints_nothing_unless_something_fails() {
    let shop = shop();
    for _ in 0..2 {
        let seen = shop.exits(0, &["run", "--quiet"]);
        assert_eq!((seen.out.as_str(), seen.err.as_str()), ("", ""));
    }
    shop.remove("data/orders/1.csv");
    let seen = shop.exits(3, &["run", "--quiet"]);
    assert!(seen.err.contains("data/orders/*.csv"), "{}", seen.err);
}

#[test]
fn a_full_refresh_reads_and_computes_everything_again() {
    let shop = shop();
    shop.exits(0, &["run"]);
    let again = shop.exits(0, &["run", "--full-refresh", "--format", "json"]).json();
    assert!(again.iter().all(|m| m["strategy"] != "none"), "{again:?}");
    assert_eq!(shop.rows(CITIES), "Recife,2,30.25\n");
}

#[test]
fn selectors_choose_models() {
    let shop = shop();
    assert_eq!(shop.statuses(0, &["counted"]), ["counted ok"]);
    assert_eq!(shop.statuses(0, &["+cities"]), ["big_orders ok", "cities ok"]);
    assert_eq!(shop.statuses(0, &["tag:report"]), ["cities nothing"]);
    assert_eq!(shop.statuses(0, &["source:orders+", "--exclude", "counted"]), ["big_orders nothing", "cities nothing"]);
    assert_eq!(shop.statuses(0, &["-s", "pipeline:sales,counted"]), ["counted nothing"]);
    let unknown = shop.exits(2, &["run", "citties"]);
    insta::assert_snapshot!("unknown_selector", unknown.err);
    assert_eq!(unknown.out, "");
}

#[test]
fn changed_sql_computes_its_model_again() {
    let shop = shop();
    shop.exits(0, &["run"]);
    let sql = SALES.replace("amount >= 10", "amount >= 5");
    shop.write("pipelines/sales.yaml", sql);
    let plan = shop.exits(0, &["plan", "--format", "json"]).json();
    assert_eq!(
        plan.iter().map(|m| m["change"].as_str().unwrap()).collect::<Vec<_>>(),
        ["changed", "unchanged", "unchanged"]
    );
    assert_eq!(shop.statuses(0, &["state:modified+"]), ["big_orders ok", "cities ok"]);
    let seen = shop.exits(0, &["run", "state:modified"]);
    assert_eq!((seen.out.as_str(), seen.err.as_str()), ("", "note: no model is chosen\n"));
    assert_eq!(shop.rows(CITIES), "Natal,1,5.50\nRecife,2,30.25\n");
}

#[test]
fn a_model_that_reads_the_clock_goes_by_the_runs_instant() {
    let shop = shop();
    shop.write("pipelines/clock.yaml", "models:\n  today:\n    sql: select current_date as day, now() as at\n");
    shop.exits(0, &["run", "today", "--now", "2020-02-29T12:30:00Z"]);
    assert_eq!(shop.rows("select day, at from today"), "2020-02-29,2020-02-29T12:30:00Z\n");
    shop.exits(0, &["run", "today", "--now", "2020-03-01T00:00:00Z"]);
    assert_eq!(shop.rows("select day from today"), "2020-03-01\n");
}

#[test]
fn parameters_and_overlays_change_a_project_for_one_command() {
    let shop = shop();
    shop.write(
        "tidemill.yaml",
        "version: 1\nname: shop\nparams:\n  least: { type: \"decimal(12, 2)\", default: \"10.00\" }\n",
    );
    shop.write("pipelines/sales.yaml", SALES.replace(">= 10", ">= $least"));
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select count(*) from big_orders"), "2\n");
    shop.exits(0, &["run", "--param", "least=20.25"]);
    assert_eq!(shop.rows("select id from big_orders"), "3\n");
    shop.exits(2, &["run", "--param", "least=20.255"]);
    shop.exits(2, &["run", "--param", "leest=1"]);

    shop.write("sample/1.csv", "id,city,amount\n7,Recife,70.00\n");
    shop.write("sample.yaml", "warehouse: ./elsewhere\nsources:\n  orders: { path: sample/*.csv }\n");
    shop.exits(0, &["run", "--overlay", "sample.yaml"]);
    let there = shop.exits(0, &["query", "--overlay", "sample.yaml", "--format", "csv", "select id from big_orders"]);
    assert_eq!(there.out, "id\n7\n");
    assert_eq!(shop.rows("select id from big_orders"), "3\n", "the project's own tables stay");
}

#[test]
fn due_runs_go_by_the_schedules() {
    let shop = shop();
    let models = "models:\n  by_hand:\n    sql: select count(*) as n from orders\n    refresh: manual\n  hourly:\n    sql: select count(*) as n from orders\n    refresh: { every: 1h }\n";
    shop.write("pipelines/scheduled.yaml", models);
    let due = |now: &str| shop.statuses(0, &["pipeline:scheduled", "--due", "--now", now]);
    assert_eq!(due("2020-01-01T00:30:00Z"), ["hourly ok"]);
    shop.write("data/orders/2.csv", TUESDAY);
    assert_eq!(due("2020-01-01T00:45:00Z"), [""; 0]);
    assert_eq!(due("2020-01-01T01:30:00Z"), ["hourly ok"]);
    assert_eq!(due("2020-01-01T02:30:00Z"), ["hourly nothing"]);
    shop.write("data/orders/2.csv", MONDAY);
    assert_eq!(due("2020-01-01T02:45:00Z"), [""; 0], "a run that found nothing to do counts");
    assert_eq!(due("2020-01-01T03:30:00Z"), ["hourly ok"]);
    assert_eq!(shop.statuses(0, &["by_hand"]), ["by_hand ok"], "a model that is named is due");
}

#[test]
fn two_zeros_are_one_key() {
    let shop = Scratch::new(
        "
pipeline: sales
sources:
  s: { connector: files, path: data/*.csv, format: csv, settle: 0s, columns: { f: double, z: text } }
models:
  listed: { sql: 'select f, array_agg(z) as l from s group by f' }
  paired: { sql: 'select a.z, b.z as other from s a join s b on a.f = b.f where a.z < b.z' }
",
    );
    shop.write("data/1.csv", "f,z\n5,x\n6,y\n7,z\n");
    shop.exits(0, &["run"]);
    shop.write("data/2.csv", "f,z\n-0.0,a\n0.0,b\n");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select array_to_string(l, ' ') from listed where f = 0"), "a b\n");
    assert_eq!(shop.rows("select z, other from paired"), "a,b\n");
    shop.exits(0, &["verify"]);
}

#[test]
fn a_signal_ends_a_run_with_its_own_code() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let shop = shop();
        // Settling keeps the run busy for as long as this test needs.
        shop.write("pipelines/sales.yaml", SALES.replace("settle: 0s", "settle: 1m"));
        let run = shop.command(&["run"]).stderr(Stdio::piped()).stdout(Stdio::piped()).start();
        std::thread::sleep(std::time::Duration::from_secs(2));
        run.signal(signal);
        let seen = shop.seen(run.finish());
        assert_eq!(seen.code, code, "{signal}: {}", seen.err);
        shop.write("pipelines/sales.yaml", SALES);
        shop.exits(0, &["run"]);
        assert_eq!(shop.rows(CITIES), "Recife,2,30.25\n", "the next one goes on at once");
    }
}

#[test]
fn a_file_that_grows_is_left_for_the_next_run() {
    let shop = shop();
    shop.write("pipelines/sales.yaml", SALES.replace("settle: 0s", "settle: 1s"));
    shop.exits(0, &["run", "counted"]);
    shop.write("data/orders/2.csv", "id,city,amount\n4,Na");
    let run = shop.command(&["run", "counted"]).stdout(Stdio::null()).stderr(Stdio::piped()).start();
    std::thread::sleep(std::time::Duration::from_millis(600));
    shop.write("data/orders/2.csv", TUESDAY);
    let seen = shop.seen(run.finish());
    assert_eq!(seen.code, 0, "{}", seen.err);
    assert!(seen.err.contains("data/orders/2.csv is still being written"), "{}", seen.err);
    assert_eq!(shop.rows("select orders from counted"), "3\n");
    shop.exits(0, &["run", "counted"]);
    assert_eq!(shop.rows("select orders from counted"), "4\n");
}

#[test]
fn a_project_may_have_many_models() {
    let models = (0..150).map(|n| format!("  m{n}: {{ sql: 'select id + {n} as id from visits' }}\n"));
    let columns = "{ id: bigint }";
    let source = format!("{{ connector: files, path: 'data/*.csv', format: csv, settle: 0s, columns: {columns} }}");
    let shop =
        Scratch::new(&format!("pipeline: p\nsources:\n  visits: {source}\nmodels:\n{}", models.collect::<String>()));
    shop.write("data/1.csv", "id\n1\n");
    shop.exits(0, &["validate"]);
}

#[test]
fn a_model_whose_input_was_never_built_is_no_success() {
    let shop = shop();
    let seen = shop.exits(3, &["run", "--quiet", "cities"]);
    assert!(
        seen.err.contains("`big_orders` has no version yet; `tidemill run +cities` builds it first"),
        "{}",
        seen.err
    );
    assert_eq!(shop.statuses(0, &["+cities"]), ["big_orders ok", "cities ok"]);
}
