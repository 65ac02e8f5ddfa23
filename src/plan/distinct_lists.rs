//! `array_agg(DISTINCT x ORDER BY x DESC)` beside one in the other order: to sort but once the engine turns one of them around, which forgets
//! to turn its values. Knows no plans.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, WindowFunctionParams};
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, Expr, LogicalPlan, ReversedUDAF, SetMonotonicity,
    Signature,
};
use datafusion::optimizer::AnalyzerRule;

use super::coercion::each_expression;

/// Puts a function that nobody turns around where the engine's stands.
#[derive(Debug)]
pub struct DistinctLists;

impl AnalyzerRule for DistinctLists {
    fn name(&self) -> &'static str {
        "distinct_lists"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let unturned = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Aggregate(_) => each_expression(node, |expr, _| expr.transform_up(|expr| Ok(unturned(expr)))),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(unturned.data)
    }
}

fn unturned(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::AggregateFunction(AggregateFunction { func: engine, params })
            if params.distinct
                && ["array_agg", "string_agg"].contains(&engine.name())
                && !(engine.inner().as_ref() as &dyn Any).is::<Unturned>() =>
        {
            let func = Arc::new(AggregateUDF::from(Unturned { engine }));
            Transformed::yes(Expr::AggregateFunction(AggregateFunction { func, params }))
        }
        other => Transformed::no(other),
    }
}

/// The engine's function over distinct values.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Unturned {
    engine: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for Unturned {
    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::NotSupported
    }

    fn name(&self) -> &str {
        self.engine.name()
    }

    fn aliases(&self) -> &[String] {
        self.engine.aliases()
    }

    fn schema_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.engine.schema_name(params)
    }

    fn human_display(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.engine.human_display(params)
    }

    fn display_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.engine.display_name(params)
    }

    fn window_function_schema_name(&self, params: &WindowFunctionParams) -> Result<String> {
        self.engine.window_function_schema_name(params)
    }

    fn window_function_display_name(&self, params: &WindowFunctionParams) -> Result<String> {
        self.engine.window_function_display_name(params)
    }

    fn signature(&self) -> &Signature {
        self.engine.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.engine.return_type(arg_types)
    }

    fn return_field(&self, arg_fields: &[FieldRef]) -> Result<FieldRef> {
        self.engine.return_field(arg_fields)
    }

    fn is_nullable(&self) -> bool {
        self.engine.is_nullable()
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.engine.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.engine.state_fields(args)
    }

    /// Distinct values are sorted once they are known.
    fn with_beneficial_ordering(self: Arc<Self>, _: bool) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        Ok(Some(self))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.engine.order_sensitivity()
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.engine.simplify()
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.engine.coerce_types(arg_types)
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.engine.default_value(data_type)
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.engine.supports_null_handling_clause()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.engine.documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.engine.inner().set_monotonicity(data_type)
    }
}
