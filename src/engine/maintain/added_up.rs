//! Weighted rows in memory with equal ones added up. Knows no plans.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::Int64Type;

use crate::engine::interner::Interner;
use crate::error::{Error, Result, ResultExt};
use crate::limits;

/// A row where it was first met, and what its weights come to so far.
struct Met {
    place: (usize, usize),
    weight: i64,
}

/// The rows of `batches`, whose last column is the weight, with equal ones added up; those that come to nothing are gone. Floats
/// are equal by their bits, nulls to one another. Batches have the same types, column by column.
///
/// # Errors
/// External, for a type whose values can't be compared.
pub(super) fn added_up(batches: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
    let batches: Vec<&RecordBatch> = batches.iter().filter(|batch| batch.num_rows() > 0).collect();
    let Some(first) = batches.first() else { return Ok(vec![]) };
    let width = first.num_columns().saturating_sub(1);
    if width == 0 {
        let weight: i64 =
            batches.iter().map(|batch| Ok(weights(batch)?.values().iter().sum::<i64>())).sum::<Result<_>>()?;
        return if weight == 0 { Ok(vec![]) } else { Ok(vec![taken(&batches, &[Met { place: (0, 0), weight }])?]) };
    }
    let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
    let types = first.columns()[..width].iter().map(|column| column.data_type());
    let mut interner = Interner::new(types, rows)?;
    let mut met: Vec<Met> = Vec::with_capacity(rows);
    for (at, batch) in batches.iter().enumerate() {
        let numbers = interner.intern(&batch.columns()[..width])?;
        for (row, (number, weight)) in numbers.into_iter().zip(weights(batch)?.values()).enumerate() {
            match met.get_mut(number as usize) {
                Some(known) => known.weight += weight,
                None => met.push(Met { place: (at, row), weight: *weight }),
            }
        }
    }
    met.retain(|met| met.weight != 0);
    met.chunks(limits::BATCH_ROWS).map(|met| taken(&batches, met)).collect()
}

fn weights(batch: &RecordBatch) -> Result<&Int64Array> {
    let last = batch.columns().last().and_then(|column| column.as_primitive_opt::<Int64Type>());
    last.ok_or_else(|| Error::internal("a change has no weights"))
}

fn taken(batches: &[&RecordBatch], met: &[Met]) -> Result<RecordBatch> {
    let places: Vec<(usize, usize)> = met.iter().map(|met| met.place).collect();
    let rows = interleave_record_batch(batches, &places).external("a change's rows can't be taken")?;
    let mut columns = rows.columns().to_vec();
    if let Some(last) = columns.last_mut() {
        *last = Arc::new(Int64Array::from_iter_values(met.iter().map(|met| met.weight)));
    }
    RecordBatch::try_new(rows.schema(), columns).external("a change's rows don't fit together")
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Float64Array};

    use super::*;

    fn batch(floats: Vec<Option<f64>>, weights: Vec<i64>) -> RecordBatch {
        let floats: ArrayRef = Arc::new(Float64Array::from(floats));
        let weights: ArrayRef = Arc::new(Int64Array::from(weights));
        RecordBatch::try_from_iter_with_nullable([("x", floats, true), ("w", weights, true)]).unwrap()
    }

    #[test]
    fn equal_rows_add_up_by_their_bits() {
        let one = batch(vec![Some(0.0), Some(-0.0), None, Some(f64::NAN), Some(2.0)], vec![1, 2, 3, 4, 5]);
        let other = batch(vec![Some(f64::NAN), None, Some(0.0), Some(2.0)], vec![1, -3, 1, -4]);
        let net = added_up(&[one, batch(vec![], vec![]), other]).unwrap();
        let expected = batch(vec![Some(0.0), Some(-0.0), Some(f64::NAN), Some(2.0)], vec![2, 2, 5, 1]);
        assert_eq!(net.len(), 1);
        let bits = |batch: &RecordBatch| {
            let column = batch.column(0).as_primitive::<arrow::datatypes::Float64Type>();
            column.values().iter().map(|value| value.to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(bits(&net[0]), bits(&expected));
        assert_eq!(net[0].column(1), expected.column(1));
        assert!(added_up(&[]).unwrap().is_empty());
    }

    #[test]
    fn rows_without_columns_add_up_too() {
        let weights: ArrayRef = Arc::new(Int64Array::from(vec![1, 1, -3]));
        let rows = RecordBatch::try_from_iter([("w", weights)]).unwrap();
        let net = added_up(&[rows]).unwrap();
        assert_eq!(net[0].column(0).as_primitive::<Int64Type>().values(), &[-1]);
    }
}
