//! Turns selectors of the command line into names of models and sources.

use std::collections::BTreeSet;

use super::args::Selection;
use crate::error::Result;
use crate::plan::select::{self, Graph};
use crate::run::project::OpenProject;
use crate::run::reader;
use crate::spec::fault::Fault;

/// What was chosen.
pub(super) struct Chosen {
    /// Models.
    pub(super) models: BTreeSet<String>,
    /// Sources: all without selectors, else the selected ones.
    pub(super) sources: BTreeSet<String>,
}

/// The chosen models and sources, or the faults of selectors that match nothing.
pub(super) async fn choose(open: &OpenProject, selection: &Selection) -> Result<std::result::Result<Chosen, Vec<Fault>>> {
    let mut include = selection.selectors.clone();
    include.extend(selection.select.iter().cloned());
    let needs_state = include.iter().chain(&selection.exclude).any(|s| s.contains("state:"));
    let modified = if needs_state { reader::modified_models(open).await? } else { BTreeSet::new() };
    let graph = graph(open, modified);
    Ok(select::select(&graph, &include, &selection.exclude)
        .map(|chosen| Chosen { models: chosen.models, sources: chosen.sources }))
}
