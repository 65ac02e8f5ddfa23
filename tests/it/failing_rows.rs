//! A value that makes a model fail: the error names its row, what is untouched, and how to go on.

use crate::scratch::{Scratch, Seen, filtered};

/// `readings` of CSV files of texts, and the models of `models`.
fn readings(models: &str) -> Scratch {
    let shop = Scratch::new(&format!(
        "
pipeline: sales
sources:
  readings:
    connector: files
    path: data/*.csv
    format: csv
    settle: 0s
    columns: {{ id: bigint, meter: text, v: text, n: bigint }}
  meters:
    connector: files
    path: meters/*.csv
    format: csv
    settle: 0s
    columns: {{ meter: text, factor: text }}
models:
{models}"
    ));
    shop.write("data/a.csv", "id,meter,v,n\n1,hall,10,1\n2,roof,20,2\n");
    shop.write("meters/m.csv", "meter,factor\nhall,1\nroof,2\n");
    shop
}

/// What `run` says where it fails on a value.
#[track_caller]
fn failing(shop: &Scratch) -> Seen {
    let seen = shop.exits(3, &["run"]);
    assert!(seen.err.contains("the query fails on"), "{}", seen.err);
    seen
}

#[track_caller]
fn says(seen: &Seen, words: &[&str]) {
    for said in words {
        assert!(seen.err.contains(said), "`{said}` isn't in: {}", seen.err);
    }
}

const NUMBERS: &str = "  numbers: { sql: 'select id, cast(v as bigint) as v from readings' }\n";

#[test]
fn a_first_build_names_file_and_row_and_what_it_left() {
    let shop = readings(NUMBERS);
    shop.write("data/bad.csv", "id,meter,v,n\n3,hall,30,3\n4,hall,oops,4\n5,hall,50,5\n");
    let seen = failing(&shop);
    filtered(|| insta::assert_snapshot!("first_build", format!("{}---\n{}", seen.out, seen.err)));

    shop.write("data/bad.csv", "id,meter,v,n\n3,hall,30,3\n4,hall,40,4\n5,hall,50,5\n");
    shop.exits(0, &["run", "numbers"]);
    assert_eq!(shop.rows("select sum(v) from numbers"), "150\n");
}

#[test]
fn a_step_names_file_and_row_and_the_version_that_stays() {
    let shop = readings(NUMBERS);
    shop.exits(0, &["run"]);
    shop.write("data/b.csv", "id,meter,v,n\n3,hall,30,3\n4,hall,oops,4\n");
    let seen = failing(&shop);
    filtered(|| insta::assert_snapshot!("step", format!("{}---\n{}", seen.out, seen.err)));
    assert_eq!(shop.rows("select sum(v) from numbers"), "30\n", "the last version stays");
    says(&failing(&shop), &["row 2 of data/b.csv"]);
    shop.write("data/b.csv", "id,meter,v,n\n3,hall,30,3\n");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select sum(v) from numbers"), "60\n");
}

#[test]
fn one_row_is_found_among_many_files_and_rows() {
    let shop =
        readings("  numbers: { sql: 'select meter, sum(cast(v as bigint)) as v from readings group by meter' }\n");
    for file in 0..9 {
        let rows = (0..3000).map(|row| match (file, row) {
            (6, 2345) => "7,hall,oops,7\n".to_string(),
            _ => format!("{row},hall,{row},7\n"),
        });
        shop.write(&format!("data/f{file}.csv"), format!("id,meter,v,n\n{}", rows.collect::<String>()));
    }
    says(&failing(&shop), &["the query fails on row 2346 of data/f6.csv", "values: v=oops, id=7, meter=hall, n=7"]);
}

#[test]
fn a_division_by_zero_is_a_rows_or_that_of_what_was_computed() {
    let shop = readings("  shares: { sql: 'select id, 100 / n as share from readings' }\n");
    shop.exits(0, &["run"]);
    shop.write("data/b.csv", "id,meter,v,n\n3,hall,30,3\n4,hall,40,0\n");
    says(&failing(&shop), &["the query fails on row 2 of data/b.csv", "n=0", "nullif", "stays at version 0"]);

    // No single row is to blame, and parts of the rows come to nothing where all of them don't.
    let sums = "select meter, 100 / total as share from (select meter, sum(n) as total from readings group by meter)";
    let shop = readings(&format!("  shares: {{ sql: '{sums}' }}\n"));
    shop.write("data/b.csv", "id,meter,v,n\n3,hall,30,-5\n4,hall,30,5\n5,cellar,1,7\n6,cellar,1,-7\n");
    let seen = failing(&shop);
    says(&seen, &["the query fails on a row that it computes on the way", "values: meter=cellar, sum(readings.n)=0"]);
    says(&seen, &["nothing of it was published"]);
}

#[test]
fn a_join_names_the_row_of_the_side_that_has_the_value() {
    let sql =
        "select r.id, cast(m.factor as bigint) * r.n as scaled from readings r left join meters m on r.meter = m.meter";
    let shop = readings(&format!("  scaled: {{ sql: '{sql}' }}\n"));
    shop.exits(0, &["run"]);
    shop.write("meters/n.csv", "meter,factor\ncellar,3\nshed,much\n");
    shop.write("data/b.csv", "id,meter,v,n\n3,hall,30,3\n4,shed,40,4\n");
    says(&failing(&shop), &["row 2 of meters/n.csv", "source: meters", "factor=much"]);

    // A pair of rows, neither of which fails with others.
    let sql = "select r.id, r.n / cast(m.factor as bigint) as scaled, 10 / (r.n - cast(m.factor as bigint)) as rest from readings r join meters m on r.meter = m.meter";
    let shop = readings(&format!("  scaled: {{ sql: '{sql}' }}\n"));
    shop.write("data/a.csv", "id,meter,v,n\n1,hall,10,7\n2,roof,20,2\n");
    says(&failing(&shop), &["row 2 of data/a.csv", "row 2 of meters/m.csv", " with "]);
}

#[test]
fn a_row_of_a_model_is_named_by_its_key() {
    let shop = readings(
        "  texts: { sql: 'select id, v from readings', key: [id] }
  numbers: { sql: 'select id, cast(v as bigint) as v from texts' }
",
    );
    shop.exits(0, &["run"]);
    shop.write("data/b.csv", "id,meter,v,n\n3,hall,30,3\n4,hall,oops,4\n");
    says(&failing(&shop), &["the query fails on the row id=4 of texts", "values: v=oops, id=4"]);
    assert_eq!(shop.rows("select count(*) from texts"), "4\n", "others are published");
    assert_eq!(shop.rows("select count(*) from numbers"), "2\n");
}

#[test]
fn a_condition_that_no_row_passes_is_not_blamed_on_rows_that_it_keeps_out() {
    let sql = "select id, cast(v as bigint) as v from readings where meter = ''hall''";
    let shop = readings(&format!("  numbers: {{ sql: '{sql}' }}\n"));
    shop.write("data/b.csv", "id,meter,v,n\n3,roof,no number,3\n4,hall,oops,4\n");
    says(&failing(&shop), &["row 2 of data/b.csv"]);
}

#[test]
fn the_first_row_of_a_value_is_told_as_it_is() {
    let shop = Scratch::new(
        "pipeline: sales\nsources:\n  r:\n    connector: files\n    path: r/*.csv\n    format: csv\n    settle: 0s\n    columns: { id: bigint, v: bigint, at: timestamp }\n    event_time: at\n    deduplicate: [id]\nmodels:\n  m: { sql: \"select id, 100 / v as share from r\" }\n",
    );
    shop.write("r/1.csv", "id,v,at\n1,1,2020-01-01 00:00:00\n2,0,2020-01-02 00:00:00\n");
    shop.write("r/2.csv", "id,v,at\n2,0,2020-01-01 00:00:00\n3,4,2020-01-01 00:00:00\n");
    let seen = failing(&shop);
    says(&seen, &["values: id=2, v=0, at=2020-01-01T00:00:00\n"]);
    assert!(!seen.err.contains("PARTITION BY"), "{}", seen.err);
}
