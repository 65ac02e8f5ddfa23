//! Placeholders for relations in plans, and what replaces them. Knows no source and no model.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DataFusionError, plan_err};
use datafusion::datasource::ViewTable;
use datafusion::datasource::{TableType, provider_as_source, source_as_provider};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan, cast};
use datafusion::physical_plan::ExecutionPlan;

use super::types::sql_name;
use super::{CheckTest, PlannedModel, PlannedSource};
use crate::error::{Error, Result};
use crate::spec::types::OnFail;

/// Stands for a source or model in a plan: a name and a schema, no rows.
#[derive(Debug)]
pub struct RelationTable {
    name: String,
    schema: SchemaRef,
}

impl RelationTable {
    /// A placeholder.
    pub fn new(name: impl Into<String>, schema: SchemaRef) -> Self {
        Self { name: name.into(), schema }
    }

    /// The relation's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

#[async_trait]
impl TableProvider for RelationTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        plan_err!("the relation {} stands in a plan that was never bound", self.name)
    }
}

/// The placeholder that `scan` reads, if it is one.
pub fn placeholder(scan: &TableScan) -> Option<Arc<dyn TableProvider>> {
    source_as_provider(&scan.source).ok().filter(|provider| relation_of(provider.as_ref()).is_some())
}

/// The placeholder's own type.
pub fn relation_of(provider: &dyn TableProvider) -> Option<&RelationTable> {
    (provider as &dyn std::any::Any).downcast_ref::<RelationTable>()
}

/// Replaces each placeholder scan by the relation of its name. Every input must be in `relations`.
///
/// Columns are taken by name. A column of the same SQL type in another Arrow form (views, dictionaries, units, zones), or of a
/// narrower one, is cast; nullability may differ. A missing column or another type is an internal error that names both.
pub fn bind(plan: &LogicalPlan, relations: &HashMap<String, Arc<dyn TableProvider>>) -> Result<LogicalPlan> {
    let bound = plan.clone().transform_up_with_subqueries(|node| match node {
        LogicalPlan::TableScan(scan) => {
            let Some(provider) = placeholder(&scan) else { return Ok(Transformed::no(LogicalPlan::TableScan(scan))) };
            let Some(relation) = relation_of(provider.as_ref()) else {
                return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
            };
            match relations.get(relation.name()) {
                Some(table) => Ok(Transformed::yes(scan_of(&scan, table)?)),
                None => Err(external(Error::internal("no relation was given").with("relation", relation.name()))),
            }
        }
        // What a relation says of nulls may differ from its placeholder.
        other => Ok(Transformed::yes(other.recompute_schema()?)),
    });
    bound.map(|bound| bound.data).map_err(own_error)
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Our own error out of the engine's wrapping, or the engine's.
fn own_error(error: DataFusionError) -> Error {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(own) => *own,
            Err(other) => Error::internal("a plan can't be bound to its relations").caused_by(other),
        },
        other => Error::internal("a plan can't be bound to its relations").caused_by(other),
    }
}

/// Name of the relation that `scan` stands for, if it is a placeholder.
pub fn placeholder_name(scan: &TableScan) -> Option<String> {
    placeholder(scan).and_then(|provider| relation_of(provider.as_ref()).map(|relation| relation.name().to_owned()))
}

/// `table` in the place of a placeholder, as [`bind`] does it.
///
/// # Errors
/// A bug: a column is missing or of another type.
pub fn bind_scan(scan: &TableScan, table: &Arc<dyn TableProvider>) -> datafusion::common::Result<LogicalPlan> {
    scan_of(scan, table)
}

/// As [`bind_scan`], with `table`'s column `weight` as a further last one, without a qualifier.
///
/// # Errors
/// A bug: a column is missing or of another type.
pub fn bind_weighted_scan(
    scan: &TableScan,
    table: &Arc<dyn TableProvider>,
    weight: &str,
) -> datafusion::common::Result<LogicalPlan> {
    let whole = LogicalPlanBuilder::scan(scan.table_name.clone(), provider_as_source(Arc::clone(table)), None)?;
    let have = table.schema();
    let mut exprs = Vec::new();
    for wanted in scan.projected_schema.fields() {
        let found = have.column_with_name(wanted.name());
        let Some((_, field)) = found.filter(|(_, field)| adapts(field.data_type(), wanted.data_type())) else {
            return Err(external(mismatch(scan, wanted, found.map(|(_, field)| field))));
        };
        let column = Expr::Column(Column::new(Some(scan.table_name.clone()), wanted.name()));
        exprs.push(if field.data_type() == wanted.data_type() {
            column
        } else {
            cast(column, wanted.data_type().clone()).alias_qualified(Some(scan.table_name.clone()), wanted.name())
        });
    }
    exprs.push(Expr::Column(Column::new(Some(scan.table_name.clone()), weight)).alias(weight));
    whole.project(exprs)?.build()
}

fn scan_of(scan: &TableScan, table: &Arc<dyn TableProvider>) -> datafusion::common::Result<LogicalPlan> {
    let have = table.schema();
    let mut projection = Vec::new();
    let mut exprs = Vec::new();
    let mut casts = false;
    for wanted in scan.projected_schema.fields() {
        let found = have.column_with_name(wanted.name());
        let Some((index, field)) = found.filter(|(_, field)| adapts(field.data_type(), wanted.data_type())) else {
            return Err(external(mismatch(scan, wanted, found.map(|(_, field)| field))));
        };
        projection.push(index);
        let column = Expr::Column(Column::new(Some(scan.table_name.clone()), wanted.name()));
        if field.data_type() == wanted.data_type() {
            exprs.push(column);
        } else {
            casts = true;
            let expr = cast(column, wanted.data_type().clone());
            exprs.push(expr.alias_qualified(Some(scan.table_name.clone()), wanted.name()));
        }
    }
    let whole = projection.len() == have.fields().len() && projection.iter().enumerate().all(|(i, at)| i == *at);
    let source = provider_as_source(Arc::clone(table));
    let builder =
        LogicalPlanBuilder::scan(scan.table_name.clone(), source, if whole { None } else { Some(projection) })?;
    if casts { builder.project(exprs)?.build() } else { builder.build() }
}

/// As [`bind`] of the model's plan, without the rows that a rule about rows sends to quarantine.
///
/// # Errors
/// As [`bind`].
pub fn bind_accepted(model: &PlannedModel, relations: &HashMap<String, Arc<dyn TableProvider>>) -> Result<LogicalPlan> {
    let mut plan = LogicalPlanBuilder::from(bind(&model.plan, relations)?);
    for check in model.checks.iter().filter(|check| check.on_fail() == OnFail::Quarantine) {
        if let CheckTest::Row(rule) = &check.test {
            let accepted = plan.filter(Expr::IsNotFalse(Box::new(rule.clone())));
            plan = accepted.map_err(unfit)?;
        }
    }
    plan.build().map_err(unfit)
}

/// The accepted rows of a source as queries see them: what the source itself says applied, such as `deduplicate`.
///
/// # Errors
/// As [`bind`].
pub fn source_relation(source: &PlannedSource, accepted: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
    if source.spec.deduplicate.is_empty() && source.spec.upsert_key().is_empty() {
        return Ok(accepted);
    }
    let relations = HashMap::from([(source.spec.name.value.clone(), accepted)]);
    Ok(Arc::new(ViewTable::new(bind(&source.relation_plan, &relations)?, None)))
}

fn unfit(error: DataFusionError) -> Error {
    Error::internal("a rule doesn't fit its model's columns").caused_by(error)
}

fn mismatch(scan: &TableScan, wanted: &Field, have: Option<&Field>) -> Error {
    let error = Error::internal("a relation isn't what was planned")
        .with("relation", &scan.table_name)
        .with("column", wanted.name())
        .with("planned", sql_name(wanted.data_type()));
    match have {
        Some(field) => error.with("found", sql_name(field.data_type())),
        None => error.with("found", "nothing"),
    }
}

/// Whether a cast from `have` to `want` keeps every value.
fn adapts(have: &DataType, want: &DataType) -> bool {
    use DataType::{Decimal128, Float32, Float64, Int8, Int16, Int32, Int64, Timestamp};
    match (have, want) {
        (a, b) if a == b => true,
        (Timestamp(_, a), Timestamp(_, b)) => a.is_some() == b.is_some(),
        (Int8, Int16 | Int32 | Int64) | (Int16, Int32 | Int64) | (Int32, Int64) | (Float32, Float64) => true,
        (Decimal128(p, s), Decimal128(q, t)) => {
            t >= s && i16::from(*q) - i16::from(*t) >= i16::from(*p) - i16::from(*s)
        }
        (DataType::Dictionary(_, values), want) => adapts(values, want),
        (a, b) if a.is_nested() || b.is_nested() => arrow::compute::can_cast_types(a, b) && sql_name(a) == sql_name(b),
        (a, b) => sql_name(a) == sql_name(b) && arrow::compute::can_cast_types(a, b),
    }
}
