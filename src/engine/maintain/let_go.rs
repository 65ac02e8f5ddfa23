//! States that lack the groups which event time has passed: which those are, and how they are had again. Knows neither watermarks
//! nor files.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::kernels::cmp::lt;
use arrow::compute::{cast, filter_record_batch, not, prep_null_mask_filter};
use arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result as DataFusionResult, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan, lit};
use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};

use super::Engine;
use super::delta::{Net, named_as};
use super::stage::state_over;
use crate::engine::failure;
use crate::error::{Error, Result, ResultExt};
use crate::plan::maintain::Stage;
use crate::plan::placeholder_name;

/// The groups that a state lacks. Its files may still hold some of them, as they were once: those don't count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetGo {
    /// A column of the state, a timestamp or a date.
    column: String,
    /// Groups with lesser values are let go: microseconds or days since 1970.
    below: i64,
}

impl LetGo {
    /// The groups of a stage that are closed by a watermark, microseconds since 1970 UTC, beside those `before`: what was let go
    /// never comes back. None where the stage keeps all of them.
    ///
    /// # Errors
    /// A bug: the rule by which groups are closed was planned before.
    pub fn at(ctx: &SessionContext, stage: &Stage, watermark_us: i64, before: Option<&Self>) -> Result<Option<Self>> {
        let Some(closing) = &stage.closing else { return Ok(before.cloned()) };
        let passed = closing.passed(watermark_us).map_err(failure)?;
        let constant = ctx.create_physical_expr(passed, &DFSchema::empty()).map_err(failure)?;
        let one_row = RecordBatchOptions::new().with_row_count(Some(1));
        let one_row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &one_row);
        let one_row = one_row.external("a row without columns can't be made")?;
        let value = constant.evaluate(&one_row).and_then(|value| value.into_array(1)).map_err(failure)?;
        let below = match ScalarValue::try_from_array(&value, 0).map_err(failure)? {
            ScalarValue::TimestampMicrosecond(below, _) => below,
            ScalarValue::Date32(below) => below.map(i64::from),
            other => return Err(Error::internal("a group isn't closed by a time").with("type", other.data_type())),
        };
        let Some(below) = below else { return Ok(before.cloned()) };
        Ok(match before {
            Some(before) if before.column != closing.column() || before.below > below => Some(before.clone()),
            _ => Some(Self { column: closing.column().to_owned(), below }),
        })
    }

    /// Which rows of the state are there.
    pub(super) fn kept(&self, stage: &Stage) -> DataFusionResult<Expr> {
        let at = stage.schema.index_of(&self.column)?;
        let below = match stage.schema.field(at).data_type() {
            DataType::Date32 => ScalarValue::Date32(i32::try_from(self.below).ok()),
            DataType::Timestamp(_, zone) => ScalarValue::TimestampMicrosecond(Some(self.below), zone.clone()),
            other => return datafusion::common::internal_err!("groups are let go by a column of type {other}"),
        };
        let column = Expr::Column(Column::new_unqualified(&self.column));
        Ok(Expr::IsNotTrue(Box::new(column.lt(lit(below)))))
    }

    /// Rows with the state's columns, maybe more behind them: those of groups that are kept, and the others.
    fn split(&self, stage: &Stage, batches: &[RecordBatch]) -> Result<(Vec<RecordBatch>, Vec<RecordBatch>)> {
        let at = stage.schema.index_of(&self.column).external("a state lacks the column that groups are let go by")?;
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        for batch in batches {
            let is_gone = || -> std::result::Result<BooleanArray, arrow::error::ArrowError> {
                let times = cast(batch.column(at), &DataType::Int64)?;
                let is_gone = lt(&times, &Int64Array::new_scalar(self.below))?;
                Ok(if is_gone.null_count() > 0 { prep_null_mask_filter(&is_gone) } else { is_gone })
            };
            let is_gone = is_gone().external("groups can't be told by their time")?;
            let side = |which: &BooleanArray| filter_record_batch(batch, which).external("groups can't be taken");
            let sides = (side(&not(&is_gone).external("groups can't be told by their time")?)?, side(&is_gone)?);
            kept.extend((sides.0.num_rows() > 0).then_some(sides.0));
            gone.extend((sides.1.num_rows() > 0).then_some(sides.1));
        }
        Ok((kept, gone))
    }
}

impl Engine<'_> {
    /// The groups of `batches` that the stage's state has or may get, and those that it lacks.
    pub(super) fn by_age(
        &self,
        stage: &Stage,
        batches: Vec<RecordBatch>,
    ) -> Result<(Vec<RecordBatch>, Vec<RecordBatch>)> {
        match self.let_go.get(stage.name.as_str()) {
            Some((_, let_go)) => let_go.split(stage, &batches),
            None => Ok((batches, vec![])),
        }
    }

    /// The rows of a state's files that count.
    pub(super) fn without_gone(&self, stage: &Stage, rows: LogicalPlan) -> DataFusionResult<LogicalPlan> {
        match self.let_go.get(stage.name.as_str()) {
            Some((_, let_go)) => LogicalPlanBuilder::from(rows).filter(let_go.kept(stage)?)?.build(),
            None => Ok(rows),
        }
    }

    /// Whether a column, of the type that groups are let go by, has values of the time that the state lacks.
    pub(super) fn reaches_back(&self, stage: &Stage, column: usize, batches: &[RecordBatch]) -> Result<bool> {
        let Some((_, let_go)) = self.let_go.get(stage.name.as_str()) else { return Ok(false) };
        let by_column = LetGo { column: stage.schema.field(column).name().clone(), below: let_go.below };
        by_column.split(stage, batches).map(|(_, gone)| !gone.is_empty())
    }

    /// What of a change its state is told.
    pub(super) fn kept(&self, stage: &Stage, net: &Net) -> Result<Net> {
        let kept = |batches: &[RecordBatch]| self.by_age(stage, batches.to_vec()).map(|(kept, _)| kept);
        Ok(Net { added: kept(&net.added)?, removed: kept(&net.removed)?, updated: None })
    }

    /// `plan` with what states are made of in the place of those that lack groups.
    pub(super) fn without_states(&self, plan: &LogicalPlan) -> DataFusionResult<LogicalPlan> {
        let plan = plan.clone().transform_down(|node| {
            let LogicalPlan::TableScan(scan) = &node else { return Ok(Transformed::no(node)) };
            let stage = placeholder_name(scan).and_then(|name| self.let_go.get(name.as_str()));
            let Some((stage, _)) = stage else { return Ok(Transformed::no(node)) };
            let made = state_over(stage, self.without_states(&stage.input)?)?;
            Ok(Transformed::new(as_scanned(scan, made)?, true, TreeNodeRecursion::Jump))
        })?;
        Ok(plan.data)
    }
}

/// A state's rows as the columns that `scan` gives of it.
fn as_scanned(scan: &TableScan, state: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let names = scan.projected_schema.fields().iter().map(|field| Expr::Column(Column::new_unqualified(field.name())));
    let state = LogicalPlanBuilder::from(state).project(names.collect::<Vec<_>>())?.build()?;
    named_as(state, &scan.projected_schema, false)
}
