//! Joins of a change with a source that was read before: what of the source can't have its keys isn't read, and what tells so may be
//! gone or damaged.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use parquet::arrow::ArrowWriter;

use crate::process::Bounded;
use crate::scratch::{Scratch, Seen};

const ROWS: i64 = 5_000;

/// Orders as text, which are landed, and their lines as Parquet, read in place.
fn shop() -> Scratch {
    Scratch::new(
        "pipeline: sales\nsources:
  orders: { connector: files, path: 'orders/*.csv', format: csv, settle: 0s, columns: { id: bigint, customer: text } }
  lines: { connector: files, path: 'lines/*.parquet', format: parquet, settle: 0s }
models:
  sold:
    sql: select customer, order_id, amount from orders join lines on id = order_id
  unsold:
    sql: select id from orders where not exists (select 1 from lines where order_id = id)
    key: [id]
",
    )
}

fn orders(ids: std::ops::Range<i64>) -> String {
    ids.fold("id,customer\n".to_owned(), |text, id| text + &format!("{id},customer {}\n", id % 7))
}

fn lines(shop: &Scratch, path: &str, ids: std::ops::Range<i64>) {
    let amounts: ArrayRef = Arc::new(Int64Array::from_iter_values(ids.clone().map(|id| id * 3)));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
    let batch = RecordBatch::try_from_iter([("order_id", ids), ("amount", amounts)]).unwrap();
    fs::create_dir_all(shop.path("lines")).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(shop.path(path)).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Ids apart from each other, of the first load.
fn first_load(shop: &Scratch) {
    shop.write("orders/1.csv", orders(0..ROWS));
    lines(shop, "lines/1.parquet", 0..ROWS - 2);
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select count(*), sum(amount) from sold"), "4998,37462509\n");
    assert_eq!(shop.rows("select id from unsold order by id"), "4998\n4999\n");
}

fn run(shop: &Scratch) -> Seen {
    let filter = "warn,tidemill::engine::maintain::lookup=trace,tidemill::run::key_filters=debug";
    let seen = shop.seen(shop.command(&["run"]).env("TIDEMILL_LOG", filter).finish());
    assert_eq!(seen.code, 0, "{}", seen.err);
    shop.exits(0, &["verify"]);
    seen
}

/// Files of filters of a source.
fn filters(shop: &Scratch, source: &str) -> Vec<PathBuf> {
    let folder = shop.path(&format!("warehouse/_tidemill/sales/landed/{source}"));
    let Ok(files) = fs::read_dir(folder) else { return vec![] };
    let has_filters = |path: &PathBuf| {
        let bytes = bytes::Bytes::from(fs::read(path).unwrap());
        let file = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        file.schema().field_with_name("blake3").is_ok()
    };
    files.map(|file| file.unwrap().path()).filter(has_filters).collect()
}

#[test]
fn what_cannot_have_a_changes_keys_is_not_read() {
    let shop = shop();
    first_load(&shop);
    assert_eq!((filters(&shop, "orders").len(), filters(&shop, "lines").len()), (1, 1));
    // New orders with their lines: none of the keys was there before, but for the two of orders that had no lines.
    shop.write("orders/2.csv", orders(ROWS..ROWS + 100));
    lines(&shop, "lines/2.parquet", ROWS - 1..ROWS + 100);
    let seen = run(&shop);
    let looked_up: Vec<&str> = seen.err.lines().filter(|line| line.contains("looked keys up")).collect();
    assert!(looked_up.iter().any(|line| line.contains("relation=lines") && line.contains("hits=0")), "{looked_up:#?}");
    assert_eq!(shop.rows("select count(*) from sold"), "5099\n");
    assert_eq!(shop.rows("select id from unsold"), "4998\n");
    // A line of an old order, and a file that goes with its rows.
    lines(&shop, "lines/3.parquet", 4998..4999);
    shop.remove("orders/2.csv");
    run(&shop);
    assert_eq!(shop.rows("select count(*), max(order_id) from sold"), "5000,4999\n");
    assert_eq!(shop.rows("select id from unsold"), "");
}

#[test]
fn a_filter_that_is_gone_or_damaged_only_costs_time() {
    for how in ["gone", "damaged", "another's"] {
        let shop = shop();
        first_load(&shop);
        let (of_orders, of_lines) = (filters(&shop, "orders").remove(0), filters(&shop, "lines").remove(0));
        match how {
            "gone" => fs::remove_file(&of_lines).unwrap(),
            "damaged" => {
                let mut bytes = fs::read(&of_lines).unwrap();
                let at = bytes.len() / 3;
                bytes[at..at + 200].fill(0);
                fs::write(&of_lines, bytes).unwrap();
            }
            _ => drop(fs::copy(of_orders, &of_lines).unwrap()),
        }
        lines(&shop, "lines/2.parquet", ROWS - 1..ROWS);
        shop.write("orders/2.csv", orders(17..18));
        let seen = run(&shop);
        assert_eq!(seen.err.contains("a key filter is left alone"), how != "another's", "{how}: {}", seen.err);
        assert_eq!(shop.rows("select count(*) from sold where order_id = 17"), "2\n", "{how}");
    }
}

#[test]
fn a_join_that_is_new_has_its_filters_made() {
    let shop = shop();
    let pipeline = fs::read_to_string(shop.path("pipelines/sales.yaml")).unwrap();
    let (without, _) = pipeline.split_once("  sold:").unwrap();
    shop.write("pipelines/sales.yaml", format!("{without}  all_lines:\n    sql: select * from lines\n"));
    shop.write("orders/1.csv", orders(0..ROWS));
    lines(&shop, "lines/1.parquet", 0..ROWS - 2);
    shop.exits(0, &["run"]);
    assert_eq!(filters(&shop, "lines").len(), 0);
    shop.write("pipelines/sales.yaml", pipeline);
    shop.exits(0, &["run"]);
    assert_eq!((filters(&shop, "orders").len(), filters(&shop, "lines").len()), (1, 1));
    shop.exits(0, &["verify"]);
}
