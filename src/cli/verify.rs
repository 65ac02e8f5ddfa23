//! `tidemill verify`: each table against one batch run over the same positions.

use serde_json::json;

use super::args::{Global, ListFormat, VerifyArgs};
use super::open::{self, Opened};
use super::{Exit, selection};
use crate::error::Result;
use crate::run::verify::{self, Verdict};

pub(super) async fn execute(global: &Global, args: &VerifyArgs) -> Result<Exit> {
    let open = match open::open(global).await? {
        Opened::Invalid(exit) => return Ok(exit),
        Opened::Project(open) => open,
    };
    let chosen = match selection::choose(&open, &args.selection).await? {
        Ok(chosen) => chosen,
        Err(faults) => return Ok(open::report(&faults)),
    };
    let mut exit = 0;
    for model in open.plan.models.iter().filter(|model| chosen.models.contains(&model.name)) {
        match verify::verify(&open, model).await {
            Ok(verdict) => {
                exit = exit.max(u8::from(verdict.status == "differs"));
                print(&verdict, args.format);
            }
            Err(error) => {
                exit = 3;
                eprintln!("error: {}: {error}", model.name);
            }
        }
    }
    Ok(exit)
}

fn print(verdict: &Verdict, format: ListFormat) {
    let Verdict { model, status, reason, rows, differing, sample } = verdict;
    match format {
        ListFormat::Json => {
            let line = json!({ "model": model, "status": status, "reason": reason, "rows": rows, "differing": differing, "sample": sample });
            say!("{line}");
        }
        ListFormat::Text => {
            match *status {
                "ok" => say!("{model}  ok  {rows} rows"),
                "skipped" => say!("{model}  skipped: {reason}"),
                _ => say!("{model}  differs: {differing} rows (- in the table alone, + in one batch run alone)"),
            }
            for row in sample {
                say!("  {row}");
            }
            if *status == "differs" && !reason.is_empty() {
                say!("  {reason}");
            }
            let more = differing.saturating_sub(sample.len() as u64);
            if more > 0 && !sample.is_empty() {
                say!("  and {more} more");
            }
        }
    }
}
