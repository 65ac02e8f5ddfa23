//! Orders, and what hangs on them, as messages: each when it is known. Knows no topic and no broker.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::error::Result;
use crate::generate::catalog::Catalog;
use crate::generate::draw::Hits;
use crate::generate::encode::{JsonMessages, Row};
use crate::generate::parallel::Crew;
use crate::generate::people::{People, Purchase};
use crate::generate::places::Places;
use crate::generate::rhythm::{DAY, Period};
use crate::generate::tables::{CUSTOMERS, ITEMS, ORDERS, PAYMENTS, REVIEWS, Table};

use super::life::Order;
use super::rows::{CustomerRow, OrderRow, ReviewRow};
use super::{Piece, Play, items, payments, pieces, window_end};

/// One JSON object for a table's topic.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::generate) struct Message {
    /// When it is known: seconds of a wall-clock time.
    pub(in crate::generate) at: i64,
    /// Its number among all, for those of the same second.
    number: u64,
    /// The table's name.
    pub(in crate::generate) table: &'static str,
    /// What keeps messages in order: those of one key are in one partition.
    pub(in crate::generate) key: String,
    /// The row.
    pub(in crate::generate) value: Vec<u8>,
    /// Whether it breaks the table's format.
    pub(in crate::generate) is_malformed: bool,
}

/// The messages of all orders, by time. The last message of an order is its row of the files, those before it tell how far it
/// had come; all other messages are rows of the files, malformed ones included.
///
/// Holds the messages of orders that are on their way.
pub(in crate::generate) struct Messages<'a> {
    play: Play<'a>,
    people: People<'a>,
    places: Places,
    /// The first day that isn't made yet.
    day: usize,
    /// Purchases from some day on, how many of them are made, and the day after their last.
    window: (Vec<Purchase>, usize, usize),
    waiting: BinaryHeap<Reverse<Message>>,
    made: u64,
    encoders: Encoders,
}

/// One for each table.
struct Encoders {
    customers: JsonMessages,
    orders: JsonMessages,
    items: JsonMessages,
    payments: JsonMessages,
    reviews: JsonMessages,
}

impl<'a> Messages<'a> {
    /// Of the same orders as the files.
    pub(in crate::generate) fn new(
        seed: u64,
        orders: u64,
        malformed: f64,
        crew: Crew,
        period: &'a Period,
        catalog: &'a Catalog,
    ) -> Result<Self> {
        let encoders = Encoders {
            customers: JsonMessages::new(&CUSTOMERS),
            orders: JsonMessages::new(&ORDERS),
            items: JsonMessages::new(&ITEMS),
            payments: JsonMessages::new(&PAYMENTS),
            reviews: JsonMessages::new(&REVIEWS),
        };
        Ok(Self {
            play: Play { seed, malformed, period, catalog },
            people: People::new(seed, crew, period, orders)?,
            places: Places::new(),
            day: 0,
            window: (Vec::new(), 0, 0),
            waiting: BinaryHeap::new(),
            made: 0,
            encoders,
        })
    }

    /// The next message, if it is known at `at`, seconds of a wall-clock time.
    pub(in crate::generate) fn next_until(&mut self, at: i64) -> Result<Option<Message>> {
        let period = self.play.period;
        while self.day < period.days() && period.start + self.day as i64 * DAY <= at {
            self.make_day()?;
        }
        let is_known = self.waiting.peek().is_some_and(|Reverse(message)| message.at <= at);
        Ok(if is_known { self.waiting.pop().map(|Reverse(message)| message) } else { None })
    }

    /// Makes the messages of a day's purchases, whenever they are known.
    fn make_day(&mut self) -> Result<()> {
        let (mut purchases, mut taken, mut end) = std::mem::take(&mut self.window);
        if self.day >= end {
            end = window_end(self.people.per_day(), self.day);
            (purchases, taken) = (self.people.window(self.day, end)?, 0);
        }
        let midnight = (self.day as i64 + 1) * DAY;
        let upto = purchases.partition_point(|purchase| i64::from(purchase.at) < midnight);
        for piece in pieces(self.day, self.day + 1, &purchases[taken..upto]) {
            self.make(&piece);
        }
        self.window = (purchases, upto, end);
        self.day += 1;
        Ok(())
    }

    fn make(&mut self, piece: &Piece) {
        let [mut no, mut orders, mut items_, mut payments_, mut reviews] =
            [&CUSTOMERS, &ORDERS, &ITEMS, &PAYMENTS, &REVIEWS].map(|table| self.play.broken(table, piece));
        let mut out = Sorted { waiting: &mut self.waiting, made: &mut self.made };
        let to = &mut self.encoders;
        for order in self.play.orders(piece) {
            let (bought, key) = (order.purchased, format!("{:032x}", order.id));
            if order.is_customer_listed {
                let key = format!("{:032x}", order.customer_id);
                out.put(bought, &CUSTOMERS, &key, &mut to.customers, &CustomerRow(&order, &self.places), &mut no);
            }
            let course = order.course();
            for (n, (at, progress)) in course.iter().enumerate() {
                let broken = if n + 1 == course.len() { &mut orders } else { &mut no };
                out.put(*at, &ORDERS, &key, &mut to.orders, &OrderRow(&order, *progress), broken);
            }
            items(&order).for_each(|row| out.put(bought, &ITEMS, &key, &mut to.items, &row, &mut items_));
            payments(&order).for_each(|row| out.put(bought, &PAYMENTS, &key, &mut to.payments, &row, &mut payments_));
            put_review(&mut out, &order, &key, &mut to.reviews, &mut reviews);
        }
    }
}

fn put_review(out: &mut Sorted<'_>, order: &Order, key: &str, to: &mut JsonMessages, broken: &mut Hits) {
    if let Some(review) = &order.review {
        out.put(review.answered, &REVIEWS, key, to, &ReviewRow(order, review), broken);
    }
}

/// Where messages go.
struct Sorted<'a> {
    waiting: &'a mut BinaryHeap<Reverse<Message>>,
    made: &'a mut u64,
}

impl Sorted<'_> {
    /// A row's message, and its malformed copy, if it is hit.
    fn put(&mut self, at: i64, table: &Table, key: &str, to: &mut JsonMessages, row: &impl Row, broken: &mut Hits) {
        let (whole, malformed) = to.of(row, broken);
        for (value, is_malformed) in [(Some(whole), false), (malformed, true)] {
            let Some(value) = value else { continue };
            *self.made += 1;
            self.waiting.push(Reverse(Message {
                at,
                number: *self.made,
                table: table.name,
                key: key.to_owned(),
                value: value.to_vec(),
                is_malformed,
            }));
        }
    }
}
