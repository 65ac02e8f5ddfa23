//! The generator's stream of events, as a user sees it in a topic.

use std::collections::BTreeMap;
use std::fs;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::kafka_server::{Kafka, Received};
use crate::scratch::Scratch;
use crate::shop_models::SOURCES;

const SMALL: [&str; 6] = ["--events", "500", "--orders", "0", "--seed", "7"];

/// Streams events into a new topic and tells what is in it then, and what was printed without the topic's name.
fn sent(partitions: i32, more: &[&str]) -> (Vec<Received>, String) {
    let kafka = Kafka::shared();
    let topic = kafka.topic("generated");
    kafka.create_topic(&topic, partitions);
    let brokers = kafka.brokers();
    let args = [&["generate", "--kafka", &brokers, "--topic", &topic], &SMALL[..], more].concat();
    let seen = Scratch::new("").exits(0, &args);
    (kafka.consume(&topic), seen.out.trim_start_matches(&topic).trim().to_string())
}

fn event(message: &Received) -> Value {
    serde_json::from_slice(message.value.as_ref().unwrap()).unwrap()
}

/// An event's time in milliseconds.
fn time(message: &Received) -> i64 {
    let text = event(message)["event_time"].as_str().unwrap().to_string();
    text.parse::<DateTime<Utc>>().unwrap().timestamp_millis()
}

#[test]
fn a_stream_with_a_first_day_is_the_lines_of_the_files() {
    let shop = Scratch::new("");
    let more = ["--start", "2018-01-05", "--days", "3", "--late", "0.1", "--duplicates", "0.1", "--malformed", "0.1"];
    shop.exits(0, &[&["generate", "data", "--format", "json"], &SMALL[..], &more].concat());
    let days = ["2018-01-05", "2018-01-06", "2018-01-07"];
    let files = days.map(|day| fs::read_to_string(shop.path(&format!("data/events/{day}.json"))).unwrap());
    let lines: Vec<&str> = files.iter().flat_map(|text| text.lines()).collect();

    let before = Utc::now().timestamp_millis();
    let (messages, told) = sent(1, &more);
    let values: Vec<String> =
        messages.iter().map(|message| String::from_utf8(message.value.clone().unwrap()).unwrap()).collect();
    assert_eq!(values, lines);
    assert!(told.starts_with(&format!("{} messages sent, ", lines.len())), "{told}");
    assert!(told.contains(" late, ") && told.contains(" sent twice, ") && told.ends_with(" malformed"), "{told}");
    let now = before..=Utc::now().timestamp_millis();
    assert!(messages.iter().all(|message| now.contains(&message.timestamp_ms.unwrap())), "timestamps are the present");
}

#[test]
fn events_without_a_first_day_happen_when_they_are_sent() {
    let before = Utc::now().timestamp_millis();
    let (messages, told) = sent(3, &["--rate", "1000"]);
    let after = Utc::now().timestamp_millis();
    assert_eq!(told, "500 messages sent");
    assert_eq!(messages.len(), 500);
    for message in &messages {
        assert_eq!(message.key.as_deref(), Some(event(message)["user_id"].to_string().as_bytes()));
        assert_eq!(message.timestamp_ms, Some(time(message)));
    }
    let mut times: Vec<i64> = messages.iter().map(time).collect();
    times.sort_unstable();
    assert!(before <= times[0] && times[499] <= after);
    assert!(times[499] - times[0] >= 499, "one a millisecond, found {}", times[499] - times[0]);
    // All of a user's are in one partition, in their order.
    let user = |message: &Received| event(message)["user_id"].clone();
    for pair in messages.windows(2) {
        assert!(pair[0].partition < pair[1].partition || time(&pair[0]) <= time(&pair[1]));
    }
    let firsts: Vec<&Received> = messages.iter().filter(|message| user(message) == user(&messages[0])).collect();
    assert!(firsts.len() > 1 && firsts.iter().all(|message| message.partition == messages[0].partition));
}

#[test]
fn late_events_bear_earlier_times_and_repeats_the_same() {
    let (messages, told) = sent(1, &["--late", "0.2", "--duplicates", "0.2"]);
    let numbers: Vec<usize> = told.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [sent, late, twice] = numbers[..] else { panic!("{told}") };
    assert_eq!((messages.len(), sent), (500 + twice, 500 + twice));
    let early = messages.iter().filter(|message| time(message) < message.timestamp_ms.unwrap() - 500).count();
    assert!(50 < late && late <= early && early <= 2 * late, "{early} of {late} late events");
    // Events of one visit may be alike, too, where they are sent in the same millisecond.
    let alike = messages.windows(2).filter(|pair| pair[0].value == pair[1].value).count();
    assert!(50 < twice && twice <= alike, "{alike} of {twice} repeats");
}

#[test]
fn a_whole_shop_is_the_rows_of_the_files_and_orders_on_their_way() {
    let shop = Scratch::new("");
    let what = ["--orders", "200", "--events", "500", "--start", "2018-01-05", "--days", "40", "--malformed", "0.1"];
    shop.exits(0, &[&["generate", "data", "--format", "json"], &what[..]].concat());
    let kafka = Kafka::shared();
    let prefix = kafka.topic("shop");
    for table in SOURCES {
        kafka.create_topic(&format!("{prefix}.{table}"), 1);
    }
    let brokers = kafka.brokers();
    let seen = shop.exits(0, &[&["generate", "--kafka", &brokers, "--topics", &prefix], &what[..]].concat());
    assert_eq!(seen.out.lines().filter(|line| line.contains(" messages sent")).count(), 9, "{}", seen.out);

    for table in SOURCES {
        let messages = kafka.consume(&format!("{prefix}.{table}"));
        let mut lines = Vec::new();
        for file in fs::read_dir(shop.path(&format!("data/{table}"))).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            lines.extend(text.lines().map(str::to_owned));
        }
        let mut values: Vec<String> = match table {
            "orders" => last_of_each_order(&messages),
            _ => messages.iter().map(text).collect(),
        };
        assert!(messages.iter().all(|message| message.key.is_some()));
        lines.sort();
        values.sort();
        assert_eq!(values, lines, "{table}");
    }
}

fn text(message: &Received) -> String {
    String::from_utf8(message.value.clone().unwrap()).unwrap()
}

/// The last whole message of each order, and malformed ones. An order only gets on.
fn last_of_each_order(messages: &[Received]) -> Vec<String> {
    let mut last: BTreeMap<&[u8], (usize, String)> = BTreeMap::new();
    let mut malformed = Vec::new();
    let mut steps = 0;
    for message in messages {
        let text = text(message);
        let Ok(order) = serde_json::from_str::<Value>(&text) else {
            malformed.push(text);
            continue;
        };
        let times = ["order_approved_at", "order_delivered_carrier_date", "order_delivered_customer_date"];
        let is_time = |name: &&str| order[*name].as_str().is_some_and(|t| t.len() == 19 && t.starts_with("201"));
        let always = ["order_purchase_timestamp", "order_estimated_delivery_date"];
        if !always.iter().all(is_time) || !times.iter().all(|name| order[*name].is_null() || is_time(name)) {
            malformed.push(text);
            continue;
        }
        let key = message.key.as_deref().unwrap();
        assert_eq!(order["order_id"].as_str().unwrap().as_bytes(), key);
        let far = times.iter().filter(|time| !order[**time].is_null()).count();
        if let Some((before, old)) = last.insert(key, (far, text)) {
            steps += 1;
            assert!(before < far, "{old}");
        }
    }
    assert!(steps > 200, "{steps} steps");
    last.into_values().map(|(_, text)| text).chain(malformed).collect()
}

#[test]
fn a_topic_that_nobody_makes_is_a_runtime_failure() {
    let brokers = Kafka::shared().brokers();
    let args = [&["generate", "--kafka", &brokers, "--topic", "nowhere"], &SMALL[..]].concat();
    let seen = Scratch::new("").exits(3, &args);
    assert!(seen.err.contains("the topic can't be written to") && seen.err.contains("nowhere"), "{}", seen.err);
}

#[test]
fn what_cannot_go_together_is_said() {
    for (args, words) in [
        ("", "--kafka"),
        ("--kafka localhost:1", "`--topics PREFIX` for the whole shop"),
        ("--kafka localhost:1 --topic t --topics p", "cannot be used with"),
        ("data --topics p", "--kafka BROKERS"),
        ("data --kafka localhost:1 --topic t", "cannot be used with"),
        ("data --topic t", "--kafka BROKERS"),
        ("--rate 5", "--kafka BROKERS"),
        ("--kafka localhost:1 --topic t --format csv", "messages are JSON"),
        ("--kafka localhost:1 --topic t --late 2", "--late is a share"),
        ("--kafka localhost:1 --topic t --start tomorrow", "--start is a date"),
        ("--kafka localhost:1 --topic t --days 0", "at least one day"),
    ] {
        let args: Vec<&str> = ["generate"].into_iter().chain(args.split_whitespace()).collect();
        let seen = Scratch::new("").exits(2, &args);
        assert!(seen.err.contains(words), "{args:?}: {}", seen.err);
    }
}
