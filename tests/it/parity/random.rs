//! Random queries under random changes.
//!
//! A run takes `PARITY_QUERIES` queries (240) or `PARITY_SECONDS` seconds (60), whichever ends first. It begins with the query
//! of seed `PARITY_QUERY` (1), and checks each under the `PARITY_SEEDS` (2) seeds of steps from `PARITY_FIRST` (1) on. A night:
//!
//! ```text
//! PARITY_QUERY=$(date +%s) PARITY_QUERIES=1000000 PARITY_SECONDS=21600 PARITY_SEEDS=5 cargo test --test it random_queries -- --nocapture
//! ```
//!
//! A failure is told with the seeds of its query and its steps; `PARITY_QUERY=<seed> PARITY_QUERIES=1` runs it again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::data::SMALL;
use super::harness::{Case, Options, Way, number, report, with_runtime};
use super::sql::random_sql;

/// What became of queries, and how many.
#[derive(Default)]
struct Coverage(BTreeMap<String, usize>);

impl Coverage {
    fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    fn of(&self, prefix: &str) -> usize {
        self.0.iter().filter(|(what, _)| what.starts_with(prefix)).map(|(_, count)| count).sum()
    }
}

#[test]
fn random_queries_equal_one_batch_run() {
    let options = Options::of_environment(2);
    let first = number("PARITY_QUERY").unwrap_or(1);
    let queries = number("PARITY_QUERIES").unwrap_or(240);
    let end = Instant::now() + Duration::from_secs(number("PARITY_SECONDS").unwrap_or(60));
    let (coverage, failures) = with_runtime(|runtime| {
        let (mut coverage, mut failures) = (Coverage::default(), Vec::new());
        for seed in first..first.saturating_add(queries) {
            if Instant::now() > end {
                break;
            }
            failures.extend(one(runtime, seed, &options, &mut coverage));
        }
        (coverage, failures)
    });
    println!("queries from seed {first}:");
    for (what, count) in &coverage.0 {
        println!("{count:6} {what}");
    }
    assert!(failures.is_empty(), "{} queries differ from batch\n\n{}", failures.len(), failures.join("\n\n"));
    let (planned, incremental) = (coverage.of("planned"), coverage.of("model: incremental"));
    assert!(
        planned < 20 || planned > 4 * coverage.of("not planned"),
        "most queries don't plan: the generator is broken"
    );
    assert!(planned < 20 || incremental * 2 > planned, "{incremental} of {planned} queries are incremental");
}

/// Checks the query of one seed; what is wrong with it.
fn one(runtime: &tokio::runtime::Runtime, seed: u64, options: &Options, coverage: &mut Coverage) -> Option<String> {
    let sql = random_sql(seed);
    let case = match runtime.block_on(Case::new(&SMALL, &sql, Way::default())) {
        Ok(case) => case,
        Err(faults) => {
            if std::env::var("PARITY_FAULTS").is_ok() {
                println!("query {seed}: {sql}\n{faults}");
            }
            let code = faults.lines().next().unwrap_or_default().to_owned();
            coverage.count(format!("not planned: {}", code.chars().take(90).collect::<String>()));
            return None;
        }
    };
    coverage.count("planned");
    for model in case.models() {
        coverage.count(format!("model: {}", model.strategy.name));
        if model.maintenance.is_none() {
            coverage.count(format!("  because {}", model.strategy.reason));
        }
        for operator in &model.strategy.operators {
            coverage.count(format!("    operator {operator}"));
        }
    }
    if !case.is_incremental() {
        return None;
    }
    for step_seed in options.seeds() {
        let steps = (SMALL.steps)(step_seed);
        match runtime.block_on(case.check(&steps)) {
            Ok(_) => coverage.count("checked"),
            Err(wrong) if wrong.differs() => {
                coverage.count("differs");
                let what = report(runtime, &case, &sql, steps, &wrong);
                let text = format!("query {seed}, steps {step_seed}: {what}");
                println!("{text}\n");
                return Some(text);
            }
            Err(wrong) => {
                if std::env::var("PARITY_FAULTS").is_ok() {
                    println!("query {seed}: {sql}\n{wrong:?}");
                }
                coverage.count("unclear: batch fails or disagrees with itself");
                return None;
            }
        }
    }
    None
}
