//! The JSON Schema of the YAML, made from the same tables of keys that the loader reads by. Knows nothing of faults.

use serde_json::{Map, Value, json};

use super::keys::{self, KeyTable, Shape};

/// One schema for `tidemill.yaml`, files of `pipelines/` and `tests/`, and overlays. It knows the keys that this build reads;
/// where it can't say all that the loader demands, it is the more lenient of the two.
pub fn json_schema() -> Value {
    let overlay = merged(&keys::PROJECT, &keys::OVERLAY);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tidemill",
        "description": "tidemill.yaml, pipelines/*.yaml, tests/*.yaml and overlays",
        "anyOf": [
            { "$ref": "#/$defs/project" },
            { "$ref": "#/$defs/pipeline" },
            { "$ref": "#/$defs/tests" },
            { "$ref": "#/$defs/overlay" },
        ],
        "$defs": {
            "project": object(&keys::PROJECT, true),
            "pipeline": object(&keys::PIPELINE, true),
            "tests": object(&keys::TESTS, true),
            "overlay": overlay,
        },
    })
}

/// A mapping of `table`; in an overlay nothing is required, and null takes a key away.
fn object(table: &KeyTable, is_whole: bool) -> Value {
    let required = if is_whole { table.required } else { &[] };
    json!({
        "type": "object",
        "properties": properties(table, is_whole),
        "required": required,
        "additionalProperties": false,
    })
}

fn merged(project: &KeyTable, sections: &KeyTable) -> Value {
    let mut all = properties(project, false);
    all.extend(properties(sections, false));
    json!({ "type": "object", "properties": all, "additionalProperties": false })
}

fn properties(table: &KeyTable, is_whole: bool) -> Map<String, Value> {
    let mut properties = Map::new();
    for key in table.keys {
        let mut schema = shape(key.shape, is_whole);
        if !is_whole || key.shape.may_be_empty() {
            schema = json!({ "anyOf": [schema, { "type": "null" }] });
        }
        if let Value::Object(fields) = &mut schema {
            fields.insert("description".into(), key.doc.into());
        }
        properties.insert(key.name.into(), schema);
    }
    properties
}

/// YAML readers give numbers and booleans where a text is meant.
fn scalar() -> Value {
    json!({ "type": ["string", "number", "boolean"] })
}

/// A text with a variable may stand for anything.
fn variable() -> Value {
    json!({ "type": "string", "pattern": r"\$\{" })
}

fn shape(shape: Shape, is_whole: bool) -> Value {
    let table = |table| object(table, is_whole);
    let list = |items: Value| json!({ "type": "array", "items": items });
    let either = |a: Value, b: Value| json!({ "anyOf": [a, b] });
    let map =
        |values: Value| json!({ "type": "object", "additionalProperties": either(values, json!({ "type": "null" })) });
    let rows = |sources| {
        let value = json!({ "type": ["string", "number", "boolean", "null"] });
        either(list(json!({ "type": "object", "additionalProperties": value })), table(sources))
    };
    match shape {
        Shape::Text => scalar(),
        Shape::Boolean => either(json!({ "type": "boolean" }), variable()),
        Shape::Integer => either(json!({ "type": "integer" }), variable()),
        Shape::Duration => either(json!({ "type": "string", "pattern": r"^\s*([0-9]+(ms|s|m|h|d)\s*)+$" }), variable()),
        Shape::OneOf(words) => either(json!({ "enum": words }), variable()),
        Shape::Names | Shape::Texts => {
            either(list(json!({ "type": ["string", "number", "boolean", "null"] })), scalar())
        }
        Shape::MapOf(inner) => map(table(inner)),
        Shape::TextOr(inner) => either(scalar(), table(inner)),
        Shape::MapOfTextOr(inner) => map(either(scalar(), table(inner))),
        Shape::ListOf(inner) => list(table(inner)),
        Shape::ListOfTextOr(inner) => either(list(either(scalar(), table(inner))), scalar()),
        Shape::Table(inner) => table(inner),
        Shape::TextMap => map(scalar()),
        Shape::Rows(inner) => rows(inner),
        Shape::MapOfRows(inner) => map(rows(inner)),
    }
}
