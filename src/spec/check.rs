//! Reads checks.

use super::fault::{Fault, Place};
use super::fields::{Fields, Reader};
use super::keys;
use super::sql_text;
use super::traps;
use super::tree::{Node, Value};
use super::types::{CheckKind, CheckSpec, Located, OnFail};
use super::variables::shown;

/// The kinds of rules, each a key.
const KINDS: [&str; 6] = ["check", "unique", "not_null", "accepted_values", "relationships", "freshness"];

pub(super) fn read_checks(reader: &mut Reader<'_>, node: &Node) -> Vec<CheckSpec> {
    let mut checks: Vec<CheckSpec> = Vec::new();
    let items = reader.items(node);
    for item in items {
        let Some(check) = read_check(reader, item) else { continue };
        if checks.iter().any(|known| known.name == check.name) {
            let message = format!("there are two checks named `{}`", check.name);
            reader.fault(Fault::error("duplicate", check.place.clone(), message).hint("give one of them a `name:`"));
            continue;
        }
        checks.push(check);
    }
    checks
}

fn read_check(reader: &mut Reader<'_>, node: &Node) -> Option<CheckSpec> {
    if let Value::Scalar(scalar) = &node.value {
        let kind = expression(reader, node)?;
        let name = scalar.text.trim().to_string();
        return Some(CheckSpec { name, place: node.place.clone(), kind, on_fail: OnFail::Fail });
    }
    if let Some(fault) = traps::colon(node) {
        reader.fault(fault);
        return None;
    }
    let fields = reader.fields(node, &keys::CHECK)?;
    let given: Vec<&str> = KINDS.into_iter().filter(|kind| fields.get(kind).is_some()).collect();
    if given.is_empty() && (!fields.is_whole || KINDS.iter().any(|kind| fields.is_meant(kind))) {
        return None;
    }
    let [kind] = given.as_slice() else {
        let found = if given.is_empty() { "none".to_string() } else { given.join(" and ") };
        let message = format!("a check has one of {}, found {found}", KINDS.join(", "));
        let place = Place::new(&node.place.source, node.place.first_line());
        reader.fault(Fault::error("wrong_check", place, message));
        return None;
    };
    let (kind, default_name) = read_kind(reader, &fields, kind)?;
    let on_fail = match fields.get("on_fail").and_then(|n| reader.one_of(n, &["fail", "quarantine", "warn"], &[])) {
        Some("quarantine") => OnFail::Quarantine,
        Some("warn") => OnFail::Warn,
        _ => OnFail::Fail,
    };
    if on_fail == OnFail::Quarantine
        && matches!(kind, CheckKind::Unique(_) | CheckKind::Freshness { .. })
        && let Some(place) = fields.get("on_fail").map(|n| n.place.clone())
    {
        reader.fault(
            Fault::error(
                "wrong_check",
                place,
                "`quarantine` is for rules about single rows, and this one is about the table",
            )
            .hint("use `fail` or `warn`"),
        );
    }
    let name = fields.get("name").and_then(|n| reader.word(n)).map_or(default_name, |t| t.value);
    Some(CheckSpec { name, place: node.place.clone(), kind, on_fail })
}

fn read_kind(reader: &mut Reader<'_>, fields: &Fields<'_>, kind: &str) -> Option<(CheckKind, String)> {
    let node = fields.get(kind)?;
    match kind {
        "check" => {
            let name = reader.scalar(node, "boolean SQL")?.text.trim().to_string();
            Some((expression(reader, node)?, name))
        }
        "unique" | "not_null" => {
            let columns = reader.names(node);
            if columns.is_empty() {
                if matches!(&node.value, Value::List(items) if items.is_empty()) {
                    reader.fault(Fault::error("wrong_check", node.place.clone(), format!("`{kind}` needs columns")));
                }
                return None;
            }
            let name = default_name(kind, columns.iter().map(|c| c.value.as_str()));
            let kind = if kind == "unique" { CheckKind::Unique(columns) } else { CheckKind::NotNull(columns) };
            Some((kind, name))
        }
        "accepted_values" => {
            let inner = reader.fields(node, &keys::ACCEPTED_VALUES)?;
            let column = required_text(reader, &inner, "column", node);
            let values = inner.require(reader, "values", &node.place)?;
            let values = reader.texts(values).into_iter().map(|value| value.value).collect();
            let column = column?;
            let name = default_name(kind, [column.value.as_str()]);
            Some((CheckKind::AcceptedValues { column, values }, name))
        }
        "relationships" => {
            let inner = reader.fields(node, &keys::RELATIONSHIPS)?;
            let column = required_text(reader, &inner, "column", node);
            let to = required_text(reader, &inner, "to", node)?;
            let Some((relation, to_column)) = to.value.split_once('.').filter(|(a, b)| !a.is_empty() && !b.is_empty())
            else {
                let message = format!("expected RELATION.COLUMN, found `{}`", shown(&to.value, &to.place));
                reader.fault(Fault::error("wrong_value", to.place, message));
                return None;
            };
            let column = column?;
            let name = default_name(kind, [column.value.as_str()]);
            let located = |value: &str| Located { value: value.to_string(), place: to.place.clone() };
            let (to_relation, to_column) = (located(relation), located(to_column));
            Some((CheckKind::Relationships { column, to_relation, to_column }, name))
        }
        _ => {
            let inner = reader.fields(node, &keys::FRESHNESS)?;
            let column = required_text(reader, &inner, "column", node);
            let within = inner.require(reader, "within", &node.place)?;
            let within = reader.duration(within)?;
            let column = column?;
            let name = default_name(kind, [column.value.as_str()]);
            Some((CheckKind::Freshness { column, within }, name))
        }
    }
}

fn required_text(reader: &mut Reader<'_>, fields: &Fields<'_>, key: &str, node: &Node) -> Option<Located<String>> {
    let node = fields.require(reader, key, &node.place)?;
    reader.word(node)
}

fn expression(reader: &mut Reader<'_>, node: &Node) -> Option<CheckKind> {
    if let Some(fault) = traps::comment(node) {
        reader.fault(fault);
        return None;
    }
    if reader.scalar(node, "boolean SQL")?.text.trim().is_empty() {
        reader.fault(Fault::error("wrong_check", node.place.clone(), "expected boolean SQL, found an empty text"));
        return None;
    }
    sql_text::inline(node).map(CheckKind::Expression)
}

/// `not_null_product_id`
fn default_name<'a>(kind: &str, columns: impl IntoIterator<Item = &'a str>) -> String {
    let mut name = kind.to_string();
    for column in columns {
        name.push('_');
        name.push_str(column);
    }
    name
}
