//! Every bound of a queue, buffer, cache or retry: unit in the name, reason in the doc.

/// Rows in a batch that a decoder or a plan hands on: large enough to spread per-batch cost, small enough for the cache.
pub const BATCH_ROWS: usize = 8192;

/// Depth of a YAML file in nested lists and mappings: deeper ones are generated or hostile, and dropping a tree recurses.
pub const YAML_DEPTH_MAX: usize = 64;

/// Values of a YAML file with its aliases written out: a few lines of aliases can stand for billions of values.
pub const YAML_NODES_MAX: usize = 1_000_000;

/// Defaults within defaults of `${A:-${B:-…}}`: more is a mistake, and reading them recurses.
pub const VARIABLE_DEPTH_MAX: usize = 8;
