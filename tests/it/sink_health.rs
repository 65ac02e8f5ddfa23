//! What `status` tells of sinks that another process found failing, or left behind.

use std::fs;

use serde_json::{Value, json};

use crate::process::Bounded;
use crate::scratch::Scratch;

fn shop() -> Scratch {
    let shop = Scratch::new(
        "pipeline: sales
sources:
  orders: { connector: files, path: data/*.csv, format: csv, settle: 0s, columns: { id: bigint } }
models:
  sent:
    sql: select id, count(*) as n from orders group by id
    key: [id]
    publish: [ { connector: files, path: out, format: csv } ]
",
    );
    shop.write("data/1.csv", "id\n1\n");
    shop
}

/// What `status`, which ends with `code`, tells of the one sink.
#[track_caller]
fn sink(shop: &Scratch, code: i32) -> Value {
    let lines = shop.exits(code, &["status", "--format", "json"]).json();
    assert_eq!(lines[0]["model"], "sent", "models come first: {lines:?}");
    lines.into_iter().find(|line| line["sink"] == "files out").unwrap()
}

/// The line that tells people of it.
#[track_caller]
fn line(shop: &Scratch, code: i32) -> Option<String> {
    let out = shop.exits(code, &["status"]).out;
    out.lines().find(|line| line.contains("files out")).map(str::to_string)
}

fn note(shop: &Scratch) -> String {
    let mut notes = fs::read_dir(shop.path("warehouse/_tidemill/sales/sinks")).unwrap();
    fs::read_to_string(notes.next().unwrap().unwrap().path()).unwrap()
}

#[test]
fn a_sink_that_fails_is_told_until_it_works_again() {
    let shop = shop();
    assert_eq!(sink(&shop, 0)["state"], "ok", "there is nothing to publish yet");
    shop.write("out", "in the way");
    shop.exits(3, &["run"]);
    let failed = sink(&shop, 1);
    let since = &failed["since"];
    assert!(since.as_str().is_some_and(|since| since.ends_with('Z')), "{failed}");
    let reason = "the folder can't be read";
    let expected = json!({ "sink": "files out", "table": "sent", "state": "failed", "since": since, "reason": reason });
    assert_eq!(failed, expected);
    let told = line(&shop, 1).unwrap();
    assert!(["sent", "failed", reason].iter().all(|part| told.contains(part)), "{told}");

    let noted = note(&shop);
    shop.exits(3, &["run"]);
    assert_eq!(note(&shop), noted, "a retry is no news");
    assert_eq!(sink(&shop, 1), failed);
    shop.remove("out");
    shop.exits(0, &["run"]);
    let works = json!({ "sink": "files out", "table": "sent", "state": "ok", "since": null, "reason": "" });
    assert_eq!(sink(&shop, 0), works);
    assert_eq!(line(&shop, 0), None);

    // Nothing is to be published, but whether somebody emptied the folder can't be seen.
    fs::rename(shop.path("out"), shop.path("away")).unwrap();
    shop.write("out", "in the way");
    shop.exits(3, &["run"]);
    assert_eq!(sink(&shop, 1)["state"], "failed");
    shop.remove("out");
    fs::rename(shop.path("away"), shop.path("out")).unwrap();
    shop.exits(0, &["run"]);
    assert_eq!(sink(&shop, 0), works);
}

#[test]
fn a_sink_that_a_process_left_behind_is_told_and_no_failure() {
    let shop = shop();
    let dies = || {
        let died = shop.command(&["run"]).env("TIDEMILL_FAILPOINT", "after_record").finish().status;
        assert_eq!(died.code(), None);
        let behind = sink(&shop, 0);
        assert!(behind["state"] == "behind" && behind["since"].is_string(), "{behind}");
        let reason = behind["reason"].as_str().unwrap().to_string();
        assert!(line(&shop, 0).is_some_and(|line| line.contains(&reason)), "{reason}");
        reason
    };
    assert_eq!(dies(), "nothing is published yet");
    shop.exits(0, &["run"]);
    shop.write("data/2.csv", "id\n2\n");
    assert_eq!(dies(), "it has commit 1, and the table changed in commit 2");
    shop.exits(0, &["run"]);
    assert_eq!(sink(&shop, 0)["state"], "ok");
}
