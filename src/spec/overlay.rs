//! Merges overlays over the project's YAML, key by key, before it is read. Knows trees of YAML, not what they mean.

use super::fault::Fault;
use super::fields::Reader;
use super::keys;
use super::tree::{Node, Value};
use super::types::Located;
use super::{did_you_mean, nearest};

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
            name => {
                let is_known =
                    keys::PROJECT.keys.iter().any(|key| key.name == name) || keys::PROJECT.lacking.contains(&name);
                if is_known {
                    merge_entry(project, key, value);
                    continue;
                }
                let known = keys::PROJECT.keys.iter().chain(keys::OVERLAY.keys).map(|key| key.name);
                let message = format!("{} has no key `{name}`", keys::OVERLAY.of);
                let near = nearest(name, known);
                reader.fault(did_you_mean(Fault::error("unknown_key", key.place.clone(), message), near));
            }
        }
    }
}

fn merge_named(section: &str, changes: &Node, pipelines: &mut [Node], reader: &mut Reader<'_>) {
    for (name, change) in reader.named(changes, &format!("{section} by name")) {
        let owner = pipelines
            .iter_mut()
            .find(|pipeline| pipeline.get(section).is_some_and(|named| named.get(&name.value).is_some()));
        let Some(named) = owner.and_then(|pipeline| entry_mut(pipeline, section)) else {
            if reader.unsound.contains(&name.value) {
                continue;
            }
            let known: Vec<String> =
                pipelines.iter().filter_map(|pipeline| pipeline.get(section)).flat_map(names).collect();
            let message = format!("no pipeline has `{}` among its {section}", name.value);
            let near = nearest(&name.value, known.iter().map(String::as_str));
            reader.fault(did_you_mean(Fault::error("unknown_relation", name.place.clone(), message), near));
            continue;
        };
        if section == "sources" {
            drop_other_connector(named, &name.value, change);
        }
        if let Some(base) = entry_mut(named, &name.value) {
            spell_out_columns(base, change);
        }
        merge_entry(named, name, change);
    }
}

/// `price: text` is short for `price: { type: text }`: spelt out where the overlay adds to it key by key.
fn spell_out_columns(base: &mut Node, change: &Node) {
    let Some(columns) = entry_mut(base, "columns") else { return };
    let Some(Value::Map(changes)) = change.get("columns").map(|node| &node.value) else { return };
    for (name, change) in changes {
        if let (Value::Map(_), Some(column)) = (&change.value, entry_mut(columns, &name.value))
            && matches!(column.value, Value::Scalar(_))
        {
            let key = Located { value: "type".to_string(), place: column.place.clone() };
            column.value = Value::Map(vec![(key, column.clone())]);
        }
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
