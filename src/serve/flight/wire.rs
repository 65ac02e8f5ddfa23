//! Relations as they go over the wire: plain types that every driver reads, column metadata, messages of bounded size.
//! Knows no statement and no connection.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion::common::DFSchema;

use super::sqlstate::{SqlError, SqlResult};

/// Key of a field's metadata that holds a column's description; sent as its remark.
pub const DESCRIPTION: &str = "description";

/// The type that stands for `data_type` on the wire: views, dictionaries and run ends plain, instants in microseconds UTC,
/// decimals of 128 bits at least.
pub fn wire_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Float16 => DataType::Float32,
        DataType::Timestamp(_, Some(_)) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Dictionary(_, values) => wire_type(values),
        DataType::RunEndEncoded(_, values) => wire_type(values.data_type()),
        DataType::List(item) | DataType::ListView(item) => DataType::List(wire_field(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(wire_field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(wire_field(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(wire_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(wire_field(entries), *sorted),
        other => other.clone(),
    }
}

fn wire_field(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(field.name(), wire_type(field.data_type()), field.is_nullable()))
}

/// Where a column comes from; empty parts are unknown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Origin<'a> {
    /// Catalog.
    pub catalog: &'a str,
    /// Schema.
    pub schema: &'a str,
    /// Table.
    pub table: &'a str,
}

/// A column as it goes over the wire, with the metadata that drivers look for.
pub fn wire_column(field: &Field, origin: Origin<'_>) -> Field {
    let data_type = wire_type(field.data_type());
    let mut metadata = HashMap::new();
    let mut put = |key: &str, value: String| {
        metadata.insert(format!("ARROW:FLIGHT:SQL:{key}"), value);
    };
    for (key, value) in [("CATALOG_NAME", origin.catalog), ("SCHEMA_NAME", origin.schema), ("TABLE_NAME", origin.table)]
    {
        if !value.is_empty() {
            put(key, value.to_owned());
        }
    }
    put("TYPE_NAME", type_name(&data_type));
    if let Some((precision, scale)) = precision_and_scale(&data_type) {
        put("PRECISION", precision.to_string());
        put("SCALE", scale.to_string());
    }
    let is_text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8);
    put("IS_AUTO_INCREMENT", "0".into());
    put("IS_CASE_SENSITIVE", if is_text { "1" } else { "0" }.into());
    put("IS_READ_ONLY", "1".into());
    put("IS_SEARCHABLE", if data_type.is_nested() { "0" } else { "1" }.into());
    if let Some(description) = field.metadata().get(DESCRIPTION) {
        put("REMARKS", description.clone());
    }
    Field::new(field.name(), data_type, field.is_nullable()).with_metadata(metadata)
}

/// The SQL name of a wire type, as a contract spells it.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Null => "null".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Int8 => "tinyint".into(),
        DataType::Int16 => "smallint".into(),
        DataType::Int32 => "integer".into(),
        DataType::Int64 => "bigint".into(),
        DataType::UInt8 => "tinyint unsigned".into(),
        DataType::UInt16 => "smallint unsigned".into(),
        DataType::UInt32 => "integer unsigned".into(),
        DataType::UInt64 => "bigint unsigned".into(),
        DataType::Float32 => "real".into(),
        DataType::Float64 => "double".into(),
        DataType::Decimal128(..) | DataType::Decimal256(..) => "decimal".into(),
        DataType::Utf8 | DataType::LargeUtf8 => "text".into(),
        DataType::Binary | DataType::LargeBinary | DataType::FixedSizeBinary(_) => "bytea".into(),
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::Time32(_) | DataType::Time64(_) => "time".into(),
        DataType::Timestamp(_, None) => "timestamp".into(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".into(),
        DataType::Interval(_) => "interval".into(),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("{}[]", type_name(item.data_type()))
        }
        DataType::Struct(_) => "struct".into(),
        DataType::Map(..) => "map".into(),
        other => other.to_string().to_lowercase(),
    }
}

/// Digits of numbers and characters of times, as JDBC's COLUMN_SIZE and DECIMAL_DIGITS have them.
fn precision_and_scale(data_type: &DataType) -> Option<(u32, i32)> {
    Some(match data_type {
        DataType::Int8 | DataType::UInt8 => (3, 0),
        DataType::Int16 | DataType::UInt16 => (5, 0),
        DataType::Int32 | DataType::UInt32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::UInt64 => (20, 0),
        DataType::Float32 => (7, 0),
        DataType::Float64 => (15, 0),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            (u32::from(*precision), i32::from(*scale))
        }
        DataType::Date32 | DataType::Date64 => (10, 0),
        DataType::Time32(_) | DataType::Time64(_) => (15, 6),
        DataType::Timestamp(_, None) => (26, 6),
        DataType::Timestamp(_, Some(_)) => (27, 6),
        _ => return None,
    })
}

/// The schema of a query's result on the wire.
pub fn result_schema(schema: &DFSchema, catalog: &str) -> SchemaRef {
    let columns = schema.iter().map(|(qualifier, field)| {
        let origin = Origin {
            catalog: qualifier.map_or("", |q| q.catalog().unwrap_or(catalog)),
            schema: qualifier.and_then(|q| q.schema()).unwrap_or(""),
            table: qualifier.map_or("", |q| q.table()),
        };
        wire_column(field, origin)
    });
    Arc::new(Schema::new(columns.collect::<Vec<_>>()))
}

/// The schema of a table on the wire.
pub fn table_schema(schema: &Schema, origin: Origin<'_>) -> Schema {
    Schema::new(schema.fields().iter().map(|field| wire_column(field, origin)).collect::<Vec<_>>())
}

/// Turns a batch into `schema`'s types. A value that the wire's type can't hold is an error, never null.
pub fn to_wire(batch: &RecordBatch, schema: &SchemaRef) -> SqlResult<RecordBatch> {
    if batch.num_columns() != schema.fields().len() {
        return Err(SqlError::new("XX000", "the result has other columns than its plan"));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (column, field) in batch.columns().iter().zip(schema.fields()) {
        columns.push(match column.data_type() == field.data_type() {
            true => Arc::clone(column),
            false => cast_with_options(column, field.data_type(), &options)?,
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// Cuts a batch, in order, into parts of about `bytes_max` bytes of data. A single row is never cut.
pub fn split(batch: RecordBatch, bytes_max: usize) -> SqlResult<Vec<RecordBatch>> {
    let mut parts = Vec::new();
    let mut pending = vec![batch];
    while let Some(batch) = pending.pop() {
        let rows = batch.num_rows();
        if rows > 1 && slice_bytes(&batch)? > bytes_max {
            let half = rows / 2;
            pending.push(batch.slice(half, rows - half));
            pending.push(batch.slice(0, half));
        } else {
            parts.push(batch);
        }
    }
    Ok(parts)
}

fn slice_bytes(batch: &RecordBatch) -> SqlResult<usize> {
    let mut bytes = 0;
    for column in batch.columns() {
        bytes += column.to_data().get_slice_memory_size()?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringViewArray, TimestampNanosecondArray};

    #[test]
    fn values_arrive_in_plain_types() {
        let instant = TimestampNanosecondArray::from(vec![1_500]).with_timezone("America/Sao_Paulo");
        let text = StringViewArray::from(vec!["a text too long to be inlined"]);
        let list = arrow::array::ListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>([Some([Some(1)])]);
        let columns: Vec<(&str, ArrayRef)> =
            vec![("i", Arc::new(instant)), ("t", Arc::new(text)), ("l", Arc::new(list))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let schema = Arc::new(table_schema(&batch.schema(), Origin::default()));
        let sent = to_wire(&batch, &schema).unwrap();
        let types: Vec<String> = sent.columns().iter().map(|column| type_name(column.data_type())).collect();
        assert_eq!(types, ["timestamptz", "text", "integer[]"]);
        assert_eq!(sent.column(0).data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
        assert_eq!(schema.field(0).metadata()["ARROW:FLIGHT:SQL:PRECISION"], "27");
    }

    #[test]
    fn batches_are_cut_by_the_bytes_of_their_slice_and_keep_their_order() {
        let whole: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100_000));
        let batch = RecordBatch::try_from_iter([("n", whole)]).unwrap();
        let parts = split(batch.clone(), 80_000).unwrap();
        assert!((10..=20).contains(&parts.len()), "{}", parts.len());
        assert_eq!(arrow::compute::concat_batches(&batch.schema(), &parts).unwrap(), batch);
        // A slice of a large buffer is small.
        assert_eq!(split(batch.slice(7, 100), 80_000).unwrap().len(), 1);
        // A row is never cut.
        assert_eq!(split(batch.slice(0, 3), 1).unwrap().len(), 3);
    }
}
