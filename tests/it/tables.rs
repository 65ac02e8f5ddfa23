//! Tables as files: written, scanned, brought into Delta logs, read by other engines and at other versions.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use datafusion::physical_plan::displayable;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{SessionConfig, SessionContext};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::table::delta::{self, At};
use tidemill::table::{TableFiles, Warehouse, garbage, parquet_table, types, write_files};

use crate::house::root;
use crate::process::Bounded;
use crate::python;

pub(crate) const ZONE: &str = "America/Sao_Paulo";

pub(crate) async fn warehouse() -> (TempDir, Warehouse) {
    let dir = tempfile::tempdir().unwrap();
    let warehouse = Warehouse::open("warehouse", dir.path(), &Default::default()).await.unwrap();
    (dir, warehouse)
}

/// Writes a batch as a table's files.
pub(crate) async fn files_of(warehouse: &Warehouse, table: &str, batch: &RecordBatch, by: &[&str]) -> TableFiles {
    let partition_by: Vec<String> = by.iter().map(|name| (*name).to_owned()).collect();
    let stream = futures::stream::iter([Ok(batch.clone())]);
    let stream = Box::pin(RecordBatchStreamAdapter::new(batch.schema(), stream));
    let files = write_files(warehouse, table, &batch.schema(), &partition_by, "part", vec![stream]).await.unwrap();
    TableFiles { schema: batch.schema(), partition_by, files }
}

pub(crate) async fn apply(warehouse: &Warehouse, table: &str, n: u64, files: &TableFiles) -> i64 {
    let info = json!({ "run": "r" });
    let target = delta::Target { writer: "shop", n, committed_at_us: n as i64 * 1_000_000, files, info: &info };
    delta::apply(warehouse, table, target).await.unwrap()
}

pub(crate) fn ids(ids: &[i64]) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, false)]);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(ids.to_vec()))]).unwrap()
}

/// Numbers that make a large file: from those that follow from one another it is small.
pub(crate) fn scattered(count: usize) -> Vec<i64> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    (0..count).map(|_| random.random_range(0..1 << 40)).collect()
}

async fn query(warehouse: &Warehouse, table: &str, files: TableFiles, sql: &str) -> (String, String) {
    let config = SessionConfig::new().with_target_partitions(4).with_collect_statistics(true);
    let session = SessionContext::new_with_config(config);
    session.register_table("t", parquet_table(warehouse, table, files, ZONE).unwrap()).unwrap();
    let frame = session.sql(sql).await.unwrap();
    let plan = frame.create_physical_plan().await.unwrap();
    let shown = displayable(plan.as_ref()).indent(false).to_string();
    let rows = datafusion::physical_plan::collect(plan, session.task_ctx()).await.unwrap();
    (pretty_format_batches(&rows).unwrap().to_string(), shown)
}

/// A column of each type that a model can have, with a null, extremes and odd values.
fn every_type() -> RecordBatch {
    let instant = 1_535_767_200_123_456_i64;
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None, Some(vec![])]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("small", Arc::new(Int16Array::from(vec![Some(i16::MIN), None, Some(i16::MAX)]))),
        ("int", Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(i32::MAX)]))),
        ("big", Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)]))),
        ("unsigned", Arc::new(UInt64Array::from(vec![Some(0), None, Some(u64::MAX)]))),
        ("real", Arc::new(Float32Array::from(vec![Some(f32::NAN), None, Some(1.5)]))),
        ("double", Arc::new(Float64Array::from(vec![Some(-0.0), None, Some(1e300)]))),
        ("price", decimals(&[Some(-1), None, Some(99_999_999_999)], 12, 2)),
        ("huge", decimals(&[Some(-(10_i128.pow(38) - 1)), None, Some(10_i128.pow(38) - 1)], 38, 10)),
        ("text", Arc::new(StringViewArray::from(vec![Some("São 'Paulo'\n\"x\""), None, Some("")]))),
        ("bytes", Arc::new(BinaryViewArray::from(vec![Some(&b"\x00\xff"[..]), None, Some(b"")]))),
        ("day", Arc::new(Date32Array::from(vec![Some(-719_162), None, Some(17_774)]))),
        ("time", Arc::new(Time64MicrosecondArray::from(vec![Some(0), None, Some(86_399_999_999)]))),
        ("wall", Arc::new(TimestampMicrosecondArray::from(vec![Some(instant), None, Some(-1)]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![Some(instant), None, Some(-1)]).with_timezone(ZONE))),
        (
            "nanos",
            Arc::new(TimestampNanosecondArray::from(vec![Some(instant * 1000), None, Some(0)]).with_timezone(ZONE)),
        ),
        ("list", Arc::new(lists)),
    ];
    let nullable = columns.into_iter().map(|(name, column)| (name, column, name != "id"));
    RecordBatch::try_from_iter_with_nullable(nullable).unwrap()
}

fn decimals(values: &[Option<i128>], precision: u8, scale: i8) -> ArrayRef {
    Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(precision, scale).unwrap())
}

/// What a reader must get: the same values as table types.
fn as_read(batch: &RecordBatch) -> RecordBatch {
    let schema = types::reading_schema(&types::table_schema(&batch.schema()).unwrap(), ZONE);
    let cast = |(column, field): (&ArrayRef, &Arc<Field>)| arrow::compute::cast(column, field.data_type()).unwrap();
    let columns = batch.columns().iter().zip(schema.fields()).map(cast).collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

fn all_nullable(schema: &Schema) -> Schema {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_round_trips() {
    let (_dir, warehouse) = warehouse().await;
    let batch = every_type();
    let files = files_of(&warehouse, "t", &batch, &[]).await;
    apply(&warehouse, "t", 1, &files).await;
    let expected = pretty_format_batches(&[as_read(&batch)]).unwrap().to_string();
    let (from_log, _) = delta::files_at(&warehouse, "t", At::Latest).await.unwrap();
    for files in [files, from_log] {
        let provider = parquet_table(&warehouse, "t", files.clone(), ZONE).unwrap();
        // A log says of wall-clock tables that any column may be null.
        assert_eq!(all_nullable(&provider.schema()), all_nullable(&as_read(&batch).schema()));
        let (rows, _) = query(&warehouse, "t", files.clone(), "select * from t order by id").await;
        assert_eq!(rows, expected);
        // Bounds and null counts may answer, and must be right.
        for column in batch.schema().fields().iter().map(|field| field.name()).filter(|name| *name != "list") {
            let sql = format!(r#"select count("{column}") n, min("{column}") lo, max("{column}") hi from t"#);
            let plain = format!(
                r#"select count("{column}") n, min("{column}") lo, max("{column}") hi from (values (1)) a(one), t where one = 1 and id + one > 0"#
            );
            let from_stats = query(&warehouse, "t", files.clone(), &sql).await.0;
            assert_eq!(from_stats, query(&warehouse, "t", files.clone(), &plain).await.0, "{column}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counting_reads_no_file_and_filters_skip_files() {
    let (dir, warehouse) = warehouse().await;
    let mut files = files_of(&warehouse, "t", &ids(&[1, 2, 3]), &[]).await;
    files.files.extend(files_of(&warehouse, "t", &ids(&[10, 20]), &[]).await.files);
    let (rows, plan) = query(&warehouse, "t", files.clone(), "select count(*), min(id), max(id) from t").await;
    assert!(rows.contains("| 5        | 1         | 20        |"), "{rows}");
    assert!(!plan.contains("DataSourceExec"), "{plan}");
    // The second file can't hold the row, so that it isn't missed.
    let second = dir.path().join("warehouse/t").join(&files.files[1].path);
    std::fs::remove_file(second).unwrap();
    let (rows, _) = query(&warehouse, "t", files.clone(), "select id from t where id = 2").await;
    assert!(rows.contains("| 2  |"), "{rows}");
    let session = SessionContext::new();
    session.register_table("t", parquet_table(&warehouse, "t", files.clone(), ZONE).unwrap()).unwrap();
    let error = session.sql("select sum(id) from t").await.unwrap().collect().await.unwrap_err();
    assert!(error.to_string().contains(&files.files[1].path), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_columns_keep_their_places_and_prune() {
    let (_dir, warehouse) = warehouse().await;
    let schema = Schema::new(vec![
        Field::new("day", DataType::Date32, true),
        Field::new("id", DataType::Int64, false),
        Field::new("city", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some(ZONE.into())), true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Date32Array::from(vec![Some(0), Some(1), None])),
        Arc::new(Int64Array::from(vec![1, 2, 3])),
        Arc::new(StringArray::from(vec![Some("a/b=c %"), None, Some("ü")])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(1), Some(2), None]).with_timezone(ZONE)),
    ];
    let batch = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
    let files = files_of(&warehouse, "t", &batch, &["city", "day", "at"]).await;
    assert_eq!(files.files.len(), 3);
    apply(&warehouse, "t", 1, &files).await;
    let (from_log, _) = delta::files_at(&warehouse, "t", At::Latest).await.unwrap();
    assert_eq!(from_log.partition_by, ["city", "day", "at"]);
    let expected = pretty_format_batches(&[as_read(&batch)]).unwrap().to_string();
    for files in [files, from_log] {
        assert_eq!(query(&warehouse, "t", files.clone(), "select * from t order by id").await.0, expected);
        let (rows, _) = query(&warehouse, "t", files.clone(), "select id from t where day = date '1970-01-02'").await;
        assert!(rows.contains("| 2  |") && !rows.contains("| 1  |"), "{rows}");
        let (rows, _) = query(&warehouse, "t", files, "select city, count(*) c from t group by city order by c").await;
        assert!(rows.contains("a/b=c %"), "{rows}");
    }
    let read = read_by_others(&warehouse, "t", None);
    assert_eq!(read["deltalake"], read["polars"]);
    assert_eq!(read["deltalake"][0]["city"], "a/b=c %");
    assert_eq!(read["deltalake"][1]["day"], "1970-01-02");
    assert_eq!(read["deltalake"][2]["day"], Value::Null);
    assert_eq!(read["polars"][1]["at"], "1970-01-01T00:00:00.000002+00:00");
}

/// What the `deltalake` package and Polars read from a table.
pub(crate) fn read_by_others(warehouse: &Warehouse, table: &str, version: Option<i64>) -> Value {
    read_url_by_others(&format!("{}/{table}", warehouse.url), version, &BTreeMap::new())
}

/// What the `deltalake` package and Polars read from the table at a path or URL, with the store's options.
pub(crate) fn read_url_by_others(url: &str, version: Option<i64>, options: &BTreeMap<String, String>) -> Value {
    let mut command = python::script("read_delta.py");
    command.arg(url);
    command.env("STORE_OPTIONS", serde_json::to_string(options).unwrap());
    command.args(version.map(|version| version.to_string()));
    let output = command.finish();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn other_engines_read_the_same_rows() {
    let (_dir, warehouse) = warehouse().await;
    let batch = every_type();
    apply(&warehouse, "t", 1, &files_of(&warehouse, "t", &batch, &[]).await).await;
    let read = read_by_others(&warehouse, "t", None);
    for engine in ["deltalake", "polars"] {
        assert_every_type(&read[engine], engine);
    }
    assert_every_type(&read_by_spark(&warehouse, "t"), "Spark");
}

/// What Spark reads from a table.
fn read_by_spark(warehouse: &Warehouse, table: &str) -> Value {
    let jars = root().join("target/drivers/spark");
    assert!(jars.is_dir(), "{} is missing: run scripts/install-drivers, which makes it", jars.display());
    let mut command = python::script("read_spark.py");
    command.arg(jars).arg(Path::new(&warehouse.url).join(table));
    let output = command.finish();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Asserts that an engine read the rows of [`every_type`].
fn assert_every_type(rows: &Value, engine: &str) {
    let first = json!({
        "id": 1, "bool": true, "small": -32768, "int": i32::MIN, "big": i64::MIN, "unsigned": "0", "real": "NaN",
        "double": -0.0, "price": "-0.01", "huge": "-9999999999999999999999999999.9999999999",
        "text": "São 'Paulo'\n\"x\"", "bytes": "00ff", "day": "0001-01-01", "time": "00:00:00",
        "wall": "2018-09-01T02:00:00.123456", "at": "2018-09-01T02:00:00.123456+00:00",
        "nanos": "2018-09-01T02:00:00.123456+00:00", "list": [1, null],
    });
    assert_eq!(rows[0], first, "{engine}");
    let nulls = rows[1].as_object().unwrap();
    assert!(nulls.iter().all(|(name, value)| name == "id" || value.is_null()), "{engine}: {nulls:?}");
    assert_eq!(rows[2]["unsigned"], "18446744073709551615", "{engine}");
    assert_eq!((&rows[2]["text"], &rows[2]["bytes"]), (&json!(""), &json!("")), "{engine}");
    assert_eq!(rows[2]["time"], "23:59:59.999999", "{engine}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_result_is_a_table_with_columns() {
    let (_dir, warehouse) = warehouse().await;
    let none = every_type().slice(0, 0);
    let files = files_of(&warehouse, "t", &none, &[]).await;
    assert_eq!(apply(&warehouse, "t", 1, &files).await, 0);
    let (files, _) = delta::files_at(&warehouse, "t", At::Latest).await.unwrap();
    let (rows, _) = query(&warehouse, "t", files, "select count(*) n, max(price) from t").await;
    assert!(rows.contains("| 0 |"), "{rows}");
    assert_eq!(read_by_others(&warehouse, "t", None)["polars"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_read_as_they_were_or_refused() {
    let (dir, warehouse) = warehouse().await;
    let mut all = Vec::new();
    for n in 1..=3 {
        let files = files_of(&warehouse, "t", &ids(&[n as i64]), &[]).await;
        assert_eq!(apply(&warehouse, "t", n, &files).await, n as i64 - 1);
        all.push(files.files);
    }
    let at = async |at| delta::files_at(&warehouse, "t", at).await;
    for version in 0..3 {
        let (files, found) = at(At::Version(version)).await.unwrap();
        assert_eq!((found, files.files), (version, all[version as usize].clone()));
        assert_eq!(read_by_others(&warehouse, "t", Some(version))["polars"], json!([{ "id": version + 1 }]));
    }
    assert_eq!(at(At::TimestampUs(2_999_999)).await.unwrap().1, 1);
    assert_eq!(at(At::TimestampUs(3_000_000)).await.unwrap().1, 2);
    assert!(at(At::TimestampUs(999_999)).await.unwrap_err().to_string().contains("no version of that time"));
    assert!(at(At::Version(3)).await.unwrap_err().to_string().contains("there is no version 3 of t"));
    assert!(at(At::Version(-1)).await.is_err());
    assert!(delta::files_at(&warehouse, "u", At::Latest).await.unwrap_err().to_string().contains("no table u"));
    // As after vacuum: the present rows never come instead.
    std::fs::remove_file(dir.path().join("warehouse/t").join(&all[0][0].path)).unwrap();
    assert!(at(At::Version(0)).await.unwrap_err().to_string().contains("no longer kept"));
    let history = delta::history(&warehouse, "t", 2).await.unwrap();
    assert_eq!(
        history.iter().map(|h| (h.version, h.committed_at_us)).collect::<Vec<_>>(),
        [(2, 3_000_000), (1, 2_000_000)]
    );
    assert_eq!(history[0].info["run"], "r");
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_columns_and_partitions_are_changed_in_the_log() {
    let (_dir, warehouse) = warehouse().await;
    apply(&warehouse, "t", 1, &files_of(&warehouse, "t", &ids(&[1]), &[]).await).await;
    let wall: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(5)]));
    let batch = RecordBatch::try_from_iter([("id", ids(&[7]).column(0).clone()), ("wall", wall)]).unwrap();
    apply(&warehouse, "t", 2, &files_of(&warehouse, "t", &batch, &["id"]).await).await;
    let read = read_by_others(&warehouse, "t", None);
    assert_eq!(read["polars"], json!([{ "id": 7, "wall": "1970-01-01T00:00:00.000005" }]));
    assert_eq!(read["deltalake"], read["polars"]);
    assert_eq!(read["partition_columns"], json!(["id"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_versions_make_checkpoints_and_stay_readable() {
    let (dir, warehouse) = warehouse().await;
    for n in 1..=103_u64 {
        let files = TableFiles { schema: ids(&[]).schema(), partition_by: vec![], files: file_per_commit(n) };
        apply(&warehouse, "t", n, &files).await;
    }
    let log: Vec<String> = std::fs::read_dir(dir.path().join("warehouse/t/_delta_log"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(log.iter().any(|name| name.contains("checkpoint") && name.ends_with("parquet")), "{log:?}");
    assert_eq!(delta::position(&warehouse, "shop", "t").await.unwrap(), Some((102, Some(103))));
    assert_eq!(delta::files_at(&warehouse, "t", At::Latest).await.unwrap().0.files, file_per_commit(103));
}

fn file_per_commit(n: u64) -> Vec<tidemill::table::DataFile> {
    vec![tidemill::table::DataFile {
        path: format!("part-{n}.parquet"),
        size: 10,
        rows: n,
        partition_values: vec![],
        stats: Some(format!(r#"{{"numRecords":{n}}}"#)),
    }]
}

#[tokio::test(flavor = "multi_thread")]
async fn cleaning_takes_only_what_nothing_names() {
    let (_dir, warehouse) = warehouse().await;
    let old = files_of(&warehouse, "t", &ids(&[1]), &[]).await;
    apply(&warehouse, "t", 1, &old).await;
    let new = files_of(&warehouse, "t", &ids(&[2]), &[]).await;
    apply(&warehouse, "t", 2, &new).await;
    let recorded = files_of(&warehouse, "t", &ids(&[3]), &[]).await;
    let orphan = files_of(&warehouse, "t", &ids(&[4]), &[]).await;
    let keep: HashSet<String> = recorded.files.iter().map(|file| file.path.clone()).collect();
    let young = garbage::collect(
        &warehouse,
        "t",
        &keep,
        1,
        garbage::MinAge { of_any: Duration::from_secs(3600), ..garbage::MinAge::default() },
    )
    .await
    .unwrap();
    assert_eq!(young.files, 0);
    let collected = garbage::collect(&warehouse, "t", &keep, 1, garbage::MinAge::default()).await.unwrap();
    assert_eq!((collected.files, collected.bytes), (1, orphan.files[0].size));
    let exists = |files: &TableFiles| Path::new(&warehouse.url).join("t").join(&files.files[0].path).exists();
    assert!(exists(&old), "removed from the log a moment ago: version 0 is still readable");
    assert!(exists(&new) && exists(&recorded) && !exists(&orphan));
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_folder_names_are_only_names() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("São #1 100%20 'x' [y]");
    let warehouse = Warehouse::open("w w", &folder, &Default::default()).await.unwrap();
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a/b %"]));
    let batch = RecordBatch::try_from_iter([("id", ids(&[1]).column(0).clone()), ("c", text)]).unwrap();
    let files = files_of(&warehouse, "t", &batch, &["c"]).await;
    let synced: Vec<String> = files.files.iter().map(|file| format!("t/{}", file.path)).collect();
    warehouse.sync_files(&synced).await.unwrap();
    apply(&warehouse, "t", 1, &files).await;
    apply(&warehouse, "t", 1, &files).await;
    assert!(folder.join("w w/t/_delta_log/00000000000000000000.json").exists());
    assert!(folder.join("w w/t").join(&files.files[0].path).exists());
    let (from_log, version) = delta::files_at(&warehouse, "t", At::Latest).await.unwrap();
    assert_eq!((version, &from_log.files), (0, &files.files));
    let (rows, _) = query(&warehouse, "t", from_log, "select * from t").await;
    assert!(rows.contains("a/b %"), "{rows}");
    assert_eq!(
        garbage::collect(&warehouse, "t", &HashSet::new(), 1, garbage::MinAge::default()).await.unwrap().files,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_read_by_several_cores() {
    let (_dir, warehouse) = warehouse().await;
    let values = scattered(2_500_000);
    let files = files_of(&warehouse, "t", &ids(&values), &[]).await;
    assert_eq!(files.files.len(), 1);
    let (rows, plan) = query(&warehouse, "t", files, "select sum(id * 2) from t").await;
    assert!(plan.contains("file_groups={4 groups"), "{plan}");
    assert!(rows.contains(&(values.iter().sum::<i64>() * 2).to_string()), "{rows}");
}
