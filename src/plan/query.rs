//! Ad-hoc queries: read only, over the tables of a session, with time travel.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::common::TableReference;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, Statement, TableFactor, TableVersion, Value, VisitMut, VisitorMut, visit_relations,
};

use super::sql::{self, folded};
use super::sql_fault::{self, FAULTS_PER_SQL};
use super::{types, windows};
use crate::error::Result;
use crate::spec::fault::{Fault, SourceText};
use crate::spec::nearest;
use crate::spec::types::SqlText;

/// A moment of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// A Delta version.
    Version(i64),
    /// An instant, microseconds since 1970 UTC.
    TimestampUs(i64),
}

/// Gives tables as they were.
#[async_trait]
pub trait TimeTravel: Send + Sync {
    /// The table at a moment.
    ///
    /// # Errors
    /// When there was no such version or it is gone: never the present rows.
    async fn table_at(&self, table: &str, at: At) -> Result<Arc<dyn TableProvider>>;
}

/// Plans one read-only statement over the tables of `ctx`.
///
/// # Errors
/// Faults that point into the query, shown as the file `query`.
pub async fn query(ctx: &SessionContext, text: &str, time_travel: Option<&dyn TimeTravel>) -> Result<LogicalPlan, Vec<Fault>> {
    let sql = sql_text(text);
    let mut statement = sql::parse(&sql).map_err(|fault| vec![fault])?.swap_remove(0);
    check_read_only(&statement, &sql).map_err(|fault| vec![fault])?;
    let known = parameters(ctx);
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    // Placeholders such as $1 and ? are a prepared statement's own.
    let mut faults = if known.is_empty() { Vec::new() } else { sql::bind_parameters(&mut statement, &sql, &known) };
    if let Statement::Query(query) = &mut statement {
        faults.extend(windows::rewrite(query, &sql));
    }
    faults.extend(travel(ctx, &mut statement, &sql, time_travel).await);
    if !faults.is_empty() {
        return Err(faults);
    }
    plan(ctx, statement, &sql).await
}

/// Relations that the text of a query names, as far as it can be parsed.
pub fn relations_of(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for statement in sql::parse(&sql_text(text)).unwrap_or_default() {
        let _ = visit_relations(&statement, |name| {
            names.extend(name.0.last().and_then(ObjectNamePart::as_ident).map(folded));
            ControlFlow::<()>::Continue(())
        });
    }
    names
}

fn sql_text(text: &str) -> SqlText {
    SqlText::file(Arc::new(SourceText { path: "query".to_string(), text: text.to_string() }))
}

async fn plan(ctx: &SessionContext, mut statement: Statement, sql: &SqlText) -> Result<LogicalPlan, Vec<Fault>> {
    let mut faults: Vec<Fault> = Vec::new();
    if let Statement::Query(query) = &statement {
        for (name, place) in sql::relations(query, sql) {
            faults.extend(unknown_relation(ctx, &name, place, query));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
    }
    for _ in 0..FAULTS_PER_SQL {
        match ctx.state().statement_to_plan(DfStatement::Statement(Box::new(statement.clone()))).await {
            Ok(plan) if faults.is_empty() => return Ok(plan),
            Ok(_) => break,
            Err(error) => {
                let found = sql_fault::fault(&error, &statement, sql);
                if faults.is_empty() || found.unknown_column.is_some() {
                    faults.push(found.fault);
                }
                if !found.unknown_column.is_some_and(|span| sql_fault::blank(&mut statement, span)) {
                    break;
                }
            }
        }
    }
    Err(faults)
}

fn unknown_relation(
    ctx: &SessionContext,
    name: &str,
    place: crate::spec::fault::Place,
    query: &datafusion::sql::sqlparser::ast::Query,
) -> Option<Fault> {
    let mut is_bare = false;
    let _ = visit_relations(query, |full| {
        is_bare |= full.0.len() == 1 && full.0.last().and_then(ObjectNamePart::as_ident).is_some_and(|i| folded(i) == name);
        ControlFlow::<()>::Continue(())
    });
    let is_function = ctx.state().table_functions().contains_key(name);
    if !is_bare || is_function || ctx.table_exist(TableReference::bare(name)).unwrap_or(true) {
        return None;
    }
    let tables = ctx
        .catalog(&ctx.state().config_options().catalog.default_catalog)
        .and_then(|catalog| catalog.schema(super::MAIN_SCHEMA))
        .map(|schema| schema.table_names())
        .unwrap_or_default();
    let mut fault = Fault::error("unknown_relation", place, format!("there is no table `{name}`"));
    fault = match nearest(name, tables.iter().map(String::as_str)) {
        Some(near) => fault.hint(format!("did you mean `{near}`?")),
        None if tables.is_empty() => fault.hint("there are no tables yet: `tidemill run` makes them"),
        None => fault,
    };
    Some(fault)
}

fn check_read_only(statement: &Statement, sql: &SqlText) -> Result<(), Fault> {
    match statement {
        Statement::Query(query) if query.to_string().is_empty() => Ok(()),
        Statement::Query(_)
        | Statement::ExplainTable { .. }
        | Statement::ShowTables { .. }
        | Statement::ShowColumns { .. }
        | Statement::ShowVariable { .. } => Ok(()),
        Statement::Explain { statement, .. } => check_read_only(statement, sql),
        _ => {
            let word = sql.text.split_whitespace().next().unwrap_or_default().to_uppercase();
            Err(Fault::error("read_only", sql::first_line(sql), format!("{word} changes something, and tables are only changed by their models")))
        }
    }
}

/// Names of the session's parameters.
fn parameters(ctx: &SessionContext) -> Vec<String> {
    ctx.state().scalar_functions().keys().filter_map(|name| name.strip_prefix('$').map(str::to_string)).collect()
}

/// Puts a table of that moment in the place of each `t VERSION AS OF n` and `t TIMESTAMP AS OF 't'`.
async fn travel(ctx: &SessionContext, statement: &mut Statement, sql: &SqlText, past: Option<&dyn TimeTravel>) -> Vec<Fault> {
    let mut versioned = Versioned { found: Vec::new() };
    let _ = statement.visit(&mut versioned);
    let mut faults = Vec::new();
    for (name, alias, version) in versioned.found {
        let place = name.0.last().and_then(ObjectNamePart::as_ident).and_then(|i| sql::place(sql, i.span));
        let place = place.unwrap_or_else(|| sql::first_line(sql));
        let table = name.0.last().and_then(ObjectNamePart::as_ident).map(folded).unwrap_or_default();
        let at = match moment(&version, &ctx.state().config_options().execution.time_zone.clone().unwrap_or_default()) {
            Ok(at) => at,
            Err(why) => {
                faults.push(Fault::error("wrong_version", place, why).hint("write VERSION AS OF 12 or TIMESTAMP AS OF '2018-09-01T00:00:00Z'"));
                continue;
            }
        };
        let Some(past) = past else {
            faults.push(Fault::error("no_time_travel", place, "tables can't be read at another time here"));
            continue;
        };
        let registered = match past.table_at(&table, at).await {
            Ok(provider) => ctx.register_table(TableReference::bare(alias), provider).map(|_| ()).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = registered {
            faults.push(Fault::error("no_such_version", place, why));
        }
    }
    faults
}

fn moment(version: &TableVersion, zone: &str) -> Result<At, String> {
    match version {
        TableVersion::VersionAsOf(Expr::Value(value)) => match &value.value {
            Value::Number(number, _) => number.parse().map(At::Version).map_err(|_| format!("`{number}` isn't a version")),
            other => Err(format!("`{other}` isn't a version")),
        },
        TableVersion::TimestampAsOf(Expr::Value(value)) => match &value.value {
            Value::SingleQuotedString(text) => {
                types::parse_instant(text, zone).map(At::TimestampUs).ok_or_else(|| format!("`{text}` isn't an instant"))
            }
            other => Err(format!("`{other}` isn't an instant")),
        },
        other => Err(format!("`{other}` can't be honoured")),
    }
}

/// Takes versions out of tables, giving each table a name of its own.
struct Versioned {
    found: Vec<(ObjectName, String, TableVersion)>,
}

impl VisitorMut for Versioned {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, alias, version, .. } = factor
            && let Some(version) = version.take()
        {
            let own = format!("_version_{}", self.found.len());
            let shown = name.0.last().and_then(ObjectNamePart::as_ident).cloned();
            if alias.is_none()
                && let Some(shown) = shown
            {
                *alias = Some(datafusion::sql::sqlparser::ast::TableAlias { explicit: true, name: shown, columns: Vec::new(), at: None });
            }
            self.found.push((name.clone(), own.clone(), version));
            *name = ObjectName::from(Ident::new(own));
        }
        ControlFlow::Continue(())
    }
}
