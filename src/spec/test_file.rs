//! Reads files of SQL unit tests. Values stay the text as written.

use super::fault::{Fault, Place};
use super::fields::Reader;
use super::keys;
use super::tree::{Node, Value};
use super::types::{Expectation, GivenRow, GivenRows, Located, TestFile, UnitTest};
use super::variables::shown;

/// A test as read: one that isn't sound is only good for judging the names in it.
pub(super) struct ReadTest {
    pub(super) test: UnitTest,
    is_sound: bool,
}

/// The tests that can be run.
pub(super) fn sound(tests: Vec<ReadTest>) -> TestFile {
    TestFile { tests: tests.into_iter().filter(|read| read.is_sound).map(|read| read.test).collect() }
}

pub(super) fn read_tests(reader: &mut Reader<'_>, node: &Node) -> Vec<ReadTest> {
    let mut tests: Vec<ReadTest> = Vec::new();
    let Some(fields) = reader.fields(node, &keys::TESTS) else { return tests };
    let start = Place::new(&node.place.source, node.place.source.start()..node.place.source.start());
    let items = fields.require(reader, "tests", &start).map(|n| reader.items(n)).unwrap_or_default();
    for item in items {
        let Some(mut read) = read_test(reader, item) else { continue };
        let name = &read.test.name;
        let first = tests.iter().find(|known| known.is_named() && known.test.name.value == name.value);
        if let (Some(first), true) = (first, read.is_named()) {
            let message = format!("there are two tests named `{}`", name.value);
            let hint = format!("the first one is in line {}", first.test.name.place.line());
            reader.fault(Fault::error("duplicate_name", name.place.clone(), message).hint(hint));
            read.is_sound = false;
        }
        tests.push(read);
    }
    tests
}

impl ReadTest {
    fn is_named(&self) -> bool {
        !self.test.name.value.is_empty()
    }
}

fn read_test(reader: &mut Reader<'_>, node: &Node) -> Option<ReadTest> {
    let fields = reader.fields(node, &keys::TEST)?;
    let faults_before = reader.faults.len();
    let start = Place::new(&fields.place.source, fields.place.first_line());
    let name = fields.require(reader, "name", &start).and_then(|n| reader.word(n));
    let model = fields.require(reader, "model", &start).and_then(|n| reader.word(n));
    let expect = fields.require(reader, "expect", &start).and_then(|n| read_expectation(reader, n));
    let mut given = Vec::new();
    if let Some(node) = fields.get("given") {
        for (relation, rows) in reader.named(node, "sources and models with their rows") {
            if let Some(rows) = read_rows(reader, rows) {
                given.push((relation.clone(), rows));
            }
        }
    }
    let now = fields.get("now").and_then(|n| read_instant(reader, n));
    let is_sound = reader.faults.len() == faults_before && fields.is_whole;
    let name = name.unwrap_or(Located { value: String::new(), place: start });
    let test = UnitTest { name, model: model?, now, given, expect: expect.unwrap_or_default() };
    Some(ReadTest { test, is_sound })
}

/// Reads an instant: a time with its offset.
fn read_instant(reader: &mut Reader<'_>, node: &Node) -> Option<Located<String>> {
    let text = reader.word(node)?;
    if text.value.parse::<jiff::Timestamp>().is_err() {
        let message = format!("expected an instant, found `{}`", shown(&text.value, &text.place));
        let fault = Fault::error("wrong_type", text.place, message);
        reader.fault(fault.hint("with its offset, such as 2018-09-01T03:00:00Z or 2018-09-01T00:00:00-03:00"));
        return None;
    }
    Some(text)
}

fn read_expectation(reader: &mut Reader<'_>, node: &Node) -> Option<Expectation> {
    let fields = reader.fields(node, &keys::EXPECT)?;
    let expectation = Expectation {
        rows: fields.get("rows").and_then(|n| read_rows(reader, n)),
        quarantine: fields.get("quarantine").and_then(|n| read_rows(reader, n)),
        error: fields.get("error").and_then(|n| reader.word(n)),
    };
    if ["rows", "quarantine", "error"].iter().all(|key| fields.get(key).is_none() && !fields.is_meant(key)) {
        if !fields.is_whole {
            return None;
        }
        let fault = Fault::error("missing_key", fields.place.clone(), "nothing is expected");
        reader.fault(fault.hint("expect `rows`, `quarantine` or `error`"));
        return None;
    }
    Some(expectation)
}

fn read_rows(reader: &mut Reader<'_>, node: &Node) -> Option<GivenRows> {
    match &node.value {
        Value::Null => Some(GivenRows::Rows(Vec::new())),
        Value::List(items) => Some(GivenRows::Rows(items.iter().filter_map(|item| read_row(reader, item)).collect())),
        Value::Map(_) => {
            let fields = reader.fields(node, &keys::GIVEN)?;
            match (fields.get("csv"), fields.get("file")) {
                (Some(csv), None) => {
                    let text = reader.scalar(csv, "CSV")?.text.clone();
                    Some(GivenRows::Csv(Located { value: text, place: csv.place.clone() }))
                }
                (None, Some(file)) => {
                    let path = reader.word(file)?;
                    if !path.value.to_ascii_lowercase().ends_with(".csv") {
                        let message = "rows are read from a CSV file, whose name ends with `.csv`";
                        reader.fault(Fault::error("wrong_value", path.place, message));
                        return None;
                    }
                    Some(GivenRows::File(path))
                }
                _ => {
                    reader.fault(Fault::error(
                        "wrong_value",
                        node.place.clone(),
                        "rows are a list, `{ csv: … }` or `{ file: … }`",
                    ));
                    None
                }
            }
        }
        Value::Scalar(_) => {
            reader.wrong(node, "a list of rows, `{ csv: … }` or `{ file: … }`");
            None
        }
    }
}

fn read_row(reader: &mut Reader<'_>, node: &Node) -> Option<GivenRow> {
    let Value::Map(entries) = &node.value else {
        reader.wrong(node, "a row: `{ column: value }`");
        return None;
    };
    let mut values = Vec::with_capacity(entries.len());
    for (column, value) in entries {
        let text = match &value.value {
            Value::Null => None,
            _ => {
                let text = reader.scalar(value, "a value")?.text.clone();
                Some(Located { value: text, place: value.place.clone() })
            }
        };
        values.push((column.clone(), text));
    }
    Some(GivenRow { values, place: node.place.clone() })
}
