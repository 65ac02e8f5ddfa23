//! Proposes a source for a Parquet file from its metadata alone.

use std::fs::File;

use arrow::datatypes::{DataType, Field, TimeUnit};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::ParquetMetaData;

use super::column::is_identifier;
use super::yaml::shown;
use super::{Column, InferredSource, Shape, check_width, leave_out};
use crate::connect::files::parquet_file::is_convertible;
use crate::error::{Result, ResultExt};
use crate::spec::sql_type::SqlType;

/// Fills in a source for a Parquet file.
///
/// # Errors
/// External, for a file that isn't whole Parquet; usage, for too many columns.
pub(super) fn infer(source: &mut InferredSource) -> Result<()> {
    let file = File::open(&source.path).external("the file can't be read")?;
    let metadata =
        ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).external("the file isn't whole Parquet")?;
    let schema = metadata.schema();
    check_width(schema.fields().len())?;
    let names = schema.fields().iter().map(|field| field.name().clone()).collect();
    for name in leave_out(names, &mut source.notes) {
        let Some((_, field)) = schema.column_with_name(&name) else { continue };
        match sql_type(field.data_type()) {
            Some(data_type) => {
                let has_nulls = field.is_nullable() && !has_no_nulls(metadata.metadata(), &name);
                let note = is_nanoseconds(field).then(|| "rows finer than a microsecond are refused".to_string());
                let nullable = has_nulls || !is_identifier(&name) || data_type == SqlType::Boolean;
                source.columns.push(Column { name, data_type, nullable, timestamp_format: None, note });
            }
            None => source.notes.push(format!("left out: no SQL type holds {} of {}", field.data_type(), shown(&name))),
        }
    }
    source.shape = Shape::Parquet;
    Ok(())
}

/// The SQL type that holds every value of an Arrow type, save what is finer than a microsecond.
fn sql_type(data_type: &DataType) -> Option<SqlType> {
    Some(match data_type {
        DataType::Boolean => SqlType::Boolean,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => SqlType::SmallInt,
        DataType::UInt16 | DataType::Int32 => SqlType::Integer,
        DataType::UInt32 | DataType::Int64 => SqlType::BigInt,
        DataType::UInt64 => SqlType::Decimal(20, 0),
        DataType::Float16 | DataType::Float32 => SqlType::Real,
        DataType::Float64 => SqlType::Double,
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => decimal(*precision, *scale)?,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => SqlType::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            SqlType::Bytea
        }
        DataType::Date32 | DataType::Date64 => SqlType::Date,
        DataType::Time32(_) | DataType::Time64(_) => SqlType::Time,
        DataType::Timestamp(_, None) => SqlType::Timestamp,
        DataType::Timestamp(_, Some(_)) => SqlType::TimestampTz,
        DataType::Dictionary(_, value) => sql_type(value)?,
        DataType::List(_) | DataType::LargeList(_) | DataType::Struct(_) => {
            // What is inside must be read as it is.
            return nested(data_type).filter(|of| is_convertible(data_type, &of.to_arrow("UTC")));
        }
        _ => return None,
    })
}

fn nested(data_type: &DataType) -> Option<SqlType> {
    let inside = |field: &Field| sql_type(field.data_type()).filter(|of| *of != SqlType::Time);
    Some(match data_type {
        DataType::List(item) | DataType::LargeList(item) => SqlType::List(Box::new(inside(item)?)),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| Some((field.name().clone(), inside(field)?)));
            SqlType::Struct(fields.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

fn decimal(precision: u8, scale: i8) -> Option<SqlType> {
    // A negative scale stands for zeros before the point.
    let zeros = scale.min(0).unsigned_abs();
    let precision = precision.checked_add(zeros).filter(|precision| *precision <= 38)?;
    Some(SqlType::Decimal(precision, scale.max(0)))
}

fn is_nanoseconds(field: &Field) -> bool {
    matches!(field.data_type(), DataType::Timestamp(TimeUnit::Nanosecond, _) | DataType::Time64(TimeUnit::Nanosecond))
}

/// Whether statistics prove that a column has no nulls; a file without rows proves nothing.
fn has_no_nulls(metadata: &ParquetMetaData, column: &str) -> bool {
    let groups = metadata.row_groups();
    let proves = |group: &parquet::file::metadata::RowGroupMetaData| {
        let chunk = group.columns().iter().find(|chunk| chunk.column_path().string() == column);
        chunk.and_then(|chunk| chunk.statistics()).and_then(|statistics| statistics.null_count_opt()) == Some(0)
    };
    !groups.is_empty() && groups.iter().all(proves)
}
