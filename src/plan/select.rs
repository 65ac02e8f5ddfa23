//! dbt's selectors over a small graph: which models, and which sources. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::spec::fault::{Fault, Place, SourceText};
use crate::spec::nearest;

/// A node of the graph that selectors choose from.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// Pipeline.
    pub pipeline: String,
    /// Tags.
    pub tags: BTreeSet<String>,
    /// Sources and models that it reads; none for a source.
    pub reads: BTreeSet<String>,
    /// Whether it is a source.
    pub is_source: bool,
    /// Whether its definition differs from the published one.
    pub is_modified: bool,
}

/// Sources and models by name.
pub type Graph = BTreeMap<String, Node>;

/// What was chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Models.
    pub models: BTreeSet<String>,
    /// Sources.
    pub sources: BTreeSet<String>,
}

/// The nodes that `include` chooses (all, if it is empty) without those that `exclude` does. Each text may hold several
/// selectors: spaces unite, commas intersect.
///
/// # Errors
/// A fault for each selector that matches nothing.
pub fn select(graph: &Graph, include: &[String], exclude: &[String]) -> Result<Chosen, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut union = |texts: &[String]| -> BTreeSet<String> {
        let selectors = texts.iter().flat_map(|text| text.split_whitespace());
        selectors.flat_map(|selector| intersection(graph, selector, &mut faults)).collect()
    };
    let mut chosen = if include.is_empty() { graph.keys().cloned().collect() } else { union(include) };
    for name in union(exclude) {
        chosen.remove(&name);
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let (sources, models) = chosen.into_iter().partition(|name| graph.get(name).is_some_and(|node| node.is_source));
    Ok(Chosen { models, sources })
}

fn intersection(graph: &Graph, text: &str, faults: &mut Vec<Fault>) -> BTreeSet<String> {
    let mut common: Option<BTreeSet<String>> = None;
    for part in text.split(',') {
        let found = match one(graph, part) {
            Ok(found) => found,
            Err((message, hint)) => {
                faults.push(fault(text, part, message, hint));
                return BTreeSet::new();
            }
        };
        common = Some(match common {
            Some(common) => common.intersection(&found).cloned().collect(),
            None => found,
        });
    }
    let common = common.unwrap_or_default();
    // That nothing is modified now is no mistake of whoever asked for what is.
    if common.is_empty() && !text.contains("state:modified") {
        faults.push(fault(text, text, format!("`{text}` matches nothing in common"), None));
    }
    common
}

fn fault(text: &str, part: &str, message: String, hint: Option<String>) -> Fault {
    let source = Arc::new(SourceText { path: "selector".to_string(), text: text.to_string() });
    let start = text.find(part).unwrap_or(0);
    let place = Place { source, span: start..start + part.len() };
    Fault { hint, ..Fault::error("no_such_selection", place, message) }
}

/// How far a selector goes from what it names.
struct Reach {
    upstream: Option<usize>,
    downstream: Option<usize>,
    with_all_they_read: bool,
}

fn one(graph: &Graph, part: &str) -> Result<BTreeSet<String>, (String, Option<String>)> {
    let (core, reach) = reach(part);
    let seeds = seeds(graph, core)?;
    let mut chosen = seeds.clone();
    chosen.extend(walk(&seeds, reach.upstream, |name| graph.get(name).map(|n| n.reads.clone()).unwrap_or_default()));
    let down = walk(&seeds, if reach.with_all_they_read { Some(usize::MAX) } else { reach.downstream }, |name| {
        graph.iter().filter(|(_, node)| node.reads.contains(name)).map(|(name, _)| name.clone()).collect()
    });
    chosen.extend(down);
    if reach.with_all_they_read {
        let all = chosen.clone();
        chosen
            .extend(walk(&all, Some(usize::MAX), |name| graph.get(name).map(|n| n.reads.clone()).unwrap_or_default()));
    }
    Ok(chosen)
}

/// `2+name+3`: steps upstream, the name, steps downstream.
fn reach(part: &str) -> (&str, Reach) {
    let mut core = part;
    let mut reach = Reach { upstream: None, downstream: None, with_all_they_read: false };
    if let Some(rest) = core.strip_prefix('@') {
        core = rest;
        reach.with_all_they_read = true;
    }
    if let Some((steps, rest)) = core.split_once('+')
        && steps.chars().all(|c| c.is_ascii_digit())
        && !rest.is_empty()
    {
        reach.upstream = Some(steps.parse().unwrap_or(usize::MAX));
        core = rest;
    }
    if let Some((rest, steps)) = core.rsplit_once('+')
        && steps.chars().all(|c| c.is_ascii_digit())
    {
        reach.downstream = Some(steps.parse().unwrap_or(usize::MAX));
        core = rest;
    }
    (core, reach)
}

fn walk(seeds: &BTreeSet<String>, steps: Option<usize>, next: impl Fn(&str) -> BTreeSet<String>) -> BTreeSet<String> {
    let mut seen = seeds.clone();
    let mut front = seeds.clone();
    let mut left = steps.unwrap_or(0);
    while left > 0 && !front.is_empty() {
        front = front.iter().flat_map(|name| next(name)).filter(|name| !seen.contains(name)).collect();
        seen.extend(front.iter().cloned());
        left -= 1;
    }
    seen
}

/// Whether a node is one that a selector names.
type Matcher<'a> = dyn Fn(&str, &Node) -> bool + 'a;

fn seeds(graph: &Graph, core: &str) -> Result<BTreeSet<String>, (String, Option<String>)> {
    let (method, value) = core.split_once(':').unwrap_or(("name", core));
    let matches: Box<Matcher<'_>> = match method {
        "name" => Box::new(|name, node| !node.is_source && is_like(value, name)),
        "source" => Box::new(|name, node| node.is_source && is_like(value, name)),
        "tag" => Box::new(|_, node| node.tags.iter().any(|tag| is_like(value, tag))),
        "pipeline" => Box::new(|_, node| is_like(value, &node.pipeline)),
        // Nothing modified is a fine answer.
        "state" if value == "modified" => {
            return Ok(graph.iter().filter(|(_, n)| n.is_modified).map(|(name, _)| name.clone()).collect());
        }
        "state" => return Err((format!("there is no state `{value}`"), Some("there is state:modified".into()))),
        _ => {
            let known = ["tag", "source", "pipeline", "state"];
            let hint = nearest(method, known).map(|near| format!("did you mean `{near}:`?"));
            return Err((
                format!("there is no selector `{method}:`"),
                hint.or_else(|| Some("there are tag:, source:, pipeline: and state:".into())),
            ));
        }
    };
    let found: BTreeSet<String> =
        graph.iter().filter(|(name, node)| matches(name, node)).map(|(name, _)| name.clone()).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let names: Vec<&str> = match method {
        "tag" => graph.values().flat_map(|node| node.tags.iter().map(String::as_str)).collect(),
        "pipeline" => graph.values().map(|node| node.pipeline.as_str()).collect(),
        "source" => graph.iter().filter(|(_, n)| n.is_source).map(|(name, _)| name.as_str()).collect(),
        _ => graph.iter().filter(|(_, n)| !n.is_source).map(|(name, _)| name.as_str()).collect(),
    };
    let of = if method == "name" { "model" } else { method };
    let hint = nearest(value, names).map(|near| format!("did you mean `{near}`?"));
    Err((format!("there is no {of} `{value}`"), hint))
}

/// Whether `name` is `pattern`, in which `*` stands for any characters.
fn is_like(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// orders, items → daily → weekly → report; items → stock.
    fn graph() -> Graph {
        let node = |reads: &[&str], tags: &[&str], is_source| Node {
            pipeline: if reads.contains(&"weekly") { "reports" } else { "sales" }.to_string(),
            tags: tags.iter().map(|t| (*t).to_string()).collect(),
            reads: reads.iter().map(|r| (*r).to_string()).collect(),
            is_source,
            is_modified: reads.contains(&"daily"),
        };
        [
            ("orders", node(&[], &[], true)),
            ("items", node(&[], &["pii"], true)),
            ("daily", node(&["orders", "items"], &["finance"], false)),
            ("weekly", node(&["daily"], &["finance"], false)),
            ("report", node(&["weekly"], &[], false)),
            ("stock", node(&["items"], &[], false)),
        ]
        .map(|(name, node)| (name.to_string(), node))
        .into()
    }

    fn chosen(include: &[&str], exclude: &[&str]) -> Vec<String> {
        let texts = |list: &[&str]| list.iter().map(|t| (*t).to_string()).collect::<Vec<_>>();
        let chosen = select(&graph(), &texts(include), &texts(exclude)).unwrap();
        chosen.models.into_iter().chain(chosen.sources).collect()
    }

    #[test]
    fn selectors_are_dbts() {
        assert_eq!(chosen(&["weekly"], &[]), ["weekly"]);
        assert_eq!(chosen(&["+weekly"], &[]), ["daily", "weekly", "items", "orders"]);
        assert_eq!(chosen(&["1+report"], &[]), ["report", "weekly"]);
        assert_eq!(chosen(&["daily+1"], &[]), ["daily", "weekly"]);
        assert_eq!(chosen(&["source:items+"], &[]), ["daily", "report", "stock", "weekly", "items"]);
        assert_eq!(chosen(&["@stock"], &[]), ["stock", "items"]);
        assert_eq!(chosen(&["@daily"], &[]), ["daily", "report", "weekly", "items", "orders"]);
        assert_eq!(chosen(&["tag:finance,daily+"], &["daily"]), ["weekly"]);
        assert_eq!(chosen(&["stock weekly"], &[]), ["stock", "weekly"]);
        assert_eq!(chosen(&["pipeline:reports"], &[]), ["report"]);
        assert_eq!(chosen(&["*e*k*"], &[]), ["weekly"]);
        assert_eq!(chosen(&["state:modified"], &[]), ["weekly"]);
        assert_eq!(chosen(&[], &["tag:*"]), ["report", "stock", "orders"]);
    }

    #[test]
    fn what_matches_nothing_is_a_fault() {
        let faults = |text: &str| select(&graph(), &[text.to_string()], &[]).unwrap_err();
        assert_eq!(faults("weekli")[0].hint.as_deref(), Some("did you mean `weekly`?"));
        assert_eq!(faults("tag:finanse")[0].hint.as_deref(), Some("did you mean `finance`?"));
        assert_eq!(faults("stock,weekly").len(), 1);
        assert_eq!(faults("nope nada").len(), 2);
        assert!(faults("pipline:x")[0].hint.as_deref().is_some_and(|hint| hint.contains("pipeline:")));
    }
}
