//! JSON read without a change to its values: numbers and what isn't looked into keep their text. Knows no Arrow and no SQL.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Members of an object in their order; of a name that stands twice the last counts, as most readers have it.
pub struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A name; borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Members<'a> {
    /// Reads an object.
    ///
    /// # Errors
    /// What is wrong with the text and where, or that it is something else than an object.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }

    /// The text of the value of `name`.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.get())
    }

    /// Names and texts of values, as they stand.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.get()))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::with_capacity(map.size_hint().unwrap_or(16));
                while let Some((name, value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    entries.push((name.0, value));
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(Reader).map(Members)
    }
}

/// Looks up members by name in one object after the other; quick where these have their members in the same order.
pub struct Lookup {
    names: Vec<String>,
    /// Which name the member at each place had last.
    order: Vec<Option<usize>>,
}

impl Lookup {
    /// A lookup of these names.
    pub fn new(names: Vec<String>) -> Self {
        let order = vec![None; names.len() * 2];
        Self { names, order }
    }

    /// The text of the value of each name; of a name that stands twice the last counts.
    ///
    /// # Errors
    /// What is wrong with the text and where, or that it is something else than an object.
    pub fn values<'a>(&mut self, text: &'a str) -> Result<Vec<Option<&'a str>>, String> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let values = DeserializeSeed::deserialize(self, &mut deserializer);
        values.and_then(|values| deserializer.end().map(|()| values)).map_err(|e| e.to_string())
    }

    fn find(&mut self, place: usize, name: &str) -> Option<usize> {
        let guess = self.order.get(place).copied().flatten();
        if let Some(at) = guess.filter(|at| self.names[*at] == name) {
            return Some(at);
        }
        let found = self.names.iter().position(|known| known == name);
        if let Some(order) = self.order.get_mut(place) {
            *order = found;
        }
        found
    }
}

impl<'de> DeserializeSeed<'de> for &mut Lookup {
    type Value = Vec<Option<&'de str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Lookup {
    type Value = Vec<Option<&'de str>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut values, mut place) = (vec![None; self.names.len()], 0);
        while let Some((name, value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
            if let Some(at) = self.find(place, &name.0) {
                values[at] = Some(value.get());
            }
            place += 1;
        }
        Ok(values)
    }
}

/// The texts of a list's values.
///
/// # Errors
/// What is wrong with the text and where, or that it is something else than a list.
pub fn items(text: &str) -> Result<Vec<&str>, String> {
    let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    Ok(items.into_iter().map(RawValue::get).collect())
}

/// What a value says as text: a string its characters, everything else as it is written; none for null.
///
/// # Errors
/// A string with half a surrogate pair, which is no text.
pub fn text(value: &str) -> Result<Option<Cow<'_, str>>, String> {
    match value.as_bytes().first() {
        Some(b'"') if !value.contains('\\') => Ok(Some(Cow::Borrowed(value.trim_matches('"')))),
        Some(b'"') => serde_json::from_str::<Name<'_>>(value).map(|text| Some(text.0)).map_err(|e| e.to_string()),
        Some(b'n') => Ok(None),
        _ => Ok(Some(Cow::Borrowed(value))),
    }
}

/// Whether all of the text is one JSON value.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}
