//! What `validate` says of a sound model that its owner may want to know: that it is computed anew and what would help, that its
//! rows have no key. Knows no rows.

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{JoinType, LogicalPlan};

use super::{PlannedModel, keys, placeholder_name};
use crate::spec::fault::Fault;
use crate::spec::types::{ModelSpec, SourceSpec};

/// Notes on one model; `sources` are all of the project.
pub fn notes(spec: &ModelSpec, planned: &PlannedModel, sources: &[&SourceSpec]) -> Vec<Fault> {
    let place = || spec.name.place.clone();
    let mut notes = Vec::new();
    if planned.maintenance.is_none() {
        let (code, hint) = match planned.reads_clock {
            true => ("clock", "`refresh: { every: 10m }` sets its pace; `--now` gives the same rows again"),
            false => ("recompute", "`refresh: { every: 10m }` sets its pace"),
        };
        notes.push(Fault::note(code, place(), format!("`{}`: {}", planned.name, planned.strategy.reason)).hint(hint));
    }
    let loses_rows = !only_grows(planned, sources).unwrap_or(false);
    if planned.key.is_empty() && loses_rows && !keys::has_unique(&planned.plan) {
        let message = format!("`{}` has no key: of equal rows, any one goes where one is taken back", planned.name);
        let hint = "with `key: [columns that are unique]` a change rewrites fewer files, sinks can follow, and repeats are told";
        notes.push(Fault::note("no_key", place(), message).hint(hint));
    }
    notes
}

/// Whether no row of the result ever goes: each comes of rows of sources that never do.
fn only_grows(planned: &PlannedModel, sources: &[&SourceSpec]) -> Result<bool> {
    let is_log = |name: &str| sources.iter().any(|source| source.name.value == name && source.is_log());
    let mut grows = true;
    planned.plan.apply_with_subqueries(|node| {
        grows &= match node {
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::Unnest(_) => true,
            LogicalPlan::Join(join) => join.join_type == JoinType::Inner,
            LogicalPlan::TableScan(scan) => placeholder_name(scan).is_some_and(|name| is_log(&name)),
            _ => false,
        };
        Ok(if grows { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(grows)
}
