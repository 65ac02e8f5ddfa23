//! Reads where a model's changes are published to. Knows no Kafka.

use super::fault::Fault;
use super::fields::{Fields, Reader};
use super::keys;
use super::tree::Node;
use super::types::{Emit, KafkaSinkSpec, Project, SinkSpec, SinkTarget};

/// Reads `publish`, a list of sinks.
pub(super) fn read_publish(reader: &mut Reader<'_>, node: &Node) -> Vec<SinkSpec> {
    let items = reader.items(node);
    let mut sinks: Vec<SinkSpec> = Vec::new();
    for item in items {
        let Some(sink) = read_sink(reader, item) else { continue };
        if let Some(twin) = sinks.iter().find(|other| other.name() == sink.name()) {
            let message = format!("the model is published to {} twice", twin.name());
            reader.fault(Fault::error("duplicate", sink.place, message).hint("take one away"));
        } else {
            sinks.push(sink);
        }
    }
    sinks
}

fn read_sink(reader: &mut Reader<'_>, node: &Node) -> Option<SinkSpec> {
    let fields = reader.fields(node, &keys::SINK)?;
    let connector = fields.require(reader, "connector", &node.place);
    connector.and_then(|n| reader.one_of(n, &["kafka"], &["files"]))?;
    let target = SinkTarget::Kafka(read_kafka_sink(reader, &fields)?);
    Some(SinkSpec { target, place: node.place.clone() })
}

fn read_kafka_sink(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<KafkaSinkSpec> {
    let topic = fields.need(reader, "topic", &fields.place).and_then(|n| reader.word(n));
    let brokers = fields.get("brokers").and_then(|n| reader.word(n));
    if let Some(node) = fields.get("format") {
        reader.one_of(node, &["json"], &["connect-json", "avro", "csv", "parquet"]);
    }
    let emit = match fields.get("emit").map(|n| reader.one_of(n, &["changes", "final", "debezium"], &[])) {
        None | Some(Some("changes")) => Emit::Changes,
        Some(Some("final")) => Emit::Final,
        Some(Some(_)) => Emit::Debezium,
        Some(None) => return None,
    };
    let decimals = fields.get("decimals").and_then(|n| reader.one_of(n, &["number", "text"], &[]));
    let options = reader.text_map(fields.get("options"), "options of the Kafka client");
    Some(KafkaSinkSpec {
        brokers,
        has_unread_brokers: fields.is_meant("brokers") || fields.key_place("brokers").is_some(),
        topic: topic?,
        emit,
        decimals_as_text: decimals == Some("text"),
        options,
    })
}

/// Gives sinks without brokers those of the project.
pub(super) fn settle_brokers(reader: &mut Reader<'_>, project: &mut Project) {
    let default = project.kafka_brokers.clone();
    for model in project.pipelines.iter_mut().flat_map(|pipeline| &mut pipeline.models) {
        for sink in &mut model.publish {
            let SinkTarget::Kafka(spec) = &mut sink.target;
            if spec.brokers.is_none() && default.is_none() && !spec.has_unread_brokers {
                let fault = Fault::error("missing_key", sink.place.clone(), "`brokers` is missing");
                reader.fault(fault.hint("here, or for all sinks in tidemill.yaml: `kafka: { brokers: HOST:PORT }`"));
            }
            spec.brokers = spec.brokers.take().or_else(|| default.clone());
        }
    }
}
