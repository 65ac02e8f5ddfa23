//! The whole project: sources, models in the order of what they read, circles, checks, fingerprints. Reads schemas only.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{ObjectName, Query};

use super::catalog::{Catalog, Relation, SourceShape};
use super::checks::{CheckPlanner, Checked};
use super::closing::closing;
use super::inspect::{Inspection, inspect_model, table_reference};
use super::loops::loop_faults;
use super::maintain::{Maintenance, Stage, maintenance};
use super::model::{BoundModel, ModelPlanner};
use super::named_windows::write_out_windows;
use super::nearest::with_nearest;
use super::notes::notes;
use super::order::Graph;
use super::output_names::keep_to_inputs;
use super::place::with_place;
use super::relation::RelationTable;
use super::retention::retention_faults;
use super::sql_text::parse_model;
use super::unarchived::{rereading_faults, unarchived_faults};
use super::untimed::Untimed;
use super::using::share_columns;
use super::windows::rewrite_windows;
use super::{CheckTest, Clock, Plan, PlannedCheck, PlannedModel, PlannedSource, SchemaSource, Strategy};
use super::{keys, names::Names, params, session, shared};
use crate::spec::SINK_COLUMNS;
use crate::spec::fault::{Fault, Place, Severity};
use crate::spec::types::{
    CheckKind, CheckSpec, Emit, Located, ModelSpec, OnFail, Project, Refresh, SinkSpec, SinkTarget, SourceSpec,
};

/// Raised whenever a function of ours gives other values than before: all models that are planned anew are rebuilt.
const FUNCTION_VERSION: u32 = 1;

/// Raised whenever states are laid out otherwise than before: all models that have some are rebuilt.
const STATE_VERSION: u32 = 3;

/// Plans the whole project and reports every fault. The plan is there even with faults: of the models without one.
pub async fn plan_project(project: &Project, schemas: &dyn SchemaSource) -> (Plan, Vec<Fault>) {
    planned(project, schemas, true).await
}

/// The same for who runs none of the models: whether each can be built isn't tried, which takes most of the time.
pub async fn plan_unbuilt(project: &Project, schemas: &dyn SchemaSource) -> (Plan, Vec<Fault>) {
    planned(project, schemas, false).await
}

async fn planned(project: &Project, schemas: &dyn SchemaSource, builds: bool) -> (Plan, Vec<Fault>) {
    let zone: Arc<str> = project.timezone.value.as_str().into();
    // Planning reads no clock: what hangs on it stays a call.
    let context = session(project, &Clock { now_us: 0, zone: Arc::clone(&zone) }, None);
    let state = context.state();
    let mut work = Work {
        project,
        state: &state,
        builds,
        zone,
        catalog: Catalog::default(),
        faults: params::parameters(project).1,
        nodes: nodes(project),
    };
    work.read_schemas(schemas).await;
    let parsed = work.parse();
    let circular = work.circles(&parsed);
    let bound = work.models(parsed, &circular);
    let plan = work.assemble(bound);
    let mut faults = work.faults;
    if faults.iter().any(|fault| fault.severity == Severity::Error) {
        // First things first.
        faults.retain(|fault| fault.severity != Severity::Note);
    }
    in_order(&mut faults);
    (plan, faults)
}

/// By file and place, as a reader meets them; the same fault once.
fn in_order(faults: &mut Vec<Fault>) {
    let place =
        |fault: &Fault| fault.place.as_ref().map(|place| (place.source.path.clone(), place.span.start, place.span.end));
    faults.sort_by_key(place);
    faults.dedup();
}

/// A relation as written.
#[derive(Clone, Copy)]
enum Spec<'a> {
    Source(&'a SourceSpec),
    Model(&'a ModelSpec),
}

impl<'a> Spec<'a> {
    fn checks(self) -> &'a [CheckSpec] {
        match self {
            Self::Source(source) => &source.checks,
            Self::Model(model) => &model.checks,
        }
    }
}

#[derive(Clone, Copy)]
struct Node<'a> {
    name: &'a str,
    pipeline: &'a str,
    spec: Spec<'a>,
}

fn nodes(project: &Project) -> Vec<Node<'_>> {
    let mut nodes = Vec::new();
    for pipeline in &project.pipelines {
        let name = pipeline.name.value.as_str();
        let sources = pipeline.sources.iter().map(|s| (s.name.value.as_str(), Spec::Source(s)));
        let models = pipeline.models.iter().map(|m| (m.name.value.as_str(), Spec::Model(m)));
        nodes.extend(sources.chain(models).map(|(relation, spec)| Node { name: relation, pipeline: name, spec }));
    }
    nodes
}

/// A model's syntax tree and what it names.
struct Parsed {
    query: Box<Query>,
    found: Inspection,
}

struct Work<'a> {
    project: &'a Project,
    state: &'a SessionState,
    builds: bool,
    zone: Arc<str>,
    /// Relations without a fault so far.
    catalog: Catalog,
    faults: Vec<Fault>,
    nodes: Vec<Node<'a>>,
}

/// Models by node, in the order of what they read.
type Bound<'a> = Vec<(usize, Cow<'a, ModelSpec>, BoundModel, Inspection, String)>;

impl<'a> Work<'a> {
    async fn read_schemas(&mut self, schemas: &dyn SchemaSource) {
        for node in self.nodes.clone() {
            let Spec::Source(spec) = node.spec else { continue };
            match schemas.schema(spec).await {
                Ok(schema) => {
                    let columns: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                    let named = spec.event_time.iter().chain(&spec.deduplicate);
                    let unknown: Vec<Fault> = named
                        .filter(|column| !columns.contains(&column.value.as_str()))
                        .map(|column| {
                            let message = format!("`{}` has no column `{}`", node.name, column.value);
                            let fault = Fault::error("unknown_column", column.place.clone(), message);
                            with_nearest(fault, &column.value, columns.iter().copied())
                        })
                        .collect();
                    if unknown.is_empty() {
                        let source = Some(SourceShape::of(spec));
                        self.catalog.insert(node.name, Relation { schema, source });
                    }
                    self.faults.extend(unknown);
                }
                Err(faults) => self.faults.extend(faults),
            }
        }
    }

    /// Parses every model, also of those whose inputs are at fault.
    fn parse(&mut self) -> BTreeMap<usize, Parsed> {
        let mut names = Names::new(self.state);
        for node in &self.nodes {
            let empty = Arc::new(arrow::datatypes::Schema::empty());
            let reference = datafusion::common::TableReference::bare(node.name);
            names.insert(reference, Arc::new(RelationTable::new(node.name, empty)));
        }
        let mut parsed = BTreeMap::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let Spec::Model(model) = node.spec else { continue };
            let mut query = match parse_model(&model.sql) {
                Ok(query) => query,
                Err(fault) => {
                    self.faults.push(fault);
                    continue;
                }
            };
            keep_to_inputs(&mut query, &|name| self.state.aggregate_functions().contains_key(name));
            let mut joins = share_columns(&mut query, &model.sql);
            joins.extend(write_out_windows(&mut query, &model.sql));
            let windows = rewrite_windows(&mut query, &model.sql, self.state);
            let mut found = inspect_model(&mut query, &model.sql, &names);
            // A window at fault is a null from here on: types around it can't be told.
            found.unknown_function |= !windows.is_empty();
            found.faults.extend(windows);
            found.faults.extend(joins);
            self.faults.append(&mut found.faults.clone());
            parsed.insert(at, Parsed { query, found });
        }
        parsed
    }

    fn node_of(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// What each node stands after: inputs of its SQL, targets of its relationships.
    fn graph(&self, parsed: &BTreeMap<usize, Parsed>) -> Graph {
        let reads = (0..self.nodes.len())
            .map(|at| {
                let inputs = parsed.get(&at).into_iter().flat_map(|p| p.found.inputs.keys().map(String::as_str));
                let targets = relationship_targets(self.nodes[at].spec.checks());
                let mut reads: Vec<usize> = inputs.chain(targets).filter_map(|name| self.node_of(name)).collect();
                // A relationship of a table to itself is a check like any other.
                let own = parsed.get(&at).is_some_and(|p| p.found.inputs.contains_key(self.nodes[at].name));
                reads.retain(|input| *input != at || own);
                reads
            })
            .collect();
        Graph { reads }
    }

    /// Tells circles of models, then of pipelines; the nodes that stand in a circle of models.
    fn circles(&mut self, parsed: &BTreeMap<usize, Parsed>) -> BTreeSet<usize> {
        let graph = self.graph(parsed);
        let circles = graph.circles();
        for circle in &circles {
            let path: Vec<&str> = circle.iter().map(|at| self.nodes[*at].name).collect();
            let message = match path.as_slice() {
                [only, _] => format!("`{only}` reads itself"),
                _ => format!("models read each other in a circle: {}", path.join(" → ")),
            };
            let place = self.place_of_read(circle[0], circle[1], parsed);
            self.faults.push(
                Fault::error("cycle", place, message)
                    .hint("take one of them apart, so that each reads only what is before it"),
            );
        }
        let circular: BTreeSet<usize> = circles.into_iter().flatten().collect();
        if circular.is_empty() {
            self.pipeline_circles(&graph, parsed);
        }
        circular
    }

    fn pipeline_circles(&mut self, graph: &Graph, parsed: &BTreeMap<usize, Parsed>) {
        let pipelines: Vec<&str> = self.project.pipelines.iter().map(|p| p.name.value.as_str()).collect();
        let of = |at: usize| pipelines.iter().position(|name| *name == self.nodes[at].pipeline).unwrap_or(0);
        let mut reads = vec![Vec::new(); pipelines.len()];
        let mut edge = BTreeMap::new();
        for (at, inputs) in graph.reads.iter().enumerate() {
            for input in inputs.iter().filter(|input| of(**input) != of(at)) {
                reads[of(at)].push(of(*input));
                edge.entry((of(at), of(*input))).or_insert((at, *input));
            }
        }
        let circles = Graph { reads }.circles();
        for circle in circles {
            let path: Vec<&str> = circle.iter().map(|at| pipelines[*at]).collect();
            let message = format!("pipelines read each other in a circle: {}", path.join(" → "));
            let place = edge.get(&(circle[0], circle[1])).and_then(|(at, to)| self.place_of_read(*at, *to, parsed));
            let fault = Fault::error("pipeline_cycle", place, message);
            self.faults
                .push(fault.hint("a pipeline is committed as a whole: put models that read each other's into one"));
        }
    }

    /// Where node `at` names node `to`.
    fn place_of_read(&self, at: usize, to: usize, parsed: &BTreeMap<usize, Parsed>) -> Option<Place> {
        let name = self.nodes[to].name;
        if let (Spec::Model(model), Some(parsed)) = (self.nodes[at].spec, parsed.get(&at))
            && let Some(span) = parsed.found.inputs.get(name)
        {
            return Some(model.sql.place_of(*span));
        }
        self.nodes[at].spec.checks().iter().find_map(|check| match &check.kind {
            CheckKind::Relationships { to_relation, .. } if to_relation.value == name => {
                Some(to_relation.place.clone())
            }
            _ => None,
        })
    }

    /// Plans models in order; those at fault, and those that read them, are left out without further words.
    fn models(&mut self, mut parsed: BTreeMap<usize, Parsed>, circular: &BTreeSet<usize>) -> Bound<'a> {
        let order = self.graph(&parsed).order();
        let mut bound = Vec::new();
        for at in order {
            let Spec::Model(spec) = self.nodes[at].spec else { continue };
            let Some(Parsed { mut query, found }) = parsed.remove(&at) else { continue };
            let known = found.inputs.keys().all(|input| self.catalog.get(input).is_some());
            if circular.contains(&at) || found.unknown_relation || !known {
                continue;
            }
            let place = self.place_key(spec, &mut query);
            let spec = place.clone().map_or(Cow::Borrowed(spec), |key| Cow::Owned(ModelSpec { key, ..spec.clone() }));
            let sql = query.to_string();
            let planner =
                ModelPlanner { state: self.state, catalog: &self.catalog, zone: &self.zone, builds: self.builds };
            match planner.plan(&spec, *query, found.unknown_function) {
                Ok(mut model) => {
                    model.key_is_derived |= place.is_some();
                    self.faults.extend(model.warnings.iter().cloned());
                    if found.faults.is_empty() {
                        let relation = Relation { schema: Arc::clone(&model.schema), source: None };
                        self.catalog.insert(&spec.name.value, relation);
                        bound.push((at, spec, model, found, sql));
                    }
                }
                Err(faults) => self.faults.extend(faults),
            }
        }
        bound
    }

    /// The key of a model that is published without one: the place of each row, where it hands on the rows of a source.
    fn place_key(&self, spec: &ModelSpec, query: &mut Query) -> Option<Vec<Located<String>>> {
        if !spec.key.is_empty() || spec.publish.is_empty() {
            return None;
        }
        let source_of = |name: &ObjectName| {
            let name = table_reference(name)?;
            self.nodes.iter().find_map(|node| match node.spec {
                Spec::Source(source) if node.name == name.table() => Some(source),
                _ => None,
            })
        };
        let place = with_place(query, &source_of)?;
        Some(place.map(|name| Located { value: name.to_string(), place: spec.name.place.clone() }).to_vec())
    }

    /// Binds checks, now that every schema is known, and puts the plan together.
    fn assemble(&mut self, bound: Bound<'_>) -> Plan {
        let all_names: BTreeSet<String> = self.nodes.iter().map(|node| node.name.to_owned()).collect();
        let state = self.state;
        let catalog = self.catalog.clone();
        let zone = Arc::clone(&self.zone);
        let planner = CheckPlanner { state, catalog: &catalog, all_names: &all_names, zone: &zone };
        let mut sources = Vec::new();
        for node in self.nodes.clone() {
            let Spec::Source(spec) = node.spec else { continue };
            let Some(relation) = catalog.get(node.name) else { continue };
            let (checks, faults) = planner.plan(&Checked { name: node.name, relation, checks: &spec.checks });
            self.faults.extend(faults);
            match relation.plan(node.name, &zone) {
                Ok(relation_plan) => sources.push(PlannedSource {
                    spec: spec.clone(),
                    pipeline: node.pipeline.to_owned(),
                    schema: Arc::clone(&relation.schema),
                    check_inputs: check_inputs(node.name, &checks),
                    fingerprint: self.source_fingerprint(spec, &relation.schema),
                    relation_plan,
                    checks,
                }),
                Err(error) => {
                    self.faults.push(Fault::error("invalid_sql", spec.name.place.clone(), error.strip_backtrace()));
                }
            }
        }
        let mut models = Vec::new();
        for (at, spec, model, found, sql) in bound {
            let Node { name, pipeline, .. } = self.nodes[at];
            let spec = spec.as_ref();
            let Some(relation) = catalog.get(name) else { continue };
            let mut specs = spec.checks.clone();
            specs.extend(model.unproven_not_null.iter().map(|column| CheckSpec {
                name: format!("not_null_{}", column.value),
                place: column.place.clone(),
                kind: CheckKind::NotNull(vec![column.clone()]),
                on_fail: OnFail::Fail,
            }));
            let (checks, faults) = planner.plan(&Checked { name, relation, checks: &specs });
            let whole = !faults.iter().any(|fault| fault.severity == Severity::Error);
            self.faults.extend(faults);
            if whole && let Some(planned) = self.planned(spec, pipeline, model, &found, checks, &sql) {
                self.tell_not_continuous(spec, &planned);
                self.faults.extend(rereading_faults(spec, &planned, &found, &self.sources()));
                self.tell_unkeyed_sinks(spec);
                self.tell_taken_names(spec, &planned);
                let under = self.sources_under(&planned, &models);
                self.faults.extend(loop_faults(spec, &under));
                let untimed = Untimed::over(&under);
                self.tell_endless_sinks(spec, &planned, untimed.as_ref());
                self.faults.extend(notes(spec, &planned, &self.sources()));
                self.faults.extend(retention_faults(spec, &planned, &self.sources(), untimed.as_ref()));
                models.push(planned);
            }
        }
        self.faults.extend(unarchived_faults(&self.sources(), &models));
        shared::explain(&mut models);
        Plan { sources: each_after_its_targets(sources), models }
    }

    fn tell_not_continuous(&mut self, spec: &ModelSpec, planned: &PlannedModel) {
        if spec.refresh.value == Refresh::Continuous && planned.maintenance.is_none() {
            let message = format!("`{}` can only be recomputed: {}", planned.name, planned.strategy.reason);
            let fault = Fault::error("not_continuous", spec.refresh.place.clone(), message);
            self.faults
                .push(fault.hint("`refresh: auto` computes it anew at most each minute, `{ every: … }` at your pace"));
        }
    }

    fn sources(&self) -> Vec<&'a SourceSpec> {
        let source = |node: &Node<'a>| match node.spec {
            Spec::Source(source) => Some(source),
            Spec::Model(_) => None,
        };
        self.nodes.iter().filter_map(source).collect()
    }

    fn tell_unkeyed_sinks(&mut self, spec: &ModelSpec) {
        if !spec.key.is_empty() {
            return;
        }
        for sink in &spec.publish {
            let why = match sink.target {
                SinkTarget::Kafka(_) => "a topic holds one row a key",
                SinkTarget::Files(_) => "changes in files are told by key",
            };
            let message = format!("`{}` has no key, and {why}", spec.name.value);
            let fault = Fault::error("missing_key", sink.place.clone(), message);
            self.faults.push(fault.hint("add `key: [columns that are unique]` to the model"));
        }
    }

    /// Files of a sink have columns besides the table's, except in envelopes.
    fn tell_taken_names(&mut self, spec: &ModelSpec, planned: &PlannedModel) {
        let taken = planned.schema.fields().iter().find(|field| SINK_COLUMNS.contains(&field.name().as_str()));
        let Some(taken) = taken else { return };
        let is_file = |sink: &&SinkSpec| matches!(sink.target, SinkTarget::Files(_)) && sink.emit() != Emit::Debezium;
        for sink in spec.publish.iter().filter(is_file) {
            let message = format!("`{}` is a column that files of a sink have by themselves", taken.name());
            let fault = Fault::error("reserved_name", sink.place.clone(), message);
            self.faults.push(fault.hint("give the model's column another name"));
        }
    }

    /// Sinks of closed windows need a column that closes them, and a watermark.
    fn tell_endless_sinks(&mut self, spec: &ModelSpec, planned: &PlannedModel, untimed: Option<&Untimed>) {
        let Some(sink) = spec.publish.iter().find(|sink| sink.is_final()) else { return };
        let fault = |message: String, hint: &str| Fault::error("never_final", sink.place.clone(), message).hint(hint);
        if planned.closing.is_none() {
            let message = format!("no column of `{}` says when a row is final", planned.name);
            self.faults.push(fault(message, "select `window_end`, or a date_trunc or date_bin of the event time"));
        }
        if let Some(untimed) = untimed {
            let message = format!("{}: nothing says how late it is", untimed.reason(&planned.name));
            self.faults.push(fault(message, "`emit: changes` publishes each change"));
        }
    }

    /// The sources under a model, by way of the models `before` it, too.
    fn sources_under(&self, planned: &PlannedModel, before: &[PlannedModel]) -> Vec<&'a SourceSpec> {
        let mut inputs: Vec<&str> = planned.inputs.iter().map(String::as_str).collect();
        let mut at = 0;
        while let Some(input) = inputs.get(at) {
            let model = before.iter().find(|model| model.name == *input);
            inputs.extend(model.iter().flat_map(|model| &model.inputs).map(String::as_str));
            at += 1;
        }
        let sources = self.sources().into_iter();
        sources.filter(|source| inputs.contains(&source.name.value.as_str())).collect()
    }

    fn planned(
        &self,
        spec: &ModelSpec,
        pipeline: &str,
        model: BoundModel,
        found: &Inspection,
        checks: Vec<PlannedCheck>,
        sql: &str,
    ) -> Option<PlannedModel> {
        let reads_clock = keys::reads_clock(&model.plan).ok()?;
        let maintenance = if reads_clock {
            Err("it reads the clock: computed anew when an input or the time has changed".to_owned())
        } else {
            let lets_go = spec.retention.is_some();
            maintenance(self.state, &model.plan, lets_go).unwrap_or_else(|error| Err(error.strip_backtrace()))
        };
        let strategy = match &maintenance {
            Ok(maintenance) => Strategy {
                name: "incremental",
                operators: maintenance.operators.clone(),
                reason: "changes follow from its inputs' changes".to_owned(),
            },
            Err(reason) => {
                Strategy { name: "recompute", operators: keys::operators(&model.plan).ok()?, reason: reason.clone() }
            }
        };
        let fingerprint = self.fingerprint(spec, &model, &checks, sql)?;
        let states = match &maintenance {
            Ok(maintenance) => self.states(maintenance)?,
            Err(_) => Vec::new(),
        };
        let closing = closing(&model.plan, &model.schema);
        Some(PlannedModel {
            name: spec.name.value.clone(),
            pipeline: pipeline.to_owned(),
            inputs: found.inputs.keys().cloned().collect(),
            check_inputs: check_inputs(&spec.name.value, &checks),
            strategy,
            maintenance: maintenance.ok(),
            plan: model.plan,
            schema: model.schema,
            key: spec.key.iter().map(|name| name.value.clone()).collect(),
            key_is_derived: model.key_is_derived,
            partition_by: spec.partition_by.iter().map(|name| name.value.clone()).collect(),
            reads_clock,
            checks,
            refresh: spec.refresh.value.clone(),
            serve: spec.serve,
            publish: spec.publish.clone(),
            closing,
            retention: spec.retention.as_ref().map(|retention| retention.value),
            fingerprint,
            states,
        })
    }

    /// Hash of everything that decides which rows of the same bytes are accepted and as what.
    fn source_fingerprint(&self, spec: &SourceSpec, schema: &arrow::datatypes::SchemaRef) -> String {
        let mut text =
            format!("{FUNCTION_VERSION} {schema:?} {} {:?} {}", spec.connector_text(), spec.on_invalid, self.zone);
        for check in &spec.checks {
            text.push_str(&format!("\n{} {:?} {}", check.name, check.on_fail, check.kind.text()));
            if check.kind.text().contains('$') {
                let values = self.project.params.iter().map(|p| (&p.name.value, p.value.as_ref().map(|v| &v.value)));
                text.push_str(&format!(" {:?}", values.collect::<Vec<_>>()));
            }
        }
        blake3::hash(text.as_bytes()).to_hex()[..32].to_string()
    }

    /// For each of a model's states, a hash of everything that it hangs on besides the inputs' rows.
    fn states(&self, maintenance: &Maintenance) -> Option<Vec<String>> {
        let of = |stage: &Stage| {
            let text = format!("{}{}", self.surroundings(&stage.calls)?, stage.name);
            Some(blake3::hash(text.as_bytes()).to_hex().to_string())
        };
        maintenance.stages.iter().map(of).collect()
    }

    /// What values hang on besides the SQL that gives them, of which the functions are, and its inputs.
    fn surroundings(&self, called: &BTreeSet<String>) -> Option<String> {
        let mut text = String::new();
        writeln!(text, "functions {FUNCTION_VERSION}\nstates {STATE_VERSION}\nzone {}", self.zone).ok()?;
        for param in &self.project.params {
            if called.contains(&params::function_name(&param.name.value)) {
                let value = param.value.as_ref().map(|value| &value.value);
                writeln!(text, "param {} {:?} {value:?}", param.name.value, param.data_type).ok()?;
            }
        }
        Some(text)
    }

    /// Hash of everything that the stored rows, and what is kept of them, hang on besides the inputs' rows.
    fn fingerprint(&self, spec: &ModelSpec, model: &BoundModel, checks: &[PlannedCheck], sql: &str) -> Option<String> {
        let mut text = self.surroundings(&keys::functions_called(&model.plan).ok()?)?;
        let names =
            |names: &[Located<String>]| -> Vec<String> { names.iter().map(|name| name.value.clone()).collect() };
        // The plan shortens long lists of values, the syntax tree doesn't.
        writeln!(text, "sql {sql}\nplan {}", model.plan.display_indent_schema()).ok()?;
        for field in model.schema.fields() {
            writeln!(text, "column {:?} {:?} {}", field.name(), field.data_type(), field.is_nullable()).ok()?;
        }
        writeln!(text, "key {:?}\npartition_by {:?}", names(&spec.key), names(&spec.partition_by)).ok()?;
        for check in checks {
            let test = match &check.test {
                CheckTest::Row(expr) => format!("row {expr}"),
                CheckTest::Unique(columns) => format!("unique {columns:?}"),
                CheckTest::Relationship { column, to_relation, to_column } => {
                    format!("relationship {column:?} {to_relation:?} {to_column:?}")
                }
                CheckTest::Freshness { column, within_us } => format!("freshness {column:?} {within_us}"),
            };
            writeln!(text, "check {:?} {:?} {test}", check.name(), check.on_fail()).ok()?;
        }
        Some(blake3::hash(text.as_bytes()).to_hex().to_string())
    }
}

/// Sources so that each stands after those that its rules look into, otherwise as they were declared.
fn each_after_its_targets(sources: Vec<PlannedSource>) -> Vec<PlannedSource> {
    let at = |name: &String| sources.iter().position(|source| source.spec.name.value == *name);
    let reads = sources.iter().map(|source| source.check_inputs.iter().filter_map(at).collect()).collect();
    let order = Graph { reads }.order();
    let mut sources: Vec<Option<PlannedSource>> = sources.into_iter().map(Some).collect();
    order.into_iter().filter_map(|at| sources[at].take()).collect()
}

fn relationship_targets(checks: &[CheckSpec]) -> impl Iterator<Item = &str> {
    checks.iter().filter_map(|check| match &check.kind {
        CheckKind::Relationships { to_relation, .. } => Some(to_relation.value.as_str()),
        _ => None,
    })
}

/// What the rules of `relation` look into besides itself.
fn check_inputs(relation: &str, checks: &[PlannedCheck]) -> Vec<String> {
    let targets: BTreeSet<&str> = checks
        .iter()
        .filter_map(|check| match &check.test {
            CheckTest::Relationship { to_relation, .. } if to_relation != relation => Some(to_relation.as_str()),
            _ => None,
        })
        .collect();
    targets.into_iter().map(str::to_owned).collect()
}
