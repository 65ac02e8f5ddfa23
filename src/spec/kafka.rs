//! Reads what a Kafka source says besides its columns.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fault::Fault;
use super::fields::{Fields, Reader};
use super::source::{LACKING_FORMATS, read_text_options};
use super::tree::Node;
use super::types::{KafkaSpec, Located, MessageFormat, MessageRelation, Start};

pub(super) fn read_kafka(reader: &mut Reader<'_>, fields: &Fields<'_>, name: &Located<String>) -> Option<KafkaSpec> {
    let brokers = fields.need(reader, "brokers", &name.place).and_then(|n| reader.word(n));
    let topic = fields.need(reader, "topic", &name.place).and_then(|n| reader.word(n));
    let format = fields.require(reader, "format", &name.place);
    let lacking = [&LACKING_FORMATS[..], &["csv", "parquet"]].concat();
    let format = format.and_then(|n| reader.one_of(n, &["json", "connect-json"], &lacking));
    let text = read_text_options(reader, fields);
    let key = fields.get("key").map(|n| reader.names(n)).unwrap_or_default();
    let relation = match fields.get("relation").and_then(|n| reader.one_of(n, &["append", "upsert"], &["changes"])) {
        Some("upsert") => {
            if key.is_empty() && !fields.is_meant("key") {
                let message = "`relation: upsert` needs the columns that say which row a message replaces";
                let fault = Fault::error("missing_key", name.place.clone(), message);
                reader.fault(fault.hint("such as `key: [id]`"));
            }
            MessageRelation::Upsert(key)
        }
        _ => {
            if let (Some(place), None) = (fields.key_place("key"), fields.get("relation")) {
                let fault =
                    Fault::error("key_without_effect", place.clone(), "`key` has no effect on `relation: append`");
                reader.fault(fault.hint("write `relation: upsert` where the last message of a key counts"));
            }
            MessageRelation::Append
        }
    };
    let start = fields.get("start").and_then(|n| read_start(reader, n)).unwrap_or(Start::Earliest);
    let on_gap = fields.get("on_gap").and_then(|n| reader.one_of(n, &["fail", "accept"], &[]));
    let duration = |reader: &mut Reader<'_>, key| fields.get(key).and_then(|n| reader.duration(n));
    let watermark_delay = duration(reader, "watermark_delay").unwrap_or(Duration::ZERO);
    let idle_timeout = duration(reader, "idle_timeout").unwrap_or(Duration::from_secs(60));
    if let Some(node) = fields.get("on_late") {
        reader.one_of(node, &["correct"], &["drop", "quarantine"]);
    }
    if let Some(node) = fields.get("archive")
        && reader.boolean(node) == Some(false)
    {
        let message = "without its archive a topic can't be maintained: this build always keeps the rows";
        reader.fault(Fault::error("not_in_this_build", node.place.clone(), message).hint("take `archive` away"));
    }
    let mut options = BTreeMap::new();
    if let Some(node) = fields.get("options") {
        for (key, value) in reader.named(node, "options of the Kafka client") {
            if let Some(text) = reader.text(value) {
                options.insert(key.value.clone(), text.value);
            }
        }
    }
    let format = match format? {
        "connect-json" => MessageFormat::ConnectJson(text),
        _ => MessageFormat::Json(text),
    };
    let (brokers, topic, accepts_gaps) = (brokers?, topic?, on_gap == Some("accept"));
    Some(KafkaSpec { brokers, topic, format, relation, start, accepts_gaps, watermark_delay, idle_timeout, options })
}

fn read_start(reader: &mut Reader<'_>, node: &Node) -> Option<Start> {
    let text = reader.word(node)?;
    match text.value.as_str() {
        "earliest" => Some(Start::Earliest),
        "latest" => Some(Start::Latest),
        instant => match chrono::DateTime::parse_from_rfc3339(instant) {
            Ok(instant) => Some(Start::At(instant.timestamp_millis())),
            Err(_) => {
                let message = format!("expected earliest, latest or an instant, found `{}`", text.value);
                let fault = Fault::error("wrong_value", text.place, message);
                reader.fault(fault.hint("such as \"2026-01-01T00:00:00Z\""));
                None
            }
        },
    }
}
