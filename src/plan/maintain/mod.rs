//! How a model is maintained: its plan cut at aggregates into stages, each kept as a small table of group states, and the
//! flat rest, whose changes follow from its inputs' changes. Knows no rows and no files: [`crate::engine`] runs it.

mod average;
mod classes;
mod closed;
mod cut;
mod decompose;
mod distinct;
mod explain;
mod growing;
mod lookups;
mod normal;
mod sessions;

use std::collections::BTreeSet;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::{Expr, LogicalPlan};

pub use classes::{AGGREGATES, AggregateClass, WINDOWS, WindowClass};
pub use cut::maintenance;
pub use decompose::Merge;
pub use explain::common_partition;
pub use growing::reads_again;
pub use lookups::Lookups;
pub use sessions::Sessions;

use super::closing::Closing;

/// Column of a stage's state: rows of the input in the group.
pub const COUNT: &str = "n";

/// A model's plan as it is maintained: the same answer as the plan that it was made of.
#[derive(Debug, Clone)]
pub struct Maintenance {
    /// In the order of building: each reads sources, models and earlier stages.
    pub stages: Vec<Stage>,
    /// The result, over sources, models and stages. Its scans are [`super::RelationTable`]s by name.
    pub root: LogicalPlan,
    /// Operators, top first, each with how it is maintained.
    pub operators: Vec<String>,
    /// Columns that its joins look up.
    pub lookups: Lookups,
}

/// One aggregate. Its state is a relation with a row a group: the group's columns `g0…`, [`COUNT`], and the parts `p0…`.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Name of its state in plans, which says what is in it; no source or model is named so.
    pub name: String,
    /// What is aggregated.
    pub input: LogicalPlan,
    /// Sources and models that the state hangs on, by way of earlier stages, too.
    pub reads: BTreeSet<String>,
    /// Functions that it calls, by way of earlier stages, too.
    pub calls: BTreeSet<String>,
    /// Grouping expressions over `input`; none: one group that is always there.
    pub group: Vec<Expr>,
    /// What the state keeps of the group's rows.
    pub parts: Vec<Part>,
    /// Columns of the state, as stored.
    pub schema: SchemaRef,
    /// How its groups are closed, where nothing but a late row asks for closed ones again: the state can do without them.
    pub closing: Option<Closing>,
    /// How its groups go on as sessions, where they are some that merge.
    pub sessions: Option<Sessions>,
}

/// One column of a state.
#[derive(Debug, Clone)]
pub struct Part {
    /// The aggregate of the group's rows.
    pub aggregate: Expr,
    /// How the values of two bags of rows come to the value of both.
    pub merge: Merge,
}

impl Stage {
    /// Whether any part must be computed anew from the group's rows when one of them goes.
    pub fn has_irreversible_parts(&self) -> bool {
        self.parts.iter().any(|part| !matches!(part.merge, Merge::Add))
    }

    /// Whether any part must be computed anew from the group's rows at every change.
    pub fn has_unmergeable_parts(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.merge, Merge::Rerun))
    }
}
