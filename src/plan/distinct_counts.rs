//! Counts of distinct values by group: one table knows which value each group has met, however many groups there are. Knows no plans.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, UInt32Array, new_empty_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{filter, interleave, is_not_null, take};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::interner::Interner;

/// What is known of the groups.
pub struct DistinctCounts {
    data_type: DataType,
    /// Numbers of values, whichever group has them.
    values: Interner,
    /// The values themselves in the order of their numbers, in parts; where each part begins.
    parts: Vec<ArrayRef>,
    begins: Vec<u32>,
    /// Group and value, each half of the bits.
    seen: HashSet<u64, hashbrown::DefaultHashBuilder>,
    counts: Vec<i64>,
}

impl DistinctCounts {
    /// Whether values of a type are counted so: those whose equality is that of their bytes.
    pub fn are_of(data_type: &DataType) -> bool {
        let is_plain = data_type.is_string() || data_type.is_binary() || data_type.is_temporal();
        is_plain || data_type.is_decimal() || *data_type == DataType::Boolean
    }

    /// Of no group.
    ///
    /// # Errors
    /// For a type whose values can't be compared.
    pub fn new(data_type: &DataType) -> Result<Self> {
        Ok(Self {
            data_type: data_type.clone(),
            values: Interner::new([data_type], 0).map_err(external)?,
            parts: Vec::new(),
            begins: Vec::new(),
            seen: HashSet::default(),
            counts: Vec::new(),
        })
    }

    /// Each value, none of them null, is met in the group of its place.
    fn meet(&mut self, values: ArrayRef, groups: impl Iterator<Item = usize>) -> Result<()> {
        let known = self.values.count();
        let numbers = self.values.intern(&[Arc::clone(&values)]).map_err(external)?;
        let mut new = Vec::with_capacity(self.values.count() - known);
        for (row, (number, group)) in numbers.into_iter().zip(groups).enumerate() {
            if number as usize == known + new.len() {
                new.push(row as u32);
            }
            let group = u32::try_from(group).map_err(|_| internal_datafusion_err!("too many groups"))?;
            if self.seen.insert(u64::from(group) << 32 | u64::from(number)) {
                self.counts[group as usize] += 1;
            }
        }
        if !new.is_empty() {
            self.begins.push(known as u32);
            self.parts.push(take(&values, &UInt32Array::from(new), None)?);
        }
        Ok(())
    }

    /// Takes the first groups out, for which `taken` is called with each one's group and value; the others move up.
    fn take_first(&mut self, count: usize, mut taken: impl FnMut(usize, u32)) {
        let mut left = HashSet::default();
        for pair in self.seen.drain() {
            let (group, value) = ((pair >> 32) as usize, pair as u32);
            match group.checked_sub(count) {
                Some(group) => drop(left.insert((group as u64) << 32 | u64::from(value))),
                None => taken(group, value),
            }
        }
        self.seen = left;
    }

    fn forget_values(&mut self) -> Result<()> {
        if self.counts.is_empty() {
            *self = Self::new(&self.data_type)?;
        }
        Ok(())
    }
}

impl GroupsAccumulator for DistinctCounts {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.counts.resize(total_num_groups, 0);
        let [values] = values else { return Err(internal_datafusion_err!("count(DISTINCT) is of one value")) };
        let Some(counted) = counted(values, opt_filter)? else {
            return self.meet(Arc::clone(values), group_indices.iter().copied());
        };
        let groups = group_indices.iter().zip(counted.values()).filter(|(_, is)| *is).map(|(group, _)| *group);
        self.meet(filter(values, &counted)?, groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let counts = emit_to.take_needed(&mut self.counts);
        self.take_first(counts.len(), |_, _| {});
        self.forget_values()?;
        Ok(Arc::new(Int64Array::from(counts)))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let counts = emit_to.take_needed(&mut self.counts);
        let mut places: Vec<usize> = Vec::with_capacity(counts.len());
        let mut all = 0;
        for count in &counts {
            places.push(all);
            all += *count as usize;
        }
        let mut values = vec![0; all];
        self.take_first(counts.len(), |group, value| {
            values[places[group]] = value;
            places[group] += 1;
        });
        let parts: Vec<&dyn Array> = self.parts.iter().map(AsRef::as_ref).collect();
        let at = |value: &u32| {
            let part = self.begins.partition_point(|begin| begin <= value) - 1;
            (part, (value - self.begins[part]) as usize)
        };
        let values = match parts.is_empty() {
            true => new_empty_array(&self.data_type),
            false => interleave(&parts, &values.iter().map(at).collect::<Vec<_>>())?,
        };
        self.forget_values()?;
        let lengths = OffsetBuffer::from_lengths(counts.iter().map(|count| *count as usize));
        Ok(vec![Arc::new(ListArray::try_new(item(&self.data_type), lengths, values, None)?)])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.counts.resize(total_num_groups, 0);
        let [lists] = values else { return Err(internal_datafusion_err!("count(DISTINCT) has one state")) };
        let lists = lists.as_list::<i32>();
        let offsets = lists.value_offsets();
        let (first, last) = (offsets[0] as usize, offsets[lists.len()] as usize);
        let lengths = offsets.windows(2).map(|ends| (ends[1] - ends[0]) as usize);
        let groups = group_indices.iter().zip(lengths).flat_map(|(group, length)| std::iter::repeat_n(*group, length));
        self.meet(lists.values().slice(first, last - first), groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let [values] = values else { return Err(internal_datafusion_err!("count(DISTINCT) is of one value")) };
        let (values, lengths) = match counted(values, opt_filter)? {
            None => (Arc::clone(values), OffsetBuffer::from_repeated_length(1, values.len())),
            Some(counted) => {
                let lengths = OffsetBuffer::from_lengths(counted.values().iter().map(usize::from));
                (filter(values, &counted)?, lengths)
            }
        };
        Ok(vec![Arc::new(ListArray::try_new(item(&self.data_type), lengths, values, None)?)])
    }

    fn size(&self) -> usize {
        let parts = self.parts.iter().map(|part| part.get_array_memory_size()).sum::<usize>();
        let seen = self.seen.capacity() * (size_of::<u64>() + 1);
        self.values.bytes() + parts + seen + self.counts.capacity() * size_of::<i64>()
    }
}

fn external(error: crate::error::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Which values count; none where all do.
fn counted(values: &ArrayRef, opt_filter: Option<&BooleanArray>) -> Result<Option<BooleanArray>> {
    let there = if values.null_count() > 0 { Some(is_not_null(values)?) } else { None };
    Ok(match (there, opt_filter) {
        (None, None) => None,
        (Some(there), None) => Some(there),
        (there, Some(wanted)) => {
            let wanted = match wanted.nulls() {
                Some(nulls) => wanted.values() & nulls.inner(),
                None => wanted.values().clone(),
            };
            Some(BooleanArray::new(there.map_or_else(|| wanted.clone(), |there| there.values() & &wanted), None))
        }
    })
}

fn item(data_type: &DataType) -> Arc<Field> {
    Arc::new(Field::new_list_field(data_type.clone(), true))
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;

    fn texts(values: &[Option<&str>]) -> Vec<ArrayRef> {
        vec![Arc::new(StringArray::from(values.to_vec()))]
    }

    fn counts(of: &ArrayRef) -> Vec<i64> {
        of.as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
    }

    #[test]
    fn each_group_counts_its_values_once() {
        let mut counting = DistinctCounts::new(&DataType::Utf8).unwrap();
        let values = texts(&[Some("a"), Some("b"), Some("a"), None, Some("a"), Some("c")]);
        let wanted = BooleanArray::from(vec![Some(true), Some(true), Some(true), Some(true), Some(true), None]);
        counting.update_batch(&values, &[0, 0, 0, 1, 2, 2], Some(&wanted), 3).unwrap();
        counting.update_batch(&texts(&[Some("b"), Some("c")]), &[0, 2], None, 3).unwrap();
        assert_eq!(counts(&counting.evaluate(EmitTo::First(1)).unwrap()), [2]);
        // Groups moved up.
        counting.update_batch(&texts(&[Some("a"), Some("z")]), &[1, 0], None, 2).unwrap();
        assert_eq!(counts(&counting.evaluate(EmitTo::All).unwrap()), [1, 2]);
    }

    #[test]
    fn states_merge() {
        let mut one = DistinctCounts::new(&DataType::Utf8).unwrap();
        one.update_batch(&texts(&[Some("a"), Some("b"), Some("a"), Some("x")]), &[0, 0, 1, 2], None, 4).unwrap();
        let first = one.state(EmitTo::First(2)).unwrap();
        let rest = one.state(EmitTo::All).unwrap();
        let mut other = DistinctCounts::new(&DataType::Utf8).unwrap();
        other.update_batch(&texts(&[Some("b"), Some("c")]), &[0, 1], None, 2).unwrap();
        other.merge_batch(&first, &[0, 1], 2).unwrap();
        other.merge_batch(&rest, &[1, 2], 3).unwrap();
        let filtered = BooleanArray::from(vec![true, false, true]);
        let converted = other.convert_to_state(&texts(&[Some("q"), Some("r"), None]), Some(&filtered)).unwrap();
        other.merge_batch(&converted, &[2, 2, 2], 3).unwrap();
        assert_eq!(counts(&other.evaluate(EmitTo::All).unwrap()), [2, 3, 1]);
    }
}
