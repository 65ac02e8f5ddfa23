//! The SQL types of a column contract and their Arrow types. Knows no DataFusion.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};

/// A column's SQL type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SqlType {
    /// `boolean`
    Boolean,
    /// `smallint`, 16 bits
    SmallInt,
    /// `integer`, 32 bits
    Integer,
    /// `bigint`, 64 bits
    BigInt,
    /// `real`, 32 bits
    Real,
    /// `double`, 64 bits
    Double,
    /// `decimal(precision, scale)`, up to 38 digits
    Decimal(u8, i8),
    /// `text`
    Text,
    /// `bytea`
    Bytea,
    /// `date`
    Date,
    /// `time`, microseconds of the day
    Time,
    /// `timestamp`: a wall-clock time in microseconds, never shifted
    Timestamp,
    /// `timestamptz`: an instant in microseconds
    TimestampTz,
    /// `json`: any JSON value, kept as the text that it was written as
    Json,
    /// `bigint[]`: values of one type, each may be null
    List(Box<SqlType>),
    /// `struct<id bigint, name text>`: fields by name, each may be null
    Struct(Vec<(String, SqlType)>),
}

/// What Arrow calls the values of a list, as tables have them: a list by another name is another type to the engine.
pub const LIST_ITEM: &str = "element";

/// Names of types as they are told to users.
pub(super) const NAMES: [&str; 14] = [
    "boolean",
    "smallint",
    "integer",
    "bigint",
    "real",
    "double",
    "decimal",
    "text",
    "bytea",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "json",
];

impl SqlType {
    /// Reads the name of a type that holds one value, case aside, with the usual synonyms.
    pub(super) fn parse_scalar(text: &str) -> Result<Self, (String, Option<String>)> {
        let lower = text.trim().to_lowercase();
        let (name, arguments) = match lower.split_once('(') {
            Some((name, rest)) => match rest.strip_suffix(')') {
                Some(arguments) => (name.trim(), Some(arguments)),
                None => return Err((format!("`{text}` lacks its closing parenthesis"), None)),
            },
            None => (lower.as_str(), None),
        };
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        let plain = match name.as_str() {
            "decimal" | "numeric" => return decimal(text, arguments),
            "boolean" | "bool" => Self::Boolean,
            "smallint" | "int2" => Self::SmallInt,
            "integer" | "int" | "int4" => Self::Integer,
            "bigint" | "int8" => Self::BigInt,
            "real" | "float4" => Self::Real,
            "double" | "double precision" | "float8" | "float" => Self::Double,
            "text" | "varchar" | "string" | "char" | "character varying" => Self::Text,
            "bytea" | "bytes" | "binary" | "blob" => Self::Bytea,
            "date" => Self::Date,
            "time" => Self::Time,
            "timestamp" | "datetime" | "timestamp without time zone" => Self::Timestamp,
            "timestamptz" | "timestamp with time zone" => Self::TimestampTz,
            "json" => Self::Json,
            _ => {
                let near = crate::spec::nearest(&name, NAMES).map(|near| format!("did you mean `{near}`?"));
                return Err((
                    format!("expected a SQL type, found `{text}`"),
                    near.or_else(|| {
                        Some(format!("types are {}, lists `text[]`, `struct<name type, …>`", NAMES.join(", ")))
                    }),
                ));
            }
        };
        match arguments {
            None => Ok(plain),
            Some(_) if plain == Self::Text => Err((
                format!("text has no length here, found `{text}`"),
                Some("write `text`; a check can limit the length".into()),
            )),
            Some(_) => Err((format!("`{plain}` takes no arguments"), Some(format!("write `{plain}`")))),
        }
    }

    /// The Arrow type in memory; `zone` is the project's.
    pub fn to_arrow(&self, zone: &str) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::SmallInt => DataType::Int16,
            Self::Integer => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Real => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Decimal(precision, scale) => DataType::Decimal128(*precision, *scale),
            Self::Text | Self::Json => DataType::Utf8View,
            Self::Bytea => DataType::BinaryView,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into())),
            Self::List(item) => DataType::List(Arc::new(Field::new(LIST_ITEM, item.to_arrow(zone), true))),
            Self::Struct(fields) => {
                DataType::Struct(fields.iter().map(|(name, of)| Field::new(name, of.to_arrow(zone), true)).collect())
            }
        }
    }

    /// Whether it is a list or a struct.
    pub fn is_nested(&self) -> bool {
        matches!(self, Self::List(_) | Self::Struct(_))
    }

    /// Whether it, or a type inside it, passes `test`.
    pub fn has(&self, test: &dyn Fn(&Self) -> bool) -> bool {
        let inside = match self {
            Self::List(item) => item.has(test),
            Self::Struct(fields) => fields.iter().any(|(_, of)| of.has(test)),
            _ => false,
        };
        inside || test(self)
    }
}

fn decimal(text: &str, arguments: Option<&str>) -> Result<SqlType, (String, Option<String>)> {
    let hint = || Some("write it as \"decimal(12, 2)\": digits in all, digits after the point".to_string());
    let Some(arguments) = arguments else {
        return Err((format!("`{text}` lacks its precision and scale"), hint()));
    };
    let numbers: Vec<Option<u8>> = arguments.split(',').map(|n| n.trim().parse().ok()).collect();
    let (precision, scale) = match numbers.as_slice() {
        [Some(precision)] => (*precision, 0),
        [Some(precision), Some(scale)] => (*precision, *scale),
        _ => return Err((format!("expected decimal(precision, scale), found `{text}`"), hint())),
    };
    if !(1..=38).contains(&precision) || scale > precision {
        return Err((format!("a decimal has 1 to 38 digits, no more of them after the point, found `{text}`"), hint()));
    }
    Ok(SqlType::Decimal(precision, i8::try_from(scale).unwrap_or(0)))
}

impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Boolean => "boolean",
            Self::SmallInt => "smallint",
            Self::Integer => "integer",
            Self::BigInt => "bigint",
            Self::Real => "real",
            Self::Double => "double",
            Self::Decimal(precision, scale) => return write!(f, "decimal({precision}, {scale})"),
            Self::Text => "text",
            Self::Bytea => "bytea",
            Self::Date => "date",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::TimestampTz => "timestamptz",
            Self::Json => "json",
            Self::List(item) => return write!(f, "{item}[]"),
            Self::Struct(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|(name, of)| format!("{} {of}", field_name(name))).collect();
                return write!(f, "struct<{}>", fields.join(", "));
            }
        };
        f.write_str(name)
    }
}

/// A struct's field as it is written in its type.
pub fn field_name(name: &str) -> String {
    let is_plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if is_plain { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}
