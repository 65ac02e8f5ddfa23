//! A topic as a sink: a transaction a change, with the cursor as an offset of a private group in it.
//!
//! The cursor's commit is the offset, its rest the offset's metadata; every message has it as a header too, by which it is
//! found once the group has expired. Asking for the cursor begins a new epoch of the transactional id, so that who published
//! before is fenced (KIP-98).

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::closing::{Kept, close};
use super::quiet::Quiet;
use super::trouble::{metadata, refused_options};
use crate::connect::encode::envelope::{Commit, Origin};
use crate::connect::encode::message::{MessageEncoder, Outgoing};
use crate::connect::sink::{Sink, SinkChange, SinkCursor};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::spec::types::KafkaSinkSpec;
use crate::{failpoint, limits};

/// Header of each message: the cursor after its change.
const CURSOR_HEADER: &str = "tidemill";

/// Options that Tidemill sets itself: what it promises hangs on them.
const OWN_OPTIONS: [&str; 6] = [
    "bootstrap.servers",
    "transactional.id",
    "enable.idempotence",
    "isolation.level",
    "group.id",
    "allow.auto.create.topics",
];

/// A topic that a model is published to.
pub struct KafkaSink {
    place: Arc<Place>,
    encoder: Arc<MessageEncoder>,
    /// There after the cursor was asked for, until something fails.
    producing: Arc<Kept<Producing>>,
}

/// How the topic is reached.
struct Place {
    brokers: String,
    topic: String,
    /// Of the transactions and of the group that holds the cursor.
    id: String,
    options: Vec<(String, String)>,
}

struct Producing {
    producer: BaseProducer<Quiet>,
    group: BaseConsumer<Quiet>,
    cursor: Option<SinkCursor>,
}

impl KafkaSink {
    /// Notes how to write to the topic; connects to nothing.
    ///
    /// # Errors
    /// Usage, for an option that the client doesn't know or that Tidemill sets itself.
    pub fn open(project: &str, model: &str, key: &[String], spec: &KafkaSinkSpec) -> Result<Self> {
        let brokers = spec.brokers.as_ref().ok_or_else(|| Error::internal("a sink has no brokers"))?;
        let place = Place {
            brokers: brokers.value.clone(),
            topic: spec.topic.value.clone(),
            id: format!("tidemill-sink-{project}-{model}-{}", spec.topic.value),
            options: spec.options.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        };
        if let Some((key, _)) = place.options.iter().find(|(key, _)| OWN_OPTIONS.contains(&key.as_str())) {
            return Err(
                Error::usage(format!("the option `{key}` is set by Tidemill itself")).with("sink", &place.topic)
            );
        }
        for config in [place.producer(), place.consumer()] {
            config.create_native_config().map_err(|error| refused_options(&error).with("sink", &place.topic))?;
        }
        let encoder = MessageEncoder {
            key: key.to_vec(),
            emit: spec.emit,
            decimals_as_text: spec.decimals_as_text,
            origin: Origin { project: project.to_string(), model: model.to_string() },
        };
        Ok(Self { place: Arc::new(place), encoder: Arc::new(encoder), producing: Arc::default() })
    }
}

#[async_trait]
impl Sink for KafkaSink {
    async fn cursor(&self) -> Result<Option<SinkCursor>> {
        let (place, slot) = (Arc::clone(&self.place), Arc::clone(&self.producing));
        let asked = tokio::task::spawn_blocking(move || {
            let mut slot = slot.lock()?;
            if slot.is_none() {
                *slot = Some(place.connect()?);
            }
            Ok(slot.as_ref().and_then(|producing| producing.cursor.clone()))
        });
        asked.await.external("the Kafka client ended early")?
    }

    fn is_quickly_asked(&self) -> bool {
        // Connecting and beginning an epoch.
        false
    }

    async fn publish(&self, change: SinkChange) -> Result<u64> {
        let (place, slot, encoder) = (Arc::clone(&self.place), Arc::clone(&self.producing), Arc::clone(&self.encoder));
        let (batches, mut received) = mpsc::channel(limits::SINK_BATCHES);
        let SinkChange { cursor, committed_at_us, mut rows } = change;
        let commit = Commit { n: cursor.commit, at_us: committed_at_us };
        let sending = tokio::task::spawn_blocking(move || {
            let mut slot = slot.lock()?;
            // Put back only if all went well: after an error the producer's state is unknown.
            let mut producing = slot.take().ok_or_else(|| Error::internal("a sink's cursor wasn't asked for"))?;
            let next = || match received.blocking_recv() {
                Some(Some(batch)) => encoder.encode(&batch, commit).map(Some),
                Some(None) => Ok(None),
                // Without its end the change isn't whole.
                None => Err(Error::external("the change to publish ended early")),
            };
            let sent = producing.publish(&place, &cursor, next);
            match sent {
                Ok(_) => {
                    producing.cursor = Some(cursor);
                    *slot = Some(producing);
                }
                Err(_) => close(producing),
            }
            sent
        });
        let feeding = async move {
            while let Some(batch) = rows.next().await {
                if batches.send(Some(batch?)).await.is_err() {
                    // The sending failed, which is told by itself.
                    return Ok(());
                }
            }
            let _ = batches.send(None).await;
            Ok(())
        };
        let (fed, sent): (Result<()>, _) = tokio::join!(feeding, sending);
        fed?;
        sent.external("the Kafka client ended early")?
    }
}

impl Place {
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "tidemill");
        config.set("transaction.timeout.ms", limits::KAFKA_TRANSACTION.as_millis().to_string());
        for (key, value) in &self.options {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config.set_log_level(rdkafka::config::RDKafkaLogLevel::Error);
        config
    }

    fn producer(&self) -> ClientConfig {
        let mut config = self.config();
        // The partitions that Java's clients choose for the same keys.
        config.set("partitioner", "murmur2_random");
        config.set("transactional.id", &self.id);
        config.set("enable.idempotence", "true");
        config
    }

    fn consumer(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "tidemill");
        for (key, value) in self.options.iter().filter(|(key, _)| !key.starts_with("transaction.")) {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config.set("group.id", &self.id);
        config.set("enable.auto.commit", "false");
        config.set("isolation.level", "read_committed");
        config.set("enable.partition.eof", "true");
        config.set("auto.offset.reset", "earliest");
        config.set_log_level(rdkafka::config::RDKafkaLogLevel::Error);
        config
    }

    /// Takes the sink over: makes the topic if it isn't there, ends transactions that were left open, reads the cursor.
    fn connect(&self) -> Result<Producing> {
        let group =
            self.consumer().create_with_context(Quiet::default()).external("the Kafka client can't be started")?;
        let producer =
            self.producer().create_with_context(Quiet::default()).external("the Kafka client can't be started")?;
        let mut producing = Producing { producer, group, cursor: None };
        match self.begin(&producing) {
            Ok(cursor) => {
                producing.cursor = cursor;
                Ok(producing)
            }
            Err(error) => {
                close(producing);
                Err(error)
            }
        }
    }

    fn begin(&self, Producing { producer, group, .. }: &Producing) -> Result<Option<SinkCursor>> {
        let partitions = match self.partitions(group)? {
            0 => {
                self.make_topic()?;
                0
            }
            there => there,
        };
        let begun = producer.init_transactions(limits::KAFKA_ANSWER);
        begun.map_err(|error| self.failed("transactions can't be begun", error))?;
        match self.of_group(group)? {
            Some(cursor) => Ok(Some(cursor)),
            None => self.of_messages(group, partitions),
        }
    }

    /// Partitions of the topic; zero if it isn't there.
    fn partitions(&self, group: &BaseConsumer<Quiet>) -> Result<i32> {
        let metadata = metadata(group, &self.topic);
        let metadata = metadata.map_err(|error| error.with("topic", &self.topic).with("brokers", &self.brokers))?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.topic);
        let count = topic.filter(|topic| topic.error().is_none()).map_or(0, |topic| topic.partitions().len());
        i32::try_from(count).external("a topic has too many partitions")
    }

    /// Makes the topic with the brokers' own number of partitions and replicas, compacted: its last messages are the table.
    fn make_topic(&self) -> Result<()> {
        let admin: AdminClient<Quiet> =
            self.config().create_with_context(Quiet::default()).external("the Kafka client can't be started")?;
        let topic = NewTopic::new(&self.topic, -1, TopicReplication::Fixed(-1)).set("cleanup.policy", "compact");
        let options = AdminOptions::new().operation_timeout(Some(limits::KAFKA_ANSWER));
        let made = futures::executor::block_on(admin.create_topics([&topic], &options));
        close(admin);
        let made = made.map_err(|error| self.failed("the topic can't be made", error))?;
        for topic in made {
            if let Err((_, code)) = topic
                && code != RDKafkaErrorCode::TopicAlreadyExists
            {
                return Err(self.failed("the topic can't be made", KafkaError::AdminOp(code)));
            }
        }
        Ok(())
    }

    /// The cursor that the group holds.
    fn of_group(&self, group: &BaseConsumer<Quiet>) -> Result<Option<SinkCursor>> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, 0);
        let found = group.committed_offsets(list, limits::KAFKA_ANSWER);
        let found = found.map_err(|error| self.failed("the sink's cursor can't be read", error))?;
        let Some(element) = found.find_partition(&self.topic, 0) else { return Ok(None) };
        match element.offset() {
            Offset::Offset(_) => self.parse(element.metadata().as_bytes()).map(Some),
            _ => Ok(None),
        }
    }

    fn parse(&self, json: &[u8]) -> Result<SinkCursor> {
        serde_json::from_slice(json).map_err(|error| {
            Error::external("the sink's cursor can't be read").with("topic", &self.topic).caused_by(error)
        })
    }

    /// The newest cursor among the last messages of each partition; none where the topic has no message of ours.
    fn of_messages(&self, group: &BaseConsumer<Quiet>, partitions: i32) -> Result<Option<SinkCursor>> {
        let mut newest: Option<SinkCursor> = None;
        for partition in 0..partitions {
            let (low, end) = group
                .fetch_watermarks(&self.topic, partition, limits::KAFKA_ANSWER)
                .map_err(|error| self.failed("the topic's offsets can't be read", error))?;
            let mut back = limits::SINK_LOOK_BACK;
            // Transactions take offsets without a message, and compaction takes messages away: look further back until one is met.
            loop {
                let from = low.max(end - back);
                let found = self.last_of(group, partition, from, end)?;
                let is_met = found.is_some();
                if let Some(found) = found.flatten()
                    && newest.as_ref().is_none_or(|newest| newest.commit < found.commit)
                {
                    newest = Some(found);
                }
                if is_met || from == low {
                    break;
                }
                back = back.saturating_mul(10);
            }
        }
        Ok(newest)
    }

    /// The cursor of the last message from `from` on; the outer none: there is no message.
    fn last_of(
        &self,
        group: &BaseConsumer<Quiet>,
        partition: i32,
        from: i64,
        end: i64,
    ) -> Result<Option<Option<SinkCursor>>> {
        let mut last = None;
        if from >= end {
            return Ok(last);
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, Offset::Offset(from))
            .and_then(|()| group.assign(&list))
            .map_err(|error| self.failed("the topic can't be read", error))?;
        let until = Instant::now() + limits::KAFKA_SILENCE;
        loop {
            match group.poll(limits::KAFKA_POLL) {
                Some(Ok(message)) => {
                    let header = message.headers().and_then(|headers| {
                        headers.iter().find(|header| header.key == CURSOR_HEADER).and_then(|header| header.value)
                    });
                    last = Some(header.map(|json| self.parse(json)).transpose()?);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(last),
                Some(Err(error)) if Instant::now() > until => return Err(self.failed("the topic can't be read", error)),
                _ if Instant::now() > until => {
                    return Err(Error::external("the Kafka brokers stopped sending messages")
                        .with("topic", &self.topic)
                        .retryable());
                }
                _ => {}
            }
        }
    }

    fn failed(&self, what: &str, error: KafkaError) -> Error {
        let is_fenced = match &error {
            KafkaError::Transaction(error) => {
                matches!(error.code(), RDKafkaErrorCode::Fenced | RDKafkaErrorCode::InvalidProducerEpoch)
            }
            other => matches!(
                other.rdkafka_error_code(),
                Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::InvalidProducerEpoch)
            ),
        };
        let told = match is_fenced {
            true => Error::new(ErrorKind::Lease, "another process publishes to this topic now; nothing was published"),
            false => Error::external(what).retryable(),
        };
        told.with("topic", &self.topic).with("brokers", &self.brokers).caused_by(error)
    }
}

impl Producing {
    /// Sends what `next` gives, until none, in one transaction with the cursor.
    fn publish(
        &mut self,
        place: &Place,
        cursor: &SinkCursor,
        mut next: impl FnMut() -> Result<Option<Vec<Outgoing>>>,
    ) -> Result<u64> {
        let json = serde_json::to_string(cursor).external("a cursor can't be written")?;
        self.producer.begin_transaction().map_err(|error| place.failed("a transaction can't be begun", error))?;
        let sent = self.send_all(place, cursor, &json, &mut next);
        if sent.is_err() {
            // The next connection would end it as well, but readers would wait for that.
            let _ = self.producer.abort_transaction(limits::KAFKA_ANSWER);
        }
        let sent = sent?;
        failpoint::hit("before_sink");
        retried(|| self.producer.commit_transaction(limits::KAFKA_ANSWER))
            .map_err(|error| place.failed("a transaction can't be committed", error))?;
        failpoint::hit("after_sink");
        Ok(sent)
    }

    fn send_all(
        &self,
        place: &Place,
        cursor: &SinkCursor,
        json: &str,
        next: &mut impl FnMut() -> Result<Option<Vec<Outgoing>>>,
    ) -> Result<u64> {
        let headers = OwnedHeaders::new_with_capacity(1).insert(Header { key: CURSOR_HEADER, value: Some(json) });
        let mut sent = 0;
        while let Some(messages) = next()? {
            for message in &messages {
                self.send(place, message, &headers)?;
            }
            sent += messages.len() as u64;
            failpoint::hit("mid_sink");
        }
        let group = self.group.group_metadata();
        let group = group.ok_or_else(|| Error::internal("a Kafka client has no group"))?;
        let offset = i64::try_from(cursor.commit).external("a commit's number is out of range")?;
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&place.topic, 0);
        element.set_metadata(json);
        element.set_offset(Offset::Offset(offset)).external("an offset can't be noted")?;
        retried(|| self.producer.send_offsets_to_transaction(&list, &group, limits::KAFKA_ANSWER))
            .map_err(|error| place.failed("the cursor can't be sent", error))?;
        Ok(sent)
    }

    /// Queues a message; while the queue is full, it waits for brokers to take some.
    fn send(&self, place: &Place, message: &Outgoing, headers: &OwnedHeaders) -> Result<()> {
        let own = message.headers.iter().map(|(key, value)| Header { key: key.as_str(), value: Some(value) });
        let headers = own.fold(headers.clone(), |headers, header| headers.insert(header));
        let mut record = BaseRecord::to(&place.topic).key(&message.key).headers(headers);
        if let Some(value) = &message.value {
            record = record.payload(value);
        }
        let until = Instant::now() + limits::KAFKA_SILENCE;
        loop {
            match self.producer.send(record) {
                Ok(()) => {
                    self.producer.poll(Duration::ZERO);
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) if Instant::now() < until => {
                    self.producer.poll(limits::KAFKA_POLL);
                    record = again;
                }
                Err((error, _)) => return Err(place.failed("a message can't be sent", error)),
            }
        }
    }
}

/// Calls again what a transaction's coordinator may only be slow to do.
fn retried(mut call: impl FnMut() -> std::result::Result<(), KafkaError>) -> std::result::Result<(), KafkaError> {
    let until = Instant::now() + limits::KAFKA_SILENCE;
    loop {
        match call() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < until => {}
            done => return done,
        }
    }
}
