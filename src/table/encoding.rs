//! How the columns of a data file are encoded. Knows no store and no table.

use std::collections::HashSet;
use std::hash::Hash;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Int16Type, Int32Type, Int64Type, SchemaRef, TimeUnit,
    TimestampMicrosecondType,
};
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::{Compression, Encoding, Type, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::error::{Result, ResultExt};
use crate::limits;

/// What is known of a file's rows before the first one is written.
#[derive(Clone, Copy)]
pub(crate) enum Expected<'a> {
    /// No more than [`limits::FEW_ROWS`] in all.
    Few,
    /// They begin with these.
    Beginning(&'a RecordBatch),
    Unknown,
}

/// How a Parquet file with these columns and rows is written.
///
/// A file of few rows is one of many that a pipeline makes as events come, and is put together with others soon: what it costs to write
/// counts, not its bytes. Making a page's zstd context and a column's dictionary takes longer there than the rows do.
///
/// # Errors
/// External, for columns that Parquet can't hold.
pub(crate) fn parquet_properties(file: &SchemaRef, rows: Expected<'_>) -> Result<WriterProperties> {
    let mut properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(limits::ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(limits::DATA_FILE_BYTES))
        .set_created_by(format!("tidemill {}", env!("CARGO_PKG_VERSION")));
    let first = match rows {
        Expected::Few => {
            properties = properties
                .set_compression(Compression::SNAPPY)
                .set_dictionary_enabled(false)
                .set_statistics_enabled(EnabledStatistics::Chunk)
                .set_offset_index_disabled(true);
            None
        }
        Expected::Beginning(_) | Expected::Unknown => {
            let level = ZstdLevel::try_new(1).external("the compression level is out of range")?;
            properties = properties.set_compression(Compression::ZSTD(level));
            if let Expected::Beginning(first) = rows { Some(first) } else { None }
        }
    };
    let parquet = ArrowSchemaConverter::new().convert(file).external("the columns can't be those of a Parquet file")?;
    for column in parquet.columns() {
        if matches!(column.physical_type(), Type::FLOAT | Type::DOUBLE) {
            // Bounds of floats leave NaN out, and a reader that goes by them would lose rows that hold it.
            properties = properties.set_column_statistics_enabled(column.path().clone(), EnabledStatistics::None);
        }
        let is_number = matches!(column.physical_type(), Type::INT32 | Type::INT64);
        let [name] = column.path().parts() else { continue };
        let place = file.index_of(name).ok();
        if is_number && let Some((place, first)) = place.zip(first) {
            // A dictionary of values that hardly come again is most of the work of writing them, and thrown away in the end.
            if first.columns().get(place).is_some_and(differs) {
                properties = properties
                    .set_column_dictionary_enabled(column.path().clone(), false)
                    .set_column_encoding(column.path().clone(), Encoding::DELTA_BINARY_PACKED);
            }
        }
    }
    Ok(properties.build())
}

/// Whether more than one in [`limits::ENCODED_REPEATS`] of a column's first values is another.
fn differs(column: &ArrayRef) -> bool {
    let rows = column.len().min(limits::ENCODING_ROWS);
    let first = column.slice(0, rows);
    let values = match column.data_type() {
        DataType::Int16 => different::<Int16Type>(&first),
        DataType::Int32 => different::<Int32Type>(&first),
        DataType::Int64 => different::<Int64Type>(&first),
        DataType::Date32 => different::<Date32Type>(&first),
        DataType::Timestamp(TimeUnit::Microsecond, _) => different::<TimestampMicrosecondType>(&first),
        DataType::Decimal128(..) => different::<Decimal128Type>(&first),
        _ => 0,
    };
    // Of a few values nearly all differ, whatever comes.
    rows >= limits::ENCODING_ROWS / 8 && values > rows / limits::ENCODED_REPEATS
}

fn different<T: ArrowPrimitiveType<Native: Hash + Eq>>(column: &dyn Array) -> usize {
    column.as_primitive::<T>().values().iter().collect::<HashSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};
    use parquet::schema::types::ColumnPath;

    use super::*;

    #[test]
    fn only_numbers_that_hardly_repeat_have_no_dictionary() {
        let rows = limits::ENCODING_ROWS as i64;
        let columns: [(&str, ArrayRef); 3] = [
            ("counts", Arc::new(Int64Array::from_iter_values(0..rows))),
            ("repeats", Arc::new(Int64Array::from_iter_values((0..rows).map(|row| row % 100)))),
            ("text", Arc::new(StringArray::from_iter_values((0..rows).map(|row| row.to_string())))),
        ];
        let fields = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let batch =
            RecordBatch::try_new(Arc::clone(&schema), columns.iter().map(|(_, c)| Arc::clone(c)).collect()).unwrap();
        let with_dictionary = |rows: Expected<'_>| {
            let properties = parquet_properties(&schema, rows).unwrap();
            columns.each_ref().map(|(name, _)| properties.dictionary_enabled(&ColumnPath::from(*name)))
        };
        assert_eq!(with_dictionary(Expected::Beginning(&batch)), [false, true, true]);
        assert_eq!(with_dictionary(Expected::Beginning(&batch.slice(0, 100))), [true; 3]);
        assert_eq!(with_dictionary(Expected::Unknown), [true; 3]);
        assert_eq!(with_dictionary(Expected::Few), [false; 3]);
    }
}
