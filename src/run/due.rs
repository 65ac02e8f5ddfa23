//! Which models their schedules ask for. Decides by what was committed and what the history tells; works on nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::commit::CommitChain;
use super::project::OpenProject;
use super::{history, schedule};
use crate::error::Result;
use crate::limits;
use crate::table::Warehouse;

/// Models that are due.
#[derive(Default)]
pub(super) struct Due {
    /// Their names.
    pub(super) models: BTreeSet<String>,
    /// When those that aren't were last worked on, microseconds since 1970 UTC.
    pub(super) waiting: BTreeMap<String, i64>,
}

/// Those of `names` that are due at `now_us`, microseconds since 1970 UTC.
///
/// # Errors
/// External: the warehouse can't be read. A bug: a schedule that the loader should have refused.
pub(super) async fn due(
    open: &OpenProject,
    warehouse: &Warehouse,
    names: &BTreeSet<String>,
    now_us: i64,
) -> Result<Due> {
    let zone = open.project.timezone.value.as_str();
    let (mut due, mut records, mut confirmed) = (Due::default(), BTreeMap::new(), None);
    for model in open.plan.models.iter().filter(|model| names.contains(&model.name)) {
        if schedule::is_continuous(model) {
            due.models.insert(model.name.clone());
            continue;
        }
        if !records.contains_key(&model.pipeline) {
            let newest = CommitChain::open(warehouse, &model.pipeline).latest().await?;
            records.insert(model.pipeline.clone(), newest);
        }
        let record = records.get(&model.pipeline).and_then(Option::as_ref);
        let mut last_us = record.and_then(|record| record.tables.get(&model.name)).map(|entry| entry.refreshed_at_us);
        // A run that finds nothing to do commits nothing: only the history knows of it.
        if last_us.is_some() && schedule::is_due(&model.refresh, last_us, now_us, zone)? {
            if confirmed.is_none() {
                confirmed = Some(history::confirmed(&history::list(warehouse, limits::LISTED_RUNS).await?));
            }
            last_us = last_us.max(confirmed.as_ref().and_then(|confirmed| confirmed.get(&model.name).copied()));
        }
        match last_us {
            Some(last_us) if !schedule::is_due(&model.refresh, Some(last_us), now_us, zone)? => {
                due.waiting.insert(model.name.clone(), last_us);
            }
            None if !schedule::is_due(&model.refresh, None, now_us, zone)? => {}
            _ => drop(due.models.insert(model.name.clone())),
        }
    }
    Ok(due)
}
