//! Rows to bytes: CSV, JSON lines or columns of a Parquet row group. Knows no table's meaning and no file.

mod columns;
mod text;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, ArrowWriter};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::error::{Result, ResultExt};

use super::Format;
#[cfg(feature = "kafka")]
pub(super) use text::JsonMessages;

use super::draw::Hits;
use super::tables::{Kind, Table};

/// Takes the values of a row, in order of its table's columns.
pub(super) trait Fields {
    /// Text or null.
    fn text(&mut self, value: Option<&str>);
    /// A whole number or null.
    fn int(&mut self, value: Option<i64>);
    /// Cents.
    fn money(&mut self, cents: i64);
    /// Seconds of a wall-clock time, or null.
    fn wall(&mut self, seconds: Option<i64>);
    /// Milliseconds since 1970, UTC.
    fn instant(&mut self, millis: i64);

    /// 32 hexadecimal digits.
    fn hex(&mut self, id: u128) {
        let mut digits = [0_u8; 32];
        for (place, digit) in digits.iter_mut().enumerate() {
            *digit = HEX[(id >> (124 - 4 * place)) as usize & 15];
        }
        self.text(std::str::from_utf8(&digits).ok());
    }

    /// A random UUID (version 4) of these bits.
    fn uuid(&mut self, id: u128) {
        let id = (id & !(0xf << 76) & !(3 << 62)) | (4 << 76) | (2 << 62);
        let mut digits = [b'-'; 36];
        let mut shift = 128;
        for (place, digit) in digits.iter_mut().enumerate() {
            if !matches!(place, 8 | 13 | 18 | 23) {
                shift -= 4;
                *digit = HEX[(id >> shift) as usize & 15];
            }
        }
        self.text(std::str::from_utf8(&digits).ok());
    }
}

const HEX: [u8; 16] = *b"0123456789abcdef";

/// A row of one table.
pub(super) trait Row {
    /// Hands each column's value on, in order.
    fn fields(&self, to: &mut impl Fields);
}

/// Rows as they are appended to a file.
pub(super) struct Encoded {
    /// The bytes, or what becomes them.
    pub(super) body: Body,
    /// Whole rows.
    pub(super) rows: u64,
    /// Malformed lines.
    pub(super) malformed: u64,
}

/// The bytes, or what becomes them.
pub(super) enum Body {
    /// Lines without a header.
    Text(Vec<u8>),
    /// Columns of one row group.
    RowGroup(Vec<ArrowColumnChunk>),
}

/// How one table's rows are encoded; shared by all cores.
pub(super) struct Encoding {
    /// The table.
    pub(super) table: &'static Table,
    /// The format.
    pub(super) format: Format,
    /// Columns of Parquet files.
    pub(super) schema: SchemaRef,
    columns: ArrowRowGroupWriterFactory,
}

impl Encoding {
    /// For a table.
    pub(super) fn new(table: &'static Table, format: Format) -> Result<Self> {
        let fields = table.columns.iter().map(|c| Field::new(c.name, data_type(c.kind), c.nullable));
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        // A row group's encoding depends on schema and properties only, so that one writer's factory serves all files.
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties()?));
        let (_, columns) = writer
            .and_then(ArrowWriter::into_serialized_writer)
            .external("parquet refused a generated table's schema")?;
        Ok(Self { table, format, schema, columns })
    }

    /// Encodes rows; each one that `broken` hits is followed by a malformed copy (not in Parquet).
    pub(super) fn encode<R: Row>(&self, rows: impl Iterator<Item = R>, broken: Hits) -> Result<Encoded> {
        match self.format {
            Format::Parquet => columns::encode(self, rows),
            Format::Csv => Ok(text::encode(text::CsvLines::default(), self.table, rows, broken)),
            Format::Json => Ok(text::encode(text::JsonLines::new(self.table), self.table, rows, broken)),
        }
    }

    /// First bytes of a text file.
    pub(super) fn header(&self) -> Vec<u8> {
        if self.format != Format::Csv {
            return Vec::new();
        }
        let names: Vec<&str> = self.table.columns.iter().map(|c| c.name).collect();
        let mut header = names.join(",").into_bytes();
        header.push(b'\n');
        header
    }
}

/// How Parquet files are written.
pub(super) fn properties() -> Result<WriterProperties> {
    let level = ZstdLevel::try_new(1).external("parquet refused a compression level")?;
    Ok(WriterProperties::builder().set_compression(Compression::ZSTD(level)).build())
}

fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Text => DataType::Utf8,
        Kind::Int => DataType::Int32,
        Kind::Long => DataType::Int64,
        Kind::Money => DataType::Decimal128(12, 2),
        Kind::Wall => DataType::Timestamp(TimeUnit::Microsecond, None),
        Kind::Instant => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    }
}
