//! Reads a model.

use std::str::FromStr;

use super::check::read_checks;
use super::fault::Fault;
use super::fields::{Fields, Reader};
use super::keys;
use super::load::Files;
use super::source::read_columns;
use super::tree::{Node, Value};
use super::types::{Located, ModelSpec, Refresh, SqlText};
use super::{sql_text, traps};

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
    let refresh = match fields.get("refresh") {
        Some(node) => read_refresh(reader, node),
        None => Some(Located { value: Refresh::Auto, place: name.place.clone() }),
    };
    let key = fields.get("key").map(|n| reader.names(n)).unwrap_or_default();
    let partition_by = fields.get("partition_by").map(|n| reader.names(n)).unwrap_or_default();
    let columns = fields.get("columns").map(|n| read_columns(reader, n)).unwrap_or_default();
    let checks = fields.get("checks").map(|n| read_checks(reader, n)).unwrap_or_default();
    Some(ModelSpec {
        name: name.clone(),
        description: fields.get("description").and_then(|n| reader.text(n)).map(|t| t.value),
        key,
        refresh: refresh?,
        partition_by,
        columns,
        checks,
        serve: fields.get("serve").and_then(|n| reader.boolean(n)).unwrap_or(true),
        owner: fields.get("owner").and_then(|n| reader.text(n)).map(|t| t.value),
        tags: fields.get("tags").map(|n| reader.names(n)).unwrap_or_default(),
        sql: sql?,
    })
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
    let (path, place) = match fields.get("file").and_then(|n| reader.text(n)) {
        Some(path) => (path.value, path.place),
        None if fields.get("file").is_some() => return None,
        None => (format!("sql/{}.sql", name.value), name.place.clone()),
    };
    match files.read(&path) {
        Ok(source) => Some(SqlText::file(source)),
        Err(error) => {
            let message = format!("`{}` has no SQL: can't read {path}: {error}", name.value);
            reader.fault(
                Fault::error("missing_sql", place, message).hint(format!("write {path}, or `sql:` in the YAML")),
            );
            None
        }
    }
}

fn read_refresh(reader: &mut Reader<'_>, node: &Node) -> Option<Located<Refresh>> {
    let located = |value| Some(Located { value, place: node.place.clone() });
    if let Value::Scalar(_) = node.value {
        return match reader.one_of(node, &["auto", "manual"], &["continuous"])? {
            "manual" => located(Refresh::Manual),
            _ => located(Refresh::Auto),
        };
    }
    let fields = reader.fields(node, &keys::REFRESH)?;
    match (fields.get("every"), fields.get("cron")) {
        (Some(every), None) => located(Refresh::Every(reader.duration(every)?)),
        (None, Some(cron)) => {
            let line = reader.text(cron)?;
            if let Err(error) = croner::Cron::from_str(&line.value) {
                let message = format!("`{}` isn't a cron line: {error}", line.value);
                let fault = Fault::error("wrong_cron", line.place, message);
                reader.fault(fault.hint("minute hour day month weekday, such as \"0 6 1 * *\""));
                return None;
            }
            located(Refresh::Cron(line.value))
        }
        _ => {
            reader.fault(Fault::error("wrong_value", node.place.clone(), "`refresh` has either `every` or `cron`"));
            None
        }
    }
}
