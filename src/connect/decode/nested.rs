//! Lists and structs from JSON text: each level is cut into its values, which are read as columns of their own.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, NullBufferBuilder, StructArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{FieldRef, Fields};

use super::values::{ColumnReader, Misfit, parse_column, shown};
use crate::plan::json_text::{Members, items};

type Cell<'a> = Option<Cow<'a, str>>;

/// Reads each cell as a JSON list of what `reader` reads.
pub(super) fn lists<'a>(
    field: &FieldRef,
    reader: &ColumnReader,
    cells: impl Iterator<Item = Option<&'a str>>,
) -> (ArrayRef, Vec<Misfit>) {
    let mut misfits = Vec::new();
    let mut values: Vec<Cell<'a>> = Vec::new();
    // Row and index in its list of each value.
    let mut places: Vec<(usize, usize)> = Vec::new();
    let mut ends: Vec<i32> = vec![0];
    let mut valid = NullBufferBuilder::new(0);
    for (row, cell) in cells.enumerate() {
        let start = values.len();
        let list = cell.and_then(|text| {
            items(text).map_err(|_| misfits.push(Misfit::new(row, shown(text, "isn't a JSON list")))).ok()
        });
        valid.append(list.is_some());
        for (index, value) in list.into_iter().flatten().enumerate() {
            let inside = |misfit: Misfit| misfit.below(row, &format!("[{index}]"));
            values.push(reader.cell(row, value).map_err(|misfit| misfits.push(inside(misfit))).ok().flatten());
            places.push((row, index));
        }
        if let Ok(end) = i32::try_from(values.len()) {
            ends.push(end);
        } else {
            values.truncate(start);
            places.truncate(start);
            ends.push(ends.last().copied().unwrap_or(0));
            misfits.push(Misfit::new(row, "holds more values than a batch can".to_string()));
        }
    }
    let (array, inner) = parse_column(reader, values.iter().map(Option::as_deref), values.len());
    misfits.extend(inner.into_iter().map(|misfit| {
        let (row, index) = places.get(misfit.row).copied().unwrap_or_default();
        misfit.below(row, &format!("[{index}]"))
    }));
    let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
    (Arc::new(ListArray::new(Arc::clone(field), offsets, array, valid.finish())), misfits)
}

/// Reads each cell as a JSON object of `fields`; one that an object lacks is null, what is besides them is left.
pub(super) fn structs<'a>(
    fields: &Fields,
    readers: &[ColumnReader],
    cells: impl Iterator<Item = Option<&'a str>>,
    rows: usize,
) -> (ArrayRef, Vec<Misfit>) {
    let mut misfits = Vec::new();
    let mut columns: Vec<Vec<Cell<'a>>> = fields.iter().map(|_| Vec::with_capacity(rows)).collect();
    let mut valid = NullBufferBuilder::new(rows);
    for (row, cell) in cells.enumerate() {
        let members = cell.and_then(|text| {
            Members::parse(text).map_err(|_| misfits.push(Misfit::new(row, shown(text, "isn't a JSON object")))).ok()
        });
        valid.append(members.is_some());
        for ((field, reader), column) in fields.iter().zip(readers).zip(&mut columns) {
            let value = members.as_ref().and_then(|members| members.get(field.name()));
            let value = value.map_or(Ok(None), |value| reader.cell(row, value));
            let inside = |misfit: Misfit| misfit.below(row, &format!(".{}", field.name()));
            column.push(value.map_err(|misfit| misfits.push(inside(misfit))).ok().flatten());
        }
    }
    let mut arrays = Vec::with_capacity(columns.len());
    for ((field, reader), column) in fields.iter().zip(readers).zip(&columns) {
        let (array, inner) = parse_column(reader, column.iter().map(Option::as_deref), rows);
        misfits.extend(inner.into_iter().map(|misfit| {
            let row = misfit.row;
            misfit.below(row, &format!(".{}", field.name()))
        }));
        arrays.push(array);
    }
    (Arc::new(StructArray::new(fields.clone(), arrays, valid.finish())), misfits)
}
