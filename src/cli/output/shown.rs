//! Results of one query that follow each other: each is shown if it differs from the last one, on a terminal in its place.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;

use super::{Format, Target, check, drive, unwritable, writer};
use crate::engine::RowStream;
use crate::error::{Error, Result};
use crate::limits::WATCHED_BYTES;

/// Moves to the upper left corner, clears what is there, and has long lines cut at the edge rather than wrapped.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[?7l";

/// Has long lines wrapped again.
const WRAP: &str = "\x1b[?7h";

/// What stands on stdout.
pub struct Shown {
    format: Format,
    last: Option<Vec<u8>>,
}

impl Shown {
    /// Nothing yet.
    ///
    /// # Errors
    /// Usage, for a format that isn't text: results couldn't be told apart.
    pub fn new(format: Format) -> Result<Self> {
        if matches!(format, Format::Parquet | Format::Arrow) {
            return Err(Error::usage("--watch writes text: table, csv or json"));
        }
        Ok(Self { format, last: None })
    }

    /// Shows a result, unless it is the last one again. False when nobody reads any longer.
    ///
    /// # Errors
    /// As [`super::write`]; external for a result of more than [`WATCHED_BYTES`].
    pub async fn show(&mut self, schema: SchemaRef, rows: RowStream) -> Result<bool> {
        check(&schema, self.format, &Target::Stdout)?;
        let kept = Kept::default();
        let writer = writer(Box::new(kept.clone()), &schema, self.format, false);
        drive(writer, rows, &AtomicBool::new(false)).await?;
        let text = kept.take();
        if self.last.as_ref() == Some(&text) {
            return Ok(true);
        }
        let shown = match console::Term::stdout().size_checked().filter(|_| io::stdout().is_terminal()) {
            Some((height, _)) => screen(&text, usize::from(height)),
            None if self.last.is_some() => [b"\n", text.as_slice()].concat(),
            None => text.clone(),
        };
        self.last = Some(text);
        let mut out = io::stdout().lock();
        match out.write_all(&shown).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            written => unwritable(written).map(|()| true),
        }
    }
}

/// A cleared screen with the time and as much of the result as there is place for.
fn screen(text: &[u8], height: usize) -> Vec<u8> {
    let lines = text.iter().filter(|byte| **byte == b'\n').count();
    // The time takes a line, and the cursor needs one.
    let place = height.saturating_sub(2);
    let now = jiff::Zoned::now().strftime("%H:%M:%S%.3f");
    let mut screen = format!("{CLEAR}{now}").into_bytes();
    if lines > place {
        screen.extend_from_slice(format!("  the first {place} of {lines} lines").as_bytes());
    }
    screen.push(b'\n');
    text.split_inclusive(|byte| *byte == b'\n').take(place).for_each(|line| screen.extend_from_slice(line));
    screen.extend_from_slice(WRAP.as_bytes());
    screen
}

/// A result in memory.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() + bytes.len() > WATCHED_BYTES {
            let told = format!("it has more than {} MiB, too much to watch: add a LIMIT", WATCHED_BYTES >> 20);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, told));
        }
        kept.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_holds_what_there_is_place_for() {
        let text = |height| String::from_utf8(screen(b"a\nb\nc\n", height)).unwrap();
        assert!(text(5).starts_with(CLEAR) && text(5).contains("\na\nb\nc\n"));
        assert!(text(4).ends_with(&format!("  the first 2 of 3 lines\na\nb\n{WRAP}")), "{}", text(4));
        assert!(text(1).ends_with(&format!("  the first 0 of 3 lines\n{WRAP}")));
    }

    #[test]
    fn what_is_too_much_to_hold_is_a_failure() {
        let mut kept = Kept::default();
        assert_eq!(kept.write(&vec![0; WATCHED_BYTES]).unwrap(), WATCHED_BYTES);
        assert!(kept.write(&[0]).is_err());
        kept.take();
        assert!(kept.write(&[0]).is_ok());
    }
}
