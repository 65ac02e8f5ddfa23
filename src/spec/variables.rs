//! `${NAME}`, `${NAME:-default}` and `${file:PATH}` inside values. `$$` is a dollar. Reads only through what it is given.

use super::fault::{Fault, Place};
use crate::limits::VARIABLE_DEPTH_MAX;

/// Where variables are read from.
pub(super) struct Variables<'a> {
    /// Environment.
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// Text of a file, by its path relative to the project.
    pub(super) file: &'a dyn Fn(&str) -> Result<String, String>,
}

/// Expands `text`, which stands at `place`; every variable that is missing is a fault at its own characters.
pub(super) fn expand(text: &str, place: &Place, variables: &Variables<'_>) -> Result<String, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut expansion = Expansion { variables, place, from: place.span.start, faults: &mut faults };
    let expanded = expansion.expand(text, 0);
    if faults.is_empty() { Ok(expanded) } else { Err(faults) }
}

/// What stands at `place`, as a message may show it: the characters as written, so that what a variable holds never shows.
pub(super) fn shown(value: &str, place: &Place) -> String {
    let written = place.text();
    if written.contains("${") {
        let bare = written.trim_matches(['"', '\'']);
        return bare.lines().next().unwrap_or_default().trim_end().to_string();
    }
    value.to_string()
}

struct Expansion<'a> {
    variables: &'a Variables<'a>,
    place: &'a Place,
    /// Byte of the source up to which variables have been met.
    from: usize,
    faults: &'a mut Vec<Fault>,
}

impl Expansion<'_> {
    fn expand(&mut self, text: &str, depth: usize) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("$$") {
                self.pass("$$");
                out.push('$');
                rest = after;
            } else if let Some(body) = rest.strip_prefix("${") {
                let Some(end) = closing_brace(body).filter(|_| depth < VARIABLE_DEPTH_MAX) else {
                    let place = self.pass(rest);
                    self.faults
                        .push(Fault::error("variable", place, "this `${` has no `}`").hint("write `$$` for a dollar"));
                    return out;
                };
                let variable = &rest[..end + 3];
                out.push_str(&self.value(&body[..end], variable, depth));
                rest = &body[end + 1..];
            } else {
                out.push('$');
                rest = &rest[1..];
            }
        }
        out.push_str(rest);
        out
    }

    fn value(&mut self, body: &str, variable: &str, depth: usize) -> String {
        let (name, default) = match body.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (body, None),
        };
        if let (Some(path), None) = (body.strip_prefix("file:"), default) {
            let place = self.pass(variable);
            return (self.variables.file)(path).map_or_else(
                |error| {
                    let message = format!("can't read the file `{path}`: {error}");
                    let fault = Fault::error("missing_variable", place, message);
                    self.faults.push(fault.hint("its path is absolute, or relative to the project"));
                    String::new()
                },
                |text| text.trim_end_matches(['\n', '\r']).to_string(),
            );
        }
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            let place = self.pass(variable);
            let fault = Fault::error("variable", place, format!("`{name}` can't name an environment variable"));
            self.faults.push(fault.hint("write ${NAME}, ${NAME:-default} or ${file:PATH}; `$$` is a dollar"));
            return String::new();
        }
        // Set but empty counts as not set where there is a default, as in a shell.
        let set = (self.variables.env)(name).filter(|value| default.is_none() || !value.is_empty());
        match (set, default) {
            (Some(value), _) => {
                self.pass(variable);
                value
            }
            (None, Some(default)) => self.expand(default, depth + 1),
            (None, None) => {
                let place = self.pass(variable);
                let fault =
                    Fault::error("missing_variable", place, format!("the environment variable `{name}` isn't set"));
                self.faults.push(fault.hint(format!("set it, or give a default: ${{{name}:-…}}")));
                String::new()
            }
        }
    }

    /// The next place where `part` was written, or all of the value where an escape hides it.
    fn pass(&mut self, part: &str) -> Place {
        let written = self.place.source.text.get(self.from..self.place.span.end).unwrap_or_default();
        match written.find(part) {
            Some(at) => {
                let start = self.from + at;
                self.from = start + part.len();
                Place::new(&self.place.source, start..self.from)
            }
            None => self.place.clone(),
        }
    }
}

/// The brace that closes a variable, those of variables in its default passed over.
fn closing_brace(body: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in body.char_indices() {
        match c {
            '{' if body[..at].ends_with('$') => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fault::SourceText;

    fn expanded(text: &str) -> Result<String, Vec<String>> {
        let source = SourceText::new("a.yaml", format!("k: '{text}'"));
        let place = Place::new(&source, 3..source.text.len());
        let env = |name: &str| match name {
            "A" => Some("a".to_string()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let file = |path: &str| if path == "k/secret" { Ok("s3cret\n".to_string()) } else { Err("gone".to_string()) };
        expand(text, &place, &Variables { env: &env, file: &file })
            .map_err(|faults| faults.into_iter().map(|f| format!("{} [{}]", f.code, f.place.unwrap().text())).collect())
    }

    #[test]
    fn what_is_read() {
        for (text, value) in [
            ("x${A}y${A}", "xaya"),
            ("${B:-b c}", "b c"),
            ("${A:-b}", "a"),
            ("${EMPTY:-b}|${EMPTY}", "b|"),
            ("${B:-${A}/${C:-c}}/d", "a/c/d"),
            ("${B:-}", ""),
            ("${file:k/secret}!", "s3cret!"),
            ("$$ $${A} $5 100$", "$ ${A} $5 100$"),
            ("${B:-$$}", "$"),
            ("{}${B:-{}}", "{}{}"),
        ] {
            assert_eq!(expanded(text).as_deref(), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_told_at_its_own_characters() {
        let faults = |text: &str| expanded(text).unwrap_err().join(", ");
        assert_eq!(faults("${A}${B}-${C}"), "missing_variable [${B}], missing_variable [${C}]");
        assert_eq!(faults("$${B} ${file:x}"), "missing_variable [${file:x}]");
        assert_eq!(faults("${A:-x} ${B:-${C}}"), "missing_variable [${C}]");
        assert_eq!(faults("a ${A"), "variable [${A]");
        assert_eq!(faults("${a-b}"), "variable [${a-b}]");
        assert_eq!(faults("${}"), "variable [${}]");
        assert_eq!(faults(&format!("{}x{}", "${B:-".repeat(20), "}".repeat(20))).split(' ').next(), Some("variable"));
    }

    #[test]
    fn values_of_variables_are_never_shown() {
        let source = SourceText::new("a", "k: \"${TOKEN}\"");
        assert_eq!(shown("s3cret", &Place::new(&source, 3..source.text.len())), "${TOKEN}");
        assert_eq!(shown("k", &Place::new(&source, 0..1)), "k");
    }
}
