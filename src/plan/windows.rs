//! `tumble`, `hop` and `session` in GROUP BY, rewritten in the syntax tree. Knows no schema: [`super::window_plan`] does.

use std::ops::ControlFlow;

use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, ExprWithAlias, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident,
    ObjectName, OrderBy, Query, Select, SelectItem, SetExpr, Spanned, TableAlias, TableFactor, TableWithJoins, Value,
    VisitMut, VisitorMut,
};

use super::sql_text::folded;
use super::window_plan::{MARKER, QUALIFIER, WINDOW_END, WINDOW_START};
use crate::limits::HOP_WINDOWS_PER_ROW_MAX;
use crate::spec::fault::Fault;
use crate::spec::types::SqlText;

/// Names of the window functions.
pub const WINDOW_FUNCTIONS: [&str; 3] = ["tumble", "hop", "session"];

const US_PER_DAY: i64 = 86_400_000_000;

/// Rewrites every `GROUP BY` with a window function: its FROM gets the window's columns, which the call becomes.
pub fn rewrite_windows(query: &mut Query, sql: &SqlText, state: &SessionState) -> Vec<Fault> {
    let mut rewriter = Rewriter { sql, state, faults: Vec::new() };
    let _: ControlFlow<()> = query.visit(&mut rewriter);
    rewriter.faults
}

struct Rewriter<'a> {
    sql: &'a SqlText,
    state: &'a SessionState,
    faults: Vec<Fault>,
}

impl VisitorMut for Rewriter<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        each_select(query, &mut |select, order_by| self.select(select, order_by));
        ControlFlow::Continue(())
    }
}

/// Visits the SELECTs of a query with the ORDER BY that is theirs: those of a set operation have none. A query within is one by itself.
pub(super) fn each_select(query: &mut Query, visit: &mut dyn FnMut(&mut Select, Option<&mut OrderBy>)) {
    fn of(
        body: &mut SetExpr,
        order_by: Option<&mut OrderBy>,
        visit: &mut dyn FnMut(&mut Select, Option<&mut OrderBy>),
    ) {
        match body {
            SetExpr::Select(select) => visit(select, order_by),
            SetExpr::SetOperation { left, right, .. } => {
                of(left, None, visit);
                of(right, None, visit);
            }
            _ => {}
        }
    }
    of(&mut query.body, query.order_by.as_mut(), visit);
}

/// A window call in GROUP BY, its sizes in microseconds.
struct Call {
    name: String,
    time: SqlExpr,
    sizes_us: Vec<i64>,
}

impl Rewriter<'_> {
    fn select(&mut self, select: &mut Select, order_by: Option<&mut OrderBy>) {
        let GroupByExpr::Expressions(groups, _) = &select.group_by else { return };
        let calls: Vec<usize> = (0..groups.len()).filter(|i| window_call(&groups[*i]).is_some()).collect();
        let Some(&at) = calls.first() else { return };
        if let Some(&second) = calls.get(1) {
            let place = self.sql.place_of(groups[second].span());
            self.faults.push(
                Fault::error("window_function", place, "a GROUP BY has one time window, and this is a second one")
                    .hint("group in two steps: one window in a subquery, the other around it"),
            );
            blank(select, order_by, &calls);
            return;
        }
        let Some(function) = window_call(&groups[at]) else { return };
        let call = match self.call(function) {
            Ok(call) => call,
            Err(fault) => {
                self.faults.push(*fault);
                blank(select, order_by, &calls);
                return;
            }
        };
        let uses_end = qualify_windows(select, order_by, false);
        let (marker, is_session) = mark(select, at, call, uses_end);
        select.from = vec![marker];
        if is_session {
            select.selection = None;
        }
        if let GroupByExpr::Expressions(groups, _) = &mut select.group_by {
            groups[at] = column(WINDOW_START);
            if uses_end {
                groups.insert(at + 1, column(WINDOW_END));
            }
        }
    }

    fn call(&self, function: &Function) -> Result<Call, Box<Fault>> {
        let name = function.name.to_string().to_lowercase();
        let place = self.sql.place_of(function.name.span());
        let usage = match name.as_str() {
            "tumble" => "tumble(time, INTERVAL '1 minute')",
            "hop" => "hop(time, INTERVAL '1 minute', INTERVAL '5 minutes'): the slide, then the size",
            _ => "session(time, INTERVAL '30 minutes')",
        };
        let args = match &function.args {
            FunctionArguments::List(list) => list.args.iter().map(positional).collect::<Option<Vec<_>>>(),
            _ => None,
        };
        let wanted = if name == "hop" { 3 } else { 2 };
        let Some(args) = args.filter(|args| args.len() == wanted) else {
            let message = format!("{name}() takes {wanted} arguments");
            return Err(Box::new(Fault::error("window_function", place, message).hint(format!("write {usage}"))));
        };
        let sizes_us = args[1..].iter().map(|arg| self.interval_us(&name, arg)).collect::<Result<Vec<i64>, _>>()?;
        if let [slide, size] = sizes_us.as_slice()
            && size / slide > HOP_WINDOWS_PER_ROW_MAX
        {
            let message =
                format!("each row would stand in {} windows, of {HOP_WINDOWS_PER_ROW_MAX} allowed", size / slide);
            let place = self.sql.place_of(args[1].span());
            return Err(Box::new(Fault::error("window_interval", place, message).hint("use a longer slide")));
        }
        Ok(Call { name, time: args[0].clone(), sizes_us })
    }

    fn interval_us(&self, name: &str, arg: &SqlExpr) -> Result<i64, Box<Fault>> {
        let fault = |message: String| Fault::error("window_interval", self.sql.place_of(arg.span()), message);
        let with_alias = ExprWithAlias { expr: arg.clone(), alias: None };
        let value = match self.state.create_logical_expr_from_sql_expr(with_alias, &DFSchema::empty()) {
            Ok(Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(value)), _)) => value,
            _ => {
                let hint = "write it as INTERVAL '10 minutes'";
                return Err(Box::new(fault(format!("{name}() takes a constant interval here")).hint(hint)));
            }
        };
        if value.months != 0 {
            let hint = "group by `date_trunc('month', time)`, a calendar window in the project's time zone";
            return Err(Box::new(fault(format!("months have no fixed length, which {name}() needs")).hint(hint)));
        }
        let us = i64::from(value.days).checked_mul(US_PER_DAY).and_then(|us| us.checked_add(value.nanoseconds / 1000));
        match us {
            Some(us) if us > 0 && value.nanoseconds % 1000 == 0 => Ok(us),
            _ => Err(Box::new(fault(format!("{name}() takes an interval of at least a microsecond")))),
        }
    }
}

/// The call, if `expr` is one to a window function.
fn window_call(expr: &SqlExpr) -> Option<&Function> {
    match expr {
        SqlExpr::Function(function) if is_window_function(&function.name) && function.over.is_none() => Some(function),
        SqlExpr::Nested(inner) => window_call(inner),
        _ => None,
    }
}

/// Whether `name` is `tumble`, `hop` or `session`.
pub fn is_window_function(name: &ObjectName) -> bool {
    name.0.len() == 1
        && name.0[0].as_ident().is_some_and(|ident| {
            WINDOW_FUNCTIONS.iter().any(|f| ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case(f))
        })
}

fn positional(arg: &FunctionArg) -> Option<SqlExpr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    }
}

fn column(name: &str) -> SqlExpr {
    SqlExpr::CompoundIdentifier(vec![Ident::new(QUALIFIER), Ident::new(name)])
}

/// Takes faulty windows as nulls, so that the rest of the query can still be checked.
fn blank(select: &mut Select, order_by: Option<&mut OrderBy>, calls: &[usize]) {
    qualify_windows(select, order_by, true);
    if let GroupByExpr::Expressions(groups, _) = &mut select.group_by {
        for at in calls {
            groups[*at] = SqlExpr::value(Value::Null);
        }
    }
}

/// Qualifies `window_start` and `window_end` wherever this SELECT reads its groups; whether it reads the end.
fn qualify_windows(select: &mut Select, order_by: Option<&mut OrderBy>, as_null: bool) -> bool {
    let aliased = |name: &str| {
        select
            .projection
            .iter()
            .any(|item| matches!(item, SelectItem::ExprWithAlias { alias, .. } if alias.value == name))
    };
    let shadowed = aliased(WINDOW_START) || aliased(WINDOW_END);
    let mut qualifier = Qualifier { depth: 0, uses_end: false, as_null };
    let _ = select.projection.visit(&mut qualifier);
    let _ = select.having.visit(&mut qualifier);
    let _ = select.qualify.visit(&mut qualifier);
    let _ = select.distinct.visit(&mut qualifier);
    let _ = select.named_window.visit(&mut qualifier);
    let _ = select.group_by.visit(&mut qualifier);
    if let Some(order_by) = order_by.filter(|_| !shadowed) {
        let _ = order_by.visit(&mut qualifier);
    }
    qualifier.uses_end
}

struct Qualifier {
    depth: usize,
    uses_end: bool,
    as_null: bool,
}

impl VisitorMut for Qualifier {
    type Break = ();

    // A subquery has windows of its own.
    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut SqlExpr) -> ControlFlow<()> {
        if let SqlExpr::Identifier(ident) = expr
            && self.depth == 0
        {
            let name = folded(ident);
            if name == WINDOW_START || name == WINDOW_END {
                self.uses_end |= name == WINDOW_END;
                if self.as_null {
                    *expr = SqlExpr::value(Value::Null);
                    return ControlFlow::Continue(());
                }
                let span = ident.span;
                let part = |value: &str| Ident { value: value.to_owned(), quote_style: None, span };
                *expr = SqlExpr::CompoundIdentifier(vec![part(QUALIFIER), part(&name)]);
            }
        }
        ControlFlow::Continue(())
    }
}

/// The FROM clause with the window's columns, and whether it took the WHERE clause along: sessions are of the rows that pass.
fn mark(select: &Select, at: usize, call: Call, uses_end: bool) -> (TableWithJoins, bool) {
    let is_session = call.name == "session";
    let mut args = vec![call.time];
    args.extend(call.sizes_us.iter().map(|us| number(*us)));
    let mut projection = Vec::new();
    if is_session {
        args.push(number(i64::from(uses_end)));
    }
    projection.push(SelectItem::UnnamedExpr(function(&call.name, args)));
    if is_session && let GroupByExpr::Expressions(groups, _) = &select.group_by {
        let others = groups.iter().enumerate().filter(|(i, group)| *i != at && !reads_window(group));
        projection.extend(others.map(|(_, group)| partition_key(select, group)));
    }
    let mut inner = select.clone();
    inner.projection = projection;
    inner.distinct = None;
    inner.group_by = GroupByExpr::Expressions(vec![], vec![]);
    inner.having = None;
    inner.qualify = None;
    inner.named_window = vec![];
    if !is_session {
        inner.selection = None;
    }
    let subquery = Query {
        with: None,
        body: Box::new(SetExpr::Select(Box::new(inner))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: vec![],
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: vec![],
    };
    let alias = TableAlias { explicit: true, name: Ident::new(MARKER), columns: vec![], at: None };
    let relation =
        TableFactor::Derived { lateral: false, subquery: Box::new(subquery), alias: Some(alias), sample: None };
    (TableWithJoins { relation, joins: vec![] }, is_session)
}

/// A group key as the planner of sessions takes it: positions and names of the SELECT list resolved.
fn partition_key(select: &Select, group: &SqlExpr) -> SelectItem {
    let expr_of = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr.clone()),
        _ => None,
    };
    match group {
        SqlExpr::Value(value) => {
            if let Value::Number(text, _) = &value.value
                && let Some(item) = text.parse::<usize>().ok().and_then(|n| select.projection.get(n.checked_sub(1)?))
                && let Some(expr) = expr_of(item)
            {
                return SelectItem::UnnamedExpr(expr);
            }
            SelectItem::UnnamedExpr(group.clone())
        }
        SqlExpr::Identifier(name) => {
            let aliased = select.projection.iter().find_map(|item| match item {
                SelectItem::ExprWithAlias { expr, alias } if alias.value.eq_ignore_ascii_case(&name.value) => {
                    Some(expr.clone())
                }
                _ => None,
            });
            match aliased {
                Some(expr) => SelectItem::ExprWithAlias { expr, alias: name.clone() },
                None => SelectItem::UnnamedExpr(group.clone()),
            }
        }
        _ => SelectItem::UnnamedExpr(group.clone()),
    }
}

fn reads_window(expr: &SqlExpr) -> bool {
    let mut found = false;
    let _ = datafusion::sql::sqlparser::ast::visit_expressions(expr, |e| {
        found |= matches!(e, SqlExpr::CompoundIdentifier(parts) if parts.len() == 2 && parts[0].value == QUALIFIER);
        ControlFlow::<()>::Continue(())
    });
    found
}

fn number(value: i64) -> SqlExpr {
    SqlExpr::value(Value::Number(value.to_string(), false))
}

/// A call of `name` with `args`.
pub fn function(name: &str, args: Vec<SqlExpr>) -> SqlExpr {
    use datafusion::sql::sqlparser::ast::FunctionArgumentList;
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    SqlExpr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}
