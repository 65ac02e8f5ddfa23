//! `lead` and `lag` that pass over nulls as SQL has it. The engine's own, row by row, forgets nulls that stand before the second value ahead
//! of a row; of a whole partition it doesn't. It makes of each the other where that spares a sort. Knows no plans.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::FieldRef;
use datafusion::common::Result;
use datafusion::functions_window::lead_lag::{lag_udwf, lead_udwf};
use datafusion::logical_expr::function::{ExpressionArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    Documentation, LimitEffect, PartitionEvaluator, ReversedUDWF, Signature, WindowUDF, WindowUDFImpl,
};
use datafusion::physical_plan::PhysicalExpr;

/// Both functions, under the names of the engine's.
pub fn shifts() -> [WindowUDF; 2] {
    [lead_udwf(), lag_udwf()].map(|engine| WindowUDF::from(Shift { engine }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Shift {
    engine: Arc<WindowUDF>,
}

impl WindowUDFImpl for Shift {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn signature(&self) -> &Signature {
        self.engine.signature()
    }

    fn expressions(&self, args: ExpressionArgs<'_>) -> Vec<Arc<dyn PhysicalExpr>> {
        self.engine.expressions(args)
    }

    fn partition_evaluator(&self, args: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        let passes_nulls = args.ignore_nulls();
        let engine = self.engine.inner().partition_evaluator(args)?;
        // What looks back needs no row that is still to come, and counts nulls right.
        let is_right = !passes_nulls || engine.is_causal();
        Ok(if is_right { engine } else { Box::new(OfWhole(engine)) })
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        self.engine.field(args)
    }

    fn reverse_expr(&self) -> ReversedUDWF {
        // The engine turns the offset round.
        ReversedUDWF::Reversed(Arc::new(WindowUDF::from(Self { engine: Arc::clone(&self.engine) })))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.engine.documentation()
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        // How many rows are looked ahead hangs on nulls, and on whether the function is turned round.
        LimitEffect::Unknown
    }
}

/// The engine's evaluation of a whole partition at once.
#[derive(Debug)]
struct OfWhole(Box<dyn PartitionEvaluator>);

impl PartitionEvaluator for OfWhole {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        self.0.evaluate_all(values, rows)
    }
}
