//! The order of relations by what they read, and circles. Knows a graph, no SQL.

/// Nodes by number, each with the nodes that it reads.
pub struct Graph {
    /// `reads[n]`: what node n reads.
    pub reads: Vec<Vec<usize>>,
}

impl Graph {
    /// An order in which each node stands after what it reads, by number where there is a choice; those in circles, and
    /// those that read them, come last.
    pub fn order(&self) -> Vec<usize> {
        let mut done = vec![false; self.reads.len()];
        let mut order = Vec::with_capacity(self.reads.len());
        while let Some(next) =
            (0..self.reads.len()).find(|n| !done[*n] && self.reads[*n].iter().all(|input| done[*input]))
        {
            done[next] = true;
            order.push(next);
        }
        order.extend((0..self.reads.len()).filter(|n| !done[*n]));
        order
    }

    /// One path for each circle, from its lowest node back to it (which stands at both ends).
    pub fn circles(&self) -> Vec<Vec<usize>> {
        let mut circles: Vec<Vec<usize>> = Vec::new();
        for start in 0..self.reads.len() {
            if circles.iter().any(|circle| circle.contains(&start)) {
                continue;
            }
            if let Some(path) = self.way_back(start) {
                circles.push(path);
            }
        }
        circles
    }

    /// The shortest path from `start` to itself.
    fn way_back(&self, start: usize) -> Option<Vec<usize>> {
        let mut from: Vec<Option<usize>> = vec![None; self.reads.len()];
        let mut queue = std::collections::VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            for &next in &self.reads[node] {
                if next == start {
                    let mut path = vec![start, node];
                    let mut at = node;
                    while at != start {
                        at = from[at]?;
                        path.push(at);
                    }
                    path.reverse();
                    return Some(path);
                }
                if from[next].is_none() {
                    from[next] = Some(node);
                    queue.push_back(next);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::Graph;

    #[test]
    fn order_follows_reads() {
        let graph = Graph { reads: vec![vec![2], vec![], vec![1]] };
        assert_eq!(graph.order(), [1, 2, 0]);
        assert!(graph.circles().is_empty());
    }

    #[test]
    fn circles_are_told_once() {
        let graph = Graph { reads: vec![vec![1], vec![2], vec![0], vec![3], vec![0]] };
        assert_eq!(graph.circles(), [vec![0, 1, 2, 0], vec![3, 3]]);
        assert_eq!(graph.order().len(), 5);
    }
}
