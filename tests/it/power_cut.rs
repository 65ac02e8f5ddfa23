//! Steps of `up` are seen before they are on the disk: what a power cut takes of them is taken in again, and of a process that dies all
//! stays. A boot of the machine is what `TIDEMILL_BOOT` says; what a disk lost is emptied by the test.

use std::fs;
use std::path::PathBuf;

use crate::process::{Bounded, Process};
use crate::scratch::{Scratch, Seen};
use crate::up_schedules::until;

const COUNT: &str = "select n from counted";

fn shop() -> Scratch {
    let shop = Scratch::new(
        "
pipeline: main
sources:
  f: { connector: files, path: f/*.csv, format: csv, settle: 0s, columns: { k: text, v: bigint } }
models:
  counted: { sql: select count(*) as n from f }
  summed: { sql: 'select k, sum(v) as s from f group by k', key: [k] }
",
    );
    shop.write("f/1.csv", "k,v\na,1\n");
    shop
}

fn up(shop: &Scratch) -> Process {
    let mut up = shop.command(&["up", "--listen", "127.0.0.1:0", "--quiet"]);
    let mut process = up.env("TIDEMILL_BOOT", "one").stdout(std::process::Stdio::piped()).start();
    process.lines().find(|line| line.contains("grpc://")).unwrap();
    process
}

/// A command after the machine began anew.
fn after(shop: &Scratch, args: &[&str]) -> Seen {
    shop.seen(shop.command(args).env("TIDEMILL_BOOT", "two").finish())
}

fn files(shop: &Scratch, folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(shop.path(&format!("warehouse/_tidemill/main/{folder}")));
    let mut files: Vec<_> = entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A process that is killed after two steps, as if none of the second was on the disk yet.
fn cut() -> Scratch {
    let shop = shop();
    let mut up = up(&shop);
    until(&shop, COUNT, "1");
    shop.write("f/2.csv", "k,v\na,2\nb,3\n");
    until(&shop, COUNT, "3");
    up.kill().unwrap();
    let last = files(&shop, "commits").pop().unwrap();
    let n: u64 = last.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let mark = files(&shop, "synced").pop().unwrap();
    let (_, of_whom) = mark.file_name().unwrap().to_str().unwrap().split_once('.').unwrap();
    fs::rename(&mark, mark.with_file_name(format!("{:020}.{of_whom}", n - 1))).unwrap();
    shop
}

#[test]
fn what_the_disk_lost_is_taken_in_again() {
    let shop = cut();
    let last = files(&shop, "commits").pop().unwrap();
    let prefix = format!("c{:08}", last.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap());
    let is_lost = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix);
    fs::write(&last, "").unwrap();
    for file in files(&shop, "landed/f").iter().filter(|path| is_lost(path)) {
        fs::write(file, "").unwrap();
    }
    let asked = |sql| after(&shop, &["query", "--format", "csv", sql]).out;
    assert_eq!(asked(COUNT), "n\n1\n", "readers see what is sure");
    let ran = after(&shop, &["run"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(asked(COUNT), "n\n3\n");
    assert_eq!(asked("select k, s from summed order by k"), "k,s\na,3\nb,3\n");
    assert_eq!(after(&shop, &["verify"]).code, 0);
    assert!(files(&shop, "synced").is_empty());
}

#[test]
fn a_process_that_dies_takes_nothing_with_it() {
    let shop = cut();
    let asked = |args: &[&str]| shop.seen(shop.command(args).env("TIDEMILL_BOOT", "one").finish());
    assert_eq!(asked(&["query", "--format", "csv", COUNT]).out, "n\n3\n");
    let ran = asked(&["run", "--format", "json"]);
    assert!(ran.json().iter().all(|model| model["status"] == "nothing"), "{}", ran.out);
    assert!(files(&shop, "synced").is_empty());
    // From now on it is sure, whatever comes.
    assert_eq!(after(&shop, &["query", "--format", "csv", COUNT]).out, "n\n3\n");
}

#[test]
fn at_its_end_up_leaves_nothing_to_be_made_sure() {
    let shop = shop();
    let up = up(&shop);
    until(&shop, COUNT, "1");
    assert_eq!(files(&shop, "synced").len(), 1);
    up.signal("TERM");
    assert_eq!(shop.seen(up.finish()).code, 0);
    assert!(files(&shop, "synced").is_empty());
    assert_eq!(after(&shop, &["query", "--format", "csv", COUNT]).out, "n\n1\n");
}

#[test]
fn what_another_committed_since_is_sure() {
    let shop = cut();
    let mark = files(&shop, "synced").pop().unwrap();
    shop.write("f/3.csv", "k,v\nc,4\n");
    let asked = |boot: &str, args: &[&str]| shop.seen(shop.command(args).env("TIDEMILL_BOOT", boot).finish());
    assert_eq!(asked("one", &["run"]).code, 0);
    // As by a process that was paused past its lease.
    fs::write(&mark, "").unwrap();
    for _ in 0..2 {
        assert_eq!(asked("two", &["query", "--format", "csv", COUNT]).out, "n\n4\n");
        assert_eq!(asked("two", &["run"]).code, 0);
    }
    assert!(files(&shop, "synced").is_empty());
}
