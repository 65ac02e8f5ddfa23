//! A project opened for work: loaded, planned, its sources at hand. Touches no table.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::SessionContext;

use crate::connect::{self, RowRule, Sink, Source};
use crate::engine::{self, row_expression};
use crate::error::{Error, Result};
use crate::plan::{self, CheckTest, Clock, Plan, PlannedModel, PlannedSource, SchemaSource};
use crate::run::commit::{CommitChain, CommitRecord};
use crate::spec::fault::{Fault, Severity};
use crate::spec::types::{Project, SinkSpec, SinkTarget, SourceSpec};
use crate::table::Warehouse;

/// What a project is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// To run models, or to read what they read.
    ToWork,
    /// To say whether they can be run: a file that doesn't hold its source's contract is a fault, though it would fail that source alone.
    ToTell,
    /// The same by the schemas that are known, nothing being asked of sources.
    Offline,
    /// For questions about tables.
    ToRead,
}

/// A project that can be planned, or the reasons why not.
pub struct OpenProject {
    /// As loaded.
    pub project: Arc<Project>,
    /// What runs work on; of the models without faults only.
    pub plan: Plan,
    /// Sources by name; those with faults are missing.
    pub sources: BTreeMap<String, Arc<dyn Source>>,
    /// Everything found, errors too, in order of files and lines.
    pub faults: Vec<Fault>,
    /// Sinks of the planned models, in their order.
    pub sinks: Vec<Arc<OpenSink>>,
    runtime: Arc<RuntimeEnv>,
    memory_bytes: usize,
}

/// A sink of a model.
pub struct OpenSink {
    /// The model.
    pub model: String,
    /// Its pipeline.
    pub pipeline: String,
    /// Key of its table.
    pub key: Vec<String>,
    /// What the sink is called: `kafka shop.sales`.
    pub name: String,
    /// Whether it only gets rows of closed windows.
    pub is_final: bool,
    /// The form in which rows are told.
    pub form: String,
    /// Where changes go.
    pub sink: Arc<dyn Sink>,
}

impl OpenProject {
    /// Plans `project` for what it is opened for. Faults of loading are passed in and kept.
    ///
    /// # Errors
    /// When the machine can't give what a session needs; faults of the user are in `faults`.
    pub async fn open(project: Project, mut faults: Vec<Fault>, opening: Opening) -> Result<Self> {
        let project = Arc::new(project);
        let mut sources = BTreeMap::new();
        for spec in project.pipelines.iter().flat_map(|p| &p.sources) {
            match connect::open(&project, spec) {
                Ok(source) => {
                    sources.insert(spec.name.value.clone(), source);
                }
                Err(error) => faults.push(Fault::error("source", spec.name.place.clone(), error.to_string())),
            }
        }
        let schemas = Schemas { project: &project, sources: &sources, opening };
        let (plan, planning) = match opening {
            Opening::ToRead => plan::plan_unbuilt(&project, &schemas).await,
            Opening::ToWork | Opening::ToTell | Opening::Offline => plan::plan_project(&project, &schemas).await,
        };
        faults.extend(planning);
        for source in &plan.sources {
            if let Some(connector) = sources.get(&source.spec.name.value) {
                connector.reads_under(&source.fingerprint);
            }
        }
        let sinks = open_sinks(&project, &plan, &mut faults);
        crate::spec::sort_faults(&mut faults);
        let memory_bytes = project.state_memory_bytes.unwrap_or_else(engine::default_memory_bytes);
        let runtime = engine::runtime(memory_bytes)?;
        Ok(Self { project, plan, sources, faults, sinks, runtime, memory_bytes })
    }

    /// Memory that plans, changes and states share: bytes, and what counts them.
    pub fn memory(&self) -> (usize, &Arc<dyn MemoryPool>) {
        (self.memory_bytes, &self.runtime.memory_pool)
    }

    /// Whether a fault makes the project invalid.
    pub fn is_invalid(&self) -> bool {
        self.faults.iter().any(|f| f.severity == Severity::Error)
    }

    /// A session at `now_us` (microseconds since 1970 UTC) in the project's zone.
    pub fn session(&self, now_us: i64) -> SessionContext {
        plan::session(&self.project, &self.clock(now_us), Some(self.runtime.clone()))
    }

    /// The clock at `now_us` in the project's zone.
    pub fn clock(&self, now_us: i64) -> Clock {
        Clock { now_us, zone: self.project.timezone.value.as_str().into() }
    }

    /// The warehouse, made if missing.
    pub async fn warehouse(&self) -> Result<Warehouse> {
        open_warehouse(&self.project).await
    }

    /// A planned model by name.
    pub fn model(&self, name: &str) -> Option<&PlannedModel> {
        self.plan.models.iter().find(|m| m.name == name)
    }

    /// A planned source by name.
    pub fn source(&self, name: &str) -> Option<&PlannedSource> {
        self.plan.sources.iter().find(|s| s.spec.name.value == name)
    }

    /// The connector of a planned source.
    pub fn connector(&self, name: &str) -> Result<&Arc<dyn Source>> {
        self.sources.get(name).ok_or_else(|| Error::internal("a planned source has no connector").with("source", name))
    }

    /// A relation as queries and rules see it: of a source, what it says itself applied to its accepted rows, such as
    /// `deduplicate`.
    ///
    /// # Errors
    /// As [`plan::source_relation`].
    pub fn as_queried(&self, name: &str, rows: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
        match self.source(name) {
            Some(source) => plan::source_relation(source, rows),
            None => Ok(rows),
        }
    }

    /// Row rules of a source, bound at the session's instant.
    ///
    /// # Errors
    /// Internal: planning has checked them.
    pub fn row_rules(&self, session: &SessionContext, source: &PlannedSource) -> Result<Vec<RowRule>> {
        let mut rules = Vec::new();
        for check in &source.checks {
            if let CheckTest::Row(expr) = &check.test {
                let expr = row_expression(session, expr.clone(), &source.schema);
                let expr = expr.map_err(|e| e.with("check", check.name()))?;
                rules.push(RowRule { name: check.name().to_string(), on_fail: check.on_fail(), expr });
            }
        }
        Ok(rules)
    }

    /// Sinks of a pipeline's models.
    pub fn sinks_of(&self, pipeline: &str) -> impl Iterator<Item = &Arc<OpenSink>> {
        self.sinks.iter().filter(move |sink| sink.pipeline == pipeline)
    }

    /// Sources that a model goes back to, over other models too.
    pub fn sources_under(&self, model: &str) -> Vec<&PlannedSource> {
        let mut names: Vec<&str> = vec![model];
        let mut at = 0;
        while let Some(name) = names.get(at) {
            for input in self.model(name).iter().flat_map(|model| &model.inputs) {
                if !names.contains(&input.as_str()) {
                    names.push(input);
                }
            }
            at += 1;
        }
        names.into_iter().filter_map(|name| self.source(name)).collect()
    }

    /// Pipeline of each source and model.
    pub fn pipelines_by_relation(&self) -> HashMap<&str, &str> {
        let sources = self.plan.sources.iter().map(|s| (s.spec.name.value.as_str(), s.pipeline.as_str()));
        let models = self.plan.models.iter().map(|m| (m.name.as_str(), m.pipeline.as_str()));
        sources.chain(models).collect()
    }

    /// A pipeline's record without tables that are another pipeline's now: what is done about those is that one's alone.
    pub(in crate::run) fn own_tables(&self, record: Arc<CommitRecord>) -> Arc<CommitRecord> {
        let owners = self.pipelines_by_relation();
        let pipeline = record.pipeline.clone();
        record.without(|table| {
            let owner = owners.get(table).or_else(|| owners.get(table.strip_suffix("_quarantine")?));
            owner.is_some_and(|owner| *owner != pipeline)
        })
    }
}

fn open_sinks(project: &Project, plan: &Plan, faults: &mut Vec<Fault>) -> Vec<Arc<OpenSink>> {
    let mut sinks = Vec::new();
    for model in &plan.models {
        // One without brokers was told where it was read.
        let is_whole = |spec: &&SinkSpec| !matches!(&spec.target, SinkTarget::Kafka(kafka) if kafka.brokers.is_none());
        for spec in model.publish.iter().filter(is_whole) {
            match connect::open_sink(project, &model.name, &model.key, spec) {
                Ok(sink) => sinks.push(Arc::new(OpenSink {
                    model: model.name.clone(),
                    pipeline: model.pipeline.clone(),
                    key: model.key.clone(),
                    name: spec.name(),
                    is_final: spec.is_final(),
                    form: spec.form(),
                    sink,
                })),
                Err(error) => faults.push(Fault::error("sink", spec.place.clone(), error.to_string())),
            }
        }
    }
    sinks
}

/// The warehouse of a project, made if missing.
pub async fn open_warehouse(project: &Project) -> Result<Warehouse> {
    Warehouse::open(&project.warehouse.value, &project.root, &BTreeMap::new()).await
}

struct Schemas<'a> {
    project: &'a Project,
    sources: &'a BTreeMap<String, Arc<dyn Source>>,
    opening: Opening,
}

impl Schemas<'_> {
    /// Whether rows of a source were taken in before, so that its contract was one that files held.
    async fn was_taken_in(&self, source: &str) -> bool {
        let is_of = |name: &SourceSpec| name.name.value == source;
        let Some(pipeline) = self.project.pipelines.iter().find(|p| p.sources.iter().any(is_of)) else { return false };
        let Ok(warehouse) = open_warehouse(self.project).await else { return false };
        let newest = CommitChain::open(&warehouse, &pipeline.name.value).latest().await;
        matches!(newest, Ok(Some(record)) if record.sources.contains_key(source))
    }
}

#[async_trait]
impl SchemaSource for Schemas<'_> {
    async fn schema(&self, source: &SourceSpec) -> Result<SchemaRef, Vec<Fault>> {
        let name = &source.name.value;
        // Opening it failed, which is a fault already.
        let Some(source) = self.sources.get(name) else { return Err(Vec::new()) };
        if self.opening == Opening::Offline {
            return source.declared_schema();
        }
        match source.schema().await {
            // One file that came is no reason to hold up what has nothing to do with it: taking it in fails the source.
            Err(faults) if self.opening != Opening::ToTell && self.was_taken_in(name).await => {
                source.declared_schema().map_err(|_| faults)
            }
            schema => schema,
        }
    }
}
