//! Group states merged with how they change. Knows no plans: a part's values are merged by its aggregate alone.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, make_comparator};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{SortOptions, cast, interleave_record_batch, or, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{AggregateUDF, EmitTo, GroupsAccumulator};
use datafusion::physical_expr::GroupsAccumulatorAdapter;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::Column;

use super::delta::Net;
use super::memory::bytes_of;
use super::stage::{filtered, integers};
use crate::engine::{conform, failure};
use crate::error::{Error, Result, ResultExt};
use crate::plan::Interner;
use crate::plan::maintain::{Merge, Stage};

/// Groups that changed, as they were and as they are.
pub(super) struct Merged {
    /// What they were merged of.
    old: Vec<RecordBatch>,
    /// For each row of `old`, which row of `now` it went into; none where its group didn't change.
    went_to: Vec<Vec<Option<u32>>>,
    /// A row a group; groups that are left without rows are there, too, and count none.
    now: RecordBatch,
    /// Which rows of `now` have rows, or are of the one group that is always there.
    is_left: BooleanArray,
}

/// The rows of `old` merged with those of `changed`, by their group; groups that `changed` lacks are left out. Both have the
/// state's columns, by position, maybe more behind them.
///
/// # Errors
/// External: values that can't be merged. A bug: a group comes to fewer rows than none.
pub(super) fn merged(stage: &Stage, old: &[RecordBatch], changed: &[RecordBatch]) -> Result<Merged> {
    let (width, first) = (stage.schema.fields().len(), stage.group.len());
    let of_state = |batches: &[RecordBatch]| -> Result<Vec<RecordBatch>> {
        let places: Vec<usize> = (0..width).collect();
        let part = |batch: &RecordBatch| batch.project(&places).external("a state lacks columns");
        batches.iter().map(|batch| conform(&part(batch)?, &stage.schema)).collect()
    };
    let (old, changed) = (of_state(old)?, of_state(changed)?);
    let rows = changed.iter().map(RecordBatch::num_rows).sum();
    if rows == 0 {
        let went_to = old.iter().map(|batch| vec![None; batch.num_rows()]).collect();
        let now = RecordBatch::new_empty(Arc::clone(&stage.schema));
        return Ok(Merged { old, went_to, now, is_left: BooleanArray::from(Vec::<bool>::new()) });
    }
    let mut groups = Groups::new(stage, rows)?;
    let numbers = changed.iter().map(|batch| groups.numbers(batch)).collect::<Result<Vec<_>>>()?;
    let went_to = old.iter().map(|batch| groups.known(batch)).collect::<Result<Vec<_>>>()?;
    let merging = old.iter().zip(&went_to).map(|(batch, to)| merging(batch, to)).collect::<Result<Vec<_>>>()?;

    let mut columns = groups.columns(&changed, &numbers)?;
    for at in first..width {
        let merge = (at > first).then(|| &stage.parts[at - first - 1].merge);
        let func = match merge {
            Some(Merge::Of(func)) => Arc::clone(func),
            _ => sum_udaf(),
        };
        let mut values = Values::new(&func, stage.schema.field(at).data_type())?;
        for (batch, numbers) in changed.iter().zip(&numbers) {
            values.add(batch.column(at), numbers)?;
        }
        for (batch, numbers) in &merging {
            values.add(batch.column(at), numbers)?;
        }
        columns.push(values.finish()?);
    }
    let fields = columns.iter().zip(stage.schema.fields());
    let fields = fields.map(|(column, field)| Field::new(field.name(), column.data_type().clone(), true));
    let options = RecordBatchOptions::new().with_row_count(Some(groups.len()));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let now = RecordBatch::try_new_with_options(schema, columns, &options);
    let now = conform(&now.external("merged groups don't fit together")?, &stage.schema)?;
    let counts = integers(&now, first)?;
    if counts.values().iter().any(|count| *count < 0) {
        return Err(Error::internal("rows went that a state never had").with("stage", &stage.name));
    }
    let is_left = counts.values().iter().map(|count| Some(first == 0 || *count > 0)).collect();
    Ok(Merged { old, went_to, now, is_left })
}

impl Merged {
    /// Bytes of the groups as they are.
    pub(super) fn bytes(&self) -> usize {
        bytes_of(&self.now)
    }

    /// The groups that have rows, with the state's columns.
    pub(super) fn left(&self) -> Result<RecordBatch> {
        filtered(&self.now, &self.is_left)
    }

    /// The rows that were to be merged into whose groups didn't change.
    pub(super) fn unchanged(&self) -> Result<Vec<RecordBatch>> {
        let parts = self.old.iter().zip(&self.went_to).map(|(batch, went_to)| {
            filtered(batch, &went_to.iter().map(|to| Some(to.is_none())).collect::<BooleanArray>())
        });
        parts.collect()
    }

    /// How the state changes, in which each group stood at most once.
    pub(super) fn net(&self) -> Result<Net> {
        let mut places = vec![None; self.now.num_rows()];
        for (batch, went_to) in self.went_to.iter().enumerate() {
            for (row, to) in went_to.iter().enumerate() {
                if let Some(to) = to {
                    places[*to as usize] = Some((batch, row));
                }
            }
        }
        let (had, places): (Vec<u32>, Vec<(usize, usize)>) =
            places.iter().enumerate().filter_map(|(at, place)| Some((at as u32, (*place)?))).unzip();
        let mut came: Vec<bool> = self.is_left.values().iter().collect();
        let mut removed = vec![];
        if !had.is_empty() {
            let batches: Vec<&RecordBatch> = self.old.iter().collect();
            let before = interleave_record_batch(&batches, &places).external("a state's rows can't be taken")?;
            let now = take_record_batch(&self.now, &UInt32Array::from(had.clone()));
            let mut went = differing(&before, &now.external("a state's rows can't be taken")?)?;
            went = went.into_iter().zip(&had).map(|(differs, at)| differs || !came[*at as usize]).collect();
            for (went, at) in went.iter().zip(had) {
                came[at as usize] &= went;
            }
            removed.push(filtered(&before, &BooleanArray::from(went))?);
        }
        let added = vec![filtered(&self.now, &BooleanArray::from(came))?];
        let is_there = |batch: &RecordBatch| batch.num_rows() > 0;
        Ok(Net {
            added: added.into_iter().filter(is_there).collect(),
            removed: removed.into_iter().filter(is_there).collect(),
            updated: None,
        })
    }
}

/// The groups of a change, numbered.
struct Groups {
    /// None: there is but one.
    interner: Option<Interner>,
    width: usize,
}

impl Groups {
    fn new(stage: &Stage, rows: usize) -> Result<Self> {
        let width = stage.group.len();
        let types = stage.schema.fields().iter().take(width).map(|field| field.data_type());
        let interner = (width > 0).then(|| Interner::new(types, rows)).transpose()?;
        Ok(Self { interner, width })
    }

    fn len(&self) -> usize {
        self.interner.as_ref().map_or(1, Interner::count)
    }

    fn numbers(&mut self, batch: &RecordBatch) -> Result<Vec<usize>> {
        match &mut self.interner {
            Some(interner) => {
                let numbers = interner.intern(&batch.columns()[..self.width])?;
                Ok(numbers.into_iter().map(|number| number as usize).collect())
            }
            None => Ok(vec![0; batch.num_rows()]),
        }
    }

    fn known(&self, batch: &RecordBatch) -> Result<Vec<Option<u32>>> {
        match &self.interner {
            Some(interner) => interner.find(&batch.columns()[..self.width]),
            None => Ok(vec![Some(0); batch.num_rows()]),
        }
    }

    /// The columns of the group, a row each, of batches whose rows have these numbers.
    fn columns(&self, batches: &[RecordBatch], numbers: &[Vec<usize>]) -> Result<Vec<ArrayRef>> {
        if self.width == 0 {
            return Ok(vec![]);
        }
        // They were numbered in the order of rows.
        let mut places = Vec::with_capacity(self.len());
        for (batch, numbers) in numbers.iter().enumerate() {
            for (row, number) in numbers.iter().enumerate() {
                if *number == places.len() {
                    places.push((batch, row));
                }
            }
        }
        let group: Vec<usize> = (0..self.width).collect();
        let groups = batches.iter().map(|batch| batch.project(&group).external("a group has no columns"));
        let groups = groups.collect::<Result<Vec<_>>>()?;
        let batches: Vec<&RecordBatch> = groups.iter().collect();
        let rows = interleave_record_batch(&batches, &places).external("groups can't be taken")?;
        Ok(rows.columns().to_vec())
    }
}

/// The rows of `batch` that go into a group, and into which.
fn merging(batch: &RecordBatch, went_to: &[Option<u32>]) -> Result<(RecordBatch, Vec<usize>)> {
    let numbers: Vec<usize> = went_to.iter().flatten().map(|number| *number as usize).collect();
    if numbers.len() == batch.num_rows() {
        return Ok((batch.clone(), numbers));
    }
    let goes: BooleanArray = went_to.iter().map(|to| Some(to.is_some())).collect();
    Ok((filtered(batch, &goes)?, numbers))
}

/// One part's values, merged by group.
struct Values {
    accumulator: Box<dyn GroupsAccumulator>,
    /// What the aggregate takes.
    data_type: DataType,
    /// Groups so far.
    groups: usize,
}

impl Values {
    /// For values of a type, which `func` may take as another.
    fn new(func: &Arc<AggregateUDF>, data_type: &DataType) -> Result<Self> {
        let field = Arc::new(Field::new("value", data_type.clone(), true));
        let coerced = fields_with_udf(&[field], func.as_ref()).map_err(failure)?;
        let field = coerced.into_iter().next().ok_or_else(|| Error::internal("an aggregate takes no value"))?;
        let data_type = field.data_type().clone();
        let schema = Arc::new(Schema::new(vec![Field::new("value", data_type.clone(), true)]));
        let aggregate = AggregateExprBuilder::new(Arc::clone(func), vec![Arc::new(Column::new("value", 0))])
            .schema(schema)
            .alias("merged")
            .build()
            .map_err(failure)?;
        let accumulator: Box<dyn GroupsAccumulator> = match aggregate.groups_accumulator_supported() {
            true => aggregate.create_groups_accumulator().map_err(failure)?,
            false => Box::new(GroupsAccumulatorAdapter::new(move || aggregate.create_accumulator())),
        };
        Ok(Self { accumulator, data_type, groups: 0 })
    }

    /// Each value goes into the group of its number. New groups come in the order of their numbers: accumulators take a group that
    /// they know of as one that they have met.
    fn add(&mut self, values: &ArrayRef, numbers: &[usize]) -> Result<()> {
        self.groups = numbers.iter().fold(self.groups, |groups, number| groups.max(number + 1));
        let values = cast(values, &self.data_type).external("a part isn't of its aggregate's type")?;
        self.accumulator.update_batch(&[values], numbers, None, self.groups).map_err(failure)
    }

    fn finish(mut self) -> Result<ArrayRef> {
        self.accumulator.evaluate(EmitTo::All).map_err(failure)
    }
}

/// Which rows of two batches of one schema differ. Floats are equal by their bits, nulls to one another.
pub(super) fn differing(one: &RecordBatch, other: &RecordBatch) -> Result<Vec<bool>> {
    let mut differs = BooleanArray::from(vec![false; one.num_rows()]);
    for (one, other) in one.columns().iter().zip(other.columns()) {
        let column = if one.data_type().is_nested() || one.data_type().is_null() {
            let compare = make_comparator(one, other, SortOptions::default()).external("values can't be compared")?;
            BooleanArray::from((0..one.len()).map(|row| compare(row, row) != Ordering::Equal).collect::<Vec<_>>())
        } else {
            distinct(one, other).external("values can't be compared")?
        };
        differs = or(&differs, &column).external("values can't be compared")?;
    }
    Ok(differs.values().iter().collect())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Float64Array, Int64Array};

    use super::*;

    #[test]
    fn rows_differ_by_bits_and_by_nulls() {
        let batch = |floats: Vec<Option<f64>>, numbers: Vec<Option<i64>>| {
            let floats: ArrayRef = Arc::new(Float64Array::from(floats));
            let numbers: ArrayRef = Arc::new(Int64Array::from(numbers));
            RecordBatch::try_from_iter_with_nullable([("x", floats, true), ("n", numbers, true)]).unwrap()
        };
        let one = batch(vec![Some(0.0), Some(f64::NAN), None, Some(1.0)], vec![Some(1), Some(1), None, None]);
        let other = batch(vec![Some(-0.0), Some(f64::NAN), None, Some(1.0)], vec![Some(1), Some(1), None, Some(1)]);
        assert_eq!(differing(&one, &other).unwrap(), [true, false, false, true]);
    }
}
