//! `->`, `->>` and the functions of JSON text. A value that is looked up keeps its text: no number is rounded on the way.
//!
//! Keys go down: a name into an object, a number into a list, from 0, or from −1 backwards. What isn't there, JSON's null, and
//! text that isn't JSON give null. Knows no columns.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Float64Builder, Int64Array, Int64Builder, ListBuilder, StringViewBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_datafusion_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::json_text::{Members, items, text};

/// What a function tells of the value that its keys lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Told {
    /// Its JSON text: `->`.
    Json,
    /// A string's characters, or the JSON text of everything else: `->>`.
    Text,
    /// A string.
    String,
    /// A whole number of 64 bits.
    Integer,
    /// A number.
    Float,
    /// True or false.
    Boolean,
    /// Whether there is one, null included.
    Presence,
    /// How many values or members it has.
    Length,
    /// The names of its members.
    Keys,
    /// JSON texts of its values.
    Items,
}

const FUNCTIONS: [(&str, Told); 10] = [
    ("json_get", Told::Json),
    ("json_as_text", Told::Text),
    ("json_get_str", Told::String),
    ("json_get_int", Told::Integer),
    ("json_get_float", Told::Float),
    ("json_get_bool", Told::Boolean),
    ("json_contains", Told::Presence),
    ("json_length", Told::Length),
    ("json_object_keys", Told::Keys),
    ("json_get_array", Told::Items),
];

/// What is wrong with a call on another type than text.
pub const NOT_TEXT: &str = "`->`, `->>` and functions of JSON read text, and this is of another type";
/// What is wrong with a key of another type.
pub const WRONG_KEY: &str = "a key that reaches into JSON is text or a whole number, and this is neither";

/// All functions of JSON text.
pub fn json_functions() -> impl Iterator<Item = ScalarUDF> {
    FUNCTIONS.into_iter().map(|(name, told)| ScalarUDF::from(JsonFunction::new(name, told)))
}

/// Plans `->` as `json_get` and `->>` as `json_as_text`.
#[derive(Debug)]
pub struct JsonOperators {
    get: Arc<ScalarUDF>,
    as_text: Arc<ScalarUDF>,
}

impl Default for JsonOperators {
    fn default() -> Self {
        let [(get, json), (as_text, text), ..] = FUNCTIONS;
        let function = |name, told| Arc::new(ScalarUDF::from(JsonFunction::new(name, told)));
        Self { get: function(get, json), as_text: function(as_text, text) }
    }
}

impl ExprPlanner for JsonOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let func = match expr.op {
            BinaryOperator::Arrow => Arc::clone(&self.get),
            BinaryOperator::LongArrow => Arc::clone(&self.as_text),
            _ => return Ok(PlannerResult::Original(expr)),
        };
        // A chain is one call, so that the text is read once.
        let mut args = match expr.left {
            Expr::ScalarFunction(inner) if inner.func.name() == self.get.name() => inner.args,
            left => vec![left],
        };
        args.push(expr.right);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction { func, args })))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonFunction {
    name: &'static str,
    told: Told,
    signature: Signature,
}

impl JsonFunction {
    fn new(name: &'static str, told: Told) -> Self {
        Self { name, told, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for JsonFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let Some((json, keys)) = types.split_first() else {
            return plan_err!("{}() needs JSON text, and keys to go down by", self.name);
        };
        if !(json.is_string() || json.is_null()) {
            return plan_err!("{NOT_TEXT}");
        }
        let mut wanted = vec![DataType::Utf8View];
        for key in keys {
            wanted.push(match key {
                key if key.is_integer() => DataType::Int64,
                key if key.is_string() || key.is_null() => DataType::Utf8View,
                _ => return plan_err!("{WRONG_KEY}"),
            });
        }
        Ok(wanted)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.told {
            Told::Json | Told::Text | Told::String => DataType::Utf8View,
            Told::Integer | Told::Length => DataType::Int64,
            Told::Float => DataType::Float64,
            Told::Boolean | Told::Presence => DataType::Boolean,
            Told::Keys | Told::Items => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8View, true))),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let (Some(json), keys) = (args.args.first(), args.args.iter().skip(1)) else {
            return plan_err!("{}() needs JSON text", self.name);
        };
        let json = cast(&json.to_array(rows)?, &DataType::Utf8View)?;
        let keys = keys.map(|key| Key::of(key, rows)).collect::<Result<Vec<_>>>()?;
        let json = json.as_string_view();
        let found = (0..rows).map(|row| {
            let text = json.is_valid(row).then(|| json.value(row))?;
            // Each step reads all of its text, so that a text that breaks off has no values at all.
            if keys.is_empty() {
                text_of_whole(text)
            } else {
                keys.iter().try_fold(text, |text, key| key.step(text, row))
            }
        });
        let array = told(self.told, found);
        if is_constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
        }
        Ok(ColumnarValue::Array(array))
    }
}

fn text_of_whole(text: &str) -> Option<&str> {
    super::json_text::is_json(text).then(|| text.trim_ascii())
}

/// A key of a call.
enum Key {
    Name(String),
    Index(i64),
    Names(ArrayRef),
    Indices(Int64Array),
}

impl Key {
    fn of(value: &ColumnarValue, rows: usize) -> Result<Self> {
        Ok(match value {
            ColumnarValue::Scalar(ScalarValue::Int64(Some(index))) => Self::Index(*index),
            ColumnarValue::Scalar(scalar) if let Some(Some(name)) = scalar.try_as_str() => Self::Name(name.to_owned()),
            other => {
                let array = other.to_array(rows)?;
                match array.as_primitive_opt::<Int64Type>() {
                    Some(indices) => Self::Indices(indices.clone()),
                    None if array.data_type().is_string() => Self::Names(cast(&array, &DataType::Utf8View)?),
                    None => return Err(exec_datafusion_err!("a key of JSON is {}", array.data_type())),
                }
            }
        })
    }

    /// The text of the value that the key of `row` leads to.
    fn step<'a>(&self, text: &'a str, row: usize) -> Option<&'a str> {
        match self {
            Self::Name(name) => member(text, name),
            Self::Index(index) => item(text, *index),
            Self::Names(names) => {
                names.is_valid(row).then(|| names.as_string_view().value(row)).and_then(|name| member(text, name))
            }
            Self::Indices(indices) => {
                indices.is_valid(row).then(|| indices.value(row)).and_then(|index| item(text, index))
            }
        }
    }
}

fn member<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    Members::parse(text).ok()?.get(name)
}

fn item(text: &str, index: i64) -> Option<&str> {
    let items = items(text).ok()?;
    let length = i64::try_from(items.len()).ok()?;
    let at = if index < 0 { length.checked_add(index)? } else { index };
    items.get(usize::try_from(at).ok()?).copied()
}

/// What is told of values by the text of each.
fn told<'a>(what: Told, found: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    match what {
        Told::Presence => {
            let mut out = BooleanBuilder::new();
            found.for_each(|value| out.append_value(value.is_some()));
            Arc::new(out.finish())
        }
        Told::Boolean => {
            let mut out = BooleanBuilder::new();
            found.for_each(|value| {
                out.append_option(match value {
                    Some("true") => Some(true),
                    Some("false") => Some(false),
                    _ => None,
                });
            });
            Arc::new(out.finish())
        }
        Told::Integer | Told::Length => {
            let mut out = Int64Builder::new();
            let of = |value: &str| if what == Told::Length { length(value) } else { number(value)?.parse().ok() };
            found.for_each(|value| out.append_option(value.and_then(of)));
            Arc::new(out.finish())
        }
        Told::Float => {
            let mut out = Float64Builder::new();
            found.for_each(|value| out.append_option(value.and_then(|value| number(value)?.parse().ok())));
            Arc::new(out.finish())
        }
        Told::Keys | Told::Items => {
            let mut out = ListBuilder::new(StringViewBuilder::new());
            found.for_each(|value| {
                let inside = value.and_then(|value| if what == Told::Keys { names(value) } else { values(value) });
                inside.iter().flatten().for_each(|text| out.values().append_option(text.as_deref()));
                out.append(inside.is_some());
            });
            Arc::new(out.finish())
        }
        Told::Json | Told::Text | Told::String => {
            let mut out = StringViewBuilder::new();
            found.for_each(|value| {
                let kept = value.filter(|value| *value != "null" && (what != Told::String || value.starts_with('"')));
                match kept {
                    Some(value) if what == Told::Json => out.append_value(value),
                    // Half a surrogate pair is no text.
                    Some(value) => out.append_option(text(value).ok().flatten()),
                    None => out.append_null(),
                }
            });
            Arc::new(out.finish())
        }
    }
}

fn number(value: &str) -> Option<&str> {
    value.starts_with(|c: char| c == '-' || c.is_ascii_digit()).then_some(value)
}

fn length(value: &str) -> Option<i64> {
    let length = match value.as_bytes().first()? {
        b'[' => items(value).ok()?.len(),
        b'{' => {
            let members = Members::parse(value).ok()?;
            members.iter().map(|(name, _)| name).collect::<std::collections::HashSet<_>>().len()
        }
        _ => return None,
    };
    i64::try_from(length).ok()
}

fn names(value: &str) -> Option<Vec<Option<String>>> {
    let members = Members::parse(value).ok()?;
    let mut seen = std::collections::HashSet::new();
    Some(
        members
            .iter()
            .filter(|(name, _)| seen.insert(name.to_string()))
            .map(|(name, _)| Some(name.to_owned()))
            .collect(),
    )
}

fn values(value: &str) -> Option<Vec<Option<String>>> {
    let items = items(value).ok()?;
    Some(items.into_iter().map(|item| Some(item.to_owned()).filter(|item| item != "null")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(function: &str, json: &str, keys: &[ScalarValue]) -> ScalarValue {
        let (name, told) = FUNCTIONS.into_iter().find(|(name, _)| *name == function).unwrap();
        let function = JsonFunction::new(name, told);
        let mut args = vec![ColumnarValue::Scalar(ScalarValue::Utf8View(Some(json.to_owned())))];
        args.extend(keys.iter().cloned().map(ColumnarValue::Scalar));
        let return_type = function.return_type(&[]).unwrap();
        let args = ScalarFunctionArgs {
            arg_fields: args.iter().map(|arg| Arc::new(Field::new("a", arg.data_type(), true))).collect(),
            args,
            number_rows: 1,
            return_field: Arc::new(Field::new("r", return_type, true)),
            config_options: Arc::default(),
        };
        match function.invoke_with_args(args).unwrap() {
            ColumnarValue::Scalar(value) => value,
            ColumnarValue::Array(_) => panic!("constants give a constant"),
        }
    }

    fn name(key: &str) -> ScalarValue {
        ScalarValue::Utf8View(Some(key.to_owned()))
    }

    fn index(key: i64) -> ScalarValue {
        ScalarValue::Int64(Some(key))
    }

    #[test]
    fn values_keep_their_text() {
        let json =
            r#" {"a": {"b": [1.10, "x\"y", null, 12345678901234567890.5]}, "a b": true, "n": null, "a b": false} "#;
        let text = |keys: &[ScalarValue]| call("json_as_text", json, keys).to_string();
        let get = |keys: &[ScalarValue]| call("json_get", json, keys).to_string();
        assert_eq!(text(&[name("a"), name("b"), index(0)]), "1.10");
        assert_eq!(text(&[name("a"), name("b"), index(1)]), "x\"y");
        assert_eq!(get(&[name("a"), name("b"), index(1)]), r#""x\"y""#);
        assert_eq!(text(&[name("a"), name("b"), index(-1)]), "12345678901234567890.5");
        assert_eq!(get(&[name("a"), name("b")]), r#"[1.10, "x\"y", null, 12345678901234567890.5]"#);
        assert_eq!(text(&[name("a b")]), "false", "of a name that stands twice the last counts");
        for keys in [
            vec![name("n")],
            vec![name("A")],
            vec![index(0)],
            vec![name("a"), name("b"), index(2)],
            vec![name("a"), name("b"), index(9)],
            vec![name("a"), name("b"), index(-5)],
            vec![name("a"), name("b"), name("0")],
        ] {
            assert_eq!((text(&keys), get(&keys)), ("NULL".into(), "NULL".into()), "{keys:?}");
        }
        for broken in ["", "{", r#"{"a": 1} x"#, r#"{"a": 1, "b"}"#, "nul"] {
            assert_eq!(call("json_as_text", broken, &[name("a")]).to_string(), "NULL", "{broken}");
        }
        assert_eq!(call("json_get", " [1, 2 ] ", &[]).to_string(), "[1, 2 ]");
    }

    #[test]
    fn other_functions_tell_one_kind_of_value() {
        let json = r#"{"i": 7, "f": -2.5, "big": 9223372036854775808, "s": "7", "l": [1, null, "x"], "o": {"p": 1, "q": 2, "p": 3}, "t": true, "n": null}"#;
        let told = |function: &str, key: &str| call(function, json, &[name(key)]).to_string();
        assert_eq!(["i", "f", "big", "s"].map(|key| told("json_get_int", key)), ["7", "NULL", "NULL", "NULL"]);
        assert_eq!(["i", "f", "s"].map(|key| told("json_get_float", key)), ["7", "-2.5", "NULL"]);
        assert_eq!(["i", "s", "n"].map(|key| told("json_get_str", key)), ["NULL", "7", "NULL"]);
        assert_eq!(["t", "s", "n"].map(|key| told("json_get_bool", key)), ["true", "NULL", "NULL"]);
        assert_eq!(["n", "zz"].map(|key| told("json_contains", key)), ["true", "false"]);
        assert_eq!(["l", "o", "s"].map(|key| told("json_length", key)), ["3", "2", "NULL"]);
        // A null list is shown as nothing.
        assert_eq!(["o", "l"].map(|key| told("json_object_keys", key)), ["[p, q]", ""]);
        assert_eq!(["l", "o"].map(|key| told("json_get_array", key)), [r#"[1, , "x"]"#, ""]);
    }
}
