//! A source's store where files that are read in place are read as the versions of their pins, or not at all. Knows no format.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::discover::{changed, gone};
use super::store::FileStore;
use crate::connect::position::FileEntry;

/// Every read of a pinned file asks for the etag of its pin: a reader gets no mix of two versions.
#[derive(Debug)]
pub(super) struct PinnedStore {
    inner: Arc<dyn ObjectStore>,
    /// Path as shown and etag, by path in the store.
    pins: HashMap<Path, (String, Option<String>)>,
}

impl PinnedStore {
    pub(super) fn new(store: &FileStore, pinned: &[FileEntry]) -> Self {
        let pin = |entry: &FileEntry| (store.path(&entry.path), (entry.path.clone(), entry.etag.clone()));
        Self { inner: Arc::clone(&store.store), pins: pinned.iter().map(pin).collect() }
    }
}

impl fmt::Display for PinnedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for PinnedStore {
    async fn get_opts(&self, from: &Path, mut options: GetOptions) -> Result<GetResult> {
        let Some((shown, etag)) = self.pins.get(from) else { return self.inner.get_opts(from, options).await };
        options.if_match.clone_from(etag);
        self.inner.get_opts(from, options).await.map_err(|error| match error {
            Error::Precondition { .. } => Error::Generic { store: "source", source: Box::new(changed(shown)) },
            Error::NotFound { .. } => Error::Generic { store: "source", source: Box::new(gone(shown)) },
            other => other,
        })
    }

    async fn put_opts(&self, to: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(to, payload, options).await
    }

    async fn put_multipart_opts(&self, to: &Path, o: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, o).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
