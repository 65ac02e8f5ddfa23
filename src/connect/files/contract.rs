//! What files say of their columns, against the contract: headers and schemas only, no rows.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use object_store::ObjectMeta;

use super::FilesSource;
use super::parquet_file;
use crate::connect::Source as _;
use crate::connect::decode;
use crate::error::Result;
use crate::spec::fault::Fault;
use crate::spec::sql_type::LIST_ITEM;
use crate::spec::types::FileFormat;

/// The contract: declared, or for Parquet without `columns` that of the first file. Files that don't hold it are faults; no
/// file at all is a matter for the run.
pub(super) async fn schema(source: &FilesSource) -> Result<SchemaRef, Vec<Fault>> {
    let place = source.source.name.place.clone();
    let path_place = source.spec.path.place.clone();
    let unreadable =
        |e: &crate::error::Error| vec![Fault::error("unreadable_source", path_place.clone(), e.to_string())];
    let files = match source.store.list().await {
        Ok(files) => files,
        Err(error) if source.source.columns.is_empty() => return Err(unreadable(&error)),
        // A store that doesn't answer is the run's to tell: it holds nobody but the source's models.
        Err(_) => return source.declared_schema(),
    };
    let Some(first) = files.first() else {
        if source.source.columns.is_empty() {
            let message = format!(
                "no file matches `{}`, and without `columns` only a file tells the schema",
                source.store.pattern
            );
            return Err(vec![
                Fault::error("unknown_schema", path_place, message).hint("write `columns`, or put a file there"),
            ]);
        }
        return source.declared_schema();
    };
    if source.source.columns.is_empty() {
        let file = parquet_file::schema(&source.store, first).await.map_err(|e| unreadable(&e))?;
        return inferred(&file, &source.zone).map_err(|column| {
            let message =
                format!("`{column}` of {} has a type that no column can have", source.store.shown(&first.location));
            vec![Fault::error("unknown_type", place, message).hint("write `columns` without it")]
        });
    }
    let declared = source.declared_schema()?;
    // A file that can't be read is the run's to tell, with its name and exit code.
    match columns_of(source, first).await {
        Ok(Some(found)) => {
            let faults = compare(source, &declared, &found, &source.store.shown(&first.location));
            if faults.is_empty() { Ok(declared) } else { Err(faults) }
        }
        Ok(None) | Err(_) => Ok(declared),
    }
}

/// Columns of a file: with their types where the format has them.
pub(super) async fn columns_of(
    source: &FilesSource,
    file: &ObjectMeta,
) -> Result<Option<Vec<(String, Option<DataType>)>>> {
    match &source.spec.format {
        FileFormat::Parquet => {
            let schema = parquet_file::schema(&source.store, file).await?;
            Ok(Some(schema.fields().iter().map(|f| (f.name().clone(), Some(f.data_type().clone()))).collect()))
        }
        FileFormat::Json(_) => Ok(None),
        FileFormat::Csv(options) => {
            let bytes = source.store.read(&file.location).await?;
            let name = file.location.to_string();
            let options = options.clone();
            let header = tokio::task::spawn_blocking(move || {
                let encoding = options.text.encoding.as_ref().map(|e| e.value.as_str());
                decode::csv_header(&options, decode::open_text(&name, encoding, bytes)?)
            });
            let header = header
                .await
                .map_err(|e| crate::error::Error::internal("reading a header ended early").caused_by(e))??;
            Ok(header.map(|names| names.into_iter().map(|name| (name, None)).collect()))
        }
    }
}

fn compare(source: &FilesSource, declared: &Schema, found: &[(String, Option<DataType>)], file: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    for column in &source.source.columns {
        let name = &column.name.value;
        let Ok(field) = declared.field_with_name(name) else { continue };
        match found.iter().find(|(known, _)| known == name) {
            None if !field.is_nullable() => {
                let message = format!("{file} lacks the column `{name}`, which may not be null");
                let mut fault = Fault::error("missing_column", column.name.place.clone(), message);
                if let Some(near) = crate::spec::nearest(name, found.iter().map(|(known, _)| known.as_str())) {
                    fault = fault.hint(format!("it has `{near}`; case counts"));
                }
                faults.push(fault);
            }
            Some((_, Some(data_type))) if !parquet_file::is_convertible(data_type, field.data_type()) => {
                let message =
                    format!("{file} has `{name}` as {data_type}, which can't be read as {}", column.data_type.value);
                faults.push(Fault::error("wrong_type", column.data_type.place.clone(), message));
            }
            _ => {}
        }
    }
    faults
}

/// Column types as a contract would have them; the name of a column that no type fits as an error.
fn inferred(file: &Schema, zone: &str) -> Result<SchemaRef, String> {
    let field = |field: &FieldRef| {
        let data_type = inferred_type(field.data_type(), zone).ok_or_else(|| field.name().clone())?;
        Ok(Field::new(field.name(), data_type, true))
    };
    Ok(Arc::new(Schema::new(file.fields().iter().map(field).collect::<Result<Vec<_>, String>>()?)))
}

fn inferred_type(found: &DataType, zone: &str) -> Option<DataType> {
    Some(match found {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8View,
        DataType::Dictionary(_, value) if value.is_string() => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::BinaryView
        }
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => {
            DataType::Decimal128(*p, *s)
        }
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into())),
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Boolean
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64 => found.clone(),
        DataType::List(_) | DataType::LargeList(_) | DataType::Struct(_) => {
            // What is inside must be read as it is.
            return nested_type(found, zone).filter(|to| parquet_file::is_convertible(found, to));
        }
        _ => return None,
    })
}

fn nested_type(found: &DataType, zone: &str) -> Option<DataType> {
    let inside = |field: &FieldRef| match field.data_type() {
        // Tables have no lists of times.
        DataType::Time32(_) | DataType::Time64(_) => None,
        of => inferred_type(of, zone),
    };
    Some(match found {
        DataType::List(item) | DataType::LargeList(item) => {
            DataType::List(Arc::new(Field::new(LIST_ITEM, inside(item)?, true)))
        }
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| Some(Field::new(field.name(), inside(field)?, true)));
            DataType::Struct(fields.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}
