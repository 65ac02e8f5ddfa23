//! The project's files: the trait that they are read through, the local disk, and a cache that reads each file once.
//! Knows no YAML.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::{Fault, Place, SourceText};

/// Where a project's files are read from. Reading changes nothing; the order of calls is free.
pub trait ProjectFiles {
    /// The bytes of a file, by an absolute path.
    ///
    /// # Errors
    /// Those of reading; `NotFound` if there is none.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The names of a folder's files, in any order.
    ///
    /// # Errors
    /// Those of listing; `NotFound` if there is no such folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
}

/// The local disk.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

impl ProjectFiles for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if !entry.path().is_dir() {
                names.extend(entry.file_name().into_string());
            }
        }
        Ok(names)
    }
}

/// The nearest folder upwards from `start` that has a `tidemill.yaml`.
pub fn find_project_root(start: &Path) -> Option<PathBuf> {
    start.ancestors().find(|folder| folder.join("tidemill.yaml").is_file()).map(Path::to_path_buf)
}

/// Why a file can't be used.
#[derive(Debug, Clone)]
pub(super) enum Unreadable {
    /// It can't be read.
    Failed { reason: String, is_missing: bool },
    /// It isn't UTF-8; the text up to the first byte that isn't.
    NotUtf8(Arc<SourceText>),
}

impl Unreadable {
    /// The fault: at the first byte that isn't text, else at `asked` for the file at `path`.
    pub(super) fn fault(&self, code: &'static str, asked: Option<Place>, path: &str) -> Fault {
        match self {
            Self::Failed { reason, .. } => Fault::error(code, asked, format!("can't read {path}: {reason}")),
            Self::NotUtf8(source) => {
                let end = source.text.len();
                Fault::error("not_utf8", Place::new(source, end..end), "this file isn't UTF-8 from here on")
                    .hint("save it as UTF-8")
            }
        }
    }
}

/// Texts of the project's files, each read once.
pub(super) struct Files<'a> {
    pub(super) root: &'a Path,
    disk: &'a dyn ProjectFiles,
    texts: HashMap<String, Result<Arc<SourceText>, Unreadable>>,
}

impl<'a> Files<'a> {
    pub(super) fn new(root: &'a Path, disk: &'a dyn ProjectFiles) -> Self {
        Self { root, disk, texts: HashMap::new() }
    }

    /// Reads a file by its path relative to the project.
    pub(super) fn read(&mut self, path: &str) -> Result<Arc<SourceText>, Unreadable> {
        let full = self.root.join(path);
        self.read_as(path, &full)
    }

    /// Reads the file at `full`, which users know as `path`.
    pub(super) fn read_as(&mut self, path: &str, full: &Path) -> Result<Arc<SourceText>, Unreadable> {
        if let Some(known) = self.texts.get(path) {
            return known.clone();
        }
        let text = match self.disk.read(full) {
            Err(error) => {
                let is_missing = error.kind() == io::ErrorKind::NotFound;
                let reason = if is_missing { "there is no such file".to_string() } else { error.to_string() };
                Err(Unreadable::Failed { reason, is_missing })
            }
            Ok(bytes) => String::from_utf8(bytes).map(|text| SourceText::new(path, text)).map_err(|error| {
                let valid = error.utf8_error().valid_up_to();
                let mut bytes = error.into_bytes();
                bytes.truncate(valid);
                Unreadable::NotUtf8(SourceText::new(path, String::from_utf8_lossy(&bytes)))
            }),
        };
        self.texts.insert(path.to_string(), text.clone());
        text
    }

    /// Whether a file was asked for.
    pub(super) fn was_read(&self, path: &str) -> bool {
        self.texts.contains_key(path)
    }

    /// Paths of a folder's files with one of the endings, in order of names; hidden ones left out. No folder, no files.
    pub(super) fn list(&self, folder: &str, endings: &[&str]) -> Result<Vec<String>, Fault> {
        let names = match self.disk.list(&self.root.join(folder)) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Fault::error("unreadable_file", None, format!("can't list {folder}/: {error}"))),
        };
        let names: BTreeSet<String> = names
            .into_iter()
            .filter(|name| !name.starts_with('.') && endings.iter().any(|ending| name.ends_with(ending)))
            .collect();
        Ok(names.into_iter().map(|name| format!("{folder}/{name}")).collect())
    }
}
