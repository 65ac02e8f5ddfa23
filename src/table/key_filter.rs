//! Which values a column of some rows can't have, told without the rows: a split-block Bloom filter a column (Putze, Sanders and
//! Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", WEA 2007, as Parquet stores them). Knows no relation.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BooleanArray, BooleanBufferBuilder, PrimitiveArray,
    RecordBatch, StringArray, downcast_primitive_array,
};
use arrow::compute::filter;
use arrow::compute::kernels::cmp::distinct;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, ToByteSlice};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::bloom_filter::Sbbf;

use super::{DataFile, Warehouse, write_files};
use crate::error::{Error, Result, ResultExt};
use crate::limits;

/// The values that a column may have. Null is none of them.
#[derive(Debug)]
pub struct KeyFilter {
    /// Values of one type are hashed alike.
    data_type: String,
    filter: Sbbf,
}

impl KeyFilter {
    /// Which of `values` may be in the column; null may. None where they are of another type than the column.
    pub fn may_have(&self, values: &ArrayRef) -> Option<BooleanArray> {
        if type_of(values.data_type())? != self.data_type {
            return None;
        }
        let mut may = Vec::with_capacity(values.len());
        each(values, |value| may.push(value.is_none_or(|value| self.filter.check(value))));
        Some(BooleanArray::from(may))
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.filter.num_blocks() * BLOCK_BYTES
    }
}

/// Takes in a column's values, until it shows that a filter of them would be of no use.
pub struct KeyFilterBuilder {
    data_type: String,
    rows: u64,
    /// The first values, until it is seen how often they repeat; then none.
    first: Vec<ArrayRef>,
    /// Rows that the first values were taken of.
    first_rows: u64,
    filter: Option<Sbbf>,
    /// Of values that were looked at before they were put in: how many there were, and how many of them were new.
    seen: u64,
    new: u64,
    is_useless: bool,
}

/// Bytes of a filter's block.
const BLOCK_BYTES: usize = 32;

/// Values of a batch that are looked at before they are put in.
const LOOKED_AT: usize = 256;

/// Values without those that equal the one before: sorted files have equal ones side by side.
///
/// # Errors
/// External: memory.
pub fn without_repeats(values: &ArrayRef) -> Result<ArrayRef> {
    if values.len() < 2 {
        return Ok(Arc::clone(values));
    }
    let (before, after) = (values.slice(0, values.len() - 1), values.slice(1, values.len() - 1));
    let differs = distinct(&before, &after).external("keys can't be compared")?;
    let mut keep = BooleanBufferBuilder::new(values.len());
    keep.append(true);
    keep.append_buffer(differs.values());
    filter(values, &BooleanArray::new(keep.finish(), None)).external("keys can't be taken")
}

impl KeyFilterBuilder {
    /// For at most `rows` values of a type; none where there are no filters of it.
    pub fn new(data_type: &DataType, rows: u64) -> Option<Self> {
        let data_type = type_of(data_type)?;
        Some(Self { data_type, rows, first: vec![], first_rows: 0, filter: None, seen: 0, new: 0, is_useless: false })
    }

    /// Takes in the values of so many rows, maybe [`without_repeats`]; whether more of them are wanted.
    ///
    /// # Errors
    /// A bug: the bounds are out of range.
    pub fn add(&mut self, values: &ArrayRef, rows: usize) -> Result<bool> {
        if self.is_useless {
            return Ok(false);
        }
        if self.filter.is_some() {
            self.put(values);
        } else {
            self.first.push(Arc::clone(values));
            self.first_rows += rows as u64;
            if self.first_rows >= limits::KEY_FILTER_WINDOW {
                self.lay_out()?;
            }
        }
        Ok(!self.is_useless)
    }

    /// Makes room for as many values as there will be, going by the first ones, and puts these in.
    fn lay_out(&mut self) -> Result<()> {
        let first = std::mem::take(&mut self.first);
        let values: u64 = first.iter().map(|values| values.len() as u64).sum();
        let all = self.rows.saturating_mul(values) / self.first_rows.max(1);
        let filter = Sbbf::new_with_ndv_fpp(all.clamp(1, limits::KEY_FILTER_VALUES), limits::KEY_FILTER_ERROR);
        self.filter = Some(filter.external("a key filter can't be made")?);
        first.iter().for_each(|values| self.put(values));
        Ok(())
    }

    fn put(&mut self, values: &ArrayRef) {
        let Some(filter) = &mut self.filter else { return };
        let looked_at = values.slice(0, values.len().min(LOOKED_AT));
        each(&looked_at, |value| self.new += u64::from(value.is_some_and(|value| !filter.check(value))));
        self.seen += looked_at.len() as u64;
        each(values, |value| {
            if let Some(value) = value {
                filter.insert(value);
            }
        });
        if self.seen >= limits::KEY_FILTER_LOOKED_AT {
            self.is_useless = self.new * limits::KEY_FILTER_REPEATS < self.seen;
            (self.seen, self.new) = (0, 0);
        }
    }

    /// The filter, as small as it can be; none where almost any value is in the column.
    ///
    /// # Errors
    /// A bug: the bounds are out of range.
    pub fn build(mut self) -> Result<Option<KeyFilter>> {
        if self.filter.is_none() {
            self.lay_out()?;
        }
        let Some(mut filter) = self.filter.filter(|_| !self.is_useless) else { return Ok(None) };
        filter.fold_to_target_fpp(limits::KEY_FILTER_ERROR);
        Ok(Some(KeyFilter { data_type: self.data_type, filter }))
    }
}

/// How values of a type are known again; none for types without filters: of a float, equal values have different bits.
fn type_of(data_type: &DataType) -> Option<String> {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some("text".into()),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Some("bytes".into()),
        other if other.is_primitive() && !other.is_floating() => Some(other.to_string()),
        _ => None,
    }
}

/// Calls `f` with the bytes of each value.
fn each(values: &ArrayRef, mut f: impl FnMut(Option<&[u8]>)) {
    fn natives<T: ArrowPrimitiveType>(values: &PrimitiveArray<T>, f: &mut impl FnMut(Option<&[u8]>)) {
        for value in values {
            match value {
                Some(value) => f(Some(std::slice::from_ref(&value).to_byte_slice())),
                None => f(None),
            }
        }
    }
    let values = values.as_ref();
    downcast_primitive_array!(
        values => natives(values, &mut f),
        DataType::Utf8 => values.as_string::<i32>().iter().for_each(|value| f(value.map(str::as_bytes))),
        DataType::LargeUtf8 => values.as_string::<i64>().iter().for_each(|value| f(value.map(str::as_bytes))),
        DataType::Utf8View => values.as_string_view().iter().for_each(|value| f(value.map(str::as_bytes))),
        DataType::Binary => values.as_binary::<i32>().iter().for_each(&mut f),
        DataType::LargeBinary => values.as_binary::<i64>().iter().for_each(&mut f),
        DataType::BinaryView => values.as_binary_view().iter().for_each(&mut f),
        _ => {}
    );
}

/// Columns of a file of filters.
fn schema() -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![
        text("column"),
        text("data_type"),
        // As Parquet has a Bloom filter, its header first.
        Field::new("filter", DataType::Binary, false),
        // Of the filter: one that was damaged would hide rows.
        text("blake3"),
    ]))
}

/// Writes the filters of some rows by column, as [`write_files`] does; none: no files.
///
/// # Errors
/// External: the store.
pub async fn write_key_filters(
    warehouse: &Warehouse,
    folder: &str,
    prefix: &str,
    filters: &BTreeMap<String, KeyFilter>,
) -> Result<Vec<DataFile>> {
    if filters.is_empty() {
        return Ok(Vec::new());
    }
    let mut bytes = Vec::with_capacity(filters.len());
    for filter in filters.values() {
        let mut written = Vec::with_capacity(filter.bytes());
        filter.filter.write(&mut written).external("a key filter can't be written")?;
        bytes.push(written);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(filters.keys())),
        Arc::new(StringArray::from_iter_values(filters.values().map(|filter| &filter.data_type))),
        Arc::new(BinaryArray::from_iter_values(&bytes)),
        Arc::new(StringArray::from_iter_values(bytes.iter().map(|bytes| blake3::hash(bytes).to_hex().to_string()))),
    ];
    let batch = RecordBatch::try_new(schema(), columns).external("key filters don't fit together")?;
    let stream = RecordBatchStreamAdapter::new(schema(), futures::stream::iter([Ok(batch)]));
    write_files(warehouse, folder, &schema(), &[], prefix, vec![Box::pin(stream)]).await
}

/// The filters that were written as `files`, by column.
///
/// # Errors
/// External: a file is gone or damaged.
pub async fn read_key_filters(
    warehouse: &Warehouse,
    folder: &str,
    files: &[DataFile],
) -> Result<BTreeMap<String, KeyFilter>> {
    let mut filters = BTreeMap::new();
    for file in files {
        let path = format!("{folder}/{}", file.path);
        let damaged = || Error::external("a file of key filters is damaged").with("file", &path);
        let bytes = warehouse
            .get(&path)
            .await?
            .ok_or_else(|| Error::external("a file of key filters is gone").with("file", &path))?;
        let rows = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
        for batch in rows.map_err(|e| damaged().caused_by(e))? {
            let batch = batch.map_err(|e| damaged().caused_by(e))?;
            let text = |at: usize| {
                batch.columns().get(at).and_then(|column| arrow::compute::cast(column, &DataType::Utf8).ok())
            };
            let bits = batch.columns().get(2).and_then(|column| arrow::compute::cast(column, &DataType::Binary).ok());
            let (Some(names), Some(types), Some(bits), Some(hashes)) = (text(0), text(1), bits, text(3)) else {
                return Err(damaged());
            };
            let (names, types, hashes) =
                (names.as_string::<i32>(), types.as_string::<i32>(), hashes.as_string::<i32>());
            let bits = bits.as_binary::<i32>();
            for row in 0..batch.num_rows() {
                let bytes = bits.value(row);
                if blake3::hash(bytes).to_hex().as_str() != hashes.value(row) {
                    return Err(damaged());
                }
                let filter = Sbbf::from_bytes(bytes).map_err(|e| damaged().caused_by(e))?;
                let data_type = types.value(row).to_owned();
                filters.insert(names.value(row).to_owned(), KeyFilter { data_type, filter });
            }
        }
    }
    Ok(filters)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Int64Array};

    use super::*;

    fn filter(values: &ArrayRef) -> KeyFilter {
        let mut builder = KeyFilterBuilder::new(values.data_type(), values.len() as u64).unwrap();
        builder.add(&without_repeats(values).unwrap(), values.len()).unwrap();
        builder.build().unwrap().unwrap()
    }

    fn count(filter: &KeyFilter, values: ArrayRef) -> usize {
        filter.may_have(&values).unwrap().true_count()
    }

    #[test]
    fn no_value_that_is_there_is_denied_and_few_others_are_not() {
        let ids =
            |from: i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values((from..from + 50_000).map(|n| n * 7))) };
        let numbers = filter(&ids(0));
        assert_eq!(count(&numbers, ids(0)), 50_000);
        let wrong = count(&numbers, ids(50_000));
        assert!(wrong < 100, "{wrong} of 50000");
        let nulls: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(-1)]));
        assert_eq!(numbers.may_have(&nulls).unwrap(), BooleanArray::from(vec![true, false]));

        let words =
            |of: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values((0..1000).map(|n| format!("{of} {n}")))) };
        let texts = filter(&words("a"));
        let views = arrow::compute::cast(&words("a"), &DataType::Utf8View).unwrap();
        assert_eq!((count(&texts, words("a")), count(&texts, views)), (1000, 1000));
        assert!(count(&texts, words("b")) < 5);
        assert!(texts.may_have(&ids(0)).is_none(), "another type tells nothing");
    }

    #[test]
    fn types_are_told_apart_and_columns_that_repeat_are_given_up() {
        let decimal = |scale| -> ArrayRef {
            Arc::new(Decimal128Array::from(vec![100]).with_precision_and_scale(10, scale).unwrap())
        };
        assert!(filter(&decimal(2)).may_have(&decimal(2)).unwrap().value(0));
        assert!(filter(&decimal(2)).may_have(&decimal(1)).is_none());
        assert!(KeyFilterBuilder::new(&DataType::Float64, 10).is_none());

        let few: ArrayRef = Arc::new(Int64Array::from_iter_values((0..8192).map(|n| n % 100)));
        let mut builder = KeyFilterBuilder::new(few.data_type(), 1 << 20).unwrap();
        let batches = (0..128).take_while(|_| builder.add(&few, few.len()).unwrap()).count();
        assert!(batches < 64, "{batches}");
        assert!(builder.build().unwrap().is_none());
    }

    #[test]
    fn repeats_side_by_side_are_left_out() {
        let values: ArrayRef =
            Arc::new(Int64Array::from(vec![Some(1), Some(1), None, None, Some(1), Some(2), Some(2)]));
        let without: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(1), Some(2)]));
        assert_eq!(&without_repeats(&values).unwrap(), &without);
        assert_eq!(&without_repeats(&without).unwrap(), &without);
    }
}
