//! The planner's errors as faults with places: every unknown name of a query, else the expression that can't be planned.
//! Knows syntax trees and error values, no project.

use std::ops::ControlFlow;

use datafusion::common::{Column, DataFusionError, SchemaError};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{
    Cte, Expr, GroupByExpr, Ident, JoinConstraint, JoinOperator, OrderByKind, Query, Select, SelectItem, SetExpr,
    Spanned, TableFactor, Value, Visit, VisitMut, Visitor, VisitorMut, With,
};
use datafusion::sql::sqlparser::tokenizer::{Span, Token, Tokenizer};

use super::dialect::TidemillDialect;
use super::json::{NOT_TEXT, WRONG_KEY};
use super::lateral::NOT_RUN;
use super::nearest::{nearest, quoted};
use super::sql_text::first_word;
use crate::limits::{FAULT_PROBES_PER_SQL_MAX, NAME_FAULTS_PER_SQL_MAX};
use crate::spec::fault::{Fault, Place};
use crate::spec::types::SqlText;

/// Plans one form of a query; called again and again to tell faults apart.
pub type Planner<'a> = &'a dyn Fn(Query) -> datafusion::common::Result<LogicalPlan>;

/// Plans `query`, or says all that is wrong with its names, or else where it can't be planned.
/// With `names_only`, other faults are taken for consequences and left out: the result may then be an empty list.
pub fn plan_or_faults(
    mut query: Query,
    sql: &SqlText,
    names_only: bool,
    plan: Planner<'_>,
) -> Result<LogicalPlan, Vec<Fault>> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut blanked: Vec<String> = Vec::new();
    for _ in 0..NAME_FAULTS_PER_SQL_MAX {
        let error = match plan(query.clone()) {
            Ok(plan) if faults.is_empty() => return Ok(plan),
            Ok(_) => break,
            Err(error) => error,
        };
        let mut progressed = false;
        for error in roots(&error) {
            if let Some((column, fault)) = name_fault(error, sql, &blanked) {
                progressed |= blank(&mut query, &column);
                blanked.push(column.name);
                if !faults.contains(&fault) {
                    faults.push(fault);
                }
            } else if faults.is_empty() && !names_only {
                faults.push(other_fault(error, &query, sql, plan));
            }
        }
        if !progressed {
            break;
        }
    }
    Err(faults)
}

/// The faults of an expression that can't be planned, for checks.
pub fn expression_faults(error: &DataFusionError, sql: &SqlText) -> Vec<Fault> {
    let named = |error: &DataFusionError| match name_fault(error, sql, &[]) {
        Some((_, fault)) => fault,
        None => described(error, sql.whole()),
    };
    roots(error).into_iter().map(named).collect()
}

fn roots(error: &DataFusionError) -> Vec<&DataFusionError> {
    match error {
        DataFusionError::Collection(errors) => errors.iter().flat_map(roots).collect(),
        DataFusionError::Context(_, inner) => roots(inner),
        DataFusionError::Shared(inner) => roots(inner),
        other => vec![other],
    }
}

/// The error under the diagnostic, and the diagnostic's place.
fn undressed<'a>(error: &'a DataFusionError, sql: &SqlText) -> (&'a DataFusionError, Option<Place>) {
    match error {
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let (root, place) = undressed(inner, sql);
            (root, diagnostic.span.map(|span| sql.plan_place(span)).or(place))
        }
        DataFusionError::Context(_, inner) => undressed(inner, sql),
        other => (other, None),
    }
}

/// An unknown or ambiguous column and its fault.
fn name_fault(error: &DataFusionError, sql: &SqlText, blanked: &[String]) -> Option<(Column, Fault)> {
    let (root, place) = undressed(error, sql);
    let DataFusionError::SchemaError(schema_error, _) = root else { return None };
    match schema_error.as_ref() {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let place = field.spans().first().map(|span| sql.plan_place(span)).or(place);
            let place = place.or_else(|| find_word(sql, &field.name)).unwrap_or_else(|| first_word(sql));
            Some((field.as_ref().clone(), unknown_column(field, valid_fields, blanked, place)))
        }
        SchemaError::AmbiguousReference { field } => {
            let place = field.spans().first().map(|span| sql.plan_place(span)).or(place);
            let place = place.or_else(|| find_word(sql, &field.name)).unwrap_or_else(|| first_word(sql));
            let message = format!("column `{}` is ambiguous: more than one table here has it", field.name);
            let fault = Fault::error("ambiguous_column", place, message)
                .hint(format!("say which: `table.{}`", quoted(&field.name)));
            Some((field.as_ref().clone(), fault))
        }
        _ => None,
    }
}

/// `blanked` were unknown themselves: they only look like columns.
fn unknown_column(field: &Column, valid: &[Column], blanked: &[String], place: Place) -> Fault {
    if let Some(relation) = &field.relation {
        // An unnest in FROM has no columns of its own to compare with.
        if valid.is_empty() {
            let message = format!("no column `{}` in a table `{relation}` before this", field.name);
            return Fault::error("unknown_column", place, message);
        }
        let known: Vec<&str> = valid.iter().filter_map(|c| c.relation.as_ref().map(|r| r.table())).collect();
        if !known.contains(&relation.table()) {
            let fault = Fault::error("unknown_relation", place, format!("no table `{relation}` in this FROM"));
            return match nearest(relation.table(), known) {
                Some(near) => fault.hint(format!("did you mean `{near}`?")),
                None => fault,
            };
        }
    }
    let candidates: Vec<&str> = valid
        .iter()
        .filter(|column| {
            field.relation.is_none()
                || column.relation.as_ref().map(|r| r.table()) == field.relation.as_ref().map(|r| r.table())
        })
        .map(|column| column.name.as_str())
        .filter(|name| !name.starts_with("__") && !name.contains('(') && !blanked.iter().any(|b| b == name))
        .collect();
    let message = match &field.relation {
        Some(relation) => format!("no column `{}` in `{relation}`", field.name),
        None => format!("no column `{}`", field.name),
    };
    let fault = Fault::error("unknown_column", place, message);
    if let Some(near) = nearest(&field.name, candidates.iter().copied()) {
        return fault.hint(format!("did you mean `{near}`?"));
    }
    if matches!(field.name.as_str(), "window_start" | "window_end") {
        return fault.hint("GROUP BY tumble(…), hop(…) or session(…) gives it, to SELECT, HAVING and ORDER BY");
    }
    if candidates.is_empty() {
        return fault;
    }
    let mut listed: Vec<String> = Vec::new();
    for name in candidates.into_iter().map(quoted) {
        if !listed.contains(&name) {
            listed.push(name);
        }
    }
    let more = listed.len().saturating_sub(8);
    listed.truncate(8);
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    fault.hint(format!("there are {}{tail}", listed.join(", ")))
}

/// First place where `name` stands as a word of the SQL, if anywhere.
pub fn find_word(sql: &SqlText, name: &str) -> Option<Place> {
    let tokens = Tokenizer::new(&TidemillDialect, &sql.text).tokenize_with_location().ok()?;
    let found = tokens.into_iter().find(|token| match &token.token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_lowercase() == name,
        Token::Word(word) => word.value == name,
        _ => false,
    });
    found.map(|token| sql.place_of(token.span))
}

/// Makes every mention of `column` a null; whether there was one.
fn blank(query: &mut Query, column: &Column) -> bool {
    let mut blanker = Blanker { column, blanked: false };
    let _: ControlFlow<()> = query.visit(&mut blanker);
    blanker.blanked
}

struct Blanker<'a> {
    column: &'a Column,
    blanked: bool,
}

impl Blanker<'_> {
    fn is_it(&self, expr: &Expr) -> bool {
        let same = |ident: &Ident, name: &str| match ident.quote_style {
            None => ident.value.to_lowercase() == name,
            Some(_) => ident.value == name,
        };
        match (expr, &self.column.relation) {
            (Expr::Identifier(ident), None) => same(ident, &self.column.name),
            (Expr::CompoundIdentifier(parts), Some(relation)) => match parts.as_slice() {
                [.., table, name] => same(name, &self.column.name) && same(table, relation.table()),
                _ => false,
            },
            _ => false,
        }
    }
}

impl VisitorMut for Blanker<'_> {
    type Break = ();

    // A null has no name of its own: the column keeps the one that ORDER BY may use, and two nulls don't collide.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) = item
                && self.is_it(expr)
                && let Some(alias) = match &*expr {
                    Expr::Identifier(ident) => Some(ident.clone()),
                    Expr::CompoundIdentifier(parts) => parts.last().cloned(),
                    _ => None,
                }
            {
                self.blanked = true;
                *item = SelectItem::ExprWithAlias { expr: Expr::value(Value::Null), alias };
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.is_it(expr) {
            self.blanked = true;
            *expr = Expr::value(Value::Null);
        }
        ControlFlow::Continue(())
    }
}

fn other_fault(error: &DataFusionError, query: &Query, sql: &SqlText, plan: Planner<'_>) -> Fault {
    let (root, place) = undressed(error, sql);
    let word = || ["lateral", "unnest"].into_iter().find_map(|word| find_word(sql, word));
    if root.message().contains(NOT_RUN) {
        return Fault::error("unsupported_sql", word().unwrap_or_else(|| first_word(sql)), NOT_RUN)
            .hint("unnest in a SELECT: `FROM (SELECT id, unnest(list) AS item FROM t)`; join tables with ON");
    }
    if root.message().starts_with("unnest()") {
        return described(root, word().unwrap_or_else(|| first_word(sql)));
    }
    let mut probe = Probe { plan, message: root.strip_backtrace(), left: FAULT_PROBES_PER_SQL_MAX };
    let probed = probe.query(query, &[]).filter(|span| *span != Span::empty()).map(|span| sql.place_of(span));
    // The planner's own place may be a part of the expression: the whole says more.
    described(root, probed.or(place).unwrap_or_else(|| first_word(sql)))
}

/// Code and wording of an error that isn't about a name.
pub fn described(error: &DataFusionError, place: Place) -> Fault {
    let root = match error {
        DataFusionError::Diagnostic(_, inner) => inner.find_root(),
        other => other.find_root(),
    };
    let text = root.message().to_string();
    let text = text.split("\n\nbacktrace").next().unwrap_or_default().trim().trim_end_matches('.');
    let lower = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let code = match root {
        DataFusionError::NotImplemented(_) => "unsupported_sql",
        _ if has(&["group by", "aggregate function"]) => "aggregate_misuse",
        _ if has(&["unique expression names", "duplicate"]) => "duplicate_column",
        _ if has(&["coerc", "type", "no function matches", "cast", "argument", "parse", "takes a timestamp"]) => {
            "wrong_type"
        }
        _ => "invalid_sql",
    };
    for (told, hint) in [
        (NOT_TEXT, "a field of a struct is value['field'], an item of a list value[1], from 1"),
        (WRONG_KEY, "such as 'name', or 0 for a list's first value"),
    ] {
        if text.contains(told) {
            return Fault::error("wrong_type", place, told).hint(hint);
        }
    }
    if let Some(call) = text.split("argument types '").nth(1).and_then(|rest| rest.split('\'').next()) {
        let (name, arguments) = call.split_once('(').unwrap_or((call, ")"));
        let message = format!("{name}() doesn't take ({}", plain_types(arguments));
        return Fault::error("wrong_type", place, message).hint("check their number and order, or cast them");
    }
    if let Some(column) = ungrouped(text) {
        let message = format!("column `{column}` is neither in GROUP BY nor inside an aggregate");
        return Fault::error("aggregate_misuse", place, message)
            .hint(format!("add it to GROUP BY, or take `min({column})`, `max({column})`, …"));
    }
    let mut message = plain_types(text.lines().next().unwrap_or_default());
    if message.chars().nth(1).is_some_and(|second| second.is_lowercase() || second == ' ') {
        message = message.chars().take(1).flat_map(char::to_lowercase).chain(message.chars().skip(1)).collect();
    }
    let mut fault = Fault::error(code, place, message);
    if let Some(hint) = text.lines().nth(1).map(str::trim).filter(|line| !line.is_empty()) {
        fault = fault.hint(plain_types(hint));
    }
    fault
}

/// The column of the engine's words on GROUP BY.
fn ungrouped(text: &str) -> Option<&str> {
    let (before, _) = text.split_once("must appear in the GROUP BY clause")?;
    let quoted = before.trim_end().strip_suffix('"')?.rsplit('"').next()?;
    Some(quoted.rsplit('.').next().unwrap_or(quoted))
}

/// The engine's names of types as users know them.
pub fn plain_types(text: &str) -> String {
    const TYPES: [(&str, &str); 12] = [
        ("LargeUtf8", "text"),
        ("Utf8View", "text"),
        ("Utf8", "text"),
        ("Boolean", "boolean"),
        ("Int16", "smallint"),
        ("Int32", "integer"),
        ("Int64", "bigint"),
        ("Float32", "real"),
        ("Float64", "double"),
        ("Decimal128", "decimal"),
        ("Date32", "date"),
        ("Interval(MonthDayNano)", "interval"),
    ];
    // Whole words only: `UInt64` isn't a `Ubigint`.
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let starts_word = !out.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let found = TYPES.iter().find(|(name, _)| {
            rest.strip_prefix(name).is_some_and(|after| !after.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        });
        let zoned = rest.strip_prefix("Timestamp(").filter(|_| starts_word).and_then(|r| r.split_once(')'));
        if let Some((inside, after)) = zoned {
            out.push_str(if inside.contains('"') { "timestamptz" } else { "timestamp" });
            rest = after;
            continue;
        }
        match found.filter(|_| starts_word) {
            Some((name, plain)) => {
                out.push_str(plain);
                rest = &rest[name.len()..];
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}

/// Looks for the smallest expression that alone gives the same error: `SELECT expression FROM the same tables`.
struct Probe<'a> {
    plan: Planner<'a>,
    message: String,
    left: usize,
}

impl Probe<'_> {
    fn query(&mut self, query: &Query, outer: &[Cte]) -> Option<Span> {
        let mut ctes = outer.to_vec();
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            if let Some(span) = self.query(&cte.query, &ctes) {
                return Some(span);
            }
            ctes.push(cte.clone());
        }
        let mut order = Vec::new();
        if let Some(order_by) = &query.order_by
            && let OrderByKind::Expressions(exprs) = &order_by.kind
        {
            order.extend(exprs.iter().map(|o| o.expr.clone()));
        }
        self.body(&query.body, &ctes, &order)
    }

    fn body(&mut self, body: &SetExpr, ctes: &[Cte], order: &[Expr]) -> Option<Span> {
        match body {
            SetExpr::Select(select) => self.select(select, ctes, order),
            SetExpr::Query(query) => self.query(query, ctes),
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left, ctes, &[]).or_else(|| self.body(right, ctes, &[]))
            }
            _ => None,
        }
    }

    fn select(&mut self, select: &Select, ctes: &[Cte], order: &[Expr]) -> Option<Span> {
        let mut base = select.clone();
        let mut exprs = Vec::new();
        for from in &mut base.from {
            if let TableFactor::Derived { subquery, .. } = &from.relation
                && let Some(span) = self.query(subquery, ctes)
            {
                return Some(span);
            }
            for join in &mut from.joins {
                if let TableFactor::Derived { subquery, .. } = &join.relation
                    && let Some(span) = self.query(subquery, ctes)
                {
                    return Some(span);
                }
                if let Some(on) = take_on(&mut join.join_operator) {
                    exprs.push(on);
                }
            }
        }
        exprs.extend(base.selection.take());
        for item in &select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                exprs.push(expr.clone());
            }
        }
        if let GroupByExpr::Expressions(groups, _) = &select.group_by {
            exprs.extend(groups.iter().cloned());
        }
        exprs.extend(base.having.take());
        exprs.extend(base.qualify.take());
        exprs.extend(order.iter().cloned());
        base.distinct = None;
        base.group_by = GroupByExpr::Expressions(vec![], vec![]);
        if self.fails(&base, ctes, &Expr::value(Value::Number("1".into(), false))) {
            return None;
        }
        exprs.iter().find_map(|expr| self.smallest(expr, &base, ctes))
    }

    /// Innermost first, so that the first failure is the smallest.
    fn smallest(&mut self, expr: &Expr, base: &Select, ctes: &[Cte]) -> Option<Span> {
        let mut parts = Parts::default();
        let _: ControlFlow<()> = Visit::visit(expr, &mut parts);
        for subquery in &parts.subqueries {
            if let Some(span) = self.query(subquery, ctes) {
                return Some(span);
            }
        }
        parts.exprs.iter().find(|part| self.fails(base, ctes, part)).map(|part| part.span())
    }

    fn fails(&mut self, base: &Select, ctes: &[Cte], expr: &Expr) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let mut select = base.clone();
        select.projection = vec![SelectItem::UnnamedExpr(expr.clone())];
        let with = (!ctes.is_empty()).then(|| With {
            with_token: datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken::empty(),
            recursive: false,
            cte_tables: ctes.to_vec(),
        });
        let query = Query {
            with,
            body: Box::new(SetExpr::Select(Box::new(select))),
            order_by: None,
            limit_clause: None,
            fetch: None,
            locks: vec![],
            for_clause: None,
            settings: None,
            format_clause: None,
            pipe_operators: vec![],
        };
        match (self.plan)(query) {
            Ok(_) => false,
            Err(error) => roots(&error).into_iter().any(|root| {
                let mut root = root;
                while let DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) = root {
                    root = inner;
                }
                root.strip_backtrace() == self.message
            }),
        }
    }
}

/// The sub-expressions of an expression, innermost first; those of subqueries apart.
#[derive(Default)]
struct Parts {
    exprs: Vec<Expr>,
    subqueries: Vec<Query>,
    depth: usize,
}

impl Visitor for Parts {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if self.depth == 0 {
            self.subqueries.push(query.clone());
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if self.depth == 0 {
            self.exprs.push(expr.clone());
        }
        ControlFlow::Continue(())
    }
}

/// Takes the condition of a join away, leaving one that is always true.
fn take_on(operator: &mut JoinOperator) -> Option<Expr> {
    let constraint = match operator {
        JoinOperator::Join(c)
        | JoinOperator::Inner(c)
        | JoinOperator::Left(c)
        | JoinOperator::LeftOuter(c)
        | JoinOperator::Right(c)
        | JoinOperator::RightOuter(c)
        | JoinOperator::FullOuter(c) => c,
        _ => return None,
    };
    match constraint {
        JoinConstraint::On(expr) => Some(std::mem::replace(expr, Expr::value(Value::Boolean(true)))),
        _ => None,
    }
}
