//! Models over the sources as they are now, computed on the fly: for `show` and for sources in `query`. Publishes nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::ViewTable;

use crate::error::{Error, Result};
use crate::plan;
use crate::run::project::OpenProject;

/// The relations that `wanted` names: sources as they are now, models as views over them.
///
/// # Errors
/// A source whose files can't be listed.
pub async fn relations(
    open: &OpenProject,
    wanted: &BTreeSet<String>,
    now_us: i64,
) -> Result<HashMap<String, Arc<dyn TableProvider>>> {
    let mut needed = wanted.clone();
    // Models stand after what they read: from the back, each is seen before its inputs.
    for model in open.plan.models.iter().rev() {
        if needed.contains(&model.name) {
            needed.extend(model.inputs.iter().cloned());
        }
    }
    let mut accepted = accepted(open, &needed, now_us).await?;
    for model in open.plan.models.iter().filter(|model| needed.contains(&model.name)) {
        let bound = plan::bind(&model.plan, &accepted)?;
        accepted.insert(model.name.clone(), Arc::new(ViewTable::new(bound, None)));
    }
    shown(open, wanted, accepted)
}

/// The sources among `wanted` as they are now, as queries see them.
///
/// # Errors
/// A source whose files can't be listed.
pub async fn sources(
    open: &OpenProject,
    wanted: &BTreeSet<String>,
    now_us: i64,
) -> Result<HashMap<String, Arc<dyn TableProvider>>> {
    let accepted = accepted(open, wanted, now_us).await?;
    shown(open, wanted, accepted)
}

/// Accepted rows of the sources among `wanted`.
async fn accepted(
    open: &OpenProject,
    wanted: &BTreeSet<String>,
    now_us: i64,
) -> Result<HashMap<String, Arc<dyn TableProvider>>> {
    let session = open.session(now_us);
    let mut relations = HashMap::new();
    for source in open.plan.sources.iter().filter(|source| wanted.contains(&source.spec.name.value)) {
        let name = &source.spec.name.value;
        let rules = open.row_rules(&session, source)?;
        let live = open.connector(name)?.live(&source.schema, rules, now_us).await;
        relations.insert(name.clone(), live.map_err(|e: Error| e.with("source", name))?);
    }
    Ok(relations)
}

/// What was asked for, sources as queries see them.
fn shown(
    open: &OpenProject,
    wanted: &BTreeSet<String>,
    relations: HashMap<String, Arc<dyn TableProvider>>,
) -> Result<HashMap<String, Arc<dyn TableProvider>>> {
    let asked = relations.into_iter().filter(|(name, _)| wanted.contains(name));
    asked.map(|(name, relation)| Ok((name.clone(), open.as_queried(&name, relation)?))).collect()
}
