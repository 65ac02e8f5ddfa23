//! `tidemill validate`: every fault of the project at once.

use super::args::{Global, ListFormat, ValidateArgs};
use super::{Exit, open};
use crate::error::Result;
use crate::run::project::{OpenProject, Opening};
use crate::spec;
use crate::spec::fault::Severity;

pub(super) async fn execute(global: &Global, args: &ValidateArgs) -> Result<Exit> {
    let (project, mut faults) = open::load(global)?;
    let mut counts = (0, 0);
    if let Some(project) = project {
        let open =
            OpenProject::open(project, faults, if args.offline { Opening::Offline } else { Opening::ToTell }).await?;
        counts = (open.plan.sources.len(), open.plan.models.len());
        faults = open.faults;
    }
    let errors = faults.iter().filter(|f| f.severity == Severity::Error).count();
    match args.format {
        ListFormat::Json => {
            for fault in &faults {
                say!("{}", spec::render::json(fault));
            }
        }
        ListFormat::Text => {
            if !faults.is_empty() {
                eprint!("{}", spec::render::text(&faults, std::io::IsTerminal::is_terminal(&std::io::stderr())));
            }
            if errors == 0 {
                say!("valid: {} sources, {} models", counts.0, counts.1);
            } else {
                eprintln!("{errors} {}", if errors == 1 { "error" } else { "errors" });
            }
        }
    }
    Ok(if errors > 0 { 2 } else { 0 })
}
