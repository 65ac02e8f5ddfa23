//! Logs: lines of JSON where they are asked for, as much as was asked for, and on stderr alone.

use serde_json::Value;

use crate::kill::{PIPELINE, write_day};
use crate::process::Bounded;
use crate::scratch::{Scratch, Seen};

fn shop() -> Scratch {
    let shop = Scratch::new(PIPELINE);
    write_day(&shop, 0);
    shop
}

/// Runs with a filter in the environment.
fn logged(shop: &Scratch, filter: &str, args: &[&str]) -> Seen {
    let seen = shop.seen(shop.command(args).env("TIDEMILL_LOG", filter).finish());
    assert_eq!(seen.code, 0, "{}", seen.err);
    seen
}

/// Every line of stderr as JSON.
fn lines(seen: &Seen) -> Vec<Value> {
    let line = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    seen.err.lines().map(line).collect()
}

fn text<'a>(line: &'a Value, key: &str) -> &'a str {
    line[key].as_str().unwrap_or_else(|| panic!("no text `{key}` in {line}"))
}

#[test]
fn json_logs_have_time_level_message_and_fields() {
    let shop = shop();
    let lines = lines(&logged(&shop, "tidemill=debug", &["--log-format", "json", "run", "--quiet"]));
    let plans: Vec<_> = lines.iter().filter(|line| line["message"] == "executing a plan").collect();
    assert!(!plans.is_empty(), "{lines:?}");
    for line in &plans {
        assert_eq!((text(line, "level"), text(line, "target")), ("DEBUG", "tidemill::engine"));
        assert!(line["partitions"].as_u64().unwrap() > 0, "a field is a value beside the message: {line}");
    }
    for line in &lines {
        text(line, "timestamp").parse::<jiff::Timestamp>().unwrap();
        let message = text(line, "message");
        assert!(!message.ends_with('.') && message.starts_with(char::is_lowercase), "{message}");
    }
}

#[test]
fn a_filter_chooses_modules_and_levels() {
    let shop = shop();
    let args = ["--log-format", "json", "run", "--quiet", "--full-refresh"];
    // So that tables are there for the Delta library to talk about.
    shop.exits(0, &["run"]);
    let all = lines(&logged(&shop, "debug", &args));
    let engine = lines(&logged(&shop, "tidemill::engine=debug", &args));
    let others = |line: &&Value| text(line, "target") != "tidemill::engine";
    assert!(all.iter().any(|line| others(&line)) && !engine.is_empty(), "{all:?}");
    assert_eq!(engine.iter().filter(others).count(), 0, "{engine:?}");
    assert_eq!(logged(&shop, "off", &args).err, "");
    let wrong = lines(&logged(&shop, "tidemill=loud", &args));
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert_eq!((text(&wrong[0], "level"), text(&wrong[0], "filter")), ("WARN", "tidemill=loud"));
}

#[test]
fn verbosity_is_counted_and_a_filter_goes_before_it() {
    let shop = shop();
    let levels = |args: &[&str]| {
        let args = [&["--log-format", "json"], args, &["run", "--quiet", "--full-refresh"]].concat();
        let mut levels: Vec<_> =
            lines(&shop.exits(0, &args)).iter().map(|line| text(line, "level").to_string()).collect();
        levels.sort();
        levels.dedup();
        levels
    };
    assert_eq!(levels(&[]), [""; 0]);
    assert!(levels(&["-vv"]).contains(&"DEBUG".to_string()));
    assert!(logged(&shop, "error", &["-vvv", "run", "--quiet", "--full-refresh"]).err.is_empty());
}

#[test]
fn text_logs_have_no_colours_where_nobody_sees_them() {
    let shop = shop();
    let mut command = shop.command(&["run", "--quiet"]);
    let output = command.env_remove("NO_COLOR").env("TIDEMILL_LOG", "tidemill::engine=debug").finish();
    let seen = shop.seen(output);
    assert!(seen.err.contains("DEBUG executing a plan partitions="), "{}", seen.err);
    assert!(!seen.err.contains('\u{1b}'), "{:?}", seen.err);
    assert_eq!(seen.out, "", "logs go to stderr");
}

#[test]
fn statistics_of_a_column_that_had_another_type_are_no_news() {
    let shop = Scratch::new("");
    let model = |value: &str| {
        shop.write(
            "pipelines/sales.yaml",
            format!(
                "sources:
  f: {{ connector: files, path: data/*.csv, format: csv, settle: 0s, columns: {{ k: text, v: bigint }} }}
models:
  m: {{ sql: \"select k, {value} as s from f\", key: [k] }}
"
            ),
        );
        shop.exits(0, &["run", "--quiet"]).err
    };
    shop.write("data/a.csv", "k,v\na,1\nb,2\n");
    for value in ["v", "'x' || k", "v", "v"] {
        assert_eq!(model(value), "");
    }
}
