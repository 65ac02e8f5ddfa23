//! Dates and times of Parquet files that no day or calendar has: what statistics prove of a file, and which rows hold them.
//!
//! A file's number fits its type whatever it stands for: 24:00:00, or a day of the year five million. Knows no contract.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, GenericListArray, OffsetSizeTrait, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, nullif};
use arrow::datatypes::{DataType, FieldRef, Int64Type, TimeUnit};
use chrono::NaiveDate;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::statistics::Statistics;

use crate::error::{Result, ResultExt};

const DAY_SECONDS: i64 = 24 * 3600;

/// Whether a file's metadata proves that all dates and times of a column, which the file has as `data_type`, can be shown.
pub(super) fn is_proven(metadata: &ParquetMetaData, column: &str, data_type: &DataType) -> bool {
    let mut leaves = Vec::new();
    leaf_types(data_type, &mut leaves);
    if leaves.iter().all(|leaf| range(leaf).is_none()) {
        return true;
    }
    metadata.row_groups().iter().all(|group| {
        let is_of_column = |chunk: &&ColumnChunkMetaData| {
            chunk.column_path().parts().first().is_some_and(|root| root.as_str() == column)
        };
        // The file's own columns stand in the order of the leaves.
        let chunks: Vec<_> = group.columns().iter().filter(is_of_column).collect();
        chunks.len() == leaves.len() && chunks.iter().zip(&leaves).all(|(chunk, leaf)| is_chunk_within(chunk, leaf))
    })
}

fn leaf_types(data_type: &DataType, leaves: &mut Vec<DataType>) {
    match data_type {
        DataType::List(inside)
        | DataType::LargeList(inside)
        | DataType::FixedSizeList(inside, _)
        | DataType::ListView(inside)
        | DataType::LargeListView(inside)
        | DataType::Map(inside, _) => leaf_types(inside.data_type(), leaves),
        DataType::Struct(fields) => fields.iter().for_each(|field| leaf_types(field.data_type(), leaves)),
        DataType::Dictionary(_, value) => leaf_types(value, leaves),
        leaf => leaves.push(leaf.clone()),
    }
}

/// Bounds that aren't exact are still bounds: values lie between them.
fn is_chunk_within(chunk: &ColumnChunkMetaData, leaf: &DataType) -> bool {
    let Some(range) = range(leaf) else { return true };
    let Some(statistics) = chunk.statistics() else { return chunk.num_values() == 0 };
    let bounds = match statistics {
        Statistics::Int32(of) => of.min_opt().zip(of.max_opt()).map(|(min, max)| (i64::from(*min), i64::from(*max))),
        Statistics::Int64(of) => of.min_opt().zip(of.max_opt()).map(|(min, max)| (*min, *max)),
        _ => None,
    };
    match bounds {
        Some((min, max)) => range.contains(&min) && range.contains(&max),
        None => statistics.null_count_opt().and_then(|nulls| i64::try_from(nulls).ok()) == Some(chunk.num_values()),
    }
}

/// The numbers of a type that stand for a time of a day, or for a date or time of the calendar; none: all do.
fn range(data_type: &DataType) -> Option<RangeInclusive<i64>> {
    match data_type {
        DataType::Time32(unit) | DataType::Time64(unit) => {
            let last = DAY_SECONDS * per_second(*unit) - 1;
            Some(0..=last)
        }
        DataType::Date32 => Some(calendar_days()),
        DataType::Date64 => Some(instants(1_000)),
        // Nanoseconds of 64 bits end in the year 2262.
        DataType::Timestamp(TimeUnit::Nanosecond, _) => None,
        DataType::Timestamp(unit, _) => Some(instants(per_second(*unit))),
        _ => None,
    }
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Days since 1970 that can be shown, in every zone: one less at each end than the calendar has.
fn calendar_days() -> RangeInclusive<i64> {
    let days = |date: NaiveDate| date.signed_duration_since(NaiveDate::default()).num_days();
    let (first, last) = (days(NaiveDate::MIN) + 1, days(NaiveDate::MAX) - 1);
    first..=last
}

fn instants(per_second: i64) -> RangeInclusive<i64> {
    let (first, last) = calendar_days().into_inner();
    let (start, end) = (first * DAY_SECONDS * per_second, (last + 1) * DAY_SECONDS * per_second - 1);
    start..=end
}

/// Rows that hold a date or time outside of the day or the calendar, in ascending order; also those that hold it in a list or
/// a struct.
///
/// # Errors
/// External, when numbers of a date can't be read.
pub(super) fn beyond(column: &ArrayRef) -> Result<Vec<usize>> {
    if let Some(range) = range(column.data_type()) {
        let numbers = numbers(column)?;
        let numbers = numbers.as_primitive::<Int64Type>();
        return Ok((0..numbers.len())
            .filter(|row| numbers.is_valid(*row) && !range.contains(&numbers.value(*row)))
            .collect());
    }
    match column.data_type() {
        DataType::List(_) => beyond_in_list(column.as_list::<i32>()),
        DataType::LargeList(_) => beyond_in_list(column.as_list::<i64>()),
        DataType::Struct(_) => {
            let of = column.as_struct();
            let mut rows = Vec::new();
            for field in of.columns() {
                rows.extend(beyond(field)?.into_iter().filter(|row| of.is_valid(*row)));
            }
            rows.sort_unstable();
            rows.dedup();
            Ok(rows)
        }
        _ => Ok(Vec::new()),
    }
}

fn beyond_in_list<O: OffsetSizeTrait>(list: &GenericListArray<O>) -> Result<Vec<usize>> {
    let values = beyond(list.values())?;
    let holds_one = |row: &usize| {
        let (Some(start), Some(end)) = (list.value_offsets().get(*row), list.value_offsets().get(row + 1)) else {
            return false;
        };
        let first = values.partition_point(|value| *value < start.as_usize());
        values.get(first).is_some_and(|value| *value < end.as_usize())
    };
    if values.is_empty() {
        return Ok(values);
    }
    Ok((0..list.len()).filter(|row| list.is_valid(*row) && holds_one(row)).collect())
}

/// The column with nulls in these rows.
///
/// # Errors
/// External, for a type that can't have nulls.
pub(super) fn without(column: &ArrayRef, rows: &[usize]) -> Result<ArrayRef> {
    let mut are_gone = vec![false; column.len()];
    for row in rows {
        if let Some(is_gone) = are_gone.get_mut(*row) {
            *is_gone = true;
        }
    }
    nullif(column, &BooleanArray::from(are_gone)).external("values can't be left out")
}

/// The column as it can be shown: one that holds a date or time outside of the calendar has the file's numbers in their stead.
///
/// # Errors
/// External, when numbers of a date can't be read.
pub(super) fn showable(column: &ArrayRef) -> Result<ArrayRef> {
    if beyond(column)?.is_empty() {
        return Ok(Arc::clone(column));
    }
    match column.data_type() {
        DataType::List(item) => showable_list(column.as_list::<i32>(), item),
        DataType::LargeList(item) => showable_list(column.as_list::<i64>(), item),
        DataType::Struct(fields) => {
            let of = column.as_struct();
            let columns = of.columns().iter().map(showable).collect::<Result<Vec<_>>>()?;
            let fields = fields.iter().zip(&columns).map(|(field, column)| typed(field, column)).collect();
            let shown = StructArray::try_new(fields, columns, of.nulls().cloned());
            Ok(Arc::new(shown.external("a struct can't be shown")?))
        }
        _ => numbers(column),
    }
}

fn showable_list<O: OffsetSizeTrait>(list: &GenericListArray<O>, item: &FieldRef) -> Result<ArrayRef> {
    // Values of other lists beside a slice don't count.
    let offsets = list.value_offsets();
    let start = offsets.first().map_or(0, |offset| offset.as_usize());
    let end = offsets.last().map_or(0, |offset| offset.as_usize());
    let values = showable(&list.values().slice(start, end - start))?;
    let offsets = OffsetBuffer::<O>::from_lengths(list.offsets().lengths());
    let shown = GenericListArray::<O>::try_new(typed(item, &values), offsets, values, list.nulls().cloned());
    Ok(Arc::new(shown.external("a list can't be shown")?))
}

fn typed(field: &FieldRef, column: &ArrayRef) -> FieldRef {
    Arc::new(field.as_ref().clone().with_data_type(column.data_type().clone()))
}

/// What the numbers of a date or time count.
pub(super) fn unit(data_type: &DataType) -> Option<&'static str> {
    Some(match data_type {
        DataType::Date32 => "days",
        DataType::Date64 => "milliseconds",
        DataType::Time32(unit) | DataType::Time64(unit) | DataType::Timestamp(unit, _) => match unit {
            TimeUnit::Second => "seconds",
            TimeUnit::Millisecond => "milliseconds",
            TimeUnit::Microsecond => "microseconds",
            TimeUnit::Nanosecond => "nanoseconds",
        },
        _ => return None,
    })
}

fn numbers(column: &ArrayRef) -> Result<ArrayRef> {
    cast(column, &DataType::Int64).external("a time has no number")
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Date32Array, Int64Array, ListArray, RecordBatch, Time32MillisecondArray, Time32SecondArray,
        Time64MicrosecondArray, Time64NanosecondArray, TimestampMicrosecondArray, TimestampMillisecondArray,
        TimestampNanosecondArray, TimestampSecondArray,
    };
    use arrow::datatypes::Date32Type;
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::file::properties::{EnabledStatistics, WriterProperties};

    use super::*;
    use crate::engine::as_text;

    fn last_day() -> i32 {
        i32::try_from(*calendar_days().end()).unwrap()
    }

    /// Each column's second and third value are outside: one above, one below.
    fn columns() -> Vec<ArrayRef> {
        let (day, far) = (DAY_SECONDS, i64::from(last_day()) + 1);
        vec![
            Arc::new(Time32SecondArray::from(vec![86_399, 86_400, -1])),
            Arc::new(Time32MillisecondArray::from(vec![86_399_999, 86_400_000, -1])),
            Arc::new(Time64MicrosecondArray::from(vec![day * 1_000_000 - 1, day * 1_000_000, -1])),
            Arc::new(Time64NanosecondArray::from(vec![0, day * 1_000_000_000, i64::MIN])),
            Arc::new(Date32Array::from(vec![last_day(), i32::MAX, i32::MIN])),
            Arc::new(TimestampSecondArray::from(vec![far * day - 1, far * day, i64::MIN])),
            Arc::new(TimestampMillisecondArray::from(vec![0, far * day * 1_000, i64::MIN]).with_timezone("UTC")),
            Arc::new(TimestampMicrosecondArray::from(vec![0, i64::MAX, i64::MIN])),
        ]
    }

    #[test]
    fn days_and_the_calendar_have_ends() {
        for column in columns() {
            assert_eq!(beyond(&column).unwrap(), [1, 2], "{}", column.data_type());
            let rest = without(&column, &[1, 2]).unwrap();
            assert_eq!((rest.data_type(), rest.null_count()), (column.data_type(), 2));
            assert!(beyond(&rest).unwrap().is_empty());
            assert!(as_text(&rest).unwrap().is_valid(0), "what is within can be shown: {}", column.data_type());
            assert!(as_text(&showable(&column).unwrap()).unwrap().is_valid(1));
        }
        let zoned: ArrayRef = Arc::new(
            TimestampSecondArray::from(vec![*instants(1).start(), *instants(1).end()])
                .with_timezone("Pacific/Kiritimati"),
        );
        assert!(beyond(&zoned).unwrap().is_empty());
        assert_eq!(as_text(&zoned).unwrap().null_count(), 0, "in every zone");
        let all: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![i64::MIN, i64::MAX]));
        assert!(beyond(&all).unwrap().is_empty());
    }

    fn dates(lists: Vec<Option<Vec<Option<i32>>>>) -> ArrayRef {
        Arc::new(ListArray::from_iter_primitive::<Date32Type, _, _>(lists))
    }

    #[test]
    fn dates_in_lists_and_structs_count_for_their_row() {
        let lists =
            dates(vec![Some(vec![Some(1)]), None, Some(vec![]), Some(vec![None, Some(i32::MAX)]), Some(vec![])]);
        assert_eq!(beyond(&lists).unwrap(), [3]);
        assert_eq!(beyond(&lists.slice(3, 2)).unwrap(), [0]);
        assert!(beyond(&without(&lists, &[3]).unwrap()).unwrap().is_empty());
        let text = |row| as_text(&showable(&lists.slice(row, 1)).unwrap()).unwrap().value(0).to_string();
        assert_eq!((text(0), text(3)), ("[\"1970-01-02\"]".to_string(), format!("[null,{}]", i32::MAX)));
        let of: ArrayRef = Arc::new(StructArray::from(vec![(
            Arc::new(arrow::datatypes::Field::new("days", lists.data_type().clone(), true)),
            Arc::clone(&lists),
        )]));
        assert_eq!(beyond(&of).unwrap(), [3]);
        assert_eq!(as_text(&showable(&of.slice(3, 1)).unwrap()).unwrap().value(0), "{\"days\":[null,2147483647]}");
    }

    /// Whether a file of a column `c` between others proves what `c` holds.
    fn proves(column: ArrayRef, statistics: EnabledStatistics) -> bool {
        let other: ArrayRef = Arc::new(Int64Array::from_iter_values(0..column.len() as i64));
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("id", Arc::clone(&other), true),
            ("c", column, true),
            ("more", other, true),
        ]);
        let batch = batch.unwrap();
        let mut bytes = Vec::new();
        let properties = WriterProperties::builder().set_statistics_enabled(statistics).build();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let file = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap();
        let data_type = file.schema().field_with_name("c").unwrap().data_type().clone();
        is_proven(file.metadata(), "c", &data_type)
    }

    #[test]
    fn statistics_prove_what_a_file_holds() {
        for column in columns() {
            let of = column.data_type();
            assert!(!proves(Arc::clone(&column), EnabledStatistics::Chunk), "{of}");
            assert!(proves(column.slice(0, 1), EnabledStatistics::Chunk), "{of}");
            assert!(!proves(column.slice(0, 1), EnabledStatistics::None), "{of}: nothing says it");
            assert!(proves(without(&column, &[0, 1, 2]).unwrap(), EnabledStatistics::Chunk), "{of}: nulls");
            assert!(proves(column.slice(0, 0), EnabledStatistics::Chunk), "{of}: no rows");
        }
        assert!(proves(dates(vec![Some(vec![Some(1), None])]), EnabledStatistics::Chunk));
        assert!(!proves(dates(vec![Some(vec![Some(1), Some(i32::MAX)])]), EnabledStatistics::Chunk));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX]));
        assert!(proves(numbers, EnabledStatistics::None), "no date, nothing to prove");
    }
}
