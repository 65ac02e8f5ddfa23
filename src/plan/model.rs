//! One model from its syntax tree to the plan that is stored: types, keys, contract. Knows no other model.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast};
use datafusion::sql::sqlparser::ast::{Query, Select, SelectItem, SetExpr, Spanned};

use super::approximate::estimates;
use super::buildable::{build, build_faults};
use super::canonical::{canonical, without_order};
use super::catalog::Catalog;
use super::hidden::{hide, named_hidden};
use super::inspect::table_reference;
use super::keys;
use super::nearest::with_nearest;
use super::sql_faults::plan_or_faults;
use super::sql_text::first_word;
use super::types::{sql_name, stored_type};
use crate::spec::fault::{Fault, Place};
use crate::spec::types::{Located, ModelSpec};

/// What models are planned with.
pub struct ModelPlanner<'a> {
    /// Session of the plan.
    pub state: &'a SessionState,
    /// Relations whose schema is known: all inputs of the model are.
    pub catalog: &'a Catalog,
    /// The project's zone.
    pub zone: &'a Arc<str>,
    /// Whether to try if a run can build the model.
    pub builds: bool,
}

/// A model's query, bound and typed.
pub struct BoundModel {
    /// What is run.
    pub plan: LogicalPlan,
    /// What is stored.
    pub schema: SchemaRef,
    /// Whether the key can't repeat.
    pub key_is_derived: bool,
    /// Columns of the contract that the plan doesn't prove to be without nulls.
    pub unproven_not_null: Vec<Located<String>>,
    /// Warnings.
    pub warnings: Vec<Fault>,
}

impl ModelPlanner<'_> {
    /// Plans `query`; with `names_only`, faults other than names are consequences of one already told.
    pub fn plan(&self, spec: &ModelSpec, mut query: Query, names_only: bool) -> Result<BoundModel, Vec<Fault>> {
        let engine = |error: datafusion::common::DataFusionError| {
            vec![Fault::error("invalid_sql", first_word(&spec.sql), error.strip_backtrace())]
        };
        let shape = query.clone();
        let hidden = named_hidden(&query);
        let names = self.catalog.names(self.state, self.zone, &hidden).map_err(engine)?;
        let ctes: BTreeSet<String> = query
            .with
            .iter()
            .flat_map(|with| &with.cte_tables)
            .map(|cte| cte.alias.name.value.to_lowercase())
            .collect();
        let is_source = |name: &datafusion::sql::sqlparser::ast::ObjectName| {
            table_reference(name).is_some_and(|reference| {
                self.catalog.is_source(reference.table())
                    && !(reference.schema().is_none() && ctes.contains(reference.table()))
            })
        };
        let faults = hide(&mut query, &spec.sql, &hidden, &is_source);
        if !faults.is_empty() {
            return Err(faults);
        }
        let plan = plan_or_faults(query.clone(), &spec.sql, names_only, &|query| names.plan_query(query))?;
        if names_only {
            // Types around what is at fault can't be told.
            return Err(vec![]);
        }
        if let Some((name, of)) = without_order(&plan).map_err(engine)? {
            let message = format!("{name}() compares its values, and those of {} have no order", sql_name(&of));
            let fault = Fault::error("wrong_type", first_word(&spec.sql), message);
            return Err(vec![fault.hint("take it of a field, or of text; array_agg lists them all")]);
        }
        let canonical = |plan| canonical(unsorted(plan)).and_then(|plan| names.analyze(plan));
        let bound = self.store(spec, canonical(plan).map_err(engine)?, &shape)?;
        if self.builds
            && let Err(error) = build(self.state, &bound.plan)
        {
            let builder = |query| {
                let plan = names.plan_query(query).and_then(canonical).ok()?;
                Some(build(self.state, &plan))
            };
            return Err(build_faults(query, &spec.sql, error, &builder));
        }
        Ok(bound)
    }

    /// Gives the result the types that it is stored in, and checks key, partitioning and contract against it.
    fn store(&self, spec: &ModelSpec, plan: LogicalPlan, query: &Query) -> Result<BoundModel, Vec<Fault>> {
        let engine = |error: datafusion::common::DataFusionError| {
            vec![Fault::error("invalid_sql", first_word(&spec.sql), error.strip_backtrace())]
        };
        let unsigned64 = if reads_unsigned(&plan) { DataType::Decimal128(20, 0) } else { DataType::Int64 };
        let mut faults = Vec::new();
        let mut fields: Vec<Field> = Vec::new();
        let mut exprs = Vec::new();
        let width = plan.schema().fields().len();
        for (at, (qualifier, field)) in plan.schema().iter().enumerate() {
            let place = || item_place(spec, query, at, width);
            if fields.iter().any(|known| known.name() == field.name()) {
                let message = format!("two columns of the result are named `{}`", field.name());
                faults.push(Fault::error("duplicate_column", place(), message).hint("name one with AS"));
                continue;
            }
            let folded = field.name().to_lowercase();
            if let Some(known) = fields.iter().find(|known| known.name().to_lowercase() == folded) {
                let message = format!(
                    "columns `{}` and `{}` of the result differ by case alone, and a Delta table can't have both",
                    known.name(),
                    field.name()
                );
                faults.push(Fault::error("duplicate_column", place(), message).hint("name one with AS"));
                continue;
            }
            match stored_type(field.data_type(), self.zone, &unsigned64) {
                Ok(stored) => {
                    let column = Expr::Column(datafusion::common::Column::from((qualifier, field)));
                    let column = if stored == *field.data_type() { column } else { cast(column, stored.clone()) };
                    exprs.push(column.alias(field.name()));
                    fields.push(Field::new(field.name(), stored, field.is_nullable()));
                }
                Err(why) => {
                    let fault = Fault::error("unstorable_type", place(), format!("column `{}` {why}", field.name()));
                    faults.push(fault.hint("cast it: `CAST(… AS type)`, or `… :: type`"));
                }
            }
        }
        let computed = Schema::new(fields);
        // With a column missing for a fault of its own, the names below would be consequences.
        if faults.is_empty() {
            faults.extend(named_columns("key", &spec.key, &computed));
            faults.extend(self.partitioning(spec, &computed));
            faults.extend(self.contract(spec, &computed));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let (schema, unproven_not_null) = stored_schema(spec, &computed);
        let warnings = order_warnings(spec, &plan).map_err(engine)?;
        let plan = LogicalPlanBuilder::from(plan).project(exprs).and_then(|b| b.build()).map_err(engine)?;
        let key_is_derived = !spec.key.is_empty() && {
            let key: Vec<String> = spec.key.iter().map(|name| name.value.clone()).collect();
            keys::is_unique(&plan, &key)
        };
        Ok(BoundModel { plan, schema, key_is_derived, unproven_not_null, warnings })
    }

    fn partitioning(&self, spec: &ModelSpec, schema: &Schema) -> Vec<Fault> {
        let mut faults = named_columns("partition_by", &spec.partition_by, schema);
        for column in &spec.partition_by {
            let Ok(field) = schema.field_with_name(&column.value) else { continue };
            if field.data_type().is_nested()
                || field.data_type().is_floating()
                || *field.data_type() == DataType::Binary
            {
                let message = format!(
                    "a table can't be partitioned by `{}`, which is {}",
                    column.value,
                    sql_name(field.data_type())
                );
                faults.push(Fault::error("wrong_type", column.place.clone(), message));
            }
        }
        if faults.is_empty() && spec.partition_by.len() == schema.fields().len() {
            let place = spec.partition_by.last().map(|column| column.place.clone());
            let message = "a table needs a column that it isn't partitioned by";
            faults.push(Fault::error("partition_by", place, message));
        }
        faults
    }

    fn contract(&self, spec: &ModelSpec, schema: &Schema) -> Vec<Fault> {
        let mut faults = Vec::new();
        for column in &spec.columns {
            let name = &column.name.value;
            let Ok(field) = schema.field_with_name(name) else {
                let message = format!("the result has no column `{name}`, which the contract names");
                let fault = Fault::error("contract", column.name.place.clone(), message);
                let known = schema.fields().iter().map(|f| f.name().as_str());
                faults.push(with_nearest(fault, name, known));
                continue;
            };
            let wanted = column.data_type.value.to_arrow(self.zone);
            let wanted = stored_type(&wanted, self.zone, &DataType::Int64).unwrap_or(wanted);
            if wanted != *field.data_type() {
                let (wanted, found) = (sql_name(&wanted), sql_name(field.data_type()));
                let message = format!("column `{name}` is {found}, and the contract says {wanted}");
                let fault = Fault::error("contract", column.data_type.place.clone(), message);
                faults.push(fault.hint(format!("in the SQL: `CAST(… AS {wanted}) AS {name}`")));
            }
        }
        if !spec.columns.is_empty() {
            let extra = schema.fields().iter().filter(|f| !spec.columns.iter().any(|c| c.name.value == *f.name()));
            for field in extra {
                let message = format!("the result has a column `{}`, which the contract lacks", field.name());
                let fault = Fault::error("contract", spec.name.place.clone(), message);
                faults.push(fault.hint(format!(
                    "add `{}: {}` to `columns`",
                    field.name(),
                    sql_name(field.data_type())
                )));
            }
        }
        faults
    }
}

/// A table is a bag: sorting its rows does nothing but cost.
fn unsorted(plan: LogicalPlan) -> LogicalPlan {
    match plan {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => Arc::unwrap_or_clone(sort.input),
        other => other,
    }
}

/// Whether an input has 64-bit unsigned integers, which may not fit a bigint; those of ranks and counts always do.
fn reads_unsigned(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            found |= scan.projected_schema.fields().iter().any(|field| *field.data_type() == DataType::UInt64);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// Keys and what the contract says have no nulls; the rest may have, whatever this version's planner can prove.
fn stored_schema(spec: &ModelSpec, computed: &Schema) -> (SchemaRef, Vec<Located<String>>) {
    let mut unproven = Vec::new();
    let fields: Vec<Field> = computed
        .fields()
        .iter()
        .map(|field| {
            let is_key = spec.key.iter().any(|key| key.value == *field.name());
            let contract = spec.columns.iter().find(|c| c.name.value == *field.name() && !c.nullable);
            if let Some(column) = contract
                && field.is_nullable()
                && !is_key
            {
                unproven.push(column.name.clone());
            }
            Field::new(field.name(), field.data_type().clone(), !is_key && contract.is_none())
        })
        .collect();
    (Arc::new(Schema::new(fields)), unproven)
}

fn named_columns(what: &str, columns: &[Located<String>], schema: &Schema) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        if columns[..at].iter().any(|before| before.value == column.value) {
            let message = format!("`{}` stands twice in {what}", column.value);
            faults.push(Fault::error("duplicate_column", column.place.clone(), message));
        } else if schema.field_with_name(&column.value).is_err() {
            let message = format!("the result has no column `{}`, which {what} names", column.value);
            let fault = Fault::error("unknown_column", column.place.clone(), message);
            faults.push(with_nearest(fault, &column.value, schema.fields().iter().map(|f| f.name().as_str())));
        }
    }
    faults
}

/// What of the result hangs on how its rows come, and how far.
fn order_warnings(spec: &ModelSpec, plan: &LogicalPlan) -> datafusion::common::Result<Vec<Fault>> {
    let place = |name: &str| super::sql_faults::find_word(&spec.sql, name).unwrap_or_else(|| first_word(&spec.sql));
    let floats = keys::float_aggregates(plan)?.into_iter().map(|name| {
        let message = format!("{name}() of floats hangs on the order of rows in its last digits (1e-9 of the sum)");
        Fault::warning("float_order", place(&name), message).hint("use decimal where every digit counts")
    });
    let estimates = estimates(plan)?.into_iter().map(|name| {
        let message = format!(
            "{name}() is an estimate, which hangs on how rows are cut into parts; `verify` leaves its column out"
        );
        Fault::warning("approximate", place(&name), message).hint("median and percentile_cont are exact")
    });
    Ok(floats.chain(estimates).collect())
}

/// Where column `at` of the result is written: its own item, or the SELECT where `*` hides which one.
fn item_place(spec: &ModelSpec, query: &Query, at: usize, width: usize) -> Place {
    let item = first_select(&query.body).and_then(|select| {
        let plain = |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
        let all_plain = select.projection.len() == width && select.projection.iter().all(plain);
        if all_plain { select.projection.get(at) } else { None }
    });
    match item {
        Some(item) if item.span() != datafusion::sql::sqlparser::tokenizer::Span::empty() => {
            spec.sql.place_of(item.span())
        }
        _ => first_word(&spec.sql),
    }
}

fn first_select(body: &SetExpr) -> Option<&Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::Query(query) => first_select(&query.body),
        SetExpr::SetOperation { left, .. } => first_select(left),
        _ => None,
    }
}
