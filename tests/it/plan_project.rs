//! Projects built by hand for tests of planning: a fake YAML text grows with every name, so that places are real.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use tidemill::plan::{Clock, Plan, PlannedModel, SchemaSource, bind, plan_project, session};
use tidemill::spec::fault::{Fault, Place, Severity, SourceText};
use tidemill::spec::sql_type::SqlType;
use tidemill::spec::types::{
    AfterTaken, CheckKind, CheckSpec, ColumnSpec, ConnectorSpec, FileFormat, FilesMode, FilesSpec, Located, ModelSpec,
    OnFail, OnInvalid, Param, Pipeline, Project, Refresh, SourceSpec, SqlText,
};

/// Columns of a relation: name and type.
pub type Columns<'a> = &'a [(&'a str, SqlType)];

pub struct Builder {
    zone: String,
    yaml: Mutex<String>,
    params: Vec<(String, SqlType, Option<String>)>,
    pipelines: Vec<(String, Vec<SourceDraft>, Vec<ModelDraft>)>,
}

pub struct SourceDraft {
    pub name: String,
    pub columns: Vec<(String, SqlType)>,
    pub not_null: Vec<String>,
    pub event_time: Option<String>,
    pub deduplicate: Vec<String>,
    pub checks: Vec<Draft>,
}

#[derive(Default)]
pub struct ModelDraft {
    pub name: String,
    pub sql: String,
    pub key: Vec<String>,
    pub partition_by: Vec<String>,
    pub columns: Vec<(String, SqlType, bool)>,
    pub checks: Vec<Draft>,
}

/// A check to be.
pub enum Draft {
    Sql(&'static str),
    NotNull(&'static str),
    Unique(&'static str),
    Accepted(&'static str, &'static [&'static str]),
    Relationship(&'static str, &'static str, &'static str),
    Freshness(&'static str),
}

impl Builder {
    pub fn new(zone: &str) -> Self {
        Self {
            zone: zone.into(),
            yaml: Mutex::default(),
            params: vec![],
            pipelines: vec![("sales".into(), vec![], vec![])],
        }
    }

    pub fn pipeline(mut self, name: &str) -> Self {
        self.pipelines.push((name.into(), vec![], vec![]));
        self
    }

    pub fn param(mut self, name: &str, data_type: SqlType, value: Option<&str>) -> Self {
        self.params.push((name.into(), data_type, value.map(str::to_owned)));
        self
    }

    pub fn source(self, name: &str, columns: Columns<'_>) -> Self {
        self.source_with(name, columns, |_| {})
    }

    pub fn source_with(mut self, name: &str, columns: Columns<'_>, more: impl FnOnce(&mut SourceDraft)) -> Self {
        let columns = columns.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect();
        let mut draft = SourceDraft {
            name: name.into(),
            columns,
            not_null: vec![],
            event_time: None,
            deduplicate: vec![],
            checks: vec![],
        };
        more(&mut draft);
        self.pipelines.last_mut().unwrap().1.push(draft);
        self
    }

    pub fn model(self, name: &str, sql: &str) -> Self {
        self.model_with(name, sql, |_| {})
    }

    pub fn model_with(mut self, name: &str, sql: &str, more: impl FnOnce(&mut ModelDraft)) -> Self {
        let mut draft = ModelDraft { name: name.into(), sql: sql.into(), ..ModelDraft::default() };
        more(&mut draft);
        self.pipelines.last_mut().unwrap().2.push(draft);
        self
    }

    pub fn build(&self) -> Project {
        // Twice: the text that places point into must be whole before they are made.
        self.yaml.lock().unwrap().clear();
        let grown = self.project(&Arc::new(SourceText { path: String::new(), text: String::new() }));
        drop(grown);
        let text = std::mem::take(&mut *self.yaml.lock().unwrap());
        self.project(&Arc::new(SourceText { path: "pipelines/sales.yaml".into(), text }))
    }

    fn project(&self, source: &Arc<SourceText>) -> Project {
        let at = |value: &str| self.at(source, value);
        let pipelines = self.pipelines.iter().map(|(name, sources, models)| Pipeline {
            name: at(name),
            sources: sources.iter().map(|draft| self.source_spec(source, draft)).collect(),
            models: models.iter().map(|draft| self.model_spec(source, draft)).collect(),
        });
        let pipelines = pipelines.collect();
        let params = self.params.iter().map(|(name, data_type, value)| Param {
            name: at(name),
            data_type: data_type.clone(),
            value: value.as_deref().map(at),
        });
        Project {
            root: PathBuf::from("/nowhere"),
            name: at("shop"),
            warehouse: at("warehouse"),
            timezone: at(&self.zone),
            params: params.collect(),
            flight_listen: at("127.0.0.1:31337"),
            console_listen: None,
            lease_ttl: Duration::from_secs(30),
            pace: tidemill::spec::types::Pace::default(),
            state_memory_bytes: None,
            kafka_brokers: None,
            pipelines,
            tests: vec![],
        }
    }

    fn at(&self, source: &Arc<SourceText>, value: &str) -> Located<String> {
        let mut yaml = self.yaml.lock().unwrap();
        let start = yaml.len() + "at: ".len();
        writeln!(yaml, "at: {value}").unwrap();
        Located {
            value: value.to_owned(),
            place: Place { source: Arc::clone(source), span: start..start + value.len() },
        }
    }

    fn source_spec(&self, source: &Arc<SourceText>, draft: &SourceDraft) -> SourceSpec {
        let at = |value: &str| self.at(source, value);
        let name = at(&draft.name);
        let path = at("data/*.parquet");
        SourceSpec {
            description: None,
            connector: ConnectorSpec::Files(FilesSpec {
                path,
                format: FileFormat::Parquet,
                mode: FilesMode::Snapshot,
                after: AfterTaken::Keep,
                settle: Duration::ZERO,
                allow_empty: true,
                archive: false,
                options: Default::default(),
            }),
            columns: draft
                .columns
                .iter()
                .map(|(n, t)| self.column(source, n, t, !draft.not_null.contains(n)))
                .collect(),
            event_time: draft.event_time.as_deref().map(at),
            on_invalid: OnInvalid::Quarantine,
            deduplicate: draft.deduplicate.iter().map(|n| at(n)).collect(),
            checks: draft.checks.iter().map(|draft| self.check(source, draft)).collect(),
            serve: false,
            tags: vec![],
            name,
        }
    }

    fn model_spec(&self, source: &Arc<SourceText>, draft: &ModelDraft) -> ModelSpec {
        let at = |value: &str| self.at(source, value);
        ModelSpec {
            publish: vec![],
            retention: None,
            name: at(&draft.name),
            description: None,
            sql: SqlText::free(&format!("sql/{}.sql", draft.name), &draft.sql),
            key: draft.key.iter().map(|n| at(n)).collect(),
            refresh: Located { value: Refresh::Auto, place: at("auto").place },
            partition_by: draft.partition_by.iter().map(|n| at(n)).collect(),
            columns: draft.columns.iter().map(|(n, t, nullable)| self.column(source, n, t, *nullable)).collect(),
            checks: draft.checks.iter().map(|draft| self.check(source, draft)).collect(),
            serve: true,
            owner: None,
            tags: vec![],
        }
    }

    fn column(&self, source: &Arc<SourceText>, name: &str, data_type: &SqlType, nullable: bool) -> ColumnSpec {
        let name = self.at(source, name);
        let place = self.at(source, &format!("{data_type:?}")).place;
        ColumnSpec {
            name,
            data_type: Located { value: data_type.clone(), place },
            nullable,
            timestamp_format: None,
            description: None,
            tags: vec![],
        }
    }

    fn check(&self, source: &Arc<SourceText>, draft: &Draft) -> CheckSpec {
        let at = |value: &str| self.at(source, value);
        let mut place = None;
        let kind = match draft {
            Draft::Sql(sql) => {
                let written = at(sql);
                CheckKind::Expression(SqlText {
                    text: (*sql).to_owned(),
                    source: Arc::clone(source),
                    line_starts: vec![written.place.span.start],
                })
            }
            Draft::NotNull(column) => CheckKind::NotNull(vec![at(column)]),
            Draft::Unique(column) => CheckKind::Unique(vec![at(column)]),
            Draft::Accepted(column, values) => {
                let column = at(column);
                place = Some(at(&values.join(", ")).place);
                CheckKind::AcceptedValues { column, values: values.iter().map(|v| (*v).to_owned()).collect() }
            }
            Draft::Relationship(column, to, to_column) => {
                CheckKind::Relationships { column: at(column), to_relation: at(to), to_column: at(to_column) }
            }
            Draft::Freshness(column) => CheckKind::Freshness { column: at(column), within: Duration::from_secs(300) },
        };
        CheckSpec { name: "rule".into(), place: place.unwrap_or_else(|| at("rule").place), kind, on_fail: OnFail::Fail }
    }

    pub async fn plan(&self) -> (Project, Plan, Vec<Fault>) {
        let project = self.build();
        let schemas = Contracts { zone: self.zone.as_str().into() };
        let (plan, faults) = plan_project(&project, &schemas).await;
        (project, plan, faults)
    }

    /// The faults as a user meets them, without notes on what is sound.
    pub async fn faults(&self) -> String {
        self.told(|severity| severity != Severity::Note).await
    }

    /// The notes alone.
    pub async fn notes(&self) -> String {
        self.told(|severity| severity == Severity::Note).await
    }

    async fn told(&self, which: impl Fn(Severity) -> bool) -> String {
        let (_, _, mut faults) = self.plan().await;
        faults.retain(|fault| which(fault.severity));
        render(&faults)
    }

    /// The plan of a project without faults.
    pub async fn planned(&self) -> Planned {
        let (project, plan, faults) = self.plan().await;
        let errors: Vec<_> = faults.iter().filter(|f| f.severity == Severity::Error).cloned().collect();
        assert!(errors.is_empty(), "{}", render(&errors));
        Planned { project, plan }
    }
}

pub struct Planned {
    pub project: Project,
    pub plan: Plan,
}

impl Planned {
    pub fn model(&self, name: &str) -> &PlannedModel {
        self.plan.models.iter().find(|model| model.name == name).expect("the model is planned")
    }

    /// The rows of a model at an instant, sorted as text.
    pub async fn rows(&self, name: &str, now: &str, tables: &Tables) -> Vec<String> {
        let model = self.model(name);
        let clock = Clock { now_us: instant(now), zone: self.project.timezone.value.as_str().into() };
        let context = session(&self.project, &clock, None);
        let plan = bind(&model.plan, &tables.0).unwrap();
        let batches = context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
        lines(&batches)
    }
}

/// Tables to bind.
#[derive(Default, Clone)]
pub struct Tables(pub HashMap<String, Arc<dyn TableProvider>>);

impl Tables {
    /// A table of `SELECT … FROM VALUES` as any SQL engine would read it.
    pub async fn with(mut self, name: &str, sql: &str) -> Self {
        let context = SessionContext::new();
        let frame = context.sql(sql).await.unwrap();
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.collect().await.unwrap();
        let table = MemTable::try_new(schema, vec![batches]).unwrap();
        self.0.insert(name.into(), Arc::new(table));
        self
    }
}

pub fn instant(text: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
}

/// Rows as text, sorted: tables are bags.
pub fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let options = arrow::util::display::FormatOptions::default().with_null("null");
    let mut lines = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|c| arrow::util::display::ArrayFormatter::try_new(c.as_ref(), &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let values: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
            lines.push(values.join(" | "));
        }
    }
    lines.sort();
    lines
}

/// Contracts as the YAML gives them.
pub struct Contracts {
    zone: Arc<str>,
}

impl Contracts {
    pub fn utc() -> Self {
        Self { zone: "UTC".into() }
    }
}

#[async_trait]
impl SchemaSource for Contracts {
    async fn schema(&self, source: &SourceSpec) -> Result<SchemaRef, Vec<Fault>> {
        if source.columns.is_empty() {
            return Err(vec![Fault::error("no_columns", source.name.place.clone(), "no columns")]);
        }
        let fields = source.columns.iter().map(|column| {
            let data_type = column.data_type.value.to_arrow(&self.zone);
            Field::new(&column.name.value, data_type, column.nullable)
        });
        Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
    }
}

pub fn render(faults: &[Fault]) -> String {
    let mut out = String::new();
    for fault in faults {
        let severity = format!("{:?}", fault.severity).to_lowercase();
        writeln!(out, "{severity}[{}]: {}", fault.code, fault.message).unwrap();
        if let Some(place) = &fault.place {
            let text = &place.source.text;
            let before = &text[..place.span.start];
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            let line = text[line_start..].lines().next().unwrap_or_default();
            let column = text[line_start..place.span.start].chars().count();
            let shown = text[place.span.clone()].lines().next().unwrap_or_default();
            let carets = shown.chars().count().max(1);
            writeln!(out, "  {}:{}:{}", place.source.path, before.matches('\n').count() + 1, column + 1).unwrap();
            writeln!(out, "  | {line}").unwrap();
            writeln!(out, "  | {}{}", " ".repeat(column), "^".repeat(carets)).unwrap();
        }
        if let Some(hint) = &fault.hint {
            writeln!(out, "  hint: {hint}").unwrap();
        }
    }
    out
}
