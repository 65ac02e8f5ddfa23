//! SQL in a file or in a block of YAML, and the way from its lines and columns back to the characters there.

use std::ops::Range;
use std::sync::Arc;

use super::fault::{Place, SourceText};
use super::tree::{Node, Style, Value};
use super::types::SqlText;

impl SqlText {
    /// A whole file of SQL.
    pub fn file(source: Arc<SourceText>) -> Self {
        let skipped = if source.text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let text = source.text[skipped..].to_string();
        let line_starts = line_starts(&text).map(|start| start + skipped).collect();
        Self { text, source, line_starts }
    }

    /// The place of bytes of `text`.
    pub fn place(&self, span: Range<usize>) -> Place {
        let start = self.byte(span.start);
        let end = self.byte(span.end).max(start);
        Place { source: Arc::clone(&self.source), span: start..end }
    }

    /// The place of characters by line and column, both from 1; `columns` are half open.
    pub fn place_at(&self, line: usize, columns: Range<usize>) -> Place {
        let start = line_starts(&self.text).nth(line.saturating_sub(1)).unwrap_or(self.text.len());
        let rest = &self.text[start..];
        let rest = rest.lines().next().unwrap_or_default();
        let byte =
            |column: usize| rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(byte, _)| byte);
        self.place(start + byte(columns.start)..start + byte(columns.end))
    }

    fn byte(&self, offset: usize) -> usize {
        let mut at = 0;
        for (line, start) in line_starts(&self.text).enumerate() {
            if start > offset {
                break;
            }
            at = self.line_starts.get(line).map_or(self.source.text.len(), |origin| origin + (offset - start));
        }
        at.min(self.source.text.len())
    }
}

/// SQL that stands in a YAML scalar.
pub(super) fn inline(node: &Node) -> Option<SqlText> {
    let Value::Scalar(scalar) = &node.value else { return None };
    let source = Arc::clone(&node.place.source);
    let line_starts = match scalar.style {
        Style::Plain => vec![node.place.span.start],
        // One character for the opening quote; escapes inside shift what follows them, which no caret can undo.
        Style::Quoted => vec![node.place.span.start + 1],
        Style::Block => block_lines(node, &scalar.text),
    };
    Some(SqlText { text: scalar.text.clone(), source, line_starts })
}

/// Where each line of a block scalar begins in the file, its indentation skipped.
fn block_lines(node: &Node, text: &str) -> Vec<usize> {
    let file = &node.place.source.text;
    let mut at = node.place.span.start;
    let mut starts = Vec::new();
    for line in text.lines() {
        // Lines of a literal block stand in the file in order, each after its indentation.
        let found = if line.is_empty() { None } else { file.get(at..).and_then(|rest| rest.find(line)) };
        let start = found.map_or(at, |offset| at + offset);
        starts.push(start);
        at = (start + line.len()).min(file.len());
    }
    starts
}

fn line_starts(text: &str) -> impl Iterator<Item = usize> + '_ {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1))
}
