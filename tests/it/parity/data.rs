//! Random rows of three small relations with nulls, repeats and ties, and random changes of them.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::SchemaRef;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use tidemill::spec::sql_type::SqlType;

/// Columns of each relation.
pub const RELATIONS: &[(&str, &[(&str, SqlType)])] = &[
    (
        "a",
        &[
            ("k", SqlType::BigInt),
            ("g", SqlType::Text),
            ("v", SqlType::Decimal(12, 2)),
            ("n", SqlType::Integer),
            ("f", SqlType::Double),
            ("t", SqlType::Timestamp),
            ("ok", SqlType::Boolean),
        ],
    ),
    ("b", &[("k", SqlType::BigInt), ("h", SqlType::Text), ("w", SqlType::BigInt)]),
    ("c", &[("h", SqlType::Text), ("x", SqlType::Decimal(10, 1))]),
];

/// One value of any column.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Int(i64),
    Text(&'static str),
    /// Unscaled.
    Decimal(i128),
    Double(f64),
    /// Microseconds.
    Time(i64),
    Bool(bool),
}

pub type Row = Vec<Value>;

/// A random row of relation `at`. Small domains, so that keys meet, repeat and tie.
pub fn row(at: usize, rng: &mut ChaCha8Rng) -> Row {
    RELATIONS[at].1.iter().map(|(name, data_type)| value(name, data_type, rng)).collect()
}

fn value(name: &str, data_type: &SqlType, rng: &mut ChaCha8Rng) -> Value {
    if rng.random_bool(0.12) {
        return Value::Null;
    }
    match data_type {
        SqlType::BigInt if name == "k" => Value::Int(rng.random_range(0..7)),
        SqlType::BigInt => Value::Int(*[-3, 0, 1, 2, 5, 1 << 40].choose(rng).unwrap()),
        SqlType::Integer => Value::Int(rng.random_range(-2..4)),
        SqlType::Text => Value::Text(["", "x", "y", "z", "É"].choose(rng).unwrap()),
        SqlType::Decimal(12, _) => Value::Decimal(i128::from(rng.random_range(-300..900))),
        SqlType::Decimal(..) => Value::Decimal(*[0, 5, 10, 999_999_999].choose(rng).unwrap()),
        // Sums of halves and quarters are exact in any order.
        SqlType::Double => Value::Double(*[0.0, 0.25, 0.5, -1.75, 3.0].choose(rng).unwrap()),
        SqlType::Timestamp => Value::Time(1_520_000_000_000_000 + rng.random_range(0..40) * 450_000_000),
        SqlType::Boolean => Value::Bool(rng.random_bool(0.5)),
        other => unreachable!("no values of {other:?}"),
    }
}

/// Rows under the relation's schema, hidden columns null.
pub fn batch(schema: &SchemaRef, rows: &[Row]) -> RecordBatch {
    let arrays = schema.fields().iter().enumerate().map(|(at, field)| -> ArrayRef {
        let values: Vec<Value> = rows.iter().map(|row| row.get(at).cloned().unwrap_or(Value::Null)).collect();
        let plain = array(&values);
        datafusion::arrow::compute::cast(&plain, field.data_type()).unwrap()
    });
    RecordBatch::try_new(Arc::clone(schema), arrays.collect()).unwrap()
}

fn array(values: &[Value]) -> ArrayRef {
    let int = |v: &Value| if let Value::Int(i) = v { Some(*i) } else { None };
    match values.iter().find(|v| **v != Value::Null) {
        None => Arc::new(Int32Array::new_null(values.len())),
        Some(Value::Int(_)) => Arc::new(values.iter().map(int).collect::<Int64Array>()),
        Some(Value::Text(_)) => Arc::new(
            values.iter().map(|v| if let Value::Text(t) = v { Some(*t) } else { None }).collect::<StringArray>(),
        ),
        Some(Value::Decimal(_)) => {
            let unscaled = values.iter().map(|v| if let Value::Decimal(d) = v { Some(*d) } else { None });
            let scale = 2;
            Arc::new(unscaled.collect::<Decimal128Array>().with_precision_and_scale(38, scale).unwrap())
        }
        Some(Value::Double(_)) => Arc::new(
            values.iter().map(|v| if let Value::Double(d) = v { Some(*d) } else { None }).collect::<Float64Array>(),
        ),
        Some(Value::Time(_)) => Arc::new(
            values
                .iter()
                .map(|v| if let Value::Time(t) = v { Some(*t) } else { None })
                .collect::<TimestampMicrosecondArray>(),
        ),
        Some(Value::Bool(_)) => Arc::new(
            values.iter().map(|v| if let Value::Bool(b) = v { Some(*b) } else { None }).collect::<BooleanArray>(),
        ),
        Some(Value::Null) => unreachable!(),
    }
}

/// How one relation changes in one commit.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub added: Vec<Row>,
    pub removed: Vec<Row>,
}

/// A random change of a relation that holds `rows`: often nothing or only new rows, at times everything goes.
pub fn change(at: usize, rows: &[Row], rng: &mut ChaCha8Rng) -> Change {
    let mut change = Change::default();
    match rng.random_range(0..10) {
        0..3 => {}
        3 => change.removed = rows.to_vec(),
        kind => {
            change.added = (0..rng.random_range(1..6)).map(|_| row(at, rng)).collect();
            // A true repeat of a row that is there.
            if let Some(known) = rows.choose(rng).filter(|_| rng.random_bool(0.3)) {
                change.added.push(known.clone());
            }
            if kind > 5 {
                let wanted = rng.random_range(1..5);
                change.removed = rows.choose_multiple(rng, wanted).cloned().collect();
                // A row that is changed in one column: an update.
                if let Some(mut moved) = change.removed.first().cloned() {
                    let column = rng.random_range(0..moved.len());
                    let other = row(at, rng);
                    moved[column] = other[column].clone();
                    change.added.push(moved);
                }
            }
        }
    }
    change
}

/// Takes `removed` rows, one each, out of `rows` and appends the added ones.
pub fn apply(rows: &mut Vec<Row>, change: &Change) {
    for gone in &change.removed {
        let at = rows.iter().position(|row| row == gone).expect("a removed row is there");
        rows.swap_remove(at);
    }
    rows.extend(change.added.iter().cloned());
}
