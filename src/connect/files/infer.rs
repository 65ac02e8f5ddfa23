//! Looks at files and proposes a source for them.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A source made for files.
pub struct InferredSource {
    /// Its name.
    pub name: String,
}

impl InferredSource {
    /// Its entry under `sources:`.
    pub fn to_yaml(&self, _: &Path) -> String {
        String::new()
    }
}

/// Proposes a source for each file.
pub fn infer(_: &[PathBuf]) -> Result<Vec<InferredSource>> {
    Err(Error::internal("not yet"))
}
