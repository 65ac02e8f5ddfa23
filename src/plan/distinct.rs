//! Aggregates where the engine's own won't do, first of all of distinct values. Of two lists, `array_agg(DISTINCT x ORDER BY x DESC)` beside one in the
//! other order, it turns one around to sort but once, and forgets to turn its values. Counts keep a set for each group, and bit_xor has no
//! right one. Knows no plans.

use std::any::Any;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification};
use datafusion::logical_expr::{
    AggregateUDF, AggregateUDFImpl, Expr, ExprSchemable, GroupsAccumulator, LogicalPlan, ReversedUDAF, SortExpr,
};
use datafusion::optimizer::AnalyzerRule;

use super::as_engine::as_engine;
use super::coercion::each_expression;
use super::distinct_counts::DistinctCounts;

/// Puts a function of ours where the engine's stands.
#[derive(Debug)]
pub struct DistinctAggregates;

impl AnalyzerRule for DistinctAggregates {
    fn name(&self) -> &'static str {
        "distinct_aggregates"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let ours = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Aggregate(_) => {
                each_expression(node, |expr, schema| expr.transform_up(|expr| ours(expr, schema)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(ours.data)
    }
}

fn ours(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::AggregateFunction(AggregateFunction { func: engine, mut params }) = expr else {
        return Ok(Transformed::no(expr));
    };
    let was_repeated = without_repeated(&mut params.order_by);
    let is_ours = params.distinct
        && ["array_agg", "bit_xor", "count", "string_agg"].contains(&engine.name())
        && !(engine.inner().as_ref() as &dyn Any).is::<Distinct>();
    if is_ours {
        with_one_zero(&mut params, schema)?;
    }
    let func = if is_ours { Arc::new(AggregateUDF::from(Distinct { engine })) } else { engine };
    let aggregate = Expr::AggregateFunction(AggregateFunction { func, params });
    Ok(if is_ours || was_repeated { Transformed::yes(aggregate) } else { Transformed::no(aggregate) })
}

/// Makes one of the two zeros that floats have: they are equal in SQL, and for groups, and the engine's sets tell them apart.
fn with_one_zero(params: &mut AggregateFunctionParams, schema: &DFSchema) -> Result<()> {
    for arg in &mut params.args {
        let of = arg.get_type(schema)?;
        if !of.is_floating() {
            continue;
        }
        let one = arg.clone() + Expr::Literal(ScalarValue::new_zero(&of)?, None);
        let before = std::mem::replace(arg, one.clone());
        params.order_by.iter_mut().filter(|sort| sort.expr == before).for_each(|sort| sort.expr = one.clone());
    }
    Ok(())
}

/// What is sorted by a second time decides nothing, and the engine doesn't bear it. Whether anything was.
fn without_repeated(order: &mut Vec<SortExpr>) -> bool {
    let before = order.len();
    let mut kept: Vec<SortExpr> = Vec::with_capacity(order.len());
    for sort in order.drain(..) {
        if !kept.iter().any(|before| before.expr == sort.expr) {
            kept.push(sort);
        }
    }
    *order = kept;
    order.len() < before
}

/// The engine's function over distinct values.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Distinct {
    engine: Arc<AggregateUDF>,
}

impl Distinct {
    fn is_count(&self) -> bool {
        self.engine.name() == "count"
    }

    /// Whether its groups are counted by ours. Of integers the engine's does as well.
    fn is_counted(&self, args: &AccumulatorArgs) -> bool {
        let [value] = args.expr_fields else { return false };
        self.is_count() && args.is_distinct && DistinctCounts::are_of(value.data_type())
    }
}

impl AggregateUDFImpl for Distinct {
    as_engine!();

    fn reverse_expr(&self) -> ReversedUDAF {
        if self.is_count() { self.engine.reverse_udf() } else { ReversedUDAF::NotSupported }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        // The engine's bit_xor keeps a set, and tells of its groups as if it kept a number.
        let keeps_sets = args.is_distinct && self.engine.name() == "bit_xor";
        self.is_counted(&args) || !keeps_sets && self.engine.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        if self.is_counted(&args) {
            return Ok(Box::new(DistinctCounts::new(args.expr_fields[0].data_type())?));
        }
        self.engine.create_groups_accumulator(args)
    }

    fn human_display(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.engine.human_display(params)
    }

    /// Distinct values are sorted once they are known.
    fn with_beneficial_ordering(self: Arc<Self>, _: bool) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        Ok(Some(self))
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.engine.simplify()
    }

    fn is_descending(&self) -> Option<bool> {
        self.engine.inner().is_descending()
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.engine.supports_null_handling_clause()
    }
}
