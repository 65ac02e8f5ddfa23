//! Messages to rows: the value under the contract, and what stands beside it in hidden columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, SchemaRef};

use super::connect_json;
use super::records::{Record, Records, text_of};
use crate::connect::decode::{Contract, Decoded, JsonObjects, Origin, RawRows};
use crate::connect::quarantine::{Refused, RefusedAt};
use crate::error::Result;
use crate::plan::json_text::is_json;
use crate::plan::{loosened, read_hidden_fields};
use crate::spec::types::{ColumnSpec, KafkaSpec, Located, MessageFormat, MessageRelation};

/// Hidden columns that landed files of a topic hold.
const LANDED: [&str; 7] = ["_partition", "_offset", "_ingested_at", "_key", "_timestamp", "_headers", "_tombstone"];

/// The hidden columns of landed files.
pub(super) fn landed_fields(zone: &str) -> Vec<Field> {
    let all: Vec<Field> = read_hidden_fields(zone).collect();
    let field = |name: &&str| all.iter().find(|field| field.name() == *name).cloned();
    LANDED
        .iter()
        .filter_map(field)
        .map(|field| match field.data_type() {
            DataType::Utf8View => field.with_data_type(DataType::Utf8),
            _ => field,
        })
        .collect()
}

/// Reads messages under a contract.
pub(super) struct Decoder {
    contract: Contract,
    format: MessageFormat,
    /// Columns of an upsert relation's key.
    key: Vec<String>,
    zone: Arc<str>,
    ingested_at_us: i64,
}

impl Decoder {
    /// A decoder to `schema`, of which each of an upsert relation's columns but the key may be null.
    ///
    /// # Errors
    /// Usage, for a type that text can't hold.
    pub(super) fn new(
        spec: &KafkaSpec,
        columns: &[ColumnSpec],
        schema: &SchemaRef,
        zone: &str,
        ingested_at_us: i64,
    ) -> Result<Self> {
        let text = spec.format.text();
        let key = match &spec.relation {
            MessageRelation::Append => Vec::new(),
            MessageRelation::Upsert(key) => names_of(key),
        };
        Ok(Self {
            contract: Contract::new(Arc::clone(schema), columns, text, zone)?,
            format: spec.format.clone(),
            key,
            zone: zone.into(),
            ingested_at_us,
        })
    }

    /// Rows of messages in their order.
    pub(super) fn decode(&self, messages: Records) -> Result<Decoded> {
        let mut objects = JsonObjects::new(&self.contract);
        let mut rows = objects.no_rows().without_raw(messages.len(), messages.size());
        for message in messages.iter() {
            let number = u64::try_from(message.offset).unwrap_or_default();
            match (message.value.filter(|_| !message.is_tombstone()), &self.format) {
                (Some(value), MessageFormat::Json(_)) => objects.push(&mut rows, number, value),
                (Some(value), MessageFormat::ConnectJson(_)) => match connect_json::payload(value) {
                    Ok(Some(payload)) => objects.push(&mut rows, number, payload.as_bytes()),
                    Ok(None) => self.push_tombstone(&mut rows, number, &message),
                    Err(reason) => rows.end_record(number, value, Some(reason)),
                },
                (None, _) => self.push_tombstone(&mut rows, number, &message),
            }
        }
        let rows = objects.finish(rows);
        let (zone, ingested_at_us) = (Arc::clone(&self.zone), self.ingested_at_us);
        self.contract.decode(rows, |raw| MessageRows { raw, messages, zone, ingested_at_us })
    }

    /// A message without a value: of an upsert relation a row with its key alone.
    fn push_tombstone(&self, rows: &mut RawRows, number: u64, message: &Record<'_>) {
        if self.key.is_empty() {
            return rows.end_record(number, b"", None);
        }
        match key_object(message.key, &self.key, &self.format) {
            Ok(object) => JsonObjects::new(&self.contract).push(rows, number, object.as_bytes()),
            Err(reason) => rows.end_record(number, message.key.unwrap_or_default(), Some(reason)),
        }
    }
}

/// The contract of landed rows: of an upsert relation each column but the key may be null.
pub(super) fn landed_contract(contract: &SchemaRef, spec: &KafkaSpec) -> SchemaRef {
    match &spec.relation {
        MessageRelation::Append => Arc::clone(contract),
        MessageRelation::Upsert(key) => Arc::new(loosened(contract, &names_of(key))),
    }
}

fn names_of(key: &[Located<String>]) -> Vec<String> {
    key.iter().map(|column| column.value.clone()).collect()
}

/// A message's key as an object of the key's columns: it is one, or it is the value of the only column.
fn key_object(key: Option<&[u8]>, names: &[String], format: &MessageFormat) -> Result<String, String> {
    let Some(key) = key else { return Err("neither a key nor a value".into()) };
    let text = std::str::from_utf8(key).map_err(|_| "the key's bytes aren't UTF-8".to_string())?;
    let text = match format {
        MessageFormat::Json(_) => text.to_string(),
        MessageFormat::ConnectJson(_) => match connect_json::payload(key) {
            Ok(payload) => payload.unwrap_or_default().into_owned(),
            Err(_) => text.to_string(),
        },
    };
    if text.trim_start().starts_with('{') {
        return Ok(text);
    }
    let [name] = names else { return Err(format!("the key isn't an object with {}", names.join(", "))) };
    let name = serde_json::Value::from(name.as_str());
    // A number keeps its text.
    let is_value = is_json(&text) && !text.trim_start().starts_with('[');
    let value = if is_value { text } else { serde_json::Value::String(text).to_string() };
    Ok(format!("{{{name}:{value}}}"))
}

/// Messages and the records that were read out of them.
struct MessageRows {
    raw: RawRows,
    messages: Records,
    zone: Arc<str>,
    ingested_at_us: i64,
}

impl Origin for MessageRows {
    fn hidden(&self, rows: &[usize]) -> Vec<ArrayRef> {
        let of = || rows.iter().map(|row| self.messages.get(*row));
        let times = of().map(|message| message.timestamp_ms.map(|ms| ms * 1000));
        let instants = |array: TimestampMicrosecondArray| Arc::new(array.with_timezone(Arc::clone(&self.zone)));
        vec![
            Arc::new(Int32Array::from_iter_values(of().map(|message| message.partition))),
            Arc::new(Int64Array::from_iter_values(of().map(|message| message.offset))),
            instants(TimestampMicrosecondArray::from_value(self.ingested_at_us, rows.len())),
            Arc::new(of().map(|message| message.key.map(text_of)).collect::<StringArray>()),
            instants(times.collect()),
            Arc::new(of().map(|message| message.headers).collect::<StringArray>()),
            Arc::new(of().map(|message| Some(message.is_tombstone())).collect::<BooleanArray>()),
        ]
    }

    fn refused(&self, index: usize, rule: &str, reason: String) -> Result<Refused> {
        let message = self.messages.get(index);
        let refused = self.raw.refused(index, rule, reason)?;
        let at = RefusedAt::Message { partition: message.partition, offset: message.offset };
        let raw = message.value.map(text_of).unwrap_or_default().into_owned();
        Ok(Refused { at, raw, ..refused })
    }
}
