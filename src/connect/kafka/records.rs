//! Messages in memory, the bytes of many in one buffer. Knows no client and no contract.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rdkafka::message::{Headers, Message};

/// One message.
#[derive(Debug, Clone)]
pub(super) struct Record<'a> {
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Milliseconds since 1970 UTC.
    pub(super) timestamp_ms: Option<i64>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    /// As a JSON object.
    pub(super) headers: Option<Cow<'a, str>>,
}

impl<'a> Record<'a> {
    pub(super) fn of(message: &'a impl Message) -> Self {
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key(),
            value: message.payload(),
            headers: message.headers().and_then(headers_of).map(Cow::Owned),
        }
    }

    /// Bytes of key and value.
    pub(super) fn size(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }

    /// Whether it has no value, or a null alone.
    pub(super) fn is_without_value(&self) -> bool {
        self.value.is_none_or(|value| value.trim_ascii() == b"null")
    }

    /// A hash of what its producer gave.
    pub(super) fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for part in [self.key, self.value] {
            let part = part.unwrap_or_default();
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        hasher.update(&self.timestamp_ms.unwrap_or(-1).to_le_bytes());
        hasher.finalize().to_hex()[..16].to_string()
    }
}

/// Messages in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Records {
    heads: Vec<Head>,
    /// Keys and values, one after the other.
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Head {
    partition: i32,
    offset: i64,
    timestamp_ms: Option<i64>,
    /// Where its key begins, with its value behind it.
    start: usize,
    key_bytes: Option<usize>,
    value_bytes: Option<usize>,
    headers: Option<Box<str>>,
}

impl Records {
    /// None yet, with room for as many as `others` has, since the next batch is likely to be as large.
    pub(super) fn like(others: &Self) -> Self {
        Self { heads: Vec::with_capacity(others.len()), bytes: Vec::with_capacity(others.size()) }
    }

    pub(super) fn push(&mut self, record: &Record<'_>) {
        self.heads.push(Head {
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            start: self.bytes.len(),
            key_bytes: record.key.map(<[u8]>::len),
            value_bytes: record.value.map(<[u8]>::len),
            headers: record.headers.as_deref().map(Box::from),
        });
        for part in [record.key, record.value].into_iter().flatten() {
            self.bytes.extend_from_slice(part);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.heads.len()
    }

    /// Bytes of keys and values.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn get(&self, index: usize) -> Record<'_> {
        let head = &self.heads[index];
        let value_start = head.start + head.key_bytes.unwrap_or(0);
        Record {
            partition: head.partition,
            offset: head.offset,
            timestamp_ms: head.timestamp_ms,
            key: head.key_bytes.map(|_| &self.bytes[head.start..value_start]),
            value: head.value_bytes.map(|bytes| &self.bytes[value_start..value_start + bytes]),
            headers: head.headers.as_deref().map(Cow::Borrowed),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Partition and offset of each.
    pub(super) fn places(&self) -> impl Iterator<Item = (i32, i64)> {
        self.heads.iter().map(|head| (head.partition, head.offset))
    }
}

/// Bytes as text; those that are none in hexadecimal.
pub(super) fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().fold(String::from("\\x"), |text, byte| text + &format!("{byte:02x}"))),
    }
}

/// Headers as a JSON object; of one that stands twice the last counts.
fn headers_of(headers: &impl Headers) -> Option<String> {
    let values: BTreeMap<&str, Option<Cow<'_, str>>> =
        headers.iter().map(|header| (header.key, header.value.map(text_of))).collect();
    serde_json::to_string(&values).ok()
}
