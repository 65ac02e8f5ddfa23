//! What a topic holds now as a relation, decoded as it is read: for looking, not for keeping.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::arrivals::Arrivals;
use super::client::Client;
use super::closing::close;
use super::history::PastFile;
use super::late::{Judge, Lateness};
use super::offsets_seen::OffsetsSeen;
use super::records::Records;
use super::rows::{Decoder, Needed, landed_contract, landed_fields};
use super::{KafkaSource, Topic, range};
use crate::connect::RowRule;
use crate::connect::files::FileStore;
use crate::connect::relation::relation_schema;
use crate::connect::rules::{self, Ruled};
use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::spec::types::{OnFail, OnInvalid};

/// Accepted rows of all messages from where the source starts to what is there when a scan begins.
pub(super) fn relation(
    source: &KafkaSource,
    contract: &SchemaRef,
    rules: Vec<RowRule>,
    now_us: i64,
) -> Result<Arc<dyn TableProvider>> {
    let contract = landed_contract(contract, &source.topic.spec);
    let schema = relation_schema(&contract, &source.topic.zone);
    // As a first run would take them in: messages after the past.
    let arrivals = Arrivals::at(now_us.saturating_add(i64::from(source.history.is_some())));
    let stream = Messages {
        schema: Arc::clone(&schema),
        topic: Arc::clone(&source.topic),
        decoder: Arc::new(source.decoder(&contract, arrivals)?),
        lateness: source.lateness(&contract),
        now_us,
        needed: Needed::of(&source.source.columns, &contract),
        contract,
        history: source.history.clone(),
        rules: rules.into_iter().filter(|rule| rule.on_fail == OnFail::Quarantine).collect(),
    };
    let table = StreamingTable::try_new(schema, vec![Arc::new(stream)]);
    Ok(Arc::new(table.map_err(|e| Error::internal("a topic can't be a table").caused_by(e))?))
}

#[derive(Clone)]
struct Messages {
    schema: SchemaRef,
    topic: Arc<Topic>,
    decoder: Arc<Decoder>,
    lateness: Option<Lateness>,
    now_us: i64,
    rules: Vec<RowRule>,
    needed: Needed,
    contract: SchemaRef,
    history: Option<FileStore>,
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Messages").field("topic", &self.topic.spec.topic.value).finish_non_exhaustive()
    }
}

impl PartitionStream for Messages {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (tx, rx) = mpsc::channel(limits::LANDING_BATCHES);
        let reading = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = reading.read(&tx) {
                let error = error.with("source", &reading.topic.name);
                // A reader that stopped listening needs no error.
                let _ = tx.blocking_send(Err(DataFusionError::External(Box::new(error))));
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), ReceiverStream::new(rx)))
    }
}

type Batches = mpsc::Sender<Result<RecordBatch, DataFusionError>>;

impl Messages {
    fn read(&self, out: &Batches) -> Result<()> {
        let mut client = Client::connect(&self.topic)?;
        let read = self.read_by(&mut client, out);
        close(client);
        read
    }

    fn read_by(&self, client: &mut Client, out: &Batches) -> Result<()> {
        let next = self.read_past(out)?;
        let mut plan = range::plan(client, &self.topic, None, &next, false)?;
        plan.offsets.partitions.values_mut().for_each(|at| at.heard_us = Some(self.now_us));
        // As a first run would judge what it takes in.
        let judge = |lateness: &Lateness| lateness.judge(&plan.offsets, &plan.speaking(), self.now_us, BTreeMap::new());
        let mut judge = self.lateness.as_ref().map(judge);
        let mut pending = Records::default();
        client.read(&plan.ranges(), |record| {
            pending.push(record);
            match pending.len() < limits::BATCH_ROWS {
                true => Ok(()),
                false => self.send(std::mem::take(&mut pending), &mut judge, out),
            }
        })?;
        self.send(pending, &mut judge, out)
    }

    /// Hands on what files hold of the time before the first message; the offsets that partitions go on at.
    fn read_past(&self, out: &Batches) -> Result<BTreeMap<i32, i64>> {
        let Some(files) = &self.history else { return Ok(BTreeMap::new()) };
        let mut seen = OffsetsSeen::default();
        // This thread is one for blocking work.
        let waiting = tokio::runtime::Handle::current();
        let (spec, zone) = (&self.topic.spec, &self.topic.zone);
        for meta in waiting.block_on(files.list())? {
            let file = PastFile::open(files, &meta, spec, &self.needed, &self.contract, zone, self.now_us);
            let mut file = waiting.block_on(file)?;
            while let Some(decoded) = waiting.block_on(file.next_batch(&mut seen))? {
                self.hand_on(rules::apply(decoded, OnInvalid::Drop, &self.rules)?, out)?;
            }
        }
        seen.settle()?;
        Ok(seen.next())
    }

    fn send(&self, messages: Records, judge: &mut Option<Judge>, out: &Batches) -> Result<()> {
        let places: Vec<(i32, i64)> = messages.places().collect();
        let decoded = self.decoder.decode(messages)?;
        let mut ruled = rules::apply(decoded, OnInvalid::Drop, &self.rules)?;
        if let Some(judge) = judge {
            judge.judge(&mut ruled, &places)?;
        }
        self.hand_on(ruled, out)
    }

    fn hand_on(&self, ruled: Ruled, out: &Batches) -> Result<()> {
        let landed = landed_fields(&self.topic.zone).into_iter().zip(ruled.origin.hidden(&ruled.rows));
        let landed: BTreeMap<String, ArrayRef> = landed.map(|(field, array)| (field.name().clone(), array)).collect();
        let mut columns = ruled.accepted.columns().to_vec();
        let rows = ruled.accepted.num_rows();
        for field in &self.schema.fields()[columns.len()..] {
            columns.push(match (landed.get(field.name()), field.name().as_str()) {
                (Some(array), _) => arrow::compute::cast(array, field.data_type()).external("a hidden column")?,
                (None, "_topic") => constant(ScalarValue::Utf8View(Some(self.topic.spec.topic.value.clone())), rows)?,
                (None, _) => arrow::array::new_null_array(field.data_type(), rows),
            });
        }
        let batch =
            RecordBatch::try_new(Arc::clone(&self.schema), columns).external("can't put hidden columns beside")?;
        // A reader that stopped listening ends the reading by the first batch that it doesn't take.
        out.blocking_send(Ok(batch)).map_err(|_| Error::external("nobody reads the rows any more"))
    }
}

fn constant(value: ScalarValue, rows: usize) -> Result<ArrayRef> {
    value.to_array_of_size(rows).map_err(|e| Error::internal("a hidden column can't be made").caused_by(e))
}
