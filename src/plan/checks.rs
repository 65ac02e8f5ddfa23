//! Rules bound to their relation. Knows schemas of relations, no rows.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::{Column, DFSchema};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, Volatility, lit};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, Ident, ObjectName, Query, SelectItem, SetExpr, Spanned, TableFactor, visit_expressions,
};

use super::catalog::{Catalog, Relation, with_hidden};
use super::inspect::{bind_parameters, check_functions};
use super::names::Names;
use super::nearest::with_nearest;
use super::sql_faults::plan_or_faults;
use super::sql_text::{parse_expression, parse_model};
use super::types::{parse_value, sql_name};
use super::{CheckTest, HIDDEN_COLUMNS, PlannedCheck};
use crate::spec::fault::{Fault, Place};
use crate::spec::types::{CheckKind, CheckSpec, Located, SqlText};

/// A relation with rules.
pub struct Checked<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its columns, as stored; hidden ones of a source are added.
    pub relation: &'a Relation,
    /// Its rules.
    pub checks: &'a [CheckSpec],
}

/// What rules are bound with.
pub struct CheckPlanner<'a> {
    /// Session of the plan.
    pub state: &'a SessionState,
    /// Relations whose schema is known.
    pub catalog: &'a Catalog,
    /// All relations of the project, those with faults included.
    pub all_names: &'a BTreeSet<String>,
    /// The project's zone.
    pub zone: &'a Arc<str>,
}

impl CheckPlanner<'_> {
    /// Binds the rules of a relation.
    pub fn plan(&self, checked: &Checked<'_>) -> (Vec<PlannedCheck>, Vec<Fault>) {
        let mut planned = Vec::new();
        let mut faults = Vec::new();
        let hidden: &[&str] = if checked.relation.source.is_some() { &HIDDEN_COLUMNS } else { &[] };
        let schema = with_hidden(&checked.relation.schema, self.zone, hidden);
        for check in checked.checks {
            match self.test(checked.name, &schema, check) {
                Ok(Some(test)) => planned.push(PlannedCheck { spec: check.clone(), test }),
                Ok(None) => {}
                Err(found) => faults.extend(found),
            }
        }
        (planned, faults)
    }

    /// The test of a rule; none where what it is about is at fault itself.
    fn test(&self, name: &str, schema: &SchemaRef, check: &CheckSpec) -> Result<Option<CheckTest>, Vec<Fault>> {
        let columns = |columns: &[Located<String>]| -> Result<Vec<String>, Vec<Fault>> {
            let (found, faults): (Vec<_>, Vec<_>) =
                columns.iter().map(|c| field(name, schema, c)).partition(Result::is_ok);
            let faults: Vec<Fault> = faults.into_iter().filter_map(Result::err).collect();
            if !faults.is_empty() {
                return Err(faults);
            }
            Ok(found.into_iter().flatten().map(|f| f.name().clone()).collect())
        };
        Ok(Some(match &check.kind {
            CheckKind::Expression(sql) => CheckTest::Row(self.expression(name, schema, sql)?),
            CheckKind::Unique(of) => CheckTest::Unique(columns(of)?),
            CheckKind::NotNull(of) => {
                let tests = columns(of)?.into_iter().map(|c| Expr::Column(Column::from_name(c)).is_not_null());
                CheckTest::Row(tests.reduce(Expr::and).unwrap_or_else(|| lit(true)))
            }
            CheckKind::AcceptedValues { column, values } => {
                let of = field(name, schema, column).map_err(|f| vec![f])?;
                CheckTest::Row(self.accepted(of, values, &check.place)?)
            }
            CheckKind::Relationships { column, to_relation, to_column } => {
                return self.relationship(name, schema, column, to_relation, to_column);
            }
            CheckKind::Freshness { column, within } => {
                let of = field(name, schema, column).map_err(|f| vec![f])?;
                if !matches!(of.data_type(), DataType::Timestamp(..) | DataType::Date32) {
                    let message =
                        format!("freshness is about a time, and `{}` is {}", of.name(), sql_name(of.data_type()));
                    return Err(vec![Fault::error("wrong_type", column.place.clone(), message)]);
                }
                let within_us = i64::try_from(within.as_micros()).unwrap_or(i64::MAX);
                CheckTest::Freshness { column: of.name().clone(), within_us }
            }
        }))
    }

    fn accepted(&self, of: &Field, values: &[String], place: &Place) -> Result<Expr, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut literals = Vec::new();
        for value in values {
            match parse_value(value, of.data_type(), self.zone) {
                Ok(value) => literals.push(lit(value)),
                Err(why) => {
                    let message = format!("accepted value {why}, which the column `{}` is", of.name());
                    faults.push(Fault::error("wrong_value", within(place, value), message));
                }
            }
        }
        if faults.is_empty() {
            Ok(Expr::Column(Column::from_name(of.name())).in_list(literals, false))
        } else {
            Err(faults)
        }
    }

    fn relationship(
        &self,
        name: &str,
        schema: &SchemaRef,
        column: &Located<String>,
        to_relation: &Located<String>,
        to_column: &Located<String>,
    ) -> Result<Option<CheckTest>, Vec<Fault>> {
        let from = field(name, schema, column);
        let Some(target) = self.catalog.get(&to_relation.value) else {
            let mut faults: Vec<Fault> = from.err().into_iter().collect();
            if !self.all_names.contains(&to_relation.value) {
                let message = format!("no source or model `{}`", to_relation.value);
                let fault = Fault::error("unknown_relation", to_relation.place.clone(), message);
                faults.push(with_nearest(fault, &to_relation.value, self.all_names.iter().map(String::as_str)));
            }
            return if faults.is_empty() { Ok(None) } else { Err(faults) };
        };
        let to = field(&to_relation.value, &target.schema, to_column);
        match (from, to) {
            (Ok(from), Ok(to)) if comparable(from.data_type(), to.data_type()) => Ok(Some(CheckTest::Relationship {
                column: from.name().clone(),
                to_relation: to_relation.value.clone(),
                to_column: to.name().clone(),
            })),
            (Ok(from), Ok(to)) => {
                let message = format!(
                    "`{}` is {} and `{}.{}` is {}: they can't be compared",
                    from.name(),
                    sql_name(from.data_type()),
                    to_relation.value,
                    to.name(),
                    sql_name(to.data_type())
                );
                Err(vec![Fault::error("wrong_type", to_column.place.clone(), message)])
            }
            (from, to) => Err([from.err(), to.err()].into_iter().flatten().collect()),
        }
    }

    fn expression(&self, name: &str, schema: &SchemaRef, sql: &SqlText) -> Result<Expr, Vec<Fault>> {
        let mut parsed = parse_expression(sql).map_err(|fault| vec![fault])?;
        let mut names = Names::new(self.state);
        let relation = super::relation::RelationTable::new(name, Arc::clone(schema));
        names.insert(datafusion::common::TableReference::bare(name), Arc::new(relation));

        let mut faults = forbidden(&parsed.expr, sql, &names);
        faults.extend(bind_parameters(&mut parsed.expr, sql, &names, true));
        let (unknown, replaced) = check_functions(&mut parsed.expr, sql, &names);
        faults.extend(unknown);
        // As a query over the relation, so that names and types are told as they are in models.
        let query = select_from(name, parsed.expr.clone()).ok_or_else(Vec::new)?;
        let plan = match plan_or_faults(query, sql, replaced || !faults.is_empty(), &|query| names.plan_query(query)) {
            Ok(plan) if faults.is_empty() => plan,
            Ok(_) => return Err(faults),
            Err(more) => {
                faults.extend(more);
                return Err(faults);
            }
        };
        let found = plan.schema().field(0).data_type().clone();
        if !matches!(found, DataType::Boolean | DataType::Null) {
            let message = format!("a rule is true or false, and this is {}", sql_name(&found));
            return Err(vec![Fault::error("wrong_type", sql.whole(), message)]);
        }
        let internal = |error: datafusion::common::DataFusionError| {
            vec![Fault::error("invalid_sql", sql.whole(), error.strip_backtrace())]
        };
        let schema = DFSchema::try_from(schema.as_ref().clone()).map_err(internal)?;
        names.expression(parsed, &schema).map_err(internal)
    }
}

/// What a rule on rows can't have: subqueries, aggregates, windows, functions that never settle.
fn forbidden(expr: &SqlExpr, sql: &SqlText, names: &Names<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    let state = names.state();
    let _ = visit_expressions(expr, |expr| {
        let what = match expr {
            SqlExpr::Subquery(_) | SqlExpr::Exists { .. } | SqlExpr::InSubquery { .. } => {
                Some(("subquery_in_check", expr.span(), "a rule is about one row, and this is a subquery".to_owned()))
            }
            SqlExpr::Function(function) => {
                let name = function.name.to_string().to_lowercase();
                let span = function.name.span();
                let scalar = state.scalar_functions().get(&name);
                if function.over.is_some() || scalar.is_none() && state.aggregate_functions().contains_key(&name) {
                    Some(("aggregate_misuse", span, format!("a rule is about one row, and {name}() is about many")))
                } else if scalar.is_some_and(|f| f.signature().volatility == Volatility::Volatile) {
                    Some(("volatile", span, format!("{name}() gives another value each time, so the rule is none")))
                } else {
                    None
                }
            }
            _ => None,
        };
        if let Some((code, span, message)) = what {
            let place = if span == datafusion::sql::sqlparser::tokenizer::Span::empty() {
                sql.whole()
            } else {
                sql.place_of(span)
            };
            faults
                .push(Fault::error(code, place, message).hint("write it as a model of its own, with a check on that"));
        }
        ControlFlow::<()>::Continue(())
    });
    faults
}

fn select_from(name: &str, expr: SqlExpr) -> Option<Query> {
    let mut query = *parse_model(&SqlText::free("check", "SELECT 1 FROM t")).ok()?;
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    select.projection = vec![SelectItem::UnnamedExpr(expr)];
    if let TableFactor::Table { name: table, .. } = &mut select.from.first_mut()?.relation {
        *table = ObjectName::from(vec![Ident::with_quote('"', name)]);
    }
    Some(query)
}

/// The column of `schema` that a rule names.
fn field<'a>(relation: &str, schema: &'a SchemaRef, column: &Located<String>) -> Result<&'a Field, Fault> {
    schema.field_with_name(&column.value).map_err(|_| {
        let message = format!("`{relation}` has no column `{}`", column.value);
        let fault = Fault::error("unknown_column", column.place.clone(), message);
        let shown = schema.fields().iter().map(|f| f.name().as_str()).filter(|n| !HIDDEN_COLUMNS.contains(n));
        with_nearest(fault, &column.value, shown)
    })
}

/// Whether a `=` between the two compares values rather than their text.
fn comparable(a: &DataType, b: &DataType) -> bool {
    a.is_numeric() && b.is_numeric() || a.is_temporal() && b.is_temporal() || sql_name(a) == sql_name(b)
}

/// Where `value` stands within the rule; the whole rule where it isn't written as it is read.
fn within(place: &Place, value: &str) -> Place {
    let text = place.source.text.get(place.span.clone()).unwrap_or_default();
    match text.find(value).filter(|_| !value.is_empty()) {
        Some(at) => {
            let start = place.span.start + at;
            Place { source: Arc::clone(&place.source), span: start..start + value.len() }
        }
        None => place.clone(),
    }
}
