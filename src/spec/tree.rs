//! YAML as a tree whose every node knows its characters. Values stay text: `10.00` is no float here.

use std::ops::Range;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::fault::{Fault, Place, SourceText};
use super::traps;
use super::types::Located;

/// A node of a YAML file.
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
/// tree that was meant.
pub(super) fn parse(source: &Arc<SourceText>, faults: &mut Vec<Fault>) -> Option<Node> {
    let offsets = Offsets::new(&source.text);
    let text = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
    let mut builder = Builder { source, offsets, skipped: source.text.len() - text.len(), anchors: Vec::new(), faults };
    let mut parser = Parser::new_from_str(text);
    let mut root = None;
    loop {
        match parser.next_event() {
            None | Some(Ok((Event::StreamEnd, _))) => break,
            Some(Err(error)) => {
                let fault = builder.syntax_fault(&error);
                builder.faults.push(fault);
                return None;
            }
            Some(Ok((Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing, _))) => {}
            Some(Ok((event, span))) => match builder.node(&mut parser, event, span) {
                Err(fault) => {
                    builder.faults.push(*fault);
                    return None;
                }
                Ok(node) if root.is_some() => {
                    builder.faults.push(Fault::error("yaml_syntax", node.place, "expected one document, found a second one"));
                }
                Ok(node) => root = Some(node),
            },
        }
    }
    Some(root.filter(|node| !matches!(node.value, Value::Null)).unwrap_or_else(|| Node::empty(source)))
}

/// Byte offsets of characters: the parser counts characters, places count bytes.
struct Offsets(Vec<usize>);

impl Offsets {
    fn new(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self(text.char_indices().map(|(byte, _)| byte).chain([text.len()]).collect())
    }

    fn byte(&self, character: usize) -> usize {
        self.0.get(character).or(self.0.last()).copied().unwrap_or(0)
    }
}

struct Builder<'a> {
    source: &'a Arc<SourceText>,
    offsets: Offsets,
    /// Bytes of the byte-order mark, which the parser doesn't see.
    skipped: usize,
    anchors: Vec<(usize, Node)>,
    faults: &'a mut Vec<Fault>,
}

type Events<'a> = Parser<'a, saphyr_parser::StrInput<'a>>;

impl Builder<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        Place { source: Arc::clone(self.source), span: span.start + self.skipped..span.end + self.skipped }
    }

    fn span(&self, span: Span) -> Range<usize> {
        let start = self.offsets.byte(span.start.index());
        start..self.offsets.byte(span.end.index()).max(start)
    }

    fn syntax_fault(&self, error: &ScanError) -> Fault {
        let at = self.offsets.byte(error.marker().index());
        let place = self.place(at..at);
        traps::quoted_start(&place).unwrap_or_else(|| {
            Fault::error("yaml_syntax", place, format!("this isn't YAML: {}", error.info()))
        })
    }

    fn next<'p>(&self, events: &mut Events<'p>) -> Result<(Event<'p>, Span), Box<Fault>> {
        match events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Box::new(self.syntax_fault(&error))),
            None => Err(Box::new(Fault::error("yaml_syntax", None, "the file ends too early"))),
        }
    }

    fn node<'p>(&mut self, events: &mut Events<'p>, event: Event<'p>, span: Span) -> Result<Node, Box<Fault>> {
        let start = self.span(span);
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let node = self.scalar(text.into_owned(), style, start);
                self.remember(anchor, &node);
                Ok(node)
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                let end = loop {
                    match self.next(events)? {
                        (Event::SequenceEnd, end) => break self.span(end).end,
                        (event, span) => items.push(self.node(events, event, span)?),
                    }
                };
                traps::split_list(&mut items, self.faults);
                let node = Node { place: self.place(start.start..end.max(start.end)), value: Value::List(items) };
                self.remember(anchor, &node);
                Ok(node)
            }
            Event::MappingStart(anchor, _) => {
                let (entries, end) = self.entries(events)?;
                let node = Node { place: self.place(start.start..end.max(start.end)), value: Value::Map(entries) };
                self.remember(anchor, &node);
                Ok(node)
            }
            Event::Alias(anchor) => {
                let known = self.anchors.iter().rev().find(|(id, _)| *id == anchor).map(|(_, node)| node.clone());
                known.ok_or_else(|| {
                    let place = self.place(start.clone());
                    let fault = traps::quoted_start(&place);
                    Box::new(fault.unwrap_or_else(|| Fault::error("yaml_syntax", place, "this anchor isn't defined above")))
                })
            }
            _ => Err(Box::new(Fault::error("yaml_syntax", self.place(start), "expected a value"))),
        }
    }

    fn entries(&mut self, events: &mut Events<'_>) -> Result<(Vec<(Located<String>, Node)>, usize), Box<Fault>> {
        let mut entries: Vec<(Located<String>, Node)> = Vec::new();
        let mut merged: Vec<(Located<String>, Node)> = Vec::new();
        let end = loop {
            let (event, span) = self.next(events)?;
            if matches!(event, Event::MappingEnd) {
                break self.span(span).end;
            }
            let key = self.node(events, event, span)?;
            let (event, span) = self.next(events)?;
            let value = self.node(events, event, span)?;
            let name = match key.value {
                Value::Scalar(scalar) => scalar.text,
                Value::Null => String::new(),
                Value::List(_) | Value::Map(_) => {
                    self.faults.push(Fault::error("yaml_key", key.place, "expected a name, found a list or mapping as a key"));
                    continue;
                }
            };
            if name == "<<" {
                if let Value::Map(entries) = value.value {
                    merged.extend(entries);
                }
                continue;
            }
            if let Some((first, _)) = entries.iter().find(|(k, _)| k.value == name) {
                let line = first.place.line();
                self.faults.push(
                    Fault::error("duplicate_key", key.place, format!("`{name}` stands here twice"))
                        .hint(format!("it is first given in line {line}")),
                );
                continue;
            }
            entries.push((Located { value: name, place: key.place }, value));
        };
        // Merged keys never override those that are written out.
        for (key, value) in merged {
            if !entries.iter().any(|(k, _)| k.value == key.value) {
                entries.push((key, value));
            }
        }
        traps::split_map(&mut entries, self.faults);
        Ok((entries, end))
    }

    fn scalar(&self, text: String, style: ScalarStyle, span: Range<usize>) -> Node {
        let style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
            ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
        };
        let place = self.place(span);
        if style == Style::Plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
            return Node { value: Value::Null, place };
        }
        Node { value: Value::Scalar(Scalar { text, style }), place }
    }

    fn remember(&mut self, anchor: usize, node: &Node) {
        if anchor > 0 {
            self.anchors.push((anchor, node.clone()));
        }
    }
}
