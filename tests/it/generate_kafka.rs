//! The generator's stream of events, as a user sees it in a topic.

use std::fs;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::kafka_server::{Kafka, Received};
use crate::scratch::Scratch;

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
        ("--kafka localhost:1", "--topic <T>"),
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
