//! Queries that belong to no model: reading only, with tables at a version. Knows the session's tables, no project.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::common::{DFSchema, ScalarValue, TableReference};
use datafusion::execution::SessionState;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlan, cast};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, ExprWithAlias, Ident, ObjectName, ObjectNamePart, Query, Spanned, Statement as SqlStatement,
    TableAlias, TableFactor, TableVersion, Value, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::HIDDEN_COLUMNS;
use super::buildable::{build, build_faults};
use super::coercion::coerced;
use super::extrema::extrema_in_order;
use super::hidden::{hide, named_hidden};
use super::inspect::{bind_parameters, check_functions, table_reference};
use super::named_windows::write_out_windows;
use super::names::Names;
use super::nearest::with_nearest;
use super::output_names::keep_to_inputs;
use super::relation::{RelationTable, bind};
use super::session::zone_of;
use super::set_operations::of_bags;
use super::skips::with_ends;
use super::sql_faults::{expression_faults, plan_or_faults};
use super::sql_text::{first_word, parse_statement};
use super::types::parse_instant;
use super::using::share_columns;
use super::windows::rewrite_windows;
use crate::error::Result;
use crate::spec::fault::Fault;
use crate::spec::types::SqlText;

/// A version of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The Delta version.
    Version(i64),
    /// The last version at or before so many microseconds since 1970 UTC.
    Timestamp(i64),
}

/// Tables as they were.
#[async_trait]
pub trait TimeTravel: Send + Sync {
    /// The rows of `table` (a model or quarantine table of the default schema) at `at`. Where that can't be honoured (before
    /// the first version, after vacuum, not a table) an error, never the present rows.
    async fn table_at(&self, table: &str, at: At) -> Result<Arc<dyn TableProvider>>;

    /// Whether `table` is declared, so that where there is none it is still to be built.
    fn is_declared(&self, table: &str) -> bool;
}

/// Plans one statement that only reads: SELECT, WITH, EXPLAIN, SHOW, DESCRIBE. Time windows, parameters and hidden columns
/// work as in models. Faults point into a text named `query`.
pub async fn query(
    context: &SessionContext,
    sql: &str,
    travel: Option<&dyn TimeTravel>,
) -> Result<LogicalPlan, Vec<Fault>> {
    let text = SqlText::free("query", sql);
    let state = context.state();
    let (tables, statement) = prepared(&state, &text, travel, false).await?;
    let plan = tables.planned(statement).map_err(|error| expression_faults(&error, &text))?;
    let only_reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    only_reading
        .verify_plan(&plan)
        .map_err(|_| vec![Fault::error("read_only", first_word(&text), "only reading is possible here")])?;
    bind(&plan, &tables.sources)
        .map_err(|error| vec![Fault::error("invalid_sql", first_word(&text), error.to_string())])
}

/// Why a statement that [`query`] plans can't be run, whatever the rows are: a literal that isn't of its type, a parameter without
/// a value. None where it is the rows that it fails of.
pub async fn query_faults(context: &SessionContext, sql: &str, travel: Option<&dyn TimeTravel>) -> Vec<Fault> {
    let text = SqlText::free("query", sql);
    let state = context.state();
    let Ok((tables, mut statement)) = prepared(&state, &text, travel, true).await else { return vec![] };
    let Some(Some(query)) = readable(&mut statement) else { return vec![] };
    let unbound = bind_parameters(query, &text, &tables.names, true);
    if !unbound.is_empty() {
        return unbound;
    }
    let builder = |query: Query| {
        let statement = Statement::Statement(Box::new(SqlStatement::Query(Box::new(query))));
        Some(build(&state, &tables.planned(statement).ok()?))
    };
    match builder(query.clone()) {
        Some(Err(error)) => build_faults(query.clone(), &text, error, &builder),
        _ => vec![],
    }
}

/// A statement whose names are known, with the tables that they stand for; placeholders for all of them where it is planned
/// `without_rows`.
async fn prepared<'a>(
    state: &'a SessionState,
    text: &'a SqlText,
    travel: Option<&dyn TimeTravel>,
    without_rows: bool,
) -> Result<(Tables<'a>, Statement), Vec<Fault>> {
    let mut statement = parse_statement(text, state.config_options()).map_err(|fault| vec![fault])?;
    let Some(inner) = readable(&mut statement) else {
        let message = "only reading is possible here: SELECT, WITH, EXPLAIN, SHOW, DESCRIBE";
        return Err(vec![Fault::error("read_only", first_word(text), message)]);
    };
    let mut tables = Tables { text, names: Names::new(state), sources: HashMap::new(), without_rows };
    let mut faults = Vec::new();
    if let Some(query) = inner {
        faults.extend(tables.travel(query, travel).await);
        keep_to_inputs(query, &|name| state.aggregate_functions().contains_key(name));
        faults.extend(share_columns(query, text));
        faults.extend(write_out_windows(query, text));
        faults.extend(rewrite_windows(query, text, state));
    }
    // A version that isn't to be had leaves its table unknown, and that would be said again.
    if faults.is_empty() {
        faults = tables.resolve(state, &statement, travel).await;
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    if let Some(query) = readable(&mut statement).flatten() {
        tables.check(query)?;
    }
    Ok((tables, statement))
}

/// None if the statement writes; else the query within, if it is about one.
fn readable(statement: &mut Statement) -> Option<Option<&mut Query>> {
    match statement {
        Statement::Statement(statement) => readable_sql(statement),
        Statement::Explain(explain) => readable(&mut explain.statement),
        _ => None,
    }
}

fn readable_sql(statement: &mut SqlStatement) -> Option<Option<&mut Query>> {
    match statement {
        SqlStatement::Query(query) => Some(Some(query)),
        SqlStatement::Explain { statement, .. } => readable_sql(statement),
        SqlStatement::ExplainTable { .. }
        | SqlStatement::ShowTables { .. }
        | SqlStatement::ShowColumns { .. }
        | SqlStatement::ShowVariable { .. }
        | SqlStatement::ShowFunctions { .. }
        | SqlStatement::ShowSchemas { .. }
        | SqlStatement::ShowDatabases { .. } => Some(None),
        _ => None,
    }
}

struct Tables<'a> {
    text: &'a SqlText,
    names: Names<'a>,
    /// Tables that stand in the plan as placeholders of this name first: those with hidden columns.
    sources: HashMap<String, Arc<dyn TableProvider>>,
    /// Whether all tables do.
    without_rows: bool,
}

impl<'a> Tables<'a> {
    /// The plan of a checked statement: of rows in any order, as in models.
    fn planned(&self, statement: Statement) -> datafusion::common::Result<LogicalPlan> {
        let plan = self.names.plan(statement)?;
        // Types are found where no parameter leaves them open.
        let plan = self.names.analyze(plan.clone()).unwrap_or(plan);
        of_bags(plan).and_then(with_ends).and_then(extrema_in_order)
    }

    /// Puts tables at a version in place of those named so.
    async fn travel(&mut self, query: &mut Query, travel: Option<&dyn TimeTravel>) -> Vec<Fault> {
        let mut versions = Versions { found: Vec::new() };
        let _: ControlFlow<()> = VisitMut::visit(query, &mut versions);
        let mut faults = Vec::new();
        for Versioned { name, span, version, placeholder } in versions.found {
            let place = self.text.place_of(span);
            let at = match self.at(&version) {
                Ok(at) => at,
                Err(fault) => {
                    faults.push(*fault);
                    continue;
                }
            };
            let ours = table_reference(&name)
                .map(|reference| self.names.resolve(reference))
                .filter(|resolved| *resolved == self.names.resolve(TableReference::bare(&*resolved.table)));
            let (Some(travel), Some(resolved)) = (travel, ours) else {
                faults.push(Fault::error("time_travel", place, format!("`{name}` has no earlier versions here")));
                continue;
            };
            match travel.table_at(&resolved.table, at).await {
                Ok(table) if self.without_rows => {
                    let table = RelationTable::new(placeholder.clone(), table.schema());
                    self.names.insert(TableReference::bare(placeholder), Arc::new(table));
                }
                Ok(table) => self.names.insert(TableReference::bare(placeholder), table),
                Err(error) => faults.push(Fault::error("time_travel", place, error.to_string())),
            }
        }
        faults
    }

    fn at(&self, version: &TableVersion) -> Result<At, Box<Fault>> {
        let fault =
            |span: Span, message: &str| Box::new(Fault::error("time_travel", self.text.place_of(span), message));
        match version {
            TableVersion::VersionAsOf(SqlExpr::Value(value)) => match &value.value {
                Value::Number(number, _) => {
                    number.parse().map(At::Version).map_err(|_| fault(value.span, "a version is a whole number from 0"))
                }
                _ => Err(fault(value.span, "a version is a whole number from 0")),
            },
            TableVersion::TimestampAsOf(expr) => match self.instant(expr) {
                Some(us) => Ok(At::Timestamp(us)),
                None => {
                    Err(fault(expr.span(), "TIMESTAMP AS OF takes a constant time, such as '2018-09-01T03:00:00Z'"))
                }
            },
            other => {
                let message = format!("`{other}` isn't supported");
                let fault = Fault::error("time_travel", first_word(self.text), message);
                Err(Box::new(fault.hint("write `table VERSION AS OF 12` or `table TIMESTAMP AS OF '…'`")))
            }
        }
    }

    /// A constant time; text without an offset stands in the session's zone.
    fn instant(&self, expr: &SqlExpr) -> Option<i64> {
        let options = self.names.state().config_options();
        let zone = zone_of(options);
        if let SqlExpr::Value(value) = expr
            && let Value::SingleQuotedString(text) = &value.value
        {
            return parse_instant(text.trim(), &zone);
        }
        let schema = DFSchema::empty();
        let expr = self.names.expression(ExprWithAlias { expr: expr.clone(), alias: None }, &schema).ok()?;
        let context = SimplifyContext::builder().with_config_options(Arc::clone(options)).build();
        let simplifier = ExprSimplifier::new(context);
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some(zone));
        let expr = coerced(&simplifier, cast(expr, utc), &schema).ok()?;
        let expr = simplifier.simplify(expr).ok()?;
        match expr {
            Expr::Literal(ScalarValue::TimestampMicrosecond(us, _), _) => us,
            _ => None,
        }
    }

    /// Finds every table that the statement names.
    async fn resolve(
        &mut self,
        state: &SessionState,
        statement: &Statement,
        travel: Option<&dyn TimeTravel>,
    ) -> Vec<Fault> {
        let references = match state.resolve_table_references(statement) {
            Ok(references) => references,
            Err(error) => return expression_faults(&error, self.text),
        };
        let hidden = match statement {
            Statement::Statement(statement) => hidden_of(statement),
            Statement::Explain(explain) => match explain.statement.as_ref() {
                Statement::Statement(statement) => hidden_of(statement),
                _ => vec![],
            },
            _ => vec![],
        };
        let mut unknown = Vec::new();
        for reference in references {
            if self.names.has(&reference) {
                continue;
            }
            let resolved = self.names.resolve(reference.clone());
            let table = match state.schema_for_ref(resolved.clone()) {
                Ok(schema) => schema.table(&resolved.table).await.unwrap_or(None),
                Err(_) => None,
            };
            match table {
                Some(table) if self.without_rows || has_hidden(&table.schema()) => {
                    let name = resolved.to_string();
                    let shown = shown(&table.schema(), &hidden);
                    self.names.insert(reference, Arc::new(RelationTable::new(name.clone(), shown)));
                    self.sources.insert(name, table);
                }
                Some(table) => self.names.insert(reference, table),
                None => unknown.push(reference),
            }
        }
        let is_declared = |table: &str| travel.is_some_and(|travel| travel.is_declared(table));
        if unknown.is_empty() { vec![] } else { self.unknown(state, statement, &unknown, &is_declared) }
    }

    fn unknown(
        &self,
        state: &SessionState,
        statement: &Statement,
        unknown: &[TableReference],
        is_declared: &dyn Fn(&str) -> bool,
    ) -> Vec<Fault> {
        let mut places = Places { found: Vec::new() };
        if let Statement::Statement(statement) = statement {
            let _: ControlFlow<()> = Visit::visit(statement, &mut places);
        } else if let Statement::Explain(explain) = statement
            && let Statement::Statement(statement) = explain.statement.as_ref()
        {
            let _: ControlFlow<()> = Visit::visit(statement, &mut places);
        }
        let known = match state.schema_for_ref(self.names.resolve(TableReference::bare("any"))) {
            Ok(schema) => schema.table_names(),
            Err(_) => vec![],
        };
        let mut faults: Vec<Fault> = Vec::new();
        for reference in unknown {
            let span = places.found.iter().find(|(found, _)| found == reference).map(|(_, span)| *span);
            let place = span.map_or_else(|| first_word(self.text), |span| self.text.place_of(span));
            let table = reference.table();
            if is_declared(table)
                && self.names.resolve(reference.clone()) == self.names.resolve(TableReference::bare(table))
            {
                let fault = Fault::error("not_built", place, format!("no run has built the table of `{table}` yet"));
                faults.push(fault.hint(format!("`tidemill run {table}` builds it")));
                continue;
            }
            let fault = Fault::error("unknown_relation", place, format!("no table `{reference}`"));
            faults.push(with_nearest(fault, reference.table(), known.iter().map(String::as_str)));
        }
        faults.sort_by_key(|fault| fault.place.as_ref().map(|place| place.span.start));
        faults
    }

    /// Tells the faults of a query, and leaves it ready to be planned.
    fn check(&self, query: &mut Query) -> Result<(), Vec<Fault>> {
        let hidden = named_hidden(query);
        let is_source = |name: &ObjectName| {
            table_reference(name)
                .is_some_and(|reference| self.sources.contains_key(&self.names.resolve(reference).to_string()))
        };
        let mut faults = hide(query, self.text, &hidden, &is_source);
        faults.extend(bind_parameters(query, self.text, &self.names, false));
        let (unknown, replaced) = check_functions(query, self.text, &self.names);
        faults.extend(unknown);
        // The type of a client's own parameter is known only once it is bound.
        let untyped = has_placeholder(query);
        let plan = |query: Query| {
            if untyped {
                let query = SqlStatement::Query(Box::new(query));
                self.names.plan(Statement::Statement(Box::new(query)))
            } else {
                self.names.plan_query(query)
            }
        };
        if let Err(more) = plan_or_faults(query.clone(), self.text, replaced, &plan) {
            faults.extend(more);
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

fn hidden_of(statement: &SqlStatement) -> Vec<&'static str> {
    match statement {
        SqlStatement::Query(query) => named_hidden(query),
        SqlStatement::Explain { statement, .. } => hidden_of(statement),
        // DESCRIBE and the like show what there is.
        _ => vec![],
    }
}

fn has_hidden(schema: &Schema) -> bool {
    HIDDEN_COLUMNS.iter().all(|name| schema.column_with_name(name).is_some())
}

fn shown(schema: &Schema, hidden: &[&str]) -> Arc<Schema> {
    let is_shown = |name: &str| !HIDDEN_COLUMNS.contains(&name) || hidden.contains(&name);
    let fields: Vec<_> = schema.fields().iter().filter(|field| is_shown(field.name())).cloned().collect();
    Arc::new(Schema::new(fields))
}

fn has_placeholder(query: &Query) -> bool {
    let mut found = false;
    let _ = datafusion::sql::sqlparser::ast::visit_expressions(query, |expr| {
        found |= matches!(expr, SqlExpr::Value(value) if matches!(value.value, Value::Placeholder(_)));
        ControlFlow::<()>::Continue(())
    });
    found
}

/// A table at a version.
struct Versioned {
    name: ObjectName,
    span: Span,
    version: TableVersion,
    placeholder: String,
}

/// Takes versions off tables and gives each its own name, so that one query can read a table at several.
struct Versions {
    found: Vec<Versioned>,
}

impl VisitorMut for Versions {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, alias, version, .. } = factor else { return ControlFlow::Continue(()) };
        let Some(version) = version.take() else { return ControlFlow::Continue(()) };
        let span = name.span();
        let placeholder = format!("{name} at #{}", self.found.len());
        let last = name.0.last().and_then(ObjectNamePart::as_ident).cloned();
        if alias.is_none()
            && let Some(last) = last
        {
            *alias = Some(TableAlias { explicit: true, name: last, columns: vec![], at: None });
        }
        let ident = Ident { value: placeholder.clone(), quote_style: Some('"'), span };
        let name = std::mem::replace(name, ObjectName::from(vec![ident]));
        self.found.push(Versioned { name, span, version, placeholder });
        ControlFlow::Continue(())
    }
}

/// Where tables are named.
struct Places {
    found: Vec<(TableReference, Span)>,
}

impl Visitor for Places {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        if let Some(reference) = table_reference(relation) {
            self.found.push((reference, relation.span()));
        }
        ControlFlow::Continue(())
    }
}

/// Relations that the text of a query names, as far as it can be parsed.
pub fn relations_of(context: &SessionContext, sql: &str) -> BTreeSet<String> {
    let state = context.state();
    let parsed = parse_statement(&SqlText::free("query", sql), state.config_options());
    let named = parsed.ok().and_then(|statement| state.resolve_table_references(&statement).ok()).unwrap_or_default();
    named.iter().map(|reference| reference.table().to_string()).collect()
}
