//! Text to rows: record by record, with exact row numbers and raw text, then column by column into Arrow.
//!
//! A row whose values don't all fit is refused whole; nothing is rounded, truncated or padded. Knows no warehouse.

mod column;
mod csv;
mod datetime;
mod direct;
mod json;
mod nested;
mod number;
mod rows;
mod scan;
mod text;
mod values;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

#[cfg(feature = "kafka")]
pub(super) use json::Object;
use rows::RawRows;
pub(super) use rows::row_numbers;
pub(super) use text::open as open_text;
pub use values::{ColumnReader, Misfit, parse_column};

use crate::connect::quarantine::Refused;
use crate::error::Result;
use crate::limits;
use crate::spec::types::{ColumnSpec, CsvOptions, FileFormat, TextOptions};

/// Name of the rule that a row of the wrong shape or with values that don't fit breaks.
pub const CONTRACT_RULE: &str = "contract";

/// Rows as they stand in a file or topic.
pub trait Origin {
    /// The hidden columns that landed files hold, of the rows at these indices.
    fn hidden(&self, rows: &[usize]) -> Vec<ArrayRef>;

    /// The row at `index` as a refused one.
    ///
    /// # Errors
    /// External, for a value that can't be shown as text.
    fn refused(&self, index: usize, rule: &str, reason: String) -> Result<Refused>;

    /// Whether the row at `index` only says that there is none of its key any more: then rules have nothing to judge.
    fn is_tombstone(&self, _index: usize) -> bool {
        false
    }
}

/// Why rows don't fit the contract, by their index in the batch.
pub type Misfits = BTreeMap<usize, String>;

/// Rows of one batch of records.
pub struct Decoded {
    /// Rows that fit, contract columns only.
    pub fitting: RecordBatch,
    /// Index in the origin of each row that fits.
    pub kept: Vec<usize>,
    /// Rows that don't.
    pub misfits: Misfits,
    /// The rows as the source has them.
    pub origin: Box<dyn Origin + Send>,
}

impl Decoded {
    /// Cuts the rows of `columns` into those that fit and `misfits`.
    ///
    /// # Errors
    /// Internal, when the columns aren't those of `schema`.
    pub fn new(
        schema: &SchemaRef,
        columns: Vec<ArrayRef>,
        rows: usize,
        misfits: Misfits,
        origin: impl Origin + Send + 'static,
    ) -> Result<Self> {
        // Arrays are built before they are filtered: only rows that are then gone have nulls where none may be.
        let loose: Vec<_> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch =
            RecordBatch::try_new_with_options(Arc::new(Schema::new(loose)), columns, &options).map_err(arrow_error)?;
        let (batch, kept) = retained(batch, (0..rows).collect(), |row| !misfits.contains_key(&row))?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let fitting = RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
            .map_err(arrow_error)?;
        Ok(Self { fitting, kept, misfits, origin: Box::new(origin) })
    }

    /// The rows without some that fit, by their number among these.
    ///
    /// # Errors
    /// Internal: memory.
    pub fn without(mut self, misfits: &Misfits) -> Result<Self> {
        self.misfits.extend(misfits.iter().map(|(row, reason)| (self.kept[*row], reason.clone())));
        let (fitting, kept) = retained(self.fitting, self.kept, |row| !misfits.contains_key(&row))?;
        Ok(Self { fitting, kept, ..self })
    }
}

/// The rows of a batch that stay, by their places in it, and of each one its number elsewhere.
///
/// # Errors
/// Internal: memory.
pub(in crate::connect) fn retained(
    batch: RecordBatch,
    numbers: Vec<usize>,
    stays: impl Fn(usize) -> bool,
) -> Result<(RecordBatch, Vec<usize>)> {
    let keep: Vec<bool> = (0..numbers.len()).map(stays).collect();
    if keep.iter().all(|stays| *stays) {
        return Ok((batch, numbers));
    }
    let numbers = numbers.into_iter().zip(&keep).filter(|(_, stays)| **stays).map(|(number, _)| number).collect();
    Ok((arrow::compute::filter_record_batch(&batch, &keep.into()).map_err(arrow_error)?, numbers))
}

/// How a text file's columns are read.
#[derive(Clone)]
pub struct Contract {
    /// Contract columns.
    pub schema: SchemaRef,
    readers: Arc<[ColumnReader]>,
    nullable: Arc<[bool]>,
}

impl Contract {
    /// A contract of `schema`, its texts read by `options` and each column's own format; zoneless instants are in `zone`.
    ///
    /// # Errors
    /// Usage, for a type that text can't hold.
    pub fn new(schema: SchemaRef, columns: &[ColumnSpec], options: &TextOptions, zone: &str) -> Result<Self> {
        let zone = options.timestamp_zone.as_ref().map_or(zone, |z| z.value.as_str());
        let mut readers = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let column = columns.iter().find(|column| column.name.value == *field.name());
            let own = column.and_then(|column| column.timestamp_format.as_ref());
            let format = own.or(options.timestamp_format.as_ref()).map(|f| f.value.as_str());
            let reader = ColumnReader::new(field.data_type(), format, zone, options.decimal_separator)?
                .with_null_values(options.null_values.as_deref().unwrap_or_default());
            readers.push(match column {
                Some(column) => reader.declared(&column.data_type.value),
                None => reader,
            });
        }
        let nullable = schema.fields().iter().map(|f| f.is_nullable()).collect();
        Ok(Self { schema, readers: readers.into(), nullable })
    }

    /// Types records.
    fn decode(&self, records: RawRows) -> Result<Decoded> {
        let (columns, misfits) = self.columns(&records);
        Decoded::new(&self.schema, columns, records.len(), misfits, records)
    }

    /// Columns of records, and which rows don't fit.
    fn columns(&self, records: &RawRows) -> (Vec<ArrayRef>, Misfits) {
        let broken = records.broken().iter().enumerate();
        let mut misfits: Misfits = broken.filter_map(|(row, reason)| Some((row, reason.clone()?))).collect();
        let mut columns = Vec::with_capacity(self.readers.len());
        for (index, reader) in self.readers.iter().enumerate() {
            let field = self.schema.field(index);
            let (array, faults) = parse_column(reader, records.column(index), records.len());
            for misfit in faults {
                misfits.entry(misfit.row).or_insert_with(|| misfit.of_column(field.name()));
            }
            if !self.nullable[index] && array.null_count() > 0 {
                for (row, _) in records.column(index).enumerate().filter(|(_, cell)| cell.is_none()) {
                    misfits.entry(row).or_insert_with(|| null_reason(field));
                }
            }
            columns.push(array);
        }
        (columns, misfits)
    }
}

/// Why a row with null in a column that may not be null is refused.
pub(in crate::connect) fn null_reason(field: &Field) -> String {
    format!("{}: null, and the column isn't nullable", field.name())
}

fn arrow_error(error: arrow::error::ArrowError) -> crate::error::Error {
    crate::error::Error::internal("can't build a batch of rows").caused_by(error)
}

/// Reads the records of one text file, batch after batch.
pub struct TextReader<'a> {
    records: Records,
    contract: &'a Contract,
}

enum Records {
    Csv(Box<csv::CsvRecords>),
    Json(json::JsonRecords),
}

impl<'a> TextReader<'a> {
    /// Reads `input`, already decompressed and in UTF-8 without byte-order mark, under `contract`.
    ///
    /// # Errors
    /// A header that lacks a column that may not be null, or names one twice.
    pub fn new(format: &FileFormat, input: Box<dyn Read + Send>, contract: &'a Contract) -> Result<Self> {
        let records = match format {
            FileFormat::Csv(options) => Records::Csv(Box::new(csv::CsvRecords::new(options, input, &contract.schema)?)),
            FileFormat::Json(_) => Records::Json(json::JsonRecords::new(input)),
            FileFormat::Parquet => return Err(crate::error::Error::internal("Parquet isn't a text format")),
        };
        Ok(Self { records, contract })
    }

    /// The next batch of up to [`limits::BATCH_ROWS`] records; none at the end.
    pub fn next_batch(&mut self) -> Result<Option<Decoded>> {
        match &mut self.records {
            Records::Csv(records) => {
                records.next_rows(limits::BATCH_ROWS)?.map(|rows| self.contract.decode(rows)).transpose()
            }
            Records::Json(records) => {
                records.next_lines(limits::BATCH_ROWS)?.map(|lines| lines.decode(self.contract)).transpose()
            }
        }
    }
}

/// Names of the header of a CSV file, for looking at a file without reading its rows.
pub(super) fn csv_header(options: &CsvOptions, input: Box<dyn Read + Send>) -> Result<Option<Vec<String>>> {
    csv::header(options, input)
}

/// Whether text can be read as this type.
pub(super) fn is_readable(data_type: &DataType) -> bool {
    ColumnReader::new(data_type, None, "UTC", '.').is_ok()
}

/// Names of columns, and the cells of each record.
pub type NamedCells = (Vec<String>, Vec<Vec<Option<String>>>);

/// Names and cells of CSV text with a header; an empty unquoted field is null.
///
/// # Errors
/// External: a record with too few or too many fields, or text without a header.
pub fn csv_cells(text: &str) -> Result<NamedCells> {
    csv::cells(text)
}
