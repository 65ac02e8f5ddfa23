//! Windows that build on one with a name, `OVER (w ORDER BY …)` and `WINDOW v AS (w …)`, written out in the syntax tree: the engine
//! would leave the name out. Knows no schema.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, NamedWindowDefinition, NamedWindowExpr, Query, Select, VisitMut, VisitorMut, WindowSpec, WindowType,
};

use super::sql_text::folded;
use super::windows::each_select;
use crate::spec::fault::Fault;
use crate::spec::types::SqlText;

/// Writes out what such windows take of the one that they name; the faults of names that their SELECT doesn't define before.
pub fn write_out_windows(query: &mut Query, sql: &SqlText) -> Vec<Fault> {
    let mut selects = Selects { sql, faults: Vec::new() };
    let _: ControlFlow<()> = query.visit(&mut selects);
    selects.faults
}

struct Selects<'a> {
    sql: &'a SqlText,
    faults: Vec<Fault>,
}

impl VisitorMut for Selects<'_> {
    type Break = ();

    // Queries within come first: what is left in them by then isn't theirs.
    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        each_select(query, &mut |select, order_by| {
            let mut windows = Windows { sql: self.sql, defined: Vec::new(), faults: Vec::new() };
            windows.define(select);
            let _ = select.visit(&mut windows);
            if let Some(order_by) = order_by {
                let _ = order_by.visit(&mut windows);
            }
            self.faults.append(&mut windows.faults);
        });
        ControlFlow::Continue(())
    }
}

/// The named windows of one SELECT, written out.
struct Windows<'a> {
    sql: &'a SqlText,
    defined: Vec<(String, WindowSpec)>,
    faults: Vec<Fault>,
}

impl VisitorMut for Windows<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && let Some(WindowType::WindowSpec(spec)) = &mut function.over
        {
            self.write_out(spec);
        }
        ControlFlow::Continue(())
    }
}

impl Windows<'_> {
    fn define(&mut self, select: &mut Select) {
        for NamedWindowDefinition(name, definition) in &mut select.named_window {
            let spec = match definition {
                NamedWindowExpr::WindowSpec(spec) => {
                    self.write_out(spec);
                    spec.clone()
                }
                NamedWindowExpr::NamedWindow(other) => match self.named(other) {
                    Some(spec) => spec.clone(),
                    None => continue,
                },
            };
            self.defined.push((folded(name), spec));
        }
    }

    fn named(&self, name: &Ident) -> Option<&WindowSpec> {
        let name = folded(name);
        self.defined.iter().find(|(defined, _)| *defined == name).map(|(_, spec)| spec)
    }

    fn write_out(&mut self, spec: &mut WindowSpec) {
        let Some(name) = spec.window_name.take() else { return };
        let Some(base) = self.named(&name).cloned() else {
            let message = format!("no window `{name}` is defined before");
            self.faults.push(Fault::error("unknown_window", self.sql.place_of(name.span), message));
            return;
        };
        if spec.partition_by.is_empty() {
            spec.partition_by = base.partition_by;
        }
        if spec.order_by.is_empty() {
            spec.order_by = base.order_by;
        }
        spec.window_frame = spec.window_frame.take().or(base.window_frame);
    }
}
