//! DataFusion's planning errors as faults at the user's characters.

use std::ops::ControlFlow;

use datafusion::common::{DataFusionError, SchemaError};
use datafusion::sql::sqlparser::ast::{Expr, Ident, Spanned, Value, Visit, VisitMut, visit_expressions, visit_expressions_mut};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::sql::{first_line, folded, place};
use crate::spec::fault::{Fault, Place};
use crate::spec::nearest;
use crate::spec::types::SqlText;

/// Faults of one SQL text that are found at once: more would only be noise.
pub(super) const FAULTS_PER_SQL: usize = 20;

/// A fault, and the column that it is about, if it is about one that isn't there.
pub(super) struct SqlFault {
    pub(super) fault: Fault,
    pub(super) unknown_column: Option<Span>,
}

/// Words an error of planning `node`.
pub(super) fn fault(error: &DataFusionError, node: &impl Visit, sql: &SqlText) -> SqlFault {
    let span = error.diagnostic().and_then(|d| d.span).map(to_span);
    if let DataFusionError::SchemaError(schema, _) = root(error) {
        match schema.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let found = span.or_else(|| find(node, &field.name, field.relation.as_ref().map(|r| r.table())));
                return unknown_column(&field.name, valid_fields, found, sql);
            }
            SchemaError::AmbiguousReference { field } => {
                let found = span.or_else(|| find(node, &field.name, None));
                let at = found.and_then(|span| place(sql, span)).unwrap_or_else(|| first_line(sql));
                let fault = Fault::error("ambiguous_column", at, format!("`{}` stands in more than one relation here", field.name));
                return plain(fault.hint(format!("write the relation before it: `RELATION.{}`", field.name)));
            }
            SchemaError::DuplicateUnqualifiedField { name } | SchemaError::DuplicateQualifiedField { name, .. } => {
                let at = span.and_then(|span| place(sql, span)).unwrap_or_else(|| first_line(sql));
                let fault = Fault::error("duplicate_column", at, format!("two columns are named `{name}`"));
                return plain(fault.hint("give one of them another name with AS"));
            }
        }
    }
    let at = span.and_then(|span| place(sql, span)).unwrap_or_else(|| first_line(sql));
    let message = match error.diagnostic() {
        Some(diagnostic) => diagnostic.message.clone(),
        None => root(error).strip_backtrace(),
    };
    let code = code_of(&message);
    let mut fault = Fault::error(code, at, tidy(&message));
    let helps = error.diagnostic().map(|d| d.helps.iter().map(|h| h.message.clone()).collect::<Vec<_>>()).unwrap_or_default();
    if let Some(help) = helps.first() {
        fault = fault.hint(help.clone());
    }
    plain(fault)
}

fn plain(fault: Fault) -> SqlFault {
    SqlFault { fault, unknown_column: None }
}

fn unknown_column(name: &str, valid: &[datafusion::common::Column], found: Option<Span>, sql: &SqlText) -> SqlFault {
    let at = found.and_then(|span| place(sql, span)).unwrap_or_else(|| first_line(sql));
    let names: Vec<&str> = valid.iter().map(|column| column.name.as_str()).filter(|n| !n.starts_with('_')).collect();
    let mut fault = Fault::error("unknown_column", at, format!("there is no column `{name}` here"));
    fault = match names.iter().find(|known| known.eq_ignore_ascii_case(name)) {
        Some(known) => fault.hint(format!("its case differs: write \"{known}\", in quotes")),
        None => match nearest(name, names.iter().copied()) {
            Some(near) => fault.hint(format!("did you mean `{near}`?")),
            None if !names.is_empty() && names.len() <= 30 => fault.hint(format!("columns are {}", names.join(", "))),
            None => fault,
        },
    };
    SqlFault { fault, unknown_column: found }
}

/// The error under its wrappings.
fn root(error: &DataFusionError) -> &DataFusionError {
    match error {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => root(inner),
        DataFusionError::Collection(errors) => errors.first().map_or(error, root),
        other => other,
    }
}

fn code_of(message: &str) -> &'static str {
    let lower = message.to_lowercase();
    if lower.contains("group by") || lower.contains("aggregate") {
        "not_grouped"
    } else if lower.contains("coerc") || lower.contains("signature") || lower.contains("type") || lower.contains("cast") {
        "wrong_type"
    } else if lower.contains("not supported") || lower.contains("not implemented") || lower.contains("unsupported") {
        "unsupported_sql"
    } else {
        "wrong_sql"
    }
}

/// The engine's text without its prefixes and lists of candidates, in our style.
fn tidy(message: &str) -> String {
    let mut text = message.lines().next().unwrap_or_default().trim();
    for prefix in ["Error during planning: ", "This feature is not implemented: ", "Schema error: ", "SQL error: ", "Execution error: "] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    let text = text.trim_end_matches('.');
    let mut characters = text.chars();
    match characters.next() {
        Some(first) if characters.clone().next().is_some_and(char::is_lowercase) => first.to_lowercase().chain(characters).collect(),
        _ => text.to_string(),
    }
}

fn to_span(span: datafusion::common::Span) -> Span {
    let location = |l: datafusion::common::Location| datafusion::sql::sqlparser::tokenizer::Location { line: l.line, column: l.column };
    Span { start: location(span.start), end: location(span.end) }
}

/// Where a column is first named.
fn find(node: &impl Visit, name: &str, relation: Option<&str>) -> Option<Span> {
    let mut found = None;
    let _ = visit_expressions(node, |expr| {
        let is_it = match expr {
            Expr::Identifier(ident) => relation.is_none() && folded(ident) == name,
            Expr::CompoundIdentifier(parts) => {
                let matches = |ident: &Ident, text: &str| folded(ident) == text;
                match parts.as_slice() {
                    [.., table, column] => matches(column, name) && relation.is_none_or(|r| matches(table, r)),
                    _ => false,
                }
            }
            _ => false,
        };
        if is_it && expr.span().start.line > 0 {
            found = Some(expr.span());
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    found
}

/// Puts NULL in the place of the column at `span`, so that planning finds the next fault; false if it isn't there.
pub(super) fn blank(node: &mut impl VisitMut, span: Span) -> bool {
    let mut done = false;
    let _ = visit_expressions_mut(node, |expr| {
        let is_column = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
        if is_column && (expr.span() == span || expr.span().end == span.end && expr.span().start.line == span.start.line) {
            *expr = Expr::Value(Value::Null.into());
            done = true;
            return ControlFlow::Break(());
        }
        ControlFlow::<()>::Continue(())
    });
    done
}

/// A place for a fault about the whole query.
pub(super) fn whole(sql: &SqlText) -> Place {
    first_line(sql)
}
