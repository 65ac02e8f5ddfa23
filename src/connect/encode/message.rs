//! One message a changed key: its key and value as JSON.
//!
//! | `emit` | key | value |
//! |---|---|---|
//! | `changes`, `final` | `{"id":7}` | the new row; none (a tombstone) where it went |
//! | `debezium` | the same | `{"before":…,"after":…,"source":…,"op":"c"\|"u"\|"d","ts_ms":…}`, a tombstone after each `d` |

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields};

use super::value::{Cells, Style, write_json_text};
use crate::engine::{KeyedChange, failure};
use crate::error::{Error, Result};
use crate::spec::HIDDEN_COLUMNS;
use crate::spec::types::Emit;

/// What a changed key sends.
#[derive(Debug, PartialEq)]
pub(in crate::connect) struct Outgoing {
    pub(in crate::connect) key: Vec<u8>,
    /// Where the row stood in its source, of a model that hands rows on.
    pub(in crate::connect) headers: Vec<(String, Vec<u8>)>,
    /// None: a tombstone.
    pub(in crate::connect) value: Option<Vec<u8>>,
}

/// Turns changed keys into messages.
pub(in crate::connect) struct MessageEncoder {
    /// Key columns, by name.
    pub(in crate::connect) key: Vec<String>,
    pub(in crate::connect) emit: Emit,
    /// Whether decimals are strings.
    pub(in crate::connect) decimals_as_text: bool,
    /// The project and the model, for Debezium's `source`.
    pub(in crate::connect) project: String,
    pub(in crate::connect) model: String,
}

/// The commit that messages tell of.
#[derive(Debug, Clone, Copy)]
pub(in crate::connect) struct Commit {
    pub(in crate::connect) n: u64,
    /// Microseconds since 1970 UTC.
    pub(in crate::connect) at_us: i64,
}

impl MessageEncoder {
    /// The messages of a batch of changed keys, in its order.
    ///
    /// # Errors
    /// External, for a time that no calendar has; internal, if a key column isn't there.
    pub(in crate::connect) fn encode(&self, change: &KeyedChange, commit: Commit) -> Result<Vec<Outgoing>> {
        let before = Rows::new(&change.before, self.decimals_as_text)?;
        let after = Rows::new(&change.after, self.decimals_as_text)?;
        let key = self.key.iter().map(|name| before.position(name)).collect::<Result<Vec<_>>>()?;
        // A key of hidden columns is the row's place: it is told beside the row.
        let places: Vec<usize> = key.iter().copied().filter(|at| before.is_hidden(*at)).collect();
        let columns: Vec<usize> = (0..before.cells.len()).filter(|at| !places.contains(at)).collect();
        let mut messages = Vec::with_capacity(change.after.num_rows());
        for row in 0..change.after.num_rows() {
            // Key columns have no nulls, so that one says whether there is a row.
            let is_there = |rows: &Rows| key.first().is_some_and(|at| !rows.cells[*at].is_null(row));
            let (was, is) = (is_there(&before), is_there(&after));
            let of_key = if is { &after } else { &before };
            let mut key_text = Vec::new();
            of_key.write(row, key.iter().copied(), &mut key_text)?;
            let headers = || places.iter().map(|at| of_key.bare(row, *at)).collect::<Result<Vec<_>>>();
            let outgoing = |key: &Vec<u8>, value| Ok(Outgoing { key: key.clone(), headers: headers()?, value });
            if self.emit == Emit::Debezium {
                let mut value = Vec::new();
                let row = Changed { before: &before, after: &after, row, columns: &columns, was, is };
                self.envelope(&row, commit, &mut value)?;
                messages.push(outgoing(&key_text, Some(value))?);
            } else if is {
                let mut value = Vec::new();
                after.write(row, columns.iter().copied(), &mut value)?;
                messages.push(outgoing(&key_text, Some(value))?);
            }
            if !is {
                messages.push(outgoing(&key_text, None)?);
            }
        }
        Ok(messages)
    }

    /// Debezium's envelope. Its `source` names what is published as a database and a table.
    fn envelope(&self, changed: &Changed<'_>, commit: Commit, out: &mut Vec<u8>) -> Result<()> {
        let side = |rows: &Rows, is_there: bool, out: &mut Vec<u8>| match is_there {
            true => rows.write(changed.row, changed.columns.iter().copied(), out),
            false => {
                out.extend_from_slice(b"null");
                Ok(())
            }
        };
        out.extend_from_slice(b"{\"before\":");
        side(changed.before, changed.was, out)?;
        out.extend_from_slice(b",\"after\":");
        side(changed.after, changed.is, out)?;
        out.extend_from_slice(b",\"source\":{\"connector\":\"tidemill\",\"db\":");
        write_json_text(&self.project, out)?;
        out.extend_from_slice(b",\"table\":");
        write_json_text(&self.model, out)?;
        let op = match (changed.was, changed.is) {
            (false, _) => "c",
            (true, true) => "u",
            (true, false) => "d",
        };
        let ts_ms = commit.at_us.div_euclid(1000);
        out.extend_from_slice(format!(",\"commit\":{}}},\"op\":\"{op}\",\"ts_ms\":{ts_ms}}}", commit.n).as_bytes());
        Ok(())
    }
}

/// A row that changed, in batches of both sides.
struct Changed<'a> {
    before: &'a Rows,
    after: &'a Rows,
    row: usize,
    /// Columns that are told.
    columns: &'a [usize],
    was: bool,
    is: bool,
}

/// The rows of one side, ready to be written.
struct Rows {
    /// `"name":`, by column.
    names: Vec<(String, Vec<u8>)>,
    cells: Vec<Cells>,
    /// Of the hidden columns, for headers.
    texts: Vec<Option<Cells>>,
}

impl Rows {
    fn new(batch: &RecordBatch, decimals_as_text: bool) -> Result<Self> {
        let mut rows = Self { names: Vec::new(), cells: Vec::new(), texts: Vec::new() };
        for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            let mut name = Vec::new();
            write_json_text(field.name(), &mut name)?;
            name.push(b':');
            rows.names.push((field.name().clone(), name));
            let array = if decimals_as_text { with_text_decimals(array)? } else { Arc::clone(array) };
            rows.cells.push(Cells::new(&array, Style::Json)?);
            let is_hidden = HIDDEN_COLUMNS.contains(&field.name().as_str());
            rows.texts.push(is_hidden.then(|| Cells::new(&array, Style::Text)).transpose()?);
        }
        Ok(rows)
    }

    fn position(&self, name: &str) -> Result<usize> {
        let at = self.names.iter().position(|(known, _)| known == name);
        at.ok_or_else(|| Error::internal("a key column isn't among the columns").with("column", name))
    }

    fn is_hidden(&self, at: usize) -> bool {
        self.texts.get(at).is_some_and(Option::is_some)
    }

    /// A hidden column's name and bare value.
    fn bare(&self, row: usize, at: usize) -> Result<(String, Vec<u8>)> {
        let mut value = Vec::new();
        if let Some(Some(cells)) = self.texts.get(at) {
            cells.write(row, &mut value)?;
        }
        Ok((self.names[at].0.clone(), value))
    }

    /// An object of some columns.
    fn write(&self, row: usize, columns: impl Iterator<Item = usize>, out: &mut Vec<u8>) -> Result<()> {
        for (at, column) in columns.enumerate() {
            out.push(if at == 0 { b'{' } else { b',' });
            out.extend_from_slice(&self.names[column].1);
            self.cells[column].write(row, out)?;
        }
        out.push(b'}');
        Ok(())
    }
}

/// The same values with decimals as texts of their full scale, nested ones too.
fn with_text_decimals(array: &ArrayRef) -> Result<ArrayRef> {
    match text_decimals(array.data_type()) {
        Some(texts) => cast(array, &texts).map_err(|error| failure(error.into())),
        None => Ok(Arc::clone(array)),
    }
}

/// The type with texts for decimals; none if it has no decimals.
fn text_decimals(data_type: &DataType) -> Option<DataType> {
    let inner = |field: &Arc<Field>| {
        let data_type = text_decimals(field.data_type())?;
        Some(Arc::new(field.as_ref().clone().with_data_type(data_type)))
    };
    match data_type {
        other if other.is_decimal() => Some(DataType::Utf8),
        DataType::List(field) => inner(field).map(DataType::List),
        DataType::LargeList(field) => inner(field).map(DataType::LargeList),
        DataType::Struct(fields) => {
            let changed: Vec<Option<Arc<Field>>> = fields.iter().map(inner).collect();
            changed.iter().any(Option::is_some).then(|| {
                let fields = fields.iter().zip(changed).map(|(old, new)| new.unwrap_or_else(|| Arc::clone(old)));
                DataType::Struct(Fields::from_iter(fields))
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray};

    use super::{Commit, MessageEncoder};
    use crate::engine::KeyedChange;
    use crate::spec::types::Emit;

    fn rows(id: Vec<Option<i64>>, name: Vec<Option<&str>>, price: Vec<Option<i128>>) -> RecordBatch {
        let price = Decimal128Array::from(price).with_precision_and_scale(12, 2).unwrap();
        let columns: [(&str, ArrayRef); 3] = [
            ("id", Arc::new(Int64Array::from(id))),
            ("name", Arc::new(StringArray::from(name))),
            ("price", Arc::new(price)),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    /// An inserted, a changed and a deleted row.
    fn sent(emit: Emit, decimals_as_text: bool) -> Vec<(String, Option<String>)> {
        let change = KeyedChange {
            before: rows(vec![None, Some(2), Some(3)], vec![None, Some("b"), None], vec![None, Some(150), None]),
            after: rows(vec![Some(1), Some(2), None], vec![Some("a \"x\""), None, None], vec![Some(1000), None, None]),
        };
        let encoder = MessageEncoder {
            key: vec!["id".into()],
            emit,
            decimals_as_text,
            project: "shop".into(),
            model: "sales".into(),
        };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let messages = encoder.encode(&change, Commit { n: 7, at_us: 1_500_999 }).unwrap();
        messages.into_iter().map(|message| (text(message.key), message.value.map(text))).collect()
    }

    #[test]
    fn changes_are_the_new_row_or_a_tombstone() {
        let upsert = |id: i64, value: &str| (format!("{{\"id\":{id}}}"), Some(value.to_string()));
        assert_eq!(
            sent(Emit::Changes, false),
            [
                upsert(1, r#"{"id":1,"name":"a \"x\"","price":10.00}"#),
                upsert(2, r#"{"id":2,"name":null,"price":null}"#),
                ("{\"id\":3}".to_string(), None),
            ]
        );
        assert_eq!(sent(Emit::Changes, true)[0], upsert(1, r#"{"id":1,"name":"a \"x\"","price":"10.00"}"#));
    }

    #[test]
    fn debezium_has_both_rows_and_a_tombstone_after_a_delete() {
        let sent = sent(Emit::Debezium, false);
        let source = r#""source":{"connector":"tidemill","db":"shop","table":"sales","commit":7}"#;
        let values: Vec<Option<String>> = sent.into_iter().map(|(_, value)| value).collect();
        assert_eq!(
            values,
            [
                Some(format!(
                    r#"{{"before":null,"after":{{"id":1,"name":"a \"x\"","price":10.00}},{source},"op":"c","ts_ms":1500}}"#
                )),
                Some(format!(
                    r#"{{"before":{{"id":2,"name":"b","price":1.50}},"after":{{"id":2,"name":null,"price":null}},{source},"op":"u","ts_ms":1500}}"#
                )),
                Some(format!(
                    r#"{{"before":{{"id":3,"name":null,"price":null}},"after":null,{source},"op":"d","ts_ms":1500}}"#
                )),
                None,
            ]
        );
    }
}
