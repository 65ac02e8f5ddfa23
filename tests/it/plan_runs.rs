//! What planned models give when they are run: hidden columns, deduplication, parameters, keys, types, ties, rules.

use tidemill::spec::sql_type::SqlType;

use crate::plan_project::{Builder, Planned, Tables};

const NOW: &str = "2018-09-01T03:00:00Z";

const ORDERS: &[(&str, SqlType)] =
    &[("order_id", SqlType::Text), ("at", SqlType::TimestampTz), ("price", SqlType::Decimal(12, 2))];

const HIDDEN: &str = "_source_file, CAST(_source_row AS BIGINT) AS _source_row, CAST(NULL AS VARCHAR) AS _topic, \
    CAST(NULL AS INT) AS _partition, CAST(NULL AS BIGINT) AS _offset, arrow_cast(NULL, 'Timestamp(Microsecond, Some(\"UTC\"))') AS _ingested_at, CAST(NULL AS VARCHAR) AS _key, \
    arrow_cast(NULL, 'Timestamp(Microsecond, Some(\"UTC\"))') AS _timestamp, CAST(NULL AS VARCHAR) AS _headers, \
    CAST(NULL AS BOOLEAN) AS _tombstone";

/// Orders as a runner binds them: all hidden columns, text as views, instants in another zone.
async fn orders() -> Tables {
    let rows = [
        ("a", "2018-01-01T00:00:00Z", "1.10"),
        ("b", "2018-01-01T00:00:00Z", "2.20"),
        ("a", "2017-12-31T00:00:00Z", "3.30"),
        ("a", "2017-12-31T00:00:00Z", "0.70"),
    ];
    let values: Vec<String> = rows
        .iter()
        .enumerate()
        .map(|(n, (id, at, price))| format!("('{id}', '{at}', '{price}', 'f{}.csv', {})", n % 2, n + 1))
        .collect();
    let sql = format!(
        "SELECT arrow_cast(id, 'Utf8View') AS order_id, arrow_cast(at, 'Timestamp(Nanosecond, Some(\"UTC\"))') AS at, CAST(price AS DECIMAL(12, 2)) AS price, {HIDDEN} \
         FROM (VALUES {}) v(id, at, price, _source_file, _source_row)",
        values.join(", ")
    );
    Tables::default().with("orders", &sql).await.with("names", "SELECT 'a' AS order_id, 'Anna' AS name").await
}

#[tokio::test]
async fn hidden_columns_are_there_when_named_and_never_in_a_star() {
    let project = Builder::new("UTC")
        .source("orders", ORDERS)
        .source("names", &[("order_id", SqlType::Text), ("name", SqlType::Text)])
        .model("star", "SELECT * FROM orders")
        .model("named", "SELECT *, _source_file, _source_row FROM orders WHERE _source_row < 3")
        .model("qualified", "SELECT o.*, o._source_row FROM orders o WHERE order_id = 'b'")
        .model("derived", "SELECT * FROM (SELECT order_id, _source_row AS r, _source_row FROM orders) x WHERE r = 4")
        .model("joined", "SELECT *, o._source_row FROM orders o JOIN (SELECT 'b' AS id, _source_file FROM orders LIMIT 1 OFFSET 0) n ON n.id = o.order_id".replace("LIMIT 1 OFFSET 0", "WHERE _source_row = 1").as_str())
        .model("position", "SELECT _topic, _partition, _offset, _ingested_at FROM orders WHERE _source_row = 1")
        .planned()
        .await;
    let tables = orders().await;
    let columns = |name: &str| {
        let names: Vec<&str> = project.model(name).schema.fields().iter().map(|f| f.name().as_str()).collect();
        names.join(" ")
    };
    assert_eq!(columns("star"), "order_id at price");
    assert_eq!(columns("named"), "order_id at price _source_file _source_row");
    assert_eq!(columns("derived"), "order_id r _source_row");
    assert_eq!(columns("joined"), "order_id at price id _source_file _source_row");
    assert_eq!(
        project.rows("named", NOW, &tables).await,
        ["a | 2018-01-01T00:00:00Z | 1.10 | f0.csv | 1", "b | 2018-01-01T00:00:00Z | 2.20 | f1.csv | 2",]
    );
    assert_eq!(project.rows("qualified", NOW, &tables).await, ["b | 2018-01-01T00:00:00Z | 2.20 | 2"]);
    assert_eq!(project.rows("derived", NOW, &tables).await, ["a | 4 | 4"]);
    assert_eq!(project.rows("joined", NOW, &tables).await, ["b | 2018-01-01T00:00:00Z | 2.20 | b | f0.csv | 2"]);
    assert_eq!(project.rows("position", NOW, &tables).await, ["null | null | null | null"]);
}

#[tokio::test]
async fn deduplicated_sources_give_the_first_row_of_each_value() {
    let project = Builder::new("UTC")
        .source_with("orders", ORDERS, |s| {
            s.event_time = Some("at".into());
            s.deduplicate = vec!["order_id".into()];
        })
        .model("m", "SELECT * FROM orders")
        .model("n", "SELECT order_id, _source_row FROM orders o")
        .planned()
        .await;
    // The earliest, and of two as early the one that is less by its other columns.
    assert_eq!(
        project.rows("m", NOW, &orders().await).await,
        ["a | 2017-12-31T00:00:00Z | 0.70", "b | 2018-01-01T00:00:00Z | 2.20"]
    );
    assert_eq!(project.rows("n", NOW, &orders().await).await, ["a | 4", "b | 2"]);
    let source = &project.plan.sources[0];
    let names: Vec<&str> = source.relation_plan.schema().fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names[..4], ["order_id", "at", "price", "_source_file"]);
    assert_eq!(names.len(), 3 + tidemill::plan::HIDDEN_COLUMNS.len());
}

#[tokio::test]
async fn parameters_are_typed() {
    let build = |value: &str| {
        Builder::new("UTC")
            .param("least", SqlType::Decimal(12, 2), Some(value))
            .param("who", SqlType::Text, Some("a' OR 'x' = 'x"))
            .source("orders", ORDERS)
            .model("m", "SELECT order_id, price, price * $least AS p FROM orders WHERE price > $least")
            .model("n", "SELECT order_id FROM orders WHERE order_id = $who")
            .model("other", "SELECT order_id FROM orders")
    };
    let project = build("2.00").planned().await;
    assert_eq!(project.rows("m", NOW, &orders().await).await, ["a | 3.30 | 6.6000", "b | 2.20 | 4.4000"]);
    assert!(project.rows("n", NOW, &orders().await).await.is_empty());
    // The value is in the fingerprint of those that read it.
    let again = build("2.00").planned().await;
    let changed = build("2.01").planned().await;
    assert_eq!(project.model("m").fingerprint, again.model("m").fingerprint);
    assert_ne!(project.model("m").fingerprint, changed.model("m").fingerprint);
    assert_eq!(project.model("other").fingerprint, changed.model("other").fingerprint);
}

#[tokio::test]
async fn fingerprints_are_of_meaning() {
    let of = |sql: &'static str, zone: &'static str| async move {
        let project = Builder::new(zone).source("orders", ORDERS).model("m", sql).planned().await;
        project.model("m").fingerprint.clone()
    };
    let base = of("SELECT order_id, sum(price) AS p FROM orders GROUP BY order_id", "UTC").await;
    // Comments and spaces change nothing.
    assert_eq!(base, of("-- sums\nSELECT order_id,\n  sum(price) AS p\nFROM orders GROUP BY order_id", "UTC").await);
    assert_eq!(base.len(), 64, "a hash of its own, not one of a process");
    assert_ne!(base, of("SELECT order_id, max(price) AS p FROM orders GROUP BY order_id", "UTC").await);
    assert_ne!(base, of("SELECT order_id, sum(price) AS p FROM orders GROUP BY order_id", "Europe/Berlin").await);
    let values = |last: u8| format!("SELECT * FROM (VALUES (1), (2), (3), (4), (5), (6), ({last})) v(n)");
    let seven = Builder::new("UTC").model("m", &values(7)).planned().await.model("m").fingerprint.clone();
    let eight = Builder::new("UTC").model("m", &values(8)).planned().await.model("m").fingerprint.clone();
    assert_ne!(seven, eight);
}

#[tokio::test]
async fn keys_that_a_plan_proves() {
    let derived = |sql: &'static str, key: &'static [&'static str]| async move {
        let key = key.iter().map(|k| (*k).to_owned()).collect();
        let project =
            Builder::new("UTC").source("orders", ORDERS).model_with("m", sql, |m| m.key = key).planned().await;
        project.model("m").key_is_derived
    };
    assert!(derived("SELECT order_id AS id, sum(price) AS p FROM orders GROUP BY order_id", &["id"]).await);
    assert!(
        derived(
            "WITH x AS (SELECT order_id, count(*) AS n FROM orders GROUP BY 1) SELECT n, order_id FROM x WHERE n > 1",
            &["order_id", "n"]
        )
        .await
    );
    assert!(!derived("SELECT order_id, at, sum(price) AS p FROM orders GROUP BY 1, 2", &["order_id"]).await);
    assert!(
        !derived(
            "SELECT upper(order_id) AS order_id, sum(price) AS p FROM orders GROUP BY orders.order_id",
            &["order_id"]
        )
        .await
    );
    assert!(!derived("SELECT order_id, price FROM orders", &["order_id"]).await);
    assert!(derived("SELECT DISTINCT order_id, price FROM orders", &["order_id", "price"]).await);
    assert!(derived("SELECT window_start, window_end, order_id, count(*) AS n FROM orders GROUP BY order_id, tumble(at, INTERVAL '1 minute')", &["window_start", "order_id"]).await);
}

#[tokio::test]
async fn results_have_types_that_a_table_holds() {
    let project = Builder::new("America/Sao_Paulo")
        .source("orders", ORDERS)
        .model_with(
            "m",
            "SELECT order_id, row_number() OVER (ORDER BY price) AS n, to_timestamp('2018-01-01T00:00:00') AS t, \
             at AT TIME ZONE 'Europe/Berlin' AS z, CAST('10:00' AS TIME) AS tod, arrow_cast(order_id, 'Dictionary(Int32, Utf8)') AS d, \
             avg(price) OVER () AS a, now() AS clock FROM orders",
            |m| m.key = vec!["order_id".into()],
        )
        .planned()
        .await;
    let types: Vec<String> = project
        .model("m")
        .schema
        .fields()
        .iter()
        .map(|f| format!("{} {:?}{}", f.name(), f.data_type(), if f.is_nullable() { "" } else { " not null" }))
        .collect();
    insta::assert_snapshot!(types.join("\n"), @r#"
    order_id Utf8View not null
    n Int64
    t Timestamp(Microsecond, Some("America/Sao_Paulo"))
    z Timestamp(Microsecond, None)
    tod Utf8View
    d Utf8View
    a Decimal128(16, 6)
    clock Timestamp(Microsecond, Some("America/Sao_Paulo"))
    "#);
    let strategy = &project.model("m").strategy;
    assert_eq!(strategy.name, "recompute");
    insta::assert_snapshot!(strategy.operators.join(", "), @"project, window, window, scan orders");
}

#[tokio::test]
async fn ties_are_broken_by_all_columns() {
    let project = Builder::new("UTC")
        .source("orders", ORDERS)
        .model("limited", "SELECT order_id, price FROM orders ORDER BY at LIMIT 1")
        .model("numbered", "SELECT order_id, price, row_number() OVER (PARTITION BY order_id ORDER BY at) AS n FROM orders")
        .model("first", "SELECT order_id, first_value(price ORDER BY at) AS f, array_agg(price) AS all_prices FROM orders GROUP BY order_id")
        .planned()
        .await;
    let tables = orders().await;
    let mut shuffled = Tables::default();
    for (name, table) in &tables.0 {
        let context = datafusion::prelude::SessionContext::new();
        let frame = context.read_table(table.clone()).unwrap();
        let schema = std::sync::Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.collect().await.unwrap();
        let reversed: Vec<_> = batches
            .iter()
            .rev()
            .map(|batch| {
                let rows: arrow::array::UInt32Array =
                    (0..u32::try_from(batch.num_rows()).unwrap()).rev().collect::<Vec<_>>().into();
                arrow::compute::take_record_batch(batch, &rows).unwrap()
            })
            .collect();
        let table = datafusion::datasource::MemTable::try_new(schema, vec![reversed]).unwrap();
        shuffled.0.insert(name.clone(), std::sync::Arc::new(table));
    }
    for name in ["limited", "numbered", "first"] {
        let rows = project.rows(name, NOW, &tables).await;
        assert_eq!(rows, project.rows(name, NOW, &shuffled).await, "{name}");
    }
    assert_eq!(project.rows("limited", NOW, &tables).await, ["a | 0.70"]);
    assert_eq!(project.rows("first", NOW, &tables).await, ["a | 0.70 | [0.70, 1.10, 3.30]", "b | 2.20 | [2.20]"]);
}

#[tokio::test]
async fn relations_that_differ_from_their_placeholders() {
    let project =
        Builder::new("UTC").source("orders", ORDERS).model("m", "SELECT order_id FROM orders").planned().await;
    let plan = &project.model("m").plan;
    let missing = tidemill::plan::bind(plan, &Default::default()).unwrap_err();
    assert!(missing.to_string().contains("relation: orders"), "{missing}");
    let other = Tables::default().with("orders", "SELECT 1 AS order_id").await;
    let wrong = tidemill::plan::bind(plan, &other.0).unwrap_err().to_string();
    assert!(wrong.contains("planned: text") && wrong.contains("found: bigint"), "{wrong}");
}

struct Travel;

#[async_trait::async_trait]
impl tidemill::plan::TimeTravel for Travel {
    async fn table_at(
        &self,
        table: &str,
        at: tidemill::plan::At,
    ) -> tidemill::error::Result<std::sync::Arc<dyn datafusion::catalog::TableProvider>> {
        let version = match at {
            tidemill::plan::At::Version(version) if version < 10 => version,
            tidemill::plan::At::Version(_) => {
                return Err(tidemill::error::Error::usage("no such version").with("table", table));
            }
            tidemill::plan::At::Timestamp(us) => -us / 1_000_000,
        };
        let tables = Tables::default().with(table, &format!("SELECT CAST({version} AS BIGINT) AS v")).await;
        Ok(tables.0[table].clone())
    }

    fn is_declared(&self, table: &str) -> bool {
        table == "monthly"
    }
}

#[tokio::test]
async fn queries() {
    let project =
        Builder::new("America/Sao_Paulo").param("p", SqlType::BigInt, Some("7")).source("orders", ORDERS).build();
    let clock = tidemill::plan::Clock { now_us: 0, zone: "America/Sao_Paulo".into() };
    let context = tidemill::plan::session(&project, &clock, None);
    for (name, table) in orders().await.0 {
        context.register_table(name.as_str(), table).unwrap();
    }
    context
        .register_table(
            "daily",
            Tables::default().with("daily", "SELECT CAST(99 AS BIGINT) AS v").await.0["daily"].clone(),
        )
        .unwrap();
    let run = async |sql: &str| -> Result<Vec<String>, String> {
        let plan =
            tidemill::plan::query(&context, sql, Some(&Travel)).await.map_err(|f| crate::plan_project::render(&f))?;
        let batches = context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
        Ok(crate::plan_project::lines(&batches))
    };
    let ok = async |sql: &str| run(sql).await.unwrap();
    assert_eq!(ok("SELECT * FROM orders WHERE order_id = 'b'").await, ["b | 2018-01-01T00:00:00Z | 2.20"]);
    assert_eq!(ok("SELECT _source_row FROM shop.main.orders ORDER BY _source_row LIMIT 1").await, ["1"]);
    assert_eq!(
        ok("SELECT window_start, count(*) FROM orders GROUP BY tumble(at, INTERVAL '1 day') ORDER BY 1").await.len(),
        2
    );
    assert_eq!(ok("SELECT current_date, $p + 1").await, ["1969-12-31 | 8"]);
    assert_eq!(ok("SELECT 0.1 + 0.2").await, ["0.3"]);
    assert_eq!(ok("SELECT d.v, daily.v FROM daily VERSION AS OF 3 d, daily").await, ["3 | 99"]);
    assert_eq!(ok("SELECT daily.v FROM main.daily VERSION AS OF 4").await, ["4"]);
    assert_eq!(ok("SELECT v FROM daily TIMESTAMP AS OF '1970-01-01 00:00'").await, ["-10800"]);
    assert_eq!(ok("SELECT v FROM daily TIMESTAMP AS OF now() - INTERVAL '1 minute'").await, ["60"]);
    assert_eq!(ok("SELECT count(*) FROM (SELECT random() AS r FROM orders LIMIT 2)").await, ["2"]);
    assert!(ok("SHOW TABLES").await.iter().any(|line| line.starts_with("shop | main | orders")));
    assert_eq!(ok("DESCRIBE daily").await, ["v | Int64 | NO"]);
    assert!(!ok("EXPLAIN SELECT * FROM orders").await.is_empty());

    let mut all = String::new();
    for sql in [
        "DROP TABLE orders",
        "INSERT INTO daily VALUES (1)",
        "CREATE TABLE x AS SELECT 1",
        "SELECT 1 INTO x FROM daily",
        "COPY daily TO '/tmp/x.csv'",
        "EXPLAIN ANALYZE INSERT INTO daily VALUES (1)",
        "SET datafusion.execution.batch_size = 1",
        "SELECT * FROM dayly",
        "SELECT vv FROM daily",
        "SELECT 1; SELECT 2",
        "SELECT v FROM daily VERSION AS OF 11",
        "SELECT v FROM daily FOR SYSTEM_TIME AS OF '2018-01-01'",
        "SELECT v FROM daily TIMESTAMP AS OF 'yesterday'",
        "SELECT v FROM information_schema.tables VERSION AS OF 1",
    ] {
        let fault = run(sql).await.unwrap_err();
        all += &fault;
        all += "---\n";
    }
    insta::assert_snapshot!(all);
    assert!(tidemill::plan::query(&context, "SELECT v FROM daily VERSION AS OF 3", None).await.is_err());
}

/// Forms of SQL that pass through rewriting, binding and casting unharmed: each runs, with this many rows.
#[tokio::test]
async fn forms_of_sql() {
    let cases = [
        ("SELECT order_id FROM shop.main.orders UNION ALL SELECT order_id FROM main.orders", 8),
        ("SELECT order_id FROM orders o WHERE EXISTS (SELECT 1 FROM names n WHERE n.order_id = o.order_id)", 3),
        ("SELECT order_id, (SELECT max(price) FROM orders p WHERE p.order_id = o.order_id) AS m FROM orders o", 4),
        (
            "SELECT order_id FROM orders WHERE at < now() - INTERVAL '1 month' AND price > (SELECT min(price) FROM orders)",
            3,
        ),
        (
            "SELECT order_id, sum(price) FILTER (WHERE price > 1) AS s, count(DISTINCT price) AS c FROM orders GROUP BY order_id",
            2,
        ),
        (
            "SELECT order_id, date_trunc('day', at) AS d, count(*) AS n FROM orders GROUP BY ROLLUP (order_id, date_trunc('day', at))",
            6,
        ),
        ("SELECT DISTINCT ON (order_id) order_id, price FROM orders ORDER BY order_id, at", 2),
        (
            "WITH w AS (SELECT order_id, window_start AS s, count(*) AS n FROM orders WHERE price > (SELECT 0.8) GROUP BY order_id, session(at, INTERVAL '1 hour')) SELECT * FROM w JOIN names USING (order_id)",
            2,
        ),
        (
            "SELECT window_start, window_end, count(*) AS n FROM orders GROUP BY hop(at, INTERVAL '12 hours', INTERVAL '1 day') ORDER BY window_start DESC LIMIT 3",
            3,
        ),
        (
            "SELECT window_start FROM orders GROUP BY tumble(at, INTERVAL '1 day') UNION SELECT window_start FROM orders GROUP BY tumble(at, INTERVAL '12 hours')",
            2,
        ),
        (
            "SELECT window_start::date AS day, sum(price) AS s FROM orders, names n WHERE orders.order_id = n.order_id GROUP BY tumble(orders.at, INTERVAL '1 day') HAVING sum(price) > 0 ORDER BY window_end",
            2,
        ),
        (
            "SELECT * FROM (SELECT order_id, rank() OVER (PARTITION BY order_id ORDER BY price DESC) AS r FROM orders) t WHERE r = 1",
            2,
        ),
        (
            "SELECT o.order_id, coalesce(n.name, 'unknown') AS name, extract(year FROM at) AS y, to_char(at, '%Y-%m') AS ym FROM orders o LEFT JOIN names n ON n.order_id = o.order_id",
            4,
        ),
        ("SELECT order_id FROM orders EXCEPT SELECT order_id FROM names", 1),
        (
            "SELECT u, string_agg(order_id, ',') AS ids FROM orders CROSS JOIN (SELECT unnest([1, 2]) AS u) x GROUP BY u",
            2,
        ),
        ("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT n FROM r", 5),
        ("SELECT value FROM generate_series(1, 3)", 3),
        (
            "SELECT CASE WHEN price > 1 THEN 'high' ELSE 'low' END AS band, at::timestamp AS local, CAST(at AS date) AS d, price / 3 AS third FROM orders",
            4,
        ),
        (
            "SELECT last_value(price) OVER w AS l, order_id FROM orders WINDOW w AS (PARTITION BY order_id ORDER BY at)",
            4,
        ),
        (
            "SELECT order_id FROM (VALUES ('a'), ('z')) AS v(order_id) WHERE order_id IN (SELECT order_id FROM orders)",
            1,
        ),
        (
            "SELECT order_id, lag(price) OVER (PARTITION BY order_id ORDER BY at) AS before FROM orders QUALIFY row_number() OVER (PARTITION BY order_id ORDER BY at) = 1",
            2,
        ),
    ];
    for (sql, rows) in cases {
        let project = Builder::new("America/Sao_Paulo")
            .source("orders", ORDERS)
            .source("names", &[("order_id", SqlType::Text), ("name", SqlType::Text)])
            .model("m", sql)
            .planned()
            .await;
        let found = project.rows("m", NOW, &orders().await).await;
        assert_eq!(found.len(), rows, "{sql}\n{found:#?}");
    }
}

#[tokio::test]
async fn rules_run_over_rows_with_the_clock_of_the_session() {
    use crate::plan_project::Draft;
    use datafusion::logical_expr::Expr;
    let project = Builder::new("UTC")
        .source_with("orders", ORDERS, |s| {
            s.checks = vec![
                Draft::Sql("price > 1 and at <= now()"),
                Draft::Accepted("price", &["1.10", "2.2", "3.30"]),
                Draft::NotNull("order_id"),
                Draft::Sql("_source_row <> 2"),
                Draft::Relationship("order_id", "names", "order_id"),
            ];
        })
        .source("names", &[("order_id", SqlType::Text), ("name", SqlType::Text)])
        .planned()
        .await;
    let source = project.plan.sources.iter().find(|source| source.spec.name.value == "orders").unwrap();
    assert_eq!(source.check_inputs, ["names"]);
    let failing = async |at: usize, now: &str| {
        let tidemill::plan::CheckTest::Row(test) = &source.checks[at].test else { panic!("a rule over rows") };
        let clock = tidemill::plan::Clock { now_us: crate::plan_project::instant(now), zone: "UTC".into() };
        let context = tidemill::plan::session(&project.project, &clock, None);
        let plan = tidemill::plan::bind(&source.relation_plan, &orders().await.0).unwrap();
        let frame = datafusion::dataframe::DataFrame::new(context.state(), plan);
        frame.filter(Expr::IsFalse(Box::new(test.clone()))).unwrap().count().await.unwrap()
    };
    assert_eq!(failing(0, NOW).await, 1);
    assert_eq!(failing(0, "2017-12-31T12:00:00Z").await, 3);
    assert_eq!(failing(1, NOW).await, 1);
    assert_eq!(failing(2, NOW).await, 0);
    assert_eq!(failing(3, NOW).await, 1);
}

#[tokio::test]
async fn a_contract_of_no_nulls_binds_to_files_that_might_have_some() {
    let mut project = Builder::new("UTC")
        .source("orders", ORDERS)
        .model("m", "SELECT order_id, count(price) AS n FROM (SELECT order_id, price FROM orders WHERE price > 0) t GROUP BY order_id")
        .build();
    for column in &mut project.pipelines[0].sources[0].columns {
        column.nullable = false;
    }
    let (plan, faults) = tidemill::plan::plan_project(&project, &crate::plan_project::Contracts::utc()).await;
    assert!(faults.is_empty());
    let tables = Tables::default()
        .with("orders", "SELECT CASE WHEN random() < 2 THEN 'a' END AS order_id, arrow_cast(NULL, 'Timestamp(Microsecond, Some(\"UTC\"))') AS at, CASE WHEN random() < 2 THEN CAST(1 AS DECIMAL(12, 2)) END AS price")
        .await;
    let project = Planned { project, plan };
    assert_eq!(project.rows("m", NOW, &tables).await, ["a | 1"]);
}

/// Rows meet one by one, equal ones too; nulls are equal, and so are both zeros.
#[tokio::test]
async fn set_operations_with_all_count_rows() {
    let a = "SELECT * FROM (VALUES (1, 0.5, 'x'), (1, 0.5, 'x'), (1, 0.5, 'x'), (2, 0.0, 'y'), (2, -0.0, 'y'), \
             (CAST(NULL AS BIGINT), NULL, NULL), (NULL, NULL, NULL)) v(k, f, t)";
    let b = "SELECT * FROM (VALUES (CAST(1 AS BIGINT), CAST(0.5 AS DOUBLE), 'x'), (3, 1.0, 'z'), (2, 0.0, 'y'), \
             (CAST(NULL AS BIGINT), NULL, NULL)) v(k, f, t)";
    let columns: &[(&str, SqlType)] = &[("k", SqlType::BigInt), ("f", SqlType::Double), ("t", SqlType::Text)];
    let project = Builder::new("UTC")
        .source("a", columns)
        .source("b", columns)
        .model("both", "SELECT k, t FROM a INTERSECT ALL SELECT k, t FROM b")
        .model("rest", "SELECT k, t FROM a EXCEPT ALL SELECT k, t FROM b")
        .model("once", "SELECT k, t FROM a EXCEPT SELECT k, t FROM b")
        .model("floats", "SELECT f FROM a EXCEPT ALL SELECT k - 2 FROM b")
        .model("lists", "SELECT make_array(k) AS l FROM a INTERSECT ALL SELECT make_array(k) FROM b")
        .model("structs", "SELECT named_struct('k', k) AS s FROM a EXCEPT ALL SELECT named_struct('k', k) FROM b")
        .planned()
        .await;
    let tables = Tables::default().with("a", a).await.with("b", b).await;
    let rows = async |name: &str| project.rows(name, NOW, &tables).await;
    assert_eq!(rows("both").await, ["1 | x", "2 | y", "null | null"]);
    assert_eq!(rows("rest").await, ["1 | x", "1 | x", "2 | y", "null | null"]);
    assert_eq!(rows("once").await, [""; 0]);
    assert_eq!(rows("floats").await, ["0.0", "0.5", "0.5", "0.5", "null"]);
    assert_eq!(rows("lists").await, ["[1]", "[2]", "[null]"]);
    assert_eq!(rows("structs").await, ["{k: 1}", "{k: 1}", "{k: 2}", "{k: null}"]);
}

/// A shared column is that of the side that has a row.
#[tokio::test]
async fn columns_that_joins_share_are_of_either_side() {
    let one: &[(&str, SqlType)] = &[("v", SqlType::Text), ("k", SqlType::BigInt)];
    let other: &[(&str, SqlType)] = &[("w", SqlType::Text), ("k", SqlType::BigInt)];
    let project = Builder::new("UTC")
        .source("a", one)
        .source("b", other)
        .source("c", &[("k", SqlType::BigInt), ("x", SqlType::Text)])
        .model("full", "SELECT k, v, w FROM a FULL JOIN b USING (k)")
        .model("full_all", "SELECT * FROM a z FULL JOIN b USING (k)")
        .model("right", "SELECT k, v, w FROM a RIGHT JOIN b USING (k) WHERE k IS NOT NULL")
        .model("right_all", "SELECT * FROM a z RIGHT JOIN b USING (k)")
        .model("left_all", "SELECT * FROM b z LEFT JOIN a USING (k)")
        .model("hidden", "SELECT *, z._source_row AS r FROM a z FULL JOIN b USING (k)")
        .model("without", "SELECT * EXCLUDE (v) FROM a z FULL JOIN b USING (k)")
        .model("grouped", "SELECT k, count(*) AS n FROM a FULL JOIN b USING (k) GROUP BY k HAVING k > 1")
        .model("first", "SELECT v FROM a FULL JOIN b USING (k) ORDER BY k DESC, v LIMIT 1")
        .model("three", "SELECT k, x FROM a FULL JOIN b USING (k) FULL JOIN c USING (k)")
        .model("three_inner", "SELECT * FROM a JOIN b USING (k) JOIN c USING (k) WHERE k > 0")
        .model("inner", "SELECT a.v FROM a JOIN b USING (k) WHERE k IS NOT NULL AND b.w <> ''")
        .model("inside", "SELECT v FROM a JOIN b USING (k) WHERE EXISTS (SELECT 1 FROM c WHERE c.k = k AND x = 'p')")
        .model("windowed", "SELECT k, window_start FROM a FULL JOIN b USING (k) GROUP BY k, tumble(to_timestamp(k), INTERVAL '1 second')")
        .planned()
        .await;
    let with_hidden = |sql: &str| {
        format!("SELECT *, 'f' AS _source_file, CAST(1 AS BIGINT) AS _source_row FROM ({sql})").replace(
            "_source_row FROM",
            &format!("_source_row, {} FROM", &HIDDEN[HIDDEN.find("CAST(NULL AS VARCHAR) AS _topic").unwrap()..]),
        )
    };
    let tables = Tables::default()
        .with("a", &with_hidden("SELECT * FROM (VALUES ('x', CAST(1 AS BIGINT)), ('y', 2)) t(v, k)"))
        .await
        .with("b", &with_hidden("SELECT * FROM (VALUES ('p', CAST(2 AS BIGINT)), ('q', 3)) t(w, k)"))
        .await
        .with("c", &with_hidden("SELECT * FROM (VALUES (CAST(2 AS BIGINT), 'p'), (3, 'q'), (4, 'r')) t(k, x)"))
        .await;
    let rows = async |name: &str| project.rows(name, NOW, &tables).await;
    let columns = |name: &str| {
        let names: Vec<&str> = project.model(name).schema.fields().iter().map(|f| f.name().as_str()).collect();
        names.join(" ")
    };
    assert_eq!(rows("full").await, ["1 | x | null", "2 | y | p", "3 | null | q"]);
    assert_eq!(columns("full"), "k v w");
    assert_eq!(rows("full_all").await, ["null | 3 | q", "x | 1 | null", "y | 2 | p"]);
    assert_eq!(columns("full_all"), "v k w");
    assert_eq!(rows("right").await, ["2 | y | p", "3 | null | q"]);
    assert_eq!(rows("right_all").await, ["null | 3 | q", "y | 2 | p"]);
    assert_eq!(rows("left_all").await, ["p | 2 | y", "q | 3 | null"]);
    assert_eq!(rows("hidden").await, ["null | 3 | q | null", "x | 1 | null | 1", "y | 2 | p | 1"]);
    assert_eq!(rows("without").await, ["null | 1", "p | 2", "q | 3"]);
    assert_eq!(rows("grouped").await, ["2 | 1", "3 | 1"]);
    assert_eq!(rows("first").await, ["null"]);
    assert_eq!(rows("three").await, ["1 | null", "2 | p", "3 | q", "4 | r"]);
    assert_eq!(rows("three_inner").await, ["y | 2 | p | p"]);
    assert_eq!(rows("inner").await, ["y"]);
    assert_eq!(rows("inside").await, ["y"]);
    assert_eq!(rows("windowed").await.len(), 3);
}
