//! A tiny TPC-H database, its refresh functions, and updates beyond them. Domains are narrow, so that each query finds rows.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tidemill::spec::sql_type::SqlType;
use tidemill::spec::sql_type::SqlType::{BigInt, Date, Integer, Text};

use super::data::{Change, RelationSpec, Row, Steps, Value, World, apply};
use super::harness::number;

const MONEY: SqlType = SqlType::Decimal(15, 2);

/// The eight tables; no column holds a null.
pub static TPCH: World = World { zone: "UTC", relations: TABLES, steps };

macro_rules! table {
    ($name:literal, $($column:literal: $kind:expr),+) => {
        RelationSpec { name: $name, columns: &[$(($column, $kind)),+], not_null: &[$($column),+] }
    };
}

const TABLES: &[RelationSpec] = &[
    table!("region", "r_regionkey": BigInt, "r_name": Text),
    table!("nation", "n_nationkey": BigInt, "n_name": Text, "n_regionkey": BigInt),
    table!("supplier", "s_suppkey": BigInt, "s_name": Text, "s_address": Text, "s_nationkey": BigInt, "s_phone": Text,
        "s_acctbal": MONEY, "s_comment": Text),
    table!("part", "p_partkey": BigInt, "p_name": Text, "p_mfgr": Text, "p_brand": Text, "p_type": Text,
        "p_size": Integer, "p_container": Text, "p_retailprice": MONEY),
    table!("partsupp", "ps_partkey": BigInt, "ps_suppkey": BigInt, "ps_availqty": Integer, "ps_supplycost": MONEY),
    table!("customer", "c_custkey": BigInt, "c_name": Text, "c_address": Text, "c_nationkey": BigInt, "c_phone": Text,
        "c_acctbal": MONEY, "c_mktsegment": Text, "c_comment": Text),
    table!("orders", "o_orderkey": BigInt, "o_custkey": BigInt, "o_orderstatus": Text, "o_totalprice": MONEY,
        "o_orderdate": Date, "o_orderpriority": Text, "o_shippriority": Integer, "o_comment": Text),
    table!("lineitem", "l_orderkey": BigInt, "l_partkey": BigInt, "l_suppkey": BigInt, "l_linenumber": Integer,
        "l_quantity": MONEY, "l_extendedprice": MONEY, "l_discount": MONEY, "l_tax": MONEY, "l_returnflag": Text,
        "l_linestatus": Text, "l_shipdate": Date, "l_commitdate": Date, "l_receiptdate": Date, "l_shipinstruct": Text,
        "l_shipmode": Text),
];

const SUPPLIER: usize = 2;
const PART: usize = 3;
const PARTSUPP: usize = 4;
const CUSTOMER: usize = 5;
const ORDERS: usize = 6;
const LINEITEM: usize = 7;

/// Name and region by nation key.
const NATIONS: [(&str, i64); 25] = [
    ("ALGERIA", 0),
    ("ARGENTINA", 1),
    ("BRAZIL", 1),
    ("CANADA", 1),
    ("EGYPT", 4),
    ("ETHIOPIA", 0),
    ("FRANCE", 3),
    ("GERMANY", 3),
    ("INDIA", 2),
    ("INDONESIA", 2),
    ("IRAN", 4),
    ("IRAQ", 4),
    ("JAPAN", 2),
    ("JORDAN", 4),
    ("KENYA", 0),
    ("MOROCCO", 0),
    ("MOZAMBIQUE", 0),
    ("PERU", 1),
    ("CHINA", 2),
    ("ROMANIA", 3),
    ("SAUDI ARABIA", 4),
    ("VIETNAM", 2),
    ("RUSSIA", 3),
    ("UNITED KINGDOM", 3),
    ("UNITED STATES", 1),
];

/// Those that anyone lives in: the ones that queries ask for.
const LIVED_IN: [i64; 8] = [2, 3, 6, 7, 8, 12, 18, 20];

const SUPPLIERS: i64 = 16;
const PARTS: i64 = 60;
/// 1993-01-01.
const FIRST_DAY: i32 = 8401;
/// Orders at first; scale 0.001 has 1500, with more parts and customers.
const ORDERS_AT_FIRST: u64 = 300;

fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into().into())
}

struct Generator {
    rng: ChaCha8Rng,
    tables: Vec<Vec<Row>>,
    customers: i64,
    next_order: i64,
}

/// The whole database, then: new orders; orders that go; updates of customers, parts and suppliers, with orders that come and
/// go; all orders but one go.
fn steps(seed: u64) -> Steps {
    let orders = number("PARITY_ORDERS").unwrap_or(ORDERS_AT_FIRST) as i64;
    let rng = ChaCha8Rng::seed_from_u64(seed);
    let tables = vec![vec![]; TABLES.len()];
    let mut generator = Generator { rng, tables, customers: (orders / 5).max(30), next_order: 1 };
    let first = generator.first(orders);
    let mut steps = vec![generator.made(first)];
    for kind in 1..5 {
        let mut changes = vec![Change::default(); TABLES.len()];
        if matches!(kind, 1 | 3) {
            generator.new_orders(8, &mut changes);
        }
        if matches!(kind, 2 | 3) {
            generator.old_orders(6, &mut changes);
        }
        if kind == 3 {
            generator.updates(&mut changes);
        }
        if kind == 4 {
            // Every order but one goes, with its items.
            let most = generator.tables[ORDERS].len() - 1;
            generator.old_orders(most, &mut changes);
        }
        steps.push(generator.made(changes));
    }
    steps
}

impl Generator {
    fn made(&mut self, changes: Vec<Change>) -> Vec<Change> {
        self.tables.iter_mut().zip(&changes).for_each(|(table, change)| apply(table, change));
        changes
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of.choose(&mut self.rng).expect("a choice").clone()
    }

    fn word(&mut self, of: &[&str]) -> Value {
        text(self.pick(of))
    }

    fn money(&mut self, from: i128, to: i128) -> Value {
        Value::Decimal(self.rng.random_range(from..to))
    }

    fn first(&mut self, orders: i64) -> Vec<Change> {
        let mut changes = vec![Change::default(); TABLES.len()];
        for (at, name) in ["AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST"].into_iter().enumerate() {
            changes[0].added.push(vec![Value::Int(at as i64), text(name)]);
        }
        for (at, (name, region)) in NATIONS.into_iter().enumerate() {
            changes[1].added.push(vec![Value::Int(at as i64), text(name), Value::Int(region)]);
        }
        for key in 1..=SUPPLIERS {
            let nation = LIVED_IN[key as usize % LIVED_IN.len()];
            changes[SUPPLIER].added.push(self.supplier(key, nation));
        }
        for key in 1..=PARTS {
            let part = self.part(key);
            changes[PART].added.push(part);
            for at in 0..4 {
                let row = vec![
                    Value::Int(key),
                    Value::Int((key + at * 4) % SUPPLIERS + 1),
                    Value::Int(self.rng.random_range(1..80)),
                    self.money(100, 100_000),
                ];
                changes[PARTSUPP].added.push(row);
            }
        }
        for key in 1..=self.customers {
            let customer = self.customer(key);
            changes[CUSTOMER].added.push(customer);
        }
        self.new_orders(orders as usize, &mut changes);
        changes
    }

    fn supplier(&mut self, key: i64, nation: i64) -> Row {
        vec![
            Value::Int(key),
            text(format!("Supplier#{key:09}")),
            text(format!("address {key}")),
            Value::Int(nation),
            text(format!("{}-555-{key:04}", nation + 10)),
            self.money(-99_999, 999_999),
            self.word(&["quick", "Customer and Complaints", "slow", "fine"]),
        ]
    }

    fn part(&mut self, key: i64) -> Row {
        let types = [
            "ECONOMY ANODIZED STEEL",
            "PROMO PLATED BRASS",
            "STANDARD POLISHED BRASS",
            "MEDIUM POLISHED TIN",
            "LARGE BURNISHED COPPER",
        ];
        let names = ["green", "forest", "almond", "plum"];
        let name = format!("{} {}", self.pick(&names), self.pick(&names));
        vec![
            Value::Int(key),
            text(name),
            self.word(&["Manufacturer#1", "Manufacturer#2"]),
            self.word(&["Brand#12", "Brand#23", "Brand#34", "Brand#45"]),
            self.word(&types),
            Value::Int(self.pick(&[3, 9, 14, 15, 15, 15, 49])),
            self.word(&["SM CASE", "SM BOX", "MED BOX", "MED BOX", "LG CASE", "LG BOX"]),
            self.money(90_000, 110_000),
        ]
    }

    fn customer(&mut self, key: i64) -> Row {
        let nation = self.pick(&LIVED_IN);
        vec![
            Value::Int(key),
            text(format!("Customer#{key:09}")),
            text(format!("address {key}")),
            Value::Int(nation),
            text(format!("{}-555-{key:04}", nation + 10)),
            self.money(-99_999, 999_999),
            self.word(&["BUILDING", "MACHINERY", "FURNITURE"]),
            self.word(&["quick", "slow"]),
        ]
    }

    /// The first refresh function: orders come with their items.
    fn new_orders(&mut self, count: usize, changes: &mut [Change]) {
        for _ in 0..count {
            let key = self.next_order;
            self.next_order += 1;
            // A third of the customers never orders.
            let customer = (0..).map(|_| self.rng.random_range(1..=self.customers)).find(|c| c % 3 != 0).unwrap_or(1);
            let day = FIRST_DAY + self.rng.random_range(0..4 * 365);
            for number in 1..=self.rng.random_range(1..=7) {
                let item = self.item(key, number, day);
                changes[LINEITEM].added.push(item);
            }
            let row = vec![
                Value::Int(key),
                Value::Int(customer),
                self.word(&["F", "F", "O", "P"]),
                self.money(100_000, 50_000_000),
                Value::Date(day),
                self.word(&["1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW"]),
                Value::Int(0),
                self.word(&["none", "special packages requests", "furiously"]),
            ];
            changes[ORDERS].added.push(row);
        }
    }

    fn item(&mut self, order: i64, number: i64, day: i32) -> Row {
        let part = self.rng.random_range(1..=PARTS);
        let supplier = (part + self.rng.random_range(0..4) * 4) % SUPPLIERS + 1;
        let shipped = day + self.rng.random_range(1..122);
        let quantity = self.rng.random_range(1..51);
        vec![
            Value::Int(order),
            Value::Int(part),
            Value::Int(supplier),
            Value::Int(number),
            Value::Decimal(quantity * 100),
            Value::Decimal(quantity * self.rng.random_range(90_000..110_000)),
            self.money(0, 11),
            self.money(0, 9),
            self.word(&["R", "A", "N"]),
            self.word(&["O", "F"]),
            Value::Date(shipped),
            Value::Date(day + self.rng.random_range(30..91)),
            Value::Date(shipped + self.rng.random_range(1..31)),
            self.word(&["DELIVER IN PERSON", "DELIVER IN PERSON", "COLLECT COD", "NONE"]),
            self.word(&["AIR", "AIR REG", "MAIL", "SHIP", "TRUCK"]),
        ]
    }

    /// The second refresh function: orders go with their items.
    fn old_orders(&mut self, count: usize, changes: &mut [Change]) {
        let gone: Vec<Row> = self.tables[ORDERS].choose_multiple(&mut self.rng, count).cloned().collect();
        let items = self.tables[LINEITEM].iter().filter(|item| gone.iter().any(|order| order[0] == item[0]));
        changes[LINEITEM].removed.extend(items.cloned());
        changes[ORDERS].removed.extend(gone);
    }

    /// Rows that change: customers and suppliers move, parts are made otherwise, prices and dates of what is there change.
    fn updates(&mut self, changes: &mut [Change]) {
        for (table, count) in [(SUPPLIER, 2), (PART, 4), (PARTSUPP, 6), (CUSTOMER, 5), (LINEITEM, 12)] {
            let rows: Vec<Row> =
                self.tables[table].iter().filter(|row| !changes[table].removed.contains(row)).cloned().collect();
            let chosen: Vec<Row> = rows.choose_multiple(&mut self.rng, count).cloned().collect();
            for old in chosen {
                let Value::Int(key) = old[0] else { continue };
                let mut new = old.clone();
                match table {
                    SUPPLIER => {
                        let nation = self.pick(&LIVED_IN);
                        new = self.supplier(key, nation);
                    }
                    PART => new = self.part(key),
                    CUSTOMER => new = self.customer(key),
                    PARTSUPP => {
                        new[2] = Value::Int(self.rng.random_range(1..80));
                        new[3] = self.money(100, 100_000);
                    }
                    _ => {
                        let other = self.item(key, 0, FIRST_DAY + 400);
                        new[4..].clone_from_slice(&other[4..]);
                    }
                }
                changes[table].removed.push(old);
                changes[table].added.push(new);
            }
        }
    }
}
