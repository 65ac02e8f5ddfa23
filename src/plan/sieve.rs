//! Keeps filters from going down to another column of the same name. Operators hand filters on to their inputs by the names of
//! columns: where a join of a table with itself has two of one name, one side's filter would skip rows of the other. Knows no SQL.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::filter_pushdown::{ChildFilterDescription, FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties,
    ReplaceChildrenOptions,
};

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// The engine's rules, those that push filters down among plans that let only such through whose columns have names of their own.
pub fn sieved(rules: Vec<Rule>) -> Vec<Rule> {
    let sieved = |rule: Rule| match rule.name().starts_with("FilterPushdown") {
        true => Arc::new(Sieved(rule)) as Rule,
        false => rule,
    };
    rules.into_iter().map(sieved).collect()
}

#[derive(Debug)]
struct Sieved(Rule);

impl PhysicalOptimizerRule for Sieved {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let mut has_sieves = false;
        let plan = plan.transform_up(|node| {
            let passed = passed(&node);
            if passed.len() == node.schema().fields().len() {
                return Ok(Transformed::no(node));
            }
            has_sieves = true;
            Ok(Transformed::yes(Arc::new(Sieve { input: node, passed }) as _))
        })?;
        let plan = self.0.optimize(plan.data, config)?;
        if !has_sieves {
            return Ok(plan);
        }
        let without = plan.transform_up(|node| match node.downcast_ref::<Sieve>() {
            Some(sieve) => Ok(Transformed::yes(Arc::clone(&sieve.input))),
            None => Ok(Transformed::no(node)),
        })?;
        Ok(without.data)
    }
}

/// Columns of a node that filters find by their names there and in what the node reads.
fn passed(node: &Arc<dyn ExecutionPlan>) -> HashSet<usize> {
    let (schema, children) = (node.schema(), node.children());
    // A projection says itself which of its input's columns one is.
    let below: Vec<SchemaRef> = match node.is::<ProjectionExec>() {
        true => vec![],
        false => children.iter().map(|child| child.schema()).collect(),
    };
    let (own, others): (_, Vec<_>) = (repeated(&schema), below.iter().map(repeated).collect());
    // Branches of a union are read by position.
    let is_union = node.name().contains("Union");
    let passes = |at: &usize| {
        let name = schema.field(*at).name();
        let in_place = |child: &SchemaRef| !is_union || child.fields().get(*at).is_some_and(|f| f.name() == name);
        !others.iter().chain([&own]).any(|names| names.contains(name.as_str())) && below.iter().all(in_place)
    };
    (0..schema.fields().len()).filter(passes).collect()
}

/// Names that several columns have.
fn repeated(schema: &SchemaRef) -> HashSet<&str> {
    let mut seen = HashSet::with_capacity(schema.fields().len());
    schema.fields().iter().map(|field| field.name().as_str()).filter(|name| !seen.insert(*name)).collect()
}

/// Gives its input's rows, and lets filters through that are on columns of names of their own.
#[derive(Debug, Clone)]
struct Sieve {
    input: Arc<dyn ExecutionPlan>,
    passed: HashSet<usize>,
}

impl DisplayAs for Sieve {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sieve")
    }
}

impl ExecutionPlan for Sieve {
    fn name(&self) -> &'static str {
        "Sieve"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self { input: children.swap_remove(0), passed: self.passed.clone() }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }

    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        let passed = self.passed.clone();
        let child = ChildFilterDescription::from_child_with_allowed_indices(&filters, passed, &self.input)?;
        Ok(FilterDescription::new().with_child(child))
    }
}
