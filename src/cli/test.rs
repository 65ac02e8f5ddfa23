//! `tidemill test`: the SQL unit tests.

use serde_json::json;

use super::args::{Global, ListFormat, TestArgs};
use super::open::{self, Opened};
use super::{Exit, selection};
use crate::error::Result;
use crate::run::unit_test::{self, Outcome};

pub(super) async fn execute(global: &Global, args: &TestArgs) -> Result<Exit> {
    let open = match open::open(global).await? {
        Opened::Invalid(exit) => return Ok(exit),
        Opened::Project(open) => open,
    };
    let chosen = match selection::choose(&open, &args.selection).await? {
        Ok(chosen) => chosen,
        Err(faults) => return Ok(open::report(&faults)),
    };
    let mut faults = Vec::new();
    let (mut passed, mut failed) = (0, 0);
    for test in open.project.tests.iter().flat_map(|file| &file.tests) {
        if !chosen.models.contains(&test.model.value) {
            continue;
        }
        faults.extend(unit_test::unread(&open, test));
        let outcomes = match unit_test::run(&open, test).await {
            Ok(outcomes) => outcomes,
            Err(found) => {
                faults.extend(found);
                continue;
            }
        };
        if outcomes.iter().all(|outcome| outcome.passed) {
            passed += 1
        } else {
            failed += 1
        }
        match args.format {
            ListFormat::Json => {
                for Outcome { mode, passed, detail } in &outcomes {
                    let (test, model) = (&test.name.value, &test.model.value);
                    let line = json!({ "test": test, "model": model, "mode": mode, "status": status(*passed), "detail": detail });
                    say!("{line}");
                }
            }
            ListFormat::Text => {
                let modes = outcomes.iter().map(|outcome| format!("{} {}", outcome.mode, status(outcome.passed)));
                say!("{}: {}  {}", test.model.value, test.name.value, modes.collect::<Vec<_>>().join(", "));
                for detail in outcomes.iter().filter_map(|outcome| outcome.detail.as_ref()) {
                    say!("{detail}");
                }
            }
        }
    }
    if args.format == ListFormat::Text {
        say!("{passed} passed, {failed} failed");
    }
    Ok(match (open::report(&faults), failed) {
        (0, 0) => 0,
        (0, _) => 1,
        (invalid, _) => invalid,
    })
}

fn status(passed: bool) -> &'static str {
    if passed { "ok" } else { "failed" }
}
