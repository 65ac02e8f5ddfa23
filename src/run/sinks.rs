//! Brings sinks up to commits: what a table was at the sink's cursor against what it is now, published with the new cursor.
//! Repeating and racing are harmless: each sink knows the commit it is at.
//!
//! A note in the warehouse says which versions a sink still needs, so that their files are kept, and spares asking it when
//! nothing has changed. It also says since when the sink fails, for other processes to tell. The truth about what a sink holds is its
//! own cursor. Knows no connector.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::logical_expr::Expr;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use super::commit::{CommitChain, CommitRecord, TableEntry};
use super::project::{OpenProject, OpenSink};
use super::refresh::first_line;
use super::schedule::wall_clock_us;
use super::version::{Read, Versions, rows_beyond};
use super::watermark::watermark_under;
use crate::connect::{SinkChange, SinkCursor};
use crate::engine;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::table::{BOOKKEEPING, TableFiles, Warehouse, parquet_table};

/// What is known of a sink without asking it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::run) struct Note {
    /// The table.
    pub(in crate::run) model: String,
    /// The sink's name.
    pub(in crate::run) sink: String,
    /// Where it was when it was heard of last.
    pub(in crate::run) published: Option<SinkCursor>,
    /// What it was being brought to.
    pub(in crate::run) publishing: Option<SinkCursor>,
    /// What it said of itself last: behind `published` where nothing had to be told since.
    #[serde(default)]
    pub(in crate::run) held: Option<SinkCursor>,
    /// Since when it is being brought to something that it lacks, microseconds since 1970 UTC.
    #[serde(default)]
    pub(in crate::run) behind_since_us: Option<i64>,
    /// There while the last try failed.
    #[serde(default)]
    pub(in crate::run) failing: Option<Failing>,
}

/// How a sink fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::run) struct Failing {
    /// When the first try failed after one that didn't, microseconds since 1970 UTC.
    pub(in crate::run) since_us: i64,
    /// Why the last one did.
    pub(in crate::run) reason: String,
}

impl Note {
    /// Enters how a try ended, at `now_us`: why it failed, if it did. Whether that is news: tries that fail alike are none.
    fn tried(&mut self, reason: Option<String>, now_us: i64) -> bool {
        let since_us = self.failing.as_ref().map_or(now_us, |failing| failing.since_us);
        let failing = reason.map(|reason| Failing { since_us, reason });
        let is_news = failing != self.failing;
        self.failing = failing;
        is_news
    }
}

/// Whether a sink is asked where it is although a note says that it is up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::run) enum Asking {
    /// Where that is quick, to notice that somebody emptied it.
    IfQuick,
    /// Never.
    IfBehind,
}

/// Notes of a pipeline's sinks by file name, those of sinks that are no longer in the project too.
///
/// # Errors
/// External: the store.
pub(in crate::run) async fn notes(warehouse: &Warehouse, pipeline: &str) -> Result<BTreeMap<String, Note>> {
    let mut notes = BTreeMap::new();
    let listed = warehouse.list(&folder(pipeline)).await?;
    for name in listed.iter().filter_map(|meta| meta.location.filename()) {
        let path = format!("{}/{name}", folder(pipeline));
        let Some(bytes) = warehouse.get(&path).await? else { continue };
        // One that can't be read is written anew; until then nothing hangs on it.
        if let Ok(note) = serde_json::from_slice(&bytes) {
            notes.insert(path, note);
        }
    }
    Ok(notes)
}

/// Commits whose tables sinks still need.
pub(in crate::run) fn needed(notes: &BTreeMap<String, Note>) -> BTreeSet<(String, u64)> {
    let cursors = notes.values().flat_map(|note| {
        let cursors = note.published.iter().chain(&note.publishing).chain(&note.held);
        cursors.map(|cursor| (note.model.clone(), cursor.commit))
    });
    cursors.collect()
}

/// Files of a table that sinks still need, relative to its folder.
///
/// # Errors
/// External: the store.
pub(in crate::run) async fn needed_files(
    chain: &CommitChain,
    table: &str,
    needed: &BTreeSet<(String, u64)>,
) -> Result<HashSet<String>> {
    let mut files = HashSet::new();
    for (_, n) in needed.iter().filter(|(model, _)| model == table) {
        let Some(record) = chain.find(*n).await? else { continue };
        let entry = record.tables.get(table).filter(|entry| entry.files.is_some());
        files.extend(entry.iter().flat_map(|entry| entry.files.iter().flatten()).map(|file| file.path.clone()));
    }
    Ok(files)
}

fn folder(pipeline: &str) -> String {
    format!("{BOOKKEEPING}/{pipeline}/sinks")
}

fn note_path(pipeline: &str, sink: &OpenSink) -> String {
    let name = format!("{} {}", sink.model, sink.name);
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!("{}/{}-{}.json", folder(pipeline), sink.model, &hash[..16])
}

/// The note on a sink; one that can't be read counts as none.
///
/// # Errors
/// External: the store.
pub(in crate::run) async fn note_of(warehouse: &Warehouse, pipeline: &str, sink: &OpenSink) -> Result<Option<Note>> {
    let bytes = warehouse.get(&note_path(pipeline, sink)).await?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Deletes notes of sinks that the project no longer has: what they needed isn't kept any longer.
///
/// # Errors
/// External: the store.
pub(in crate::run) async fn forget_others(open: &OpenProject, warehouse: &Warehouse, pipeline: &str) -> Result<()> {
    let known: BTreeSet<String> = open.sinks_of(pipeline).map(|sink| note_path(pipeline, sink)).collect();
    let others = notes(warehouse, pipeline).await?.into_keys().filter(|path| !known.contains(path));
    warehouse.delete(others.map(|path| warehouse.path(&path)).collect()).await
}

/// Why a sink that was brought to `at` is refused: its place has all rows in one form.
fn other_form(sink: &OpenSink, at: &SinkCursor) -> Option<String> {
    let form = at.form.as_ref().filter(|form| **form != sink.form)?;
    Some(format!("the sink holds {form}, and is to get {}", sink.form))
}

/// What the next run is going to publish to a sink that a model's `entry` is published to, as far as its note tells; nothing is
/// asked of the sink. `computes`: the run is going to look for changes of the table first.
pub(in crate::run) fn outlook(
    sink: &OpenSink,
    note: Option<&Note>,
    entry: Option<&TableEntry>,
    computes: bool,
) -> String {
    if entry.is_none() && !computes {
        return "nothing: the table isn't there".into();
    }
    let held = note.and_then(|note| note.held.as_ref());
    if let Some(why) = held.and_then(|at| other_form(sink, at)) {
        return format!("nothing, unless it was emptied: {why}");
    }
    let at = note.and_then(|note| note.published.as_ref().filter(|_| note.publishing.is_none()));
    match (note, at, entry) {
        (None | Some(Note { published: None, publishing: None, .. }), _, _) => {
            "the whole table: nothing is published yet".into()
        }
        (_, Some(at), Some(entry)) if at.commit != entry.changed_in => {
            format!("what changed since commit {}", at.commit)
        }
        (_, Some(_), _) if computes => "what this run changes".into(),
        (_, Some(_), _) => "nothing: it is up to date".into(),
        (_, None, _) => "what an earlier run left".into(),
    }
}

/// What a sink lacks of the table that `entry` is, where `published` is what it has; none where it lacks nothing. Whether windows
/// have closed since isn't asked.
pub(in crate::run) fn lacks(sink: &OpenSink, published: Option<&SinkCursor>, entry: &TableEntry) -> Option<String> {
    match published {
        // A later one where it was published after `entry` was read.
        Some(at) if at.commit >= entry.changed_in => None,
        Some(at) => Some(format!("it has commit {}, and the table changed in commit {}", at.commit, entry.changed_in)),
        // Before a window is closed there is nothing to publish.
        None if sink.is_final => None,
        None => Some("nothing is published yet".into()),
    }
}

/// Brings a sink up to `record`, and gives how many messages or rows that took; none where it was there already. That it begins to
/// fail, and that it no longer does, is noted.
///
/// # Errors
/// External: the sink can't be asked or written, or what it was last brought to isn't kept any more; kind `Lease`: another
/// process took it over. Nothing is lost: the next call goes on from the sink's cursor.
pub(in crate::run) async fn follow(
    open: &OpenProject,
    warehouse: &Warehouse,
    chain: &CommitChain,
    record: &CommitRecord,
    sink: &OpenSink,
    asking: Asking,
) -> Result<Option<u64>> {
    let followed = async {
        let path = note_path(chain.pipeline(), sink);
        let mut note = note_of(warehouse, chain.pipeline(), sink).await?.unwrap_or_default();
        (note.model, note.sink) = (sink.model.clone(), sink.name.clone());
        let tried = bring_up(open, warehouse, chain, record, sink, asking, &mut note).await;
        // Who was fenced says nothing of the sink: another process is at work on it.
        let is_fenced = tried.as_ref().is_err_and(|error| error.kind() == ErrorKind::Lease);
        let saved = match !is_fenced && note.tried(tried.as_ref().err().map(first_line), wall_clock_us()) {
            true => save(warehouse, &path, &note).await,
            false => Ok(()),
        };
        // What the sink came to goes before what became of the note.
        let sent = tried?;
        saved.map(|()| sent)
    };
    followed.await.map_err(|error: Error| error.with("model", &sink.model).with("sink", &sink.name))
}

/// The same, with what is known of it in `note`.
async fn bring_up(
    open: &OpenProject,
    warehouse: &Warehouse,
    chain: &CommitChain,
    record: &CommitRecord,
    sink: &OpenSink,
    asking: Asking,
    note: &mut Note,
) -> Result<Option<u64>> {
    let Some(entry) = record.tables.get(&sink.model) else { return Ok(None) };
    let path = note_path(chain.pipeline(), sink);
    let (run, committed_at_us) = chain.last_change(record, entry).await?;
    let closed_us = match sink.is_final {
        true => match watermark_under(open, warehouse, record, &sink.model).await? {
            // Nothing says yet how far time is: no window is closed.
            None => return Ok(None),
            known => known,
        },
        false => None,
    };
    let cursor = SinkCursor { commit: entry.changed_in, run, closed_us, form: Some(sink.form.clone()) };
    // One that failed is asked in any case: only its answer says that it works again.
    if note.published.as_ref() == Some(&cursor) && note.publishing.is_none() && note.failing.is_none() {
        let is_asked = asking == Asking::IfQuick && sink.sink.is_quickly_asked();
        if !is_asked || sink.sink.cursor().await? == note.held {
            return Ok(None);
        }
    }
    if note.publishing.as_ref() != Some(&cursor) {
        if note.publishing.is_some() {
            // Nobody was told what came of an earlier try, perhaps of a process that died. Should it have come to be, the sink goes on from
            // there, and what it was brought to is needed although another try begins.
            note.held = sink.sink.cursor().await?;
        }
        note.behind_since_us.get_or_insert_with(wall_clock_us);
        note.publishing = Some(cursor.clone());
        save(warehouse, &path, note).await?;
    }
    let at = sink.sink.cursor().await?;
    let mut sent = None;
    // What was closed once stays so, whatever was forgotten since.
    let closed_us = closed_us.max(at.as_ref().and_then(|at| at.closed_us.filter(|_| sink.is_final)));
    let cursor = SinkCursor { closed_us, ..cursor };
    if at.as_ref() != Some(&cursor) {
        let rows = changes(open, warehouse, chain, entry, sink, at.as_ref(), closed_us).await?;
        let change = SinkChange { cursor: cursor.clone(), committed_at_us, rows };
        sent = Some(sink.sink.publish(change).await?);
    }
    // Asked again: a change without rows may leave the sink where it was.
    (note.published, note.publishing, note.held) = (Some(cursor), None, sink.sink.cursor().await?);
    (note.behind_since_us, note.failing) = (None, None);
    save(warehouse, &path, note).await?;
    Ok(sent)
}

async fn save(warehouse: &Warehouse, path: &str, note: &Note) -> Result<()> {
    let json = serde_json::to_vec(note).external("a note on a sink can't be written")?;
    warehouse.put(path, json.into()).await
}

/// What the sink holds can't be told apart from what the table holds.
fn lost(why: &str) -> Error {
    Error::external(why)
        .with("hint", "publish to another topic or folder, or delete this one: then the whole table is published anew")
}

/// The files of the table as the sink has it.
async fn version_at(chain: &CommitChain, sink: &OpenSink, at: &SinkCursor) -> Result<TableFiles> {
    if let Some(why) = other_form(sink, at) {
        return Err(lost(&why));
    }
    let other = "what the sink holds is of another warehouse, or of one that was made anew";
    let record =
        chain.find(at.commit).await?.ok_or_else(|| lost("what the sink was last brought to isn't kept any more"))?;
    if record.run != at.run {
        return Err(lost(other));
    }
    match record.tables.get(&sink.model) {
        Some(entry) if entry.key != sink.key => Err(lost("the table had another key when it was last published")),
        Some(entry) if entry.changed_in == at.commit => chain.table_files(&sink.model, entry).await,
        _ => Err(lost(other)),
    }
}

/// Keys whose rows the sink holds otherwise than `entry` has them, of rows that are closed at `closed_us` where it is given.
async fn changes(
    open: &OpenProject,
    warehouse: &Warehouse,
    chain: &CommitChain,
    entry: &TableEntry,
    sink: &OpenSink,
    at: Option<&SinkCursor>,
    closed_us: Option<i64>,
) -> Result<BoxStream<'static, Result<engine::KeyedChange>>> {
    let after = chain.table_files(&sink.model, entry).await?;
    let zone = &open.project.timezone.value;
    let side = |files: TableFiles, condition: Option<Expr>| -> Result<(Arc<dyn TableProvider>, Option<Expr>)> {
        Ok((parquet_table(warehouse, &sink.model, files, zone)?, condition))
    };
    let is = closed(open, sink, closed_us)?;
    let (old, new) = match at {
        None => (None, vec![side(after, is)?]),
        Some(at) => {
            let before = version_at(chain, sink, at).await?;
            let was = closed(open, sink, at.closed_us)?;
            let is_same_kind = before.schema == after.schema && before.partition_by == after.partition_by;
            let (old, new) = match (&was, &is) {
                // Rows of files that both have are there before and after, but for those that were closed in between.
                (None, None) if is_same_kind => {
                    (side(rows_beyond(&before, &after), None)?, vec![side(rows_beyond(&after, &before), None)?])
                }
                (Some(passed), _) if is_same_kind => {
                    let not_before = Expr::IsNotTrue(Box::new(passed.clone()));
                    let since = is.clone().map_or(not_before.clone(), |is| is.and(not_before));
                    let added = rows_beyond(&after, &before);
                    let common = rows_beyond(&after, &added);
                    (side(rows_beyond(&before, &after), was)?, vec![side(added, is)?, side(common, Some(since))?])
                }
                _ => (side(before.clone(), was)?, vec![side(after, is)?]),
            };
            (Some((before, old)), new)
        }
    };
    let old = match old {
        None => None,
        Some((before, old)) => {
            let versions = Versions { open, warehouse };
            if !versions.is_kept(&sink.model, &Read::Table(before)).await? {
                return Err(lost("files of what the sink was last brought to aren't kept any more"));
            }
            Some(vec![old])
        }
    };
    let session = open.session(entry.refreshed_at_us);
    engine::keyed_changes(&session, old, new, &sink.key).await
}

/// Which rows of a table are closed by a watermark; none: all count.
fn closed(open: &OpenProject, sink: &OpenSink, closed_us: Option<i64>) -> Result<Option<Expr>> {
    let closing = open.model(&sink.model).and_then(|model| model.closing.as_ref());
    match (closing, closed_us) {
        (_, None) => Ok(None),
        (Some(closing), Some(us)) => closing.condition(us).map(Some).map_err(engine::failure),
        (None, Some(_)) => Err(lost("the table has no column any more that says when a row is final")),
    }
}

/// Brings all sinks of a pipeline up to `record`, at the same time, and notices those that were emptied as far as that is quick;
/// those that failed with why.
pub(in crate::run) async fn follow_all<'a>(
    open: &'a OpenProject,
    warehouse: &Warehouse,
    chain: &CommitChain,
    record: &CommitRecord,
) -> Vec<(&'a Arc<OpenSink>, Error)> {
    let work = open.sinks_of(chain.pipeline()).map(|sink| async move {
        let followed = follow(open, warehouse, chain, record, sink, Asking::IfQuick).await;
        followed.err().map(|error| (sink, error))
    });
    futures::future::join_all(work).await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_news_when_it_begins_changes_and_ends() {
        let mut note = Note::default();
        assert!(!note.tried(None, 1), "it works as before");
        assert!(note.tried(Some("down".into()), 2));
        assert!(!note.tried(Some("down".into()), 3), "a retry is no news");
        assert!(note.tried(Some("full".into()), 4));
        assert_eq!(note.failing, Some(Failing { since_us: 2, reason: "full".into() }));
        assert!(note.tried(None, 5));
        assert_eq!(note.failing, None);
    }

    #[test]
    fn a_note_of_before_failures_were_noted_is_read() {
        let note: Note =
            serde_json::from_str(r#"{"model":"m","sink":"files out","published":null,"publishing":null}"#).unwrap();
        assert_eq!((note.sink.as_str(), note.failing, note.behind_since_us), ("files out", None, None));
    }
}
