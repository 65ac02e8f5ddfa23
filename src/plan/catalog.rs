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

/// Hidden columns that say which message of a key is the last one, and whether it takes the row away.
const UPSERT_COLUMNS: [&str; 5] = ["_partition", "_offset", "_ingested_at", "_timestamp", "_tombstone"];

/// The last message of each key.
///
/// Offsets compare within one partition of one topic only, and a topic that is made anew counts them from the first again: there
/// what was taken in later is newer. A key whose messages stand in several partitions, as where some were added, has a last one
/// in each. Among these what was taken in later is newer, too, and of one unit the time that the messages carry decides.
fn upsert_plan(
    name: &str,
    schema: &SchemaRef,
    shape: &SourceShape,
    zone: &Arc<str>,
    hidden: &[&str],
) -> Result<LogicalPlan> {
    // Ties are broken by all columns, so that each one more has its price.
    let read: Vec<&str> =
        HIDDEN_COLUMNS.into_iter().filter(|name| hidden.contains(name) || UPSERT_COLUMNS.contains(name)).collect();
    let plan = scan(name, with_hidden(&loosened(schema, &shape.upsert), zone, &read))?;
    let reference = datafusion::common::TableReference::bare(name);
    let column = |column: &str| Expr::Column(Column::new(Some(reference.clone()), column));
    let newest_by = |names: &[&str]| names.iter().map(|name| column(name).sort(false, false)).collect::<Vec<_>>();
    let key: Vec<Expr> = shape.upsert.iter().map(|name| column(name)).collect();
    let all = plan.schema().columns().into_iter().map(Expr::Column).collect::<Vec<_>>();
    let kept = schema.fields().iter().map(|f| f.name().as_str()).chain(hidden.iter().copied()).map(column);
    let of_partition = key.iter().cloned().chain([column("_partition")]).collect();
    let lasts = first_of_each(plan, of_partition, newest_by(&["_ingested_at", "_offset"]))?.project(all)?.build()?;
    first_of_each(lasts, key, newest_by(&["_ingested_at", "_timestamp", "_offset", "_partition"]))?
        .filter(column("_tombstone").is_not_true())?
        .project(kept.collect::<Vec<_>>())?
        .build()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::util::pretty::pretty_format_batches;
    use datafusion::datasource::MemTable;
    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::plan::bind;

    /// Rows of an upsert relation with the key `id`, of messages that are each an id, a value, partition, offset, and when it was
    /// taken in and written; without a value it takes its row away.
    async fn rows(messages: &str) -> Vec<String> {
        let ctx = SessionContext::new();
        let instant =
            |column: &str| format!("arrow_cast({column}, 'Timestamp(Microsecond, Some(\"UTC\"))') AS {column}");
        let sql = format!(
            "SELECT id, v, CAST(NULL AS VARCHAR) AS _source_file, CAST(NULL AS BIGINT) AS _source_row, CAST(NULL AS VARCHAR) AS _topic, \
             CAST(_partition AS INT) AS _partition, _offset, {}, CAST(NULL AS VARCHAR) AS _key, {}, \
             CAST(NULL AS VARCHAR) AS _headers, v IS NULL AS _tombstone \
             FROM (VALUES {messages}) t(id, v, _partition, _offset, _ingested_at, _timestamp)",
            instant("_ingested_at"),
            instant("_timestamp"),
        );
        let batches = ctx.sql(&sql).await.unwrap().collect().await.unwrap();
        let table = MemTable::try_new(batches[0].schema(), vec![batches]).unwrap();
        let schema =
            Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("v", DataType::Utf8View, true)]);
        let shape = SourceShape { event_time: None, deduplicate: Vec::new(), upsert: vec!["id".into()] };
        let relation = Relation { schema: Arc::new(schema), source: Some(shape) };
        let plan = relation.plan("p", &"UTC".into()).unwrap();
        let tables: HashMap<String, Arc<dyn TableProvider>> = HashMap::from([("p".into(), Arc::new(table) as _)]);
        let plan = bind(&plan, &tables).unwrap();
        let rows = ctx.execute_logical_plan(plan).await.unwrap().select_columns(&["id", "v"]).unwrap();
        let rows = rows.sort_by(vec![datafusion::prelude::col("id")]).unwrap().collect().await.unwrap();
        let told = pretty_format_batches(&rows).unwrap().to_string();
        let cells = |line: &str| line.split(['|', ' ']).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join(" ");
        told.lines().filter(|line| line.starts_with('|')).skip(1).map(cells).collect()
    }

    #[tokio::test]
    async fn within_a_partition_the_last_offset_counts_whatever_its_time() {
        let messages =
            "(1, 'old', 0, 1, 10, 900), (1, 'new', 0, 2, 10, 100), (2, 'old', 1, 7, 10, 1), (2, NULL, 1, 8, 10, 0)";
        assert_eq!(rows(messages).await, ["1 new"]);
    }

    #[tokio::test]
    async fn of_several_partitions_the_one_that_came_later_counts() {
        let messages = "(1, 'old', 0, 50, 10, 900), (1, 'new', 3, 0, 20, 100), (2, 'old', 0, 51, 10, 900), (2, NULL, 3, 1, 20, 100)";
        assert_eq!(rows(messages).await, ["1 new"]);
    }

    #[tokio::test]
    async fn of_a_topic_made_anew_the_later_one_counts() {
        let messages = "(1, 'old', 0, 50, 10, 900), (1, 'new', 0, 0, 20, 100), (2, 'old', 0, 51, 10, 900), (2, NULL, 0, 1, 20, 100)";
        assert_eq!(rows(messages).await, ["1 new"]);
    }

    /// The last of partition 0 is older than the last of 1, whatever stands before it.
    #[tokio::test]
    async fn in_one_unit_the_last_of_each_partition_compare_by_time() {
        let messages = "(1, 'future', 0, 8, 10, 999), (1, 'a', 0, 9, 10, 100), (1, 'b', 1, 2, 10, 101), \
                        (2, 'c', 0, 10, 10, 200), (2, 'd', 1, 3, 10, 200)";
        assert_eq!(rows(messages).await, ["1 b", "2 c"]);
    }
}
