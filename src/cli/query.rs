//! `tidemill query`: one query over the tables, here or on a server.

use std::collections::HashMap;
use std::io::Read;

use super::args::{Global, QueryArgs};
use super::interrupt::or_interrupted;
use super::open::{self, Opened};
use super::output::{self, Format, Target};
use super::Exit;
use crate::error::{Error, Result, ResultExt};
use crate::engine;
use crate::plan;
use crate::run::reader::Reader;
use crate::run::{preview, schedule};
use crate::serve::flight::client;

pub(super) async fn execute(global: &Global, args: &QueryArgs) -> Result<Exit> {
    let sql = sql(args)?;
    let format = match args.format {
        Some(chosen) => chosen,
        None => default_format(args)?,
    };
    let target = args.output.clone().map_or(Target::Stdout, Target::File);
    if let Some(url) = &args.url {
        let work = async {
            let (schema, rows) = client::query(url, &sql).await?;
            output::write(schema, rows, format, &target).await
        };
        return Ok(or_interrupted(work).await?.map_or_else(|exit| exit, |_| 0));
    }
    local(global, args, &sql, format, target).await
}

async fn local(global: &Global, args: &QueryArgs, sql: &str, format: Format, target: Target) -> Result<Exit> {
    let open = match open::open(global).await? {
        Opened::Invalid(exit) => return Ok(exit),
        Opened::Project(open) => open,
    };
    let zone = &open.project.timezone.value;
    let now_us = match &args.now {
        Some(text) => schedule::parse_instant(text, zone)?,
        None => schedule::wall_clock_us(),
    };
    let reader = Reader::new(open.warehouse().await?, &open.project.name.value, zone);
    let session = open.session(now_us);
    let snapshot = match &args.at {
        Some(text) => reader.snapshot_at(schedule::parse_instant(text, zone)?).await?,
        None => reader.snapshot().await?,
    };
    // Sources have no past that could be honoured: at an instant only tables are there.
    let mut sources = HashMap::new();
    if args.at.is_none() {
        for (name, relation) in preview::sources(&open, &plan::relations_of(sql), now_us).await? {
            sources.insert(name, preview::without_hidden(relation, sql)?);
        }
    }
    reader.register(&session, &snapshot, true, sources).await?;
    let plan = match plan::query(&session, sql, Some(&reader)).await {
        Ok(plan) => plan,
        Err(faults) => return Ok(open::report(&faults)),
    };
    let work = async {
        let (schema, rows) = engine::rows(&session, plan, None).await?;
        output::write(schema, rows, format, &target).await
    };
    Ok(or_interrupted(work).await?.map_or_else(|exit| exit, |_| 0))
}

fn sql(args: &QueryArgs) -> Result<String> {
    if let Some(path) = &args.file {
        return std::fs::read_to_string(path).external(format!("can't read {}", path.display()));
    }
    match args.sql.as_deref() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).external("can't read stdin")?;
            Ok(text)
        }
        Some(sql) => Ok(sql.to_string()),
        None => Err(Error::usage("no query given")),
    }
}

/// By the output file's name; a table on stdout.
fn default_format(args: &QueryArgs) -> Result<Format> {
    let Some(path) = &args.output else { return Ok(Format::Table) };
    match path.extension().and_then(|e| e.to_str()) {
        Some("csv") => Ok(Format::Csv),
        Some("json" | "jsonl" | "ndjson") => Ok(Format::Json),
        Some("parquet") => Ok(Format::Parquet),
        Some("arrow" | "feather" | "ipc") => Ok(Format::Arrow),
        Some("txt") => Ok(Format::Table),
        _ => Err(Error::usage(format!("can't tell a format from the name {}", path.display()))
            .with("hint", "choose one with --format")),
    }
}
