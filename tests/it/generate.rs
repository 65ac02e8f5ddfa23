//! The generator as a user sees it: files, counts, repeatability, and faults that are asked for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;

use arrow::array::RecordBatchReader;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::NaiveDate;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidemill::error::ErrorKind;
use tidemill::generate::{Format, Options, Summary, shop};

fn options(dir: &Path) -> Options {
    Options {
        dir: dir.to_path_buf(),
        orders: 3_000,
        events: 20_000,
        seed: 7,
        start: NaiveDate::from_ymd_opt(2018, 1, 5).unwrap(),
        days: 40,
        format: Format::Csv,
        late: 0.0,
        duplicates: 0.0,
        malformed: 0.0,
    }
}

/// Every file by its path under `dir`.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for folder in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        for file in fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
            let name = file.path().strip_prefix(dir).unwrap().display().to_string();
            found.insert(name, fs::read(file.path()).unwrap());
        }
    }
    found
}

/// Lines of a table's CSV files without headers, sorted. Only for tables whose values have no line breaks.
fn lines(files: &BTreeMap<String, Vec<u8>>, table: &str) -> Vec<String> {
    let of_table = files.iter().filter(|(name, _)| name.starts_with(&format!("{table}/")));
    let texts = of_table.map(|(_, bytes)| std::str::from_utf8(bytes).unwrap());
    let mut lines: Vec<String> = texts.flat_map(|text| text.lines().skip(1)).map(str::to_owned).collect();
    lines.sort();
    lines
}

fn rows(summary: &Summary, table: &str) -> u64 {
    summary.tables.iter().find(|t| t.table == table).unwrap().rows
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_gives_others() {
    for format in [Format::Csv, Format::Json, Format::Parquet] {
        let (a, b, c) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let with = |dir: &Path, seed| shop(&Options { seed, format, late: 0.1, ..options(dir) }).unwrap();
        assert_eq!(with(a.path(), 7), with(b.path(), 7));
        assert!(files(a.path()) == files(b.path()), "{format:?}");
        with(c.path(), 8);
        let (a, c) = (files(a.path()), files(c.path()));
        for (name, bytes) in &a {
            // Translations are the same for all; the last days have no reviews yet.
            let is_same = *bytes == c[name];
            assert!(!is_same || name.starts_with("product_categories/") || name.starts_with("reviews/"), "{name}");
        }
    }
}

#[test]
fn each_source_has_a_folder_and_each_day_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let summary = shop(&options(dir.path())).unwrap();
    let files = files(dir.path());
    for table in ["orders", "items", "payments", "reviews", "events"] {
        assert_eq!(files.keys().filter(|n| n.starts_with(&format!("{table}/"))).count(), 40, "{table}");
        assert!(
            files.contains_key(&format!("{table}/2018-01-05.csv"))
                && files.contains_key(&format!("{table}/2018-02-13.csv"))
        );
    }
    assert!(files.keys().all(|name| name.ends_with(".csv")), "no hidden file is left");
    assert_eq!(rows(&summary, "orders"), 3_000);
    assert_eq!(rows(&summary, "events"), 20_000);
    assert_eq!(lines(&files, "orders").len(), 3_000);
    assert_eq!(lines(&files, "events").len(), 20_000);
    assert_eq!(
        summary.tables.iter().map(|t| t.bytes).sum::<u64>(),
        files.values().map(|b| b.len() as u64).sum::<u64>()
    );
    let header = |name: &str| String::from_utf8(files[name].clone()).unwrap().lines().next().unwrap().to_owned();
    assert_eq!(
        header("orders/2018-01-05.csv"),
        "order_id,customer_id,order_status,order_purchase_timestamp,order_approved_at,order_delivered_carrier_date,\
         order_delivered_customer_date,order_estimated_delivery_date"
    );
    assert_eq!(
        header("events/2018-01-05.csv"),
        "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
    );
    assert!(header("products/products.csv").contains("product_name_lenght"));
}

#[test]
fn files_hold_their_day_in_order_of_time() {
    let dir = tempfile::tempdir().unwrap();
    shop(&options(dir.path())).unwrap();
    for (name, bytes) in files(dir.path()) {
        let Some(column) = [("orders/", 3), ("events/", 0)].iter().find(|(t, _)| name.starts_with(t)).map(|(_, c)| *c)
        else {
            continue;
        };
        let day = name.split('/').nth(1).unwrap().trim_end_matches(".csv");
        let text = String::from_utf8(bytes).unwrap();
        let times: Vec<&str> = text.lines().skip(1).map(|line| line.split(',').nth(column).unwrap()).collect();
        assert!(times.iter().all(|t| t.starts_with(day)), "{name}");
        assert!(times.is_sorted(), "{name}");
    }
}

#[test]
fn late_events_are_the_same_rows_in_later_files() {
    let (plain, late) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    shop(&options(plain.path())).unwrap();
    let summary = shop(&Options { late: 0.05, ..options(late.path()) }).unwrap();
    let (plain, late) = (files(plain.path()), files(late.path()));
    assert_eq!(lines(&plain, "events"), lines(&late, "events"));
    assert_eq!(lines(&plain, "orders"), lines(&late, "orders"));
    assert!((800..1_200).contains(&summary.late), "{}", summary.late);
    let mut misplaced = 0;
    for (name, bytes) in &late {
        let Some(day) = name.strip_prefix("events/").map(|n| n.trim_end_matches(".csv")) else { continue };
        for line in String::from_utf8(bytes.clone()).unwrap().lines().skip(1) {
            assert!(&line[..10] <= day, "{name} holds a row of a day to come: {line}");
            misplaced += u64::from(&line[..10] < day);
        }
    }
    // Those of the last day have no later file.
    assert!(misplaced > summary.late * 9 / 10 && misplaced <= summary.late, "{misplaced} of {}", summary.late);
}

#[test]
fn duplicates_are_true_repeats_beside_the_same_rows() {
    let (plain, twice) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    shop(&options(plain.path())).unwrap();
    let summary = shop(&Options { duplicates: 0.03, ..options(twice.path()) }).unwrap();
    let (plain, mut twice) = (lines(&files(plain.path()), "events"), lines(&files(twice.path()), "events"));
    assert!(plain.windows(2).all(|w| w[0] != w[1]), "no repeats unless asked for");
    assert!((450..750).contains(&summary.duplicates), "{}", summary.duplicates);
    assert_eq!(twice.len() as u64, 20_000 + summary.duplicates);
    assert_eq!(rows(&summary, "events"), 20_000 + summary.duplicates);
    twice.dedup();
    assert_eq!(plain, twice);
}

#[test]
fn malformed_lines_stand_beside_the_same_rows() {
    let (plain, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    shop(&options(plain.path())).unwrap();
    let summary = shop(&Options { malformed: 0.02, ..options(broken.path()) }).unwrap();
    let (plain, broken) = (files(plain.path()), files(broken.path()));
    for table in ["orders", "items", "payments", "events"] {
        let whole: HashSet<String> = lines(&plain, table).into_iter().collect();
        let all = lines(&broken, table);
        let told = summary.tables.iter().find(|t| t.table == table).unwrap();
        let malformed: Vec<&String> = all.iter().filter(|line| !whole.contains(*line)).collect();
        assert_eq!(malformed.len() as u64, told.malformed, "{table}");
        assert_eq!(all.len() as u64, told.rows + told.malformed, "{table}");
        assert!(told.malformed > told.rows / 100, "{table}: {}", told.malformed);
        let fields = plain[&format!("{table}/2018-01-05.csv")].split(|b| *b == b'\n').next().unwrap();
        let fields = fields.iter().filter(|b| **b == b',').count();
        let counts = |line: &&&String| line.matches(',').count();
        assert!(
            malformed.iter().any(|line| counts(&line) < fields) && malformed.iter().any(|line| counts(&line) > fields)
        );
        assert!(malformed.iter().any(|line| counts(&line) == fields), "{table}: some only have a broken value");
    }
    assert_eq!(plain["customers/customers.csv"], broken["customers/customers.csv"]);
}

#[test]
fn json_lines_hold_the_rows_of_csv() {
    let (csv, json) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    shop(&options(csv.path())).unwrap();
    shop(&Options { format: Format::Json, ..options(json.path()) }).unwrap();
    let (csv, json) = (files(csv.path()), files(json.path()));
    let objects = String::from_utf8(json["events/2018-01-05.json"].clone()).unwrap();
    let lines = String::from_utf8(csv["events/2018-01-05.csv"].clone()).unwrap();
    assert_eq!(objects.lines().count(), lines.lines().count() - 1);
    for (object, line) in objects.lines().zip(lines.lines().skip(1)) {
        let object: serde_json::Value = serde_json::from_str(object).unwrap();
        let fields: Vec<&str> = line.split(',').collect();
        assert_eq!(object["event_time"].as_str().unwrap().replace('T', " ").replace('Z', " UTC"), fields[0]);
        assert_eq!(object["product_id"].to_string(), fields[2]);
        assert_eq!(object["brand"].as_str().unwrap_or(""), fields[5]);
        assert_eq!(object["user_session"].as_str().unwrap(), fields[8]);
    }
    let reviews = json.iter().filter(|(name, _)| name.starts_with("reviews/"));
    for line in reviews.flat_map(|(_, bytes)| std::str::from_utf8(bytes).unwrap().lines()) {
        let review: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!((1..=5).contains(&review["review_score"].as_i64().unwrap()));
    }
}

#[test]
fn parquet_holds_the_rows_of_csv_in_the_contracts_types() {
    let (csv, parquet) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    shop(&options(csv.path())).unwrap();
    let summary = shop(&Options { format: Format::Parquet, ..options(parquet.path()) }).unwrap();
    let csv = files(csv.path());
    let read = |name: &str| {
        let file = fs::File::open(parquet.path().join(name)).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        let schema = reader.schema();
        let batches: Vec<_> = reader.map(Result::unwrap).collect();
        concat_batches(&schema, &batches).unwrap()
    };
    let events = read("events/2018-01-05.parquet");
    assert_eq!(*events.schema().field(0).data_type(), DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    assert_eq!(*events.schema().field(6).data_type(), DataType::Decimal128(12, 2));
    assert!(!events.schema().field(0).is_nullable() && events.schema().field(5).is_nullable());
    let shown = ["event_type", "product_id", "category_code", "brand", "price", "user_id", "user_session"];
    let shown = shown.map(|name| {
        let column = events.column_by_name(name).unwrap();
        ArrayFormatter::try_new(column, &FormatOptions::default()).unwrap()
    });
    let text = std::str::from_utf8(&csv["events/2018-01-05.csv"]).unwrap();
    assert_eq!(events.num_rows(), text.lines().count() - 1);
    for (row, line) in text.lines().skip(1).enumerate() {
        let fields: Vec<&str> = line.split(',').collect();
        let expected = [1, 2, 4, 5, 6, 7, 8].map(|i| fields[i].to_owned());
        assert_eq!(shown.each_ref().map(|column| column.value(row).to_string()), expected, "row {row}");
    }
    let orders = read("orders/2018-01-06.parquet");
    assert_eq!(*orders.schema().field(3).data_type(), DataType::Timestamp(TimeUnit::Microsecond, None));
    assert_eq!(orders.num_rows(), csv["orders/2018-01-06.csv"].iter().filter(|b| **b == b'\n').count() - 1);
    assert_eq!((rows(&summary, "orders"), rows(&summary, "events")), (3_000, 20_000));
}

#[test]
fn customers_repeat_cities_are_ambiguous_and_some_facts_lack_their_dimension() {
    let dir = tempfile::tempdir().unwrap();
    shop(&Options { orders: 8_000, days: 400, ..options(dir.path()) }).unwrap();
    let files = files(dir.path());
    let split =
        |table: &str| lines(&files, table).into_iter().map(|l| l.split(',').map(str::to_owned).collect()).collect();
    let customers: Vec<Vec<String>> = split("customers");
    let people: HashSet<&str> = customers.iter().map(|c| c[1].as_str()).collect();
    let ids: HashSet<&str> = customers.iter().map(|c| c[0].as_str()).collect();
    assert_eq!(ids.len(), customers.len(), "one customer_id an order");
    assert!(people.len() * 10 < customers.len() * 8, "{} people in {} orders", people.len(), customers.len());
    let mut states: HashMap<&str, HashSet<&str>> = HashMap::new();
    for customer in &customers {
        states.entry(&customer[3]).or_default().insert(&customer[4]);
    }
    assert!(states.values().any(|s| s.len() > 1), "a city's name in two states");
    let orders: Vec<Vec<String>> = split("orders");
    assert!(orders.iter().any(|o| !ids.contains(o[1].as_str())), "an order without its customer");
    let statuses: HashSet<&str> = orders.iter().map(|o| o[2].as_str()).collect();
    for status in ["delivered", "shipped", "canceled", "unavailable", "invoiced", "processing", "created"] {
        assert!(statuses.contains(status), "{status} is missing");
    }
    let products: Vec<Vec<String>> = split("products");
    let listed: HashSet<&str> = products.iter().map(|p| p[0].as_str()).collect();
    let items: Vec<Vec<String>> = split("items");
    assert!(items.iter().any(|i| !listed.contains(i[2].as_str())), "an item without its product");
    assert!(products.iter().any(|p| p[1].is_empty()), "a product without category");
    let translated: HashSet<String> =
        lines(&files, "product_categories").iter().map(|l| l.split(',').next().unwrap().to_owned()).collect();
    assert!(products.iter().any(|p| !p[1].is_empty() && !translated.contains(&p[1])), "an untranslated category");
}

#[test]
fn sessions_buy_what_is_in_the_cart() {
    let dir = tempfile::tempdir().unwrap();
    shop(&options(dir.path())).unwrap();
    let mut events: Vec<Vec<String>> = lines(&files(dir.path()), "events")
        .into_iter()
        .map(|l| l.split(',').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let step = |kind: &str| ["view", "cart", "remove_from_cart", "purchase"].iter().position(|k| *k == kind).unwrap();
    events.sort_by_key(|e| (e[0].clone(), step(&e[1])));
    let mut carts: HashMap<(String, String), bool> = HashMap::new();
    let mut counts = [0; 4];
    for event in &events {
        let key = (event[8].clone(), event[2].clone());
        counts[step(&event[1])] += 1;
        match event[1].as_str() {
            "cart" => assert_ne!(carts.insert(key, true), Some(true), "{event:?}"),
            "remove_from_cart" => assert_eq!(carts.insert(key, false), Some(true), "{event:?}"),
            "purchase" => assert_eq!(carts.get(&key), Some(&true), "{event:?}"),
            _ => {}
        }
    }
    assert!(counts[0] > counts[1] && counts[1] > counts[3] && counts[3] > 100 && counts[2] > 50, "{counts:?}");
    let bought: HashSet<&str> = events.iter().filter(|e| e[1] == "purchase").map(|e| e[8].as_str()).collect();
    let carted: HashSet<&str> = events.iter().filter(|e| e[1] == "cart").map(|e| e[8].as_str()).collect();
    assert!(bought.len() < carted.len(), "some carts are abandoned");
}

#[test]
fn a_shop_without_events_or_orders_still_has_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let summary = shop(&Options { orders: 0, events: 0, days: 2, ..options(dir.path()) }).unwrap();
    assert_eq!((rows(&summary, "orders"), rows(&summary, "events")), (0, 0));
    let files = files(dir.path());
    assert_eq!(files.keys().filter(|n| n.starts_with("events/")).count(), 2);
    assert!(files.contains_key("customers/customers.csv"));
}

#[test]
fn wrong_options_are_the_users() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = [
        Options { late: 1.5, ..options(dir.path()) },
        Options { duplicates: f64::NAN, ..options(dir.path()) },
        Options { days: 0, ..options(dir.path()) },
        Options { days: 40_000, ..options(dir.path()) },
        Options { malformed: 0.1, format: Format::Parquet, ..options(dir.path()) },
    ];
    for options in wrong {
        assert_eq!(shop(&options).unwrap_err().kind(), ErrorKind::Usage, "{options:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was touched");
}
