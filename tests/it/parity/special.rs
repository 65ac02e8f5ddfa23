//! Values that go wrong elsewhere: NaN, −0.0, sums beyond 64 bits, decimals of 38 digits, days of a clock change, empty texts.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use tidemill::spec::sql_type::SqlType;

use super::data::{Change, RelationSpec, Row, SMALL, Steps, Value, World, random_steps};
use super::harness::{Case, Options, Way, report, run, with_runtime};

/// São Paulo began and ended daylight saving at midnight.
static SPECIAL: World = World {
    zone: "America/Sao_Paulo",
    relations: &[
        RelationSpec {
            name: "s",
            columns: &[
                ("k", SqlType::Integer),
                ("f", SqlType::Double),
                ("d", SqlType::Decimal(38, 2)),
                ("i", SqlType::BigInt),
                ("z", SqlType::Text),
                ("t", SqlType::TimestampTz),
            ],
            not_null: &[],
        },
        RelationSpec {
            name: "u",
            columns: &[("f", SqlType::Double), ("z", SqlType::Text), ("t", SqlType::TimestampTz)],
            not_null: &[],
        },
    ],
    steps: |seed| random_steps(SPECIAL.relations, value, 10, seed),
};

/// 2017-10-15 03:00 UTC, when 00:00 became 01:00, and 2018-02-18 02:00 UTC, when 24:00 became 23:00; in microseconds.
const CHANGES_OF_CLOCKS: [i64; 2] = [1_508_036_400_000_000, 1_518_919_200_000_000];

fn value(_: &str, data_type: &SqlType, rng: &mut ChaCha8Rng) -> Value {
    if rng.random_bool(0.15) {
        return Value::Null;
    }
    let most: i128 = 10i128.pow(36) - 1;
    match data_type {
        SqlType::Integer => Value::Int(rng.random_range(0..3)),
        SqlType::BigInt => Value::Int(*[i64::MAX, i64::MIN, i64::MAX - 1, -1, 1, 7].choose(rng).unwrap()),
        SqlType::Text => Value::Text((*["", "", " ", "a", "\u{0}"].choose(rng).unwrap()).into()),
        SqlType::Decimal(..) => Value::Decimal(*[most, -most, 1, -1, 12_345, most - 1].choose(rng).unwrap()),
        SqlType::Double => Value::Double(
            *[f64::NAN, -f64::NAN, -0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, 1.5, f64::MIN_POSITIVE]
                .choose(rng)
                .unwrap(),
        ),
        _ => {
            let hours = rng.random_range(-30..30);
            Value::Time(CHANGES_OF_CLOCKS.choose(rng).unwrap() + hours * 1_800_000_000)
        }
    }
}

const CASES: &[(&str, &str)] = &[
    ("all", "SELECT * FROM s"),
    ("distinct", "SELECT DISTINCT f, z FROM s"),
    ("float_groups", "SELECT f, count(*) AS c, sum(i) AS si, max(d) AS m FROM s GROUP BY f"),
    (
        "float_extrema",
        "SELECT k, min(f) AS lo, max(f) AS hi, max(DISTINCT f) AS d, min(f) FILTER (WHERE i > 0) AS some, any_value(f) AS any FROM s GROUP BY k",
    ),
    (
        "real_extrema",
        "SELECT k, min(CAST(f AS real)) AS lo, max(CAST(f AS real)) AS hi, count(f) AS c FROM s GROUP BY k",
    ),
    ("float_extrema_of_all", "SELECT min(f) AS lo, max(f) AS hi FROM s"),
    ("float_extrema_again", "SELECT k, max(f) AS m FROM s GROUP BY k; SELECT min(m) AS lo, max(m) AS hi FROM m1"),
    (
        "float_extrema_windows",
        "SELECT k, f, i, max(f) OVER (PARTITION BY k) AS hi, min(f) OVER (PARTITION BY k ORDER BY i ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS lo FROM s",
    ),
    (
        "float_greatest",
        "SELECT k, f, greatest(f, CAST(k AS double)) AS hi, least(f, CAST(k AS double)) AS lo FROM s WHERE f < 2 OR f > 2",
    ),
    ("float_lists", "SELECT k, array_agg(f) AS l, first_value(i ORDER BY f) AS i FROM s GROUP BY k"),
    (
        "float_best",
        "SELECT k, f FROM (SELECT k, f, row_number() OVER (PARTITION BY k ORDER BY f DESC) AS r FROM s) x WHERE r <= 2",
    ),
    ("float_sums", "SELECT k, sum(f) AS s, avg(f) AS a, count(*) AS c FROM s GROUP BY k"),
    ("float_distinct", "SELECT k, count(DISTINCT f) AS c FROM s GROUP BY k"),
    ("float_distinct_more", "SELECT k, count(DISTINCT f) AS c, count(*) AS n, avg(k) AS a FROM s GROUP BY k"),
    ("float_filter", "SELECT k, f FROM s WHERE f > 0 OR f = f"),
    ("float_join", "SELECT s.k, s.f, u.f AS uf, u.z FROM s JOIN u ON s.f = u.f"),
    ("float_left_join", "SELECT s.k, s.f, u.f AS uf, u.z FROM s LEFT JOIN u ON s.f = u.f"),
    ("float_full_join", "SELECT s.k, s.f, u.f AS uf, u.z FROM s FULL JOIN u ON s.f = u.f"),
    ("float_semi", "SELECT s.k, s.f FROM s WHERE EXISTS (SELECT 1 FROM u WHERE u.f = s.f)"),
    ("float_anti", "SELECT s.k, s.f FROM s WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.f = s.f)"),
    ("float_window", "SELECT k, f, row_number() OVER (PARTITION BY f ORDER BY k, i) AS r FROM s"),
    ("float_order", "SELECT k, f, rank() OVER (PARTITION BY k ORDER BY f) AS r FROM s"),
    ("float_except", "SELECT f FROM s EXCEPT SELECT f FROM u"),
    ("float_nested", "SELECT c, count(*) AS n FROM (SELECT f, count(*) AS c FROM s GROUP BY f) x GROUP BY c"),
    ("float_whole", "SELECT f, array_agg(z) AS l FROM s GROUP BY f"),
    ("wrapping_sum", "SELECT k, sum(i) AS si, min(i) AS lo, max(i) AS hi FROM s GROUP BY k"),
    ("wrapping_sum_of_all", "SELECT sum(i) AS si, count(*) AS c FROM s"),
    ("wrapping_distinct", "SELECT z, count(DISTINCT i) AS c, sum(i) AS si FROM s GROUP BY z"),
    ("decimal_extremes", "SELECT k, min(d) AS lo, max(d) AS hi, count(d) AS c FROM s GROUP BY k"),
    ("decimal_groups", "SELECT d, count(*) AS c, sum(k) AS sk, avg(k) AS ak FROM s GROUP BY d"),
    ("decimal_sum", "SELECT k, sum(d) AS sd FROM s GROUP BY k"),
    ("empty_texts", "SELECT z, count(*) AS c, count(z) AS cz, min(z) AS lo, max(z) AS hi FROM s GROUP BY z"),
    ("empty_join", "SELECT s.z, u.z AS uz, count(*) AS c FROM s LEFT JOIN u ON s.z = u.z GROUP BY s.z, u.z"),
    ("empty_lists", "SELECT k, array_agg(z) AS l, string_agg(z, '|') AS t, count(DISTINCT z) AS c FROM s GROUP BY k"),
    ("days", "SELECT date_trunc('day', t) AS day, count(*) AS c, sum(k) AS sk FROM s GROUP BY 1"),
    ("hours", "SELECT date_trunc('hour', t) AS hour, CAST(t AS date) AS day, min(t) AS lo FROM s GROUP BY 1, 2"),
    (
        "bins",
        "SELECT date_bin(INTERVAL '1 day', t) AS bin, count(*) AS c, sum(k) AS sk, max(t) AS hi FROM s GROUP BY 1",
    ),
    ("day_join", "SELECT s.k, s.t, u.t AS ut FROM s JOIN u ON date_trunc('day', s.t) = date_trunc('day', u.t)"),
    ("local", "SELECT CAST(t AS timestamp) AS local, count(*) AS c FROM s GROUP BY 1"),
    (
        "folded_instants",
        "SELECT CAST(to_local_time(t) AS timestamptz) AS u, count(*) AS c, sum(k) AS sk, min(t) AS lo FROM s GROUP BY 1",
    ),
    (
        "gapped_instants",
        "SELECT k, CAST(to_local_time(t) - INTERVAL '30 minutes' AS timestamptz) AS u, TRY_CAST(CAST(CAST(t AS date) AS text) AS timestamptz) AS day FROM s WHERE t >= '2017-10-15' OR t < '2018-02-17 23:30:00'",
    ),
    (
        "instants_join",
        "SELECT s.k, s.t, u.t AS ut FROM s LEFT JOIN u ON CAST(to_local_time(s.t) AS timestamptz) = CAST(to_local_time(u.t) AS timestamptz) AND s.t > timestamp '2017-10-15 00:30:00'",
    ),
    (
        "instants_nested",
        "SELECT max(u) AS last, c FROM (SELECT CAST(date_trunc('hour', to_local_time(t)) - INTERVAL '1 hour' AS timestamptz) AS u, count(*) AS c FROM s GROUP BY 1) x GROUP BY c",
    ),
    ("tumbling_days", "SELECT window_start, window_end, count(*) AS c FROM s GROUP BY tumble(t, INTERVAL '1 day')"),
    ("day_windows", "SELECT k, t, row_number() OVER (PARTITION BY date_trunc('day', t) ORDER BY t, k) AS r FROM s"),
];

#[test]
fn special_values_equal_batch() {
    let strategies = run(&SPECIAL, CASES, &Options::of_environment(2), Way::default());
    assert!(strategies.values().all(|name| *name == "incremental"), "{strategies:?}");
}

/// A row of `a`: key, text, amount.
fn a(key: i64, text: &str, amount: i128) -> Row {
    let (unset, text) = (Value::Null, Value::Text(text.into()));
    vec![Value::Int(key), text, Value::Decimal(amount), unset.clone(), unset.clone(), unset, Value::Bool(true)]
}

/// A row of `b`.
fn b(key: i64, amount: i64) -> Row {
    vec![Value::Int(key), Value::Text("x".into()), Value::Int(amount)]
}

fn added(rows: &[Row]) -> Change {
    Change { added: rows.to_vec(), removed: vec![] }
}

fn removed(rows: &[Row]) -> Change {
    Change { added: vec![], removed: rows.to_vec() }
}

/// Keys that move, groups that empty and return, many equal rows, nothing at all before the first row.
fn written() -> Vec<(&'static str, Steps)> {
    let none = Change::default;
    let many = |row: Row, times: usize| vec![row; times];
    let step = |of_a: Change, of_b: Change| vec![of_a, of_b, Change::default()];
    vec![
        (
            "before any row",
            vec![
                step(none(), none()),
                step(none(), added(&[b(1, 5)])),
                step(added(&[a(1, "x", 100)]), none()),
                step(removed(&[a(1, "x", 100)]), none()),
                step(none(), removed(&[b(1, 5)])),
            ],
        ),
        (
            "keys move",
            vec![
                step(added(&[a(1, "x", 100), a(2, "y", 200)]), added(&[b(1, 5), b(2, 6)])),
                step(Change { removed: vec![a(1, "x", 100)], added: vec![a(2, "x", 100)] }, none()),
                step(Change { removed: vec![a(2, "y", 200)], added: vec![a(1, "y", 200)] }, none()),
                step(none(), Change { removed: vec![b(1, 5), b(2, 6)], added: vec![b(2, 5), b(1, 6)] }),
                step(
                    Change { removed: vec![a(2, "x", 100)], added: vec![a(3, "x", 100)] },
                    Change { removed: vec![b(1, 6)], added: vec![b(3, 6)] },
                ),
            ],
        ),
        (
            "groups empty and return",
            vec![
                step(added(&[a(1, "x", 100), a(1, "y", 50)]), added(&[b(1, 5)])),
                step(removed(&[a(1, "x", 100), a(1, "y", 50)]), none()),
                step(added(&[a(1, "z", 70)]), none()),
                step(Change { removed: vec![a(1, "z", 70)], added: vec![a(1, "z", 70)] }, removed(&[b(1, 5)])),
                step(added(&[a(7, "z", 70)]), none()),
                step(none(), added(&[b(1, 5)])),
            ],
        ),
        (
            "many equal rows",
            vec![
                step(added(&many(a(1, "x", 100), 40)), added(&many(b(1, 5), 3))),
                step(removed(&many(a(1, "x", 100), 39)), added(&many(b(1, 5), 30))),
                step(added(&many(a(1, "x", 100), 50)), removed(&many(b(1, 5), 20))),
                step(removed(&many(a(1, "x", 100), 51)), none()),
                step(added(&many(a(1, "x", 100), 2)), removed(&many(b(1, 5), 13))),
            ],
        ),
    ]
}

const WRITTEN: &[(&str, &str)] = &[
    ("all", "SELECT * FROM a"),
    ("global", "SELECT count(*) AS c, sum(v) AS s, avg(v) AS av, min(g) AS lo, bool_and(ok) AS every FROM a"),
    ("global_join", "SELECT count(*) AS c, sum(b.w) AS s FROM a JOIN b ON a.k = b.k"),
    ("global_distinct", "SELECT count(DISTINCT k) AS d, sum(v) AS s FROM a"),
    ("global_cross", "SELECT x.c, y.s FROM (SELECT count(*) AS c FROM a) x CROSS JOIN (SELECT sum(w) AS s FROM b) y"),
    ("global_scalar", "SELECT k, (SELECT count(*) FROM b) AS c FROM a"),
    ("groups", "SELECT k, count(*) AS c, sum(v) AS s, avg(v) AS av, min(g) AS lo, max(v) AS hi FROM a GROUP BY k"),
    ("group_lists", "SELECT k, array_agg(g) AS l, median(v) AS m FROM a GROUP BY k"),
    ("group_distinct", "SELECT g, count(DISTINCT k) AS d, sum(v) AS s FROM a GROUP BY g"),
    ("join", "SELECT a.k, a.g, b.w FROM a JOIN b ON a.k = b.k"),
    ("left", "SELECT a.k, a.g, b.w FROM a LEFT JOIN b ON a.k = b.k"),
    ("full", "SELECT a.k, a.g, b.w FROM a FULL JOIN b ON a.k = b.k"),
    ("semi", "SELECT a.k, a.g FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k)"),
    ("anti", "SELECT a.k, a.g FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k)"),
    (
        "windows",
        "SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v) AS r, count(*) OVER (PARTITION BY g) AS c FROM a",
    ),
    ("except_all", "SELECT k FROM a EXCEPT ALL SELECT k FROM b"),
    ("models", "SELECT k, sum(v) AS s FROM a GROUP BY k; SELECT count(*) AS c, max(s) AS m FROM m1"),
];

#[test]
fn written_changes_equal_batch() {
    let failures = with_runtime(|runtime| {
        let mut failures = Vec::new();
        for (name, sql) in WRITTEN {
            let case =
                runtime.block_on(Case::new(&SMALL, sql, Way::default())).unwrap_or_else(|e| panic!("{name}: {e}"));
            if !case.is_incremental() {
                println!("{name}: {}", case.last().strategy.reason);
            }
            let mut seen = 0;
            for (what, steps) in written() {
                match runtime.block_on(case.check(&steps)) {
                    Ok(rows) => seen += rows,
                    Err(wrong) => {
                        failures.push(format!("{name}, {what}: {}", report(runtime, &case, sql, steps, &wrong)))
                    }
                }
            }
            assert!(seen > 0 || !failures.is_empty(), "{name} has no rows at any time");
        }
        failures
    });
    assert!(failures.is_empty(), "{} queries differ from batch\n\n{}", failures.len(), failures.join("\n\n"));
}
