//! count(DISTINCT x) in two levels: one group a value, then one group of them. Each level's state is small and merges. Knows no
//! relation.

use std::sync::Arc;

use datafusion::common::{Column, Result};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, AggregateUDF, Expr, ExprSchemable, LogicalPlan, Projection, cast, lit};

use super::decompose::{Decomposed, Merge, aggregate_of, decompose};

/// What becomes of one aggregate.
enum Level {
    /// The number of groups of the inner level.
    Distinct,
    /// Parts made in the inner level, from this one on, and merged in the outer.
    Parts(usize, Decomposed),
}

/// `aggregate` in two levels, if it counts distinct values of one expression and all else in it merges.
pub fn two_levels(aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
    let Some((value, levels)) = levels(aggregate)? else { return Ok(None) };
    let mut groups = aggregate.group_expr.clone();
    groups.push(value.alias("__distinct"));
    let inner_parts = levels.iter().filter_map(|level| match level {
        Level::Parts(first, decomposed) => Some((*first, decomposed)),
        Level::Distinct => None,
    });
    let inner_aggregates = inner_parts
        .flat_map(|(first, decomposed)| decomposed.parts.iter().enumerate().map(move |(at, part)| (first + at, part)))
        .map(|(at, part)| part.aggregate.clone().alias(format!("__part{at}")))
        .collect();
    let inner = Aggregate::try_new(Arc::clone(&aggregate.input), groups, inner_aggregates)?;
    let inner_schema = Arc::clone(&inner.schema);
    let column = |at: usize| Expr::Column(Column::from(inner_schema.qualified_field(at)));
    let width = aggregate.group_expr.len();

    let mut outer_aggregates = Vec::new();
    for level in &levels {
        match level {
            Level::Distinct => outer_aggregates.push(call(count_udaf(), column(width))),
            Level::Parts(first, decomposed) => {
                for (at, part) in decomposed.parts.iter().enumerate() {
                    let part_column = column(width + 1 + first + at);
                    outer_aggregates.push(match &part.merge {
                        Merge::Of(func) => call(Arc::clone(func), part_column),
                        _ => call(sum_udaf(), part_column),
                    });
                }
            }
        }
    }
    let outer_aggregates: Vec<Expr> =
        outer_aggregates.into_iter().enumerate().map(|(at, expr)| expr.alias(format!("__whole{at}"))).collect();
    let outer = Aggregate::try_new(
        Arc::new(LogicalPlan::Aggregate(inner)),
        (0..width).map(column).collect(),
        outer_aggregates,
    )?;
    values(aggregate, &levels, outer).map(Some)
}

/// The expression whose distinct values are counted, and what becomes of each aggregate.
fn levels(aggregate: &Aggregate) -> Result<Option<(Expr, Vec<Level>)>> {
    if aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
        return Ok(None);
    }
    let mut counted: Option<Expr> = None;
    let mut levels = Vec::new();
    let mut parts = 0;
    for expr in &aggregate.aggr_expr {
        let Some(function) = aggregate_of(expr) else { return Ok(None) };
        let params = &function.params;
        if params.distinct && function.func.name() == "count" {
            let [value] = params.args.as_slice() else { return Ok(None) };
            let is_same = counted.as_ref().is_none_or(|known| known == value);
            let is_float = value.get_type(aggregate.input.schema())?.is_floating();
            if !is_same || is_float || params.filter.is_some() || !params.order_by.is_empty() {
                return Ok(None);
            }
            counted = Some(value.clone());
            levels.push(Level::Distinct);
        } else {
            let decomposed = decompose(function, aggregate.input.schema())?;
            if decomposed.parts.iter().any(|part| matches!(part.merge, Merge::Rerun)) {
                return Ok(None);
            }
            let first = parts;
            parts += decomposed.parts.len();
            levels.push(Level::Parts(first, decomposed));
        }
    }
    Ok(counted.map(|value| (value, levels)))
}

fn call(func: Arc<AggregateUDF>, arg: Expr) -> Expr {
    Expr::AggregateFunction(AggregateFunction::new_udf(func, vec![arg], false, None, vec![], None))
}

/// The values of the aggregates over the outer level, named and typed as before.
fn values(aggregate: &Aggregate, levels: &[Level], outer: Aggregate) -> Result<LogicalPlan> {
    let outer_schema = Arc::clone(&outer.schema);
    let column = |at: usize| Expr::Column(Column::from(outer_schema.qualified_field(at)));
    let width = aggregate.group_expr.len();
    let mut exprs: Vec<Expr> = (0..width).map(column).collect();
    let mut next = width;
    for level in levels {
        exprs.push(match level {
            Level::Distinct => {
                next += 1;
                column(next - 1)
            }
            Level::Parts(_, decomposed) => {
                let merged = decomposed.parts.iter().map(|part| {
                    let type_before = part.aggregate.get_type(aggregate.input.schema())?;
                    let merged = cast(column(next), type_before);
                    next += 1;
                    // A count of nothing is 0, where a sum of no counts is null.
                    let counts = aggregate_of(&part.aggregate).is_some_and(|function| function.func.name() == "count");
                    Ok(if counts { coalesce(vec![merged, lit(0i64)]) } else { merged })
                });
                let merged = merged.collect::<Result<Vec<Expr>>>()?;
                decomposed.value(&merged)?
            }
        });
    }
    let named = exprs.into_iter().enumerate().map(|(at, expr)| {
        let (qualifier, field) = aggregate.schema.qualified_field(at);
        let typed = if expr.get_type(&outer_schema)? == *field.data_type() {
            expr
        } else {
            cast(expr, field.data_type().clone())
        };
        Ok(typed.alias_qualified(qualifier.cloned(), field.name()))
    });
    let named = named.collect::<Result<Vec<Expr>>>()?;
    Ok(LogicalPlan::Projection(Projection::try_new(named, Arc::new(LogicalPlan::Aggregate(outer)))?))
}

/// `coalesce`, which the engine only has as a function.
fn coalesce(args: Vec<Expr>) -> Expr {
    datafusion::functions::core::expr_fn::coalesce(args)
}
