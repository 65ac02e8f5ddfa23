//! Opening a warehouse and the few ways its objects are written and read. Knows no table and no commit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};
use url::Url;

use super::local::{self, LocalStore};
use super::{Parsed, Seen, Warehouse};
use crate::error::{Error, Result, ResultExt};
use crate::limits;

/// What this build writes, and the newest that it reads.
const FORMAT: u64 = 1;

/// Bookkeeping folder of a warehouse.
pub const BOOKKEEPING: &str = "_tidemill";

/// Outcome of a create-only put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is ours: written now, or by an earlier try of ours that seemed to fail.
    Created,
    /// The object was there with other bytes.
    Exists,
}

#[derive(Serialize, Deserialize)]
struct Format {
    format: u64,
}

impl Warehouse {
    /// Opens or creates the warehouse at a path (relative to `project_root`) or an object store URL.
    ///
    /// `options` are the store's own (`aws_endpoint`, …); they go before the environment.
    ///
    /// # Errors
    /// A URL that is none, a scheme that this build lacks, and a warehouse written by a newer Tidemill are usage errors;
    /// what can't be created or written is external and named.
    pub async fn open(location: &str, project_root: &FsPath, options: &BTreeMap<String, String>) -> Result<Self> {
        let warehouse = Self::locate(location, project_root, options)?;
        if warehouse.is_local {
            let folder = warehouse.file("")?;
            blocking(move || local::create_folder(&folder).map_err(|e| write_error(&folder.display(), e))).await?;
        }
        warehouse.check_format().await?;
        Ok(warehouse)
    }

    fn locate(location: &str, project_root: &FsPath, options: &BTreeMap<String, String>) -> Result<Self> {
        let path = match Url::parse(location) {
            // A single letter is a drive, not a scheme.
            Ok(url) if url.scheme().len() > 1 && url.scheme() != "file" => return remote(&url, options),
            Ok(url) if url.scheme() == "file" => url
                .to_file_path()
                .map_err(|()| Error::usage("this isn't the URL of a local folder").with("warehouse", location))?,
            _ => project_root.join(location),
        };
        let path = normalized(&std::path::absolute(&path).external("the warehouse's path can't be resolved")?);
        let root = Path::from_absolute_path(&path).external("the warehouse's path can't be used")?;
        Ok(Self {
            store: Arc::new(LocalStore::default()),
            root,
            url: path.display().to_string(),
            is_local: true,
            seen: Seen::default(),
            parsed: Parsed::default(),
        })
    }

    async fn check_format(&self) -> Result<()> {
        let path = format!("{BOOKKEEPING}/format.json");
        if self.get(&path).await?.is_none() {
            let bytes = serde_json::to_vec(&Format { format: FORMAT }).external("the format can't be written")?;
            self.put_new(&path, bytes.into()).await?;
        }
        let Some(bytes) = self.get(&path).await? else {
            return Err(Error::external("the warehouse's format file went away").with("file", self.shown(&path)));
        };
        let found: Format = serde_json::from_slice(&bytes).map_err(|e| {
            Error::external("the warehouse's format can't be read").with("file", self.shown(&path)).caused_by(e)
        })?;
        if found.format > FORMAT {
            return Err(Error::usage(format!(
                "the warehouse was written by a newer Tidemill (format {}, this one knows {FORMAT})",
                found.format
            ))
            .with("warehouse", &self.url)
            .with("hint", "update Tidemill, or name another warehouse"));
        }
        Ok(())
    }

    /// A path of the warehouse as the store knows it.
    pub fn path(&self, relative: &str) -> Path {
        // As written: partition folders have `%` in their names.
        let relative = Path::parse(relative).unwrap_or_else(|_| Path::from(relative));
        self.root.parts().chain(relative.parts()).collect()
    }

    /// A path of the warehouse as shown in messages.
    pub fn shown(&self, relative: &str) -> String {
        format!("{}/{relative}", self.url.trim_end_matches('/'))
    }

    /// The file or folder on local disk that a path of the warehouse stands for.
    ///
    /// # Errors
    /// Internal if the warehouse isn't local.
    pub fn file(&self, relative: &str) -> Result<PathBuf> {
        if !self.is_local {
            return Err(Error::internal("a file path of a warehouse that isn't on local disk"));
        }
        LocalStore::default().file(&self.path(relative)).external("the path can't be used")
    }

    /// Writes an object that must not be there yet. Atomic; on local disk also durable.
    ///
    /// A put that failed on the way and was tried again finds its own bytes: that counts as [`Put::Created`], so bytes
    /// must differ between writers (they name their writer).
    pub async fn put_new(&self, path: &str, bytes: Bytes) -> Result<Put> {
        self.create(path, bytes, PutMode::Create.into()).await
    }

    /// The same, but on local disk durable only after [`Self::sync_files`].
    pub async fn put_new_soon(&self, path: &str, bytes: Bytes) -> Result<Put> {
        let mut options = PutOptions::from(PutMode::Create);
        options.extensions.insert(local::Unsynced);
        self.create(path, bytes, options).await
    }

    async fn create(&self, path: &str, bytes: Bytes, options: PutOptions) -> Result<Put> {
        let error = match self.store.put_opts(&self.path(path), PutPayload::from(bytes.clone()), options).await {
            Ok(_) => return Ok(Put::Created),
            Err(error) => error,
        };
        // Whatever went wrong, what stands there now decides.
        match self.get(path).await {
            Ok(Some(there)) if there == bytes => Ok(Put::Created),
            Ok(Some(_)) if matches!(error, object_store::Error::AlreadyExists { .. }) => Ok(Put::Exists),
            _ => Err(write_error(&self.shown(path), error)),
        }
    }

    /// Writes or replaces an object. Atomic, not durable.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        match self.store.put(&self.path(path), PutPayload::from(bytes)).await {
            Ok(_) => Ok(()),
            Err(e) => Err(write_error(&self.shown(path), e)),
        }
    }

    /// Reads a whole object; none if it isn't there.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        Ok(self.fetch(path).await?.map(|(_, bytes)| bytes))
    }

    async fn fetch(&self, path: &str) -> Result<Option<(ObjectMeta, Bytes)>> {
        let read = match self.store.get(&self.path(path)).await {
            Ok(result) => {
                let meta = result.meta.clone();
                result.bytes().await.map(|bytes| (meta, bytes))
            }
            Err(e) => Err(e),
        };
        match read {
            Ok(read) => Ok(Some(read)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(Error::external("a file of the warehouse can't be read")
                .with("file", self.shown(path))
                .caused_by(e)),
        }
    }

    /// What `parse` makes of a file that never changes once it is written; none if it isn't there. One that was read lately isn't
    /// read again, only looked at.
    ///
    /// # Errors
    /// External: the store; what `parse` says.
    pub async fn parsed<T: Send + Sync + 'static>(
        &self,
        path: &str,
        parse: impl FnOnce(Bytes) -> Result<T>,
    ) -> Result<Option<Arc<T>>> {
        let Some(meta) = self.head(path).await? else { return Ok(None) };
        if let Some(known) = self.parsed.get(&meta) {
            return Ok(Some(known));
        }
        let Some((meta, bytes)) = self.fetch(path).await? else { return Ok(None) };
        let content = Arc::new(parse(bytes)?);
        self.parsed.keep(meta, &content);
        Ok(Some(content))
    }

    /// Bytes of the file at `path`; none where there is no file.
    ///
    /// # Errors
    /// External: the store.
    pub async fn size(&self, path: &str) -> Result<Option<u64>> {
        Ok(self.head(path).await?.map(|meta| meta.size))
    }

    async fn head(&self, path: &str) -> Result<Option<ObjectMeta>> {
        match self.store.head(&self.path(path)).await {
            Ok(meta) => Ok(Some(meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(Error::external("a file of the warehouse can't be looked at")
                .with("file", self.shown(path))
                .caused_by(e)),
        }
    }

    /// Whether there is anything under a folder.
    ///
    /// # Errors
    /// External: the store.
    pub async fn has_any(&self, folder: &str) -> Result<bool> {
        let prefix = self.path(folder);
        let first = self.store.list(Some(&prefix)).try_next().await;
        first.map(|first| first.is_some()).map_err(|error| self.unlisted(folder, error))
    }

    /// Lists the objects below a folder, in no order; paths are the store's.
    pub async fn list(&self, folder: &str) -> Result<Vec<ObjectMeta>> {
        let prefix = self.path(folder);
        self.store.list(Some(&prefix)).try_collect().await.map_err(|error| self.unlisted(folder, error))
    }

    fn unlisted(&self, folder: &str, error: object_store::Error) -> Error {
        let told = Error::external("a folder of the warehouse can't be listed");
        told.with("folder", self.shown(folder)).caused_by(error)
    }

    /// Deletes objects, several at once; one that isn't there is fine.
    pub async fn delete(&self, paths: Vec<Path>) -> Result<()> {
        let store = &self.store;
        futures::stream::iter(paths)
            .map(|path| async move {
                match store.delete(&path).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                    Err(e) => Err(Error::external("a file can't be deleted").with("file", path).caused_by(e)),
                }
            })
            .buffer_unordered(limits::CONCURRENT_REQUESTS)
            .try_collect()
            .await
    }

    /// Writes a folder's entries through to the disk.
    pub async fn sync_folder(&self, folder: &str) -> Result<()> {
        let (place, url) = (self.file(folder)?, self.url.clone());
        blocking(move || local::sync(&place).map_err(|e| write_error(&url, e))).await
    }

    /// Writes files through to the disk with their folders. Nothing to do on object stores, where a put is durable.
    pub async fn sync_files(&self, paths: &[String]) -> Result<()> {
        if !self.is_local || paths.is_empty() {
            return Ok(());
        }
        let files = paths.iter().map(|path| self.file(path)).collect::<Result<Vec<_>>>()?;
        let folders: BTreeSet<PathBuf> = files.iter().filter_map(|file| file.parent().map(PathBuf::from)).collect();
        // Several at once: what they wait for is mostly the same write of the disk's journal.
        for places in [files, folders.into_iter().collect()] {
            let synced = places.into_iter().map(|place| {
                let url = self.url.clone();
                blocking(move || local::sync(&place).map_err(|e| write_error(&url, e)))
            });
            let synced = futures::stream::iter(synced).buffer_unordered(limits::CONCURRENT_REQUESTS);
            synced.try_collect::<()>().await?;
        }
        Ok(())
    }
}

/// Words a failed write: a full disk and a read-only place are the user's to mend.
pub(crate) fn write_error<E>(place: &impl std::fmt::Display, source: E) -> Error
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    write_error_after(place, source, "the disk is full; a table that could not be written stays as it was")
}

/// The same for what is written after a commit: `full` says of a full disk what stands and what is left to do.
pub(crate) fn write_error_after<E>(place: &impl std::fmt::Display, source: E, full: &'static str) -> Error
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let source = source.into();
    let kind = io_kind(source.as_ref());
    let message = match kind {
        Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) => full,
        Some(std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied) => {
            "the warehouse can't be written: read-only, or not permitted"
        }
        _ => "the warehouse can't be written",
    };
    let error = Error::external(message).with("path", place).caused_by(source);
    match kind {
        // Somebody may make room: who goes on working waits for that.
        Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) => error.retryable(),
        _ => error,
    }
}

fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<std::io::ErrorKind> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            match io.get_ref() {
                // An error of another crate, dressed as I/O: look inside.
                Some(inner) => return io_kind(inner).or(Some(io.kind())),
                None => return Some(io.kind()),
            }
        }
        if let Some(object_store::Error::PermissionDenied { .. }) = error.downcast_ref() {
            return Some(std::io::ErrorKind::PermissionDenied);
        }
        cause = error.source();
    }
    None
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::internal("a blocking task ended early").caused_by(e)),
    }
}

/// `.` and `..` taken out by name: the folder may not exist yet, so that links can't be followed.
fn normalized(path: &FsPath) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(feature = "cloud")]
fn remote(url: &Url, options: &BTreeMap<String, String>) -> Result<Warehouse> {
    // Only what belongs to these stores; later pairs win, so options given in the project come last.
    let environment = std::env::vars().filter_map(|(key, value)| {
        let key = key.to_ascii_lowercase();
        let known = ["aws_", "google_", "azure_"].iter().any(|prefix| key.starts_with(prefix));
        known.then_some((key, value))
    });
    let given = options.iter().map(|(key, value)| (key.clone(), value.clone()));
    let mut shown = url.clone();
    // Credentials and signatures never show.
    let _ = shown.set_password(None);
    shown.set_query(None);
    let (store, root) = object_store::parse_url_opts(url, environment.chain(given)).map_err(|e| {
        let reason = e.to_string().replace(url.as_str(), shown.as_str());
        Error::usage("the warehouse's URL can't be used").with("warehouse", &shown).with("reason", reason)
    })?;
    Ok(Warehouse {
        store: Arc::from(store),
        root,
        url: shown.to_string(),
        is_local: false,
        seen: Seen::default(),
        parsed: Parsed::default(),
    })
}

#[cfg(not(feature = "cloud"))]
fn remote(url: &Url, _options: &BTreeMap<String, String>) -> Result<Warehouse> {
    Err(Error::usage(format!("this build has no object stores, so {}:// can't be opened", url.scheme()))
        .with("hint", "build with `--features cloud`, or give a folder"))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
