//! A relation's rows in parts of which key filters tell what isn't in them, as of a source's files.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, or, take_record_batch};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use tidemill::engine::maintain::{Found, KeyLookup, Rows};
use tidemill::error::Result;
use tidemill::table::KeyFilterBuilder;

/// Rows in two parts with filters, and maybe one without.
#[derive(Debug)]
struct Parts {
    filtered: Vec<RecordBatch>,
    other: Option<RecordBatch>,
}

/// The rows, once each, with a lookup.
pub fn looked_up(rows: RecordBatch) -> Rows {
    let every = |first: u32| {
        let places = UInt32Array::from_iter_values((first..rows.num_rows() as u32).step_by(3));
        take_record_batch(&rows, &places).unwrap()
    };
    let mut parts = Parts { filtered: vec![every(0), every(1)], other: None };
    match rows.num_rows() % 2 {
        0 => parts.other = Some(every(2)),
        _ => parts.filtered.push(every(2)),
    }
    Rows { lookup: Some(Arc::new(parts)), ..Rows::from(table(&[rows])) }
}

fn table(batches: &[RecordBatch]) -> Arc<dyn TableProvider> {
    let rows = concat_batches(&batches[0].schema(), batches).unwrap();
    Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]]).unwrap())
}

impl KeyLookup for Parts {
    fn find(&self, column: &str, values: &ArrayRef) -> Result<Option<Found>> {
        let (mut hits, mut may_be) = (Vec::new(), BooleanArray::from(vec![false; values.len()]));
        for part in &self.filtered {
            let held = part.column_by_name(column).unwrap();
            let Some(mut filter) = KeyFilterBuilder::new(held.data_type(), held.len() as u64) else { return Ok(None) };
            filter.add(held, held.len())?;
            let Some(may) = filter.build()?.and_then(|filter| filter.may_have(values)) else { return Ok(None) };
            if may.true_count() > 0 {
                may_be = or(&may_be, &may).unwrap();
                hits.push(part.clone());
            }
        }
        let mut found = Found::default();
        if let Some(other) = &self.other {
            found.parts.push((table(std::slice::from_ref(other)), BooleanArray::from(vec![true; values.len()])));
        }
        if !hits.is_empty() {
            found.parts.push((table(&hits), may_be));
        }
        Ok(Some(found))
    }
}
