//! How far a source is read: the files whose rows it is, and for a topic the next offsets. Values only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ranges::{self, Ranges};
use crate::error::{Result, ResultExt};
use crate::table::DataFile;

/// The units whose rows are the source, in order of paths.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Hash of the contract and row rules that the rows were read under.
    pub contract: String,
    /// Files, or ranges of messages that were taken in at once, by path.
    pub files: Vec<FileEntry>,
    /// Of a topic: where each partition is read on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offsets: Option<Offsets>,
    /// Digests of the relations that its rules look into, as they were when these rows were last found to keep to them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checked_against: BTreeMap<String, String>,
}

/// How far a topic is read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Offsets {
    /// The topic.
    pub topic: String,
    /// By partition.
    pub partitions: BTreeMap<i32, PartitionOffset>,
    /// Partitions that aren't there any more, each with how often the topic had been made anew by then: should they come back,
    /// their messages are others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gone: BTreeMap<i32, u32>,
    /// The source's watermark when it was read last, microseconds since 1970 UTC: it never goes back. See
    /// [`Offsets::watermark_us`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached_us: Option<i64>,
}

/// How far a partition is read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PartitionOffset {
    /// How often the topic was made anew under the same name.
    #[serde(default)]
    pub epoch: u32,
    /// The first offset that counts.
    pub first: i64,
    /// The next offset to read.
    pub next: i64,
    /// The last message that was read, by which another topic of the same name is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastMessage>,
    /// The latest event time of its accepted rows, microseconds since 1970 UTC; of one that lies further ahead of its
    /// ingestion than the source's `watermark_delay`, only up to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_event_us: Option<i64>,
    /// When a row with an event time came last, microseconds since 1970 UTC by the clock of ingestion; before the first one,
    /// when the partition was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_us: Option<i64>,
}

/// A message that was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastMessage {
    /// Its offset.
    pub offset: i64,
    /// Hash of its key, value and time.
    pub hash: String,
}

/// One version of one file, or one range of messages.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// A file as shown: relative to the project, absolute, or a URL; `_source_file` of its rows. Messages: the commit that took
    /// them in.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// The store's tag of this version.
    pub etag: Option<String>,
    /// When it was last written, microseconds since 1970 UTC.
    pub modified_us: i64,
    /// Hash of its bytes on local disk, the etag elsewhere; of messages their offsets.
    pub hash: String,
    /// Accepted rows.
    pub rows: u64,
    /// Refused rows, dropped ones included.
    pub refused: u64,
    /// Rows that came behind the watermark, whether they were refused for it or not.
    #[serde(default)]
    pub late: u64,
    /// Where the offsets of rows that were refused for being late stand, beside landed rows: they stay refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late_offsets: Vec<DataFile>,
    /// Rows that rules with `on_fail: warn` failed on, by rule.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub warned: BTreeMap<String, u64>,
    /// Rows that went to quarantine, by the rule that sent them there: `contract`, or a check's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quarantined_by: BTreeMap<String, u64>,
    /// Where its accepted rows were landed; none: plain, read in place.
    pub landed: Option<Vec<DataFile>>,
    /// What its rows can't have, beside landed rows; none: not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_filters: Option<KeyFilters>,
    /// Its part of the quarantine table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<DataFile>,
    /// When it was taken in, microseconds since 1970 UTC: `_ingested_at`. Of messages: the latest of its rows.
    pub ingested_at_us: i64,
    /// Of messages: the offsets that it holds. Units that are put together hold those of all.
    #[serde(default, skip_serializing_if = "Ranges::is_empty")]
    pub ranges: Ranges,
    /// Of messages: whether their rows aren't kept any more, since every model had read them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_let_go: bool,
}

/// Where it stands which values some columns of a unit's rows can't have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KeyFilters {
    /// Columns that were asked for, sorted; of those whose values repeat much there is nothing to tell.
    pub columns: Vec<String>,
    /// Files of filters.
    pub files: Vec<DataFile>,
}

impl Position {
    /// Reads a position out of a commit record; before the first commit there is none.
    pub fn from_json(json: Option<&serde_json::Value>) -> Result<Self> {
        match json {
            None => Ok(Self::default()),
            Some(json) => Self::deserialize(json).external("the source's position can't be read"),
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
        if self.offsets.is_some() {
            // Which units of messages were put together doesn't matter.
            for (partition, ranges) in ranges::union(self.files.iter().map(|file| &file.ranges)) {
                hasher.update(format!("{partition} {ranges:?}").as_bytes());
            }
            return hasher.finalize().to_hex()[..32].to_string();
        }
        for file in &self.files {
            hasher.update(file.path.as_bytes()).update(&[0]).update(file.hash.as_bytes()).update(&[0]);
        }
        hasher.finalize().to_hex()[..32].to_string()
    }

    /// What this holds that `other` doesn't. Where units overlap that were put together in different ways, all of them.
    pub fn beyond(&self, other: &Self) -> Self {
        let files = match self.offsets.is_some() || other.offsets.is_some() {
            true => {
                let (changed, _) = changed_units(&self.files, &other.files);
                self.files.iter().zip(changed).filter(|(_, is_changed)| *is_changed).map(|(f, _)| f.clone()).collect()
            }
            false => {
                let known: BTreeMap<&str, &FileEntry> = other.files.iter().map(|f| (f.path.as_str(), f)).collect();
                let is_same = |file: &&FileEntry| {
                    let there = known.get(file.path.as_str());
                    there.is_some_and(|there| there.hash == file.hash && there.landed == file.landed)
                };
                self.files.iter().filter(|file| !is_same(file)).cloned().collect()
            }
        };
        Self { contract: self.contract.clone(), files, ..Self::default() }
    }

    /// What stays of it once the units of the paths `gone` are gone, under the contract of hash `contract`.
    pub fn without(&self, gone: &[String], contract: &str) -> Self {
        let stays = |file: &&FileEntry| !gone.contains(&file.path);
        let files = self.files.iter().filter(stays).cloned().collect();
        Self { contract: contract.to_owned(), files, ..self.clone() }
    }

    /// Whether its rows were read under another contract than that of hash `contract`: then all that is there is read again.
    pub fn is_stale(&self, contract: &str) -> bool {
        self.contract != contract
    }

    /// The entries of a path: in a landing folder whose taken files are moved away there may be several.
    pub fn files_of(&self, path: &str) -> &[FileEntry] {
        let from = self.files.partition_point(|file| file.path.as_str() < path);
        let same = self.files[from..].partition_point(|file| file.path == path);
        &self.files[from..from + same]
    }

    /// The entry of a path.
    pub fn file(&self, path: &str) -> Option<&FileEntry> {
        self.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok().map(|at| &self.files[at])
    }

    /// Takes over the key filters of files that are read in place and are those of `prior`.
    pub fn keep_filters(&mut self, prior: &Self) {
        for file in self.files.iter_mut().filter(|file| file.landed.is_none() && file.key_filters.is_none()) {
            let same = prior.file(&file.path).filter(|prior| prior.landed.is_none() && prior.hash == file.hash);
            file.key_filters = same.and_then(|same| same.key_filters.clone());
        }
    }

    /// Whether rows of it aren't kept any more.
    pub fn lacks_rows(&self) -> bool {
        self.files.iter().any(|file| file.is_let_go)
    }

    /// Lets go the rows of units that stand in every one of `read`; whether there were any. Nothing goes that nobody has read.
    pub fn let_go(&mut self, read: &[Self]) -> bool {
        if read.is_empty() || read.iter().any(|read| read.contract != self.contract) {
            return false;
        }
        let read: Vec<Ranges> = read.iter().map(|read| ranges::union(read.files.iter().map(|f| &f.ranges))).collect();
        let is_read =
            |file: &FileEntry| !file.ranges.is_empty() && read.iter().all(|read| ranges::covers(read, &file.ranges));
        let (gone, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.files).into_iter().partition(|file| file.is_let_go || is_read(file));
        let is_changed = gone.iter().any(|file| !file.is_let_go);
        self.files = kept;
        // What is left of them is counts and offsets: as one unit they don't grow with time.
        if let Some(path) = gone.first().map(|file| file.path.clone()) {
            let together = FileEntry::together(path, &gone);
            self.files.push(FileEntry { landed: Some(vec![]), is_let_go: true, ..together });
        }
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        is_changed
    }

    /// Rows that rules with `on_fail: warn` failed on, by rule.
    pub fn warned(&self) -> BTreeMap<String, u64> {
        by_rule(self.files.iter().map(|file| &file.warned))
    }

    /// Rows in quarantine, by the rule that sent them there.
    pub fn quarantined_by(&self) -> BTreeMap<String, u64> {
        by_rule(self.files.iter().map(|file| &file.quarantined_by))
    }

    /// All parts of the quarantine table.
    pub fn quarantined(&self) -> Vec<DataFile> {
        self.files.iter().flat_map(|file| file.quarantined.iter().cloned()).collect()
    }
}

impl FileEntry {
    /// Units of messages as one; where its rows are is still to be said.
    pub(super) fn together(path: String, parts: &[Self]) -> Self {
        Self {
            hash: path.clone(),
            path,
            size: parts.iter().map(|entry| entry.size).sum(),
            rows: parts.iter().map(|entry| entry.rows).sum(),
            refused: parts.iter().map(|entry| entry.refused).sum(),
            late: parts.iter().map(|entry| entry.late).sum(),
            late_offsets: parts.iter().flat_map(|entry| entry.late_offsets.iter().cloned()).collect(),
            warned: by_rule(parts.iter().map(|entry| &entry.warned)),
            quarantined_by: by_rule(parts.iter().map(|entry| &entry.quarantined_by)),
            quarantined: parts.iter().flat_map(|entry| entry.quarantined.iter().cloned()).collect(),
            ranges: ranges::union(parts.iter().map(|entry| &entry.ranges)),
            ingested_at_us: parts.iter().map(|entry| entry.ingested_at_us).max().unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Whether it is the same as `other`, which may have got its key filters since.
    #[cfg(feature = "kafka")]
    pub(super) fn is_but_for_filters(&self, other: &Self) -> bool {
        let without = |entry: &Self| Self { key_filters: None, ..entry.clone() };
        self.path == other.path && without(self) == without(other)
    }

    /// Its files in the folder of landed rows.
    pub fn landed_files(&self) -> impl Iterator<Item = &DataFile> {
        let filters = self.key_filters.iter().flat_map(|filters| &filters.files);
        self.landed.iter().flatten().chain(&self.late_offsets).chain(filters)
    }
}

impl PartitionOffset {
    /// Read from `first` on, as other rows than those before: of a topic made anew, or under another contract. Time goes on.
    #[cfg(feature = "kafka")]
    pub(super) fn anew(&self, first: i64) -> Self {
        Self { epoch: self.epoch + 1, first, next: first, last: None, ..self.clone() }
    }
}

/// Counts of rules, added up.
fn by_rule<'a>(counts: impl IntoIterator<Item = &'a BTreeMap<String, u64>>) -> BTreeMap<String, u64> {
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    for (rule, count) in counts.into_iter().flatten() {
        *all.entry(rule.clone()).or_default() += count;
    }
    all
}

/// Units of each side that the other side lacks offsets of, and those that have offsets in common with such.
fn changed_units(one: &[FileEntry], other: &[FileEntry]) -> (Vec<bool>, Vec<bool>) {
    let lacking = |files: &[FileEntry], others: &[FileEntry]| -> Vec<bool> {
        let there = ranges::union(others.iter().map(|file| &file.ranges));
        files.iter().map(|file| !ranges::covers(&there, &file.ranges)).collect()
    };
    let (mut ones, mut others) = (lacking(one, other), lacking(other, one));
    // Mostly each unit stands on both sides, or none of it on the other: then nothing spreads.
    loop {
        let spread = spread(one, &mut ones, other, &others) | spread(other, &mut others, one, &ones);
        if !spread {
            return (ones, others);
        }
    }
}

/// Marks units that have offsets in common with a changed one of the other side; whether there were any.
fn spread(files: &[FileEntry], marks: &mut [bool], others: &[FileEntry], changed: &[bool]) -> bool {
    let changed = ranges::union(others.iter().zip(changed).filter(|(_, is)| **is).map(|(file, _)| &file.ranges));
    let mut any = false;
    for (file, mark) in files.iter().zip(marks) {
        if !*mark && ranges::overlap(&file.ranges, &changed) {
            *mark = true;
            any = true;
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::{FileEntry, Offsets, Position, Ranges};

    /// Units `from-to` of one partition.
    fn position(units: &[(i64, i64)]) -> Position {
        let unit = |range: &(i64, i64)| FileEntry {
            path: format!("{}-{}", range.0, range.1),
            rows: 1,
            landed: Some(vec![]),
            ranges: Ranges::from([("0".to_string(), vec![*range])]),
            ..FileEntry::default()
        };
        Position { files: units.iter().map(unit).collect(), offsets: Some(Offsets::default()), ..Position::default() }
    }

    #[test]
    fn units_that_were_put_together_are_no_change() {
        let beyond = |one: &[(i64, i64)], other: &[(i64, i64)]| -> Vec<String> {
            position(one).beyond(&position(other)).files.into_iter().map(|file| file.path).collect()
        };
        assert_eq!(beyond(&[(0, 9), (9, 12)], &[(0, 3), (3, 6), (6, 9)]), ["9-12"]);
        assert_eq!(beyond(&[(0, 3), (3, 6), (6, 9)], &[(0, 9), (9, 12)]), [""; 0]);
        // Some of them are new: then all of that unit count, on both sides.
        assert_eq!(beyond(&[(0, 9), (9, 12)], &[(0, 3), (3, 6)]), ["0-9", "9-12"]);
        assert_eq!(beyond(&[(0, 3), (3, 6)], &[(0, 9), (9, 12)]), ["0-3", "3-6"]);
        assert_eq!(beyond(&[(0, 12)], &[(0, 6), (6, 12)]), [""; 0]);
        assert_eq!(beyond(&[(0, 6), (6, 12)], &[(0, 3), (3, 9)]), ["0-6", "6-12"]);
        assert_eq!(position(&[(0, 9), (9, 12)]).digest(), position(&[(0, 3), (3, 12)]).digest());
        assert_ne!(position(&[(0, 9)]).digest(), position(&[(0, 9), (9, 12)]).digest());
    }

    #[test]
    fn rows_are_let_go_once_all_have_read_them() {
        let all = position(&[(0, 3), (3, 6), (6, 9)]);
        let let_go = |position: &mut Position, read: &[Position]| position.let_go(read);
        let came = |us: i64| FileEntry { ingested_at_us: us, ..FileEntry::default() };
        assert_eq!(FileEntry::together(String::new(), &[came(2), came(3), came(1)]).ingested_at_us, 3);
        let mut now = all.clone();
        assert!(!let_go(&mut now, &[]), "nobody reads it");
        assert!(!let_go(&mut now, &[all.clone(), position(&[])]), "one has read nothing");
        assert_eq!(now, all);
        assert!(let_go(&mut now, &[all.clone(), position(&[(0, 3), (3, 6)])]));
        let kept: Vec<_> = now.files.iter().map(|file| (file.path.as_str(), file.is_let_go, file.rows)).collect();
        assert_eq!(kept, [("0-3", true, 2), ("6-9", false, 1)]);
        assert!(now.lacks_rows() && now.digest() == all.digest());
        assert!(now.beyond(&all).files.is_empty() && all.beyond(&now).files.is_empty());
        assert!(!let_go(&mut now, &[position(&[(0, 3), (3, 6)])]), "nothing more");
        assert!(let_go(&mut now, std::slice::from_ref(&all)));
        assert_eq!((now.files.len(), now.files[0].rows, now.digest()), (1, 3, all.digest()));
        let mut other = all.clone();
        other.contract = "other".into();
        assert!(!let_go(&mut other, &[all]), "read under another contract");
    }
}
