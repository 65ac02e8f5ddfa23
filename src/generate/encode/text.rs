//! Rows to lines of CSV or JSON, and lines broken on purpose. Knows no file and no topic.

use crate::generate::draw::{Hits, Stream};
use crate::generate::rhythm::DAY;
use crate::generate::tables::{Kind, Table};

use super::{Body, Encoded, Fields, Row};

/// Encodes rows line by line.
pub(super) fn encode<L: Lines, R: Row>(
    mut lines: L,
    table: &Table,
    rows: impl Iterator<Item = R>,
    mut broken: Hits,
) -> Encoded {
    let (mut count, mut malformed) = (0, 0);
    for row in rows {
        malformed += u64::from(write(&mut lines, table, &row, &mut broken));
        count += 1;
    }
    Encoded { body: Body::Text(lines.into_bytes()), rows: count, malformed }
}

/// Writes a row's line, and a malformed one behind it, if the row is hit; says whether it was.
fn write<L: Lines>(lines: &mut L, table: &Table, row: &impl Row, broken: &mut Hits) -> bool {
    lines.begin();
    row.fields(lines);
    lines.end();
    let Some(stream) = broken.next() else { return false };
    write_broken(lines, table, row, stream);
    true
}

/// Lines of one text format.
pub(super) trait Lines: Fields {
    /// Starts a line.
    fn begin(&mut self);
    /// Ends it.
    fn end(&mut self);
    /// Writes characters as the next value, whatever its column's type.
    fn garbage(&mut self, characters: &str);
    /// Cuts the last line off, so that fields are missing.
    fn tear(&mut self);
    /// Adds to the last line what doesn't belong there.
    fn lengthen(&mut self);
    /// All lines.
    fn into_bytes(self) -> Vec<u8>;
}

/// What no number and no time looks like.
const GARBAGE: [&str; 6] = ["12.3.4", "N/A", "1O.99", "2018-02-30T25:61", "--", "??"];

/// One more copy of the row, in a way that no reader may take for a row.
fn write_broken<L: Lines>(lines: &mut L, table: &Table, row: &impl Row, stream: &mut Stream) {
    let typed = table.columns.iter().filter(|c| c.kind != Kind::Text).count() as u64;
    lines.begin();
    match stream.below(4) {
        0 => {
            row.fields(lines);
            lines.end();
            lines.tear();
        }
        1 => {
            row.fields(lines);
            lines.end();
            lines.lengthen();
        }
        _ => {
            let characters = *stream.one_of(&GARBAGE);
            row.fields(&mut Spoilt { lines, left: stream.below(typed), characters });
            lines.end();
        }
    }
}

/// Hands a row on, save that one of its numbers or times is spoilt.
struct Spoilt<'l, L> {
    lines: &'l mut L,
    /// Numbers and times before the spoilt one.
    left: u64,
    characters: &'static str,
}

impl<L: Lines> Spoilt<'_, L> {
    fn is_spoilt(&mut self) -> bool {
        let hit = self.left == 0;
        self.left = self.left.wrapping_sub(1);
        if hit {
            self.lines.garbage(self.characters);
        }
        hit
    }
}

impl<L: Lines> Fields for Spoilt<'_, L> {
    fn text(&mut self, value: Option<&str>) {
        self.lines.text(value);
    }

    fn int(&mut self, value: Option<i64>) {
        if !self.is_spoilt() {
            self.lines.int(value);
        }
    }

    fn money(&mut self, cents: i64) {
        if !self.is_spoilt() {
            self.lines.money(cents);
        }
    }

    fn wall(&mut self, seconds: Option<i64>) {
        if !self.is_spoilt() {
            self.lines.wall(seconds);
        }
    }

    fn instant(&mut self, millis: i64) {
        if !self.is_spoilt() {
            self.lines.instant(millis);
        }
    }
}

/// RFC 4180 with LF; null is an empty field, the empty text a quoted one.
#[derive(Default)]
pub(super) struct CsvLines {
    out: Vec<u8>,
    line: usize,
}

impl CsvLines {
    fn separate(&mut self) {
        if self.out.len() > self.line {
            self.out.push(b',');
        }
    }
}

impl Lines for CsvLines {
    fn begin(&mut self) {
        self.line = self.out.len();
    }

    fn end(&mut self) {
        self.out.push(b'\n');
    }

    fn garbage(&mut self, characters: &str) {
        self.text(Some(characters));
    }

    fn tear(&mut self) {
        // Identifiers come first in every table and are never quoted: one field is left.
        let rest = self.out.get(self.line..).unwrap_or_default();
        let kept = rest.iter().position(|b| *b == b',').unwrap_or(0);
        self.out.truncate(self.line + kept);
        self.out.push(b'\n');
    }

    fn lengthen(&mut self) {
        self.out.pop();
        self.out.extend_from_slice(b",1\n");
    }

    fn into_bytes(self) -> Vec<u8> {
        self.out
    }
}

impl Fields for CsvLines {
    fn text(&mut self, value: Option<&str>) {
        self.separate();
        let Some(value) = value else { return };
        let plain = !value.is_empty() && !value.bytes().any(|b| matches!(b, b',' | b'"' | b'\n' | b'\r'));
        if plain {
            self.out.extend_from_slice(value.as_bytes());
            return;
        }
        self.out.push(b'"');
        for byte in value.bytes() {
            if byte == b'"' {
                self.out.push(b'"');
            }
            self.out.push(byte);
        }
        self.out.push(b'"');
    }

    fn int(&mut self, value: Option<i64>) {
        self.separate();
        if let Some(value) = value {
            push_int(&mut self.out, value);
        }
    }

    fn money(&mut self, cents: i64) {
        self.separate();
        push_money(&mut self.out, cents);
    }

    fn wall(&mut self, seconds: Option<i64>) {
        self.separate();
        if let Some(seconds) = seconds {
            push_time(&mut self.out, seconds, b' ');
        }
    }

    fn instant(&mut self, millis: i64) {
        self.separate();
        push_instant(&mut self.out, millis, b' ');
        self.out.extend_from_slice(b" UTC");
    }
}

/// One object a line; null is written.
pub(super) struct JsonLines {
    out: Vec<u8>,
    line: usize,
    /// `{"first":`, `,"second":`, …
    names: Vec<Vec<u8>>,
    next: usize,
}

impl JsonLines {
    /// For a table.
    pub(super) fn new(table: &Table) -> Self {
        let name = |(i, name): (usize, &str)| format!("{}\"{name}\":", if i == 0 { '{' } else { ',' }).into_bytes();
        let names = table.columns.iter().map(|c| c.name).enumerate().map(name).collect();
        Self { out: Vec::new(), line: 0, names, next: 0 }
    }

    fn name(&mut self) {
        if let Some(name) = self.names.get(self.next) {
            self.out.extend_from_slice(name);
        }
        self.next += 1;
    }

    fn null(&mut self) {
        self.out.extend_from_slice(b"null");
    }
}

impl Lines for JsonLines {
    fn begin(&mut self) {
        self.line = self.out.len();
        self.next = 0;
    }

    fn end(&mut self) {
        self.out.extend_from_slice(b"}\n");
    }

    fn garbage(&mut self, characters: &str) {
        self.text(Some(characters));
    }

    fn tear(&mut self) {
        let length = self.out.len() - self.line;
        self.out.truncate(self.line + length / 2);
        self.out.push(b'\n');
    }

    fn lengthen(&mut self) {
        self.out.pop();
        self.out.extend_from_slice(b"]\n");
    }

    fn into_bytes(self) -> Vec<u8> {
        self.out
    }
}

impl Fields for JsonLines {
    fn text(&mut self, value: Option<&str>) {
        self.name();
        let Some(value) = value else { return self.null() };
        self.out.push(b'"');
        for byte in value.bytes() {
            match byte {
                b'"' | b'\\' => self.out.extend_from_slice(&[b'\\', byte]),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                _ => self.out.push(byte),
            }
        }
        self.out.push(b'"');
    }

    fn int(&mut self, value: Option<i64>) {
        self.name();
        match value {
            Some(value) => push_int(&mut self.out, value),
            None => self.null(),
        }
    }

    fn money(&mut self, cents: i64) {
        self.name();
        push_money(&mut self.out, cents);
    }

    fn wall(&mut self, seconds: Option<i64>) {
        self.name();
        let Some(seconds) = seconds else { return self.null() };
        self.out.push(b'"');
        push_time(&mut self.out, seconds, b'T');
        self.out.push(b'"');
    }

    fn instant(&mut self, millis: i64) {
        self.name();
        self.out.push(b'"');
        push_instant(&mut self.out, millis, b'T');
        self.out.extend_from_slice(b"Z\"");
    }
}

/// Rows to JSON one by one, for what isn't a file.
#[cfg(feature = "kafka")]
pub(in crate::generate) struct JsonMessages {
    table: &'static Table,
    lines: JsonLines,
}

#[cfg(feature = "kafka")]
impl JsonMessages {
    /// For a table.
    pub(in crate::generate) fn new(table: &'static Table) -> Self {
        Self { table, lines: JsonLines::new(table) }
    }

    /// A row's object, and a malformed copy of it, if the row is hit.
    pub(in crate::generate) fn of(&mut self, row: &impl Row, broken: &mut Hits) -> (&[u8], Option<&[u8]>) {
        self.lines.out.clear();
        write(&mut self.lines, self.table, row, broken);
        // No value has a line break that isn't escaped.
        let mut lines = self.lines.out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        (lines.next().unwrap_or_default(), lines.next())
    }
}

fn push_int(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn push_money(out: &mut Vec<u8>, cents: i64) {
    push_int(out, cents / 100);
    out.push(b'.');
    push_two(out, cents % 100);
}

fn push_two(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&[b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]);
}

/// `2018-01-05 10:56:33.125`, the fraction only where there is one.
fn push_instant(out: &mut Vec<u8>, millis: i64, between: u8) {
    push_time(out, millis.div_euclid(1_000), between);
    let fraction = millis.rem_euclid(1_000);
    if fraction > 0 {
        out.extend_from_slice(&[b'.', b'0' + (fraction / 100) as u8]);
        push_two(out, fraction % 100);
    }
}

/// `2018-01-05 10:56:33`, years 1 to 9999.
fn push_time(out: &mut Vec<u8>, seconds: i64, between: u8) {
    let (year, month, day) = civil(seconds.div_euclid(DAY));
    let of_day = seconds.rem_euclid(DAY);
    push_two(out, year / 100);
    push_two(out, year % 100);
    out.push(b'-');
    push_two(out, month);
    out.push(b'-');
    push_two(out, day);
    out.push(between);
    push_two(out, of_day / 3600);
    out.push(b':');
    push_two(out, of_day / 60 % 60);
    out.push(b':');
    push_two(out, of_day % 60);
}

/// Year, month and day of a day since 1970, counted in years that start in March, so that the leap day is the last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // from 0000-03-01
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + i64::from(month >= 10);
    (year, if month < 10 { month + 3 } else { month - 9 }, day)
}

#[cfg(test)]
mod tests {
    use chrono::{Datelike, Days, NaiveDate};

    use super::*;

    #[test]
    fn days_agree_with_the_calendar() {
        let mut date = NaiveDate::from_ymd_opt(1899, 12, 31).unwrap();
        for _ in 0..80_000 {
            let days = date.signed_duration_since(NaiveDate::default()).num_days();
            assert_eq!(civil(days), (i64::from(date.year()), i64::from(date.month()), i64::from(date.day())));
            date = date.checked_add_days(Days::new(1)).unwrap();
        }
    }

    #[test]
    fn values_are_written_as_sql_reads_them() {
        let mut out = Vec::new();
        push_money(&mut out, 5);
        out.push(b' ');
        push_money(&mut out, 123_450);
        out.push(b' ');
        push_int(&mut out, i64::MIN);
        out.push(b' ');
        push_time(&mut out, -1, b'T');
        out.push(b' ');
        push_instant(&mut out, -990, b'T');
        out.push(b' ');
        push_instant(&mut out, 1_000, b'T');
        let expected =
            "0.05 1234.50 -9223372036854775808 1969-12-31T23:59:59 1969-12-31T23:59:59.010 1970-01-01T00:00:01";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn csv_quotes_what_it_must_and_tells_null_from_empty() {
        let mut lines = CsvLines::default();
        lines.begin();
        lines.text(Some("a"));
        lines.text(None);
        lines.text(Some(""));
        lines.text(Some("x, \"y\""));
        lines.end();
        assert_eq!(String::from_utf8(lines.into_bytes()).unwrap(), "a,,\"\",\"x, \"\"y\"\"\"\n");
    }
}
