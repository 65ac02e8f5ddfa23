//! Time windows as plans: the columns `window_start` and `window_end` over a FROM clause. Knows neither GROUP BY nor faults.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Builder, ListBuilder, PrimitiveArray};
use arrow::datatypes::{DataType, Field, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{
    Column, DFSchema, Diagnostic, Result, ScalarValue, Span, exec_datafusion_err, exec_err, internal_datafusion_err,
    plan_datafusion_err,
};
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_window::expr_fn::{lag, lead};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::expr_rewriter::normalize_col;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprFunctionExt, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility, WindowFrame, WindowFrameBound, WindowFrameUnits,
    WindowFunctionDefinition, cast, lit, when,
};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArguments, Join, JoinConstraint, JoinOperator, Query,
    Select, SelectItem, SetExpr, Spanned, TableFactor, TableWithJoins, Value,
};

/// Alias of the subquery that stands for "this FROM clause, with window columns": [`super::windows`] writes it.
pub const MARKER: &str = "__tidemill_window";
/// Qualifier of the window columns. A reserved word, so that no table has it.
pub const QUALIFIER: &str = "window";
/// First instant of the window.
pub const WINDOW_START: &str = "window_start";
/// First instant after the window.
pub const WINDOW_END: &str = "window_end";

/// Time in microseconds, while sessions are made of it.
pub const SESSION_TIME: &str = "us";
/// That time where a session begins, while sessions are made of it.
pub const OPENS: &str = "opens";
/// And where its last row is.
pub const CLOSES: &str = "closes";

/// Plans what [`super::windows`] has marked.
#[derive(Debug)]
pub struct WindowPlanner;

impl RelationPlanner for WindowPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        match relation {
            TableFactor::Derived { subquery, alias: Some(alias), .. } if alias.name.value == MARKER => {
                let plan = plan_marked(*subquery, context)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

/// The marker is `SELECT call(time, microseconds…), key… FROM … WHERE …`; a key `expression AS name` is the column `name`
/// where FROM has one, else the expression, as in GROUP BY.
fn plan_marked(query: Query, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let SetExpr::Select(select) = *query.body else { return Err(malformed()) };
    let Select { projection, from, selection, .. } = *select;
    let mut plan = context.plan(one_relation(from)?)?;
    if let Some(predicate) = selection {
        let predicate = context.sql_to_expr(predicate, plan.schema())?;
        plan = LogicalPlanBuilder::from(plan).filter(predicate)?.build()?;
    }
    let mut items = projection.into_iter();
    let Some(SelectItem::UnnamedExpr(SqlExpr::Function(call))) = items.next() else { return Err(malformed()) };
    let name = call.name.to_string();
    let FunctionArguments::List(list) = call.args else { return Err(malformed()) };
    let mut args = list.args.into_iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
        _ => Err(malformed()),
    });
    let time = args.next().ok_or_else(malformed)??;
    let span = Span::try_from_sqlparser_span(time.span());
    let time = context.sql_to_expr(time, plan.schema())?;
    let time = time_of(normalize_col(time, &plan)?, plan.schema(), &name, span)?;
    let sizes = args.map(|arg| microseconds(&arg?)).collect::<Result<Vec<i64>>>()?;
    let keys = items.map(|item| key(item, &plan, context)).collect::<Result<Vec<Expr>>>()?;
    match (name.as_str(), sizes.as_slice()) {
        ("tumble", [size]) => tumble(plan, time, *size),
        ("hop", [slide, size]) => hop(plan, time, *slide, *size),
        ("session", [gap, with_end]) => session(plan, time, *gap, *with_end != 0, keys),
        _ => Err(malformed()),
    }
}

fn malformed() -> datafusion::common::DataFusionError {
    internal_datafusion_err!("a window marker is malformed")
}

fn one_relation(from: Vec<TableWithJoins>) -> Result<TableFactor> {
    let mut parts = from.into_iter();
    let mut first = parts.next().ok_or_else(malformed)?;
    for part in parts {
        first.joins.push(Join {
            relation: TableFactor::NestedJoin { table_with_joins: Box::new(part), alias: None },
            global: false,
            join_operator: JoinOperator::CrossJoin(JoinConstraint::None),
        });
    }
    Ok(if first.joins.is_empty() {
        first.relation
    } else {
        TableFactor::NestedJoin { table_with_joins: Box::new(first), alias: None }
    })
}

fn microseconds(expr: &SqlExpr) -> Result<i64> {
    match expr {
        SqlExpr::Value(value) => match &value.value {
            Value::Number(text, _) => text.parse().map_err(|_| malformed()),
            _ => Err(malformed()),
        },
        _ => Err(malformed()),
    }
}

fn key(item: SelectItem, plan: &LogicalPlan, context: &mut dyn RelationPlannerContext) -> Result<Expr> {
    let expr = match item {
        SelectItem::UnnamedExpr(expr) => expr,
        SelectItem::ExprWithAlias { expr, alias } => {
            let name = context.normalize_ident(alias.clone());
            if plan.schema().has_column_with_unqualified_name(&name) { SqlExpr::Identifier(alias) } else { expr }
        }
        _ => return Err(malformed()),
    };
    normalize_col(context.sql_to_expr(expr, plan.schema())?, plan)
}

/// The time in microseconds, its zone kept; a date is its midnight.
fn time_of(time: Expr, schema: &DFSchema, call: &str, span: Option<Span>) -> Result<Expr> {
    match time.get_type(schema)? {
        DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(time),
        DataType::Timestamp(_, zone) => Ok(cast(time, DataType::Timestamp(TimeUnit::Microsecond, zone))),
        DataType::Date32 | DataType::Date64 => Ok(cast(time, DataType::Timestamp(TimeUnit::Microsecond, None))),
        other => {
            let found = super::types::sql_name(&other);
            let message = format!("{call}() takes a timestamp or timestamptz as its time, and this is {found}");
            Err(plan_datafusion_err!("{message}").with_diagnostic(Diagnostic::new_error(message, span)))
        }
    }
}

fn columns(plan: &LogicalPlan) -> Vec<Expr> {
    plan.schema().columns().into_iter().map(Expr::Column).collect()
}

fn project_with(plan: LogicalPlan, more: Vec<Expr>) -> Result<LogicalPlan> {
    let mut exprs = columns(&plan);
    exprs.extend(more);
    LogicalPlanBuilder::from(plan).project(exprs)?.build()
}

fn named(expr: Expr, name: &str) -> Expr {
    expr.alias_qualified(Some(QUALIFIER), name)
}

fn window_column(name: &str) -> Expr {
    Expr::Column(Column::new(Some(QUALIFIER), name))
}

fn end_of(start: Expr, size_us: i64) -> Expr {
    named(ScalarUDF::from(TimeFunction::new(Kind::End)).call(vec![start, lit(size_us)]), WINDOW_END)
}

fn tumble(plan: LogicalPlan, time: Expr, size_us: i64) -> Result<LogicalPlan> {
    let start = ScalarUDF::from(TimeFunction::new(Kind::Start)).call(vec![time, lit(size_us)]);
    project_with(plan, vec![named(start.clone(), WINDOW_START), end_of(start, size_us)])
}

fn hop(plan: LogicalPlan, time: Expr, slide_us: i64, size_us: i64) -> Result<LogicalPlan> {
    const STARTS: &str = "__window_starts";
    let mut exprs = columns(&plan);
    let starts = ScalarUDF::from(TimeFunction::new(Kind::Starts)).call(vec![time, lit(slide_us), lit(size_us)]);
    let plan = project_with(plan, vec![starts.alias(STARTS)])?;
    // A null time gives a null list, which stays as one row: no row is lost without a word.
    let plan = LogicalPlanBuilder::from(plan).unnest_column(Column::from_name(STARTS))?.build()?;
    let start = Expr::Column(Column::from_name(STARTS));
    exprs.extend([named(start.clone(), WINDOW_START), end_of(start, size_us)]);
    LogicalPlanBuilder::from(plan).project(exprs)?.build()
}

/// A row opens a session where the one before it, of the same keys, is `gap` or more away, and closes one where the next is.
/// The start is the latest opening so far; the end, `gap` after the next closing.
fn session(plan: LogicalPlan, time: Expr, gap_us: i64, with_end: bool, keys: Vec<Expr>) -> Result<LogicalPlan> {
    let time_type = time.get_type(plan.schema())?;
    let kept = columns(&plan);
    let us = || window_column(SESSION_TIME);
    let order = || vec![us().sort(true, false)];
    let plan = project_with(plan, vec![named(cast(time, DataType::Int64), SESSION_TIME)])?;

    let neighbours = [lag(us(), Some(1), None), lead(us(), Some(1), None)];
    let neighbours = neighbours.into_iter().take(if with_end { 2 } else { 1 }).map(|f| over(f, &keys, order(), None));
    let (plan, near) = with_windows(plan, neighbours.collect::<Result<_>>()?)?;

    let far = |left: Expr, right: Expr, neighbour: Expr| {
        when(us().is_not_null().and(neighbour.is_null().or((left - right).gt_eq(lit(gap_us)))), us()).end()
    };
    let mut edges = vec![named(far(us(), near[0].clone(), near[0].clone())?, OPENS)];
    if let Some(next) = near.get(1) {
        edges.push(named(far(next.clone(), us(), next.clone())?, CLOSES));
    }
    let plan = LogicalPlanBuilder::from(plan).project(kept.iter().cloned().chain([us()]).chain(edges))?.build()?;

    let aggregate = |function, column| {
        Expr::from(WindowFunction::new(WindowFunctionDefinition::AggregateUDF(function), vec![column]))
    };
    let until_here = frame(WindowFrameBound::Preceding(ScalarValue::Null), WindowFrameBound::CurrentRow);
    let from_here = frame(WindowFrameBound::CurrentRow, WindowFrameBound::Following(ScalarValue::Null));
    let mut bounds = vec![over(aggregate(max_udaf(), window_column(OPENS)), &keys, order(), Some(until_here))?];
    if with_end {
        bounds.push(over(aggregate(min_udaf(), window_column(CLOSES)), &keys, order(), Some(from_here))?);
    }
    let (plan, bounds) = with_windows(plan, bounds)?;

    // A row without a time stands in no session: its window is null, as its group by any other null key would be.
    let known = |bound: Expr| when(us().is_not_null(), cast(bound, time_type.clone())).end();
    let mut exprs = kept;
    exprs.push(named(known(bounds[0].clone())?, WINDOW_START));
    if let Some(last) = bounds.get(1) {
        exprs.push(named(known(last.clone() + lit(gap_us))?, WINDOW_END));
    }
    LogicalPlanBuilder::from(plan).project(exprs)?.build()
}

fn frame(start: WindowFrameBound, end: WindowFrameBound) -> WindowFrame {
    WindowFrame::new_bounds(WindowFrameUnits::Range, start, end)
}

fn over(
    function: Expr,
    keys: &[Expr],
    order: Vec<datafusion::logical_expr::SortExpr>,
    frame: Option<WindowFrame>,
) -> Result<Expr> {
    let builder = function.partition_by(keys.to_vec()).order_by(order);
    match frame {
        Some(frame) => builder.window_frame(frame).build(),
        None => builder.build(),
    }
}

/// The plan with `functions` as further columns, and those columns.
fn with_windows(plan: LogicalPlan, functions: Vec<Expr>) -> Result<(LogicalPlan, Vec<Expr>)> {
    let width = plan.schema().fields().len();
    let plan = LogicalPlanBuilder::from(plan).window(functions)?.build()?;
    let added = plan.schema().columns().into_iter().skip(width).map(Expr::Column).collect();
    Ok((plan, added))
}

/// The functions of time that windows are made of. Sizes are microseconds, always positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// (time, size): start of the window of `size` that holds the time; windows are counted from 1970-01-01 00:00 UTC.
    Start,
    /// (time, slide, size): starts of all windows that hold the time.
    Starts,
    /// (time, size): time + size.
    End,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeFunction {
    kind: Kind,
    signature: Signature,
}

impl TimeFunction {
    fn new(kind: Kind) -> Self {
        Self { kind, signature: Signature::any(if kind == Kind::Starts { 3 } else { 2 }, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for TimeFunction {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Start => WINDOW_START,
            Kind::Starts => "window_starts",
            Kind::End => WINDOW_END,
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Start | Kind::End => args[0].clone(),
            Kind::Starts => DataType::List(Arc::new(Field::new_list_field(args[0].clone(), true))),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar_in = matches!(args.args[0], ColumnarValue::Scalar(_));
        let time = args.args[0].to_array(args.number_rows)?;
        let sizes = args.args[1..].iter().map(size_of).collect::<Result<Vec<i64>>>()?;
        let time = time
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(|| internal_datafusion_err!("a window's time isn't in microseconds"))?;
        let result: ArrayRef = match (self.kind, sizes.as_slice()) {
            (Kind::Start, [size]) => Arc::new(map(time, |us| us.checked_sub(us.rem_euclid(*size)))?),
            (Kind::End, [size]) => Arc::new(map(time, |us| us.checked_add(*size))?),
            (Kind::Starts, [slide, size]) => starts(time, *slide, *size)?,
            _ => return exec_err!("{}() has the wrong number of sizes", self.name()),
        };
        if scalar_in {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

fn size_of(value: &ColumnarValue) -> Result<i64> {
    match value {
        ColumnarValue::Scalar(ScalarValue::Int64(Some(size))) if *size > 0 => Ok(*size),
        _ => exec_err!("a window's size is a positive number of microseconds"),
    }
}

type Times = PrimitiveArray<TimestampMicrosecondType>;

fn out_of_range() -> datafusion::common::DataFusionError {
    exec_datafusion_err!("a time window is out of the range of timestamps")
}

fn map(time: &Times, f: impl Fn(i64) -> Option<i64>) -> Result<Times> {
    let mapped: Times = time.try_unary(|us| f(us).ok_or_else(out_of_range))?;
    Ok(mapped.with_data_type(time.data_type().clone()))
}

fn starts(time: &Times, slide: i64, size: i64) -> Result<ArrayRef> {
    let mut lists = ListBuilder::new(Int64Builder::new());
    for us in time {
        let Some(us) = us else {
            lists.append_null();
            continue;
        };
        let last = us.checked_sub(us.rem_euclid(slide)).ok_or_else(out_of_range)?;
        let first_out = us.checked_sub(size).ok_or_else(out_of_range)?;
        // Windows start at multiples of the slide in (us - size, us]: the first is the multiple next after us - size.
        let mut start = first_out - first_out.rem_euclid(slide) + slide;
        while start <= last {
            lists.values().append_value(start);
            start += slide;
        }
        lists.append(true);
    }
    let lists = lists.finish();
    let (_, offsets, values, nulls) = lists.into_parts();
    let values = values.as_primitive::<Int64Type>().reinterpret_cast::<TimestampMicrosecondType>();
    let values = values.with_data_type(time.data_type().clone());
    let field = Arc::new(Field::new_list_field(time.data_type().clone(), true));
    Ok(Arc::new(arrow::array::ListArray::try_new(field, offsets, Arc::new(values), nulls)?))
}
