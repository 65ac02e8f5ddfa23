//! Both ways to read objects give the same rows, and the same reasons where they give none.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use proptest::prelude::*;

use super::super::json::{Object, Objects};
use super::super::{ColumnReader, Contract, Misfits};
use super::*;
use crate::spec::sql_type::SqlType;

/// A column of each type, some of which may not be null, and names that are written with escapes or are a beginning of others.
fn contract() -> Contract {
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("Europe/Berlin".into()));
    let item = |of: DataType| Arc::new(Field::new("item", of, true));
    let fields = Fields::from(vec![Field::new("x", DataType::Int64, true), Field::new("y", DataType::Utf8View, true)]);
    let columns = [
        ("a", DataType::Int64, false),
        ("ab", DataType::Utf8View, true),
        ("small", DataType::Int16, true),
        ("whole", DataType::Int32, true),
        ("price", DataType::Decimal128(6, 2), true),
        ("long", DataType::Decimal128(38, 10), true),
        ("short", DataType::Float32, true),
        ("double", DataType::Float64, true),
        ("flag", DataType::Boolean, true),
        ("day", DataType::Date32, true),
        ("at", instant, true),
        ("wall", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        ("clock", DataType::Time64(TimeUnit::Microsecond), true),
        ("bytes", DataType::BinaryView, true),
        ("text", DataType::Utf8, false),
        ("json", DataType::Utf8View, true),
        ("list", DataType::List(item(DataType::Int64)), false),
        ("struct", DataType::Struct(fields), true),
        ("with \"quotes\"", DataType::Int64, true),
        ("\u{fc}ber", DataType::Utf8View, true),
        ("", DataType::Int64, true),
    ];
    let reader = |(name, of, _): &(&str, DataType, bool)| {
        let reader = ColumnReader::new(of, None, "Europe/Berlin", '.').unwrap();
        let reader = reader.with_null_values(&["N/A".to_string(), "-".to_string()]);
        if *name == "json" { reader.declared(&SqlType::Json) } else { reader }
    };
    let readers = columns.iter().map(reader).collect();
    let fields = columns.iter().map(|(name, of, nullable)| Field::new(*name, of.clone(), *nullable));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    Contract { schema, readers, nullable: columns.iter().map(|(_, _, nullable)| *nullable).collect() }
}

/// What fits somewhere, and what fits nowhere.
const VALUES: [&str; 58] = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1",
    "-17",
    "007",
    "123456",
    "40000",
    "3000000000",
    "9223372036854775808",
    "1.5",
    "1.50",
    "12.345",
    "9999.99",
    "10000.00",
    "-0.01",
    "1e2",
    "1E+2",
    "1.5e-1",
    "1e400",
    "1.",
    ".5",
    "-",
    "+1",
    "nul",
    "NaN",
    "\"\"",
    "\"N/A\"",
    "\"-\"",
    "\"NaN\"",
    "\"yes\"",
    "\"T\"",
    "\"12\"",
    "\"1,5\"",
    "\" 1\"",
    "\"2018-03-25\"",
    "\"2018-02-30\"",
    "\"2018-03-25T02:30:00\"",
    "\"2018-03-25 02:30:59.123456Z\"",
    "\"2018-03-25T23:59:60Z\"",
    "\"2018-03-25T12:00:00.1234567Z\"",
    "\"2018-03-25T12:00:00+05:30\"",
    "\"9999-12-31T23:59:59Z\"",
    "\"0000-01-01T00:00:00Z\"",
    "\"10:00:00.25\"",
    "\"\\\\x00ff\"",
    "\"\\\\x0\"",
    "\"gr\u{fc}n \u{1f30a}\"",
    "\"a\\n\\u00e9\\\"\"",
    "\"\\ud800\"",
    "\"a\tb\"",
    "[1, 2,null]",
    "[1,\"x\"]",
    "{\"x\": 1, \"y\": \"z\", \"x\":2}",
    "{\"x\":\"w\"}",
    "[[],{}]",
];

fn value() -> impl Strategy<Value = String> {
    prop_oneof![8 => prop::sample::select(&VALUES[..]).prop_map(str::to_string), 1 => "[0-9]{1,20}(\\.[0-9]{0,12})?", 1 => "\"[ -~]{0,20}\""]
}

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => Just(""), 1 => Just(" "), 1 => Just("\r\n\t ")]
}

/// An object that has most columns' members, in their order or not, some twice, some that no column reads.
fn object() -> impl Strategy<Value = String> {
    let fields = contract().schema.fields().clone();
    let member = move |at: usize| {
        let fields = fields.clone();
        let name = prop_oneof![
            60 => Just(fields.get(at).map_or("other".to_string(), |field| field.name().clone())),
            1 => prop::sample::select(fields.iter().map(|field| field.name().clone()).collect::<Vec<_>>()),
            1 => "[ -~]{0,3}",
        ];
        let fitting = match fields.get(at).map(|field| (field.name().as_str(), field.data_type())) {
            Some((_, DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Decimal128(..))) => "12",
            Some((_, DataType::Float32 | DataType::Float64)) => "1.25",
            Some((_, DataType::Boolean)) => "true",
            Some((_, DataType::Date32)) => "\"2018-03-25\"",
            Some((_, DataType::Timestamp(_, Some(_)))) => "\"2018-03-25T12:00:00.5Z\"",
            Some((_, DataType::Timestamp(..))) => "\"2018-03-25T12:00:00.5\"",
            Some((_, DataType::Time64(_))) => "\"12:00:00.5\"",
            Some((_, DataType::BinaryView)) => "\"\\\\x0aff\"",
            Some((_, DataType::List(_))) => "[1, null]",
            Some((_, DataType::Struct(_))) => "{\"y\":\"z\"}",
            _ => "\"some words\"",
        };
        let value = prop_oneof![60 => Just(fitting.to_string()), 1 => value()];
        (prop::bool::weighted(0.97), name, value, space())
    };
    let width = contract().schema.fields().len();
    let members: Vec<_> = (0..=width).map(member).collect();
    (members, space(), any::<bool>(), 0..width).prop_map(|(mut members, space, is_turned, by)| {
        if is_turned {
            members.rotate_left(by);
        }
        let member = |(is_there, name, value, gap): (bool, String, String, &str)| {
            let name = serde_json::Value::from(name);
            is_there.then(|| format!("{gap}{name}{gap}:{space}{value}{gap}"))
        };
        let members: Vec<String> = members.into_iter().filter_map(member).collect();
        format!("{space}{{{}{space}}}{space}", members.join(","))
    })
}

/// An object's text, sometimes with a byte more, less or another.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let spoilt = (object(), any::<prop::sample::Index>(), any::<u8>(), 0..3).prop_map(|(object, at, byte, how)| {
        let mut text = object.into_bytes();
        let at = at.index(text.len());
        match how {
            0 => text[at] = byte,
            1 => text.insert(at, byte),
            _ => drop(text.remove(at)),
        }
        text
    });
    prop_oneof![5 => object().prop_map(String::into_bytes), 3 => spoilt, 1 => value().prop_map(String::into_bytes)]
}

fn general(contract: &Contract, objects: &[Object<'_>]) -> (Vec<ArrayRef>, Misfits) {
    let mut all = Objects::new(contract);
    objects.iter().for_each(|object| all.push(object));
    contract.columns(&all.finish())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 20_000 }))]

    #[test]
    fn one_pass_and_a_closer_look_read_alike(texts in prop::collection::vec(text(), 1..12)) {
        let contract = contract();
        let objects: Vec<Object<'_>> = texts.iter().map(|text| Object::Text(Cow::Borrowed(text.as_slice()))).collect();
        let shown: Vec<_> = texts.iter().map(|text| String::from_utf8_lossy(text)).collect();
        let read = contract.read_objects(&objects).unwrap();
        prop_assert_eq!(read, general(&contract, &objects), "{:#?}", shown);
    }
}

#[test]
fn what_is_plainly_fine_takes_the_direct_way() {
    let contract = contract();
    let mut direct = Direct::new(&contract, 8);
    let fine = [
        r#"{"a":1,"text":"t","list":[],"price":12.50,"at":"2018-03-25T02:30:00Z","other":{"a":[1]},"json":{"b":1}}"#,
        r#" { "text" : 5 , "a" : "12", "list" : [1] , "ab" : "with \"escapes\"", "wall": null } "#,
    ];
    let other = [
        r#"{"a":1,"text":"t"}"#,
        r#"{"a":1,"text":"t","list":[],"a":2}"#,
        r#"{"a":1.5,"text":"t","list":[]}"#,
        r#"{"a":1,"text":"t","list":[]"#,
        r#"{"a":1,"text":"t","list":[],}"#,
        r#"{"a":1,"text":"t","list":[]} x"#,
        r#"{"\u0061":1,"text":"t","list":[]}"#,
        r#"{"a":01,"text":"t","list":[]}"#,
        "[]",
        "",
    ];
    assert!(fine.iter().all(|text| direct.push(text.as_bytes())));
    for text in other {
        assert!(!direct.push(text.as_bytes()), "{text}");
    }
    assert_eq!(direct.rows(), 2);
    assert!(direct.finish().iter().all(|(array, misfits)| array.len() == 2 && misfits.is_empty()));
}
