//! Compares a table with one batch run of its SQL over what it was made from. Touches nothing and prints nothing.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, DataFusionError, Result as DataFusionResult};
use datafusion::datasource::provider_as_source;
use datafusion::functions_aggregate::expr_fn::sum;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, SortExpr, lit};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use super::commit::{CommitChain, TableEntry};
use super::project::OpenProject;
use super::version::{Read, Versions};
use crate::engine::{self, failure};
use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::plan::{self, PlannedCheck, PlannedModel};
use crate::table::{TableFiles, Warehouse, parquet_table};

/// What comparing one table came to.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The model.
    pub model: String,
    /// `ok`, `differs`, or `skipped` with a reason.
    pub status: &'static str,
    /// Why it was skipped.
    pub reason: String,
    /// Rows of the table.
    pub rows: u64,
    /// Rows that only one side has.
    pub differing: u64,
    /// The first of them, by key: `- ` of the table alone, `+ ` of the batch run alone.
    pub sample: Vec<String>,
}

/// Compares the table of `model`, as of the last commit, with its SQL over the same positions.
///
/// Floats may differ by 1e-9 of their size, since their sums hang on the order of rows.
///
/// # Errors
/// External: files of the table or of its inputs can't be read.
pub async fn verify(open: &OpenProject, model: &PlannedModel) -> Result<Verdict> {
    let warehouse = open.warehouse().await?;
    let verdict = |status, reason: &str| Verdict {
        model: model.name.clone(),
        status,
        reason: reason.into(),
        rows: 0,
        differing: 0,
        sample: vec![],
    };
    let chain = CommitChain::open(&warehouse, &model.pipeline);
    let Some(record) = chain.latest().await? else { return Ok(verdict("skipped", "no run has built it yet")) };
    let Some(entry) = record.tables.get(&model.name) else {
        return Ok(verdict("skipped", "no run has built it yet"));
    };
    if entry.fingerprint != model.fingerprint {
        return Ok(verdict("skipped", "its SQL, parameters, key or checks changed since its last run"));
    }
    if plan::estimated_columns(&model.plan).len() == model.schema.fields().len() {
        return Ok(verdict(
            "skipped",
            "all of its columns are estimates, which the same rows in other parts give otherwise",
        ));
    }
    let Some(relations) = inputs(open, &warehouse, model, entry).await? else {
        let unarchived =
            model.inputs.iter().find(|name| open.source(name).is_some_and(|source| source.spec.unarchived().is_some()));
        let reason = match unarchived {
            Some(name) => {
                format!("rows of {name} aren't kept (`archive: false`), so there is nothing to compare it with")
            }
            None => "what it was made from isn't kept any more".into(),
        };
        return Ok(verdict("skipped", &reason));
    };
    if model.checks.iter().any(PlannedCheck::moves_unrelated_rows) {
        return Ok(verdict("skipped", "a relationship sends rows of it to quarantine"));
    }
    let session = open.session(entry.clock_us.unwrap_or(record.now_us));
    let zone = &open.project.timezone.value;
    let mut files = chain.table_files(&model.name, entry).await?;
    let mut changed = changed_files(&warehouse, &model.name, &mut files).await?;
    // What the engine makes of DISTINCT ON may be null by its types, whatever it is of.
    let nullable = TableFiles { schema: engine::loose(&files.schema), ..files.clone() };
    let table = parquet_table(&warehouse, &model.name, nullable, zone)?;
    let batch = plan::bind_accepted(model, &relations)?;
    let differences = match differences(&session, model, table, batch).await {
        Ok(differences) => differences,
        Err(error) => {
            changed.extend(unreadable_files(&session, &warehouse, &model.name, &files, zone).await?);
            if changed.is_empty() {
                return Err(error);
            }
            vec![]
        }
    };
    let differing = differences.iter().map(|(weight, _)| weight.unsigned_abs()).sum();
    let sample = differences
        .into_iter()
        .take(limits::VERIFY_SAMPLE_ROWS)
        .map(|(weight, text)| format!("{} {text}", if weight < 0 { '-' } else { '+' }));
    Ok(Verdict {
        rows: entry.rows,
        differing,
        sample: sample.collect(),
        ..verdict(if differing == 0 && changed.is_empty() { "ok" } else { "differs" }, &changed.join("; "))
    })
}

/// Data files that aren't as they were published, in words; `files` are then those that are there, as they are.
async fn changed_files(warehouse: &Warehouse, table: &str, files: &mut TableFiles) -> Result<Vec<String>> {
    let mut changed = Vec::new();
    let mut there = Vec::new();
    for mut file in std::mem::take(&mut files.files) {
        let path = format!("{table}/{}", file.path);
        match warehouse.size(&path).await? {
            None => changed.push(format!("{path} is gone")),
            Some(size) if size == file.size => there.push(file),
            Some(size) => {
                changed.push(format!("{path} has {size} bytes, and had {} when it was published", file.size));
                // What it said of itself may not be true any more.
                (file.size, file.stats) = (size, None);
                there.push(file);
            }
        }
    }
    files.files = there;
    Ok(changed)
}

/// Data files that are as large as they were published and can't be read all the same, in words.
async fn unreadable_files(
    session: &SessionContext,
    warehouse: &Warehouse,
    table: &str,
    files: &TableFiles,
    zone: &str,
) -> Result<Vec<String>> {
    let mut unreadable = Vec::new();
    for file in &files.files {
        let one = TableFiles { files: vec![file.clone()], ..files.clone() };
        let rows = parquet_table(warehouse, table, one, zone)?;
        let read = async {
            let mut rows = session.read_table(rows)?.execute_stream().await?;
            while rows.try_next().await?.is_some() {}
            Ok::<_, DataFusionError>(())
        };
        if read.await.is_err() {
            unreadable.push(format!("{table}/{} can't be read", file.path));
        }
    }
    Ok(unreadable)
}

/// The model's inputs as its table was made from them; none where they aren't kept.
async fn inputs(
    open: &OpenProject,
    warehouse: &Warehouse,
    model: &PlannedModel,
    entry: &TableEntry,
) -> Result<Option<HashMap<String, Arc<dyn TableProvider>>>> {
    let versions = Versions { open, warehouse };
    let mut relations = HashMap::new();
    for name in &model.inputs {
        let Some(read) = versions.read_of(name, entry).await? else { return Ok(None) };
        if let (Read::Source(position), Some(source)) = (&read, open.source(name))
            && position.contract != source.fingerprint
        {
            return Ok(None);
        }
        if !versions.is_kept(name, &read).await? {
            return Ok(None);
        }
        relations.insert(name.clone(), versions.provider(name, &read)?);
    }
    Ok(Some(relations))
}

/// Rows that are only on one side, by key: weight −n where only the table has them, +n where only the batch run has.
async fn differences(
    session: &SessionContext,
    model: &PlannedModel,
    table: Arc<dyn TableProvider>,
    batch: LogicalPlan,
) -> Result<Vec<(i64, String)>> {
    // Estimates are left out: the same rows in other parts give others.
    let estimated = plan::estimated_columns(&model.plan);
    let fields = model.schema.fields().iter().map(|field| field.name().clone()).enumerate();
    let names: Vec<(usize, String)> = fields.filter(|(at, _)| !estimated.contains(at)).collect();
    let plan = net(&names, table, batch).and_then(|plan| sorted(plan, model)).map_err(failure)?;
    let (_, stream) = engine::rows(session, plan, Some(limits::VERIFY_ROWS)).await?;
    let batches: Vec<RecordBatch> = stream.try_collect().await?;
    let mut differing = Vec::new();
    for batch in &batches {
        differing.extend(described(batch)?);
    }
    Ok(without_near(differing, &model.schema))
}

const WEIGHT: &str = "__weight";

/// Rows of one side alone, by the columns at these places.
fn net(names: &[(usize, String)], table: Arc<dyn TableProvider>, batch: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let side = |rows: LogicalPlan, weight: i64| {
        let all = rows.schema().columns();
        let column = |(at, name): &(usize, String)| Some(Expr::Column(all.get(*at)?.clone()).alias(name));
        let columns = names.iter().filter_map(column).collect::<Vec<_>>();
        LogicalPlanBuilder::from(rows).project(columns.into_iter().chain([lit(weight).alias(WEIGHT)]))?.build()
    };
    let column = |name: &str| Expr::Column(Column::new_unqualified(name));
    let table = LogicalPlanBuilder::scan("maintained", provider_as_source(table), None)?.build()?;
    // Under a name, since the engine loses track of a union whose branches name their columns otherwise.
    let batch = LogicalPlanBuilder::from(batch).alias("recomputed")?.build()?;
    LogicalPlanBuilder::from(side(table, -1)?)
        .union(side(batch, 1)?)?
        .aggregate(names.iter().map(|(_, name)| column(name)), [sum(column(WEIGHT)).alias(WEIGHT)])?
        .filter(column(WEIGHT).not_eq(lit(0i64)))?
        .build()
}

fn sorted(plan: LogicalPlan, model: &PlannedModel) -> DataFusionResult<LogicalPlan> {
    let first = model.key.iter().chain(model.schema.fields().iter().map(|field| field.name()));
    let known = first.filter(|name| plan.schema().has_column_with_unqualified_name(name));
    let order: Vec<SortExpr> =
        known.map(|name| Expr::Column(Column::new_unqualified(name)).sort(true, false)).collect();
    LogicalPlanBuilder::from(plan).sort(order)?.build()
}

/// A differing row: its weight, its text, the text of its columns but floats, its floats.
struct Differing {
    weight: i64,
    text: String,
    exact: String,
    floats: Vec<Option<f64>>,
}

fn described(batch: &RecordBatch) -> Result<Vec<Differing>> {
    let options = FormatOptions::default().with_null("null");
    let width = batch.num_columns() - 1;
    let weights = batch.column(width).as_primitive_opt::<Int64Type>();
    let weights = weights.ok_or_else(|| Error::internal("differing rows have no weight"))?;
    let formatters = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
    let formatters = formatters.collect::<std::result::Result<Vec<_>, _>>().external("a row can't be shown")?;
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let mut differing =
            Differing { weight: weights.value(row), text: String::new(), exact: String::new(), floats: vec![] };
        for (at, field) in batch.schema_ref().fields().iter().take(width).enumerate() {
            let cell = format!("{}={}", field.name(), formatters[at].value(row));
            let separator = if differing.text.is_empty() { "" } else { ", " };
            differing.text.push_str(separator);
            differing.text.push_str(&cell);
            if field.data_type().is_floating() {
                let float =
                    arrow::compute::cast(batch.column(at), &DataType::Float64).external("a float can't be read")?;
                let value = float.as_primitive_opt::<Float64Type>().filter(|values| values.is_valid(row));
                differing.floats.push(value.map(|values| values.value(row)));
            } else {
                differing.exact.push_str(&cell);
                differing.exact.push('\u{0}');
            }
        }
        rows.push(differing);
    }
    Ok(rows)
}

/// Leaves out pairs of rows that differ in the last digits of floats alone.
fn without_near(rows: Vec<Differing>, schema: &Schema) -> Vec<(i64, String)> {
    let has_floats = schema.fields().iter().any(|field| field.data_type().is_floating());
    let mut paired = vec![false; rows.len()];
    if has_floats {
        let mut by_exact: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, row) in rows.iter().enumerate() {
            let others = by_exact.entry(row.exact.as_str()).or_default();
            match others.iter().position(|other| rows[*other].weight == -row.weight && near(&rows[*other], row)) {
                Some(found) => {
                    let other = others.swap_remove(found);
                    (paired[at], paired[other]) = (true, true);
                }
                None => others.push(at),
            }
        }
    }
    rows.into_iter().zip(paired).filter(|(_, is_paired)| !is_paired).map(|(row, _)| (row.weight, row.text)).collect()
}

fn near(one: &Differing, other: &Differing) -> bool {
    one.floats.iter().zip(&other.floats).all(|(a, b)| match (a, b) {
        (Some(a), Some(b)) => a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()) || a.is_nan() && b.is_nan(),
        (None, None) => true,
        _ => false,
    })
}
