//! Says of a model that failed on a value which row it was, what is untouched and how to go on. Looks for no rows itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use arrow::array::{Array, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::bisect::{Failing, Suspect};
use super::model::Work;
use super::{Publishing, Refresh};
use crate::connect::Position;
use crate::engine::shortened;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::plan::{HIDDEN_COLUMNS, InputRows};
use crate::run::commit::TableEntry;
use crate::run::version::{Read, landed_folder};
use crate::table::delta;

/// What made models fail, from step to step: it is looked for once, not each time that the model is tried again.
#[derive(Default)]
pub(super) struct Culprits(Mutex<HashMap<String, Known>>);

/// What was found of a model's failure.
#[derive(Clone)]
struct Known {
    fingerprint: String,
    /// The failure as the engine words it.
    cause: String,
    found_at: Instant,
    found: Found,
}

/// The rows that a query fails on, in words.
#[derive(Clone, Default)]
struct Found {
    /// `row 2 of data/bad.csv`, one an input; none: they weren't found.
    places: Vec<String>,
    /// More of each.
    facts: Vec<(&'static str, String)>,
    /// Whether a row of a file is among them, which can be corrected.
    is_in_file: bool,
    /// Where they stand; none where that can't be told of all of them.
    stand_in: Option<Vec<StandsIn>>,
}

/// Where a row stands that stays there as long as these are the same.
#[derive(Clone)]
struct StandsIn {
    source: String,
    contract: String,
    /// Path and hash of the file; none of a topic, whose messages stay.
    file: Option<(String, String)>,
}

impl Culprits {
    fn of(&self, model: &str) -> Option<Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(model).cloned()
    }

    fn keep(&self, model: &str, known: Known) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(model.to_owned(), known);
    }
}

impl Refresh<'_> {
    /// The failure of a model, `old` being its last version: where a value caused it, with the row that has it.
    pub(super) async fn explained(&self, work: &Work<'_>, error: Error, old: Option<&TableEntry>) -> Error {
        if error.kind() != ErrorKind::Data {
            return match self.lost_rows(work).await {
                Some((file, damage)) if error.kind() == ErrorKind::External => error
                    .with("damaged", format!("{file} {damage}, rows of a source that were taken in"))
                    .with("hint", format!("`tidemill run {} --full-refresh` takes them in again", work.model.name)),
                _ => error,
            };
        }
        let cause = match std::error::Error::source(&error) {
            Some(cause) => cause.to_string(),
            None => error.to_string(),
        };
        let known = self.held.and_then(|held| held.culprits.of(&work.model.name));
        let known = known.filter(|known| known.cause == cause && known.still_holds(work));
        let found = match known {
            Some(known) => known.found,
            None => {
                self.observer.working(&format!("looking for the row that {} fails on", work.model.name));
                let found = self.find(work, &cause, old).await.unwrap_or_else(|failed| {
                    // What was wrong in the first place is still told.
                    tracing::warn!(model = work.model.name.as_str(), error = %failed, "the failing row wasn't found");
                    Found::default()
                });
                if let Some(held) = self.held {
                    let fingerprint = work.model.fingerprint.clone();
                    let known = Known { fingerprint, cause: cause.clone(), found_at: Instant::now(), found };
                    held.culprits.keep(&work.model.name, known.clone());
                    known.found
                } else {
                    found
                }
            }
        };
        let mut told = match found.places.is_empty() {
            true => error,
            false => {
                let message = format!("the query fails on {}", found.places.join(" with "));
                found
                    .facts
                    .iter()
                    .fold(Error::new(ErrorKind::Data, message), |error, (key, text)| error.with(key, text))
            }
        };
        told = told.with("kept", self.kept(&work.model.name, old).await).with("hint", self.hint(work, &cause, &found));
        if found.places.is_empty() { told } else { told.caused_by(cause) }
    }

    /// The first of the landed files that the model reads which isn't there as it was written, and what is wrong with it.
    async fn lost_rows(&self, work: &Work<'_>) -> Option<(String, &'static str)> {
        for name in &work.model.inputs {
            let (Some(source), Some((Read::Source(position), _))) =
                (self.open.source(name), work.inputs.reads.get(name))
            else {
                continue;
            };
            let folder = landed_folder(&source.pipeline, name);
            for file in position.files.iter().flat_map(|entry| entry.landed.iter().flatten()) {
                let path = format!("{folder}/{}", file.path);
                match self.warehouse.size(&path).await.ok()? {
                    Some(size) if size == file.size => {}
                    Some(_) => return Some((path, "has another size than it had")),
                    None => return Some((path, "is gone")),
                }
            }
        }
        None
    }

    async fn find(&self, work: &Work<'_>, cause: &str, old: Option<&TableEntry>) -> Result<Found> {
        let budget = if self.held.is_some() { limits::STEP_SUSPECT_SEARCH } else { limits::SUSPECT_SEARCH };
        let until = Instant::now() + budget;
        let mut reads = HashMap::new();
        let mut relations = work.inputs.relations.clone();
        for name in &work.model.inputs {
            let Some((read, _)) = work.inputs.reads.get(name) else { continue };
            let before = match old {
                Some(old) => self.versions().read_of(name, old).await?,
                None => None,
            };
            if let Read::Source(position) = read
                && position.lacks_rows()
            {
                let kept = position.files.iter().filter(|file| !file.is_let_go).cloned().collect();
                let kept = Read::Source(Position { files: kept, ..position.clone() });
                relations.insert(name.clone(), self.versions().provider(name, &kept)?);
            }
            reads.insert(name.as_str(), (read, before));
        }
        let failing = Failing {
            session: &work.session,
            versions: self.versions(),
            plan: &work.model.plan,
            schema: &work.model.schema,
            relations,
            reads,
            until,
        };
        let suspects = failing.suspects().await?;
        let mut found = Found { stand_in: Some(vec![]), ..Found::default() };
        for suspect in &suspects {
            let key = match &suspect.of {
                InputRows::Relation(name) => {
                    self.open.model(name).map(|model| model.key.as_slice()).unwrap_or_default()
                }
                InputRows::Computed { .. } => &[],
            };
            found.places.push(place(suspect, key));
            found.facts.extend(facts(suspect, cause));
            found.is_in_file |= row_of(suspect).is_some_and(|row| cell(row, "_source_file").is_some());
            found.stand_in = match (found.stand_in, stands_in(suspect)) {
                (Some(mut known), Some(one)) => {
                    known.push(one);
                    Some(known)
                }
                _ => None,
            };
        }
        found.stand_in = found.stand_in.filter(|known| !known.is_empty());
        Ok(found)
    }

    /// What is untouched by a model's failure.
    async fn kept(&self, model: &str, old: Option<&TableEntry>) -> String {
        let Some(old) = old else { return "nothing of it was published; what depends on it is skipped".into() };
        let version = match self.publishing {
            Publishing::Now => delta::version_of(&self.warehouse, model).await.ok().flatten(),
            Publishing::Later => None,
        };
        let at = match version {
            Some(version) => format!("at version {version}"),
            None => format!("as of commit {}", old.changed_in),
        };
        format!("the table stays {at}; what depends on it is skipped")
    }

    fn hint(&self, work: &Work<'_>, cause: &str, found: &Found) -> String {
        let bearing = if cause.contains("ivide by zero") {
            "nullif(…, 0)"
        } else if cause.contains("Cast error") || cause.contains("Parser error") {
            "try_cast"
        } else {
            "a WHERE"
        };
        let row = if found.is_in_file { "correct the row, or " } else { "" };
        let goes_on = match self.held {
            Some(_) => "start `tidemill up` again".to_owned(),
            None => format!("`tidemill run {}`", work.model.name),
        };
        let by_itself =
            if self.held.is_some() && found.is_in_file { " (a corrected file is taken in by itself)" } else { "" };
        format!("{row}have the SQL bear it with {bearing}; then {goes_on}{by_itself}")
    }
}

impl Known {
    /// Whether a model that fails in the same words fails on the same rows.
    fn still_holds(&self, work: &Work<'_>) -> bool {
        let stands = |at: &StandsIn| match work.inputs.reads.get(&at.source) {
            Some((Read::Source(position), _)) if position.contract == at.contract => match &at.file {
                Some((path, hash)) => position.file(path).is_some_and(|file| file.hash == *hash),
                None => true,
            },
            _ => false,
        };
        self.fingerprint == work.model.fingerprint
            && match &self.found.stand_in {
                Some(all) => all.iter().all(stands),
                None => self.found_at.elapsed() < limits::SUSPECT_PAUSE,
            }
    }
}

/// The row, where it is only one.
fn row_of(suspect: &Suspect) -> Option<&RecordBatch> {
    suspect.rows.as_ref().filter(|rows| rows.num_rows() == 1)
}

fn stands_in(suspect: &Suspect) -> Option<StandsIn> {
    let row = row_of(suspect)?;
    let (InputRows::Relation(source), Some(Read::Source(position))) = (&suspect.of, &suspect.part) else { return None };
    let file = match cell(row, "_topic") {
        Some(_) => None,
        None => position.files.first().map(|file| (file.path.clone(), file.hash.clone())),
    };
    Some(StandsIn { source: source.clone(), contract: position.contract.clone(), file })
}

/// Where the rows stand that are left of an input; `key` has the columns that tell a model's rows apart.
fn place(suspect: &Suspect, key: &[String]) -> String {
    let one_of = if suspect.is_least { "" } else { "one of " };
    let together = if suspect.is_least { " together" } else { "" };
    let many = |rows: String, of: &str| format!("{one_of}{rows} of {of}{together}");
    let name = match &suspect.of {
        InputRows::Computed { .. } => {
            return match &suspect.rows {
                Some(rows) if rows.num_rows() == 1 => "a row that it computes on the way".into(),
                _ => format!("{one_of}the rows that it computes on the way{together}"),
            };
        }
        InputRows::Relation(name) => name,
    };
    let Some(rows) = &suspect.rows else {
        let files: Vec<&str> = match &suspect.part {
            Some(Read::Source(position)) if position.offsets.is_none() => {
                position.files.iter().map(|file| file.path.as_str()).collect()
            }
            _ => vec![],
        };
        return match files.as_slice() {
            [] => many("the rows".into(), name),
            [file] => many("the rows".into(), file),
            [first, .., last] => many("the rows".into(), &format!("{} files from {first} to {last}", files.len())),
        };
    };
    let range = |column: &str| range(rows, column);
    let is_one = rows.num_rows() == 1;
    if let (Some(file), Some((first, last))) = (cell(rows, "_source_file"), range("_source_row")) {
        return if is_one {
            format!("row {first} of {file}")
        } else {
            many(format!("the rows {first} to {last}"), &file)
        };
    }
    if let (Some(topic), Some((from, to)), Some((first, last))) =
        (cell(rows, "_topic"), range("_partition"), range("_offset"))
    {
        return match is_one {
            true => format!("offset {first} of partition {from} of the topic {topic}"),
            false if from == to => {
                many(format!("the offsets {first} to {last}"), &format!("partition {from} of the topic {topic}"))
            }
            false => many(format!("{} messages", rows.num_rows()), &format!("the topic {topic}")),
        };
    }
    let key: Vec<String> = key.iter().filter_map(|column| Some(format!("{column}={}", cell(rows, column)?))).collect();
    match (is_one, key.is_empty()) {
        (true, false) => format!("the row {} of {name}", key.join(", ")),
        (true, true) => format!("a row of {name}"),
        (false, _) => many(format!("{} rows", rows.num_rows()), name),
    }
}

/// What more there is to say of the rows: which source they are of, and a single one's values.
fn facts(suspect: &Suspect, cause: &str) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let (InputRows::Relation(source), Some(Read::Source(_))) = (&suspect.of, &suspect.part) {
        facts.push(("source", source.clone()));
    }
    if let Some(row) = row_of(suspect) {
        facts.push(("values", values(row, &suspect.of, cause)));
    }
    facts
}

/// `column=value, …` of a row; values that the cause tells come first.
fn values(row: &RecordBatch, of: &InputRows, cause: &str) -> String {
    let schema = row.schema();
    let names: Vec<&str> = match of {
        InputRows::Computed { names, .. } => names.iter().map(String::as_str).collect(),
        InputRows::Relation(_) => schema.fields().iter().map(|field| field.name().as_str()).collect(),
    };
    // A number that finds the one row of a key, as sources do, is no column of anyone's.
    let is_shown = |name: &str| !HIDDEN_COLUMNS.contains(&name) && !name.starts_with("row_number() PARTITION BY [");
    let shown = names.iter().enumerate().filter(|(_, name)| is_shown(name));
    let mut cells: Vec<(bool, String)> = shown
        .map(|(at, name)| {
            let text = text_at(row, at).unwrap_or_else(|| "null".into());
            (!cause.contains(&format!("'{text}'")), format!("{name}={}", shortened(&text)))
        })
        .collect();
    cells.sort_by_key(|(is_untold, _)| *is_untold);
    let is_more = cells.len() > limits::SHOWN_COLUMNS;
    cells.truncate(limits::SHOWN_COLUMNS);
    let cells = cells.into_iter().map(|(_, cell)| cell).chain(is_more.then(|| "…".to_string()));
    cells.collect::<Vec<_>>().join(", ")
}

/// The first row's value of a column; none where it is null or the column isn't there.
fn cell(rows: &RecordBatch, column: &str) -> Option<String> {
    text_at(rows, rows.schema().index_of(column).ok()?)
}

fn text_at(rows: &RecordBatch, column: usize) -> Option<String> {
    let values = rows.column(column);
    if values.is_empty() || values.is_null(0) {
        return None;
    }
    ArrayFormatter::try_new(values, &FormatOptions::default()).ok().map(|shown| shown.value(0).to_string())
}

/// The least and the largest value of a column of integers.
fn range(rows: &RecordBatch, column: &str) -> Option<(i64, i64)> {
    let values = rows.column_by_name(column)?;
    let values = arrow::compute::cast(values, &arrow::datatypes::DataType::Int64).ok()?;
    let values = arrow::array::AsArray::as_primitive_opt::<arrow::datatypes::Int64Type>(&values)?;
    Some((arrow::compute::min(values)?, arrow::compute::max(values)?))
}
