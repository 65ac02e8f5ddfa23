//! Finds the rows that make a model's query fail on its values, by running it over fewer and fewer of them. Changes nothing, and
//! knows no words.
//!
//! What fails is found in the topmost piece of the plan whose inputs can be computed (see [`plan::topmost_piece`]), since there a row
//! fails whatever other rows there are: a part of the input that fails fails for a row that makes the whole fail, too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::datasource::{MemTable, ViewTable};
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use futures::stream::select_all;
use futures::{StreamExt, TryStreamExt};

use crate::connect::Position;
use crate::engine::{self, failure};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::limits;
use crate::plan::{self, InputRows, Piece};
use crate::run::version::{Read, Versions};
use crate::table::TableFiles;

/// A model that failed on a value, with what it was to be computed from.
pub(super) struct Failing<'a> {
    pub(super) session: &'a SessionContext,
    pub(super) versions: Versions<'a>,
    /// Its canonical plan, and the columns of its result.
    pub(super) plan: &'a LogicalPlan,
    pub(super) schema: &'a SchemaRef,
    /// Its inputs, as whole as they are kept.
    pub(super) relations: HashMap<String, Arc<dyn TableProvider>>,
    /// What was read of each, and what had been when the model was computed last.
    pub(super) reads: HashMap<&'a str, (&'a Read, Option<Read>)>,
    /// When the search ends.
    pub(super) until: Instant,
}

/// What is left of one input, by which the query fails.
pub(super) struct Suspect {
    /// What it is a part of.
    pub(super) of: InputRows,
    /// The files or messages of the input that are left; none where it was computed.
    pub(super) part: Option<Read>,
    /// The rows that are left, where they could be held in memory.
    pub(super) rows: Option<RecordBatch>,
    /// Whether fewer of them make nothing fail; else time was over.
    pub(super) is_least: bool,
}

/// Why a search ends without an answer.
enum Stop {
    OutOfTime,
    /// Something else fails than a value.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Failing<'_> {
    /// The rows that make the query fail: of several inputs where it takes rows of each. None where that isn't so, or can't be told in
    /// time.
    ///
    /// # Errors
    /// What is read can't be, or there is a bug.
    pub(super) async fn suspects(&self) -> Result<Vec<Suspect>> {
        match self.search().await {
            Ok(suspects) => Ok(suspects),
            Err(Stop::OutOfTime) => Ok(vec![]),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    async fn search(&self) -> Result<Vec<Suspect>, Stop> {
        let Some(piece) = self.failing_piece().await? else { return Ok(vec![]) };
        let mut given = self.relations.clone();
        for input in &piece.piece.inputs {
            given.insert(input.name.clone(), self.whole(&input.rows)?);
        }
        let mut suspects = Vec::new();
        for at in self.by_change(&piece.piece) {
            let input = &piece.piece.inputs[at];
            let nothing = empty(given.get(&input.name))?;
            match self.fails_with(&piece, &given, &input.name, &nothing).await {
                // It fails without the rows of this one.
                Ok(true) => {
                    given.insert(input.name.clone(), nothing);
                    continue;
                }
                Ok(false) => {}
                Err(Stop::OutOfTime) => break,
                Err(stop) => return Err(stop),
            }
            let (suspect, rows) = self.narrowed(&piece, &given, at).await?;
            given.insert(input.name.clone(), rows);
            suspects.push(suspect);
        }
        Ok(suspects)
    }

    /// The lowest piece that fails while all that is computed under it doesn't.
    async fn failing_piece(&self) -> Result<Option<Whole>, Stop> {
        let mut whole = Whole { piece: topmost(self.plan)?, schema: Some(Arc::clone(self.schema)) };
        let mut is_known_to_fail = false;
        loop {
            let computed = whole.piece.inputs.iter().filter_map(|input| match &input.rows {
                InputRows::Computed { operator, .. } => Some(operator.as_ref()),
                InputRows::Relation(_) => None,
            });
            let mut lower = None;
            for plan in computed.chain(&whole.piece.subqueries) {
                if self.fails(plan::bind(plan, &self.relations)?, None).await? {
                    lower = Some(topmost(plan)?);
                    break;
                }
            }
            match lower {
                Some(piece) => whole = Whole { piece, schema: None },
                None => break,
            }
            is_known_to_fail = true;
        }
        if !is_known_to_fail && !self.fails(plan::bind(self.plan, &self.relations)?, Some(self.schema)).await? {
            return Ok(None);
        }
        Ok(Some(whole))
    }

    /// Places of the inputs in the order in which they are looked at: those that changed first.
    fn by_change(&self, piece: &Piece) -> Vec<usize> {
        let mut places: Vec<usize> = (0..piece.inputs.len()).collect();
        places.sort_by_key(|at| match &piece.inputs[*at].rows {
            InputRows::Relation(name) => self.changed_first(name).is_none_or(|(_, changed)| changed == 0),
            InputRows::Computed { .. } => true,
        });
        places
    }

    /// Files of a relation, those first that it didn't have when the model was computed last, and how many these are.
    fn changed_first(&self, name: &str) -> Option<(Read, usize)> {
        let (read, before) = self.reads.get(name)?;
        Some(match (read, before) {
            (Read::Source(position), before) => {
                let kept = position.files.iter().filter(|file| !file.is_let_go).cloned().collect();
                let position = Position { files: kept, ..position.clone() };
                let changed = match before {
                    Some(Read::Source(before)) => position.beyond(before).files,
                    _ => vec![],
                };
                let rest = position.files.iter().filter(|file| !changed.contains(file)).cloned();
                let files = changed.iter().cloned().chain(rest).collect();
                (Read::Source(Position { files, ..position }), changed.len())
            }
            (Read::Table(table), before) => {
                let changed = match before {
                    Some(Read::Table(before)) => crate::run::version::rows_beyond(table, before).files,
                    _ => vec![],
                };
                let rest = table.files.iter().filter(|file| !changed.contains(file)).cloned();
                let files = changed.iter().cloned().chain(rest).collect();
                (Read::Table(TableFiles { files, ..table.clone() }), changed.len())
            }
        })
    }

    /// All rows of an input.
    fn whole(&self, rows: &InputRows) -> Result<Arc<dyn TableProvider>> {
        match rows {
            InputRows::Computed { plan, .. } => Ok(Arc::new(ViewTable::new(plan::bind(plan, &self.relations)?, None))),
            InputRows::Relation(name) => {
                self.relations.get(name).cloned().ok_or_else(|| Error::internal("an input wasn't opened"))
            }
        }
    }

    /// As few rows of an input as can be found to make the piece fail, and those as a relation.
    async fn narrowed(
        &self,
        piece: &Whole,
        given: &HashMap<String, Arc<dyn TableProvider>>,
        at: usize,
    ) -> Result<(Suspect, Arc<dyn TableProvider>), Stop> {
        let input = &piece.piece.inputs[at];
        let mut suspect = Suspect { of: input.rows.clone(), part: None, rows: None, is_least: false };
        let mut relation = self.whole(&input.rows)?;
        let narrowed = self.narrow(piece, given, &input.name, &mut suspect, &mut relation).await;
        match narrowed {
            Ok(()) => suspect.is_least = true,
            Err(Stop::OutOfTime) => {}
            Err(stop) => return Err(stop),
        }
        Ok((suspect, relation))
    }

    /// Narrows `suspect` and `relation` down as far as time goes.
    async fn narrow(
        &self,
        piece: &Whole,
        given: &HashMap<String, Arc<dyn TableProvider>>,
        input: &str,
        suspect: &mut Suspect,
        relation: &mut Arc<dyn TableProvider>,
    ) -> Result<(), Stop> {
        if let InputRows::Relation(name) = &suspect.of.clone()
            && let Some((whole, changed)) = self.changed_first(name)
        {
            let mut places: Vec<usize> = (0..units(&whole)).collect();
            suspect.part = Some(whole.clone());
            // What had been read before made nothing fail.
            let mut half = if changed > 0 && changed < places.len() { changed } else { places.len() / 2 };
            while places.len() > 1 {
                let (first, second) = places.split_at(half);
                let mut left = None;
                for places in [first, second] {
                    let part = part(&whole, places);
                    let rows = self.versions.provider(name, &part)?;
                    if self.fails_with(piece, given, input, &rows).await? {
                        left = Some((places.to_vec(), part, rows));
                        break;
                    }
                }
                let Some((those, part, rows)) = left else { return Ok(()) };
                (places, *relation, suspect.part) = (those, rows, Some(part));
                half = places.len() / 2;
            }
        }
        let schema = match &suspect.of {
            InputRows::Computed { schema, .. } => Arc::clone(schema),
            InputRows::Relation(_) => relation.schema(),
        };
        let Some(rows) = self.failing_rows(piece, given, input, (relation, &schema)).await? else { return Ok(()) };
        (*relation, suspect.rows) = (table_of(&rows)?, Some(rows.clone()));
        let mut rows = rows;
        while rows.num_rows() > 1 {
            let half = rows.num_rows() / 2;
            let halves = [rows.slice(0, half), rows.slice(half, rows.num_rows() - half)];
            let mut left = None;
            for half in halves {
                let table = table_of(&half)?;
                if self.fails_with(piece, given, input, &table).await? {
                    left = Some((half, table));
                    break;
                }
            }
            let Some((half, table)) = left else { return Ok(()) };
            rows = half;
            (*relation, suspect.rows) = (table, Some(rows.clone()));
        }
        Ok(())
    }

    /// The first rows of a relation, as many as are held at once, that make the piece fail; none where no such number does.
    async fn failing_rows(
        &self,
        piece: &Whole,
        given: &HashMap<String, Arc<dyn TableProvider>>,
        input: &str,
        (relation, schema): (&Arc<dyn TableProvider>, &SchemaRef),
    ) -> Result<Option<RecordBatch>, Stop> {
        let frame = in_order(self.session).read_table(Arc::clone(relation)).map_err(failure)?;
        let stream = self.in_time(async { frame.execute_stream().await.map_err(failure) }).await?;
        let mut stream = stream.map_err(failure).boxed();
        let mut held: Vec<RecordBatch> = Vec::new();
        loop {
            let batch = self.in_time(async { stream.try_next().await }).await?;
            let is_last = batch.is_none();
            held.extend(batch.map(|batch| engine::conform(&batch, schema)).transpose()?);
            let rows: usize = held.iter().map(RecordBatch::num_rows).sum();
            if rows > 0 && (is_last || rows >= limits::SUSPECT_ROWS) {
                let together = concat_batches(&held[0].schema(), &held).external("rows can't be held together")?;
                held.clear();
                if self.fails_with(piece, given, input, &table_of(&together)?).await? {
                    return Ok(Some(together));
                }
            }
            if is_last {
                return Ok(None);
            }
        }
    }

    /// Whether the piece fails with these rows in the place of an input.
    async fn fails_with(
        &self,
        piece: &Whole,
        given: &HashMap<String, Arc<dyn TableProvider>>,
        input: &str,
        rows: &Arc<dyn TableProvider>,
    ) -> Result<bool, Stop> {
        let mut given = given.clone();
        given.insert(input.to_owned(), Arc::clone(rows));
        self.fails(plan::bind(&piece.piece.plan, &given)?, piece.schema.as_ref()).await
    }

    /// Whether a plan fails on a value.
    async fn fails(&self, plan: LogicalPlan, schema: Option<&SchemaRef>) -> Result<bool, Stop> {
        let run = async {
            let streams = match schema {
                Some(schema) => engine::execute_as(self.session, plan, schema).await?,
                None => engine::execute(self.session, plan).await?,
            };
            let mut rows = select_all(streams);
            while rows.try_next().await.map_err(failure)?.is_some() {}
            Ok(())
        };
        match self.in_time(run).await {
            Ok(()) => Ok(false),
            Err(Stop::Failed(error)) if error.kind() == ErrorKind::Data => Ok(true),
            Err(stop) => Err(stop),
        }
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T, Stop> {
        match tokio::time::timeout_at(self.until.into(), work).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Stop::OutOfTime),
        }
    }
}

/// A piece, and the columns of its result where it is the model's.
struct Whole {
    piece: Piece,
    schema: Option<SchemaRef>,
}

fn topmost(plan: &LogicalPlan) -> Result<Piece> {
    plan::topmost_piece(plan).map_err(failure)
}

/// A session that gives the rows of files in their order.
fn in_order(session: &SessionContext) -> SessionContext {
    let state = session.state();
    let config = state.config().clone().with_target_partitions(1);
    SessionContext::new_with_state(SessionStateBuilder::new_from_existing(state).with_config(config).build())
}

/// Parts of a version that can be read alone.
fn units(read: &Read) -> usize {
    match read {
        Read::Source(position) => position.files.len(),
        Read::Table(table) => table.files.len(),
    }
}

/// Those at these places.
fn part(read: &Read, places: &[usize]) -> Read {
    match read {
        Read::Source(position) => {
            let files = places.iter().map(|at| position.files[*at].clone()).collect();
            Read::Source(Position { files, ..position.clone() })
        }
        Read::Table(table) => {
            let files = places.iter().map(|at| table.files[*at].clone()).collect();
            Read::Table(TableFiles { files, ..table.clone() })
        }
    }
}

fn table_of(rows: &RecordBatch) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).map_err(failure)?))
}

fn empty(table: Option<&Arc<dyn TableProvider>>) -> Result<Arc<dyn TableProvider>> {
    let table = table.ok_or_else(|| Error::internal("an input wasn't opened"))?;
    Ok(Arc::new(MemTable::try_new(table.schema(), vec![vec![]]).map_err(failure)?))
}
