//! Rules and what failing them does: to the rows, to the table, to what depends on it, to the exit code.

use crate::scratch::{Scratch, filtered};

/// `orders` of one CSV, `checked` over it with these lines of YAML, `after` over that, and `apart` which reads `orders` alone.
fn checked(lines: &str) -> Scratch {
    let shop = Scratch::new(&format!(
        "
pipeline: sales
sources:
  orders:
    connector: files
    path: data/*.csv
    format: csv
    settle: 0s
    columns: {{ id: bigint, city: text, amount: bigint, at: timestamp }}
models:
  checked:
    sql: select id, city, amount, at from orders
{lines}
  after:
    sql: select count(*) as n, sum(amount) as amount from checked
  apart:
    sql: select count(*) as n from orders
"
    ));
    shop.write("data/1.csv", "id,city,amount,at\n1,Recife,10,2020-01-01 00:00:00\n2,Natal,20,2020-01-02 00:00:00\n");
    shop
}

/// Adds rows in a second file.
fn add(shop: &Scratch, rows: &str) {
    shop.write("data/2.csv", format!("id,city,amount,at\n{rows}"));
}

const IDS: &str = "select id from checked order by id";

/// Runs a good state, then one that breaks the rule; everything but `apart` stays.
fn fails(lines: &str, rows: &str, said: &str) {
    let shop = checked(lines);
    shop.exits(0, &["run"]);
    add(&shop, rows);
    let seen = shop.exits(1, &["run", "--format", "json"]);
    assert!(seen.err.contains(said), "{said} isn't in: {}", seen.err);
    let statuses: Vec<_> = seen.json().iter().map(|m| m["status"].as_str().unwrap().to_string()).collect();
    assert_eq!(statuses, ["failed", "skipped", "ok"], "{lines}");
    assert_eq!(shop.rows(IDS), "1\n2\n", "{lines}: the last good version stays");
    assert_eq!(shop.rows("select n, amount from after"), "2,30\n");
    assert_eq!(shop.rows("select n from apart"), "3\n");
    assert_eq!(shop.statuses(1, &[])[0], "checked failed", "{lines}: it fails again while nothing changes");
    add(&shop, "3,Recife,30,2020-01-01 00:00:00\n");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(IDS), "1\n2\n3\n", "{lines}: good rows are published again");
    assert_eq!(shop.rows("select n, amount from after"), "3,60\n");
}

#[test]
fn a_failed_expression_keeps_the_last_version() {
    fails("    checks: [ amount > 0 ]", "3,Recife,-5,2020-01-01 00:00:00\n", "the check `amount > 0` failed on 1 row");
}

/// Functions that the engine evaluates nowhere but rewrites as it optimizes a plan; each rule refuses `amount` -5.
const REWRITTEN: [&str; 4] = [
    "coalesce(amount, 0) >= 0",
    "nvl(amount, 0) >= 0",
    "nvl2(amount, amount, 0) >= 0",
    "arrow_cast(coalesce(amount, 0), 'Float64') >= 0",
];

#[test]
fn functions_that_only_plans_rewrite_stand_in_rules_too() {
    for rule in REWRITTEN {
        let bad = "3,Recife,-5,2020-01-01 00:00:00\n";
        fails(&format!("    checks: [ {{ name: rewritten, check: \"{rule}\" }} ]"), bad, "`rewritten` failed on 1 row");

        let rule = format!("    checks: [ {{ check: \"{rule}\", on_fail: quarantine }} ]");
        let shop = checked("");
        let yaml = std::fs::read_to_string(shop.path("pipelines/sales.yaml")).unwrap();
        shop.write("pipelines/sales.yaml", yaml.replace("models:", &format!("{rule}\nmodels:")));
        add(&shop, &format!("{bad}4,Recife,,2020-01-01 00:00:00\n"));
        shop.exits(0, &["run"]);
        assert_eq!(shop.rows(IDS), "1\n2\n4\n", "{rule}: of a source");

        let shop = checked(&rule);
        let test = "  - { name: refused, model: checked, given: { orders: [ { id: 1, amount: -1 }, { id: 2 } ] }, expect: { rows: [ { id: 2 } ] } }";
        shop.write("tests/t.yaml", format!("tests:\n{test}\n"));
        shop.exits(0, &["test"]);
    }
}

#[test]
fn a_rule_that_a_column_isnt_null_asks_its_rows_whatever_the_contract_says() {
    let lines = "    columns: { id: { type: bigint, nullable: false }, city: text, amount: bigint, at: timestamp }
    checks: [ { name: there, check: \"nvl2(id, 1, 0) = 1\" } ]";
    fails(lines, ",Recife,5,2020-01-01 00:00:00\n", "`there` failed on 1 row");
}

#[test]
fn a_key_that_repeats_or_is_null_keeps_the_last_version() {
    fails("    key: [id]", "2,Recife,5,2020-01-01 00:00:00\n", "`key_unique` failed on 1 row");
    fails("    key: [id]", ",Recife,5,2020-01-01 00:00:00\n", "`key_not_null` failed on 1 row");
}

#[test]
fn rules_on_columns_fail_too() {
    let row = "3,Natal,20,2020-01-01 00:00:00\n";
    fails("    checks: [ { unique: [amount] } ]", row, "failed on 1 row");
    fails("    checks: [ { not_null: [city] } ]", "3,,20,2020-01-01 00:00:00\n", "failed on 1 row");
    let values = "    checks: [ { accepted_values: { column: city, values: [Recife, Natal] } } ]";
    fails(values, "3,Olinda,20,2020-01-01 00:00:00\n", "failed on 1 row");
}

#[test]
fn null_passes_every_rule_but_not_null() {
    let shop = checked(
        "    checks: [ amount > 0, { accepted_values: { column: city, values: [Recife, Natal] } }, { unique: [amount, city] } ]",
    );
    add(&shop, "3,,,\n4,,,\n");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(IDS), "1\n2\n3\n4\n");
}

#[test]
fn a_warning_is_counted_and_told_and_fails_nothing() {
    let shop = checked("    checks: [ { name: sane, check: amount < 50, on_fail: warn } ]");
    add(&shop, "3,Recife,99,2020-01-01 00:00:00\n4,Recife,98,2020-01-01 00:00:00\n");
    let seen = shop.exits(0, &["run", "--format", "json"]);
    assert_eq!(seen.json()[0]["warnings"], 2);
    filtered(|| insta::assert_snapshot!("warned", seen.err));
    assert_eq!(shop.rows(IDS), "1\n2\n3\n4\n");
    assert_eq!(
        shop.rows("select model, \"check\", on_fail, status, failing_rows from shop.tidemill.check_results"),
        "checked,sane,warn,failed,2\n"
    );
}

#[test]
fn quarantined_rows_leave_the_table_and_are_kept_with_rule_and_reason() {
    let shop = checked(
        "    key: [id]\n    checks: [ { name: paid, check: amount > 0, on_fail: quarantine }, { not_null: [city], on_fail: quarantine } ]",
    );
    add(&shop, "3,Recife,-5,2020-01-01 00:00:00\n4,,7,2020-01-01 00:00:00\n5,,-7,\n");
    let seen = shop.exits(0, &["run", "--format", "json"]).json();
    assert_eq!((&seen[0]["quarantined"], &seen[0]["inserted"]), (&3.into(), &2.into()));
    assert_eq!(shop.rows("select n, amount from after"), "2,30\n", "dependents see accepted rows only");
    insta::assert_snapshot!(
        "quarantined",
        shop.rows("select id, city, amount, at, _rule, _reason, _source_file, _run is not null as run from checked_quarantine order by id")
    );
    add(&shop, "3,Recife,5,2020-01-01 00:00:00\n");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select count(*) from checked_quarantine"), "0\n", "what is mended leaves the quarantine");
    assert_eq!(shop.rows(IDS), "1\n2\n3\n");
}

#[test]
fn a_row_that_is_refused_fails_no_other_rule() {
    let shop = checked("    key: [id]\n    checks: [ { not_null: [id], on_fail: quarantine }, { check: amount > 0 } ]");
    add(&shop, ",Recife,-5,2020-01-01 00:00:00\n");
    let seen = shop.exits(0, &["run", "--format", "json"]).json();
    assert_eq!((&seen[0]["status"], &seen[0]["quarantined"]), (&"ok".into(), &1.into()));
    assert_eq!(shop.rows(IDS), "1\n2\n");
}

#[test]
fn relationships_are_compared_with_another_relation() {
    let products = "
models:
  cities:
    sql: select 'Recife' as city union all select 'Natal'
";
    for (on_fail, code) in [("fail", 1), ("warn", 0), ("quarantine", 0)] {
        let shop = checked(&format!(
            "    checks: [ {{ relationships: {{ column: city, to: cities.city }}, on_fail: {on_fail} }} ]"
        ));
        shop.write("pipelines/cities.yaml", products);
        shop.exits(0, &["run"]);
        add(&shop, "3,Olinda,1,2020-01-01 00:00:00\n4,,1,2020-01-01 00:00:00\n");
        let seen = shop.exits(code, &["run"]);
        assert_eq!(
            shop.rows(IDS),
            match on_fail {
                "fail" => "1\n2\n",
                "warn" => "1\n2\n3\n4\n",
                _ => "1\n2\n4\n",
            },
            "{on_fail}: {}",
            seen.err
        );
        let refused = shop.rows("select id, city from checked_quarantine");
        assert_eq!(refused, if on_fail == "quarantine" { "3,Olinda\n" } else { "" });
    }
}

/// `lines`, of which `orders` says which city it is of and `cities` which there are, and a model that reads the one alone.
fn related(of_orders: &str) -> Scratch {
    let source = |name: &str, columns: &str| {
        format!(
            "  {name}:\n    connector: files\n    path: {name}/*.csv\n    format: csv\n    settle: 0s\n    columns: {columns}\n"
        )
    };
    let shop = Scratch::new(&format!(
        "pipeline: sales\nsources:\n{}{of_orders}{}models:\n  sold:\n    sql: select id, city from orders\n",
        source("orders", "{ id: bigint, city: text, before: bigint }"),
        source("cities", "{ name: text }")
    ));
    shop.write("orders/1.csv", "id,city,before\n1,Recife,\n2,Natal,1\n");
    shop.write("cities/1.csv", "name\nRecife\nNatal\n");
    shop
}

const SOLD: &str = "select id from sold order by id";

#[test]
fn a_sources_relationship_is_compared_with_what_the_same_run_finds() {
    let rule = "    checks: [ { relationships: { column: city, to: cities.name } } ]\n";
    let shop = related(rule);
    // With the first run already, though nothing else reads the cities.
    shop.write("orders/2.csv", "id,city,before\n3,Olinda,\n");
    let seen = shop.exits(1, &["run"]);
    assert!(seen.err.contains("failed on 1 row, such as id=3"), "{}", seen.err);
    shop.write("cities/2.csv", "name\nOlinda\n");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(SOLD), "1\n2\n3\n");
    // Both come at once.
    shop.write("orders/3.csv", "id,city,before\n4,Caruaru,\n");
    shop.write("cities/3.csv", "name\nCaruaru\n");
    shop.exits(0, &["run"]);
    // The other side alone breaks it, and mends it.
    shop.remove("cities/2.csv");
    let seen = shop.exits(1, &["run"]);
    assert!(seen.err.contains("failed on 1 row, such as id=3"), "{}", seen.err);
    shop.exits(1, &["run"]);
    shop.write("cities/2.csv", "name\nOlinda\n");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(SOLD), "1\n2\n3\n4\n");
    assert_eq!(shop.statuses(0, &[]), ["sold nothing"]);
}

#[test]
fn a_sources_relationship_to_a_model_is_compared_with_what_the_same_run_makes_of_it() {
    let shop = related("    checks: [ { relationships: { column: city, to: known.name } } ]\n");
    let yaml = std::fs::read_to_string(shop.path("pipelines/sales.yaml")).unwrap();
    shop.write(
        "pipelines/sales.yaml",
        format!("{yaml}  known:\n    sql: select name from cities where name <> 'Olinda'\n"),
    );
    shop.exits(0, &["run"]);
    shop.write("orders/2.csv", "id,city,before\n3,Caruaru,\n");
    shop.write("cities/2.csv", "name\nCaruaru\n");
    shop.exits(0, &["run"]);
    shop.write("orders/3.csv", "id,city,before\n4,Olinda,\n");
    shop.write("cities/3.csv", "name\nOlinda\n");
    assert_eq!(shop.statuses(1, &[]), ["known ok", "sold skipped"]);
    shop.remove("orders/3.csv");
    shop.exits(0, &["run"]);
    shop.remove("cities/2.csv");
    assert_eq!(shop.statuses(1, &[]), ["known ok", "sold skipped"]);
    assert_eq!(shop.rows(SOLD), "1\n2\n3\n");
}

#[test]
fn a_relationship_to_the_relation_itself_is_compared_with_the_version_at_hand() {
    let of_source = related("    checks: [ { relationships: { column: before, to: orders.id } } ]\n");
    let of_model = |on_fail: &str| {
        let shop = checked(&format!(
            "    checks: [ {{ relationships: {{ column: amount, to: checked.id }}, on_fail: {on_fail} }} ]"
        ));
        shop.write("data/1.csv", "id,city,amount,at\n1,Recife,,2020-01-01 00:00:00\n2,Natal,1,2020-01-02 00:00:00\n");
        shop
    };
    let (failing, quarantining) = (of_model("fail"), of_model("quarantine"));
    for shop in [&of_source, &failing, &quarantining] {
        shop.exits(0, &["run"]);
    }
    of_source.write("orders/2.csv", "id,city,before\n3,Natal,2\n");
    of_source.exits(0, &["run"]);
    of_source.write("orders/2.csv", "id,city,before\n3,Natal,4\n");
    of_source.exits(1, &["run"]);
    let orphan = "3,Natal,2,2020-01-02 00:00:00\n4,Natal,5,2020-01-02 00:00:00\n";
    add(&failing, orphan);
    failing.exits(1, &["run"]);
    add(&quarantining, orphan);
    quarantining.exits(0, &["run"]);
    assert_eq!(quarantining.rows(IDS), "1\n2\n3\n");
}

#[test]
fn a_relationship_looks_into_a_deduplicated_source_as_queries_do() {
    let shop = related("    checks: [ { relationships: { column: city, to: cities.name } } ]\n");
    let yaml = std::fs::read_to_string(shop.path("pipelines/sales.yaml")).unwrap();
    let columns = "{ name: text }";
    let deduplicated = "{ name: text, code: bigint, since: timestamp }\n    event_time: since\n    deduplicate: [code]";
    shop.write("pipelines/sales.yaml", yaml.replace(columns, deduplicated));
    shop.write("cities/1.csv", "name,code,since\nRecife,1,2020-01-01 00:00:00\nNatal,2,2020-01-01 00:00:00\n");
    shop.exits(0, &["run"]);
    // Olinda is the second of its code, so it isn't there.
    shop.write("cities/2.csv", "name,code,since\nOlinda,2,2020-01-02 00:00:00\n");
    shop.write("orders/2.csv", "id,city,before\n3,Olinda,\n");
    shop.exits(1, &["run"]);
}

#[test]
fn freshness_goes_by_the_runs_instant_even_if_nothing_changed() {
    let shop = checked("    checks: [ { freshness: { column: at, within: 1d } } ]");
    shop.exits(0, &["run", "--now", "2020-01-03T00:00:00Z"]);
    let stale = shop.exits(1, &["run", "--now", "2020-01-03T00:00:01Z"]);
    filtered(|| insta::assert_snapshot!("stale", stale.err));
    assert_eq!(shop.rows(IDS), "1\n2\n");
    shop.exits(0, &["run", "--now", "2020-01-02T12:00:00Z"]);
}

#[test]
fn freshness_reads_clocks_without_a_zone_in_the_projects() {
    let shop = checked("    checks: [ { freshness: { column: at, within: 1h } } ]");
    let yaml = std::fs::read_to_string(shop.path("tidemill.yaml")).unwrap();
    shop.write("tidemill.yaml", format!("{yaml}timezone: America/New_York\n"));
    // Midnight there is five in the morning in UTC.
    shop.exits(0, &["run", "--now", "2020-01-02T05:59:00Z"]);
    shop.exits(1, &["run", "--now", "2020-01-02T06:00:01Z"]);
}

#[test]
fn freshness_of_a_source_is_judged_though_nothing_came() {
    for (on_fail, code) in [("warn", 0), ("fail", 1)] {
        let shop = checked("");
        let yaml = std::fs::read_to_string(shop.path("pipelines/sales.yaml")).unwrap();
        let rule =
            format!("    checks: [ {{ freshness: {{ column: at, within: 1d }}, on_fail: {on_fail} }} ]\nmodels:");
        shop.write("pipelines/sales.yaml", yaml.replace("models:", &rule));
        shop.exits(0, &["run", "--now", "2020-01-03T00:00:00Z"]);
        let told = shop.exits(code, &["run", "--now", "2020-01-03T00:00:01Z"]).err;
        assert!(told.contains("newest at is 2020-01-02T00:00:00Z, more than 86400 s ago"), "{told}");
    }
}

#[test]
fn a_source_rule_stops_its_readers_or_quarantines_rows() {
    let source = |on_fail: &str| {
        let shop = checked("    key: [id]");
        let yaml = std::fs::read_to_string(shop.path("pipelines/sales.yaml")).unwrap();
        let rule = format!("    checks: [ {{ name: paid, check: amount > 0, on_fail: {on_fail} }} ]\nmodels:");
        shop.write("pipelines/sales.yaml", yaml.replace("models:", &rule));
        shop.exits(0, &["run"]);
        add(&shop, "3,Recife,-5,2020-01-01 00:00:00\n4,Recife,5,2020-01-01 00:00:00\n");
        shop
    };
    let failing = source("fail");
    assert_eq!(failing.statuses(1, &[]), ["checked skipped", "after skipped", "apart skipped"]);
    assert_eq!(failing.rows(IDS), "1\n2\n");

    let warned = source("warn");
    warned.exits(0, &["run"]);
    assert_eq!(warned.rows(IDS), "1\n2\n3\n4\n");

    let quarantined = source("quarantine");
    let seen = quarantined.exits(0, &["run"]);
    assert!(seen.err.contains("warning: orders: 1 row went to orders_quarantine (`paid` 1)"), "{}", seen.err);
    assert_eq!(quarantined.rows(IDS), "1\n2\n4\n");
    assert_eq!(
        quarantined.rows("select id, amount, _rule, _source_file, _source_row from orders_quarantine"),
        "3,-5,paid,data/2.csv,1\n"
    );
}

#[test]
fn rows_that_a_source_sends_to_quarantine_are_counted_and_told() {
    let shop = checked("    checks: [ { name: small, check: amount < 50, on_fail: quarantine } ]");
    let yaml = std::fs::read_to_string(shop.path("pipelines/sales.yaml")).unwrap();
    let rule = "    checks: [ { name: paid, check: amount > 0, on_fail: quarantine } ]\nmodels:";
    shop.write("pipelines/sales.yaml", yaml.replace("models:", rule));
    shop.exits(0, &["run"]);
    add(&shop, "3,Recife,-5,2020-01-01 00:00:00\n4,Recife,-6,2020-01-01 00:00:00\nx,,1,\n5,Natal,99,\n");
    let seen = shop.exits(0, &["run", "--format", "json"]);
    let told = "warning: orders: 3 rows went to orders_quarantine (`contract` 1, `paid` 2)\n";
    assert_eq!(seen.err, told, "one line a source");
    let counts: Vec<_> = seen.json().iter().map(|m| m["quarantined"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 0, 0], "a model's line counts what it refuses itself");
    let last = "(select max(run) from shop.tidemill.runs)";
    let results = format!(
        "select model, \"check\", status, failing_rows from shop.tidemill.check_results where run = {last} order by 1, 2"
    );
    let all = "checked,small,failed,1\norders,contract,failed,1\norders,paid,failed,2\n";
    assert_eq!(shop.rows(&results), all);
    let quarantined = format!("select quarantined from shop.tidemill.runs where run = {last}");
    assert_eq!(shop.rows(&quarantined), "4\n", "the source's rows count once, however many models read it");

    // What was refused before stands in the checks, and isn't told again.
    shop.write("data/3.csv", "id,city,amount,at\n6,Natal,-1,\n7,Natal,1,\n");
    let seen = shop.exits(0, &["run"]);
    assert_eq!(seen.err, "warning: orders: 1 row went to orders_quarantine (`paid` 1)\n");
    assert!(!seen.out.contains("quarantined"), "{}", seen.out);
    assert!(shop.rows(&results).ends_with("orders,contract,failed,1\norders,paid,failed,3\n"));
    assert_eq!(shop.rows(&quarantined), "1\n");
    assert_eq!(shop.exits(0, &["run"]).err, "");
}

#[test]
fn a_row_that_makes_a_model_fail_keeps_its_last_version() {
    let shop = checked("    key: [id]");
    shop.write("pipelines/ratio.yaml", "models:\n  ratio:\n    sql: select id, 100 / amount as share from orders\n");
    shop.exits(0, &["run"]);
    add(&shop, "3,Recife,0,2020-01-01 00:00:00\n");
    let seen = shop.exits(3, &["run"]);
    filtered(|| insta::assert_snapshot!("division_by_zero", format!("{}---\n{}", seen.out, seen.err)));
    assert_eq!(shop.rows("select id from ratio order by id"), "1\n2\n");
    assert_eq!(shop.rows(IDS), "1\n2\n3\n");
}

#[test]
fn plan_knows_of_rows_that_a_failed_model_has_not_read() {
    let shop = Scratch::new(
        "pipeline: sales\nsources:\n  orders: { connector: files, path: data/*.csv, format: csv, settle: 0s, columns: { id: bigint } }\n\
         models:\n  m:\n    sql: select id from orders\n    checks:\n      - id > 0\n",
    );
    shop.write("data/1.csv", "id\n1\n");
    shop.exits(0, &["run"]);
    assert!(shop.exits(0, &["plan"]).out.contains("inputs and SQL are unchanged"));
    shop.write("data/2.csv", "id\n0\n");
    shop.exits(1, &["run"]);
    assert!(shop.exits(0, &["plan"]).out.contains("orders: what it hasn't read yet"));
}
