//! Weighted rows in memory with equal ones added up. Knows no plans.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::Int64Type;

use super::delta::Net;
use super::merge::differing;
use super::stage::filtered;
use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::plan::Interner;

/// A batch, and a row of it.
type Place = (usize, usize);

/// A row where it was first met, and what its weights come to so far.
struct Met {
    place: Place,
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

/// The same for rows of weight 1 or −1 that go by some of their columns: at most one of a value came, and at most one went. None where
/// that isn't so.
///
/// # Errors
/// As [`added_up`].
pub(super) fn netted_by_key(batches: &[RecordBatch], key: &[usize]) -> Result<Option<Net>> {
    let batches: Vec<&RecordBatch> = batches.iter().filter(|batch| batch.num_rows() > 0).collect();
    let Some(first) = batches.first() else { return Ok(Some(Net::default())) };
    let of_key = |batch: &RecordBatch| key.iter().map(|at| Arc::clone(batch.column(*at))).collect::<Vec<_>>();
    let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
    let mut interner = Interner::new(of_key(first).iter().map(|column| column.data_type()), rows)?;
    let (mut came, mut went): (Vec<Option<Place>>, Vec<Option<Place>>) = (Vec::new(), Vec::new());
    for (at, batch) in batches.iter().enumerate() {
        let numbers = interner.intern(&of_key(batch))?;
        came.resize(interner.count(), None);
        went.resize(interner.count(), None);
        for (row, (number, weight)) in numbers.into_iter().zip(weights(batch)?.values()).enumerate() {
            let place = match weight {
                1 => &mut came[number as usize],
                -1 => &mut went[number as usize],
                _ => return Ok(None),
            };
            if place.replace((at, row)).is_some() {
                return Ok(None);
            }
        }
    }
    let columns: Vec<usize> = (0..first.num_columns() - 1).collect();
    let rows = batches.iter().map(|batch| batch.project(&columns).external("a change has no columns"));
    let rows = rows.collect::<Result<Vec<_>>>()?;
    let rows: Vec<&RecordBatch> = rows.iter().collect();
    let taken = |places: &[Place]| interleave_record_batch(&rows, places).external("a change's rows can't be taken");
    let (mut net, mut updated) = (Net::default(), 0);
    let (mut pairs, mut only_came, mut only_went) = (Vec::new(), Vec::new(), Vec::new());
    for places in came.into_iter().zip(went) {
        match places {
            (Some(came), Some(went)) => pairs.push((came, went)),
            (Some(came), None) => only_came.push(came),
            (None, Some(went)) => only_went.push(went),
            (None, None) => {}
        }
    }
    for pairs in pairs.chunks(limits::BATCH_ROWS) {
        let (came, went): (Vec<Place>, Vec<Place>) = pairs.iter().copied().unzip();
        let (came, went) = (taken(&came)?, taken(&went)?);
        let differs = BooleanArray::from(differing(&came, &went)?);
        updated += differs.true_count() as u64;
        if differs.true_count() > 0 {
            net.added.push(filtered(&came, &differs)?);
            net.removed.push(filtered(&went, &differs)?);
        }
    }
    for (places, side) in [(only_came, &mut net.added), (only_went, &mut net.removed)] {
        for places in places.chunks(limits::BATCH_ROWS) {
            side.push(taken(places)?);
        }
    }
    Ok(Some(Net { updated: Some(updated), ..net }))
}

fn weights(batch: &RecordBatch) -> Result<&Int64Array> {
    let last = batch.columns().last().and_then(|column| column.as_primitive_opt::<Int64Type>());
    last.ok_or_else(|| Error::internal("a change has no weights"))
}

fn taken(batches: &[&RecordBatch], met: &[Met]) -> Result<RecordBatch> {
    let places: Vec<Place> = met.iter().map(|met| met.place).collect();
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
    fn rows_that_go_by_a_key_are_netted_as_any() {
        let key = |of: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(of)) };
        let rows = |keys: Vec<i64>, floats: Vec<Option<f64>>, weights: Vec<i64>| {
            let rows = batch(floats, weights);
            let columns =
                [("k", key(keys), true), ("x", rows.column(0).clone(), true), ("w", rows.column(1).clone(), true)];
            RecordBatch::try_from_iter_with_nullable(columns).unwrap()
        };
        let went = rows(vec![1, 2, 3, 4], vec![Some(0.0), Some(f64::NAN), None, Some(4.0)], vec![-1; 4]);
        let came = rows(vec![5, 3, 2, 1], vec![Some(5.0), Some(3.0), Some(f64::NAN), Some(-0.0)], vec![1; 4]);
        let sorted = |batches: &[RecordBatch]| {
            let mut rows: Vec<String> = Vec::new();
            for batch in batches {
                rows.extend((0..batch.num_rows()).map(|row| format!("{:?}", batch.slice(row, 1).columns())));
            }
            rows.sort();
            rows
        };
        let net = netted_by_key(&[went.clone(), came.clone()], &[0]).unwrap().unwrap();
        let as_any = Net::of(&added_up(&[went.clone(), came]).unwrap()).unwrap();
        assert_eq!((sorted(&net.added), sorted(&net.removed)), (sorted(&as_any.added), sorted(&as_any.removed)));
        assert_eq!((net.added[0].num_rows(), net.removed[0].num_rows(), net.updated), (2, 2, Some(2)));
        assert!(netted_by_key(&[went.clone(), went], &[0]).unwrap().is_none(), "two went");
    }

    #[test]
    fn rows_without_columns_add_up_too() {
        let weights: ArrayRef = Arc::new(Int64Array::from(vec![1, 1, -3]));
        let rows = RecordBatch::try_from_iter([("w", weights)]).unwrap();
        let net = added_up(&[rows]).unwrap();
        assert_eq!(net[0].column(0).as_primitive::<Int64Type>().values(), &[-1]);
    }
}
