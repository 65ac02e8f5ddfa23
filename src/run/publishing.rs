//! Brings Delta tables up to the commits of a process that goes on, beside its steps. Knows no rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;

use super::commit::CommitChain;
use super::durable::Durable;
use super::follow::Which;
use super::project::OpenProject;
use super::refresh::Observer;
use super::refresh::pipeline::publish_tables;
use crate::background::Work;
use crate::error::Result;
use crate::limits;
use crate::table::Warehouse;
use crate::table::garbage::MinAge;

/// What tables were brought up to.
pub(in crate::run) struct Publisher<'a> {
    open: &'a OpenProject,
    durable: &'a Durable,
    warehouse: Warehouse,
    observer: &'a dyn Observer,
    /// Commits of each pipeline that its tables were at, the last one being what they are at.
    published: BTreeMap<String, BTreeSet<u64>>,
    /// What went wrong with a pipeline, so that it is told once.
    told: BTreeMap<String, String>,
}

impl<'a> Publisher<'a> {
    /// Nothing yet.
    pub(in crate::run) fn new(
        open: &'a OpenProject,
        durable: &'a Durable,
        warehouse: Warehouse,
        observer: &'a dyn Observer,
    ) -> Self {
        Self { open, durable, warehouse, observer, published: BTreeMap::new(), told: BTreeMap::new() }
    }

    /// Publishes after the first commit that `commits` tells of, and then each `publish_interval`, until there are no more. What
    /// comes last is left to who ends the work.
    pub(in crate::run) async fn follow(&mut self, mut commits: watch::Receiver<u64>) {
        while commits.changed().await.is_ok() {
            self.publish(MinAge { beside: limits::READ_RETENTION, ..MinAge::default() }).await;
            let pause = self.open.project.pace.publish_interval;
            let gone = async { while commits.changed().await.is_ok() {} };
            if tokio::time::timeout(pause, gone).await.is_ok() {
                return;
            }
            // Whatever was told of in the pause counts.
            commits.mark_changed();
        }
    }

    /// Brings all tables up to the last commits, and deletes files of `min_age` that nothing names. One pipeline that fails doesn't hold
    /// the others, and is tried again.
    pub(in crate::run) async fn publish(&mut self, min_age: MinAge) {
        for pipeline in &self.open.project.pipelines {
            let name = &pipeline.name.value;
            match self.publish_pipeline(name, min_age).await {
                Ok(()) => drop(self.told.remove(name)),
                Err(error) => {
                    let text = error.to_string();
                    if self.told.insert(name.clone(), text.clone()) != Some(text) {
                        self.observer.failed(name, &error);
                    }
                }
            }
        }
    }

    async fn publish_pipeline(&mut self, name: &str, min_age: MinAge) -> Result<()> {
        let chain = CommitChain::open(&self.warehouse, name);
        let newest = self.durable.newest(&chain).await?;
        let Some(record) = newest.map(|record| self.open.own_tables(record)) else { return Ok(()) };
        let published = self.published.entry(name.to_owned()).or_default();
        if published.last() != Some(&record.n) {
            let (project, warehouse) = (self.open.project.name.value.clone(), self.warehouse.clone());
            let (brought, at) = (published.clone(), Arc::clone(&record));
            let publishing = Work::begin(async move {
                publish_tables(&warehouse, &project, &chain, &at, Which::All, &brought, min_age).await
            });
            publishing.outcome().await??;
            published.insert(record.n);
        }
        Ok(())
    }
}
