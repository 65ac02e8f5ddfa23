//! `up` beside schedules: what a scheduled model takes in reaches the others, and a start is no reason to refresh.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::process::{Bounded, PATIENCE, Process};
use crate::scratch::Scratch;

fn shop(models: &str) -> Scratch {
    let shop = Scratch::new(&format!(
        "
pipeline: main
sources:
  orders: {{ connector: files, path: data/*.csv, format: csv, settle: 0s, columns: {{ id: bigint }} }}
models:
{models}"
    ));
    shop.write("data/1.csv", "id\n1\n");
    shop
}

pub(crate) fn up(shop: &Scratch) -> Process {
    let mut process = shop.command(&["up", "--listen", "127.0.0.1:0", "--quiet"]).stdout(Stdio::piped()).start();
    process.lines().find(|line| line.contains("grpc://")).unwrap();
    process
}

/// `up` whose errors and warnings can be read at its end.
pub(crate) fn overheard(shop: &Scratch) -> Process {
    let (out, err) = (Stdio::piped(), Stdio::piped());
    let mut process = shop.command(&["up", "--listen", "127.0.0.1:0"]).stdout(out).stderr(err).start();
    process.lines().find(|line| line.contains("grpc://")).unwrap();
    process
}

/// Asks until the answer is `expected`.
#[track_caller]
pub(crate) fn until(shop: &Scratch, sql: &str, expected: &str) {
    let begun = Instant::now();
    loop {
        let seen = shop.tidemill(&["query", "--format", "csv", sql]);
        if seen.code == 0 && seen.out.lines().nth(1) == Some(expected) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{sql}: {} {}", seen.out, seen.err);
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn what_a_scheduled_model_takes_in_reaches_continuous_ones() {
    let shop = shop(
        "  live: { refresh: continuous, sql: select count(*) as n from orders }
  behind: { refresh: continuous, sql: select n + 0 as n from live }
  ticking: { refresh: { every: 100ms }, sql: select count(*) as n from orders }
",
    );
    let up = up(&shop);
    for n in 2..5 {
        shop.write(&format!("data/{n}.csv"), format!("id\n{n}\n"));
        for model in ["ticking", "live", "behind"] {
            until(&shop, &format!("select n from {model}"), &n.to_string());
        }
    }
    up.signal("TERM");
    assert_eq!(shop.seen(up.finish()).code, 0);
    shop.exits(0, &["verify"]);
}

#[test]
fn a_start_refreshes_what_its_schedule_asks_for() {
    let shop = shop(
        "  yearly: { refresh: { cron: '0 6 1 1 *' }, sql: select count(*) as n from orders }
  live: { refresh: continuous, sql: select count(*) as n from orders }
",
    );
    let counted = |models: &[(&str, &str)]| {
        let up = up(&shop);
        models.iter().for_each(|(model, n)| until(&shop, &format!("select n from {model}"), n));
        up.signal("TERM");
        assert_eq!(shop.seen(up.finish()).code, 0);
    };
    counted(&[("yearly", "1"), ("live", "1")]);
    shop.write("data/2.csv", "id\n2\n");
    counted(&[("live", "2"), ("yearly", "1")]);
    shop.exits(0, &["run", "yearly"]);
    assert_eq!(shop.rows("select n from yearly"), "2\n", "who is named is worked on");
}
