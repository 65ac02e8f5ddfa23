//! Turns selectors of the command line into names of models and sources.

use std::collections::BTreeSet;

use super::args::Selection;
use crate::error::Result;
use crate::plan::select::{self, Chosen, Graph, Node};
use crate::run::project::OpenProject;
use crate::run::outlook;
use crate::spec::fault::Fault;
use crate::spec::types::Located;

/// The chosen models and sources, or the faults of selectors that match nothing.
pub(super) async fn choose(open: &OpenProject, selection: &Selection) -> Result<std::result::Result<Chosen, Vec<Fault>>> {
    let mut include = selection.selectors.clone();
    include.extend(selection.select.iter().cloned());
    let needs_state = include.iter().chain(&selection.exclude).any(|s| s.contains("state:"));
    let modified = if needs_state { outlook::modified_models(open).await? } else { BTreeSet::new() };
    Ok(select::select(&graph(open, &modified), &include, &selection.exclude))
}

fn graph(open: &OpenProject, modified: &BTreeSet<String>) -> Graph {
    let mut graph = Graph::new();
    let names = |list: &[Located<String>]| list.iter().map(|tag| tag.value.clone()).collect();
    for source in &open.plan.sources {
        let node = Node { pipeline: source.pipeline.clone(), tags: names(&source.spec.tags), is_source: true, ..Node::default() };
        graph.insert(source.spec.name.value.clone(), node);
    }
    let specs = || open.project.pipelines.iter().flat_map(|p| &p.models);
    for model in &open.plan.models {
        let tags = specs().find(|spec| spec.name.value == model.name).map(|spec| names(&spec.tags)).unwrap_or_default();
        let node = Node {
            pipeline: model.pipeline.clone(),
            tags,
            reads: model.inputs.iter().cloned().collect(),
            is_source: false,
            is_modified: modified.contains(&model.name),
        };
        graph.insert(model.name.clone(), node);
    }
    graph
}
