//! `up` at its end: what was committed stands in the tables, whatever became of sinks; one that is down needs no broker here.

use crate::scratch::{Scratch, TIDEMILL_YAML};
use crate::up_schedules::{overheard, until};

#[test]
fn tables_are_brought_to_the_last_commit_beside_a_sink_that_is_down() {
    let shop = Scratch::new(
        "
pipeline: main
sources:
  orders: { connector: files, path: data/*.csv, format: csv, settle: 0s, columns: { id: bigint } }
models:
  sent:
    sql: select id, count(*) as n from orders group by id
    key: [id]
    publish: [ { connector: kafka, brokers: '127.0.0.1:1', topic: sent } ]
  counted: { sql: select count(*) as n from orders }
",
    );
    shop.write("tidemill.yaml", format!("{TIDEMILL_YAML}shutdown_timeout: 10s\n"));
    shop.write("data/1.csv", "id\n1\n");
    shop.exits(0, &["run", "counted"]);
    let up = overheard(&shop);
    until(&shop, "select count(*) from sent", "1");
    shop.write("data/2.csv", "id\n2\n");
    until(&shop, "select n from counted", "2");
    up.signal("TERM");
    let seen = shop.seen(up.finish());
    assert_eq!(seen.code, 0, "{}", seen.err);
    assert!(shop.path("warehouse/counted/_delta_log/00000000000000000001.json").exists(), "{}", seen.err);
    let told = "everything that was taken in is committed; the sink `kafka sent` of `sent` is behind and goes on at the next start";
    assert!(seen.err.contains(told), "{}", seen.err);
    let status = shop.tidemill(&["status"]).out;
    assert!(status.contains("kafka sent"), "{status}");
}
