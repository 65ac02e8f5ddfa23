//! A folder as a sink: a file a change, which is there as a whole or not at all.
//!
//! ```text
//! <commit, 20 digits>-<number, 10 digits>.parquet   a change; names sort in the order that changes are to be applied in
//! _tidemill/<number, 20 digits>.json                 that it was decided on: its cursor, and where its rows were staged
//! _tidemill/<ulid>.staged                            rows of a change that isn't there yet
//! ```
//!
//! Rows are staged first. Then one create-only put of the next number decides, so that nobody comes in behind another; after it the
//! rows get their name, by whoever comes by. A file that somebody took away is made up for: the cursor is that of the newest file
//! that is there.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use super::sink_rows::{FileWriter, Layout};
use super::store::FileStore;
use crate::connect::encode::envelope::{Commit, Origin};
use crate::connect::sink::{Sink, SinkChange, SinkCursor};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::spec::types::{FilesSinkSpec, Project};
use crate::table::{BOOKKEEPING, Put, Warehouse};
use crate::{failpoint, limits};

/// Ending of rows that aren't decided on: no reader takes them for a file of its format.
const STAGED: &str = ".staged";

/// A folder that a model is published to.
pub struct FilesSink {
    folder: Warehouse,
    model: String,
    layout: Layout,
    /// There after the cursor was asked for, until something fails.
    known: Mutex<Option<Known>>,
}

/// Where the folder is.
#[derive(Debug, Clone)]
struct Known {
    /// The newest decision; 0 before the first.
    number: u64,
    cursor: Option<SinkCursor>,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Decision {
    model: String,
    cursor: SinkCursor,
    /// The file's name in the folder.
    file: String,
    /// Where its rows are until they have that name; relative to the folder.
    staged: String,
    rows: u64,
}

impl FilesSink {
    /// Notes how to write to the folder; looks at nothing.
    ///
    /// # Errors
    /// Usage, for a path or URL that can't be read.
    pub fn open(project: &Project, model: &str, key: &[String], spec: &FilesSinkSpec) -> Result<Self> {
        let folder = FileStore::folder(&project.root, &spec.path.value, &spec.options)?;
        let origin = Origin { project: project.name.value.clone(), model: model.to_string() };
        let layout = Layout { key: key.to_vec(), format: spec.format, emit: spec.emit, origin };
        Ok(Self { folder, model: model.to_string(), layout, known: Mutex::default() })
    }

    fn known(&self) -> Result<MutexGuard<'_, Option<Known>>> {
        self.known.lock().map_err(|_| Error::internal("a folder was left in the middle of a change"))
    }

    fn decision_path(number: u64) -> String {
        format!("{BOOKKEEPING}/{number:020}.json")
    }

    /// Looks where the folder is: finishes what was decided on last, and finds the newest file that is there.
    async fn look(&self) -> Result<Known> {
        let listed = self.folder.list(BOOKKEEPING).await.map_err(|error| self.unreadable(error))?;
        let number = listed.iter().filter_map(|meta| decided(meta.location.filename()?)).max().unwrap_or_default();
        self.clean(&listed).await;
        if number == 0 {
            return Ok(Known { number, cursor: None });
        }
        let newest = self.decision(number).await?;
        if self.finish(&newest).await? {
            return Ok(Known { number, cursor: Some(newest.cursor) });
        }
        let cursor = self.newest_left().await?.map(|decision| decision.cursor);
        Ok(Known { number, cursor })
    }

    /// The decision on the newest file that is in the folder.
    async fn newest_left(&self) -> Result<Option<Decision>> {
        let listed = self.folder.store.list_with_delimiter(Some(&self.folder.root)).await;
        let listed = match listed {
            Ok(listed) => listed.objects,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(self.unreadable(error)),
        };
        let files: BTreeMap<u64, &str> = listed
            .iter()
            .filter_map(|meta| Some((number_of(meta.location.filename()?)?, meta.location.filename()?)))
            .collect();
        for (number, file) in files.into_iter().rev() {
            // Somebody else's file may be called like one of ours.
            if let Ok(decision) = self.decision(number).await
                && decision.file == file
            {
                return Ok(Some(decision));
            }
        }
        Ok(None)
    }

    async fn decision(&self, number: u64) -> Result<Decision> {
        let path = Self::decision_path(number);
        let shown = self.folder.shown(&path);
        let bytes = self.folder.get(&path).await.map_err(|error| self.unreadable(error))?;
        let bytes = bytes.ok_or_else(|| Error::external("a file of the sink is gone").with("file", &shown))?;
        let decision: Decision = serde_json::from_slice(&bytes).map_err(|error| {
            Error::external("a file of the sink can't be read").with("file", shown).caused_by(error)
        })?;
        if decision.model != self.model {
            return Err(Error::external("another model's changes are in this folder")
                .with("path", &self.folder.url)
                .with("model there", decision.model)
                .with("hint", "publish to another folder, or delete this one"));
        }
        Ok(decision)
    }

    /// Gives rows that were decided on their name. Repeating is harmless. False: they are gone, named or not.
    async fn finish(&self, decision: &Decision) -> Result<bool> {
        let (staged, file) = (self.folder.path(&decision.staged), self.folder.path(&decision.file));
        let is_there = |at| async move {
            match self.folder.store.head(at).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::NotFound { .. }) => Ok(false),
                Err(error) => Err(self.unreadable(error)),
            }
        };
        if is_there(&file).await? {
            // A bucket's renaming may have come as far as the copy.
            self.delete(&decision.staged).await;
            return Ok(true);
        }
        // A copy would go by a third name, which stays in readers' sight if the process dies within it.
        match self.folder.store.rename(&staged, &file).await {
            Ok(()) => self.sync(&decision.file).await.map(|()| true),
            // Another process may have been faster.
            Err(object_store::Error::NotFound { .. }) => is_there(&file).await,
            Err(error) => Err(self.unwritable(error)),
        }
    }

    /// Writes a change's rows where nobody looks for them.
    async fn stage(&self, change: SinkChange, path: &str) -> Result<u64> {
        let SinkChange { cursor, committed_at_us, mut rows } = change;
        let json = serde_json::to_string(&cursor).external("a cursor can't be written")?;
        let commit = Commit { n: cursor.commit, at_us: committed_at_us };
        let mut writer = FileWriter::new(&self.layout, commit, json, &self.folder.store, self.folder.path(path));
        while let Some(batch) = rows.next().await {
            let written = match batch {
                Ok(batch) => writer.write(&batch).await,
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                writer.abort().await;
                return Err(error);
            }
            failpoint::hit("mid_sink");
        }
        let rows = writer.finish().await?;
        if rows > 0 {
            self.sync(path).await?;
        }
        Ok(rows)
    }

    async fn publish_after(&self, known: &Known, change: SinkChange, staged: &str) -> Result<(Known, u64)> {
        let cursor = change.cursor.clone();
        let rows = self.stage(change, staged).await.map_err(|error| error.with("path", &self.folder.url))?;
        if rows == 0 {
            return Ok((known.clone(), 0));
        }
        let number = known.number + 1;
        let file = format!("{:020}-{number:010}.{}", cursor.commit, self.layout.extension());
        let mine = Decision { model: self.model.clone(), cursor, file, staged: staged.to_string(), rows };
        let bytes: Bytes = serde_json::to_vec(&mine).external("a decision can't be written")?.into();
        failpoint::hit("before_sink");
        let put = self.folder.put_new(&Self::decision_path(number), bytes).await;
        let made = match put.map_err(|error| self.unwritable(error))? {
            Put::Created => mine,
            Put::Exists => {
                let theirs = self.decision(number).await?;
                if theirs.cursor != mine.cursor {
                    let message = "another process publishes to this folder now; nothing was published";
                    return Err(Error::new(ErrorKind::Lease, message).with("path", &self.folder.url));
                }
                // The same change, whoever told it.
                self.delete(staged).await;
                theirs
            }
        };
        failpoint::hit("decided_sink");
        // False: it was there, and somebody took it away since.
        self.finish(&made).await?;
        failpoint::hit("after_sink");
        Ok((Known { number, cursor: Some(made.cursor) }, rows))
    }

    /// Deletes what processes that died had staged.
    async fn clean(&self, listed: &[ObjectMeta]) {
        let Ok(age) = chrono::Duration::from_std(limits::SINK_STAGED) else { return };
        let is_old = |meta: &&ObjectMeta| {
            meta.location.filename().is_some_and(|name| name.ends_with(STAGED))
                && meta.last_modified < chrono::Utc::now() - age
        };
        let old = listed.iter().filter(is_old).map(|meta| meta.location.clone()).collect();
        if let Err(error) = self.folder.delete(old).await {
            tracing::warn!(%error, "staged rows of a sink stay until the next run");
        }
    }

    async fn delete(&self, path: &str) {
        if let Err(error) = self.folder.delete(vec![self.folder.path(path)]).await {
            // The next run's cleaning takes it.
            tracing::warn!(%error, "staged rows of a sink stay for now");
        }
    }

    async fn sync(&self, path: &str) -> Result<()> {
        self.folder.sync_files(&[path.to_string()]).await.map_err(|error| self.unwritable(error))
    }

    fn unreadable(&self, error: impl std::error::Error) -> Error {
        Error::external("the folder can't be read").with("path", &self.folder.url).caused_by(reason(&error)).retryable()
    }

    fn unwritable(&self, error: impl std::error::Error) -> Error {
        Error::external("the folder can't be written")
            .with("path", &self.folder.url)
            .caused_by(reason(&error))
            .retryable()
    }
}

/// What is under an error that may speak of a warehouse.
fn reason(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// The number of a decision by its name.
fn decided(name: &str) -> Option<u64> {
    name.strip_suffix(".json")?.parse().ok()
}

/// The number of a file by its name.
fn number_of(name: &str) -> Option<u64> {
    let (stem, _) = name.split_once('.')?;
    stem.split_once('-')?.1.parse().ok()
}

#[async_trait]
impl Sink for FilesSink {
    async fn cursor(&self) -> Result<Option<SinkCursor>> {
        if let Some(known) = self.known()?.as_ref() {
            return Ok(known.cursor.clone());
        }
        let found = self.look().await?;
        let cursor = found.cursor.clone();
        *self.known()? = Some(found);
        Ok(cursor)
    }

    fn is_quickly_asked(&self) -> bool {
        true
    }

    async fn publish(&self, change: SinkChange) -> Result<u64> {
        // Put back only if all went well: after an error it has to be looked at anew.
        let known = self.known()?.take().ok_or_else(|| Error::internal("a sink's cursor wasn't asked for"))?;
        let staged = format!("{BOOKKEEPING}/{}{STAGED}", ulid::Ulid::r#gen().to_string().to_ascii_lowercase());
        match self.publish_after(&known, change, &staged).await {
            Ok((known, rows)) => {
                *self.known()? = Some(known);
                Ok(rows)
            }
            Err(error) => {
                if error.kind() == ErrorKind::Lease {
                    self.delete(&staged).await;
                }
                Err(error)
            }
        }
    }
}
