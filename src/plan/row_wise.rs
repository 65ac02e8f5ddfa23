//! A plan in pieces in which each row counts for itself: cut where a result hangs on many rows at once. Knows no rows.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan};

use super::relation::{RelationTable, placeholder_name};

/// A plan's topmost piece. Of a row that its operators fail on, they fail whatever other rows its inputs have, but for the rows
/// that it is joined with.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The operators, over placeholders by the names of the inputs; subqueries in expressions stay as they were.
    pub plan: LogicalPlan,
    /// What the placeholders stand for, in the order of the SQL.
    pub inputs: Vec<PieceInput>,
    /// Plans of subqueries that stand in expressions and name nothing outside of them.
    pub subqueries: Vec<LogicalPlan>,
}

/// One input of a piece.
#[derive(Debug, Clone)]
pub struct PieceInput {
    /// Its placeholder's name; no source or model is named so.
    pub name: String,
    /// What its rows are.
    pub rows: InputRows,
}

/// The rows of an input.
#[derive(Debug, Clone)]
pub enum InputRows {
    /// Those of a source or model.
    Relation(String),
    /// Those of an operator that looks at many rows at once, over placeholders of sources and models.
    Computed {
        /// The operator.
        operator: Arc<LogicalPlan>,
        /// The same with its columns renamed to those of `schema`.
        plan: Arc<LogicalPlan>,
        /// Its columns as the placeholder has them: no two names are alike.
        schema: SchemaRef,
        /// The names that the operator has for them.
        names: Vec<String>,
    },
}

/// The topmost piece of `plan`: down to sources and models, and to the next operators that look at many rows at once. If the topmost
/// operator does, it is part of the piece all the same.
///
/// # Errors
/// A bug: the plan was bound before.
pub fn topmost_piece(plan: &LogicalPlan) -> Result<Piece> {
    let mut inputs: Vec<PieceInput> = Vec::new();
    let mut is_root = true;
    let cut = plan.clone().transform_down(|node| {
        let is_cut = !std::mem::replace(&mut is_root, false) && looks_at_many_rows(&node);
        let name = format!("#{}", inputs.len());
        match node {
            LogicalPlan::TableScan(scan) => {
                let Some(relation) = placeholder_name(&scan) else {
                    return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
                };
                let table = RelationTable::new(&name, scan.source.schema());
                inputs.push(PieceInput { name, rows: InputRows::Relation(relation) });
                let scan = TableScan { source: provider_as_source(Arc::new(table)), ..scan };
                Ok(Transformed::new(LogicalPlan::TableScan(scan), true, TreeNodeRecursion::Jump))
            }
            node if is_cut => {
                let (scan, rows) = computed(&name, node)?;
                inputs.push(PieceInput { name, rows });
                Ok(Transformed::new(scan, true, TreeNodeRecursion::Jump))
            }
            node => Ok(Transformed::no(node)),
        }
    })?;
    let subqueries = subqueries(&cut.data)?;
    Ok(Piece { plan: cut.data, inputs, subqueries })
}

fn looks_at_many_rows(node: &LogicalPlan) -> bool {
    match node {
        LogicalPlan::Aggregate(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::RecursiveQuery(_) => true,
        LogicalPlan::Sort(sort) => sort.fetch.is_some(),
        _ => false,
    }
}

/// What stands in the place of an operator, and its rows. Columns of a join may be named alike, so they are numbered between both.
fn computed(name: &str, node: LogicalPlan) -> Result<(LogicalPlan, InputRows)> {
    let fields = node.schema().fields().iter().enumerate();
    let fields = fields.map(|(at, field)| Field::new(format!("c{at}"), field.data_type().clone(), true));
    let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let names = node.schema().fields().iter().map(|field| field.name().clone()).collect();
    let table = RelationTable::new(name, Arc::clone(&schema));
    let scan = LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(table)), None)?;
    let own = node.schema().iter().enumerate().map(|(at, (qualifier, field))| {
        Expr::Column(Column::new(Some(name), format!("c{at}"))).alias_qualified(qualifier.cloned(), field.name())
    });
    let scan = scan.project(own.collect::<Vec<_>>())?.build()?;
    let columns = node.schema().columns().into_iter().enumerate();
    let columns = columns.map(|(at, column)| Expr::Column(column).alias(format!("c{at}"))).collect::<Vec<_>>();
    let plan = LogicalPlanBuilder::from(node.clone()).project(columns)?.build()?;
    Ok((scan, InputRows::Computed { operator: Arc::new(node), plan: Arc::new(plan), schema, names }))
}

fn subqueries(plan: &LogicalPlan) -> Result<Vec<LogicalPlan>> {
    let mut found = Vec::new();
    plan.apply(|node| {
        for expr in node.expressions() {
            expr.apply(|expr| {
                let subquery = match expr {
                    Expr::ScalarSubquery(subquery) => subquery,
                    Expr::InSubquery(within) => &within.subquery,
                    Expr::Exists(exists) => &exists.subquery,
                    _ => return Ok(TreeNodeRecursion::Continue),
                };
                if subquery.outer_ref_columns.is_empty() {
                    found.push(subquery.subquery.as_ref().clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}
