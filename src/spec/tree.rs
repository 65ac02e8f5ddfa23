//! YAML as a tree whose every node knows its characters. Values stay text: `10.00` is no float here.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::fault::{Fault, Place, SourceText};
use super::types::Located;
use super::{traps, yaml_syntax};
use crate::limits::{YAML_DEPTH_MAX, YAML_NODES_MAX};

/// A node of a YAML file. Its place covers what is written: a scalar with its quotes, a block without the lines that only
/// separate it, a list or mapping from its first to its last character; nothing where nothing is written.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    /// Entries in order of writing; keys are unique.
    Map(Vec<(Located<String>, Node)>),
}

/// A scalar's text and how it was written.
#[derive(Debug, Clone)]
pub(super) struct Scalar {
    pub(super) text: String,
    pub(super) style: Style,
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Quoted,
    /// `|` or `>`
    Block,
}

impl Node {
    /// An empty mapping standing for a file without content.
    fn empty(source: &Arc<SourceText>) -> Self {
        Self { value: Value::Map(Vec::new()), place: Place { source: Arc::clone(source), span: 0..0 } }
    }

    /// The value of a key, if this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k.value == key).map(|(_, node)| node),
            _ => None,
        }
    }

    fn count(&self) -> usize {
        match &self.value {
            Value::Null | Value::Scalar(_) => 1,
            Value::List(items) => 1 + items.iter().map(Self::count).sum::<usize>(),
            Value::Map(entries) => 1 + entries.iter().map(|(_, node)| node.count()).sum::<usize>(),
        }
    }

    /// What a fault calls it.
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// Parses one YAML document. A syntax error gives one fault and no tree; what YAML itself misreads gives faults and the
/// tree that was meant. An empty document is an empty mapping.
pub(super) fn parse(source: &Arc<SourceText>, faults: &mut Vec<Fault>) -> Option<Node> {
    let start = source.start();
    let text = &source.text[start..];
    let bytes: Vec<usize> = text.char_indices().map(|(at, _)| at + start).chain([source.text.len()]).collect();
    let mut builder = Builder { source, bytes, stack: vec![], anchors: HashMap::new(), nodes: 0, root: None, faults };
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        match event {
            Err(error) => {
                let at = builder.byte(error.marker().index());
                builder.faults.push(yaml_syntax::explain(source, at, error.info()));
                return None;
            }
            Ok((Event::DocumentStart(_), span)) => {
                documents += 1;
                if documents > 1 {
                    let place = builder.place(span);
                    builder.faults.push(
                        Fault::error(
                            "yaml_documents",
                            place,
                            "a file holds one YAML document, and a second begins here",
                        )
                        .hint("put it into a file of its own"),
                    );
                    break;
                }
            }
            Ok((event, span)) => {
                if let Err(fault) = builder.take(event, span) {
                    builder.faults.push(fault);
                    return None;
                }
            }
        }
    }
    Some(builder.root.take().filter(|root| !matches!(root.value, Value::Null)).unwrap_or_else(|| Node::empty(source)))
}

enum Frame {
    List { place: Place, items: Vec<Node>, anchor: usize },
    Map { place: Place, entries: Vec<(Located<String>, Node)>, key: Option<Node>, anchor: usize },
}

struct Builder<'a> {
    source: &'a Arc<SourceText>,
    /// Byte of each character: the parser counts characters.
    bytes: Vec<usize>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
    faults: &'a mut Vec<Fault>,
}

impl Builder<'_> {
    fn byte(&self, index: usize) -> usize {
        self.bytes.get(index).copied().unwrap_or(self.source.text.len())
    }

    fn place(&self, span: Span) -> Place {
        let start = self.byte(span.start.index());
        Place::new(self.source, start..self.byte(span.end.index()).max(start))
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        let place = self.place(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
                    self.faults.push(yaml_syntax::foreign_tag(&place, &tag.to_string()));
                    // Taken for the text that was meant.
                    let text = place.text().trim_end().to_string();
                    let value = Value::Scalar(Scalar { text, style: Style::Plain });
                    return self.add(Node { place, value }, anchor);
                }
                let style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
                    ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
                };
                let place = self.scalar_place(place, &text, style);
                let is_null = style == Style::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value =
                    if is_null { Value::Null } else { Value::Scalar(Scalar { text: text.into_owned(), style }) };
                self.add(Node { place, value }, anchor)
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.unwrap_or(Node { place, value: Value::Null });
                self.add(node, 0)
            }
            Event::SequenceStart(anchor, _) => self.open(Frame::List { place, items: vec![], anchor }),
            Event::MappingStart(anchor, _) => self.open(Frame::Map { place, entries: vec![], key: None, anchor }),
            Event::SequenceEnd | Event::MappingEnd => self.close(place),
            _ => Ok(()),
        }
    }

    fn open(&mut self, frame: Frame) -> Result<(), Fault> {
        if self.stack.len() >= YAML_DEPTH_MAX {
            let (Frame::List { place, .. } | Frame::Map { place, .. }) = frame;
            return Err(Fault::error("yaml_depth", place, format!("nested deeper than {YAML_DEPTH_MAX} levels")));
        }
        self.stack.push(frame);
        Ok(())
    }

    fn close(&mut self, end: Place) -> Result<(), Fault> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        match frame {
            Frame::List { place, mut items, anchor } => {
                traps::split_list(&mut items, self.faults);
                let place = self.whole(place, &end, items.last().map(|item| item.place.span.end));
                self.add(Node { place, value: Value::List(items) }, anchor)
            }
            Frame::Map { place, entries, anchor, .. } => {
                let last = entries.last().map(|(key, value)| value.place.span.end.max(key.place.span.end));
                let place = self.whole(place, &end, last);
                let mut entries = self.finish_map(entries);
                traps::split_map(&mut entries, self.faults);
                self.add(Node { place, value: Value::Map(entries) }, anchor)
            }
        }
    }

    /// From the opening to the closing bracket, or to the last value's end where there are no brackets.
    fn whole(&self, start: Place, end: &Place, last: Option<usize>) -> Place {
        let from = start.span.start;
        let to = if end.span.is_empty() { last.unwrap_or(from) } else { end.span.end };
        Place::new(self.source, from..to.max(from))
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        self.nodes += node.count();
        if self.nodes > YAML_NODES_MAX {
            let message = format!("more than {YAML_NODES_MAX} values once aliases are written out");
            return Err(Fault::error("yaml_size", node.place, message));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map { key: key @ None, .. }) => *key = Some(node),
            Some(Frame::Map { entries, key, .. }) => {
                let Some(key) = key.take() else { return Ok(()) };
                let text = match key.value {
                    Value::Scalar(scalar) => scalar.text,
                    Value::Null => key.place.text().to_string(),
                    Value::List(_) | Value::Map(_) => {
                        let message = "expected a name, found a list or mapping as a key";
                        self.faults.push(Fault::error("yaml_key", key.place, message));
                        return Ok(());
                    }
                };
                let mut node = node;
                if node.place.span.is_empty() {
                    // Nothing is written: the parser's own place is that of whatever comes next.
                    node.place = Place::new(self.source, key.place.span.end..key.place.span.end);
                }
                entries.push((Located { value: text, place: key.place }, node));
            }
        }
        Ok(())
    }

    /// Writes out merge keys, which give way to keys that stand in the mapping itself, and reports keys that stand twice.
    fn finish_map(&mut self, entries: Vec<(Located<String>, Node)>) -> Vec<(Located<String>, Node)> {
        let mut lines: HashMap<String, usize> = HashMap::new();
        let mut result: Vec<(Located<String>, Node)> = Vec::with_capacity(entries.len());
        let mut merged = Vec::new();
        for (key, node) in entries {
            if key.value == "<<" {
                merged.push((key.place, node));
            } else if let Some(line) = lines.get(&key.value) {
                let message = format!("`{}` stands here twice", key.value);
                let hint = format!("it is first given in line {line}");
                self.faults.push(Fault::error("duplicate_key", key.place, message).hint(hint));
            } else {
                lines.insert(key.value.clone(), key.place.line());
                result.push((key, node));
            }
        }
        for (place, node) in merged {
            let parts = match node {
                Node { value: Value::List(items), .. } => items,
                node => vec![node],
            };
            for part in parts {
                let Value::Map(entries) = part.value else {
                    let fault = Fault::error("wrong_type", place.clone(), "`<<` merges mappings, and this is none");
                    self.faults.push(fault);
                    continue;
                };
                for (key, node) in entries {
                    if !lines.contains_key(&key.value) {
                        lines.insert(key.value.clone(), key.place.line());
                        result.push((key, node));
                    }
                }
            }
        }
        result
    }

    /// The written characters alone: without anchor and tag, and a block without the lines that only separate it.
    fn scalar_place(&self, place: Place, text: &str, style: Style) -> Place {
        let Range { mut start, mut end } = place.span;
        let written = &self.source.text;
        if text.is_empty() && style == Style::Plain {
            let blank = written[start..end].trim_matches(|c: char| c.is_whitespace() || matches!(c, ',' | '}' | ']'));
            return if blank.is_empty() { Place::new(self.source, start..start) } else { place };
        }
        while matches!(written.as_bytes().get(start), Some(b'&' | b'!')) && style != Style::Block {
            let after = written[start..end].find(char::is_whitespace).map_or(end, |at| start + at);
            start = after + written[after..end].len() - written[after..end].trim_start().len();
        }
        end = start + written[start..end].trim_end().len();
        Place::new(self.source, start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> (Option<Node>, Vec<Fault>) {
        let mut faults = vec![];
        let node = parse(&SourceText::new("a.yaml", text), &mut faults);
        (node, faults)
    }

    fn codes(text: &str) -> Vec<&'static str> {
        tree(text).1.into_iter().map(|fault| fault.code).collect()
    }

    fn scalars<'n>(node: &'n Node, out: &mut Vec<(&'n str, &'n str)>) {
        match &node.value {
            Value::Null => out.push(("", node.place.text())),
            Value::Scalar(scalar) => out.push((&scalar.text, node.place.text())),
            Value::List(items) => items.iter().for_each(|item| scalars(item, out)),
            Value::Map(entries) => entries.iter().for_each(|(key, value)| {
                out.push((&key.value, key.place.text()));
                scalars(value, out);
            }),
        }
    }

    #[test]
    fn places_are_the_written_characters() {
        let (node, faults) = tree(
            "\u{feff}# ç\r\nação: 10.00\r\n'b': [\"ü\", {c: &x 'it''s', d: *x}]\r\ne: |\r\n  select\r\n   1\r\n\r\nf: !!str on # c\r\ng:\r\n",
        );
        assert!(faults.is_empty(), "{faults:?}");
        let node = node.unwrap();
        let mut found = vec![];
        scalars(&node, &mut found);
        assert_eq!(
            found,
            [
                ("ação", "ação"),
                ("10.00", "10.00"),
                ("b", "'b'"),
                ("ü", "\"ü\""),
                ("c", "c"),
                ("it's", "'it''s'"),
                ("d", "d"),
                ("it's", "'it''s'"),
                ("e", "e"),
                ("select\n 1\n", "select\r\n   1"),
                ("f", "f"),
                ("on", "on"),
                ("g", "g"),
                ("", ""),
            ]
        );
        assert_eq!(node.get("b").unwrap().place.text(), "[\"ü\", {c: &x 'it''s', d: *x}]");
    }

    #[test]
    fn merge_keys_give_way_to_own_ones() {
        let (node, faults) = tree("base: &b {x: 1, y: 2}\nall:\n  <<: *b\n  y: 3\n");
        assert!(faults.is_empty());
        let mut found = vec![];
        let node = node.unwrap();
        scalars(node.get("all").unwrap(), &mut found);
        assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), ["y", "3", "x", "1"]);
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(codes("a: 1\nb: 2\na: 3\n"), ["duplicate_key"]);
        assert_eq!(codes("a: 1\n---\nb: 2\n"), ["yaml_documents"]);
        assert_eq!(codes("a: !x y\n"), ["yaml_quote"]);
        assert_eq!(codes("? [a]\n: b\n"), ["yaml_key"]);
        assert_eq!(codes("<<: 1\n"), ["wrong_type"]);
        assert_eq!(codes(&format!("a: {}", "[".repeat(70))), ["yaml_depth"]);
        let bomb = (1..12).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_string(), |text, i| {
            let alias = vec![format!("*a{}", i - 1); 9].join(",");
            format!("{text}a{i}: &a{i} [{alias}]\n")
        });
        assert_eq!(codes(&bomb), ["yaml_size"]);
        assert!(tree("").0.is_some() && tree("# nothing\n").1.is_empty());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 4000, failure_persistence: None, ..Default::default() })]

        #[test]
        fn never_panics_and_places_lie_within(text in "[ a-c:\\-\\[\\]{},#'\"|>&*!%é\r\n\u{feff}]{0,60}") {
            let (node, faults) = tree(&text);
            for fault in faults {
                if let Some(place) = fault.place {
                    proptest::prop_assert!(place.source.text.get(place.span.clone()).is_some());
                }
            }
            if let Some(node) = node {
                let mut found = vec![];
                scalars(&node, &mut found);
            }
        }
    }
}
