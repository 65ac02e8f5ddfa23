//! How far a files source is read: the list of its files. Values only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Result, ResultExt};
use crate::table::DataFile;

/// The files whose rows are the source, in order of paths.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FilesPosition {
    /// Hash of the contract and row rules that the files were read under.
    pub contract: String,
    /// Files, by path.
    pub files: Vec<FileEntry>,
}

/// One version of one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// As shown: relative to the project, absolute, or a URL. `_source_file` of its rows.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// The store's tag of this version.
    pub etag: Option<String>,
    /// When it was last written, microseconds since 1970 UTC.
    pub modified_us: i64,
    /// Hash of its bytes on local disk, the etag elsewhere.
    pub hash: String,
    /// Accepted rows.
    pub rows: u64,
    /// Refused rows, dropped ones included.
    pub refused: u64,
    /// Rows that rules with `on_fail: warn` failed on, by rule.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub warned: BTreeMap<String, u64>,
    /// Where its accepted rows were landed; none: plain, read in place.
    pub landed: Option<Vec<DataFile>>,
    /// Its part of the quarantine table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<DataFile>,
    /// When it was taken in, microseconds since 1970 UTC: `_ingested_at`.
    pub ingested_at_us: i64,
}

impl FilesPosition {
    /// Reads a position out of a commit record; before the first commit there is none.
    pub fn from_json(json: Option<&serde_json::Value>) -> Result<Self> {
        match json {
            None => Ok(Self::default()),
            Some(json) => serde_json::from_value(json.clone()).external("the source's position can't be read"),
        }
    }

    /// The position as a commit record keeps it.
    pub fn to_json(&self) -> Result<serde_json::Value> {
        serde_json::to_value(self).external("the source's position can't be written")
    }

    /// Changes exactly when the source's rows may: not with the time of a file or of reading it.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.contract.as_bytes());
        for file in &self.files {
            hasher.update(file.path.as_bytes()).update(&[0]).update(file.hash.as_bytes()).update(&[0]);
        }
        hasher.finalize().to_hex()[..32].to_string()
    }

    /// The entry of a path.
    pub fn file(&self, path: &str) -> Option<&FileEntry> {
        self.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok().map(|at| &self.files[at])
    }

    /// All parts of the quarantine table.
    pub fn quarantined(&self) -> Vec<DataFile> {
        self.files.iter().flat_map(|file| file.quarantined.iter().cloned()).collect()
    }
}
