//! Reads a model.

use std::time::Duration;

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};

use super::check::read_checks;
use super::fault::Fault;
use super::fields::{Fields, Reader};
use super::files::{Files, Unreadable};
use super::keys;
use super::publish::read_publish;
use super::source::read_columns;
use super::tree::{Node, Value};
use super::types::{Located, ModelSpec, Refresh, SqlText};
use super::variables::shown;
use super::{did_you_mean, nearest, parse_duration, sql_text, traps};

pub(super) fn read_model(
    reader: &mut Reader<'_>,
    files: &mut Files<'_>,
    name: &Located<String>,
    node: &Node,
) -> Option<ModelSpec> {
    let empty = Node { value: Value::Map(Vec::new()), place: name.place.clone() };
    // `daily_sales:` alone is a model whose SQL is its file.
    let node = if matches!(node.value, Value::Null) { &empty } else { node };
    let fields = reader.fields(node, &keys::MODEL)?;
    let sql = read_sql(reader, files, &fields, name);
    let refresh = fields.get("refresh").and_then(|node| read_refresh(reader, node));
    let model = ModelSpec {
        name: name.clone(),
        description: fields.get("description").and_then(|node| reader.text(node)).map(|text| text.value),
        key: fields.get("key").map(|node| reader.names(node)).unwrap_or_default(),
        refresh: refresh.unwrap_or(Located { value: Refresh::Auto, place: name.place.clone() }),
        partition_by: fields.get("partition_by").map(|node| reader.names(node)).unwrap_or_default(),
        columns: fields.get("columns").map(|node| read_columns(reader, node, &keys::MODEL_COLUMN)).unwrap_or_default(),
        checks: fields.get("checks").map(|node| read_checks(reader, node)).unwrap_or_default(),
        serve: fields.get("serve").and_then(|node| reader.boolean(node)).unwrap_or(true),
        owner: fields.get("owner").and_then(|node| reader.text(node)).map(|text| text.value),
        tags: fields.get("tags").map(|node| reader.names(node)).unwrap_or_default(),
        retention: fields.get("retention").and_then(|node| read_retention(reader, node)),
        publish: fields.get("publish").map(|node| read_publish(reader, node)).unwrap_or_default(),
        sql: sql?,
    };
    Some(model)
}

fn read_sql(
    reader: &mut Reader<'_>,
    files: &mut Files<'_>,
    fields: &Fields<'_>,
    name: &Located<String>,
) -> Option<SqlText> {
    if let (Some(_), Some(place)) = (fields.get("sql"), fields.get("file").and(fields.key_place("file"))) {
        reader.fault(Fault::error("wrong_value", place.clone(), "a model has either `sql` or `file`"));
        return None;
    }
    if let Some(node) = fields.get("sql") {
        if let Some(fault) = traps::comment(node).or_else(|| traps::colon(node)) {
            reader.fault(fault);
            return None;
        }
        reader.scalar(node, "SQL")?;
        return sql_text::inline(node);
    }
    if fields.is_meant("sql") || fields.is_meant("file") {
        return None;
    }
    let (path, place) = match fields.get("file") {
        Some(node) => reader.word(node).map(|path| (path.value, path.place))?,
        None => (format!("sql/{}.sql", name.value), name.place.clone()),
    };
    let error = match files.read(&path) {
        Ok(source) => return Some(SqlText::file(source)),
        Err(error) => error,
    };
    let shown = shown(&path, &place);
    let is_default = fields.get("file").is_none();
    let fault = match &error {
        Unreadable::Failed { is_missing: true, .. } if is_default => {
            Fault::error("missing_sql", place, format!("`{}` has no SQL: there is no {path}", name.value))
        }
        error => error.fault("missing_sql", Some(place), &shown),
    };
    let known = files.list("sql", &[".sql"]).unwrap_or_default();
    let near = nearest(&path, known.iter().map(String::as_str));
    let fault = did_you_mean(fault, near);
    let hint = fault.hint.clone().unwrap_or_else(|| match is_default {
        true => format!("write {path}, or `file:` or `sql:` in the YAML"),
        false => "its path is relative to the project".to_string(),
    });
    reader.fault(fault.hint(hint));
    None
}

fn read_retention(reader: &mut Reader<'_>, node: &Node) -> Option<Located<Duration>> {
    reader.length(node).map(|value| Located { value, place: node.place.clone() })
}

fn read_refresh(reader: &mut Reader<'_>, node: &Node) -> Option<Located<Refresh>> {
    let located = |value| Some(Located { value, place: node.place.clone() });
    if let Value::Scalar(scalar) = &node.value {
        // A bare schedule is a natural thing to write: show where it belongs.
        let form = match scalar.text.as_str() {
            text if parse_cron(text).is_ok() => Some(format!("cron: \"{text}\"")),
            text if parse_duration(text).is_some() => Some(format!("every: {text}")),
            _ => None,
        };
        if let Some(form) = form {
            let message = "expected auto, continuous, manual, { every: … } or { cron: … }";
            let fault = Fault::error("wrong_value", node.place.clone(), message);
            reader.fault(fault.hint(format!("write `refresh: {{ {form} }}`")));
            return None;
        }
        return match reader.one_of(node, &["auto", "continuous", "manual"], &[])? {
            "manual" => located(Refresh::Manual),
            "continuous" => located(Refresh::Continuous),
            _ => located(Refresh::Auto),
        };
    }
    let fields = reader.fields(node, &keys::REFRESH)?;
    match (fields.get("every"), fields.get("cron")) {
        (Some(every), None) => located(Refresh::Every(reader.length(every)?)),
        (None, Some(cron)) => {
            let line = reader.word(cron)?;
            if let Err(reason) = parse_cron(&line.value) {
                let message = match shown(&line.value, &line.place) {
                    same if same == line.value => format!("`{same}` isn't a cron line: {reason}"),
                    variable => format!("`{variable}` doesn't hold a cron line"),
                };
                let fault = Fault::error("wrong_cron", line.place, message);
                reader.fault(fault.hint("minute hour day month weekday, such as \"0 6 1 * *\""));
                return None;
            }
            located(Refresh::Cron(line.value))
        }
        _ if !fields.is_whole || fields.is_meant("every") || fields.is_meant("cron") => None,
        _ => {
            let fault = Fault::error("wrong_value", node.place.clone(), "`refresh` has either `every` or `cron`");
            reader.fault(fault);
            None
        }
    }
}

/// Checks a cron line of five fields; a schedule to the second would promise more than a refresh can keep.
fn parse_cron(line: &str) -> Result<(), String> {
    let fields = line.split_whitespace().count();
    if fields != 5 && !line.starts_with('@') {
        return Err(format!("it has {fields} fields, and five are expected"));
    }
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    match parser.parse(line) {
        Ok(_) => Ok(()),
        Err(
            CronError::InvalidPattern(reason)
            | CronError::IllegalCharacters(reason)
            | CronError::ComponentError(reason),
        ) => Err(reason.trim_end_matches('.').to_lowercase()),
        Err(error) => Err(error.to_string().trim_end_matches('.').to_lowercase()),
    }
}
