//! The session that SQL is planned and run in: options, functions, types. Knows no project files and no tables.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::catalog::MemoryCatalogProviderList;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::optimizer::single_distinct_to_groupby::SingleDistinctToGroupBy;
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::sqlparser::ast::{DataType as SqlDataType, TimezoneInfo};

use super::clock::{ClockOption, clock_functions};
use super::coercion::analyzer_rules;
use super::date_bin::date_bin_in;
use super::date_trunc::date_trunc_of_any_year;
use super::guards::GuardingPlanner;
use super::json::{JsonOperators, json_functions};
use super::shifts::shifts;
use super::sieve::sieved;
use super::steady::SteadyWindows;
use super::window_plan::WindowPlanner;
use super::yielding::Yielding;
use super::{Clock, params};
use crate::spec::types::Project;

/// Schema that models and sources stand in.
pub const MAIN_SCHEMA: &str = "main";

/// A session that plans and runs at `clock`: the project's dialect, zone, functions, parameters and types.
/// The catalog is the project's name, its default schema `main`. Memory and spilling are `runtime`'s, or unbounded.
pub fn session(project: &Project, clock: &Clock, runtime: Option<Arc<RuntimeEnv>>) -> SessionContext {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(&project.name.value, MAIN_SCHEMA)
        .with_create_default_catalog_and_schema(true)
        .with_information_schema(true);
    let options = config.options_mut();
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.enable_ident_normalization = true;
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    // It names a struct's field as its column, which joins of a column with itself then can't tell apart.
    options.optimizer.enable_leaf_expression_pushdown = false;
    options.execution.time_zone = Some(clock.zone.to_string());
    options.extensions.insert(ClockOption(clock.clone()));

    let state = SessionStateBuilder::new()
        // Those of the engine come behind.
        .with_expr_planners(vec![Arc::new(JsonOperators::default())])
        .with_default_features()
        .with_analyzer_rules(analyzer_rules())
        .with_optimizer_rules(optimizer_rules())
        .with_query_planner(Arc::new(GuardingPlanner))
        .with_physical_optimizer_rules(physical_rules())
        .with_config(config)
        .with_runtime_env(runtime.unwrap_or_default())
        .with_type_planner(Arc::new(Types { zone: Arc::clone(&clock.zone) }))
        .with_relation_planners(vec![Arc::new(WindowPlanner)])
        .build();
    let context = SessionContext::new_with_state(state);
    for function in clock_functions(&clock.zone).into_iter().chain(json_functions()) {
        context.register_udf(function);
    }
    context.register_udf(date_bin_in(&clock.zone));
    context.register_udf(date_trunc_of_any_year());
    for function in shifts() {
        context.register_udwf(function);
    }
    for parameter in params::parameters(project).0 {
        context.register_udf(parameter);
    }
    context
}

/// A session like `made`, without its tables, at another instant of the same zone. It shares what takes a while to make.
pub fn session_at(made: &SessionContext, now_us: i64) -> SessionContext {
    let mut state = made.state();
    let options = state.config_mut().options_mut();
    let zone = zone_of(options);
    options.extensions.insert(ClockOption(Clock { now_us, zone }));
    state.register_catalog_list(Arc::new(MemoryCatalogProviderList::new()));
    SessionContext::new_with_state(state)
}

/// The zone of a session with these options: IANA name.
pub fn zone_of(options: &ConfigOptions) -> Arc<str> {
    options.execution.time_zone.as_deref().unwrap_or("UTC").into()
}

/// The engine's rules but one, which splits count(DISTINCT …) and widens sums of decimals beside it twice: conditions on such a
/// sum then compare two types.
fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let rules = Optimizer::new().rules;
    rules.into_iter().filter(|rule| rule.name() != SingleDistinctToGroupBy::new().name()).collect()
}

/// The engine's rules, and ours behind them.
fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = sieved(PhysicalOptimizer::new().rules);
    rules.extend([Arc::new(SteadyWindows) as _, Arc::new(Yielding) as _]);
    rules
}

/// SQL's time types in microseconds, as tables hold them: the engine's own nanoseconds end in the year 2262.
#[derive(Debug)]
pub struct Types {
    /// The project's zone.
    pub zone: Arc<str>,
}

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &SqlDataType) -> Result<Option<FieldRef>> {
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::clone(&self.zone)));
        let data_type = match sql_type {
            SqlDataType::Timestamp(None | Some(6), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone)
            | SqlDataType::Datetime(None | Some(6)) => DataType::Timestamp(TimeUnit::Microsecond, None),
            SqlDataType::Timestamp(None | Some(6), TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => zoned,
            SqlDataType::Time(None | Some(6), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                DataType::Time64(TimeUnit::Microsecond)
            }
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}
