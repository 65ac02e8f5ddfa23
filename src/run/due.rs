//! Which models their schedules ask for. Decides by what was committed and what models last came to; works on nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::commit::CommitChain;
use super::project::OpenProject;
use super::{last, schedule};
use crate::error::Result;
use crate::table::Warehouse;

/// What schedules ask for.
#[derive(Default)]
pub(super) struct Asked {
    /// Models that are due.
    pub(super) models: BTreeSet<String>,
    /// When those that aren't were last worked on, microseconds since 1970 UTC.
    pub(super) waiting: BTreeMap<String, i64>,
}

/// Those of `names` that are due at `now_us`, microseconds since 1970 UTC.
///
/// # Errors
/// External: the warehouse can't be read. A bug: a schedule that the loader should have refused.
pub(super) async fn asked(
    open: &OpenProject,
    warehouse: &Warehouse,
    names: &BTreeSet<String>,
    now_us: i64,
) -> Result<Asked> {
    let zone = open.project.timezone.value.as_str();
    let (mut asked, mut records, mut confirmed) = (Asked::default(), BTreeMap::new(), None);
    for model in open.plan.models.iter().filter(|model| names.contains(&model.name)) {
        if schedule::is_continuous(model) {
            asked.models.insert(model.name.clone());
            continue;
        }
        if !records.contains_key(&model.pipeline) {
            let newest = CommitChain::open(warehouse, &model.pipeline).latest().await?;
            records.insert(model.pipeline.clone(), newest);
        }
        let record = records.get(&model.pipeline).and_then(Option::as_ref);
        let mut last_us = record.and_then(|record| record.tables.get(&model.name)).map(|entry| entry.refreshed_at_us);
        let mut is_due = schedule::is_due(&model.refresh, last_us, now_us, zone)?;
        // A run that finds nothing to do commits nothing.
        if is_due && last_us.is_some() {
            if confirmed.is_none() {
                confirmed = Some(last::all(warehouse).await?);
            }
            last_us = last_us.max(confirmed.as_ref().and_then(|lasts| lasts.get(&model.name)?.confirmed_us));
            is_due = schedule::is_due(&model.refresh, last_us, now_us, zone)?;
        }
        if is_due {
            asked.models.insert(model.name.clone());
        } else if let Some(last_us) = last_us {
            asked.waiting.insert(model.name.clone(), last_us);
        }
    }
    Ok(asked)
}
