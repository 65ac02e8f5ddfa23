//! The runner of SQL unit tests: what it compares, what it counts, and how it shows what differs.

use crate::scratch::{Scratch, Seen};

const PIPELINE: &str = "
pipeline: sales
sources:
  orders:
    connector: files
    path: data/*.csv
    format: csv
    columns: { id: { type: bigint, nullable: false }, city: text, amount: \"decimal(12, 2)\", at: timestamptz }
models:
  kept:
    sql: select id, city, amount, at from orders
    key: [id]
    checks: [ { check: amount > 0, name: positive, on_fail: quarantine }, { check: amount < 100, name: small } ]
  cities:
    sql: select city, count(*) as orders, sum(amount) as revenue, max(at) as latest from kept group by city
  names:
    sql: select city, cast(amount as double) / 3 as third from orders
  ratio:
    sql: select id, 100 / amount as share from orders
  late:
    sql: select id from orders where at < now()
";

fn shop(tests: &str) -> Scratch {
    let shop = Scratch::new(PIPELINE);
    // Tests read no file of a source; validating the project needs one.
    shop.write("data/1.csv", "id,city,amount,at\n");
    shop.write("tests/t.yaml", format!("tests:\n{tests}"));
    shop
}

fn ends(code: i32, tests: &str) -> Seen {
    shop(tests).exits(code, &["test"])
}

#[test]
fn a_failing_expectation_shows_what_is_missing_and_what_is_too_much() {
    let seen = ends(
        1,
        "  - name: wrong sums
    model: cities
    given:
      orders:
        - { id: 1, city: Recife, amount: 2.50 }
        - { id: 2, city: Recife, amount: 2.50 }
        - { id: 3, city: Natal, amount: 1.00 }
        - { id: 4, amount: 1.00 }
    expect:
      rows:
        - { city: Recife, orders: 2, revenue: 5.01 }
        - { city: Natal, orders: 1, revenue: 1.00 }
        - { city: Olinda, orders: 1, revenue: null }
  - name: right sums
    model: cities
    given: { orders: [ { id: 1, city: Recife, amount: 2.50 } ] }
    expect: { rows: [ { city: Recife, revenue: 2.5 } ] }
",
    );
    insta::assert_snapshot!("difference", seen.out);
    assert_eq!(seen.err, "");
}

#[test]
fn rows_are_a_bag_and_repeated_ones_are_counted() {
    let given =
        "    model: names\n    given: { orders: [ { id: 1, city: a }, { id: 2, city: b }, { id: 3, city: a } ] }\n";
    ends(
        0,
        &format!(
            "  - name: any order\n{given}    expect: {{ rows: [ {{ city: a }}, {{ city: a }}, {{ city: b }} ] }}\n"
        ),
    );
    let few = ends(1, &format!("  - name: too few\n{given}    expect: {{ rows: [ {{ city: a }}, {{ city: b }} ] }}\n"));
    assert!(few.out.contains("  rows differ:\n  unexpected  { city: a }\n"), "{}", few.out);
    let many = ends(
        1,
        &format!(
            "  - name: too many\n{given}    expect: {{ rows: [ {{ city: a }}, {{ city: a }}, {{ city: b }}, {{ city: b }}, {{ city: b }} ] }}\n"
        ),
    );
    assert!(many.out.contains("  missing     { city: b }\n  missing     { city: b }\n"), "{}", many.out);
    assert!(!many.out.contains("unexpected"), "{}", many.out);
    let none = ends(1, &format!("  - name: none\n{given}    expect: {{ rows: [] }}\n"));
    assert!(none.out.contains("0 passed, 1 failed"), "{}", none.out);
}

#[test]
fn columns_left_out_are_null_when_given_and_not_compared_when_expected() {
    ends(
        0,
        "  - name: a part
    model: kept
    given: { orders: [ { id: 1, amount: 1 }, { id: 2, city: '', amount: 2.5, at: 2020-01-01T00:00:00-03:00 } ] }
    expect: { rows: [ { at: null, id: 1 }, { at: 2020-01-01T03:00:00Z, id: 2 } ] }
  - name: null isn't empty
    model: kept
    given: { orders: [ { id: 1, amount: 1 }, { id: 2, city: '', amount: 2.5 } ] }
    expect: { rows: [ { city: null, id: 1 }, { city: '', id: 2 } ] }
  - name: floats
    model: names
    given: { orders: [ { id: 1, amount: 1 } ] }
    expect: { rows: [ { third: 0.33333333333 } ] }
",
    );
    let seen = ends(
        1,
        "  - name: null isn't empty\n    model: names\n    given: { orders: [ { id: 1 } ] }\n    expect: { rows: [ { city: '' } ] }\n",
    );
    assert!(seen.out.contains("  unexpected  { city: null }\n  missing     { city:  }\n"), "{}", seen.out);
}

#[test]
fn quarantined_rows_are_compared_apart_from_the_tables() {
    let given = "    model: kept\n    given: { orders: [ { id: 1, city: a, amount: -1 }, { id: 2, amount: 2 } ] }\n";
    ends(
        0,
        &format!(
            "  - name: both\n{given}    expect:\n      rows: [ {{ id: 2 }} ]\n      quarantine: [ {{ id: 1, amount: -1.00, _rule: positive }} ]\n"
        ),
    );
    let seen = ends(
        1,
        &format!(
            "  - name: none\n{given}    expect: {{ quarantine: [] }}\n  - name: other\n{given}    expect: {{ quarantine: [ {{ id: 1, _rule: negative }} ] }}\n"
        ),
    );
    insta::assert_snapshot!("quarantine_difference", seen.out);
}

#[test]
fn rows_without_a_partner_are_quarantined_and_models_on_the_way_refuse_theirs() {
    let shop = shop(
        "  - name: unknown city
    model: known
    given:
      names: [ { city: Recife } ]
      orders: [ { id: 1, city: Recife, amount: 1 }, { id: 2, city: Olinda, amount: 1 }, { id: 3, amount: 1 } ]
    expect:
      rows: [ { id: 1 }, { id: 3 } ]
      quarantine: [ { id: 2 } ]
  - name: a rule on the way
    model: cities
    given: { orders: [ { id: 1, city: Recife, amount: -1 }, { id: 2, city: Recife, amount: 2 } ] }
    expect: { rows: [ { city: Recife, orders: 1, revenue: 2.00 } ] }
",
    );
    let known = "  known:\n    sql: select id, city from orders\n    checks: [ { relationships: { column: city, to: names.city }, on_fail: quarantine } ]\n";
    shop.write("pipelines/sales.yaml", format!("{PIPELINE}{known}"));
    shop.exits(0, &["test"]);
}

#[test]
fn given_rows_that_nothing_reads_are_pointed_at() {
    let told = ends(
        0,
        "  - name: t\n    model: names\n    given: { cities: [ { city: a } ], orders: [] }\n    expect: { rows: [] }\n",
    );
    assert!(told.err.contains("warning[unread_rows]: `names` doesn't read `cities`"), "{}", told.err);
}

#[test]
fn an_expected_error_is_a_part_of_the_message() {
    let tests = "  - name: key
    model: kept
    given: { orders: [ { id: 1, amount: 1 }, { id: 1, amount: 2 } ] }
    expect: { error: key_unique }
  - name: rule
    model: kept
    given: { orders: [ { id: 1, amount: 100 } ] }
    expect: { error: the check `small` failed on 1 row }
  - name: data
    model: ratio
    given: { orders: [ { id: 1, amount: 0 } ] }
    expect: { error: Divide by zero }
";
    ends(0, tests);
    let seen = ends(
        1,
        "  - name: another error
    model: ratio
    given: { orders: [ { id: 1, amount: 0 } ] }
    expect: { error: overflow }
  - name: no error
    model: ratio
    given: { orders: [ { id: 1, amount: 1 } ] }
    expect: { error: Divide by zero }
  - name: an error instead of rows
    model: ratio
    given: { orders: [ { id: 1, amount: 0 } ] }
    expect: { rows: [] }
",
    );
    insta::assert_snapshot!("errors", seen.out);
}

#[test]
fn rows_come_from_csv_and_files_and_other_models_are_computed_or_given() {
    let shop = shop(
        "  - name: csv
    model: cities
    given: { orders: { csv: \"amount,id,city\\n1.50,1,\\\"a, b\\\"\\n2,2,\\n3,3,\\\"\\\"\\n\" } }
    expect: { rows: { csv: \"city,revenue\\n\\\"a, b\\\",1.50\\n,2.00\\n\\\"\\\",3.00\\n\" } }
  - name: file
    model: cities
    given: { orders: { file: tests/orders.csv } }
    expect: { rows: { file: tests/cities.csv } }
  - name: the model between is given
    model: cities
    given: { kept: [ { id: 1, city: c, amount: -7 } ] }
    expect: { rows: [ { city: c, revenue: -7.00 } ] }
  - name: nothing is given
    model: cities
    given: {}
    expect: { rows: [] }
  - name: the clock stands
    model: late
    now: 2020-01-02T00:00:00Z
    given: { orders: [ { id: 1, at: 2020-01-01T23:59:59Z }, { id: 2, at: 2020-01-02T00:00:00Z } ] }
    expect: { rows: [ { id: 1 } ] }
",
    );
    shop.write("tests/orders.csv", "id,city,amount\r\n7,a,0.10\r\n8,a,0.20\r\n");
    shop.write("tests/cities.csv", "city,orders,revenue\na,2,0.30\n");
    let seen = shop.exits(0, &["test"]);
    assert!(seen.out.ends_with("5 passed, 0 failed\n"), "{}", seen.out);
    let lines = shop.exits(0, &["test", "--format", "json"]).json();
    let of_file: Vec<_> = lines.iter().filter(|line| line["test"] == "file").collect();
    assert_eq!((&of_file[0]["model"], &of_file[0]["mode"]), (&"cities".into(), &"batch".into()));
    assert!(of_file.iter().all(|line| line["status"] == "ok" && line["detail"].is_null()), "{of_file:?}");
    let chosen = shop.exits(0, &["test", "late"]);
    assert!(chosen.out.ends_with("1 passed, 0 failed\n"), "{}", chosen.out);
}

#[test]
fn unknown_columns_and_wrong_values_are_faults_at_their_characters() {
    let seen = ends(
        2,
        "  - name: unknown columns
    model: kept
    given: { orders: [ { id: 1, amont: 1 } ] }
    expect: { rows: [ { id: 1, citi: x } ], quarantine: [ { _rul: small } ] }
",
    );
    insta::assert_snapshot!("unknown_columns", seen.err);
    let seen = ends(
        2,
        "  - name: wrong values
    model: kept
    given: { orders: [ { id: x, amount: 2.555, at: yesterday } ] }
    expect: { rows: [] }
  - name: a file that isn't there
    model: kept
    given: { orders: { file: tests/nope.csv } }
    expect: { rows: [] }
  - name: columns of csv
    model: kept
    given: { orders: { csv: \"id,amont\\n1,2\\n\" } }
    expect: { rows: [] }
",
    );
    insta::assert_snapshot!("wrong_values", seen.err);
    let seen = ends(
        2,
        "  - name: a file of another kind
    model: kept
    given: { orders: { file: tests/orders.jsonl } }
    expect: { rows: [] }
",
    );
    assert!(seen.err.contains("rows are read from a CSV file, whose name ends with `.csv`"), "{}", seen.err);
}
