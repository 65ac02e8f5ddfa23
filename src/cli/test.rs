//! `tidemill test`: the SQL unit tests.

use serde_json::json;

use super::args::{Global, ListFormat, TestArgs};
use super::open::{self, Opened};
use super::{Exit, selection};
use crate::error::Result;
use crate::run::unit_test;

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
        let (ok, detail) = match unit_test::run(&open, test).await {
            Ok(outcome) => (outcome.passed, outcome.detail),
            Err(found) => {
                faults.extend(found);
                continue;
            }
        };
        if ok {
            passed += 1
        } else {
            failed += 1
        }
        let status = if ok { "ok" } else { "failed" };
        match args.format {
            ListFormat::Json => say!(
                "{}",
                json!({ "test": test.name.value, "model": test.model.value, "mode": "batch", "status": status, "detail": detail })
            ),
            ListFormat::Text => {
                say!("{}: {}  {status}", test.model.value, test.name.value);
                if let Some(detail) = detail {
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
