//! `tumble`, `hop` and `session` in GROUP BY, rewritten into plain SQL before planning. Windows are half open.
//!
//! `tumble(ts, i)` is `date_bin(i, ts)`. `hop(ts, slide, size)` pairs each row with every window that holds it. `session`
//! numbers runs of rows, per the other keys, whose distance is below the gap. Knows no schemas.

use std::ops::ControlFlow;

use arrow::compute::kernels::cast_utils::{IntervalParseConfig, IntervalUnit, parse_interval_month_day_nano_config};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, Interval,
    ObjectNamePart, Query, Select, SelectItem, SetExpr, Spanned, Statement, TableFactor, Value, VisitMut, VisitorMut,
    visit_expressions, visit_expressions_mut,
};
use datafusion::sql::sqlparser::parser::Parser;

use super::dialect::TidemillDialect;
use super::sql::{call, first_line, folded, place};
use crate::limits;
use crate::spec::fault::Fault;
use crate::spec::types::SqlText;

/// Rewrites the window functions of every SELECT in the query.
pub(super) fn rewrite(query: &mut Query, sql: &SqlText) -> Vec<Fault> {
    struct Selects<'a> {
        sql: &'a SqlText,
        faults: Vec<Fault>,
    }
    impl VisitorMut for Selects<'_> {
        type Break = ();
        fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            rewrite_set(&mut query.body, self.sql, &mut self.faults);
            ControlFlow::Continue(())
        }
    }
    let mut selects = Selects { sql, faults: Vec::new() };
    let _ = query.visit(&mut selects);
    selects.faults
}

fn rewrite_set(body: &mut SetExpr, sql: &SqlText, faults: &mut Vec<Fault>) {
    match body {
        SetExpr::Select(select) => {
            if let Err(fault) = rewrite_select(select, sql) {
                faults.push(*fault);
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            rewrite_set(left, sql, faults);
            rewrite_set(right, sql, faults);
        }
        _ => {}
    }
}

/// A window function with its arguments.
enum Window {
    Tumble { time: Expr, size: Expr },
    Hop { time: Expr, slide: Expr, size: Expr },
    Session { time: Expr, gap: Expr },
}

fn rewrite_select(select: &mut Select, sql: &SqlText) -> Result<(), Box<Fault>> {
    let GroupByExpr::Expressions(keys, _) = &select.group_by else { return Ok(()) };
    let mut found = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        if let Expr::Function(function) = key
            && let Some(window) = window(function, sql)?
        {
            found.push((index, window, key.span()));
        }
    }
    let mut found = found.into_iter();
    let Some((index, window, _)) = found.next() else { return Ok(()) };
    if let Some((_, _, span)) = found.next() {
        let place = place(sql, span).unwrap_or_else(|| first_line(sql));
        return Err(Box::new(Fault::error("wrong_window", place, "a SELECT has one window function, found a second one")));
    }
    match window {
        Window::Tumble { time, size } => {
            let start = call("date_bin", vec![size.clone(), time]);
            let end = plus(start.clone(), size);
            substitute(select, index, start.clone(), start, end);
            Ok(())
        }
        Window::Hop { time, slide, size } => rewrite_hop(select, index, time, slide, size, sql),
        Window::Session { time, gap } => rewrite_session(select, index, time, gap, sql),
    }
}

fn window(function: &Function, sql: &SqlText) -> Result<Option<Window>, Box<Fault>> {
    let Some(name) = function.name.0.last().and_then(ObjectNamePart::as_ident) else { return Ok(None) };
    let (name, usage) = match folded(name).as_str() {
        "tumble" => ("tumble", "tumble(time, INTERVAL '1 minute')"),
        "hop" => ("hop", "hop(time, INTERVAL '1 minute', INTERVAL '5 minutes'): slide, then size"),
        "session" => ("session", "session(time, INTERVAL '30 minutes')"),
        _ => return Ok(None),
    };
    let wrong = || {
        let place = place(sql, function.name.span()).unwrap_or_else(|| first_line(sql));
        Box::new(Fault::error("wrong_window", place, format!("`{name}` has other arguments")).hint(format!("write {usage}")))
    };
    let FunctionArguments::List(list) = &function.args else { return Err(wrong()) };
    let mut args = Vec::new();
    for arg in &list.args {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => args.push(expr.clone()),
            _ => return Err(wrong()),
        }
    }
    match (name, args.as_slice()) {
        ("tumble", [time, size]) => Ok(Some(Window::Tumble { time: time.clone(), size: size.clone() })),
        ("hop", [time, slide, size]) => {
            Ok(Some(Window::Hop { time: time.clone(), slide: slide.clone(), size: size.clone() }))
        }
        ("session", [time, gap]) => Ok(Some(Window::Session { time: time.clone(), gap: gap.clone() })),
        _ => Err(wrong()),
    }
}

fn plus(left: Expr, right: Expr) -> Expr {
    binary(left, BinaryOperator::Plus, right)
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }))
}

fn is_name(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Identifier(ident) if folded(ident) == name)
}

/// Puts expressions in the place of the window's key, of `window_start` and of `window_end`.
fn substitute(select: &mut Select, index: usize, key: Expr, start: Expr, end: Expr) {
    name_items(select);
    let replace = |expr: &mut Expr| {
        if is_name(expr, "window_start") {
            *expr = start.clone();
        } else if is_name(expr, "window_end") {
            *expr = end.clone();
        }
        ControlFlow::<()>::Continue(())
    };
    let _ = visit_expressions_mut(&mut select.projection, replace);
    let _ = visit_expressions_mut(&mut select.having, replace);
    if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
        let _ = visit_expressions_mut(keys, replace);
        if let Some(slot) = keys.get_mut(index) {
            *slot = key;
        }
    }
}

/// Gives selected columns their own names as aliases, since rewriting takes the names away.
fn name_items(select: &mut Select) {
    for item in &mut select.projection {
        let alias = match item {
            SelectItem::UnnamedExpr(Expr::Identifier(ident)) => Some(ident.clone()),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().cloned(),
            _ => None,
        };
        if let (Some(alias), SelectItem::UnnamedExpr(expr)) = (alias, &*item) {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

/// Nanoseconds of a literal interval of fixed length.
fn nanoseconds(expr: &Expr, sql: &SqlText) -> Result<i128, Box<Fault>> {
    let wrong = |why: &str| {
        let place = place(sql, expr.span()).unwrap_or_else(|| first_line(sql));
        Box::new(Fault::error("wrong_window", place, why).hint("write an interval such as INTERVAL '5 minutes'"))
    };
    let Expr::Interval(Interval { value, leading_field, .. }) = expr else {
        return Err(wrong("expected a literal interval"));
    };
    let text = match value.as_ref() {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => text.clone(),
            Value::Number(text, _) => text.clone(),
            _ => return Err(wrong("expected a literal interval")),
        },
        _ => return Err(wrong("expected a literal interval")),
    };
    let text = leading_field.as_ref().map_or_else(|| text.clone(), |field| format!("{text} {field}"));
    let config = IntervalParseConfig::new(IntervalUnit::Second);
    let parsed = parse_interval_month_day_nano_config(&text, config).map_err(|_| wrong("this isn't an interval"))?;
    if parsed.months != 0 {
        return Err(wrong("months differ in length; group by date_trunc('month', …) for calendar months"));
    }
    let total = i128::from(parsed.days) * 86_400_000_000_000 + i128::from(parsed.nanoseconds);
    if total <= 0 { Err(wrong("an interval of a window is longer than nothing")) } else { Ok(total) }
}

fn rewrite_hop(select: &mut Select, index: usize, time: Expr, slide: Expr, size: Expr, sql: &SqlText) -> Result<(), Box<Fault>> {
    let (slide_ns, size_ns) = (nanoseconds(&slide, sql)?, nanoseconds(&size, sql)?);
    let windows = (size_ns + slide_ns - 1) / slide_ns;
    if windows > limits::HOP_WINDOWS {
        let place = place(sql, slide.span()).unwrap_or_else(|| first_line(sql));
        let message = format!("each row would stand in {windows} windows, more than {}", limits::HOP_WINDOWS);
        return Err(Box::new(Fault::error("wrong_window", place, message).hint("slide further, or make the windows shorter")));
    }
    let shifts: Vec<String> =
        (0..windows).map(|n| format!("(INTERVAL '{} microseconds')", n * slide_ns / 1000)).collect();
    let template = parse_select(&format!("SELECT 1 FROM (VALUES {}) AS _hop(_shift)", shifts.join(", ")), sql)?;
    select.from.extend(template.from);
    let start = binary(call("date_bin", vec![slide, time.clone()]), BinaryOperator::Minus, Expr::Identifier(Ident::new("_shift")));
    let end = plus(start.clone(), size);
    // Where the slide doesn't divide the size, the earliest window may end before the row.
    let holds = binary(end.clone(), BinaryOperator::Gt, time);
    select.selection = Some(match select.selection.take() {
        Some(condition) => binary(Expr::Nested(Box::new(condition)), BinaryOperator::And, holds),
        None => holds,
    });
    substitute(select, index, start.clone(), start, end);
    Ok(())
}

fn rewrite_session(select: &mut Select, index: usize, time: Expr, gap: Expr, sql: &SqlText) -> Result<(), Box<Fault>> {
    nanoseconds(&gap, sql)?;
    name_items(select);
    // What the SELECT reads, each under a name of our own, so that the rows can be wrapped.
    let mut columns: Vec<Expr> = Vec::new();
    let mut collect = |expr: &Expr| {
        let is_column = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
        if is_column && !is_name(expr, "window_start") && !is_name(expr, "window_end") && !columns.contains(expr) {
            columns.push(expr.clone());
        }
        ControlFlow::<()>::Continue(())
    };
    let _ = visit_expressions(&select.projection, &mut collect);
    let _ = visit_expressions(&select.having, &mut collect);
    let _ = visit_expressions(&select.group_by, &mut collect);
    let mut inner = select.clone();
    inner.group_by = GroupByExpr::Expressions(Vec::new(), Vec::new());
    inner.having = None;
    inner.distinct = None;
    inner.projection = columns
        .iter()
        .enumerate()
        .map(|(n, expr)| SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new(format!("_c{n}")) })
        .chain([SelectItem::ExprWithAlias { expr: time, alias: Ident::new("_time") }])
        .collect();
    let rename = |expr: &mut Expr| {
        if let Some(n) = columns.iter().position(|column| column == expr) {
            *expr = Expr::Identifier(Ident::new(format!("_c{n}")));
        }
        ControlFlow::<()>::Continue(())
    };
    let _ = visit_expressions_mut(&mut select.projection, rename);
    let _ = visit_expressions_mut(&mut select.having, rename);
    let GroupByExpr::Expressions(keys, _) = &mut select.group_by else { return Ok(()) };
    let _ = visit_expressions_mut(keys, rename);
    let others: Vec<String> =
        keys.iter().enumerate().filter(|(n, _)| *n != index).map(|(_, key)| key.to_string()).collect();
    let partition = if others.is_empty() { String::new() } else { format!("PARTITION BY {}", others.join(", ")) };
    let mut outer = parse_select(
        &format!(
            "SELECT 1 FROM (SELECT *, sum(_starts) OVER ({partition} ORDER BY _time \
             ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS _session FROM (SELECT *, \
             CASE WHEN _time - lag(_time) OVER ({partition} ORDER BY _time) < {gap} THEN 0 ELSE 1 END AS _starts \
             FROM _rows) AS _marked) AS _numbered"
        ),
        sql,
    )?;
    put_rows(&mut outer, inner);
    select.from = outer.from;
    select.selection = None;
    let time = || vec![Expr::Identifier(Ident::new("_time"))];
    let start = call("min", time());
    let end = plus(call("max", time()), gap);
    substitute(select, index, Expr::Identifier(Ident::new("_session")), start, end);
    Ok(())
}

/// Puts a SELECT in the place of the table `_rows`.
fn put_rows(outer: &mut Select, inner: Select) {
    struct Rows(Option<Select>);
    impl VisitorMut for Rows {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            let TableFactor::Table { name, .. } = &*factor else { return ControlFlow::Continue(()) };
            if name.to_string() != "_rows" {
                return ControlFlow::Continue(());
            }
            let Some(inner) = self.0.take() else { return ControlFlow::Break(()) };
            let alias = datafusion::sql::sqlparser::ast::TableAlias {
                explicit: true,
                name: Ident::new("_rows"),
                columns: Vec::new(),
                at: None,
            };
            *factor = TableFactor::Derived {
                lateral: false,
                subquery: Box::new(query_of(inner)),
                alias: Some(alias),
                sample: None,
            };
            ControlFlow::Break(())
        }
    }
    let _ = outer.visit(&mut Rows(Some(inner)));
}

fn query_of(select: Select) -> Query {
    Query {
        with: None,
        body: Box::new(SetExpr::Select(Box::new(select))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}

/// Parses SQL of our own making; its spans are those of no user's text, so they are taken away.
fn parse_select(text: &str, sql: &SqlText) -> Result<Select, Box<Fault>> {
    let internal = || Box::new(Fault::error("internal", first_line(sql), "the window can't be rewritten"));
    let statements = Parser::parse_sql(&TidemillDialect, text).map_err(|_| internal())?;
    match statements.into_iter().next() {
        Some(Statement::Query(query)) => match *query.body {
            SetExpr::Select(select) => Ok(*select),
            _ => Err(internal()),
        },
        _ => Err(internal()),
    }
}
