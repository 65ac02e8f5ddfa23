//! Reads where a model's changes are published to. Knows no Kafka and no store.

use std::path::{Component, Path, PathBuf};

use super::fault::Fault;
use super::fields::{Fields, Reader};
use super::keys;
use super::tree::Node;
use super::types::{
    ConnectorSpec, Emit, FilesSinkSpec, KafkaSinkSpec, Located, Project, SinkFormat, SinkSpec, SinkTarget,
};

/// Keys that only topics have.
const KAFKA_KEYS: [&str; 3] = ["brokers", "topic", "decimals"];
/// Keys that only files have.
const FILES_KEYS: [&str; 1] = ["path"];
/// Characters that make a path a glob.
const GLOB: [char; 4] = ['*', '?', '[', '{'];

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
    let connector = connector.and_then(|n| reader.one_of(n, &["kafka", "files"], &[]))?;
    let idle: &[&str] = if connector == "kafka" { &FILES_KEYS } else { &KAFKA_KEYS };
    for key in idle {
        if let (Some(_), Some(place)) = (fields.get(key), fields.key_place(key)) {
            let message = format!("`{key}` has no effect on a {connector} sink");
            reader.fault(Fault::error("key_without_effect", place.clone(), message).hint("take it away"));
        }
    }
    let target = match connector {
        "kafka" => SinkTarget::Kafka(read_kafka_sink(reader, &fields)?),
        _ => SinkTarget::Files(read_files_sink(reader, &fields)?),
    };
    Some(SinkSpec { target, place: node.place.clone() })
}

/// The outer none: told already.
fn read_emit(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Emit> {
    match fields.get("emit").map(|n| reader.one_of(n, &["changes", "final", "debezium"], &[])) {
        None | Some(Some("changes")) => Some(Emit::Changes),
        Some(Some("final")) => Some(Emit::Final),
        Some(Some(_)) => Some(Emit::Debezium),
        Some(None) => None,
    }
}

fn read_kafka_sink(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<KafkaSinkSpec> {
    let topic = fields.need(reader, "topic", &fields.place).and_then(|n| reader.word(n));
    let brokers = fields.get("brokers").and_then(|n| reader.word(n));
    if let Some(node) = fields.get("format") {
        reader.one_of(node, &["json"], &["connect-json", "avro", "csv", "parquet"]);
    }
    let emit = read_emit(reader, fields);
    let decimals = fields.get("decimals").and_then(|n| reader.one_of(n, &["number", "text"], &[]));
    let options = reader.text_map(fields.get("options"), "options of the Kafka client");
    Some(KafkaSinkSpec {
        brokers,
        has_unread_brokers: fields.is_meant("brokers") || fields.key_place("brokers").is_some(),
        topic: topic?,
        emit: emit?,
        decimals_as_text: decimals == Some("text"),
        options,
    })
}

fn read_files_sink(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<FilesSinkSpec> {
    let path = fields.need(reader, "path", &fields.place).and_then(|n| reader.word(n));
    let path = path.filter(|path| {
        let is_glob = path.value.contains(GLOB);
        if is_glob {
            let fault = Fault::error("wrong_value", path.place.clone(), "expected a folder, found a glob");
            reader.fault(fault.hint("name the folder: each change becomes a file in it"));
        }
        !is_glob
    });
    let format = match fields.get("format").map(|n| reader.one_of(n, &["parquet", "json", "csv"], &["avro"])) {
        None | Some(Some("parquet")) => Some(SinkFormat::Parquet),
        Some(Some("json")) => Some(SinkFormat::Json),
        Some(Some(_)) => Some(SinkFormat::Csv),
        Some(None) => None,
    };
    let emit = read_emit(reader, fields);
    if let (Some(Emit::Debezium), Some(SinkFormat::Parquet | SinkFormat::Csv), Some(node)) =
        (emit, format, fields.get("emit"))
    {
        let message = "Debezium's envelope is written as JSON only";
        reader.fault(Fault::error("wrong_value", node.place.clone(), message).hint("add `format: json`"));
    }
    let options = reader.text_map(fields.get("options"), "options of the object store");
    Some(FilesSinkSpec { path: path?, format: format?, emit: emit?, options })
}

/// What only the whole project tells of its sinks.
pub(super) fn settle(reader: &mut Reader<'_>, project: &mut Project) {
    settle_brokers(reader, project);
    check_topics(reader, project);
    check_folders(reader, project);
}

/// Gives sinks without brokers those of the project.
fn settle_brokers(reader: &mut Reader<'_>, project: &mut Project) {
    let default = project.kafka_brokers.clone();
    for model in project.pipelines.iter_mut().flat_map(|pipeline| &mut pipeline.models) {
        for sink in &mut model.publish {
            let SinkTarget::Kafka(spec) = &mut sink.target else { continue };
            if spec.brokers.is_none() && default.is_none() && !spec.has_unread_brokers {
                let fault = Fault::error("missing_key", sink.place.clone(), "`brokers` is missing");
                reader.fault(fault.hint("here, or for all sinks in tidemill.yaml: `kafka: { brokers: HOST:PORT }`"));
            }
            spec.brokers = spec.brokers.take().or_else(|| default.clone());
        }
    }
}

/// A topic holds one model's rows: messages of two would replace each other where they have a key in common.
fn check_topics(reader: &mut Reader<'_>, project: &Project) {
    let mut known: Vec<(&KafkaSinkSpec, &Located<String>)> = Vec::new();
    for model in project.pipelines.iter().flat_map(|pipeline| &pipeline.models) {
        for sink in &model.publish {
            let SinkTarget::Kafka(spec) = &sink.target else { continue };
            let is_same = |other: &KafkaSinkSpec| {
                other.brokers.as_ref().is_some_and(|brokers| spec.writes_to(&brokers.value, &other.topic.value))
            };
            if let Some((_, other)) = known.iter().find(|(known, _)| is_same(known)) {
                let message = format!("`{}` is published to this topic as well", other.value);
                let fault = Fault::error("duplicate", spec.topic.place.clone(), message);
                reader.fault(fault.hint("give each model a topic of its own"));
            }
            known.push((spec, &model.name));
        }
    }
}

/// A folder holds one model's changes, and neither tables nor rows that a source reads.
fn check_folders(reader: &mut Reader<'_>, project: &Project) {
    let root = &project.root;
    let warehouse = location(root, &project.warehouse.value);
    let sources: Vec<(&str, String)> = project
        .pipelines
        .iter()
        .flat_map(|pipeline| &pipeline.sources)
        .filter_map(|source| match &source.connector {
            ConnectorSpec::Files(spec) => Some((source.name.value.as_str(), source_folder(root, &spec.path.value))),
            ConnectorSpec::Kafka(_) => None,
        })
        .collect();
    let mut known: Vec<(String, &Located<String>)> = Vec::new();
    for model in project.pipelines.iter().flat_map(|pipeline| &pipeline.models) {
        for sink in &model.publish {
            let SinkTarget::Files(spec) = &sink.target else { continue };
            let folder = location(root, &spec.path.value);
            let mut wrong = |code, message: String, hint: &str| {
                reader.fault(Fault::error(code, spec.path.place.clone(), message).hint(hint));
            };
            if let Some((_, other)) = known.iter().find(|(other, _)| *other == folder) {
                let message = format!("`{}` is published to this folder as well", other.value);
                wrong("duplicate", message, "give each sink a folder of its own");
            }
            if folder == warehouse || folder.starts_with(&format!("{warehouse}/")) {
                let message = "this folder is inside the warehouse, where tables are".to_string();
                wrong("wrong_value", message, "name a folder beside it");
            }
            if let Some((source, _)) = sources.iter().find(|(_, other)| *other == folder) {
                let message = format!("the source `{source}` reads its files from this folder");
                wrong("wrong_value", message, "name another folder");
            }
            known.push((folder, &model.name));
        }
    }
}

/// The folder that a source's glob chooses files in; a path without one may be a folder itself.
fn source_folder(root: &Path, path: &str) -> String {
    match path.find(GLOB) {
        None => location(root, path),
        Some(at) => location(root, path[..at].rsplit_once('/').map_or("", |(folder, _)| folder)),
    }
}

/// A path or URL in one spelling.
fn location(root: &Path, path: &str) -> String {
    let path = path.strip_prefix("file://").unwrap_or(path);
    if path.contains("://") {
        return path.trim_end_matches('/').to_string();
    }
    let mut out = PathBuf::new();
    for part in root.join(path).components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out.to_string_lossy().into_owned()
}
