//! What `archive: false` gives up: models that read rows again are faults, and what can't be verified or built anew is told.
//! Knows no rows.

use super::inspect::Inspection;
use super::maintain::reads_again;
use super::{CheckTest, PlannedCheck, PlannedModel};
use crate::spec::fault::{Fault, Place};
use crate::spec::types::{CheckKind, ModelSpec, OnFail, SourceSpec};

const HINT: &str = "`archive: true`, the default, keeps its rows";

/// Why a model can't do without rows of a source that it has read; none where it can. `sources` are all of the project.
fn rereading(model: &PlannedModel, source: &SourceSpec, sources: &[&SourceSpec]) -> Option<String> {
    let Some(maintenance) = &model.maintenance else { return Some(model.strategy.reason.clone()) };
    let grows = |name: &str| sources.iter().any(|source| source.name.value == name && source.is_log());
    match reads_again(maintenance, &source.name.value, &grows) {
        Ok(None) => {}
        Ok(Some(reason)) => return Some(reason.to_owned()),
        Err(error) => return Some(error.strip_backtrace()),
    }
    let refuses = |check: &PlannedCheck| check.on_fail() == OnFail::Quarantine;
    let moves = model.checks.iter().any(PlannedCheck::moves_unrelated_rows);
    let refuses_groups = !maintenance.stages.is_empty() && model.checks.iter().any(refuses);
    (moves || refuses_groups).then(|| "a rule sends rows to quarantine that may come back".to_owned())
}

/// Faults of a model that needs rows again that one of `sources` lets go, each at the place where it names the source.
pub fn rereading_faults(
    spec: &ModelSpec,
    planned: &PlannedModel,
    found: &Inspection,
    sources: &[&SourceSpec],
) -> Vec<Fault> {
    let mut faults = Vec::new();
    for source in sources.iter().filter(|source| source.unarchived().is_some()) {
        let name = &source.name.value;
        if let (Some(span), Some(reason)) = (found.inputs.get(name), rereading(planned, source, sources)) {
            let message = format!(
                "`{}` needs rows of `{name}` again that it has read, and `archive: false` lets them go: {reason}",
                planned.name
            );
            faults.push(Fault::error("needs_archive", spec.sql.place_of(*span), message).hint(HINT));
        }
    }
    faults
}

/// What sources without an archive can't have or do, with the models that read them.
pub fn unarchived_faults(sources: &[&SourceSpec], models: &[PlannedModel]) -> Vec<Fault> {
    let unarchived = sources.iter().filter_map(|source| Some((source, source.unarchived()?)));
    unarchived.flat_map(|(source, place)| given_up(source, place, models)).collect()
}

fn given_up(source: &SourceSpec, place: &Place, models: &[PlannedModel]) -> Vec<Fault> {
    let name = &source.name.value;
    let mut faults: Vec<Fault> = Vec::new();
    for check in &source.checks {
        if !matches!(check.kind, CheckKind::Expression(_) | CheckKind::NotNull(_) | CheckKind::AcceptedValues { .. }) {
            let message = format!("this rule looks at all rows of `{name}`, and `archive: false` lets them go");
            faults.push(Fault::error("needs_archive", check.place.clone(), message).hint(HINT));
        }
    }
    for check in models.iter().flat_map(|model| &model.checks) {
        if matches!(&check.test, CheckTest::Relationship { to_relation, .. } if to_relation == name) {
            let message = format!("this rule looks into all rows of `{name}`, and `archive: false` lets them go");
            faults.push(Fault::error("needs_archive", check.spec.place.clone(), message).hint(HINT));
        }
    }
    let readers: Vec<&str> =
        models.iter().filter(|model| model.inputs.contains(name)).map(|model| model.name.as_str()).collect();
    if faults.is_empty() && !readers.is_empty() {
        let message = format!(
            "rows of `{name}` are let go once they are read: {} can't be verified, and can be corrected or built anew only \
             while the topic still holds all of its messages",
            readers.join(", ")
        );
        faults.push(Fault::warning("unarchived", place.clone(), message).hint(HINT));
    }
    faults
}
