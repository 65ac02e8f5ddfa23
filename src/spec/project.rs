//! Reads `tidemill.yaml` and the parameters given besides.

use std::time::Duration;

use super::fault::{Fault, Place, SourceText};
use super::fields::{Fields, Reader};
use super::load::{LoadOptions, check_name};
use super::source::read_type;
use super::sql_type::SqlType;
use super::tree::Node;
use super::types::{Located, Pace, Param, Project};
use super::variables::shown;
use super::{check_zone, did_you_mean, keys, nearest};

/// Where servers listen unless they are told: on this machine only.
const FLIGHT: &str = "127.0.0.1:31337";
const CONSOLE: &str = "127.0.0.1:8080";

/// The project without its pipelines and tests.
pub(super) fn read_project(reader: &mut Reader<'_>, node: &Node, options: &LoadOptions) -> Option<Project> {
    let fields = reader.fields(node, &keys::PROJECT)?;
    let source = &node.place.source;
    let start = Place::new(source, source.start()..source.start());
    let default = |value: &str| Located { value: value.to_string(), place: start.clone() };
    if let Some(version) = fields.require(reader, "version", &start).and_then(|node| reader.word(node))
        && version.value != "1"
    {
        let message = format!("this Tidemill reads version 1, found `{}`", shown(&version.value, &version.place));
        reader.fault(Fault::error("wrong_version", version.place, message));
    }
    let name = fields.require(reader, "name", &start).and_then(|node| reader.word(node));
    if let Some(name) = &name {
        check_name(reader, name, "a project");
    }
    let timezone = fields.get("timezone").and_then(|node| reader.word(node)).unwrap_or_else(|| default("UTC"));
    check_zone(reader, &timezone);
    let flight = fields.get("flight").and_then(|node| reader.fields(node, &keys::FLIGHT));
    let kafka = fields.get("kafka").and_then(|node| Some((reader.fields(node, &keys::KAFKA)?, node)));
    let kafka_brokers = kafka.and_then(|(kafka, node)| kafka.require(reader, "brokers", &node.place));
    let kafka_brokers = kafka_brokers.and_then(|node| reader.word(node));
    let listen = flight.and_then(|flight| flight.get("listen")).and_then(|node| read_address(reader, node, FLIGHT));
    let console = fields.get("console").and_then(|node| reader.fields(node, &keys::CONSOLE));
    let console_listen = console.map(|console| {
        let listen = console.get("listen").and_then(|node| read_address(reader, node, CONSOLE));
        listen.unwrap_or_else(|| default(CONSOLE))
    });
    let lease_ttl = fields.get("lease_ttl").and_then(|node| reader.length(node));
    let state_memory = fields.get("state_memory").and_then(|node| reader.bytes(node));
    let pace = read_pace(reader, &fields);
    Some(Project {
        root: options.root.clone(),
        name: name.unwrap_or_else(|| default("project")),
        warehouse: fields.get("warehouse").and_then(|node| reader.word(node)).unwrap_or_else(|| default("./warehouse")),
        params: read_params(reader, fields.get("params"), &options.params),
        flight_listen: listen.unwrap_or_else(|| default(FLIGHT)),
        console_listen,
        lease_ttl: lease_ttl.unwrap_or(Duration::from_secs(30)),
        pace,
        state_memory_bytes: state_memory,
        kafka_brokers,
        pipelines: Vec::new(),
        tests: Vec::new(),
        timezone,
    })
}

fn read_pace(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Pace {
    // A step is a commit: whatever the interval, it is held. Only that it is one is looked at.
    let length = |reader: &mut Reader<'_>, key| fields.get(key).and_then(|node| reader.length(node));
    length(reader, "commit_interval");
    let usual = Pace::default();
    Pace {
        linger: fields.get("linger").and_then(|node| reader.duration(node)).unwrap_or(usual.linger),
        step_rows: fields.get("step_rows").and_then(|node| reader.count(node)).unwrap_or(usual.step_rows),
        publish_interval: length(reader, "publish_interval").unwrap_or(usual.publish_interval),
        shutdown_timeout: length(reader, "shutdown_timeout").unwrap_or(usual.shutdown_timeout),
    }
}

fn read_address(reader: &mut Reader<'_>, node: &Node, example: &str) -> Option<Located<String>> {
    let text = reader.word(node)?;
    if !is_address(&text.value) {
        let message = format!("expected HOST:PORT, found `{}`", shown(&text.value, &text.place));
        let fault = Fault::error("wrong_value", text.place.clone(), message);
        reader.fault(fault.hint(format!("such as \"{example}\"; `0.0.0.0:…` listens on all addresses")));
    }
    Some(text)
}

/// Whether a text is HOST:PORT, an IPv6 host in brackets.
pub fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host = !host.is_empty() && (host.starts_with('[') == host.contains(':'));
        is_host && port.parse::<u16>().is_ok()
    })
}

fn read_params(reader: &mut Reader<'_>, node: Option<&Node>, given: &[(String, String)]) -> Vec<Param> {
    let mut params = Vec::new();
    let entries = node.map(|node| reader.named(node, "parameters by name")).unwrap_or_default();
    for (name, node) in entries {
        check_name(reader, name, "a parameter");
        let param = read_param(reader, name, node, given);
        if param.is_none() {
            reader.unsound.insert(name.value.clone());
        }
        params.extend(param);
    }
    for (name, _) in given {
        if !entries.iter().any(|(known, _)| known.value == *name) {
            let message = format!("--param {name}: the project has no such parameter");
            let near = nearest(name, entries.iter().map(|(known, _)| known.value.as_str()));
            reader.fault(did_you_mean(Fault::error("unknown_param", None, message), near));
        }
    }
    params
}

fn read_param(
    reader: &mut Reader<'_>,
    name: &Located<String>,
    node: &Node,
    given: &[(String, String)],
) -> Option<Param> {
    let fields = reader.fields(node, &keys::PARAM)?;
    let data_type = fields.require(reader, "type", &name.place).and_then(|node| read_type(reader, node));
    let default = fields.get("default").map(|node| reader.text(node));
    if let Some(of) = data_type.as_ref().filter(|of| of.value.is_nested() || of.value == SqlType::Json) {
        let message = format!("a parameter holds one value, and `{}` is more than one", of.value);
        reader.fault(Fault::error("wrong_type", of.place.clone(), message).hint("declare it text"));
        return None;
    }
    let value = match given.iter().rev().find(|(given, _)| *given == name.value) {
        Some((_, value)) => Some(option_value(&name.value, value)),
        None => default.clone().flatten(),
    };
    // A default that can't be read is told; the parameter isn't one without a value.
    let is_told = value.is_none() && default.is_some();
    if is_told {
        return None;
    }
    Some(Param { name: name.clone(), data_type: data_type?.value, value })
}

/// A value from the command line, at its own characters there.
fn option_value(name: &str, value: &str) -> Located<String> {
    let source = SourceText::new("--param", format!("{name}={value}"));
    let place = Place::new(&source, name.len() + 1..source.text.len());
    Located { value: value.to_string(), place }
}
