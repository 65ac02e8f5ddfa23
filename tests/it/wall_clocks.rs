//! Wall-clock times where they are hard to read: at the calendar's end.

use crate::scratch::{Scratch, TIDEMILL_YAML};

#[test]
fn times_go_to_the_end_of_the_calendar() {
    let shop = Scratch::new(
        "
pipeline: sales
sources:
  prices:
    connector: files
    path: data/*.csv
    format: csv
    settle: 0s
    columns: { id: bigint, t: timestamp, z: timestamptz }
models:
  valid:
    sql: select id, t, z, cast(t as timestamptz) as zoned from prices where z >= timestamptz '9999-12-30 22:00:00'
    key: [id]
",
    );
    shop.write("tidemill.yaml", format!("{TIDEMILL_YAML}timezone: America/Sao_Paulo\n"));
    shop.write(
        "data/1.csv",
        "id,t,z\n1,9999-12-31,9999-12-31\n2,9999-12-31T20:59:59.999999,9999-12-31T23:59:59.999999Z\n",
    );
    shop.exits(0, &["run"]);
    let rows = [
        "1,9999-12-31T00:00:00,9999-12-31T03:00:00Z,9999-12-31T03:00:00Z\n",
        "2,9999-12-31T20:59:59.999999,9999-12-31T23:59:59.999999Z,9999-12-31T23:59:59.999999Z\n",
    ];
    assert_eq!(shop.rows("select * from valid order by id"), rows.concat());
    assert_eq!(shop.rows("select id from prices_quarantine"), "");
    let json = shop.exits(0, &["query", "--format", "json", "select t, z from valid where id = 1"]).json();
    assert_eq!(json, [serde_json::json!({ "t": "9999-12-31T00:00:00", "z": "9999-12-31T03:00:00Z" })]);
    let table = shop.exits(0, &["query", "--format", "table", "select z from valid"]).out;
    assert!(table.contains("9999-12-31T23:59:59.999999Z"), "{table}");
    // Beyond the last year as UTC has it, and still in the calendar there.
    shop.write("data/2.csv", "id,t,z\n3,9999-12-31T23:59:59,9999-12-31T23:59:59\n");
    shop.exits(0, &["run"]);
    let last = "3,9999-12-31T23:59:59,+10000-01-01T02:59:59Z,+10000-01-01T02:59:59Z\n";
    assert_eq!(shop.rows("select * from valid where id = 3"), last);
    shop.exits(0, &["verify"]);
}
