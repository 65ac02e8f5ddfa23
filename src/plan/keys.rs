//! What a plan says of itself: columns that can't repeat, clock reads, operators, float sums. Knows no SQL text.

use std::collections::BTreeSet;

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Distinct, Expr, ExprSchemable, JoinType, LogicalPlan};

use super::clock::CLOCK_FUNCTIONS;
use super::types::sql_name;
use super::window_plan::{QUALIFIER, WINDOW_END, WINDOW_START};

/// Whether no two rows of `plan` can share the values of the columns named `key`.
pub fn is_unique(plan: &LogicalPlan, key: &[String]) -> bool {
    let fields = plan.schema().fields();
    let key: BTreeSet<usize> =
        fields.iter().enumerate().filter(|(_, f)| key.contains(f.name())).map(|(at, _)| at).collect();
    unique_sets(plan).iter().any(|set| set.is_subset(&key))
}

/// Whether some columns of `plan` are known not to repeat together.
pub fn has_unique(plan: &LogicalPlan) -> bool {
    !unique_sets(plan).is_empty()
}

/// Sets of columns, by position, whose values can't repeat together.
fn unique_sets(plan: &LogicalPlan) -> Vec<BTreeSet<usize>> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => {
            if aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
                return vec![];
            }
            let is = |at: usize, name: &str| {
                let (qualifier, field) = aggregate.schema.qualified_field(at);
                field.name() == name && qualifier.is_some_and(|q| q.table() == QUALIFIER)
            };
            let groups = 0..aggregate.group_expr.len();
            let has_start = groups.clone().any(|at| is(at, WINDOW_START));
            // A window's end follows from its start (a session's, together with the other keys).
            vec![groups.filter(|at| !(has_start && is(*at, WINDOW_END))).collect()]
        }
        LogicalPlan::Projection(projection) => {
            let input = unique_sets(&projection.input);
            let output_of = |at: usize| {
                let (qualifier, field) = projection.input.schema().qualified_field(at);
                projection.expr.iter().position(|expr| match kept_column(expr, projection.input.schema()) {
                    Some(column) => column.name == *field.name() && column.relation.as_ref() == qualifier,
                    None => false,
                })
            };
            input.into_iter().filter_map(|set| set.into_iter().map(output_of).collect()).collect()
        }
        LogicalPlan::Filter(filter) => unique_sets(&filter.input),
        LogicalPlan::Sort(sort) => unique_sets(&sort.input),
        LogicalPlan::Limit(limit) => unique_sets(&limit.input),
        LogicalPlan::SubqueryAlias(alias) => unique_sets(&alias.input),
        LogicalPlan::Window(window) => unique_sets(&window.input),
        LogicalPlan::Distinct(Distinct::All(input)) => vec![(0..input.schema().fields().len()).collect()],
        LogicalPlan::Join(join) if matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti) => {
            unique_sets(&join.left)
        }
        _ => vec![],
    }
}

/// The column that `expr` hands on with all its values told apart.
fn kept_column<'a>(expr: &'a Expr, input: &datafusion::common::DFSchema) -> Option<&'a datafusion::common::Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => kept_column(&alias.expr, input),
        // A cast to another form of the same type loses nothing, save nanoseconds.
        Expr::Cast(cast) => {
            let from = cast.expr.get_type(input).ok()?;
            let to = cast.field.data_type();
            let same = sql_name(&from) == sql_name(to) && !from.is_temporal();
            if same || from == *to { kept_column(&cast.expr, input) } else { None }
        }
        _ => None,
    }
}

/// Whether `now()` or the like stands anywhere in the plan.
pub fn reads_clock(plan: &LogicalPlan) -> Result<bool> {
    Ok(!functions_called(plan)?.is_disjoint(&CLOCK_FUNCTIONS.iter().map(|name| (*name).to_owned()).collect()))
}

/// Names of the scalar functions that the plan calls, those of subqueries included.
pub fn functions_called(plan: &LogicalPlan) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(function) = expr {
                    names.insert(function.name().to_owned());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(names)
}

/// Aggregates whose result on floats hangs on the order of addition, as they are called.
pub fn float_aggregates(plan: &LogicalPlan) -> Result<BTreeSet<String>> {
    const ADDING: [&str; 14] = [
        "sum",
        "avg",
        "mean",
        "var",
        "var_pop",
        "var_samp",
        "stddev",
        "stddev_pop",
        "stddev_samp",
        "corr",
        "covar_pop",
        "covar_samp",
        "regr_slope",
        "regr_intercept",
    ];
    let mut found = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        let schema = node.inputs().first().map(|input| input.schema().clone());
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::AggregateFunction(function) = expr
                    && ADDING.contains(&function.func.name())
                    && let Some(schema) = &schema
                    && function.params.args.iter().any(|arg| is_real_float(arg, schema))
                {
                    found.insert(function.func.name().to_owned());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// A float that isn't an integer in a float's clothes: sums of those are exact below 2^53.
fn is_real_float(arg: &Expr, schema: &datafusion::common::DFSchema) -> bool {
    let is_float = arg.get_type(schema).is_ok_and(|t| t.is_floating());
    let inner_is_integer = match arg {
        Expr::Cast(cast) => cast.expr.get_type(schema).is_ok_and(|t| t.is_integer()),
        _ => false,
    };
    is_float && !inner_is_integer
}

/// The plan's operators, top first, for people.
pub fn operators(plan: &LogicalPlan) -> Result<Vec<String>> {
    let mut operators = Vec::new();
    plan.apply_with_subqueries(|node| {
        operators.push(match node {
            LogicalPlan::Projection(_) => "project".into(),
            LogicalPlan::Filter(_) => "filter".into(),
            LogicalPlan::Window(_) => "window".into(),
            LogicalPlan::Aggregate(_) => "aggregate".into(),
            LogicalPlan::Sort(_) => "sort".into(),
            LogicalPlan::Join(join) => format!("{} join", join.join_type.to_string().to_lowercase()),
            LogicalPlan::Union(_) => "union".into(),
            LogicalPlan::Limit(_) => "limit".into(),
            LogicalPlan::Distinct(_) => "distinct".into(),
            LogicalPlan::Unnest(_) => "unnest".into(),
            LogicalPlan::Values(_) => "values".into(),
            LogicalPlan::RecursiveQuery(_) => "recursion".into(),
            LogicalPlan::TableScan(scan) => format!("scan {}", scan.table_name.table()),
            // Names and subqueries' frames do nothing to rows.
            _ => return Ok(TreeNodeRecursion::Continue),
        });
        Ok(TreeNodeRecursion::Continue)
    })?;
    // Two projections in a row are one: the planner's own frames aren't the user's operators.
    operators.dedup_by(|a, b| a == b && a == "project");
    Ok(operators)
}
