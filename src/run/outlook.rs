//! What a run would do, and how the tables stand. Reads; writes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::Schema;

use crate::connect::{Ignored, Position};
use crate::engine::maintain::GoesOn;
use crate::error::Result;
use crate::limits::NAMED_COLUMNS;
use crate::plan::{PlannedModel, PlannedSource};
use crate::run::commit::{CommitChain, CommitRecord, TableEntry};
use crate::run::follow;
use crate::run::last;
use crate::run::project::OpenProject;
use crate::run::refresh::anew;
use crate::run::refresh::draft::quarantine_of;
use crate::run::refresh::model::never_built;
use crate::run::sinks;
use crate::run::version::{Read, Versions, table_digest};
use crate::spec::types::{ConnectorSpec, KafkaSpec};
use crate::table::types::table_schema;
use crate::table::{Warehouse, delta};

/// What a run would do with one model.
#[derive(Debug, Clone)]
pub struct ModelOutlook {
    /// Name.
    pub model: String,
    /// `new`, `changed` or `unchanged`: its definition against the published version.
    pub change: &'static str,
    /// Whether a run would compute it.
    pub computes: bool,
    /// Whether a run would skip it and fail.
    pub is_skipped: bool,
    /// Why, or why not.
    pub reason: String,
    /// What is built from the whole input again, if anything, as far as that is known before rows are read.
    pub rebuild: Option<String>,
    /// Where it is published to.
    pub publishes: Vec<SinkOutlook>,
}

/// What a run would publish to one sink, as far as that is known without asking it.
#[derive(Debug, Clone)]
pub struct SinkOutlook {
    /// `files ./out/sales`, `kafka shop.sales`.
    pub to: String,
    /// `changes`, `final` or `debezium`.
    pub emit: &'static str,
    /// `what changed since commit 4`.
    pub next: String,
}

/// What a run would find in one source.
#[derive(Debug, Clone)]
pub struct SourceOutlook {
    /// Name.
    pub source: String,
    /// `3 new files, 1 changed`, or nothing.
    pub changes: Option<String>,
    /// Worth a look: files with the same bytes, columns that no contract names, files that still grow.
    pub notes: Vec<String>,
    /// Columns that a run would leave out.
    pub ignored: Vec<IgnoredColumn>,
    /// Why it can't be read.
    pub problem: Option<String>,
}

/// A column that a file has and the contract lacks.
#[derive(Debug, Clone)]
pub struct IgnoredColumn {
    /// The file, as shown.
    pub file: String,
    /// Its name there.
    pub column: String,
    /// The column of the contract that differs by case only.
    pub declared: Option<String>,
}

/// The outlook of a whole project.
pub struct Outlook {
    /// Sources by name.
    pub sources: BTreeMap<String, SourceOutlook>,
    /// Models in order of work.
    pub models: Vec<ModelOutlook>,
}

/// Last records of all pipelines of the project, by pipeline.
pub async fn records(open: &OpenProject, warehouse: &Warehouse) -> Result<BTreeMap<String, Arc<CommitRecord>>> {
    let mut records = BTreeMap::new();
    for pipeline in &open.project.pipelines {
        let name = &pipeline.name.value;
        if let Some(record) = CommitChain::open(warehouse, name).latest().await? {
            records.insert(name.clone(), record);
        }
    }
    Ok(records)
}

/// What a run at `now_us` would do with `models`.
pub async fn outlook(open: &OpenProject, models: &BTreeSet<String>, full_refresh: bool) -> Result<Outlook> {
    let warehouse = open.warehouse().await?;
    let records = records(open, &warehouse).await?;
    let (mut sources, mut now) = (BTreeMap::new(), HashMap::new());
    for source in &open.plan.sources {
        let name = &source.spec.name.value;
        let position = records.get(&source.pipeline).and_then(|record| record.sources.get(name));
        let (outlook, stays) = source_outlook(open, source, position).await?;
        sources.insert(name.clone(), outlook);
        now.insert(name.clone(), Read::Source(stays));
    }
    let mut outlook = Outlook { sources, models: Vec::new() };
    let committed = committed(open, &records)?;
    let mut deleted = BTreeSet::new();
    for (pipeline, record) in &records {
        deleted.extend(follow::deleted(&warehouse, &CommitChain::open(&warehouse, pipeline), record).await?);
    }
    for model in open.plan.models.iter().filter(|m| is_read_by(models, open, &m.name)) {
        now.extend(table_now(&warehouse, &records, model).await?);
    }
    let (mut computed, mut skipped) = (BTreeSet::new(), BTreeSet::new());
    for model in open.plan.models.iter().filter(|m| models.contains(&m.name)) {
        let entry = records.get(&model.pipeline).and_then(|record| record.tables.get(&model.name));
        let was_deleted = deleted.contains(&model.name) || deleted.contains(&quarantine_of(&model.name));
        let entry = entry.filter(|_| !was_deleted);
        let mut one = definition(model, entry.map(|e| e.fingerprint.as_str()));
        if was_deleted {
            one.reason = "its table was deleted".into();
        }
        let lacks = lacking_input(&outlook.sources, &skipped, model, |input| {
            models.contains(input) || committed.contains_key(input)
        });
        if let Some(reason) = lacks {
            skipped.insert(model.name.clone());
            (one.computes, one.is_skipped, one.reason) = (false, true, format!("skipped: {reason}"));
        } else if !one.computes {
            let changed = changed_inputs(&outlook.sources, &computed, &committed, model, entry);
            one.computes = full_refresh || model.reads_clock || !changed.is_empty();
            one.reason = match (full_refresh, changed.is_empty(), model.reads_clock) {
                (true, _, _) => "full refresh".into(),
                (_, false, _) => changed.join("; "),
                (_, _, true) => "it reads the clock".into(),
                _ => "inputs and SQL are unchanged".into(),
            };
        }
        if one.computes {
            computed.insert(model.name.clone());
            let about = About { open, warehouse: &warehouse, records: &records, full_refresh };
            one.rebuild = about.rebuild(model, entry, &now).await?;
            // Models after it read it under its definition as it is now, and the rows that this run leaves.
            if let Some(Read::Table(table)) = now.get_mut(&model.name) {
                (table.schema, table.partition_by) = (table_schema(&model.schema)?, model.partition_by.clone());
            }
        }
        one.publishes = sink_outlooks(open, &warehouse, model, entry, one.computes).await?;
        outlook.models.push(one);
    }
    Ok(outlook)
}

/// Whether one of `models` is computed of a relation.
fn is_read_by(models: &BTreeSet<String>, open: &OpenProject, relation: &str) -> bool {
    let mut asked = open.plan.models.iter().filter(|model| models.contains(&model.name));
    asked.any(|model| model.inputs.iter().any(|input| input == relation))
}

/// What a model and its checks read.
fn read_by(model: &PlannedModel) -> impl Iterator<Item = &String> {
    let of_checks = model.check_inputs.iter().filter(|input| !model.inputs.contains(input));
    model.inputs.iter().chain(of_checks)
}

/// What of that is another than what `entry` was made of, and how.
fn changed_inputs(
    sources: &BTreeMap<String, SourceOutlook>,
    computed: &BTreeSet<String>,
    committed: &BTreeMap<&str, String>,
    model: &PlannedModel,
    entry: Option<&TableEntry>,
) -> Vec<String> {
    let changed = read_by(model).filter_map(|input| {
        let change = match sources.get(input) {
            Some(source) => source.changes.as_ref().map(|changes| format!("{input}: {changes}")),
            None => computed.contains(input).then(|| format!("{input} is computed")),
        };
        let is_behind = change.is_none() && !has_read(committed, entry, input);
        change.or_else(|| is_behind.then(|| format!("{input}: what it hasn't read yet")))
    });
    changed.collect()
}

/// Why a run would skip a model: something that it or its checks read can't be read, or isn't there.
fn lacking_input(
    sources: &BTreeMap<String, SourceOutlook>,
    skipped: &BTreeSet<String>,
    model: &PlannedModel,
    is_there: impl Fn(&str) -> bool,
) -> Option<String> {
    read_by(model).find_map(|input| match sources.get(input) {
        Some(source) => source.problem.is_some().then(|| format!("`{input}` can't be read")),
        None if skipped.contains(input) => Some(format!("`{input}` is skipped")),
        None => (!is_there(input)).then(|| never_built(input, model)),
    })
}

/// What is known of a project before it is run.
struct About<'a> {
    open: &'a OpenProject,
    warehouse: &'a Warehouse,
    records: &'a BTreeMap<String, Arc<CommitRecord>>,
    full_refresh: bool,
}

impl About<'_> {
    /// What of a model that is computed is built from its whole input again. `now` is what it reads, but for rows that nobody has
    /// read yet.
    async fn rebuild(
        &self,
        model: &PlannedModel,
        entry: Option<&TableEntry>,
        now: &HashMap<String, Read>,
    ) -> Result<Option<String>> {
        let whole = |why: &str| Ok(Some(format!("the whole table: {why}")));
        let Some(maintenance) = &model.maintenance else { return whole(&model.strategy.reason) };
        let Some(entry) = entry else { return whole("it is its first build") };
        let is_changed = entry.fingerprint != model.fingerprint;
        let Some(goes_on) = anew::goes_on(model, entry, self.full_refresh) else {
            return whole(match (is_changed, self.full_refresh) {
                (true, _) => "its definition changed",
                (false, true) => "full refresh",
                (false, false) => "a check moves rows to quarantine that may come back",
            });
        };
        let versions = Versions { open: self.open, warehouse: self.warehouse };
        let known = anew::known(&versions, (model, maintenance), (entry, goes_on), now).await?;
        if let Some(reason) = known.reason {
            return whole(&reason);
        }
        if goes_on == GoesOn::States {
            let stay = anew::states_that_stay(model, entry).len();
            return Ok(Some(match model.states.len() - stay {
                0 => "the table, of its states: they stay".into(),
                new => format!("the table and {new} of {} states: what the others hold stays", stay + new),
            }));
        }
        // Only a run finds out which rows go for good: what went may come again with a file's next version.
        let quarantine = quarantine_of(&model.name);
        let record = self.records.get(&model.pipeline);
        let refused = record.and_then(|record| record.tables.get(&quarantine)).map_or(0, |entry| entry.rows);
        let may_go = known.gone_rows > 0 && refused > 0;
        let noun = if refused == 1 { "row" } else { "rows" };
        Ok(may_go.then(|| {
            format!("the whole table, if rows went that a rule had refused: {quarantine} has {refused} {noun}")
        }))
    }
}

/// A model's table as it was committed.
async fn table_now(
    warehouse: &Warehouse,
    records: &BTreeMap<String, Arc<CommitRecord>>,
    model: &PlannedModel,
) -> Result<Option<(String, Read)>> {
    let Some(record) = records.get(&model.pipeline) else { return Ok(None) };
    let Some(entry) = record.tables.get(&model.name) else { return Ok(None) };
    let files = CommitChain::open(warehouse, &model.pipeline).table_files(&model.name, entry).await?;
    Ok(Some((model.name.clone(), Read::Table(files))))
}

/// Digests of what was last committed of each relation.
fn committed<'a>(
    open: &'a OpenProject,
    records: &BTreeMap<String, Arc<CommitRecord>>,
) -> Result<BTreeMap<&'a str, String>> {
    let mut digests = BTreeMap::new();
    for (relation, owner) in open.pipelines_by_relation() {
        let Some(record) = records.get(owner) else { continue };
        let digest = match (record.sources.get(relation), record.tables.get(relation)) {
            (Some(position), _) => Position::from_json(Some(position))?.digest(),
            (None, Some(table)) => table_digest(&record.pipeline, table.changed_in),
            (None, None) => continue,
        };
        digests.insert(relation, digest);
    }
    Ok(digests)
}

/// Whether the published version is of what was last committed of an input: it isn't where a model failed since.
fn has_read(committed: &BTreeMap<&str, String>, entry: Option<&TableEntry>, input: &str) -> bool {
    let (Some(read), Some(committed)) = (entry.and_then(|entry| entry.inputs.get(input)), committed.get(input)) else {
        return true;
    };
    read == committed
}

fn definition(model: &PlannedModel, published: Option<&str>) -> ModelOutlook {
    let (change, reason) = match published {
        None => ("new", "no version is published yet"),
        Some(fingerprint) if fingerprint != model.fingerprint => {
            ("changed", "its SQL, parameters, key or checks changed")
        }
        Some(_) => ("unchanged", ""),
    };
    ModelOutlook {
        model: model.name.clone(),
        change,
        computes: change != "unchanged",
        is_skipped: false,
        reason: reason.into(),
        rebuild: None,
        publishes: Vec::new(),
    }
}

async fn sink_outlooks(
    open: &OpenProject,
    warehouse: &Warehouse,
    model: &PlannedModel,
    entry: Option<&TableEntry>,
    computes: bool,
) -> Result<Vec<SinkOutlook>> {
    let mut outlooks = Vec::new();
    for spec in &model.publish {
        let to = spec.name();
        let Some(sink) = open.sinks.iter().find(|sink| sink.model == model.name && sink.name == to) else { continue };
        let note = sinks::note_of(warehouse, &model.pipeline, sink).await?;
        let next = sinks::outlook(sink, note.as_ref(), entry, computes);
        outlooks.push(SinkOutlook { to, emit: spec.emit().word(), next });
    }
    Ok(outlooks)
}

/// The outlook of a source, and its position without what isn't taken in yet.
async fn source_outlook(
    open: &OpenProject,
    source: &PlannedSource,
    position: Option<&serde_json::Value>,
) -> Result<(SourceOutlook, Position)> {
    let name = &source.spec.name.value;
    let mut outlook =
        SourceOutlook { source: name.clone(), changes: None, notes: Vec::new(), ignored: Vec::new(), problem: None };
    let prior = Position::from_json(position)?;
    let connector = open.connector(name)?;
    let mut gone = Vec::new();
    match connector.look(&prior).await {
        Err(error) => outlook.problem = Some(error.to_string()),
        Ok(look) => (outlook.changes, outlook.notes, gone) = (look.changes, look.notes, look.gone),
    }
    if outlook.changes.is_some()
        && let Some(ignored) = connector.ignored_columns(&source.schema, &prior).await
    {
        outlook.ignored = ignored_columns(ignored, &source.schema);
        outlook.notes.extend(ignored_note(&outlook.ignored));
    }
    // A topic is asked what of it is there to be read again, and says so itself.
    let is_read_again = position.is_some() && prior.is_stale(&source.fingerprint) && outlook.problem.is_none();
    if is_read_again && matches!(source.spec.connector, ConnectorSpec::Files(_)) {
        let again = "its contract or rules changed: its files are read again".to_owned();
        outlook.changes = Some([Some(again), outlook.changes].into_iter().flatten().collect::<Vec<_>>().join(", "));
    }
    Ok((outlook, prior.without(&gone, &source.fingerprint)))
}

fn ignored_columns(ignored: Ignored, contract: &Schema) -> Vec<IgnoredColumn> {
    let declared = |column: &str| {
        let mut names = contract.fields().iter().map(|field| field.name());
        names.find(|name| name.to_lowercase() == column.to_lowercase()).cloned()
    };
    let file = ignored.file;
    let columns = ignored.columns.into_iter();
    columns.map(|column| IgnoredColumn { file: file.clone(), declared: declared(&column), column }).collect()
}

fn ignored_note(ignored: &[IgnoredColumn]) -> Option<String> {
    let first = ignored.first()?;
    let named = ignored.iter().take(NAMED_COLUMNS).map(|one| match &one.declared {
        Some(declared) => format!("`{}` (`{declared}` is declared, and case counts)", one.column),
        None => format!("`{}`", one.column),
    });
    let named = named.collect::<Vec<_>>().join(", ");
    let more = match ignored.len().saturating_sub(NAMED_COLUMNS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!("{} has columns that the contract lacks, which are ignored: {named}{more}", first.file))
}

/// Models whose definition differs from the published version, new ones included: `state:modified`.
pub async fn modified_models(open: &OpenProject) -> Result<BTreeSet<String>> {
    let records = records(open, &open.warehouse().await?).await?;
    let published = |m: &PlannedModel| records.get(&m.pipeline).and_then(|r| r.tables.get(&m.name));
    let modified =
        open.plan.models.iter().filter(|m| published(m).is_none_or(|entry| entry.fingerprint != m.fingerprint));
    Ok(modified.map(|m| m.name.clone()).collect())
}

/// How one model stands.
#[derive(Debug, Clone)]
pub struct ModelStatus {
    /// Name.
    pub model: String,
    /// `ok`, `failed`, `skipped`, or `never` before its first run.
    pub status: String,
    /// Last successful refresh, microseconds since 1970 UTC.
    pub refreshed_at_us: Option<i64>,
    /// Delta version.
    pub version: Option<i64>,
    /// Rows.
    pub rows: Option<u64>,
    /// Why it failed or was skipped.
    pub reason: String,
}

/// How a topic stands by its last commit; nothing is asked of its brokers.
#[derive(Debug, Clone, Default)]
pub struct SourceStatus {
    /// Name.
    pub source: String,
    /// Whether a run took it in before.
    pub is_taken_in: bool,
    /// Accepted rows.
    pub rows: u64,
    /// Rows that came behind the watermark, whether they were refused for it or not; of topics with an event time.
    pub late: Option<u64>,
    /// Rows of its quarantine table.
    pub quarantined: u64,
    /// Up to when its events are taken to be there, microseconds since 1970 UTC; of topics with an event time.
    pub watermark_us: Option<i64>,
}

/// How a sink stands by its note; nothing is asked of it.
#[derive(Debug, Clone)]
pub struct SinkStatus {
    /// `kafka shop.sales`.
    pub sink: String,
    /// The model that is published to it.
    pub model: String,
    /// `ok`, `failed` where the last try to bring it up to a commit did, or `behind`.
    pub state: &'static str,
    /// Since when it failed or was behind, microseconds since 1970 UTC.
    pub since_us: Option<i64>,
    /// Why it failed, or what it lacks.
    pub reason: String,
}

/// How every sink stands.
///
/// # Errors
/// External: the warehouse can't be read.
pub async fn sink_status(open: &OpenProject) -> Result<Vec<SinkStatus>> {
    let warehouse = open.warehouse().await?;
    let records = records(open, &warehouse).await?;
    let mut statuses = Vec::new();
    for sink in &open.sinks {
        let note = sinks::note_of(&warehouse, &sink.pipeline, sink).await?.unwrap_or_default();
        let record = records.get(&sink.pipeline);
        let entry = record.and_then(|record| record.tables.get(&sink.model));
        let (state, since_us, reason) = match (note.failing, record, entry) {
            (Some(failing), _, _) => ("failed", Some(failing.since_us), failing.reason),
            (None, Some(record), Some(entry)) => match sinks::lacks(sink, note.published.as_ref(), entry) {
                None if note.publishing.is_none() => ("ok", None, String::new()),
                lacks => {
                    // Nobody began to bring it up: the change was committed, and its process died.
                    let since_us = match note.behind_since_us {
                        None => CommitChain::open(&warehouse, &sink.pipeline).last_change(record, entry).await?.1,
                        Some(since_us) => since_us,
                    };
                    let begun = || "publishing was begun and isn't known to have ended".to_string();
                    ("behind", Some(since_us), lacks.unwrap_or_else(begun))
                }
            },
            _ => ("ok", None, String::new()),
        };
        statuses.push(SinkStatus { sink: sink.name.clone(), model: sink.model.clone(), state, since_us, reason });
    }
    Ok(statuses)
}

/// How every source that is a topic stands at `now_us`, microseconds since 1970 UTC.
///
/// # Errors
/// External: the warehouse can't be read.
pub async fn source_status(open: &OpenProject, now_us: i64) -> Result<Vec<SourceStatus>> {
    let records = records(open, &open.warehouse().await?).await?;
    let mut sources = Vec::new();
    for source in &open.plan.sources {
        let ConnectorSpec::Kafka(kafka) = &source.spec.connector else { continue };
        let name = &source.spec.name.value;
        let committed = records.get(&source.pipeline).and_then(|record| record.sources.get(name));
        let position = Position::from_json(committed)?;
        let topic = source.spec.event_time.as_ref().map(|_| kafka);
        let watermark_us = |kafka: &KafkaSpec| {
            let offsets = position.offsets.as_ref()?;
            offsets.watermark_us(now_us, kafka.watermark_delay, kafka.idle_timeout)
        };
        sources.push(SourceStatus {
            source: name.clone(),
            is_taken_in: committed.is_some(),
            rows: position.files.iter().map(|file| file.rows).sum(),
            late: topic.map(|_| position.files.iter().map(|file| file.late).sum()),
            quarantined: position.files.iter().flat_map(|file| &file.quarantined).map(|file| file.rows).sum(),
            watermark_us: topic.and_then(watermark_us),
        });
    }
    Ok(sources)
}

/// How every model stands by the last run that worked on it.
pub async fn status(open: &OpenProject) -> Result<Vec<ModelStatus>> {
    let warehouse = open.warehouse().await?;
    let records = records(open, &warehouse).await?;
    let lasts = last::all(&warehouse).await?;
    let mut models = Vec::new();
    for model in &open.plan.models {
        let entry = records.get(&model.pipeline).and_then(|record| record.tables.get(&model.name));
        let last = lasts.get(&model.name);
        let (status, reason) = match last {
            Some(last) if last.has_failed() => (last.status.clone(), last.reason.clone()),
            _ if entry.is_some() => ("ok".to_string(), String::new()),
            _ => ("never".to_string(), "no run has built it yet".to_string()),
        };
        let confirmed = last.filter(|last| !last.has_failed()).map(|last| last.started_at_us);
        models.push(ModelStatus {
            model: model.name.clone(),
            status,
            refreshed_at_us: entry.map(|e| e.refreshed_at_us).max(confirmed),
            version: delta::version_of(&warehouse, &model.name).await?,
            rows: entry.map(|e| e.rows),
            reason,
        });
    }
    Ok(models)
}
