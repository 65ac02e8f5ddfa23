//! Writes query results as tables, CSV, JSON lines, Parquet or Arrow. Streams; knows nothing of where rows come from.
//!
//! The texts of values are the same in all text formats, see [`value`]'s list.

mod columnar;
mod delimited;
mod json;
mod shown;
mod table;

pub use shown::Shown;

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::TryStreamExt;

use crate::engine::RowStream;
use crate::error::{Error, Result, ResultExt};

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns aligned for reading; null is `NULL`.
    Table,
    /// RFC 4180 with a header and LF; null is an empty field, an empty text is `""`.
    Csv,
    /// One object a line.
    Json,
    /// Parquet, compressed with zstd.
    Parquet,
    /// Arrow IPC: a stream on stdout, a file with `-o`.
    Arrow,
}

/// Where rows are written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output. Its reader may leave early (`| head`), which ends the writing without an error.
    Stdout,
    /// A file, replaced if it is there, and only once everything is written.
    File(PathBuf),
}

/// Writes all of `rows` and says how many there were.
///
/// # Errors
/// Usage, before anything is written, for a format that can't hold the columns or that no terminal shows; external if writing
/// fails; whatever the stream fails with. A file target is then as it was before.
pub async fn write(schema: SchemaRef, rows: RowStream, format: Format, target: &Target) -> Result<u64> {
    check(&schema, format, target)?;
    match target {
        Target::Stdout => {
            let left = Arc::new(AtomicBool::new(false));
            let out = Pipe { inner: io::stdout(), left: Arc::clone(&left) };
            let writer = writer(Box::new(BufWriter::new(out)), &schema, format, false);
            drive(writer, rows, &left).await
        }
        Target::File(path) => write_file(schema, rows, format, path).await,
    }
}

fn check(schema: &SchemaRef, format: Format, target: &Target) -> Result<()> {
    if matches!(format, Format::Json | Format::Parquet) {
        let mut names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let message = format!(
                "two columns are named {}, which this format can't hold: give one another name with AS",
                pair[0]
            );
            return Err(Error::usage(message));
        }
    }
    let binary = matches!(format, Format::Parquet | Format::Arrow);
    if binary && *target == Target::Stdout && io::stdout().is_terminal() {
        return Err(Error::usage(
            "a terminal can't show this format: name a file with -o, or send the output to a program",
        ));
    }
    Ok(())
}

/// What a format does with rows; nothing is written before the first call.
trait RowWriter: Send {
    /// Writes a batch, so that it is out when this returns where the format allows it.
    fn rows(&mut self, batch: &RecordBatch) -> Result<()>;

    /// Writes what belongs at the end. Called once, after all rows, also after none.
    fn finish(&mut self) -> Result<()>;
}

type Out = Box<dyn Write + Send>;

fn writer(out: Out, schema: &SchemaRef, format: Format, is_file: bool) -> Result<Box<dyn RowWriter>> {
    Ok(match format {
        Format::Table => Box::new(table::TableWriter::new(out, schema)),
        Format::Csv => Box::new(delimited::CsvWriter::new(out, schema)),
        Format::Json => Box::new(json::JsonWriter::new(out, schema)?),
        Format::Parquet => Box::new(columnar::ParquetWriter::new(out, schema)?),
        Format::Arrow if is_file => Box::new(columnar::ArrowFileWriter::new(out, schema)?),
        Format::Arrow => Box::new(columnar::ArrowStreamWriter::new(out, schema)?),
    })
}

/// Writes until the stream ends or the reader has `left`.
async fn drive(writer: Result<Box<dyn RowWriter>>, mut rows: RowStream, left: &AtomicBool) -> Result<u64> {
    let ended = |result: Result<()>| match result {
        Err(_) if left.load(Ordering::Relaxed) => Ok(true),
        other => other.map(|()| false),
    };
    let mut written = 0;
    let mut writer = match writer {
        Err(_) if left.load(Ordering::Relaxed) => return Ok(0),
        other => other?,
    };
    while let Some(batch) = rows.try_next().await? {
        if ended(writer.rows(&batch))? {
            return Ok(written);
        }
        written += batch.num_rows() as u64;
    }
    ended(writer.finish())?;
    Ok(written)
}

/// Under another name in the same folder, renamed at the end: a reader of the file never sees half of it.
async fn write_file(schema: SchemaRef, rows: RowStream, format: Format, path: &Path) -> Result<u64> {
    let name =
        path.file_name().ok_or_else(|| Error::usage("the output needs a file name").with("file", path.display()))?;
    let hidden = format!(".{}.{}.partial", name.to_string_lossy(), std::process::id());
    let partial = Partial { path: path.with_file_name(hidden) };
    let file = File::create(&partial.path)
        .external("can't create the output file")
        .map_err(|e| e.with("file", path.display()))?;
    let out = file.try_clone().external("can't write the output file")?;
    let writer = writer(Box::new(BufWriter::new(out)), &schema, format, true);
    let written = drive(writer, rows, &AtomicBool::new(false)).await?;
    file.sync_all().external("can't write the output file").map_err(|e| e.with("file", path.display()))?;
    fs::rename(&partial.path, path)
        .external("can't replace the output file")
        .map_err(|e| e.with("file", path.display()))?;
    Ok(written)
}

/// A file that goes unless it was renamed.
struct Partial {
    path: PathBuf,
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone already after the rename: nothing to tell.
        let _ = fs::remove_file(&self.path);
    }
}

/// A writer that remembers whether its reader has gone.
struct Pipe<W> {
    inner: W,
    left: Arc<AtomicBool>,
}

impl<W> Pipe<W> {
    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
            self.left.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl<W: Write> Write for Pipe<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.inner.write(bytes);
        self.note(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.inner.flush();
        self.note(result)
    }
}

/// Wording of every failure to write.
fn unwritable<T>(result: io::Result<T>) -> Result<T> {
    result.external("can't write the result")
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use futures::{StreamExt, stream};

    use super::*;

    /// A reader that leaves after so many bytes, or a disk that is full.
    struct Ends {
        after: usize,
        with: io::ErrorKind,
    }

    impl Write for Ends {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.after = self.after.checked_sub(bytes.len()).ok_or(io::Error::from(self.with))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    async fn written(format: Format, end: Ends) -> Result<u64> {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
        let schema = batch.schema();
        let rows = stream::iter(vec![batch; 4].into_iter().map(Ok)).boxed();
        let left = Arc::new(AtomicBool::new(false));
        let pipe = Pipe { inner: end, left: Arc::clone(&left) };
        drive(writer(Box::new(BufWriter::with_capacity(16, pipe)), &schema, format, false), rows, &left).await
    }

    #[tokio::test]
    async fn a_reader_that_leaves_ends_the_writing_quietly() {
        for format in [Format::Table, Format::Csv, Format::Json, Format::Arrow, Format::Parquet] {
            for after in [0, 40, 5_000] {
                let end = Ends { after, with: io::ErrorKind::BrokenPipe };
                let rows = written(format, end).await.unwrap();
                assert!(rows < 4000 || matches!(format, Format::Table | Format::Parquet), "{format:?} {after}: {rows}");
            }
        }
    }

    #[tokio::test]
    async fn any_other_failure_to_write_is_told() {
        for format in [Format::Table, Format::Csv, Format::Json, Format::Arrow, Format::Parquet] {
            let error = written(format, Ends { after: 40, with: io::ErrorKind::StorageFull }).await.unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::External, "{format:?}");
        }
    }
}
