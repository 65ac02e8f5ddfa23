//! States that let go of groups which time has passed: late rows behind that still give what one batch run gives.

use super::cases::CASES;
use super::data::SMALL;
use super::harness::{Case, Options, Way, run, with_runtime};

/// Queries whose groups go on with time, with the states that can do without closed ones, in order.
const TIMED: &[(&str, &str, &[bool])] = &[
    ("hours", "SELECT date_trunc('hour', t) AS h, count(*) AS c, sum(v) AS s, min(n) AS lo FROM a GROUP BY 1", &[true]),
    ("dates", "SELECT CAST(t AS date) AS d, k, array_agg(g) AS l, median(v) AS m FROM a GROUP BY 1, 2", &[true]),
    ("ends", "SELECT window_end, count(*) AS c FROM a GROUP BY tumble(t, INTERVAL '30 minutes')", &[true]),
    (
        "distinct",
        "SELECT date_trunc('hour', t) AS h, count(DISTINCT k) AS d, sum(v) AS s, max(n) AS hi FROM a GROUP BY 1",
        &[true, true],
    ),
    (
        "distinct_ends",
        "SELECT window_start, window_end, g, count(DISTINCT k) AS d FROM a GROUP BY hop(t, INTERVAL '30 minutes', INTERVAL '1 hour'), g",
        &[true, true],
    ),
    (
        "distinct_ends_more",
        "SELECT window_start, window_end, count(DISTINCT k) AS d, max(v) AS m FROM a GROUP BY tumble(t, INTERVAL '30 minutes')",
        &[true, true],
    ),
    (
        "hour_of_groups",
        "SELECT h, max(c) AS hi, sum(s) AS s FROM (SELECT date_trunc('hour', t) AS h, k, count(*) AS c, sum(v) AS s FROM a GROUP BY 1, 2) x GROUP BY h",
        &[true, true],
    ),
    (
        "day_of_hours",
        "SELECT date_trunc('day', h) AS d, sum(c) AS c FROM (SELECT date_trunc('hour', t) AS h, count(*) AS c FROM a GROUP BY 1) x GROUP BY 1",
        &[true, true],
    ),
    // The hours of a day that is open may be closed, and the greatest of them is asked for again.
    (
        "day_of_greatest",
        "SELECT date_trunc('day', h) AS d, max(c) AS c FROM (SELECT date_trunc('hour', t) AS h, count(*) AS c FROM a GROUP BY 1) x GROUP BY 1",
        &[false, true],
    ),
    (
        "sum_of_all_time",
        "SELECT k, sum(c) AS c FROM (SELECT date_trunc('hour', t) AS h, k, count(*) AS c FROM a GROUP BY 1, 2) x GROUP BY k",
        &[true, false],
    ),
    (
        "greatest_of_all_time",
        "SELECT k, max(c) AS c FROM (SELECT date_trunc('hour', t) AS h, k, count(*) AS c FROM a GROUP BY 1, 2) x GROUP BY k",
        &[false, false],
    ),
    (
        "joined_before",
        "SELECT date_trunc('hour', a.t) AS h, b.h AS x, sum(a.v) AS s, max(b.w) AS m FROM a LEFT JOIN b ON a.k = b.k GROUP BY 1, 2",
        &[true],
    ),
    ("having", "SELECT date_trunc('hour', t) AS h, k, sum(v) AS s FROM a GROUP BY 1, 2 HAVING count(*) > 1", &[true]),
    (
        "united",
        "SELECT date_trunc('hour', t) AS h, k FROM a GROUP BY 1, 2 UNION ALL SELECT CAST(t AS date) AS d, n FROM a GROUP BY 1, 2",
        &[true, true],
    ),
    (
        "sessions",
        "SELECT k, window_start, window_end, count(*) AS c, sum(v) AS s, min(n) AS lo FROM a GROUP BY session(t, INTERVAL '15 minutes'), k",
        &[true],
    ),
    (
        "joined_after",
        "SELECT x.h, x.c, b.w FROM (SELECT date_trunc('hour', t) AS h, k, count(*) AS c FROM a GROUP BY 1, 2) x JOIN b ON b.k = x.k",
        &[false],
    ),
    (
        "ranked_after",
        "SELECT h, k, rank() OVER (PARTITION BY h ORDER BY c) AS r FROM (SELECT date_trunc('hour', t) AS h, k, count(*) AS c FROM a GROUP BY 1, 2) x",
        &[false],
    ),
    ("latest", "SELECT date_trunc('hour', t) AS h, count(*) AS c FROM a GROUP BY 1 ORDER BY h DESC LIMIT 2", &[false]),
    ("parts_of_hours", "SELECT date_part('hour', t) AS h, count(*) AS c FROM a GROUP BY 1", &[false]),
    (
        "models",
        "SELECT window_start, k, count(DISTINCT n) AS c FROM a GROUP BY tumble(t, INTERVAL '30 minutes'), k; SELECT date_trunc('hour', window_start) AS h, sum(c) AS c, max(k) AS hi FROM m1 GROUP BY 1",
        &[true],
    ),
];

/// Goes through the times of the small world, whose wall clock counts as a day behind, within its steps.
fn watermark(step: usize) -> i64 {
    1_520_000_000_000_000 + 86_400_000_000 + i64::try_from(step).unwrap() * 3_000_000_000
}

fn letting_go() -> Way {
    Way { watermark: Some(watermark), ..Way::default() }
}

#[test]
fn late_rows_behind_what_states_let_go_give_what_batch_gives() {
    let options = Options::of_environment(2);
    let cases: Vec<_> = TIMED.iter().map(|(name, sql, _)| (*name, *sql)).collect();
    run(&SMALL, &cases, &options, letting_go());
    // And whatever else lets go of anything.
    let lets_go = |(_, sql): &&(&str, &str)| with_runtime(|runtime| runtime.block_on(lets_go(sql)));
    let more: Vec<_> = CASES.iter().filter(lets_go).copied().collect();
    run(&SMALL, &more, &options, letting_go());
}

async fn lets_go(sql: &str) -> bool {
    let case = Case::new(&SMALL, sql, Way::default()).await.unwrap();
    let mut stages = case.last().maintenance.iter().flat_map(|maintenance| &maintenance.stages);
    stages.any(|stage| stage.closing.is_some())
}

#[test]
fn states_let_go_only_of_groups_that_nothing_reads_again() {
    with_runtime(|runtime| {
        for (name, sql, wanted) in TIMED {
            let case = runtime.block_on(Case::new(&SMALL, sql, Way::default())).unwrap();
            let stages = &case.last().maintenance.as_ref().unwrap().stages;
            let found: Vec<bool> = stages.iter().map(|stage| stage.closing.is_some()).collect();
            assert_eq!(found, *wanted, "{name}");
        }
    });
}
