//! `tidemill show`: a model or a query over the sources as they are now.

use std::sync::Arc;

use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider};

use super::Exit;
use super::args::{Global, ShowArgs};
use super::interrupt::or_interrupted;
use super::open::{self, Opened};
use super::output::{self, Target};
use crate::engine;
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
    let is_name = open.model(&args.what).is_some() || open.source(&args.what).is_some();
    let sql = if is_name { format!("SELECT * FROM \"{}\"", args.what) } else { args.what.clone() };
    let main = MemorySchemaProvider::new();
    for (name, relation) in preview::relations(&open, &plan::relations_of(&session, &sql), now_us).await? {
        main.register_table(name, relation).external("a relation can't be registered")?;
    }
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema("main", Arc::new(main)).external("a schema can't be registered")?;
    session.register_catalog(open.project.name.value.clone(), Arc::new(catalog));
    let plan = match plan::query(&session, &sql, None).await {
        Ok(plan) => plan,
        Err(faults) => return Ok(open::report(&faults)),
    };
    let work = async {
        let rows = engine::rows(&session, plan, Some(args.limit)).await;
        match open::rows_or_report(rows, &session, &sql, None).await? {
            Ok((schema, rows)) => output::write(schema, rows, args.format, &Target::Stdout).await.map(|_| 0),
            Err(exit) => Ok(exit),
        }
    };
    Ok(or_interrupted(work).await?.unwrap_or_else(|exit| exit))
}
