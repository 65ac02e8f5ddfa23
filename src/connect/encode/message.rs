//! One message a changed key: its key and value as JSON.
//!
//! | `emit` | key | value |
//! |---|---|---|
//! | `changes`, `final` | `{"id":7}` | the new row; none (a tombstone) where it went |
//! | `debezium` | the same | `{"before":…,"after":…,"source":…,"op":"c"\|"u"\|"d","ts_ms":…}`, a tombstone after each `d` |

use arrow::array::RecordBatch;

use super::envelope::{Changed, Commit, Origin, Rows};
use super::value::{Cells, Style};
use crate::engine::KeyedChange;
use crate::error::Result;
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
    /// For Debezium's `source`.
    pub(in crate::connect) origin: Origin,
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
        let (places_before, places_after) = (Places::new(&change.before)?, Places::new(&change.after)?);
        let places: Vec<usize> = key.iter().copied().filter(|at| places_before.is_hidden(*at)).collect();
        let columns: Vec<usize> = (0..before.width()).filter(|at| !places.contains(at)).collect();
        let mut messages = Vec::with_capacity(change.after.num_rows());
        for row in 0..change.after.num_rows() {
            let (was, is) = (before.has(row, &key), after.has(row, &key));
            let (of_key, of_place) = if is { (&after, &places_after) } else { (&before, &places_before) };
            let mut key_text = Vec::new();
            of_key.write(row, key.iter().copied(), &mut key_text)?;
            let headers = || places.iter().map(|at| of_place.bare(row, *at)).collect::<Result<Vec<_>>>();
            let outgoing = |key: &Vec<u8>, value| Ok(Outgoing { key: key.clone(), headers: headers()?, value });
            if self.emit == Emit::Debezium {
                let mut value = Vec::new();
                let row = Changed { before: &before, after: &after, row, columns: &columns, was, is };
                row.write(&self.origin, commit, &mut value)?;
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
}

/// Where rows stood in their source: values of the hidden columns, by column.
struct Places(Vec<Option<(String, Cells)>>);

impl Places {
    fn new(batch: &RecordBatch) -> Result<Self> {
        let columns = batch.schema_ref().fields().iter().zip(batch.columns()).map(|(field, array)| {
            let is_hidden = HIDDEN_COLUMNS.contains(&field.name().as_str());
            is_hidden.then(|| Ok((field.name().clone(), Cells::new(array, Style::Text)?))).transpose()
        });
        Ok(Self(columns.collect::<Result<_>>()?))
    }

    fn is_hidden(&self, at: usize) -> bool {
        self.0.get(at).is_some_and(Option::is_some)
    }

    /// A hidden column's name and bare value.
    fn bare(&self, row: usize, at: usize) -> Result<(String, Vec<u8>)> {
        let Some(Some((name, cells))) = self.0.get(at) else { return Ok((String::new(), Vec::new())) };
        let mut value = Vec::new();
        cells.write(row, &mut value)?;
        Ok((name.clone(), value))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray};

    use super::MessageEncoder;
    use crate::connect::encode::envelope::{Commit, Origin};
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
            origin: Origin { project: "shop".into(), model: "sales".into() },
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
