//! Cuts a plan at its aggregates. Knows no rows.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError, Result};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Projection, cast, lit,
};

use super::decompose::{Decomposed, Merge, aggregate_of, decompose};
use super::{COUNT, Lookups, Maintenance, Part, Stage, closed, explain, lookups, normal, sessions};
use crate::plan::keys::functions_called;
use crate::plan::relation::{RelationTable, placeholder_name};
use crate::plan::session::zone_of;
use crate::plan::types::{sql_name, stored_type};

/// The way to maintain `plan`, or why it can only be computed anew. `lets_go`: closed groups aren't kept, which operators say.
///
/// # Errors
/// A bug: the plan was bound before.
pub fn maintenance(state: &SessionState, plan: &LogicalPlan, lets_go: bool) -> Result<Result<Maintenance, String>> {
    if let Some(reason) = explain::unsupported(plan)? {
        return Ok(Err(reason));
    }
    let plan = normal::normal(state, plan.clone())?;
    let mut cutter = Cutter { zone: zone_of(state.config_options()), stages: Vec::new(), refused: None };
    let root = plan.transform_up(|node| match node {
        LogicalPlan::Aggregate(aggregate) if !has_grouping_sets(&aggregate) => {
            cutter.stage(&aggregate).map(|scan| match scan {
                Some(scan) => Transformed::yes(scan),
                None => Transformed::no(LogicalPlan::Aggregate(aggregate)),
            })
        }
        other => Ok(Transformed::yes(other.recompute_schema()?)),
    })?;
    if let Some(reason) = cutter.refused {
        return Ok(Err(reason));
    }
    let mut looked_up = Lookups::new();
    for plan in cutter.stages.iter().map(|stage| &stage.input).chain([&root.data]) {
        lookups::add(plan, &mut looked_up)?;
    }
    let mut maintenance =
        Maintenance { stages: cutter.stages, root: root.data, operators: Vec::new(), lookups: looked_up };
    let closings = closed::closings(&maintenance.stages, &maintenance.root)?;
    for (stage, closing) in maintenance.stages.iter_mut().zip(closings) {
        stage.closing = closing;
        stage.sessions = sessions::sessions(stage)?;
    }
    Ok(explain::operators(&maintenance, lets_go)?.map(|operators| Maintenance { operators, ..maintenance }))
}

fn has_grouping_sets(aggregate: &Aggregate) -> bool {
    aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_)))
}

struct Cutter {
    zone: Arc<str>,
    stages: Vec<Stage>,
    /// The first reason against.
    refused: Option<String>,
}

impl Cutter {
    /// Makes a stage of `aggregate`; what stands in its place reads the state.
    fn stage(&mut self, aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
        let input = aggregate.input.schema();
        let mut fields = Vec::new();
        for (at, expr) in aggregate.group_expr.iter().enumerate() {
            let found = expr.get_type(input)?;
            let Some(stored) = self.state_type(&found) else { return Ok(None) };
            fields.push(Field::new(format!("g{at}"), stored, true));
        }
        fields.push(Field::new(COUNT, DataType::Int64, false));
        // In the order of their texts, which every process finds alike: the state stays where a SELECT names the same functions
        // in another order.
        let functions = aggregate.aggr_expr.iter().enumerate().map(|(at, expr)| match aggregate_of(expr) {
            Some(function) => {
                let text = Expr::AggregateFunction(function.clone()).to_string();
                Ok((text, at, decompose(function, input)?))
            }
            None => Err(DataFusionError::Internal("an aggregate isn't a function".into())),
        });
        let mut functions = functions.collect::<Result<Vec<(String, usize, Decomposed)>>>()?;
        functions.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        let (places, functions): (Vec<usize>, Vec<Decomposed>) =
            functions.into_iter().map(|(_, at, function)| (at, function)).unzip();
        for part in functions.iter().flat_map(|function| &function.parts) {
            let found = part.aggregate.get_type(input)?;
            let Some(stored) = self.state_type(&found).filter(|stored| self.merges(part, stored)) else {
                return Ok(None);
            };
            fields.push(Field::new(format!("p{}", fields.len() - 1 - aggregate.group_expr.len()), stored, true));
        }
        let schema = Arc::new(Schema::new(fields));
        let name = stage_name(aggregate, &functions, &schema);
        let scan = read_state(aggregate, (&functions, &places), &name, &schema)?;
        // The same aggregate of the same rows is kept once.
        if !self.stages.iter().any(|stage| stage.name == name) {
            let parts = functions.into_iter().flat_map(|function| function.parts).collect();
            let (input, group) = (aggregate.input.as_ref().clone(), aggregate.group_expr.clone());
            let (reads, calls) = self.hangs_on(aggregate)?;
            self.stages.push(Stage { name, input, reads, calls, group, parts, schema, closing: None, sessions: None });
        }
        Ok(Some(scan))
    }

    /// Sources and models that an aggregate over them and over the stages so far reads, and the functions that it calls.
    fn hangs_on(&self, aggregate: &Aggregate) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
        let plan = LogicalPlan::Aggregate(aggregate.clone());
        let (mut reads, mut calls) = (BTreeSet::new(), functions_called(&plan)?);
        plan.apply(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Some(name) = placeholder_name(scan)
            {
                match self.stages.iter().find(|stage| stage.name == name) {
                    Some(stage) => {
                        reads.extend(stage.reads.iter().cloned());
                        calls.extend(stage.calls.iter().cloned());
                    }
                    None => drop(reads.insert(name)),
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok((reads, calls))
    }

    /// Whether the part's values can be merged in the type that they are stored in: a decimal has no bits.
    fn merges(&mut self, part: &Part, stored: &DataType) -> bool {
        let is_of_bits = matches!(&part.merge, Merge::Of(func) if func.name().starts_with("bit_"));
        let can = stored.is_integer() || !is_of_bits;
        if !can {
            self.refused.get_or_insert_with(|| "an aggregate over the bits of 64-bit unsigned integers".into());
        }
        can
    }

    /// The type that holds every value of `found` in a file, if there is one.
    fn state_type(&mut self, found: &DataType) -> Option<DataType> {
        // All of 64 unsigned bits: rank() and row_number() give such.
        let stored = stored_type(found, &self.zone, &DataType::Decimal128(20, 0)).ok();
        let exact = stored.filter(|stored| {
            let as_it_is = stored == found;
            let other_form = matches!(
                (found, stored),
                (DataType::Utf8 | DataType::LargeUtf8, DataType::Utf8View)
                    | (DataType::Binary | DataType::LargeBinary, DataType::BinaryView)
                    | (DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64, _)
                    | (DataType::Timestamp(_, Some(_)), DataType::Timestamp(_, Some(_)))
            );
            let coarser =
                matches!(found, DataType::Timestamp(unit, _) if *unit == arrow::datatypes::TimeUnit::Nanosecond);
            (as_it_is || other_form) && !coarser
        });
        if exact.is_none() {
            let reason = format!("an aggregate's state has a value of type {}", sql_name(found));
            self.refused.get_or_insert(reason);
        }
        exact
    }
}

/// A name that says what is in the state: of what is aggregated, earlier stages by their names, by what and how.
fn stage_name(aggregate: &Aggregate, functions: &[Decomposed], schema: &Schema) -> String {
    let (input, group) = (&aggregate.input, &aggregate.group_expr);
    let parts: Vec<&Part> = functions.iter().flat_map(|function| &function.parts).collect();
    let text = format!("{group:?} {parts:?} {schema:?}\n{}\n{input:?}", input.display_indent_schema());
    format!("#{}", &blake3::hash(text.as_bytes()).to_hex()[..32])
}

/// The aggregate's rows, made of its state: same columns, names and types. Each function has its place in the aggregate.
fn read_state(
    aggregate: &Aggregate,
    (functions, places): (&[Decomposed], &[usize]),
    name: &str,
    schema: &Arc<Schema>,
) -> Result<LogicalPlan> {
    let table = RelationTable::new(name, Arc::clone(schema));
    let mut plan = LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(table)), None)?.build()?;
    let column = |field: &str| Expr::Column(Column::new(Some(name), field));
    if !aggregate.group_expr.is_empty() {
        plan = LogicalPlan::Filter(Filter::try_new(column(COUNT).gt(lit(0i64)), Arc::new(plan))?);
    }
    let input = aggregate.input.schema();
    let typed = |expr: Expr, wanted: &DataType, stored: &DataType| {
        if wanted == stored { expr } else { cast(expr, wanted.clone()) }
    };
    let mut exprs = Vec::new();
    for (at, group) in aggregate.group_expr.iter().enumerate() {
        exprs.push(typed(column(&format!("g{at}")), &group.get_type(input)?, schema.field(at).data_type()));
    }
    let mut next = 0;
    let mut values = Vec::with_capacity(functions.len());
    for (function, place) in functions.iter().zip(places) {
        let mut parts = Vec::new();
        for part in &function.parts {
            let stored = schema.field(aggregate.group_expr.len() + 1 + next).data_type();
            parts.push(typed(column(&format!("p{next}")), &part.aggregate.get_type(input)?, stored));
            next += 1;
        }
        values.push((*place, function.value(&parts)?));
    }
    values.sort_by_key(|(place, _)| *place);
    exprs.extend(values.into_iter().map(|(_, value)| value));
    let named = exprs.into_iter().enumerate().map(|(at, expr)| {
        let (qualifier, field) = aggregate.schema.qualified_field(at);
        let expr = if expr.get_type(plan.schema())? == *field.data_type() {
            expr
        } else {
            cast(expr, field.data_type().clone())
        };
        Ok(expr.alias_qualified(qualifier.cloned(), field.name()))
    });
    let named = named.collect::<Result<Vec<Expr>>>()?;
    Ok(LogicalPlan::Projection(Projection::try_new(named, Arc::new(plan))?))
}

/// Whether any scan of `plan` reads a source or model itself.
pub(super) fn reads_relations(plan: &LogicalPlan) -> Result<bool> {
    let mut reads = false;
    plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            reads |= !scan.table_name.table().starts_with('#');
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(reads)
}
