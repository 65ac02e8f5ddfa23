//! The first rows of a text file as UTF-8, and the encoding that gives it. Knows no format.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use bytes::Bytes;
use encoding_rs::{Encoding, UTF_16BE, UTF_16LE, WINDOWS_1252};

use crate::connect::decode::open_text;
use crate::error::{Error, Result, ResultExt};
use crate::limits;

/// Bytes that tell whether a file is text at all.
const PROBE_BYTES: usize = 4096;

/// Lines of a file's start.
pub(super) struct Sample {
    /// UTF-8, save where a file that is mostly UTF-8 has bytes that aren't.
    pub(super) text: Bytes,
    /// Label of the encoding; none for UTF-8 and where a byte-order mark says it.
    pub(super) encoding: Option<&'static str>,
    /// Whether the file goes on.
    pub(super) is_cut: bool,
}

/// Reads whole lines, up to [`limits::SAMPLE_ROWS`] and a header or [`limits::SAMPLE_BYTES`].
///
/// # Errors
/// External, for a file that can't be read or decompressed; usage, for one that isn't text.
pub(super) fn read(path: &Path) -> Result<Sample> {
    let file = File::open(path).external("the file can't be read")?;
    let input = open_text(&path.to_string_lossy(), None, file)?;
    let mut input = BufReader::with_capacity(limits::READ_BYTES, input);
    let mut raw = Vec::new();
    for _ in 0..=limits::SAMPLE_ROWS {
        let room = limits::SAMPLE_BYTES.saturating_sub(raw.len());
        let read = (&mut input).take(room as u64).read_until(b'\n', &mut raw).external("the file can't be read")?;
        if read == 0 {
            break;
        }
    }
    let is_cut = !input.fill_buf().external("the file can't be read")?.is_empty();
    if is_cut && let Some(end) = raw.iter().rposition(|byte| *byte == b'\n') {
        raw.truncate(end + 1);
    }
    let Some(encoding) = encoding(&raw)? else { return Ok(Sample { text: raw.into(), encoding: None, is_cut }) };
    if encoding != WINDOWS_1252 && raw.len() % 2 == 1 {
        raw.pop();
    }
    let text = encoding.decode_without_bom_handling(&raw).0.into_owned();
    // `utf-16` and the like are told in lower case, as people write them.
    let label = if encoding == UTF_16LE {
        "utf-16le"
    } else if encoding == UTF_16BE {
        "utf-16be"
    } else {
        "windows-1252"
    };
    Ok(Sample { text: text.into_bytes().into(), encoding: Some(label), is_cut })
}

/// What the bytes are, if not UTF-8.
fn encoding(raw: &[u8]) -> Result<Option<&'static Encoding>> {
    let probe = &raw[..raw.len().min(PROBE_BYTES)];
    let zeros = |parity: usize| probe.iter().skip(parity).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    if even + odd > 0 {
        // Latin letters in UTF-16 have a zero byte on one side.
        return match (even * 4 < odd, odd * 4 < even) {
            (true, _) => Ok(Some(UTF_16LE)),
            (_, true) => Ok(Some(UTF_16BE)),
            _ => Err(Error::usage("the file isn't text: it has zero bytes")),
        };
    }
    let (mut letters, mut broken) = (0, 0);
    for chunk in raw.utf8_chunks() {
        letters += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        broken += usize::from(!chunk.invalid().is_empty());
    }
    // A few broken bytes among many good letters are UTF-8 with broken rows; elsewhere hardly anything is UTF-8 by chance.
    Ok((broken > letters).then_some(WINDOWS_1252))
}
