//! The JSON Schema of the YAML, made from the same tables of keys that the loader reads by.

use serde_json::{Map, Value, json};

use super::keys::{self, KeyTable, Shape};

/// One schema for `tidemill.yaml`, files of `pipelines/` and files of `tests/`.
pub fn json_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tidemill",
        "description": "tidemill.yaml, pipelines/*.yaml and tests/*.yaml",
        "anyOf": [
            object(&keys::PROJECT, &["version", "name"]),
            object(&keys::PIPELINE, &[]),
            object(&keys::TESTS, &["tests"]),
        ],
    })
}

fn object(table: &KeyTable, required: &[&str]) -> Value {
    let mut properties = Map::new();
    for key in table.keys {
        let mut schema = shape(key.shape);
        if let Value::Object(fields) = &mut schema {
            fields.insert("description".into(), key.doc.into());
        }
        properties.insert(key.name.into(), schema);
    }
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// YAML readers give numbers and booleans where a text is meant.
fn scalar() -> Value {
    json!({ "type": ["string", "number", "boolean"] })
}

fn shape(shape: Shape) -> Value {
    let list = |items: Value| json!({ "type": "array", "items": items });
    let either = |a: Value, b: Value| json!({ "anyOf": [a, b] });
    match shape {
        Shape::Text => scalar(),
        // A variable may stand for any of these.
        Shape::Boolean => json!({ "type": ["boolean", "string"] }),
        Shape::Integer => json!({ "type": ["integer", "string"] }),
        Shape::Duration => json!({ "type": "string", "pattern": r"^([0-9]+(ms|s|m|h|d)|.*\$\{.*)$" }),
        Shape::OneOf(words) => either(json!({ "enum": words }), json!({ "type": "string", "pattern": r"\$\{" })),
        Shape::Names | Shape::Texts => either(list(scalar()), scalar()),
        Shape::MapOf(table) => {
            json!({ "type": "object", "additionalProperties": either(object(table, &[]), json!({ "type": "null" })) })
        }
        Shape::TextOr(table) => either(scalar(), object(table, &[])),
        Shape::MapOfTextOr(table) => {
            json!({ "type": "object", "additionalProperties": either(scalar(), object(table, &[])) })
        }
        Shape::ListOf(table) => list(object(table, &[])),
        Shape::ListOfTextOr(table) => list(either(scalar(), object(table, &[]))),
        Shape::Table(table) => object(table, &[]),
        Shape::TextMap => json!({ "type": "object", "additionalProperties": scalar() }),
        Shape::Any => json!({}),
    }
}
