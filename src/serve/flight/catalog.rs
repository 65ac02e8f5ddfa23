//! Listings: catalogs, schemas, tables with columns, table types, keys. Reads a session's catalog, never rows.

use std::sync::Arc;

use arrow::array::{Int32Builder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::GetTablesBuilder;
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTableTypes, CommandGetTables,
};
use datafusion::datasource::TableType;

use super::sqlstate::{SqlError, SqlResult};
use super::wire::{self, Origin};
use crate::serve::ServedTables;

/// Schema of the models' tables.
const MAIN: &str = "main";

/// What kinds of relations there are.
const TABLE_TYPES: [&str; 2] = ["TABLE", "VIEW"];

/// The one catalog.
pub(super) fn catalogs(command: CommandGetCatalogs, tables: &dyn ServedTables) -> SqlResult<RecordBatch> {
    let mut builder = command.into_builder();
    builder.append(tables.catalog());
    builder.build().map_err(internal)
}

/// Schemas by catalog and pattern.
pub(super) async fn schemas(command: CommandGetDbSchemas, tables: &dyn ServedTables) -> SqlResult<RecordBatch> {
    let session = tables.session().await?;
    let mut builder = command.into_builder();
    if let Some(catalog) = session.catalog(tables.catalog()) {
        for schema in catalog.schema_names() {
            builder.append(tables.catalog(), schema);
        }
    }
    builder.build().map_err(internal)
}

/// Tables by catalog, patterns and types, with their columns if asked.
pub(super) async fn list_tables(command: CommandGetTables, tables: &dyn ServedTables) -> SqlResult<RecordBatch> {
    let session = tables.session().await?;
    let mut builder = command.into_builder();
    let name = tables.catalog();
    let Some(catalog) = session.catalog(name) else { return builder.build().map_err(internal) };
    for schema_name in catalog.schema_names() {
        let Some(schema) = catalog.schema(&schema_name) else { continue };
        for table_name in schema.table_names() {
            let Some(table) = schema.table(&table_name).await? else { continue };
            let kind = if table.table_type() == TableType::View { TABLE_TYPES[1] } else { TABLE_TYPES[0] };
            let origin = Origin { catalog: name, schema: &schema_name, table: &table_name };
            let columns = wire::table_schema(&table.schema(), origin);
            builder.append(name, &schema_name, &table_name, kind, &columns).map_err(internal)?;
        }
    }
    builder.build().map_err(internal)
}

/// `TABLE`, `VIEW`.
pub(super) fn table_types(command: CommandGetTableTypes) -> SqlResult<RecordBatch> {
    let mut builder = command.into_builder();
    for kind in TABLE_TYPES {
        builder.append(kind);
    }
    builder.build().map_err(internal)
}

/// Key columns of a model's table.
pub(super) async fn primary_keys(command: CommandGetPrimaryKeys, tables: &dyn ServedTables) -> SqlResult<RecordBatch> {
    let catalog = tables.catalog();
    let is_asked = command.catalog.as_deref().is_none_or(|asked| asked == catalog)
        && command.db_schema.as_deref().is_none_or(|asked| asked == MAIN);
    let mut names: [StringBuilder; 4] = Default::default();
    let (mut sequence, mut key_names) = (Int32Builder::new(), StringBuilder::new());
    let keys = if is_asked { tables.keys().await? } else { Vec::new() };
    for (table, columns) in keys.into_iter().filter(|(table, _)| *table == command.table) {
        for (index, column) in columns.iter().enumerate() {
            for (builder, value) in names.iter_mut().zip([catalog, MAIN, &table, column]) {
                builder.append_value(value);
            }
            sequence.append_value(i32::try_from(index + 1).unwrap_or(i32::MAX));
            key_names.append_value(format!("{table}_key"));
        }
    }
    let [catalogs, schemas, tables, columns] = names.map(|mut builder| Arc::new(builder.finish()));
    let arrays: Vec<arrow::array::ArrayRef> =
        vec![catalogs, schemas, tables, columns, Arc::new(key_names.finish()), Arc::new(sequence.finish())];
    Ok(RecordBatch::try_new(primary_keys_schema(), arrays)?)
}

/// Schema of [`primary_keys`]; drivers find columns by name, and ours has the order of the specification's Java client.
pub(super) fn primary_keys_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

/// Foreign keys: there are none.
pub(super) fn foreign_keys() -> RecordBatch {
    RecordBatch::new_empty(foreign_keys_schema())
}

/// Schema of [`foreign_keys`].
pub(super) fn foreign_keys_schema() -> SchemaRef {
    let text = |name: &str, is_nullable| Field::new(name, DataType::Utf8, is_nullable);
    Arc::new(Schema::new(vec![
        text("pk_catalog_name", true),
        text("pk_db_schema_name", true),
        text("pk_table_name", false),
        text("pk_column_name", false),
        text("fk_catalog_name", true),
        text("fk_db_schema_name", true),
        text("fk_table_name", false),
        text("fk_column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}

/// Schema of [`list_tables`].
pub(super) fn tables_schema(command: CommandGetTables) -> SchemaRef {
    let builder: GetTablesBuilder = command.into_builder();
    builder.schema()
}

pub(super) fn internal(error: FlightError) -> SqlError {
    SqlError::new("XX000", error.to_string())
}
