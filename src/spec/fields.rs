//! Reads typed values out of YAML nodes, noting a fault for each that doesn't fit and going on.

use std::time::Duration;

use super::fault::{Fault, Place};
use super::keys::{Key, KeyTable};
use super::tree::{Node, Scalar, Style, Value};
use super::types::Located;
use super::variables::{self, Variables};
use super::{nearest, parse_duration};

/// What reading needs and gathers.
pub(super) struct Reader<'a> {
    pub(super) variables: &'a Variables<'a>,
    pub(super) faults: Vec<Fault>,
}

/// A mapping whose keys were checked against its table.
pub(super) struct Fields<'n> {
    pub(super) place: Place,
    /// Whether no key was told to be unknown or lacking: what is absent was not written at all.
    pub(super) is_whole: bool,
    entries: Vec<(&'static Key, &'n Located<String>, &'n Node)>,
}

impl Reader<'_> {
    pub(super) fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// A mapping by `table`; unknown and lacking keys are faults.
    pub(super) fn fields<'n>(&mut self, node: &'n Node, table: &'static KeyTable) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            self.wrong(node, &format!("the keys of {}", table.of));
            return None;
        };
        let mut known = Vec::new();
        for (name, value) in entries {
            match table.keys.iter().find(|key| key.name == name.value) {
                Some(key) => known.push((key, name, value)),
                None if table.lacking.contains(&name.value.as_str()) => {
                    self.fault(not_in_this_build(&name.place, &name.value))
                }
                None => {
                    let names = table.keys.iter().map(|key| key.name);
                    let hint = match nearest(&name.value, names.clone()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("its keys are {}", names.collect::<Vec<_>>().join(", ")),
                    };
                    let message = format!("{} has no key `{}`", table.of, name.value);
                    self.fault(Fault::error("unknown_key", name.place.clone(), message).hint(hint));
                }
            }
        }
        Some(Fields { place: node.place.clone(), is_whole: known.len() == entries.len(), entries: known })
    }

    /// Entries of a mapping with free names.
    pub(super) fn named<'n>(&mut self, node: &'n Node, of: &str) -> &'n [(Located<String>, Node)] {
        match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => {
                self.wrong(node, of);
                &[]
            }
        }
    }

    /// Items of a list; a single value counts as a list of one.
    pub(super) fn items<'n>(&mut self, node: &'n Node) -> &'n [Node] {
        match &node.value {
            Value::List(items) => items,
            Value::Null => &[],
            _ => std::slice::from_ref(node),
        }
    }

    /// Notes that something else was expected.
    pub(super) fn wrong(&mut self, node: &Node, expected: &str) {
        let place = Place { source: node.place.source.clone(), span: first_line(&node.place) };
        self.fault(Fault::error("wrong_type", place, format!("expected {expected}, found {}", node.kind())));
    }

    /// A text with variables read.
    pub(super) fn text(&mut self, node: &Node) -> Option<Located<String>> {
        let scalar = self.scalar(node, "a text")?;
        let text = match variables::expand(&scalar.text, &node.place, self.variables) {
            Ok(text) => text,
            Err(faults) => {
                self.faults.extend(faults);
                return None;
            }
        };
        Some(Located { value: text, place: node.place.clone() })
    }

    /// A scalar as written.
    pub(super) fn scalar<'n>(&mut self, node: &'n Node, expected: &str) -> Option<&'n Scalar> {
        match &node.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => {
                self.wrong(node, expected);
                None
            }
        }
    }

    pub(super) fn texts(&mut self, node: &Node) -> Vec<Located<String>> {
        let items = self.items(node);
        items.iter().filter_map(|item| self.text(item)).collect()
    }

    /// Names without repeats.
    pub(super) fn names(&mut self, node: &Node) -> Vec<Located<String>> {
        let mut names: Vec<Located<String>> = Vec::new();
        for name in self.texts(node) {
            if names.iter().any(|known| known.value == name.value) {
                self.fault(Fault::error(
                    "duplicate",
                    name.place.clone(),
                    format!("`{}` stands here twice", name.value),
                ));
            } else {
                names.push(name);
            }
        }
        names
    }

    pub(super) fn boolean(&mut self, node: &Node) -> Option<bool> {
        let text = self.text(node)?;
        match text.value.to_lowercase().as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                let found = &text.value;
                self.fault(Fault::error(
                    "wrong_type",
                    text.place.clone(),
                    format!("expected true or false, found `{found}`"),
                ));
                None
            }
        }
    }

    pub(super) fn duration(&mut self, node: &Node) -> Option<Duration> {
        let text = self.text(node)?;
        let duration = parse_duration(&text.value);
        if duration.is_none() {
            let message = format!("expected a duration, found `{}`", text.value);
            self.fault(Fault::error("wrong_type", text.place, message).hint("write 500ms, 30s, 5m, 1h or 1d"));
        }
        duration
    }

    /// One of the words; words of features that this build lacks are told as such.
    pub(super) fn one_of(&mut self, node: &Node, words: &[&'static str], lacking: &[&str]) -> Option<&'static str> {
        let text = self.text(node)?;
        if let Some(word) = words.iter().find(|word| **word == text.value) {
            return Some(word);
        }
        if lacking.contains(&text.value.as_str()) {
            self.fault(not_in_this_build(&text.place, &text.value));
            return None;
        }
        let mut fault = Fault::error(
            "wrong_value",
            text.place,
            format!("expected one of {}, found `{}`", words.join(", "), text.value),
        );
        if let Some(near) = nearest(&text.value, words.iter().copied()) {
            fault = fault.hint(format!("did you mean `{near}`?"));
        }
        self.fault(fault);
        None
    }

    /// One byte of ASCII; `\t` and `tab` are a tab.
    pub(super) fn character(&mut self, node: &Node) -> Option<u8> {
        let text = self.text(node)?;
        match text.value.as_bytes() {
            _ if matches!(text.value.as_str(), "\\t" | "tab") => Some(b'\t'),
            [byte] if byte.is_ascii() => Some(*byte),
            _ => {
                let message = format!("expected one character, found `{}`", text.value);
                self.fault(Fault::error("wrong_type", text.place, message));
                None
            }
        }
    }
}

/// The place up to the end of its first line: enough to see what is meant.
fn first_line(place: &Place) -> std::ops::Range<usize> {
    let length = place.text().lines().next().map_or(0, str::len);
    place.span.start..place.span.start + length
}

fn not_in_this_build(place: &Place, what: &str) -> Fault {
    Fault::error("not_in_this_build", place.clone(), format!("`{what}` isn't in this build of Tidemill"))
        .hint("take it away, or use a build that has it")
}

impl<'n> Fields<'n> {
    /// The value of a key; null counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'n Node> {
        self.entries
            .iter()
            .find(|(key, _, _)| key.name == name)
            .map(|(_, _, node)| *node)
            .filter(|node| !matches!(node.value, Value::Null))
    }

    /// Where a key stands.
    pub(super) fn key_place(&self, name: &str) -> Option<&Place> {
        self.entries.iter().find(|(key, _, _)| key.name == name).map(|(_, name, _)| &name.place)
    }

    /// The value of a key that must be there.
    pub(super) fn require(&self, reader: &mut Reader<'_>, name: &str, of: &Place) -> Option<&'n Node> {
        let node = self.get(name);
        if node.is_none() {
            reader.fault(Fault::error("missing_key", of.clone(), format!("`{name}` is missing")));
        }
        node
    }
}

/// Whether a node is a single unquoted word or text.
pub(super) fn is_plain(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar(scalar) if scalar.style == Style::Plain)
}
