//! Hand-made queries: each operator, and each thing that goes wrong with it elsewhere.

/// Name and SQL, over the relations of [`super::data`].
pub const CASES: &[(&str, &str)] = &[
    ("all", "SELECT * FROM a"),
    ("filter", "SELECT k, v * 2 AS w FROM a WHERE v > 1 AND g <> 'x'"),
    ("union_all", "SELECT k FROM a WHERE n > 0 UNION ALL SELECT k FROM b UNION ALL SELECT k FROM a"),
    ("union", "SELECT k FROM a UNION SELECT k FROM b"),
    ("intersect", "SELECT k FROM a INTERSECT SELECT k FROM b"),
    ("except", "SELECT k FROM a EXCEPT SELECT k FROM b"),
    ("intersect_all", "SELECT k FROM a INTERSECT ALL SELECT k FROM b"),
    ("except_all", "SELECT k FROM a EXCEPT ALL SELECT k FROM b"),
    (
        "except_all_of_parts",
        "SELECT k, g, f FROM a WHERE n > 0 EXCEPT ALL (SELECT k, g, f FROM a WHERE ok INTERSECT ALL SELECT k, g, f * 1 FROM a)",
    ),
    ("all_grouped", "SELECT k, count(*) AS c FROM (SELECT k, h FROM b EXCEPT ALL SELECT k, g FROM a) x GROUP BY k"),
    ("distinct", "SELECT DISTINCT k, g FROM a"),
    ("count", "SELECT k, count(*) AS c, count(v) AS cv, count(g) AS cg FROM a GROUP BY k"),
    ("sum", "SELECT k, g, sum(v) AS s, sum(n) AS sn FROM a GROUP BY k, g"),
    ("avg", "SELECT g, avg(v) AS av, avg(n) AS an, avg(k) AS ak FROM a GROUP BY g"),
    ("avg_big", "SELECT k, avg(w) AS aw, sum(w) AS sw FROM b GROUP BY k"),
    ("min_max", "SELECT k, min(v) AS lo, max(t) AS hi, min(g) AS first, max(ok) AS any FROM a GROUP BY k"),
    ("bools", "SELECT k, bool_and(ok) AS every, bool_or(ok) AS some, bit_xor(n) AS x FROM a GROUP BY k"),
    (
        "filtered",
        "SELECT k, sum(v) FILTER (WHERE ok) AS s, count(*) FILTER (WHERE n > 1) AS c, max(v) FILTER (WHERE g = 'x') AS m FROM a GROUP BY k",
    ),
    ("global", "SELECT count(*) AS c, sum(v) AS s, avg(n) AS a, max(v) AS m FROM a"),
    ("global_filtered", "SELECT sum(v) AS s FROM a WHERE g = 'none'"),
    ("having", "SELECT k, sum(v) AS s FROM a GROUP BY k HAVING sum(v) > 3 OR count(*) = 1"),
    ("distinct_count", "SELECT g, count(DISTINCT k) AS d FROM a GROUP BY g"),
    (
        "distinct_count_more",
        "SELECT g, count(DISTINCT k) AS d, sum(v) AS s, avg(v) AS a, min(t) AS lo, count(*) AS c, count(n) FILTER (WHERE ok) AS f FROM a GROUP BY g",
    ),
    ("distinct_count_global", "SELECT count(DISTINCT k) AS d, count(*) AS c, sum(v) AS s FROM a"),
    ("distinct_counts", "SELECT g, count(DISTINCT k) AS d, count(DISTINCT n) AS e FROM a GROUP BY g"),
    ("distinct_sum", "SELECT g, sum(DISTINCT n) AS s, min(DISTINCT n) AS m FROM a GROUP BY g"),
    ("lists", "SELECT k, array_agg(g) AS l, string_agg(g, ',') AS s, median(v) AS m FROM a GROUP BY k"),
    ("floats", "SELECT k, sum(f) AS s, avg(f) AS a, min(f) AS lo, max(f) AS hi FROM a GROUP BY k"),
    ("first_last", "SELECT k, first_value(g ORDER BY t) AS f, last_value(v ORDER BY t) AS l FROM a GROUP BY k"),
    (
        "case_groups",
        "SELECT CASE WHEN v > 3 THEN 'high' WHEN v > 0 THEN 'low' END AS c, count(*) AS n FROM a GROUP BY 1",
    ),
    ("time_groups", "SELECT date_trunc('hour', t) AS h, CAST(t AS date) AS d, sum(v) AS s FROM a GROUP BY 1, 2"),
    ("tumble", "SELECT window_start, window_end, k, sum(v) AS s FROM a GROUP BY tumble(t, INTERVAL '1 hour'), k"),
    (
        "hop",
        "SELECT window_start, window_end, count(*) AS c, sum(v) AS s FROM a GROUP BY hop(t, INTERVAL '30 minutes', INTERVAL '1 hour')",
    ),
    (
        "session",
        "SELECT k, window_start, window_end, count(*) AS c, sum(v) AS s FROM a GROUP BY session(t, INTERVAL '15 minutes'), k",
    ),
    (
        "session_parts",
        "SELECT k, g, window_start, window_end, avg(v) AS av, min(n) AS lo, max(t) AS last, count(v) FILTER (WHERE ok) AS f FROM a GROUP BY k, session(t, INTERVAL '9 minutes'), g",
    ),
    (
        "session_of_all",
        "SELECT window_start, window_end, count(*) AS c FROM a GROUP BY session(t, INTERVAL '8 minutes')",
    ),
    (
        "session_distinct",
        "SELECT k, window_start, window_end, count(DISTINCT n) AS d, sum(v) AS s FROM a GROUP BY session(t, INTERVAL '15 minutes'), k",
    ),
    (
        "session_bounds",
        "SELECT k, window_start, window_end, count(*) FILTER (WHERE t = window_start) AS c, max(v) AS m FROM a GROUP BY session(t, INTERVAL '15 minutes'), k",
    ),
    ("session_start", "SELECT k, window_start, count(*) AS c FROM a GROUP BY session(t, INTERVAL '15 minutes'), k"),
    (
        "session_joined",
        "SELECT h, window_start, window_end, sum(w) AS s FROM a JOIN b ON a.k = b.k WHERE n > -1 GROUP BY session(t, INTERVAL '10 minutes'), h",
    ),
    (
        "session_expr",
        "SELECT k + 1 AS next, window_start, window_end, sum(v * 2) AS s FROM a GROUP BY session(t, INTERVAL '15 minutes'), k + 1",
    ),
    ("join", "SELECT a.k, a.v, b.w FROM a JOIN b ON a.k = b.k"),
    ("join_residual", "SELECT a.k, a.v, b.w FROM a JOIN b ON a.k = b.k AND a.n < b.w"),
    ("join_expr", "SELECT a.k, b.w FROM a JOIN b ON a.k + 1 = b.k * 2"),
    ("self_join", "SELECT x.k, x.v AS xv, y.v AS yv FROM a x JOIN a y ON x.k = y.k AND x.g < y.g"),
    ("left_join", "SELECT a.k, a.g, b.h, b.w FROM a LEFT JOIN b ON a.k = b.k"),
    ("left_join_residual", "SELECT a.k, a.g, b.h, b.w FROM a LEFT JOIN b ON a.k = b.k AND b.w > a.n"),
    ("right_join", "SELECT a.k, a.g, b.h, b.w FROM a RIGHT JOIN b ON a.k = b.k"),
    ("full_join", "SELECT a.k AS ak, a.g, b.k AS bk, b.w FROM a FULL JOIN b ON a.k = b.k"),
    ("full_join_residual", "SELECT a.k AS ak, a.g, b.k AS bk, b.w FROM a FULL JOIN b ON a.k = b.k AND b.h = a.g"),
    ("null_safe_join", "SELECT a.k, b.w FROM a JOIN b ON a.k IS NOT DISTINCT FROM b.k"),
    ("null_safe_left", "SELECT a.k, b.w FROM a LEFT JOIN b ON a.k IS NOT DISTINCT FROM b.k"),
    ("three_joins", "SELECT a.k, b.h, c.x FROM a JOIN b ON a.k = b.k JOIN c ON c.h = b.h"),
    ("left_joins", "SELECT a.k, b.h, c.x FROM a LEFT JOIN b ON a.k = b.k LEFT JOIN c ON c.h = b.h"),
    ("join_three_ways", "SELECT a.k, b.h, c.x FROM a JOIN b ON a.k = b.k JOIN c ON c.h = b.h AND c.h = a.g"),
    ("exists", "SELECT * FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k)"),
    ("not_exists", "SELECT * FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.w > a.n)"),
    ("in", "SELECT * FROM a WHERE k IN (SELECT k FROM b WHERE w > 0)"),
    ("not_in", "SELECT * FROM a WHERE k NOT IN (SELECT k FROM b WHERE k IS NOT NULL)"),
    ("exists_or", "SELECT * FROM a WHERE n > 1 OR EXISTS (SELECT 1 FROM b WHERE b.k = a.k)"),
    ("join_aggregate", "SELECT b.h, sum(a.v) AS s, count(*) AS c FROM a JOIN b ON a.k = b.k GROUP BY b.h"),
    (
        "left_join_aggregate",
        "SELECT a.g, count(b.w) AS c, coalesce(sum(b.w), 0) AS s, max(b.w) AS m FROM a LEFT JOIN b ON a.k = b.k GROUP BY a.g",
    ),
    (
        "left_join_distinct",
        "SELECT a.g, count(DISTINCT a.k) AS d, count(b.w) AS c, sum(b.w) AS s FROM a LEFT JOIN b ON a.k = b.k GROUP BY a.g",
    ),
    (
        "aggregate_join",
        "SELECT a.k, a.v, s.total FROM a JOIN (SELECT k, sum(w) AS total FROM b GROUP BY k) s ON s.k = a.k",
    ),
    (
        "aggregate_left_join",
        "SELECT a.k, a.v, s.total, s.c FROM a LEFT JOIN (SELECT k, sum(w) AS total, count(*) AS c FROM b GROUP BY k) s ON s.k = a.k",
    ),
    (
        "aggregates_full",
        "SELECT x.k AS xk, y.k AS yk, x.s, y.c FROM (SELECT k, sum(v) AS s FROM a GROUP BY k) x FULL JOIN (SELECT k, count(*) AS c FROM b GROUP BY k) y ON x.k = y.k",
    ),
    (
        "nested",
        "SELECT c, count(*) AS groups, sum(s) AS s FROM (SELECT k, count(*) AS c, sum(v) AS s FROM a GROUP BY k) x GROUP BY c",
    ),
    (
        "nested_min",
        "SELECT min(s) AS lo, max(s) AS hi, avg(s) AS mean FROM (SELECT k, sum(v) AS s FROM a GROUP BY k) x",
    ),
    ("correlated", "SELECT a.k, a.v FROM a WHERE a.v > (SELECT avg(x.v) FROM a x WHERE x.k = a.k)"),
    ("scalar", "SELECT k, v FROM a WHERE v > (SELECT avg(v) FROM a)"),
    ("scalar_select", "SELECT k, (SELECT max(w) FROM b) AS m FROM a"),
    ("scalar_having", "SELECT k, sum(v) AS s FROM a GROUP BY k HAVING sum(v) > (SELECT sum(v) * 0.2 FROM a)"),
    (
        "share",
        "SELECT a.k, a.v, t.total FROM (SELECT 1 AS one, k, v FROM a) a JOIN (SELECT 1 AS one, sum(v) AS total FROM a) t ON t.one = a.one",
    ),
    ("cross_one", "SELECT a.k, t.total FROM a CROSS JOIN (SELECT sum(w) AS total FROM b) t"),
    ("top", "SELECT k, sum(v) AS s FROM a GROUP BY k ORDER BY s DESC LIMIT 2"),
    ("top_raw", "SELECT k, v FROM a ORDER BY v DESC LIMIT 3"),
    ("distinct_on", "SELECT DISTINCT ON (k) k, g, v FROM a ORDER BY k, t DESC"),
    (
        "row_number_of_row_number",
        "SELECT k, g, v FROM (SELECT k, g, v, row_number() OVER (PARTITION BY k ORDER BY t DESC, v) AS r FROM (SELECT k, g, v, t, row_number() OVER (PARTITION BY k, g ORDER BY v DESC) AS q FROM a) x WHERE q = 1) y WHERE r = 1",
    ),
    (
        "row_number",
        "SELECT * FROM (SELECT k, g, v, row_number() OVER (PARTITION BY k ORDER BY v DESC) AS r FROM a) x WHERE r <= 2",
    ),
    (
        "windows",
        "SELECT k, v, rank() OVER (PARTITION BY k ORDER BY v) AS r, sum(v) OVER (PARTITION BY k ORDER BY t ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS s, lag(v) OVER (PARTITION BY k ORDER BY t) AS l FROM a",
    ),
    (
        "windows_over_nulls",
        "SELECT k, v, t, lead(v, 2) IGNORE NULLS OVER (PARTITION BY k ORDER BY t) AS l, lead(g, 3, 'none') IGNORE NULLS OVER (PARTITION BY k ORDER BY t DESC NULLS FIRST) AS m, lag(n, 2) IGNORE NULLS OVER (PARTITION BY k ORDER BY t) AS p FROM a",
    ),
    (
        "windows_of_booleans",
        "SELECT k, t, bool_or(ok) OVER (PARTITION BY k ORDER BY t ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS some, bool_and(n > 0) OVER (PARTITION BY k ORDER BY t ROWS BETWEEN CURRENT ROW AND 2 FOLLOWING) AS every, bool_or(ok) OVER (PARTITION BY k) AS any FROM a",
    ),
    (
        "windows_of_moving_floats",
        "SELECT k, t, f, sum(f) OVER w AS s, avg(f) OVER w AS a, stddev(f) OVER w AS d, var_pop(f) OVER (PARTITION BY k ORDER BY t, f ROWS BETWEEN CURRENT ROW AND 2 FOLLOWING) AS v FROM a WINDOW w AS (PARTITION BY k ORDER BY t, f ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)",
    ),
    (
        "windows_of_floats",
        "SELECT k, t, f, sum(f) OVER (PARTITION BY k) AS s, stddev(n) OVER (PARTITION BY k) AS d, avg(f) OVER (PARTITION BY k ORDER BY g) AS a, sum(f) OVER (PARTITION BY g ORDER BY n RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS r FROM a",
    ),
    ("left_join_filtered", "SELECT b.h, b.w FROM b LEFT JOIN a ON a.k = b.k AND a.g > b.h WHERE a.n IS NULL"),
    (
        "left_join_coalesced",
        "SELECT b.h, a.g FROM b LEFT JOIN a ON a.k = b.k AND a.g > b.h WHERE coalesce(a.g, b.h) > 'a'",
    ),
    (
        "right_join_named_alike",
        "SELECT x.n AS one, y.n AS other FROM a x RIGHT JOIN a y ON x.k = y.k AND x.v > y.v WHERE x.n IS NULL OR x.n > 1",
    ),
    (
        "hours_of_days",
        "SELECT k, CAST(t AS date) + INTERVAL '6 hours' AS six, CAST(t AS date) - INTERVAL '1 day' AS before, count(*) AS c, max(CAST(t AS date) - INTERVAL '90 minutes') AS last FROM a WHERE t > CAST(t AS date) + INTERVAL '2 hours' GROUP BY 1, 2, 3",
    ),
    (
        "hours_of_days_joined",
        "SELECT x.k, x.t, y.v FROM a x LEFT JOIN a y ON x.k = y.k AND x.t < CAST(y.t AS date) + INTERVAL '1 day 3 hours'",
    ),
    (
        "times_without_seconds",
        "SELECT k, CAST(CAST(CAST(t AS date) AS text) || ' 10:30' AS timestamp) AS u, count(*) AS c FROM a WHERE t > '2018-03-02 10:00' GROUP BY 1, 2",
    ),
    (
        "windows_two",
        "SELECT k, g, count(*) OVER (PARTITION BY k) AS ck, count(*) OVER (PARTITION BY k, g) AS cg FROM a",
    ),
    ("window_all", "SELECT k, v, row_number() OVER (ORDER BY v) AS r FROM a"),
    (
        "window_joined",
        "SELECT x.k, x.r, b.w FROM (SELECT k, g, row_number() OVER (PARTITION BY k ORDER BY v) AS r FROM a) x JOIN b ON b.k = x.k",
    ),
    (
        "window_aggregate",
        "SELECT g, s, rank() OVER (PARTITION BY g ORDER BY s DESC) AS r FROM (SELECT g, k, sum(v) AS s FROM a GROUP BY g, k) x",
    ),
    (
        "best_per_group",
        "SELECT k, g, s FROM (SELECT k, g, sum(v) AS s, row_number() OVER (PARTITION BY k ORDER BY sum(v) DESC, g) AS r FROM a GROUP BY k, g) x WHERE r = 1",
    ),
    (
        "rank_groups",
        "SELECT r, count(*) AS c, max(r) AS m, sum(v) AS s FROM (SELECT k, v, rank() OVER (PARTITION BY k ORDER BY v) AS r FROM a) x GROUP BY r",
    ),
    ("unnest", "SELECT k, unnest(make_array(n, n + 1)) AS u FROM a"),
    ("unnest_grouped", "SELECT u, count(*) AS c FROM (SELECT unnest(make_array(n, k)) AS u FROM a) x GROUP BY u"),
    ("unnest_from", "SELECT k, u.x FROM a CROSS JOIN unnest(make_array(n, k)) AS u(x)"),
    (
        "unnest_comma",
        "SELECT a.k, x, y FROM a, unnest(make_array(a.n, a.k)) AS u(x), unnest(make_array(u.x, v)) AS w(y)",
    ),
    ("unnest_star", "SELECT * FROM a, unnest(CASE WHEN ok THEN make_array(n, n) END) AS u(x) WHERE x > 0"),
    (
        "unnest_lateral",
        "SELECT a.k, l.y FROM a CROSS JOIN LATERAL (SELECT x + a.n AS y FROM unnest(make_array(a.n, a.k)) AS u(x) WHERE x <> a.k) l",
    ),
    ("unnest_on", "SELECT a.k, x FROM a JOIN unnest(make_array(n, n + 1)) AS u(x) ON u.x = a.k OR ok"),
    (
        "unnest_left",
        "SELECT a.k, x, y FROM a LEFT JOIN unnest(CASE WHEN ok THEN make_array(n, k) WHEN n > 0 THEN array_remove(make_array(n), n) END) AS u(x) ON true LEFT JOIN LATERAL (SELECT z AS y FROM unnest(make_array(u.x)) AS w(z)) l ON true",
    ),
    (
        "unnest_joined",
        "SELECT g, x, count(*) AS c, sum(w) AS s FROM a, unnest(make_array(n, k)) AS u(x) JOIN b ON b.k = u.x GROUP BY g, x",
    ),
    ("unnest_two", "SELECT k, x, y FROM a, unnest(make_array(n, n + 1), make_array(g)) AS u(x, y)"),
    (
        "unnest_deep",
        "SELECT k, z FROM a, unnest(make_array(make_array(n, 1), make_array(k))) AS u(x), LATERAL (SELECT y + 1 AS z FROM unnest(u.x) AS w(y)) l",
    ),
    (
        "unnest_windowed",
        "SELECT x, window_start, count(*) AS c FROM a, unnest(make_array(n, k)) AS u(x) GROUP BY x, tumble(t, INTERVAL '1 hour')",
    ),
    ("lateral_joined", "SELECT a.k, l.w FROM a, LATERAL (SELECT w FROM b WHERE b.k = a.k) l"),
    (
        "with",
        "WITH s AS (SELECT k, sum(v) AS s FROM a GROUP BY k), m AS (SELECT max(s) AS m, 1 AS one FROM s) SELECT s.k, s.s FROM s JOIN m ON m.m = s.s",
    ),
    ("values", "SELECT a.k, n.name FROM a JOIN (VALUES (1, 'one'), (2, 'two')) n(k, name) ON n.k = a.k"),
    (
        "outer_union",
        "SELECT g, sum(s) AS s FROM (SELECT g, v AS s FROM a UNION ALL SELECT h, CAST(w AS decimal(18, 2)) FROM b) x GROUP BY g",
    ),
    ("grouping_sets", "SELECT k, g, sum(v) AS s FROM a GROUP BY ROLLUP (k, g)"),
    ("constant_group", "SELECT 1 AS one, count(*) AS c FROM a GROUP BY 1"),
    ("no_columns", "SELECT 1 AS one FROM a"),
    (
        "pairs",
        "SELECT x.g AS p, y.g AS q, count(DISTINCT x.k) AS c FROM (SELECT DISTINCT k, g FROM a) x JOIN (SELECT DISTINCT k, g FROM a) y ON x.k = y.k AND x.g < y.g GROUP BY x.g, y.g",
    ),
    (
        "semi_aggregate",
        "SELECT g, count(*) AS c FROM a WHERE k IN (SELECT k FROM b GROUP BY k HAVING sum(w) > 1) GROUP BY g",
    ),
    (
        "anti_aggregate",
        "SELECT k, sum(v) AS s FROM a WHERE NOT EXISTS (SELECT 1 FROM b JOIN c ON c.h = b.h WHERE b.k = a.k) GROUP BY k",
    ),
];
