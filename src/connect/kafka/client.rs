//! One connection to a topic: offsets that are there, messages of a range, offsets of the group. Blocking; knows no rows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::Topic;
use super::closing::{Kept, close};
use super::quiet::Quiet;
use super::records::{Record, Records};
use super::trouble::{metadata, refused_options};
use crate::connect::position::Offsets;
use crate::error::{Error, Result, ResultExt};
use crate::limits;

/// Options that Tidemill sets itself: what it promises hangs on them.
const OWN_OPTIONS: [&str; 6] = [
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "isolation.level",
    "enable.partition.eof",
    "auto.offset.reset",
];

/// The client's settings.
///
/// # Errors
/// Usage, for an option that the client doesn't know or that Tidemill sets itself.
pub(super) fn config(topic: &Topic) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("client.id", "tidemill");
    config.set("queued.max.messages.kbytes", limits::KAFKA_QUEUE_KILOBYTES.to_string());
    config.set("fetch.wait.max.ms", limits::KAFKA_FETCH_WAIT_MS.to_string());
    config.set("fetch.queue.backoff.ms", limits::KAFKA_QUEUE_BACKOFF_MS.to_string());
    for (key, value) in &topic.spec.options {
        if OWN_OPTIONS.contains(&key.as_str()) {
            return Err(
                Error::usage(format!("the option `{key}` is set by Tidemill itself")).with("source", &topic.name)
            );
        }
        config.set(key, value);
    }
    config.set("bootstrap.servers", &topic.spec.brokers.value);
    config.set("group.id", &topic.group);
    config.set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false");
    config.set("isolation.level", "read_committed");
    config.set("enable.partition.eof", "true");
    config.set("auto.offset.reset", "error");
    // What it says of topics tells when one was made anew; see `Quiet`.
    let details = topic.spec.options.get("debug").map_or("topic".to_owned(), |asked| format!("{asked},topic"));
    config.set("debug", details);
    config.set_log_level(rdkafka::config::RDKafkaLogLevel::Debug);
    config.create_native_config().map_err(|error| refused_options(&error).with("source", &topic.name))?;
    Ok(config)
}

/// The first offset that is there and the one after the last that readers may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) low: i64,
    pub(super) end: i64,
}

/// What one reading knows of partitions that send nothing.
struct Silence {
    heard: Instant,
    /// Partitions that were sought: what is told of their ends is news.
    sought: BTreeSet<i32>,
}

/// A connection to one topic.
pub(super) struct Client {
    consumer: BaseConsumer<Quiet>,
    topic: String,
    brokers: String,
    /// Where each assigned partition is read on, messages in `ahead` included.
    at: BTreeMap<i32, i64>,
    /// Messages that were fetched beyond the range that was asked for.
    ahead: Records,
    /// Partitions whose end was told since their last message. That may be old news, and isn't told again.
    ended: BTreeSet<i32>,
    /// What the group was told last.
    committed: BTreeMap<i32, i64>,
    /// When brokers were asked what there is, and which partitions there were.
    asked: Option<(Instant, BTreeSet<i32>)>,
    /// Messages that one step takes.
    step_rows: usize,
}

/// Calls the client in `slot`, which is kept between calls: connecting costs more than reading a few messages. It is closed
/// after a failure, so that the next call connects anew.
///
/// # Errors
/// Those of connecting and of `work`.
pub(super) fn with<T>(slot: &Kept<Client>, topic: &Topic, work: impl FnOnce(&mut Client) -> Result<T>) -> Result<T> {
    let mut slot = slot.lock()?;
    let mut client = match slot.take() {
        Some(client) => client,
        None => Client::connect(topic)?,
    };
    let result = work(&mut client);
    match result {
        Ok(_) => *slot = Some(client),
        Err(_) => close(client),
    }
    result
}

impl Client {
    pub(super) fn connect(topic: &Topic) -> Result<Self> {
        let consumer: BaseConsumer<Quiet> =
            config(topic)?.create_with_context(Quiet::default()).external("the Kafka client can't be started")?;
        Ok(Self {
            consumer,
            topic: topic.spec.topic.value.clone(),
            brokers: topic.spec.brokers.value.clone(),
            at: BTreeMap::new(),
            ahead: Records::default(),
            ended: BTreeSet::new(),
            committed: BTreeMap::new(),
            asked: None,
            step_rows: topic.step_rows,
        })
    }

    fn failed(&self, what: &str, error: KafkaError) -> Error {
        Error::external(what).with("topic", &self.topic).with("brokers", &self.brokers).caused_by(error).retryable()
    }

    /// What each partition holds now.
    ///
    /// # Errors
    /// External: no broker answers, or the topic isn't there.
    pub(super) fn extents(&mut self) -> Result<BTreeMap<i32, Extent>> {
        let metadata = metadata(&self.consumer, &self.topic);
        let metadata = metadata.map_err(|error| error.with("topic", &self.topic).with("brokers", &self.brokers))?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.topic);
        let Some(topic) = topic.filter(|topic| topic.error().is_none() && !topic.partitions().is_empty()) else {
            return Err(Error::external("there is no such topic")
                .with("topic", &self.topic)
                .with("brokers", &self.brokers)
                .with("untouched", "its rows stay as they are"));
        };
        let mut extents = BTreeMap::new();
        for partition in topic.partitions() {
            let (low, end) = self
                .consumer
                .fetch_watermarks(&self.topic, partition.id(), limits::KAFKA_ANSWER)
                .map_err(|error| self.failed("the topic's offsets can't be read", error))?;
            extents.insert(partition.id(), Extent { low, end });
        }
        self.asked = Some((Instant::now(), extents.keys().copied().collect()));
        Ok(extents)
    }

    /// The first offset of each partition at or after a time (milliseconds since 1970 UTC); its end where there is none.
    pub(super) fn offsets_at(&self, time_ms: i64, extents: &BTreeMap<i32, Extent>) -> Result<BTreeMap<i32, i64>> {
        let mut wanted = TopicPartitionList::new();
        for partition in extents.keys() {
            wanted
                .add_partition_offset(&self.topic, *partition, Offset::Offset(time_ms))
                .map_err(|error| self.failed("an instant can't be asked for", error))?;
        }
        let found = self
            .consumer
            .offsets_for_times(wanted, limits::KAFKA_ANSWER)
            .map_err(|error| self.failed("the topic's offsets can't be read", error))?;
        let offset = |partition: &i32, extent: &Extent| {
            let found = found.elements_for_topic(&self.topic).into_iter().find(|e| e.partition() == *partition);
            match found.map(|element| element.offset()) {
                Some(Offset::Offset(offset)) => offset,
                _ => extent.end,
            }
        };
        Ok(extents.iter().map(|(partition, extent)| (*partition, offset(partition, extent))).collect())
    }

    /// Hands on the messages of each partition from the first offset up to, not including, the second, in the order of each
    /// partition. Offsets without a message are passed over.
    ///
    /// # Errors
    /// What `each` gives; external, when brokers stop answering or offsets are gone.
    pub(super) fn read(
        &mut self,
        ranges: &BTreeMap<i32, (i64, i64)>,
        mut each: impl FnMut(&Record<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut open: BTreeMap<i32, i64> =
            ranges.iter().filter(|(_, (from, to))| from < to).map(|(p, (_, to))| (*p, *to)).collect();
        if open.is_empty() {
            return Ok(());
        }
        self.go_to(ranges)?;
        for record in std::mem::take(&mut self.ahead).iter() {
            sort_in(&mut self.at, &mut self.ahead, &record, ranges, &mut open, &mut each)?;
        }
        let mut silence = Silence { heard: Instant::now(), sought: BTreeSet::new() };
        let (mut last_error, mut spoke) = (None, false);
        while !open.is_empty() {
            let is_told = self.ended.iter().any(|partition| open.contains_key(partition));
            let wait = if is_told { limits::KAFKA_SETTLE } else { limits::KAFKA_POLL };
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    let record = Record::of(&message);
                    self.ended.remove(&record.partition);
                    sort_in(&mut self.at, &mut self.ahead, &record, ranges, &mut open, &mut each)?;
                    spoke = true;
                    continue;
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    spoke = true;
                    self.note_end(partition, &mut open, &silence);
                }
                Some(Err(error)) if is_final(&error) => return Err(self.failed("messages can't be read", error)),
                Some(Err(error)) => last_error = Some(error),
                None => self.seek_ended(&open, &mut silence)?,
            }
            // Clocks aren't read for each message.
            if std::mem::take(&mut spoke) {
                silence.heard = Instant::now();
            }
            if silence.heard.elapsed() > limits::KAFKA_SILENCE {
                let error = last_error.unwrap_or(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
                return Err(self.failed("the Kafka brokers stopped sending messages", error));
            }
        }
        self.is_of_one_topic()
    }

    /// Whether all that was read since the client connected is of one topic; a new client proves which.
    fn is_of_one_topic(&self) -> Result<()> {
        if !self.consumer.context().saw_another_topic() {
            return Ok(());
        }
        let error = Error::external("the topic was made anew while it was read").with("topic", &self.topic);
        Err(error.with("brokers", &self.brokers).retryable())
    }

    /// Takes the news that a partition's end was reached. It may be old: only after a seek it means that there are no messages
    /// up to the range's end, which transactions leave behind.
    fn note_end(&mut self, partition: i32, open: &mut BTreeMap<i32, i64>, silence: &Silence) {
        self.ended.insert(partition);
        if silence.sought.contains(&partition)
            && let Some(to) = open.remove(&partition)
        {
            let at = self.at.entry(partition).or_insert(to);
            *at = (*at).max(to);
        }
    }

    /// Reads partitions whose end was told once more from where they are.
    fn seek_ended(&mut self, open: &BTreeMap<i32, i64>, silence: &mut Silence) -> Result<()> {
        for partition in open.keys() {
            if !self.ended.remove(partition) {
                continue;
            }
            let at = self.at.get(partition).copied().unwrap_or_default();
            self.consumer
                .seek(&self.topic, *partition, Offset::Offset(at), limits::KAFKA_ANSWER)
                .map_err(|error| self.failed("a partition can't be read on", error))?;
            silence.sought.insert(*partition);
        }
        Ok(())
    }

    /// Fetches messages that came, without waiting, for the next range.
    ///
    /// # Errors
    /// External, when offsets are gone or the topic is.
    pub(super) fn gather(&mut self) -> Result<()> {
        while self.ahead.len() < self.step_rows && self.ahead.size() < limits::KAFKA_STEP_BYTES {
            match self.consumer.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    let record = Record::of(&message);
                    self.at.insert(record.partition, record.offset + 1);
                    self.ended.remove(&record.partition);
                    self.ahead.push(&record);
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(self.ended.insert(partition)),
                Some(Err(error)) if is_final(&error) => return Err(self.failed("messages can't be read", error)),
                Some(Err(_)) => {}
            }
        }
        self.is_of_one_topic()
    }

    /// Whether each partition is read on where `next` says, and partitions were asked for lately: then what comes is new, and
    /// brokers needn't be asked what there is.
    pub(super) fn follows(&self, next: &BTreeMap<i32, i64>) -> bool {
        let is_known = self.asked.as_ref().is_some_and(|(asked, _)| asked.elapsed() < limits::KAFKA_TOPIC_LOOK);
        is_known && self.stands_at(next)
    }

    /// Whether the topic had other partitions than those of `next` when brokers were asked last.
    pub(super) fn saw_others(&self, next: &BTreeMap<i32, i64>) -> bool {
        self.asked.as_ref().is_some_and(|(_, seen)| !seen.iter().eq(next.keys()))
    }

    /// Whether each partition is read on where `next` says.
    pub(super) fn stands_at(&self, next: &BTreeMap<i32, i64>) -> bool {
        self.at.len() == next.len() && next.iter().all(|(p, next)| self.next(*p) == Some(*next))
    }

    /// The offset after the last message of each partition that was gathered.
    pub(super) fn gathered(&self) -> BTreeMap<i32, i64> {
        self.at.clone()
    }

    /// Whether the last reading ended where one from `from` begins: nothing can have changed in between.
    pub(super) fn goes_on_at(&self, partition: i32, from: i64) -> bool {
        self.next(partition) == Some(from)
    }

    /// The next offset that is handed on without another assignment.
    fn next(&self, partition: i32) -> Option<i64> {
        let ahead = self.ahead.places().filter(|(of, _)| *of == partition).map(|(_, offset)| offset).min();
        ahead.or_else(|| self.at.get(&partition).copied())
    }

    /// Assigns the partitions, unless the last reading ended where this one begins.
    fn go_to(&mut self, ranges: &BTreeMap<i32, (i64, i64)>) -> Result<()> {
        if self.at.len() == ranges.len() && ranges.iter().all(|(p, (from, _))| self.next(*p) == Some(*from)) {
            return Ok(());
        }
        self.ahead = Records::default();
        self.ended.clear();
        self.at = ranges.iter().map(|(partition, (from, _))| (*partition, *from)).collect();
        let mut list = TopicPartitionList::new();
        for (partition, (from, _)) in ranges {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*from))
                .map_err(|error| self.failed("a partition can't be assigned", error))?;
        }
        // Messages of an earlier assignment are dropped by the client itself.
        self.consumer.assign(&list).map_err(|error| self.failed("partitions can't be assigned", error))
    }

    /// Commits where partitions are read on to the group, for Kafka's own tools.
    pub(super) fn commit(&mut self, offsets: &Offsets) -> Result<()> {
        let next: BTreeMap<i32, i64> = offsets.partitions.iter().map(|(partition, at)| (*partition, at.next)).collect();
        if self.committed == next {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for (partition, next) in &next {
            list.add_partition_offset(&offsets.topic, *partition, Offset::Offset(*next))
                .map_err(|error| self.failed("an offset can't be committed", error))?;
        }
        // Who follows a topic doesn't wait for the answer at each step; a run, which ends here, does.
        let mode = if self.committed.is_empty() { CommitMode::Sync } else { CommitMode::Async };
        self.consumer
            .commit(&list, mode)
            .map_err(|error| self.failed("offsets can't be committed to the group", error))?;
        self.committed = next;
        Ok(())
    }
}

/// Hands a message on, or keeps it for the next range.
fn sort_in(
    at: &mut BTreeMap<i32, i64>,
    ahead: &mut Records,
    record: &Record<'_>,
    ranges: &BTreeMap<i32, (i64, i64)>,
    open: &mut BTreeMap<i32, i64>,
    each: &mut impl FnMut(&Record<'_>) -> Result<()>,
) -> Result<()> {
    let at = at.entry(record.partition).or_insert(record.offset);
    *at = (*at).max(record.offset + 1);
    if let Some((_, to)) = ranges.get(&record.partition) {
        if record.offset + 1 >= *to {
            open.remove(&record.partition);
        }
        if record.offset < *to {
            return each(record);
        }
    }
    ahead.push(record);
    Ok(())
}

/// Whether waiting doesn't help.
fn is_final(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(error, KafkaError::MessageConsumptionFatal(_))
        || code.is_some_and(|code| {
            matches!(
                code,
                RDKafkaErrorCode::AutoOffsetReset
                    | RDKafkaErrorCode::OffsetOutOfRange
                    | RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::GroupAuthorizationFailed
                    | RDKafkaErrorCode::SaslAuthenticationFailed
                    | RDKafkaErrorCode::Authentication
            )
        })
}
