//! Python with the packages of `tests/support/python.txt`, for what other engines and drivers see.

use std::process::Command;

use crate::house::root;

/// A script of `tests/support`.
pub(crate) fn script(name: &str) -> Command {
    let mut python = python();
    python.arg(root().join("tests/support").join(name));
    python
}

/// Lines of Python.
pub(crate) fn code(code: &str) -> Command {
    let mut python = python();
    python.args(["-c", code]);
    python
}

fn python() -> Command {
    let python = root().join("target/venv/bin/python");
    assert!(python.exists(), "{} is missing: run scripts/test, which makes it", python.display());
    let mut command = Command::new(python);
    command.arg(root().join("tests/support/run.py"));
    command
}
