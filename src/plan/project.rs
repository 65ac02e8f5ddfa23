//! Plans a whole project: sources, then models in dependency order, then what spans them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::Query;
use datafusion::sql::sqlparser::parser::Parser;

use super::check::{Binder, column_type};
use super::dialect::TidemillDialect;
use super::model::{self, Relations};
use super::relation::RelationTable;
use super::{Clock, Plan, PlannedModel, PlannedSource, SchemaSource, Strategy, params, session, sql, types};
use crate::spec::fault::Fault;
use crate::spec::types::{CheckKind, CheckSpec, ModelSpec, OnFail, Project, SourceSpec};

/// Changes when functions of ours change what they give: then every model is computed anew.
const FUNCTIONS_VERSION: u32 = 1;

/// Plans the whole project and reports every fault. The plan is there even with faults: of the models without one.
pub async fn plan_project(project: &Project, schemas: &dyn SchemaSource) -> (Plan, Vec<Fault>) {
    let mut planner = Planner {
        project,
        params: project.params.iter().map(|p| p.name.value.as_str()).collect(),
        relations: Relations::default(),
        faults: params::parameters(project).1,
        plan: Plan { sources: Vec::new(), models: Vec::new() },
    };
    let pipelines = || project.pipelines.iter();
    planner.relations.sources = pipelines().flat_map(|p| &p.sources).map(|s| s.name.value.clone()).collect();
    planner.relations.declared = planner.relations.sources.clone();
    planner.relations.declared.extend(pipelines().flat_map(|p| &p.models).map(|m| m.name.value.clone()));
    for pipeline in pipelines() {
        for source in &pipeline.sources {
            planner.source_schema(&pipeline.name.value, source, schemas).await;
        }
    }
    let queries = planner.parse();
    let order = planner.order(&queries);
    for (pipeline, spec) in order {
        if let Some((query, inputs)) = queries.get(spec.name.value.as_str()) {
            planner.model(pipeline, spec, query, inputs).await;
        }
    }
    planner.source_checks();
    planner.pipeline_cycles();
    crate::spec::sort_faults(&mut planner.faults);
    (planner.plan, planner.faults)
}

/// Parsed queries by model, each with the relations that it names.
type Queries<'a> = HashMap<&'a str, (Query, Vec<String>)>;

struct Planner<'a> {
    project: &'a Project,
    params: Vec<&'a str>,
    relations: Relations,
    faults: Vec<Fault>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn zone(&self) -> &'a str {
        &self.project.timezone.value
    }

    /// A session that plans: its clock is never read.
    fn session(&self) -> SessionContext {
        session(self.project, &Clock { now_us: 0, zone: self.zone().into() }, None)
    }

    async fn source_schema(&mut self, pipeline: &str, spec: &SourceSpec, schemas: &dyn SchemaSource) {
        let schema = match schemas.schema(spec).await {
            Ok(schema) => schema,
            Err(faults) => return self.faults.extend(faults),
        };
        let columns = spec.event_time.iter().chain(&spec.deduplicate);
        let unknown: Vec<Fault> = columns.filter_map(|c| column_type(&spec.name.value, &schema, c).err()).collect();
        if !unknown.is_empty() {
            // With declared columns the loader has told it.
            if spec.columns.is_empty() {
                self.faults.extend(unknown);
            }
            return;
        }
        let relation_plan = match self.deduplicated(spec, &schema).await {
            Ok(plan) => plan,
            Err(fault) => return self.faults.push(fault),
        };
        let text = format!("{FUNCTIONS_VERSION} {schema:?} {:?} {:?} {}", spec.connector_text(), spec.on_invalid, self.zone());
        let rules = spec.checks.iter().map(|check| format!("{} {:?} {:?}\n", check.name, check.on_fail, check.kind.text()));
        let text = text + &rules.collect::<String>() + &self.param_values();
        self.relations.schemas.insert(spec.name.value.clone(), Arc::clone(&schema));
        self.plan.sources.push(PlannedSource {
            spec: spec.clone(),
            pipeline: pipeline.to_string(),
            schema,
            checks: Vec::new(),
            relation_plan,
            fingerprint: hash(&text),
        });
    }

    /// The first row by event time of each value of the columns, ties by all others.
    async fn deduplicated(&self, spec: &SourceSpec, schema: &SchemaRef) -> Result<Option<LogicalPlan>, Fault> {
        let (Some(time), false) = (&spec.event_time, spec.deduplicate.is_empty()) else { return Ok(None) };
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let by: Vec<String> = spec.deduplicate.iter().map(|c| quoted(&c.value)).collect();
        let others = schema.fields().iter().map(|f| f.name().as_str()).filter(|name| *name != time.value);
        let order: Vec<String> = [time.value.as_str()].into_iter().chain(others).map(|name| format!("{} NULLS LAST", quoted(name))).collect();
        let all: Vec<String> =
            schema.fields().iter().map(|f| f.name().as_str()).chain(super::HIDDEN_COLUMNS).map(quoted).collect();
        // Rows that agree in every column differ in where they stand: that decides which position is told.
        let text = format!(
            "SELECT {columns} FROM (SELECT *, row_number() OVER (PARTITION BY {} ORDER BY {}, _source_file, _source_row) AS _nth \
             FROM {table}) WHERE _nth = 1",
            by.join(", "),
            order.join(", "),
            columns = all.join(", "),
            table = quoted(&spec.name.value),
        );
        let internal = |e: &dyn std::fmt::Display| Fault::error("internal", spec.name.place.clone(), format!("`deduplicate` can't be planned: {e}"));
        let ctx = self.session();
        let full = model::with_hidden(&ctx, schema);
        let table = Arc::new(RelationTable { name: spec.name.value.clone(), schema: full });
        ctx.register_table(datafusion::common::TableReference::bare(spec.name.value.clone()), table).map_err(|e| internal(&e))?;
        let mut statements = Parser::parse_sql(&TidemillDialect, &text).map_err(|e| internal(&e))?;
        let statement = statements.pop().ok_or_else(|| internal(&"nothing to plan"))?;
        let plan = ctx.state().statement_to_plan(DfStatement::Statement(Box::new(statement))).await;
        plan.map(Some).map_err(|e| internal(&e))
    }

    fn param_values(&self) -> String {
        self.project.params.iter().map(|p| format!("{}={:?} ", p.name.value, p.value.as_ref().map(|v| &v.value))).collect()
    }

    fn parse(&mut self) -> Queries<'a> {
        let mut queries = HashMap::new();
        for spec in self.project.pipelines.iter().flat_map(|p| &p.models) {
            match sql::parse_query(&spec.sql) {
                Ok(query) => {
                    let named = sql::relations(&query, &spec.sql);
                    let inputs: BTreeSet<String> = named.into_iter().map(|(name, _)| name).collect();
                    queries.insert(spec.name.value.as_str(), (query, inputs.into_iter().collect()));
                }
                Err(fault) => self.faults.push(fault),
            }
        }
        queries
    }

    /// Models so that each stands after what it reads, relationship targets included; cycles are faults and left out.
    fn order(&mut self, queries: &Queries<'a>) -> Vec<(&'a str, &'a ModelSpec)> {
        let models: Vec<(&'a str, &'a ModelSpec)> = self
            .project
            .pipelines
            .iter()
            .flat_map(|p| p.models.iter().map(|m| (p.name.value.as_str(), m)))
            .filter(|(_, m)| queries.contains_key(m.name.value.as_str()))
            .collect();
        let names: BTreeSet<&str> = models.iter().map(|(_, m)| m.name.value.as_str()).collect();
        let mut waits: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (_, spec) in &models {
            let name = spec.name.value.as_str();
            let inputs = queries.get(name).map(|(_, inputs)| inputs.as_slice()).unwrap_or_default();
            let reads = inputs.iter().map(String::as_str).chain(related(&spec.checks));
            // A relationship to itself is no cycle: the check reads the new version.
            let is_self_related = |read: &&str| *read == name && !inputs.iter().any(|i| i == name);
            waits.insert(name, reads.filter(|read| names.contains(read) && !is_self_related(read)).collect());
        }
        let mut order: Vec<(&str, &ModelSpec)> = Vec::new();
        loop {
            let done: BTreeSet<&str> = order.iter().map(|(_, m)| m.name.value.as_str()).collect();
            let next = models.iter().find(|(_, m)| {
                let name = m.name.value.as_str();
                !done.contains(name) && waits.get(name).is_some_and(|reads| reads.iter().all(|read| done.contains(read)))
            });
            match next {
                Some(next) => order.push(*next),
                None => {
                    self.cycles(&models, &waits, &done);
                    return order;
                }
            }
        }
    }

    fn cycles(&mut self, models: &[(&str, &ModelSpec)], waits: &BTreeMap<&str, BTreeSet<&str>>, done: &BTreeSet<&str>) {
        let mut told: BTreeSet<&str> = BTreeSet::new();
        for (_, spec) in models {
            let start = spec.name.value.as_str();
            if done.contains(start) || told.contains(start) {
                continue;
            }
            let Some(path) = path_back(start, waits, done) else { continue };
            told.extend(path.iter().copied());
            let shown = path.join(" → ");
            let message = if path.len() == 2 { format!("`{start}` reads itself") } else { format!("models read each other in a circle: {shown}") };
            self.faults.push(Fault::error("cycle", spec.name.place.clone(), message));
        }
    }

    async fn model(&mut self, pipeline: &str, spec: &ModelSpec, query: &Query, inputs: &[String]) {
        let ctx = self.session();
        let bound = match model::plan_query(&ctx, query, &spec.sql, &self.relations, &self.params).await {
            Ok(bound) => bound,
            Err(faults) => return self.faults.extend(faults),
        };
        let operators = model::operators(&bound.plan);
        let (plan, schema) = match model::stored(bound.plan, self.zone(), &spec.sql) {
            Ok(stored) => stored,
            Err(faults) => return self.faults.extend(faults),
        };
        let before = self.faults.len();
        let name = &spec.name.value;
        for column in spec.key.iter().chain(&spec.partition_by) {
            self.faults.extend(column_type(name, &schema, column).err());
        }
        self.check_contract(spec, &schema);
        self.check_partitions(spec, &schema);
        let has_relation_faults = self.faults.len() > before;
        self.relations.schemas.insert(name.clone(), Arc::clone(&schema));
        let binder = Binder { ctx: &ctx, relations: &self.relations, params: &self.params, zone: self.project.timezone.value.as_str() };
        let checks = binder.bind(name, &schema, &spec.checks, &mut self.faults);
        if has_relation_faults {
            return;
        }
        let key: Vec<String> = spec.key.iter().map(|c| c.value.clone()).collect();
        let key_is_derived = model::is_unique_by_itself(&plan, &key);
        let reads_clock = bound.reads_clock || checks.iter().any(|c| matches!(&c.test, super::CheckTest::Row(e) if model::expr_reads_clock(e)));
        let fingerprint = self.fingerprint(spec, &plan, &schema);
        let reason = if reads_clock {
            "it reads the clock: computed whole by each run that finds it due"
        } else {
            "this version computes a model whole when its SQL or an input has changed"
        };
        let check_inputs: BTreeSet<String> =
            related(&spec.checks).filter(|r| r != name && !inputs.iter().any(|i| i == r)).map(str::to_string).collect();
        self.plan.models.push(PlannedModel {
            name: name.clone(),
            pipeline: pipeline.to_string(),
            inputs: inputs.to_vec(),
            check_inputs: check_inputs.into_iter().collect(),
            schema,
            key,
            key_is_derived,
            partition_by: spec.partition_by.iter().map(|c| c.value.clone()).collect(),
            reads_clock,
            checks,
            refresh: spec.refresh.value.clone(),
            serve: spec.serve,
            fingerprint,
            strategy: Strategy { name: "recompute", operators, reason: reason.to_string() },
            plan,
        });
    }

    fn fingerprint(&self, spec: &ModelSpec, plan: &LogicalPlan, schema: &SchemaRef) -> String {
        let mut text = format!("{FUNCTIONS_VERSION} {} {schema:?} {}", plan.display_indent_schema(), self.zone());
        let names = |list: &[crate::spec::types::Located<String>]| list.iter().map(|n| n.value.clone()).collect::<Vec<_>>();
        text.push_str(&format!("{:?} {:?} {}", names(&spec.key), names(&spec.partition_by), spec.serve));
        for check in &spec.checks {
            text.push_str(&format!("{} {:?} {}", check.name, check.on_fail, check.kind.text()));
        }
        if text.contains('$') {
            text.push_str(&self.param_values());
        }
        hash(&text)
    }

    /// The contract on the result: every declared column with its type, and no other.
    fn check_contract(&mut self, spec: &ModelSpec, schema: &SchemaRef) {
        for column in &spec.columns {
            let name = &column.name.value;
            let field = match schema.field_with_name(name) {
                Ok(field) => field,
                Err(_) => {
                    self.faults.extend(column_type(&spec.name.value, schema, &column.name).err());
                    continue;
                }
            };
            let wanted = column.data_type.value.to_arrow(self.zone());
            if wanted != *field.data_type() {
                let message = format!("`{name}` is {}, and its contract says {}", types::sql_name(field.data_type()), column.data_type.value);
                let fault = Fault::error("wrong_type", column.data_type.place.clone(), message);
                self.faults.push(fault.hint(format!("CAST(… AS {}) in the SQL, or change the contract", column.data_type.value)));
            }
        }
        if !spec.columns.is_empty() {
            for field in schema.fields() {
                if !spec.columns.iter().any(|c| c.name.value == *field.name()) {
                    let message = format!("the result has a column `{}` that its contract lacks", field.name());
                    self.faults.push(Fault::error("contract", spec.name.place.clone(), message));
                }
            }
        }
    }

    fn check_partitions(&mut self, spec: &ModelSpec, schema: &SchemaRef) {
        for column in &spec.partition_by {
            let Ok(field) = schema.field_with_name(&column.value) else { continue };
            if field.data_type().is_nested() || field.data_type().is_floating() {
                let message = format!("a table can't be partitioned by `{}`, which is {}", column.value, types::sql_name(field.data_type()));
                self.faults.push(Fault::error("wrong_type", column.place.clone(), message));
            }
        }
        if !schema.fields().is_empty() && spec.partition_by.len() == schema.fields().len() {
            let place = spec.partition_by[0].place.clone();
            self.faults.push(Fault::error("wrong_value", place, "a table needs a column that it isn't partitioned by"));
        }
    }

    /// Checks of sources come last: they may be about models.
    fn source_checks(&mut self) {
        let ctx = self.session();
        let binder = Binder { ctx: &ctx, relations: &self.relations, params: &self.params, zone: self.project.timezone.value.as_str() };
        let mut faults = Vec::new();
        for source in &mut self.plan.sources {
            let name = source.spec.name.value.clone();
            source.checks = binder.bind(&name, &source.schema, &source.spec.checks, &mut faults);
            for check in &source.spec.checks {
                if matches!(check.kind, CheckKind::Relationships { .. }) && check.on_fail == OnFail::Quarantine {
                    let message = "a row of a source can't be refused for what another relation holds";
                    let fault = Fault::error("wrong_check", check.place.clone(), message);
                    faults.push(fault.hint("use `fail` or `warn`, or check the model that reads it"));
                }
            }
        }
        self.faults.extend(faults);
    }

    fn pipeline_cycles(&mut self) {
        let owners: HashMap<&str, &str> = self
            .plan
            .sources
            .iter()
            .map(|s| (s.spec.name.value.as_str(), s.pipeline.as_str()))
            .chain(self.plan.models.iter().map(|m| (m.name.as_str(), m.pipeline.as_str())))
            .collect();
        let mut waits: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for model in &self.plan.models {
            for input in model.inputs.iter().chain(&model.check_inputs) {
                if let Some(owner) = owners.get(input.as_str()).filter(|owner| **owner != model.pipeline) {
                    waits.entry(&model.pipeline).or_default().insert(owner);
                }
            }
        }
        for pipeline in &self.project.pipelines {
            let name = pipeline.name.value.as_str();
            if let Some(path) = path_back(name, &waits, &BTreeSet::new()) {
                let message = format!("pipelines read each other in a circle: {}", path.join(" → "));
                let fault = Fault::error("pipeline_cycle", pipeline.name.place.clone(), message);
                self.faults.push(fault.hint("a pipeline is committed as one: put these models into one pipeline"));
                return;
            }
        }
    }
}

fn related(checks: &[CheckSpec]) -> impl Iterator<Item = &str> {
    checks.iter().filter_map(|check| match &check.kind {
        CheckKind::Relationships { to_relation, .. } => Some(to_relation.value.as_str()),
        _ => None,
    })
}

/// A way from `start` along `waits` back to it, both ends included; depth first, none of `done` entered.
fn path_back<'a>(start: &'a str, waits: &BTreeMap<&'a str, BTreeSet<&'a str>>, done: &BTreeSet<&str>) -> Option<Vec<&'a str>> {
    let mut seen = BTreeSet::new();
    let mut stack = vec![vec![start]];
    while let Some(path) = stack.pop() {
        let last = path.last().copied().unwrap_or(start);
        for next in waits.get(last).into_iter().flatten().rev() {
            if *next == start {
                return Some(path.into_iter().chain([start]).collect());
            }
            if !done.contains(next) && seen.insert(*next) {
                stack.push(path.iter().copied().chain([*next]).collect());
            }
        }
    }
    None
}

fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..32].to_string()
}
