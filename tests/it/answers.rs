//! Answers that SQL gives and the engine by itself doesn't: the same in models, however their rows come, and in queries.

use crate::scratch::{Scratch, TIDEMILL_YAML};

const SOURCES: &str = "
pipeline: sales
sources:
  t:
    connector: files
    path: t/*.csv
    format: csv
    settle: 0s
    columns: { id: bigint, n: bigint, x: double, d: \"decimal(10, 2)\", at: timestamptz, clock: timestamp }
  u:
    connector: files
    path: u/*.csv
    format: csv
    settle: 0s
    columns: { k: bigint, y: bigint }
  v:
    connector: files
    path: v/*.csv
    format: csv
    settle: 0s
    columns: { id: bigint, at: timestamp, w: \"decimal(14, 3)\", g: bigint }
models:
";

/// Each query of `t`, `u` and `v`, and its rows.
const ANSWERS: &[(&str, &str)] = &[
    // Intervals are compared by how long they are.
    ("select id from v where at - timestamp '2024-03-09 18:00:00' > interval '1 day' order by id", "3\n4\n"),
    (
        "select id from v where at - timestamp '2024-03-09 18:00:00' between interval '1 day' and interval '1 month' order by id",
        "2\n3\n4\n",
    ),
    (
        "select interval '25 hours' > interval '1 day' as a, interval '24 hours' = interval '1 day' as b, interval '1 month' > interval '40 days' as c",
        "true,true,false\n",
    ),
    (
        "select extract(epoch from timestamp '2024-01-01 00:00:10.5' - timestamp '2024-01-01') as s, extract(epoch from timestamp '2024-01-01' - timestamp '1950-01-01') as e",
        "10.5,2335219200.0\n",
    ),
    // A date beside a time is its midnight, as far off as it may be.
    ("select id from v where at < date '9999-12-31' order by id", "1\n2\n3\n4\n"),
    ("select id from v where at between date '0001-01-01' and date '2024-03-11' order by id", "1\n2\n"),
    ("select id from v where date '9999-12-31' - at > interval '1 day' order by id", "1\n2\n3\n4\n"),
    ("select id from t where at > date '1000-01-01' and at < date '2018-01-31' + 1 order by id", "1\n2\n"),
    ("select id from u join v on k = id and date '9999-12-31' > now() and y = 7 order by id", "2\n"),
    (
        "select id, case id when 1 then at else date '9999-12-31' end as until from v where id < 3 order by id",
        "1,2024-03-10T05:00:00\n2,9999-12-31T00:00:00\n",
    ),
    (
        "select at from v where id = 1 union all select date '9999-12-31' order by at",
        "2024-03-10T05:00:00\n9999-12-31T00:00:00\n",
    ),
    (
        "select a.id from v a join (select date '2024-03-10' as d, id from v) b on date_trunc('day', a.at) = b.d and a.id = b.id order by a.id",
        "1\n2\n",
    ),
    (
        "select date_bin(interval '15 minutes', at + interval '900 years 20 minutes') as b, date_bin(interval '7 days', at - interval '1000 years', timestamp '2024-03-10') as w from v where id = 1 order by b",
        "2924-03-10T05:15:00,1024-03-07T00:00:00\n",
    ),
    // Two zeros are one, in longer lists and in counts of distinct values, too.
    ("select id from t where -x * 0 in (0.0, 5.0, 6.0, 7.0) order by id", "1\n2\n4\n"),
    ("select id from t where x * 0 not in (-0.0, 5.0, 6.0, 7.0, 8) order by id", ""),
    ("select count(distinct case when id = 2 then -x * 0 else x * 0 end) as c from t", "1\n"),
    (
        "select array_to_string(array_agg(distinct case when id = 2 then -x * 0 else x * 0 end), ' ') as a from t where id < 3",
        "0\n",
    ),
    // Branches of a union may name their columns otherwise.
    (
        "select k, y from u where k = 2 union all (select distinct g, id from v where id = 2) order by 1, 2",
        "0,2\n2,7\n2,8\n",
    ),
    (
        "select date_trunc('month', cast(at as date)) as m, count(*) as c from v group by 1 order by 1",
        "2024-03-01T00:00:00,4\n",
    ),
    (
        "select date_trunc('quarter', at + interval '900 years') as q, date_trunc('week', cast(at + interval '900 years' as timestamptz)) as w, date_trunc('hour', case id when 1 then at else at - interval '1000 years' end) as h from v where id < 3 order by 1, 2, 3",
        "2924-01-01T00:00:00,2924-03-06T03:00:00Z,1024-03-10T18:00:00\n2924-01-01T00:00:00,2924-03-06T03:00:00Z,2024-03-10T05:00:00\n",
    ),
    // A number beside a date is of days.
    (
        "select id, cast(at as date) + 14 as d, 1 + cast(at as date) as e from v where id = 3 order by id",
        "3,2024-03-25,2024-03-12\n",
    ),
    // A decimal beside a double is a double.
    ("select id from t where x > 0.0 order by id", "1\n2\n4\n"),
    ("select id from t where x in (1e-18, 0.5) order by id", "1\n2\n"),
    ("select id from t where x between 0.000000000000000000001 and 0.6 order by id", "1\n2\n"),
    ("select id from t where x = d order by id", "2\n"),
    ("select id, coalesce(x, 0.25) as c from t order by id", "1,1e-18\n2,0.5\n3,0.25\n4,1e30\n"),
    ("select id, case when n = 0 then 0.0 else x end as c from t order by id", "1,1e-18\n2,0.0\n3,\n4,0.0\n"),
    (
        "select id, greatest(x, 0.1) as c, nullif(x, 0.5) as d from t order by id",
        "1,0.1,1e-18\n2,0.5,\n3,0.1,\n4,1e30,1e30\n",
    ),
    ("select x as v from t where id = 4 union all select 1.5 order by v", "1.5\n1e30\n"),
    ("select d as v from t where id = 2 union select x from t where id < 3 order by v", "1e-18\n0.5\n"),
    ("select a.id, b.id as other from t a join t b on a.x = b.d order by 1", "2,2\n"),
    ("select id from t where x in (select d from t) order by id", "2\n"),
    ("select id from t where d not in (select x from t where x is not null) order by id", "1\n3\n4\n"),
    ("select id from t where x > (select 0.4) order by id", "2\n4\n"),
    // An aggregate of all rows that belong to a row is a row, where there are none too.
    ("select id from t where exists (select max(y) from u where u.k = t.id) order by id", "1\n2\n3\n4\n"),
    ("select id from t where not exists (select max(y) from u where u.k = t.id) order by id", ""),
    ("select id from t where exists (select 1 from u where u.k = t.id having count(*) = 0) order by id", "3\n4\n"),
    ("select id from t where exists (select max(y) from u where u.k = t.id having max(y) > 6) order by id", "2\n"),
    ("select id from t where 0 in (select count(*) from u where u.k = t.id) order by id", "3\n4\n"),
    ("select id from t where 0 not in (select count(*) from u where u.k = t.id) order by id", "1\n2\n"),
    ("select id from t where 2 in (select count(*) from u where u.k = t.id having min(y) < 6) order by id", "1\n"),
    (
        "select id from t where 2 not in (select count(*) from u where u.k = t.id having min(y) < 6) order by id",
        "2\n3\n4\n",
    ),
    ("select id from t where 0 = any (select count(*) from u where u.k = t.id) order by id", "3\n4\n"),
    ("select id from t where 0 <> all (select count(*) from u where u.k = t.id) order by id", "1\n2\n"),
    ("select id from t where exists (select distinct count(*) from u where u.k = t.id) order by id", "1\n2\n3\n4\n"),
    // Two zeros are equal.
    (
        "select case -x * 0 when 0.0 then 'zero' else 'other' end as c, nullif(-x * 0, 0) as d from t where id = 2",
        "zero,\n",
    ),
    // AT TIME ZONE, either way.
    (
        "select at at time zone 'Asia/Tokyo' as there, clock at time zone 'Asia/Tokyo' as instant from t where id = 1",
        "2018-01-31T19:00:00,2018-01-31T01:00:00Z\n",
    ),
    (
        "select max(at at time zone 'Asia/Tokyo') as there, max(at) as instant from t",
        "2018-02-01T08:30:00,2018-01-31T23:30:00Z\n",
    ),
    ("select cast(at at time zone 'UTC' as date) as day from t where id = 2", "2018-01-31\n"),
    (
        "select (clock at time zone 'UTC') at time zone 'Europe/Madrid' as c from t where id = 1",
        "2018-01-31T11:00:00\n",
    ),
    // Nulls that lead and lag pass over, whichever way rows are sorted.
    (
        "select id, lead(d, 2) ignore nulls over (order by id) as two, lead(x) ignore nulls over (order by id) as one from t order by id",
        "1,0.10,0.5\n2,2.00,1e30\n3,,1e30\n4,,\n",
    ),
    (
        "select id, lead(x, 2, 7.0) ignore nulls over (order by id) as a, lead(at, 2) ignore nulls over (partition by n = 9 order by id desc) as b from t order by id",
        "1,1e30,\n2,7.0,\n3,7.0,2018-01-31T10:00:00Z\n4,7.0,2018-01-31T10:00:00Z\n",
    ),
    (
        "select id, row_number() over (order by id desc) as r, lag(x, 2) ignore nulls over (order by id) as l, lag(x, -2) ignore nulls over (order by id) as m from t order by id",
        "1,4,,1e30\n2,3,,\n3,2,1e-18,\n4,1,1e-18,\n",
    ),
    // Frames that move over booleans.
    (
        "select id, bool_or(x > 0.4) over w as some, bool_and(x > 0.4) over w as every from t window w as (order by id rows between 1 preceding and current row) order by id",
        "1,false,false\n2,true,false\n3,true,true\n4,true,true\n",
    ),
    (
        "select id, bool_or(x > 0.4) filter (where n = 2) over (order by id rows between current row and 1 following) as some from t order by id",
        "1,false\n2,\n3,\n4,\n",
    ),
    // Hours that come to a date or go from it make a time.
    (
        "select id, cast(clock as date) + interval '36 hours' as a, cast(clock as date) - interval '1 hour' as b, interval '1 day 6 hours' + cast(clock as date) as c, cast(clock as date) + interval '1 month' - interval '1 day' as d from t where id = 1",
        "1,2018-02-01T12:00:00,2018-01-30T23:00:00,2018-02-01T06:00:00,2018-02-27\n",
    ),
    (
        "select id from t where clock between cast(clock as date) + interval '9 hours' and cast(clock as date) + interval '10 hours' order by id",
        "1\n",
    ),
    (
        "select id, case when clock < cast(clock as date) + interval '12 hours' then 'am' else 'pm' end as half, rank() over (order by cast(clock as date) + interval '1 hour' desc nulls last) as r from t order by id",
        "1,am,1\n2,pm,2\n3,pm,2\n4,pm,2\n",
    ),
    (
        "select day + interval '30 minutes' as half_past from (select cast(clock as date) - interval '1 hour' as day from t where id = 1) s union all select cast(clock as date) from t where id = 1 order by 1",
        "2018-01-30T23:30:00\n2018-01-31T00:00:00\n",
    ),
    (
        "select a.id, b.id as other from t a join t b on a.clock = cast(b.clock as date) + interval '10 hours' order by 1",
        "1,1\n",
    ),
    // Times without seconds.
    ("select id from t where at >= '2018-01-31 21:30' order by id", "2\n"),
    (
        "select id from t where at = timestamptz '2018-01-31T12:00+02:00' or clock > timestamp '2018-01-31 10:00' order by id",
        "1\n",
    ),
    (
        "select cast('2018-01-31 10:00' as timestamp) as a, cast('2018-01-31T10:00Z' as timestamptz) as b, try_cast('2018-01-31 25:00' as timestamp) as c, to_timestamp_micros('2018-01-31T10:00Z') as d from t where id = 1",
        "2018-01-31T10:00:00,2018-01-31T10:00:00Z,,2018-01-31T10:00:00Z\n",
    ),
    (
        "select id, cast(day || ' 10:30' as timestamp) as a, cast(day || 'T10:30Z' as timestamptz) as b, try_cast(day || ' noon' as timestamp) as c from (select id, cast(cast(clock as date) as text) as day from t) s order by id",
        "1,2018-01-31T10:30:00,2018-01-31T10:30:00Z,\n2,,,\n3,,,\n4,,,\n",
    ),
    // What may fail is asked of the rows that the rest leaves open.
    ("select id from t where n <> 0 and 100 / n > 30 order by id", "1\n3\n"),
    ("select id from t where 100 / n > 30 and n <> 0 order by id", "1\n3\n"),
    ("select id from t where n = 0 or 100 / n < 30 order by id", "2\n4\n"),
    ("select id from (select * from t where n <> 0) s where 100 / n > 30 order by id", "1\n3\n"),
    ("select id, n <> 0 and 100 / n > 30 as high from t order by id", "1,true\n2,false\n3,true\n4,false\n"),
    ("select id from t where case when n <> 0 then 100 / n > 30 else false end order by id", "1\n3\n"),
    ("select t.id from t join u on t.id = u.k and n <> 0 and (y + 10) / n > 5 order by 1", "1\n1\n"),
    (
        "select a.id, b.id as other from t a left join t b on a.n <> 0 and b.n = 4 / a.n order by 1, 2",
        "1,1\n1,3\n2,\n3,1\n3,3\n4,\n",
    ),
    ("select sum(case when n <> 0 and 100 / n > 1 then 1 else 0 end) as s from t", "2\n"),
    ("select id, count(*) over (partition by n <> 0 and 100 / n > 1) as c from t order by id", "1,2\n2,2\n3,2\n4,2\n"),
    (
        "select id, lag(n <> 0 and 100 / n > 30) over (partition by n <> 0 order by id) as c from t order by id",
        "1,\n2,\n3,true\n4,false\n",
    ),
    (
        "select n = 0 or 100 / n > 30 as q, count(*) filter (where n <> 0 and 100 / n > 1) as c from t group by n = 0 or 100 / n > 30",
        "true,2\n",
    ),
    (
        "select id, sum(100 / n) filter (where n <> 0) over (partition by id) as s from t order by id",
        "1,50\n2,\n3,50\n4,\n",
    ),
    // What leaves a frame leaves nothing behind.
    (
        "select id, s, d from (select id, sum(x) over w as s, stddev_pop(x) over w as d from t window w as (order by id desc rows between 1 preceding and current row)) q where s < 1 order by id",
        "1,0.5,0.25\n2,0.5,0.0\n",
    ),
    ("select sum(100 / n) filter (where n <> 0) as s, count(100 / n) filter (where n <> 0) as c from t", "100,2\n"),
    // Casts that keep no order, and casts that lose digits: by bounds of what is cast nothing is known.
    ("select id from v where cast(at as time) > time '06:00:00' order by id", "2\n4\n"),
    ("select id from v where cast(g as boolean) order by id", "1\n3\n"),
    ("select id from v where cast(at as date) > date '2024-03-10' order by id", "3\n4\n"),
    ("select id from v where cast(w as integer) = 3 order by id", "1\n"),
    ("select id from v where cast(w as bigint) in (3, 7) order by id", "1\n2\n"),
    ("select id, cast(w as decimal(5, 1)) <= 3.2 as c from v order by id", "1,true\n2,false\n3,true\n4,\n"),
    (
        "select a.id, a.at from v a join v b on cast(a.at as time) = cast(b.at as time) and a.id <> b.id order by 1",
        "2,2024-03-10T18:00:00\n4,2024-03-11T18:00:00\n",
    ),
    (
        "select a.id, a.at from v a join t b on cast(a.at as timestamptz) = b.at + interval '53518 hours' order by 1",
        "1,2024-03-10T05:00:00\n",
    ),
    (
        "select cast(w as integer) as i, count(*) as c, sum(cast(w as integer)) as s from v group by cast(w as integer) order by i",
        "-3,1,-3\n3,1,3\n7,1,7\n,1,\n",
    ),
    // What is rounded has one type.
    ("select id from v where round(w, 0) in (3.000, 7.0) order by id", "1\n2\n"),
    ("select id from v where round(w, 1) < w order by id", "1\n3\n"),
    ("select a.id from v a join v b on a.w = round(b.w, 0) order by 1", "2\n"),
    (
        "select id, case when w > 5 then round(w, 0) else w end as c, round(w, -1) as tens, round(w, 3 - 2) as one from v order by id",
        "1,3.249,0,3.200\n2,7.000,10,7.000\n3,-3.090,0,-3.100\n4,,,\n",
    ),
    // IS DISTINCT FROM ends where AND and OR begin.
    ("select id from v where g is distinct from 0 and w > 0 order by id", "1\n"),
    ("select id, g is not distinct from 0 or w > 0 as c from v order by id", "1,true\n2,true\n3,false\n4,true\n"),
    // Lists of distinct values, one up and one down.
    (
        "select array_to_string(array_agg(distinct g order by g), ' ') as up, array_to_string(array_agg(distinct g order by g desc), ' ') as down, string_agg(distinct cast(g as text), ' ' order by cast(g as text) desc) as texts from v",
        "-2 -1 0,0 -1 -2,0 -2 -1\n",
    ),
    // Inside of expressions a name is a column of what is read.
    ("select k, sum(y) as y from u group by k order by sum(y) desc", "2,15\n1,11\n"),
    ("select k, count(*) as y from u group by k order by sum(y) desc", "2,2\n1,2\n"),
    (
        "select k, -y as y from (select k, y from u union all select k, y from u) group by k, y having y > 7 order by 1",
        "2,-8\n",
    ),
    // An order counts under a skip alone, too.
    ("select max(y) as m from (select y from u order by y desc offset 3) x", "5\n"),
    ("select k, bit_xor(distinct y) as b from u group by k order by k", "1,3\n2,15\n"),
    ("select k, first_value(y order by y, k, y) as f from u group by k order by k", "1,5\n2,7\n"),
    (
        "select x > 0.4 as big, count(*) as c from t group by rollup (x > 0.4) order by c desc, big",
        ",4\ntrue,2\nfalse,1\n,1\n",
    ),
    // A condition on one side of a join of a table with itself says nothing of the other.
    ("select b.k, b.y from u a right join u b on a.k = b.k and a.y > b.y where a.y is null order by 1", "1,6\n2,8\n"),
];

fn shop() -> Scratch {
    let named = |(at, (sql, _)): (usize, &(&str, &str))| {
        let order = sql.rsplit_once(" order by").filter(|(_, order)| !order.contains(')'));
        let sql = order.map_or(*sql, |(unordered, _)| unordered);
        format!("  m{at}:\n    sql: {sql}\n")
    };
    let models: String = ANSWERS.iter().enumerate().map(named).collect();
    let shop = Scratch::new(&format!("{SOURCES}{models}"));
    shop.write("tidemill.yaml", format!("{TIDEMILL_YAML}timezone: America/Sao_Paulo\n"));
    let t = |rows: &str| format!("id,n,x,d,at,clock\n{rows}");
    shop.write("t/1.csv", t("1,2,1e-18,1.00,2018-01-31T10:00:00Z,2018-01-31 10:00:00\n"));
    shop.write("u/1.csv", "k,y\n1,5\n1,6\n2,7\n");
    let v = "1,2024-03-10 05:00:00,3.249,-1\n2,2024-03-10 18:00:00,7.000,0\n3,2024-03-11 05:30:00,-3.090,-2\n";
    shop.write("v/1.csv", format!("id,at,w,g\n{v}"));
    shop
}

#[test]
fn queries_answer_as_sql_says() {
    let shop = shop();
    add_rest(&shop);
    shop.exits(0, &["run"]);
    for (sql, rows) in ANSWERS {
        assert_eq!(shop.rows(sql), *rows, "{sql}");
    }
}

#[test]
fn models_answer_so_however_rows_come() {
    let shop = shop();
    shop.exits(0, &["run"]);
    add_rest(&shop);
    shop.exits(0, &["run"]);
    // Against the same queries over all rows, whose answers the other test knows.
    shop.exits(0, &["verify"]);
}

/// The other rows; of a file, so that some of what may fail stands in one batch with what guards it.
fn add_rest(shop: &Scratch) {
    let rows = "2,0,0.5,0.50,2018-01-31T23:30:00Z,\n4,0,1e30,2.00,,\n3,2,,0.10,,\n";
    shop.write("t/2.csv", format!("id,n,x,d,at,clock\n{rows}"));
    shop.write("u/2.csv", "k,y\n2,8\n");
    shop.write("v/2.csv", "id,at,w,g\n4,2024-03-11 18:00:00,,0\n");
}

#[test]
fn a_check_is_asked_of_the_rows_that_its_rest_leaves_open() {
    let checked = "  m:\n    sql: select id, n from t\n    checks:\n      - n = 0 or 100 / n > 30\n";
    let shop = Scratch::new(&format!("{SOURCES}{checked}"));
    shop.write("t/1.csv", "id,n,x,d,at,clock\n1,0,,,,\n2,3,,,,\n3,0,,,,\n4,2,,,,\n");
    shop.write("u/1.csv", "k,y\n");
    shop.write("v/1.csv", "id,at,w,g\n");
    assert_eq!(shop.statuses(0, &[]), ["m ok"]);
}

#[test]
fn a_zone_that_is_none_is_a_fault() {
    let shop = shop();
    let fault = shop.exits(2, &["query", "select at at time zone 'Mars/Base' from t"]).err;
    assert!(fault.contains("no time zone is named 'Mars/Base'"), "{fault}");
    let fault = shop.exits(2, &["query", "select id at time zone 'UTC' from t"]).err;
    assert!(fault.contains("AT TIME ZONE is of a time"), "{fault}");
}

#[test]
fn one_row_a_value_of_a_column_that_is_never_null_is_verified() {
    let latest = "  m:\n    key: [k]\n    sql: select distinct on (k) k, y from w order by k, y desc\n";
    let never_null = "  w:\n    connector: files\n    path: u/*.csv\n    format: csv\n    settle: 0s\n    columns: { k: { type: bigint, nullable: false }, y: bigint }\n";
    let shop = Scratch::new(&format!("{}{latest}", SOURCES.replace("models:\n", &format!("{never_null}models:\n"))));
    shop.write("u/1.csv", "k,y\n1,5\n1,6\n2,7\n");
    shop.exits(0, &["run", "m"]);
    shop.write("u/2.csv", "k,y\n2,8\n3,\n");
    shop.exits(0, &["run", "m"]);
    assert_eq!(shop.rows("select k, y from m order by k"), "1,6\n2,8\n3,\n");
    shop.exits(0, &["verify", "m"]);
}

#[test]
fn months_of_dates_are_maintained() {
    let months =
        "  m:\n    sql: select date_trunc('month', cast(at as date)) as month, sum(id) as n from v group by 1\n";
    let shop = Scratch::new(&format!("{SOURCES}{months}"));
    shop.write("v/1.csv", "id,at,w,g\n1,2024-03-10 05:00:00,,\n4,2024-05-01 00:00:00,,\n5,2024-05-02 00:00:00,,\n");
    shop.exits(0, &["run", "m"]);
    shop.write("v/2.csv", "id,at,w,g\n2,2024-03-11 05:00:00,,\n");
    let run = shop.exits(0, &["run", "m", "--format", "json"]).json();
    assert_eq!(run[0]["strategy"], "incremental");
    assert_eq!(shop.rows("select month, n from m order by 1"), "2024-03-01T00:00:00,3\n2024-05-01T00:00:00,9\n");
}
