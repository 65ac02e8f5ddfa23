//! Loads a project: its files, overlays and parameters, into a `Project` and all faults.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::fault::{Fault, Place, SourceText, sort};
use super::fields::Reader;
use super::files::{Disk, Files, ProjectFiles};
use super::model::read_model;
use super::project::read_project;
use super::source::read_source;
use super::test_file::{read_tests, sound};
use super::tree::{Node, Value, parse};
use super::types::{Located, Pipeline, Project};
use super::variables::Variables;
use super::{did_you_mean, is_name, keys, names, nearest, overlay, publish};
use crate::limits::NAME_BYTES_MAX;

/// What to load.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The folder with `tidemill.yaml`, absolute.
    pub root: PathBuf,
    /// Partial projects, merged in this order; relative to where the process stands, or else to `root`.
    pub overlays: Vec<PathBuf>,
    /// `--param NAME=VALUE`; of several values for one name, the last counts.
    pub params: Vec<(String, String)>,
}

/// Loads a project from disk, with the process's environment. See [`load_from`].
pub fn load(options: &LoadOptions) -> (Option<Project>, Vec<Fault>) {
    load_with(options, &|name| std::env::var(name).ok())
}

/// [`load`] with variables from `env`.
pub fn load_with(options: &LoadOptions, env: &dyn Fn(&str) -> Option<String>) -> (Option<Project>, Vec<Fault>) {
    load_from(options, env, &Disk)
}

/// Loads a project with variables from `env` and files from `disk`, and tells every fault, in the order of [`sort`].
///
/// With an error among the faults the project must not run; it can still be planned, to tell the faults of its SQL as well.
/// What can't be judged is left out of it: sources and models whose own declaration is broken, and whatever reads them.
/// There is none if `tidemill.yaml` can't be read.
pub fn load_from(
    options: &LoadOptions,
    env: &dyn Fn(&str) -> Option<String>,
    disk: &dyn ProjectFiles,
) -> (Option<Project>, Vec<Fault>) {
    let file = |path: &str| {
        let bytes = disk.read(&options.root.join(path)).map_err(|error| error.to_string())?;
        String::from_utf8(bytes).map_err(|_| "it isn't UTF-8".to_string())
    };
    let variables = Variables { env, file: &file };
    let mut reader = Reader { variables: &variables, faults: Vec::new(), unsound: BTreeSet::new() };
    let mut files = Files::new(&options.root, disk);
    let project = load_project(options, &mut reader, &mut files);
    let mut faults = reader.faults;
    sort(&mut faults);
    (project, faults)
}

fn load_project(options: &LoadOptions, reader: &mut Reader<'_>, files: &mut Files<'_>) -> Option<Project> {
    let mut root_file = parse_root(reader, files);
    let has_root_file = root_file.is_some();
    let mut pipelines = Vec::new();
    let mut is_whole = has_root_file;
    for path in list(reader, files, "pipelines") {
        match parse_file(reader, files, &path) {
            Some(node) => pipelines.push(node),
            None => {
                is_whole = false;
                names::distrust(reader, files, &path);
            }
        }
    }
    // Without a project file the pipelines are still read, for their faults.
    let mut nothing =
        Node { value: Value::Map(vec![]), place: Place::new(&SourceText::new("tidemill.yaml", ""), 0..0) };
    for path in &options.overlays {
        match parse_overlay(reader, files, path) {
            Some(node) => overlay::apply(&node, root_file.as_mut().unwrap_or(&mut nothing), &mut pipelines, reader),
            None => is_whole = false,
        }
    }
    let mut project = root_file.as_ref().and_then(|node| read_project(reader, node, options));
    let mut declared = Vec::new();
    let read: Vec<Pipeline> =
        pipelines.iter().filter_map(|node| read_pipeline(reader, files, node, &mut declared)).collect();
    names::check_duplicates(reader, &read, &declared);
    if is_whole {
        note_unused_sql(reader, files, &declared);
    }
    let mut tests = Vec::new();
    for path in list(reader, files, "tests") {
        if let Some(node) = parse_file(reader, files, &path) {
            let file = read_tests(reader, &node);
            if is_whole {
                names::check_tests(reader, &read, &declared, file.iter().map(|read| &read.test));
            }
            tests.push(sound(file));
        }
    }
    if let Some(project) = &mut project {
        project.pipelines = read;
        publish::settle(reader, project);
        project.tests = tests;
        names::leave_out_unsound(project, &reader.unsound);
    }
    project
}

fn parse_root(reader: &mut Reader<'_>, files: &mut Files<'_>) -> Option<Node> {
    let source = match files.read("tidemill.yaml") {
        Ok(source) => source,
        Err(error) => {
            let fault = error.fault("no_project", None, "tidemill.yaml");
            reader.fault(fault.hint("`tidemill init` writes a project; `--project DIR` names the folder of one"));
            return None;
        }
    };
    parse(&source, &mut reader.faults)
}

fn parse_file(reader: &mut Reader<'_>, files: &mut Files<'_>, path: &str) -> Option<Node> {
    match files.read(path) {
        Ok(source) => parse(&source, &mut reader.faults),
        Err(error) => {
            reader.fault(error.fault("unreadable_file", None, path));
            None
        }
    }
}

fn parse_overlay(reader: &mut Reader<'_>, files: &mut Files<'_>, path: &Path) -> Option<Node> {
    let shown = path.strip_prefix(files.root).unwrap_or(path).to_string_lossy().replace('\\', "/");
    let from_here = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let from_root = files.root.join(path);
    let source = match files.read_as(&shown, &from_here) {
        Err(_) if from_root != from_here => {
            let inside = from_root.strip_prefix(files.root).unwrap_or(path).to_string_lossy().into_owned();
            files
                .read_as(&format!("./{inside}"), &from_root)
                .map(|found| SourceText::new(shown.as_str(), found.text.as_str()))
        }
        read => read,
    };
    match source {
        Ok(source) => parse(&source, &mut reader.faults),
        Err(error) => {
            reader.fault(error.fault("unreadable_file", None, &format!("the overlay {shown}")));
            None
        }
    }
}

/// YAML files of a folder. Both endings are read: a file that is there and isn't read would be a surprise.
fn list(reader: &mut Reader<'_>, files: &Files<'_>, folder: &str) -> Vec<String> {
    files.list(folder, &[".yaml", ".yml"]).unwrap_or_else(|fault| {
        reader.fault(fault);
        Vec::new()
    })
}

fn read_pipeline(
    reader: &mut Reader<'_>,
    files: &mut Files<'_>,
    node: &Node,
    declared: &mut Vec<names::Declared>,
) -> Option<Pipeline> {
    let fields = reader.fields(node, &keys::PIPELINE)?;
    let source = &node.place.source;
    let stem = Path::new(&source.path).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let start = Place::new(source, source.start()..source.start());
    let given = fields.get("pipeline").and_then(|node| reader.word(node));
    let name = given.unwrap_or(Located { value: stem, place: start });
    check_name(reader, &name, "a pipeline");
    let mut pipeline = Pipeline { name, sources: Vec::new(), models: Vec::new() };
    if let Some(sources) = fields.get("sources") {
        for (name, node) in reader.named(sources, "sources by name") {
            check_name(reader, name, "a source");
            declared.push(names::Declared { of: "source", name: name.clone() });
            let source = read_source(reader, name, node);
            if source.is_none() {
                reader.unsound.insert(name.value.clone());
            }
            pipeline.sources.extend(source);
        }
    }
    if let Some(models) = fields.get("models") {
        for (name, node) in reader.named(models, "models by name") {
            check_name(reader, name, "a model");
            declared.push(names::Declared { of: "model", name: name.clone() });
            let model = read_model(reader, files, name, node);
            if model.is_none() {
                reader.unsound.insert(name.value.clone());
            }
            pipeline.models.extend(model);
        }
    }
    Some(pipeline)
}

/// Checks that a name can stand unquoted in SQL and in paths.
pub(super) fn check_name(reader: &mut Reader<'_>, name: &Located<String>, of: &str) {
    if name.value.starts_with("_tidemill") {
        let message = format!("`{}` can't name {of}: `_tidemill` is the folder of Tidemill's own files", name.value);
        reader.fault(Fault::error("wrong_name", name.place.clone(), message));
    } else if is_name(&name.value) && name.value.len() > NAME_BYTES_MAX {
        let message =
            format!("{of} has a name of at most {NAME_BYTES_MAX} letters, and this one has {}", name.value.len());
        reader.fault(Fault::error("wrong_name", name.place.clone(), message));
    } else if !is_name(&name.value) {
        let shown = super::variables::shown(&name.value, &name.place);
        let message =
            format!("`{shown}` can't name {of}: names are lower-case letters, digits and `_`, no digit first");
        let made: String =
            shown.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let made = if made.starts_with(|c: char| c.is_ascii_digit()) { format!("_{made}") } else { made };
        let fault = Fault::error("wrong_name", name.place.clone(), message);
        reader.fault(if is_name(&made) { fault.hint(format!("write `{made}`")) } else { fault });
    }
}

fn note_unused_sql(reader: &mut Reader<'_>, files: &mut Files<'_>, declared: &[names::Declared]) {
    let paths = files.list("sql", &[".sql"]).unwrap_or_else(|fault| {
        reader.fault(fault);
        Vec::new()
    });
    for path in paths {
        if files.was_read(&path) {
            continue;
        }
        let stem = path.trim_start_matches("sql/").trim_end_matches(".sql").to_string();
        let models =
            declared.iter().filter(|declared| declared.of == "model").map(|declared| declared.name.value.as_str());
        let near = nearest(&stem, models).map(str::to_string);
        if let Ok(source) = files.read(&path) {
            let place = Place::new(&source, source.start()..source.start());
            let fault = Fault::note("unused_sql", place, format!("no model uses {path}"));
            reader.fault(did_you_mean(fault, near.as_deref()));
        }
    }
}
