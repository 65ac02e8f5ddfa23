//! Files of tables and states that are put together beside the steps of a process that goes on; a later step enters what came of it.
//! Knows no commit.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow::datatypes::SchemaRef;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;

use crate::background::Work;
use crate::engine;
use crate::error::Result;
use crate::table::{DataFile, Warehouse, garbage, write_files};

/// What is being put together, one work a place: a table's folder, a state of a model.
#[derive(Default)]
pub(in crate::run) struct Beside(Mutex<HashMap<String, Under>>);

struct Under {
    parts: Vec<DataFile>,
    is_whole: bool,
    work: Work<Result<Vec<DataFile>>>,
}

/// Files, and those that hold the same rows in their stead.
pub(super) struct Together {
    pub(super) parts: Vec<DataFile>,
    pub(super) made: Vec<DataFile>,
    /// Whether a state's base is among them, or would be if it had one.
    pub(super) is_whole: bool,
}

/// Rows of a plan that are to be written as fewer files.
pub(super) struct Rewriting<'a> {
    pub(super) session: &'a SessionContext,
    pub(super) plan: LogicalPlan,
    pub(super) warehouse: &'a Warehouse,
    /// Relative to the warehouse.
    pub(super) folder: &'a str,
    pub(super) schema: &'a SchemaRef,
    pub(super) partition_by: &'a [String],
    /// Start of the names of the commit's own files.
    pub(super) prefix: &'a str,
}

impl Beside {
    /// Begins to write `parts`, which may be a state's whole, anew, unless something of that place is being written.
    pub(super) fn begin(&self, place: &str, (parts, is_whole): (Vec<DataFile>, bool), rows: Rewriting<'_>) {
        let mut works = self.works();
        if !works.contains_key(place) {
            works.insert(place.to_owned(), Under { parts, is_whole, work: Work::begin_yielding(rows.written()) });
        }
    }

    /// What was put together in a place since it was asked last.
    pub(super) async fn finished(&self, place: &str) -> Option<Together> {
        let under = {
            let mut works = self.works();
            works.get(place).is_some_and(|under| under.work.is_finished()).then(|| works.remove(place)).flatten()?
        };
        match under.work.outcome().await.and_then(|made| made) {
            Ok(made) => Some(Together { parts: under.parts, made, is_whole: under.is_whole }),
            // The parts are there still: they are put together by the next try.
            Err(error) => {
                tracing::warn!(place, %error, "small files weren't put together");
                None
            }
        }
    }

    /// Gives up what is under way.
    pub(in crate::run) fn give_up(&self) {
        self.works().clear();
    }

    fn works(&self) -> MutexGuard<'_, HashMap<String, Under>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Together {
    /// Enters the new files in the place of the others, if all of them are there still; whether they were.
    pub(super) fn enter(&self, files: &mut Vec<DataFile>) -> bool {
        let are_there = self.parts.iter().all(|part| files.contains(part));
        if are_there {
            files.retain(|file| !self.parts.contains(file));
            files.extend(self.made.iter().cloned());
        }
        are_there
    }
}

impl Rewriting<'_> {
    /// Written by one core, since what goes on beside it has the others, and through to the disk: the commit that names the files syncs
    /// only its own.
    fn written(self) -> impl Future<Output = Result<Vec<DataFile>>> + Send + 'static {
        let config = self.session.copied_config().with_target_partitions(1);
        let state = SessionStateBuilder::new_from_existing(self.session.state()).with_config(config).build();
        let session = SessionContext::new_with_state(state);
        let (plan, warehouse, folder) = (self.plan, self.warehouse.clone(), self.folder.to_owned());
        let (schema, partition_by) = (SchemaRef::clone(self.schema), self.partition_by.to_vec());
        let prefix = format!("{}-{}", self.prefix, garbage::BESIDE);
        async move {
            let streams = engine::execute_as(&session, plan, &schema).await?;
            let files = write_files(&warehouse, &folder, &schema, &partition_by, &prefix, streams).await?;
            let paths: Vec<_> = files.iter().map(|file| format!("{folder}/{}", file.path)).collect();
            warehouse.sync_files(&paths).await?;
            Ok(files)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};
    use std::sync::Arc;
    use std::time::Duration;

    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion::datasource::provider_as_source;
    use datafusion::logical_expr::LogicalPlanBuilder;

    use super::*;
    use crate::run::commit::StateFiles;
    use crate::run::refresh::maintain::stream_of;
    use crate::table::{TableFiles, parquet_table};

    struct Place {
        _folder: tempfile::TempDir,
        warehouse: Warehouse,
        schema: SchemaRef,
    }

    impl Place {
        async fn make() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let warehouse = Warehouse::open("w", folder.path(), &BTreeMap::new()).await.unwrap();
            let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
            Self { _folder: folder, warehouse, schema }
        }

        /// So many files of a row each, their numbers.
        async fn made(&self, count: i64) -> Vec<DataFile> {
            let mut files = Vec::new();
            for n in 0..count {
                let column = Arc::new(Int64Array::from(vec![n]));
                let batch = RecordBatch::try_new(Arc::clone(&self.schema), vec![column]).unwrap();
                let rows = vec![stream_of(&self.schema, vec![batch])];
                files.extend(write_files(&self.warehouse, "t", &self.schema, &[], "c00000001", rows).await.unwrap());
            }
            files
        }

        fn files(&self, files: &[DataFile]) -> Arc<dyn datafusion::catalog::TableProvider> {
            let files = TableFiles { schema: Arc::clone(&self.schema), partition_by: vec![], files: files.to_vec() };
            parquet_table(&self.warehouse, "t", files, "UTC").unwrap()
        }

        /// What comes of putting files together.
        async fn together(&self, parts: &[DataFile], is_whole: bool) -> Together {
            let (beside, session) = (Beside::default(), SessionContext::new());
            let plan = LogicalPlanBuilder::scan("rows", provider_as_source(self.files(parts)), None);
            let rewriting = Rewriting {
                session: &session,
                plan: plan.unwrap().build().unwrap(),
                warehouse: &self.warehouse,
                folder: "t",
                schema: &self.schema,
                partition_by: &[],
                prefix: "c00000001",
            };
            beside.begin("t", (parts.to_vec(), is_whole), rewriting);
            loop {
                if let Some(together) = beside.finished("t").await {
                    return together;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }

        async fn rows(&self, files: &[DataFile]) -> Vec<i64> {
            let rows = SessionContext::new().read_table(self.files(files)).unwrap().collect().await.unwrap();
            let mut rows: Vec<i64> =
                rows.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
            rows.sort_unstable();
            rows
        }
    }

    #[tokio::test]
    async fn what_was_put_together_is_entered_only_where_its_parts_are_there_still() {
        let place = Place::make().await;
        let files = place.made(4).await;
        let together = place.together(&files[..3], true).await;
        let mut entered = files.clone();
        assert!(together.enter(&mut entered));
        assert_eq!((entered.len(), place.rows(&entered).await), (2, vec![0, 1, 2, 3]));
        let mut others = files[1..].to_vec();
        assert!(!together.enter(&mut others));
        assert_eq!(others, files[1..]);
        // A later commit may still name it, unless nobody is left who would.
        let keep: HashSet<String> = files.iter().map(|file| file.path.clone()).collect();
        let age = garbage::MinAge { beside: Duration::from_secs(60), ..garbage::MinAge::default() };
        let spared = garbage::collect(&place.warehouse, "t", &keep, 5, age).await.unwrap();
        let gone = garbage::collect(&place.warehouse, "t", &keep, 5, garbage::MinAge::default()).await.unwrap();
        assert_eq!((spared.files, gone.files), (0, 1));
    }

    #[tokio::test]
    async fn a_state_takes_its_whole_or_changes_alone() {
        let place = Place::make().await;
        let files = place.made(5).await;
        let state = StateFiles { base: files[..1].to_vec(), changes: files[1..].to_vec(), ..StateFiles::default() };
        let mut changed = state.clone();
        changed.enter(&place.together(&files[2..4], false).await);
        assert_eq!((&changed.base[..], changed.changes.len()), (&files[..1], 3));
        let mut whole = state.clone();
        whole.enter(&place.together(&files[..4], true).await);
        assert_eq!((whole.base.len(), &whole.changes[..]), (1, &files[4..]));
        assert_eq!(place.rows(&whole.base).await, [0, 1, 2, 3]);
        let mut other = StateFiles { base: files[1..2].to_vec(), ..state };
        let before = other.clone();
        other.enter(&place.together(&files[..4], true).await);
        assert_eq!(other, before);
    }
}
