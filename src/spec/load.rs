//! Loads a project: its files, overlays and parameters, into a `Project` and all faults.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::fault::{Fault, Place, SourceText, sort};
use super::fields::Reader;
use super::model::read_model;
use super::source::{check_name, read_source, read_type};
use super::test_file::read_tests;
use super::tree::{Node, parse};
use super::types::{Located, Param, Pipeline, Project, TestFile};
use super::variables::Variables;
use super::{check_zone, keys, nearest, overlay};

/// What to load.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The folder with `tidemill.yaml`.
    pub root: PathBuf,
    /// Partial projects, merged in this order.
    pub overlays: Vec<PathBuf>,
    /// `--param NAME=VALUE`.
    pub params: Vec<(String, String)>,
}

/// Loads a project with the process's environment. The project is there unless `tidemill.yaml` can't be read; faults may
/// stand beside it, and what they speak of is left out of it.
pub fn load(options: &LoadOptions) -> (Option<Project>, Vec<Fault>) {
    load_with(options, &|name| std::env::var(name).ok())
}

/// The nearest folder upwards from `start` that has a `tidemill.yaml`.
pub fn find_project_root(start: &Path) -> Option<PathBuf> {
    start.ancestors().find(|dir| dir.join("tidemill.yaml").is_file()).map(Path::to_path_buf)
}

/// [`load`] with variables from `env`.
pub fn load_with(options: &LoadOptions, env: &dyn Fn(&str) -> Option<String>) -> (Option<Project>, Vec<Fault>) {
    let root = &options.root;
    let file = |path: &str| std::fs::read_to_string(root.join(path)).map_err(|e| e.to_string());
    let variables = Variables { env, file: &file };
    let mut reader = Reader { variables: &variables, faults: Vec::new() };
    let mut files = Files { root, read: HashMap::new() };
    let project = load_project(options, &mut reader, &mut files);
    let mut faults = reader.faults;
    sort(&mut faults);
    (project, faults)
}

/// Texts of the project's files, each read once.
pub(super) struct Files<'a> {
    root: &'a Path,
    read: HashMap<String, Arc<SourceText>>,
}

impl Files<'_> {
    /// Reads a file by its path relative to the project.
    pub(super) fn read(&mut self, path: &str) -> Result<Arc<SourceText>, String> {
        if let Some(known) = self.read.get(path) {
            return Ok(Arc::clone(known));
        }
        let bytes = std::fs::read(self.root.join(path)).map_err(|e| e.to_string())?;
        let text = String::from_utf8(bytes)
            .map_err(|e| format!("it isn't UTF-8 from byte {}", e.utf8_error().valid_up_to()))?;
        let source = Arc::new(SourceText { path: path.to_string(), text });
        self.read.insert(path.to_string(), Arc::clone(&source));
        Ok(source)
    }

    fn parse(&mut self, path: &str, reader: &mut Reader<'_>) -> Option<Node> {
        match self.read(path) {
            Ok(source) => parse(&source, &mut reader.faults),
            Err(error) => {
                reader.fault(Fault::error("unreadable_file", None, format!("can't read {path}: {error}")));
                None
            }
        }
    }

    /// Files of a folder with one of the endings, in order of names.
    fn list(&self, folder: &str, endings: &[&str]) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
        let names: BTreeSet<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| !name.starts_with('.') && endings.iter().any(|ending| name.ends_with(ending)))
            .collect();
        names.into_iter().map(|name| format!("{folder}/{name}")).collect()
    }
}

fn load_project(options: &LoadOptions, reader: &mut Reader<'_>, files: &mut Files<'_>) -> Option<Project> {
    let mut project = files.parse("tidemill.yaml", reader);
    let paths = files.list("pipelines", &[".yaml", ".yml"]);
    let mut pipelines = Vec::new();
    for path in &paths {
        pipelines.extend(files.parse(path, reader));
    }
    for path in &options.overlays {
        let shown = path.strip_prefix(&options.root).unwrap_or(path).to_string_lossy().into_owned();
        // Overlays are named from where the user stands; only if that fails, from the project.
        let absolute = std::path::absolute(path).ok().filter(|p| p.exists()).unwrap_or_else(|| options.root.join(path));
        match std::fs::read_to_string(&absolute) {
            Err(error) => {
                reader.fault(Fault::error("unreadable_file", None, format!("can't read the overlay {shown}: {error}")))
            }
            Ok(text) => {
                let source = Arc::new(SourceText { path: shown, text });
                if let (Some(node), Some(project)) = (parse(&source, &mut reader.faults), &mut project) {
                    overlay::apply(&node, project, &mut pipelines, reader);
                }
            }
        }
    }
    let mut project = read_project(reader, &project?, options)?;
    for node in &pipelines {
        project.pipelines.extend(read_pipeline(reader, files, node));
    }
    check_duplicates(reader, &project);
    note_unused_sql(reader, files, &project);
    for path in files.list("tests", &[".yaml", ".yml"]) {
        if let Some(node) = files.parse(&path, reader) {
            let tests = read_tests(reader, &node);
            check_tests(reader, &project, &tests);
            project.tests.push(tests);
        }
    }
    Some(project)
}

fn read_project(reader: &mut Reader<'_>, node: &Node, options: &LoadOptions) -> Option<Project> {
    let fields = reader.fields(node, &keys::PROJECT)?;
    let start = Place { source: node.place.source.clone(), span: 0..0 };
    let default = |value: &str| Located { value: value.to_string(), place: start.clone() };
    if let Some(version) = fields.require(reader, "version", &start).and_then(|n| reader.text(n))
        && version.value != "1"
    {
        let message = format!("this Tidemill reads version 1, found `{}`", version.value);
        reader.fault(Fault::error("wrong_version", version.place, message));
    }
    let name =
        fields.require(reader, "name", &start).and_then(|n| reader.text(n)).unwrap_or_else(|| default("project"));
    check_name(reader, &name.value, &name.place, "a project");
    let timezone = fields.get("timezone").and_then(|n| reader.text(n)).unwrap_or_else(|| default("UTC"));
    check_zone(reader, &timezone);
    let flight = fields.get("flight").and_then(|n| reader.fields(n, &keys::FLIGHT));
    let flight_listen = flight.and_then(|f| f.get("listen")).and_then(|n| reader.text(n));
    Some(Project {
        root: options.root.clone(),
        warehouse: fields.get("warehouse").and_then(|n| reader.text(n)).unwrap_or_else(|| default("./warehouse")),
        params: read_params(reader, fields.get("params"), &options.params),
        flight_listen: flight_listen.unwrap_or_else(|| default("127.0.0.1:31337")),
        lease_ttl: fields.get("lease_ttl").and_then(|n| reader.duration(n)).unwrap_or(Duration::from_secs(30)),
        pipelines: Vec::new(),
        tests: Vec::new(),
        name,
        timezone,
    })
}

fn read_params(reader: &mut Reader<'_>, node: Option<&Node>, given: &[(String, String)]) -> Vec<Param> {
    let mut params = Vec::new();
    let entries = node.map(|n| reader.named(n, "parameters")).unwrap_or_default();
    for (name, node) in entries {
        check_name(reader, &name.value, &name.place, "a parameter");
        let Some(fields) = reader.fields(node, &keys::PARAM) else { continue };
        let data_type = fields.require(reader, "type", &name.place).and_then(|n| read_type(reader, n));
        let default = fields.get("default").and_then(|n| reader.text(n));
        let overriding = given.iter().rev().find(|(n, _)| *n == name.value);
        let value = match overriding {
            Some((_, value)) => Some(Located { value: value.clone(), place: name.place.clone() }),
            None => default,
        };
        if let Some(data_type) = data_type {
            params.push(Param { name: name.clone(), data_type: data_type.value, value });
        }
    }
    for (name, _) in given {
        if !entries.iter().any(|(known, _)| known.value == *name) {
            let mut fault =
                Fault::error("unknown_param", None, format!("--param {name}: the project has no such parameter"));
            if let Some(near) = nearest(name, entries.iter().map(|(known, _)| known.value.as_str())) {
                fault = fault.hint(format!("did you mean `{near}`?"));
            }
            reader.fault(fault);
        }
    }
    params
}

fn read_pipeline(reader: &mut Reader<'_>, files: &mut Files<'_>, node: &Node) -> Option<Pipeline> {
    let fields = reader.fields(node, &keys::PIPELINE)?;
    let path = Path::new(&node.place.source.path);
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let start = Place { source: node.place.source.clone(), span: 0..0 };
    let name = fields.get("pipeline").and_then(|n| reader.text(n)).unwrap_or(Located { value: stem, place: start });
    check_name(reader, &name.value, &name.place, "a pipeline");
    let mut pipeline = Pipeline { name, sources: Vec::new(), models: Vec::new() };
    if let Some(sources) = fields.get("sources") {
        for (name, node) in reader.named(sources, "sources by name") {
            check_name(reader, &name.value, &name.place, "a source");
            pipeline.sources.extend(read_source(reader, name, node));
        }
    }
    if let Some(models) = fields.get("models") {
        for (name, node) in reader.named(models, "models by name") {
            check_name(reader, &name.value, &name.place, "a model");
            pipeline.models.extend(read_model(reader, files, name, node));
        }
    }
    Some(pipeline)
}

fn check_duplicates(reader: &mut Reader<'_>, project: &Project) {
    let mut pipelines: HashMap<&str, &Place> = HashMap::new();
    for pipeline in &project.pipelines {
        let name = &pipeline.name;
        match pipelines.get(name.value.as_str()) {
            Some(first) => reader.fault(duplicate("pipeline", name, first)),
            None => drop(pipelines.insert(&name.value, &name.place)),
        }
    }
    let mut relations: HashMap<String, &Place> = HashMap::new();
    let names = project
        .pipelines
        .iter()
        .flat_map(|p| p.sources.iter().map(|s| ("source", &s.name)).chain(p.models.iter().map(|m| ("model", &m.name))));
    let names: Vec<_> = names.collect();
    for (of, name) in &names {
        match relations.get(&name.value) {
            Some(first) => reader.fault(duplicate(of, name, first)),
            None => drop(relations.insert(name.value.clone(), &name.place)),
        }
    }
    for (of, name) in &names {
        let taken_by = name.value.strip_suffix("_quarantine").filter(|stem| relations.contains_key(*stem));
        if let Some(stem) = taken_by {
            let message = format!("`{}` is the table of refused rows of `{stem}`", name.value);
            reader.fault(
                Fault::error("duplicate_name", name.place.clone(), message)
                    .hint(format!("give this {of} another name")),
            );
        }
    }
}

fn duplicate(of: &str, name: &Located<String>, first: &Place) -> Fault {
    Fault::error("duplicate_name", name.place.clone(), format!("the {of} `{}` has a name that is taken", name.value))
        .hint(format!("it is first given in {}:{}", first.source.path, first.line()))
}

fn note_unused_sql(reader: &mut Reader<'_>, files: &mut Files<'_>, project: &Project) {
    let used: BTreeSet<&str> =
        project.pipelines.iter().flat_map(|p| &p.models).map(|m| m.sql.source.path.as_str()).collect();
    for path in files.list("sql", &[".sql"]) {
        if used.contains(path.as_str()) || files.read.contains_key(&path) {
            continue;
        }
        if let Ok(source) = files.read(&path) {
            let place = Place { source, span: 0..0 };
            reader.fault(Fault::note("unused_sql", place, "no model uses this file"));
        }
    }
}

fn check_tests(reader: &mut Reader<'_>, project: &Project, file: &TestFile) {
    let models: Vec<&str> = project.pipelines.iter().flat_map(|p| &p.models).map(|m| m.name.value.as_str()).collect();
    let sources = project.pipelines.iter().flat_map(|p| &p.sources).map(|s| s.name.value.as_str());
    let relations: Vec<&str> = sources.chain(models.iter().copied()).collect();
    let mut check = |name: &Located<String>, known: &[&str], of: &str| {
        if known.contains(&name.value.as_str()) {
            return;
        }
        let mut fault =
            Fault::error("unknown_relation", name.place.clone(), format!("there is no {of} `{}`", name.value));
        if let Some(near) = nearest(&name.value, known.iter().copied()) {
            fault = fault.hint(format!("did you mean `{near}`?"));
        }
        reader.fault(fault);
    };
    for test in &file.tests {
        check(&test.model, &models, "model");
        test.given.iter().for_each(|(name, _)| check(name, &relations, "source or model"));
    }
}
