//! Parquet and Arrow IPC. Knows nothing of how values look as text.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::{FileWriter, StreamWriter};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::engine::failure;
use crate::error::{Error, Result, ResultExt};

use super::{Out, RowWriter, unwritable};

/// Writes Parquet.
pub(super) struct ParquetWriter {
    inner: Option<ArrowWriter<Out>>,
}

impl ParquetWriter {
    pub(super) fn new(out: Out, schema: &SchemaRef) -> Result<Self> {
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        match ArrowWriter::try_new(out, SchemaRef::clone(schema), Some(properties)) {
            Ok(inner) => Ok(Self { inner: Some(inner) }),
            Err(ParquetError::NYI(what) | ParquetError::ArrowError(what)) => {
                Err(Error::usage(format!("Parquet can't hold a column of the result: {what}")))
            }
            Err(other) => Err(other).external("can't write the result as Parquet"),
        }
    }
}

impl RowWriter for ParquetWriter {
    fn rows(&mut self, batch: &RecordBatch) -> Result<()> {
        let inner = self.inner.as_mut().ok_or_else(|| Error::internal("rows after the end"))?;
        inner.write(batch).external("can't write the result as Parquet")
    }

    fn finish(&mut self) -> Result<()> {
        match self.inner.take() {
            Some(inner) => {
                let mut out = inner.into_inner().external("can't write the result as Parquet")?;
                unwritable(out.flush())
            }
            None => Ok(()),
        }
    }
}

/// Writes an Arrow IPC stream.
pub(super) struct ArrowStreamWriter {
    inner: StreamWriter<Out>,
}

impl ArrowStreamWriter {
    pub(super) fn new(out: Out, schema: &SchemaRef) -> Result<Self> {
        Ok(Self { inner: StreamWriter::try_new(out, schema).map_err(|e| failure(e.into()))? })
    }
}

impl RowWriter for ArrowStreamWriter {
    fn rows(&mut self, batch: &RecordBatch) -> Result<()> {
        self.inner.write(batch).and_then(|()| self.inner.flush()).map_err(|e| failure(e.into()))
    }

    fn finish(&mut self) -> Result<()> {
        self.inner.finish().and_then(|()| self.inner.flush()).map_err(|e| failure(e.into()))
    }
}

/// Writes an Arrow IPC file.
pub(super) struct ArrowFileWriter {
    inner: FileWriter<Out>,
}

impl ArrowFileWriter {
    pub(super) fn new(out: Out, schema: &SchemaRef) -> Result<Self> {
        Ok(Self { inner: FileWriter::try_new(out, schema).map_err(|e| failure(e.into()))? })
    }
}

impl RowWriter for ArrowFileWriter {
    fn rows(&mut self, batch: &RecordBatch) -> Result<()> {
        self.inner.write(batch).map_err(|e| failure(e.into()))
    }

    fn finish(&mut self) -> Result<()> {
        self.inner.finish().and_then(|()| self.inner.flush()).map_err(|e| failure(e.into()))
    }
}
