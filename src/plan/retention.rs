//! What `retention` needs of a model: states, time that goes on, and all rows. Knows no rows.

use super::PlannedModel;
use super::untimed::Untimed;
use crate::spec::fault::Fault;
use crate::spec::types::{ModelSpec, SourceSpec};

/// Faults of a model's `retention`. `sources` are all of the project; `untimed`: why no watermark is under the model.
pub(super) fn retention_faults(
    spec: &ModelSpec,
    planned: &PlannedModel,
    sources: &[&SourceSpec],
    untimed: Option<&Untimed>,
) -> Vec<Fault> {
    let Some(retention) = &spec.retention else { return Vec::new() };
    let name = &planned.name;
    let fault = |code, message: String, hint: &str| Fault::error(code, retention.place.clone(), message).hint(hint);
    let stages = match &planned.maintenance {
        None => {
            let message = format!(
                "`{name}` keeps no states to let go of, it can only be recomputed: {}",
                planned.strategy.reason
            );
            return vec![fault("retention", message, "take `retention` away")];
        }
        Some(maintenance) if maintenance.stages.is_empty() => {
            let message = format!("`{name}` has no aggregate, so that it keeps no states to let go of");
            return vec![fault("retention", message, "take `retention` away")];
        }
        Some(maintenance) => &maintenance.stages,
    };
    let mut faults = Vec::new();
    if stages.iter().all(|stage| stage.closing.is_none()) {
        let message = format!(
            "`{name}` keeps no groups that go on with time and that nothing reads again, such as a join, a window or a LIMIT over \
             them"
        );
        let hint =
            "group by a tumble, date_trunc or date_bin of the event time, and join before that or in a model after it";
        faults.push(fault("retention", message, hint));
    }
    if let Some(untimed) = untimed {
        let message = format!("{}: nothing says how far time is", untimed.reason(name));
        let hint = match untimed {
            Untimed::NoTopic => "take `retention` away, or give the topic an `event_time`",
            Untimed::Upsert(_) => "take `retention` away",
        };
        faults.push(fault("retention", message, hint));
    }
    let unarchived =
        |source: &&&SourceSpec| source.unarchived().is_some() && planned.inputs.contains(&source.name.value);
    if let Some(source) = sources.iter().find(unarchived) {
        let message = format!(
            "a late row has its group computed anew from all its rows, and `archive: false` lets those of `{}` go",
            source.name.value
        );
        faults.push(fault("needs_archive", message, "`archive: true`, the default, keeps them; or keep all groups"));
    }
    faults
}
