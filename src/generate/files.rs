//! Folders and files of generated rows: hidden until whole, then renamed. Knows no table's meaning.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::arrow::ArrowWriter;
use parquet::file::writer::SerializedFileWriter;

use crate::error::{Error, Result, ResultExt};

use super::encode::{Body, Encoded, Encoding, properties};
use super::tables::{ALL, Table};
use super::{Format, Options, TableSummary};

/// All folders.
pub(super) struct Output {
    folders: Vec<Folder>,
}

impl Output {
    /// Makes the folders.
    pub(super) fn new(options: &Options) -> Result<Self> {
        let folder = |table: &&'static Table| Folder::new(&options.dir, table, options.format);
        Ok(Self { folders: ALL.iter().map(folder).collect::<Result<_>>()? })
    }

    /// How a table's rows are encoded.
    pub(super) fn encoding(&self, table: &Table) -> Result<Arc<Encoding>> {
        let folder = self.folders.iter().find(|f| f.encoding.table.name == table.name);
        Ok(Arc::clone(&folder.ok_or_else(|| unknown(table))?.encoding))
    }

    /// Appends to the table's file `stem`, and makes its other file whole, if one was begun.
    pub(super) fn append(&mut self, table: &Table, stem: &str, rows: Encoded) -> Result<()> {
        self.folder(table)?.append(stem, rows)
    }

    /// Sees to it that the table's file `stem` is there, even without rows.
    pub(super) fn touch(&mut self, table: &Table, stem: &str) -> Result<()> {
        self.folder(table)?.open(stem).map(drop)
    }

    /// Makes all files whole.
    pub(super) fn finish(mut self) -> Result<Vec<TableSummary>> {
        for folder in &mut self.folders {
            folder.close()?;
        }
        Ok(self.folders.iter_mut().map(|f| std::mem::take(&mut f.told)).collect())
    }

    fn folder(&mut self, table: &Table) -> Result<&mut Folder> {
        self.folders.iter_mut().find(|f| f.encoding.table.name == table.name).ok_or_else(|| unknown(table))
    }
}

fn unknown(table: &Table) -> Error {
    Error::internal("a generated table has no folder").with("table", table.name)
}

/// One table's folder, with the file that is being written.
struct Folder {
    path: PathBuf,
    encoding: Arc<Encoding>,
    open: Option<Open>,
    told: TableSummary,
}

impl Folder {
    fn new(dir: &Path, table: &'static Table, format: Format) -> Result<Self> {
        let path = dir.join(table.name);
        fs::create_dir_all(&path).external("cannot make the folder").map_err(|e| e.with("folder", path.display()))?;
        let encoding = Arc::new(Encoding::new(table, format)?);
        Ok(Self { path, encoding, open: None, told: TableSummary { table: table.name, ..TableSummary::default() } })
    }

    fn append(&mut self, stem: &str, rows: Encoded) -> Result<()> {
        if rows.rows + rows.malformed == 0 {
            return self.open(stem).map(drop);
        }
        self.told.rows += rows.rows;
        self.told.malformed += rows.malformed;
        let open = self.open(stem)?;
        let path = open.hidden.display().to_string();
        open.append(rows.body).map_err(|e| e.with("file", path))
    }

    fn open(&mut self, stem: &str) -> Result<&mut Open> {
        if self.open.as_ref().is_some_and(|open| open.stem != stem) {
            self.close()?;
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => Open::new(&self.path, stem, &self.encoding)?,
        };
        Ok(self.open.insert(open))
    }

    fn close(&mut self) -> Result<()> {
        if let Some(open) = self.open.take() {
            self.told.files += 1;
            self.told.bytes += open.close()?;
        }
        Ok(())
    }
}

/// A file that is being written under a hidden name, which no glob of a project matches.
struct Open {
    stem: String,
    hidden: PathBuf,
    whole: PathBuf,
    writer: Writer,
}

enum Writer {
    Text(BufWriter<File>),
    Parquet(Box<SerializedFileWriter<BufWriter<File>>>),
}

impl Open {
    fn new(folder: &Path, stem: &str, encoding: &Encoding) -> Result<Self> {
        let name = format!("{stem}.{}", encoding.format.extension());
        let (hidden, whole) = (folder.join(format!(".{name}.part")), folder.join(name));
        let file = File::create(&hidden).external("cannot write").map_err(|e| e.with("file", hidden.display()))?;
        let mut file = BufWriter::new(file);
        let writer = match encoding.format {
            Format::Parquet => {
                let writer = ArrowWriter::try_new(file, Arc::clone(&encoding.schema), Some(properties()?));
                let (writer, _) = writer.and_then(ArrowWriter::into_serialized_writer).external("cannot write")?;
                Writer::Parquet(Box::new(writer))
            }
            Format::Csv | Format::Json => {
                file.write_all(&encoding.header()).external("cannot write")?;
                Writer::Text(file)
            }
        };
        Ok(Self { stem: stem.to_owned(), hidden, whole, writer })
    }

    fn append(&mut self, body: Body) -> Result<()> {
        match (&mut self.writer, body) {
            (Writer::Text(file), Body::Text(bytes)) => file.write_all(&bytes).external("cannot write"),
            (Writer::Parquet(file), Body::RowGroup(columns)) => {
                let mut group = file.next_row_group().external("cannot write")?;
                for column in columns {
                    column.append_to_row_group(&mut group).external("cannot write")?;
                }
                group.close().external("cannot write").map(drop)
            }
            _ => Err(Error::internal("generated rows were encoded for another format")),
        }
    }

    fn close(self) -> Result<u64> {
        let told = |e: Error| e.with("file", self.hidden.display());
        let file = match self.writer {
            Writer::Text(file) => file.into_inner().map_err(|e| e.into_error()).external("cannot write"),
            Writer::Parquet(file) => file
                .into_inner()
                .external("cannot write")
                .and_then(|file| file.into_inner().map_err(|e| e.into_error()).external("cannot write")),
        };
        let bytes = file.and_then(|file| file.metadata().external("cannot write")).map_err(told)?.len();
        fs::rename(&self.hidden, &self.whole).external("cannot rename").map_err(told)?;
        Ok(bytes)
    }
}

impl Drop for Folder {
    /// A file that never became whole is of no use to anybody.
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            let _ = fs::remove_file(&open.hidden);
        }
    }
}
