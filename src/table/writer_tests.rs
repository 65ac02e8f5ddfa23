//! Data files share streams, split by partition value, and leave nothing when a write fails.

use arrow::array::{Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use object_store::memory::InMemory;

use datafusion::error::DataFusionError;

use super::*;
use crate::table::{Parsed, Seen};

fn memory() -> Warehouse {
    Warehouse {
        store: Arc::new(InMemory::new()),
        root: Path::from("w"),
        url: "memory:///w".into(),
        is_local: false,
        seen: Seen::default(),
        parsed: Parsed::default(),
    }
}

fn schema() -> SchemaRef {
    let columns = [("id", DataType::Int64), ("city", DataType::Utf8), ("x", DataType::Float64)];
    Arc::new(Schema::new(columns.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec()))
}

fn batch(from: i64, rows: i64) -> RecordBatch {
    let ids = Int64Array::from_iter_values(from..from + rows);
    let cities = StringArray::from_iter((from..from + rows).map(|i| (i % 3 > 0).then(|| format!("city {}", i % 3))));
    let xs = Float64Array::from_iter_values((from..from + rows).map(|i| if i == 0 { f64::NAN } else { i as f64 }));
    RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(cities), Arc::new(xs)]).unwrap()
}

fn stream(batches: Vec<std::result::Result<RecordBatch, DataFusionError>>) -> SendableRecordBatchStream {
    Box::pin(RecordBatchStreamAdapter::new(schema(), futures::stream::iter(batches)))
}

#[tokio::test]
async fn small_streams_share_a_file_with_statistics_that_are_sure() {
    let warehouse = memory();
    let streams = (0..4).map(|i| stream(vec![Ok(batch(i * 10, 10))])).collect();
    let files = write_files(&warehouse, "t", &schema(), &[], "part", streams).await.unwrap();
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].rows, 40);
    assert_eq!(files[0].size, warehouse.list("t").await.unwrap()[0].size);
    let stats: serde_json::Value = serde_json::from_str(files[0].stats.as_ref().unwrap()).unwrap();
    assert_eq!(stats["numRecords"], 40);
    assert_eq!((&stats["minValues"]["id"], &stats["maxValues"]["id"]), (&0.into(), &39.into()));
    assert_eq!(stats["nullCount"]["city"], 14);
    assert!(stats["maxValues"]["x"].is_null(), "a bound of floats leaves NaN out: {stats}");
}

#[tokio::test]
async fn each_partition_value_has_its_own_file() {
    let warehouse = memory();
    let streams = vec![stream(vec![Ok(batch(0, 30)), Ok(batch(30, 30))])];
    let mut files = write_files(&warehouse, "t", &schema(), &["city".into()], "part", streams).await.unwrap();
    files.sort_by_key(|file| file.partition_values.clone());
    let values: Vec<_> = files.iter().map(|file| file.partition_values[0].as_deref()).collect();
    assert_eq!(values, [None, Some("city 1"), Some("city 2")]);
    assert!(files.iter().all(|file| file.rows == 20));
}

#[tokio::test]
async fn more_partition_values_than_open_files() {
    let warehouse = memory();
    let count = limits::OPEN_FILES as i64 + 50;
    let streams = vec![stream(vec![Ok(batch(0, count)), Ok(batch(0, count))])];
    let files = write_files(&warehouse, "t", &schema(), &["id".into()], "part", streams).await.unwrap();
    assert_eq!(files.iter().map(|file| file.rows).sum::<u64>(), 2 * count as u64);
}

#[tokio::test]
async fn nothing_stays_of_a_write_that_failed_and_our_error_comes_through() {
    let warehouse = memory();
    let ours = || DataFusionError::External(Box::new(Error::new(crate::error::ErrorKind::Check, "row 7 is bad")));
    let large = || Ok(batch(0, 1_000_000));
    let streams = vec![stream(vec![large(), large()]), stream(vec![large(), Err(ours().context("while reading"))])];
    let error = write_files(&warehouse, "t", &schema(), &[], "part", streams).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (crate::error::ErrorKind::Check, "row 7 is bad"));
    assert_eq!(warehouse.list("t").await.unwrap(), vec![]);
}

#[tokio::test]
async fn no_rows_make_no_files_and_a_null_where_none_may_be_is_refused() {
    let warehouse = memory();
    let files = write_files(&warehouse, "t", &schema(), &[], "part", vec![stream(vec![])]).await.unwrap();
    assert!(files.is_empty());
    let mut fields: Vec<Field> = schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields[1] = Field::new("city", DataType::Utf8, false);
    let strict: SchemaRef = Arc::new(Schema::new(fields));
    let error = write_files(&warehouse, "t", &strict, &[], "p", vec![stream(vec![Ok(batch(0, 3))])]).await.unwrap_err();
    assert!(error.to_string().contains("city"), "{error}");
}
