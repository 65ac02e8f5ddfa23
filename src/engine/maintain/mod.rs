//! Changes of a model from changes of what it reads: the parts of its plan that a change touches are run, and nothing else.
//! Knows relations by name, and neither files nor commits.
//!
//! The rules are those of incremental view maintenance over bags with weights (Budiu et al., "DBSP: Automatic Incremental View
//! Maintenance for Rich Query Languages", VLDB 2023; for joins and affected keys, Griffin and Libkin, "Incremental
//! Maintenance of Views with Duplicates", SIGMOD 1995). A rule that doesn't fit is replaced by the difference of the operator's
//! whole result before and after, which is always right.

mod added_up;
mod arrangement;
mod at;
mod contexts;
mod delta;
mod derive;
mod extent;
mod first_partners;
mod join;
mod let_go;
mod lookup;
mod memory;
mod merge;
mod prepared;
mod restrict;
mod sessions;
mod stage;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};

pub use arrangement::Arrangement;
pub use contexts::Contexts;
pub use delta::{Net, WEIGHT};
pub use extent::Extent;
pub use let_go::LetGo;
pub use lookup::{Found, KeyLookup};
pub use prepared::Prepared;

use memory::Memory;

use crate::engine::failure;
use crate::error::{Error, Result};
use crate::plan::maintain::{Maintenance, Stage};

/// A bag of rows in parts. Parts of `changes` have a last column [`WEIGHT`]: how often a row counts, negative where it takes
/// one of the others away.
#[derive(Clone, Default, Debug)]
pub struct Rows {
    /// Rows that count once each.
    pub plain: Vec<Arc<dyn TableProvider>>,
    /// Rows that count by their weight. Over all parts no row's weights come to less than 0.
    pub changes: Vec<Arc<dyn TableProvider>>,
    /// Tells where in `plain` rows of some keys can stand, where that is known.
    pub lookup: Option<Arc<dyn KeyLookup>>,
}

impl From<Arc<dyn TableProvider>> for Rows {
    /// The rows of a table, once each.
    fn from(table: Arc<dyn TableProvider>) -> Self {
        Self { plain: vec![table], ..Self::default() }
    }
}

/// A relation before and after.
#[derive(Clone, Debug)]
pub struct Relation {
    /// What it held.
    pub old: Rows,
    /// What it holds.
    pub new: Rows,
    /// Rows that came, a part of `new`.
    pub added: Vec<Arc<dyn TableProvider>>,
    /// Rows that went, a part of `old`.
    pub removed: Vec<Arc<dyn TableProvider>>,
    /// The rows of `old` by their group, where it is a state that is held in memory.
    pub arranged: Option<Arc<Arrangement>>,
    /// How it changes, where it is a state and that is known already.
    pub net: Option<Net>,
    /// How much of it changed.
    pub extent: Extent,
}

impl Relation {
    /// A relation that stays as it is.
    pub fn unchanged(rows: Rows) -> Self {
        let extent = Extent::default();
        Self { old: rows.clone(), new: rows, added: vec![], removed: vec![], arranged: None, net: None, extent }
    }

    /// Whether rows came or went.
    pub fn is_changed(&self) -> bool {
        !(self.added.is_empty() && self.removed.is_empty())
    }
}

/// Which side of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Old,
    New,
}

/// A model's change.
pub struct Advance {
    /// The change of each stage's state, in the order of stages.
    pub stages: Vec<Net>,
    /// The change of the result.
    pub root: RootChange,
}

/// How the result changes.
pub enum RootChange {
    /// By these rows.
    Net(Net),
    /// To the rows of this plan, which reads states: its topmost operator looks at all of them.
    Whole(Box<LogicalPlan>),
}

/// What of the last result still counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoesOn {
    /// All of it: it changes with its inputs.
    Result,
    /// Only the states that it was made of: it is made anew of them.
    States,
}

/// What is known of a model that goes on, and how much may be held.
pub struct Advancing<'a> {
    /// What of the last result still counts.
    pub goes_on: GoesOn,
    /// The groups that the states lack, in the order of stages; may end early.
    pub let_go: &'a [Option<LetGo>],
    /// Columns of the result that tell its rows apart, or none. A hint: they are looked at.
    pub key: &'a [String],
    /// Bytes of a change that is held whole; without, none is refused.
    pub delta_bytes_max: Option<usize>,
}

/// Finds how a model changes. `relations` has each source and model that the plan reads, and each stage's state as `old`, by
/// the stage's name.
///
/// Memory: the net changes between operators are held whole, and counted in the session's pool. With a bound the result is
/// none, and the model better computed anew, where one of them is larger or the pool has no room.
///
/// # Errors
/// As running the model's plan would.
pub async fn advance(
    contexts: &Contexts,
    maintenance: &Maintenance,
    relations: HashMap<String, Relation>,
    advancing: &Advancing<'_>,
) -> Result<Option<Advance>> {
    let let_go = maintenance.stages.iter().zip(advancing.let_go);
    let let_go = let_go.filter_map(|(stage, let_go)| Some((stage.name.as_str(), (stage, let_go.as_ref()?)))).collect();
    let mut engine = Engine { contexts, relations, let_go, memory: Memory::new(contexts, advancing.delta_bytes_max) };
    match engine.advance(maintenance, advancing).await {
        Ok(advance) => Ok(Some(advance)),
        Err(error) if memory::is_too_large(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The plan of a stage's whole state over relations, earlier states among them.
///
/// # Errors
/// A bug: the plan was bound before.
pub fn build_stage(contexts: &Contexts, stage: &Stage, relations: &HashMap<String, Relation>) -> Result<LogicalPlan> {
    let engine = Engine::unchanging(contexts, relations);
    engine.whole_state(stage).map_err(failure)
}

/// The plan of the result over relations, states among them, as they are now.
///
/// # Errors
/// A bug: the plan was bound before.
pub fn build_root(
    contexts: &Contexts,
    maintenance: &Maintenance,
    relations: &HashMap<String, Relation>,
) -> Result<LogicalPlan> {
    let engine = Engine::unchanging(contexts, relations);
    engine.at(&maintenance.root, Version::New, None).map_err(failure)
}

/// The plan of a stage's rows, netted, without groups that are let go.
///
/// # Errors
/// A bug: a state has its stage's columns.
pub fn state_rows(stage: &Stage, rows: &Rows, let_go: Option<&LetGo>) -> Result<LogicalPlan> {
    let scan = stage::state_scan(stage).map_err(failure)?;
    kept(at::rows_of(&scan, rows, None).map_err(failure)?, stage, let_go)
}

/// The same once they changed.
///
/// # Errors
/// A bug: a state has its stage's columns.
pub fn state_rows_after(stage: &Stage, rows: &Rows, net: &Net, let_go: Option<&LetGo>) -> Result<LogicalPlan> {
    kept(stage::rows_after(stage, rows, net)?, stage, let_go)
}

fn kept(rows: LogicalPlan, stage: &Stage, let_go: Option<&LetGo>) -> Result<LogicalPlan> {
    let Some(let_go) = let_go else { return Ok(rows) };
    let kept = let_go.kept(stage).and_then(|kept| LogicalPlanBuilder::from(rows).filter(kept)?.build());
    kept.map_err(failure)
}

/// The plan of a stage's changes, netted, with their weights in a last column.
///
/// # Errors
/// A bug: a state has its stage's columns.
pub fn state_changes(stage: &Stage, rows: &Rows) -> Result<LogicalPlan> {
    let scan = stage::state_scan(stage).map_err(failure)?;
    at::changes_of(&scan, rows).map_err(failure)
}

struct Engine<'a> {
    contexts: &'a Contexts,
    relations: HashMap<String, Relation>,
    /// Stages whose states lack groups, by name.
    let_go: HashMap<&'a str, (&'a Stage, &'a LetGo)>,
    memory: Memory,
}

impl<'a> Engine<'a> {
    /// Over relations as they are.
    fn unchanging(contexts: &'a Contexts, relations: &HashMap<String, Relation>) -> Self {
        Self { contexts, relations: relations.clone(), let_go: HashMap::new(), memory: Memory::new(contexts, None) }
    }

    async fn advance(&mut self, maintenance: &Maintenance, advancing: &Advancing<'_>) -> Result<Advance> {
        let goes_on = advancing.goes_on;
        let mut stages = Vec::with_capacity(maintenance.stages.len());
        for stage in &maintenance.stages {
            let known = self.relations.get_mut(&stage.name).and_then(|relation| relation.net.take());
            let net = match known {
                Some(net) => net,
                None => self.advance_stage(stage).await?,
            };
            let kept = self.kept(stage, &net)?;
            let relation = self
                .relations
                .get_mut(&stage.name)
                .ok_or_else(|| Error::internal("a stage's state wasn't given").with("stage", &stage.name))?;
            *relation = net.applied_to(relation, &kept)?;
            stages.push(kept);
        }
        let root = match self.is_sooner_whole(maintenance, goes_on) {
            true if goes_on == GoesOn::Result && !self.is_touched(&maintenance.root).map_err(failure)? => {
                RootChange::Net(Net::default())
            }
            true => RootChange::Whole(Box::new(self.at(&maintenance.root, Version::New, None).map_err(failure)?)),
            false => {
                let delta = self.delta(&maintenance.root).await?;
                RootChange::Net(self.net(delta, advancing.key).await?)
            }
        };
        Ok(Advance { stages, root })
    }
}

impl Net {
    /// The same with rows that came and went taken out.
    ///
    /// # Errors
    /// External, for rows that can't be compared.
    pub fn added_up(&self) -> Result<Self> {
        Self::of(&added_up::added_up(&self.weighted()?)?)
    }

    /// Its rows with their weights in a last column.
    ///
    /// # Errors
    /// A bug: a batch takes any column of its length.
    pub fn weighted(&self) -> Result<Vec<RecordBatch>> {
        let came = self.added.iter().map(|batch| delta::with_weight(batch, 1));
        came.chain(self.removed.iter().map(|batch| delta::with_weight(batch, -1))).collect()
    }

    /// The state, changed; it keeps `kept` of the change.
    fn applied_to(&self, state: &Relation, kept: &Self) -> Result<Relation> {
        let added = delta::table(&self.added)?;
        let removed = delta::table(&self.removed)?;
        let mut new = state.old.clone();
        new.changes.extend(delta::table(&kept.weighted()?)?);
        Ok(Relation {
            old: state.old.clone(),
            new,
            added: added.into_iter().collect(),
            removed: removed.into_iter().collect(),
            arranged: None,
            net: None,
            extent: Extent { changed: self.rows() as u64, ..state.extent },
        })
    }
}
