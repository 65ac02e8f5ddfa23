//! The text of a type to a type: lists and structs of what holds one value. Knows no YAML.

use super::sql_type::SqlType;
use crate::limits;

type Wrong = (String, Option<String>);

impl SqlType {
    /// Reads a type: `bigint`, `bigint[]` or `array<bigint>`, `struct<id bigint, price decimal(12, 2)>` with or without colons
    /// behind the names, and these inside one another.
    ///
    /// # Errors
    /// What is wrong with it and a hint.
    pub fn parse(text: &str) -> Result<Self, (String, Option<String>)> {
        parse(text, 0)
    }
}

fn parse(text: &str, depth: usize) -> Result<SqlType, Wrong> {
    let text = text.trim();
    if depth > limits::TYPE_DEPTH {
        return Err((format!("a type is at most {} levels deep", limits::TYPE_DEPTH), Some("use json below".into())));
    }
    if let Some(before) = text.strip_suffix(']') {
        return match before.trim_end().strip_suffix('[') {
            Some(item) => Ok(SqlType::List(Box::new(inner(item, depth)?))),
            None => Err((
                format!("expected a list as type[], found `{text}`"),
                Some("a list's length isn't declared".into()),
            )),
        };
    }
    let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
    match text[..end].to_ascii_lowercase().as_str() {
        "array" | "list" => match inside(text, &text[end..])? {
            Some(item) => Ok(SqlType::List(Box::new(inner(item, depth)?))),
            None => Err((format!("`{text}` lacks the type of its values"), Some("such as `bigint[]`".into()))),
        },
        "struct" => match inside(text, &text[end..])? {
            Some(fields) => structure(text, fields, depth),
            None => Err((format!("`{text}` lacks its fields"), example())),
        },
        _ => SqlType::parse_scalar(text),
    }
}

/// The type of what a list or struct holds.
fn inner(text: &str, depth: usize) -> Result<SqlType, Wrong> {
    match parse(text, depth + 1)? {
        SqlType::Time => Err((
            "a table has no time of day inside of a list or struct".to_string(),
            Some("declare it text".to_string()),
        )),
        other => Ok(other),
    }
}

fn example() -> Option<String> {
    Some("such as \"struct<id bigint, price decimal(12, 2)>\"".into())
}

/// What stands between the brackets of `rest`, all of it; none where there is nothing.
fn inside<'a>(whole: &str, rest: &'a str) -> Result<Option<&'a str>, Wrong> {
    let rest = rest.trim();
    let (close, inner) = match rest.as_bytes().first() {
        None => return Ok(None),
        Some(b'<') => ('>', &rest[1..]),
        Some(b'(') => (')', &rest[1..]),
        Some(_) => return Err((format!("expected `<` behind the first word of `{whole}`"), example())),
    };
    match inner.strip_suffix(close) {
        Some(inner) => Ok(Some(inner).filter(|inner| !inner.trim().is_empty())),
        None => Err((format!("`{whole}` lacks its closing `{close}`"), None)),
    }
}

fn structure(whole: &str, text: &str, depth: usize) -> Result<SqlType, Wrong> {
    let mut fields: Vec<(String, SqlType)> = Vec::new();
    for field in parts(text) {
        let (name, rest) =
            name(field).ok_or_else(|| (format!("expected a name and a type, found `{}`", field.trim()), example()))?;
        let rest = rest.trim_start();
        let data_type = rest.strip_prefix(':').unwrap_or(rest).trim();
        if data_type.is_empty() {
            return Err((format!("the field `{name}` of `{whole}` has no type"), example()));
        }
        if fields.iter().any(|(known, _)| *known == name) {
            return Err((format!("two fields of `{whole}` are named `{name}`"), None));
        }
        let data_type = inner(data_type, depth)?;
        fields.push((name, data_type));
    }
    Ok(SqlType::Struct(fields))
}

/// A field's name, bare or in quotes, and what stands behind it.
fn name(field: &str) -> Option<(String, &str)> {
    let field = field.trim();
    let quote = field.chars().next().filter(|c| matches!(c, '"' | '`'));
    let Some(quote) = quote else {
        let end = field.find(|c: char| c.is_whitespace() || c == ':').unwrap_or(field.len());
        let name = &field[..end];
        let is_name = !name.is_empty() && !name.contains(['<', '>', '(', ')', '[', ']', '"', '`']);
        return is_name.then(|| (name.to_string(), &field[end..]));
    };
    let mut name = String::new();
    let mut characters = field.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        if c != quote {
            name.push(c);
        } else if characters.next_if(|(_, next)| *next == quote).is_some() {
            name.push(quote);
        } else {
            return (!name.is_empty()).then_some((name, &field[at + 1..]));
        }
    }
    None
}

/// The fields between commas; those inside brackets and quotes are a type's or a name's own.
fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth, mut quote) = (0, 0_usize, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '`') => quote = Some(c),
            (None, '<' | '(' | '[') => depth += 1,
            (None, '>' | ')' | ']') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::SqlType;

    fn shown(text: &str) -> String {
        match SqlType::parse(text) {
            Ok(read) => {
                assert_eq!(SqlType::parse(&read.to_string()), Ok(read.clone()), "{text}");
                read.to_string()
            }
            Err((message, hint)) => format!("{message} | {}", hint.unwrap_or_default()),
        }
    }

    #[test]
    fn types_inside_types() {
        for (text, read) in [
            ("bigint[]", "bigint[]"),
            ("ARRAY<Int>", "integer[]"),
            ("list< text > [ ]", "text[][]"),
            ("double precision[]", "double[]"),
            ("json", "json"),
            ("struct<id bigint, price decimal(12, 2)>", "struct<id bigint, price decimal(12, 2)>"),
            ("struct<id: bigint, price:decimal(12,2)>[]", "struct<id bigint, price decimal(12, 2)>[]"),
            ("STRUCT(Id bigint, at timestamp with time zone)", "struct<Id bigint, at timestamptz>"),
            ("struct<a struct<b: array<json>>, c text[]>", "struct<a struct<b json[]>, c text[]>"),
            ("struct<\"a, b\" text, `c:d` date>", "struct<\"a, b\" text, \"c:d\" date>"),
        ] {
            assert_eq!(shown(text), read);
        }
    }

    #[test]
    fn what_is_no_type() {
        let deep = format!("{}{}", "array<".repeat(40), ">".repeat(40));
        let wrong = [
            "array",
            "array<>",
            "bigint[3]",
            "struct",
            "struct<id>",
            "struct<id bigint",
            "struct<id bigint, id text>",
            "struct<a bigintt>",
            "struct<<b text>>",
            "struct<a text,>",
            "array bigint",
            "time[]",
        ];
        let told: Vec<String> = wrong.iter().map(|text| format!("{text}\n  {}", shown(text))).collect();
        insta::assert_snapshot!("wrong_types", told.join("\n"));
        assert!(shown(&deep).starts_with("a type is at most 16 levels deep"));
    }
}
