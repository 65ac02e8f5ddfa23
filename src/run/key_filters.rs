//! Filters of the columns that joins look sources up by: made as files are taken in, asked where another relation changed. What
//! they don't know is read, so that a filter that is missing or damaged only costs time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::or;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::Column;
use datafusion::datasource::provider_as_source;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use tokio::task::JoinSet;

use super::project::OpenProject;
use super::version::landed_folder;
use crate::background::joined;
use crate::connect::{FileEntry, KeyFilters, Position, Source};
use crate::engine::maintain::{Found, KeyLookup};
use crate::engine::{execute, failure};
use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::plan::PlannedSource;
use crate::table::{KeyFilter, KeyFilterBuilder, Warehouse, read_key_filters, without_repeats, write_key_filters};

type Filters = BTreeMap<String, KeyFilter>;

/// Filters that are in memory, by the path of their first file; those that were asked for longest ago go first.
#[derive(Default)]
pub(in crate::run) struct LoadedFilters(Mutex<VecDeque<Loaded>>);

struct Loaded {
    path: String,
    filters: Arc<Filters>,
    memory: MemoryReservation,
}

impl LoadedFilters {
    fn get(&self, path: &str) -> Option<Arc<Filters>> {
        let mut loaded = self.loaded();
        let at = loaded.iter().position(|loaded| loaded.path == path)?;
        let found = loaded.remove(at)?;
        let filters = Arc::clone(&found.filters);
        loaded.push_back(found);
        Some(filters)
    }

    fn keep(&self, path: String, filters: &Arc<Filters>, memory: MemoryReservation) {
        let mut loaded = self.loaded();
        loaded.push_back(Loaded { path, filters: Arc::clone(filters), memory });
        let bytes = |loaded: &VecDeque<Loaded>| loaded.iter().map(|loaded| loaded.memory.size()).sum::<usize>();
        while loaded.len() > 1 && bytes(&loaded) > limits::KEY_FILTERS_BYTES {
            loaded.pop_front();
        }
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, VecDeque<Loaded>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A source's files that are asked, and where they are.
pub(in crate::run) struct Files<'a> {
    pub(in crate::run) open: &'a OpenProject,
    pub(in crate::run) warehouse: &'a Warehouse,
    pub(in crate::run) source: &'a PlannedSource,
}

impl Files<'_> {
    fn name(&self) -> &str {
        &self.source.spec.name.value
    }

    fn folder(&self) -> String {
        landed_folder(&self.source.pipeline, self.name())
    }

    /// Columns that any model's joins look the source up by.
    fn wanted(&self) -> BTreeSet<String> {
        let models = self.open.plan.models.iter().filter_map(|model| model.maintenance.as_ref());
        models.filter_map(|maintenance| maintenance.lookups.get(self.name())).flatten().cloned().collect()
    }

    /// Makes the filters that large files lack, at `now_us`; their files are staged. Whether there were any. After an error some may
    /// have been made.
    ///
    /// # Errors
    /// External: rows can't be read, filters can't be written.
    pub(in crate::run) async fn complete(&self, now_us: i64, position: &mut Position, prefix: &str) -> Result<bool> {
        let wanted = self.wanted();
        let has = |entry: &FileEntry| {
            let there = entry.key_filters.as_ref().map(|filters| &filters.columns);
            wanted.iter().all(|column| there.is_some_and(|there| there.contains(column)))
        };
        // Most steps make none: then they need no session.
        let mut made_in: Option<SessionContext> = None;
        for at in 0..position.files.len() {
            let entry = &position.files[at];
            if entry.is_let_go || entry.rows < limits::KEY_FILTER_ROWS || has(entry) {
                continue;
            }
            let session = made_in.get_or_insert_with(|| self.open.session(now_us));
            let mut making = JoinSet::new();
            let rows = self.part(position, vec![entry.clone()])?;
            for column in &wanted {
                let schema = rows.schema();
                let Ok(field) = schema.field_with_name(column) else { continue };
                let Some(builder) = KeyFilterBuilder::new(field.data_type(), entry.rows) else { continue };
                let (session, rows, column) = (session.clone(), Arc::clone(&rows), column.clone());
                making.spawn(async move { made(&session, rows, &column, builder).await.map(|made| (column, made)) });
            }
            let mut filters = Filters::new();
            while let Some(made) = making.join_next().await {
                let (column, filter) = joined(made)??;
                filters.extend(filter.map(|filter| (column, filter)));
            }
            let files = write_key_filters(self.warehouse, &self.folder(), prefix, &filters).await?;
            tracing::debug!(file = position.files[at].path, columns = ?wanted, made = filters.len(), "made key filters");
            position.files[at].key_filters = Some(KeyFilters { columns: wanted.iter().cloned().collect(), files });
        }
        Ok(made_in.is_some())
    }

    /// What is known of where rows of `columns`' values stand; none where nothing is.
    pub(in crate::run) async fn lookup(
        &self,
        position: &Position,
        columns: &BTreeSet<String>,
        loaded: &LoadedFilters,
        pool: &Arc<dyn MemoryPool>,
    ) -> Result<Option<Arc<dyn KeyLookup>>> {
        let mut known = Vec::with_capacity(position.files.len());
        for entry in &position.files {
            let filters = entry.key_filters.as_ref();
            let filters = filters.filter(|there| there.columns.iter().any(|column| columns.contains(column)));
            known.push(match filters {
                Some(filters) => self.load(filters, loaded, pool).await,
                None => None,
            });
        }
        if known.iter().all(Option::is_none) {
            return Ok(None);
        }
        Ok(Some(Arc::new(SourceLookup {
            files: position.files.iter().cloned().zip(known).collect(),
            position: Position { files: Vec::new(), ..position.clone() },
            connector: Arc::clone(self.open.connector(self.name())?),
            contract: Arc::clone(&self.source.schema),
            warehouse: self.warehouse.clone(),
            folder: self.folder(),
        })))
    }

    async fn load(
        &self,
        there: &KeyFilters,
        loaded: &LoadedFilters,
        pool: &Arc<dyn MemoryPool>,
    ) -> Option<Arc<Filters>> {
        let path = format!("{}/{}", self.folder(), there.files.first()?.path);
        if let Some(known) = loaded.get(&path) {
            return Some(known);
        }
        let memory = MemoryConsumer::new("key filters").register(pool);
        memory.try_grow(there.files.iter().map(|file| file.size as usize).sum()).ok()?;
        match read_key_filters(self.warehouse, &self.folder(), &there.files).await {
            Ok(filters) => {
                let filters = Arc::new(filters);
                memory.resize(filters.values().map(KeyFilter::bytes).sum());
                loaded.keep(path, &filters, memory);
                Some(filters)
            }
            Err(error) => {
                tracing::warn!(%error, "a key filter is left alone: rows are read instead");
                // A process that goes on says so once.
                memory.free();
                loaded.keep(path, &Arc::default(), memory);
                None
            }
        }
    }

    fn part(&self, position: &Position, files: Vec<FileEntry>) -> Result<Arc<dyn TableProvider>> {
        let part = Position { files, ..position.clone() };
        self.open.connector(self.name())?.relation(&self.source.schema, &part, self.warehouse, &self.folder())
    }
}

/// The filter of a column; none where it would be of no use.
async fn made(
    session: &SessionContext,
    rows: Arc<dyn TableProvider>,
    column: &str,
    builder: KeyFilterBuilder,
) -> Result<Option<KeyFilter>> {
    let scan = LogicalPlanBuilder::scan("rows", provider_as_source(rows), None);
    let column = Expr::Column(Column::new(Some("rows"), column));
    let plan = scan.and_then(|scan| scan.project([column])?.build()).map_err(failure)?;
    let builder = Arc::new(Mutex::new(builder));
    let mut reading = JoinSet::new();
    for mut stream in execute(session, plan).await? {
        let builder = Arc::clone(&builder);
        reading.spawn(async move {
            while let Some(batch) = stream.try_next().await.map_err(failure)? {
                let values = without_repeats(batch.column(0))?;
                let is_wanted =
                    builder.lock().unwrap_or_else(PoisonError::into_inner).add(&values, batch.num_rows())?;
                if !is_wanted {
                    break;
                }
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(read) = reading.join_next().await {
        joined(read)??;
    }
    let builder = Arc::into_inner(builder).ok_or_else(|| Error::internal("a key filter is still being made"))?;
    builder.into_inner().unwrap_or_else(PoisonError::into_inner).build()
}

/// Where rows of a source's position stand.
struct SourceLookup {
    /// Files with what is known of them.
    files: Vec<(FileEntry, Option<Arc<Filters>>)>,
    /// The rest of the position.
    position: Position,
    connector: Arc<dyn Source>,
    contract: SchemaRef,
    warehouse: Warehouse,
    folder: String,
}

impl fmt::Debug for SourceLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceLookup").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl KeyLookup for SourceLookup {
    fn find(&self, column: &str, values: &ArrayRef) -> Result<Option<Found>> {
        let all = BooleanArray::from(vec![true; values.len()]);
        let (mut unknown, mut known) = (Vec::new(), Vec::new());
        let mut may_be = BooleanArray::from(vec![false; values.len()]);
        for (entry, filters) in &self.files {
            match filters.as_ref().and_then(|filters| filters.get(column)?.may_have(values)) {
                Some(hits) if hits.true_count() == 0 => {}
                Some(hits) => {
                    may_be = or(&may_be, &hits).external("keys can't be compared")?;
                    known.push(entry.clone());
                }
                None => unknown.push(entry.clone()),
            }
        }
        if unknown.len() == self.files.len() {
            return Ok(None);
        }
        // Where too many are there to be named, one scan does.
        if may_be.true_count() > limits::KEYS_NAMED {
            unknown.append(&mut known);
            unknown.sort_by(|one, other| one.path.cmp(&other.path));
        }
        let mut found = Found::default();
        for (files, may_be) in [(unknown, all), (known, may_be)] {
            if !files.is_empty() {
                let part = Position { files, ..self.position.clone() };
                let rows = self.connector.relation(&self.contract, &part, &self.warehouse, &self.folder)?;
                found.parts.push((rows, may_be));
            }
        }
        Ok(Some(found))
    }
}
