//! Events of the web shop, by time, made in pieces of sessions: as a file a day of UTC, or handed on one by one. Knows no file's
//! format.
//!
//! A piece is the sessions that start in a slice of a day. What they do after the slice is handed to the pieces it falls
//! into before those are written, so that files are in order and only a few pieces are held.

mod session;

use std::collections::BTreeMap;

use crate::error::Result;
use crate::limits::{GENERATED_CHUNKS_PER_CORE, GENERATED_EVENTS_PER_CHUNK};

use super::Options;
use super::catalog::Catalog;
use super::draw::{Hits, Stream};
use super::encode::{Fields, Row};
use super::files::Output;
use super::parallel::Crew;
use super::rhythm::{Clock, DAY, Period};
use super::tables::EVENTS;

use session::{Event, sessions};

/// Days by which a late event may miss its own.
const LATEST_DAYS: u64 = 3;

/// Which events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// How many, repeats and malformed ones not counted.
    pub(super) events: u64,
    /// The same seed gives the same events.
    pub(super) seed: u64,
    /// Share of events that come late.
    pub(super) late: f64,
    /// Share of events that come twice.
    pub(super) duplicates: f64,
    /// Malformed copies for each event.
    pub(super) malformed: f64,
}

impl From<&Options> for Wanted {
    fn from(options: &Options) -> Self {
        let Options { events, seed, late, duplicates, malformed, .. } = *options;
        Self { events, seed, late, duplicates, malformed }
    }
}

/// What was made besides plain rows.
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
    let maker = Maker { wanted: options.into(), period, catalog, clock: Clock::new(3) };
    let encoding = output.encoding(&EVENTS)?;
    let mut told = Told::default();
    maker.pieces(crew, |first, slices, pieces| {
        let written = crew.map(pieces.len(), |n| {
            let (rows, counts) = maker.rows(first + n, &pieces[n]);
            Ok((encoding.encode(rows.into_iter(), maker.broken(first + n))?, counts))
        })?;
        for (slice, (rows, counts)) in slices.iter().zip(written) {
            told.late += counts.late;
            told.duplicates += counts.duplicates;
            output.append(&EVENTS, period.name(slice.day), rows)?;
        }
        Ok(())
    })?;
    Ok(told)
}

/// Hands on every row of the files, in their order; `Hits` say which ones a malformed copy follows.
#[cfg(feature = "kafka")]
pub(super) fn each(
    wanted: Wanted,
    crew: Crew,
    period: &Period,
    catalog: &Catalog,
    mut take: impl FnMut(EventRow<'_>, &mut Hits) -> Result<()>,
) -> Result<Told> {
    let maker = Maker { wanted, period, catalog, clock: Clock::new(3) };
    let mut told = Told::default();
    maker.pieces(crew, |first, _, pieces| {
        for (n, piece) in pieces.iter().enumerate() {
            let (rows, counts) = maker.rows(first + n, piece);
            let mut broken = maker.broken(first + n);
            rows.into_iter().try_for_each(|row| take(row, &mut broken))?;
            told.late += counts.late;
            told.duplicates += counts.duplicates;
        }
        Ok(())
    })?;
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
    wanted: Wanted,
    period: &'a Period,
    catalog: &'a Catalog,
    clock: Clock,
}

impl<'a> Maker<'a> {
    /// Makes all pieces and hands them on in order, some at a time, with the number of the first of them.
    fn pieces(&self, crew: Crew, mut take: impl FnMut(usize, &[Slice], &[Piece]) -> Result<()>) -> Result<()> {
        let slices = slices(self.period, self.wanted.events);
        let wave = crew.workers * GENERATED_CHUNKS_PER_CORE;
        let mut held = Held::default();
        for (turn, wave_slices) in slices.chunks(wave).enumerate() {
            let first = turn * wave;
            let made = crew.map(wave_slices.len(), |n| Ok(self.sessions(first + n, &wave_slices[n])))?;
            let mut pieces = Vec::with_capacity(made.len());
            for (own, late) in made {
                pieces.push(Piece { events: own, late: Vec::new() });
                for (event, days) in late {
                    held.hold_late(event, days, self.period);
                }
            }
            held.pass_on(&mut pieces, wave_slices, &slices, first);
            take(first, wave_slices, &pieces)?;
        }
        Ok(())
    }

    /// Events of the sessions of a slice, and those among them that come late, with the days by which they do.
    fn sessions(&self, index: usize, slice: &Slice) -> (Vec<Event>, Vec<(Event, u64)>) {
        let midnight = self.period.start + slice.day as i64 * DAY;
        let start = |q: f64| midnight + self.clock.second(slice.from + q * (slice.to - slice.from));
        let mut stream = self.stream("events", index);
        let users = 50 + self.wanted.events / 60;
        let mut events = sessions(slice.events, users, self.period.end(), start, self.catalog, &mut stream);
        // Its own stream, so that a row is the same whether or not it comes late.
        let mut hits = Hits::new(self.stream("late", index), self.wanted.late);
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

    /// Rows of a piece, in order of time save for late ones.
    fn rows<'p>(&self, index: usize, piece: &'p Piece) -> (Vec<EventRow<'p>>, Told)
    where
        'a: 'p,
    {
        let mut order: Vec<&Event> = piece.events.iter().collect();
        order.sort_unstable_by_key(|event| event.place());
        let order = spread(order, &piece.late);
        let mut repeats = Hits::new(self.stream("repeats", index), self.wanted.duplicates);
        let mut told = Told { late: piece.late.len() as u64, duplicates: 0 };
        let mut rows = Vec::with_capacity(order.len());
        for event in order {
            let row = EventRow {
                event,
                catalog: self.catalog,
                millis: event.at * 1_000,
                #[cfg(feature = "kafka")]
                is_late: piece.late.as_ptr_range().contains(&std::ptr::from_ref(event)),
            };
            rows.push(row);
            if repeats.next().is_some() {
                rows.push(row);
                told.duplicates += 1;
            }
        }
        (rows, told)
    }

    /// Which rows of a piece a malformed copy follows.
    fn broken(&self, index: usize) -> Hits {
        Hits::new(self.stream("bad events", index), self.wanted.malformed)
    }

    fn stream(&self, label: &str, index: usize) -> Stream {
        Stream::new(self.wanted.seed, label, index as u64)
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

/// An event as a row.
#[derive(Clone, Copy)]
pub(super) struct EventRow<'a> {
    event: &'a Event,
    catalog: &'a Catalog,
    /// When it is said to have been, in milliseconds since 1970.
    pub(super) millis: i64,
    /// Whether it comes later than it should.
    #[cfg(feature = "kafka")]
    pub(super) is_late: bool,
}

impl EventRow<'_> {
    /// The visitor's number.
    pub(super) fn user(&self) -> i64 {
        500_000_000 + i64::from(self.event.user)
    }

    /// What tells the event from all others.
    #[cfg(feature = "kafka")]
    pub(super) fn place(&self) -> (i64, u128, u16) {
        self.event.place()
    }
}

impl Row for EventRow<'_> {
    fn fields(&self, to: &mut impl Fields) {
        let (product, category, code, brand) = self.catalog.web(self.event.product);
        to.instant(self.millis);
        to.text(Some(self.event.kind.name()));
        to.int(Some(product));
        to.int(Some(category));
        to.text(code);
        to.text(brand);
        to.money(self.catalog.product(self.event.product).price);
        to.int(Some(self.user()));
        to.uuid(self.event.session);
    }
}
