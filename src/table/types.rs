//! What a table's columns are: in the plan, in Parquet, in the Delta log, and when read back. Knows no file and no store.
//!
//! A *table schema* has only the types below; every other schema of a table follows from it:
//! boolean, int8 to int64, float32, float64, decimal128, utf8, binary, date32, time64(µs), timestamp(µs) without zone or in
//! UTC, and lists, structs and maps of these (times aside).

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use deltalake_core::kernel::StructType;
use deltalake_core::kernel::engine::arrow_conversion::{TryIntoArrow, TryIntoKernel};

use crate::error::{Error, Result, ResultExt};
use crate::spec::sql_type::LIST_ITEM;

/// Marks a Delta text column that holds `time` values; Delta has no such type.
const TYPE_KEY: &str = "tidemill.type";
const TYPE_TIME: &str = "time";
/// What other engines show as a column's description.
const COMMENT_KEY: &str = "comment";
const UTC: &str = "UTC";

/// The schema of a table that holds rows of `schema`: same columns, each with the table type that holds its values exactly
/// (nanoseconds are cut to microseconds). Of the metadata only `comment` stays.
///
/// # Errors
/// External, naming the column whose type no table can hold.
pub fn table_schema(schema: &Schema) -> Result<SchemaRef> {
    let fields = schema.fields().iter().map(|field| {
        let data_type = table_type(field.data_type(), true).map_err(|e| e.with("column", field.name()))?;
        let comment = field.metadata().get_key_value(COMMENT_KEY).map(|(k, v)| (k.clone(), v.clone()));
        Ok(Field::new(field.name(), data_type, field.is_nullable()).with_metadata(comment.into_iter().collect()))
    });
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
}

fn table_type(data_type: &DataType, top: bool) -> Result<DataType> {
    use DataType::*;
    Ok(match data_type {
        Boolean | Int8 | Int16 | Int32 | Int64 | Float32 | Float64 | Utf8 | Binary | Date32 => data_type.clone(),
        UInt8 => Int16,
        UInt16 => Int32,
        UInt32 => Int64,
        UInt64 => Decimal128(20, 0),
        Float16 => Float32,
        LargeUtf8 | Utf8View | Null => Utf8,
        LargeBinary | BinaryView | FixedSizeBinary(_) => Binary,
        Date64 => Date32,
        Timestamp(_, None) => Timestamp(TimeUnit::Microsecond, None),
        Timestamp(_, Some(_)) => Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        Time32(_) | Time64(_) if top => Time64(TimeUnit::Microsecond),
        Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s) | Decimal256(p, s) => decimal(*p, *s)?,
        Dictionary(_, values) => table_type(values, top)?,
        RunEndEncoded(_, values) => table_type(values.data_type(), top)?,
        List(item) | LargeList(item) | ListView(item) | LargeListView(item) | FixedSizeList(item, _) => {
            List(renamed(&nested(item)?, LIST_ITEM))
        }
        Struct(fields) => Struct(fields.iter().map(nested).collect::<Result<_>>()?),
        Map(entries, _) => Map(map_entries(entries)?, false),
        other => return Err(Error::external(format!("a table can't hold values of type {other}"))),
    })
}

fn decimal(precision: u8, scale: i8) -> Result<DataType> {
    // A negative scale only means trailing zeros.
    let (precision, scale) =
        if scale < 0 { (precision.saturating_add(scale.unsigned_abs()), 0) } else { (precision, scale) };
    if precision > DECIMAL128_MAX_PRECISION {
        return Err(Error::external(format!("a table can't hold decimal({precision}, {scale}): 38 digits at most")));
    }
    Ok(DataType::Decimal128(precision, scale))
}

/// Delta doesn't keep the names of what is inside lists and maps; these are its own.
fn map_entries(entries: &FieldRef) -> Result<FieldRef> {
    match entries.data_type() {
        DataType::Struct(fields) if fields.len() == 2 => {
            let names = ["key", "value"];
            let fields = fields.iter().zip(names).map(|(field, name)| Ok(renamed(&nested(field)?, name)));
            let fields = DataType::Struct(fields.collect::<Result<_>>()?);
            Ok(Arc::new(Field::new("key_value", fields, false)))
        }
        other => Err(Error::internal(format!("a map of {other}"))),
    }
}

fn renamed(field: &FieldRef, name: &str) -> FieldRef {
    Arc::new(field.as_ref().clone().with_name(name))
}

fn nested(field: &FieldRef) -> Result<FieldRef> {
    Ok(Arc::new(Field::new(field.name(), table_type(field.data_type(), false)?, field.is_nullable())))
}

/// The columns that a table's Parquet files have: those that it isn't partitioned by, times as text.
pub(crate) fn file_schema(table: &Schema, partition_by: &[String]) -> SchemaRef {
    let fields = table.fields().iter().filter(|f| !partition_by.contains(f.name()));
    Arc::new(Schema::new(fields.map(stored_field).collect::<Vec<_>>()))
}

fn stored_field(field: &FieldRef) -> FieldRef {
    match field.data_type() {
        DataType::Time64(_) => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)),
        _ => Arc::clone(field),
    }
}

/// A table's columns as queries see them: text and bytes as views, instants in `zone`, no metadata.
pub fn reading_schema(table: &Schema, zone: &str) -> SchemaRef {
    let fields =
        table.fields().iter().map(|f| Field::new(f.name(), reading_type(f.data_type(), zone), f.is_nullable()));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn reading_type(data_type: &DataType, zone: &str) -> DataType {
    let nested = |f: &FieldRef| Arc::new(Field::new(f.name(), reading_type(f.data_type(), zone), f.is_nullable()));
    match data_type {
        DataType::Utf8 => DataType::Utf8View,
        DataType::Binary => DataType::BinaryView,
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some(zone.into())),
        DataType::List(item) => DataType::List(nested(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(nested).collect()),
        DataType::Map(entries, sorted) => DataType::Map(nested(entries), *sorted),
        other => other.clone(),
    }
}

/// Casts a batch to `target`, column by column in order. Views of text and bytes stay as they are but for the columns `whole`:
/// Parquet holds them alike, and to cast them is to copy them.
///
/// # Errors
/// External: a value that the target can't hold, a null in a column that has none, another number of columns.
pub(crate) fn cast_batch(batch: &RecordBatch, target: &SchemaRef, whole: &[usize]) -> Result<RecordBatch> {
    if batch.num_columns() != target.fields().len() {
        return Err(Error::internal(format!(
            "rows of {} columns for a table of {}",
            batch.num_columns(),
            target.fields().len()
        )));
    }
    let (mut fields, mut columns) = (Vec::with_capacity(batch.num_columns()), Vec::with_capacity(batch.num_columns()));
    for (index, (column, field)) in batch.columns().iter().zip(target.fields()).enumerate() {
        let is_view = matches!(
            (column.data_type(), field.data_type()),
            (DataType::Utf8View, DataType::Utf8) | (DataType::BinaryView, DataType::Binary)
        );
        if is_view && !whole.contains(&index) {
            fields.push(Arc::new(field.as_ref().clone().with_data_type(column.data_type().clone())));
            columns.push(Arc::clone(column));
        } else {
            fields.push(Arc::clone(field));
            columns.push(cast_column(column, field.data_type()).map_err(|e| e.with("column", field.name()))?);
        }
    }
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &rows)
        .external("rows don't fit the table's columns")
}

pub(crate) fn cast_column(column: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    if column.data_type() == target {
        return Ok(Arc::clone(column));
    }
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, target, &exact).external(format!("a value can't be stored as {target}"))
}

/// The Delta schema of a table schema.
pub(crate) fn to_delta(table: &Schema) -> Result<StructType> {
    let fields = table.fields().iter().map(|field| {
        let mut stored = stored_field(field).as_ref().clone();
        if matches!(field.data_type(), DataType::Time64(_)) {
            stored.metadata_mut().insert(TYPE_KEY.into(), TYPE_TIME.into());
        }
        stored
    });
    let stored = Schema::new(fields.collect::<Vec<_>>());
    (&stored).try_into_kernel().external("the columns can't be those of a Delta table")
}

/// The table schema of a Delta schema; of any Delta table, also one that others wrote.
pub(crate) fn from_delta(delta: &StructType) -> Result<SchemaRef> {
    let stored: Schema = delta.try_into_arrow().external("the Delta table has columns that aren't known here")?;
    let fields = stored.fields().iter().map(|field| match field.metadata().get(TYPE_KEY).map(String::as_str) {
        Some(TYPE_TIME) => field.as_ref().clone().with_data_type(DataType::Time64(TimeUnit::Microsecond)),
        _ => field.as_ref().clone(),
    });
    table_schema(&Schema::new(fields.collect::<Vec<_>>()))
}

/// A table schema as Delta's schema JSON: how commit records hold it.
///
/// # Errors
/// As [`table_schema`].
pub fn schema_to_json(schema: &Schema) -> Result<serde_json::Value> {
    serde_json::to_value(to_delta(table_schema(schema)?.as_ref())?).external("the columns can't be written as JSON")
}

/// Reads what [`schema_to_json`] wrote.
///
/// # Errors
/// External if it isn't Delta's schema JSON.
pub fn schema_from_json(json: &serde_json::Value) -> Result<SchemaRef> {
    let delta: StructType = serde_json::from_value(json.clone()).external("a table's columns can't be read")?;
    from_delta(&delta)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(data_type: DataType) -> Result<DataType> {
        Ok(table_schema(&Schema::new(vec![Field::new("c", data_type, true)]))?.field(0).data_type().clone())
    }

    #[test]
    fn every_type_widens_or_is_refused_by_name() {
        assert_eq!(one(DataType::UInt64).unwrap(), DataType::Decimal128(20, 0));
        assert_eq!(one(DataType::Utf8View).unwrap(), DataType::Utf8);
        assert_eq!(one(DataType::Decimal128(5, -2)).unwrap(), DataType::Decimal128(7, 0));
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::LargeUtf8));
        assert_eq!(one(dictionary).unwrap(), DataType::Utf8);
        for refused in [
            DataType::Decimal256(50, 2),
            DataType::Duration(TimeUnit::Second),
            DataType::List(Arc::new(Field::new("item", DataType::Time64(TimeUnit::Microsecond), true))),
        ] {
            let error = one(refused).unwrap_err();
            assert!(error.to_string().contains("column: c"), "{error}");
        }
    }

    #[test]
    fn schemas_survive_json() {
        let zoned = DataType::Timestamp(TimeUnit::Nanosecond, Some("America/Sao_Paulo".into()));
        let item = Arc::new(Field::new("item", DataType::Utf8View, true));
        let schema = Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("t", DataType::Time64(TimeUnit::Microsecond), true),
            Field::new("at", zoned, true).with_metadata([("comment".to_owned(), "when".to_owned())].into()),
            Field::new("wall", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new("d", DataType::Decimal128(12, 2), true),
            Field::new("l", DataType::List(item), true),
            Field::new_map(
                "m",
                "entries",
                Field::new("keys", DataType::Utf8, false),
                Field::new("values", DataType::Int64, true),
                true,
                true,
            ),
        ]);
        let table = table_schema(&schema).unwrap();
        let back = schema_from_json(&schema_to_json(&schema).unwrap()).unwrap();
        let strip = |s: &Schema| reading_schema(s, "UTC");
        assert_eq!(strip(&back), strip(&table));
        assert_eq!(back.field(2).metadata().get("comment").unwrap(), "when");
        assert_eq!(
            reading_schema(&back, "America/Sao_Paulo").field(2).data_type(),
            &DataType::Timestamp(TimeUnit::Microsecond, Some("America/Sao_Paulo".into()))
        );
    }
}
