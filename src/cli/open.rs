//! Finds and opens the project that the global options name; prints its faults.

use std::path::PathBuf;

use datafusion::prelude::SessionContext;

use crate::cli::Exit;
use crate::cli::args::Global;
use crate::error::{Error, Result};
use crate::plan::{self, TimeTravel};
use crate::run::project::{OpenProject, Opening};
use crate::spec;
use crate::spec::fault::{Fault, Severity};
use crate::spec::types::Project;

/// What opening came to: a project to work on, or the exit code after its faults were printed.
pub(super) enum Opened {
    /// Planned without errors; warnings were printed.
    Project(Box<OpenProject>),
    /// Faults were printed.
    Invalid(Exit),
}

/// The project and its faults, errors too.
///
/// # Errors
/// When there is no project here.
pub(super) fn load(global: &Global) -> Result<(Option<Project>, Vec<Fault>)> {
    let root = root(global)?;
    let options = spec::LoadOptions { root, overlays: global.overlay.clone(), params: global.param.clone() };
    Ok(spec::load(&options))
}

/// Opens the project for work, printing faults on stderr.
pub(super) async fn open(global: &Global) -> Result<Opened> {
    opened(global, Opening::ToWork, Severity::Warning).await
}

/// The same, to say what work would come to.
pub(super) async fn open_to_tell(global: &Global) -> Result<Opened> {
    opened(global, Opening::ToTell, Severity::Warning).await
}

/// As [`open`], without warnings unless there are errors.
pub(super) async fn open_quietly(global: &Global) -> Result<Opened> {
    opened(global, Opening::ToWork, Severity::Error).await
}

/// The same, for questions about tables, which aren't about the project's definition.
pub(super) async fn open_to_read(global: &Global) -> Result<Opened> {
    opened(global, Opening::ToRead, Severity::Error).await
}

async fn opened(global: &Global, opening: Opening, least: Severity) -> Result<Opened> {
    let (project, faults) = load(global)?;
    let Some(project) = project else { return Ok(Opened::Invalid(report(&faults))) };
    let open = OpenProject::open(project, faults, opening).await?;
    let is_told = open.is_invalid() || least == Severity::Warning;
    let exit = if is_told { report(&open.faults) } else { 0 };
    Ok(if open.is_invalid() { Opened::Invalid(exit) } else { Opened::Project(Box::new(open)) })
}

/// Prints faults on stderr; notes only where nothing worse is there. Returns the exit code that they call for.
pub(super) fn report(faults: &[Fault]) -> Exit {
    let shown: Vec<Fault> = faults.iter().filter(|f| f.severity != Severity::Note).cloned().collect();
    if !shown.is_empty() {
        eprint!("{}", spec::render::text(&shown, std::io::IsTerminal::is_terminal(&std::io::stderr())));
    }
    if faults.iter().any(|f| f.severity == Severity::Error) { 2 } else { 0 }
}

/// The rows of a query that was planned. Where it fails of what no rows could mend, its faults are printed, and the exit code is
/// given instead.
///
/// # Errors
/// That of `rows`, otherwise.
pub(super) async fn rows_or_report<T>(
    rows: Result<T>,
    session: &SessionContext,
    sql: &str,
    travel: Option<&dyn TimeTravel>,
) -> Result<Result<T, Exit>> {
    let error = match rows {
        Ok(rows) => return Ok(Ok(rows)),
        Err(error) => error,
    };
    let faults = plan::query_faults(session, sql, travel).await;
    if faults.is_empty() { Err(error) } else { Ok(Err(report(&faults))) }
}

fn root(global: &Global) -> Result<PathBuf> {
    let start = match &global.project {
        Some(dir) => {
            let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
            if dir.join("tidemill.yaml").is_file() {
                return Ok(dir);
            }
            return Err(Error::usage(format!("no tidemill.yaml in {}", dir.display()))
                .with("hint", format!("`tidemill init {}` writes a project there", dir.display())));
        }
        None => std::env::current_dir().map_err(|e| Error::usage("can't read the current folder").caused_by(e))?,
    };
    spec::find_project_root(&start).ok_or_else(|| {
        Error::usage("no tidemill.yaml here or in any folder above")
            .with("hint", "`tidemill init` writes a project, `--project DIR` names one")
    })
}
