//! Sessions that go on from new rows alone: which do, and that rows before, between and after them give what one batch run gives.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::cases::CASES;
use super::data::{Change, Row, SMALL, Steps, Value, World};
use super::harness::{Case, Options, Way, run, with_runtime};

/// Rows come in any order of time, and none goes.
static INSERTS: World = World { zone: "UTC", relations: SMALL.relations, steps: only_inserts };

const START_US: i64 = 1_520_000_000_000_000;

fn only_inserts(seed: u64) -> Steps {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let row = |rng: &mut ChaCha8Rng, step: i64| -> Row {
        let null = |rng: &mut ChaCha8Rng, value: Value| if rng.random_bool(0.08) { Value::Null } else { value };
        // Mostly near the newest rows, at times far back.
        let minute = if rng.random_bool(0.7) { step * 20 + rng.random_range(0..30) } else { rng.random_range(0..160) };
        let (k, n) = (Value::Int(rng.random_range(0..3)), Value::Int(rng.random_range(-2..4)));
        let v = Value::Decimal(i128::from(rng.random_range(-300..900)));
        let t = Value::Time(START_US + minute * 60_000_000);
        let g = Value::Text(if rng.random_bool(0.5) { "x" } else { "y" }.into());
        let values = [k, g, v, n, Value::Double(0.5), t, Value::Bool(rng.random_bool(0.5))];
        values.into_iter().map(|value| null(rng, value)).collect()
    };
    let mut steps = Steps::new();
    for step in 0..8 {
        let count = if step == 0 { 15 } else { rng.random_range(1..7) };
        let added = (0..count).map(|_| row(&mut rng, step)).collect();
        steps.push(vec![Change { added, removed: vec![] }, Change::default(), Change::default()]);
    }
    steps
}

fn cases() -> Vec<(&'static str, &'static str)> {
    CASES.iter().copied().filter(|(name, _)| name.starts_with("session")).collect()
}

/// The clock of the small world counts as a day behind.
fn watermark(step: usize) -> i64 {
    START_US + 86_400_000_000 + i64::try_from(step).unwrap() * 20 * 60_000_000 - 30 * 60_000_000
}

#[test]
fn sessions_go_on_from_rows_that_come() {
    let options = Options::of_environment(2);
    run(&INSERTS, &cases(), &options, Way::default());
    run(&INSERTS, &cases(), &options, Way { watermark: Some(watermark), ..Way::default() });
}

#[test]
fn sessions_that_merge_are_known() {
    with_runtime(|runtime| {
        let merging: Vec<&str> = cases()
            .into_iter()
            .filter(|(_, sql)| {
                let case = runtime.block_on(Case::new(&SMALL, sql, Way::default())).unwrap();
                let mut stages = case.last().maintenance.iter().flat_map(|maintenance| &maintenance.stages);
                stages.any(|stage| stage.sessions.is_some())
            })
            .map(|(name, _)| name)
            .collect();
        // Values that are told apart, or that hang on the session's bounds, aren't merged; without its end none knows how far it goes.
        assert_eq!(merging, ["session", "session_parts", "session_joined", "session_expr"]);
    });
}
