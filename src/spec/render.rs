//! Faults as text for people and as JSON for programs.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde_json::{Value, json};

use super::fault::{Fault, Severity};

/// Faults with the lines that they point into, one blank line between them.
pub fn text(faults: &[Fault], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for fault in faults {
        out.push_str(&one(fault, &renderer));
        out.push_str("\n\n");
    }
    out
}

fn one(fault: &Fault, renderer: &Renderer) -> String {
    let level = match fault.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let mut group = level.primary_title(fault.message.as_str()).id(fault.code).elements(Vec::<Snippet<'_, annotate_snippets::Annotation<'_>>>::new());
    if let Some(place) = &fault.place {
        let source = place.source.text.as_str();
        let end = place.span.end.min(source.len()).max(place.span.start.min(source.len()));
        let span = place.span.start.min(source.len())..end;
        let snippet = Snippet::source(source).path(place.source.path.as_str());
        group = group.element(snippet.annotation(AnnotationKind::Primary.span(span)));
    }
    if let Some(hint) = &fault.hint {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    renderer.render(&[group])
}

/// One fault as an object; line and columns count characters from 1, and are null where there is no place.
pub fn json(fault: &Fault) -> Value {
    let severity = match fault.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let place = fault.place.as_ref();
    let start = place.map(|p| p.position(p.span.start));
    let end = place.map(|p| p.position(p.span.end));
    // A place over several lines ends, for a program that marks one line, at the end of the first.
    let end_column = match (place, start, end) {
        (Some(place), Some((line, _)), Some((end_line, _))) if end_line != line => {
            let (text, from) = place.line_text();
            Some(place.position(from + text.len()).1)
        }
        (_, _, end) => end.map(|(_, column)| column),
    };
    json!({
        "code": fault.code,
        "severity": severity,
        "file": place.map(|p| p.source.path.as_str()),
        "line": start.map(|(line, _)| line),
        "column": start.map(|(_, column)| column),
        "end_column": end_column,
        "message": fault.message,
        "hint": fault.hint,
    })
}
