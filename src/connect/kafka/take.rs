//! Takes a range of messages in: one unit of the position, its rows landed, the offsets behind it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::again;
use super::arrivals::{self, Arrivals};
use super::carried::{self, Carried};
use super::client::{self, Client};
use super::history::{self, Past};
use super::late::Judge;
use super::late_offsets;
use super::let_go::LetGo;
use super::range::{self, Again, Plan};
use super::records::{Record, Records};
use super::rows::{Decoder, Needed, landed_contract, landed_fields};
use super::{KafkaSource, Topic};
use crate::connect::files::FileStore;
use crate::connect::landing::{Counts, Rulebook, Sink, Written};
use crate::connect::position::{LastMessage, Offsets};
use crate::connect::ranges::Ranges;
use crate::connect::relation::relation_schema;
use crate::connect::rules::Ruled;
use crate::connect::{FileEntry, Landing, Position, TakenIn};
use crate::error::{Result, ResultExt};
use crate::spec::types::KafkaSpec;
use crate::table::{DataFile, TableFiles, Warehouse, parquet_table};
use crate::{failpoint, limits};

/// Hidden column with the topic's name, the same for all rows.
const TOPIC: &str = "_topic";

/// See [`crate::connect::Source::take_in`]. Rows of another contract are read again as far as the topic holds their messages, and
/// stay as they are landed otherwise.
pub(super) async fn take_in(
    source: &KafkaSource,
    prior: &Position,
    landing: &Landing<'_>,
    again: bool,
) -> Result<TakenIn> {
    // What was landed under the same contract is the archive: it holds more than the topic may still have.
    let again = again && prior.contract != landing.fingerprint && prior.offsets.is_some();
    let topic_landing = landing_of_topic(landing, &source.topic.spec);
    let past = match &source.history {
        Some(files) if prior.offsets.is_none() || again => read_past(source, prior, &topic_landing, files)
            .await
            .map_err(|error| error.with("source", &source.topic.name))?,
        _ => Past::default(),
    };
    let taken = take_messages(source, prior, &topic_landing, again, &past).await;
    if taken.is_err() {
        topic_landing.discard(&past.units).await;
    }
    taken
}

/// What files hold of the time before the first message. It came before any message, also where it is read once more.
async fn read_past(source: &KafkaSource, prior: &Position, landing: &Landing<'_>, files: &FileStore) -> Result<Past> {
    let (spec, zone) = (&source.topic.spec, &source.topic.zone);
    let ingested_at_us = arrivals::of_past(prior, landing, zone).await?;
    let landing = Landing { ingested_at_us, ..landing_of_topic(landing, spec) };
    let needed = Needed::of(&source.source.columns, &landing.contract);
    history::read(files, spec, zone, &needed, source.on_invalid(), &landing).await
}

/// What the landing of a source is for its messages.
pub(super) fn landing_of_topic<'a>(landing: &Landing<'a>, spec: &KafkaSpec) -> Landing<'a> {
    Landing {
        contract: landed_contract(&landing.contract, spec),
        landed: landing.landed.clone(),
        quarantine: landing.quarantine.clone(),
        prefix: landing.prefix.clone(),
        fingerprint: landing.fingerprint.clone(),
        run: landing.run.clone(),
        ..*landing
    }
}

/// Takes in what came after `prior`, or after the `past`; `landing` is that of messages.
async fn take_messages(
    source: &KafkaSource,
    prior: &Position,
    landing: &Landing<'_>,
    again: bool,
    past: &Past,
) -> Result<TakenIn> {
    let (topic, next) = (Arc::clone(&source.topic), past.next.clone());
    // Of a position that is only gone on from, the files don't matter.
    let files = if again { prior.files.clone() } else { Vec::new() };
    let known = Position { files, ..prior.clone() };
    let planned = source.with_client(move |client| match again {
        true => again::plan(client, &topic, &known, &next),
        false => Ok((range::plan(client, &topic, known.offsets.as_ref(), &next, false)?, Vec::new())),
    });
    let (plan, kept) = planned.await?;
    let now_us = arrivals::next_us(landing.ingested_at_us, prior.files.iter().chain(&past.units));
    let arrivals = if again {
        let units = again::replaced(&plan, &prior.files, source.topic.spec.history.is_some());
        let known = Arrivals::again(&units, now_us, landing, &source.topic.zone).await;
        known.map_err(|error| error.with("source", &source.topic.name))?
    } else {
        Arrivals::at(now_us)
    };
    let carried = carried::carry(&source.topic, kept, landing).await;
    let carried = carried.map_err(|error| error.with("source", &source.topic.name))?;
    let taken = take_planned(source, prior, landing, again, (plan, arrivals, past, &carried)).await;
    if taken.is_err() {
        carried.discard(landing).await;
    }
    taken
}

/// Takes in what is planned, beside what stays under another contract.
async fn take_planned(
    source: &KafkaSource,
    prior: &Position,
    landing: &Landing<'_>,
    again: bool,
    (mut plan, arrivals, past, carried): (Plan, Arrivals, &Past, &Carried),
) -> Result<TakenIn> {
    plan.warnings.extend(carried.warnings.iter().cloned());
    let judge = judge(source, prior, landing, &mut plan, again).await?;
    let mut position = Position { contract: landing.fingerprint.clone(), ..prior.clone() };
    if again {
        position.files.clone_from(&carried.units);
    }
    position.files.extend(past.units.iter().cloned());
    let is_changed = again || !past.units.is_empty();
    if plan.len() == 0 {
        position.offsets = Some(plan.offsets);
        position.files.sort_by(|a, b| a.path.cmp(&b.path));
        return Ok(TakenIn { position, has_changes: is_changed, warnings: plan.warnings, added: None });
    }
    let mut entry = FileEntry {
        path: landing.prefix.clone(),
        hash: landing.prefix.clone(),
        ingested_at_us: arrivals.latest_us(range::new_offsets(&plan).is_some()),
        ..FileEntry::default()
    };
    let (mut done, rows) = land(source, landing, plan, (judge, arrivals), &mut entry).await?;
    if again {
        // Those that were given up, or are of a past that is read from its files, aren't asked for.
        let is_counted = carried.is_all && source.history.is_none();
        let checked =
            again::check_whole(&source.topic, done.old, if is_counted { carried.without(&prior.files) } else { 0 });
        match checked {
            Ok(warning) => done.warnings.extend(warning),
            Err(error) => {
                landing.discard(std::slice::from_ref(&entry)).await;
                return Err(error.with("source", &source.topic.name));
            }
        }
        // What was judged before isn't judged again.
        let late = |files: &[FileEntry]| files.iter().map(|file| file.late).sum::<u64>();
        entry.late += late(&prior.files).saturating_sub(late(&carried.units));
    }
    position.offsets = Some(done.offsets);
    let has_rows = entry.rows + entry.refused > 0;
    if has_rows {
        position.files.push(entry);
        let units_stay = source.topic.spec.unarchived.is_none();
        source.together.compact(&mut position.files, landing, (&source.topic.zone, units_stay)).await?;
        position.files.sort_by(|a, b| a.path.cmp(&b.path));
    }
    let added = match rows.filter(|_| !is_changed) {
        Some(rows) => Some(of_topic(&source.topic.spec.topic.value, rows)?),
        None => None,
    };
    Ok(TakenIn { position, has_changes: has_rows || is_changed, warnings: done.warnings, added })
}

/// Landed rows with the name of their topic, which stands in no file.
fn of_topic(topic: &str, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let named = rows.into_iter().map(|batch| {
        let field = Arc::new(Field::new(TOPIC, DataType::Utf8, false));
        let fields = batch.schema_ref().fields().iter().cloned().chain([field]).collect::<Vec<_>>();
        let names: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(topic, batch.num_rows())));
        let columns = batch.columns().iter().cloned().chain([names]).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).external("rows of a topic can't be named")
    });
    named.collect()
}

/// Reads the plan's messages and lands them as the unit `entry`; gives the rows, too, where they are at hand.
pub(super) async fn land(
    source: &KafkaSource,
    landing: &Landing<'_>,
    plan: Plan,
    (judge, arrivals): (Option<Judge>, Arrivals),
    entry: &mut FileEntry,
) -> Result<(Read, Option<Vec<RecordBatch>>)> {
    let decoder = Arc::new(source.decoder(&landing.contract, arrivals)?);
    let topic = Arc::clone(&source.topic);
    let decode = async |sink: Sink| {
        let (topic, slot) = (Arc::clone(&topic), Arc::clone(&source.client));
        Ok(tokio::task::spawn_blocking(move || {
            client::with(&slot, &topic, |client| read(client, &topic, plan, decoder, judge, sink))
        }))
    };
    let hidden = landed_fields(&source.topic.zone);
    let place = source.topic.spec.topic.value.clone();
    let written = landing.write(source.on_invalid(), hidden, &place, entry, decode).await;
    let Written { decoded: done, rows } = written.map_err(|error| error.with("source", &source.topic.name))?;
    (entry.size, entry.ranges, entry.late) = (done.bytes, done.ranges.clone(), done.late);
    entry.late_offsets = match late_offsets::write(landing, &done.offsets, &done.refused).await {
        Ok(files) => files,
        Err(error) => {
            landing.discard(std::slice::from_ref(entry)).await;
            return Err(error.with("source", &source.topic.name));
        }
    };
    Ok((done, rows))
}

/// The judge of the plan's rows; none where rows have no event time. Partitions that are new count from now on.
pub(super) async fn judge(
    source: &KafkaSource,
    prior: &Position,
    landing: &Landing<'_>,
    plan: &mut Plan,
    again: bool,
) -> Result<Option<Judge>> {
    let Some(lateness) = source.lateness(&landing.contract) else { return Ok(None) };
    for at in plan.offsets.partitions.values_mut() {
        at.heard_us.get_or_insert(landing.ingested_at_us);
    }
    let before = match again {
        true => late_offsets::read(landing, &source.topic.zone, prior).await?,
        false => BTreeMap::new(),
    };
    let before = before.into_iter().filter(|(partition, _)| !plan.is_another(*partition)).collect();
    Ok(Some(lateness.judge(&plan.offsets, &plan.speaking(), landing.ingested_at_us, before)))
}

/// What reading a plan came to.
pub(super) struct Read {
    /// Where partitions stand after it.
    pub(super) offsets: Offsets,
    /// Bytes of keys and values.
    bytes: u64,
    ranges: Ranges,
    /// Messages that were read before, under another contract.
    old: u64,
    /// Rows behind the watermark.
    late: u64,
    /// Partition and offset of those that were refused for it.
    refused: Vec<(i32, i64)>,
    warnings: Vec<String>,
}

/// Reads the plan's messages into the sink.
fn read(
    client: &mut Client,
    topic: &Topic,
    mut plan: Plan,
    decoder: Arc<Decoder>,
    judge: Option<Judge>,
    sink: Sink,
) -> Result<(Counts, Read)> {
    prove(client, topic, &mut plan)?;
    let ranges = plan.ranges();
    let mut reading = Reading {
        again: plan.again,
        old: 0,
        offsets: plan.offsets,
        judge,
        bytes: 0,
        pending: Records::default(),
        decoding: VecDeque::new(),
        decoder,
        rulebook: sink.rulebook(),
        sink,
    };
    client.read(&ranges, |record| reading.take(record))?;
    reading.flush()?;
    while reading.hand_on_first()? {}
    let (mut offsets, sink, old) = (reading.offsets, reading.sink, reading.old);
    let (late, refused) = reading.judge.map_or_else(Default::default, |judge| judge.settle(&mut offsets));
    let mut held = Ranges::new();
    for (partition, (from, to)) in ranges {
        if let Some(at) = offsets.partitions.get_mut(&partition) {
            at.next = at.next.max(to);
            if from < to {
                held.insert(format!("{partition}.{}", at.epoch), vec![(from, to)]);
            }
        }
    }
    let read = Read { offsets, bytes: reading.bytes, ranges: held, old, late, refused, warnings: plan.warnings };
    Ok((sink.counts(), read))
}

/// Reads the last message of each partition once more, unless the client just did: it must still be the same.
pub(super) fn prove(client: &mut Client, topic: &Topic, plan: &mut Plan) -> Result<()> {
    let ranges = plan.ranges();
    let goes_on = |partition: &i32| {
        let from = ranges.get(partition).map(|(from, _)| *from);
        !plan.again.contains_key(partition) && from.is_some_and(|from| client.goes_on_at(*partition, from))
    };
    let last: BTreeMap<i32, LastMessage> =
        plan.proofs().into_iter().filter(|(partition, _)| !goes_on(partition)).collect();
    let ranges = last.iter().map(|(partition, known)| (*partition, (known.offset, known.offset + 1))).collect();
    let mut others = Vec::new();
    // One that isn't there any more was taken away by age, or by a later message of its key: that proves nothing.
    client.read(&ranges, |record| {
        if last.get(&record.partition).is_some_and(|known| known.hash != record.hash()) {
            others.push(record.partition);
        }
        Ok(())
    })?;
    others.into_iter().try_for_each(|partition| plan.is_other_topic(topic, partition))
}

/// Messages on their way into the sink: they are decoded in batches, several at a time, and handed on in their order.
struct Reading {
    /// Partitions that are read again, and how many messages that were.
    again: BTreeMap<i32, Again>,
    old: u64,
    offsets: Offsets,
    judge: Option<Judge>,
    bytes: u64,
    pending: Records,
    decoding: VecDeque<JoinHandle<Result<Batch>>>,
    decoder: Arc<Decoder>,
    rulebook: Arc<Rulebook>,
    sink: Sink,
}

/// A batch of messages that was decoded.
struct Batch {
    ruled: Ruled,
    /// Partition and offset of each message.
    places: Vec<(i32, i64)>,
}

impl Reading {
    fn take(&mut self, record: &Record<'_>) -> Result<()> {
        self.bytes += record.size() as u64;
        let is_old = self.again.get(&record.partition).is_some_and(|again| record.offset < again.known.next);
        self.old += u64::from(is_old);
        self.pending.push(record);
        if self.pending.len() >= limits::BATCH_ROWS || self.pending.size() >= limits::RECORD_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Has what is pending decoded, and hands on what was decoded before.
    fn flush(&mut self) -> Result<()> {
        let next = Records::like(&self.pending);
        let records = std::mem::replace(&mut self.pending, next);
        let mut last: BTreeMap<i32, usize> = BTreeMap::new();
        for (at, (partition, _)) in records.places().enumerate() {
            last.insert(partition, at);
        }
        for (partition, at) in last {
            let record = records.get(at);
            if let Some(at) = self.offsets.partitions.get_mut(&partition) {
                at.last = Some(LastMessage { offset: record.offset, hash: record.hash() });
                at.next = record.offset + 1;
            }
        }
        if records.len() == 0 {
            return Ok(());
        }
        failpoint::hit("mid_file");
        let (decoder, rulebook) = (Arc::clone(&self.decoder), Arc::clone(&self.rulebook));
        self.decoding.push_back(tokio::task::spawn_blocking(move || {
            let places = records.places().collect();
            Ok(Batch { ruled: rulebook.rule(decoder.decode(records)?)?, places })
        }));
        while self.decoding.len() > limits::DECODING_BATCHES {
            self.hand_on_first()?;
        }
        Ok(())
    }

    /// Waits for the first batch that is being decoded and hands it to the writers; whether there was one.
    fn hand_on_first(&mut self) -> Result<bool> {
        let Some(first) = self.decoding.pop_front() else { return Ok(false) };
        // This thread is one for blocking work.
        let mut batch = Handle::current().block_on(first).external("decoding ended early")??;
        if let Some(judge) = &mut self.judge {
            judge.judge(&mut batch.ruled, &batch.places)?;
        }
        for batch in self.sink.outgoing(&batch.ruled)? {
            batch.blocking_send()?;
        }
        Ok(true)
    }
}

/// The rows of a position.
pub(super) fn relation(
    topic: &Topic,
    contract: &SchemaRef,
    position: &Position,
    warehouse: &Warehouse,
    landed: &str,
) -> Result<Arc<dyn TableProvider>> {
    let schema = relation_schema(&landed_contract(contract, &topic.spec), &topic.zone);
    let mut files = Vec::new();
    for entry in &position.files {
        let constants = vec![Some(topic.spec.topic.value.clone())];
        let landed = entry.landed.iter().flatten();
        files.extend(landed.map(|file| DataFile { partition_values: constants.clone(), ..file.clone() }));
    }
    if position.lacks_rows() {
        return Ok(Arc::new(LetGo { topic: topic.name.clone(), schema }));
    }
    let partition_by = vec![TOPIC.to_string()];
    parquet_table(warehouse, landed, TableFiles { schema, partition_by, files }, &topic.zone)
}
