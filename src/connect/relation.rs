//! Landed rows as a relation: columns of the contract and the hidden ones after them.

use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::{Schema, SchemaRef};

use crate::engine;
use crate::error::{Result, ResultExt};
use crate::plan::read_hidden_fields;

/// Contract columns and the hidden ones after them.
pub(super) fn relation_schema(contract: &SchemaRef, zone: &str) -> SchemaRef {
    let hidden = read_hidden_fields(zone).map(Arc::new);
    Arc::new(Schema::new(contract.fields().iter().cloned().chain(hidden).collect::<Vec<_>>()))
}

/// Rows under a relation's schema: columns by name, those that lack null.
///
/// # Errors
/// Internal: a value doesn't fit.
pub fn under(schema: &SchemaRef, rows: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
    let aligned = rows.iter().map(|batch| {
        let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
            Some(column) => (field.name(), Arc::clone(column)),
            None => (field.name(), new_null_array(field.data_type(), batch.num_rows())),
        });
        let named = RecordBatch::try_from_iter(columns).external("rows can't be put under their relation")?;
        engine::conform(&named, schema)
    });
    aligned.collect()
}

/// An instant as a constant of a file.
pub(super) fn instant(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).unwrap_or_default().to_string()
}
