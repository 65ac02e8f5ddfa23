//! Numbers for rows by their values, so that what is known of a row can be held in an array. Knows nothing of what rows mean.

use std::hash::BuildHasher;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::error::{Error, Result, ResultExt};

/// Gives equal rows the same number, in the order in which they are first met. Floats are equal by their bits, nulls to one another.
pub struct Interner {
    converter: RowConverter,
    hasher: DefaultHashBuilder,
    /// Rows of which some were new when they were met.
    met: Vec<Rows>,
    /// Where each row was first met: in which of `met`, and there.
    places: Vec<(u32, u32)>,
    numbers: HashTable<Entry>,
}

/// A number, and its row's hash, so that a growing table needn't look at rows again.
struct Entry {
    hash: u64,
    number: u32,
}

impl Interner {
    /// For rows of these types, about `capacity` different ones.
    ///
    /// # Errors
    /// External, for a type whose values can't be compared.
    pub fn new<'a>(types: impl IntoIterator<Item = &'a DataType>, capacity: usize) -> Result<Self> {
        let fields = types.into_iter().map(|data_type| SortField::new(data_type.clone())).collect();
        Ok(Self {
            converter: RowConverter::new(fields).external("rows of these types can't be compared")?,
            hasher: DefaultHashBuilder::default(),
            met: Vec::new(),
            places: Vec::with_capacity(capacity),
            numbers: HashTable::with_capacity(capacity),
        })
    }

    /// How many different rows were met; their numbers are below it.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// The numbers of rows, whose columns are of the types that it was made for, new ones where they are new.
    ///
    /// # Errors
    /// External: the columns are of other types. A bug: more rows than 32 bits can number.
    pub fn intern(&mut self, columns: &[ArrayRef]) -> Result<Vec<u32>> {
        let too_many = || Error::internal("more rows than can be numbered");
        let batch = u32::try_from(self.met.len()).map_err(|_| too_many())?;
        self.met.push(self.rows(columns)?);
        let Self { hasher, met, places, numbers, .. } = self;
        let rows = &met[batch as usize];
        let known = places.len();
        let mut given = Vec::with_capacity(rows.num_rows());
        for row in 0..u32::try_from(rows.num_rows()).map_err(|_| too_many())? {
            let bytes = rows.row(row as usize).data();
            let hash = hasher.hash_one(bytes);
            let number = match found(numbers, hash, bytes, met, places) {
                Some(number) => number,
                None => {
                    let number = u32::try_from(places.len()).map_err(|_| too_many())?;
                    places.push((batch, row));
                    numbers.insert_unique(hash, Entry { hash, number }, |entry| entry.hash);
                    number
                }
            };
            given.push(number);
        }
        if places.len() == known {
            met.pop();
        }
        Ok(given)
    }

    /// The numbers of rows as far as they were met.
    ///
    /// # Errors
    /// External: the columns are of other types.
    pub fn find(&self, columns: &[ArrayRef]) -> Result<Vec<Option<u32>>> {
        let rows = self.rows(columns)?;
        let number = |row: usize| {
            let bytes = rows.row(row).data();
            found(&self.numbers, self.hasher.hash_one(bytes), bytes, &self.met, &self.places)
        };
        Ok((0..rows.num_rows()).map(number).collect())
    }

    fn rows(&self, columns: &[ArrayRef]) -> Result<Rows> {
        self.converter.convert_columns(columns).external("a row can't be compared")
    }
}

fn found(numbers: &HashTable<Entry>, hash: u64, bytes: &[u8], met: &[Rows], places: &[(u32, u32)]) -> Option<u32> {
    let is_it = |entry: &Entry| {
        let (batch, row) = places[entry.number as usize];
        entry.hash == hash && met[batch as usize].row(row as usize).data() == bytes
    };
    numbers.find(hash, is_it).map(|entry| entry.number)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array};
    use arrow::datatypes::DataType;

    use super::Interner;

    fn column(values: Vec<Option<f64>>) -> Vec<ArrayRef> {
        vec![Arc::new(Float64Array::from(values))]
    }

    #[test]
    fn equal_rows_have_one_number() {
        let mut interner = Interner::new([&DataType::Float64], 0).unwrap();
        let first = column(vec![Some(0.0), Some(-0.0), None, Some(0.0)]);
        assert_eq!(interner.intern(&first).unwrap(), [0, 1, 2, 0]);
        assert_eq!(interner.intern(&column(vec![None, Some(0.0)])).unwrap(), [2, 0]);
        assert_eq!(interner.find(&column(vec![Some(7.0), None])).unwrap(), [None, Some(2)]);
        assert_eq!(interner.intern(&column(vec![Some(7.0), Some(-0.0)])).unwrap(), [3, 1]);
        assert_eq!(interner.count(), 4);
    }
}
