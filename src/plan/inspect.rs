//! What a model's syntax tree names, and the faults seen without planning: unknown relations and functions, volatile ones,
//! results that hang on the order of arrival. Knows names, no types.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;

use datafusion::common::TableReference;
use datafusion::logical_expr::Volatility;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Function, FunctionArgumentClause, FunctionArguments, Ident, LimitClause, ObjectName, Query, Select,
    SelectItem, SetExpr, Spanned, Statement as SqlStatement, TableFactor, Value, Visit, VisitMut, Visitor, VisitorMut,
    WindowFrameUnits, WindowType,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::names::Names;
use super::nearest::with_nearest;
use super::sql_text::folded;
use super::{params, windows};
use crate::spec::fault::Fault;
use crate::spec::types::SqlText;

/// Functions whose value hangs on the order of rows.
const ORDERED: [&str; 8] = ["row_number", "ntile", "lag", "lead", "first_value", "last_value", "nth_value", "first"];

/// What a model's SQL names.
#[derive(Debug, Default)]
pub struct Inspection {
    /// Relations read, with where each is first named.
    pub inputs: BTreeMap<String, Span>,
    /// Faults.
    pub faults: Vec<Fault>,
    /// Whether a relation is unknown: columns can't be told then.
    pub unknown_relation: bool,
    /// Whether an unknown function was taken as a null, so that types can't be told.
    pub unknown_function: bool,
}

/// Inspects a model's query after [`windows::rewrite_windows`] and binds `$name`; calls of unknown functions become nulls,
/// so that the rest can still be checked. `names` has every relation of the project.
pub fn inspect_model(query: &mut Query, sql: &SqlText, names: &Names<'_>) -> Inspection {
    let statement = Statement::Statement(Box::new(SqlStatement::Query(Box::new(query.clone()))));
    let references = names.state().resolve_table_references(&statement).unwrap_or_default();
    let mut inspector = Inspector {
        sql,
        names,
        external: references.into_iter().collect(),
        found: Inspection::default(),
        seen: BTreeSet::new(),
    };
    let _: ControlFlow<()> = Visit::visit(query, &mut inspector);
    let mut found = inspector.found;
    found.faults.extend(bind_parameters(query, sql, names, true));
    let (faults, replaced) = check_functions(query, sql, names);
    found.faults.extend(faults);
    let duplicates = duplicate_names(query, sql);
    found.unknown_function = replaced || !duplicates.is_empty();
    found.faults.extend(duplicates);
    found
}

/// Replaces `$name` by the parameter's function. Others than a project's are faults where `strict`, else left to the caller.
pub fn bind_parameters<V: VisitMut>(tree: &mut V, sql: &SqlText, names: &Names<'_>, strict: bool) -> Vec<Fault> {
    let mut binder = Binder { sql, names, strict, faults: Vec::new() };
    let _: ControlFlow<()> = tree.visit(&mut binder);
    binder.faults
}

struct Binder<'a> {
    sql: &'a SqlText,
    names: &'a Names<'a>,
    strict: bool,
    faults: Vec<Fault>,
}

impl VisitorMut for Binder<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Value(value) = expr else { return ControlFlow::Continue(()) };
        let Value::Placeholder(placeholder) = &value.value else { return ControlFlow::Continue(()) };
        let span = value.span;
        let name = placeholder.strip_prefix('$').unwrap_or(placeholder).to_owned();
        let function = params::function_name(&name);
        let scalars = self.names.state().scalar_functions();
        if scalars.contains_key(&function) {
            let mut call = windows::function(&function, vec![]);
            if let Expr::Function(f) = &mut call {
                f.name = ObjectName::from(vec![Ident { value: function, quote_style: Some('"'), span }]);
            }
            *expr = call;
        } else if self.strict {
            let known: Vec<&str> = scalars.keys().filter_map(|f| f.strip_prefix('$')).collect();
            let mut fault = Fault::error(
                "unknown_parameter",
                self.sql.place_of(span),
                format!("no parameter `{name}` in this project"),
            );
            fault = match super::nearest::nearest(&name, known) {
                Some(near) => fault.hint(format!("did you mean `${near}`?")),
                None => fault.hint("declare it under `params:` in tidemill.yaml"),
            };
            self.faults.push(fault);
            *expr = Expr::value(Value::Null);
        }
        ControlFlow::Continue(())
    }
}

/// Unknown functions, time windows outside GROUP BY, and what would be run as something else: faults, and they become nulls.
pub fn check_functions<V: VisitMut>(tree: &mut V, sql: &SqlText, names: &Names<'_>) -> (Vec<Fault>, bool) {
    let mut checker = FunctionChecker { sql, names, faults: Vec::new() };
    let _: ControlFlow<()> = tree.visit(&mut checker);
    let replaced = !checker.faults.is_empty();
    (checker.faults, replaced)
}

struct FunctionChecker<'a> {
    sql: &'a SqlText,
    names: &'a Names<'a>,
    faults: Vec<Fault>,
}

impl VisitorMut for FunctionChecker<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if let Some(predicate) = &mut select.selection {
            let mut finder = AggregateFinder { checker: self, depth: 0 };
            let _ = predicate.visit(&mut finder);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::SimilarTo { pattern, .. } = expr {
            let place = self.sql.place_of(pattern.span());
            let message = "SIMILAR TO would be run as a regular expression that is found anywhere in the text, which isn't what it means";
            let fault = Fault::error("unsupported_sql", place, message);
            self.faults.push(fault.hint("LIKE, or `~` with a regular expression: `city ~ '^(Natal|Recife)$'`"));
            *expr = Expr::value(Value::Null);
        }
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let Some(name) = function_name(&function.name) else { return ControlFlow::Continue(()) };
        let place = self.sql.place_of(function.name.span());
        let fault = if windows::is_window_function(&function.name) {
            // The marker's own call, which the user didn't write.
            if function.name.span() == Span::empty() {
                return ControlFlow::Continue(());
            }
            Fault::error("window_function", place, format!("{name}() stands in GROUP BY only"))
                .hint(format!("GROUP BY {name}(…) and select `window_start` and `window_end`"))
        } else if self.names.has_function(&name) {
            return ControlFlow::Continue(());
        } else {
            let known = self.names.function_names();
            let fault = Fault::error("unknown_function", place, format!("no function `{name}`"));
            with_nearest(fault, &name, known.iter().map(String::as_str))
        };
        self.faults.push(fault);
        *expr = Expr::value(Value::Null);
        ControlFlow::Continue(())
    }
}

/// Aggregates in WHERE, those of its subqueries apart.
struct AggregateFinder<'a, 'b> {
    checker: &'b mut FunctionChecker<'a>,
    depth: usize,
}

impl VisitorMut for AggregateFinder<'_, '_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let Some(name) = function_name(&function.name) else { return ControlFlow::Continue(()) };
        let state = self.checker.names.state();
        let aggregates =
            state.aggregate_functions().contains_key(&name) && !state.scalar_functions().contains_key(&name);
        if self.depth == 0 && aggregates {
            let place = self.checker.sql.place_of(function.name.span());
            let message = format!("{name}() is about many rows, and WHERE about one");
            let fault = Fault::error("aggregate_misuse", place, message);
            self.checker.faults.push(fault.hint("put the condition into HAVING"));
            *expr = Expr::value(Value::Null);
        }
        ControlFlow::Continue(())
    }
}

/// Columns of the result that are named alike; each gets a name of its own, so that the rest can still be checked.
fn duplicate_names(query: &mut Query, sql: &SqlText) -> Vec<Fault> {
    let SetExpr::Select(select) = query.body.as_mut() else { return vec![] };
    let mut names: BTreeSet<String> = BTreeSet::new();
    let mut faults = Vec::new();
    for item in &mut select.projection {
        let (ident, expr) = match item {
            SelectItem::UnnamedExpr(expr @ Expr::Identifier(_)) => {
                let Expr::Identifier(ident) = &*expr else { continue };
                (ident.clone(), expr.clone())
            }
            SelectItem::UnnamedExpr(expr @ Expr::CompoundIdentifier(_)) => {
                let Expr::CompoundIdentifier(parts) = &*expr else { continue };
                let Some(last) = parts.last() else { continue };
                (last.clone(), expr.clone())
            }
            SelectItem::ExprWithAlias { expr, alias } => (alias.clone(), expr.clone()),
            _ => continue,
        };
        let name = folded(&ident);
        if !names.insert(name.clone()) {
            let message = format!("two columns of the result are named `{name}`");
            let fault = Fault::error("duplicate_column", sql.place_of(ident.span), message);
            faults.push(fault.hint("give one of them another name with AS"));
            let alias = Ident::with_quote('"', format!("__{}", faults.len()));
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
    }
    faults
}

fn function_name(name: &ObjectName) -> Option<String> {
    let [part] = name.0.as_slice() else { return Some(name.to_string()) };
    let ident = part.as_ident()?;
    Some(folded(ident))
}

/// A table's name as the planner reads it.
pub fn table_reference(name: &ObjectName) -> Option<TableReference> {
    datafusion::sql::planner::object_name_to_table_reference(name.clone(), true).ok()
}

struct Inspector<'a> {
    sql: &'a SqlText,
    names: &'a Names<'a>,
    /// References that aren't to a WITH.
    external: HashSet<TableReference>,
    found: Inspection,
    seen: BTreeSet<String>,
}

impl Visitor for Inspector<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let limit = match &query.limit_clause {
            Some(LimitClause::LimitOffset { limit, offset, .. }) => {
                limit.as_ref().map(|l| l.span()).or_else(|| offset.as_ref().map(|o| o.value.span()))
            }
            Some(LimitClause::OffsetCommaLimit { limit, .. }) => Some(limit.span()),
            None => query.fetch.as_ref().map(|f| f.quantity.as_ref().map_or_else(Span::empty, |q| q.span())),
        };
        if let Some(span) = limit.filter(|_| query.order_by.is_none()) {
            self.arrival_order(span, "LIMIT without ORDER BY takes whichever rows come first");
        }
        if let SetExpr::Select(select) = query.body.as_ref()
            && let Some(Distinct::On(columns)) = &select.distinct
            && query.order_by.is_none()
        {
            let span = columns.first().map_or_else(Span::empty, Spanned::span);
            self.arrival_order(span, "DISTINCT ON without ORDER BY keeps whichever row comes first");
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args, version, sample, .. } = factor {
            let span = name.span();
            if version.is_some() {
                let fault =
                    Fault::error("time_travel", self.sql.place_of(span), "a model reads tables as they are now")
                        .hint("VERSION AS OF and TIMESTAMP AS OF are for queries");
                self.found.faults.push(fault);
            }
            if sample.is_some() {
                let message = "TABLESAMPLE takes other rows each time, so that the table would never be settled";
                self.found.faults.push(Fault::error("volatile", self.sql.place_of(span), message));
            }
            match args {
                Some(_) => self.table_function(name, span),
                None => self.relation(name, span),
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && let Some(name) = function_name(&function.name)
        {
            self.function(&name, function);
        }
        ControlFlow::Continue(())
    }
}

impl Inspector<'_> {
    fn arrival_order(&mut self, span: Span, message: &str) {
        let fault = Fault::error("arrival_order", self.sql.place_of(span), message.to_owned())
            .hint("add an ORDER BY, so that the same rows always give the same answer");
        self.found.faults.push(fault);
    }

    fn relation(&mut self, name: &ObjectName, span: Span) {
        let Some(reference) = table_reference(name) else { return };
        if !self.external.contains(&reference) {
            return;
        }
        if self.names.has(&reference) {
            self.found.inputs.entry(reference.table().to_owned()).or_insert(span);
            return;
        }
        self.found.unknown_relation = true;
        if self.seen.insert(reference.to_string()) {
            let fault =
                Fault::error("unknown_relation", self.sql.place_of(span), format!("no source or model `{reference}`"));
            self.found.faults.push(with_nearest(fault, reference.table(), self.names.table_names()));
        }
    }

    fn table_function(&mut self, name: &ObjectName, span: Span) {
        let functions = self.names.state().table_functions();
        let Some(called) = function_name(name) else { return };
        if !functions.contains_key(&called) {
            self.found.unknown_relation = true;
            let fault =
                Fault::error("unknown_function", self.sql.place_of(span), format!("no table function `{called}`"));
            self.found.faults.push(with_nearest(fault, &called, functions.keys().map(String::as_str)));
        }
    }

    fn function(&mut self, name: &str, function: &Function) {
        let scalar = self.names.state().scalar_functions().get(name);
        if scalar.is_some_and(|f| f.signature().volatility == Volatility::Volatile) {
            let place = self.sql.place_of(function.name.span());
            let message = format!("{name}() gives another value each time, so that the table would never be settled");
            self.found
                .faults
                .push(Fault::error("volatile", place, message).hint("derive the value from the row's own columns"));
        }
        let spec = match &function.over {
            Some(WindowType::WindowSpec(spec)) => Some(spec),
            // A named window is checked where it is defined: it may well be ordered.
            Some(WindowType::NamedWindow(_)) => return,
            None => None,
        };
        let inner_order = match &function.args {
            FunctionArguments::List(list) => {
                list.clauses.iter().any(|clause| matches!(clause, FunctionArgumentClause::OrderBy(_)))
            }
            _ => false,
        };
        let ordered =
            inner_order || !function.within_group.is_empty() || spec.is_some_and(|spec| !spec.order_by.is_empty());
        let counts_rows = spec
            .and_then(|spec| spec.window_frame.as_ref())
            .is_some_and(|frame| frame.units == WindowFrameUnits::Rows && frame_is_partial(frame));
        if !ordered && (ORDERED.contains(&name) || counts_rows) {
            let message = format!("{name}() without ORDER BY hangs on the order in which rows come");
            self.arrival_order(function.name.span(), &message);
        }
    }
}

fn frame_is_partial(frame: &datafusion::sql::sqlparser::ast::WindowFrame) -> bool {
    use datafusion::sql::sqlparser::ast::WindowFrameBound::{Following, Preceding};
    !matches!((&frame.start_bound, &frame.end_bound), (Preceding(None), Some(Following(None))))
}
