//! Selectors over random graphs, against their plain definition by distances.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tidemill::plan::select::{Graph, Node, select};

/// `NAME`s of the graph: two letters, so that wildcards match some.
const NAMES: [&str; 8] = ["aa", "ab", "ba", "bb", "ca", "cb", "da", "db"];

/// One selector before it is written as text.
#[derive(Debug, Clone)]
struct Part {
    what: What,
    at: bool,
    up: Option<Option<usize>>,
    down: Option<Option<usize>>,
}

#[derive(Debug, Clone)]
enum What {
    Name(usize),
    Source(usize),
    Letter(usize),
    Tag(usize),
    Pipeline(usize),
    Modified,
}

impl Part {
    fn text(&self) -> String {
        let steps = |steps: &Option<usize>| steps.map(|n| n.to_string()).unwrap_or_default();
        let up = self.up.as_ref().map(|n| format!("{}+", steps(n))).unwrap_or_default();
        let down = self.down.as_ref().map(|n| format!("+{}", steps(n))).unwrap_or_default();
        let what = match self.what {
            What::Name(at) => NAMES[at].to_string(),
            What::Source(at) => format!("source:{}", NAMES[at]),
            What::Letter(at) => format!("*{}", &NAMES[at][1..]),
            What::Tag(tag) => format!("tag:t{tag}"),
            What::Pipeline(pipeline) => format!("pipeline:p{pipeline}"),
            What::Modified => "state:modified".to_string(),
        };
        if self.at { format!("@{what}") } else { format!("{up}{what}{down}") }
    }

    fn names(&self, at: usize, node: &Node) -> bool {
        match self.what {
            What::Name(name) => at == name && !node.is_source,
            What::Source(name) => at == name && node.is_source,
            What::Letter(name) => NAMES[at].ends_with(&NAMES[name][1..]) && !node.is_source,
            What::Tag(tag) => node.tags.contains(&format!("t{tag}")),
            What::Pipeline(pipeline) => node.pipeline == format!("p{pipeline}"),
            What::Modified => node.is_modified,
        }
    }

    /// What it chooses by distances: `far[a][b]` steps lead from `a` up to `b`.
    fn chosen(&self, nodes: &[Node], far: &[Vec<usize>]) -> BTreeSet<usize> {
        let all = || 0..nodes.len();
        let seeds: Vec<_> = all().filter(|&at| self.names(at, &nodes[at])).collect();
        let within = |steps: &Option<usize>| steps.unwrap_or(nodes.len());
        if self.at {
            let below: Vec<_> = all().filter(|&at| seeds.iter().any(|&s| far[at][s] <= nodes.len())).collect();
            return all().filter(|&at| below.iter().any(|&b| far[b][at] <= nodes.len())).collect();
        }
        let is_up = |at: usize| self.up.as_ref().is_some_and(|up| seeds.iter().any(|&s| far[s][at] <= within(up)));
        let is_down = |at: usize| self.down.as_ref().is_some_and(|d| seeds.iter().any(|&s| far[at][s] <= within(d)));
        all().filter(|&at| seeds.contains(&at) || is_up(at) || is_down(at)).collect()
    }
}

fn part() -> impl Strategy<Value = Part> {
    let what = prop_oneof![
        4 => (0..NAMES.len()).prop_map(What::Name),
        2 => (0..NAMES.len()).prop_map(What::Source),
        1 => (0..NAMES.len()).prop_map(What::Letter),
        1 => (0..3usize).prop_map(What::Tag),
        1 => (0..2usize).prop_map(What::Pipeline),
        1 => Just(What::Modified),
    ];
    let steps = || prop::option::of(prop::option::of(0..4usize));
    (what, prop::bool::weighted(0.2), steps(), steps()).prop_map(|(what, at, up, down)| Part { what, at, up, down })
}

/// Nodes that read only what stands before them; those that read nothing are sources.
fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let node = (prop::collection::vec(any::<bool>(), NAMES.len()), 0..2usize, 0..3usize, any::<bool>());
    prop::collection::vec(node, NAMES.len()).prop_map(|drawn| {
        let make = |(at, (reads, pipeline, tag, is_modified)): (usize, (Vec<bool>, usize, usize, bool))| {
            let reads: BTreeSet<_> =
                (0..at).filter(|&b| reads[b] && b + 4 >= at).map(|b| NAMES[b].to_string()).collect();
            let is_source = reads.is_empty();
            let tags = [format!("t{tag}")].into();
            Node { pipeline: format!("p{pipeline}"), tags, reads, is_source, is_modified: is_modified && !is_source }
        };
        drawn.into_iter().enumerate().map(make).collect()
    })
}

/// Shortest ways up, longer than there are nodes where there is none.
fn distances(nodes: &[Node]) -> Vec<Vec<usize>> {
    let count = nodes.len();
    let direct = |a: usize, b: usize| match () {
        () if a == b => 0,
        () if nodes[a].reads.contains(NAMES[b]) => 1,
        () => count + 1,
    };
    let mut far: Vec<Vec<_>> = (0..count).map(|a| (0..count).map(|b| direct(a, b)).collect()).collect();
    for via in 0..count {
        for a in 0..count {
            for b in 0..count {
                far[a][b] = far[a][b].min(far[a][via] + far[via][b]);
            }
        }
    }
    far
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn selectors_choose_what_their_definition_says(
        nodes in nodes(),
        include in prop::collection::vec(prop::collection::vec(part(), 1..3), 0..3),
        exclude in prop::collection::vec(prop::collection::vec(part(), 1..3), 0..2),
    ) {
        let far = distances(&nodes);
        let graph: Graph = NAMES.iter().zip(&nodes).map(|(name, node)| (name.to_string(), node.clone())).collect();
        // Selectors in one text or in several mean the same.
        let texts = |groups: &[Vec<Part>]| -> Vec<String> {
            groups.iter().map(|group| group.iter().map(Part::text).collect::<Vec<_>>().join(",")).collect()
        };
        let chosen = |group: &Vec<Part>| -> Option<BTreeSet<usize>> {
            let mut common: BTreeSet<usize> = (0..nodes.len()).collect();
            for part in group {
                let has_seed = (0..nodes.len()).any(|at| part.names(at, &nodes[at]));
                if !has_seed && !matches!(part.what, What::Modified) {
                    return None;
                }
                common = common.intersection(&part.chosen(&nodes, &far)).copied().collect();
            }
            let may_be_empty = group.iter().any(|part| matches!(part.what, What::Modified));
            (may_be_empty || !common.is_empty()).then_some(common)
        };
        let sets = |groups: &[Vec<Part>]| groups.iter().map(chosen).collect::<Vec<_>>();
        let (wanted, unwanted) = (sets(&include), sets(&exclude));
        let empty = wanted.iter().chain(&unwanted).filter(|set| set.is_none()).count();

        let found = select(&graph, &texts(&include), &texts(&exclude));
        if !include.is_empty() && !exclude.is_empty() {
            let joined = |groups: &[Vec<Part>]| [texts(groups).join(" ")];
            prop_assert_eq!(&select(&graph, &joined(&include), &joined(&exclude)).ok(), &found.clone().ok());
        }
        match found {
            Err(faults) => prop_assert_eq!(faults.len(), empty),
            Ok(found) => {
                prop_assert_eq!(empty, 0);
                let mut expected: BTreeSet<usize> = match include.is_empty() {
                    true => (0..nodes.len()).collect(),
                    false => wanted.into_iter().flatten().flatten().collect(),
                };
                unwanted.into_iter().flatten().flatten().for_each(|at| { expected.remove(&at); });
                let expected: BTreeSet<_> = expected.into_iter().map(|at| NAMES[at].to_string()).collect();
                let found: BTreeSet<_> = found.models.into_iter().chain(found.sources).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
