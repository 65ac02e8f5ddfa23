//! Rows to the columns of one Parquet row group. Knows no file.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Builder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use parquet::arrow::arrow_writer::compute_leaves;

use crate::error::{Error, Result, ResultExt};
use crate::generate::tables::{Kind, Table};

use super::{Body, Encoded, Encoding, Fields, Row};

const MICROS: i64 = 1_000_000;

/// Encodes all rows as one row group.
pub(super) fn encode<R: Row>(encoding: &Encoding, rows: impl Iterator<Item = R>) -> Result<Encoded> {
    let mut builders = Builders::new(encoding.table);
    let mut count = 0;
    for row in rows {
        row.fields(&mut builders);
        builders.next = 0;
        count += 1;
    }
    let mut writers = encoding.columns.create_column_writers(0).external("parquet refused a row group")?;
    let arrays = builders.finish()?;
    for ((writer, field), array) in writers.iter_mut().zip(encoding.schema.fields()).zip(&arrays) {
        // No generated column is nested, so that each has one leaf.
        for leaf in compute_leaves(field, array).external("a generated column could not be encoded")? {
            writer.write(&leaf).external("a generated column could not be encoded")?;
        }
    }
    let chunks = writers.into_iter().map(|w| w.close()).collect::<Result<Vec<_>, _>>();
    let chunks = chunks.external("a generated column could not be encoded")?;
    Ok(Encoded { body: Body::RowGroup(chunks), rows: count, malformed: 0 })
}

enum Builder {
    Text(StringBuilder),
    Int(Int32Builder),
    Long(Int64Builder),
    Money(Decimal128Builder),
    Time(TimestampMicrosecondBuilder, Option<Arc<str>>),
}

struct Builders {
    columns: Vec<Builder>,
    next: usize,
}

impl Builders {
    fn new(table: &Table) -> Self {
        let columns = table.columns.iter().map(|column| match column.kind {
            Kind::Text => Builder::Text(StringBuilder::new()),
            Kind::Int => Builder::Int(Int32Builder::new()),
            Kind::Long => Builder::Long(Int64Builder::new()),
            Kind::Money => Builder::Money(Decimal128Builder::new()),
            Kind::Wall => Builder::Time(TimestampMicrosecondBuilder::new(), None),
            Kind::Instant => Builder::Time(TimestampMicrosecondBuilder::new(), Some("UTC".into())),
        });
        Self { columns: columns.collect(), next: 0 }
    }

    fn column(&mut self) -> Option<&mut Builder> {
        self.next += 1;
        self.columns.get_mut(self.next - 1)
    }

    fn finish(self) -> Result<Vec<ArrayRef>> {
        let arrays = self.columns.into_iter().map(|builder| -> Result<ArrayRef> {
            Ok(match builder {
                Builder::Text(mut b) => Arc::new(b.finish()),
                Builder::Int(mut b) => Arc::new(b.finish()),
                Builder::Long(mut b) => Arc::new(b.finish()),
                Builder::Money(mut b) => {
                    let cents = b.finish().with_precision_and_scale(12, 2);
                    Arc::new(cents.external("a generated price is out of range")?)
                }
                Builder::Time(mut b, zone) => Arc::new(b.finish().with_timezone_opt(zone)),
            })
        });
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        if arrays.windows(2).any(|pair| pair[0].len() != pair[1].len()) {
            return Err(Error::internal("a generated row differs from its table's columns"));
        }
        Ok(arrays)
    }
}

/// A value that its column can't hold is left out, which `finish` finds by the length.
impl Fields for Builders {
    fn text(&mut self, value: Option<&str>) {
        if let Some(Builder::Text(column)) = self.column() {
            column.append_option(value);
        }
    }

    fn int(&mut self, value: Option<i64>) {
        match self.column() {
            Some(Builder::Int(column)) => column.append_option(value.and_then(|v| i32::try_from(v).ok())),
            Some(Builder::Long(column)) => column.append_option(value),
            _ => {}
        }
    }

    fn money(&mut self, cents: i64) {
        if let Some(Builder::Money(column)) = self.column() {
            column.append_value(i128::from(cents));
        }
    }

    fn wall(&mut self, seconds: Option<i64>) {
        if let Some(Builder::Time(column, None)) = self.column() {
            column.append_option(seconds.map(|s| s * MICROS));
        }
    }

    fn instant(&mut self, millis: i64) {
        if let Some(Builder::Time(column, Some(_))) = self.column() {
            column.append_value(millis * 1_000);
        }
    }
}
