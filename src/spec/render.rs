//! Faults as text for people and as JSON for programs. Knows no terminal: the caller says whether colour is wanted.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value, json};

use super::fault::{Fault, Severity};

/// All faults one after another, an empty line between them: severity, code in brackets, `file:line:column`, the line
/// with a caret under the very characters, the way out as help.
pub fn text(faults: &[Fault], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for fault in faults {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&one(fault, &renderer));
        out.push('\n');
    }
    out
}

fn one(fault: &Fault, renderer: &Renderer) -> String {
    let level = match fault.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let mut group = Group::with_title(level.primary_title(fault.message.as_str()).id(fault.code));
    if let Some(place) = &fault.place {
        let start = place.source.start();
        let text = &place.source.text[start..];
        let path = place.source.path.as_str();
        if text.is_empty() {
            group = group.element(Origin::path(path).line(1).char_column(1));
        } else {
            let line = place.first_line();
            let span = line.start.max(start) - start..line.end.max(start) - start;
            group = group.element(Snippet::source(text).path(path).annotation(AnnotationKind::Primary.span(span)));
        }
    }
    if let Some(hint) = &fault.hint {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    renderer.render(&[group])
}

/// One fault as an object with the keys `code, severity, file, line, column, end_column, message, hint`; line and columns
/// from 1, in characters, the end column behind the last one; null where there is none.
pub fn json(fault: &Fault) -> Value {
    let severity = match fault.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let (file, line, column, end_column) = match &fault.place {
        None => (Value::Null, Value::Null, Value::Null, Value::Null),
        Some(place) => {
            let covered = place.first_line();
            let (line, column) = place.position(covered.start);
            let (_, end_column) = place.position(covered.end);
            (json!(place.source.path), json!(line), json!(column), json!(end_column))
        }
    };
    json!({
        "code": fault.code,
        "severity": severity,
        "file": file,
        "line": line,
        "column": column,
        "end_column": end_column,
        "message": fault.message,
        "hint": fault.hint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fault::{Place, SourceText};

    #[test]
    fn caret_stands_under_the_characters_after_a_byte_order_mark_and_wide_ones() {
        let source = SourceText::new("pipelines/a.yaml", "\u{feff}# é\r\nção: números\r\n");
        let at = source.text.find("números").unwrap();
        let fault = Fault::error("wrong_type", Place::new(&source, at..at + "números".len()), "expected a list")
            .hint("write `[números]`");
        insta::assert_snapshot!(text(std::slice::from_ref(&fault), false), @r"
        error[wrong_type]: expected a list
         --> pipelines/a.yaml:2:6
          |
        2 | ção: números
          |      ^^^^^^^
          |
          = help: write `[números]`
        ");
        assert_eq!(
            json(&fault).to_string(),
            r#"{"code":"wrong_type","severity":"error","file":"pipelines/a.yaml","line":2,"column":6,"end_column":13,"message":"expected a list","hint":"write `[números]`"}"#
        );
    }

    #[test]
    fn without_place_or_text() {
        let nowhere = Fault::error("no_project", None, "no tidemill.yaml here");
        let empty = Fault::note("empty", Place::new(&SourceText::new("sql/a.sql", ""), 0..0), "nothing in it");
        insta::assert_snapshot!(text(&[nowhere.clone(), empty], false), @r"
        error[no_project]: no tidemill.yaml here

        note[empty]: nothing in it
        --> sql/a.sql:1:1
        ");
        assert!(json(&nowhere)["file"].is_null() && json(&nowhere)["end_column"].is_null());
    }

    #[test]
    fn several_lines_are_shown_by_their_first() {
        let source = SourceText::new("a.yaml", "sql: |\n  select 1\n  from x\n");
        let fault = Fault::warning("w", Place::new(&source, 9..26), "odd");
        let value = json(&fault);
        assert_eq!((value["line"].as_u64(), value["end_column"].as_u64()), (Some(2), Some(11)));
        assert!(text(&[fault], true).contains("\u{1b}["));
    }
}
