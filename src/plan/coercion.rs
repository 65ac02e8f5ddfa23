//! What SQL says of types and the engine doesn't: rules before and behind the one by which it finds a common type. Knows no columns.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::optimizer::{Analyzer, AnalyzerRule};

use super::at_zone::with_casts;
use super::casts::{OpaqueCasts, with_opaque_casts};
use super::common_types::{CommonTypes, with_common_types};
use super::day_parts::with_day_parts;
use super::distinct::DistinctAggregates;
use super::guards::Filtered;
use super::lengths::with_lengths;
use super::one_row::OneRow;
use super::rounding::with_one_type;
use super::wall_clock::{WallClocks, with_zoned_casts};

/// The engine's rules between ours.
pub fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![Arc::new(OneRow), Arc::new(CommonTypes)];
    rules.extend(Analyzer::new().rules);
    rules.extend([Arc::new(WallClocks) as _, Arc::new(OpaqueCasts) as _, Arc::new(DistinctAggregates) as _]);
    rules.push(Arc::new(Filtered));
    rules
}

/// An expression outside of a plan, over `schema`, with the casts that the rules would put into it.
///
/// # Errors
/// When a name or a type doesn't fit `schema`.
pub fn coerced(simplifier: &ExprSimplifier, expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let expr = before(expr, schema)?.data;
    let expr = simplifier.coerce(expr, schema)?;
    with_zoned_casts(expr, schema)?.transform_data(|expr| with_opaque_casts(expr, schema)).map(|expr| expr.data)
}

/// What is done to an expression before the engine finds its types.
pub fn before(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    with_casts(expr, schema)?
        .transform_data(|expr| with_day_parts(expr, schema))?
        .transform_data(|expr| with_common_types(expr, schema))?
        .transform_data(|expr| with_lengths(expr, schema))?
        .transform_data(|expr| with_one_type(expr, schema))
}

/// The plan with the expressions of those of its nodes made others that have one which `is_concerned`: the other nodes are seen through
/// quickly.
pub fn where_concerned(
    plan: LogicalPlan,
    is_concerned: impl Fn(&Expr) -> bool,
    made: impl Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<LogicalPlan> {
    let replaced = plan.transform_up_with_subqueries(|node| {
        let mut has_one = false;
        node.apply_expressions(|expr| {
            has_one |= expr.exists(|expr| Ok(is_concerned(expr)))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        if has_one { each_expression(node, &made) } else { Ok(Transformed::no(node)) }
    })?;
    Ok(replaced.data)
}

/// The node with each of its expressions made another, under the same name; of what it reads it gets the schema.
pub fn each_expression(
    node: LogicalPlan,
    made: impl Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let mut schema = merge_schema(&node.inputs());
    if let LogicalPlan::TableScan(scan) = &node {
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
    }
    let names = NamePreserver::new(&node);
    let named = |expr: Expr| {
        let name = names.save(&expr);
        Ok(made(expr, &schema)?.update_data(|expr| name.restore(expr)))
    };
    node.map_expressions(|expr| match expr {
        // Its parts are columns of the result, each with a name.
        Expr::GroupingSet(_) => expr.map_children(named),
        other => named(other),
    })
}
