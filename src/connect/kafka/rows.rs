//! Messages to rows: the value under the contract, and what stands beside it in hidden columns.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, SchemaRef};

use super::arrivals::Arrivals;
use super::connect_json;
use super::records::{Record, Records, text_of};
use crate::connect::decode::{Contract, Decoded, Misfits, Object, Origin, null_reason};
use crate::connect::quarantine::{Refused, RefusedAt};
use crate::error::Result;
use crate::plan::json_text::is_json;
use crate::plan::{loosened, read_hidden_fields};
use crate::spec::sql_type::SqlType;
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
    /// Whether that is one column of text.
    has_text_key: bool,
    needed: Needed,
    zone: Arc<str>,
    arrivals: Arrivals,
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
        arrivals: Arrivals,
    ) -> Result<Self> {
        let text = spec.format.text();
        let key = match &spec.relation {
            MessageRelation::Append => Vec::new(),
            MessageRelation::Upsert(key) => names_of(key),
        };
        let is_text = |name: &String| {
            columns.iter().any(|column| column.name.value == *name && column.data_type.value == SqlType::Text)
        };
        Ok(Self {
            has_text_key: matches!(key.as_slice(), [name] if is_text(name)),
            needed: Needed::of(columns, schema),
            contract: Contract::new(Arc::clone(schema), columns, text, zone)?,
            format: spec.format.clone(),
            key,
            zone: zone.into(),
            arrivals,
        })
    }

    /// Rows of messages in their order.
    pub(super) fn decode(self: &Arc<Self>, messages: Records) -> Result<Decoded> {
        let said = messages.iter().map(|message| {
            let value = self.value(&message);
            (matches!(value, Ok(None)), self.object(&message, value))
        });
        let (tombstones, objects): (Vec<bool>, Vec<Object<'_>>) = said.unzip();
        let (columns, misfits) = self.contract.read_objects(&objects)?;
        drop(objects);
        let rows = messages.len();
        let origin = MessageRows { messages, tombstones, decoder: Arc::clone(self) };
        self.needed.applied(Decoded::new(&self.contract.schema, columns, rows, misfits, origin)?)
    }

    /// The text of a message's row; none where it says that its key has no row any more, in an envelope or without.
    fn value<'a>(&self, message: &Record<'a>) -> Result<Option<Cow<'a, [u8]>>, String> {
        let Some(value) = message.value.filter(|_| !message.is_without_value()) else { return Ok(None) };
        Ok(match &self.format {
            MessageFormat::Json(_) => Some(Cow::Borrowed(value)),
            MessageFormat::ConnectJson(_) => connect_json::payload(value)?.map(|payload| match payload {
                Cow::Borrowed(payload) => Cow::Borrowed(payload.as_bytes()),
                Cow::Owned(payload) => Cow::Owned(payload.into_bytes()),
            }),
        })
    }

    /// What a message says of its row.
    fn object<'a>(&self, message: &Record<'a>, value: Result<Option<Cow<'a, [u8]>>, String>) -> Object<'a> {
        match value {
            Ok(Some(value)) => Object::Text(value),
            Ok(None) => self.tombstone(message),
            Err(reason) => Object::Broken(reason),
        }
    }

    /// A message without a value: of an upsert relation a row with its key alone.
    fn tombstone<'a>(&self, message: &Record<'a>) -> Object<'a> {
        if self.key.is_empty() {
            return Object::Nothing;
        }
        match self.key_object(message.key) {
            Ok(object) => Object::Text(Cow::Owned(object.into_bytes())),
            Err(reason) => Object::Broken(reason),
        }
    }

    /// A message's key as an object of the key's columns: it is one, or it is the value of the only column.
    fn key_object(&self, key: Option<&[u8]>) -> Result<String, String> {
        let Some(key) = key else { return Err("neither a key nor a value".into()) };
        let text = std::str::from_utf8(key).map_err(|_| "the key's bytes aren't UTF-8".to_string())?;
        let text = match &self.format {
            MessageFormat::Json(_) => text.to_string(),
            MessageFormat::ConnectJson(_) => match connect_json::payload(key) {
                Ok(payload) => payload.unwrap_or_default().into_owned(),
                Err(_) => text.to_string(),
            },
        };
        let begins = text.trim_start().chars().next();
        if begins == Some('{') && (!self.has_text_key || is_json(&text)) {
            return Ok(text);
        }
        let [name] = self.key.as_slice() else {
            return Err(format!("the key isn't an object with {}", self.key.join(", ")));
        };
        let name = serde_json::Value::from(name.as_str());
        // A number keeps its text. A text is itself, unless it was written as JSON.
        let is_value = if self.has_text_key { text.starts_with('"') } else { begins != Some('[') };
        let value = if is_value && is_json(&text) { text } else { serde_json::Value::String(text).to_string() };
        Ok(format!("{{{name}:{value}}}"))
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

/// Columns that rows have a value in, but for those that only say that there is none of their key any more.
#[derive(Clone)]
pub(super) struct Needed(Arc<[usize]>);

impl Needed {
    /// Those of the contract that `landed`, the schema of an upsert relation's landed rows, lets be null all the same.
    pub(super) fn of(columns: &[ColumnSpec], landed: &SchemaRef) -> Self {
        let needed = columns.iter().filter(|column| !column.nullable);
        let places = needed.filter_map(|column| landed.index_of(&column.name.value).ok());
        Self(places.filter(|at| landed.field(*at).is_nullable()).collect())
    }

    /// Rows without those that lack a value.
    pub(super) fn applied(&self, decoded: Decoded) -> Result<Decoded> {
        let mut misfits = Misfits::new();
        for at in self.0.iter() {
            let column = decoded.fitting.column(*at);
            if column.null_count() == 0 {
                continue;
            }
            for row in (0..column.len()).filter(|row| column.is_null(*row)) {
                if !decoded.origin.is_tombstone(decoded.kept[row]) {
                    let reason = || null_reason(decoded.fitting.schema_ref().field(*at));
                    misfits.entry(row).or_insert_with(reason);
                }
            }
        }
        decoded.without(&misfits)
    }
}

/// Messages whose rows were read.
struct MessageRows {
    messages: Records,
    /// Of each message whether it says that its key has no row any more.
    tombstones: Vec<bool>,
    decoder: Arc<Decoder>,
}

impl Origin for MessageRows {
    fn hidden(&self, rows: &[usize]) -> Vec<ArrayRef> {
        let of = || rows.iter().map(|row| self.messages.get(*row));
        let arrivals = of().map(|message| self.decoder.arrivals.of(message.partition, message.offset));
        let times = of().map(|message| message.timestamp_ms.map(|ms| ms * 1000));
        let instants = |array: TimestampMicrosecondArray| Arc::new(array.with_timezone(Arc::clone(&self.decoder.zone)));
        vec![
            Arc::new(Int32Array::from_iter_values(of().map(|message| message.partition))),
            Arc::new(Int64Array::from_iter_values(of().map(|message| message.offset))),
            instants(TimestampMicrosecondArray::from_iter_values(arrivals)),
            Arc::new(of().map(|message| message.key.map(text_of)).collect::<StringArray>()),
            instants(times.collect()),
            Arc::new(of().map(|message| message.headers).collect::<StringArray>()),
            Arc::new(rows.iter().map(|row| Some(self.tombstones[*row])).collect::<BooleanArray>()),
        ]
    }

    fn is_tombstone(&self, index: usize) -> bool {
        self.tombstones[index]
    }

    fn refused(&self, index: usize, rule: &str, reason: String) -> Result<Refused> {
        let message = self.messages.get(index);
        let object = self.decoder.object(&message, self.decoder.value(&message));
        let cells = self.decoder.contract.cells_of_object(&object);
        let at = RefusedAt::Message { partition: message.partition, offset: message.offset };
        let raw = message.value.map(text_of).unwrap_or_default().into_owned();
        Ok(Refused { cells, rule: rule.to_string(), reason, at, raw })
    }
}
