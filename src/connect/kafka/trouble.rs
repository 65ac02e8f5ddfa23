//! Why a Kafka client has trouble, in words that help and tell no secret. Knows no rows.

use std::time::Instant;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::metadata::Metadata;

use super::quiet::Quiet;
use crate::error::Error;
use crate::limits;

/// That a client refuses its options. Their values may be secrets.
pub(super) fn refused_options(error: &KafkaError) -> Error {
    let reason = match error {
        KafkaError::ClientConfig(_, told, _, value) if value.is_empty() => told.clone(),
        KafkaError::ClientConfig(_, told, _, value) => told.replace(value, "…"),
        other => other.to_string(),
    };
    Error::usage("the Kafka client refuses its options").with("reason", reason)
}

/// What brokers tell of a topic.
///
/// # Errors
/// External, to be tried again: they don't answer in time, or refuse this client, with what it says of why.
pub(super) fn metadata(client: &BaseConsumer<Quiet>, topic: &str) -> Result<Metadata, Error> {
    let (begun, context) = (Instant::now(), client.context());
    context.forget();
    loop {
        let error = match client.fetch_metadata(Some(topic), limits::KAFKA_ASKED) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        let told = context.told();
        let is_refused = told.as_deref().is_some_and(is_refusal);
        if is_refused || begun.elapsed() >= limits::KAFKA_ANSWER {
            let what = if is_refused { "the Kafka brokers can't be used" } else { "the Kafka brokers don't answer" };
            let error = Error::external(what).caused_by(error).retryable();
            return Err(told.into_iter().fold(error, |error, told| error.with("reason", told)));
        }
    }
}

/// Whether waiting doesn't help: password or certificate are at fault.
fn is_refusal(told: &str) -> bool {
    let told = told.to_lowercase();
    told.contains("authentication") || told.contains("certificate")
}

#[cfg(test)]
mod tests {
    use rdkafka::config::ClientConfig;

    use super::*;

    #[test]
    fn options_that_are_refused_are_named_without_their_values() {
        for (option, names) in [("sasl.passwort", "sasl.passwort"), ("security.protocol", "security.protocol")] {
            let error = ClientConfig::new().set(option, "TopSecret123").create_native_config().err().unwrap();
            let told = refused_options(&error).to_string();
            assert!(told.contains(names) && !told.contains("TopSecret123"), "{told}");
        }
    }
}
