//! What a client tells of itself, for those who look for trouble: what matters comes back from its calls.

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

    fn last(&self) -> MutexGuard<'_, Option<String>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Quiet {
    /// A line for each try to connect, while brokers are away.
    fn log(&self, _: RDKafkaLogLevel, kind: &str, text: &str) {
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

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    /// A transaction that lacks a message can't be committed, which is told then.
    fn delivery(&self, _: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {}
}
