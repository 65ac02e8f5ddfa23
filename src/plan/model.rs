//! One model's SQL to a bound plan, with every fault of it.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, Volatility, cast};
use datafusion::prelude::{Expr, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{
    self, ExcludeSelectItem, Expr as SqlExpr, Ident, ObjectName, Query, SelectItem, Statement, VisitMut, VisitorMut, visit_expressions,
};

use super::clock::CLOCK_FUNCTIONS;
use super::relation::RelationTable;
use super::sql::{self, folded};
use super::sql_fault::{self, FAULTS_PER_SQL};
use super::{HIDDEN_COLUMNS, types};
use crate::spec::fault::Fault;
use crate::spec::nearest;
use crate::spec::types::SqlText;

/// Relations that SQL may name, with their columns.
#[derive(Default)]
pub(super) struct Relations {
    /// Schema of each relation that could be planned; a source's without hidden columns.
    pub(super) schemas: HashMap<String, SchemaRef>,
    /// Sources, which have hidden columns.
    pub(super) sources: BTreeSet<String>,
    /// Declared relations, faulty ones included: naming one of those is no fault of its own.
    pub(super) declared: BTreeSet<String>,
}

/// A query's bound plan.
pub(super) struct Bound {
    pub(super) plan: LogicalPlan,
    pub(super) reads_clock: bool,
}

/// Whether `name` is one that a planned query may read, else its fault; none where the fault is told elsewhere.
fn check_relation(name: &str, place: &crate::spec::fault::Place, relations: &Relations) -> Option<Fault> {
    if relations.declared.contains(name) {
        return None;
    }
    let mut fault = Fault::error("unknown_relation", place.clone(), format!("there is no source or model `{name}`"));
    if let Some(near) = nearest(name, relations.declared.iter().map(String::as_str)) {
        fault = fault.hint(format!("did you mean `{near}`?"));
    }
    Some(fault)
}

/// Plans a model's query in `ctx`, which has the project's functions and no tables.
///
/// # Errors
/// Every fault; none of them, if all are consequences of faults in relations that it reads.
pub(super) async fn plan_query(
    ctx: &SessionContext,
    query: &Query,
    sql: &SqlText,
    relations: &Relations,
    params: &[&str],
) -> Result<Bound, Vec<Fault>> {
    let mut query = query.clone();
    let mut faults = sql::bind_parameters(&mut query, sql, params);
    faults.extend(unknown_functions(ctx, &query, sql));
    faults.extend(arrival_order(&query, sql));
    let mut is_consequence = false;
    for (name, place) in sql::relations(&query, sql) {
        faults.extend(check_relation(&name, &place, relations));
        is_consequence |= !relations.schemas.contains_key(&name);
    }
    faults.extend(super::windows::rewrite(&mut query, sql));
    if is_consequence || !faults.is_empty() {
        return Err(faults);
    }
    expose_hidden_columns(&mut query, relations);
    register(ctx, &query, sql, relations).map_err(|e| vec![e])?;
    let plan = plan_statement(ctx, query, sql, &mut faults).await;
    match plan {
        Some(plan) if faults.is_empty() => {
            faults.extend(volatile(&plan, sql));
            if faults.is_empty() { Ok(Bound { reads_clock: reads_clock(&plan), plan }) } else { Err(faults) }
        }
        _ => Err(faults),
    }
}

/// Plans a rewritten query, blanking unknown columns one after the other to find all of them.
async fn plan_statement(ctx: &SessionContext, mut query: Query, sql: &SqlText, faults: &mut Vec<Fault>) -> Option<LogicalPlan> {
    for _ in 0..FAULTS_PER_SQL {
        let statement = DfStatement::Statement(Box::new(Statement::Query(Box::new(query.clone()))));
        let planned = ctx.state().statement_to_plan(statement).await;
        // Types are only checked when the plan is analyzed.
        let planned = planned.and_then(|plan| {
            let state = ctx.state();
            state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {}).map(|_| plan)
        });
        match planned {
            Ok(plan) => return Some(plan),
            Err(error) => {
                let found = sql_fault::fault(&error, &query, sql);
                let is_known = faults.iter().any(|f| f.place == found.fault.place && f.code == found.fault.code);
                // What a blanked column leads to is no fault of its own.
                if !is_known && (faults.is_empty() || found.unknown_column.is_some()) {
                    faults.push(found.fault);
                }
                let blanked = found.unknown_column.is_some_and(|span| sql_fault::blank(&mut query, span));
                if !blanked {
                    return None;
                }
            }
        }
    }
    None
}

fn register(ctx: &SessionContext, query: &Query, sql: &SqlText, relations: &Relations) -> Result<(), Fault> {
    let names_hidden = names_hidden(query);
    for (name, _) in sql::relations(query, sql) {
        let Some(schema) = relations.schemas.get(&name) else { continue };
        let is_source = relations.sources.contains(&name);
        let schema = if is_source && names_hidden { with_hidden(ctx, schema) } else { Arc::clone(schema) };
        let table = Arc::new(RelationTable { name: name.clone(), schema });
        // The same relation twice in one query is one table.
        let table_ref = datafusion::common::TableReference::bare(name.clone());
        if !ctx.table_exist(table_ref.clone()).unwrap_or(false)
            && let Err(error) = ctx.register_table(table_ref, table)
        {
            return Err(Fault::error("internal", sql::first_line(sql), error.to_string()));
        }
    }
    Ok(())
}

/// A source's columns and the hidden ones.
pub(super) fn with_hidden(ctx: &SessionContext, schema: &SchemaRef) -> SchemaRef {
    let zone = ctx.state().config_options().execution.time_zone.clone().unwrap_or_else(|| "UTC".into());
    let hidden = HIDDEN_COLUMNS.into_iter().map(|name| {
        let data_type = match name {
            "_source_row" | "_offset" => DataType::Int64,
            "_partition" => DataType::Int32,
            "_ingested_at" => DataType::Timestamp(TimeUnit::Microsecond, Some(zone.as_str().into())),
            _ => DataType::Utf8View,
        };
        Arc::new(Field::new(name, data_type, true))
    });
    Arc::new(Schema::new(schema.fields().iter().cloned().chain(hidden).collect::<Vec<_>>()))
}

fn names_hidden(query: &Query) -> bool {
    let is_hidden = |ident: &Ident| HIDDEN_COLUMNS.contains(&folded(ident).as_str());
    visit_expressions(query, |expr| {
        let names = match expr {
            SqlExpr::Identifier(ident) => is_hidden(ident),
            SqlExpr::CompoundIdentifier(parts) => parts.last().is_some_and(is_hidden),
            _ => false,
        };
        if names { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .is_break()
}

/// Where hidden columns are named, `*` still doesn't show them.
fn expose_hidden_columns(query: &mut Query, relations: &Relations) {
    if !names_hidden(query) {
        return;
    }
    struct Wildcards<'a>(&'a Relations);
    impl VisitorMut for Wildcards<'_> {
        type Break = ();
        fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
            let mut reads_source = false;
            let _ = ast::visit_relations(&select.from, |name| {
                let last = name.0.last().and_then(ast::ObjectNamePart::as_ident);
                reads_source |= last.is_some_and(|ident| self.0.sources.contains(&folded(ident)));
                ControlFlow::<()>::Continue(())
            });
            for item in &mut select.projection {
                if let SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) = item
                    && reads_source
                    && options.opt_exclude.is_none()
                    && options.opt_except.is_none()
                {
                    let hidden = HIDDEN_COLUMNS.into_iter().map(|name| ObjectName::from(Ident::new(name)));
                    options.opt_exclude = Some(ExcludeSelectItem::Multiple(hidden.collect()));
                }
            }
            ControlFlow::Continue(())
        }
    }
    let _ = query.visit(&mut Wildcards(relations));
}

fn unknown_functions(ctx: &SessionContext, query: &Query, sql: &SqlText) -> Vec<Fault> {
    let state = ctx.state();
    let windows = ["tumble", "hop", "session"];
    let is_known = |name: &str| {
        state.scalar_functions().contains_key(name)
            || state.aggregate_functions().contains_key(name)
            || state.window_functions().contains_key(name)
            || state.table_functions().contains_key(name)
            || windows.contains(&name)
            || name.starts_with('$')
            || ["unnest", "grouping", "struct"].contains(&name)
    };
    let mut faults = Vec::new();
    for (name, place, _) in sql::functions(query, sql) {
        if is_known(&name) {
            continue;
        }
        let mut fault = Fault::error("unknown_function", place, format!("there is no function `{name}`"));
        let all = state.scalar_functions().keys().chain(state.aggregate_functions().keys()).chain(state.window_functions().keys());
        if let Some(near) = nearest(&name, all.map(String::as_str).chain(windows)) {
            fault = fault.hint(format!("did you mean `{near}`?"));
        }
        faults.push(fault);
    }
    faults
}

/// What depends on the order in which rows arrive can be no model: two runs would differ.
fn arrival_order(query: &Query, sql: &SqlText) -> Vec<Fault> {
    struct Limits<'a>(&'a SqlText, Vec<Fault>);
    impl ast::Visitor for Limits<'_> {
        type Break = ();
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            let limits = query.limit_clause.is_some() || query.fetch.is_some();
            if limits && query.order_by.is_none() {
                let place = query
                    .limit_clause
                    .as_ref()
                    .and_then(|limit| sql::place(self.0, ast::Spanned::span(limit)))
                    .unwrap_or_else(|| sql::first_line(self.0));
                self.1.push(
                    Fault::error("arrival_order", place, "LIMIT without ORDER BY takes whichever rows come first")
                        .hint("say which rows are meant with ORDER BY"),
                );
            }
            ControlFlow::Continue(())
        }
    }
    let mut limits = Limits(sql, Vec::new());
    let _ = ast::Visit::visit(query, &mut limits);
    let mut faults = limits.1;
    for (name, place, function) in sql::functions(query, sql) {
        let by_order = ["first_value", "last_value", "nth_value"].contains(&name.as_str());
        let in_args = match &function.args {
            ast::FunctionArguments::List(list) => {
                list.clauses.iter().any(|clause| matches!(clause, ast::FunctionArgumentClause::OrderBy(_)))
            }
            _ => false,
        };
        let in_window = match &function.over {
            Some(ast::WindowType::WindowSpec(spec)) => !spec.order_by.is_empty(),
            Some(ast::WindowType::NamedWindow(_)) => true,
            None => false,
        };
        if by_order && !in_args && !in_window {
            let message = format!("`{name}` without ORDER BY takes whichever row comes first");
            faults.push(Fault::error("arrival_order", place, message).hint("order its rows: (value ORDER BY …)"));
        }
    }
    faults
}

/// Volatile functions can be no part of a model: two runs would differ.
fn volatile(plan: &LogicalPlan, sql: &SqlText) -> Vec<Fault> {
    let mut names = BTreeSet::new();
    visit_functions(plan, &mut |function| {
        if function.signature().volatility == Volatility::Volatile {
            names.insert(function.name().to_string());
        }
    });
    let names = names.into_iter().map(|name| {
        Fault::error("volatile", sql_fault::whole(sql), format!("`{name}` gives another value each time: no two runs would agree"))
            .hint("compute it before the rows come in, or derive it from their columns")
    });
    names.collect()
}

fn reads_clock(plan: &LogicalPlan) -> bool {
    let mut reads = false;
    visit_functions(plan, &mut |function| reads |= CLOCK_FUNCTIONS.contains(&function.name()));
    reads
}

/// Whether an expression reads the clock.
pub(super) fn expr_reads_clock(expr: &Expr) -> bool {
    let reads = |expr: &Expr| matches!(expr, Expr::ScalarFunction(call) if CLOCK_FUNCTIONS.contains(&call.func.name()));
    expr.exists(|expr| Ok(reads(expr))).unwrap_or(false)
}

fn visit_functions(plan: &LogicalPlan, visit: &mut dyn FnMut(&datafusion::logical_expr::ScalarUDF)) {
    // Nothing here fails: the closures always go on.
    let _ = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr {
                    visit(&call.func);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
}

/// The plan with its columns cast to what a table can hold, and that schema.
pub(super) fn stored(plan: LogicalPlan, zone: &str, sql: &SqlText) -> Result<(LogicalPlan, SchemaRef), Vec<Fault>> {
    let zone: Arc<str> = zone.into();
    let mut faults = Vec::new();
    let mut fields: Vec<Field> = Vec::new();
    let mut exprs = Vec::new();
    let mut is_same = true;
    for (qualifier, field) in plan.schema().iter() {
        if fields.iter().any(|known| known.name() == field.name()) {
            let message = format!("two columns are named `{}`", field.name());
            faults.push(Fault::error("duplicate_column", sql::first_line(sql), message).hint("give one of them another name with AS"));
            continue;
        }
        match types::stored_type(field.data_type(), &zone, &DataType::Decimal128(20, 0)) {
            Err(why) => {
                let message = format!("the column `{}` {why}", field.name());
                faults.push(Fault::error("wrong_type", sql::first_line(sql), message).hint("give it a type with CAST(… AS …)"));
            }
            Ok(data_type) => {
                let column = Expr::from((qualifier, field));
                let differs = data_type != *field.data_type();
                is_same &= !differs && qualifier.is_none();
                exprs.push(if differs { cast(column, data_type.clone()).alias(field.name()) } else { column.alias(field.name()) });
                fields.push(Field::new(field.name(), data_type, field.is_nullable()));
            }
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let schema = Arc::new(Schema::new(fields));
    if is_same {
        return Ok((plan, schema));
    }
    let plan = LogicalPlanBuilder::from(plan).project(exprs).and_then(LogicalPlanBuilder::build);
    plan.map(|plan| (plan, schema)).map_err(|e| vec![sql_fault::fault(&e, &Vec::<SqlExpr>::new(), sql).fault])
}

/// Names of the plan's operators, top first.
pub(super) fn operators(plan: &LogicalPlan) -> Vec<String> {
    let mut names = Vec::new();
    let _ = plan.apply(|node| {
        let name = match node {
            LogicalPlan::Projection(_) => "project",
            LogicalPlan::Filter(_) => "filter",
            LogicalPlan::Window(_) => "window",
            LogicalPlan::Aggregate(_) => "aggregate",
            LogicalPlan::Sort(_) => "sort",
            LogicalPlan::Join(_) => "join",
            LogicalPlan::Union(_) => "union",
            LogicalPlan::TableScan(scan) => {
                names.push(format!("scan {}", scan.table_name.table()));
                return Ok(TreeNodeRecursion::Continue);
            }
            LogicalPlan::Limit(_) => "limit",
            LogicalPlan::Distinct(_) => "distinct",
            LogicalPlan::Unnest(_) => "unnest",
            LogicalPlan::Subquery(_) => "subquery",
            LogicalPlan::RecursiveQuery(_) => "recursion",
            LogicalPlan::SubqueryAlias(_) => return Ok(TreeNodeRecursion::Continue),
            _ => "values",
        };
        names.push(name.to_string());
        Ok(TreeNodeRecursion::Continue)
    });
    names
}

/// Whether no two rows of the plan can share these columns' values, by its own grouping.
pub(super) fn is_unique_by_itself(plan: &LogicalPlan, key: &[String]) -> bool {
    let schema = plan.schema();
    let indices: Option<BTreeSet<usize>> = key.iter().map(|name| schema.index_of_column_by_name(None, name)).collect();
    let Some(indices) = indices.filter(|indices| !indices.is_empty()) else { return false };
    schema.functional_dependencies().iter().any(|dependence| {
        dependence.mode == datafusion::common::Dependency::Single
            && dependence.source_indices.iter().all(|index| indices.contains(index))
    })
}
