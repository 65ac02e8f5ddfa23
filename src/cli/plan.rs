//! `tidemill plan`: what a run would do.

use serde_json::json;

use super::args::{Global, ListFormat, PlanArgs};
use super::open::{self, Opened};
use super::{Exit, selection};
use crate::error::Result;
use crate::run::outlook::{self, IgnoredColumn, ModelOutlook, Outlook, SinkOutlook, SourceOutlook};
use crate::run::project::OpenProject;

pub(super) async fn execute(global: &Global, args: &PlanArgs) -> Result<Exit> {
    let open = match open::open_to_tell(global).await? {
        Opened::Invalid(exit) => return Ok(exit),
        Opened::Project(open) => open,
    };
    let chosen = match selection::choose(&open, &args.selection).await? {
        Ok(chosen) => chosen,
        Err(faults) => return Ok(open::report(&faults)),
    };
    let outlook = outlook::outlook(&open, &chosen.models, args.full_refresh).await?;
    match args.format {
        ListFormat::Json => outlook.models.iter().for_each(|model| say!("{}", model_json(&open, &outlook, model))),
        ListFormat::Text => {
            for source in outlook.sources.values() {
                let found = match source.problem {
                    Some(_) => "can't be read",
                    None => source.changes.as_deref().unwrap_or("unchanged"),
                };
                say!("source {}: {found}", source.source);
                for note in source.problem.iter().chain(&source.notes) {
                    say!("  note: {note}");
                }
            }
            outlook.models.iter().for_each(|model| print_model(&open, model));
        }
    }
    Ok(0)
}

fn model_json(open: &OpenProject, all: &Outlook, outlook: &ModelOutlook) -> serde_json::Value {
    let inputs = open.model(&outlook.model).map(|model| model.inputs.as_slice()).unwrap_or_default();
    let sources = inputs.iter().filter_map(|input| all.sources.get(input));
    let ignored: Vec<_> = sources.flat_map(ignored_json).collect();
    let strategy = open.model(&outlook.model).map(|m| &m.strategy);
    let mut json = json!({
        "model": outlook.model,
        "change": outlook.change,
        "incremental": strategy.is_some_and(|s| s.name == "incremental"),
        "strategy": strategy.map(|s| s.name),
        "operators": strategy.map(|s| &s.operators),
        "reason": outlook.reason,
        "rebuild": outlook.rebuild,
        "publishes": outlook.publishes.iter().map(sink_json).collect::<Vec<_>>(),
    });
    if !ignored.is_empty() {
        json["ignored_columns"] = ignored.into();
    }
    json
}

/// Columns of a source's files that no contract names.
fn ignored_json(source: &SourceOutlook) -> impl Iterator<Item = serde_json::Value> {
    let name = &source.source;
    let json = move |one: &IgnoredColumn| json!({ "source": name, "file": one.file, "column": one.column, "declared": one.declared });
    source.ignored.iter().map(json)
}

fn sink_json(sink: &SinkOutlook) -> serde_json::Value {
    json!({ "to": sink.to, "emit": sink.emit, "next": sink.next })
}

fn print_model(open: &OpenProject, outlook: &ModelOutlook) {
    let Some(model) = open.model(&outlook.model) else { return };
    let action = match (outlook.is_skipped, outlook.computes) {
        (true, _) => String::new(),
        (false, true) => format!("{}: ", model.strategy.name),
        (false, false) => "nothing to do: ".to_owned(),
    };
    say!("model {}: {}, {action}{}", outlook.model, outlook.change, outlook.reason);
    say!("  strategy: {}; {}", model.strategy.name, model.strategy.reason);
    // What is new or always recomputed said so above.
    let is_news = outlook.change == "changed" || (outlook.change == "unchanged" && model.maintenance.is_some());
    if let Some(rebuild) = outlook.rebuild.as_ref().filter(|_| is_news) {
        say!("  rebuilds {rebuild}");
    }
    for sink in &outlook.publishes {
        say!("  publishes to {} ({}): {}", sink.to, sink.emit, sink.next);
    }
}
