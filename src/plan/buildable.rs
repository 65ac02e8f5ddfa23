//! What a batch run of a model would fail of before it reads a row: faults with places. Plans over no rows; knows no relation.

use std::any::Any;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::MemTable;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::window::{SlidingAggregateWindowExpr, WindowExpr};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::sql::sqlparser::ast::{Expr, Query, Spanned, Value, VisitMut, VisitorMut};

use super::constants::check_constants;
use super::relation::{bind_scan, placeholder};
use super::sql_faults::{described, plain_types};
use super::sql_text::first_word;
use crate::limits::{FAULT_PROBES_PER_SQL_MAX, NAME_FAULTS_PER_SQL_MAX};
use crate::spec::fault::{Fault, Place};
use crate::spec::types::SqlText;

/// What the engine says of an expression that its optimizer should have made a join of.
const NO_JOIN: &str = "Physical plan does not support logical expression ";

/// Builds one form of a query; none where it can't even be planned.
pub type Builder<'a> = &'a dyn Fn(Query) -> Option<Result<()>>;

/// Optimizes a bound plan and makes it physical, as a run does, over relations without rows.
///
/// # Errors
/// What any run fails of, whatever the rows are, or as soon as there is one.
pub fn build(state: &SessionState, plan: &LogicalPlan) -> Result<()> {
    check_constants(state, plan)?;
    let plan = plan.clone().transform_up_with_subqueries(|node| match node {
        LogicalPlan::TableScan(scan) => {
            let Some(relation) = placeholder(&scan) else { return Ok(Transformed::no(LogicalPlan::TableScan(scan))) };
            let empty: Arc<dyn TableProvider> = Arc::new(MemTable::try_new(relation.schema(), vec![vec![]])?);
            bind_scan(&scan, &empty).map(Transformed::yes)
        }
        other => Ok(Transformed::no(other)),
    })?;
    // Nearly every plan can be built, which one pass over it shows; of another one the way of a run decides.
    let mut config = state.config().clone();
    config.options_mut().optimizer.max_passes = 1;
    let builder = SessionStateBuilder::new_from_existing(state.clone()).with_config(config);
    let once = builder.with_physical_optimizer_rules(vec![]).build();
    begun(&once, &plan.data).or_else(|_| begun(state, &plan.data))
}

fn begun(state: &SessionState, plan: &LogicalPlan) -> Result<()> {
    // Tables in memory have nothing to wait for; as a part of a task they would be told to wait for others, after many of them.
    let plan = futures::executor::block_on(tokio::task::unconstrained(state.create_physical_plan(plan)))?;
    plan.apply(|node| {
        let node: &dyn Any = node.as_ref();
        node.downcast_ref::<AggregateExec>().map_or(Ok(()), begin)?;
        node.downcast_ref::<WindowAggExec>().map_or(Ok(()), |window| begin_frames(window.window_expr()))?;
        node.downcast_ref::<BoundedWindowAggExec>().map_or(Ok(()), |window| begin_frames(window.window_expr()))?;
        Ok(TreeNodeRecursion::Continue)
    })
    .map(drop)
}

/// Begins an aggregate, which is when it finds that it can't be made.
fn begin(aggregate: &AggregateExec) -> Result<()> {
    for function in aggregate.aggr_expr() {
        if !aggregate.group_expr().is_empty() && function.groups_accumulator_supported() {
            function.create_groups_accumulator()?;
        } else {
            function.create_accumulator()?;
        }
    }
    Ok(())
}

/// Begins aggregates over frames that move, not all of which can give up a row.
fn begin_frames(windows: &[Arc<dyn WindowExpr>]) -> Result<()> {
    for window in windows {
        if let Some(moving) = window.as_any().downcast_ref::<SlidingAggregateWindowExpr>() {
            moving.get_aggregate_expr().create_sliding_accumulator()?;
        }
    }
    Ok(())
}

/// The faults of a query that can be planned and not built, whose first `error` is known: each at the smallest expression without
/// which there is another error or none.
pub fn build_faults(mut query: Query, sql: &SqlText, mut error: DataFusionError, builder: Builder<'_>) -> Vec<Fault> {
    let mut search = Search { builder, left: FAULT_PROBES_PER_SQL_MAX };
    let mut faults = Vec::new();
    for _ in 0..NAME_FAULTS_PER_SQL_MAX {
        let Some(found) = search.offender(&query, &error) else {
            // What is left after the first may be a consequence of its being gone.
            if faults.is_empty() {
                faults.push(told(&error, first_word(sql)));
            }
            break;
        };
        faults.push(told(&error, sql.place_of(found.expr.span())));
        match found.next {
            Some(next) => (query, error) = (found.rest, next),
            None => break,
        }
    }
    faults
}

/// An expression at fault, the query without it, and what that fails of.
struct Offender {
    expr: Expr,
    rest: Query,
    next: Option<DataFusionError>,
}

struct Search<'a> {
    builder: Builder<'a>,
    left: usize,
}

impl Search<'_> {
    /// The expression that is alone at fault, or else the first without which there is another error.
    fn offender(&mut self, query: &Query, error: &DataFusionError) -> Option<Offender> {
        let is_of_subqueries = message(error).contains(NO_JOIN);
        let mut other = None;
        for at in 0.. {
            let mut rest = query.clone();
            let mut blanker = Blanker { left: at, is_of_subqueries, blanked: None };
            let _: ControlFlow<()> = rest.visit(&mut blanker);
            let Some(expr) = blanker.blanked.filter(|_| self.left > 0) else { break };
            self.left -= 1;
            match (self.builder)(rest.clone()) {
                Some(Ok(())) => return Some(Offender { expr, rest, next: None }),
                Some(Err(next)) if other.is_none() && message(&next) != message(error) => {
                    other = Some(Offender { expr, rest, next: Some(next) });
                }
                _ => {}
            }
        }
        other
    }
}

/// Makes one expression a null: the one after `left` others, innermost first.
struct Blanker {
    left: usize,
    is_of_subqueries: bool,
    blanked: Option<Expr>,
}

impl VisitorMut for Blanker {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let is_asked_for = match expr {
            Expr::InSubquery { .. } | Expr::Exists { .. } | Expr::Subquery(_) => true,
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Nested(_) => false,
            _ => !self.is_of_subqueries,
        };
        if !is_asked_for {
            return ControlFlow::Continue(());
        }
        if self.left > 0 {
            self.left -= 1;
            return ControlFlow::Continue(());
        }
        self.blanked = Some(std::mem::replace(expr, Expr::value(Value::Null)));
        ControlFlow::Break(())
    }
}

fn message(error: &DataFusionError) -> String {
    error.find_root().strip_backtrace()
}

/// An error as a fault, in words of SQL.
fn told(error: &DataFusionError, place: Place) -> Fault {
    let text = message(error);
    if let Some((_, expr)) = text.split_once(NO_JOIN) {
        return of_subquery(expr, place);
    }
    if text.contains("COUNT DISTINCT with multiple arguments") {
        return Fault::error("unsupported_sql", place, "count(DISTINCT …) takes one argument")
            .hint("count rows that are distinct: `SELECT count(*) FROM (SELECT DISTINCT a, b FROM …)`");
    }
    if text.contains("`retract_batch` is not implemented") {
        return Fault::error("unsupported_sql", place, "this aggregate can't follow a frame whose first row moves")
            .hint(
                "begin the frame with UNBOUNDED PRECEDING, or join the rows of each frame and aggregate with GROUP BY",
            );
    }
    if let Some((_, expression)) = text.split_once("regex parse error:") {
        let why = expression.rsplit_once("error: ").map_or("", |(_, why)| why.trim_end_matches(['~', '\n', ')', ' ']));
        return Fault::error("wrong_value", place, format!("this regular expression can't be read: {why}"));
    }
    unreadable(&text, place.clone()).unwrap_or_else(|| described(error, place))
}

fn of_subquery(expr: &str, place: Place) -> Fault {
    let condition = match expr {
        expr if expr.starts_with("InSubquery") => "IN (SELECT …)",
        expr if expr.starts_with("Exists") => "EXISTS (SELECT …)",
        expr if expr.starts_with("ScalarSubquery") => {
            let message = "a subquery for each row can be run only if it finds its rows by `=`";
            return Fault::error("unsupported_sql", place, message)
                .hint("join the tables, and aggregate with GROUP BY");
        }
        _ => return Fault::error("unsupported_sql", place, "this can't be run here"),
    };
    let message = format!("`{condition}` can be run as a condition in WHERE, and not as a value");
    Fault::error("unsupported_sql", place, message)
        .hint("LEFT JOIN a SELECT DISTINCT of those rows, and take `its_column IS NOT NULL` for the value")
}

/// A literal that isn't of the type that it is to be.
fn unreadable(text: &str, place: Place) -> Option<Fault> {
    let between = |before: &str, after: &str| {
        let (_, rest) = text.split_once(before)?;
        rest.split_once(after).map(|(found, rest)| (found.to_owned(), rest.to_owned()))
    };
    let (value, of) = if let Some((value, _)) = between("Error parsing timestamp from '", "':") {
        (format!("'{value}'"), "timestamp".to_owned())
    } else if let Some((value, rest)) = between("Cannot cast string '", "' to value of ") {
        (format!("'{value}'"), plain_types(rest.trim_end_matches(" type")))
    } else if let Some((value, of)) = between("Can't cast value ", " to type ") {
        return Some(Fault::error("wrong_value", place, format!("{value} doesn't fit {}", plain_types(&of))));
    } else {
        return None;
    };
    let fault = Fault::error("wrong_value", place, format!("{value} can't be read as {of}"));
    Some(match of.as_str() {
        "date" => fault.hint("a date is written '2018-01-31'"),
        "timestamp" => fault.hint("a time is written '2018-01-31 09:30:00', or '2018-01-31T09:30:00Z'"),
        _ => fault,
    })
}
