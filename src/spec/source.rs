//! Reads a source and its columns.

use std::collections::BTreeMap;
use std::time::Duration;

use super::check::read_checks;
use super::fault::{Fault, Place};
use super::fields::{Fields, Reader, is_plain};
use super::keys;
use super::sql_type::SqlType;
use super::tree::{Node, Value};
use super::types::{
    AfterTaken, ColumnSpec, ConnectorSpec, CsvOptions, FileFormat, FilesMode, FilesSpec, Located, OnInvalid,
    SourceSpec, TextOptions,
};
use super::{check_zone, is_name, nearest};

/// Columns that Tidemill adds to every source or quarantine table.
const RESERVED_COLUMNS: [&str; 10] = [
    "_source_file",
    "_source_row",
    "_topic",
    "_partition",
    "_offset",
    "_ingested_at",
    "_rule",
    "_reason",
    "_raw",
    "_run",
];
/// Formats of the contract that need a feature this build lacks.
const LACKING_FORMATS: [&str; 4] = ["connect-json", "avro", "debezium-json", "debezium-avro"];
/// Keys that only text formats have.
const TEXT_KEYS: [&str; 5] = ["timestamp_format", "timestamp_zone", "encoding", "null_values", "decimal_separator"];
/// Keys that only CSV has.
const CSV_KEYS: [&str; 4] = ["delimiter", "header", "quote", "escape"];

pub(super) fn read_source(reader: &mut Reader<'_>, name: &Located<String>, node: &Node) -> Option<SourceSpec> {
    // A connector that this build lacks is told once, not with each of its keys.
    let connector = node.get("connector");
    if connector.is_none() {
        reader.fault(
            Fault::error("missing_key", name.place.clone(), "`connector` is missing").hint("write `connector: files`"),
        );
        return None;
    }
    if let Some(connector) = connector {
        reader.one_of(connector, &["files"], &["kafka", "http", "postgres", "mysql", "redis"])?;
    }
    let fields = reader.fields(node, &keys::SOURCE)?;
    let columns = fields.get("columns").map(|n| read_columns(reader, n)).unwrap_or_default();
    let connector = ConnectorSpec::Files(read_files(reader, &fields, name)?);
    let needs_columns = matches!(&connector, ConnectorSpec::Files(files) if files.format != FileFormat::Parquet);
    if needs_columns && fields.get("columns").is_none() {
        reader.fault(
            Fault::error("missing_key", name.place.clone(), "`columns` is missing: text files don't say their types")
                .hint("`tidemill init --from FILE` writes them"),
        );
    }
    let event_time = fields.get("event_time").and_then(|n| reader.text(n));
    let deduplicate = fields.get("deduplicate").map(|n| reader.names(n)).unwrap_or_default();
    if let (Some(place), None) = (fields.key_place("deduplicate"), &event_time) {
        let fault = Fault::error(
            "missing_key",
            place.clone(),
            "`deduplicate` keeps the first row by event time, but there is no `event_time`",
        );
        reader.fault(fault.hint("name the time column with `event_time:`"));
    }
    let checks = fields.get("checks").map(|n| read_checks(reader, n)).unwrap_or_default();
    if !columns.is_empty() {
        let known: Vec<&str> = columns.iter().map(|c| c.name.value.as_str()).collect();
        for column in event_time.iter().chain(&deduplicate) {
            check_column(reader, column, &known, &name.value);
        }
    }
    Some(SourceSpec {
        name: name.clone(),
        description: fields.get("description").and_then(|n| reader.text(n)).map(|t| t.value),
        connector,
        columns,
        event_time,
        on_invalid: match fields.get("on_invalid").and_then(|n| reader.one_of(n, &["quarantine", "drop", "fail"], &[]))
        {
            Some("drop") => OnInvalid::Drop,
            Some("fail") => OnInvalid::Fail,
            _ => OnInvalid::Quarantine,
        },
        deduplicate,
        checks,
        serve: fields.get("serve").and_then(|n| reader.boolean(n)).unwrap_or(false),
        tags: fields.get("tags").map(|n| reader.names(n)).unwrap_or_default(),
    })
}

fn check_column(reader: &mut Reader<'_>, column: &Located<String>, known: &[&str], of: &str) {
    if known.contains(&column.value.as_str()) {
        return;
    }
    let mut fault =
        Fault::error("unknown_column", column.place.clone(), format!("`{of}` has no column `{}`", column.value));
    if let Some(near) = nearest(&column.value, known.iter().copied()) {
        fault = fault.hint(format!("did you mean `{near}`?"));
    }
    reader.fault(fault);
}

/// Reads `columns` of a source or model.
pub(super) fn read_columns(reader: &mut Reader<'_>, node: &Node) -> Vec<ColumnSpec> {
    let mut columns: Vec<ColumnSpec> = Vec::new();
    for (name, value) in reader.named(node, "column names with their types") {
        if RESERVED_COLUMNS.contains(&name.value.as_str()) {
            let message = format!("`{}` is a column that Tidemill adds by itself", name.value);
            reader.fault(Fault::error("reserved_name", name.place.clone(), message));
            continue;
        }
        if let Some(column) = read_column(reader, name, value) {
            columns.push(column);
        }
    }
    columns
}

fn read_column(reader: &mut Reader<'_>, name: &Located<String>, node: &Node) -> Option<ColumnSpec> {
    let mut column = ColumnSpec {
        name: name.clone(),
        data_type: Located { value: SqlType::Text, place: node.place.clone() },
        nullable: true,
        timestamp_format: None,
        description: None,
        tags: Vec::new(),
    };
    if let Value::Map(_) = node.value {
        let fields = reader.fields(node, &keys::COLUMN)?;
        let data_type = fields.require(reader, "type", &name.place)?;
        column.data_type = read_type(reader, data_type)?;
        column.nullable = fields.get("nullable").and_then(|n| reader.boolean(n)).unwrap_or(true);
        column.description = fields.get("description").and_then(|n| reader.text(n)).map(|t| t.value);
        column.tags = fields.get("tags").map(|n| reader.names(n)).unwrap_or_default();
        column.timestamp_format = fields.get("timestamp_format").and_then(|n| reader.text(n));
    } else if matches!(node.value, Value::Null) {
        reader.fault(Fault::error("missing_key", name.place.clone(), format!("`{}` has no type", name.value)));
        return None;
    } else {
        column.data_type = read_type(reader, node)?;
    }
    Some(column)
}

/// Reads a SQL type.
pub(super) fn read_type(reader: &mut Reader<'_>, node: &Node) -> Option<Located<SqlType>> {
    let text = reader.text(node)?;
    match SqlType::parse(&text.value) {
        Ok(value) => Some(Located { value, place: text.place }),
        Err((message, hint)) => {
            let fault = Fault::error("unknown_type", text.place, message);
            reader.fault(Fault { hint, ..fault });
            None
        }
    }
}

fn read_files(reader: &mut Reader<'_>, fields: &Fields<'_>, name: &Located<String>) -> Option<FilesSpec> {
    let path = fields.require(reader, "path", &name.place);
    let format = fields.require(reader, "format", &name.place);
    let path = path.and_then(|n| reader.text(n));
    let format = format.and_then(|n| read_format(reader, fields, n));
    let mode = match fields.get("mode").and_then(|n| reader.one_of(n, &["snapshot", "append"], &[])) {
        Some("append") => FilesMode::Append,
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
    let mut options = BTreeMap::new();
    if let Some(node) = fields.get("options") {
        for (key, value) in reader.named(node, "options of the object store") {
            if let Some(text) = reader.text(value) {
                options.insert(key.value.clone(), text.value);
            }
        }
    }
    let settle = fields.get("settle").and_then(|n| reader.duration(n)).unwrap_or(Duration::from_secs(2));
    let allow_empty = fields.get("allow_empty").and_then(|n| reader.boolean(n)).unwrap_or(false);
    Some(FilesSpec { path: path?, format: format?, mode, after, settle, allow_empty, options })
}

fn read_after(reader: &mut Reader<'_>, node: &Node) -> Option<AfterTaken> {
    if let Value::Map(_) = node.value {
        let fields = reader.fields(node, &keys::AFTER)?;
        let folder = fields.require(reader, "move", &node.place)?;
        return reader.text(folder).map(|folder| AfterTaken::Move(folder.value));
    }
    if reader.scalar(node, "keep, delete or { move: FOLDER }")?.text == "move" {
        let fault = Fault::error("wrong_value", node.place.clone(), "where to?");
        reader.fault(fault.hint("write `after: { move: FOLDER }`"));
        return None;
    }
    match reader.one_of(node, &["keep", "delete", "move"], &[])? {
        "delete" => Some(AfterTaken::Delete),
        _ => Some(AfterTaken::Keep),
    }
}

fn read_format(reader: &mut Reader<'_>, fields: &Fields<'_>, node: &Node) -> Option<FileFormat> {
    let format = reader.one_of(node, &["csv", "json", "parquet"], &LACKING_FORMATS)?;
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
    CsvOptions {
        delimiter: fields.get("delimiter").and_then(|n| reader.character(n)).unwrap_or(b','),
        header: fields.get("header").and_then(|n| reader.boolean(n)).unwrap_or(true),
        quote: fields.get("quote").and_then(|n| reader.character(n)).unwrap_or(b'"'),
        escape: fields.get("escape").and_then(|n| reader.character(n)),
        text: read_text_options(reader, fields),
    }
}

fn read_text_options(reader: &mut Reader<'_>, fields: &Fields<'_>) -> TextOptions {
    let timestamp_zone = fields.get("timestamp_zone").and_then(|n| reader.text(n));
    if let Some(zone) = &timestamp_zone {
        check_zone(reader, zone);
    }
    let encoding = fields.get("encoding").and_then(|n| reader.text(n));
    if let Some(label) = &encoding
        && encoding_rs::Encoding::for_label(label.value.as_bytes()).is_none()
    {
        let message = format!("there is no encoding `{}`", label.value);
        reader.fault(
            Fault::error("wrong_value", label.place.clone(), message).hint("such as utf-8, latin1, windows-1252"),
        );
    }
    let null_values = fields.get("null_values").map(|n| {
        // An empty text among them is meant: it reads as null in YAML.
        let items = reader.items(n);
        items
            .iter()
            .filter_map(|item| match item.value {
                Value::Null if is_plain(item) => None,
                Value::Null => Some(item.place.text().to_string()),
                _ => reader.text(item).map(|t| t.value),
            })
            .collect()
    });
    TextOptions {
        timestamp_format: fields.get("timestamp_format").and_then(|n| reader.text(n)),
        timestamp_zone,
        encoding,
        null_values,
        decimal_separator: fields.get("decimal_separator").and_then(|n| reader.character(n)).map_or('.', char::from),
    }
}

/// Checks that a name can stand unquoted in SQL.
pub(super) fn check_name(reader: &mut Reader<'_>, name: &str, place: &Place, of: &str) {
    if !is_name(name) {
        let lower: String =
            name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let fault = Fault::error(
            "wrong_name",
            place.clone(),
            format!("`{name}` can't name {of}: names are lower-case letters, digits and `_`"),
        );
        reader.fault(fault.hint(format!("write `{lower}`")));
    }
}
