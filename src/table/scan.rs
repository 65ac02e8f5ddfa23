//! Reads an exact list of a table's Parquet files as a DataFusion table. Knows no Delta log and no commit.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{FieldRef, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

use super::{DataFile, TableFiles, Warehouse, partition, stats, types};
use crate::error::{Result, ResultExt};

/// The rows of `files`, whose paths are relative to `folder` (itself relative to the warehouse; empty: the warehouse).
///
/// Text and bytes come as views, instants in `zone` (an IANA name). Row counts, null counts and bounds come from the files'
/// statistics, so that `count(*)` reads nothing. A file that is missing is an error that names it.
///
/// # Errors
/// External if a column can't be one of a table; on reading, if a partition value can't be read.
pub fn parquet_table(
    warehouse: &Warehouse,
    folder: &str,
    files: TableFiles,
    zone: &str,
) -> Result<Arc<dyn TableProvider>> {
    let table = types::table_schema(&files.schema)?;
    let schema = types::reading_schema(&table, zone);
    let (inside, beside): (Vec<usize>, Vec<usize>) =
        (0..schema.fields().len()).partition(|i| !files.partition_by.contains(schema.field(*i).name()));
    let mut partitions = Vec::new();
    for name in &files.partition_by {
        partitions.push(schema.index_of(name).external("a table is partitioned by a column that it lacks")?);
    }
    debug_assert_eq!(partitions.len(), beside.len());
    let file_schema = Arc::new(schema.project(&inside).external("columns can't be chosen")?);
    Ok(Arc::new(ParquetTable {
        warehouse: warehouse.clone(),
        folder: folder.to_owned(),
        schema,
        file_schema,
        positions: positions(&inside, &partitions),
        partitions,
        files: files.files,
        parts: OnceLock::new(),
    }))
}

/// For each column of the table: its place among file columns followed by partition columns.
fn positions(inside: &[usize], partitions: &[usize]) -> Vec<usize> {
    let mut positions = vec![0; inside.len() + partitions.len()];
    for (place, column) in inside.iter().chain(partitions).enumerate() {
        if let Some(position) = positions.get_mut(*column) {
            *position = place;
        }
    }
    positions
}

#[derive(Debug)]
struct ParquetTable {
    warehouse: Warehouse,
    folder: String,
    schema: SchemaRef,
    file_schema: SchemaRef,
    partitions: Vec<usize>,
    positions: Vec<usize>,
    files: Vec<DataFile>,
    /// The files with what they say of themselves, made by the first reading: most tables of a step are never read.
    parts: OnceLock<Vec<PartitionedFile>>,
}

impl ParquetTable {
    fn partition_fields(&self) -> Vec<FieldRef> {
        self.partitions.iter().map(|i| Arc::clone(&self.schema.fields()[*i])).collect()
    }

    /// A name for the store in a session; another store of the same URL gets another.
    fn store_url(&self) -> DataFusionResult<ObjectStoreUrl> {
        let mut hasher = DefaultHasher::new();
        Arc::as_ptr(&self.warehouse.store).cast::<()>().hash(&mut hasher);
        self.warehouse.url.hash(&mut hasher);
        ObjectStoreUrl::parse(format!("warehouse://{:016x}", hasher.finish()))
    }

    fn projected(&self, projection: Option<&Vec<usize>>) -> DataFusionResult<SchemaRef> {
        Ok(match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        })
    }
}

#[async_trait]
impl TableProvider for ParquetTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    fn statistics(&self) -> Option<Statistics> {
        None
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        if self.files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(self.projected(projection)?)));
        }
        let url = self.store_url()?;
        state.runtime_env().register_object_store(url.as_ref(), Arc::clone(&self.warehouse.store));
        let columns = TableSchema::builder(Arc::clone(&self.file_schema))
            .with_table_partition_cols(self.partition_fields())
            .build();
        let table_schema = Arc::clone(columns.table_schema());
        let options = state.table_options().parquet.clone();
        let mut source = ParquetSource::new(columns).with_table_parquet_options(options);
        if let Some(filter) = conjunction(filters.to_vec()) {
            let names = DFSchema::try_from(Arc::clone(&table_schema))?;
            // Filters name columns with the relation that the query gives them, which the files know nothing of.
            source = source.with_predicate(state.create_physical_expr(unqualified(filter)?, &names)?);
        }
        let (groups, mut statistics) = self.groups(state.config().target_partitions(), &table_schema)?;
        if !filters.is_empty() {
            // The engine's guesses at what a filter leaves fail of some columns' bounds. Files are skipped by their own.
            statistics.column_statistics = Statistics::unknown_column(&table_schema);
        }
        let wanted = projection.map_or_else(|| (0..self.schema.fields().len()).collect(), Clone::clone);
        let places = wanted.iter().filter_map(|i| self.positions.get(*i).copied()).collect();
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(Some(places))?
            // A filter that only narrows leaves rows for the query to drop: then the limit isn't ours to apply.
            .with_limit(if filters.is_empty() { limit } else { None })
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

impl ParquetTable {
    fn parts(&self) -> DataFusionResult<&[PartitionedFile]> {
        if let Some(parts) = self.parts.get() {
            return Ok(parts);
        }
        let mut parts = Vec::with_capacity(self.files.len());
        for file in &self.files {
            let path =
                if self.folder.is_empty() { file.path.clone() } else { format!("{}/{}", self.folder, file.path) };
            let mut values = Vec::new();
            for (i, text) in self.partitions.iter().zip(&file.partition_values) {
                let field = self.schema.field(*i);
                let value = partition::to_value(field.name(), text.as_deref(), field.data_type());
                values.push(value.map_err(|error| DataFusionError::External(Box::new(error)))?);
            }
            let stats = stats::from_json(file.stats.as_deref(), file.rows, &self.file_schema);
            let mut part = PartitionedFile::new(String::new(), file.size).with_partition_values(values);
            part.object_meta.location = self.warehouse.path(&path);
            parts.push(part.with_statistics(Arc::new(stats)));
        }
        Ok(self.parts.get_or_init(|| parts))
    }

    /// Files in as many groups as there are cores, with statistics of all of them.
    fn groups(&self, count: usize, schema: &SchemaRef) -> DataFusionResult<(Vec<FileGroup>, Statistics)> {
        let parts = self.parts()?;
        let all = parts.iter().filter_map(|part| part.statistics.as_deref());
        let statistics = Statistics::try_merge_iter(all, schema)?;
        // Largest first onto the least loaded group; scans cut large files further by row group.
        let mut parts: Vec<&PartitionedFile> = parts.iter().collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.object_meta.size));
        let mut groups: Vec<(u64, Vec<PartitionedFile>)> = vec![(0, vec![]); count.max(1).min(parts.len())];
        for part in parts {
            if let Some(group) = groups.iter_mut().min_by_key(|(bytes, _)| *bytes) {
                group.0 += part.object_meta.size;
                group.1.push(part.clone());
            }
        }
        Ok((groups.into_iter().map(|(_, files)| FileGroup::new(files)).collect(), statistics))
    }
}

fn unqualified(filter: Expr) -> DataFusionResult<Expr> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    let plain = filter.transform(|expr| match expr {
        Expr::Column(mut column) if column.relation.is_some() => {
            column.relation = None;
            Ok(Transformed::yes(Expr::Column(column)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plain.data)
}
