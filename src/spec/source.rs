//! Reads a source and its columns.

use std::collections::BTreeMap;
use std::time::Duration;

use super::check::read_checks;
use super::check_zone;
use super::fault::Fault;
use super::fields::{Fields, Reader};
use super::kafka;
use super::keys::{self, KeyTable};
use super::names::check_column;
use super::sql_type::SqlType;
use super::tree::{Node, Value};
use super::types::{
    AfterTaken, CheckKind, ColumnSpec, ConnectorSpec, CsvOptions, FileFormat, FilesMode, FilesSpec, KafkaSpec, Located,
    MessageRelation, OnInvalid, SourceSpec, TextOptions,
};
use super::variables::shown;

/// Columns of every source besides its contract, last in its schema, in this order; `select *` doesn't show them.
/// `_source_file text, _source_row bigint, _topic text, _partition integer, _offset bigint, _ingested_at timestamptz,
/// _key text, _timestamp timestamptz, _headers text, _tombstone boolean`.
pub const HIDDEN_COLUMNS: [&str; 10] = [
    "_source_file",
    "_source_row",
    "_topic",
    "_partition",
    "_offset",
    "_ingested_at",
    "_key",
    "_timestamp",
    "_headers",
    "_tombstone",
];
/// Columns that the files of a sink have besides the table's.
pub const SINK_COLUMNS: [&str; 2] = ["_op", "_commit"];
/// Columns that quarantine tables have besides.
const QUARANTINE_COLUMNS: [&str; 4] = ["_rule", "_reason", "_raw", "_run"];
/// Formats of the contract that need a feature this build lacks.
pub(super) const LACKING_FORMATS: [&str; 4] = ["avro", "debezium-json", "debezium-avro", "protobuf"];
/// Keys that only files have.
const FILES_KEYS: [&str; 10] =
    ["path", "mode", "after", "settle", "allow_empty", "delimiter", "header", "quote", "escape", "encoding"];
/// Keys that only topics have.
const KAFKA_KEYS: [&str; 10] =
    ["brokers", "topic", "relation", "key", "history", "start", "on_gap", "watermark_delay", "idle_timeout", "on_late"];
/// Keys that only text formats have.
const TEXT_KEYS: [&str; 5] = ["timestamp_format", "timestamp_zone", "encoding", "null_values", "decimal_separator"];
/// Keys that only CSV has.
const CSV_KEYS: [&str; 4] = ["delimiter", "header", "quote", "escape"];

pub(super) fn read_source(reader: &mut Reader<'_>, name: &Located<String>, node: &Node) -> Option<SourceSpec> {
    // A connector that this build lacks is told once, not with each of its keys.
    let given = node.get("connector").filter(|node| !matches!(node.value, Value::Null));
    let connector = given.and_then(|node| reader.one_of(node, &["files", "kafka"], &[]));
    let fields = reader.fields_without(node, &keys::SOURCE, given.is_some() && connector.is_none())?;
    if given.is_none() && !fields.is_meant("connector") {
        let fault = Fault::error("missing_key", name.place.clone(), "`connector` is missing");
        reader.fault(fault.hint("write `connector: files`"));
    }
    let columns_at = reader.faults.len();
    let columns = fields.get("columns").map(|node| read_columns(reader, node, &keys::COLUMN)).unwrap_or_default();
    let is_contract_read = reader.faults.len() == columns_at && !fields.is_meant("columns");
    let connector = connector.and_then(|connector| {
        tell_idle_keys(reader, &fields, connector);
        match connector {
            "kafka" => kafka::read_kafka(reader, &fields, name).map(ConnectorSpec::Kafka),
            _ => read_files(reader, &fields, name).map(ConnectorSpec::Files),
        }
    });
    let is_parquet = |files: &FilesSpec| files.format == FileFormat::Parquet;
    let is_text = connector.as_ref().is_some_and(|c| !matches!(c, ConnectorSpec::Files(files) if is_parquet(files)));
    if is_text && columns.is_empty() && is_contract_read {
        let fault = Fault::error("missing_key", name.place.clone(), "`columns` is missing: text doesn't say its types");
        reader.fault(fault.hint("`tidemill init --from FILE` writes them"));
    }
    let is_contract_read = is_contract_read && !(is_text && columns.is_empty());
    let event_time = fields.get("event_time").and_then(|node| reader.word(node));
    let deduplicate = fields.get("deduplicate").map(|node| reader.names(node)).unwrap_or_default();
    if let (Some(place), None, false) = (fields.key_place("deduplicate"), &event_time, fields.is_meant("event_time"))
        && fields.get("event_time").is_none()
    {
        let message = "`deduplicate` keeps the first row by event time, but there is no `event_time`";
        let fault = Fault::error("missing_key", place.clone(), message);
        reader.fault(fault.hint("name the time column with `event_time:`"));
    }
    if let (Some(place), Some(ConnectorSpec::Kafka(KafkaSpec { relation: MessageRelation::Upsert(_), .. }))) =
        (fields.key_place("deduplicate"), &connector)
    {
        let message = "`deduplicate` has no effect on `relation: upsert`: the last message of a key is its one row";
        reader.fault(Fault::error("key_without_effect", place.clone(), message).hint("take it away"));
    }
    let on_invalid = fields.get("on_invalid");
    let mut source = SourceSpec {
        name: name.clone(),
        description: fields.get("description").and_then(|node| reader.text(node)).map(|text| text.value),
        // Only looked at again where there is one.
        connector: connector.clone().unwrap_or_else(|| ConnectorSpec::Files(no_files(name))),
        columns,
        event_time,
        on_invalid: match on_invalid.and_then(|node| reader.one_of(node, &["quarantine", "drop", "fail"], &[])) {
            Some("drop") => OnInvalid::Drop,
            Some("fail") => OnInvalid::Fail,
            _ => OnInvalid::Quarantine,
        },
        deduplicate,
        checks: fields.get("checks").map(|node| read_checks(reader, node)).unwrap_or_default(),
        serve: fields.get("serve").and_then(|node| reader.boolean(node)).unwrap_or(false),
        tags: fields.get("tags").map(|node| reader.names(node)).unwrap_or_default(),
    };
    if is_contract_read {
        check_references(reader, &mut source);
    }
    if connector.is_some() {
        check_nested(reader, &source);
    }
    connector.filter(|_| is_contract_read).map(|_| source)
}

/// Stands in for the files of a source that is read for its faults alone.
fn no_files(name: &Located<String>) -> FilesSpec {
    FilesSpec {
        path: Located { value: String::new(), place: name.place.clone() },
        format: FileFormat::Parquet,
        mode: FilesMode::Snapshot,
        after: AfterTaken::Keep,
        settle: Duration::ZERO,
        allow_empty: false,
        archive: false,
        options: BTreeMap::new(),
    }
}

/// Tells columns that the contract lacks; takes out what names them, so that it isn't told again.
fn check_references(reader: &mut Reader<'_>, source: &mut SourceSpec) {
    let contract = source.clone();
    if let Some(column) = &source.event_time
        && check_column(reader, column, &contract)
        && let Some(found) = contract.columns.iter().find(|known| known.name.value == column.value)
        && !matches!(found.data_type.value, SqlType::Timestamp | SqlType::TimestampTz | SqlType::Date)
    {
        let message = format!(
            "`{}` is {}, and an event time is a timestamptz, timestamp or date",
            column.value, found.data_type.value
        );
        reader.fault(Fault::error("wrong_type", column.place.clone(), message));
    }
    source.deduplicate.retain(|column| check_column(reader, column, &contract));
    if let ConnectorSpec::Kafka(KafkaSpec { relation: MessageRelation::Upsert(key), .. }) = &mut source.connector {
        key.retain(|column| check_column(reader, column, &contract));
    }
    source.checks.retain(|check| {
        let columns: Vec<&Located<String>> = match &check.kind {
            CheckKind::Expression(_) => Vec::new(),
            CheckKind::Unique(columns) | CheckKind::NotNull(columns) => columns.iter().collect(),
            CheckKind::AcceptedValues { column, .. }
            | CheckKind::Relationships { column, .. }
            | CheckKind::Freshness { column, .. } => vec![column],
        };
        // Every column is looked at, also behind one that is wrong.
        columns.into_iter().filter(|column| !check_column(reader, column, &contract)).count() == 0
    });
}

/// Tells columns whose type the format has no values of.
fn check_nested(reader: &mut Reader<'_>, source: &SourceSpec) {
    for column in &source.columns {
        let of = &column.data_type.value;
        let (what, hint) = match &source.connector {
            ConnectorSpec::Files(FilesSpec { format: FileFormat::Csv(_), .. }) if of.is_nested() => (
                format!("a field of CSV holds one value, and `{of}` is more than one"),
                "declare it json, and reach into it with `->>`",
            ),
            ConnectorSpec::Files(FilesSpec { format: FileFormat::Parquet, .. })
                if of.has(&|of| *of == SqlType::Json) =>
            {
                (
                    "Parquet has no values of type json, only text".to_string(),
                    "declare it text: `->>` reaches into that too",
                )
            }
            ConnectorSpec::Kafka(KafkaSpec { relation: MessageRelation::Upsert(key), .. })
                if of.is_nested() && key.iter().any(|key| key.value == column.name.value) =>
            {
                (format!("a key holds one value a column, and `{of}` is more than one"), "declare it json")
            }
            _ => continue,
        };
        reader.fault(Fault::error("wrong_type", column.data_type.place.clone(), what).hint(hint));
    }
}

/// Reads `columns` of a source or model.
pub(super) fn read_columns(reader: &mut Reader<'_>, node: &Node, table: &'static KeyTable) -> Vec<ColumnSpec> {
    let mut columns: Vec<ColumnSpec> = Vec::new();
    for (name, value) in reader.named(node, "column names with their types") {
        if HIDDEN_COLUMNS.iter().chain(&QUARANTINE_COLUMNS).any(|reserved| *reserved == name.value) {
            let message = format!("`{}` is a column that Tidemill adds by itself", name.value);
            reader.fault(Fault::error("reserved_name", name.place.clone(), message));
        } else if name.value.trim().is_empty() {
            reader.fault(Fault::error("wrong_name", name.place.clone(), "a column needs a name"));
        } else {
            columns.extend(read_column(reader, name, value, table));
        }
    }
    columns
}

fn read_column(
    reader: &mut Reader<'_>,
    name: &Located<String>,
    node: &Node,
    table: &'static KeyTable,
) -> Option<ColumnSpec> {
    let short = |data_type| ColumnSpec {
        name: name.clone(),
        data_type,
        nullable: true,
        timestamp_format: None,
        description: None,
        tags: Vec::new(),
    };
    match node.value {
        Value::Null => {
            let fault = Fault::error("missing_key", name.place.clone(), format!("`{}` has no type", name.value));
            reader.fault(fault.hint(format!("such as `{}: text`", name.value)));
            None
        }
        Value::Map(_) => {
            let fields = reader.fields(node, table)?;
            let data_type = fields.require(reader, "type", &name.place).and_then(|node| read_type(reader, node));
            let column = ColumnSpec {
                nullable: fields.get("nullable").and_then(|node| reader.boolean(node)).unwrap_or(true),
                description: fields.get("description").and_then(|node| reader.text(node)).map(|text| text.value),
                tags: fields.get("tags").map(|node| reader.names(node)).unwrap_or_default(),
                timestamp_format: fields.get("timestamp_format").and_then(|node| read_timestamp_format(reader, node)),
                ..short(Located { value: SqlType::Text, place: node.place.clone() })
            };
            let data_type = data_type?;
            let is_time =
                |of: &SqlType| matches!(of, SqlType::Timestamp | SqlType::TimestampTz | SqlType::Date | SqlType::Time);
            if let (Some(place), false) = (fields.key_place("timestamp_format"), data_type.value.has(&is_time)) {
                let message = format!("`timestamp_format` has no effect on {}", data_type.value);
                reader.fault(Fault::error("key_without_effect", place.clone(), message));
            }
            Some(ColumnSpec { data_type, ..column })
        }
        _ => read_type(reader, node).map(short),
    }
}

/// Reads a strftime format.
fn read_timestamp_format(reader: &mut Reader<'_>, node: &Node) -> Option<Located<String>> {
    let text = reader.word(node)?;
    if chrono::format::StrftimeItems::new(&text.value).any(|item| item == chrono::format::Item::Error) {
        let message = format!("`{}` isn't a strftime format", shown(&text.value, &text.place));
        let fault = Fault::error("wrong_value", text.place.clone(), message);
        reader.fault(fault.hint("such as \"%Y-%m-%d %H:%M:%S\""));
    }
    Some(text)
}

/// Reads a SQL type.
pub(super) fn read_type(reader: &mut Reader<'_>, node: &Node) -> Option<Located<SqlType>> {
    let text = reader.word(node)?;
    match SqlType::parse(&text.value) {
        Ok(value) => Some(Located { value, place: text.place }),
        Err((message, hint)) => {
            let message = match shown(&text.value, &text.place) {
                same if same == text.value => message,
                variable => format!("expected a SQL type, and `{variable}` holds none"),
            };
            let fault = Fault::error("unknown_type", text.place, message);
            reader.fault(Fault { hint, ..fault });
            None
        }
    }
}

/// Tells keys of the other connector.
fn tell_idle_keys(reader: &mut Reader<'_>, fields: &Fields<'_>, connector: &str) {
    let idle: &[&str] = if connector == "kafka" { &FILES_KEYS } else { &KAFKA_KEYS };
    for key in idle {
        if let (Some(_), Some(place)) = (fields.get(key), fields.key_place(key)) {
            let message = format!("`{key}` has no effect on a {connector} source");
            let fault = Fault::error("key_without_effect", place.clone(), message);
            reader.fault(fault.hint("take it away; in an overlay, set it to null"));
        }
    }
}

fn read_files(reader: &mut Reader<'_>, fields: &Fields<'_>, name: &Located<String>) -> Option<FilesSpec> {
    let path = fields.need(reader, "path", &name.place);
    let format = fields.require(reader, "format", &name.place);
    let path = path.and_then(|n| reader.word(n));
    let format = format.and_then(|n| read_format(reader, fields, n));
    let mode = match fields.get("mode").map(|n| reader.one_of(n, &["snapshot", "append"], &[])) {
        // With a mode that can't be read, `after` is given the benefit of the doubt.
        Some(Some("append") | None) => FilesMode::Append,
        _ => FilesMode::Snapshot,
    };
    let after = fields.get("after").and_then(|n| read_after(reader, n)).unwrap_or(AfterTaken::Keep);
    if after != AfterTaken::Keep
        && mode == FilesMode::Snapshot
        && let Some(place) = fields.key_place("after")
    {
        reader.fault(
            Fault::error(
                "wrong_value",
                place.clone(),
                "files of a snapshot can't be moved or deleted: its rows would go with them",
            )
            .hint("write `mode: append` for a folder that files land in"),
        );
    }
    let archive = fields.get("archive").and_then(|n| reader.boolean(n));
    if archive == Some(false)
        && (mode == FilesMode::Append || !matches!(format, Some(FileFormat::Parquet) | None))
        && let Some(place) = fields.key_place("archive")
    {
        let fault = Fault::error(
            "wrong_value",
            place.clone(),
            "models are made of rows that are kept, so they can't be let go",
        );
        reader.fault(
            fault.hint(
                "take `archive` away: it is a choice for topics, and for Parquet files, which can be read in place",
            ),
        );
    }
    let options = reader.text_map(fields.get("options"), "options of the object store");
    let settle = fields.get("settle").and_then(|n| reader.duration(n)).unwrap_or(Duration::from_secs(2));
    let allow_empty = fields.get("allow_empty").and_then(|n| reader.boolean(n)).unwrap_or(false);
    let archive = archive.unwrap_or(false);
    Some(FilesSpec { path: path?, format: format?, mode, after, settle, allow_empty, archive, options })
}

fn read_after(reader: &mut Reader<'_>, node: &Node) -> Option<AfterTaken> {
    if let Value::Map(_) = node.value {
        let fields = reader.fields(node, &keys::AFTER)?;
        let folder = fields.require(reader, "move", &node.place)?;
        return reader.word(folder).map(|folder| AfterTaken::Move(folder.value));
    }
    if reader.scalar(node, "keep, delete or { move: FOLDER }")?.text == "move" {
        let fault = Fault::error("wrong_value", node.place.clone(), "`after: move` needs the folder to move files to");
        reader.fault(fault.hint("write `after: { move: FOLDER }`"));
        return None;
    }
    match reader.one_of(node, &["keep", "delete"], &[])? {
        "delete" => Some(AfterTaken::Delete),
        _ => Some(AfterTaken::Keep),
    }
}

fn read_format(reader: &mut Reader<'_>, fields: &Fields<'_>, node: &Node) -> Option<FileFormat> {
    let lacking = [&LACKING_FORMATS[..], &["connect-json"]].concat();
    let format = reader.one_of(node, &["csv", "json", "parquet"], &lacking)?;
    let idle: Vec<&str> = match format {
        "csv" => Vec::new(),
        "json" => CSV_KEYS.to_vec(),
        _ => CSV_KEYS.iter().chain(&TEXT_KEYS).copied().collect(),
    };
    for key in idle {
        if let (Some(_), Some(place)) = (fields.get(key), fields.key_place(key)) {
            let message = format!("`{key}` has no effect on {format} files");
            reader.fault(
                Fault::error("key_without_effect", place.clone(), message)
                    .hint("take it away; in an overlay, set it to null"),
            );
        }
    }
    Some(match format {
        "parquet" => FileFormat::Parquet,
        "json" => FileFormat::Json(read_text_options(reader, fields)),
        _ => FileFormat::Csv(read_csv_options(reader, fields)),
    })
}

fn read_csv_options(reader: &mut Reader<'_>, fields: &Fields<'_>) -> CsvOptions {
    let options = CsvOptions {
        delimiter: fields.get("delimiter").and_then(|n| reader.character(n)).unwrap_or(b','),
        header: fields.get("header").and_then(|n| reader.boolean(n)).unwrap_or(true),
        quote: fields.get("quote").and_then(|n| reader.character(n)).unwrap_or(b'"'),
        escape: fields.get("escape").and_then(|n| reader.character(n)),
        text: read_text_options(reader, fields),
    };
    let place = fields.key_place("quote").or(fields.key_place("delimiter"));
    if let (Some(place), true) = (place, options.quote == options.delimiter) {
        reader.fault(Fault::error("wrong_value", place.clone(), "`quote` and `delimiter` are the same character"));
    }
    options
}

pub(super) fn read_text_options(reader: &mut Reader<'_>, fields: &Fields<'_>) -> TextOptions {
    let timestamp_zone = fields.get("timestamp_zone").and_then(|n| reader.word(n));
    if let Some(zone) = &timestamp_zone {
        check_zone(reader, zone);
    }
    let encoding = fields.get("encoding").and_then(|n| reader.word(n));
    if let Some(label) = &encoding
        && encoding_rs::Encoding::for_label(label.value.as_bytes()).is_none()
    {
        let message = format!("there is no encoding `{}`", shown(&label.value, &label.place));
        reader.fault(
            Fault::error("wrong_value", label.place.clone(), message).hint("such as utf-8, latin1, windows-1252"),
        );
    }
    let null_values = fields.get("null_values").map(|n| {
        // A bare `null` among them is meant as that text.
        let items = reader.items(n);
        items
            .iter()
            .filter_map(|item| match item.value {
                Value::Null => Some(item.place.text().to_string()),
                _ => reader.text(item).map(|t| t.value),
            })
            .collect()
    });
    TextOptions {
        timestamp_format: fields.get("timestamp_format").and_then(|n| read_timestamp_format(reader, n)),
        timestamp_zone,
        encoding,
        null_values,
        decimal_separator: fields.get("decimal_separator").and_then(|n| reader.character(n)).map_or('.', char::from),
    }
}
