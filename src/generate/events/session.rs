//! Visits: a visitor looks at products that go together, puts some in the cart, takes some out, and buys or leaves.

use crate::generate::catalog::Catalog;
use crate::generate::draw::Stream;

/// What a visitor did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Looked at a product.
    View,
    /// Put it in the cart.
    Cart,
    /// Took it out.
    Remove,
    /// Bought it.
    Purchase,
}

impl Kind {
    /// As `event_type` has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Cart => "cart",
            Self::Remove => "remove_from_cart",
            Self::Purchase => "purchase",
        }
    }
}

/// One event.
#[derive(Debug, Clone)]
pub(super) struct Event {
    /// Seconds since 1970, UTC.
    pub(super) at: i64,
    /// What was done.
    pub(super) kind: Kind,
    /// The product.
    pub(super) product: u32,
    /// The visitor.
    pub(super) user: u32,
    /// The session.
    pub(super) session: u128,
    /// Number in the session.
    step: u16,
}

impl Event {
    /// Where it stands among others.
    pub(super) fn place(&self) -> (i64, u128, u16) {
        (self.at, self.session, self.step)
    }
}

/// Products that one session looks at, at most: visitors tire.
const LOOKS: u64 = 60;

/// Exactly `count` events of as many sessions as it takes, the last one cut off. Sessions begin at `start` of a share of the
/// slice; none goes on after `end`.
pub(super) fn sessions(
    count: u64,
    users: u64,
    end: i64,
    start: impl Fn(f64) -> i64,
    catalog: &Catalog,
    stream: &mut Stream,
) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::with_capacity(count as usize + 4 * LOOKS as usize);
    while (events.len() as u64) < count {
        let from = events.len();
        let begin = start(stream.unit());
        // Few visitors come often: the share of the first u visitors grows as the root of u.
        let user = (users as f64 * stream.unit().powi(2)) as u32;
        visit(begin, user, catalog, stream, &mut events);
        squeeze(events.get_mut(from..).unwrap_or_default(), begin, end);
    }
    events.truncate(count as usize);
    events
}

fn visit(begin: i64, user: u32, catalog: &Catalog, stream: &mut Stream, events: &mut Vec<Event>) {
    let session = stream.id();
    let mut at = begin;
    let mut step = 0;
    let mut add = |at: i64, kind: Kind, product: u32, events: &mut Vec<Event>| {
        events.push(Event { at, kind, product, user, session, step });
        step += 1;
    };
    let mut cart: Vec<u32> = Vec::new();
    let mut product = catalog.popular(stream);
    let interest = if stream.chance(0.3) { 0.28 } else { 0.08 };
    let looks = (1 + stream.geometric(0.2)).min(LOOKS);
    for _ in 0..looks {
        add(at, Kind::View, product, events);
        at += 2 + stream.exponential(45.0) as i64;
        if !cart.contains(&product) && stream.chance(interest) {
            add(at, Kind::Cart, product, events);
            cart.push(product);
            at += 1 + stream.exponential(20.0) as i64;
        }
        if !cart.is_empty() && stream.chance(0.05) {
            let out = cart.swap_remove(stream.below(cart.len() as u64) as usize);
            add(at, Kind::Remove, out, events);
            at += 1 + stream.exponential(15.0) as i64;
        }
        // A phone rings: what follows is another session by any gap up to an hour and a half, though the shop's own goes on.
        if stream.chance(0.01) {
            at += 1_200 + stream.below(4_200) as i64;
        }
        product = match stream.unit() {
            u if u < 0.7 => catalog.similar(product, stream),
            _ => catalog.popular(stream),
        };
    }
    if !cart.is_empty() && stream.chance(0.48) {
        at += 20 + stream.exponential(90.0) as i64;
        // One order is one moment.
        for product in cart {
            add(at, Kind::Purchase, product, events);
        }
    }
}

/// Draws a session together that would go on after the period, in proportion, so that its order stays.
fn squeeze(session: &mut [Event], begin: i64, end: i64) {
    let Some(last) = session.last().map(|event| event.at) else { return };
    if last < end {
        return;
    }
    let room = end - 1 - begin;
    for event in session {
        event.at = begin + (i128::from(event.at - begin) * i128::from(room) / i128::from(last - begin).max(1)) as i64;
    }
}
