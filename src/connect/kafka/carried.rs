//! Landed rows that stay under another contract: a unit as it is where its files have just the contract's columns, else written
//! anew with them. Nothing is judged anew: a message's text isn't kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::Column;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;

use super::Topic;
use super::again::{self, Kept};
use super::rows::landed_fields;
use crate::connect::files::parquet_file::schema_at;
use crate::connect::{FileEntry, Landing, kept, quarantine_schema};
use crate::engine;
use crate::error::Result;
use crate::plan::loosened;
use crate::table::{DataFile, TableFiles, parquet_table, types, write_files};

/// What stays of a position.
#[derive(Default)]
pub(super) struct Carried {
    pub(super) units: Vec<FileEntry>,
    /// The files that were written for them.
    staged: FileEntry,
    /// Whether nothing was given up.
    pub(super) is_all: bool,
    pub(super) warnings: Vec<String>,
}

impl Carried {
    /// Rows and refused rows of a position, as far as they are kept somewhere, that don't stay.
    pub(super) fn without(&self, files: &[FileEntry]) -> u64 {
        let refused = |unit: &FileEntry| unit.quarantined.iter().map(|file| file.rows).sum::<u64>();
        let count = |units: &[FileEntry]| units.iter().map(|unit| unit.rows + refused(unit)).sum::<u64>();
        count(files).saturating_sub(count(&self.units))
    }

    /// Deletes what was written, as far as possible.
    pub(super) async fn discard(&self, landing: &Landing<'_>) {
        landing.discard(std::slice::from_ref(&self.staged)).await;
    }
}

/// Puts the rows that stay under the contract of `landing`.
///
/// # Errors
/// External: the contract can't hold some of them, unless the source gives those up; files can't be read or written. What was
/// written is deleted again, as far as possible.
pub(super) async fn carry(topic: &Topic, kept: Vec<Kept>, landing: &Landing<'_>) -> Result<Carried> {
    let fields = landing.contract.fields().iter().cloned();
    let fields = fields.chain(landed_fields(&topic.zone).into_iter().map(Arc::new));
    let carrier = Carrier { landing, zone: &topic.zone, schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())) };
    let mut carried = Carried { is_all: true, ..Carried::default() };
    if let Some(text) = again::let_go(&kept) {
        carried.warnings.push(again::give_up(topic, &text)?);
        carried.is_all = false;
    }
    let (mut fitting, mut lost, mut reasons) = (Vec::new(), Vec::new(), BTreeSet::new());
    for kept in kept.into_iter().filter(|kept| !kept.unit.is_let_go) {
        match carrier.fit(&kept).await? {
            Fit::Lost(reason) => {
                lost.push(kept);
                reasons.insert(reason);
            }
            fit => fitting.push((kept, fit)),
        }
    }
    if !lost.is_empty() {
        let text = format!(
            "rows of {} were read, the topic doesn't hold these messages any more, and the changed contract can't hold the \
             rows that are kept: {}",
            again::told(&lost),
            reasons.into_iter().collect::<Vec<_>>().join("; ")
        );
        carried.warnings.push(again::give_up(topic, &text)?);
        carried.is_all = false;
    }
    let told = again::told(fitting.iter().map(|(kept, _)| kept));
    if !told.is_empty() {
        carried.warnings.push(format!("rows of {told} stay as they were accepted: they can't be read again"));
    }
    for (number, (kept, fit)) in fitting.into_iter().enumerate() {
        match carrier.carried(number, &kept, &fit, &mut carried.staged).await {
            Ok(unit) => carried.units.push(unit),
            Err(error) => {
                carried.discard(landing).await;
                return Err(error);
            }
        }
    }
    Ok(carried)
}

/// How a unit's rows stand to the contract.
enum Fit {
    /// They have its columns.
    Same,
    /// Each has a value in it.
    Written,
    /// The contract can't hold them, and why.
    Lost(String),
}

struct Carrier<'a, 'l> {
    landing: &'a Landing<'l>,
    zone: &'a str,
    /// Columns of landed rows.
    schema: SchemaRef,
}

impl Carrier<'_, '_> {
    async fn fit(&self, kept: &Kept) -> Result<Fit> {
        let wanted = types::file_schema(types::table_schema(&self.schema)?.as_ref(), &[]);
        let mut is_same = true;
        let mut unsure: Vec<&str> = Vec::new();
        for file in kept.unit.landed.iter().flatten() {
            let path = self.landing.warehouse.path(&format!("{}/{}", self.landing.landed, file.path));
            let stored = schema_at(&self.landing.warehouse.store, path, file.size).await?;
            if let Err(reason) = kept::fits(&stored, &wanted) {
                return Ok(Fit::Lost(reason));
            }
            is_same &= stored.fields().len() == wanted.fields().len();
            for field in wanted.fields() {
                let there = stored.field_with_name(field.name()).ok();
                is_same &= there.is_some_and(|there| there.data_type() == field.data_type());
                if !field.is_nullable()
                    && there.is_some_and(Field::is_nullable)
                    && !unsure.contains(&field.name().as_str())
                {
                    unsure.push(field.name());
                }
            }
        }
        for column in unsure {
            if self.has_null(kept, column).await? {
                return Ok(Fit::Lost(format!("`{column}` is null in some of them, and may not be")));
            }
        }
        Ok(if is_same { Fit::Same } else { Fit::Written })
    }

    async fn has_null(&self, kept: &Kept, column: &str) -> Result<bool> {
        let files = kept.unit.landed.clone().unwrap_or_default();
        let is_null = Expr::Column(Column::new_unqualified(column)).is_null();
        let plan = self.rows(&self.landing.landed, &self.schema, files, kept.filter().and(is_null))?;
        for stream in engine::execute(&session(), plan).await? {
            let batches: Vec<_> = stream.try_collect().await.map_err(engine::failure)?;
            if batches.iter().any(|batch| batch.num_rows() > 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The unit under the contract, with the offsets that stay; files that are written are noted in `staged`, too.
    async fn carried(&self, number: usize, kept: &Kept, fit: &Fit, staged: &mut FileEntry) -> Result<FileEntry> {
        let unit = &kept.unit;
        if kept.is_whole() && matches!(fit, Fit::Same) {
            return Ok(unit.clone());
        }
        let landed = unit.landed.clone().unwrap_or_default();
        let landed = self.written(&self.landing.landed, &self.schema, landed, kept.filter()).await?;
        staged.landed.get_or_insert_default().extend(landed.iter().cloned());
        let path = format!("{}-kept{number}", self.landing.prefix);
        let mut entry = FileEntry {
            hash: path.clone(),
            path,
            rows: landed.iter().map(|file| file.rows).sum(),
            landed: Some(landed),
            key_filters: None,
            ranges: kept.ranges().clone(),
            ..unit.clone()
        };
        if kept.is_whole() {
            return Ok(entry);
        }
        let names = self.landing.contract.fields().iter().map(|field| field.name().as_str());
        let schema = quarantine_schema(names);
        let (quarantine, refused) = (&self.landing.quarantine, unit.quarantined.clone());
        let refused = self.written(quarantine, &schema, refused, kept.refused_filter()).await?;
        staged.quarantined.extend(refused.iter().cloned());
        // What was counted of all messages of the unit can't be told apart: bytes go by rows, the rest by what is read again.
        let share = |bytes: u64| u128::from(bytes) * u128::from(entry.rows) / u128::from(unit.rows.max(1));
        entry.size = u64::try_from(share(unit.size)).unwrap_or(unit.size);
        entry.refused = refused.iter().map(|file| file.rows).sum();
        (entry.quarantined, entry.late, entry.late_offsets) = (refused, 0, Vec::new());
        entry.warned.clear();
        entry.quarantined_by.clear();
        Ok(entry)
    }

    /// The rows of some files that stay, as new files under a schema.
    async fn written(
        &self,
        folder: &str,
        schema: &SchemaRef,
        files: Vec<DataFile>,
        filter: Expr,
    ) -> Result<Vec<DataFile>> {
        if files.is_empty() {
            return Ok(files);
        }
        let plan = self.rows(folder, schema, files, filter)?;
        let streams = engine::execute_as(&session(), plan, schema).await?;
        write_files(self.landing.warehouse, folder, schema, &[], &self.landing.prefix, streams).await
    }

    /// A folder's rows that pass the filter: columns that files lack are null, as any may be before it is known otherwise.
    fn rows(&self, folder: &str, schema: &SchemaRef, files: Vec<DataFile>, filter: Expr) -> Result<LogicalPlan> {
        let schema = Arc::new(loosened(schema, &[]));
        let files = TableFiles { schema, partition_by: Vec::new(), files };
        let table = parquet_table(self.landing.warehouse, folder, files, self.zone)?;
        let plan = LogicalPlanBuilder::scan("rows", provider_as_source(table), None);
        plan.and_then(|plan| plan.filter(filter)).and_then(LogicalPlanBuilder::build).map_err(engine::failure)
    }
}

/// Rows of a topic stay in the order in which they came.
fn session() -> SessionContext {
    SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1))
}
