//! TPC-H's queries as models, maintained over its refresh functions and over updates.
//!
//! `PARITY_ORDERS` asks for a greater database (300 orders; scale 0.001 has 1500), `PARITY_SEEDS` for more of them.

use std::fmt::Write as _;

use super::harness::{Case, Options, Way, report, with_runtime};
use super::tpch_data::TPCH;
use super::tpch_queries::QUERIES;

#[test]
fn tpch_equals_batch_and_is_incremental() {
    let options = Options::of_environment(1);
    let (table, failures) = with_runtime(|runtime| {
        let (mut table, mut failures) = (String::new(), Vec::new());
        for (name, sql) in QUERIES.iter().filter(|(name, _)| options.wants(name)) {
            let case =
                runtime.block_on(Case::new(&TPCH, sql, Way::default())).unwrap_or_else(|e| panic!("{name}: {e}"));
            let strategy = &case.last().strategy;
            let how = if strategy.name == "incremental" { "" } else { strategy.reason.as_str() };
            writeln!(table, "{}", format!("{name} {} {how}", strategy.name).trim_end()).unwrap();
            for seed in options.seeds() {
                let steps = (TPCH.steps)(seed);
                match runtime.block_on(case.check(&steps)) {
                    Ok(0) => failures.push(format!("{name}, seed {seed}: no rows at any time: nothing is tested")),
                    Ok(_) => {}
                    Err(wrong) => {
                        failures.push(format!("{name}, seed {seed}: {}", report(runtime, &case, sql, steps, &wrong)));
                        break;
                    }
                }
            }
        }
        (table, failures)
    });
    println!("{table}");
    assert!(failures.is_empty(), "{} queries differ from batch\n\n{}", failures.len(), failures.join("\n\n"));
    if options.wants_all() {
        insta::with_settings!({ snapshot_path => "../snapshots" }, {
            insta::assert_snapshot!("strategies", table);
        });
    }
}
