//! The broker of the tests itself.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::{Kafka, Message, Received};

/// Offsets and values of a topic of one partition.
fn values(kafka: &Kafka, topic: &str) -> Vec<(i64, String)> {
    let value = |message: Received| (message.offset, String::from_utf8(message.value.unwrap()).unwrap());
    kafka.consume(topic).into_iter().map(value).collect()
}

#[test]
fn messages_come_back_as_they_were_sent() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("whole");
    kafka.create_topic(&topic, 2);
    let headers = vec![("a".to_string(), Some(b"1".to_vec())), ("a".to_string(), None)];
    let whole = Message {
        partition: Some(1),
        key: Some(b"key".to_vec()),
        value: Some(vec![0, 255]),
        headers: headers.clone(),
        timestamp_ms: Some(1_525_000_000_123),
    };
    let tombstone = Message { value: None, headers: Vec::new(), ..whole.clone() };
    kafka.produce(&topic, &[whole.clone(), tombstone, Message { partition: Some(0), ..Message::of("alone") }]);
    let received = kafka.consume(&topic);
    assert_eq!((received[0].key.as_ref(), received[0].value.as_deref()), (None, Some(b"alone".as_slice())));
    assert!(received[0].timestamp_ms.unwrap() > 1_700_000_000_000, "now");
    let first = Received {
        partition: 1,
        offset: 0,
        key: whole.key,
        value: whole.value,
        headers,
        timestamp_ms: whole.timestamp_ms,
    };
    let second = Received { offset: 1, value: None, headers: Vec::new(), ..first.clone() };
    assert_eq!(received[1..], [first, second.clone()]);

    kafka.delete_records(&topic, 1, 1);
    assert_eq!(kafka.consume(&topic)[1..], [second]);
    kafka.delete_topic(&topic);
    assert_eq!(kafka.partitions(&topic), 0);
}

#[test]
fn aborted_transactions_are_never_seen() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("transactions");
    kafka.create_topic(&topic, 1);
    kafka.produce_in_transaction(&topic, &[Message::of("a"), Message::of("b")], true);
    kafka.produce_in_transaction(&topic, &[Message::of("c")], false);
    kafka.produce(&topic, &[Message::of("d")]);
    // A transaction's end takes an offset of its own.
    assert_eq!(values(kafka, &topic), [(0, "a".to_string()), (1, "b".to_string()), (5, "d".to_string())]);
}

#[test]
fn a_group_stands_where_it_committed() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("groups");
    kafka.create_topic(&topic, 2);
    assert_eq!(kafka.committed("readers", &topic), BTreeMap::new());
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&topic, 1, Offset::Offset(7)).unwrap();
    kafka.consumer("readers").commit(&offsets, CommitMode::Sync).unwrap();
    assert_eq!(kafka.committed("readers", &topic), [(1, 7)].into());
}

#[test]
fn a_broker_that_was_killed_has_its_messages() {
    let mut kafka = Kafka::start();
    kafka.create_topic("events", 1);
    kafka.produce("events", &[Message::of("before")]);
    let brokers = kafka.brokers();
    kafka.restart();
    assert_eq!(kafka.brokers(), brokers);
    kafka.produce("events", &[Message::of("after")]);
    assert_eq!(values(&kafka, "events"), [(0, "before".to_string()), (1, "after".to_string())]);
    kafka.stop();
    assert!(TcpStream::connect(&brokers).is_err(), "nobody listens");
}

#[test]
fn a_secure_broker_talks_to_who_knows_the_password() {
    let kafka = Kafka::start_secure();
    kafka.create_topic("events", 1);
    kafka.produce_in_transaction("events", &[Message::of("secret")], true);
    assert_eq!(values(&kafka, "events"), [(0, "secret".to_string())]);
    for (option, other) in [("sasl.password", "guessed"), ("security.protocol", "PLAINTEXT")] {
        let stranger: BaseConsumer = kafka.config().set(option, other).create().unwrap();
        assert!(stranger.fetch_metadata(None, Duration::from_secs(2)).is_err(), "{option}={other}");
    }
}
