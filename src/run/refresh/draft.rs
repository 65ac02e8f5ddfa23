//! The commit that a pipeline's refresh is making, on top of the last one. Values only.

use std::collections::BTreeMap;

use arrow::datatypes::Schema;

use crate::error::Result;
use crate::run::commit::{CommitRecord, StateFiles, TableEntry, TableKind};
use crate::table::{DataFile, TableFiles, types};

/// A record in the making.
pub(super) struct Draft {
    /// Becomes the record if anything changed.
    pub(super) record: CommitRecord,
    /// Whether anything differs from the last commit.
    pub(super) is_changed: bool,
}

/// What a table's entry says besides its files.
pub(super) struct Description<'a> {
    pub(super) kind: TableKind,
    pub(super) fingerprint: &'a str,
    pub(super) inputs: BTreeMap<String, String>,
    pub(super) inputs_at: BTreeMap<String, u64>,
    pub(super) states: Vec<StateFiles>,
    pub(super) key: &'a [String],
    pub(super) serve: bool,
    pub(super) clock_us: Option<i64>,
    pub(super) now_us: i64,
}

impl Draft {
    /// A draft on top of `base`.
    pub(super) fn new(base: Option<&CommitRecord>, pipeline: &str, writer: &str, run: &str, now_us: i64) -> Self {
        let record = match base {
            Some(base) => base.next(writer, run, now_us),
            None => CommitRecord::first(pipeline, writer, run, now_us),
        };
        Self { record, is_changed: false }
    }

    /// Start of the names of files that this commit's work writes: a later commit's cleaning knows them by it.
    pub(super) fn prefix(&self) -> String {
        format!("c{:08}", self.record.n)
    }

    /// What the draft says of a model and its quarantine, for [`Self::restore`].
    pub(super) fn of_model(&self, model: &str) -> Vec<(String, Option<TableEntry>)> {
        let tables = [model.to_string(), quarantine_of(model)];
        tables.into_iter().map(|table| (table.clone(), self.record.tables.get(&table).cloned())).collect()
    }

    /// Leaves out the model that a table belongs to, with its quarantine, and names it; none where it is a source's.
    pub(super) fn forget(&mut self, table: &str) -> Option<String> {
        let is_of = |model: &&String| *model == table || quarantine_of(model) == table;
        let models = self.record.tables.iter().filter(|(_, entry)| entry.kind == TableKind::Model);
        let model = models.map(|(model, _)| model).find(is_of)?.clone();
        self.record.tables.remove(&quarantine_of(&model));
        self.record.tables.remove(&model);
        Some(model)
    }

    /// Takes back what a model that failed on the way had entered: its files may be gone.
    pub(super) fn restore(&mut self, before: Vec<(String, Option<TableEntry>)>) {
        for (table, entry) in before {
            match entry {
                Some(entry) => self.record.tables.insert(table, entry),
                None => self.record.tables.remove(&table),
            };
        }
    }

    /// Enters a table with new files.
    pub(super) fn set_files(&mut self, table: &str, files: &TableFiles, description: Description<'_>) -> Result<()> {
        let mut entry = self.entry(description, &files.schema, &files.partition_by)?;
        entry.rows = files.files.iter().map(|file: &DataFile| file.rows).sum();
        entry.files = Some(files.files.clone());
        self.record.tables.insert(table.to_string(), entry);
        self.is_changed = true;
        Ok(())
    }

    /// Keeps a table's files, noting by what they were found up to date.
    pub(super) fn keep_files(&mut self, table: &str, description: Description<'_>) {
        if let Some(entry) = self.record.tables.get_mut(table) {
            entry.fingerprint = description.fingerprint.to_string();
            entry.inputs = description.inputs;
            entry.inputs_at = description.inputs_at;
            entry.states = description.states;
            entry.key = description.key.to_vec();
            entry.serve = description.serve;
            entry.clock_us = description.clock_us;
            entry.refreshed_at_us = description.now_us;
            self.is_changed = true;
        }
    }

    fn entry(&self, description: Description<'_>, schema: &Schema, partition_by: &[String]) -> Result<TableEntry> {
        Ok(TableEntry {
            changed_in: self.record.n,
            kind: description.kind,
            fingerprint: description.fingerprint.to_string(),
            inputs: description.inputs,
            inputs_at: description.inputs_at,
            states: description.states,
            key: description.key.to_vec(),
            serve: description.serve,
            refreshed_at_us: description.now_us,
            clock_us: description.clock_us,
            rows: 0,
            schema: types::schema_to_json(&*types::table_schema(schema)?)?,
            partition_by: partition_by.to_vec(),
            files: None,
        })
    }
}

/// Name of the table of refused rows.
pub(in crate::run) fn quarantine_of(relation: &str) -> String {
    format!("{relation}_quarantine")
}
