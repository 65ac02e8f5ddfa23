//! Reads what a Kafka source says besides its columns.

use std::time::Duration;

use super::fault::Fault;
use super::fields::{Fields, Reader};
use super::source::{LACKING_FORMATS, read_text_options};
use super::tree::Node;
use super::types::{KafkaSpec, Located, MessageFormat, MessageRelation, OnLate, Start};

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
    let history = fields.get("history").and_then(|n| reader.word(n));
    let start = fields.get("start").and_then(|n| read_start(reader, n)).unwrap_or(Start::Earliest);
    let on_gap = fields.get("on_gap").and_then(|n| reader.one_of(n, &["fail", "accept"], &[]));
    let duration = |reader: &mut Reader<'_>, key| fields.get(key).and_then(|n| reader.duration(n));
    let watermark_delay = duration(reader, "watermark_delay").unwrap_or(Duration::ZERO);
    let idle_timeout = duration(reader, "idle_timeout").unwrap_or(Duration::from_secs(60));
    let on_late = match fields.get("on_late").and_then(|n| reader.one_of(n, &["correct", "drop", "quarantine"], &[])) {
        Some("drop") => OnLate::Drop,
        Some("quarantine") => OnLate::Quarantine,
        _ => OnLate::Correct,
    };
    tell_time_keys(reader, fields, name, &relation, on_late);
    let is_kept = |reader: &mut Reader<'_>, node| reader.boolean(node) != Some(false);
    let unarchived = fields.get("archive").filter(|node| !is_kept(reader, node)).map(|node| node.place.clone());
    if let Some(place) = &unarchived {
        let told = match (&relation, &history) {
            (MessageRelation::Upsert(_), _) => "of an upsert relation the last message of each key is looked for again",
            (_, Some(_)) => "what files hold of a topic's past is kept",
            _ => "",
        };
        if !told.is_empty() {
            let fault = Fault::error("needs_archive", place.clone(), format!("{told}, so rows can't be let go"));
            reader.fault(fault.hint("take `archive` away: rows are kept"));
        }
    }
    let options = reader.text_map(fields.get("options"), "options of the Kafka client");
    let format = match format? {
        "connect-json" => MessageFormat::ConnectJson(text),
        _ => MessageFormat::Json(text),
    };
    let (brokers, topic, accepts_gaps) = (brokers?, topic?, on_gap == Some("accept"));
    Some(KafkaSpec {
        history,
        brokers,
        topic,
        format,
        relation,
        start,
        accepts_gaps,
        watermark_delay,
        idle_timeout,
        on_late,
        unarchived,
        options,
    })
}

/// Tells keys of event time that have no effect, and what `drop` gives up.
fn tell_time_keys(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    name: &Located<String>,
    relation: &MessageRelation,
    on_late: OnLate,
) {
    if fields.get("event_time").is_none() && !fields.is_meant("event_time") {
        for key in ["watermark_delay", "idle_timeout", "on_late"] {
            if let Some(place) = fields.key_place(key) {
                let message = format!("`{key}` has no effect without `event_time`");
                let fault = Fault::error("key_without_effect", place.clone(), message);
                reader.fault(fault.hint("name the time column with `event_time:`"));
            }
        }
        return;
    }
    let Some(place) = fields.key_place("on_late") else { return };
    if let MessageRelation::Upsert(_) = relation {
        let message =
            "`on_late` has no effect on `relation: upsert`: the last message of a key counts, whatever its time";
        reader.fault(Fault::error("key_without_effect", place.clone(), message).hint("take it away"));
    } else if on_late == OnLate::Drop {
        let message = format!(
            "rows of `{}` behind the watermark are left out for good: neither they nor what they belong to can be corrected, \
             rebuilt or verified with them later",
            name.value
        );
        let fault = Fault::warning("late_rows", place.clone(), message);
        reader.fault(fault.hint("`correct` has them correct the results, `quarantine` keeps them beside"));
    }
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
