//! One consistent snapshot of all tables, for queries and for serving. Reads commit records; writes nothing.
//!
//! A snapshot is the last commit of every pipeline at one look. Between two looks nothing of it changes, whatever other
//! processes publish.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider, TableProvider,
};
use datafusion::prelude::SessionContext;
use futures::FutureExt as _;
use tokio::sync::OnceCell;

use crate::connect::Position;
use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::plan::{self, At, TimeTravel};
use crate::run::commit::{self, CommitChain, CommitRecord, TableEntry};
use crate::run::history::{self, RunRecord};
use crate::run::listing::Listing;
use crate::run::project::OpenProject;
use crate::run::schedule::wall_clock_us;
use crate::run::version::landed_folder;
use crate::table::{Warehouse, delta, parquet_table};

/// Reads the tables of a project's warehouse.
pub struct Reader {
    warehouse: Warehouse,
    catalog: String,
    zone: String,
    /// Models of the project, where it is known.
    declared: BTreeSet<String>,
    /// Has the sources that clients see, too; none: nobody asked for one.
    sources: Option<Arc<OpenProject>>,
    /// The last look, reused for [`limits::SNAPSHOT_TTL`], so that many queries cost one look.
    last: tokio::sync::Mutex<Option<(Instant, Arc<Snapshot>)>>,
}

/// Tables at one moment.
pub struct Snapshot {
    /// The newest commit of each pipeline.
    pub records: BTreeMap<String, Arc<CommitRecord>>,
    tables: HashMap<String, (String, Arc<dyn TableProvider>)>,
}

impl Reader {
    /// A reader of `warehouse`, whose tables clients see under `catalog`; instants appear in `zone`.
    pub fn new(warehouse: Warehouse, catalog: &str, zone: &str) -> Self {
        let (catalog, zone, last) = (catalog.into(), zone.into(), tokio::sync::Mutex::new(None));
        Self { warehouse, catalog, zone, declared: BTreeSet::new(), sources: None, last }
    }

    /// Tells of these models that they aren't built yet, where a query asks for one that has no table. Clients that don't see all
    /// tables would be told so of those hidden from them.
    pub fn of_models(self, models: impl Iterator<Item = String>) -> Self {
        Self { declared: models.collect(), ..self }
    }

    /// The same with the sources of the project that have `serve: true`, as of the newest commits.
    pub fn with_sources(self, open: Arc<OpenProject>) -> Self {
        Self { sources: Some(open), ..self }
    }

    /// Looks anew at the next question: a commit of this process is to be seen at once.
    pub fn forget(&self) {
        // While somebody looks, what they find is of this moment anyway, and grows old soon.
        if let Ok(mut last) = self.last.try_lock()
            && let Some((taken, _)) = &mut *last
        {
            *taken = taken.checked_sub(limits::SNAPSHOT_TTL).unwrap_or(*taken);
        }
    }

    /// The snapshot now, at most [`limits::SNAPSHOT_TTL`] old.
    pub async fn snapshot(&self) -> Result<Arc<Snapshot>> {
        let mut last = self.last.lock().await;
        if let Some((taken, snapshot)) = &*last
            && taken.elapsed() < limits::SNAPSHOT_TTL
        {
            return Ok(Arc::clone(snapshot));
        }
        let previous = last.as_ref().map(|(_, snapshot)| Arc::clone(snapshot));
        let mut records = BTreeMap::new();
        for pipeline in commit::pipelines(&self.warehouse).await? {
            if let Some(record) = CommitChain::open(&self.warehouse, &pipeline).latest().await? {
                records.insert(pipeline, record);
            }
        }
        let snapshot = Arc::new(self.build(records, previous.as_deref()).await?);
        *last = Some((Instant::now(), Arc::clone(&snapshot)));
        Ok(snapshot)
    }

    /// The snapshot at an instant, microseconds since 1970 UTC.
    ///
    /// # Errors
    /// Usage, when there was no commit yet or it is gone, or in the future.
    pub async fn snapshot_at(&self, at_us: i64) -> Result<Arc<Snapshot>> {
        must_be_past(at_us)?;
        let mut records = BTreeMap::new();
        let mut missing = None;
        for pipeline in commit::pipelines(&self.warehouse).await? {
            match CommitChain::open(&self.warehouse, &pipeline).at(at_us).await {
                Ok(record) => drop(records.insert(pipeline, record)),
                // A pipeline that is younger has no tables then; only if all are, there is nothing to read.
                Err(error) => missing = Some(error),
            }
        }
        if records.is_empty() {
            return Err(missing.unwrap_or_else(|| Error::usage("there are no tables yet")));
        }
        Ok(Arc::new(self.build(records, None).await?))
    }

    async fn build(
        &self,
        mut records: BTreeMap<String, Arc<CommitRecord>>,
        previous: Option<&Snapshot>,
    ) -> Result<Snapshot> {
        commit::keep_newest(&mut records);
        let mut tables = HashMap::new();
        for (pipeline, record) in &records {
            let chain = CommitChain::open(&self.warehouse, pipeline);
            for (name, entry) in &record.tables {
                let version = format!("{pipeline}@{}", entry.changed_in);
                let known = previous.and_then(|p| p.tables.get(name)).filter(|(v, _)| *v == version);
                let provider = match known {
                    Some((_, provider)) => Arc::clone(provider),
                    None => {
                        let files = chain.table_files(name, entry).await?;
                        parquet_table(&self.warehouse, name, files, &self.zone)?
                    }
                };
                tables.insert(name.clone(), (version, provider));
            }
        }
        for (open, source) in self.sources.iter().flat_map(|open| open.plan.sources.iter().map(move |s| (open, s))) {
            let name = &source.spec.name.value;
            let Some(record) = records.get(&source.pipeline).filter(|_| source.spec.serve) else { continue };
            let Some(position) = record.sources.get(name) else { continue };
            let version = format!("{}@{}", record.pipeline, record.n);
            let known = previous.and_then(|p| p.tables.get(name)).filter(|(v, _)| *v == version);
            let provider = match known {
                Some((_, provider)) => Arc::clone(provider),
                None => {
                    let (position, folder) =
                        (Position::from_json(Some(position))?, landed_folder(&record.pipeline, name));
                    let rows = open.connector(name)?.relation(&source.schema, &position, &self.warehouse, &folder)?;
                    plan::source_relation(source, rows)?
                }
            };
            tables.insert(name.clone(), (version, provider));
        }
        Ok(Snapshot { records, tables })
    }

    /// Puts the snapshot's tables into `ctx`: `<catalog>.main.<table>`, what is `beside` them, and the system tables in
    /// `<catalog>.tidemill`. Tables with `serve: false` only where `all`.
    pub async fn register(
        &self,
        ctx: &SessionContext,
        snapshot: &Snapshot,
        all: bool,
        beside: HashMap<String, Arc<dyn TableProvider>>,
    ) -> Result<()> {
        let main = MemorySchemaProvider::new();
        let served =
            snapshot.tables.iter().filter(|(name, _)| all || snapshot.entry(name).is_none_or(|entry| entry.serve));
        // A table that was left behind may have the name of what the project has now.
        let served = served.filter(|(name, _)| !beside.contains_key(*name));
        let tables: Vec<_> = served.map(|(name, (_, provider))| (name.clone(), Arc::clone(provider))).collect();
        for (name, provider) in tables.into_iter().chain(beside) {
            main.register_table(name, provider).external("a table can't be registered")?;
        }
        let system = MemorySchemaProvider::new();
        for (name, table) in self.history() {
            system.register_table(name.into(), table).external("a system table can't be registered")?;
        }
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema("main", Arc::new(main)).external("a schema can't be registered")?;
        catalog.register_schema("tidemill", Arc::new(system)).external("a schema can't be registered")?;
        ctx.register_catalog(self.catalog.clone(), Arc::new(catalog));
        Ok(())
    }

    /// The tables of the history, both of one look at it.
    fn history(&self) -> [(&'static str, Arc<dyn TableProvider>); 2] {
        let runs: Arc<OnceCell<Vec<RunRecord>>> = Arc::default();
        let table = |schema: SchemaRef, batch: fn(&[RunRecord], &str) -> Result<RecordBatch>| {
            let (runs, warehouse, zone) = (Arc::clone(&runs), self.warehouse.clone(), Arc::<str>::from(&*self.zone));
            let list = move || {
                let (runs, warehouse, zone) = (Arc::clone(&runs), warehouse.clone(), Arc::clone(&zone));
                async move {
                    let listed = || history::list(&warehouse, limits::LISTED_RUNS);
                    batch(runs.get_or_try_init(listed).await?, &zone)
                }
                .boxed()
            };
            Arc::new(Listing::new(schema, list)) as _
        };
        [
            ("runs", table(history::runs_schema(&self.zone), history::runs_batch)),
            ("check_results", table(history::checks_schema(&self.zone), history::checks_batch)),
        ]
    }

    /// The warehouse that is read.
    pub fn warehouse(&self) -> &Warehouse {
        &self.warehouse
    }

    /// Catalog name that clients see.
    pub fn catalog(&self) -> &str {
        &self.catalog
    }
}

impl Snapshot {
    /// A table's entry in its pipeline's record; none of a source.
    pub fn entry(&self, table: &str) -> Option<&TableEntry> {
        self.records.values().find_map(|record| record.tables.get(table))
    }
}

/// What tables hold at an instant that is still to come, nobody knows: they may change until then.
fn must_be_past(at_us: i64) -> Result<()> {
    let at = jiff::Timestamp::from_microsecond(at_us).ok().filter(|_| at_us > wall_clock_us());
    match at {
        Some(at) => Err(Error::usage("no table can be read as of the future").with("at", at)),
        None => Ok(()),
    }
}

#[async_trait]
impl TimeTravel for Reader {
    async fn table_at(&self, table: &str, at: At) -> Result<Arc<dyn TableProvider>> {
        let at = match at {
            At::Version(version) => delta::At::Version(version),
            At::Timestamp(us) => {
                must_be_past(us)?;
                delta::At::TimestampUs(us)
            }
        };
        let (files, _) = delta::files_at(&self.warehouse, table, at).await?;
        parquet_table(&self.warehouse, table, files, &self.zone)
    }

    fn is_declared(&self, table: &str) -> bool {
        self.declared.contains(table)
    }
}
