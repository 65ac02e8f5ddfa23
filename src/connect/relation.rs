//! Landed rows as a relation: columns of the contract and the hidden ones after them.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use crate::plan::read_hidden_fields;

/// Contract columns and the hidden ones after them.
pub(super) fn relation_schema(contract: &SchemaRef, zone: &str) -> SchemaRef {
    let hidden = read_hidden_fields(zone).map(Arc::new);
    Arc::new(Schema::new(contract.fields().iter().cloned().chain(hidden).collect::<Vec<_>>()))
}

/// An instant as a constant of a file.
pub(super) fn instant(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).unwrap_or_default().to_string()
}
