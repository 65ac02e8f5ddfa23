//! `${NAME}`, `${NAME:-default}` and `${file:PATH}` inside values. `$$` is a dollar.

use super::fault::{Fault, Place};

/// Where variables are read from.
pub(super) struct Variables<'a> {
    /// Environment.
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// Text of a file, by its path relative to the project.
    pub(super) file: &'a dyn Fn(&str) -> Result<String, String>,
}

/// Expands `text`, which stands at `place`; every variable that is missing is a fault at its own characters.
pub(super) fn expand(text: &str, place: &Place, variables: &Variables<'_>) -> Result<String, Vec<Fault>> {
    if !text.contains('$') {
        return Ok(text.to_string());
    }
    let mut out = String::with_capacity(text.len());
    let mut faults = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some(body) = rest.strip_prefix("${") {
            let Some(end) = body.find('}') else {
                faults.push(Fault::error("variable", locate(place, rest), "this `${` has no `}`"));
                break;
            };
            match value(&body[..end], variables) {
                Ok(value) => out.push_str(&value),
                Err((message, hint)) => {
                    let place = locate(place, &rest[..end + 3]);
                    faults.push(Fault::error("missing_variable", place, message).hint(hint));
                }
            }
            rest = &body[end + 1..];
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    if faults.is_empty() { Ok(out) } else { Err(faults) }
}

fn value(body: &str, variables: &Variables<'_>) -> Result<String, (String, String)> {
    if let Some(path) = body.strip_prefix("file:") {
        return (variables.file)(path).map(|text| text.trim_end_matches(['\n', '\r']).to_string()).map_err(|error| {
            (format!("can't read the file `{path}`: {error}"), "paths are relative to the project".into())
        });
    }
    let (name, default) = match body.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (body, None),
    };
    let set = (variables.env)(name).filter(|value| default.is_none() || !value.is_empty());
    set.or_else(|| default.map(str::to_string)).ok_or_else(|| {
        (format!("the environment variable `{name}` isn't set"), format!("set it, or give a default: ${{{name}:-…}}"))
    })
}

/// The characters of `part` inside `place`, or all of it where escapes hide them.
fn locate(place: &Place, part: &str) -> Place {
    match place.text().find(part) {
        Some(at) => {
            let start = place.span.start + at;
            Place { source: place.source.clone(), span: start..start + part.len() }
        }
        None => place.clone(),
    }
}
