//! What a client tells of itself, for those who look for trouble: what matters comes back from its calls, but for one thing, that a topic
//! was made anew.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};

/// Has the log of clients beside ours, as details.
#[derive(Default)]
pub(super) struct Quiet {
    told: Mutex<Option<String>>,
    made_anew: AtomicBool,
}

impl Quiet {
    /// What the client said last of why it can't connect.
    pub(super) fn told(&self) -> Option<String> {
        self.last().clone()
    }

    /// Forgets what the client said.
    pub(super) fn forget(&self) {
        *self.last() = None;
    }

    /// Whether a topic got another identity under the same name since the client knows it. The client reads on where it was, in the new
    /// one, and says so in its log alone, before it fetches from there.
    pub(super) fn saw_another_topic(&self) -> bool {
        self.made_anew.load(Ordering::Acquire)
    }

    fn last(&self) -> MutexGuard<'_, Option<String>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Quiet {
    /// A line for each try to connect, while brokers are away.
    fn log(&self, level: RDKafkaLogLevel, kind: &str, text: &str) {
        if matches!(level, RDKafkaLogLevel::Debug) {
            if is_of_another_topic(text) {
                self.made_anew.store(true, Ordering::Release);
            }
            return;
        }
        tracing::debug!(kind, text, "the Kafka client tells");
        if kind == "FAIL" {
            // Which of its threads says so is no news.
            let (_, said) = text.split_once("]: ").unwrap_or(("", text));
            *self.last() = Some(said.to_string());
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if !matches!(error, KafkaError::PartitionEOF(_))
            && error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF)
        {
            tracing::debug!(%error, reason, "the Kafka client has trouble");
        }
    }
}

impl ConsumerContext for Quiet {}

/// Whether a detail of the client's log says that a topic's identity is another than before; it has none, of zeros, at first.
fn is_of_another_topic(text: &str) -> bool {
    let ids = text.split_once(" changed id from ").and_then(|(_, ids)| ids.split_once(" to "));
    ids.is_some_and(|(before, _)| before.chars().any(|c| !matches!(c, 'A' | '=')))
}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    /// A transaction that lacks a message can't be committed, which is told then.
    fn delivery(&self, _: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {}
}

#[cfg(test)]
mod tests {
    use super::is_of_another_topic;

    #[test]
    fn only_an_identity_that_was_known_can_become_another() {
        let told = |before: &str| format!("[thrd:main]: Topic t changed id from {before} to AbC9_-xyzKLM0123456789");
        assert!(is_of_another_topic(&told("Zq1AAAAAAAAAAAAAAAAAAA")));
        assert!(!is_of_another_topic(&told("AAAAAAAAAAAAAAAAAAAAAA")));
        assert!(!is_of_another_topic("[thrd:main]: Topic t partition 0 Leader 1 Epoch 0"));
    }
}
