//! Reads typed values out of YAML nodes, noting a fault for each that doesn't fit and going on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::fault::{Fault, Place};
use super::keys::{Key, KeyTable};
use super::tree::{Node, Scalar, Value};
use super::types::Located;
use super::variables::{self, Variables, shown};
use super::{did_you_mean, nearest, parse_duration};

/// What reading needs and gathers.
pub(super) struct Reader<'a> {
    pub(super) variables: &'a Variables<'a>,
    pub(super) faults: Vec<Fault>,
    /// Names of sources, models and parameters whose declaration has a fault that changes what they are: what reads them
    /// can't be judged, and is left out in silence.
    pub(super) unsound: BTreeSet<String>,
}

/// A mapping whose keys were checked against its table.
pub(super) struct Fields<'n> {
    pub(super) place: Place,
    /// Keys that were meant, but misspelt or without a value: told already, so that they aren't missing as well.
    meant: Vec<&'static str>,
    required: &'static [&'static str],
    /// Whether no key was told to be unknown or lacking: what is absent was not written at all.
    pub(super) is_whole: bool,
    entries: Vec<(&'static Key, &'n Located<String>, &'n Node)>,
}

impl Reader<'_> {
    pub(super) fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// A mapping by `table`; unknown and lacking keys are faults, and so are keys without the value that they need.
    pub(super) fn fields<'n>(&mut self, node: &'n Node, table: &'static KeyTable) -> Option<Fields<'n>> {
        self.fields_without(node, table, false)
    }

    /// The same, with lacking keys passed over where `tells_lacking` says that the cause is told elsewhere.
    pub(super) fn fields_without<'n>(
        &mut self,
        node: &'n Node,
        table: &'static KeyTable,
        is_lacking_told: bool,
    ) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            self.wrong(node, &format!("the keys of {}", table.of));
            return None;
        };
        let mut fields = Fields {
            place: node.place.clone(),
            meant: Vec::new(),
            required: table.required,
            is_whole: true,
            entries: Vec::new(),
        };
        for (name, value) in entries {
            let key = table.keys.iter().find(|key| key.name == name.value);
            match key {
                Some(key) if matches!(value.value, Value::Null) && !key.shape.may_be_empty() => {
                    fields.meant.push(key.name);
                    let fault =
                        Fault::error("missing_value", name.place.clone(), format!("`{}` has no value", key.name));
                    self.fault(fault.hint("give it one, or take the key away"));
                }
                Some(key) => fields.entries.push((key, name, value)),
                None => {
                    fields.is_whole = false;
                    fields.meant.extend(self.no_such_key(name, table, is_lacking_told));
                }
            }
        }
        Some(fields)
    }

    /// Tells that a key is lacking or unknown; gives the key that was meant.
    fn no_such_key(
        &mut self,
        name: &Located<String>,
        table: &'static KeyTable,
        is_lacking_told: bool,
    ) -> Option<&'static str> {
        if table.lacking.contains(&name.value.as_str()) {
            if !is_lacking_told {
                self.fault(not_in_this_build(&name.place, &name.value));
            }
            return None;
        }
        let names = table.keys.iter().map(|key| key.name);
        let near = nearest(&name.value, names.clone().chain(table.lacking.iter().copied()));
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("its keys are {}", names.collect::<Vec<_>>().join(", ")),
        };
        let message = format!("{} has no key `{}`", table.of, name.value);
        self.fault(Fault::error("unknown_key", name.place.clone(), message).hint(hint));
        near
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
        let place = Place::new(&node.place.source, node.place.first_line());
        self.fault(Fault::error("wrong_type", place, format!("expected {expected}, found {}", node.kind())));
    }

    /// A text that isn't empty, with variables read.
    pub(super) fn word(&mut self, node: &Node) -> Option<Located<String>> {
        let text = self.text(node)?;
        if text.value.trim().is_empty() {
            self.fault(Fault::error("wrong_value", text.place, "expected a text, found an empty one"));
            return None;
        }
        Some(text)
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

    /// Any names, each with a text; nothing where there is no node.
    pub(super) fn text_map(&mut self, node: Option<&Node>, of: &str) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        for (key, value) in node.map(|node| self.named(node, of)).unwrap_or_default() {
            if let Some(text) = self.text(value) {
                texts.insert(key.value.clone(), text.value);
            }
        }
        texts
    }

    /// Names without repeats.
    pub(super) fn names(&mut self, node: &Node) -> Vec<Located<String>> {
        let mut names: Vec<Located<String>> = Vec::new();
        for name in self.texts(node) {
            if names.iter().any(|known| known.value == name.value) {
                self.fault(Fault::error(
                    "duplicate",
                    name.place.clone(),
                    format!("`{}` stands here twice", shown(&name.value, &name.place)),
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
                let message = format!("expected true or false, found `{}`", shown(&text.value, &text.place));
                let fault = Fault::error("wrong_type", text.place, message);
                self.fault(match text.value.to_lowercase().as_str() {
                    "yes" | "on" | "y" | "1" => fault.hint("write `true`"),
                    "no" | "off" | "n" | "0" => fault.hint("write `false`"),
                    _ => fault,
                });
                None
            }
        }
    }

    pub(super) fn duration(&mut self, node: &Node) -> Option<Duration> {
        let text = self.text(node)?;
        let duration = parse_duration(&text.value);
        if duration.is_none() {
            let message = format!("expected a duration, found `{}`", shown(&text.value, &text.place));
            self.fault(Fault::error("wrong_type", text.place, message).hint("write 500ms, 30s, 5m, 1h or 1d"));
        }
        duration
    }

    /// A duration above zero.
    pub(super) fn length(&mut self, node: &Node) -> Option<Duration> {
        let duration = self.duration(node)?;
        if duration.is_zero() {
            self.fault(Fault::error("wrong_value", node.place.clone(), "expected a duration above zero"));
            return None;
        }
        Some(duration)
    }

    /// A number of things, at least one.
    pub(super) fn count(&mut self, node: &Node) -> Option<usize> {
        let text = self.text(node)?;
        let count = text.value.trim().parse::<usize>().ok().filter(|count| *count > 0);
        if count.is_none() {
            let message = format!("expected a whole number above zero, found `{}`", shown(&text.value, &text.place));
            self.fault(Fault::error("wrong_value", text.place, message));
        }
        count
    }

    /// A number of bytes with its unit, such as `1GB` or `512 MiB`; at least 16 MiB, below which no plan runs.
    pub(super) fn bytes(&mut self, node: &Node) -> Option<usize> {
        const LEAST: usize = 16 << 20;
        let text = self.text(node)?;
        let digits = text.value.trim().find(|c: char| !c.is_ascii_digit()).unwrap_or(text.value.trim().len());
        let (number, unit) = text.value.trim().split_at(digits);
        let factor: Option<usize> = match unit.trim().to_ascii_lowercase().as_str() {
            "kb" => Some(1_000),
            "mb" => Some(1_000_000),
            "gb" => Some(1_000_000_000),
            "kib" => Some(1 << 10),
            "mib" => Some(1 << 20),
            "gib" => Some(1 << 30),
            _ => None,
        };
        let bytes = factor.and_then(|factor| number.parse::<usize>().ok()?.checked_mul(factor));
        match bytes {
            Some(bytes) if bytes >= LEAST => Some(bytes),
            Some(_) => {
                self.fault(Fault::error("wrong_value", text.place, "expected at least 16MiB: no plan runs in less"));
                None
            }
            None => {
                let found = shown(&text.value, &text.place);
                let message = format!("expected a size such as 512MB, 1GB or 2GiB, found `{found}`");
                self.fault(Fault::error("wrong_type", text.place, message));
                None
            }
        }
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
        let found = shown(&text.value, &text.place);
        let message = format!("expected one of {}, found `{found}`", words.join(", "));
        let near = nearest(&text.value, words.iter().chain(lacking).copied());
        self.fault(did_you_mean(Fault::error("wrong_value", text.place, message), near));
        None
    }

    /// One byte of ASCII; `\t` and `tab` are a tab.
    pub(super) fn character(&mut self, node: &Node) -> Option<u8> {
        let text = self.text(node)?;
        match text.value.as_bytes() {
            _ if matches!(text.value.as_str(), "\\t" | "tab") => Some(b'\t'),
            [byte] if byte.is_ascii() => Some(*byte),
            _ => {
                let message = format!("expected one character, found `{}`", shown(&text.value, &text.place));
                self.fault(Fault::error("wrong_type", text.place, message));
                None
            }
        }
    }
}

fn not_in_this_build(place: &Place, what: &str) -> Fault {
    Fault::error("not_in_this_build", place.clone(), format!("`{what}` isn't in this build of Tidemill"))
        .hint("take it away, or use a build that has it")
}

impl<'n> Fields<'n> {
    /// The value of a key; an empty list or mapping that is written as nothing counts as absent.
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

    /// Whether a key was meant, but is misspelt or has no value; that is told already.
    pub(super) fn is_meant(&self, name: &str) -> bool {
        self.meant.contains(&name)
    }

    /// The value of a key that must be there.
    pub(super) fn require(&self, reader: &mut Reader<'_>, name: &str, of: &Place) -> Option<&'n Node> {
        debug_assert!(self.required.contains(&name), "`{name}` isn't declared as required");
        self.need(reader, name, of)
    }

    /// A key that isn't required of every mapping of the table, but of this one.
    pub(super) fn need(&self, reader: &mut Reader<'_>, name: &str, of: &Place) -> Option<&'n Node> {
        let node = self.get(name);
        if node.is_none() && !self.is_meant(name) {
            reader.fault(Fault::error("missing_key", of.clone(), format!("`{name}` is missing")));
        }
        node
    }
}
