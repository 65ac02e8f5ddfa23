//! `tidemill run`: the cron entry point.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::args::{Global, ListFormat, RunArgs};
use super::interrupt::or_interrupted;
use super::open::{self, Opened};
use super::{Exit, selection};
use crate::error::{Error, Result};
use crate::run::history::ModelOutcome;
use crate::run::refresh::{Observer, RefreshOptions, refresh};
use crate::run::schedule;

pub(super) async fn execute(global: &Global, args: &RunArgs) -> Result<Exit> {
    let opened = if args.quiet { open::open_quietly(global).await? } else { open::open(global).await? };
    let open = match opened {
        Opened::Invalid(exit) => return Ok(exit),
        Opened::Project(open) => open,
    };
    let now_us = match &args.now {
        Some(text) => schedule::parse_instant(text, &open.project.timezone.value)?,
        None => schedule::wall_clock_us(),
    };
    let chosen = match selection::choose(&open, &args.selection).await? {
        Ok(chosen) => chosen,
        Err(faults) => return Ok(open::report(&faults)),
    };
    if chosen.models.is_empty() && chosen.sources.is_empty() && !args.quiet && !open.plan.models.is_empty() {
        eprintln!("note: no model is chosen");
    }
    let options = RefreshOptions {
        models: chosen.models,
        sources: chosen.sources,
        silent: BTreeSet::new(),
        due: args.due,
        full_refresh: args.full_refresh,
        now_us,
        wait: args.wait.map(|wait| wait.unwrap_or(Duration::MAX)),
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
    };
    let printer = Printer::new(args, options.models.iter().map(String::len).max().unwrap_or(0));
    let report = or_interrupted(refresh(&open, &options, &printer)).await;
    printer.spinner.finish_and_clear();
    match report? {
        Ok(report) => Ok(report.exit_code),
        Err(exit) => {
            eprintln!("interrupted; every published table is whole, and the next run goes on");
            Ok(exit)
        }
    }
}

/// One line a model on stdout, a spinner on stderr where that is a terminal.
struct Printer {
    format: ListFormat,
    quiet: bool,
    width: usize,
    spinner: ProgressBar,
}

impl Printer {
    fn new(args: &RunArgs, width: usize) -> Self {
        let visible = !args.quiet && std::io::stderr().is_terminal();
        let spinner = if visible { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {elapsed}") {
            spinner.set_style(style);
        }
        if visible {
            spinner.enable_steady_tick(Duration::from_millis(100));
        }
        Self { format: args.format, quiet: args.quiet, width, spinner }
    }
}

impl Observer for Printer {
    fn working(&self, what: &str) {
        self.spinner.set_message(what.to_string());
    }

    fn finished(&self, outcome: &ModelOutcome) {
        if self.quiet {
            return;
        }
        let line = match self.format {
            ListFormat::Json => outcome_json(outcome).to_string(),
            ListFormat::Text => outcome_text(outcome, self.width),
        };
        self.spinner.suspend(|| say!("{line}"));
    }

    fn warned(&self, text: &str) {
        if !self.quiet {
            self.spinner.suspend(|| eprintln!("warning: {text}"));
        }
    }

    fn failed(&self, relation: &str, error: &Error) {
        self.spinner.suspend(|| eprintln!("error: {relation}: {error}"));
    }
}

fn outcome_json(outcome: &ModelOutcome) -> serde_json::Value {
    json!({
        "model": outcome.model,
        "status": outcome.status,
        "strategy": outcome.strategy,
        "reason": outcome.reason,
        "inserted": outcome.inserted,
        "updated": outcome.updated,
        "deleted": outcome.deleted,
        "quarantined": outcome.quarantined,
        "warnings": outcome.warnings,
        "version": outcome.version,
        "seconds": (outcome.seconds * 1000.0).round() / 1000.0,
    })
}

fn outcome_text(outcome: &ModelOutcome, width: usize) -> String {
    let version = outcome.version.map(|v| format!("v{v}")).unwrap_or_else(|| "-".into());
    let mut line = format!(
        "{:width$}  {:<7}  {:<10}  +{} ~{} -{}  {version}  {:.1}s",
        outcome.model,
        outcome.status,
        outcome.strategy,
        outcome.inserted,
        outcome.updated,
        outcome.deleted,
        outcome.seconds,
    );
    if outcome.quarantined > 0 {
        line.push_str(&format!("  {} quarantined", outcome.quarantined));
    }
    if outcome.warnings > 0 {
        line.push_str(&format!("  {} warned", outcome.warnings));
    }
    if outcome.has_failed() {
        line.push_str(&format!("  {}", outcome.reason));
    }
    line
}
