//! How much of a result a change touches, from how much of each relation it does. An estimate, by which nothing but time hangs.

use datafusion::logical_expr::LogicalPlan;

use super::derive::whole_top;
use super::{Engine, GoesOn};
use crate::limits;
use crate::plan::maintain::{Maintenance, common_partition};

/// How many rows a relation had, and how many of them came and went, about.
#[derive(Clone, Copy, Default, Debug)]
pub struct Extent {
    /// Rows before the change.
    pub before: u64,
    /// Rows that came and rows that went.
    pub changed: u64,
}

impl Extent {
    /// The part of the rows that is another: 1 where each came in the place of another one, or more came than were there.
    fn share(self) -> f64 {
        (self.changed as f64 / (self.before as f64 * 2.0).max(1.0)).min(1.0)
    }
}

/// What a change touches of a plan's rows.
#[derive(Clone, Copy, Default)]
struct Touched {
    /// Rows of the relations under the plan.
    rows: f64,
    /// The part of the result that is another, from 0 to 1.
    share: f64,
    /// Whether more is run again than what changed.
    reruns: bool,
}

impl Engine<'_> {
    /// Whether the result is had sooner by running its plan over the relations as they are than by following the change: what is looked up
    /// by most keys is read whole, before and after, and compared.
    pub(super) fn is_sooner_whole(&self, maintenance: &Maintenance, goes_on: GoesOn) -> bool {
        if goes_on == GoesOn::States || whole_top(&maintenance.root) {
            return true;
        }
        // Groups that were let go, and rows that are gone, can't be run again.
        if !self.let_go.is_empty() || !self.memory.is_bounded() {
            return false;
        }
        let touched = self.touched(&maintenance.root);
        touched.reruns && touched.rows >= limits::WHOLE_ROWS && touched.share >= limits::WHOLE_SHARE
    }

    fn touched(&self, plan: &LogicalPlan) -> Touched {
        match plan {
            LogicalPlan::TableScan(scan) => match self.relation_of(scan) {
                Some(relation) => {
                    Touched { rows: relation.extent.before as f64, share: relation.extent.share(), reruns: false }
                }
                None => Touched::default(),
            },
            LogicalPlan::Join(join) => {
                let (left, right) = (self.touched(&join.left), self.touched(&join.right));
                // A row of the result is as it was where both that it is made of are.
                let share = 1.0 - (1.0 - left.share) * (1.0 - right.share);
                Touched { rows: left.rows + right.rows, share, reruns: true }
            }
            LogicalPlan::Union(union) => {
                let inputs: Vec<Touched> = union.inputs.iter().map(|input| self.touched(input)).collect();
                let rows: f64 = inputs.iter().map(|input| input.rows).sum();
                let changed: f64 = inputs.iter().map(|input| input.rows * input.share).sum();
                Touched { rows, share: changed / rows.max(1.0), reruns: inputs.iter().any(|input| input.reruns) }
            }
            LogicalPlan::Window(window) => {
                let input = self.touched(&window.input);
                Touched { reruns: input.reruns || !common_partition(&window.window_expr).is_empty(), ..input }
            }
            other => match other.inputs().as_slice() {
                [input] => self.touched(input),
                _ => Touched::default(),
            },
        }
    }
}
