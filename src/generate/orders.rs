//! Orders with their customers, items, payments and reviews: day by day, in pieces. Knows no file's format.

mod life;
mod rows;

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::limits::{GENERATED_CHUNKS_PER_CORE, GENERATED_ORDERS_PER_CHUNK, GENERATED_ORDERS_PER_WINDOW};

use super::Options;
use super::catalog::Catalog;
use super::draw::{Hits, Stream};
use super::encode::{Encoded, Encoding};
use super::files::Output;
use super::parallel::Crew;
use super::people::{People, Purchase};
use super::places::Places;
use super::rhythm::{DAY, Period};
use super::tables::{CUSTOMERS, ITEMS, ORDERS, PAYMENTS, REVIEWS, Table};

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

/// What it takes to make pieces of orders on any core.
struct Maker<'a> {
    options: &'a Options,
    crew: Crew,
    period: &'a Period,
    catalog: &'a Catalog,
    places: Places,
    encodings: HashMap<&'static str, Arc<Encoding>>,
}

impl<'a> Maker<'a> {
    fn new(
        options: &'a Options,
        crew: Crew,
        period: &'a Period,
        catalog: &'a Catalog,
        output: &Output,
    ) -> Result<Self> {
        let mut encodings = HashMap::new();
        for table in DAILY.iter().chain(&[&CUSTOMERS]) {
            encodings.insert(table.name, output.encoding(table)?);
        }
        Ok(Self { options, crew, period, catalog, places: Places::new(), encodings })
    }

    fn write_days(&self, pieces: &[Piece], output: &mut Output) -> Result<()> {
        for wave in pieces.chunks(self.crew.workers * GENERATED_CHUNKS_PER_CORE) {
            let made = self.crew.map(wave.len(), |n| self.rows(&wave[n]))?;
            for (piece, tables) in wave.iter().zip(made) {
                for (table, rows) in tables {
                    let stem = if table.name == CUSTOMERS.name { "customers" } else { self.period.name(piece.day) };
                    output.append(table, stem, rows)?;
                }
            }
        }
        Ok(())
    }

    /// Rows of all tables for some purchases of a day.
    fn rows(&self, piece: &Piece) -> Result<Vec<(&'static Table, Encoded)>> {
        let place = (piece.day as u64) << 32 | piece.number as u64;
        let mut stream = Stream::new(self.options.seed, "orders", place);
        let (start, end) = (self.period.start, self.period.end());
        let orders: Vec<Order> = piece
            .purchases
            .iter()
            .map(|p| Order::new(self.options.seed, p, start, end, self.catalog, &mut stream))
            .collect();
        let items = orders.iter().flat_map(|o| o.items.iter().zip(1..).map(move |(item, n)| ItemRow(o, item, n)));
        let payments =
            orders.iter().flat_map(|o| o.payments.iter().zip(1..).map(move |(paid, n)| PaymentRow(o, paid, n)));
        let reviews = orders.iter().filter_map(|o| Some(ReviewRow(o, o.review.as_ref()?)));
        let customers = orders.iter().filter(|o| o.is_customer_listed).map(|o| CustomerRow(o, &self.places));
        Ok(vec![
            (&CUSTOMERS, self.encoding(&CUSTOMERS)?.encode(customers, self.broken("", 0.0, place))?),
            (
                &ORDERS,
                self.encoding(&ORDERS)?.encode(orders.iter().map(OrderRow), self.some_broken("bad orders", place))?,
            ),
            (&ITEMS, self.encoding(&ITEMS)?.encode(items, self.some_broken("bad items", place))?),
            (&PAYMENTS, self.encoding(&PAYMENTS)?.encode(payments, self.some_broken("bad payments", place))?),
            (&REVIEWS, self.encoding(&REVIEWS)?.encode(reviews, self.some_broken("bad reviews", place))?),
        ])
    }

    fn encoding(&self, table: &Table) -> Result<&Encoding> {
        let missing = || crate::error::Error::internal("a generated table has no encoding").with("table", table.name);
        self.encodings.get(table.name).map(AsRef::as_ref).ok_or_else(missing)
    }

    fn some_broken(&self, label: &str, place: u64) -> Hits {
        self.broken(label, self.options.malformed, place)
    }

    fn broken(&self, label: &str, share: f64, place: u64) -> Hits {
        Hits::new(Stream::new(self.options.seed, label, place), share)
    }
}
