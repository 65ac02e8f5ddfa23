//! Opens a text file's bytes as UTF-8: decompresses by the name, transcodes by the encoding, skips a byte-order mark.

use std::io::{BufReader, Cursor, Read};

use encoding_rs::{CoderResult, Encoding, UTF_8};

use crate::error::{Error, Result, ResultExt};
use crate::limits;

/// A reader of the file's text. UTF-8 is handed on as it is, so that invalid bytes are found in their row.
///
/// # Errors
/// An unknown encoding, or bytes that can't be read at all.
pub(in crate::connect) fn open(
    name: &str,
    encoding: Option<&str>,
    bytes: impl Read + Send + 'static,
) -> Result<Box<dyn Read + Send>> {
    let lower = name.to_lowercase();
    let plain: Box<dyn Read + Send> = if lower.ends_with(".gz") {
        Box::new(flate2::read::MultiGzDecoder::new(bytes))
    } else if lower.ends_with(".zst") {
        Box::new(zstd::stream::read::Decoder::new(bytes).external("can't start decompressing")?)
    } else {
        Box::new(bytes)
    };
    let label = encoding.unwrap_or("utf-8");
    let encoding =
        Encoding::for_label(label.as_bytes()).ok_or_else(|| Error::usage(format!("there is no encoding `{label}`")))?;
    let mut start = [0; 3];
    let mut plain = BufReader::with_capacity(limits::READ_BYTES, plain);
    let filled = fill(&mut plain, &mut start).external("can't read the file's first bytes")?;
    let head = &start[..filled];
    // A byte-order mark is no part of the first name, and says more than the option does.
    let (encoding, skip) = Encoding::for_bom(head).unwrap_or((encoding, 0));
    let rest = Cursor::new(head[skip..].to_vec()).chain(plain);
    if encoding == UTF_8 {
        return Ok(Box::new(rest));
    }
    Ok(Box::new(Transcoder {
        input: rest,
        decoder: encoding.new_decoder(),
        raw: Vec::new(),
        out: Vec::new(),
        at: 0,
        ended: false,
    }))
}

fn fill(input: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

struct Transcoder<R> {
    input: R,
    decoder: encoding_rs::Decoder,
    raw: Vec<u8>,
    out: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<R: Read> Read for Transcoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.out.len() {
            if self.ended {
                return Ok(0);
            }
            self.raw.resize(limits::READ_BYTES, 0);
            let read = self.input.read(&mut self.raw)?;
            self.ended = read == 0;
            let room = self.decoder.max_utf8_buffer_length(read).unwrap_or(limits::READ_BYTES * 4);
            self.out.resize(room, 0);
            let (result, _, written, _) = self.decoder.decode_to_utf8(&self.raw[..read], &mut self.out, self.ended);
            debug_assert_eq!(result, CoderResult::InputEmpty);
            self.out.truncate(written);
            self.at = 0;
        }
        let length = buffer.len().min(self.out.len() - self.at);
        buffer[..length].copy_from_slice(&self.out[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}
