//! Files that somebody changes while a run reads them: nothing of them is published, and the next run is right.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use parquet::arrow::ArrowWriter;

use crate::held::Held;
use crate::scratch::{Scratch, Seen, filtered};

/// Rows of a large file: several batches, so that a run can be stopped amid them.
const ROWS: i64 = 50_000;

fn shop(format: &str, lines: &str) -> Scratch {
    Scratch::new(&format!(
        "pipeline: sales\nsources:\n  orders:\n    connector: files\n    path: data/*\n    format: {format}\n    settle: 0s
    columns: {{ id: bigint, amount: bigint }}\n{lines}models:\n  copied:\n    sql: select id, amount from orders\n    key: [id]\n"
    ))
}

/// Starts a run, and calls `meanwhile` while it stands still at `place`.
fn run_while(shop: &Scratch, place: &str, meanwhile: impl FnOnce()) -> Seen {
    let held = Held::of(shop, &["run"], place);
    meanwhile();
    held.go_on(shop)
}

/// Lines of ids with this amount each.
fn csv(ids: std::ops::Range<i64>, amount: i64) -> String {
    let mut text = "id,amount\n".to_string();
    ids.for_each(|id| text.push_str(&format!("{id},{amount}\n")));
    text
}

fn parquet(path: &Path, ids: std::ops::Range<i64>, amount: i64) {
    let amounts: ArrayRef = Arc::new(Int64Array::from_iter_values(ids.clone().map(|id| id * 7 + amount)));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
    let batch = RecordBatch::try_from_iter([("id", ids), ("amount", amounts)]).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

const SUMS: &str = "select count(*), sum(amount), max(id) from copied";

#[test]
fn a_text_file_that_changes_while_it_is_read_is_left_for_the_next_run() {
    type Change = fn(&Scratch);
    let changes: [(&str, Change, String); 5] = [
        (
            "grown",
            |shop| shop.write("data/2.csv", csv(1..ROWS, 2) + "70000,5\n"),
            format!("{},{},70000\n", ROWS + 1, 2 * (ROWS - 1) + 6),
        ),
        ("cut", |shop| shop.write("data/2.csv", csv(1..9, 2)), "9,17,8\n".into()),
        (
            "rewritten",
            |shop| shop.write("data/2.csv", csv(1..ROWS, 3)),
            format!("{ROWS},{},{}\n", 3 * (ROWS - 1) + 1, ROWS - 1),
        ),
        (
            "replaced",
            |shop| {
                shop.write("new.csv", csv(1..ROWS, 4));
                fs::rename(shop.path("new.csv"), shop.path("data/2.csv")).unwrap();
            },
            format!("{ROWS},{},{}\n", 4 * (ROWS - 1) + 1, ROWS - 1),
        ),
        ("gone", |shop| shop.remove("data/2.csv"), "1,1,0\n".into()),
    ];
    for (how, change, after) in changes {
        let shop = shop("csv", "");
        shop.write("data/1.csv", csv(0..1, 1));
        shop.exits(0, &["run"]);
        shop.write("data/2.csv", csv(1..ROWS, 2));
        let seen = run_while(&shop, "mid_file", || change(&shop));
        assert_eq!(seen.code, 3, "{how}: {}", seen.err);
        filtered(|| insta::assert_snapshot!("text_file_changed", format!("{}---\n{}", seen.out, seen.err)));
        assert_eq!(shop.rows(SUMS), "1,1,0\n", "{how}: nothing was published");
        assert_eq!(versions(&shop), 1, "{how}");
        shop.exits(0, &["run"]);
        assert_eq!(shop.rows(SUMS), after, "{how}: the next run is right");
    }
}

/// Commits of the model's table.
fn versions(shop: &Scratch) -> usize {
    let log = fs::read_dir(shop.path("warehouse/copied/_delta_log")).unwrap();
    log.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "json")).count()
}

#[test]
fn a_parquet_file_that_changes_while_it_is_converted_is_left_for_the_next_run() {
    // A rule on rows: the file can't be read in place.
    let shop = shop("parquet", "    checks: [ { check: amount >= 0, on_fail: quarantine } ]\n");
    parquet(&shop.path("data/1.parquet"), 0..10, 1);
    shop.exits(0, &["run"]);
    parquet(&shop.path("data/2.parquet"), 10..ROWS, 1);
    let seen = run_while(&shop, "mid_file", || parquet(&shop.path("data/2.parquet"), 10..20, 2));
    assert_eq!(seen.code, 3, "{}", seen.err);
    assert!(seen.err.contains("data/2.parquet"), "{}", seen.err);
    assert_eq!(shop.rows(SUMS), "10,325,9\n", "nothing was published");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(SUMS), "20,1360,19\n");
}

#[test]
fn a_parquet_file_that_changes_while_it_is_read_in_place_is_left_for_the_next_run() {
    let of_the_same_size = |shop: &Scratch| parquet(&shop.path("data/2.parquet"), 10..20, 2);
    let of_another_size = |shop: &Scratch| parquet(&shop.path("data/2.parquet"), 10..40_000, 2);
    let gone = |shop: &Scratch| shop.remove("data/2.parquet");
    type Case<'a> = (&'a str, &'a dyn Fn(&Scratch), &'a str);
    let changes: [Case<'_>; 3] = [
        ("of_the_same_size", &of_the_same_size, "20,1360,19\n"),
        ("of_another_size", &of_another_size, "40000,5599939990,39999\n"),
        ("gone", &gone, "10,325,9\n"),
    ];
    for (how, change, after) in changes {
        let shop = shop("parquet", "");
        parquet(&shop.path("data/1.parquet"), 0..10, 1);
        shop.exits(0, &["run"]);
        parquet(&shop.path("data/2.parquet"), 10..20, 1);
        let size = fs::metadata(shop.path("data/2.parquet")).unwrap().len();
        let seen = run_while(&shop, "pinned", || change(&shop));
        if how == "of_the_same_size" {
            assert_eq!(fs::metadata(shop.path("data/2.parquet")).unwrap().len(), size, "or the test shows nothing");
        }
        assert_eq!(seen.code, 3, "{how}: {}", seen.err);
        filtered(|| insta::assert_snapshot!(format!("parquet_{how}"), format!("{}---\n{}", seen.out, seen.err)));
        assert_eq!(shop.rows(SUMS), "10,325,9\n", "{how}: nothing was published");
        assert_eq!(versions(&shop), 1, "{how}");
        shop.exits(0, &["run"]);
        assert_eq!(shop.rows(SUMS), after, "{how}: the next run is right");
    }
}

#[test]
fn a_parquet_file_that_changes_after_it_was_read_counts_as_it_was_read() {
    let shop = shop("parquet", "");
    parquet(&shop.path("data/1.parquet"), 0..10, 1);
    let seen = run_while(&shop, "before_record", || parquet(&shop.path("data/1.parquet"), 0..5, 2));
    assert_eq!(seen.code, 0, "{}", seen.err);
    assert_eq!(shop.rows(SUMS), "10,325,9\n", "the version that the position names");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(SUMS), "5,80,4\n");
}

#[test]
fn windows_over_floats_lose_the_rows_that_they_had() {
    let shop = Scratch::new(
        "
pipeline: main
sources:
  a: { connector: files, path: a/*.csv, format: csv, settle: 0s, columns: { id: bigint, g: bigint, f: double } }
models:
  whole: { sql: 'select id, g, sum(f) over (partition by g) as s, stddev(id) over (partition by g) as d from a' }
  running: { sql: 'select id, g, avg(f) over (partition by g order by id % 3) as s from a' }
  above: { sql: 'select g, s, count(*) as n from whole group by g, s' }
",
    );
    let rows = |from: i64, to: i64| -> String {
        let row = |id: i64| format!("{id},{},{}\n", id % 2, 1.0 / (id as f64 + 3.0));
        std::iter::once("id,g,f\n".to_owned()).chain((from..to).map(row)).collect()
    };
    shop.write("a/0.csv", rows(0, 40));
    shop.exits(0, &["run"]);
    for run in 1..5 {
        shop.write(&format!("a/{run}.csv"), rows(38 + 2 * run, 40 + 2 * run));
        shop.exits(0, &["run"]);
        let n = format!("{}\n", 40 + 2 * run);
        for sql in ["select count(*) from whole", "select count(*) from running", "select sum(n) from above"] {
            assert_eq!(shop.rows(sql), n, "{sql}");
        }
        shop.exits(0, &["verify"]);
    }
}
