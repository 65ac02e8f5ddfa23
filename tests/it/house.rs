//! Rules of the house that the compiler doesn't check.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::Bounded;

/// Lines of a source file, unless it is plain data.
const FILE_LINES: usize = 700;

/// The project's folder.
pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Rust files below `folder`, by their paths in it.
pub(super) fn rust_files(folder: &str) -> Vec<(PathBuf, String)> {
    let base = root().join(folder);
    let mut folders = vec![base.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                files.push((path.strip_prefix(&base).unwrap().to_path_buf(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort();
    assert!(!files.is_empty(), "no Rust files in {folder}");
    files
}

/// All files of ours in `src` and `tests`, by their paths in the project.
fn ours() -> Vec<(PathBuf, String)> {
    let within = |folder: &'static str| {
        rust_files(folder).into_iter().map(move |(path, text)| (Path::new(folder).join(path), text))
    };
    within("src").chain(within("tests")).collect()
}

/// Asserts that no file breaks a rule; `broken` says how.
fn assert_none(broken: impl Fn(&Path, &str) -> Option<String>) {
    let found: Vec<_> =
        ours().iter().filter_map(|(path, text)| Some(format!("{}: {}", path.display(), broken(path, text)?))).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn files_are_short_enough_to_read() {
    assert_none(|_, text| {
        let lines = text.lines().count();
        (lines > FILE_LINES).then(|| format!("{lines} lines, more than {FILE_LINES}"))
    });
}

#[test]
fn the_first_line_says_what_a_module_is() {
    assert_none(|_, text| {
        let first = text.lines().next().unwrap_or_default();
        (!first.starts_with("//! ") || first.len() < 15)
            .then(|| format!("starts with `{first}`, not with `//! ` and what it is"))
    });
}

#[test]
fn nothing_is_named_utils_or_common() {
    const VAGUE: [&str; 5] = ["util", "utils", "common", "helpers", "misc"];
    assert_none(|path, text| {
        let by_name = path.iter().any(|part| VAGUE.contains(&part.to_string_lossy().trim_end_matches(".rs")));
        let by_mod = text.lines().find(|line| {
            let line = line
                .trim_start()
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub(super) ")
                .trim_start_matches("pub ");
            line.strip_prefix("mod ")
                .is_some_and(|rest| VAGUE.contains(&rest.split([';', ' ']).next().unwrap_or_default()))
        });
        (by_name || by_mod.is_some()).then(|| "a name that says nothing".to_string())
    });
}

#[test]
fn lints_are_expected_with_a_reason_never_allowed() {
    // Put together here, so that this file doesn't find itself.
    let allows = ["#[allow", "#![allow"].map(|start| format!("{start}("));
    assert_none(|_, text| {
        let allowed = text.lines().find(|line| allows.iter().any(|a| line.trim_start().starts_with(a.as_str())));
        let bare = text.match_indices("#[expect(").map(|(at, _)| &text[at..]).find(|rest| {
            let attribute = rest.split(")]").next().unwrap_or_default();
            !attribute.contains("reason")
        });
        match (allowed, bare) {
            (Some(line), _) => Some(format!("`{}`", line.trim())),
            (_, Some(rest)) if !rest.starts_with("#[expect(\")") => {
                Some(format!("no reason in `{}`", rest.lines().next().unwrap_or_default()))
            }
            _ => None,
        }
    });
}

#[test]
fn no_test_waits_for_a_process_without_a_bound() {
    // Put together here, so that this file doesn't find itself.
    let calls = ["output()", "status()", "wait_with_output()", "spawn()"].map(|call| format!(".{call}.unwrap()"));
    assert_none(|path, text| {
        let call = calls.iter().find(|call| text.contains(call.as_str()))?;
        path.starts_with("tests").then(|| format!("holds `{call}`: `process.rs` has what waits with a bound"))
    });
}

#[test]
fn nothing_is_left_to_be_done() {
    let marks = ["TO", "FIX"].map(|start| format!("{start}{}", if start == "TO" { "DO" } else { "ME" }));
    let macros = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!("));
    assert_none(|_, text| {
        marks.iter().chain(&macros).find(|mark| text.contains(mark.as_str())).map(|mark| format!("holds `{mark}`"))
    });
}

#[test]
fn every_limit_says_its_unit_or_its_reason() {
    let text = fs::read_to_string(root().join("src/limits.rs")).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let mut limits = 0;
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("pub const ")) {
        let doc: Vec<_> = lines[..at].iter().rev().take_while(|above| above.starts_with("///")).copied().collect();
        assert!(doc.concat().len() > 30, "no reason above `{line}`");
        limits += 1;
    }
    assert!(limits > 10, "only {limits} limits were found");
}

#[test]
fn everything_is_formatted() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    let output = Command::new(cargo).args(["fmt", "--check"]).current_dir(root()).finish();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Scripts of ours: everything in `scripts`, and any other file that starts as a shell script does.
fn scripts() -> Vec<PathBuf> {
    const NOT_OURS: [&str; 4] = [".git", "data", "target", "warehouse"];
    let mut folders = vec![root().to_path_buf()];
    let mut scripts = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path().strip_prefix(root()).unwrap().to_path_buf();
            if entry.file_type().unwrap().is_dir() {
                folders.extend((!NOT_OURS.iter().any(|name| path == Path::new(name))).then(|| entry.path()));
                continue;
            }
            let bytes = fs::read(entry.path()).unwrap();
            let first = String::from_utf8_lossy(bytes.split(|b| *b == b'\n').next().unwrap_or_default());
            if path.starts_with("scripts") || (first.starts_with("#!") && first.trim_end().ends_with("sh")) {
                scripts.push(path);
            }
        }
    }
    scripts.sort();
    scripts
}

#[test]
fn scripts_have_no_faults_that_shellcheck_finds() {
    let program = root().join("target/venv/bin/shellcheck");
    assert!(program.exists(), "{} is missing: run scripts/test, which installs it", program.display());
    let scripts = scripts();
    assert!(scripts.len() >= 4, "{scripts:?}");
    let output = Command::new(program)
        .args(["--external-sources", "--enable=quote-safe-variables,check-unassigned-uppercase,deprecate-which"])
        .args(&scripts)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
