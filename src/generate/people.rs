//! Customers and when they buy: each has a rate, a mean spend and a moment of leaving of their own. Knows no table.
//!
//! While active, a customer buys at a rate drawn from a gamma distribution, thinned to the shop's rhythm; they leave after an
//! exponential time whose mean is drawn from another (the Pareto/NBD model of Schmittlein, Morrison and Colombo 1987). An
//! order's value is gamma around the customer's own mean (the gamma-gamma model). Some die, some move, most come once.

use crate::error::Result;
use crate::limits::{GENERATED_CUSTOMERS_PER_CHUNK, GENERATED_ORDERS_PER_CUSTOMER};

use super::draw::{Stream, Weighted, bits_of, id_of, unit};
use super::parallel::Crew;
use super::rhythm::{Clock, DAY, HEAVIEST_DAY, Period};

/// Names of the streams that belong to customers and to their orders.
const CUSTOMER_IDS: u64 = 11;
const ORDER_IDS: u64 = 12;
const ORDER_CUSTOMER_IDS: u64 = 13;
const HOMES: u64 = 14;

/// Rates: gamma of this shape and mean, in purchases a day.
const RATE_SHAPE: f64 = 0.9;
const RATE_MEAN: f64 = 0.016;
/// Rates of leaving: gamma of this shape and mean, a day.
const LEAVING_SHAPE: f64 = 0.9;
const LEAVING_MEAN: f64 = 0.006;
/// Values of one customer's orders: gamma of this shape around their mean.
const VALUE_SHAPE: f64 = 2.5;
/// Customers' means: an inverse gamma distribution of this shape, and this mean in cents.
const MEAN_SHAPE: f64 = 3.5;
const MEAN_CENTS: f64 = 13_500.0;

/// A purchase, before anything but its time, its customer and its size is known. 16 bytes: millions are sorted at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Purchase {
    /// Seconds since the period's start.
    pub(super) at: u32,
    /// Number of the customer.
    pub(super) customer: u32,
    /// How many purchases they made before.
    pub(super) number: u16,
    /// Cents to spend.
    pub(super) cents: u32,
}

impl Purchase {
    fn key(&self) -> u64 {
        // A customer has less than 2^16 orders, so that no two purchases share a key.
        u64::from(self.customer) << 16 | u64::from(self.number)
    }

    /// Identifier of the order.
    pub(super) fn order_id(&self, seed: u64) -> u128 {
        id_of(seed, ORDER_IDS, self.key())
    }

    /// Identifier of the customer in this order only.
    pub(super) fn customer_id(&self, seed: u64) -> u128 {
        id_of(seed, ORDER_CUSTOMER_IDS, self.key())
    }

    /// Identifier of the person.
    pub(super) fn person_id(&self, seed: u64) -> u128 {
        id_of(seed, CUSTOMER_IDS, u64::from(self.customer))
    }

    /// Random bits of where the person lives at this order; one purchase in fifty follows a move.
    pub(super) fn home(&self, seed: u64) -> u64 {
        let moved = |n: u16| unit(bits_of(seed, HOMES, u64::from(self.customer) << 16 | u64::from(n))) < 0.02;
        let since = (1..=self.number).rev().find(|n| moved(*n)).unwrap_or(0);
        bits_of(seed, HOMES, u64::from(self.customer) << 16 | u64::from(since)).rotate_left(29)
    }
}

/// All customers of a shop, as many as make its orders.
pub(super) struct People<'p> {
    seed: u64,
    crew: Crew,
    period: &'p Period,
    births: Weighted,
    clock: Clock,
    /// Orders that are wanted.
    orders: u64,
    /// Pieces of customers that give them; the last one gives too many.
    chunks: u64,
    /// Orders of all pieces but the last.
    before_last: u64,
    /// Orders of each day.
    per_day: Vec<u64>,
}

impl<'p> People<'p> {
    /// Plays customers until they have made `orders` purchases, and counts those of each day.
    pub(super) fn new(seed: u64, crew: Crew, period: &'p Period, orders: u64) -> Result<Self> {
        let arrivals: Vec<f64> = (0..period.days()).map(|d| period.weight(d)).collect();
        let mut people = Self {
            seed,
            crew,
            period,
            births: Weighted::new(&arrivals),
            clock: Clock::new(0),
            orders,
            chunks: 0,
            before_last: 0,
            per_day: vec![0; period.days()],
        };
        let mut total = 0;
        while total < orders {
            let wave = crew.workers;
            let first = people.chunks;
            let played = crew.map(wave, |n| Ok(people.count(first + n as u64)))?;
            for days in played {
                if total >= orders {
                    break;
                }
                people.before_last = total;
                people.chunks += 1;
                total += days.iter().map(|d| u64::from(*d)).sum::<u64>();
                if total <= orders {
                    people.add(&days);
                } else {
                    let days = people.count_at_most(people.chunks - 1, orders - people.before_last);
                    people.add(&days);
                }
            }
        }
        Ok(people)
    }

    /// Orders of each day.
    pub(super) fn per_day(&self) -> &[u64] {
        &self.per_day
    }

    /// Purchases of the days `from..to`, by time.
    pub(super) fn window(&self, from: usize, to: usize) -> Result<Vec<Purchase>> {
        let mut all = Vec::new();
        let (low, high) = (from as i64 * DAY, to as i64 * DAY);
        let wave = 16 * self.crew.workers;
        let mut chunk = 0;
        while chunk < self.chunks {
            let n = wave.min((self.chunks - chunk) as usize);
            let pieces = self.crew.map(n, |i| {
                let mut kept = Vec::new();
                let mut left = self.allowance(chunk + i as u64);
                self.play(chunk + i as u64, |purchase| {
                    if left > 0 && (low..high).contains(&i64::from(purchase.at)) {
                        kept.push(purchase);
                    }
                    left = left.saturating_sub(1);
                });
                Ok(kept)
            })?;
            for piece in pieces {
                all.extend(piece);
            }
            chunk += n as u64;
        }
        all.sort_unstable();
        Ok(all)
    }

    /// Purchases of a piece of customers that count: all, save in the last piece.
    fn allowance(&self, chunk: u64) -> u64 {
        if chunk + 1 == self.chunks { self.orders - self.before_last } else { u64::MAX }
    }

    fn add(&mut self, days: &[u32]) {
        for (sum, more) in self.per_day.iter_mut().zip(days) {
            *sum += u64::from(*more);
        }
    }

    fn count(&self, chunk: u64) -> Vec<u32> {
        self.count_at_most(chunk, u64::MAX)
    }

    fn count_at_most(&self, chunk: u64, mut left: u64) -> Vec<u32> {
        let mut days = vec![0; self.period.days()];
        self.play(chunk, |purchase| {
            if left > 0 {
                days[purchase.at as usize / DAY as usize] += 1;
                left -= 1;
            }
        });
        days
    }

    /// Lives of one piece of customers, purchase by purchase, each customer's by time.
    fn play(&self, chunk: u64, mut each: impl FnMut(Purchase)) {
        let mut stream = Stream::new(self.seed, "customers", chunk);
        let first = chunk * GENERATED_CUSTOMERS_PER_CHUNK;
        for customer in first..first + GENERATED_CUSTOMERS_PER_CHUNK {
            self.live(customer as u32, &mut stream, &mut each);
        }
    }

    fn live(&self, customer: u32, stream: &mut Stream, each: &mut impl FnMut(Purchase)) {
        let rate = stream.gamma(RATE_SHAPE, RATE_MEAN / RATE_SHAPE).max(1e-9);
        let leaving = stream.gamma(LEAVING_SHAPE, LEAVING_MEAN / LEAVING_SHAPE).max(1e-9);
        let mean = MEAN_CENTS * (MEAN_SHAPE - 1.0) / stream.gamma(MEAN_SHAPE, 1.0).max(1e-3);
        let birth = self.births.draw(stream);
        let days = self.period.days();
        let left = (birth as f64 + stream.exponential(1.0 / leaving)).min(days as f64);
        let mut age = birth as f64;
        let mut day = birth;
        let mut second = 0;
        for number in 0..GENERATED_ORDERS_PER_CUSTOMER {
            // Two purchases of a day stay in their order.
            second = i64::max(second, self.clock.second(stream.unit()));
            let at = (day as i64 * DAY + second) as u32;
            let cents = (stream.gamma(VALUE_SHAPE, mean / VALUE_SHAPE)).clamp(300.0, 2_000_000.0) as u32;
            each(Purchase { at, customer, number, cents });
            // Candidates at the greatest rate; each day keeps those that its weight allows.
            loop {
                age += stream.exponential(1.0 / (rate * HEAVIEST_DAY));
                if age >= left || stream.chance(self.period.weight(age as usize) / HEAVIEST_DAY) {
                    break;
                }
            }
            if age >= left {
                break;
            }
            if age as usize > day {
                second = 0;
            }
            day = age as usize;
        }
    }
}
