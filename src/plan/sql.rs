//! SQL text to one query's syntax tree, with parameters and windows rewritten, and the names in it. Plans nothing.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, ObjectNamePart,
    Query, Spanned, Statement, Value, visit_expressions, visit_expressions_mut, visit_relations,
};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::dialect::TidemillDialect;
use super::params;
use crate::spec::fault::{Fault, Place};
use crate::spec::nearest;
use crate::spec::types::SqlText;

/// Parses one `SELECT`.
pub(super) fn parse_query(sql: &SqlText) -> Result<Query, Fault> {
    let mut statements = parse(sql)?;
    let first = statements.drain(..1).next();
    match first {
        Some(Statement::Query(query)) => Ok(*query),
        Some(_) => Err(Fault::error("not_a_query", first_line(sql), "expected a SELECT")
            .hint("a model is one SELECT, `WITH … SELECT` included")),
        None => Err(Fault::error("sql_syntax", first_line(sql), "there is no SQL here")),
    }
}

/// Parses exactly one statement.
pub(super) fn parse(sql: &SqlText) -> Result<Vec<Statement>, Fault> {
    let parser = Parser::new(&TidemillDialect).with_recursion_limit(RECURSION_LIMIT);
    let parsed = parser.try_with_sql(&sql.text).and_then(|mut parser| parser.parse_statements());
    let statements = parsed.map_err(|error| syntax_fault(sql, &error))?;
    match statements.as_slice() {
        [] => Err(Fault::error("sql_syntax", first_line(sql), "there is no SQL here")),
        [_] => Ok(statements),
        [_, second, ..] => {
            let place = place(sql, second.span()).unwrap_or_else(|| first_line(sql));
            Err(Fault::error("sql_syntax", place, "expected one statement, found a second one"))
        }
    }
}

/// Parses one expression.
pub(super) fn parse_expression(sql: &SqlText) -> Result<Expr, Fault> {
    let parser = Parser::new(&TidemillDialect).with_recursion_limit(RECURSION_LIMIT);
    let mut parser = parser.try_with_sql(&sql.text).map_err(|error| syntax_fault(sql, &error))?;
    let expression = parser.parse_expr().map_err(|error| syntax_fault(sql, &error))?;
    let rest = parser.next_token();
    if rest.token != datafusion::sql::sqlparser::tokenizer::Token::EOF {
        let place = place(sql, rest.span).unwrap_or_else(|| first_line(sql));
        return Err(Fault::error("sql_syntax", place, format!("expected the end of the rule, found `{}`", rest.token)));
    }
    Ok(expression)
}

/// Levels of nesting that SQL may have: deeper ones would exhaust the stack.
const RECURSION_LIMIT: usize = 150;

fn syntax_fault(sql: &SqlText, error: &ParserError) -> Fault {
    let text = match error {
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => "the SQL is nested too deeply",
    };
    let (message, at) = match text.rsplit_once(" at Line: ") {
        Some((message, at)) => (message, at.split_once(", Column: ")),
        None => (text, None),
    };
    let message = message.strip_prefix("sql parser error: ").unwrap_or(message);
    let numbers = at.and_then(|(line, column)| Some((line.parse::<usize>().ok()?, column.trim().parse::<usize>().ok()?)));
    let mut lower = message.to_string();
    if let Some(first) = lower.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    let place = match numbers {
        Some((line, column)) => sql.place_at(line, column),
        None if message.contains("EOF") => end(sql),
        None => first_line(sql),
    };
    Fault::error("sql_syntax", place, lower)
}

fn end(sql: &SqlText) -> Place {
    let end = sql.text.trim_end().len();
    sql.place(end..end)
}

/// The first line with something on it.
pub(super) fn first_line(sql: &SqlText) -> Place {
    let start = sql.text.len() - sql.text.trim_start().len();
    let length = sql.text[start..].lines().next().map_or(0, |line| line.trim_end().len());
    sql.place(start..start + length)
}

/// Where a span of the parser stands; none for what was made by rewriting.
pub(super) fn place(sql: &SqlText, span: Span) -> Option<Place> {
    if span.start.line == 0 {
        return None;
    }
    let (line, start) = (span.start.line as usize, span.start.column as usize);
    if span.end.line == span.start.line && span.end.column > span.start.column {
        return Some(sql.place_between((line, start), (line, span.end.column as usize)));
    }
    Some(sql.place_at(line, start))
}

/// A name as the engine folds it.
pub(super) fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// Replaces `$name` by a call of its function; unknown ones are faults.
pub(super) fn bind_parameters(node: &mut impl datafusion::sql::sqlparser::ast::VisitMut, sql: &SqlText, known: &[&str]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let _ = visit_expressions_mut(node, |expr| {
        if let Expr::Value(value) = expr
            && let Value::Placeholder(name) = &value.value
        {
            let bare = name.trim_start_matches('$').to_string();
            if !known.contains(&bare.as_str()) {
                let place = place(sql, value.span).unwrap_or_else(|| first_line(sql));
                let mut fault = Fault::error("unknown_param", place, format!("the project has no parameter `{bare}`"));
                fault = match nearest(&bare, known.iter().copied()) {
                    Some(near) => fault.hint(format!("did you mean `${near}`?")),
                    None => fault.hint("declare it under `params:` in tidemill.yaml"),
                };
                faults.push(fault);
            }
            *expr = call(&params::function_name(&bare), Vec::new());
        }
        ControlFlow::<()>::Continue(())
    });
    faults
}

/// A call of a function by its exact name.
pub(super) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::with_quote('"', name))]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// Relations that the query names, names of `WITH` left out, each with its place.
pub(super) fn relations(query: &Query, sql: &SqlText) -> Vec<(String, Place)> {
    let mut with = HashSet::new();
    collect_with(query, &mut with);
    let mut found = Vec::new();
    let _ = visit_relations(query, |name| {
        let last = name.0.last().and_then(ObjectNamePart::as_ident);
        if let Some(ident) = last {
            let folded = folded(ident);
            if name.0.len() > 1 || !with.contains(&folded) {
                found.push((folded, place(sql, ident.span).unwrap_or_else(|| first_line(sql))));
            }
        }
        ControlFlow::<()>::Continue(())
    });
    found
}

fn collect_with(query: &Query, names: &mut HashSet<String>) {
    use datafusion::sql::sqlparser::ast::{Visit, Visitor};
    struct With<'a>(&'a mut HashSet<String>);
    impl Visitor for With<'_> {
        type Break = ();
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            for table in query.with.iter().flat_map(|with| &with.cte_tables) {
                self.0.insert(folded(&table.alias.name));
            }
            ControlFlow::Continue(())
        }
    }
    let _ = query.visit(&mut With(names));
}

/// Functions that the query calls, each with its place.
pub(super) fn functions(node: &impl datafusion::sql::sqlparser::ast::Visit, sql: &SqlText) -> Vec<(String, Place, Function)> {
    let mut found = Vec::new();
    let _ = visit_expressions(node, |expr| {
        if let Expr::Function(function) = expr
            && let Some(ident) = function.name.0.last().and_then(ObjectNamePart::as_ident)
        {
            let place = place(sql, ident.span).unwrap_or_else(|| first_line(sql));
            found.push((ident.value.to_lowercase(), place, function.clone()));
        }
        ControlFlow::<()>::Continue(())
    });
    found
}
