//! Worlds of small relations with nulls, repeats and ties, and random changes of them.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tidemill::spec::sql_type::SqlType;

/// A relation: its name, columns, and which of them hold no nulls.
pub struct RelationSpec {
    pub name: &'static str,
    pub columns: &'static [(&'static str, SqlType)],
    pub not_null: &'static [&'static str],
}

/// Relations that queries read.
pub struct World {
    pub zone: &'static str,
    pub relations: &'static [RelationSpec],
    /// Random changes, the same for a seed.
    pub steps: fn(u64) -> Steps,
}

/// Changes of all relations, one commit after the other; the first is the first build.
pub type Steps = Vec<Vec<Change>>;

/// How one relation changes in one commit.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub added: Vec<Row>,
    pub removed: Vec<Row>,
}

/// One value of any column.
#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Int(i64),
    Text(Arc<str>),
    /// Unscaled.
    Decimal(i128),
    Double(f64),
    /// Microseconds.
    Time(i64),
    /// Days.
    Date(i32),
    Bool(bool),
}

impl PartialEq for Value {
    /// Bit for bit: −0.0 isn't 0.0, and a NaN is itself.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Int(a), Self::Int(b)) | (Self::Time(a), Self::Time(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Decimal(a), Self::Decimal(b)) => a == b,
            (Self::Double(a), Self::Double(b)) => a.to_bits() == b.to_bits(),
            (Self::Date(a), Self::Date(b)) => a == b,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            _ => false,
        }
    }
}

pub type Row = Vec<Value>;

/// Three relations with all the common types.
pub const SMALL: World = World {
    zone: "UTC",
    relations: &[
        RelationSpec {
            name: "a",
            columns: &[
                ("k", SqlType::BigInt),
                ("g", SqlType::Text),
                ("v", SqlType::Decimal(12, 2)),
                ("n", SqlType::Integer),
                ("f", SqlType::Double),
                ("t", SqlType::Timestamp),
                ("ok", SqlType::Boolean),
            ],
            not_null: &[],
        },
        RelationSpec {
            name: "b",
            columns: &[("k", SqlType::BigInt), ("h", SqlType::Text), ("w", SqlType::BigInt)],
            not_null: &[],
        },
        RelationSpec { name: "c", columns: &[("h", SqlType::Text), ("x", SqlType::Decimal(10, 1))], not_null: &[] },
    ],
    steps: |seed| random_steps(SMALL.relations, value, 12, seed),
};

/// A random value of a column.
pub type Draw = fn(&str, &SqlType, &mut ChaCha8Rng) -> Value;

/// Small domains, so that keys meet, repeat and tie.
fn value(name: &str, data_type: &SqlType, rng: &mut ChaCha8Rng) -> Value {
    if rng.random_bool(0.12) {
        return Value::Null;
    }
    match data_type {
        SqlType::BigInt if name == "k" => Value::Int(rng.random_range(0..7)),
        SqlType::BigInt => Value::Int(*[-3, 0, 1, 2, 5, 1 << 40].choose(rng).unwrap()),
        SqlType::Integer => Value::Int(rng.random_range(-2..4)),
        SqlType::Text => Value::Text((*["", "x", "y", "z", "É"].choose(rng).unwrap()).into()),
        SqlType::Decimal(12, _) => Value::Decimal(i128::from(rng.random_range(-300..900))),
        SqlType::Decimal(..) => Value::Decimal(*[0, 5, 10, 999_999_999].choose(rng).unwrap()),
        // Sums of halves and quarters are exact in any order.
        SqlType::Double => Value::Double(*[0.0, 0.25, 0.5, -1.75, 3.0].choose(rng).unwrap()),
        SqlType::Timestamp => Value::Time(1_520_000_000_000_000 + rng.random_range(0..40) * 450_000_000),
        SqlType::Boolean => Value::Bool(rng.random_bool(0.5)),
        other => unreachable!("no values of {other:?}"),
    }
}

/// Seven commits; of five seeds one begins with nothing at all, the others with `first` rows a relation.
pub fn random_steps(relations: &[RelationSpec], draw: Draw, first: usize, seed: u64) -> Steps {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut tables: Vec<Vec<Row>> = vec![vec![]; relations.len()];
    let mut steps = Steps::new();
    for step in 0..7 {
        let mut changes = Vec::new();
        for (relation, table) in relations.iter().zip(&mut tables) {
            let change = match (step, seed % 5) {
                (0, 0) => Change::default(),
                (0, _) => {
                    Change { added: (0..first).map(|_| row(relation, draw, &mut rng)).collect(), removed: vec![] }
                }
                _ => change(relation, draw, table, &mut rng),
            };
            apply(table, &change);
            changes.push(change);
        }
        steps.push(changes);
    }
    steps
}

fn row(relation: &RelationSpec, draw: Draw, rng: &mut ChaCha8Rng) -> Row {
    relation.columns.iter().map(|(name, data_type)| draw(name, data_type, rng)).collect()
}

/// A random change of a relation that holds `rows`: often nothing or only new rows, at times everything goes.
fn change(relation: &RelationSpec, draw: Draw, rows: &[Row], rng: &mut ChaCha8Rng) -> Change {
    let mut change = Change::default();
    match rng.random_range(0..10) {
        0..3 => {}
        3 => change.removed = rows.to_vec(),
        kind => {
            change.added = (0..rng.random_range(1..6)).map(|_| row(relation, draw, rng)).collect();
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
                    let other = row(relation, draw, rng);
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

/// Rows under the relation's schema, hidden columns null.
pub fn batch(schema: &SchemaRef, rows: &[Row]) -> RecordBatch {
    let arrays = schema.fields().iter().enumerate().map(|(at, field)| -> ArrayRef {
        let values: Vec<&Value> = rows.iter().map(|row| row.get(at).unwrap_or(&Value::Null)).collect();
        let plain = array(&values, field.data_type());
        datafusion::arrow::compute::cast(&plain, field.data_type()).unwrap()
    });
    RecordBatch::try_new(Arc::clone(schema), arrays.collect()).unwrap()
}

/// Picks the values of one variant out, all else null.
macro_rules! picked {
    ($values:expr, $array:ty, $variant:ident) => {
        $values.iter().map(|v| if let Value::$variant(v) = v { Some(v.clone()) } else { None }).collect::<$array>()
    };
}

fn array(values: &[&Value], wanted: &DataType) -> ArrayRef {
    match values.iter().find(|v| ***v != Value::Null) {
        None | Some(Value::Null) => new_null_array(wanted, values.len()),
        Some(Value::Int(_)) => Arc::new(picked!(values, Int64Array, Int)),
        Some(Value::Text(_)) => {
            let text = values.iter().map(|v| if let Value::Text(t) = v { Some(t.as_ref()) } else { None });
            Arc::new(text.collect::<StringArray>())
        }
        Some(Value::Decimal(_)) => {
            let unscaled = picked!(values, Decimal128Array, Decimal);
            let DataType::Decimal128(precision, scale) = wanted else { unreachable!("a decimal is {wanted}") };
            Arc::new(unscaled.with_precision_and_scale(*precision, *scale).unwrap())
        }
        Some(Value::Double(_)) => Arc::new(picked!(values, Float64Array, Double)),
        Some(Value::Time(_)) => {
            let instants = picked!(values, TimestampMicrosecondArray, Time);
            match wanted {
                DataType::Timestamp(_, Some(zone)) => Arc::new(instants.with_timezone(Arc::clone(zone))),
                _ => Arc::new(instants),
            }
        }
        Some(Value::Date(_)) => Arc::new(picked!(values, Date32Array, Date)),
        Some(Value::Bool(_)) => Arc::new(picked!(values, BooleanArray, Bool)),
    }
}
