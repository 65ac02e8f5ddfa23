//! What a user sees of faults in SQL: code, place, caret, hint. All of a project at once, causes without consequences.

use tidemill::spec::fault::Severity;
use tidemill::spec::sql_type::SqlType;

use crate::plan_project::{Builder, Draft};

const ORDERS: &[(&str, SqlType)] = &[
    ("order_id", SqlType::Text),
    ("order_status", SqlType::Text),
    ("purchased_at", SqlType::TimestampTz),
    ("Price", SqlType::Decimal(12, 2)),
    ("units", SqlType::BigInt),
    ("weight", SqlType::Double),
];

fn shop() -> Builder {
    Builder::new("America/Sao_Paulo")
        .source("orders", ORDERS)
        .source("items", &[("order_id", SqlType::Text), ("amount", SqlType::Decimal(12, 2))])
}

async fn faults(sql: &str) -> String {
    shop().model("m", sql).faults().await
}

#[tokio::test]
async fn syntax() {
    let mut all = String::new();
    for sql in [
        "SELECT order_id,\nFROM orders",
        "SELECT order_id FROM orders WHERE",
        "SELECT 'open FROM orders",
        "SELEC 1",
        "DROP TABLE orders",
        "SELECT 1; SELECT 2",
        "  ",
        "SELECT (1 + FROM orders",
    ] {
        all += &faults(sql).await;
        all += "---\n";
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn unknown_names_are_all_told() {
    let sql = "SELECT o.order_idd, price, lenght(order_status), sum(unitz)\n\
               FROM orders o JOIN itemz i ON o.order_id = i.order_id";
    let with_tables = "SELECT o.order_idd, price, lenght(order_status) AS l, x.amount,\n  upper(zebra)\n\
               FROM orders o JOIN items i ON o.order_id = i.orderid\nWHERE stauts = 'a' AND price > 3\nGROUP BY nothing";
    insta::assert_snapshot!(format!("{}---\n{}", faults(sql).await, faults(with_tables).await));
}

#[tokio::test]
async fn ambiguous_and_grouping() {
    let ambiguous = "SELECT order_id FROM orders, items";
    let grouping = "SELECT order_status, units FROM orders GROUP BY order_status";
    let aggregate_in_where = "SELECT order_status FROM orders WHERE sum(units) > 1";
    insta::assert_snapshot!(format!(
        "{}---\n{}---\n{}",
        faults(ambiguous).await,
        faults(grouping).await,
        faults(aggregate_in_where).await
    ));
}

#[tokio::test]
async fn wrong_types_point_at_the_expression() {
    let mut all = String::new();
    for sql in [
        "SELECT order_id,\n  upper(order_status) + purchased_at AS x\nFROM orders",
        "SELECT order_id FROM orders WHERE units AND true",
        "WITH a AS (SELECT order_id, sum(order_status) AS s FROM orders GROUP BY 1)\nSELECT * FROM a",
        "SELECT order_id FROM (SELECT order_id, date_trunc('day', units) AS d FROM orders) t",
        "SELECT o.order_id FROM orders o JOIN items i ON purchased_at = amount",
        "SELECT round(order_id, 'x') AS r FROM orders",
    ] {
        all += &faults(sql).await;
        all += "---\n";
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn what_never_settles() {
    let mut all = String::new();
    for sql in [
        "SELECT order_id, random() AS r, uuid() AS u FROM orders",
        "SELECT order_id FROM orders LIMIT 10",
        "SELECT order_id, row_number() OVER (PARTITION BY order_status) AS n FROM orders",
        "SELECT first_value(order_id) AS f FROM orders",
        "SELECT DISTINCT ON (order_status) order_id, order_status FROM orders",
        "SELECT order_id FROM orders VERSION AS OF 3",
    ] {
        all += &faults(sql).await;
        all += "---\n";
    }
    // With an order they are fine, and so is an aggregate that orders its own rows.
    for sql in [
        "SELECT order_id FROM orders ORDER BY order_id LIMIT 10",
        "SELECT order_id, row_number() OVER (ORDER BY units) AS n FROM orders",
        "SELECT first_value(order_id ORDER BY units) AS f FROM orders",
        "SELECT array_agg(order_id) AS f FROM orders",
    ] {
        assert_eq!(faults(sql).await, "", "{sql}");
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn time_windows() {
    let mut all = String::new();
    for sql in [
        "SELECT window_start, count(*) AS n FROM orders GROUP BY tumble(purchased_at, INTERVAL '1 month')",
        "SELECT window_start FROM orders",
        "SELECT tumble(purchased_at, INTERVAL '1 minute') AS w FROM orders",
        "SELECT count(*) AS n FROM orders GROUP BY tumble(purchased_at)",
        "SELECT count(*) AS n FROM orders GROUP BY tumble(purchased_at, units)",
        "SELECT count(*) AS n FROM orders GROUP BY tumble(order_id, INTERVAL '1 minute')",
        "SELECT count(*) AS n FROM orders GROUP BY hop(purchased_at, INTERVAL '1 second', INTERVAL '30 days')",
        "SELECT count(*) AS n FROM orders\nGROUP BY tumble(purchased_at, INTERVAL '1 hour'), session(purchased_at, INTERVAL '1 hour')",
        "SELECT window_begin FROM orders GROUP BY tumble(purchased_at, INTERVAL '1 hour')",
        "SELECT count(*) AS n FROM orders GROUP BY tumble(purchased, INTERVAL '1 hour')",
    ] {
        all += &faults(sql).await;
        all += "---\n";
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn results_that_a_table_cannot_hold() {
    let mut all = String::new();
    for sql in [
        "SELECT order_id, units AS order_id FROM orders",
        "SELECT o.order_id, i.order_id FROM orders o JOIN items i USING (order_id)",
        "SELECT order_id, NULL AS nothing FROM orders",
        "SELECT order_id,\n  INTERVAL '1 day' AS gap FROM orders",
    ] {
        all += &faults(sql).await;
        all += "---\n";
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn circles_and_consequences() {
    let project = shop()
        .model("a", "SELECT * FROM b")
        .model("b", "SELECT * FROM c")
        .model("c", "SELECT a.order_id FROM orders JOIN a USING (order_id)")
        .model("itself", "SELECT * FROM itself")
        .model("broken", "SELECT nope FROM orders")
        .model("downstream", "SELECT also_nope FROM broken")
        .model_with("checked", "SELECT order_id FROM orders", |m| {
            m.checks.push(Draft::Relationship("order_id", "back", "order_id"));
        })
        .model("back", "SELECT order_id FROM checked");
    let pipelines = Builder::new("UTC")
        .source("s", ORDERS)
        .model("first", "SELECT order_id FROM second_input")
        .model("last", "SELECT order_id FROM second")
        .pipeline("other")
        .source("second_input", ORDERS)
        .model("second", "SELECT order_id FROM first");
    insta::assert_snapshot!(format!("{}---\n{}", project.faults().await, pipelines.faults().await));
}

#[tokio::test]
async fn keys_contracts_and_parameters() {
    let project = shop()
        .param("vip", SqlType::Decimal(12, 2), Some("10.005"))
        .param("floor", SqlType::BigInt, None)
        .model_with("m", "SELECT order_id, units, weight FROM orders WHERE units > $vpi", |_| {})
        .model_with("n", "SELECT order_id, units AS \"Units\", weight FROM orders", |m| {
            m.key = vec!["order_idd".into(), "units".into()];
            m.partition_by = vec!["weight".into(), "day".into()];
            m.columns = vec![
                ("order_id".into(), SqlType::BigInt, true),
                ("unit".into(), SqlType::BigInt, true),
                ("weight".into(), SqlType::Double, true),
            ];
        })
        .model_with("o", "SELECT sum(weight) AS w FROM orders", |_| {});
    insta::assert_snapshot!(project.faults().await);
}

#[tokio::test]
async fn checks() {
    let project = shop()
        .source_with(
            "events",
            &[("kind", SqlType::Text), ("at", SqlType::TimestampTz), ("n", SqlType::SmallInt)],
            |s| {
                s.event_time = Some("att".into());
            },
        )
        .model_with("m", "SELECT order_id, units, \"Price\" AS price, purchased_at FROM orders", |m| {
            m.checks = vec![
                Draft::Sql("prise >= 0 and unitz < 3"),
                Draft::Sql("price +"),
                Draft::Sql("price + 1"),
                Draft::Sql("sum(price) > 0"),
                Draft::Sql("units in (select 1)"),
                Draft::Sql("units > $nope"),
                Draft::Sql("lenght(order_id) = 32"),
                Draft::Sql("random() < 1"),
                Draft::NotNull("prise"),
                Draft::Unique("Price"),
                Draft::Accepted("units", &["1", "two"]),
                Draft::Relationship("order_id", "item", "order_id"),
                Draft::Relationship("order_id", "items", "amount"),
                Draft::Relationship("order_id", "items", "orderid"),
                Draft::Freshness("units"),
            ];
        });
    insta::assert_snapshot!(project.faults().await);
}

#[tokio::test]
async fn faults_come_in_the_order_of_files_and_lines() {
    let (_, plan, mut faults) = shop()
        .model("z", "SELECT nope FROM orders")
        .model("a", "SELECT order_id,\n  nope2,\n  nope3 FROM orders")
        .model("fine", "SELECT order_id FROM orders")
        .plan()
        .await;
    faults.retain(|fault| fault.severity == Severity::Error);
    let places: Vec<(String, usize)> =
        faults.iter().map(|f| f.place.as_ref().unwrap()).map(|p| (p.source.path.clone(), p.span.start)).collect();
    assert_eq!(places, [("sql/a.sql".into(), 19), ("sql/a.sql".into(), 28), ("sql/z.sql".into(), 7)]);
    assert_eq!(plan.models.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["fine"]);
}

#[tokio::test]
async fn sound_models_come_with_notes() {
    let all = shop()
        .model("anew", "SELECT o.order_id FROM orders o, items i WHERE o.units > i.amount")
        .model("bag", "SELECT order_status FROM orders WHERE units > 1")
        .model("clock", "SELECT order_id, now() AS at FROM orders")
        .model("grouped", "SELECT order_status, count(*) AS n FROM orders GROUP BY order_status");
    insta::assert_snapshot!(all.notes().await);
    let estimates =
        "SELECT order_status, approx_median(units) AS m, median(units) AS e FROM orders GROUP BY order_status";
    assert!(faults(estimates).await.starts_with("warning[approximate]: approx_median() is an estimate"));
}

#[tokio::test]
async fn places_in_a_block_of_yaml() {
    use std::sync::Arc;
    use tidemill::spec::fault::SourceText;
    // A block scalar: the SQL's lines stand indented, and its columns count characters, not bytes.
    let yaml = "models:\n  m:\n    sql: |\n      SELECT 'ação' AS c,\n        ordr_id\n      FROM orders\n";
    let source = Arc::new(SourceText { path: "pipelines/sales.yaml".into(), text: yaml.into() });
    let mut project = shop().model("m", "SELECT 'ação' AS c,\n  ordr_id\nFROM orders").build();
    let sql = &mut project.pipelines[0].models[0].sql;
    sql.source = source;
    sql.line_starts = ["SELECT", "  ordr_id", "FROM"].map(|line| yaml.find(line).unwrap()).to_vec();
    let (_, faults) = tidemill::plan::plan_project(&project, &crate::plan_project::Contracts::utc()).await;
    let place = faults[0].place.clone().unwrap();
    assert_eq!(&yaml[place.span], "ordr_id");
}

#[tokio::test]
async fn a_from_that_cannot_be_run_is_told() {
    let mut all = String::new();
    for sql in [
        "SELECT o.order_id, x FROM orders o, LATERAL (SELECT x FROM unnest(make_array(o.units)) AS u(x) ORDER BY x LIMIT 1) l",
        "SELECT o.order_id, x FROM orders o LEFT JOIN unnest(make_array(o.units)) AS u(x) ON x > 1",
        "SELECT o.order_id, x FROM orders o,\n  unnest(make_array(o.unitz)) AS u(x)",
        "SELECT o.order_id, x FROM orders o, unnest(o.units) AS u(x)",
    ] {
        all += &faults(sql).await;
        all += "---\n";
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn what_a_run_could_not_build_is_told_before() {
    let mut all = String::new();
    for sql in [
        "SELECT order_id,\n  order_id IN (SELECT order_id FROM items) AS sold\nFROM orders",
        "SELECT CASE WHEN EXISTS (SELECT 1 FROM items i WHERE i.order_id = o.order_id) THEN 1 END AS sold FROM orders o",
        "SELECT order_id, (SELECT count(*) FROM items i WHERE i.order_id < o.order_id) AS n FROM orders o",
        "SELECT count(DISTINCT order_id, units) AS n FROM orders",
        "SELECT order_id, CAST('abc' AS date) AS d FROM orders",
        "SELECT order_id, CAST(99999 AS smallint) AS n FROM orders",
        "SELECT date '2018-02-30' AS d, order_id\nFROM orders WHERE purchased_at > '2018-13-01' AND order_status ~ '('",
        "SELECT percentile_cont(1.5) WITHIN GROUP (ORDER BY units) AS p FROM orders",
        "SELECT array_agg(DISTINCT order_id ORDER BY units) AS l FROM orders",
        "SELECT order_id AS \"A\", units AS a FROM orders",
        "SELECT order_id FROM orders\nWHERE order_status SIMILAR TO 'deliv%'",
        "SELECT date_trunc('fortnight', purchased_at) AS f, extract(fortnight FROM purchased_at) AS e FROM orders",
        "SELECT date_bin(INTERVAL '0 days', purchased_at) AS b FROM orders WHERE regexp_like(order_status, '[')",
    ] {
        all += &faults(sql).await;
        all += "---\n";
    }
    // Whether these fail hangs on the rows.
    for sql in [
        "SELECT order_id FROM orders WHERE order_id IN (SELECT order_id FROM items) OR units > 1",
        "SELECT order_id, (SELECT count(*) FROM items i WHERE i.order_id = o.order_id) AS n FROM orders o",
        "SELECT units / 0 AS n FROM orders",
        "SELECT 1 / 0 AS n FROM orders",
        "SELECT CAST(order_id AS bigint) AS n FROM orders",
    ] {
        assert_eq!(faults(sql).await, "", "{sql}");
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn what_cannot_follow_a_frame_is_told_before_a_run() {
    let over = |frame: &str| {
        format!(
            "SELECT order_id, bit_or(units) OVER (PARTITION BY order_status ORDER BY order_id {frame}) AS b FROM orders"
        )
    };
    assert_eq!(faults(&over("")).await, "");
    assert_eq!(faults(&over("ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW")).await, "");
    let told = faults(&over("ROWS BETWEEN 1 PRECEDING AND CURRENT ROW")).await;
    assert!(told.contains("this aggregate can't follow a frame whose first row moves"), "{told}");
    let of_booleans = "SELECT order_id, bool_or(units > 1) OVER (ORDER BY order_id ROWS 2 PRECEDING) AS b FROM orders";
    assert_eq!(faults(of_booleans).await, "");
}

#[tokio::test]
async fn shared_columns_that_cannot_be_told() {
    let mut all = String::new();
    for sql in [
        "SELECT order_id FROM orders\nNATURAL FULL JOIN items",
        "SELECT order_id FROM items a JOIN items b ON a.amount = b.amount RIGHT JOIN orders USING (order_id)",
        "SELECT order_id FROM items x, orders o FULL JOIN items i USING (order_id)",
        "SELECT order_id FROM orders JOIN (items a FULL JOIN items b USING (amount)) ON true",
    ] {
        all += &faults(sql).await;
        all += "---\n";
    }
    for sql in [
        "SELECT order_id FROM orders NATURAL JOIN items",
        "SELECT order_id, amount FROM orders LEFT JOIN items USING (order_id) WHERE order_id > 'a'",
    ] {
        assert_eq!(faults(sql).await, "", "{sql}");
    }
    insta::assert_snapshot!(all);
}
