//! Models and sources that go to another pipeline, and pipelines that get another name: tables go on, files that count stay.

use crate::scratch::Scratch;

const SOURCE: &str = "sources:\n  s: { connector: files, path: 'data/*.csv', format: csv, settle: 0s, columns: { k: text, v: bigint } }\n";
const SUMS: &str = "  sums: { sql: 'select k, sum(v) as v from s group by k', key: [k] }\n";
const LARGE: &str = "  large: { sql: 'select k, v from sums where v > 1', key: [k] }\n";

/// A project whose pipeline has made some commits.
fn project() -> Scratch {
    let shop = Scratch::new("pipeline: none\n");
    shop.remove("pipelines/sales.yaml");
    shop.write("pipelines/one.yaml", format!("pipeline: one\n{SOURCE}models:\n{SUMS}{LARGE}"));
    for n in 0..5 {
        add(&shop, n);
        agrees(&shop);
    }
    shop
}

fn add(shop: &Scratch, n: u32) {
    shop.write(&format!("data/{n}.csv"), format!("k,v\na,{n}\nb{n},2\n"));
}

/// Runs all, and finds the same rows as the last step, as the last version of the Delta table, and by a batch run.
#[track_caller]
fn agrees(shop: &Scratch) {
    for outcome in shop.exits(0, &["run", "--format", "json"]).json() {
        let (model, version) = (outcome["model"].as_str().unwrap(), &outcome["version"]);
        let now = shop.rows(&format!("select * from {model} order by k"));
        assert_eq!(now, shop.rows(&format!("select * from {model} version as of {version} order by k")), "{outcome}");
    }
    let verified = shop.exits(0, &["verify"]).out;
    assert!(!verified.contains("skipped"), "{verified}");
}

#[test]
fn a_model_that_goes_to_another_pipeline_is_that_ones_alone() {
    let shop = project();
    shop.write("pipelines/one.yaml", format!("pipeline: one\n{SOURCE}models:\n{SUMS}"));
    shop.write("pipelines/two.yaml", format!("pipeline: two\nmodels:\n{LARGE}"));
    agrees(&shop);
    for n in 5..8 {
        add(&shop, n);
        agrees(&shop);
        shop.exits(0, &["run", "sums"]);
        agrees(&shop);
    }
    assert_eq!(shop.rows("select k from large where k in ('a', 'b7') order by k"), "a\nb7\n");
    // And back, with numbers of commits that the first pipeline's own have overtaken.
    shop.remove("pipelines/two.yaml");
    shop.write("pipelines/one.yaml", format!("pipeline: one\n{SOURCE}models:\n{SUMS}{LARGE}"));
    add(&shop, 8);
    agrees(&shop);
    assert_eq!(shop.rows("select v from large where k = 'a'"), "36\n");
}

#[test]
fn what_reads_a_relation_that_went_to_another_pipeline_is_built_anew() {
    let shop = project();
    // In the new pipeline's chain the commits have other numbers: those that `large` had read are of the old one.
    shop.write("pipelines/one.yaml", format!("pipeline: one\nmodels:\n{LARGE}"));
    shop.write("pipelines/two.yaml", format!("pipeline: two\n{SOURCE}models:\n{SUMS}"));
    let told = shop.exits(0, &["plan"]).out;
    assert!(told.contains("the whole table: what it last read of sums isn't kept any more"), "{told}");
    for n in 5..12 {
        add(&shop, n);
        agrees(&shop);
    }
    assert_eq!(shop.rows("select v from large where k = 'a'"), "66\n");
}

#[test]
fn tables_of_a_pipeline_with_another_name_go_on() {
    let shop = project();
    shop.write("pipelines/one.yaml", format!("pipeline: other\n{SOURCE}models:\n{SUMS}{LARGE}"));
    agrees(&shop);
    add(&shop, 5);
    agrees(&shop);
    assert_eq!(shop.rows("select v from sums where k = 'a'"), "15\n");
}

#[test]
fn tables_go_on_where_the_bookkeeping_was_taken_away() {
    let shop = project();
    std::fs::remove_dir_all(shop.path("warehouse/_tidemill")).unwrap();
    add(&shop, 5);
    agrees(&shop);
    assert_eq!(shop.rows("select v from sums where k = 'a'"), "15\n");
}

#[test]
fn a_source_may_have_the_name_of_a_model_that_was() {
    let shop = project();
    let renamed =
        format!("pipeline: one\n{}models:\n  kept: {{ sql: select k from sums }}\n", SOURCE.replace("  s:", "  sums:"));
    shop.write("pipelines/one.yaml", renamed);
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select count(*) from sums"), shop.rows("select count(*) from kept"));
}
