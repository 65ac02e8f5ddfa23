//! Columns that files have and the contract lacks: a run leaves them out, so a plan says which. Reads the start of one file.

use std::io::{BufRead, BufReader, Read as _};

use arrow::datatypes::Schema;
use object_store::ObjectMeta;
use serde_json::Value;

use super::discover::is_same;
use super::{FilesSource, contract};
use crate::connect::{Ignored, Position, decode};
use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::spec::types::{FileFormat, TextOptions};

/// What the newest file that `prior` doesn't have, holds beside the contract; none where it can't be read, which is the run's to
/// tell.
pub(super) async fn ignored(source: &FilesSource, contract: &Schema, prior: &Position) -> Option<Ignored> {
    let is_taken = |file: &ObjectMeta| {
        prior.files_of(&source.store.shown(&file.location)).iter().any(|entry| is_same(entry, file))
    };
    let files = source.store.list().await.ok()?;
    let newest = files.into_iter().filter(|file| !is_taken(file)).max_by_key(|file| file.last_modified)?;
    let mut columns: Vec<String> = match &source.spec.format {
        FileFormat::Json(options) => keys(source, options, &newest).await.ok()?,
        _ => contract::columns_of(source, &newest).await.ok()??.into_iter().map(|(name, _)| name).collect(),
    };
    columns.retain(|name| contract.index_of(name).is_err());
    let file = source.store.shown(&newest.location);
    (!columns.is_empty()).then_some(Ignored { file, columns })
}

/// Keys of the first lines of a file, in order of appearance.
async fn keys(source: &FilesSource, options: &TextOptions, file: &ObjectMeta) -> Result<Vec<String>> {
    let bytes = source.store.read(&file.location).await?;
    let (name, options) = (file.location.to_string(), options.clone());
    let keys = tokio::task::spawn_blocking(move || {
        let encoding = options.encoding.as_ref().map(|encoding| encoding.value.as_str());
        let text = decode::open_text(&name, encoding, bytes)?.take(limits::GLANCE_BYTES);
        let mut keys = Vec::new();
        for line in BufReader::new(text).split(b'\n').take(limits::GLANCE_ROWS) {
            // The last one may be cut.
            let Ok(Value::Object(object)) = serde_json::from_slice(&line.external("the file can't be read")?) else {
                continue;
            };
            for key in object.into_iter().map(|(key, _)| key) {
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        Ok(keys)
    });
    keys.await.map_err(|e| Error::internal("reading keys ended early").caused_by(e))?
}
