//! Every function of the session: how its changes are found is written down, and it is maintained to the engine's own values.

use std::collections::BTreeSet;

use tidemill::plan::maintain::{AGGREGATES, AggregateClass, WINDOWS};
use tidemill::plan::{Clock, session};

use super::data::SMALL;
use super::harness::{Case, Options, Way, run, with_runtime};
use crate::plan_project::Builder;

/// A call of each aggregate over `a`; aliases have one of their own.
const CALLS: &[(&str, &str)] = &[
    ("any_value", "any_value(g)"),
    ("approx_distinct", "approx_distinct(g)"),
    ("approx_median", "approx_median(f)"),
    ("approx_percentile_cont", "approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY f)"),
    ("approx_percentile_cont_with_weight", "approx_percentile_cont_with_weight(k + 1, 0.5) WITHIN GROUP (ORDER BY f)"),
    ("array_agg", "array_agg(g)"),
    ("avg", "avg(v)"),
    ("bit_and", "bit_and(n)"),
    ("bit_or", "bit_or(n)"),
    ("bit_xor", "bit_xor(n)"),
    ("bool_and", "bool_and(ok)"),
    ("bool_or", "bool_or(ok)"),
    ("corr", "corr(f, n)"),
    ("count", "count(v)"),
    ("covar", "covar(f, n)"),
    ("covar_pop", "covar_pop(f, n)"),
    ("covar_samp", "covar_samp(f, n)"),
    ("first_value", "first_value(g ORDER BY t)"),
    ("last_value", "last_value(g ORDER BY t)"),
    ("max", "max(t)"),
    ("mean", "mean(n)"),
    ("median", "median(v)"),
    ("min", "min(g)"),
    ("nth_value", "nth_value(g, 2 ORDER BY t)"),
    ("percentile_cont", "percentile_cont(0.25) WITHIN GROUP (ORDER BY f)"),
    ("quantile_cont", "quantile_cont(f, 0.25)"),
    ("regr_avgx", "regr_avgx(f, n)"),
    ("regr_avgy", "regr_avgy(f, n)"),
    ("regr_count", "regr_count(f, n)"),
    ("regr_intercept", "regr_intercept(f, n)"),
    ("regr_r2", "regr_r2(f, n)"),
    ("regr_slope", "regr_slope(f, n)"),
    ("regr_sxx", "regr_sxx(f, n)"),
    ("regr_sxy", "regr_sxy(f, n)"),
    ("regr_syy", "regr_syy(f, n)"),
    ("stddev", "stddev(f)"),
    ("stddev_pop", "stddev_pop(f)"),
    ("stddev_samp", "stddev_samp(f)"),
    ("string_agg", "string_agg(g, ',')"),
    ("sum", "sum(v)"),
    ("var", "var(f)"),
    ("var_pop", "var_pop(f)"),
    ("var_population", "var_population(f)"),
    ("var_samp", "var_samp(f)"),
    ("var_sample", "var_sample(f)"),
];

/// A call of each window function over `a`.
const WINDOW_CALLS: &[(&str, &str)] = &[
    ("cume_dist", "cume_dist()"),
    ("dense_rank", "dense_rank()"),
    ("first_value", "first_value(v)"),
    ("lag", "lag(v, 2)"),
    ("last_value", "last_value(v)"),
    ("lead", "lead(v)"),
    ("nth_value", "nth_value(v, 2)"),
    ("ntile", "ntile(3)"),
    ("percent_rank", "percent_rank()"),
    ("rank", "rank()"),
    ("row_number", "row_number()"),
];

/// Only over grouping sets, which are computed anew as a whole.
const OF_GROUPING_SETS: &str = "grouping";

fn names(of: &[(&'static str, &str)]) -> BTreeSet<String> {
    of.iter().map(|(name, _)| (*name).to_owned()).collect()
}

#[test]
fn every_function_of_the_session_is_classed() {
    let clock = Clock { now_us: 0, zone: "UTC".into() };
    let state = session(&Builder::new("UTC").build(), &clock, None).state();
    let aggregates: BTreeSet<String> = state.aggregate_functions().keys().cloned().collect();
    let windows: BTreeSet<String> = state.window_functions().keys().cloned().collect();
    let classed: BTreeSet<String> = AGGREGATES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(aggregates, classed, "aggregates of the session, and those that have a class");
    let classed: BTreeSet<String> = WINDOWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(windows, classed, "window functions of the session, and those that have a class");
    let mut called = names(CALLS);
    called.insert(OF_GROUPING_SETS.into());
    assert_eq!(aggregates, called, "aggregates of the session, and those that are checked against batch");
    assert_eq!(
        windows,
        names(WINDOW_CALLS),
        "window functions of the session, and those that are checked against batch"
    );
}

/// Every aggregate by group and, where it goes on by itself, over all rows. Several of a class stand in one query.
#[test]
fn every_aggregate_equals_batch() {
    let mut cases = Vec::new();
    for (class, way) in [
        (AggregateClass::Additive, Way::default()),
        (AggregateClass::Extremum, Way::default()),
        (AggregateClass::Whole, Way::default()),
        (AggregateClass::Tolerant, Way { tolerance: 1e-9, ..Way::default() }),
        (AggregateClass::Approximate, Way { tolerance: 1e-9, ..Way::default() }),
    ] {
        let of_class = |name: &str| AGGREGATES.iter().any(|(known, own)| *known == name && *own == class);
        let calls: Vec<_> = CALLS.iter().filter(|(name, _)| of_class(name)).collect();
        for (at, some) in calls.chunks(6).enumerate() {
            let columns: Vec<String> =
                some.iter().enumerate().map(|(at, (_, call))| format!("{call} AS c{at}")).collect();
            let columns = columns.join(", ");
            cases.push((format!("{class:?} {at}"), format!("SELECT k, {columns} FROM a GROUP BY k"), way));
            let filtered = columns.replace(" AS c0", " FILTER (WHERE n > 0) AS c0");
            cases.push((
                format!("{class:?} {at} of pairs"),
                format!("SELECT k, ok, {filtered} FROM a GROUP BY k, ok"),
                way,
            ));
            if matches!(class, AggregateClass::Additive | AggregateClass::Extremum) {
                cases.push((format!("{class:?} {at} of all"), format!("SELECT {columns} FROM a WHERE n < 3"), way));
            }
        }
    }
    for (name, sql, way) in &cases {
        let strategies = run(&SMALL, &[(name, sql)], &Options::of_environment(1), *way);
        assert!(strategies.values().all(|name| *name == "incremental"), "{name} isn't incremental");
    }
}

#[test]
fn every_window_function_equals_batch() {
    let columns: Vec<String> = WINDOW_CALLS
        .iter()
        .enumerate()
        .map(|(at, (_, call))| format!("{call} OVER (PARTITION BY k ORDER BY t, v) AS c{at}"))
        .collect();
    let sql = format!("SELECT k, v, {} FROM a", columns.join(", "));
    let strategies = run(&SMALL, &[("windows", &sql)], &Options::of_environment(2), Way::default());
    assert!(strategies.values().all(|name| *name == "incremental"));
}

/// A few queries that exchange rows between partitions in each operator.
const SPREAD: &[(&str, &str)] = &[
    ("aggregate", "SELECT g, count(DISTINCT k) AS d, sum(v) AS s, min(t) AS lo, avg(n) AS an FROM a GROUP BY g"),
    (
        "joins",
        "SELECT a.g, b.h, count(*) AS c, max(b.w) AS m FROM a LEFT JOIN b ON a.k = b.k AND b.w > a.n
            WHERE NOT EXISTS (SELECT 1 FROM c WHERE c.h = a.g AND c.x > 0.5) GROUP BY a.g, b.h",
    ),
    (
        "full",
        "SELECT x.k AS xk, y.k AS yk, x.s, y.c FROM (SELECT k, sum(v) AS s FROM a GROUP BY k) x
        FULL JOIN (SELECT k, count(*) AS c FROM b GROUP BY k) y ON x.k = y.k",
    ),
    (
        "windows",
        "SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v DESC) AS r, array_agg(g) OVER (PARTITION BY k) AS l FROM a",
    ),
    ("lists", "SELECT k, array_agg(g) AS l, median(v) AS m FROM a GROUP BY k"),
    ("top", "SELECT k, sum(v) AS s FROM a GROUP BY k ORDER BY s DESC LIMIT 2"),
    ("set", "SELECT k FROM a EXCEPT SELECT k FROM b WHERE w > 0"),
];

/// The product's own finite memory, shared by few and many partitions.
#[test]
fn partitions_and_finite_memory_make_no_difference() {
    for partitions in [1, 2, 5] {
        let way = Way { partitions, memory_bytes: Some(64 << 20), ..Way::default() };
        let strategies = run(&SMALL, SPREAD, &Options::of_environment(1), way);
        assert!(strategies.values().all(|name| *name == "incremental"), "{strategies:?}");
    }
}

#[test]
fn a_change_beyond_its_bound_is_given_up() {
    with_runtime(|runtime| {
        for (name, sql) in SPREAD {
            let case = runtime.block_on(Case::new(&SMALL, sql, Way::default())).unwrap();
            let steps = (SMALL.steps)(0);
            let second = steps.iter().position(|changes| !changes[0].added.is_empty()).expect("rows of a come");
            let steps = vec![steps[0].clone(), steps[second].clone()];
            assert!(runtime.block_on(case.is_too_large(&steps, 1)), "{name} goes beyond one byte");
            assert!(!runtime.block_on(case.is_too_large(&steps, 1 << 20)), "{name} stays below a megabyte");
        }
    });
}
