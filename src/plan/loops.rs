//! Models that are published to a topic that they are computed of: each message would make another one, for ever. Knows no rows.

use crate::spec::fault::Fault;
use crate::spec::types::{ConnectorSpec, ModelSpec, SinkTarget, SourceSpec};

/// Faults of a model's sinks that write to the topic of one of `sources`, all that are under it.
pub(super) fn loop_faults(spec: &ModelSpec, sources: &[&SourceSpec]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for sink in &spec.publish {
        let SinkTarget::Kafka(sink) = &sink.target else { continue };
        let reads = |source: &&&SourceSpec| match &source.connector {
            ConnectorSpec::Kafka(topic) => sink.writes_to(&topic.brokers.value, &topic.topic.value),
            ConnectorSpec::Files(_) => false,
        };
        if let Some(source) = sources.iter().find(reads) {
            let message = format!(
                "`{}` is computed of `{}`, which reads this topic: what it publishes would come back, for ever",
                spec.name.value, source.name.value
            );
            faults.push(Fault::error("cycle", sink.topic.place.clone(), message).hint("publish to another topic"));
        }
    }
    faults
}
