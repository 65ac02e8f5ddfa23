//! Conditions whose parts may fail: `n <> 0 AND 100 / n > 1`. The engine may compute both sides of every row, as values are spread over
//! batches. Here what may fail is computed of the rows that the rest leaves open. Knows physical plans only.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, CaseExpr, CastExpr, Literal, lit};
use datafusion::physical_expr::utils::conjunction;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr, split_conjunction};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

/// Functions of any values, none of which they fail of. Of others it isn't known.
const SAFE: [&str; 22] = [
    "btrim",
    "ceil",
    "character_length",
    "coalesce",
    "concat",
    "date_part",
    "date_trunc",
    "floor",
    "get_field",
    "left",
    "lower",
    "ltrim",
    "nullif",
    "octet_length",
    "right",
    "round",
    "rtrim",
    "starts_with",
    "strpos",
    "substr",
    "trim",
    "upper",
];

/// The engine's rules between ours: columns come first, since scans take them over; conditions last, since scans skip by their parts.
pub fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> = vec![Arc::new(GuardedColumns)];
    rules.extend(PhysicalOptimizer::new().rules);
    rules.push(Arc::new(GuardedConditions));
    rules
}

#[derive(Debug)]
struct GuardedColumns;

impl PhysicalOptimizerRule for GuardedColumns {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let any: &dyn Any = node.as_ref();
            let changed = any.downcast_ref::<ProjectionExec>().map_or(Ok(None), guarded_columns)?;
            Ok(changed.map_or_else(|| Transformed::no(node), Transformed::yes))
        })
        .map(|plan| plan.data)
    }

    fn name(&self) -> &'static str {
        "guarded_columns"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct GuardedConditions;

impl PhysicalOptimizerRule for GuardedConditions {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let any: &dyn Any = node.as_ref();
            let changed: Option<Arc<dyn ExecutionPlan>> = if let Some(filter) = any.downcast_ref::<FilterExec>() {
                match guarded_condition(filter.predicate(), &filter.input().schema())? {
                    Some(guarded) => Some(Arc::new(FilterExecBuilder::from(filter).with_predicate(guarded).build()?)),
                    None => None,
                }
            } else if let Some(join) = any.downcast_ref::<HashJoinExec>() {
                match guarded_filter(join.filter())? {
                    Some(filter) => Some(join.builder().with_filter(Some(filter)).build_exec()?),
                    None => None,
                }
            } else if let Some(join) = any.downcast_ref::<NestedLoopJoinExec>() {
                match guarded_filter(join.filter())? {
                    Some(filter) => {
                        let builder = NestedLoopJoinExecBuilder::from(join);
                        Some(Arc::new(builder.with_filter(Some(filter)).build()?))
                    }
                    None => None,
                }
            } else {
                None
            };
            Ok(changed.map_or_else(|| Transformed::no(node), Transformed::yes))
        })
        .map(|plan| plan.data)
    }

    fn name(&self) -> &'static str {
        "guarded_conditions"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn guarded_columns(projection: &ProjectionExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let schema = projection.input().schema();
    let mut is_changed = false;
    let mut columns: Vec<ProjectionExpr> = projection.expr().to_vec();
    for column in &mut columns {
        let guarded = guarded(Arc::clone(&column.expr), &schema)?;
        is_changed |= guarded.transformed;
        column.expr = guarded.data;
    }
    if !is_changed {
        return Ok(None);
    }
    Ok(Some(Arc::new(ProjectionExec::try_new(columns, Arc::clone(projection.input()))?)))
}

fn guarded_filter(filter: Option<&JoinFilter>) -> Result<Option<JoinFilter>> {
    let Some(filter) = filter else { return Ok(None) };
    let guarded = guarded_condition(filter.expression(), filter.schema())?;
    Ok(guarded.map(|expr| JoinFilter::new(expr, filter.column_indices().to_vec(), Arc::clone(filter.schema()))))
}

/// A condition on rows, what can't fail first: parts of several WHERE come in any order. None where nothing may fail.
fn guarded_condition(condition: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Option<Arc<dyn PhysicalExpr>>> {
    let parts = split_conjunction(condition);
    let (failing, safe): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| may_fail(part, schema));
    if failing.is_empty() {
        return Ok(None);
    }
    let ordered = conjunction(safe.into_iter().chain(failing).map(Arc::clone));
    Ok(Some(guarded(ordered, schema)?.data))
}

/// The expression with each right side that may fail computed where the left one doesn't decide.
fn guarded(expr: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Transformed<Arc<dyn PhysicalExpr>>> {
    expr.transform_up(|expr| {
        let any: &dyn Any = expr.as_ref();
        let Some(binary) = any.downcast_ref::<BinaryExpr>() else { return Ok(Transformed::no(expr)) };
        let decided = match binary.op() {
            Operator::And => false,
            Operator::Or => true,
            _ => return Ok(Transformed::no(expr)),
        };
        if !may_fail(binary.right(), schema) {
            return Ok(Transformed::no(expr));
        }
        // A null on the left leaves open what the whole is.
        let left = Arc::clone(binary.left());
        let is_open = Arc::new(BinaryExpr::new(left, Operator::IsDistinctFrom, lit(decided)));
        let case = CaseExpr::try_new(None, vec![(is_open, Arc::clone(&expr))], Some(lit(decided)))?;
        Ok(Transformed::yes(Arc::new(case)))
    })
}

/// Whether computing it may fail of some row.
fn may_fail(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    let any: &dyn Any = expr.as_ref();
    let fails = if let Some(binary) = any.downcast_ref::<BinaryExpr>() {
        matches!(binary.op(), Operator::Divide | Operator::Modulo) && !is_safe_division(binary, schema)
    } else if let Some(cast) = any.downcast_ref::<CastExpr>() {
        !cast.expr().data_type(schema).is_ok_and(|from| holds_all(&from, cast.cast_type()))
    } else if let Some(call) = any.downcast_ref::<ScalarFunctionExpr>() {
        !SAFE.contains(&call.name())
    } else {
        false
    };
    fails || expr.children().into_iter().any(|child| may_fail(child, schema))
}

/// Floats are divided by zero without failing; other constants are no zeros, or it fails of all rows.
fn is_safe_division(division: &BinaryExpr, schema: &Schema) -> bool {
    let divisor: &dyn Any = division.right().as_ref();
    divisor.is::<Literal>() || division.right().data_type(schema).is_ok_and(|of| of.is_floating())
}

/// Whether each value of a type is one of another type.
fn holds_all(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        _ if from == to || from.is_null() => true,
        (DataType::Dictionary(_, values), _) => holds_all(values, to),
        (_, DataType::Dictionary(_, values)) => holds_all(from, values),
        _ if from.is_string() && to.is_string() => true,
        _ if from.is_numeric() && to.is_floating() => true,
        _ if from.is_nested() || to.is_nested() || from.is_binary() => false,
        _ if to.is_string() => true,
        (DataType::Date32, DataType::Timestamp(..)) => true,
        (DataType::Timestamp(from, _), DataType::Timestamp(to, _)) => from >= to,
        (DataType::Decimal128(p, s), DataType::Decimal128(to_p, to_s)) => {
            to_s >= s && digits(*to_p, *to_s) >= digits(*p, *s)
        }
        (_, DataType::Decimal128(p, s)) if from.is_signed_integer() => {
            from.primitive_width().is_some_and(|bytes| digits(*p, *s) >= [3, 5, 10, 19][bytes.ilog2() as usize])
        }
        _ if from.is_signed_integer() && to.is_signed_integer() => from.primitive_width() <= to.primitive_width(),
        _ => false,
    }
}

/// Digits before the point.
fn digits(precision: u8, scale: i8) -> i16 {
    i16::from(precision) - i16::from(scale)
}
