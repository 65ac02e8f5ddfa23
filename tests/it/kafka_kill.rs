//! Kills of `up` while messages come and sinks follow: whatever is killed, each message counts once, in tables and in topics.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rand::Rng;

use crate::kafka::Up;
use crate::kafka_server::Kafka;
use crate::kafka_stream::Stream;
use crate::kill::{kills, seed};
use crate::kill_incremental::unreferenced;

const SIGKILL: i32 = 9;

#[test]
fn whatever_is_killed_tables_and_topics_hold_each_message_once() {
    let kafka = Kafka::shared();
    let mut stream = Stream::new(kafka, &kafka.brokers(), &kafka.brokers(), seed());
    // How long it takes to take something in and tell of it, from its start on.
    let started = Instant::now();
    let up = Up::start(&stream.shop);
    stream.send(kafka, 10);
    stream.wait_while(Stream::is_behind);
    let whole = started.elapsed();
    up.end();
    let (wanted, mut killed, mut starts) = (kills(100), 0, 0);
    while killed < wanted {
        let until = Instant::now() + stream.random.random_range(Duration::ZERO..whole.mul_f64(1.2));
        let up = Up::start(&stream.shop);
        for _ in 0..stream.random.random_range(1..3) {
            let more = stream.random.random_range(1..40);
            stream.send(kafka, more);
        }
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        assert_eq!(up.kill().signal(), Some(SIGKILL), "it was there until then");
        // One that had done all that there was to do doesn't count.
        (starts, killed) = (starts + 1, killed + u64::from(stream.is_behind()));
        if starts % 100 == 0 {
            stream.assert_whole(kafka, kafka);
        }
    }
    println!("{starts} starts, {killed} of them killed amid their work");
    stream.assert_whole(kafka, kafka);
    // Cleaning comes with a commit.
    stream.send(kafka, 1);
    stream.assert_whole(kafka, kafka);
    assert_eq!(unreferenced(&stream.shop, &["sales"]), [""; 0]);
}
