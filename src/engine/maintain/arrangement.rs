//! A state's rows in memory, found by their group: what a process that goes on needn't read from files. Knows no files and no
//! plans.

use std::hash::BuildHasher;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, interleave_record_batch, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::execution::memory_pool::MemoryReservation;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::delta::Net;
use super::memory::bytes_of;
use crate::engine::conform;
use crate::error::{Error, Result, ResultExt};
use crate::limits;

/// Rows of a state, one a group; the group's columns come first.
#[derive(Debug)]
pub struct Arrangement {
    schema: SchemaRef,
    /// Columns of the group.
    width: usize,
    converter: RowConverter,
    chunks: Vec<Chunk>,
    index: HashTable<Place>,
    hasher: DefaultHashBuilder,
    /// Rows in chunks that the index has no more.
    dead: usize,
    /// Its bytes, as the pool that plans share counts them.
    memory: MemoryReservation,
}

#[derive(Debug)]
struct Chunk {
    rows: RecordBatch,
    groups: Rows,
    /// Of both in memory, about.
    bytes: usize,
}

/// Chunk and row in it.
type Place = (u32, u32);

impl Arrangement {
    /// The rows of `batches`, which have the columns of `schema` by position; `width` of them, at least one, are the group.
    /// `memory`, of any size, counts its bytes from now on.
    ///
    /// # Errors
    /// External: groups can't be compared. A bug: a group stands twice.
    pub fn new(memory: MemoryReservation, schema: SchemaRef, width: usize, batches: &[RecordBatch]) -> Result<Self> {
        let fields = schema.fields().iter().take(width).map(|field| SortField::new(field.data_type().clone()));
        let converter = RowConverter::new(fields.collect()).external("groups can't be compared")?;
        let (index, hasher) = (HashTable::new(), DefaultHashBuilder::default());
        let mut made = Self { schema, width, converter, chunks: vec![], index, hasher, dead: 0, memory };
        batches.iter().try_for_each(|batch| made.insert(batch))?;
        made.memory.resize(made.bytes());
        Ok(made)
    }

    /// Bytes in memory, about.
    pub fn bytes(&self) -> usize {
        let chunks = self.chunks.iter().map(|chunk| chunk.bytes);
        chunks.sum::<usize>() + self.index.capacity() * size_of::<Place>()
    }

    /// Rows in it.
    pub fn rows(&self) -> usize {
        self.index.len()
    }

    /// The rows of groups, of which `groups` has the columns; a group that isn't there has none.
    ///
    /// # Errors
    /// External: memory.
    pub fn find(&self, groups: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        let chunks: Vec<&RecordBatch> = self.chunks.iter().map(|chunk| &chunk.rows).collect();
        let mut found = Vec::new();
        for batch in groups {
            let asked = self.groups_of(batch)?;
            let places: Vec<(usize, usize)> =
                (0..asked.num_rows()).filter_map(|row| self.place(asked.row(row).data())).map(wide).collect();
            if !places.is_empty() {
                found.push(interleave_record_batch(&chunks, &places).external("a state's rows can't be taken")?);
            }
        }
        Ok(found)
    }

    /// Takes rows out and puts others in.
    ///
    /// # Errors
    /// A bug: a row isn't there, or its group stands twice.
    pub fn apply(&mut self, net: &Net) -> Result<()> {
        for batch in &net.removed {
            let groups = self.groups_of(batch)?;
            for row in 0..groups.num_rows() {
                let bytes = groups.row(row);
                let hash = self.hasher.hash_one(bytes.data());
                let chunks = &self.chunks;
                match self.index.find_entry(hash, |place| bytes_at(chunks, *place) == bytes.data()) {
                    Ok(entry) => drop(entry.remove()),
                    Err(_) => return Err(Error::internal("a row goes that a state in memory doesn't have")),
                }
                self.dead += 1;
            }
        }
        net.added.iter().try_for_each(|batch| self.insert(batch))?;
        let is_crowded = self.dead > self.rows() || self.chunks.len() > limits::ARRANGED_CHUNKS;
        if is_crowded {
            self.compact()?;
        }
        self.memory.resize(self.bytes());
        Ok(())
    }

    fn insert(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let rows = conform(batch, &self.schema)?;
        let groups = self.groups_of(&rows)?;
        let too_many = || Error::internal("a state in memory has too many parts");
        let chunk = u32::try_from(self.chunks.len()).map_err(|_| too_many())?;
        let bytes = bytes_of(&rows) + groups.size();
        self.chunks.push(Chunk { rows, groups, bytes });
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        for row in 0..u32::try_from(batch.num_rows()).map_err(|_| too_many())? {
            let bytes = bytes_at(chunks, (chunk, row));
            let hash = hasher.hash_one(bytes);
            if self.index.find(hash, |place| bytes_at(chunks, *place) == bytes).is_some() {
                return Err(Error::internal("a group stands twice in a state"));
            }
            self.index.insert_unique(hash, (chunk, row), |place| hasher.hash_one(bytes_at(chunks, *place)));
        }
        Ok(())
    }

    /// Puts the rows that count into one chunk.
    fn compact(&mut self) -> Result<()> {
        let mut places: Vec<Vec<u32>> = vec![vec![]; self.chunks.len()];
        for (chunk, row) in &self.index {
            places[*chunk as usize].push(*row);
        }
        let mut batches = Vec::new();
        for (chunk, mut rows) in std::mem::take(&mut self.chunks).into_iter().zip(places) {
            rows.sort_unstable();
            let rows = take_record_batch(&chunk.rows, &UInt32Array::from(rows));
            batches.push(rows.external("a state's rows can't be taken")?);
        }
        self.index.clear();
        self.dead = 0;
        let Some(first) = batches.first() else { return Ok(()) };
        let whole = concat_batches(&first.schema(), &batches).external("a state's rows don't fit together")?;
        self.insert(&whole)
    }

    fn place(&self, group: &[u8]) -> Option<Place> {
        self.index.find(self.hasher.hash_one(group), |place| bytes_at(&self.chunks, *place) == group).copied()
    }

    fn groups_of(&self, batch: &RecordBatch) -> Result<Rows> {
        let mut columns = Vec::with_capacity(self.width);
        for (column, field) in batch.columns().iter().zip(self.schema.fields()).take(self.width) {
            let typed = cast(column, field.data_type());
            columns.push(typed.external("a group isn't of its state's types")?);
        }
        self.converter.convert_columns(&columns).external("groups can't be compared")
    }
}

fn bytes_at(chunks: &[Chunk], (chunk, row): Place) -> &[u8] {
    chunks[chunk as usize].groups.row(row as usize).data()
}

fn wide((chunk, row): Place) -> (usize, usize) {
    (chunk as usize, row as usize)
}
