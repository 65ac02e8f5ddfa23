//! Every aggregate and window function of the engine, with how its changes are found. A function that stands in none of the
//! lists fails the suite. Knows no plans.

/// How an aggregate's value follows its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AggregateClass {
    /// The values of two bags add up; rows that go are subtracted. Over integers and decimals; over floats as [`Self::Tolerant`].
    Additive,
    /// The values of two bags merge; when a row goes, its group is computed anew.
    Extremum,
    /// A group that changed is computed anew from its rows, to the same value in whatever order.
    Whole,
    /// As [`Self::Whole`], and its last digits hang on the order of rows.
    Tolerant,
    /// As [`Self::Whole`], and an estimate by design.
    Approximate,
}

/// Aggregates by name, aliases included.
pub const AGGREGATES: &[(&str, AggregateClass)] = &[
    ("count", AggregateClass::Additive),
    ("sum", AggregateClass::Additive),
    ("avg", AggregateClass::Additive),
    ("mean", AggregateClass::Additive),
    ("min", AggregateClass::Extremum),
    ("max", AggregateClass::Extremum),
    ("bool_and", AggregateClass::Extremum),
    ("bool_or", AggregateClass::Extremum),
    ("bit_and", AggregateClass::Extremum),
    ("bit_or", AggregateClass::Extremum),
    ("bit_xor", AggregateClass::Extremum),
    ("any_value", AggregateClass::Extremum),
    ("array_agg", AggregateClass::Whole),
    ("first_value", AggregateClass::Whole),
    ("grouping", AggregateClass::Whole),
    ("last_value", AggregateClass::Whole),
    ("median", AggregateClass::Whole),
    ("nth_value", AggregateClass::Whole),
    ("percentile_cont", AggregateClass::Whole),
    ("quantile_cont", AggregateClass::Whole),
    ("string_agg", AggregateClass::Whole),
    ("corr", AggregateClass::Tolerant),
    ("covar", AggregateClass::Tolerant),
    ("covar_pop", AggregateClass::Tolerant),
    ("covar_samp", AggregateClass::Tolerant),
    ("regr_avgx", AggregateClass::Tolerant),
    ("regr_avgy", AggregateClass::Tolerant),
    ("regr_count", AggregateClass::Tolerant),
    ("regr_intercept", AggregateClass::Tolerant),
    ("regr_r2", AggregateClass::Tolerant),
    ("regr_slope", AggregateClass::Tolerant),
    ("regr_sxx", AggregateClass::Tolerant),
    ("regr_sxy", AggregateClass::Tolerant),
    ("regr_syy", AggregateClass::Tolerant),
    ("stddev", AggregateClass::Tolerant),
    ("stddev_pop", AggregateClass::Tolerant),
    ("stddev_samp", AggregateClass::Tolerant),
    ("var", AggregateClass::Tolerant),
    ("var_pop", AggregateClass::Tolerant),
    ("var_population", AggregateClass::Tolerant),
    ("var_samp", AggregateClass::Tolerant),
    ("var_sample", AggregateClass::Tolerant),
    ("approx_distinct", AggregateClass::Approximate),
    ("approx_median", AggregateClass::Approximate),
    ("approx_percentile_cont", AggregateClass::Approximate),
    ("approx_percentile_cont_with_weight", AggregateClass::Approximate),
];

/// How a window function's values follow its rows: all of a partition that changed is computed anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowClass {
    /// Ties have one value, or are broken by all columns.
    Exact,
}

/// Window functions by name; aggregates may stand over windows too.
pub const WINDOWS: &[(&str, WindowClass)] = &[
    ("cume_dist", WindowClass::Exact),
    ("dense_rank", WindowClass::Exact),
    ("first_value", WindowClass::Exact),
    ("lag", WindowClass::Exact),
    ("last_value", WindowClass::Exact),
    ("lead", WindowClass::Exact),
    ("nth_value", WindowClass::Exact),
    ("ntile", WindowClass::Exact),
    ("percent_rank", WindowClass::Exact),
    ("rank", WindowClass::Exact),
    ("row_number", WindowClass::Exact),
];

/// The class of an aggregate; what isn't known is computed anew.
pub fn class_of(function: &str) -> AggregateClass {
    AGGREGATES.iter().find(|(name, _)| *name == function).map_or(AggregateClass::Whole, |(_, class)| *class)
}
