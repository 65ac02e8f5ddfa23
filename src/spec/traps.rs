//! What YAML misreads without a word: values cut at a comma, a colon, a `#`, or that start with a sign of YAML's own.
//!
//! Each fault shows the quoted form to write.

use super::fault::{Fault, Place};
use super::tree::{Node, Style, Value};
use super::types::Located;
use super::yaml_syntax::{self, quoted};

/// `{ type: decimal(12, 2) }` is read as `type: decimal(12` and a key `2)`: joined again, with a fault. A name without a colon
/// behind a text is never a key here.
pub(super) fn split_map(entries: &mut Vec<(Located<String>, Node)>, faults: &mut Vec<Fault>) {
    let mut index = 0;
    while index + 1 < entries.len() {
        let (key, node) = &entries[index + 1];
        let behind = key.place.source.text.get(key.place.span.end..).unwrap_or_default();
        let is_bare = matches!(node.value, Value::Null) && !behind.trim_start().starts_with(':');
        if !is_bare || !is_plain(&entries[index].1) {
            index += 1;
            continue;
        }
        let (rest, _) = entries.remove(index + 1);
        join(&mut entries[index].1, &rest.value, &rest.place, faults);
    }
}

/// The same in a list: `[coalesce(a, b) > 0]`.
pub(super) fn split_list(items: &mut Vec<Node>, faults: &mut Vec<Fault>) {
    let closes = |node: &Node| matches!(&node.value, Value::Scalar(scalar) if scalar.text.contains(')'));
    let mut index = 0;
    while index + 1 < items.len() {
        let is_cut = matches!(&items[index].value, Value::Scalar(scalar) if is_open(&scalar.text))
            && is_plain(&items[index])
            && is_plain(&items[index + 1])
            && items[index + 1..].iter().any(closes);
        if !is_cut {
            index += 1;
            continue;
        }
        let rest = items.remove(index + 1);
        if let Value::Scalar(scalar) = &rest.value {
            join(&mut items[index], &scalar.text, &rest.place, faults);
        }
    }
}

fn is_plain(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar(scalar) if scalar.style == Style::Plain)
}

fn join(node: &mut Node, rest: &str, place: &Place, faults: &mut Vec<Fault>) {
    let Value::Scalar(scalar) = &mut node.value else { return };
    scalar.text = format!("{}, {rest}", scalar.text);
    node.place.span.end = place.span.end;
    // One fault for a value however many commas it has.
    faults.retain(|f| {
        !(f.code == "yaml_comma" && f.place.as_ref().is_some_and(|p| p.span.start == node.place.span.start))
    });
    faults.push(
        Fault::error("yaml_comma", node.place.clone(), "YAML ends an unquoted value inside { } or [ ] at its comma")
            .hint(format!("write it in quotes: {}", quoted(&scalar.text))),
    );
}

fn is_open(text: &str) -> bool {
    text.matches('(').count() > text.matches(')').count()
}

/// A rule that YAML read as a mapping because it holds `: `, or that stands among keys without one; `node` is the mapping.
pub(super) fn colon(node: &Node) -> Option<Fault> {
    let Value::Map(entries) = &node.value else { return None };
    let (key, value) = entries.first()?;
    if !key.value.contains([' ', '\'', '(', '<', '>', '=']) {
        return None;
    }
    let is_flow = node.place.text().starts_with('{');
    let span = key.place.span.start..value.place.span.end.max(key.place.span.end);
    let place = Place::new(&node.place.source, span);
    let rule = quoted(place.text().trim_end());
    let hint = if is_flow || entries.len() > 1 { format!("check: {rule}") } else { rule };
    Some(match value.value {
        Value::Null if is_flow || entries.len() > 1 => {
            Fault::error("wrong_check", place, "a rule among keys has a key of its own").hint(format!("write {hint}"))
        }
        _ => Fault::error("yaml_colon", place, "YAML reads `: ` as the end of a key, so this rule became a mapping")
            .hint(format!("write it in quotes: {hint}")),
    })
}

/// SQL that YAML cut off at ` #`, told by a quote or parenthesis that stays open.
pub(super) fn comment(node: &Node) -> Option<Fault> {
    let Value::Scalar(scalar) = &node.value else { return None };
    let (line, start) = node.place.line_text_at(node.place.span.end);
    let rest = line.get(node.place.span.end.checked_sub(start)?..)?;
    let is_cut = rest.starts_with([' ', '\t']) && rest.trim_start().starts_with('#');
    let is_unfinished = yaml_syntax::is_unfinished(&scalar.text);
    if scalar.style != Style::Plain || !is_cut || !is_unfinished {
        return None;
    }
    let place = Place { source: node.place.source.clone(), span: node.place.span.start..start + line.trim_end().len() };
    let hint = format!("write it in quotes: {}", quoted(place.text()));
    Some(Fault::error("yaml_comment", place, "YAML cuts an unquoted value off at ` #`").hint(hint))
}
