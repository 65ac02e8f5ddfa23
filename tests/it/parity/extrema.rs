//! Extrema of floats: the same in whatever order rows come and however they are split, in models and in queries; where no NaN and no
//! negative zero is about, and no group of nothing but an infinity, what the engine itself gives.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Float32Array, Float64Array, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Float64Type, Schema};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tidemill::plan::{self, Clock};
use tidemill::spec::sql_type::SqlType;

use crate::plan_project::{Builder, lines};

/// Key, double, number; the real is made of the double.
type Row = (i64, Option<f64>, i64);

const COLUMNS: &[(&str, SqlType)] =
    &[("k", SqlType::BigInt), ("f", SqlType::Double), ("r", SqlType::Real), ("i", SqlType::BigInt)];

const QUERIES: &[&str] = &[
    "SELECT k, min(f) AS lo, max(f) AS hi FROM s GROUP BY k",
    "SELECT k, min(r) AS lo, max(r) AS hi, max(DISTINCT f) AS d FROM s GROUP BY k",
    "SELECT min(f) AS lo, max(r) AS hi, max(arrow_cast(f, 'Float16'))::double AS half FROM s",
    "SELECT k, min(f) FILTER (WHERE i > 3) AS lo, max(r) FILTER (WHERE i > 99) AS hi FROM s GROUP BY k",
    "SELECT k, max(CASE WHEN i > 3 THEN 1 ELSE f END) AS hi, max(i) AS n FROM s GROUP BY k HAVING max(f) > 1",
    "SELECT k, i, min(f) OVER (PARTITION BY k) AS lo, max(r) OVER (PARTITION BY k ORDER BY i ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS hi FROM s",
    "SELECT i, max(f) FILTER (WHERE i > 3) OVER (PARTITION BY k) AS hi FROM s",
    "SELECT k, i, max(f) AS hi FROM s GROUP BY ROLLUP (k, i)",
    "SELECT hi, count(*) AS c FROM (SELECT k, max(f) + 0 AS hi FROM s GROUP BY k) x GROUP BY hi",
    "SELECT i, greatest(f, 0.0::double, r) AS hi, least(f, 0.0::double, r) AS lo FROM s",
    "SELECT f, i FROM s ORDER BY f DESC, i LIMIT 3",
    "SELECT DISTINCT ON (k) k, f FROM s ORDER BY k, f",
    "SELECT i FROM s WHERE f = (SELECT max(f) FROM s)",
];

/// The engine may keep any of them; models keep the least.
const ANY: &str = "SELECT k, any_value(f) AS f, any_value(i) AS i FROM s GROUP BY k";

fn table(rows: &[Row]) -> Arc<dyn TableProvider> {
    let fields = [("k", DataType::Int64), ("f", DataType::Float64), ("r", DataType::Float32), ("i", DataType::Int64)];
    let schema = Arc::new(Schema::new(fields.map(|(name, of)| Field::new(name, of, true)).to_vec()));
    let batch = |rows: &[Row]| {
        let columns: [ArrayRef; 4] = [
            Arc::new(rows.iter().map(|row| Some(row.0)).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.1).collect::<Float64Array>()),
            Arc::new(rows.iter().map(|row| row.1.map(|f| f as f32)).collect::<Float32Array>()),
            Arc::new(rows.iter().map(|row| Some(row.2)).collect::<Int64Array>()),
        ];
        RecordBatch::try_new(Arc::clone(&schema), columns.to_vec()).unwrap()
    };
    let (one, other) = rows.split_at(rows.len() / 2);
    let partition = |rows: &[Row]| rows.chunks(3).map(batch).collect::<Vec<_>>();
    Arc::new(MemTable::try_new(schema.clone(), vec![partition(one), partition(other)]).unwrap())
}

/// The same rows in some orders; each has a number of its own.
fn orders(floats: &[f64]) -> Vec<Vec<Row>> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut rows: Vec<Row> = (0..24)
        .map(|i| (i % 4, if rng.random_bool(0.2) { None } else { Some(floats[rng.random_range(0..floats.len())]) }, i))
        .collect();
    let mut orders = vec![rows.clone()];
    for _ in 0..8 {
        rows.shuffle(&mut rng);
        orders.push(rows.clone());
    }
    orders
}

const SPECIAL: &[f64] = &[f64::NAN, -f64::NAN, -0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, 1.5, -2.0];

async fn collected(context: &SessionContext, plan: LogicalPlan) -> Vec<RecordBatch> {
    context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap()
}

/// What a model and what a query of this SQL give.
async fn answers(sql: &str, rows: &[Row]) -> [Vec<RecordBatch>; 2] {
    let planned = Builder::new("UTC").source("s", COLUMNS).model("m", sql).planned().await;
    let context = plan::session(&planned.project, &Clock { now_us: 0, zone: "UTC".into() }, None);
    let tables = [("s".to_owned(), table(rows))].into();
    let model = plan::bind(&planned.model("m").plan, &tables).unwrap();
    context.register_table("s", table(rows)).unwrap();
    let query = plan::query(&context, sql, None).await.unwrap();
    [collected(&context, model).await, collected(&context, query).await]
}

#[tokio::test]
async fn extrema_hang_on_no_order() {
    for sql in QUERIES.iter().chain([&ANY]) {
        let mut first = None;
        for rows in orders(SPECIAL) {
            for answer in answers(sql, &rows).await {
                let answer = lines(&answer);
                let first = first.get_or_insert_with(|| answer.clone());
                assert_eq!(*first, answer, "{sql}\nof {rows:?}");
            }
        }
        assert!(first.is_some_and(|lines| !lines.is_empty()), "{sql} gives no rows");
    }
}

#[tokio::test]
async fn extrema_are_those_of_the_total_order() {
    for rows in orders(SPECIAL) {
        for answer in answers(QUERIES[0], &rows).await {
            for batch in answer {
                let keys = batch.column(0).as_primitive::<datafusion::arrow::datatypes::Int64Type>();
                for (at, key) in keys.values().iter().enumerate() {
                    let group = || rows.iter().filter(|row| row.0 == *key).filter_map(|row| row.1);
                    let found = |column: usize| batch.column(column).as_primitive::<Float64Type>().value(at).to_bits();
                    assert_eq!(found(1), group().min_by(f64::total_cmp).unwrap().to_bits());
                    assert_eq!(found(2), group().max_by(f64::total_cmp).unwrap().to_bits());
                }
            }
        }
    }
}

#[tokio::test]
async fn plain_numbers_give_what_the_engine_gives() {
    // The engine's own greatest of a group of −∞ alone is the least finite double.
    let rows = &orders(&[0.0, f64::MAX, f64::MIN, 1.5, -2.0, 1e-300])[1];
    for sql in QUERIES {
        let raw = SessionContext::new();
        raw.register_table("s", table(rows)).unwrap();
        let expected = lines(&raw.sql(sql).await.unwrap().collect().await.unwrap());
        for answer in answers(sql, rows).await {
            assert_eq!(lines(&answer), expected, "{sql}");
        }
    }
}
