//! Models over the sources as they are now, computed on the fly: for `show` and for sources in `query`. Publishes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::ViewTable;

use crate::error::{Error, Result};
use crate::plan;
use crate::run::project::OpenProject;

/// Every source as it is now, and every model as a view over them, by name.
///
/// # Errors
/// A source whose files can't be listed.
pub async fn relations(open: &OpenProject) -> Result<HashMap<String, Arc<dyn TableProvider>>> {
    let mut relations = sources(open).await?;
    for model in &open.plan.models {
        let bound = plan::bind(&model.plan, &relations)?;
        let view = ViewTable::new(bound, None);
        relations.insert(model.name.clone(), Arc::new(view));
    }
    Ok(relations)
}

/// Every source as it is now, `deduplicate` applied, by name.
pub async fn sources(open: &OpenProject) -> Result<HashMap<String, Arc<dyn TableProvider>>> {
    let mut relations = HashMap::new();
    for source in &open.plan.sources {
        let name = &source.spec.name.value;
        let rules = open.row_rules(source, 0)?;
        let raw = open.files(name)?.live(rules).await.map_err(|e: Error| e.with("source", name))?;
        relations.insert(name.clone(), plan::source_relation(source, raw)?);
    }
    Ok(relations)
}
