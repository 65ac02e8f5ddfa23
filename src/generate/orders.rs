//! Orders with their customers, items, payments and reviews: day by day, in pieces. Knows no file's format.

mod life;
#[cfg(feature = "kafka")]
mod messages;
mod rows;

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::limits::{GENERATED_CHUNKS_PER_CORE, GENERATED_ORDERS_PER_CHUNK, GENERATED_ORDERS_PER_WINDOW};

use super::Options;
use super::catalog::Catalog;
use super::draw::{Hits, Stream};
use super::encode::{Encoded, Encoding, Row};
use super::files::Output;
use super::parallel::Crew;
use super::people::{People, Purchase};
use super::places::Places;
use super::rhythm::{DAY, Period};
use super::tables::{CUSTOMERS, ITEMS, ORDERS, PAYMENTS, REVIEWS, Table};

#[cfg(feature = "kafka")]
pub(super) use messages::Messages;

use life::Order;
use rows::{CustomerRow, ItemRow, OrderRow, PaymentRow, ReviewRow};

/// Tables with a file a day.
const DAILY: [&Table; 4] = [&ORDERS, &ITEMS, &PAYMENTS, &REVIEWS];

/// Writes `customers` as one file, and of each day the orders bought then, with their items, payments and reviews.
pub(super) fn write(
    options: &Options,
    crew: Crew,
    period: &Period,
    catalog: &Catalog,
    output: &mut Output,
) -> Result<()> {
    let people = People::new(options.seed, crew, period, options.orders)?;
    let maker = Maker::new(options, crew, period, catalog, output)?;
    output.touch(&CUSTOMERS, "customers")?;
    let mut from = 0;
    while from < period.days() {
        let to = window_end(people.per_day(), from);
        let purchases = people.window(from, to)?;
        maker.write_days(&pieces(from, to, &purchases), output)?;
        from = to;
    }
    Ok(())
}

/// First day after a window that starts at `from`: as many days as are held at once, at least one.
fn window_end(per_day: &[u64], from: usize) -> usize {
    let mut held = 0;
    let days = per_day.iter().skip(from).take_while(|n| {
        held += **n;
        held <= GENERATED_ORDERS_PER_WINDOW
    });
    from + days.count().max(1)
}

/// Purchases of one day that are made into rows together.
struct Piece<'p> {
    day: usize,
    /// Number in its day.
    number: usize,
    purchases: &'p [Purchase],
}

/// Cuts purchases, by time, into the pieces of their days. Each day has one, so that each day has its files.
fn pieces(from: usize, to: usize, purchases: &[Purchase]) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = purchases;
    for day in from..to {
        let end = (day as i64 + 1) * DAY;
        let (of_day, later) = rest.split_at(rest.partition_point(|p| i64::from(p.at) < end));
        rest = later;
        let (first, others) = of_day.split_at(of_day.len().min(GENERATED_ORDERS_PER_CHUNK));
        let cut = std::iter::once(first).chain(others.chunks(GENERATED_ORDERS_PER_CHUNK));
        pieces.extend(cut.enumerate().map(|(number, purchases)| Piece { day, number, purchases }));
    }
    pieces
}

impl Piece<'_> {
    /// What names its random streams.
    fn place(&self) -> u64 {
        (self.day as u64) << 32 | self.number as u64
    }
}

/// What it takes to play purchases on any core.
struct Play<'a> {
    seed: u64,
    /// Malformed copies for each row.
    malformed: f64,
    period: &'a Period,
    catalog: &'a Catalog,
}

impl Play<'_> {
    fn orders(&self, piece: &Piece) -> Vec<Order> {
        let mut stream = Stream::new(self.seed, "orders", piece.place());
        let (start, end) = (self.period.start, self.period.end());
        let order = |purchase| Order::new(self.seed, purchase, start, end, self.catalog, &mut stream);
        piece.purchases.iter().map(order).collect()
    }

    /// Which rows of a table a malformed copy follows; customers have none.
    fn broken(&self, table: &Table, piece: &Piece) -> Hits {
        let share = if table.name == CUSTOMERS.name { 0.0 } else { self.malformed };
        Hits::new(Stream::new(self.seed, &format!("bad {}", table.name), piece.place()), share)
    }
}

/// What it takes to make pieces of orders on any core.
struct Maker<'a> {
    play: Play<'a>,
    crew: Crew,
    places: Places,
    encodings: HashMap<&'static str, Arc<Encoding>>,
}

impl<'a> Maker<'a> {
    fn new(options: &Options, crew: Crew, period: &'a Period, catalog: &'a Catalog, output: &Output) -> Result<Self> {
        let mut encodings = HashMap::new();
        for table in DAILY.iter().chain(&[&CUSTOMERS]) {
            encodings.insert(table.name, output.encoding(table)?);
        }
        let play = Play { seed: options.seed, malformed: options.malformed, period, catalog };
        Ok(Self { play, crew, places: Places::new(), encodings })
    }

    fn write_days(&self, pieces: &[Piece], output: &mut Output) -> Result<()> {
        for wave in pieces.chunks(self.crew.workers * GENERATED_CHUNKS_PER_CORE) {
            let made = self.crew.map(wave.len(), |n| self.rows(&wave[n]))?;
            for (piece, tables) in wave.iter().zip(made) {
                for (table, rows) in tables {
                    let day = self.play.period.name(piece.day);
                    output.append(table, if table.name == CUSTOMERS.name { "customers" } else { day }, rows)?;
                }
            }
        }
        Ok(())
    }

    /// Rows of all tables for some purchases of a day.
    fn rows(&self, piece: &Piece) -> Result<Vec<(&'static Table, Encoded)>> {
        let orders = self.play.orders(piece);
        let customers = orders.iter().filter(|o| o.is_customer_listed).map(|o| CustomerRow(o, &self.places));
        let states = orders.iter().map(|o| OrderRow(o, o.progress()));
        let reviews = orders.iter().filter_map(|o| Some(ReviewRow(o, o.review.as_ref()?)));
        Ok(vec![
            self.encode(&CUSTOMERS, customers, piece)?,
            self.encode(&ORDERS, states, piece)?,
            self.encode(&ITEMS, orders.iter().flat_map(items), piece)?,
            self.encode(&PAYMENTS, orders.iter().flat_map(payments), piece)?,
            self.encode(&REVIEWS, reviews, piece)?,
        ])
    }

    fn encode<R: Row>(
        &self,
        table: &'static Table,
        rows: impl Iterator<Item = R>,
        piece: &Piece,
    ) -> Result<(&'static Table, Encoded)> {
        let missing = || crate::error::Error::internal("a generated table has no encoding").with("table", table.name);
        let encoding = self.encodings.get(table.name).ok_or_else(missing)?;
        Ok((table, encoding.encode(rows, self.play.broken(table, piece))?))
    }
}

/// An order's rows of `items`.
fn items(order: &Order) -> impl Iterator<Item = ItemRow<'_>> {
    order.items.iter().zip(1..).map(move |(item, n)| ItemRow(order, item, n))
}

/// An order's rows of `payments`.
fn payments(order: &Order) -> impl Iterator<Item = PaymentRow<'_>> {
    order.payments.iter().zip(1..).map(move |(paid, n)| PaymentRow(order, paid, n))
}
