//! Merges overlays over the project's YAML, key by key, before it is read.

use super::fault::Fault;
use super::fields::Reader;
use super::keys;
use super::nearest;
use super::tree::{Node, Value};
use super::types::Located;

/// Keys of a source that belong to it whatever its connector is.
const COMMON_SOURCE_KEYS: [&str; 9] =
    ["connector", "description", "columns", "event_time", "on_invalid", "deduplicate", "checks", "serve", "tags"];

/// Merges `overlay` into the project file and the pipeline files.
pub(super) fn apply(overlay: &Node, project: &mut Node, pipelines: &mut [Node], reader: &mut Reader<'_>) {
    let Value::Map(entries) = &overlay.value else {
        reader.wrong(overlay, "the keys of an overlay");
        return;
    };
    for (key, value) in entries {
        match key.value.as_str() {
            "sources" | "models" => merge_named(&key.value, value, pipelines, reader),
            name if keys::OVERLAY.keys.iter().any(|k| k.name == name) || keys::OVERLAY.lacking.contains(&name) => {
                merge_entry(project, key, value);
            }
            name => {
                let mut fault =
                    Fault::error("unknown_key", key.place.clone(), format!("an overlay has no key `{name}`"));
                if let Some(near) = nearest(name, keys::OVERLAY.keys.iter().map(|k| k.name)) {
                    fault = fault.hint(format!("did you mean `{near}`?"));
                }
                reader.fault(fault);
            }
        }
    }
}

fn merge_named(section: &str, changes: &Node, pipelines: &mut [Node], reader: &mut Reader<'_>) {
    let Value::Map(entries) = &changes.value else {
        reader.wrong(changes, "names");
        return;
    };
    for (name, change) in entries {
        let owner =
            pipelines.iter_mut().find(|pipeline| pipeline.get(section).is_some_and(|s| s.get(&name.value).is_some()));
        let Some(named) = owner.and_then(|pipeline| entry_mut(pipeline, section)) else {
            let known: Vec<String> = pipelines.iter().filter_map(|p| p.get(section)).flat_map(names).collect();
            let mut fault = Fault::error(
                "unknown_relation",
                name.place.clone(),
                format!("no pipeline has `{}` among its {section}", name.value),
            );
            if let Some(near) = nearest(&name.value, known.iter().map(String::as_str)) {
                fault = fault.hint(format!("did you mean `{near}`?"));
            }
            reader.fault(fault);
            continue;
        };
        if section == "sources" {
            drop_other_connector(named, &name.value, change);
        }
        merge_entry(named, name, change);
    }
}

/// An overlay that names another connector takes the old one's own keys away.
fn drop_other_connector(sources: &mut Node, name: &str, change: &Node) {
    let text = |node: Option<&Node>| match node.map(|n| &n.value) {
        Some(Value::Scalar(scalar)) => Some(scalar.text.clone()),
        _ => None,
    };
    let Some(source) = entry_mut(sources, name) else { return };
    let (old, new) = (text(source.get("connector")), text(change.get("connector")));
    if new.is_some()
        && old != new
        && let Value::Map(entries) = &mut source.value
    {
        entries.retain(|(key, _)| COMMON_SOURCE_KEYS.contains(&key.value.as_str()));
    }
}

fn names(node: &Node) -> Vec<String> {
    match &node.value {
        Value::Map(entries) => entries.iter().map(|(key, _)| key.value.clone()).collect(),
        _ => Vec::new(),
    }
}

fn entry_mut<'n>(node: &'n mut Node, key: &str) -> Option<&'n mut Node> {
    match &mut node.value {
        Value::Map(entries) => entries.iter_mut().find(|(k, _)| k.value == key).map(|(_, node)| node),
        _ => None,
    }
}

/// Mappings merge key by key, null takes a key away, everything else replaces.
fn merge_entry(base: &mut Node, key: &Located<String>, change: &Node) {
    let Value::Map(entries) = &mut base.value else { return };
    let at = entries.iter().position(|(k, _)| k.value == key.value);
    match (at, &change.value) {
        (Some(at), Value::Null) => {
            entries.remove(at);
        }
        (Some(at), Value::Map(changes)) if matches!(entries[at].1.value, Value::Map(_)) => {
            let node = &mut entries[at].1;
            changes.iter().for_each(|(key, change)| merge_entry(node, key, change));
        }
        (Some(at), _) => entries[at] = (key.clone(), change.clone()),
        (None, Value::Null) => {}
        (None, _) => entries.push((key.clone(), change.clone())),
    }
}
