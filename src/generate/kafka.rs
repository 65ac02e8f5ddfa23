//! The shop's events, or the whole shop, to Kafka topics, one JSON object a message, at a rate. Knows no file.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDate, Utc};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::util::Timeout;

use crate::error::{Error, Result, ResultExt};
use crate::limits::{GENERATED_DELIVERY_SECONDS, GENERATED_QUEUE_WAIT, GENERATED_TOPIC_SECONDS};

use super::catalog::Catalog;
use super::draw::Stream;
use super::encode::JsonMessages;
use super::events::{self, EventRow, Wanted};
use super::orders::Messages;
use super::parallel::Crew;
use super::rhythm::{DAY, Period};
use super::tables::{ALL, EVENTS};
use super::{LONGEST_DAYS, check_days, check_shares};

/// What to stream.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Where the cluster is: `host:port`, more of them after commas.
    pub brokers: String,
    /// Where to. Topics that aren't there are left to the brokers to make.
    pub topics: Topics,
    /// Messages a second; 0 is as fast as possible. What is sold and who sells it isn't counted, nor are malformed copies.
    pub rate: u64,
    /// Events, repeats and malformed ones not counted.
    pub events: u64,
    /// Orders of the shop whose events they are: a larger shop sells more products.
    pub orders: u64,
    /// The same seed and options give the same rows; of events without `start`, their times apart.
    pub seed: u64,
    /// First day. Without one, an event's time is the instant at which it is sent; a whole shop needs one.
    pub start: Option<NaiveDate>,
    /// Days over which the events are spread before they are sent, 1 to 36,500. Without them: as many as they take at the rate,
    /// so that a visit takes as long as it would.
    pub days: Option<u32>,
    /// Share of events, 0 to 1, that come late: days, as in the files, and without `start` up to an hour.
    pub late: f64,
    /// Share of events, 0 to 1, that are sent twice.
    pub duplicates: f64,
    /// Malformed messages for each whole one, 0 to 1, beside them.
    pub malformed: f64,
}

/// What is streamed, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topics {
    /// The events, to this topic.
    Events(String),
    /// Every table, each to the topic of its name after this prefix and a dot.
    Shop(String),
}

/// What was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamSummary {
    /// Messages of all kinds, by topic, in the order of tables.
    pub messages: Vec<(String, u64)>,
    /// Late events.
    pub late: u64,
    /// Events sent a second time.
    pub duplicates: u64,
    /// Malformed ones.
    pub malformed: u64,
}

/// Sends what [`super::shop`] writes of the same options, and comes back when the brokers have all of it.
///
/// Events come in the order of the files' lines; keys are users' numbers. A whole shop begins with what is sold and who sells it;
/// then all else comes in the order in which it becomes known. An order is sent again each time that it gets on, and its last
/// message is its row of the files. Keys are orders' numbers (customers': their own), so that an order's messages stay in order.
/// Messages' timestamps are the instants of sending.
///
/// # Errors
/// Usage, for shares outside 0 to 1, wrong days or a whole shop without a first one; external, for brokers that don't answer or
/// don't take a message.
pub fn stream(options: &StreamOptions) -> Result<StreamSummary> {
    check_shares(options.late, options.duplicates, options.malformed)?;
    let days = options.days.unwrap_or_else(|| days(options.events, options.rate));
    check_days(days)?;
    let is_shop = matches!(options.topics, Topics::Shop(_));
    if is_shop && options.start.is_none() {
        return Err(Error::usage("a whole shop needs a first day"));
    }
    let period = Period::new(options.start.unwrap_or_default(), days)?;
    let catalog = Catalog::new(options.seed, options.orders, options.events);
    let StreamOptions { events, seed, late, duplicates, malformed, .. } = *options;
    let wanted = Wanted { events, seed, late, duplicates, malformed };
    let crew = Crew::of_all_cores();
    let orders = if is_shop { options.orders } else { 0 };
    let mut orders = Messages::new(seed, orders, malformed, crew, &period, &catalog)?;

    let mut sender = Sender::connect(&options.brokers, &options.topics)?;
    if is_shop {
        catalog.each(|table, key, row| sender.send(table, key, row, Utc::now()))?;
    }
    let mut pace = Pace::new(options.rate);
    let mut present = Present { delays: Stream::new(seed, "delays", 0), last: None };
    let mut json = JsonMessages::new(&EVENTS);
    let told = events::each(wanted, crew, &period, &catalog, |mut row, broken| {
        send_orders(&mut orders, row.millis.div_euclid(1_000), &mut pace, &mut sender)?;
        pace.wait();
        let now = Utc::now();
        if options.start.is_none() {
            row.millis = present.time(&row, now);
        }
        let (message, malformed) = json.of(&row, broken);
        let key = row.user().to_string();
        sender.send(EVENTS.name, &key, message, now)?;
        if let Some(malformed) = malformed {
            sender.send(EVENTS.name, &key, malformed, now)?;
            sender.malformed += 1;
        }
        Ok(())
    })?;
    send_orders(&mut orders, i64::MAX, &mut pace, &mut sender)?;
    sender.flush()?;
    let Sender { topics, malformed, .. } = sender;
    Ok(StreamSummary {
        messages: topics.into_values().collect(),
        late: told.late,
        duplicates: told.duplicates,
        malformed,
    })
}

/// Sends what is known of orders at `at`, seconds of the shop's clock. Events' times are UTC's, of which the shop is some hours
/// behind: nobody sees that in when a message is sent.
fn send_orders(orders: &mut Messages<'_>, at: i64, pace: &mut Pace, sender: &mut Sender) -> Result<()> {
    while let Some(message) = orders.next_until(at)? {
        if message.is_malformed {
            sender.malformed += 1;
        } else {
            pace.wait();
        }
        sender.send(message.table, &message.key, &message.value, Utc::now())?;
    }
    Ok(())
}

/// Whole days that so many events take.
fn days(events: u64, rate: u64) -> u32 {
    let a_day = rate.saturating_mul(DAY.unsigned_abs());
    let days = events.checked_div(a_day).map_or(1, |_| events.div_ceil(a_day));
    u32::try_from(days).unwrap_or(LONGEST_DAYS).clamp(1, LONGEST_DAYS)
}

/// So many events a second; one that comes late is made up for by the next ones.
struct Pace {
    rate: u64,
    done: u64,
    started: Instant,
}

impl Pace {
    fn new(rate: u64) -> Self {
        Self { rate, done: 0, started: Instant::now() }
    }

    /// Waits until it is time for the next event.
    fn wait(&mut self) {
        if self.rate == 0 {
            return;
        }
        if self.done == 0 {
            self.started = Instant::now();
        }
        let due = Duration::from_secs_f64(self.done as f64 / self.rate as f64);
        thread::sleep(due.saturating_sub(self.started.elapsed()));
        self.done += 1;
    }
}

/// Seconds by which an event is late at most that would otherwise happen when it is sent.
const LATEST_SECONDS: u64 = 3_600;

/// Times of events that happen when they are sent.
struct Present {
    /// By how much late ones are late.
    delays: Stream,
    /// The last event, and when it is said to have been.
    last: Option<((i64, u128, u16), i64)>,
}

impl Present {
    /// When an event is said to have been, in milliseconds: now; earlier if it is late; when it was before, if it is the last one
    /// again.
    fn time(&mut self, row: &EventRow<'_>, now: DateTime<Utc>) -> i64 {
        let place = row.place();
        if let Some((last, millis)) = self.last
            && last == place
        {
            return millis;
        }
        let delay = if row.is_late { 1 + self.delays.below(LATEST_SECONDS) } else { 0 };
        let millis = now.timestamp_millis() - delay as i64 * 1_000;
        self.last = Some((place, millis));
        millis
    }
}

/// Sends messages to the topics of tables.
struct Sender {
    producer: ThreadedProducer<Deliveries>,
    /// By table's place among all: its topic, and how many messages were sent to it.
    topics: BTreeMap<usize, (String, u64)>,
    malformed: u64,
}

impl Sender {
    /// Makes sure that there are brokers, and that they know the topics.
    fn connect(brokers: &str, topics: &Topics) -> Result<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("client.id", "tidemill-generate");
        // No message is lost, doubled or out of order, however often one is tried.
        config.set("enable.idempotence", "true");
        config.set("message.timeout.ms", (GENERATED_DELIVERY_SECONDS * 1_000).to_string());
        let producer =
            config.create_with_context(Deliveries::default()).external("the Kafka client refuses its settings")?;
        let topics = ALL.iter().enumerate().filter_map(|(place, table)| match topics {
            Topics::Events(topic) => (table.name == EVENTS.name).then(|| (place, (topic.clone(), 0))),
            Topics::Shop(prefix) => Some((place, (format!("{prefix}.{}", table.name), 0))),
        });
        let sender = Self { producer, topics: topics.collect(), malformed: 0 };
        for (topic, _) in sender.topics.values() {
            sender.find_topic(topic).map_err(|e| e.with("brokers", brokers).with("topic", topic))?;
        }
        Ok(sender)
    }

    fn find_topic(&self, topic: &str) -> Result<()> {
        let limit = Duration::from_secs(GENERATED_TOPIC_SECONDS);
        let started = Instant::now();
        loop {
            let metadata = self.producer.client().fetch_metadata(Some(topic), limit);
            let metadata = metadata.map_err(|error| self.failed("no broker answers", error))?;
            let Some(error) = metadata.topics().first().and_then(|topic| topic.error()) else { return Ok(()) };
            // Brokers that make topics when asked for them take a moment.
            if started.elapsed() >= limit {
                let error = KafkaError::MetadataFetch(error.into());
                return Err(self.failed("the topic can't be written to", error));
            }
            thread::sleep(limit / 100);
        }
    }

    fn send(&mut self, table: &str, key: &str, message: &[u8], now: DateTime<Utc>) -> Result<()> {
        let missing = || Error::internal("a generated table has no topic").with("table", table);
        let place = ALL.iter().position(|known| known.name == table);
        self.check()?;
        let (topic, messages) = place.and_then(|place| self.topics.get_mut(&place)).ok_or_else(missing)?;
        let mut record = BaseRecord::to(topic).key(key).payload(message).timestamp(now.timestamp_millis());
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    thread::sleep(GENERATED_QUEUE_WAIT);
                }
                Err((error, _)) => return Err(failed(&self.producer, "a message can't be sent", error)),
            }
        }
        *messages += 1;
        Ok(())
    }

    /// Waits until each message has come to a broker or was given up.
    fn flush(&self) -> Result<()> {
        self.producer.flush(Timeout::Never).map_err(|error| self.failed("messages can't be sent", error))?;
        self.check()
    }

    fn check(&self) -> Result<()> {
        match self.producer.client().context().failed.get() {
            Some((topic, error)) => Err(self.failed("a message wasn't delivered", error.clone()).with("topic", topic)),
            None => Ok(()),
        }
    }

    fn failed(&self, message: &str, error: KafkaError) -> Error {
        failed(&self.producer, message, error)
    }
}

/// An error with what the client said last, which tells more.
fn failed(producer: &ThreadedProducer<Deliveries>, message: &str, error: KafkaError) -> Error {
    let last = producer.client().context().last.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let failed = Error::external(message).caused_by(error);
    if last.is_empty() { failed } else { failed.with("reason", last) }
}

/// What the client tells from its own threads.
#[derive(Default)]
struct Deliveries {
    /// The first message's topic that failed, and why.
    failed: OnceLock<(String, KafkaError)>,
    /// The last trouble with a broker, in words.
    last: Mutex<String>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "kafka client");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // This one only counts the others.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            return;
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = reason.to_string();
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            // Only the first one counts.
            let _ = self.failed.set((message.topic().to_owned(), error.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_spread_over_the_days_that_they_take() {
        for (events, rate, expected) in [
            (0, 0, 1),
            (100, 0, 1),
            (0, 10, 1),
            (864_000, 10, 1),
            (864_001, 10, 2),
            (u64::MAX, 1, LONGEST_DAYS),
            (5, u64::MAX, 1),
        ] {
            assert_eq!(days(events, rate), expected, "{events} events, {rate} a second");
        }
    }

    #[test]
    fn a_pace_is_kept() {
        let mut pace = Pace::new(1_000);
        let started = Instant::now();
        (0..21).for_each(|_| pace.wait());
        assert!(started.elapsed() >= Duration::from_millis(20));
    }
}
