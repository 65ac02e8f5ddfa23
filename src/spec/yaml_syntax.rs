//! What is wrong where a text isn't YAML, in words for people who write SQL: most often a value that needs quotes.
//! Knows lines and characters only, no key of a project.

use std::ops::Range;
use std::sync::Arc;

use super::fault::{Fault, Place, SourceText};

/// The text as YAML reads it back unchanged: in double quotes, or in single ones where that spares escapes.
pub(super) fn quoted(text: &str) -> String {
    if text.contains(['"', '\\']) && !text.contains(['\n', '\t', '\r']) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t");
    format!("\"{}\"", escaped.replace('\r', "\\r"))
}

/// The fault of a value that begins with `!`, which YAML takes for a type of its own.
pub(super) fn foreign_tag(place: &Place, tag: &str) -> Fault {
    let line = line_at(&place.source, place.span.start);
    let value = Written::on(&place.source, line, place.span.start);
    value.fault(&place.source, "yaml_quote", format!("YAML reads `{tag}` as a tag, not as text"))
}

/// One fault for the parser's error at byte `at`: place, what was expected, and the quoted form where quotes are missing.
pub(super) fn explain(source: &Arc<SourceText>, at: usize, info: &str) -> Fault {
    let line = line_at(source, at);
    if let Some(fault) = tab(source, &line) {
        return fault;
    }
    cut_by_comment(source, &line, at)
        .or_else(|| needs_quotes(source, line.clone(), at, info))
        .or_else(|| nested_type(source, &line, at, info))
        .or_else(|| known_mistake(source, &line, at, info))
        .unwrap_or_else(|| {
            let place = Place::new(source, at..next_char(source, at, &line));
            Fault::error("yaml_syntax", place, format!("this isn't YAML: {}", info.trim_end_matches('.')))
        })
}

/// Bytes of the line that `byte` stands in, without its end.
fn line_at(source: &Arc<SourceText>, byte: usize) -> Range<usize> {
    let place = Place::new(source, byte..byte);
    let (text, start) = place.line_text();
    start..start + text.len()
}

fn next_char(source: &Arc<SourceText>, at: usize, line: &Range<usize>) -> usize {
    if at >= line.end {
        return at.min(source.text.len());
    }
    source.text[at..].chars().next().map_or(at, |c| at + c.len_utf8())
}

fn tab(source: &Arc<SourceText>, line: &Range<usize>) -> Option<Fault> {
    let text = &source.text[line.clone()];
    let indent = text.len() - text.trim_start_matches([' ', '\t']).len();
    let at = line.start + text[..indent].find('\t')?;
    let place = Place::new(source, at..at + 1);
    Some(
        Fault::error("yaml_syntax", place, "YAML lines are indented with spaces, and here is a tab")
            .hint("use two spaces"),
    )
}

/// The value that stands on a line: behind dashes and `key: `, in a flow mapping the one that `near` is in.
struct Written<'a> {
    key: Option<&'a str>,
    text: &'a str,
    start: usize,
}

impl<'a> Written<'a> {
    fn on(source: &'a Arc<SourceText>, line: Range<usize>, near: usize) -> Self {
        let whole = source.text[line.clone()].trim_end();
        let mut start = whole.len() - whole.trim_start().len();
        while whole[start..].starts_with("- ") {
            start += whole[start..].len() - whole[start + 1..].trim_start().len();
        }
        let (mut key, mut from) = key_and_value(whole, start);
        let mut end = whole.len();
        while whole[from..end].starts_with('{') {
            let opening = from + 1;
            let near = whole.floor_char_boundary(near.saturating_sub(line.start).clamp(opening, end));
            let part = whole[opening..near]
                .match_indices([',', '{'])
                .map(|(at, _)| opening + at + 1)
                .rfind(|at| starts_with_key(&whole[*at..]))
                .unwrap_or(opening);
            let inner = part + whole[part..].len() - whole[part..].trim_start().len();
            (key, from) = key_and_value(whole, inner);
            end = whole[..end].trim_end_matches(['}', ' ']).len().max(from);
            let next = whole[from..end].match_indices(',').map(|(at, _)| from + at);
            end = next.into_iter().find(|at| starts_with_key(&whole[*at + 1..])).unwrap_or(end);
            if near <= from {
                break;
            }
        }
        Self { key, text: whole[from..end].trim_end(), start: line.start + from }
    }

    fn place(&self, source: &Arc<SourceText>) -> Place {
        Place::new(source, self.start..self.start + self.text.len())
    }

    /// The line as it should be written: `refresh` takes its cron line by name.
    fn quoted_form(&self) -> String {
        let value = quoted(self.text);
        match self.key {
            Some("refresh") => format!("refresh: {{ cron: {value} }}"),
            Some(key) => format!("{key}: {value}"),
            None => value,
        }
    }

    fn fault(&self, source: &Arc<SourceText>, code: &'static str, message: String) -> Fault {
        let hint = format!("write it in quotes: {}", self.quoted_form());
        Fault::error(code, self.place(source), message).hint(hint)
    }
}

/// The key at `start` and the byte where its value begins.
fn key_and_value(line: &str, start: usize) -> (Option<&str>, usize) {
    let rest = &line[start..];
    let key_end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    match rest[key_end..].strip_prefix(':') {
        Some(after) if key_end > 0 && (after.is_empty() || after.starts_with(' ')) => {
            (Some(&rest[..key_end]), line.len() - after.trim_start().len())
        }
        _ => (None, start),
    }
}

fn starts_with_key(text: &str) -> bool {
    let text = text.trim_start();
    key_and_value(text, 0).0.is_some()
}

/// ` #` inside a SQL text begins a comment: the quote or bracket before it is never closed.
fn cut_by_comment(source: &Arc<SourceText>, line: &Range<usize>, at: usize) -> Option<Fault> {
    let before = if line.start > source.start() { line_at(source, line.start - 1) } else { line.clone() };
    for line in [line.clone(), before] {
        let text = &source.text[line.clone()];
        let Some(hash) = comment_start(text) else { continue };
        let value = Written::on(source, line.clone(), (line.start + hash).min(at.max(line.start)));
        let cut = (line.start + hash).checked_sub(value.start).filter(|cut| *cut <= value.text.len());
        if cut.is_some_and(|cut| is_unfinished(value.text[..cut].trim_end())) {
            return Some(value.fault(source, "yaml_comment", "YAML cuts an unquoted value off at ` #`".into()));
        }
    }
    None
}

/// Where a `#` that follows a space begins a comment, quotes aside as YAML itself sets them aside in plain text.
pub(super) fn comment_start(line: &str) -> Option<usize> {
    line.match_indices('#').map(|(at, _)| at).find(|at| line[..*at].ends_with([' ', '\t']))
}

/// Whether a piece of SQL stops in the middle: an open quote or bracket, or an operator that waits for its right side.
pub(super) fn is_unfinished(sql: &str) -> bool {
    let mut quote = None;
    let mut open = 0i64;
    for c in sql.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(' | '[') => open += 1,
            (None, ')' | ']') => open -= 1,
            _ => {}
        }
    }
    let last_word = sql.rsplit(|c: char| c.is_whitespace()).next().unwrap_or_default().to_ascii_lowercase();
    quote.is_some()
        || open > 0
        || sql.ends_with(['=', '<', '>', '+', '-', '/', '|', ','])
        || matches!(last_word.as_str(), "and" | "or" | "not" | "in" | "like" | "ilike" | "between" | "is")
}

fn needs_quotes(source: &Arc<SourceText>, line: Range<usize>, at: usize, info: &str) -> Option<Fault> {
    let value = Written::on(source, line, at);
    let first = value.text.chars().next()?;
    let starts = |first| format!("YAML gives `{first}` at the start of a value a meaning of its own");
    let (code, message) = match first {
        '*' | '&' | '%' | '@' | '`' => ("yaml_quote", starts(first)),
        '|' | '>' if info.contains("block scalar") => ("yaml_quote", starts(first)),
        '"' | '\'' if closing_quote(value.text, first).is_some_and(|end| end < value.text.len()) => {
            ("yaml_quote", format!("YAML ends this text at its second `{first}`, and more follows"))
        }
        '[' if value.text.rfind(']').is_some_and(|end| end + 1 < value.text.len()) => {
            ("yaml_quote", "YAML reads this as a list with something behind it".to_string())
        }
        _ if info.contains("mapping values are not allowed") && value.text.contains(": ") => {
            ("yaml_colon", "YAML reads `: ` as the end of a key, and there can't be one here".to_string())
        }
        _ => return None,
    };
    Some(value.fault(source, code, message))
}

/// Whether the parser gave up inside of brackets.
fn is_in_flow(info: &str) -> bool {
    ["expected ',' or", "illegal placement of ':'", "flow construct"].iter().any(|words| info.contains(words))
}

/// `{ tags: text[] }`: the type of a list or struct, whose brackets and colons YAML takes for its own inside of others.
fn nested_type(source: &Arc<SourceText>, line: &Range<usize>, at: usize, info: &str) -> Option<Fault> {
    let Written { key, start, .. } = Written::on(source, line.clone(), at);
    let rest = source.text.get(start..line.end)?;
    let mut depth = 0_usize;
    let end = rest.find(|c| {
        match c {
            '<' | '(' | '[' => depth += 1,
            '>' | ')' | ']' if depth > 0 => depth -= 1,
            ',' | '}' | ']' if depth == 0 => return true,
            _ => {}
        }
        false
    });
    let text = rest[..end.unwrap_or(rest.len())].trim_end();
    let lower = text.to_lowercase();
    let is_struct = ["struct<", "array<", "list<"].iter().any(|word| lower.starts_with(word));
    if !is_in_flow(info) || !(is_struct || text.starts_with(char::is_alphabetic) && text.ends_with("[]")) {
        return None;
    }
    let message = "inside of { } or [ ], YAML gives brackets, commas and `: ` meanings of their own".to_string();
    Some(Written { key, text, start }.fault(source, "yaml_quote", message))
}

/// The byte behind the quote that closes a text which opens with `quote`.
fn closing_quote(text: &str, quote: char) -> Option<usize> {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        if c == '\\' && quote == '"' {
            characters.next();
        } else if c == quote {
            if quote == '\'' && characters.peek().is_some_and(|(_, next)| *next == '\'') {
                characters.next();
            } else {
                return Some(at + 1);
            }
        }
    }
    None
}

fn known_mistake(source: &Arc<SourceText>, line: &Range<usize>, at: usize, info: &str) -> Option<Fault> {
    let fault = |place: Range<usize>, message: &str| Fault::error("yaml_syntax", Place::new(source, place), message);
    let text = &source.text[line.clone()];
    let first = line.start + text.len() - text.trim_start().len();
    let written = first..line.start + text.trim_end().len();
    let here = at..next_char(source, at, line);
    let message = match info {
        _ if info.contains("quoted scalar") => {
            return Some(fault(here, "expected a closing quote: this text never ends"));
        }
        _ if info.contains("simple key expect") || info.contains("unexpected end of plain scalar") => {
            let wanted = previous_text(source, at);
            let text = &source.text[wanted.clone()];
            let hint = match text.strip_prefix('-') {
                Some(item) if !item.starts_with([' ', '-']) => {
                    format!("an item has a space after its dash: `- {item}`")
                }
                _ => format!(
                    "write `{}: …`, or indent it where it goes on with the line above",
                    text.trim_end_matches(':')
                ),
            };
            return Some(fault(wanted, "expected `key: value` here").hint(hint));
        }
        _ if is_in_flow(info) => {
            return Some(
                fault(here, "expected `,` or a closing `]` or `}`").hint("a `[` or `{` before this is still open"),
            );
        }
        _ if info.contains("mapping values are not allowed") || info.contains("expected key") => {
            "this line's indentation fits none of the lines above it"
        }
        _ if info.contains("invalid indentation")
            || info.contains("'-' indicator")
            || info.contains("wrongly indented") =>
        {
            "this line's indentation fits none of the lines above it"
        }
        _ if info.contains("unknown anchor") => "there is no anchor of this name",
        _ if info.contains("recursion") => "nested too deep",
        _ => return None,
    };
    Some(fault(written, message))
}

/// The last line before `at` that has something on it, without its indentation.
fn previous_text(source: &Arc<SourceText>, at: usize) -> Range<usize> {
    let upto = source.text[..at.min(source.text.len())].trim_end().len();
    let line = line_at(source, upto);
    let text = &source.text[line.clone()];
    let start = line.start + text.len() - text.trim_start().len();
    start..start + text.trim().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tree;

    /// Code, covered characters and hint of the one fault.
    fn shown(text: &str) -> String {
        let mut faults = vec![];
        tree::parse(&SourceText::new("a.yaml", text), &mut faults);
        assert_eq!(faults.len(), 1, "{text}: {faults:?}");
        let fault = faults.remove(0);
        let place = fault.place.unwrap();
        format!("{} [{}] {} | {}", fault.code, place.text(), fault.message, fault.hint.unwrap_or_default())
    }

    #[test]
    fn values_that_need_quotes_show_the_quoted_form() {
        for (text, covered, hint) in [
            ("refresh: * * * * *\n", "* * * * *", "refresh: { cron: \"* * * * *\" }"),
            ("m:\n  refresh: { cron: */5 * * * * }\n", "*/5 * * * *", "cron: \"*/5 * * * *\""),
            ("a: *\n", "*", "a: \"*\""),
            ("timestamp_format: %m/%d/%Y\n", "%m/%d/%Y", "timestamp_format: \"%m/%d/%Y\""),
            ("c: { timestamp_format: %d, x: 1 }\n", "%d", "timestamp_format: \"%d\""),
            ("checks:\n  - %a > 1\n", "%a > 1", "\"%a > 1\""),
            ("checks:\n  - check: city <> 'a: b'\n", "city <> 'a: b'", "check: \"city <> 'a: b'\""),
            ("checks:\n  - \"Price\" > 0\n", "\"Price\" > 0", "'\"Price\" > 0'"),
            ("checks:\n  - 'x' <> y\n", "'x' <> y", "\"'x' <> y\""),
            ("checks:\n  - { check: a <> 'x #y', name: b }\n  - c\n", "a <> 'x #y'", "check: \"a <> 'x #y'\""),
            ("checks:\n  - !active\n", "!active", "\"!active\""),
            ("checks:\n  - > 0\n", "> 0", "\"> 0\""),
        ] {
            let shown = shown(text);
            assert!(shown.starts_with("yaml_") && shown.contains(&format!(" [{covered}] ")), "{shown}");
            assert!(shown.ends_with(&format!("write it in quotes: {hint}")), "{shown}");
        }
    }

    #[test]
    fn other_mistakes() {
        insta::assert_snapshot!(
            [
                "a:\n\tb: c\n", "a: b\n c: d\n", "a:\n  - x\n b: c\n", "a:\n  - b\n  -c\n", "a: [1, 2\nb: c\n",
                "a: \"x\nb: c\n", "a: *x\n", "a: 1\nhello\nb: 2\n", "a: {b: 1\n",
            ]
            .map(|text| format!("{text:?}\n  {}", shown(text)))
            .join("\n"),
            @r##"
        "a:\n\tb: c\n"
          yaml_syntax [	] YAML lines are indented with spaces, and here is a tab | use two spaces
        "a: b\n c: d\n"
          yaml_syntax [c: d] this line's indentation fits none of the lines above it | 
        "a:\n  - x\n b: c\n"
          yaml_syntax [b: c] this line's indentation fits none of the lines above it | 
        "a:\n  - b\n  -c\n"
          yaml_syntax [-c] expected `key: value` here | an item has a space after its dash: `- c`
        "a: [1, 2\nb: c\n"
          yaml_syntax [:] expected `,` or a closing `]` or `}` | a `[` or `{` before this is still open
        "a: \"x\nb: c\n"
          yaml_syntax ["] expected a closing quote: this text never ends | 
        "a: *x\n"
          yaml_quote [*x] YAML gives `*` at the start of a value a meaning of its own | write it in quotes: a: "*x"
        "a: 1\nhello\nb: 2\n"
          yaml_syntax [hello] expected `key: value` here | write `hello: …`, or indent it where it goes on with the line above
        "a: {b: 1\n"
          yaml_syntax [] expected `,` or a closing `]` or `}` | a `[` or `{` before this is still open
        "##
        );
    }

    #[test]
    fn quoted_text_is_read_back() {
        for text in ["a: b", "it's", "\"A\" > 0", "a \\ b", "x # y", "tab\there 'q' \"d\"", "é"] {
            let mut faults = vec![];
            let node = tree::parse(&SourceText::new("a", format!("k: {}", quoted(text))), &mut faults).unwrap();
            let tree::Value::Scalar(read) = &node.get("k").unwrap().value else { panic!("no scalar") };
            assert_eq!((read.text.as_str(), faults.len()), (text, 0));
        }
    }

    #[test]
    fn unfinished_sql() {
        for sql in ["a <> 'x", "f(a", "a >", "a and", "x in ('a', 'b"] {
            assert!(is_unfinished(sql), "{sql}");
        }
        for sql in ["revenue >= 0", "a <> 'x'", "f(a) is null", "a <> 'it''s'"] {
            assert!(!is_unfinished(sql), "{sql}");
        }
    }
}
