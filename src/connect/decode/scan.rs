//! Walks over the text of one JSON object, member by member, without a copy. What it passes over is JSON; at the first thing that
//! isn't, or that wants a closer look, it gives up without a word. Knows no column.

use serde::Deserialize;
use serde_json::value::RawValue;

/// A place in the text of an object.
pub(super) struct Scan<'a> {
    text: &'a str,
    at: usize,
}

/// A member's value, as it is written.
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) raw: &'a str,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    /// A string without escapes.
    Plain,
    /// A number, true or false.
    Scalar,
    /// A string with escapes, a list or an object.
    Other,
}

impl<'a> Scan<'a> {
    /// Goes into the object.
    pub(super) fn new(text: &'a str) -> Option<Self> {
        let mut scan = Self { text, at: 0 };
        scan.skip_space();
        scan.take(b'{').then_some(scan)
    }

    /// Goes to the next member's name; false where the object, and with it the text, has ended.
    pub(super) fn next_member(&mut self, is_first: bool) -> Option<bool> {
        self.skip_space();
        if self.take(b'}') {
            self.skip_space();
            return (self.at == self.text.len()).then_some(false);
        }
        if !is_first {
            if !self.take(b',') {
                return None;
            }
            self.skip_space();
        }
        (self.peek() == Some(b'"')).then_some(true)
    }

    /// Whether the member here has this name, given in its quotes; if so it is passed over.
    pub(super) fn is_named(&mut self, quoted: &str) -> bool {
        let is_it = self.rest().starts_with(quoted.as_bytes());
        if is_it {
            self.at += quoted.len();
        }
        is_it
    }

    /// The member's name in its quotes; one with escapes is none.
    pub(super) fn name(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.at += 1 + plain_length(&self.rest()[1..]);
        self.take(b'"').then(|| &self.text[start..self.at])
    }

    /// The value behind a name.
    pub(super) fn value(&mut self) -> Option<Token<'a>> {
        self.skip_space();
        if !self.take(b':') {
            return None;
        }
        self.skip_space();
        let start = self.at;
        let kind = match self.peek()? {
            b'"' => {
                self.at += 1 + plain_length(&self.rest()[1..]);
                if self.take(b'"') { Kind::Plain } else { self.other(start)? }
            }
            b'n' => self.word("null").then_some(Kind::Null)?,
            b't' => self.word("true").then_some(Kind::Scalar)?,
            b'f' => self.word("false").then_some(Kind::Scalar)?,
            b'-' | b'0'..=b'9' => {
                self.at += number_length(self.rest())?;
                Kind::Scalar
            }
            _ => self.other(start)?,
        };
        Some(Token { kind, raw: &self.text[start..self.at] })
    }

    /// Any value that begins at `start`.
    fn other(&mut self, start: usize) -> Option<Kind> {
        let mut rest = serde_json::Deserializer::from_str(&self.text[start..]);
        let value = <&RawValue>::deserialize(&mut rest).ok()?;
        self.at = start + value.get().len();
        Some(Kind::Other)
    }

    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_it = self.peek() == Some(byte);
        self.at += usize::from(is_it);
        is_it
    }

    fn word(&mut self, word: &str) -> bool {
        let is_it = self.rest().starts_with(word.as_bytes());
        self.at += if is_it { word.len() } else { 0 };
        is_it
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }
}

/// Bytes before the first that may not stand in a string as it is: a quote, a backslash, a control character.
fn plain_length(text: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    // The lowest byte that is marked is one that is below `n`; of those above it nothing is sure.
    let below = |word: u64, n: u8| word.wrapping_sub(ONES * u64::from(n)) & !word & HIGHS;
    let (eights, _) = text.as_chunks::<8>();
    for (number, eight) in eights.iter().enumerate() {
        let word = u64::from_le_bytes(*eight);
        let quotes = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslashes = below(word ^ (ONES * u64::from(b'\\')), 1);
        let found = quotes | backslashes | below(word, b' ');
        if found != 0 {
            return number * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let tail = eights.len() * 8;
    let is_plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0..b' ');
    tail + text[tail..].iter().take_while(|byte| is_plain(byte)).count()
}

/// Bytes of the number at the start of a text.
fn number_length(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| text[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(text.first() == Some(&b'-'));
    let whole = digits(at);
    if whole == 0 || (whole > 1 && text[at] == b'0') {
        return None;
    }
    at += whole;
    if text.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1 + usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at);
        if exponent == 0 {
            return None;
        }
        at += exponent;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_plain(byte: u8) -> bool {
        byte >= b' ' && byte != b'"' && byte != b'\\'
    }

    proptest! {
        #[test]
        fn strings_end_where_they_do(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(plain_length(&text), text.iter().take_while(|byte| is_plain(**byte)).count());
        }

        #[test]
        fn numbers_are_those_of_json(text in "-?[0-9.eE+-]{0,6}") {
            let is_number = serde_json::from_str::<&RawValue>(&text).is_ok();
            prop_assert_eq!(number_length(text.as_bytes()) == Some(text.len()), is_number, "{}", text);
        }
    }
}
