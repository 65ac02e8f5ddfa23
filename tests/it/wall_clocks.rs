//! Wall-clock times on the days when a zone's clocks change, and at the calendar's end: the same in sources, models and queries.

use crate::scratch::{Scratch, TIDEMILL_YAML};

const PIPELINE: &str = "
pipeline: sales
sources:
  visits:
    connector: files
    path: data/*.csv
    format: csv
    settle: 0s
    columns: { id: bigint, t: timestamp, z: timestamptz, x: text, d: date }
models:
  read:
    sql: |
      select id, z, cast(t as timestamptz) as of_time, cast(x as timestamptz) as of_text, try_cast(x as timestamptz) as tried,
        cast(d as timestamptz) as of_date, to_timestamp_micros(x) as called
      from visits where z >= '2018-11-04' or t < timestamptz '2018-11-04 00:00:00' or x is null
    key: [id]
  hours:
    sql: select date_trunc('hour', cast(t as timestamptz)) as hour, count(*) as visits from visits group by 1
    key: [hour]
    checks:
      - hour >= '2017-10-15' and hour <> '2018-11-04 02:00:00'
";

/// São Paulo had no 2018-11-04 00:00 to 01:00, and 2018-02-17 23:00 to 24:00 twice.
fn shop() -> Scratch {
    let shop = Scratch::new(PIPELINE);
    shop.write("tidemill.yaml", format!("{TIDEMILL_YAML}timezone: America/Sao_Paulo\n"));
    let row = |id: u32, at: &str, day: &str| format!("{id},{at},{at},{at},{day}\n");
    let rows = [row(1, "2018-11-04 00:30:00", "2018-11-04"), row(2, "2018-02-17 23:30:00", "2018-02-17")];
    shop.write("data/1.csv", format!("id,t,z,x,d\n{}", rows.concat()));
    shop
}

#[test]
fn gaps_go_forward_and_folds_are_earlier_in_sql_too() {
    let shop = shop();
    assert_eq!(shop.statuses(0, &[]), ["read ok", "hours ok"]);
    let (gap, fold) = ("2018-11-04T03:30:00Z", "2018-02-18T01:30:00Z");
    let first = [
        format!("1,{gap},{gap},{gap},{gap},2018-11-04T03:00:00Z,{gap}\n"),
        format!("2,{fold},{fold},{fold},{fold},2018-02-17T02:00:00Z,{fold}\n"),
    ];
    assert_eq!(shop.rows("select * from read order by id"), first.concat());
    let later =
        "3,2018-11-04 01:30:00,2018-11-04T03:30:00Z,2018-11-04 03:30:00Z,\n4,2018-11-03 12:00:00,,,2018-11-03\n";
    shop.write("data/2.csv", format!("id,t,z,x,d\n{later}"));
    let models = shop.exits(0, &["run", "--format", "json"]).json();
    assert!(models.iter().all(|model| model["strategy"] == "incremental"), "{models:?}");
    let second =
        [format!("3,{gap},{gap},{gap},{gap},,{gap}\n"), "4,,2018-11-03T15:00:00Z,,,2018-11-03T03:00:00Z,\n".into()];
    assert_eq!(shop.rows("select * from read order by id"), [first.concat(), second.concat()].concat());
    assert_eq!(
        shop.rows("select * from hours order by hour"),
        "2018-02-18T01:00:00Z,1\n2018-11-03T15:00:00Z,1\n2018-11-04T03:00:00Z,2\n"
    );
    shop.exits(0, &["verify"]);
}

#[test]
fn queries_read_wall_clocks_as_sources_do() {
    let shop = shop();
    shop.exits(0, &["run"]);
    let ids = |condition: &str| shop.rows(&format!("select id from visits where {condition} order by id"));
    assert_eq!(ids("z >= '2018-11-04'"), "1\n");
    assert_eq!(ids("z = '2018-11-04 00:30:00'"), "1\n");
    assert_eq!(ids("z in ('2018-02-17 23:30:00', '2018-11-04')"), "2\n");
    assert_eq!(ids("z between timestamp '2018-02-17 23:30:00' and date '2018-11-04'"), "2\n");
    assert_eq!(ids("t = z"), "1\n2\n");
    assert_eq!(ids("x = '2018-11-04 00:30:00' and z = x"), "1\n");
    assert_eq!(ids("t at time zone 'America/Sao_Paulo' = z"), "1\n2\n");
    assert_eq!(ids("arrow_cast(t, 'Timestamp(Microsecond, Some(\"America/Sao_Paulo\"))') = z"), "1\n2\n");
    assert_eq!(ids("id in (select max(id) from visits where z < '2018-11-04 00:00:00')"), "2\n");
    assert_eq!(
        shop.rows("select z from visits where id = 1 union all select t from visits where id = 1"),
        "2018-11-04T03:30:00Z\n".repeat(2)
    );
    let days = "select distinct date_trunc('day', z) as day from visits order by day";
    assert_eq!(shop.rows(days), "2018-02-17T02:00:00Z\n2018-11-04T03:00:00Z\n");
    // A text's own offset counts, in UTC nothing changes, and what is no time isn't one.
    assert_eq!(shop.rows("select cast('2018-11-04T00:30:00-05:00' as timestamptz)"), "2018-11-04T05:30:00Z\n");
    assert_eq!(
        shop.rows("select cast('2018-11-04T00:30:00' as timestamp) at time zone 'UTC'"),
        "2018-11-04T00:30:00Z\n"
    );
    assert_eq!(shop.rows("select try_cast('noon' as timestamptz) is null"), "true\n");
    // The other way an instant is what clocks show there; the hour that comes twice is shown so both times.
    assert_eq!(
        shop.rows("select cast(z as timestamp) as t, z::timestamp(0) as u, extract(hour from cast(z as timestamp)) from visits order by id"),
        "2018-11-04T01:30:00,2018-11-04T01:30:00,1\n2018-02-17T23:30:00,2018-02-17T23:30:00,23\n"
    );
    let again = "select cast(timestamptz '2018-02-18T02:30:00Z' as timestamp) as t, cast(timestamptz '2018-02-18T02:30:00Z' as date) as d";
    assert_eq!(shop.rows(again), "2018-02-17T23:30:00,2018-02-17\n");
    let seen = shop.exits(3, &["query", "select cast('noon' as timestamptz)"]);
    assert!(seen.err.contains("Error parsing timestamp from 'noon'"), "{}", seen.err);
    // What a constant comes to is known before files are read, so that they can be left out.
    let plan = shop.exits(0, &["query", "explain select id from read where z >= '2018-11-04'"]).out;
    assert!(plan.contains("1541300400000000") && !plan.contains("tidemill_instant"), "{plan}");
}

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
