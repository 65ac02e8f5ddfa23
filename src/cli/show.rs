//! `tidemill show`: a model or a query over the sources as they are now.

use std::sync::Arc;

use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider};

use super::args::{Global, ShowArgs};
use super::interrupt::or_interrupted;
use super::open::{self, Opened};
use super::output::{self, Target};
use super::{Exit, query};
use crate::error::{Result, ResultExt};
use crate::plan;
use crate::run::{preview, schedule};

pub(super) async fn execute(global: &Global, args: &ShowArgs) -> Result<Exit> {
    let open = match open::open(global).await? {
        Opened::Invalid(exit) => return Ok(exit),
        Opened::Project(open) => open,
    };
    let now_us = match &args.now {
        Some(text) => schedule::parse_instant(text, &open.project.timezone.value)?,
        None => schedule::wall_clock_us(),
    };
    let session = open.session(now_us);
    let main = MemorySchemaProvider::new();
    for (name, relation) in preview::relations(&open).await? {
        main.register_table(name, relation).external("can't register a relation")?;
    }
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema("main", Arc::new(main)).external("can't register a schema")?;
    session.register_catalog(open.project.name.value.clone(), Arc::new(catalog));

    let is_name = open.model(&args.what).is_some() || open.source(&args.what).is_some();
    let sql = if is_name { format!("SELECT * FROM \"{}\"", args.what) } else { args.what.clone() };
    let plan = match plan::query(&session, &sql, None).await {
        Ok(plan) => plan,
        Err(faults) => return Ok(open::report(&faults)),
    };
    let rows = or_interrupted(async {
        let frame = session.execute_logical_plan(plan).await.external("can't plan the query")?;
        let frame = frame.limit(0, Some(args.limit)).external("can't plan the query")?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let stream = frame.execute_stream().await.map_err(crate::engine::error)?;
        output::write(schema, stream, query::format(args.format), Target::Stdout).await
    });
    Ok(match rows.await? {
        Ok(_) => 0,
        Err(exit) => exit,
    })
}
