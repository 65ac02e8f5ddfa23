//! SQL text to syntax tree, and places in it. Knows the parser, no names and no plans.

use datafusion::common::Span as PlanSpan;
use datafusion::common::config::ConfigOptions;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{ExprWithAlias, Ident, Query, Spanned, Statement as SqlStatement};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, Tokenizer};

use super::dialect::TidemillDialect;
use crate::spec::fault::{Fault, Place, SourceText};
use crate::spec::types::SqlText;

/// A name as the engine reads it: in small letters, unless it is quoted.
pub(super) fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_none() { ident.value.to_lowercase() } else { ident.value.clone() }
}

impl SqlText {
    /// SQL that stands nowhere in the project: its faults point into a text named `path`.
    pub fn free(path: &str, sql: &str) -> Self {
        let line_starts = std::iter::once(0).chain(sql.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let source = SourceText { path: path.to_owned(), text: sql.to_owned() };
        Self { text: sql.to_owned(), source: source.into(), line_starts }
    }

    /// Where `span` of the SQL stands; the whole SQL where the parser gave no span.
    pub(super) fn place_of(&self, span: Span) -> Place {
        if span == Span::empty() {
            return self.whole();
        }
        let at = |l: Location| (usize::try_from(l.line).unwrap_or(1), usize::try_from(l.column).unwrap_or(1));
        self.place_between(at(span.start), at(span.end))
    }

    pub(super) fn plan_place(&self, span: PlanSpan) -> Place {
        let location = |l: datafusion::common::Location| Location { line: l.line, column: l.column };
        self.place_of(Span { start: location(span.start), end: location(span.end) })
    }

    /// From the first to the last character that isn't space.
    pub(super) fn whole(&self) -> Place {
        let start = self.text.len() - self.text.trim_start().len();
        let end = self.text.trim_end().len().max(start);
        self.place(start..end)
    }

    fn end(&self) -> Place {
        let end = self.text.trim_end().len();
        self.place(end..end)
    }
}

/// Parses a model: exactly one query.
pub fn parse_model(sql: &SqlText) -> Result<Box<Query>, Fault> {
    if sql.text.trim().is_empty() {
        return Err(Fault::error("sql_syntax", sql.whole(), "the SQL is empty, a SELECT was expected"));
    }
    let parsed = Parser::new(&TidemillDialect).try_with_sql(&sql.text).and_then(|mut p| p.parse_statements());
    let mut statements = parsed.map_err(|e| syntax_fault(sql, &e))?.into_iter();
    let first = statements.next();
    if let Some(second) = statements.next() {
        let message = "a model is one SELECT, and a second statement stands here";
        return Err(Fault::error("not_one_query", sql.place_of(second.span()), message));
    }
    match first {
        Some(SqlStatement::Query(query)) => Ok(query),
        Some(_) => {
            Err(Fault::error("not_a_query", first_word(sql), "a model is one SELECT, and this is another statement"))
        }
        None => Err(Fault::error("sql_syntax", sql.whole(), "no statement found, a SELECT was expected")),
    }
}

/// Parses one statement of any kind.
pub fn parse_statement(sql: &SqlText, options: &ConfigOptions) -> Result<Statement, Fault> {
    let limit = options.sql_parser.recursion_limit.get();
    let parsed = DFParserBuilder::new(sql.text.as_str())
        .with_dialect(&TidemillDialect)
        .with_recursion_limit(limit)
        .build()
        .and_then(|mut parser| parser.parse_statements());
    let mut statements = parsed.map_err(|e| match e.find_root() {
        datafusion::common::DataFusionError::SQL(error, _) => syntax_fault(sql, error),
        other => Fault::error("sql_syntax", sql.whole(), other.strip_backtrace()),
    })?;
    let first = statements.pop_front();
    match (first, statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        (None, _) => Err(Fault::error("sql_syntax", sql.whole(), "no statement found")),
        _ => Err(Fault::error("not_one_query", sql.whole(), "one statement at a time")),
    }
}

/// Parses the expression of a check.
pub fn parse_expression(sql: &SqlText) -> Result<ExprWithAlias, Fault> {
    let parsed = Parser::new(&TidemillDialect).try_with_sql(&sql.text).and_then(|mut parser| {
        let expr = parser.parse_expr()?;
        match parser.peek_token().token {
            Token::EOF => Ok(expr),
            _ => parser.expected("the end of the rule", parser.peek_token()),
        }
    });
    match parsed {
        Ok(expr) => Ok(ExprWithAlias { expr, alias: None }),
        Err(error) => Err(syntax_fault(sql, &error)),
    }
}

/// Where the first word of the SQL stands, comments aside.
pub fn first_word(sql: &SqlText) -> Place {
    let tokens = Tokenizer::new(&TidemillDialect, &sql.text).tokenize_with_location().unwrap_or_default();
    let word = tokens.into_iter().find(|t| matches!(t.token, Token::Word(_)));
    word.map_or_else(|| sql.whole(), |t| sql.place_of(t.span))
}

fn syntax_fault(sql: &SqlText, error: &ParserError) -> Fault {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => "the SQL is nested too deeply",
    };
    // The parser gives the place at the end of its text: " at Line: 3, Column: 9".
    let (message, location) = match text.rsplit_once(" at Line: ") {
        Some((message, location)) => (message, parse_location(location)),
        None => (text, None),
    };
    let mut message = message.trim().replace("Expected: ", "expected ").replace("found: ", "found ");
    if let Some(first) = message.get(..1) {
        message = first.to_lowercase() + &message[1..];
    }
    let place = match location {
        Some(at) => token_at(sql, at, message.rsplit_once("found ").map(|(_, found)| found)),
        None if message.ends_with("found EOF") => sql.end(),
        None => sql.whole(),
    };
    Fault::error("sql_syntax", place, message.replace("found EOF", "found the end of the SQL"))
}

fn parse_location(text: &str) -> Option<Location> {
    let (line, column) = text.split_once(", Column: ")?;
    Some(Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })
}

/// The token at `at`, or the one before it if that is what was `found`: the parser may point past a reserved word.
fn token_at(sql: &SqlText, at: Location, found: Option<&str>) -> Place {
    let tokens = Tokenizer::new(&TidemillDialect, &sql.text).tokenize_with_location().unwrap_or_default();
    let tokens: Vec<_> = tokens.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect();
    let Some(index) = tokens.iter().position(|t| t.span.start >= at) else {
        // The tokenizer itself stopped here.
        let end = Location { line: at.line, column: at.column + 1 };
        return sql.place_of(Span { start: at, end });
    };
    let is_found = |index: usize| found.is_some_and(|found| tokens[index].token.to_string() == found);
    let index = if index > 0 && !is_found(index) && is_found(index - 1) { index - 1 } else { index };
    sql.place_of(tokens[index].span)
}
