//! Names across files: which stand twice, which a unit test means, and what reads a name that can't be judged.

use std::collections::{BTreeSet, HashMap};

use super::fault::{Fault, Place};
use super::fields::Reader;
use super::files::Files;
use super::types::{CheckKind, GivenRows, Located, Pipeline, Project, SourceSpec, UnitTest};
use super::{did_you_mean, nearest};

/// A source or model as it was declared, sound or not.
pub(super) struct Declared {
    /// `source` or `model`.
    pub(super) of: &'static str,
    pub(super) name: Located<String>,
}

/// Tells names of pipelines, sources and models that stand twice, and those that a quarantine table takes.
pub(super) fn check_duplicates(reader: &mut Reader<'_>, pipelines: &[Pipeline], declared: &[Declared]) {
    let mut seen: HashMap<&str, &Place> = HashMap::new();
    for pipeline in pipelines {
        let name = &pipeline.name;
        match seen.get(name.value.as_str()) {
            Some(first) => reader.fault(duplicate("pipeline", name, first)),
            None => drop(seen.insert(&name.value, &name.place)),
        }
    }
    let mut seen: HashMap<&str, &Place> = HashMap::new();
    for Declared { of, name } in declared {
        match seen.get(name.value.as_str()) {
            Some(first) => {
                reader.fault(duplicate(of, name, first));
                reader.unsound.insert(name.value.clone());
            }
            None => drop(seen.insert(&name.value, &name.place)),
        }
    }
    for Declared { of, name } in declared {
        let stem = name.value.strip_suffix("_quarantine").filter(|stem| seen.contains_key(*stem));
        if let Some(stem) = stem {
            let message = format!("`{}` is the table of refused rows of `{stem}`", name.value);
            let fault = Fault::error("duplicate_name", name.place.clone(), message);
            reader.fault(fault.hint(format!("give this {of} another name")));
        }
    }
}

fn duplicate(of: &str, name: &Located<String>, first: &Place) -> Fault {
    Fault::error("duplicate_name", name.place.clone(), format!("the {of} `{}` has a name that is taken", name.value))
        .hint(format!("it is first given in {}:{}", first.source.path, first.line()))
}

/// Tells names in unit tests that nothing has, and columns that a source's contract lacks. For projects whose files could all
/// be read.
pub(super) fn check_tests<'t>(
    reader: &mut Reader<'_>,
    pipelines: &[Pipeline],
    declared: &[Declared],
    tests: impl Iterator<Item = &'t UnitTest>,
) {
    let models: Vec<&str> = declared.iter().filter(|d| d.of == "model").map(|d| d.name.value.as_str()).collect();
    let relations: Vec<&str> = declared.iter().map(|d| d.name.value.as_str()).collect();
    let check = |reader: &mut Reader<'_>, name: &Located<String>, known: &[&str], of: &str| {
        if !known.contains(&name.value.as_str()) {
            let message = format!("there is no {of} `{}`", name.value);
            let near = nearest(&name.value, known.iter().copied());
            reader.fault(did_you_mean(Fault::error("unknown_relation", name.place.clone(), message), near));
        }
    };
    for test in tests {
        check(reader, &test.model, &models, "model");
        for (name, rows) in &test.given {
            check(reader, name, &relations, "source or model");
            let source = pipelines.iter().flat_map(|p| &p.sources).find(|source| source.name.value == name.value);
            if let (Some(source), GivenRows::Rows(rows)) = (source, rows) {
                let columns = rows.iter().flat_map(|row| row.values.iter().map(|(column, _)| column));
                for column in columns {
                    check_column(reader, column, source);
                }
            }
        }
    }
}

/// Tells a column that the contract of a source lacks; a source without a contract has whatever its files have.
pub(super) fn check_column(reader: &mut Reader<'_>, column: &Located<String>, source: &SourceSpec) -> bool {
    let name = column.value.as_str();
    let is_unsound = reader.unsound.contains(&source.name.value);
    let is_hidden = super::source::HIDDEN_COLUMNS.contains(&name);
    if source.columns.is_empty() || is_unsound || is_hidden || source.columns.iter().any(|c| c.name.value == name) {
        return true;
    }
    let message = format!("`{}` has no column `{name}`", source.name.value);
    let near = nearest(name, source.columns.iter().map(|column| column.name.value.as_str()));
    reader.fault(did_you_mean(Fault::error("unknown_column", column.place.clone(), message), near));
    false
}

/// Distrusts the sources and models of a file that isn't YAML: the names that are indented least under its sections.
pub(super) fn distrust(reader: &mut Reader<'_>, files: &mut Files<'_>, path: &str) {
    let Ok(source) = files.read(path) else { return };
    let mut indent = None;
    for line in source.text.lines().filter(|line| !line.trim().is_empty() && !line.trim().starts_with('#')) {
        let depth = line.len() - line.trim_start().len();
        if depth == 0 {
            indent = None;
        } else if *indent.get_or_insert(depth) == depth
            && let Some((name, _)) = line.trim().split_once(':')
            && super::is_name(name)
        {
            reader.unsound.insert(name.to_string());
        }
    }
}

/// Takes out what reads an unsound name, directly or not: its faults would be consequences of those told already.
pub(super) fn leave_out_unsound(project: &mut Project, unsound: &BTreeSet<String>) {
    if unsound.is_empty() {
        return;
    }
    let mut unsound = unsound.clone();
    loop {
        let models = project.pipelines.iter().flat_map(|pipeline| &pipeline.models);
        let readers: Vec<String> = models
            .filter(|model| !unsound.contains(&model.name.value) && mentions(&model.sql.text, &unsound))
            .map(|model| model.name.value.clone())
            .collect();
        if readers.is_empty() {
            break;
        }
        unsound.extend(readers);
    }
    for pipeline in &mut project.pipelines {
        pipeline.sources.retain(|source| !unsound.contains(&source.name.value));
        pipeline.models.retain(|model| !unsound.contains(&model.name.value));
        let checks = pipeline.sources.iter_mut().map(|source| &mut source.checks);
        for checks in checks.chain(pipeline.models.iter_mut().map(|model| &mut model.checks)) {
            checks.retain(|check| match &check.kind {
                CheckKind::Relationships { to_relation, .. } => !unsound.contains(&to_relation.value),
                CheckKind::Expression(sql) => !mentions(&sql.text, &unsound),
                _ => true,
            });
        }
    }
    for file in &mut project.tests {
        file.tests.retain(|test| {
            let given = test.given.iter().map(|(name, _)| name);
            !given.chain([&test.model]).any(|name| unsound.contains(&name.value))
        });
    }
}

/// Whether one of `names` is a word of `sql`, case aside. A column or text of that name counts as well: better silent than wrong.
fn mentions(sql: &str, names: &BTreeSet<String>) -> bool {
    sql.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| names.contains(&word.to_lowercase()))
}
