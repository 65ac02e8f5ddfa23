//! `tidemill query`: one query over the tables, here or on a server, once or after each change.

use std::collections::HashMap;
use std::io::Read;
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use super::Exit;
use super::args::{Global, QueryArgs};
use super::interrupt::or_interrupted;
use super::open::{self, Opened};
use super::output::{self, Format, Shown, Target};
use crate::engine::{self, RowStream};
use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::plan;
use crate::run::project::OpenProject;
use crate::run::reader::{Reader, Snapshot};
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
            match args.watch {
                Some(interval) => watch_server(url, &sql, format, interval.unwrap_or(limits::WATCH_ASK)).await,
                None => {
                    let (schema, rows) = client::query(url, &sql).await?;
                    output::write(schema, rows, format, &target).await.map(|_| 0)
                }
            }
        };
        return Ok(or_interrupted(work).await?.unwrap_or_else(|exit| exit));
    }
    let open = match open::open_to_read(global).await? {
        Opened::Invalid(exit) => return Ok(exit),
        Opened::Project(open) => open,
    };
    let tables = Tables::new(&open, args, &sql).await?;
    let work = async {
        match args.watch {
            Some(interval) => tables.watch(format, interval.unwrap_or(limits::WATCH_LOOK)).await,
            None => {
                let snapshot = match &args.at {
                    Some(text) => tables.reader.snapshot_at(schedule::parse_instant(text, tables.zone)?).await?,
                    None => tables.reader.snapshot().await?,
                };
                match tables.ask(&snapshot, args.at.is_some()).await? {
                    Answer::Rows(schema, rows) => output::write(schema, rows, format, &target).await.map(|_| 0),
                    Answer::Faults(exit) => Ok(exit),
                }
            }
        }
    };
    Ok(or_interrupted(work).await?.unwrap_or_else(|exit| exit))
}

/// Asks a server again and again, and shows what is new.
async fn watch_server(url: &str, sql: &str, format: Format, interval: Duration) -> Result<Exit> {
    let mut shown = Shown::new(format)?;
    loop {
        let (schema, rows) = client::query(url, sql).await?;
        if !shown.show(schema, rows).await? {
            return Ok(0);
        }
        tokio::time::sleep(interval).await;
    }
}

/// A query of the tables in the project's warehouse.
struct Tables<'a> {
    open: &'a OpenProject,
    reader: Reader,
    zone: &'a str,
    /// `--now`, microseconds since 1970 UTC; else each answer has the present.
    now_us: Option<i64>,
    sql: &'a str,
}

/// What asking came to.
enum Answer {
    Rows(SchemaRef, RowStream),
    /// Faults in the SQL were printed.
    Faults(Exit),
}

impl<'a> Tables<'a> {
    async fn new(open: &'a OpenProject, args: &QueryArgs, sql: &'a str) -> Result<Self> {
        let zone = open.project.timezone.value.as_str();
        let now_us = args.now.as_ref().map(|text| schedule::parse_instant(text, zone)).transpose()?;
        let models = open.plan.models.iter().map(|model| model.name.clone());
        let reader = Reader::new(open.warehouse().await?, &open.project.name.value, zone).of_models(models);
        Ok(Self { open, reader, zone, now_us, sql })
    }

    /// Runs the query over a snapshot, of the past or of now.
    async fn ask(&self, snapshot: &Snapshot, is_past: bool) -> Result<Answer> {
        let now_us = self.now_us.unwrap_or_else(schedule::wall_clock_us);
        let session = self.open.session(now_us);
        // Sources have no past that could be honoured: at an instant only tables are there.
        let mut sources = HashMap::new();
        if !is_past {
            sources = preview::sources(self.open, &plan::relations_of(&session, self.sql), now_us).await?;
        }
        self.reader.register(&session, snapshot, true, sources).await?;
        let plan = match plan::query(&session, self.sql, Some(&self.reader)).await {
            Ok(plan) => plan,
            Err(faults) => return Ok(Answer::Faults(open::report(&faults))),
        };
        let rows = engine::rows(&session, plan, None).await;
        Ok(match open::rows_or_report(rows, &session, self.sql, Some(&self.reader)).await? {
            Ok((schema, rows)) => Answer::Rows(schema, rows),
            Err(exit) => Answer::Faults(exit),
        })
    }

    /// Runs the query again after each commit, of any pipeline, and shows what is new.
    async fn watch(&self, format: Format, interval: Duration) -> Result<Exit> {
        let mut shown = Shown::new(format)?;
        let mut seen = None;
        loop {
            let snapshot = self.reader.snapshot().await?;
            let commits: Vec<_> =
                snapshot.records.iter().map(|(pipeline, record)| (pipeline.clone(), record.n)).collect();
            if seen.as_ref() != Some(&commits) {
                let (schema, rows) = match self.ask(&snapshot, false).await? {
                    Answer::Rows(schema, rows) => (schema, rows),
                    Answer::Faults(exit) => return Ok(exit),
                };
                if !shown.show(schema, rows).await? {
                    return Ok(0);
                }
                seen = Some(commits);
            }
            tokio::time::sleep(interval).await;
            // What another process committed meanwhile is to be seen now.
            self.reader.forget();
        }
    }
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
