//! Parquet files as a source: what their metadata proves, and reading those that prove too little.
#![expect(deprecated, reason = "its successor, DataFusion's reader factory, needs a plan around it")]

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options, kernels::cmp};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef, TimeUnit};
use object_store::ObjectMeta;
use object_store::{ObjectStore, path::Path};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{ParquetObjectReader, ParquetRecordBatchStreamBuilder};
use parquet::file::metadata::ParquetMetaData;

use super::calendar;
use super::store::FileStore;
use crate::connect::decode::{ColumnReader, Decoded, Misfits, Origin, null_reason, parse_column, row_numbers};
use crate::connect::kept;
use crate::connect::quarantine::{Refused, RefusedAt};
use crate::engine::{as_text, json_lines, shortened};
use crate::error::{Result, ResultExt};
use crate::limits;
use crate::plan::types::sql_name;

type Builder = ParquetRecordBatchStreamBuilder<ParquetObjectReader>;

/// A file's rows, batch by batch.
#[cfg(feature = "kafka")]
pub(in crate::connect) type Batches = parquet::arrow::async_reader::ParquetRecordBatchStream<ParquetObjectReader>;

/// Opens a file for reading.
///
/// # Errors
/// External, naming a file that is truncated or no Parquet.
pub(in crate::connect) async fn open(store: &FileStore, file: &ObjectMeta) -> Result<Builder> {
    let reader = ParquetObjectReader::new(Arc::clone(&store.store), file.location.clone()).with_file_size(file.size);
    Builder::new_with_options(reader, ArrowReaderOptions::new())
        .await
        .external("the file isn't whole Parquet")
        .map_err(|e| e.with("file", store.shown(&file.location)))
}

/// The file's Arrow schema.
pub(super) async fn schema(store: &FileStore, file: &ObjectMeta) -> Result<SchemaRef> {
    Ok(Arc::clone(open(store, file).await?.schema()))
}

/// The Arrow schema of a file of so many bytes in a store.
///
/// # Errors
/// External: it isn't there, or isn't whole Parquet.
#[cfg(feature = "kafka")]
pub(in crate::connect) async fn schema_at(store: &Arc<dyn ObjectStore>, path: Path, bytes: u64) -> Result<SchemaRef> {
    Ok(Arc::clone(metadata_at(store, path, bytes).await?.schema()))
}

/// The same with what else its footer says.
pub(super) async fn metadata_at(store: &Arc<dyn ObjectStore>, path: Path, bytes: u64) -> Result<ArrowReaderMetadata> {
    let mut reader = ParquetObjectReader::new(Arc::clone(store), path.clone()).with_file_size(bytes);
    let read = ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::new()).await;
    read.external("the file isn't whole Parquet").map_err(|e| e.with("file", path))
}

/// Whether a landed file's rows are rows of `wanted`, each value being the same; why not.
pub(super) fn fits(file: &ArrowReaderMetadata, wanted: &Schema) -> Result<(), String> {
    // What Tidemill keeps beside the columns isn't the contract's.
    let own = file.schema().fields().iter().filter(|field| !field.name().starts_with('_'));
    let stored = Schema::new(own.cloned().collect::<Vec<_>>());
    kept::fits(&stored, wanted)?;
    let must = |field: &&FieldRef| {
        stored.field_with_name(field.name()).is_ok_and(|there| there.is_nullable() && !field.is_nullable())
    };
    match wanted.fields().iter().filter(must).find(|field| !has_no_nulls(file.metadata(), field.name())) {
        Some(field) => Err(format!("`{}` is null in some of them, and may not be", field.name())),
        None => Ok(()),
    }
}

/// Whether every row of the file is valid by its metadata alone: types hold or widen, dates and times are of the calendar, and
/// no nulls stand where none may.
pub(super) fn is_plain(metadata: &ParquetMetaData, file: &Schema, contract: &Schema) -> bool {
    contract.fields().iter().all(|wanted| {
        let Ok(index) = file.index_of(wanted.name()) else { return wanted.is_nullable() };
        let found = file.field(index);
        let typed = is_widening(found.data_type(), wanted.data_type())
            && calendar::is_proven(metadata, wanted.name(), found.data_type());
        typed && (wanted.is_nullable() || !found.is_nullable() || has_no_nulls(metadata, wanted.name()))
    })
}

fn has_no_nulls(metadata: &ParquetMetaData, column: &str) -> bool {
    metadata.row_groups().iter().all(|group| {
        let chunk = group.columns().iter().find(|chunk| chunk.column_path().string() == column);
        chunk.and_then(|chunk| chunk.statistics()).and_then(|s| s.null_count_opt()) == Some(0)
    })
}

/// Whether every value of `from` is one of `to`, read by a scan's own cast.
pub(in crate::connect) fn is_widening(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Boolean, Date32, Decimal128, Dictionary, Float32, Float64, Int8, Int16, Int32, Int64, Timestamp, UInt8, UInt16,
        UInt32,
    };
    let is_micros = |unit: &TimeUnit| matches!(unit, TimeUnit::Microsecond | TimeUnit::Millisecond | TimeUnit::Second);
    match (from, to) {
        (Boolean, Boolean) | (Date32, Date32) | (Float32, Float32 | Float64) | (Float64, Float64) => true,
        (Int8 | UInt8, Int16 | Int32 | Int64) | (Int16, Int16 | Int32 | Int64) | (UInt16, Int32 | Int64) => true,
        (Int32, Int32 | Int64) | (UInt32 | Int64, Int64) => true,
        (Decimal128(p, s), Decimal128(wide, scale)) => s == scale && p <= wide,
        (Timestamp(unit, None), Timestamp(_, None)) | (Timestamp(unit, Some(_)), Timestamp(_, Some(_))) => {
            is_micros(unit)
        }
        (DataType::Time64(TimeUnit::Microsecond), DataType::Time64(TimeUnit::Microsecond)) => true,
        (Dictionary(_, value), to) => is_text(value) && is_text(to),
        (DataType::List(from) | DataType::LargeList(from), DataType::List(to)) => {
            is_widening(from.data_type(), to.data_type())
        }
        // Fields go by position in a cast, so that all of them must be there.
        (DataType::Struct(from), DataType::Struct(to)) => {
            let alike = |(from, to): (&FieldRef, &FieldRef)| {
                from.name() == to.name() && is_widening(from.data_type(), to.data_type())
            };
            from.len() == to.len() && from.iter().zip(to).all(alike)
        }
        (from, to) => is_text(from) && is_text(to) || is_bytes(from) && is_bytes(to),
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

/// Whether values of `from` can be read as `to`, each either exactly or refused.
pub(super) fn is_convertible(from: &DataType, to: &DataType) -> bool {
    if is_widening(from, to) {
        return true;
    }
    match (from, to) {
        // A writer gives a column without values no type.
        (DataType::Null, _) => true,
        // An instant isn't a wall-clock time.
        (DataType::Timestamp(_, Some(_)), DataType::Timestamp(_, None)) => false,
        (DataType::Timestamp(_, _), DataType::Timestamp(_, _)) => true,
        (DataType::Timestamp(_, _), _) | (_, DataType::Timestamp(_, _)) => is_text(from),
        (DataType::Dictionary(_, value), to) => is_convertible(value, to),
        (from, to) if is_text(from) => crate::connect::decode::is_readable(to),
        // Only as it is.
        (from, to) if from.is_nested() || to.is_nested() => false,
        (DataType::FixedSizeBinary(_), to) if is_bytes(to) => true,
        // What isn't exact by its types is compared with what it was, so that both ways are needed.
        (from, to) => (from.is_numeric() || !to.is_numeric()) && can_cast_types(from, to) && can_cast_types(to, from),
    }
}

/// Converts a file's batches to the contract, refusing rows whose values don't fit exactly.
pub(in crate::connect) struct Converter {
    contract: SchemaRef,
    readers: Vec<ColumnReader>,
    zone: String,
}

impl Converter {
    /// Zoneless instants are in `zone`.
    pub(in crate::connect) fn new(contract: SchemaRef, zone: &str) -> Result<Self> {
        let readers = contract
            .fields()
            .iter()
            .map(|f| ColumnReader::new(f.data_type(), None, zone, '.'))
            .collect::<Result<_>>()?;
        Ok(Self { contract, readers, zone: zone.to_string() })
    }

    /// Rows under the contract; the first one of the batch has the number `first` in the file, from 1.
    pub(in crate::connect) fn decode(&self, batch: RecordBatch, first: u64) -> Result<Decoded> {
        let (columns, misfits) = self.convert(&batch)?;
        let rows = batch.num_rows();
        let origin = ParquetRows { contract: Arc::clone(&self.contract), batch, first };
        Decoded::new(&self.contract, columns, rows, misfits, origin)
    }

    /// Columns of the contract, and why rows are refused.
    pub(super) fn convert(&self, batch: &RecordBatch) -> Result<(Vec<ArrayRef>, Misfits)> {
        let mut misfits = Misfits::new();
        let mut columns = Vec::with_capacity(self.readers.len());
        for (field, reader) in self.contract.fields().iter().zip(&self.readers) {
            let column = match batch.column_by_name(field.name()) {
                None => new_null_array(field.data_type(), batch.num_rows()),
                Some(found) => self.column(found, field.data_type(), reader, field.name(), &mut misfits)?,
            };
            if !field.is_nullable() && column.null_count() > 0 {
                for row in (0..column.len()).filter(|row| column.is_null(*row)) {
                    misfits.entry(row).or_insert_with(|| null_reason(field));
                }
            }
            columns.push(column);
        }
        Ok((columns, misfits))
    }

    fn column(
        &self,
        found: &ArrayRef,
        to: &DataType,
        reader: &ColumnReader,
        name: &str,
        misfits: &mut Misfits,
    ) -> Result<ArrayRef> {
        let options = CastOptions { safe: true, ..CastOptions::default() };
        let cast = |array: &ArrayRef, to: &DataType| {
            cast_with_options(array, to, &options).external("a column can't be converted")
        };
        let found = &match found.data_type() {
            DataType::Null => return Ok(new_null_array(to, found.len())),
            DataType::Dictionary(_, value) => cast(found, value)?,
            _ => Arc::clone(found),
        };
        let found = &in_calendar(found, to, name, misfits)?;
        let from = found.data_type();
        if is_text(from) && !is_text(to) {
            let texts = as_text(found)?;
            let (array, faults) = parse_column(reader, texts.iter(), texts.len());
            for misfit in faults {
                misfits.entry(misfit.row).or_insert_with(|| misfit.of_column(name));
            }
            return Ok(array);
        }
        if let (DataType::Timestamp(_, None), DataType::Timestamp(_, Some(_))) = (from, to) {
            // Wall-clock times of a file become instants by the same rule as zoneless text.
            let zoned = ColumnReader::new(to, None, &self.zone, '.')?;
            let texts = as_text(found)?;
            let (array, faults) = parse_column(&zoned, texts.iter(), texts.len());
            for misfit in faults {
                misfits.entry(misfit.row).or_insert_with(|| misfit.of_column(name));
            }
            return Ok(array);
        }
        let array = cast(found, to)?;
        if is_exact(from, to) {
            return Ok(array);
        }
        let back = cast(&array, from)?;
        let same = cmp::not_distinct(found, &back).external("a column can't be compared")?;
        for row in (0..same.len()).filter(|row| !same.value(*row)) {
            let why = unfit(found, row, to)?;
            misfits.entry(row).or_insert_with(|| format!("{name}: {why}"));
        }
        // Whole numbers may be read as days or times.
        in_calendar(&array, to, name, misfits)
    }
}

/// A column without the dates and times that can't be shown; their rows are refused.
fn in_calendar(column: &ArrayRef, to: &DataType, name: &str, misfits: &mut Misfits) -> Result<ArrayRef> {
    let beyond = calendar::beyond(column)?;
    if beyond.is_empty() {
        return Ok(Arc::clone(column));
    }
    let counted = calendar::unit(column.data_type()).map(|unit| format!(" ({unit})")).unwrap_or_default();
    for row in &beyond {
        let shown = shown(column, *row)?.unwrap_or_default();
        let why = || format!("{name}: {}{counted} doesn't fit {}", shortened(&shown), sql_name(to));
        misfits.entry(*row).or_insert_with(why);
    }
    calendar::without(column, &beyond)
}

/// Why a value isn't one of `to`.
fn unfit(found: &ArrayRef, row: usize, to: &DataType) -> Result<String> {
    let shown = shown(found, row)?.unwrap_or_default();
    let shown = shortened(&shown);
    if is_text(to) && is_bytes(found.data_type()) {
        return Ok(format!("the bytes {shown} aren't UTF-8"));
    }
    Ok(format!("{shown} doesn't fit {}", sql_name(to)))
}

/// A value for people: outside of the calendar as the number that the file has, bytes that aren't UTF-8 as digits.
fn shown(column: &ArrayRef, row: usize) -> Result<Option<String>> {
    let value = calendar::showable(&column.slice(row, 1))?;
    let text = as_text(&value)?;
    if text.is_valid(0) {
        return Ok(Some(text.value(0).to_string()));
    }
    if !is_bytes(value.data_type()) && !matches!(value.data_type(), DataType::FixedSizeBinary(_)) {
        return Ok(None);
    }
    let bytes = cast_with_options(&value, &DataType::Binary, &CastOptions::default());
    let bytes = bytes.external("bytes can't be shown")?;
    let bytes = bytes.as_binary::<i32>();
    let digits = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok(bytes.is_valid(0).then(|| format!("\\x{}", digits(bytes.value(0)))))
}

/// Whether a cast changes no value and loses none, whatever the values are.
fn is_exact(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Timestamp(from, Some(_)), DataType::Timestamp(to, Some(_))) => from == to,
        (from, to) if from.is_nested() => is_widening(from, to),
        (DataType::FixedSizeBinary(_), to) => is_bytes(to),
        (from, to) => from == to || is_text(from) && is_text(to) || is_bytes(from) && is_bytes(to),
    }
}

/// Rows of a batch of a Parquet file.
struct ParquetRows {
    contract: SchemaRef,
    batch: RecordBatch,
    first: u64,
}

impl Origin for ParquetRows {
    fn hidden(&self, rows: &[usize]) -> Vec<ArrayRef> {
        row_numbers(rows.iter().map(|row| self.first + *row as u64))
    }

    fn refused(&self, index: usize, rule: &str, reason: String) -> Result<Refused> {
        let cell = |name: &str| -> Result<Option<String>> {
            self.batch.column_by_name(name).map_or(Ok(None), |column| shown(column, index))
        };
        let cells = self.contract.fields().iter().map(|f| cell(f.name())).collect::<Result<Vec<_>>>()?;
        let raw = json_lines(&showable_row(&self.batch, index)?).unwrap_or_default().concat();
        Ok(Refused { cells, rule: rule.to_string(), reason, at: RefusedAt::Row(self.first + index as u64), raw })
    }
}

/// A row of a batch; dates and times outside of the calendar are the numbers that the file has.
fn showable_row(batch: &RecordBatch, row: usize) -> Result<RecordBatch> {
    let column = |(field, column): (&FieldRef, &ArrayRef)| {
        let column = calendar::showable(&column.slice(row, 1))?;
        Ok((field.as_ref().clone().with_data_type(column.data_type().clone()), column))
    };
    let columns = batch.schema_ref().fields().iter().zip(batch.columns()).map(column).collect::<Result<Vec<_>>>()?;
    let (fields, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).external("a row can't be shown")
}

/// Reads batches of the usual size.
pub(in crate::connect) fn with_batches(builder: Builder) -> Builder {
    builder.with_batch_size(limits::BATCH_ROWS)
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BinaryArray, DictionaryArray, FixedSizeBinaryArray, Int32Array, Int64Array, ListArray, NullArray,
        TimestampSecondArray, UInt64Array, make_array,
    };
    use arrow::datatypes::{Field, Int32Type, IntervalUnit, TimestampSecondType};

    use super::*;
    use crate::spec::sql_type::SqlType;

    /// A column `c` under a contract: its values as text, and how many rows are refused.
    fn converted(found: ArrayRef, to: &DataType) -> Result<(Vec<Option<String>>, usize)> {
        let contract = Arc::new(Schema::new(vec![Field::new("c", to.clone(), true)]));
        let batch = RecordBatch::try_from_iter_with_nullable([("c", found, true)]).unwrap();
        let (columns, misfits) = Converter::new(contract, "UTC")?.convert(&batch)?;
        assert_eq!(columns[0].data_type(), to);
        let texts = as_text(&columns[0])?;
        Ok((texts.iter().map(|text| text.map(str::to_owned)).collect(), misfits.len()))
    }

    /// Why the first row of a column `c` is refused.
    fn refusal(found: ArrayRef, to: &DataType) -> Option<String> {
        let contract = Arc::new(Schema::new(vec![Field::new("c", to.clone(), true)]));
        let batch = RecordBatch::try_from_iter_with_nullable([("c", found, true)]).unwrap();
        let (columns, misfits) = Converter::new(contract, "UTC").unwrap().convert(&batch).unwrap();
        assert!(misfits.is_empty() || columns[0].is_null(0));
        misfits.into_values().next()
    }

    fn contract_types() -> Vec<DataType> {
        use SqlType as S;
        let scalars = [
            S::Boolean,
            S::SmallInt,
            S::Integer,
            S::BigInt,
            S::Real,
            S::Double,
            S::Decimal(12, 2),
            S::Text,
            S::Bytea,
            S::Date,
            S::Time,
            S::Timestamp,
            S::TimestampTz,
            S::List(Box::new(S::BigInt)),
            S::Struct(vec![("x".into(), S::Text)]),
        ];
        scalars.iter().map(|of| of.to_arrow("America/Sao_Paulo")).collect()
    }

    fn file_types() -> Vec<DataType> {
        use DataType as T;
        let item = |of: DataType| Arc::new(Field::new("item", of, true));
        let mut types = vec![
            T::Null,
            T::Boolean,
            T::Int8,
            T::Int16,
            T::Int32,
            T::Int64,
            T::UInt8,
            T::UInt16,
            T::UInt32,
            T::UInt64,
            T::Float16,
            T::Float32,
            T::Float64,
            T::Decimal32(5, 1),
            T::Decimal64(12, 2),
            T::Decimal128(30, 4),
            T::Decimal256(50, 2),
            T::Utf8,
            T::LargeUtf8,
            T::Utf8View,
            T::Binary,
            T::LargeBinary,
            T::BinaryView,
            T::FixedSizeBinary(4),
            T::Date32,
            T::Date64,
            T::Time32(TimeUnit::Second),
            T::Time32(TimeUnit::Millisecond),
            T::Time64(TimeUnit::Microsecond),
            T::Time64(TimeUnit::Nanosecond),
            T::Interval(IntervalUnit::YearMonth),
            T::Interval(IntervalUnit::DayTime),
            T::Interval(IntervalUnit::MonthDayNano),
            T::Duration(TimeUnit::Microsecond),
            T::List(item(T::Int32)),
            T::LargeList(item(T::Int64)),
            T::List(item(T::Null)),
            T::FixedSizeList(item(T::Int64), 2),
            T::Struct([Arc::new(Field::new("x", T::Utf8, true))].into_iter().collect()),
        ];
        for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
            types.extend([T::Timestamp(unit, None), T::Timestamp(unit, Some("UTC".into()))]);
        }
        let dictionaries = types.clone().into_iter().filter(|of| !of.is_nested() && !of.is_null());
        types.extend(dictionaries.map(|of| T::Dictionary(Box::new(T::Int32), Box::new(of))).collect::<Vec<_>>());
        types
    }

    #[test]
    fn what_validate_accepts_can_be_converted() {
        for from in file_types() {
            for to in contract_types().iter().filter(|to| is_convertible(&from, to)) {
                // Nulls, and values whose bytes are zeros.
                let nulls = new_null_array(&from, 2);
                let zeros = match from {
                    DataType::Dictionary(..) => Arc::clone(&nulls),
                    _ => make_array(nulls.to_data().into_builder().nulls(None).build().unwrap()),
                };
                for found in [nulls, zeros] {
                    if let Err(error) = converted(found, to) {
                        panic!("{from} as {to}: {error}");
                    }
                }
            }
        }
    }

    #[test]
    fn columns_without_a_type_are_null() {
        for to in contract_types() {
            assert!(is_convertible(&DataType::Null, &to));
            let (values, refused) = converted(Arc::new(NullArray::new(2)), &to).unwrap();
            assert_eq!((values, refused), (vec![None, None], 0), "{to}");
        }
    }

    #[test]
    fn values_are_taken_exactly_or_refused() {
        let fixed = FixedSizeBinaryArray::try_from_iter([[1u8, 255], [0, 0]].iter()).unwrap();
        let bytea = SqlType::Bytea.to_arrow("UTC");
        assert!(is_convertible(fixed.data_type(), &bytea));
        let contract = Arc::new(Schema::new(vec![Field::new("c", bytea, true)]));
        let batch = RecordBatch::try_from_iter([("c", Arc::new(fixed) as ArrayRef)]).unwrap();
        let (columns, misfits) = Converter::new(contract, "UTC").unwrap().convert(&batch).unwrap();
        let plain = cast_with_options(&columns[0], &DataType::Binary, &CastOptions::default()).unwrap();
        let wanted = BinaryArray::from_vec(vec![&[1, 255], &[0, 0]]);
        assert_eq!((plain.to_data(), misfits.len()), (wanted.to_data(), 0));

        let text = |text: &str| Some(text.to_owned());
        let unsigned = Arc::new(UInt64Array::from(vec![7, u64::MAX]));
        assert_eq!(converted(unsigned, &DataType::Int64).unwrap(), (vec![text("7"), None], 1));
        let keys = Int32Array::from(vec![Some(1), None, Some(0)]);
        let numbers = DictionaryArray::<Int32Type>::new(keys, Arc::new(Int64Array::from(vec![70_000, 3])));
        assert_eq!(converted(Arc::new(numbers), &DataType::Int16).unwrap(), (vec![text("3"), None, None], 1));
    }

    #[test]
    fn reasons_show_the_value_and_name_types_of_sql() {
        let text = |text: &str| Some(text.to_owned());
        let date = SqlType::Date.to_arrow("UTC");
        let time = SqlType::Time.to_arrow("UTC");
        let number = |number: i64| Arc::new(Int64Array::from(vec![number]));
        assert_eq!(refusal(number(1 << 40), &DataType::Int32), text("c: 1099511627776 doesn't fit integer"));
        assert_eq!(refusal(number(86_400_000_000), &time), text("c: 86400000000 (microseconds) doesn't fit time"));
        let days = Arc::new(Int32Array::from(vec![i32::MIN]));
        assert_eq!(refusal(days, &date), text("c: -2147483648 (days) doesn't fit date"));
        let bytes = BinaryArray::from_vec(vec![b"caf\xe9"]);
        assert_eq!(refusal(Arc::new(bytes), &DataType::Utf8View), text("c: the bytes \\x636166e9 aren't UTF-8"));
        let naive = Arc::new(TimestampSecondArray::from(vec![i64::MAX]));
        let instant = SqlType::TimestampTz.to_arrow("America/Sao_Paulo");
        assert_eq!(refusal(naive, &instant), text("c: 9223372036854775807 (seconds) doesn't fit timestamptz"));
    }

    #[test]
    fn a_list_is_refused_for_a_time_of_no_calendar() {
        let seconds = [Some(vec![Some(0), Some(1 << 62)]), Some(vec![None, Some(1)]), None];
        let found: ArrayRef = Arc::new(ListArray::from_iter_primitive::<TimestampSecondType, _, _>(seconds));
        let to = SqlType::List(Box::new(SqlType::Timestamp)).to_arrow("UTC");
        assert!(is_widening(found.data_type(), &to));
        let (values, refused) = converted(Arc::clone(&found), &to).unwrap();
        assert_eq!((values, refused), (vec![None, Some("[null,\"1970-01-01T00:00:01\"]".into()), None], 1));
        assert_eq!(refusal(found, &to), Some("c: [0,4611686018427387904] doesn't fit timestamp[]".into()));
    }
}
