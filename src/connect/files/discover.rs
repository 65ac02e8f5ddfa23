//! Compares the files that are there with those that were taken: new, changed, gone, still growing.

use std::collections::{HashMap, HashSet};
use std::num::NonZero;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;

use super::store::FileStore;
use super::{FilesSource, parquet_file};
use crate::connect::Landing;
use crate::connect::position::{FileEntry, Position};
use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::spec::types::AfterTaken;
use crate::table::types;

/// What a look at the files found.
#[derive(Debug, Default)]
pub struct Discovery {
    /// Files to read.
    pub fresh: Vec<Found>,
    /// Entries whose rows stay as they are; etags may be newer than those of the last position.
    pub kept: Vec<FileEntry>,
    /// Paths whose rows go.
    pub removed: Vec<String>,
    /// Paths left for the next run.
    pub growing: Vec<String>,
    /// Taken files of a landing folder that have other bytes now; their rows stay.
    pub rewritten: Vec<String>,
    /// Pairs of paths with the same bytes.
    pub twins: Vec<(String, String)>,
}

/// A file to read.
#[derive(Debug, Clone)]
pub struct Found {
    /// As shown.
    pub path: String,
    /// Whether an older version of it was taken.
    pub is_changed: bool,
    /// Hash of its bytes, the etag where that is one.
    pub hash: String,
    pub(super) meta: ObjectMeta,
}

/// A file and its path as shown.
type Named = (String, ObjectMeta);

impl Discovery {
    /// `3 new files, 1 changed, 2 gone`; none if the rows stay as they are.
    pub fn changes(&self) -> Option<String> {
        let changed = self.fresh.iter().filter(|f| f.is_changed).count();
        let new = self.fresh.len() - changed;
        let parts = [(new, "new"), (changed, "changed"), (self.removed.len(), "gone")];
        let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        let files = if self.fresh.len() + self.removed.len() == 1 { "file" } else { "files" };
        (!parts.is_empty()).then(|| format!("{files}: {}", parts.join(", ")))
    }

    /// Paths that were taken and whose rows go, another version's coming or not.
    pub fn gone(&self) -> Vec<String> {
        let changed = self.fresh.iter().filter(|found| found.is_changed).map(|found| &found.path);
        changed.chain(&self.removed).cloned().collect()
    }

    /// What is to be taken in, as one text.
    pub(super) fn seen(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let fresh = self.fresh.iter().flat_map(|found| [found.path.as_str(), found.hash.as_str()]);
        for part in fresh.chain([""]).chain(self.removed.iter().map(String::as_str)) {
            hasher.update(part.as_bytes()).update(&[0]);
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Worth a look.
    pub fn notes(&self) -> Vec<String> {
        let twins = self.twins.iter().map(|(a, b)| format!("{a} and {b} have the same bytes; both count"));
        twins.chain(self.warnings()).collect()
    }

    /// Files that aren't taken although they are there.
    pub fn warnings(&self) -> Vec<String> {
        let growing =
            self.growing.iter().map(|path| format!("{path} is still being written; it is left for the next run"));
        let rewritten = self
            .rewritten
            .iter()
            .map(|path| format!("{path} was taken already and has other bytes now; its first rows stay"));
        growing.chain(rewritten).collect()
    }
}

impl FilesSource {
    /// Looks at the files that are there now. Waits for files that are younger than `settle`, unless `patient` is false:
    /// then those count as settled.
    ///
    /// # Errors
    /// External, when the glob matches nothing and may not, or the store can't be listed.
    pub(super) async fn discover(&self, prior: &Position, patient: bool) -> Result<Discovery> {
        let mut files = self.store.list().await?;
        let is_known_landing = self.is_append() && !prior.files.is_empty();
        if files.is_empty() && !self.spec.allow_empty && !is_known_landing {
            return Err(Error::external("no file matches")
                .with("source", &self.name)
                .with("path", &self.store.pattern)
                .with("untouched", "its rows stay as they are: a lost mount must not empty a table")
                .with("hint", "`allow_empty: true` if no file at all is fine"));
        }
        let mut discovery = Discovery::default();
        if self.store.is_local && patient {
            discovery.growing = self.settle(&mut files, prior).await?;
        }
        if self.is_append() {
            self.compare_landing(prior, files, &mut discovery).await?;
        } else {
            self.compare_snapshot(prior, files, &mut discovery).await?;
        }
        discovery.twins = twins(&discovery);
        Ok(discovery)
    }

    /// The source is the files that are there: others' rows go.
    async fn compare_snapshot(&self, prior: &Position, files: Vec<ObjectMeta>, found: &mut Discovery) -> Result<()> {
        let (same, other) = self.split(prior, files);
        found.kept.extend(same.iter().filter_map(|(path, _)| prior.file(path).cloned()));
        let mut there: HashSet<String> = same.into_iter().map(|(path, _)| path).collect();
        for (path, meta, hash) in self.hashed(other).await? {
            there.insert(path.clone());
            match prior.file(&path) {
                Some(entry) if entry.hash == hash => found.kept.push(with_meta(entry.clone(), &meta)),
                known => found.fresh.push(Found { is_changed: known.is_some(), path, hash, meta }),
            }
        }
        let growing: HashSet<&str> = found.growing.iter().map(String::as_str).collect();
        for entry in &prior.files {
            if growing.contains(entry.path.as_str()) {
                found.kept.push(entry.clone());
            } else if !there.contains(&entry.path) {
                found.removed.push(entry.path.clone());
            }
        }
        Ok(())
    }

    /// The source is every file that ever was there. Where taken files are moved away, a known name is a new file.
    async fn compare_landing(&self, prior: &Position, files: Vec<ObjectMeta>, found: &mut Discovery) -> Result<()> {
        found.kept.clone_from(&prior.files);
        let (_, other) = self.split(prior, files);
        for (path, meta, hash) in self.hashed(other).await? {
            let known = prior.files_of(&path);
            if known.iter().any(|entry| entry.hash == hash) {
                continue;
            }
            if known.is_empty() || self.spec.after != AfterTaken::Keep {
                found.fresh.push(Found { path, is_changed: false, hash, meta });
            } else {
                found.rewritten.push(path);
            }
        }
        Ok(())
    }

    /// Files by their shown paths: those that are the version of an entry, and others.
    fn split(&self, prior: &Position, files: Vec<ObjectMeta>) -> (Vec<Named>, Vec<Named>) {
        let named = files.into_iter().map(|meta| (self.store.shown(&meta.location), meta));
        named.partition(|(path, meta)| prior.files_of(path).iter().any(|entry| is_same(entry, meta)))
    }

    /// Files with the hashes of their bytes, read on all cores.
    async fn hashed(&self, files: Vec<Named>) -> Result<Vec<(String, ObjectMeta, String)>> {
        let hashes: Vec<_> = files.iter().map(|(_, meta)| self.hash(meta)).collect();
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let hashes: Vec<String> = futures::stream::iter(hashes).buffered(cores).try_collect().await?;
        Ok(files.into_iter().zip(hashes).map(|((path, meta), hash)| (path, meta, hash)).collect())
    }

    /// Waits for files that may still be written; takes those that go on growing out of `files` and names them.
    async fn settle(&self, files: &mut Vec<ObjectMeta>, prior: &Position) -> Result<Vec<String>> {
        let settle = chrono::Duration::from_std(self.spec.settle).unwrap_or_default();
        let now = chrono::Utc::now();
        let age = |meta: &ObjectMeta| now - meta.last_modified;
        let is_new = |meta: &ObjectMeta| {
            !prior.files_of(&self.store.shown(&meta.location)).iter().any(|entry| is_same(entry, meta))
        };
        // A time in the future is a clock's fault, not a sign of growth.
        let is_young = |meta: &&ObjectMeta| is_new(meta) && age(meta) < settle && age(meta) > -settle;
        let young: Vec<ObjectMeta> = files.iter().filter(is_young).cloned().collect();
        let Some(youngest) = young.iter().map(age).min() else { return Ok(Vec::new()) };
        tokio::time::sleep((settle - youngest).to_std().unwrap_or(Duration::ZERO)).await;
        let mut growing = Vec::new();
        for before in young {
            let after = self.store.head(&before.location).await?;
            let still =
                after.is_some_and(|after| after.size == before.size && after.last_modified == before.last_modified);
            if !still {
                growing.push(self.store.shown(&before.location));
                files.retain(|file| file.location != before.location);
            }
        }
        Ok(growing)
    }

    pub(super) async fn hash(&self, meta: &ObjectMeta) -> Result<String> {
        if !self.store.is_local {
            let tag = meta.e_tag.clone().or_else(|| meta.version.clone());
            return Ok(tag.unwrap_or_else(|| format!("{}-{}", meta.size, meta.last_modified.timestamp_micros())));
        }
        let mut input = self.store.read(&meta.location).await?;
        let path = self.store.shown(&meta.location);
        let hashed = tokio::task::spawn_blocking(move || {
            let mut hasher = blake3::Hasher::new();
            let mut buffer = vec![0; limits::READ_BYTES];
            loop {
                match std::io::Read::read(&mut input, &mut buffer)? {
                    0 => return Ok::<_, std::io::Error>(hasher.finalize().to_hex()[..32].to_string()),
                    read => hasher.update(&buffer[..read]),
                };
            }
        });
        hashed
            .await
            .external("hashing ended early")?
            .external("the file can't be read")
            .map_err(|e| e.with("file", path))
    }

    /// Moves kept files that are still there, in the same version, to the files to read; those that are gone keep their rows
    /// only in a landing folder.
    pub(super) async fn read_again(&self, discovery: &mut Discovery) -> Result<()> {
        let mut kept = Vec::new();
        for entry in std::mem::take(&mut discovery.kept) {
            match self.store.head(&self.store.path(&entry.path)).await? {
                Some(meta) if is_same(&entry, &meta) && !discovery.growing.contains(&entry.path) => {
                    discovery.fresh.push(Found { path: entry.path, is_changed: true, hash: entry.hash, meta });
                }
                _ => kept.push(entry),
            }
        }
        discovery.kept = kept;
        Ok(())
    }

    /// Checks that the rows of kept entries, whose files are gone or still grow, have a value in the contract each: they can't be read
    /// again, and a scan would round and cut them.
    ///
    /// # Errors
    /// External, naming the file.
    pub(super) async fn verify_kept(&self, kept: &[FileEntry], landing: &Landing<'_>) -> Result<()> {
        let warehouse = landing.warehouse;
        let wanted = types::file_schema(types::table_schema(&landing.contract)?.as_ref(), &[]);
        for entry in kept {
            for file in entry.landed.iter().flatten() {
                let path = warehouse.path(&format!("{}/{}", landing.landed, file.path));
                let metadata = parquet_file::metadata_at(&warehouse.store, path, file.size).await?;
                parquet_file::fits(&metadata, &wanted).map_err(|reason| {
                    Error::external(format!(
                        "rows of a file were taken in, it can't be read again, and the changed contract can't hold the rows \
                         that are kept: {reason}"
                    ))
                    .with("file", &entry.path)
                    .with("untouched", "its rows stay as they are")
                    .with("hint", "leave this column as it was, and add another one beside it")
                })?;
            }
        }
        Ok(())
    }

    /// Checks that plain files are still the versions of the position: to be called before what was read is published.
    ///
    /// # Errors
    /// External, naming the file that changed or went.
    pub(super) async fn verify_files(&self, position: &Position) -> Result<()> {
        for entry in position.files.iter().filter(|entry| entry.landed.is_none()) {
            verify_pin(&self.store, entry).await?;
        }
        Ok(())
    }
}

/// Checks that a file is still the version of its entry.
pub(super) async fn verify_pin(store: &FileStore, entry: &FileEntry) -> Result<Path> {
    let path = store.path(&entry.path);
    match store.head(&path).await? {
        Some(meta) if is_same(entry, &meta) => Ok(path),
        Some(_) => Err(changed(&entry.path)),
        None => Err(gone(&entry.path)),
    }
}

/// The error of a file that went away under the reader.
pub(super) fn gone(path: &str) -> Error {
    Error::external("a file went away while it was read")
        .with("file", path)
        .with("hint", "run again: its rows go with it")
}

/// The error of a file that changed under the reader.
pub(super) fn changed(path: &str) -> Error {
    Error::external("a file changed while it was read")
        .with("file", path)
        .with("hint", "run again, once it is whole")
        .retryable()
}

/// Whether a file is the version of an entry, as far as the store can tell without reading it.
pub(super) fn is_same(entry: &FileEntry, meta: &ObjectMeta) -> bool {
    entry.size == meta.size
        && entry.modified_us == meta.last_modified.timestamp_micros()
        && (entry.etag == meta.e_tag || entry.etag.is_none())
}

/// An entry with the time and tag of a newer version with the same bytes.
fn with_meta(entry: FileEntry, meta: &ObjectMeta) -> FileEntry {
    FileEntry { etag: meta.e_tag.clone(), modified_us: meta.last_modified.timestamp_micros(), ..entry }
}

fn twins(discovery: &Discovery) -> Vec<(String, String)> {
    let mut first: HashMap<&str, &str> = HashMap::new();
    let kept = discovery.kept.iter().map(|f| (f.hash.as_str(), f.path.as_str()));
    let fresh = discovery.fresh.iter().map(|f| (f.hash.as_str(), f.path.as_str()));
    let mut twins = Vec::new();
    for (hash, path) in kept.chain(fresh) {
        match first.get(hash) {
            Some(other) => twins.push(((*other).to_string(), path.to_string())),
            None => drop(first.insert(hash, path)),
        }
    }
    twins
}
