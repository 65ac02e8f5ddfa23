//! What reading a topic costs at least: librdkafka's consumer and arrow's JSON decoder in one thread, and nothing else.
//!
//!     kafka_limit HOST:PORT TOPIC
//!
//! Reads the shop's events from each partition's first message to the last one that is there at the start, throws the rows away, and
//! prints a line of JSON. The clock starts before the consumer connects. Knows nothing of Tidemill; benches/streams.py runs it.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

/// Rows of a batch, as many as DataFusion takes at a time.
const BATCH_ROWS: usize = 8_192;
/// How long the broker may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// What was read.
#[derive(Default)]
struct Seen {
    messages: u64,
    bytes: u64,
    rows: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, topic] = arguments.as_slice() else { return Err("usage: kafka_limit HOST:PORT TOPIC".into()) };
    let started = Instant::now();
    let seen = read(brokers, topic)?;
    let seconds = started.elapsed().as_secs_f64();
    let Seen { messages, bytes, rows } = seen;
    let rate = messages as f64 / seconds;
    println!(
        r#"{{"messages": {messages}, "rows": {rows}, "bytes": {bytes}, "seconds": {seconds:.3}, "messages_per_second": {rate:.0}}}"#
    );
    Ok(())
}

fn read(brokers: &str, topic: &str) -> Result<Seen, Box<dyn Error>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "kafka_limit")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        // By default a second passes before more is fetched, once enough is there.
        .set("fetch.queue.backoff.ms", "5")
        .create()?;
    let mut partitions = assign(&consumer, topic)?;
    let mut decoder = ReaderBuilder::new(Arc::new(schema())).with_batch_size(BATCH_ROWS).build_decoder()?;
    let mut seen = Seen::default();
    while partitions > 0 {
        match consumer.poll(SILENCE) {
            None => return Err(format!("the broker hands on nothing of {topic}").into()),
            Some(Err(KafkaError::PartitionEOF(_))) => partitions -= 1,
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(message)) => {
                let value = message.payload().ok_or("a message without a value")?;
                seen.messages += 1;
                seen.bytes += value.len() as u64;
                decode(&mut decoder, value, &mut seen.rows)?;
            }
        }
    }
    seen.rows += flush(&mut decoder)?;
    Ok(seen)
}

/// Takes all partitions from their first message; how many there are.
fn assign(consumer: &BaseConsumer, topic: &str) -> Result<usize, Box<dyn Error>> {
    let metadata = consumer.fetch_metadata(Some(topic), SILENCE)?;
    let found = metadata.topics().first().ok_or("no such topic")?;
    if let Some(code) = found.error() {
        return Err(RDKafkaErrorCode::from(code).into());
    }
    let mut list = TopicPartitionList::new();
    for partition in found.partitions() {
        list.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    Ok(list.count())
}

/// Takes one message in. A batch that is full is thrown away, and what is left of the message begins the next one.
fn decode(decoder: &mut Decoder, mut value: &[u8], rows: &mut u64) -> Result<(), Box<dyn Error>> {
    loop {
        let taken = decoder.decode(value)?;
        value = &value[taken..];
        if value.is_empty() {
            return Ok(());
        }
        *rows += flush(decoder)?;
    }
}

fn flush(decoder: &mut Decoder) -> Result<u64, Box<dyn Error>> {
    Ok(decoder.flush()?.map_or(0, |batch| batch.num_rows() as u64))
}

/// Columns of benches/streams/events.yaml.
fn schema() -> Schema {
    let needed = |name: &str, of: DataType| Field::new(name, of, false);
    let optional = |name: &str, of: DataType| Field::new(name, of, true);
    Schema::new(vec![
        needed("event_time", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        needed("event_type", DataType::Utf8),
        needed("product_id", DataType::Int64),
        optional("category_id", DataType::Int64),
        optional("category_code", DataType::Utf8),
        optional("brand", DataType::Utf8),
        optional("price", DataType::Decimal128(12, 2)),
        needed("user_id", DataType::Int64),
        optional("user_session", DataType::Utf8),
    ])
}
