//! The relations of a project as planning sees them: schemas, hidden columns, deduplication. Knows no SQL text.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::{TableProvider, view::ViewTable};
use datafusion::common::{Column, Result};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, SortExpr, lit};

use super::HIDDEN_COLUMNS;
use super::names::Names;
use super::relation::RelationTable;
use crate::spec::types::SourceSpec;

/// The hidden columns with their types; instants are in the project's zone.
pub fn hidden_fields(zone: &Arc<str>) -> Vec<Field> {
    let types = [
        DataType::Utf8,
        DataType::Int64,
        DataType::Utf8,
        DataType::Int32,
        DataType::Int64,
        DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::clone(zone))),
        DataType::Utf8,
        DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::clone(zone))),
        DataType::Utf8,
        DataType::Boolean,
    ];
    HIDDEN_COLUMNS.iter().zip(types).map(|(name, data_type)| Field::new(*name, data_type, true)).collect()
}

/// The hidden columns as relations give them: text as views.
pub fn read_hidden_fields(zone: &str) -> impl Iterator<Item = Field> {
    hidden_fields(&zone.into()).into_iter().map(|field| match field.data_type() {
        DataType::Utf8 => field.with_data_type(DataType::Utf8View),
        _ => field,
    })
}

/// A relation whose schema is known.
#[derive(Debug, Clone)]
pub struct Relation {
    /// Columns that `*` shows.
    pub schema: SchemaRef,
    /// What only sources have.
    pub source: Option<SourceShape>,
}

/// What planning needs of a source besides its schema.
#[derive(Debug, Clone)]
pub struct SourceShape {
    event_time: Option<String>,
    deduplicate: Vec<String>,
    upsert: Vec<String>,
}

impl SourceShape {
    /// Of a source as written.
    pub fn of(spec: &SourceSpec) -> Self {
        Self {
            event_time: spec.event_time.as_ref().map(|name| name.value.clone()),
            deduplicate: spec.deduplicate.iter().map(|name| name.value.clone()).collect(),
            upsert: spec.upsert_key().iter().map(|name| name.value.clone()).collect(),
        }
    }
}

impl SourceShape {
    /// Whether rows are left out of those that the source accepted.
    fn leaves_rows_out(&self) -> bool {
        !self.deduplicate.is_empty() || !self.upsert.is_empty()
    }
}

/// Relations by name.
#[derive(Debug, Default, Clone)]
pub struct Catalog {
    relations: BTreeMap<String, Relation>,
}

impl Catalog {
    /// Adds a relation.
    pub fn insert(&mut self, name: &str, relation: Relation) {
        self.relations.insert(name.to_owned(), relation);
    }

    /// A relation.
    pub fn get(&self, name: &str) -> Option<&Relation> {
        self.relations.get(name)
    }

    /// Whether `name` is a source.
    pub fn is_source(&self, name: &str) -> bool {
        self.get(name).is_some_and(|relation| relation.source.is_some())
    }

    /// Names for planning: every relation as a placeholder, sources with the `hidden` columns.
    pub fn names<'a>(&self, state: &'a SessionState, zone: &Arc<str>, hidden: &[&str]) -> Result<Names<'a>> {
        let mut names = Names::new(state);
        for (name, relation) in &self.relations {
            names.insert(datafusion::common::TableReference::bare(name.as_str()), relation.table(name, zone, hidden)?);
        }
        Ok(names)
    }
}

impl Relation {
    /// What SQL reads under the relation's name.
    fn table(&self, name: &str, zone: &Arc<str>, hidden: &[&str]) -> Result<Arc<dyn TableProvider>> {
        match &self.source {
            Some(shape) if shape.leaves_rows_out() => {
                let plan = source_plan(name, &self.schema, shape, zone, hidden)?;
                Ok(Arc::new(ViewTable::new(plan, None)))
            }
            Some(_) => Ok(Arc::new(RelationTable::new(name, with_hidden(&self.schema, zone, hidden)))),
            None => Ok(Arc::new(RelationTable::new(name, Arc::clone(&self.schema)))),
        }
    }

    /// The rows of a source as models see them, all columns and all hidden ones, over its placeholder.
    pub fn plan(&self, name: &str, zone: &Arc<str>) -> Result<LogicalPlan> {
        match &self.source {
            Some(shape) => source_plan(name, &self.schema, shape, zone, &HIDDEN_COLUMNS),
            None => scan(name, Arc::clone(&self.schema)),
        }
    }
}

/// `schema` and the `hidden` columns after it.
pub fn with_hidden(schema: &Schema, zone: &Arc<str>, hidden: &[&str]) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    fields.extend(hidden_fields(zone).into_iter().filter(|f| hidden.contains(&f.name().as_str())).map(Arc::new));
    Arc::new(Schema::new(fields))
}

fn scan(name: &str, schema: SchemaRef) -> Result<LogicalPlan> {
    let table: Arc<dyn TableProvider> = Arc::new(RelationTable::new(name, schema));
    let reference = datafusion::common::TableReference::bare(name);
    LogicalPlanBuilder::scan(reference, provider_as_source(table), None)?.build()
}

/// One row per key of an upsert relation: the last message, unless it takes the row away. One row per value of the `deduplicate`
/// columns: the first by event time, ties by all other columns.
///
/// Rows alike in all columns of the contract can only be told apart by hidden columns, which then decide, if any is asked for.
fn source_plan(
    name: &str,
    schema: &SchemaRef,
    shape: &SourceShape,
    zone: &Arc<str>,
    hidden: &[&str],
) -> Result<LogicalPlan> {
    if !shape.upsert.is_empty() {
        return upsert_plan(name, schema, shape, zone, hidden);
    }
    let read: &[&str] = if hidden.is_empty() || shape.deduplicate.is_empty() { hidden } else { &HIDDEN_COLUMNS };
    let plan = scan(name, with_hidden(schema, zone, read))?;
    if shape.deduplicate.is_empty() {
        return Ok(plan);
    }
    let reference = datafusion::common::TableReference::bare(name);
    let column = |column: &str| Expr::Column(Column::new(Some(reference.clone()), column));
    let by_time = shape.event_time.iter().map(String::as_str);
    let all = plan.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let others = all
        .iter()
        .map(String::as_str)
        .filter(|name| Some(*name) != shape.event_time.as_deref() && !shape.deduplicate.iter().any(|by| by == name));
    // Without a further column all rows of a value are alike: any one is the first.
    let order: Vec<_> = by_time.chain(others).map(|name| column(name).sort(true, false)).collect();
    let kept = schema.fields().iter().map(|f| f.name().as_str()).chain(hidden.iter().copied()).map(column);
    first_of_each(plan, shape.deduplicate.iter().map(|name| column(name)).collect(), order)?
        .project(kept.collect::<Vec<_>>())?
        .build()
}

/// The first row by `order` of each value of `partition`, behind all columns its rank.
fn first_of_each(plan: LogicalPlan, partition: Vec<Expr>, order: Vec<SortExpr>) -> Result<LogicalPlanBuilder> {
    let width = plan.schema().fields().len();
    let rank = row_number().partition_by(partition);
    let rank = if order.is_empty() { rank.build()? } else { rank.order_by(order).build()? };
    let plan = LogicalPlanBuilder::from(plan).window(vec![rank])?.build()?;
    let rank = plan.schema().columns().into_iter().skip(width).map(Expr::Column).next().unwrap_or(lit(1u64));
    LogicalPlanBuilder::from(plan).filter(rank.eq(lit(1u64)))
}

/// The contract of an upsert relation's messages: one without a value has nothing but the key.
pub fn loosened(schema: &Schema, key: &[String]) -> Schema {
    let loose = schema.fields().iter().map(|field| match key.contains(field.name()) {
        true => field.as_ref().clone(),
        false => field.as_ref().clone().with_nullable(true),
    });
    Schema::new(loose.collect::<Vec<_>>())
}

/// The last message of each key, by its offset: all messages of a key stand in one partition.
fn upsert_plan(
    name: &str,
    schema: &SchemaRef,
    shape: &SourceShape,
    zone: &Arc<str>,
    hidden: &[&str],
) -> Result<LogicalPlan> {
    let plan = scan(name, with_hidden(&loosened(schema, &shape.upsert), zone, &HIDDEN_COLUMNS))?;
    let reference = datafusion::common::TableReference::bare(name);
    let column = |column: &str| Expr::Column(Column::new(Some(reference.clone()), column));
    let order = vec![column("_offset").sort(false, false), column("_partition").sort(false, false)];
    let kept = schema.fields().iter().map(|f| f.name().as_str()).chain(hidden.iter().copied()).map(column);
    first_of_each(plan, shape.upsert.iter().map(|name| column(name)).collect(), order)?
        .filter(column("_tombstone").is_not_true())?
        .project(kept.collect::<Vec<_>>())?
        .build()
}
