//! What goes wrong around a broker while `up` works: it goes away and comes back, connections are cut, what it kept for a sink is
//! forgotten. Work goes on by itself, and each message counts once.

use std::time::{Duration, Instant};

use rand::Rng;

use crate::kafka::Up;
use crate::kafka_server::{Kafka, Proxy};
use crate::kafka_stream::Stream;
use crate::kill::seed;
use crate::scratch::TIDEMILL_YAML;

/// Asked to end, it must have done so by then: what it may drain for, and a moment.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn a_broker_may_be_started_again_while_its_topics_are_followed() {
    let mut kafka = Kafka::start();
    let mut stream = Stream::new(&kafka, &kafka.brokers(), &kafka.brokers(), seed());
    let up = Up::start(&stream.shop);
    for round in 0..3 {
        stream.send(&kafka, 20);
        if round == 1 {
            stream.wait_while(Stream::is_behind);
        }
        kafka.stop();
        std::thread::sleep(Duration::from_millis(stream.random.random_range(0..1_500)));
        kafka.resume();
        stream.send(&kafka, 20);
    }
    stream.wait_while(Stream::is_behind);
    up.end();
    stream.assert_whole(&kafka, &kafka);
}

#[test]
fn connections_may_be_cut_at_any_instant() {
    let proxy = Proxy::new();
    let kafka = Kafka::start_behind(&proxy);
    let mut stream = Stream::new(&kafka, &proxy.brokers(), &proxy.brokers(), seed());
    let up = Up::start(&stream.shop);
    stream.send(&kafka, 20);
    stream.wait_while(Stream::is_behind);
    let mut cut = 0;
    for _ in 0..12 {
        let more = stream.random.random_range(1..40);
        stream.send(&kafka, more);
        std::thread::sleep(Duration::from_millis(stream.random.random_range(0..300)));
        cut += proxy.cut();
        std::thread::sleep(Duration::from_millis(stream.random.random_range(0..600)));
        kafka.reached_by(&proxy);
    }
    assert!(cut > 12, "only {cut} connections were there to be cut");
    stream.wait_while(Stream::is_behind);
    up.end();
    stream.assert_whole(&kafka, &kafka);
}

/// An hour is as many tries of the same kind, each a second after the one before has failed: one of them is waited for here.
#[test]
fn a_sink_whose_broker_is_long_away_is_made_up_for_by_the_same_process() {
    let kafka = Kafka::shared();
    let mut away = Kafka::start();
    let mut stream = Stream::new(kafka, &kafka.brokers(), &away.brokers(), seed());
    let up = Up::start(&stream.shop);
    stream.send(kafka, 10);
    stream.wait_while(Stream::is_behind);
    away.stop();
    // Longer than brokers may take to answer.
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(35) {
        stream.send(kafka, 5);
        stream.wait_while(Stream::is_unread);
        assert!(stream.is_behind());
        std::thread::sleep(Duration::from_millis(500));
    }
    away.resume();
    stream.wait_while(Stream::is_behind);
    up.end();
    stream.assert_whole(kafka, &away);
}

#[test]
fn what_a_broker_kept_for_a_sink_may_expire_while_nothing_is_published() {
    let kafka = Kafka::start_with(
        "transactional.id.expiration.ms=1000
transaction.remove.expired.transaction.cleanup.interval.ms=200
producer.id.expiration.ms=1000
producer.id.expiration.check.interval.ms=200",
    );
    let mut stream = Stream::new(&kafka, &kafka.brokers(), &kafka.brokers(), seed());
    let up = Up::start(&stream.shop);
    for round in 0..3 {
        stream.send(&kafka, 20);
        stream.wait_while(Stream::is_behind);
        // The group's offsets are the cursor; without them it is found in the messages.
        if round == 1 {
            kafka.delete_group(&stream.sink_of("per_city", "city").1);
        }
        // Until the producer is forgotten.
        std::thread::sleep(Duration::from_secs(3));
    }
    stream.send(&kafka, 20);
    stream.wait_while(Stream::is_behind);
    up.end();
    stream.assert_whole(&kafka, &kafka);
}

#[test]
fn who_is_asked_to_end_while_brokers_are_away_does_so_in_time() {
    let mut kafka = Kafka::start();
    let mut stream = Stream::new(&kafka, &kafka.brokers(), &kafka.brokers(), seed());
    stream.shop.write("tidemill.yaml", format!("{TIDEMILL_YAML}shutdown_timeout: 2s\n"));
    let up = Up::start(&stream.shop);
    // The topics that the broker keeps groups and transactions in are made for the first of them, which isn't what is looked at.
    stream.send(&kafka, 20);
    stream.wait_while(Stream::is_behind);
    stream.send(&kafka, 20);
    stream.wait_while(Stream::is_unread);
    kafka.stop();
    std::thread::sleep(Duration::from_millis(stream.random.random_range(0..1_000)));
    let asked = Instant::now();
    up.end();
    assert!(asked.elapsed() < ENDS_WITHIN, "it took {:?}", asked.elapsed());
    kafka.resume();
    stream.assert_whole(&kafka, &kafka);
}

/// Each step lands a piece, and a file of refused rows; what puts them together is no step's to wait for, and comes into a later one.
#[test]
fn pieces_are_put_together_beside_the_steps() {
    let kafka = Kafka::shared();
    let mut stream = Stream::new(kafka, &kafka.brokers(), &kafka.brokers(), seed());
    let up = Up::start(&stream.shop);
    let (mut most, mut most_refused) = (0, 0);
    for _ in 0..40 {
        stream.send_refused(kafka);
        stream.send(kafka, 5);
        stream.wait_while(Stream::is_unread);
        (most, most_refused) = (most.max(stream.units()), most_refused.max(stream.refused_files()));
    }
    assert!((8..30).contains(&most), "{most} pieces of 40 steps");
    assert!((8..30).contains(&most_refused), "{most_refused} files of refused rows of 40 steps");
    stream.wait_while(Stream::is_behind);
    up.end();
    stream.assert_whole(kafka, kafka);
    assert_eq!(
        stream.shop.rows("select count(*), count(distinct _offset || ' ' || _partition) from sales_quarantine"),
        "40,40\n"
    );
}
