//! Runs SQL unit tests in batch and as a stream: given rows in, a model's rows out, compared as bags.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::TableProvider;
use datafusion::datasource::{MemTable, ViewTable};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use super::refresh::checks::{KEY_UNIQUE, RowChecks, TableChecks, describe_failure};
use crate::connect::decode::{ColumnReader, parse_column};
use crate::engine;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::plan::{self, CheckTest, PlannedModel};
use crate::run::project::OpenProject;
use crate::run::{schedule, stream_test};
use crate::spec::fault::{Fault, Place};
use crate::spec::nearest;
use crate::spec::types::{GivenRows, OnFail, UnitTest};

/// How a test ended in one mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// `batch`: one run over all given rows. `stream`: they come in pieces, in random orders, and some go and come again.
    pub mode: &'static str,
    /// Whether all came as expected.
    pub passed: bool,
    /// What didn't, for people.
    pub detail: Option<String>,
}

/// Orders that given rows come in as a stream.
const STREAM_SEEDS: std::ops::Range<u64> = 0..4;

/// What stands for the run that refused a row.
const RUN: &str = "test";

/// Runs one test in batch, and as a stream where the model can be maintained and batch came as expected.
///
/// # Errors
/// Faults in the test itself: unknown columns, values that don't fit their type. An error of the model is an outcome.
pub async fn run(open: &OpenProject, test: &UnitTest) -> Result<Vec<Outcome>, Vec<Fault>> {
    let zone = &open.project.timezone.value;
    let now_us = match &test.now {
        None => schedule::wall_clock_us(),
        Some(now) => schedule::parse_instant(&now.value, zone)
            .map_err(|e| vec![Fault::error("wrong_value", now.place.clone(), e.to_string())])?,
    };
    let Some(model) = open.model(&test.model.value) else { return Err(Vec::new()) };
    let expected = expected(open, test, model)?;
    let relations = relations(open, test, model)?;
    let detail = judge(test, &expected, produce(open, model, &relations, now_us, None).await)?;
    let mut outcomes = vec![Outcome { mode: "batch", passed: detail.is_none(), detail }];
    if outcomes.iter().all(|outcome| outcome.passed) && model.maintenance.is_some() {
        let mut found = None;
        for seed in STREAM_SEEDS {
            let detail = judge(test, &expected, produce(open, model, &relations, now_us, Some(seed)).await)?;
            if let Some(detail) = detail {
                found = Some(format!("  as a stream, order {seed}\n{detail}"));
                break;
            }
        }
        outcomes.push(Outcome { mode: "stream", passed: found.is_none(), detail: found });
    }
    Ok(outcomes)
}

/// What didn't come as expected.
fn judge(test: &UnitTest, expected: &Expected, got: Result<Produced>) -> Result<Option<String>, Vec<Fault>> {
    let got = match got {
        Ok(got) => got,
        Err(error) => return Ok(compare_error(test, &error)),
    };
    if let Some(wanted) = &test.expect.error {
        let rows = match got.rows() {
            1 => "a row".to_string(),
            rows => format!("{rows} rows"),
        };
        return Ok(Some(format!("  expected an error with `{}`\n  found: {rows}", wanted.value)));
    }
    let mut detail = String::new();
    if let Some(expected) = &expected.0 {
        detail.push_str(&difference("rows", expected, &got.table).map_err(internal)?);
    }
    if let Some(expected) = &expected.1 {
        detail.push_str(&difference("quarantined rows", expected, &got.quarantine).map_err(internal)?);
    }
    Ok((!detail.is_empty()).then_some(detail))
}

fn internal(error: Error) -> Vec<Fault> {
    vec![Fault::error("internal", None, error.to_string())]
}

fn compare_error(test: &UnitTest, error: &Error) -> Option<String> {
    let text = error.to_string();
    match &test.expect.error {
        Some(wanted) if text.contains(&wanted.value) => None,
        Some(wanted) => Some(format!("  expected an error with `{}`\n  found: {text}", wanted.value)),
        None => Some(format!("  the model failed: {text}")),
    }
}

/// What a model gave.
struct Produced {
    table: Vec<RecordBatch>,
    quarantine: Vec<RecordBatch>,
}

impl Produced {
    fn rows(&self) -> usize {
        self.table.iter().map(RecordBatch::num_rows).sum()
    }

    fn provider(&self, model: &PlannedModel) -> Result<Arc<dyn TableProvider>> {
        let table = MemTable::try_new(Arc::clone(&model.schema), vec![self.table.clone()]);
        Ok(Arc::new(table.external("rows can't be kept")?))
    }
}

async fn produce(
    open: &OpenProject,
    model: &PlannedModel,
    relations: &HashMap<String, Arc<dyn TableProvider>>,
    now_us: i64,
    stream_seed: Option<u64>,
) -> Result<Produced> {
    let session = open.session(now_us);
    let rows = match (stream_seed, &model.maintenance) {
        (Some(seed), Some(maintenance)) => {
            stream_test::maintained(&session, model, maintenance, relations, seed).await?
        }
        _ => {
            let plan = plan::bind(&model.plan, relations)?;
            let (_, rows) = engine::rows(&session, plan, None).await?;
            rows.try_collect().await?
        }
    };
    let rules = RowChecks::bind(&session, &model.schema, &model.checks, &model.key, RUN)?;
    let mut got = Produced { table: Vec::new(), quarantine: Vec::new() };
    for batch in rows {
        let (kept, refused) = rules.split(engine::conform(&batch, &model.schema)?)?;
        got.table.push(kept);
        got.quarantine.extend(refused);
    }
    refuse_unrelated(open, &session, model, relations, &rules, &mut got).await?;
    check(open, &session, model, relations, &rules, &got, now_us).await?;
    Ok(got)
}

/// Moves rows without a partner to quarantine, for relationships that say so.
async fn refuse_unrelated(
    open: &OpenProject,
    session: &SessionContext,
    model: &PlannedModel,
    relations: &HashMap<String, Arc<dyn TableProvider>>,
    rules: &RowChecks,
    got: &mut Produced,
) -> Result<()> {
    for check in model.checks.iter().filter(|check| check.on_fail() == OnFail::Quarantine) {
        let CheckTest::Relationship { column, to_relation, to_column } = &check.test else { continue };
        let table = got.provider(model)?;
        let Some(target) = related(open, model, relations, to_relation, &table)? else { continue };
        let checks = TableChecks { ctx: session, table, now_us: 0 };
        let split = checks.split_by_partner(column, target, to_column).await?;
        got.quarantine.extend(checks.quarantined(&split.unrelated, check.name(), RUN, rules.quarantine_schema())?);
        got.table = split.related.collect().await.map_err(engine::failure)?;
    }
    Ok(())
}

/// The relation that a rule looks into; the model's own name stands for the rows at hand.
fn related(
    open: &OpenProject,
    model: &PlannedModel,
    relations: &HashMap<String, Arc<dyn TableProvider>>,
    name: &str,
    at_hand: &Arc<dyn TableProvider>,
) -> Result<Option<Arc<dyn TableProvider>>> {
    if name == model.name {
        return Ok(Some(Arc::clone(at_hand)));
    }
    relations.get(name).map(|rows| open.as_queried(name, Arc::clone(rows))).transpose()
}

/// Rules of the model, as a run would judge them.
async fn check(
    open: &OpenProject,
    session: &SessionContext,
    model: &PlannedModel,
    relations: &HashMap<String, Arc<dyn TableProvider>>,
    rules: &RowChecks,
    got: &Produced,
    now_us: i64,
) -> Result<()> {
    let checks = TableChecks { ctx: session, table: got.provider(model)?, now_us };
    let mut outcomes = rules.outcomes();
    if !model.key.is_empty() {
        outcomes.push(checks.unique(KEY_UNIQUE, OnFail::Fail, &model.key).await?);
    }
    for check in model.checks.iter().filter(|check| check.on_fail() == OnFail::Fail) {
        match &check.test {
            CheckTest::Unique(columns) => outcomes.push(checks.unique(check.name(), OnFail::Fail, columns).await?),
            CheckTest::Relationship { column, to_relation, to_column } => {
                if let Some(target) = related(open, model, relations, to_relation, &checks.table)? {
                    outcomes.push(checks.relationship(check.name(), OnFail::Fail, column, target, to_column).await?);
                }
            }
            // How fresh given rows are says nothing.
            CheckTest::Freshness { .. } | CheckTest::Row(_) => {}
        }
    }
    match outcomes.into_iter().find(|check| check.status == "failed" && check.on_fail == "fail") {
        None => Ok(()),
        Some(failed) => Err(Error::new(ErrorKind::Check, describe_failure(&failed))),
    }
}

/// What the model may read: given rows; sources not given are empty, models not given are computed.
fn relations(
    open: &OpenProject,
    test: &UnitTest,
    model: &PlannedModel,
) -> Result<HashMap<String, Arc<dyn TableProvider>>, Vec<Fault>> {
    let mut relations: HashMap<String, Arc<dyn TableProvider>> = HashMap::new();
    let mut faults = Vec::new();
    for (name, rows) in &test.given {
        let source = open.source(&name.value);
        let Some(schema) = source.map(|s| &s.schema).or_else(|| open.model(&name.value).map(|m| &m.schema)) else {
            continue;
        };
        let given =
            read_rows(open, rows, schema).and_then(|batch| table(open, batch, source.is_some()).map_err(internal));
        match given {
            Ok(table) => drop(relations.insert(name.value.clone(), table)),
            Err(found) => faults.extend(found),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let needed = needed(open, test, model);
    for source in open.plan.sources.iter().filter(|s| needed.contains(s.spec.name.value.as_str())) {
        let name = &source.spec.name.value;
        if !relations.contains_key(name) {
            let empty = table(open, RecordBatch::new_empty(nullable(&source.schema)), true).map_err(internal)?;
            relations.insert(name.clone(), empty);
        }
    }
    for upstream in open.plan.models.iter().filter(|m| needed.contains(m.name.as_str()) && m.name != model.name) {
        if !relations.contains_key(&upstream.name) {
            let bound = plan::bind_accepted(upstream, &relations).map_err(internal)?;
            relations.insert(upstream.name.clone(), Arc::new(ViewTable::new(bound, None)));
        }
    }
    Ok(relations)
}

/// Relations that the model reads, and those under models of them that aren't given.
fn needed<'a>(open: &'a OpenProject, test: &UnitTest, model: &'a PlannedModel) -> BTreeSet<&'a str> {
    let mut needed: BTreeSet<&str> = model.inputs.iter().chain(&model.check_inputs).map(String::as_str).collect();
    for upstream in open.plan.models.iter().rev() {
        let is_given = test.given.iter().any(|(name, _)| name.value == upstream.name);
        if needed.contains(upstream.name.as_str()) && !is_given {
            needed.extend(upstream.inputs.iter().map(String::as_str));
        }
    }
    needed
}

/// Given rows that the test's model doesn't read, so that they say nothing: warnings.
pub fn unread(open: &OpenProject, test: &UnitTest) -> Vec<Fault> {
    let Some(model) = open.model(&test.model.value) else { return Vec::new() };
    let needed = needed(open, test, model);
    let unread = test.given.iter().filter(|(name, _)| !needed.contains(name.value.as_str()));
    unread
        .map(|(name, _)| {
            let message = format!("`{}` doesn't read `{}`, so these rows say nothing", model.name, name.value);
            Fault::warning("unread_rows", name.place.clone(), message)
        })
        .collect()
}

fn nullable(schema: &SchemaRef) -> SchemaRef {
    // Columns left out are null, whatever the contract says of real rows.
    Arc::new(Schema::new(schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()))
}

/// A table of given rows; a source has its hidden columns, null.
fn table(open: &OpenProject, batch: RecordBatch, is_source: bool) -> Result<Arc<dyn TableProvider>> {
    let mut fields: Vec<Field> = batch.schema_ref().fields().iter().map(|f| f.as_ref().clone()).collect();
    let mut columns = batch.columns().to_vec();
    if is_source {
        for field in plan::read_hidden_fields(&open.project.timezone.value) {
            columns.push(arrow::array::new_null_array(field.data_type(), batch.num_rows()));
            fields.push(field);
        }
    }
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).external("given rows can't be kept")?;
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]]).external("given rows can't be kept")?))
}

/// Cells of given rows by column, and where each row stands.
struct Cells {
    columns: Vec<(String, Vec<Option<String>>)>,
    /// Place of each cell, by column and row; of the whole text for CSV and files.
    places: Vec<Vec<Place>>,
    rows: usize,
}

fn cells(open: &OpenProject, rows: &GivenRows) -> Result<Cells, Vec<Fault>> {
    let (text, place) = match rows {
        GivenRows::Rows(rows) => {
            let mut names: Vec<&str> = Vec::new();
            for (name, _) in rows.iter().flat_map(|row| &row.values) {
                if !names.contains(&name.value.as_str()) {
                    names.push(&name.value);
                }
            }
            let mut columns = Vec::new();
            let mut places = Vec::new();
            for name in names {
                let found = rows.iter().map(|row| row.values.iter().find(|(n, _)| n.value == name));
                let found: Vec<_> = found.zip(rows).collect();
                let value = |cell: &Option<&(
                    crate::spec::types::Located<String>,
                    Option<crate::spec::types::Located<String>>,
                )>| { cell.and_then(|(_, value)| value.as_ref().map(|v| v.value.clone())) };
                columns.push((name.to_string(), found.iter().map(|(cell, _)| value(cell)).collect()));
                places.push(
                    found
                        .iter()
                        .map(|(cell, row)| {
                            cell.map_or_else(
                                || row.place.clone(),
                                |(n, v)| v.as_ref().map_or(&n.place, |v| &v.place).clone(),
                            )
                        })
                        .collect(),
                );
            }
            return Ok(Cells { columns, places, rows: rows.len() });
        }
        GivenRows::Csv(text) => (text.value.clone(), text.place.clone()),
        GivenRows::File(path) => {
            let text = std::fs::read_to_string(open.project.root.join(&path.value));
            let text = text.map_err(|e| {
                vec![Fault::error("unreadable_file", path.place.clone(), format!("can't read {}: {e}", path.value))]
            })?;
            (text, path.place.clone())
        }
    };
    let (names, records) = crate::connect::decode::csv_cells(&text)
        .map_err(|e| vec![Fault::error("wrong_rows", place.clone(), e.to_string())])?;
    let count = records.len();
    let columns: Vec<(String, Vec<Option<String>>)> = names
        .into_iter()
        .enumerate()
        .map(|(index, name)| (name, records.iter().map(|record| record.get(index).cloned().flatten()).collect()))
        .collect();
    let places = columns.iter().map(|_| vec![place.clone(); count]).collect();
    Ok(Cells { columns, places, rows: count })
}

/// Given rows under a relation's columns; those that aren't given are null.
fn read_rows(open: &OpenProject, rows: &GivenRows, schema: &SchemaRef) -> Result<RecordBatch, Vec<Fault>> {
    let cells = cells(open, rows)?;
    let (known, mut faults) = typed(open, &cells, schema);
    for (index, (name, _)) in cells.columns.iter().enumerate() {
        if schema.field_with_name(name).is_err()
            && let Some(place) = cells.places[index].first()
        {
            faults.push(unknown_column(name, place, schema));
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let columns = schema.fields().iter().map(|field| {
        known.get(field.name()).cloned().unwrap_or_else(|| arrow::array::new_null_array(field.data_type(), cells.rows))
    });
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(cells.rows));
    RecordBatch::try_new_with_options(nullable(schema), columns.collect(), &options)
        .map_err(|e| internal(Error::internal(e.to_string())))
}

fn unknown_column(name: &str, place: &Place, schema: &SchemaRef) -> Fault {
    let fault = Fault::error("unknown_column", place.clone(), format!("there is no column `{name}`"));
    match nearest(name, schema.fields().iter().map(|f| f.name().as_str())) {
        Some(near) => fault.hint(format!("did you mean `{near}`?")),
        None => fault,
    }
}

/// Columns of the cells by the schema's types.
fn typed(open: &OpenProject, cells: &Cells, schema: &SchemaRef) -> (BTreeMap<String, ArrayRef>, Vec<Fault>) {
    let mut columns = BTreeMap::new();
    let mut faults = Vec::new();
    for (index, (name, values)) in cells.columns.iter().enumerate() {
        let Ok(field) = schema.field_with_name(name) else { continue };
        match ColumnReader::new(field.data_type(), None, &open.project.timezone.value, '.') {
            Ok(reader) => {
                let (array, wrong) = parse_column(&reader, values.iter().map(Option::as_deref), values.len());
                let wrong = wrong.into_iter().map(|misfit| {
                    Fault::error("wrong_value", cells.places[index][misfit.row].clone(), misfit.reason())
                });
                faults.extend(wrong);
                columns.insert(name.clone(), array);
            }
            Err(error) => faults
                .extend(cells.places[index].first().map(|p| Fault::error("wrong_type", p.clone(), error.to_string()))),
        }
    }
    (columns, faults)
}

type Expected = (Option<RecordBatch>, Option<RecordBatch>);

/// Expected rows by the types of the model and of its quarantine table.
fn expected(open: &OpenProject, test: &UnitTest, model: &PlannedModel) -> Result<Expected, Vec<Fault>> {
    let subset = |rows: &GivenRows, schema: &SchemaRef| -> Result<RecordBatch, Vec<Fault>> {
        let whole = read_rows(open, rows, schema)?;
        let named = cells(open, rows)?;
        let indices: Vec<usize> = named.columns.iter().filter_map(|(name, _)| schema.index_of(name).ok()).collect();
        whole.project(&indices).map_err(|e| internal(Error::internal(e.to_string())))
    };
    let rows = test.expect.rows.as_ref().map(|rows| subset(rows, &model.schema)).transpose()?;
    let columns = model.schema.fields().iter().map(|f| f.name().as_str());
    let quarantine = crate::connect::quarantine_schema(columns);
    let quarantine = test.expect.quarantine.as_ref().map(|rows| subset(rows, &quarantine)).transpose()?;
    Ok((rows, quarantine))
}

/// Rows that are missing and rows that nobody expected, in the expected columns; empty if there are none.
fn difference(what: &str, expected: &RecordBatch, got: &[RecordBatch]) -> Result<String> {
    // Where no row is expected, no column is named: what came is shown whole.
    let shown = match got.first() {
        Some(batch) if expected.num_rows() == 0 => batch.schema(),
        _ => expected.schema(),
    };
    let names: Vec<String> = shown.fields().iter().map(|f| f.name().clone()).collect();
    let mut bag: BTreeMap<Vec<Option<String>>, i64> = BTreeMap::new();
    for row in if expected.num_rows() == 0 { Vec::new() } else { texts(expected, &names)? } {
        *bag.entry(row).or_default() += 1;
    }
    for batch in got {
        for row in texts(batch, &names)? {
            *bag.entry(row).or_default() -= 1;
        }
    }
    let shown = |row: &[Option<String>]| {
        let cells = names.iter().zip(row).map(|(name, cell)| format!("{name}: {}", cell.as_deref().unwrap_or("null")));
        format!("{{ {} }}", cells.collect::<Vec<_>>().join(", "))
    };
    let mut detail = String::new();
    for (row, count) in &bag {
        let line = match count {
            1.. => format!("  missing     {}", shown(row)),
            0 => continue,
            _ => format!("  unexpected  {}", shown(row)),
        };
        (0..count.abs()).for_each(|_| detail.push_str(&format!("{line}\n")));
    }
    Ok(if detail.is_empty() { detail } else { format!("  {what} differ:\n{detail}") })
}

/// Rows as text; floats to 9 digits, which sums in another order agree in.
fn texts(batch: &RecordBatch, names: &[String]) -> Result<Vec<Vec<Option<String>>>> {
    let mut columns = Vec::new();
    for name in names {
        let column = batch.column_by_name(name).ok_or_else(|| Error::internal("an expected column is gone"))?;
        columns.push(column_texts(column)?);
    }
    let rows = batch.num_rows();
    Ok((0..rows).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect())
}

fn column_texts(column: &ArrayRef) -> Result<Vec<Option<String>>> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options).external("a value can't be shown")?;
    let is_float = column.data_type().is_floating();
    let text = |row: usize| {
        let text = formatter.value(row).to_string();
        match text.parse::<f64>() {
            Ok(value) if is_float => format!("{value:.8e}"),
            _ => text,
        }
    };
    Ok((0..column.len()).map(|row| column.is_valid(row).then(|| text(row))).collect())
}
