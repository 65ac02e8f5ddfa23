//! Physical plans of small changes, kept from step to step: planning costs more than few rows do. A plan is found by what it
//! computes; its rows are put into it each time. Knows no rules and no relations.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as DataFusionResult;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::{TableType, provider_as_source};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan, Volatility};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
    ReplaceChildrenOptions,
};
use datafusion::prelude::SessionContext;

use super::delta::batches_of;
use crate::engine::failure;
use crate::error::Result;
use crate::limits;

/// Plans of one project, whose functions and options stay as they are.
#[derive(Default)]
pub struct Prepared {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    plans: HashMap<LogicalPlan, Plan>,
    /// How often one was asked for.
    asked: usize,
}

struct Plan {
    physical: Arc<dyn ExecutionPlan>,
    /// The last time that it was asked for, counted by `asked`.
    at: usize,
}

/// A plan that reads few rows, all of them in memory.
pub(super) struct Small {
    /// The plan with [`Slot`]s for its rows: equal to those that compute the same over others.
    plan: LogicalPlan,
    /// What its slots stand for.
    rows: Vec<Vec<RecordBatch>>,
}

impl Small {
    /// Takes the rows out of `plan`; gives it back as it is where it reads many, or others.
    pub(super) fn of(plan: LogicalPlan) -> DataFusionResult<std::result::Result<Self, LogicalPlan>> {
        let Some(rows) = few_rows(&plan)? else { return Ok(Err(plan)) };
        let mut places = 0..;
        let slotted = plan.transform_down_with_subqueries(|node| match node {
            LogicalPlan::TableScan(scan) => {
                let slot = Slot { at: places.next().unwrap_or_default(), schema: scan.source.schema() };
                let source = provider_as_source(Arc::new(slot));
                Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(Ok(Self { plan: slotted.data, rows }))
    }
}

/// The rows of each scan, from the top down; none where they are many, or not all of them in memory.
fn few_rows(plan: &LogicalPlan) -> DataFusionResult<Option<Vec<Vec<RecordBatch>>>> {
    let (mut rows, mut count) = (Some(Vec::new()), 0);
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let batches = batches_of(scan).filter(|batches| {
                count += batches.iter().map(RecordBatch::num_rows).sum::<usize>();
                count <= limits::NARROW_ROWS
            });
            rows = rows.take().zip(batches).map(|(rows, batches)| [rows, vec![batches]].concat());
        }
        Ok(if rows.is_some() { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(rows)
}

impl Prepared {
    /// The physical plan of a small one, with its rows.
    ///
    /// # Errors
    /// External, when the plan can't be made physical.
    pub(super) async fn physical(&self, session: &SessionContext, small: Small) -> Result<Arc<dyn ExecutionPlan>> {
        let kept = self.kept().find(&small.plan);
        let physical = match kept {
            Some(physical) => physical,
            None => {
                let physical = session.state().create_physical_plan(&small.plan).await.map_err(failure)?;
                if hangs_on_rows_alone(&small.plan).map_err(failure)? {
                    self.kept().keep(small.plan, &physical);
                }
                physical
            }
        };
        filled(physical, &small.rows).map_err(failure)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn find(&mut self, plan: &LogicalPlan) -> Option<Arc<dyn ExecutionPlan>> {
        self.asked += 1;
        let found = self.plans.get_mut(plan)?;
        found.at = self.asked;
        Some(Arc::clone(&found.physical))
    }

    fn keep(&mut self, plan: LogicalPlan, physical: &Arc<dyn ExecutionPlan>) {
        if self.plans.len() >= limits::PREPARED_PLANS {
            let (asked, patience) = (self.asked, limits::PREPARED_PLANS / 2);
            self.plans.retain(|_, plan| asked - plan.at < patience);
        }
        self.plans.insert(plan, Plan { physical: Arc::clone(physical), at: self.asked });
    }
}

/// Whether nothing but its rows decides what the plan gives: no clock does.
fn hangs_on_rows_alone(plan: &LogicalPlan) -> DataFusionResult<bool> {
    let mut does = true;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(function) = expr {
                    does &= function.func.signature().volatility == Volatility::Immutable;
                }
                Ok(if does { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
            })
        })
    })?;
    Ok(does)
}

/// The plan as new, with rows in its slots.
fn filled(plan: Arc<dyn ExecutionPlan>, rows: &[Vec<RecordBatch>]) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    let filled = plan.transform_up(|node| match node.downcast_ref::<SlotExec>() {
        Some(slot) => {
            let batches = rows.get(slot.at).cloned().unwrap_or_default();
            Ok(Transformed::yes(Arc::new(SlotExec { batches, ..slot.clone() }) as _))
        }
        // Joins and sorts keep what they learned of the rows of before.
        None => node.reset_state().map(Transformed::yes),
    })?;
    Ok(filled.data)
}

/// Stands for rows that a plan is given later. Says nothing of how many they are, which plans would hang on.
#[derive(Debug)]
struct Slot {
    at: usize,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for Slot {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let properties = Arc::new(properties.with_scheduling_type(SchedulingType::Cooperative));
        Ok(Arc::new(SlotExec { at: self.at, projection: projection.cloned(), batches: vec![], properties }))
    }
}

/// A [`Slot`] in a physical plan.
#[derive(Debug, Clone)]
struct SlotExec {
    at: usize,
    projection: Option<Vec<usize>>,
    batches: Vec<RecordBatch>,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for SlotExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotExec: {}, batches={}", self.at, self.batches.len())
    }
}

impl ExecutionPlan for SlotExec {
    fn name(&self) -> &'static str {
        "SlotExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let (batches, schema) = (self.batches.clone(), self.schema());
        Ok(Box::pin(MemoryStream::try_new(batches, schema, self.projection.clone())?))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::Schema;
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::datasource::MemTable;
    use datafusion::logical_expr::{LogicalPlanBuilder, lit};
    use datafusion::physical_plan::collect;
    use datafusion::physical_plan::empty::EmptyExec;

    use super::*;

    const QUERIES: [&str; 7] = [
        "SELECT a, count(*) AS n, sum(b) AS s FROM t GROUP BY a ORDER BY a",
        "SELECT count(*), min(b), max(b) FROM t",
        "SELECT t.a, u.b FROM t JOIN u ON t.a = u.a ORDER BY 1, 2",
        "SELECT t.a, u.b FROM t LEFT JOIN u ON t.a = u.a AND u.b > t.b ORDER BY 1, 2",
        "SELECT a, b FROM t ORDER BY b DESC LIMIT 2",
        "SELECT a FROM t UNION ALL SELECT b FROM u ORDER BY 1",
        "SELECT a FROM t WHERE b > (SELECT min(b) FROM u) ORDER BY a",
    ];

    fn session(t: &[(i64, i64)], u: &[(i64, i64)]) -> SessionContext {
        let session = SessionContext::new();
        for (name, rows) in [("t", t), ("u", u)] {
            let a: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(a, _)| *a)));
            let b: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, b)| *b)));
            let batch = RecordBatch::try_from_iter([("a", a), ("b", b)]).unwrap();
            session
                .register_table(name, Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap()))
                .unwrap();
        }
        session
    }

    async fn answer(prepared: &Prepared, session: &SessionContext, sql: &str) -> String {
        let plan = session.state().create_logical_plan(sql).await.unwrap();
        let Ok(small) = Small::of(plan).unwrap() else { panic!("its rows are in memory") };
        let physical = prepared.physical(session, small).await.unwrap();
        pretty_format_batches(&collect(physical, session.task_ctx()).await.unwrap()).unwrap().to_string()
    }

    #[tokio::test]
    async fn a_plan_that_is_kept_answers_of_the_rows_that_it_is_given() {
        let prepared = Prepared::default();
        let given: [(&[_], &[_]); 4] = [
            (&[(1, 10), (2, 20), (2, 5)], &[(2, 7), (2, 30), (3, 1)]),
            (&[(5, -1)], &[(5, 0), (5, 2)]),
            (&[(9, 100), (8, 90), (7, 80), (6, 70)], &[(6, 75), (9, 1)]),
            (&[(1, 1)], &[(2, 2)]),
        ];
        for (t, u) in given {
            let session = session(t, u);
            for sql in QUERIES {
                let of_its_own = session.sql(sql).await.unwrap().collect().await.unwrap();
                let of_its_own = pretty_format_batches(&of_its_own).unwrap().to_string();
                assert_eq!(answer(&prepared, &session, sql).await, of_its_own, "{sql}");
            }
            assert_eq!(prepared.kept().plans.len(), QUERIES.len());
        }
    }

    #[tokio::test]
    async fn what_hangs_on_the_clock_is_planned_each_time() {
        let (prepared, session) = (Prepared::default(), session(&[(1, 1)], &[]));
        for kept in [0, 0, 1] {
            let sql = if kept == 0 { "SELECT a, now() FROM t" } else { "SELECT a FROM t" };
            answer(&prepared, &session, sql).await;
            assert_eq!(prepared.kept().plans.len(), kept);
        }
    }

    #[test]
    fn plans_that_nobody_asks_for_are_let_go() {
        let number = |n: i64| {
            let one = LogicalPlanBuilder::empty(true).project([lit(n)]).and_then(LogicalPlanBuilder::build);
            (one.unwrap(), Arc::new(EmptyExec::new(Arc::new(Schema::empty()))) as Arc<dyn ExecutionPlan>)
        };
        let mut kept = Kept::default();
        for n in 0..limits::PREPARED_PLANS as i64 * 2 {
            for (plan, physical) in [number(n), number(-1)] {
                if kept.find(&plan).is_none() {
                    kept.keep(plan, &physical);
                }
            }
            assert!(kept.plans.len() <= limits::PREPARED_PLANS);
        }
        assert!(kept.find(&number(-1).0).is_some());
    }
}
