//! What each model came to when it was last worked on, kept by name beside its pipeline's commits: however many runs come after it,
//! it isn't forgotten with the history. Knows no work.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::commit;
use super::history::{self, RunRecord};
use crate::error::{Result, ResultExt};
use crate::limits;
use crate::table::{BOOKKEEPING, Warehouse};

/// The last that is known of a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Last {
    /// The run that worked on it, which begins with an instant: later ones sort behind it.
    pub run: String,
    /// When that run began, microseconds since 1970 UTC.
    pub started_at_us: i64,
    /// As [`history::ModelOutcome::status`].
    pub status: String,
    /// As [`history::ModelOutcome::reason`].
    pub reason: String,
    /// `now()` of the last run that made it or found it to be up to date, microseconds since 1970 UTC; none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_us: Option<i64>,
}

impl Last {
    /// Whether it failed, or was skipped because of what it reads.
    pub fn has_failed(&self) -> bool {
        history::is_failure(&self.status)
    }
}

/// By model.
pub type Lasts = BTreeMap<String, Last>;

fn path(pipeline: &str) -> String {
    format!("{BOOKKEEPING}/{pipeline}/last.json")
}

/// Notes what a run came to, in the files of its models' pipelines. To be called while their leases are held.
///
/// # Errors
/// External: the store.
pub(super) async fn note(
    warehouse: &Warehouse,
    run: &RunRecord,
    pipeline_of: impl Fn(&str) -> Option<String>,
) -> Result<()> {
    let mut changed: BTreeMap<String, Lasts> = BTreeMap::new();
    for outcome in &run.models {
        let Some(pipeline) = pipeline_of(&outcome.model) else { continue };
        if !changed.contains_key(&pipeline) {
            let known = of_pipeline(warehouse, &pipeline).await?.unwrap_or_default();
            changed.insert(pipeline.clone(), known);
        }
        let Some(lasts) = changed.get_mut(&pipeline) else { continue };
        enter(lasts, run, outcome);
    }
    for (pipeline, lasts) in changed {
        let bytes = serde_json::to_vec(&lasts).external("what models came to can't be written as JSON")?;
        warehouse.put(&path(&pipeline), bytes.into()).await?;
    }
    Ok(())
}

fn enter(lasts: &mut Lasts, run: &RunRecord, outcome: &history::ModelOutcome) {
    let before = lasts.get(&outcome.model).and_then(|last| last.confirmed_us);
    let confirmed_us = if outcome.has_failed() { before } else { run.now_us.max(before) };
    let last = Last {
        run: run.run.clone(),
        started_at_us: run.started_at_us,
        status: outcome.status.clone(),
        reason: outcome.reason.clone(),
        confirmed_us,
    };
    lasts.insert(outcome.model.clone(), last);
}

async fn of_pipeline(warehouse: &Warehouse, pipeline: &str) -> Result<Option<Lasts>> {
    let Some(bytes) = warehouse.get(&path(pipeline)).await? else { return Ok(None) };
    match serde_json::from_slice(&bytes) {
        Ok(lasts) => Ok(Some(lasts)),
        Err(error) => {
            // As a run's file that can't be read: what it told is known no longer.
            tracing::warn!(pipeline, %error, "what its models last came to can't be read");
            Ok(None)
        }
    }
}

/// What is known of all models, those that went from one pipeline to another, too. Of a pipeline that an earlier version worked on, what
/// its history tells.
///
/// # Errors
/// External: the store.
pub async fn all(warehouse: &Warehouse) -> Result<Lasts> {
    let (mut lasts, mut is_old) = (Lasts::new(), false);
    for pipeline in commit::pipelines(warehouse).await? {
        match of_pipeline(warehouse, &pipeline).await? {
            None => is_old = true,
            Some(known) => known.into_iter().for_each(|(model, last)| keep_later(&mut lasts, model, last)),
        }
    }
    if is_old {
        let mut told = Lasts::new();
        for run in history::list(warehouse, limits::LISTED_RUNS).await?.iter().rev() {
            run.models.iter().for_each(|outcome| enter(&mut told, run, outcome));
        }
        told.into_iter().for_each(|(model, last)| keep_later(&mut lasts, model, last));
    }
    Ok(lasts)
}

fn keep_later(lasts: &mut Lasts, model: String, last: Last) {
    let is_later = |known: &Last| known.run >= last.run;
    if !lasts.get(&model).is_some_and(is_later) {
        lasts.insert(model, last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::history::ModelOutcome;

    fn run(now_us: i64, outcomes: &[(&str, &str)]) -> RunRecord {
        let mut run = RunRecord::begin("run", now_us, vec!["p".into()]);
        run.models = outcomes
            .iter()
            .map(|(model, status)| ModelOutcome {
                model: (*model).into(),
                status: (*status).into(),
                ..ModelOutcome::default()
            })
            .collect();
        run
    }

    #[tokio::test]
    async fn a_model_is_known_by_its_last_run_whichever_others_came_after() {
        let dir = tempfile::tempdir().unwrap();
        let warehouse =
            Warehouse::open(dir.path().join("w").to_str().unwrap(), dir.path(), &BTreeMap::new()).await.unwrap();
        let pipeline_of = |model: &str| Some(if model == "far" { "q" } else { "p" }.to_string());
        for run in [
            run(1, &[("a", "ok"), ("b", "ok"), ("far", "nothing")]),
            run(2, &[("a", "failed")]),
            run(3, &[("b", "nothing")]),
        ] {
            note(&warehouse, &run, pipeline_of).await.unwrap();
        }
        let lasts = all(&warehouse).await.unwrap();
        let told = |model: &str| (lasts[model].status.clone(), lasts[model].confirmed_us, lasts[model].has_failed());
        assert_eq!(told("a"), ("failed".into(), Some(1), true));
        assert_eq!(told("b"), ("nothing".into(), Some(3), false));
        assert_eq!(told("far"), ("nothing".into(), Some(1), false));
    }
}
