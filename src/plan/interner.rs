//! Numbers for rows by their values, so that what is known of a row can be held in an array. Knows nothing of what rows mean.

use std::hash::BuildHasher;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::error::{Error, Result, ResultExt};

/// Gives equal rows the same number, in the order in which they are first met. Floats are equal by their bits, nulls to one another.
pub struct Interner {
    converter: RowConverter,
    hasher: DefaultHashBuilder,
    met: Met,
}

/// The rows that were met, as the converter writes them.
enum Met {
    /// Rows that are all of one length, and short: looking one up reads one place in memory.
    Short(HashTable<Short>),
    Long(Long),
}

/// A row's bytes, zeros behind them.
type Bytes = [u64; 3];

struct Short {
    bytes: Bytes,
    number: u32,
}

struct Long {
    /// Rows of which some were new when they were met.
    rows: Vec<Rows>,
    /// Where each row was first met: in which of `rows`, and there.
    places: Vec<(u32, u32)>,
    numbers: HashTable<Numbered>,
}

/// A number, and its row's hash, so that a growing table needn't look at rows again.
struct Numbered {
    hash: u64,
    number: u32,
}

impl Interner {
    /// For rows of these types, about `capacity` different ones.
    ///
    /// # Errors
    /// External, for a type whose values can't be compared.
    pub fn new<'a>(types: impl IntoIterator<Item = &'a DataType>, capacity: usize) -> Result<Self> {
        let types: Vec<&DataType> = types.into_iter().collect();
        let length: Option<usize> = types.iter().map(|data_type| length(data_type)).sum();
        let fields = types.into_iter().map(|data_type| SortField::new(data_type.clone())).collect();
        let met = match length {
            Some(length) if length <= size_of::<Bytes>() => Met::Short(HashTable::with_capacity(capacity)),
            _ => Met::Long(Long {
                rows: Vec::new(),
                places: Vec::with_capacity(capacity),
                numbers: HashTable::with_capacity(capacity),
            }),
        };
        let converter = RowConverter::new(fields).external("rows of these types can't be compared")?;
        Ok(Self { converter, hasher: DefaultHashBuilder::default(), met })
    }

    /// How many different rows were met; their numbers are below it.
    pub fn count(&self) -> usize {
        match &self.met {
            Met::Short(numbers) => numbers.len(),
            Met::Long(long) => long.places.len(),
        }
    }

    /// The numbers of rows, whose columns are of the types that it was made for, new ones where they are new.
    ///
    /// # Errors
    /// External: the columns are of other types. A bug: more rows than 32 bits can number.
    pub fn intern(&mut self, columns: &[ArrayRef]) -> Result<Vec<u32>> {
        let rows = self.rows(columns)?;
        let hasher = &self.hasher;
        match &mut self.met {
            Met::Short(numbers) => hashed(&rows, hasher)
                .into_iter()
                .map(|(bytes, hash)| {
                    let is_it = |short: &Short| short.bytes == bytes;
                    let number = u32::try_from(numbers.len()).map_err(|_| too_many())?;
                    match numbers.entry(hash, is_it, |short| hasher.hash_one(short.bytes)) {
                        Entry::Occupied(known) => Ok(known.get().number),
                        Entry::Vacant(place) => {
                            place.insert(Short { bytes, number });
                            Ok(number)
                        }
                    }
                })
                .collect(),
            Met::Long(long) => long.intern(rows, hasher),
        }
    }

    /// Bytes in memory, about.
    pub fn bytes(&self) -> usize {
        match &self.met {
            Met::Short(numbers) => numbers.capacity() * size_of::<Short>(),
            Met::Long(long) => {
                let rows = long.rows.iter().map(Rows::size).sum::<usize>();
                rows + long.places.capacity() * size_of::<(u32, u32)>()
                    + long.numbers.capacity() * size_of::<Numbered>()
            }
        }
    }

    /// The numbers of rows as far as they were met.
    ///
    /// # Errors
    /// External: the columns are of other types.
    pub fn find(&self, columns: &[ArrayRef]) -> Result<Vec<Option<u32>>> {
        let rows = self.rows(columns)?;
        Ok(match &self.met {
            Met::Short(numbers) => hashed(&rows, &self.hasher)
                .into_iter()
                .map(|(bytes, hash)| numbers.find(hash, |short| short.bytes == bytes).map(|short| short.number))
                .collect(),
            Met::Long(long) => (0..rows.num_rows())
                .map(|row| {
                    let bytes = rows.row(row).data();
                    long.find(self.hasher.hash_one(bytes), bytes)
                })
                .collect(),
        })
    }

    fn rows(&self, columns: &[ArrayRef]) -> Result<Rows> {
        self.converter.convert_columns(columns).external("a row can't be compared")
    }
}

impl Long {
    fn intern(&mut self, rows: Rows, hasher: &DefaultHashBuilder) -> Result<Vec<u32>> {
        let batch = u32::try_from(self.rows.len()).map_err(|_| too_many())?;
        let (count, known) = (rows.num_rows(), self.places.len());
        self.rows.push(rows);
        let mut given = Vec::with_capacity(count);
        for row in 0..u32::try_from(count).map_err(|_| too_many())? {
            let bytes = self.bytes((batch, row));
            let hash = hasher.hash_one(bytes);
            let number = match self.find(hash, bytes) {
                Some(number) => number,
                None => {
                    let number = u32::try_from(self.places.len()).map_err(|_| too_many())?;
                    self.places.push((batch, row));
                    self.numbers.insert_unique(hash, Numbered { hash, number }, |numbered| numbered.hash);
                    number
                }
            };
            given.push(number);
        }
        if self.places.len() == known {
            self.rows.pop();
        }
        Ok(given)
    }

    fn find(&self, hash: u64, bytes: &[u8]) -> Option<u32> {
        let is_it =
            |numbered: &Numbered| numbered.hash == hash && self.bytes(self.places[numbered.number as usize]) == bytes;
        self.numbers.find(hash, is_it).map(|numbered| numbered.number)
    }

    fn bytes(&self, (batch, row): (u32, u32)) -> &[u8] {
        self.rows[batch as usize].row(row as usize).data()
    }
}

fn too_many() -> Error {
    Error::internal("more rows than can be numbered")
}

/// Bytes that a value of a type takes in a row; none where that hangs on the value.
fn length(data_type: &DataType) -> Option<usize> {
    // One byte in front tells of nulls.
    match data_type {
        DataType::Boolean => Some(2),
        other => other.primitive_width().map(|width| width + 1),
    }
}

/// Short rows and their hashes, all before the first one is looked up: with little between them, many places of a large table are waited
/// for at once.
fn hashed(rows: &Rows, hasher: &DefaultHashBuilder) -> Vec<(Bytes, u64)> {
    let each = rows.iter().map(|row| {
        let mut bytes = [0; size_of::<Bytes>()];
        let row = row.data();
        bytes[..row.len()].copy_from_slice(row);
        let (words, _) = bytes.as_chunks::<8>();
        let bytes = [0, 1, 2].map(|at| u64::from_le_bytes(words[at]));
        (bytes, hasher.hash_one(bytes))
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, StringArray};
    use arrow::datatypes::DataType;

    use super::Interner;

    /// The same column twice: short rows, and with a text beside them long ones.
    fn columns(values: &[Option<f64>]) -> [Vec<ArrayRef>; 2] {
        let floats: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a"; values.len()]));
        [vec![Arc::clone(&floats)], vec![floats, texts]]
    }

    #[test]
    fn equal_rows_have_one_number() {
        for (at, types) in [&[DataType::Float64][..], &[DataType::Float64, DataType::Utf8]].into_iter().enumerate() {
            let column = |values: &[Option<f64>]| columns(values)[at].clone();
            let mut interner = Interner::new(types, 0).unwrap();
            let first = column(&[Some(0.0), Some(-0.0), None, Some(0.0)]);
            assert_eq!(interner.intern(&first).unwrap(), [0, 1, 2, 0]);
            assert_eq!(interner.intern(&column(&[None, Some(0.0)])).unwrap(), [2, 0]);
            assert_eq!(interner.find(&column(&[Some(7.0), None])).unwrap(), [None, Some(2)]);
            assert_eq!(interner.intern(&column(&[Some(7.0), Some(-0.0)])).unwrap(), [3, 1]);
            assert_eq!(interner.count(), 4);
        }
    }
}
