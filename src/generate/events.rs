//! Events of the web shop: one file a day of UTC, by time, made in pieces of sessions. Knows no file's format.
//!
//! A piece is the sessions that start in a slice of a day. What they do after the slice is handed to the pieces it falls
//! into before those are written, so that files are in order and only a few pieces are held.

mod session;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Result;
use crate::limits::{GENERATED_CHUNKS_PER_CORE, GENERATED_EVENTS_PER_CHUNK};

use super::Options;
use super::catalog::Catalog;
use super::draw::{Hits, Stream};
use super::encode::{Encoded, Encoding, Fields, Row};
use super::files::Output;
use super::parallel::Crew;
use super::rhythm::{Clock, DAY, Period};
use super::tables::EVENTS;

use session::{Event, sessions};

/// Days by which a late event may miss its own.
const LATEST_DAYS: u64 = 3;

/// What was written besides plain rows.
#[derive(Default)]
pub(super) struct Told {
    /// Events in a later day's file.
    pub(super) late: u64,
    /// Events written twice.
    pub(super) duplicates: u64,
}

/// Writes `events`: `options.events` rows, and repeats and malformed lines beside them.
pub(super) fn write(
    options: &Options,
    crew: Crew,
    period: &Period,
    catalog: &Catalog,
    output: &mut Output,
) -> Result<Told> {
    let maker = Maker { options, period, catalog, clock: Clock::new(3), encoding: output.encoding(&EVENTS)? };
    let slices = slices(period, options.events);
    let wave = crew.workers * GENERATED_CHUNKS_PER_CORE;
    let mut held = Held::default();
    let mut told = Told::default();
    for (turn, wave_slices) in slices.chunks(wave).enumerate() {
        let first = turn * wave;
        let made = crew.map(wave_slices.len(), |n| Ok(maker.sessions(first + n, &wave_slices[n])))?;
        let mut pieces = Vec::with_capacity(made.len());
        for (own, late) in made {
            pieces.push(Piece { events: own, late: Vec::new() });
            for (event, days) in late {
                held.hold_late(event, days, period);
            }
        }
        held.pass_on(&mut pieces, wave_slices, &slices, first);
        let written = crew.map(pieces.len(), |n| maker.encode(first + n, &pieces[n]))?;
        for (slice, (rows, counts)) in wave_slices.iter().zip(written) {
            told.late += counts.late;
            told.duplicates += counts.duplicates;
            output.append(&EVENTS, period.name(slice.day), rows)?;
        }
    }
    Ok(told)
}

/// A part of a day whose sessions are made together.
struct Slice {
    day: usize,
    /// Share of the day's doings before it, and before its end.
    from: f64,
    to: f64,
    /// Seconds since 1970 before which events of this piece and of those before it lie.
    end: i64,
    /// Events to make.
    events: u64,
    /// Whether it is the last of its day.
    is_last: bool,
}

/// Cuts each day into slices of about equal counts. Every day has one, so that every day has a file.
fn slices(period: &Period, events: u64) -> Vec<Slice> {
    let clock = Clock::new(3);
    let mut slices = Vec::new();
    for (day, count) in period.split(events).into_iter().enumerate() {
        let parts = count.div_ceil(GENERATED_EVENTS_PER_CHUNK).max(1);
        let midnight = period.start + day as i64 * DAY;
        for part in 0..parts {
            let (from, to) = (part as f64 / parts as f64, (part + 1) as f64 / parts as f64);
            let is_last = part + 1 == parts;
            let end = midnight + if is_last { DAY } else { clock.second(to) };
            let events = count * (part + 1) / parts - count * part / parts;
            slices.push(Slice { day, from, to, end, events, is_last });
        }
    }
    slices
}

/// Events of a piece: those of its time, and late ones of earlier days.
struct Piece {
    events: Vec<Event>,
    late: Vec<Event>,
}

/// Events that belong to pieces that aren't made yet.
#[derive(Default)]
struct Held {
    /// By time: what sessions do after their slice.
    later: Vec<Event>,
    /// By the day in whose file they stand.
    late: BTreeMap<usize, Vec<Event>>,
}

impl Held {
    /// Keeps a late event for the file of a day after its own, or for the last one.
    fn hold_late(&mut self, event: Event, days: u64, period: &Period) {
        let own = ((event.at - period.start) / DAY) as usize;
        self.late.entry((own + days as usize).min(period.days() - 1)).or_default().push(event);
    }

    /// Gives each piece of a wave what is its own, and keeps the rest. Late events wait for the last piece of their file's day
    /// and are spread over it.
    fn pass_on(&mut self, pieces: &mut [Piece], wave: &[Slice], all: &[Slice], first: usize) {
        for (n, slice) in wave.iter().enumerate() {
            let Some(piece) = pieces.get_mut(n) else { continue };
            piece.events.append(&mut self.later);
            self.later = piece.events.extract_if(.., |event| event.at >= slice.end).collect();
            let is_last_of_all = first + n + 1 == all.len();
            if slice.is_last && (is_last_of_all || self.late.keys().next().is_some_and(|d| *d <= slice.day)) {
                let waiting = self.late.split_off(&(slice.day + 1));
                piece.late = std::mem::replace(&mut self.late, waiting).into_values().flatten().collect();
            }
        }
    }
}

/// What it takes to make pieces on any core.
struct Maker<'a> {
    options: &'a Options,
    period: &'a Period,
    catalog: &'a Catalog,
    clock: Clock,
    encoding: Arc<Encoding>,
}

impl Maker<'_> {
    /// Events of the sessions of a slice, and those among them that come late, with the days by which they do.
    fn sessions(&self, index: usize, slice: &Slice) -> (Vec<Event>, Vec<(Event, u64)>) {
        let midnight = self.period.start + slice.day as i64 * DAY;
        let start = |q: f64| midnight + self.clock.second(slice.from + q * (slice.to - slice.from));
        let mut stream = Stream::new(self.options.seed, "events", index as u64);
        let users = 50 + self.options.events / 60;
        let mut events = sessions(slice.events, users, self.period.end(), start, self.catalog, &mut stream);
        // Its own stream, so that a row is the same whether or not it comes late.
        let mut hits = Hits::new(Stream::new(self.options.seed, "late", index as u64), self.options.late);
        let mut late = Vec::new();
        events.retain(|event| match hits.next() {
            Some(stream) => {
                late.push((event.clone(), 1 + stream.below(LATEST_DAYS) * stream.below(2)));
                false
            }
            None => true,
        });
        (events, late)
    }

    /// Lines of a piece, in order of time save for late ones.
    fn encode(&self, index: usize, piece: &Piece) -> Result<(Encoded, Told)> {
        let mut order: Vec<&Event> = piece.events.iter().collect();
        order.sort_unstable_by_key(|event| event.place());
        let order = spread(order, &piece.late);
        let mut repeats = Hits::new(Stream::new(self.options.seed, "repeats", index as u64), self.options.duplicates);
        let mut duplicates = 0;
        let mut rows = Vec::with_capacity(order.len());
        for event in order {
            rows.push(EventRow { event, catalog: self.catalog });
            if repeats.next().is_some() {
                rows.push(EventRow { event, catalog: self.catalog });
                duplicates += 1;
            }
        }
        let broken = Hits::new(Stream::new(self.options.seed, "bad events", index as u64), self.options.malformed);
        let told = Told { late: piece.late.len() as u64, duplicates };
        Ok((self.encoding.encode(rows.into_iter(), broken)?, told))
    }
}

/// Puts late events evenly between the others.
fn spread<'e>(order: Vec<&'e Event>, late: &'e [Event]) -> Vec<&'e Event> {
    if late.is_empty() {
        return order;
    }
    let mut mixed = Vec::with_capacity(order.len() + late.len());
    let mut waiting = late.iter();
    for (n, event) in order.iter().enumerate() {
        mixed.push(*event);
        let due = late.len() * (n + 1) / (order.len() + 1);
        let given = late.len() - waiting.len();
        mixed.extend(waiting.by_ref().take(due - given));
    }
    mixed.extend(waiting);
    mixed
}

struct EventRow<'a> {
    event: &'a Event,
    catalog: &'a Catalog,
}

impl Row for EventRow<'_> {
    fn fields(&self, to: &mut impl Fields) {
        let (product, category, code, brand) = self.catalog.web(self.event.product);
        to.instant(self.event.at);
        to.text(Some(self.event.kind.name()));
        to.int(Some(product));
        to.int(Some(category));
        to.text(code);
        to.text(brand);
        to.money(self.catalog.product(self.event.product).price);
        to.int(Some(500_000_000 + i64::from(self.event.user)));
        to.uuid(self.event.session);
    }
}
