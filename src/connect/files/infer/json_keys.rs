//! Keys of JSON lines in order of appearance, and the JSON types of their values.

use serde_json::Value;
use std::collections::HashMap;

use super::column::Kind;

/// Keys of all objects and the kind of their values; lines that aren't objects are left to the decoder.
pub(super) fn find(text: &[u8]) -> Vec<(String, Kind)> {
    let mut keys: Vec<(String, Option<Kind>)> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Ok(Value::Object(object)) = serde_json::from_slice(line) else { continue };
        for (key, value) in object {
            let at = *index.entry(key).or_insert_with_key(|key| {
                keys.push((key.clone(), None));
                keys.len() - 1
            });
            let kind = &mut keys[at].1;
            *kind = match (*kind, kind_of(&value)) {
                (known, None) => known,
                (None, found) => found,
                (Some(known), Some(found)) if known == found => Some(known),
                _ => Some(Kind::Mixed),
            };
        }
    }
    keys.into_iter().map(|(key, kind)| (key, kind.unwrap_or(Kind::String))).collect()
}

fn kind_of(value: &Value) -> Option<Kind> {
    match value {
        Value::Null => None,
        Value::Bool(_) => Some(Kind::Boolean),
        Value::Number(_) => Some(Kind::Number),
        Value::String(_) => Some(Kind::String),
        Value::Array(_) | Value::Object(_) => Some(Kind::Nested),
    }
}
