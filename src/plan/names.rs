//! What SQL's names mean: tables given by the caller, functions of the session. Plans syntax trees; knows no faults.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::catalog::{TableFunctionArgs, TableProvider};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, ResolvedTableReference, Result, TableReference, plan_datafusion_err};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::parser::Statement;
use datafusion::sql::planner::{NullOrdering, ParserOptions, PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr as SqlExpr, ExprWithAlias, Query, Statement as SqlStatement, Value, VisitMut,
    visit_expressions_mut,
};

use super::at_zone::{AT_ZONE, as_call, at_zone};
use super::coercion::coerced;
use super::lateral::without_laterals;
use super::session::{Types, zone_of};

/// Tables by name, and the session's functions.
pub struct Names<'a> {
    state: &'a SessionState,
    tables: HashMap<ResolvedTableReference, Arc<dyn TableSource>>,
    types: Arc<Types>,
}

impl<'a> Names<'a> {
    /// No tables yet.
    pub fn new(state: &'a SessionState) -> Self {
        let zone = zone_of(state.config_options());
        Self { state, tables: HashMap::new(), types: Arc::new(Types { zone }) }
    }

    /// The session.
    pub fn state(&self) -> &'a SessionState {
        self.state
    }

    /// What `reference` means in full.
    pub fn resolve(&self, reference: TableReference) -> ResolvedTableReference {
        let catalog = &self.state.config_options().catalog;
        reference.resolve(&catalog.default_catalog, &catalog.default_schema)
    }

    /// Adds a table.
    pub fn insert(&mut self, reference: impl Into<TableReference>, table: Arc<dyn TableProvider>) {
        let resolved = self.resolve(reference.into());
        self.tables.insert(resolved, provider_as_source(table));
    }

    /// Whether `reference` names a table.
    pub fn has(&self, reference: &TableReference) -> bool {
        self.tables.contains_key(&self.resolve(reference.clone()))
    }

    /// Names of tables as they would be written bare.
    pub fn table_names(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(|reference| &*reference.table)
    }

    /// Plans a query and finds its types; nothing is optimized, clock functions stay calls.
    pub fn plan_query(&self, query: Query) -> Result<LogicalPlan> {
        self.analyze(self.plan(Statement::Statement(Box::new(SqlStatement::Query(Box::new(query)))))?)
    }

    /// Plans a statement of any kind.
    pub fn plan(&self, mut statement: Statement) -> Result<LogicalPlan> {
        if let Statement::Statement(statement) = &mut statement {
            as_planned(statement.as_mut());
        }
        let plan = SqlToRel::new_with_options(self, self.options_of_parser()).statement_to_plan(statement)?;
        without_laterals(self.state, plan)
    }

    /// Finds types and inserts the casts that they need.
    pub fn analyze(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        self.state.analyzer().execute_and_check(plan, self.options(), |_, _| {})
    }

    /// Plans an expression over `schema`.
    pub fn expression(&self, mut expr: ExprWithAlias, schema: &DFSchema) -> Result<Expr> {
        as_planned(&mut expr);
        SqlToRel::new_with_options(self, self.options_of_parser()).sql_to_expr_with_alias(
            expr,
            schema,
            &mut PlannerContext::new(),
        )
    }

    /// Whether SQL can call `name`.
    pub fn has_function(&self, name: &str) -> bool {
        matches!(name, "unnest" | "unnest_outer")
            || self.state.scalar_functions().contains_key(name)
            || self.state.aggregate_functions().contains_key(name)
            || self.state.window_functions().contains_key(name)
            || self.state.higher_order_functions().contains_key(name)
    }

    /// All names that SQL can call, parameters aside.
    pub fn function_names(&self) -> Vec<String> {
        let mut names = self.udf_names();
        names.extend(self.udaf_names());
        names.extend(self.udwf_names());
        names.extend(self.higher_order_function_names());
        names.extend(super::windows::WINDOW_FUNCTIONS.map(str::to_owned));
        names.retain(|name| !name.starts_with('$'));
        names.sort();
        names.dedup();
        names
    }

    fn options_of_parser(&self) -> ParserOptions {
        let options = &self.options().sql_parser;
        ParserOptions::new()
            .with_parse_float_as_decimal(options.parse_float_as_decimal)
            .with_enable_ident_normalization(options.enable_ident_normalization)
            .with_support_varchar_with_length(options.support_varchar_with_length)
            .with_map_string_types_to_utf8view(options.map_string_types_to_utf8view)
            .with_enable_options_value_normalization(options.enable_options_value_normalization)
            .with_collect_spans(options.collect_spans)
            .with_default_null_ordering(NullOrdering::from(options.default_null_ordering.as_str()))
    }
}

/// Syntax as the planner reads it. `(buyer).name` and `items[1].name` are fields of structs; dots behind a bare name are its own to read.
/// AT TIME ZONE is a function.
fn as_planned<V: VisitMut>(tree: &mut V) {
    let _ = visit_expressions_mut(tree, |expr| {
        as_call(expr);
        if let SqlExpr::CompoundFieldAccess { root, access_chain } = expr {
            let is_name = matches!(root.as_ref(), SqlExpr::Identifier(_) | SqlExpr::CompoundIdentifier(_));
            let is_dot = |access: &&mut AccessExpr| matches!(access, AccessExpr::Dot(_));
            for access in access_chain.iter_mut().skip_while(|access| is_name && is_dot(access)) {
                if let AccessExpr::Dot(field) = access
                    && let SqlExpr::Identifier(name) = &*field
                {
                    let folded =
                        if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() };
                    *field = SqlExpr::Value(Value::SingleQuotedString(folded).with_span(name.span));
                }
            }
        }
        ControlFlow::<()>::Continue(())
    });
}

impl ContextProvider for Names<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let resolved = self.resolve(name);
        self.tables.get(&resolved).cloned().ok_or_else(|| plan_datafusion_err!("table '{}' not found", resolved.table))
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> Result<Arc<dyn TableSource>> {
        let functions = self.state.table_functions();
        let function = functions.get(name).ok_or_else(|| plan_datafusion_err!("table function '{name}' not found"))?;
        let context = SimplifyContext::builder().with_config_options(Arc::clone(self.state.config_options())).build();
        let simplifier = ExprSimplifier::new(context);
        let schema = DFSchema::empty();
        let args = args
            .into_iter()
            .map(|arg| simplifier.simplify(coerced(&simplifier, arg, &schema)?))
            .collect::<Result<Vec<_>>>()?;
        let args = TableFunctionArgs::new(&args, self.state);
        Ok(provider_as_source(function.create_table_provider_with_args(args)?))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.state.relation_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::clone(&self.types) as _)
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        if name == AT_ZONE {
            return Some(Arc::new(at_zone(&self.types.zone)));
        }
        self.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}
