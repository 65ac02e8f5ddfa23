//! Models over the sources as they are now, computed on the fly: for `show` and for sources in `query`. Publishes nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::LogicalPlanBuilder;

use crate::error::{Error, Result};
use crate::plan;
use crate::run::project::OpenProject;

/// The relations that `wanted` names, and what they read: sources as they are now, models as views over them.
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
    let mut relations = sources(open, &needed, now_us).await?;
    for model in open.plan.models.iter().filter(|model| needed.contains(&model.name)) {
        let bound = plan::bind(&model.plan, &relations)?;
        relations.insert(model.name.clone(), Arc::new(ViewTable::new(bound, None)));
    }
    Ok(relations)
}

/// The sources among `wanted` as they are now, `deduplicate` applied, by name.
pub async fn sources(
    open: &OpenProject,
    wanted: &BTreeSet<String>,
    now_us: i64,
) -> Result<HashMap<String, Arc<dyn TableProvider>>> {
    let session = open.session(now_us);
    let mut relations = HashMap::new();
    for source in open.plan.sources.iter().filter(|source| wanted.contains(&source.spec.name.value)) {
        let name = &source.spec.name.value;
        let rules = open.row_rules(&session, source)?;
        let raw = open.files(name)?.live(&source.schema, rules, now_us).await.map_err(|e: Error| e.with("source", name))?;
        relations.insert(name.clone(), plan::source_relation(source, raw)?);
    }
    Ok(relations)
}

/// A relation as a query sees it: hidden columns are there when the query names one, and `*` doesn't show them.
///
/// # Errors
/// Internal: the columns can't be chosen.
pub fn without_hidden(relation: Arc<dyn TableProvider>, sql: &str) -> Result<Arc<dyn TableProvider>> {
    let lower = sql.to_lowercase();
    if plan::HIDDEN_COLUMNS.iter().any(|name| lower.contains(name)) {
        return Ok(relation);
    }
    let schema = relation.schema();
    let shown: Vec<usize> =
        (0..schema.fields().len()).filter(|i| !plan::HIDDEN_COLUMNS.contains(&schema.field(*i).name().as_str())).collect();
    if shown.len() == schema.fields().len() {
        return Ok(relation);
    }
    let plan = LogicalPlanBuilder::scan("relation", provider_as_source(relation), Some(shown)).and_then(LogicalPlanBuilder::build);
    let plan = plan.map_err(|e| Error::internal("hidden columns can't be left out").caused_by(e))?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}
