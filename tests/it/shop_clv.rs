//! placeholder
use chrono::NaiveDate;
use tidemill::generate::{Format, Options, shop};
#[test]
fn dump() {
    let Ok(dir) = std::env::var("DUMP_DIR") else { return };
    let n = |name: &str, or: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(or);
    let format = match std::env::var("DUMP_FORMAT").as_deref() {
        Ok("parquet") => Format::Parquet,
        Ok("json") => Format::Json,
        _ => Format::Csv,
    };
    let t = std::time::Instant::now();
    let s = shop(&Options {
        dir: dir.into(),
        orders: n("ORDERS", 20000),
        events: n("EVENTS", 100000),
        seed: n("SEED", 1),
        start: NaiveDate::from_ymd_opt(2017, 1, 1).unwrap(),
        days: n("DAYS", 730) as u32,
        format,
        late: 0.0,
        duplicates: 0.0,
        malformed: 0.0,
    })
    .unwrap();
    println!("{s:#?} {:?}", t.elapsed());
}
