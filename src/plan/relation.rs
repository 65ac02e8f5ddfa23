//! Placeholder scans of a bound plan, and putting real relations under them.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DataFusionError, Result as DataFusionResult};
use datafusion::datasource::{DefaultTableSource, TableType, ViewTable, provider_as_source};
use datafusion::logical_expr::logical_plan::TableScanBuilder;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, TableScan, cast};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::Expr;

use super::PlannedSource;
use crate::error::{Error, Result};

/// A relation by name with its schema and no rows: what a plan is bound to before it is known what it will read.
#[derive(Debug)]
pub struct RelationTable {
    /// Source or model.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
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
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Err(DataFusionError::Internal(format!("the plan reads `{}`, which it isn't bound to", self.name)))
    }
}

/// Replaces each placeholder scan by the relation of its name, columns by name. Every input must be in `relations`.
///
/// # Errors
/// Internal, when a relation is missing, lacks a column, or has one of a type that can't be cast.
pub fn bind(plan: &LogicalPlan, relations: &HashMap<String, Arc<dyn TableProvider>>) -> Result<LogicalPlan> {
    let bound = plan.clone().transform_up_with_subqueries(|node| match node {
        LogicalPlan::TableScan(scan) => match placeholder(&scan) {
            Some(name) => Ok(Transformed::yes(replace(&scan, &name, relations)?)),
            None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
        },
        // Nullability may differ below.
        other => other.recompute_schema().map(Transformed::yes),
    });
    bound.map(|bound| bound.data).map_err(|e| Error::internal("the plan can't be bound to its relations").caused_by(e))
}

/// A raw relation of a source with what the source itself says of it applied: `deduplicate`.
pub fn source_relation(source: &PlannedSource, raw: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
    let Some(plan) = &source.relation_plan else { return Ok(raw) };
    let relations = HashMap::from([(source.spec.name.value.clone(), raw)]);
    Ok(Arc::new(ViewTable::new(bind(plan, &relations)?, None)))
}

fn placeholder(scan: &TableScan) -> Option<String> {
    let source = (scan.source.as_ref() as &dyn Any).downcast_ref::<DefaultTableSource>()?;
    let table = (source.table_provider.as_ref() as &dyn Any).downcast_ref::<RelationTable>()?;
    Some(table.name.clone())
}

fn replace(
    scan: &TableScan,
    name: &str,
    relations: &HashMap<String, Arc<dyn TableProvider>>,
) -> DataFusionResult<LogicalPlan> {
    let provider =
        relations.get(name).ok_or_else(|| DataFusionError::Internal(format!("`{name}` isn't among the relations")))?;
    let found = provider.schema();
    let wanted = scan.projected_schema.fields();
    let projection = wanted.iter().map(|field| found.index_of(field.name())).collect::<Result<Vec<_>, _>>()?;
    let is_same = projection.iter().zip(wanted).all(|(index, field)| found.field(*index).data_type() == field.data_type());
    let bound = TableScanBuilder::new(scan.table_name.clone(), provider_as_source(Arc::clone(provider)))
        .with_projection(Some(projection))
        .build()?;
    let bound = LogicalPlan::TableScan(bound);
    if is_same {
        return Ok(bound);
    }
    let columns = wanted.iter().map(|field| {
        let column = Expr::Column(Column::new(Some(scan.table_name.clone()), field.name()));
        cast(column, field.data_type().clone()).alias_qualified(Some(scan.table_name.clone()), field.name())
    });
    LogicalPlanBuilder::from(bound).project(columns.collect::<Vec<_>>())?.build()
}
