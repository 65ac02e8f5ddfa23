//! SQL in a file or in a scalar of YAML, and the way from its characters back to those that the user wrote.
//! Knows how YAML writes text, nothing of SQL but what a word is.

use std::ops::Range;
use std::sync::Arc;

use super::fault::{Place, SourceText};
use super::tree::{Node, Style, Value};
use super::types::SqlText;

impl SqlText {
    /// A whole file of SQL.
    pub fn file(source: Arc<SourceText>) -> Self {
        let start = source.start();
        let text = source.text[start..].to_string();
        let line_starts = line_starts(&text).map(|line| line + start).collect();
        Self { text, source, line_starts }
    }

    /// The place of bytes of `text`; empty where they are.
    pub fn place(&self, span: Range<usize>) -> Place {
        let start = self.origin(span.start);
        if span.end <= span.start {
            return Place::new(&self.source, start..start);
        }
        // The end is that of the last character: what follows it in `text` may stand elsewhere, behind an indentation.
        let last = self.text.floor_char_boundary(span.end.min(self.text.len()).saturating_sub(1));
        let from = self.origin(last);
        let written = self.source.text.get(from..).unwrap_or_default();
        let length = escape_length(written, self.quote());
        Place::new(&self.source, start..(from + length).clamp(start, self.source.text.len()))
    }

    /// The place of the word, or else the character, at a line and a column in characters, both from 1.
    pub fn place_at(&self, line: usize, column: usize) -> Place {
        let start = self.offset(line, column);
        let rest = &self.text[start..];
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = if word > 0 { word } else { rest.chars().next().map_or(0, char::len_utf8) };
        self.place(start..start + length)
    }

    /// The place between two such lines and columns, the second one not included.
    pub fn place_between(&self, start: (usize, usize), end: (usize, usize)) -> Place {
        let from = self.offset(start.0, start.1);
        self.place(from..self.offset(end.0, end.1).max(from))
    }

    /// The byte of `text` at a line and column; the end of the line, or of the text, for those beyond.
    fn offset(&self, line: usize, column: usize) -> usize {
        let start = line_starts(&self.text).nth(line.saturating_sub(1)).unwrap_or(self.text.len());
        let rest = self.text[start..].split('\n').next().unwrap_or_default();
        start + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(byte, _)| byte)
    }

    /// The byte of the source where a byte of `text` was written.
    fn origin(&self, offset: usize) -> usize {
        let offset = self.text.floor_char_boundary(offset.min(self.text.len()));
        let line = self.text[..offset].matches('\n').count();
        let line_start = self.text[..offset].rfind('\n').map_or(0, |at| at + 1);
        let from = self.line_starts.get(line).copied().unwrap_or(self.source.text.len());
        let quote = self.quote();
        self.text[line_start..offset].chars().fold(from, |at, c| step(&self.source.text, at, c, quote))
    }

    /// The quote that the whole text stands in, if it is a quoted scalar.
    fn quote(&self) -> Option<char> {
        let before = self.line_starts.first()?.checked_sub(1)?;
        match self.source.text.as_bytes().get(before) {
            Some(b'\'') => Some('\''),
            Some(b'"') => Some('"'),
            _ => None,
        }
    }
}

/// The byte behind `c` as written at byte `at`: itself, an escape, or a line break with an indentation that was read as a space.
fn step(written: &str, at: usize, c: char, quote: Option<char>) -> usize {
    let Some(rest) = written.get(at..) else { return written.len() };
    match rest.chars().next() {
        Some('\'') if c == '\'' && quote == Some('\'') && rest.starts_with("''") => at + 2,
        Some('\\') if quote == Some('"') => at + escape_length(rest, quote),
        Some(found) if found == c => at + c.len_utf8(),
        Some(found) if c == ' ' && found.is_whitespace() => at + rest.len() - rest.trim_start().len(),
        Some(found) => at + found.len_utf8(),
        None => at,
    }
}

/// Bytes of the escape, or of the one character, that `written` begins with.
fn escape_length(written: &str, quote: Option<char>) -> usize {
    let mut characters = written.chars();
    let first = characters.next().map_or(0, char::len_utf8);
    match (quote, written.as_bytes().first(), characters.next()) {
        (Some('\''), Some(b'\''), Some('\'')) => 2,
        (Some('"'), Some(b'\\'), Some('x')) => 4,
        (Some('"'), Some(b'\\'), Some('u')) => 6,
        (Some('"'), Some(b'\\'), Some('U')) => 10,
        (Some('"'), Some(b'\\'), Some(next)) => 1 + next.len_utf8(),
        _ => first,
    }
}

/// SQL that stands in a YAML scalar.
pub(super) fn inline(node: &Node) -> Option<SqlText> {
    let Value::Scalar(scalar) = &node.value else { return None };
    let source = Arc::clone(&node.place.source);
    let start = node.place.span.start;
    let line_starts = match scalar.style {
        Style::Block => block_lines(&node.place, &scalar.text),
        Style::Plain => flow_lines(&source.text, start, &scalar.text, None),
        Style::Quoted => {
            let quote = source.text[start..].chars().next();
            flow_lines(&source.text, start + 1, &scalar.text, quote)
        }
    };
    Some(SqlText { text: scalar.text.clone(), source, line_starts })
}

/// Where each line of a plain or quoted text begins: a line break in it was an escape, or an empty line.
fn flow_lines(written: &str, start: usize, text: &str, quote: Option<char>) -> Vec<usize> {
    let mut starts = vec![start];
    let mut at = start;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let is_break = written[at..].starts_with(char::is_whitespace);
        at = step(written, at, c, quote);
        if c == '\n' {
            if is_break && characters.peek() != Some(&'\n') {
                at += written[at..].len() - written[at..].trim_start().len();
            }
            starts.push(at);
        }
    }
    starts
}

/// Where each line of a block begins, its indentation left out. In a folded block several written lines make one of the text;
/// each line of the text is looked for from where the last one ended, by the words that it begins with.
fn block_lines(place: &Place, text: &str) -> Vec<usize> {
    let written = &place.source.text;
    // The line of the `|` or `>` is the last one before the block that has anything on it.
    let header = written.get(..place.span.start).unwrap_or_default().trim_end().len();
    let mut at = next_line(written, header);
    let spaces = |text: &str| {
        let line = text.split('\n').find(|line| !line.trim().is_empty()).unwrap_or_default();
        line.len() - line.trim_start_matches(' ').len()
    };
    let indent = spaces(&written[at..]).saturating_sub(spaces(text));
    let mut starts = Vec::new();
    for line in text.split('\n') {
        let begin = line.split_inclusive(' ').next().unwrap_or_default().trim_end();
        // Blank lines before the text, and those that folding takes away, are passed over.
        while at < written.len() && !line.is_empty() && !content(written, at, indent).starts_with(begin) {
            at = next_line(written, at);
        }
        starts.push(at + (line_end(written, at) - at).min(indent));
        let mut end = content_start(written, at, indent);
        end = line.chars().fold(end, |at, c| step(written, at, c, None));
        at = next_line(written, end);
    }
    starts
}

fn line_end(written: &str, at: usize) -> usize {
    written[at..].find('\n').map_or(written.len(), |end| at + end)
}

fn next_line(written: &str, at: usize) -> usize {
    (line_end(written, at) + 1).min(written.len())
}

fn content_start(written: &str, line: usize, indent: usize) -> usize {
    let spaces = written[line..].bytes().take(indent).take_while(|b| *b == b' ').count();
    line + spaces
}

fn content(written: &str, line: usize, indent: usize) -> &str {
    &written[content_start(written, line, indent)..line_end(written, line)]
}

fn line_starts(text: &str) -> impl Iterator<Item = usize> + '_ {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tree::parse;

    /// The SQL under `sql:` of a YAML text.
    fn sql(yaml: &str) -> SqlText {
        let mut faults = vec![];
        let node = parse(&SourceText::new("a.yaml", yaml), &mut faults).unwrap();
        assert_eq!(faults, []);
        inline(node.get("sql").unwrap()).unwrap()
    }

    /// Every word of the SQL is found at its place.
    fn words_are_at_their_places(sql: &SqlText) {
        let words = sql.text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        let mut checked = 0;
        for word in words {
            let at = word.as_ptr() as usize - sql.text.as_ptr() as usize;
            assert_eq!(sql.place(at..at + word.len()).text(), word, "in {:?}", sql.text);
            let line = sql.text[..at].matches('\n').count() + 1;
            let column = sql.text[..at].rsplit('\n').next().unwrap().chars().count() + 1;
            assert_eq!(sql.place_at(line, column).text(), word);
            assert_eq!(sql.place_between((line, column), (line, column + word.chars().count())).text(), word);
            checked += 1;
        }
        assert!(checked > 2, "{:?}", sql.text);
        assert_eq!(sql.line_starts.len(), sql.text.matches('\n').count() + 1);
    }

    #[test]
    fn every_style_leads_back() {
        for yaml in [
            "sql: select é, b2 from orders\nx: 1\n",
            "sql: select a\n  from orders\n  where x = 1\n",
            "sql: 'select ''it''''s'' as q, b from orders'\n",
            "sql: 'select ''a''\n\n  from orders'\n",
            "sql: \"select \\\"é\\\" as q,\\n\\tb \\u002b c from\n   orders\"\n",
            "m:\n  k: 1\nsql: |\n    select a,\n      b\n\n    from orders\n    where x = 'é' and y\nx: 1\n",
            "sql: |2-\n    select a\n  from orders\n",
            "sql: |\r\n  select a,\r\n\r\n    b\r\n  from orders\r\nx: 1\r\n",
            "\u{feff}# ç\nsql: | # why\n\n  select a\n  from orders\n",
            "sql: >\n  select a,\n  b from\n\n  orders where\n    x = 1\n  and y\n",
            "sql: >-\r\n  select a,\r\n  b from\r\n  orders\r\n",
        ] {
            words_are_at_their_places(&sql(yaml));
        }
    }

    #[test]
    fn files_lead_back_after_a_byte_order_mark() {
        let file = SqlText::file(SourceText::new("sql/a.sql", "\u{feff}select é,\r\n  b\r\nfrom orders\r\n"));
        words_are_at_their_places(&file);
        assert!(file.text.starts_with("select"));
        assert_eq!(file.place_at(2, 3).to_string(), "sql/a.sql:2:3");
        assert_eq!(file.place_at(99, 99).to_string(), "sql/a.sql:4:1");
    }

    #[test]
    fn signs_and_escapes_are_covered_whole() {
        let quoted = sql("sql: 'a <> ''b'' or c'\n");
        assert_eq!(quoted.place(2..4).text(), "<>");
        assert_eq!(quoted.place(5..8).text(), "''b''");
        assert_eq!(quoted.place_at(1, 3).text(), "<");
        assert_eq!(quoted.place(3..3).span.len(), 0);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[a-c '\"\\\\\né]{0,30}", start in 0usize..40, length in 0usize..10) {
            for yaml in [format!("sql: |\n  {}", text.replace('\n', "\n  ")), format!("sql: >\n  {}", text.replace('\n', "\n  "))] {
                let mut faults = vec![];
                let node = parse(&SourceText::new("a", yaml), &mut faults);
                if let Some(sql) = node.as_ref().and_then(|n| n.get("sql")).and_then(inline) {
                    let place = sql.place(start..start + length);
                    proptest::prop_assert!(place.source.text.get(place.span.clone()).is_some());
                    sql.place_at(start, length);
                }
            }
        }
    }
}
