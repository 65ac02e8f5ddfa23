//! `tidemill status`: freshness and health.

use std::time::Duration;

use serde_json::json;

use super::Exit;
use super::args::{Global, ListFormat, StatusArgs};
use super::open::{self, Opened};
use crate::error::Result;
use crate::run::outlook::{self, ModelStatus, SinkStatus, SourceStatus};
use crate::run::schedule;

pub(super) async fn execute(global: &Global, args: &StatusArgs) -> Result<Exit> {
    let open = match open::open_to_read(global).await? {
        Opened::Invalid(exit) => return Ok(exit),
        Opened::Project(open) => open,
    };
    let now_us = schedule::wall_clock_us();
    let models = outlook::status(&open).await?;
    let sources = outlook::source_status(&open, now_us).await?;
    let sinks = outlook::sink_status(&open).await?;
    match args.format {
        ListFormat::Json => {
            models.iter().for_each(|model| say!("{}", model_json(model, now_us)));
            sources.iter().for_each(|source| say!("{}", source_json(source)));
            sinks.iter().for_each(|sink| say!("{}", sink_json(sink)));
        }
        ListFormat::Text => {
            print_table(&models, now_us);
            print_sources(&sources, now_us);
            print_sinks(&sinks, now_us);
        }
    }
    let unhealthy = |model: &ModelStatus| {
        matches!(model.status.as_str(), "failed" | "skipped")
            || args.max_age.is_some_and(|max| age(model, now_us).is_none_or(|age| age > max))
    };
    // One that is behind may be on its way.
    let fails = sinks.iter().any(|sink| sink.state == "failed");
    Ok(u8::from(fails || models.iter().any(unhealthy)))
}

fn age(model: &ModelStatus, now_us: i64) -> Option<Duration> {
    model.refreshed_at_us.map(|us| Duration::from_micros(u64::try_from(now_us - us).unwrap_or(0)))
}

fn model_json(model: &ModelStatus, now_us: i64) -> serde_json::Value {
    json!({
        "model": model.model,
        "status": model.status,
        "refreshed_at": model.refreshed_at_us.map(schedule::instant_text),
        "age_seconds": age(model, now_us).map(|age| age.as_secs()),
        "version": model.version,
        "rows": model.rows,
        "reason": model.reason,
    })
}

fn source_json(source: &SourceStatus) -> serde_json::Value {
    json!({
        "source": source.source,
        "rows": source.is_taken_in.then_some(source.rows),
        "late": source.late.filter(|_| source.is_taken_in),
        "quarantined": source.is_taken_in.then_some(source.quarantined),
        "watermark": source.watermark_us.map(schedule::instant_text),
    })
}

fn sink_json(sink: &SinkStatus) -> serde_json::Value {
    json!({
        "sink": sink.sink,
        "table": sink.model,
        "state": sink.state,
        "since": sink.since_us.map(schedule::instant_text),
        "reason": sink.reason,
    })
}

/// Those that fail or are behind, and for how long.
fn print_sinks(sinks: &[SinkStatus], now_us: i64) {
    let lagging: Vec<&SinkStatus> = sinks.iter().filter(|sink| sink.state != "ok").collect();
    if lagging.is_empty() {
        return;
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["sink", "model", "state", "for", ""]);
    for sink in lagging {
        let age = sink.since_us.map(|us| age_text(u64::try_from((now_us - us) / 1_000_000).unwrap_or(0)));
        table.add_row([
            sink.sink.clone(),
            sink.model.clone(),
            sink.state.to_string(),
            age.unwrap_or_else(|| "-".into()),
            sink.reason.clone(),
        ]);
    }
    say!("\n{table}");
}

/// Accepted rows, late ones among them, refused ones, and how long ago the watermark is. Of an upsert relation each message
/// counts: how many keys have a row is known only to who reads all of them.
fn print_sources(sources: &[SourceStatus], now_us: i64) {
    if sources.is_empty() {
        return;
    }
    let dash = || "-".to_string();
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["source", "accepted", "late", "quarantined", "watermark", "behind"]);
    for source in sources {
        let count = |count: u64| if source.is_taken_in { count.to_string() } else { dash() };
        let behind = |us: i64| age_text(u64::try_from((now_us - us) / 1_000_000).unwrap_or(0));
        table.add_row([
            source.source.clone(),
            count(source.rows),
            source.late.map_or_else(dash, count),
            count(source.quarantined),
            source.watermark_us.map_or_else(dash, schedule::instant_text),
            source.watermark_us.map_or_else(dash, behind),
        ]);
    }
    say!("\n{table}");
}

fn print_table(models: &[ModelStatus], now_us: i64) {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["model", "status", "age", "version", "rows", ""]);
    for model in models {
        table.add_row([
            model.model.clone(),
            model.status.clone(),
            age(model, now_us).map(|age| age_text(age.as_secs())).unwrap_or_else(|| "-".into()),
            model.version.map(|v| format!("v{v}")).unwrap_or_else(|| "-".into()),
            model.rows.map(|rows| rows.to_string()).unwrap_or_else(|| "-".into()),
            model.reason.clone(),
        ]);
    }
    say!("{table}");
}

/// The two largest units: `3d 4h`, `12m 5s`.
fn age_text(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}
