//! `tidemill runs`: history.

use super::Exit;
use super::args::{Global, ListFormat, RunsArgs};
use super::open;
use crate::error::Result;
use crate::run::history::{self, RunRecord};
use crate::run::project::open_warehouse;
use crate::run::schedule;

pub(super) async fn execute(global: &Global, args: &RunsArgs) -> Result<Exit> {
    let (project, faults) = open::load(global)?;
    let Some(project) = project else { return Ok(open::report(&faults)) };
    let warehouse = open_warehouse(&project).await?;
    let runs = history::list(&warehouse, args.limit).await?;
    match args.format {
        ListFormat::Json => {
            for run in &runs {
                say!("{}", serde_json::to_string(run).unwrap_or_default());
            }
        }
        ListFormat::Text if runs.is_empty() => say!("no runs yet"),
        ListFormat::Text => {
            let mut table = comfy_table::Table::new();
            table.load_preset(comfy_table::presets::NOTHING);
            table.set_header(["run", "started", "seconds", "status", "ok", "nothing", "failed", "skipped"]);
            for run in &runs {
                let count = |status: &str| run.models.iter().filter(|m| m.status == status).count().to_string();
                table.add_row([
                    run.run.clone(),
                    schedule::instant_text(run.started_at_us),
                    seconds(run),
                    run.status.as_str().to_string(),
                    count("ok"),
                    count("nothing"),
                    count("failed"),
                    count("skipped"),
                ]);
            }
            say!("{table}");
        }
    }
    Ok(0)
}

fn seconds(run: &RunRecord) -> String {
    run.ended_at_us.map(|ended| format!("{:.1}", (ended - run.started_at_us) as f64 / 1e6)).unwrap_or_default()
}
