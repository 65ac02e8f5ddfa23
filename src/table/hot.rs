//! Rows of a table that are likely to change again soon: those that share a value of the key, such as a window's start, with the
//! rows that change now. Kept apart from the others, they alone are written anew by the next changes. Knows no files' rows.

use std::cmp::Ordering;

use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, Result as DataFusionResult, ScalarValue, Statistics};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use super::change::{TableChange, TableTarget, is_bounded};
use crate::engine::failure;
use crate::error::Result;
use crate::limits;
use crate::plan::Interner;

/// Values of one of the key's columns.
pub(super) struct Hot {
    /// The column's place in the schema.
    at: usize,
    name: String,
    values: Vec<ScalarValue>,
}

/// How much of a file is hot, as far as the file itself tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heat {
    None,
    Some,
    All,
}

impl Hot {
    /// What the change tells: the column of the key of which it has the fewest values, if those are few for so many rows.
    pub(super) fn of(target: &TableTarget<'_>, change: &TableChange<'_>) -> Result<Option<Self>> {
        let rows: usize = change.added.iter().chain(change.removed).map(|batch| batch.num_rows()).sum();
        let values_max = limits::HOT_VALUES.min(rows / limits::HOT_ROWS);
        let mut fewest: Option<Self> = None;
        for name in target.key.iter().filter(|_| target.key.len() > 1 && values_max > 0) {
            let Ok(at) = target.schema.index_of(name) else { continue };
            if !is_bounded(target.schema.field(at).data_type()) {
                continue;
            }
            let most = fewest.as_ref().map_or(values_max, |hot| hot.values.len() - 1);
            if let Some(values) = values(target, change, at, most)? {
                fewest = Some(Self { at, name: name.clone(), values });
            }
        }
        Ok(fewest)
    }

    /// How much of a file with these statistics is hot.
    pub(super) fn heat(&self, told: &Statistics) -> Heat {
        let Some(ColumnStatistics {
            min_value: Precision::Exact(min),
            max_value: Precision::Exact(max),
            null_count: Precision::Exact(0),
            ..
        }) = told.column_statistics.get(self.at)
        else {
            return Heat::Some;
        };
        let is_above = |one: &ScalarValue, other: &ScalarValue| one.partial_cmp(other) == Some(Ordering::Greater);
        match self.values.iter().any(|value| !is_above(min, value) && !is_above(value, max)) {
            false => Heat::None,
            true if min == max => Heat::All,
            true => Heat::Some,
        }
    }

    /// The hot rows of a plan's, and those apart.
    pub(super) fn split(&self, rows: LogicalPlan) -> DataFusionResult<[LogicalPlan; 2]> {
        let column = Expr::Column(Column::new_unqualified(&self.name));
        let values = self.values.iter().map(|value| Expr::Literal(value.clone(), None)).collect();
        let is_hot = column.in_list(values, false);
        let with = LogicalPlanBuilder::from(rows.clone()).filter(is_hot.clone())?.build()?;
        let apart = LogicalPlanBuilder::from(rows).filter(Expr::IsNotTrue(Box::new(is_hot)))?.build()?;
        Ok([with, apart])
    }
}

/// The values of a column in a change; none where they are more than `most`, or null.
fn values(
    target: &TableTarget<'_>,
    change: &TableChange<'_>,
    at: usize,
    most: usize,
) -> Result<Option<Vec<ScalarValue>>> {
    let mut numbers = Interner::new([target.schema.field(at).data_type()], most)?;
    let mut values = Vec::new();
    for batch in change.added.iter().chain(change.removed) {
        let column = batch.column(at);
        if column.null_count() > 0 {
            return Ok(None);
        }
        for (row, number) in numbers.intern(std::slice::from_ref(column))?.into_iter().enumerate() {
            if number as usize == values.len() {
                values.push(ScalarValue::try_from_array(column, row).map_err(failure)?);
            }
        }
        if values.len() > most {
            return Ok(None);
        }
    }
    Ok(Some(values))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::table::{TableFiles, Warehouse, change_table, parquet_table, stats};

    fn rows(schema: &Arc<Schema>, rows: &[[i64; 3]]) -> RecordBatch {
        let column = |at: usize| Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row[at]))) as ArrayRef;
        RecordBatch::try_new(Arc::clone(schema), (0..3).map(column).collect()).unwrap()
    }

    #[tokio::test]
    async fn windows_that_are_over_are_written_anew_only_to_be_put_together() {
        let folder = tempfile::tempdir().unwrap();
        let warehouse = Warehouse::open("w", folder.path(), &BTreeMap::new()).await.unwrap();
        let schema = schema();
        let (session, key) = (SessionContext::new(), ["product".to_owned(), "window".to_owned()]);
        let mut files = TableFiles { schema: Arc::clone(&schema), partition_by: vec![], files: vec![] };
        let mut table: BTreeMap<[i64; 2], i64> = BTreeMap::new();
        let (mut step, mut written, mut most) = (0, 0, 0);
        const WINDOWS: i64 = 30;
        for window in 0..WINDOWS {
            for round in 0..10 {
                // Each round changes what the one before brought; now and then a row comes late.
                let late = (round == 0 && window > 2).then_some([0, window - 2]);
                let keys = (round * 50..round * 50 + 100).map(|product| [product, window]).chain(late);
                let (mut added, mut removed) = (vec![], vec![]);
                for key in keys {
                    let units = table.entry(key).or_insert(0);
                    removed.extend((*units > 0).then_some([key[0], key[1], *units]));
                    *units += 1;
                    added.push([key[0], key[1], *units]);
                }
                let prefix = format!("c{step:08}");
                step += 1;
                let target = TableTarget {
                    session: &session,
                    warehouse: &warehouse,
                    table: "t",
                    schema: &schema,
                    key: &key,
                    zone: "UTC",
                    prefix: &prefix,
                    together_bytes: u64::MAX,
                };
                let (added, removed) = ([rows(&schema, &added)], [rows(&schema, &removed)]);
                let change = TableChange { added: &added, removed: &removed };
                files = change_table(&target, &files, &change).await.unwrap().files;
                let new = files.files.iter().filter(|file| file.path.contains(&prefix));
                written += new.map(|file| file.rows).sum::<u64>();
                most = most.max(files.files.len());
            }
        }
        let provider = parquet_table(&warehouse, "t", files, "UTC").unwrap();
        let held = session.read_table(provider).unwrap().collect().await.unwrap();
        let held: BTreeMap<[i64; 2], i64> = held
            .iter()
            .flat_map(|batch| {
                let column = |at: usize| batch.column(at).as_primitive::<Int64Type>().clone();
                let (products, windows, units) = (column(0), column(1), column(2));
                (0..batch.num_rows()).map(move |row| ([products.value(row), windows.value(row)], units.value(row)))
            })
            .collect();
        assert_eq!(held, table);
        let rows = table.len() as u64;
        // Were they not kept apart, each step would write half of the table on average, that is each row 150 times.
        assert!(written < 50 * rows, "{rows} rows, {written} written");
        assert!(most < 40, "{most} files");
    }

    fn schema() -> Arc<Schema> {
        let fields = ["product", "window", "units"].map(|name| Field::new(name, DataType::Int64, false));
        Arc::new(Schema::new(fields.to_vec()))
    }

    #[tokio::test]
    async fn a_window_that_changes_is_told_from_those_that_are_over() {
        let folder = tempfile::tempdir().unwrap();
        let warehouse = Warehouse::open("w", folder.path(), &BTreeMap::new()).await.unwrap();
        let schema = schema();
        let key = ["product".to_owned(), "window".to_owned()];
        let target = TableTarget {
            session: &SessionContext::new(),
            warehouse: &warehouse,
            table: "t",
            schema: &schema,
            key: &key,
            zone: "UTC",
            prefix: "c1",
            together_bytes: u64::MAX,
        };
        let rows = |windows: &[i64]| {
            rows(&schema, &windows.iter().enumerate().map(|(at, window)| [at as i64, *window, 1]).collect::<Vec<_>>())
        };
        let of = |windows: &[i64]| {
            let (added, removed) = ([rows(windows)], [rows(&windows[..1])]);
            Hot::of(&target, &TableChange { added: &added, removed: &removed }).unwrap()
        };
        let hot = of(&[7, 7, 7, 9, 9, 9, 9]).unwrap();
        assert_eq!((hot.name.as_str(), hot.values.len()), ("window", 2));
        let heat = |low: i64, high: i64| {
            let told = format!(
                r#"{{"minValues":{{"window":{low}}},"maxValues":{{"window":{high}}},"nullCount":{{"window":0}}}}"#
            );
            hot.heat(&stats::from_json(Some(&told), 5, &schema))
        };
        assert_eq!([heat(1, 6), heat(8, 8), heat(7, 8), heat(9, 9)], [Heat::None, Heat::None, Heat::Some, Heat::All]);
        assert_eq!(hot.heat(&stats::from_json(None, 5, &schema)), Heat::Some);
        assert!(of(&[1, 2, 3, 4, 5, 6, 7, 8]).is_none(), "each row has a window of its own");
    }
}
