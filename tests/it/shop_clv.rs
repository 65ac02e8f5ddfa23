//! `customer_lifetime_value` against what customers did next: its SQL, run over a generated shop cut at a day.

use std::path::Path;

use chrono::NaiveDate;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Float64Type;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;
use tidemill::generate::{Format, Options, shop};

const SQL: &str = include_str!("../../sql/customer_lifetime_value.sql");
const PROJECT: &str = include_str!("../../tidemill.yaml");

/// What a model predicts of a customer, what the naive rule does, and what came.
struct Outcome {
    predicted: f64,
    naive: f64,
    actual: f64,
    tenure_days: f64,
}

/// A shop of two years whose tables `orders`, `items` and `customers` are registered.
async fn two_years(dir: &Path, seed: u64) -> SessionContext {
    let options = Options {
        dir: dir.to_path_buf(),
        orders: 16_000,
        events: 0,
        seed,
        start: NaiveDate::from_ymd_opt(2017, 1, 1).unwrap(),
        days: 730,
        format: Format::Parquet,
        late: 0.0,
        duplicates: 0.0,
        malformed: 0.0,
    };
    shop(&options).unwrap();
    let config = SessionConfig::new().set_bool("datafusion.sql_parser.parse_float_as_decimal", true);
    let ctx = SessionContext::new_with_config(config);
    for (table, name) in [("orders", "all_orders"), ("items", "items"), ("customers", "customers")] {
        let path = format!("{}/", dir.join(table).display());
        // Read once: each table is 730 small files.
        let rows = ctx.read_parquet(path, ParquetReadOptions::default()).await.unwrap().cache().await.unwrap();
        ctx.register_table(name, rows.into_view()).unwrap();
    }
    ctx
}

/// Defaults of the project's `clv_*` parameters.
fn parameters() -> Vec<(String, ScalarValue)> {
    let default = |line: &str| {
        let (name, rest) = line.trim().split_once(": {")?;
        let value = rest.split_once("default: \"")?.1.split_once('"')?.0;
        name.starts_with("clv_").then(|| (name.to_owned(), ScalarValue::Float64(Some(value.parse().unwrap()))))
    };
    let found: Vec<_> = PROJECT.lines().filter_map(default).collect();
    assert_eq!(found.len(), 8, "the parameters of tidemill.yaml");
    found
}

/// Column values of a query as floats.
async fn floats(ctx: &SessionContext, sql: &str) -> Vec<Vec<f64>> {
    let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
    let mut rows = Vec::new();
    for batch in &batches {
        let columns: Vec<_> = batch.columns().iter().map(|c| c.as_primitive::<Float64Type>()).collect();
        rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|c| c.value(row)).collect()));
    }
    rows
}

/// Registers the model's result over orders before `cut` as `clv`.
async fn fit(ctx: &SessionContext, cut: &str) {
    let known =
        format!("CREATE OR REPLACE VIEW orders AS SELECT * FROM all_orders WHERE order_purchase_timestamp < '{cut}'");
    ctx.sql(&known).await.unwrap();
    let model = ctx.sql(SQL).await.unwrap().with_param_values(parameters()).unwrap();
    let clv = model.cache().await.unwrap();
    let _ = ctx.deregister_table("clv").unwrap();
    ctx.register_table("clv", clv.into_view()).unwrap();
}

/// Each customer known at `cut`, with the revenue of the `days` after it.
async fn outcomes(ctx: &SessionContext, cut: &str, days: u32) -> Vec<Outcome> {
    fit(ctx, cut).await;
    let sql = format!(
        "SELECT CAST(k.predicted_12m AS double) * {days} / 365,
                CAST(k.revenue AS double) / greatest(k.tenure_days, 1) * {days},
                CAST(coalesce(f.revenue, 0) AS double),
                CAST(k.tenure_days AS double)
         FROM clv AS k
         LEFT JOIN (
             SELECT c.customer_unique_id, sum(i.price) AS revenue
             FROM all_orders AS o
             JOIN customers AS c ON c.customer_id = o.customer_id
             JOIN items AS i ON i.order_id = o.order_id
             WHERE o.order_status NOT IN ('canceled', 'unavailable')
               AND o.order_purchase_timestamp >= '{cut}'
               AND o.order_purchase_timestamp < CAST('{cut}' AS timestamp) + INTERVAL '{days} days'
             GROUP BY c.customer_unique_id
         ) AS f ON f.customer_unique_id = k.customer_unique_id"
    );
    let rows = floats(ctx, &sql).await;
    rows.into_iter().map(|r| Outcome { predicted: r[0], naive: r[1], actual: r[2], tenure_days: r[3] }).collect()
}

/// Mean absolute error and root mean square error.
fn errors(outcomes: &[&Outcome], guess: impl Fn(&Outcome) -> f64) -> (f64, f64) {
    let n = outcomes.len() as f64;
    let misses = || outcomes.iter().map(|o| guess(o) - o.actual);
    (misses().map(f64::abs).sum::<f64>() / n, (misses().map(|m| m * m).sum::<f64>() / n).sqrt())
}

#[tokio::test(flavor = "multi_thread")]
async fn predictions_beat_each_customers_own_mean_rate_on_held_out_months() {
    for seed in [101, 102] {
        let dir = tempfile::tempdir().unwrap();
        let ctx = two_years(dir.path(), seed).await;
        for (cut, days) in [("2018-01-01", 365), ("2018-07-01", 184)] {
            let all = outcomes(&ctx, cut, days).await;
            assert!(all.len() > 1_000 && all.iter().any(|o| o.actual > 0.0));
            // The naive rule is at its worst for newcomers, whose first order is all of their short past: also without them.
            for least_days in [0.0, 90.0, 180.0] {
                let some: Vec<&Outcome> = all.iter().filter(|o| o.tenure_days >= least_days).collect();
                let (ours, naive) = (errors(&some, |o| o.predicted), errors(&some, |o| o.naive));
                println!(
                    "seed {seed}, {cut} + {days} days, {} customers of {least_days}+ days: mean absolute error {:.2} \
                          against {:.2}, root mean square {:.2} against {:.2}",
                    some.len(),
                    ours.0,
                    naive.0,
                    ours.1,
                    naive.1
                );
                assert!(ours.0 < naive.0, "mean absolute error, seed {seed}, {cut}, {least_days}: {ours:?} {naive:?}");
                assert!(ours.1 < naive.1, "root mean square, seed {seed}, {cut}, {least_days}: {ours:?} {naive:?}");
            }
            // Nor does it win by always guessing little, or the mean of all.
            let some: Vec<&Outcome> = all.iter().collect();
            let mean = all.iter().map(|o| o.actual).sum::<f64>() / all.len() as f64;
            let ours = errors(&some, |o| o.predicted);
            assert!(ours.1 < errors(&some, |_| 0.0).1 && ours.1 < errors(&some, |_| mean).1);
            assert!(ours.0 < errors(&some, |_| mean).0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_known_customer_has_one_sane_row() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = two_years(dir.path(), 103).await;
    fit(&ctx, "2018-03-15").await;
    let one = async |sql: &str| floats(&ctx, sql).await[0][0];
    let rows = one("SELECT CAST(count(*) AS double) FROM clv").await;
    assert_eq!(rows, one("SELECT CAST(count(DISTINCT customer_unique_id) AS double) FROM clv").await);
    let known = "SELECT CAST(count(DISTINCT c.customer_unique_id) AS double)
                 FROM orders AS o JOIN customers AS c ON c.customer_id = o.customer_id
                 WHERE o.order_status NOT IN ('canceled', 'unavailable')";
    assert_eq!(rows, one(known).await);
    let sane = "SELECT CAST(count(*) AS double) FROM clv
                WHERE predicted_12m >= 0 AND mean_order_value >= 0 AND recency_days BETWEEN 0 AND tenure_days
                  AND first_order <= last_order AND orders >= 1";
    assert_eq!(rows, one(sane).await);
    assert!(one("SELECT CAST(count(*) AS double) FROM clv WHERE orders = 1 AND predicted_12m > 0").await > 100.0);
}

#[test]
fn the_model_names_its_sources_and_reads_no_clock() {
    for name in ["Batislam", "Fader", "gamma-gamma"] {
        assert!(SQL.contains(name), "{name}");
    }
    let code: String = SQL.lines().filter(|l| !l.starts_with("--")).collect();
    assert!(!code.contains("now()") && !code.contains("current_"));
}
