//! What tests put into topics and find there.

use std::collections::{BTreeMap, BTreeSet};

use futures::executor::block_on;
use rdkafka::Timestamp;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::{Kafka, LIMIT, wait_until};

/// A message to send. What is left out is left to Kafka.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// By the key otherwise, and anywhere without one.
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    /// None is a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Now otherwise.
    pub timestamp_ms: Option<i64>,
}

impl Message {
    /// A message of a value alone.
    pub fn of(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }
}

/// A message that stands in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp_ms: Option<i64>,
}

impl Kafka {
    /// Sends messages in their order, and comes back when the broker has all of them.
    pub fn produce(&self, topic: &str, messages: &[Message]) {
        let producer: FutureProducer = self.config().set("enable.idempotence", "true").create().unwrap();
        send(&producer, topic, messages);
    }

    /// Sends messages in one transaction that is then committed or aborted, and comes back when readers can tell.
    pub fn produce_in_transaction(&self, topic: &str, messages: &[Message], commit: bool) {
        let name = self.topic("transaction");
        let producer: FutureProducer = self.config().set("transactional.id", name).create().unwrap();
        producer.init_transactions(LIMIT).unwrap();
        producer.begin_transaction().unwrap();
        let last = send(&producer, topic, messages);
        if commit {
            producer.commit_transaction(LIMIT).unwrap();
        } else {
            producer.abort_transaction(LIMIT).unwrap();
        }
        // The broker answers before it has told each partition, which it does by a marker behind the messages.
        let consumer = self.config().set("isolation.level", "read_uncommitted").create::<BaseConsumer>().unwrap();
        for (partition, offset) in last {
            let end = || consumer.fetch_watermarks(topic, partition, LIMIT).unwrap().1;
            wait_until("the transaction's end stands in its partitions", || end() >= offset + 2);
        }
    }

    /// All committed messages of a topic that there are now, by partition and offset.
    pub fn consume(&self, topic: &str) -> Vec<Received> {
        let consumer = self.consumer("consume");
        let mut unread: BTreeSet<i32> = (0..self.partitions(topic)).collect();
        assert!(!unread.is_empty(), "there is no topic {topic}");
        let mut whole = TopicPartitionList::new();
        for partition in &unread {
            whole.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&whole).unwrap();
        let mut received = Vec::new();
        while !unread.is_empty() {
            match consumer.poll(LIMIT).unwrap_or_else(|| panic!("no message of {topic} within {LIMIT:?}")) {
                Ok(message) => received.push(owned(&message)),
                Err(KafkaError::PartitionEOF(partition)) => drop(unread.remove(&partition)),
                Err(error) => panic!("{topic}: {error}"),
            }
        }
        received.sort_by_key(|message| (message.partition, message.offset));
        received
    }
}

/// Sends messages, waits for the broker to have them, and tells the last offset in each partition.
fn send(producer: &FutureProducer, topic: &str, messages: &[Message]) -> BTreeMap<i32, i64> {
    let sent: Vec<_> = messages
        .iter()
        .map(|message| {
            let mut record = FutureRecord::<Vec<u8>, Vec<u8>>::to(topic);
            record.partition = message.partition;
            record.key = message.key.as_ref();
            record.payload = message.value.as_ref();
            record.timestamp = message.timestamp_ms;
            record.headers = (!message.headers.is_empty()).then(|| headers(message));
            producer.send_result(record).map_err(|(error, _)| error).unwrap()
        })
        .collect();
    let delivered = sent.into_iter().map(|sent| block_on(sent).unwrap().map_err(|(error, _)| error).unwrap());
    delivered.map(|delivery| (delivery.partition, delivery.offset)).collect()
}

fn headers(message: &Message) -> OwnedHeaders {
    message
        .headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: value.as_ref() }))
}

fn owned(message: &BorrowedMessage<'_>) -> Received {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Received {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.map(|header| (header.key.to_string(), header.value.map(<[u8]>::to_vec))).collect(),
        timestamp_ms: match message.timestamp() {
            Timestamp::NotAvailable => None,
            Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) => Some(ms),
        },
    }
}
