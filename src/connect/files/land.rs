//! Takes fresh files in: their accepted rows become Parquet in the warehouse, their refused rows quarantine.
//!
//! Nothing of a file is used unless all of it was read and it didn't change meanwhile.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use futures::StreamExt;
use object_store::ObjectMeta;

use super::discover::{Discovery, Found, changed, is_same};
use super::{FilesSource, parquet_file};
use crate::connect::decode::{Contract, TextReader, open_text};
use crate::connect::landing::{Counts, Landing, Sink};
use crate::connect::position::{FileEntry, Position};
use crate::error::{Error, Result, ResultExt};
use crate::failpoint;
use crate::spec::types::{AfterTaken, FileFormat, TextOptions};

impl FilesSource {
    /// Takes the fresh files of a discovery in. Files that were written are deleted again on failure.
    ///
    /// # Errors
    /// Kind `Check` for a row under `on_invalid: fail` or a failed rule; external for a file that can't be read whole or that
    /// changed meanwhile.
    pub(super) async fn land(&self, discovery: Discovery, landing: &Landing<'_>) -> Result<Position> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let take = |found: Found| async move {
            let taken = self.take(&found, landing).await;
            taken.map_err(|e| e.with("source", &self.name).with("file", &found.path))
        };
        let mut taken = futures::stream::iter(discovery.fresh).map(take).buffer_unordered(cores);
        let mut entries = Vec::new();
        let mut failed = None;
        while let Some(result) = taken.next().await {
            match result {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        drop(taken);
        if let Some(error) = failed {
            landing.discard(&entries).await;
            return Err(error);
        }
        entries.extend(discovery.kept);
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Position { contract: landing.fingerprint.clone(), files: entries, ..Position::default() })
    }

    /// Moves or deletes the files of a landing folder as `after` says; to be called after the commit that took them.
    /// Files that are gone already are fine; one whose bytes aren't those that were taken is left for the next run.
    pub(super) async fn finish_taken(&self, position: &Position) -> Result<()> {
        if self.spec.after == AfterTaken::Keep {
            return Ok(());
        }
        for meta in self.store.list().await? {
            let path = self.store.shown(&meta.location);
            if self.is_taken(position, &path, &meta).await? {
                self.store.finish(&self.spec.after, &meta.location).await?;
            }
        }
        Ok(())
    }

    async fn is_taken(&self, position: &Position, path: &str, meta: &ObjectMeta) -> Result<bool> {
        let known = || position.files.iter().filter(|entry| entry.path == path);
        if known().any(|entry| is_same(entry, meta)) {
            return Ok(true);
        }
        // Sent once more as it was: nothing new, and hashed only where the size fits.
        if !known().any(|entry| entry.size == meta.size) {
            return Ok(false);
        }
        let hash = self.hash(meta).await?;
        Ok(known().any(|entry| entry.hash == hash))
    }

    async fn take(&self, found: &Found, landing: &Landing<'_>) -> Result<FileEntry> {
        let mut entry = FileEntry {
            path: found.path.clone(),
            size: found.meta.size,
            etag: found.meta.e_tag.clone(),
            modified_us: found.meta.last_modified.timestamp_micros(),
            hash: found.hash.clone(),
            ingested_at_us: landing.ingested_at_us,
            ..FileEntry::default()
        };
        if self.is_parquet() {
            let builder = parquet_file::open(&self.store, &found.meta).await?;
            let is_plain = landing.rules.is_empty()
                && !self.is_append()
                && !self.spec.archive
                && parquet_file::is_plain(builder.metadata(), builder.schema(), &landing.contract);
            if is_plain {
                entry.rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
                return Ok(entry);
            }
        }
        self.decode_into(found, landing, &mut entry).await?;
        // Bytes that were read while somebody wrote them are nobody's version.
        let now = self.store.head(&found.meta.location).await?;
        if now.is_none_or(|meta| !is_same(&entry, &meta)) {
            landing.discard(std::slice::from_ref(&entry)).await;
            return Err(changed(&found.path));
        }
        Ok(entry)
    }

    /// Decodes the file in a thread of its own while its rows are written.
    async fn decode_into(&self, found: &Found, landing: &Landing<'_>, entry: &mut FileEntry) -> Result<()> {
        let hidden = vec![Field::new("_source_row", DataType::Int64, true)];
        let decode = async |sink| self.start_decoding(found, &landing.contract, sink).await;
        landing.write(self.source.on_invalid, hidden, &found.path, entry, decode).await.map(|written| written.decoded)
    }

    async fn start_decoding(
        &self,
        found: &Found,
        contract: &SchemaRef,
        mut sink: Sink,
    ) -> Result<tokio::task::JoinHandle<Result<(Counts, ())>>> {
        let format = self.spec.format.clone();
        if format == FileFormat::Parquet {
            let mut batches = parquet_file::with_batches(parquet_file::open(&self.store, &found.meta).await?)
                .build()
                .external("the file isn't whole Parquet")?;
            let converter = parquet_file::Converter::new(Arc::clone(contract), &self.zone)?;
            return Ok(tokio::spawn(async move {
                let mut first = 1;
                while let Some(batch) = batches.next().await {
                    let batch = batch.external("the file isn't whole Parquet")?;
                    failpoint::hit("mid_file");
                    let rows = batch.num_rows() as u64;
                    for batch in sink.batches(converter.decode(batch, first)?)? {
                        batch.send().await?;
                    }
                    first += rows;
                }
                Ok((sink.counts(), ()))
            }));
        }
        let bytes = self.store.read(&found.meta.location).await?;
        let (name, zone) = (found.path.clone(), self.zone.clone());
        let (columns, contract) = (self.source.columns.clone(), Arc::clone(contract));
        Ok(tokio::task::spawn_blocking(move || {
            let options = text_options(&format)?;
            let encoding = options.encoding.as_ref().map(|e| e.value.as_str());
            let contract = Contract::new(contract, &columns, options, &zone)?;
            let mut reader = TextReader::new(&format, open_text(&name, encoding, bytes)?, &contract)?;
            while let Some(decoded) = reader.next_batch()? {
                failpoint::hit("mid_file");
                for batch in sink.batches(decoded)? {
                    batch.blocking_send()?;
                }
            }
            Ok((sink.counts(), ()))
        }))
    }
}

/// Options of a text format.
pub(super) fn text_options(format: &FileFormat) -> Result<&TextOptions> {
    match format {
        FileFormat::Csv(options) => Ok(&options.text),
        FileFormat::Json(options) => Ok(options),
        FileFormat::Parquet => Err(Error::internal("Parquet isn't a text format")),
    }
}
