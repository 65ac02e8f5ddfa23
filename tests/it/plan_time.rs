//! What time gives when planned models are run: windows, the clock, calendar days of zones.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tidemill::spec::sql_type::SqlType;

use crate::plan_project::{Builder, Planned, Tables};

const NOW: &str = "2018-09-01T03:00:00Z";

const EVENTS: &[(&str, SqlType)] = &[("at", SqlType::Timestamp), ("who", SqlType::Text), ("n", SqlType::BigInt)];

/// Events as seconds and persons.
async fn events(rows: &[(Option<i64>, &str)]) -> Tables {
    let mut values: Vec<String> = rows
        .iter()
        .enumerate()
        .map(|(n, (at, who))| {
            let at =
                at.map_or("NULL".into(), |at| format!("arrow_cast({at} * 1000000, 'Timestamp(Microsecond, None)')"));
            format!("SELECT {at} AS at, '{who}' AS who, CAST({n} AS BIGINT) AS n")
        })
        .collect();
    values.push(
        "SELECT arrow_cast(0, 'Timestamp(Microsecond, None)') AS at, '' AS who, CAST(0 AS BIGINT) AS n WHERE false"
            .into(),
    );
    Tables::default().with("events", &values.join(" UNION ALL ")).await
}

async fn planned(sql: &str) -> Planned {
    Builder::new("UTC").source("events", EVENTS).model("m", sql).planned().await
}

async fn run(sql: &str, rows: &[(Option<i64>, &str)]) -> Vec<String> {
    planned(sql).await.rows("m", NOW, &events(rows).await).await
}

#[tokio::test]
async fn tumbling_windows_are_half_open() {
    let rows = [(Some(0), "a"), (Some(59), "a"), (Some(60), "a"), (Some(-1), "b"), (None, "b")];
    let sql = "SELECT window_start, window_end, who, count(*) AS n FROM events \
               GROUP BY who, tumble(at, INTERVAL '1 minute') HAVING window_start IS NOT NULL OR true ORDER BY window_start";
    assert_eq!(
        run(sql, &rows).await,
        [
            "1969-12-31T23:59:00 | 1970-01-01T00:00:00 | b | 1",
            "1970-01-01T00:00:00 | 1970-01-01T00:01:00 | a | 2",
            "1970-01-01T00:01:00 | 1970-01-01T00:02:00 | a | 1",
            "null | null | b | 1",
        ]
    );
}

#[tokio::test]
async fn windows_over_joins_subqueries_and_models() {
    let project = Builder::new("UTC")
        .source("events", EVENTS)
        .model("minutes", "SELECT window_start, who, count(*) AS c FROM events e JOIN (SELECT DISTINCT who AS w FROM events) x ON e.who = x.w WHERE n >= 0 GROUP BY tumble(e.at, INTERVAL '1 minute'), who")
        .model("hours", "SELECT window_start AS hour, minutes.who, sum(c) AS c, max(window_end) AS e FROM minutes GROUP BY tumble(minutes.window_start, INTERVAL '1 hour'), minutes.who")
        .planned()
        .await;
    let rows = [(Some(0), "a"), (Some(30), "a"), (Some(3599), "a"), (Some(3600), "b")];
    let tables = events(&rows).await;
    let minutes = project.rows("minutes", NOW, &tables).await;
    assert_eq!(minutes, ["1970-01-01T00:00:00 | a | 2", "1970-01-01T00:59:00 | a | 1", "1970-01-01T01:00:00 | b | 1"]);
    let values: Vec<String> = minutes
        .iter()
        .map(|line| line.split(" | ").map(str::to_owned).collect::<Vec<_>>())
        .map(|v| format!("SELECT arrow_cast('{}', 'Timestamp(Microsecond, None)') AS window_start, '{}' AS who, CAST({} AS BIGINT) AS c", v[0], v[1], v[2]))
        .collect();
    let tables = Tables::default().with("minutes", &values.join(" UNION ALL ")).await;
    assert_eq!(
        project.rows("hours", NOW, &tables).await,
        ["1970-01-01T00:00:00 | a | 3 | 1970-01-01T01:00:00", "1970-01-01T01:00:00 | b | 1 | 1970-01-01T02:00:00",]
    );
}

#[tokio::test]
async fn a_gap_of_exactly_the_gap_starts_a_new_session() {
    let rows = [(Some(0), "a"), (Some(9), "a"), (Some(19), "a"), (Some(19), "a"), (Some(5), "b"), (None, "a")];
    let sql = "SELECT who, window_start, window_end, count(*) AS n FROM events GROUP BY session(at, INTERVAL '10 seconds'), who";
    assert_eq!(
        run(sql, &rows).await,
        [
            "a | 1970-01-01T00:00:00 | 1970-01-01T00:00:19 | 2",
            "a | 1970-01-01T00:00:19 | 1970-01-01T00:00:29 | 2",
            "a | null | null | 1",
            "b | 1970-01-01T00:00:05 | 1970-01-01T00:00:15 | 1",
        ]
    );
    // By position, by alias, by expression; the rows that WHERE leaves are those that sessions are made of.
    let sql = "SELECT upper(who) AS w, window_start, count(*) AS n FROM events WHERE n <> 1 GROUP BY 1, session(at, INTERVAL '10 seconds')";
    let by_alias = sql.replace("BY 1,", "BY w,");
    let by_expression = sql.replace("BY 1,", "BY upper(who),");
    let wanted =
        ["A | 1970-01-01T00:00:00 | 1", "A | 1970-01-01T00:00:19 | 2", "A | null | 1", "B | 1970-01-01T00:00:05 | 1"];
    for sql in [sql, &by_alias, &by_expression] {
        assert_eq!(run(sql, &rows).await, wanted, "{sql}");
    }
}

/// Sessions as a child would make them.
fn naive_sessions(rows: &[(Option<i64>, &str)], gap: i64) -> Vec<String> {
    let mut by_who: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for (at, who) in rows {
        by_who.entry(who).or_default().extend(at);
    }
    let mut out = Vec::new();
    for (who, mut times) in by_who {
        times.sort_unstable();
        let mut at = 0;
        while at < times.len() {
            let mut end = at;
            while end + 1 < times.len() && times[end + 1] - times[end] < gap {
                end += 1;
            }
            out.push(format!("{who} | {} | {} | {}", times[at], times[end] + gap, end - at + 1));
            at = end + 1;
        }
    }
    out.sort();
    out
}

fn naive_hops(rows: &[(Option<i64>, &str)], slide: i64, size: i64) -> Vec<String> {
    let mut counts: BTreeMap<(i64, &str), usize> = BTreeMap::new();
    for (at, who) in rows {
        let Some(at) = at else { continue };
        for start in
            (at - size - slide..=at + slide).filter(|s| s.rem_euclid(slide) == 0 && s <= at && at < &(s + size))
        {
            *counts.entry((start, who)).or_default() += 1;
        }
    }
    let lines: BTreeSet<String> =
        counts.iter().map(|((start, who), n)| format!("{who} | {start} | {} | {n}", start + size)).collect();
    lines.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn windows_are_as_by_hand(
        times in prop::collection::vec((-200i64..200, 0usize..3), 0..40),
        slide in 1i64..40, size in 1i64..60, gap in 1i64..30,
    ) {
        let who = ["a", "b", "c"];
        let rows: Vec<(Option<i64>, &str)> = times.iter().map(|(at, w)| (Some(*at), who[*w])).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let seconds = "CAST(date_part('epoch', {}) AS BIGINT)";
        let columns = format!("{} AS s, {} AS e", seconds.replace("{}", "window_start"), seconds.replace("{}", "window_end"));
        let hop = format!("SELECT who, {columns}, count(*) AS n FROM events GROUP BY who, hop(at, INTERVAL '{slide} seconds', INTERVAL '{size} seconds')");
        let session = format!("SELECT who, {columns}, count(*) AS n FROM events GROUP BY session(at, INTERVAL '{gap} seconds'), who");
        prop_assert_eq!(runtime.block_on(run(&hop, &rows)), naive_hops(&rows, slide, size));
        prop_assert_eq!(runtime.block_on(run(&session, &rows)), naive_sessions(&rows, gap));
    }
}

#[tokio::test]
async fn the_clock_is_bound_when_run() {
    let project = Builder::new("America/Sao_Paulo")
        .source("events", EVENTS)
        .model("m", "SELECT now() AS t, current_timestamp AS c, current_date AS d, date_trunc('month', now()) - INTERVAL '1 month' AS p, count(*) AS n FROM events")
        .model("still", "SELECT count(*) AS n FROM events")
        .planned()
        .await;
    assert!(project.model("m").reads_clock && !project.model("still").reads_clock);
    let tables = events(&[]).await;
    // 02:30 UTC is still the day before in São Paulo.
    assert_eq!(
        project.rows("m", "2018-09-01T02:30:00Z", &tables).await,
        ["2018-08-31T23:30:00-03:00 | 2018-08-31T23:30:00-03:00 | 2018-08-31 | 2018-07-01T00:00:00-03:00 | 0"]
    );
    assert_eq!(
        project.rows("m", "2018-09-01T03:00:00.000001Z", &tables).await,
        [
            "2018-09-01T00:00:00.000001-03:00 | 2018-09-01T00:00:00.000001-03:00 | 2018-09-01 | 2018-08-01T00:00:00-03:00 | 0"
        ]
    );
}

async fn truncated(zone: &str, unit: &str, instants: &[&str]) -> Vec<String> {
    let project = Builder::new(zone)
        .source("t", &[("at", SqlType::TimestampTz)])
        .model("m", &format!("SELECT arrow_cast(at, 'Timestamp(Microsecond, Some(\"UTC\"))') AS at, date_trunc('{unit}', at) AS d, at::date AS c FROM t"))
        .planned()
        .await;
    let values: Vec<String> = instants
        .iter()
        .map(|i| format!("SELECT arrow_cast('{i}', 'Timestamp(Microsecond, Some(\"{zone}\"))') AS at"))
        .collect();
    let tables = Tables::default().with("t", &values.join(" UNION ALL ")).await;
    let rows = project.rows("m", NOW, &tables).await;
    rows.iter().map(|row| row.split(" | ").skip(1).collect::<Vec<_>>().join(" | ")).collect()
}

#[tokio::test]
async fn calendar_days_of_23_and_25_hours() {
    // Clocks went forward at midnight: 2018-11-04 began at 01:00 (03:00 UTC) and had 23 hours.
    let spring = truncated(
        "America/Sao_Paulo",
        "day",
        &[
            "2018-11-04T02:59:59Z",
            "2018-11-04T03:00:00Z",
            "2018-11-04T12:00:00Z",
            "2018-11-05T01:59:59Z",
            "2018-11-05T02:00:00Z",
        ],
    )
    .await;
    insta::assert_snapshot!(spring.join("\n"), @r"
    2018-11-03T00:00:00-03:00 | 2018-11-03
    2018-11-04T01:00:00-02:00 | 2018-11-04
    2018-11-04T01:00:00-02:00 | 2018-11-04
    2018-11-04T01:00:00-02:00 | 2018-11-04
    2018-11-05T00:00:00-02:00 | 2018-11-05
    ");
    // Clocks went back at midnight: 23:00 to 24:00 of 2018-02-17 came twice, 25 hours.
    let autumn = truncated(
        "America/Sao_Paulo",
        "day",
        &["2018-02-17T02:00:00Z", "2018-02-18T01:30:00Z", "2018-02-18T02:30:00Z", "2018-02-18T03:00:00Z"],
    )
    .await;
    insta::assert_snapshot!(autumn.join("\n"), @r"
    2018-02-17T00:00:00-02:00 | 2018-02-17
    2018-02-17T00:00:00-02:00 | 2018-02-17
    2018-02-17T00:00:00-02:00 | 2018-02-17
    2018-02-18T00:00:00-03:00 | 2018-02-18
    ");
    let berlin = truncated(
        "Europe/Berlin",
        "day",
        &[
            "2018-03-24T23:00:00Z",
            "2018-03-25T21:59:59Z",
            "2018-03-25T22:00:00Z",
            "2018-10-27T22:00:00Z",
            "2018-10-28T22:59:59Z",
            "2018-10-28T23:00:00Z",
        ],
    )
    .await;
    insta::assert_snapshot!(berlin.join("\n"), @r"
    2018-03-25T00:00:00+01:00 | 2018-03-25
    2018-03-25T00:00:00+01:00 | 2018-03-25
    2018-03-26T00:00:00+02:00 | 2018-03-26
    2018-10-28T00:00:00+02:00 | 2018-10-28
    2018-10-28T00:00:00+02:00 | 2018-10-28
    2018-10-29T00:00:00+01:00 | 2018-10-29
    ");
    // The hour that comes twice is two hours.
    let hours =
        truncated("Europe/Berlin", "hour", &["2018-10-28T00:30:00Z", "2018-10-28T01:30:00Z", "2018-10-28T02:30:00Z"])
            .await;
    insta::assert_snapshot!(hours.join("\n"), @r"
    2018-10-28T02:00:00+01:00 | 2018-10-28
    2018-10-28T02:00:00+02:00 | 2018-10-28
    2018-10-28T03:00:00+01:00 | 2018-10-28
    ");
    let months = truncated(
        "America/Sao_Paulo",
        "month",
        &["2018-11-01T02:59:59Z", "2018-11-30T12:00:00Z", "2018-03-01T03:00:00Z"],
    )
    .await;
    insta::assert_snapshot!(months.join("\n"), @r"
    2018-03-01T00:00:00-03:00 | 2018-03-01
    2018-10-01T00:00:00-03:00 | 2018-10-31
    2018-11-01T00:00:00-03:00 | 2018-11-30
    ");
}
