//! When rows of a result are closed: which of them the watermark has passed, so that only late rows can change them. Reads
//! plans; knows no watermark's making.
//!
//! The end of a time window closes it. Without such a column, one that is a monotone function of the time does: a row is closed
//! once the function of the watermark is beyond its value. Through a local time zone, whose clock goes back once a year, a day
//! later.

use arrow::datatypes::{DataType, FieldRef, SchemaRef, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::logical_expr::{Distinct, Expr, ExprSchemable, LogicalPlan, cast, lit};

use super::wall_clock;
use super::window_plan::{QUALIFIER, WINDOW_END, WINDOW_START};

const DAY_US: i64 = 86_400_000_000;

/// The column that says when a row is closed.
#[derive(Debug, Clone)]
pub struct Closing {
    column: String,
    rule: Rule,
    data_type: DataType,
}

#[derive(Debug, Clone)]
enum Rule {
    /// At the column's own value.
    End,
    /// Once `of`, with the watermark for its one column `time`, is beyond the column's value.
    Beyond { of: Box<Expr>, time: Column, time_type: DataType, is_local: bool },
}

impl Closing {
    /// Name of the column.
    pub fn column(&self) -> &str {
        &self.column
    }

    /// Which rows of the table are closed by a watermark, microseconds since 1970 UTC; null counts as no.
    pub fn condition(&self, watermark_us: i64) -> Result<Expr> {
        let column = Expr::Column(Column::new_unqualified(&self.column));
        let passed = self.passed(watermark_us)?;
        Ok(match &self.rule {
            Rule::End => column.lt_eq(passed),
            Rule::Beyond { .. } => column.lt(passed),
        })
    }

    /// A constant, of the column's own unit: rows with lesser values are closed by a watermark.
    pub fn passed(&self, watermark_us: i64) -> Result<Expr> {
        let Rule::Beyond { of, time, time_type, is_local } = &self.rule else {
            return Ok(instant(watermark_us, &self.data_type));
        };
        let late = if *is_local { watermark_us.saturating_sub(DAY_US) } else { watermark_us };
        let at = instant(late, time_type);
        let of = of.as_ref().clone().transform(|expr| match &expr {
            Expr::Column(column) if column == time => Ok(Transformed::yes(at.clone())),
            _ => Ok(Transformed::no(expr)),
        })?;
        Ok(cast(of.data, self.data_type.clone()))
    }
}

/// An instant as a value of a time column. On a wall clock whose zone isn't known here, a day earlier: no zone is that far.
fn instant(us: i64, data_type: &DataType) -> Expr {
    let behind = us.saturating_sub(DAY_US);
    match data_type {
        DataType::Timestamp(_, Some(zone)) => lit(ScalarValue::TimestampMicrosecond(Some(us), Some(zone.clone()))),
        DataType::Date32 => lit(ScalarValue::Date32(i32::try_from(behind.div_euclid(DAY_US)).ok())),
        _ => lit(ScalarValue::TimestampMicrosecond(Some(behind), None)),
    }
}

/// How rows of `plan`, stored as `schema`, are closed; none where no column tells.
pub fn closing(plan: &LogicalPlan, schema: &SchemaRef) -> Option<Closing> {
    let columns = plan.schema().columns().into_iter().map(Expr::Column);
    closing_of(plan, schema.fields().iter().zip(columns), &|_| None)
}

/// Gives the rows that a scan reads groups of, and the groups' expressions, by the scan's name.
pub type Grouped<'a> = dyn Fn(&str) -> Option<(&'a LogicalPlan, &'a [Expr])> + 'a;

/// How rows with these values of `plan`, each stored as a field, are closed; none where none of them tells.
pub fn closing_of<'a>(
    plan: &LogicalPlan,
    values: impl Iterator<Item = (&'a FieldRef, Expr)>,
    grouped: &Grouped<'_>,
) -> Option<Closing> {
    let rules = values.filter_map(|(field, value)| {
        let is_time = matches!(field.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _) | DataType::Date32);
        let rule = if is_time { rule_of(plan, value, grouped) } else { None }?;
        Some(Closing { column: field.name().clone(), rule, data_type: field.data_type().clone() })
    });
    // Ends are exact; among the others the first will do.
    let mut rules: Vec<Closing> = rules.collect();
    rules.sort_by_key(|closing| !matches!(closing.rule, Rule::End));
    rules.into_iter().next()
}

fn rule_of(plan: &LogicalPlan, value: Expr, grouped: &Grouped<'_>) -> Option<Rule> {
    let (of, schema) = traced(plan, value, grouped, To::Ends)?;
    if let Expr::Column(column) = bare(&of)
        && is_window_end(column)
    {
        return Some(Rule::End);
    }
    let columns = of.column_refs();
    let [time] = columns.iter().copied().collect::<Vec<_>>()[..] else { return None };
    let time_type = Expr::Column(time.clone()).get_type(&schema).ok()?;
    let is_time = matches!(time_type, DataType::Timestamp(TimeUnit::Microsecond, _) | DataType::Date32);
    if !is_time || !is_monotone(&of) {
        return None;
    }
    let is_local = is_local(&of, &schema);
    Some(Rule::Beyond { time: time.clone(), of: Box::new(of), time_type, is_local })
}

fn is_window_end(column: &Column) -> bool {
    column.name == WINDOW_END && column.relation.as_ref().is_some_and(|relation| relation.table() == QUALIFIER)
}

fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr),
        Expr::Cast(cast) => bare(&cast.expr),
        other => other,
    }
}

/// How far an expression is followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// To the scans of the plan.
    Scans,
    /// The same, or to the end of a window.
    Ends,
}

/// `expr` over the columns of the relations that the plan reads, or over the end of a window; none where a column comes out
/// of an aggregate, a union or a list.
pub fn traced(plan: &LogicalPlan, expr: Expr, grouped: &Grouped<'_>, to: To) -> Option<(Expr, DFSchema)> {
    if to == To::Ends && expr.column_refs().iter().any(|column| is_window_end(column)) {
        return Some((expr, plan.schema().as_ref().clone()));
    }
    let at_input = |input: &LogicalPlan, place: &dyn Fn(usize) -> Option<Expr>| {
        let placed = replaced(expr.clone(), plan.schema(), place)?;
        traced(input, placed, grouped, to)
    };
    let same = |input: &LogicalPlan, at: usize| {
        let (qualifier, field) = input.schema().qualified_field(at);
        Some(Expr::Column(Column::from((qualifier, field))))
    };
    let kept = |input: &LogicalPlan| {
        at_input(input, &|at| (at < input.schema().fields().len()).then(|| same(input, at)).flatten())
    };
    match plan {
        LogicalPlan::TableScan(scan) => match grouped(scan.table_name.table()) {
            Some((rows, groups)) => at_input(rows, &|at| groups.get(at).cloned()),
            None => Some((expr, plan.schema().as_ref().clone())),
        },
        LogicalPlan::Projection(projection) => at_input(&projection.input, &|at| {
            let expr = projection.expr.get(at)?.clone().unalias();
            Some(expr)
        }),
        LogicalPlan::Aggregate(aggregate) => at_input(&aggregate.input, &|at| aggregate.group_expr.get(at).cloned()),
        LogicalPlan::SubqueryAlias(alias) => kept(&alias.input),
        LogicalPlan::Filter(filter) => kept(&filter.input),
        LogicalPlan::Sort(sort) => kept(&sort.input),
        LogicalPlan::Limit(limit) => kept(&limit.input),
        LogicalPlan::Window(window) => kept(&window.input),
        LogicalPlan::Distinct(Distinct::All(input)) => kept(input),
        LogicalPlan::Join(join) => {
            let width = join.left.schema().fields().len();
            let columns = expr.column_refs();
            let places: Option<Vec<usize>> =
                columns.iter().map(|column| plan.schema().maybe_index_of_column(column)).collect();
            let places = places?;
            if places.iter().all(|at| *at < width) {
                kept(&join.left)
            } else if places.iter().all(|at| *at >= width) {
                at_input(&join.right, &|at| same(&join.right, at.checked_sub(width)?))
            } else {
                None
            }
        }
        _ => None,
    }
}

/// `expr` with each column replaced by what stands at its place; none where nothing does.
fn replaced(expr: Expr, schema: &DFSchema, place: &dyn Fn(usize) -> Option<Expr>) -> Option<Expr> {
    let mut is_whole = true;
    let replaced = expr.transform(|expr| {
        let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
        match schema.maybe_index_of_column(column).and_then(place) {
            // What was put in isn't looked into.
            Some(put) => Ok(Transformed::new(put, true, TreeNodeRecursion::Jump)),
            None => {
                is_whole = false;
                Ok(Transformed::no(expr))
            }
        }
    });
    replaced.ok().map(|replaced| replaced.data).filter(|_| is_whole)
}

/// Whether the value never goes back as the time goes on (within a zone's clock).
fn is_monotone(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) => true,
        Expr::Alias(alias) => is_monotone(&alias.expr),
        Expr::Cast(cast) => cast.field.data_type().is_temporal() && is_monotone(&cast.expr),
        Expr::ScalarFunction(function) => {
            let time = match function.name() {
                "date_trunc" | "date_bin" => 1,
                // The function that starts a tumbling window is called as its column. Times in a gap of a zone's clock, which go
                // forward, come behind later ones, as wall-clock times do when clocks go back: within a day, which is waited for.
                WINDOW_START | wall_clock::INSTANT | wall_clock::WALL_CLOCK => 0,
                _ => return false,
            };
            let is_fine = |(at, arg): (usize, &Expr)| match at == time {
                true => is_monotone(arg),
                false => matches!(arg, Expr::Literal(..)),
            };
            function.args.iter().enumerate().all(is_fine)
        }
        _ => false,
    }
}

/// Whether a zone's wall clock decides the value.
fn is_local(expr: &Expr, schema: &DFSchema) -> bool {
    let is_zoned = |data_type: &DataType| matches!(data_type, DataType::Timestamp(_, Some(zone)) if !matches!(zone.as_ref(), "UTC" | "+00:00"));
    expr.exists(|expr| {
        let inner = match expr {
            Expr::Cast(cast) if !matches!(cast.field.data_type(), DataType::Timestamp(_, Some(_))) => &cast.expr,
            Expr::ScalarFunction(function)
                if [wall_clock::INSTANT, wall_clock::WALL_CLOCK].contains(&function.name()) =>
            {
                return Ok(true);
            }
            Expr::ScalarFunction(function) if function.name() == "date_trunc" => match function.args.get(1) {
                Some(time) => time,
                None => return Ok(false),
            },
            _ => return Ok(false),
        };
        Ok(is_zoned(&inner.get_type(schema)?))
    })
    .unwrap_or(true)
}
