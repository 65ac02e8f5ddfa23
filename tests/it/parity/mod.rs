//! Same SQL, same answer: models maintained over seeded random changes, against one batch run over the same rows.

mod cases;
mod data;
mod extrema;
mod functions;
mod harness;
mod lookup;
mod random;
mod retention;
mod sessions;
mod shrink;
mod special;
mod sql;
mod tpch;
mod tpch_data;
mod tpch_queries;

use harness::{Options, Way, run};

/// Every hand-made case under a few seeds. `PARITY_SEEDS` and `PARITY_FIRST` ask for more, `PARITY_CASE` for one of them.
#[test]
fn maintained_models_equal_one_batch_run() {
    run(&data::SMALL, cases::CASES, &Options::of_environment(2), Way::default());
}
