//! Local disk as an object store that keeps its word after a power cut. Knows nothing of tables.
//!
//! `object_store` writes atomically but never calls fsync. Here whatever decides something (create-only puts, everything
//! under `_delta_log`) is on the disk, with its folder, before the call returns; other files wait for a call of [`sync`].

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

use super::delta::LOG_FOLDER;

const STORE: &str = "local disk";

/// Local disk, rooted at `/`.
#[derive(Debug, Clone, Default)]
pub(crate) struct LocalStore {
    inner: LocalFileSystem,
}

impl LocalStore {
    /// The file that `path` stands for.
    pub(crate) fn file(&self, path: &Path) -> Result<PathBuf> {
        self.inner.path_to_filesystem(path)
    }
}

/// Writes a file's data, or a folder's entries, through to the disk. Blocks.
pub(crate) fn sync(place: &FsPath) -> std::io::Result<()> {
    // Only Unix lets a folder be opened; elsewhere the file system does it by itself.
    if cfg!(unix) || !place.is_dir() { File::open(place)?.sync_all() } else { Ok(()) }
}

/// Writes a file's data and its name through to the disk. Blocks.
fn sync_with_folder(file: &FsPath) -> std::io::Result<()> {
    sync(file)?;
    file.parent().map_or(Ok(()), sync)
}

/// Creates `folder` and those above it, each entry synced. Blocks.
pub(crate) fn create_folder(folder: &FsPath) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent();
    if let Some(above) = above {
        create_folder(above)?;
    }
    match fs::create_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(e) => Err(e),
        Ok(()) => above.map_or(Ok(()), sync),
    }
}

fn generic(path: &FsPath, source: std::io::Error) -> object_store::Error {
    let path = path.display().to_string();
    match source.kind() {
        std::io::ErrorKind::AlreadyExists => object_store::Error::AlreadyExists { path, source: Box::new(source) },
        std::io::ErrorKind::NotFound => object_store::Error::NotFound { path, source: Box::new(source) },
        std::io::ErrorKind::PermissionDenied => {
            object_store::Error::PermissionDenied { path, source: Box::new(source) }
        }
        _ => object_store::Error::Generic { store: STORE, source: Box::new(source) },
    }
}

/// Writes `payload` beside `file`, syncs it, and only then gives it its name.
fn put_durable(file: &FsPath, payload: &PutPayload, create_only: bool) -> std::io::Result<()> {
    let folder = file.parent().ok_or(std::io::ErrorKind::InvalidInput)?;
    create_folder(folder)?;
    let name = file.file_name().ok_or(std::io::ErrorKind::InvalidInput)?.to_string_lossy();
    // `#` and digits at the end: the pattern that listings of `LocalFileSystem` leave out.
    let staged = folder.join(format!("{name}#{}", ulid::Ulid::r#gen().0));
    let written = (|| {
        let mut out = File::options().write(true).create_new(true).open(&staged)?;
        payload.iter().try_for_each(|part| out.write_all(part))?;
        out.sync_all()?;
        if create_only { fs::hard_link(&staged, file) } else { fs::rename(&staged, file) }
    })();
    if create_only || written.is_err() {
        // A leftover is invisible and harmless; the outcome is already decided.
        let _ = fs::remove_file(&staged);
    }
    written?;
    sync(folder)
}

/// Among a put's extensions: its bytes needn't be on the disk when it returns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unsynced;

fn must_last(path: &Path) -> bool {
    path.parts().any(|part| part.as_ref() == LOG_FOLDER)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(source) => Err(object_store::Error::JoinError { source }),
    }
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STORE)
    }
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create_only = matches!(opts.mode, PutMode::Create);
        let is_synced = opts.extensions.get::<Unsynced>().is_none();
        let lasting = create_only && is_synced || (must_last(location) && matches!(opts.mode, PutMode::Overwrite));
        if !lasting {
            return self.inner.put_opts(location, payload, opts).await;
        }
        let file = self.file(location)?;
        blocking(move || put_durable(&file, &payload, create_only).map_err(|e| generic(&file, e))).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.inner.put_multipart_opts(location, opts).await?;
        if !must_last(location) {
            return Ok(upload);
        }
        Ok(Box::new(DurableUpload { upload, file: self.file(location)? }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

/// An upload whose file is on the disk when it is complete: a checkpoint lets older log files go.
#[derive(Debug)]
struct DurableUpload {
    upload: Box<dyn MultipartUpload>,
    file: PathBuf,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let done = self.upload.complete().await?;
        let file = self.file.clone();
        blocking(move || sync_with_folder(&file).map_err(|e| generic(&file, e))).await?;
        Ok(done)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}
