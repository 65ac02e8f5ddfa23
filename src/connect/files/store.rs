//! Where a source's files are: a folder on disk or an object store, and the glob that chooses among them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path as FsPath, PathBuf};
use std::sync::Arc;

use futures::TryStreamExt;
use globset::{GlobBuilder, GlobMatcher};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio_util::io::{StreamReader, SyncIoBridge};
use url::Url;

use crate::error::{Error, Result, ResultExt};
use crate::spec::types::{AfterTaken, FilesSpec};
use crate::table::{LocalStore, Parsed, Seen, Warehouse};

/// Characters that make a path a glob.
const GLOB: [char; 4] = ['*', '?', '[', '{'];

/// A store and the pattern of a source's files in it.
#[derive(Debug, Clone)]
pub(in crate::connect) struct FileStore {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) is_local: bool,
    /// What was configured, for messages.
    pub(in crate::connect) pattern: String,
    /// `s3://bucket/` or empty: stands before a path that is shown.
    shown_prefix: String,
    /// The project's folder, which is left out of paths that are shown.
    root: PathBuf,
    /// Longest folder without glob characters: where listing starts.
    prefix: Path,
    matcher: GlobMatcher,
}

impl FileStore {
    pub(super) fn open(root: &FsPath, spec: &FilesSpec) -> Result<Self> {
        Self::at(root, &spec.path.value, &spec.options)
    }

    /// The store of a path or URL with a glob.
    ///
    /// # Errors
    /// Usage, for one that can't be read.
    pub(in crate::connect) fn at(root: &FsPath, pattern: &str, options: &BTreeMap<String, String>) -> Result<Self> {
        let pattern = pattern.to_string();
        let url = Url::parse(&pattern).ok().filter(|url| url.scheme().len() > 1);
        let (store, is_local, path, shown_prefix): (Arc<dyn ObjectStore>, bool, String, String) = match &url {
            Some(url) if url.scheme() != "file" => {
                let (store, host) = remote(url, &pattern, options)?;
                let path = pattern[host.len()..].to_string();
                (store, false, path, host)
            }
            _ => {
                let path = pattern.strip_prefix("file://").unwrap_or(&pattern);
                let path = normal(&root.join(path)).to_string_lossy().into_owned();
                (Arc::new(LocalStore::default()), true, path, String::new())
            }
        };
        let is_folder = is_local && !path.contains(GLOB) && FsPath::new(&path).is_dir();
        let path = if is_folder || path.ends_with('/') { format!("{}/*", path.trim_end_matches('/')) } else { path };
        let path = path.trim_start_matches('/').to_string();
        let glob = GlobBuilder::new(&path).literal_separator(true).build();
        let glob = glob.map_err(|e| Error::usage(format!("`{pattern}` isn't a glob: {}", e.kind())))?;
        let fixed = path.find(GLOB).map_or(path.as_str(), |at| &path[..at]);
        let prefix = fixed.rsplit_once('/').map_or("", |(folder, _)| folder);
        Ok(Self {
            store,
            is_local,
            pattern,
            shown_prefix,
            root: normal(root),
            prefix: Path::from(prefix),
            matcher: glob.compile_matcher(),
        })
    }

    /// A folder as a place to write to; looks at nothing.
    ///
    /// # Errors
    /// Usage, for a path or URL that can't be read.
    pub(super) fn folder(root: &FsPath, path: &str, options: &BTreeMap<String, String>) -> Result<Warehouse> {
        let all = Self::at(root, &format!("{}/*", path.trim_end_matches('/')), options)?;
        Ok(Warehouse {
            store: all.store,
            root: all.prefix,
            url: path.to_string(),
            is_local: all.is_local,
            seen: Seen::default(),
            parsed: Parsed::default(),
        })
    }

    /// Files that match now, in order of paths.
    pub(in crate::connect) async fn list(&self) -> Result<Vec<ObjectMeta>> {
        let listed: Result<Vec<ObjectMeta>, _> = self.store.list(Some(&self.prefix)).try_collect().await;
        let mut files = match listed {
            Ok(files) => files,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(error) => {
                return Err(Error::external("the files can't be listed").with("path", &self.pattern).caused_by(error));
            }
        };
        files.retain(|file| self.matcher.is_match(file.location.as_ref()));
        files.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(files)
    }

    /// A path as shown to users and stored as `_source_file`: relative to the project where it is below it.
    pub(in crate::connect) fn shown(&self, path: &Path) -> String {
        if !self.is_local {
            return format!("{}{path}", self.shown_prefix);
        }
        let absolute = PathBuf::from(format!("/{path}"));
        absolute.strip_prefix(&self.root).unwrap_or(&absolute).to_string_lossy().into_owned()
    }

    /// The path that [`FileStore::shown`] shows.
    pub(super) fn path(&self, shown: &str) -> Path {
        if !self.is_local {
            return Path::from(shown.strip_prefix(&self.shown_prefix).unwrap_or(shown));
        }
        let absolute = normal(&self.root.join(shown));
        Path::from_absolute_path(&absolute).unwrap_or_else(|_| Path::from(shown))
    }

    /// The file as it is now; none if it is gone.
    pub(super) async fn head(&self, path: &Path) -> Result<Option<ObjectMeta>> {
        match self.store.head(path).await {
            Ok(meta) => Ok(Some(meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(Error::external("the file can't be looked at").with("file", self.shown(path)).caused_by(e)),
        }
    }

    /// The file's bytes, for a thread that may block.
    pub(super) async fn read(&self, path: &Path) -> Result<Box<dyn Read + Send>> {
        let fault = |e: object_store::Error| {
            Error::external("the file can't be read").with("file", self.shown(path)).caused_by(e)
        };
        if self.is_local {
            let file = std::fs::File::open(format!("/{path}"));
            let file = file.external("the file can't be read").map_err(|e| e.with("file", self.shown(path)))?;
            return Ok(Box::new(file));
        }
        let stream = self.store.get(path).await.map_err(fault)?.into_stream();
        let reader = StreamReader::new(stream.map_err(std::io::Error::other));
        Ok(Box::new(SyncIoBridge::new(Box::pin(reader))))
    }
}

impl FileStore {
    /// Moves or deletes a file that was taken.
    pub(super) async fn finish(&self, after: &AfterTaken, taken: &Path) -> Result<()> {
        let done = match after {
            AfterTaken::Keep => Ok(()),
            AfterTaken::Delete => self.store.delete(taken).await,
            AfterTaken::Move(folder) => self.store.rename(taken, &self.free_name(folder, taken).await?).await,
        };
        match done {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => {
                Err(Error::external("a taken file can't be moved away").with("file", self.shown(taken)).caused_by(e))
            }
        }
    }

    /// The file's own name in `folder`, with a number before its extensions where an earlier file has that name.
    async fn free_name(&self, folder: &str, taken: &Path) -> Result<Path> {
        let folder = self.path(folder.trim_end_matches('/'));
        let name = taken.filename().unwrap_or_default();
        let (stem, extensions) = name.find('.').map_or((name, ""), |dot| name.split_at(dot));
        let mut target = folder.clone().join(name);
        let mut number = 1;
        while self.head(&target).await?.is_some() {
            number += 1;
            target = folder.clone().join(format!("{stem}-{number}{extensions}"));
        }
        Ok(target)
    }
}

/// The store of a URL, and the part of it before the path: `s3://bucket/`.
#[cfg(feature = "cloud")]
fn remote(url: &Url, pattern: &str, options: &BTreeMap<String, String>) -> Result<(Arc<dyn ObjectStore>, String)> {
    let base = &url[..url::Position::BeforePath];
    let host = format!("{base}/");
    let host = if pattern.starts_with(&host) { host } else { base.to_string() };
    let environment = std::env::vars().map(|(key, value)| (key.to_lowercase(), value));
    let environment = environment
        .filter(|(key, _)| key.starts_with("aws_") || key.starts_with("google_") || key.starts_with("azure_"));
    let options = environment.chain(options.iter().map(|(k, v)| (k.clone(), v.clone())));
    let root = Url::parse(&host).external("the URL can't be read")?;
    let (store, _) = object_store::parse_url_opts(&root, options)
        .map_err(|e| Error::usage("the object store can't be opened").with("path", pattern).caused_by(e))?;
    Ok((Arc::from(store), host))
}

#[cfg(not(feature = "cloud"))]
fn remote(url: &Url, pattern: &str, _: &BTreeMap<String, String>) -> Result<(Arc<dyn ObjectStore>, String)> {
    Err(Error::usage(format!("{}:// isn't in this build of Tidemill", url.scheme())).with("path", pattern))
}

/// A path without `.` and `..`, which listings don't have.
fn normal(path: &FsPath) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut out = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}
