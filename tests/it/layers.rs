//! Edges between modules point down only, in the order of `src/lib.rs`.

use std::fs;
use std::path::Path;

use super::house::{root, rust_files};

/// Modules of `lib.rs`, top layer first.
fn layers() -> Vec<String> {
    let map = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    map.lines().filter_map(|line| Some(line.strip_prefix("pub mod ")?.split_once(';')?.0.to_string())).collect()
}

/// Layers that `text`, the module at `path` below the crate's root (`["plan", "select"]`), names.
fn named(text: &str, path: &[String], layers: &[String]) -> Vec<String> {
    let mut names = Vec::new();
    let code: String =
        text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code).to_string() + "\n").collect();
    for (at, _) in code.match_indices("crate::") {
        let is_whole_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        if is_whole_word {
            names.extend(heads(&code[at + "crate::".len()..]));
        }
    }
    // Enough `super::` reach the root, too.
    let to_root = "super::".repeat(path.len());
    for (at, _) in code.match_indices(&to_root) {
        names.extend(heads(&code[at + to_root.len()..]));
    }
    names.retain(|name| layers.contains(name));
    names.sort();
    names.dedup();
    names
}

/// First names of what follows `crate::`: one, or each of a group in braces.
fn heads(path: &str) -> Vec<String> {
    let name =
        |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut heads = vec![name(group)];
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(name(&group[at + 1..])),
            _ => {}
        }
    }
    heads
}

/// `src/plan/select.rs` is `plan::select`, `src/plan/mod.rs` is `plan`.
fn module_path(file: &Path) -> Vec<String> {
    let parts = file.with_extension("");
    let mut parts: Vec<_> = parts.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

#[test]
fn edges_point_down_only() {
    let layers = layers();
    let height = |name: &str| layers.iter().position(|layer| layer == name).unwrap();
    let mut upward = Vec::new();
    let mut edges = 0;
    for (file, text) in rust_files("src") {
        let path = module_path(&file);
        // The crate's root and the binary stand above all layers.
        let Some(from) = path.first().filter(|first| layers.contains(first)) else { continue };
        for to in named(&text, &path, &layers) {
            edges += usize::from(*from != to);
            if height(&to) < height(from) {
                upward.push(format!("{} uses {to}, which stands above {from}", file.display()));
            }
        }
    }
    assert!(upward.is_empty(), "{}", upward.join("\n"));
    assert!(edges > 20, "only {edges} edges were found: is the search still right?");
}

#[test]
fn every_layer_is_there_and_none_is_left_out() {
    let layers = layers();
    assert!(layers.len() >= 10, "{layers:?}");
    for (file, _) in rust_files("src") {
        let path = module_path(&file);
        let is_root = path == ["main"] || path == ["lib"];
        assert!(is_root || layers.contains(&path[0]), "{} belongs to no layer of src/lib.rs", file.display());
    }
}

#[test]
fn the_binary_only_calls_the_command_line() {
    let text = fs::read_to_string(root().join("src/main.rs")).unwrap();
    let uses: Vec<_> = text.match_indices("tidemill::").map(|(at, _)| text[at..].split('(').next().unwrap()).collect();
    assert_eq!(uses, ["tidemill::cli::run"]);
}

#[test]
fn specs_know_no_engine() {
    for (file, text) in rust_files("src/spec") {
        assert!(!text.contains("datafusion::"), "src/spec/{} names DataFusion", file.display());
    }
}

#[test]
fn the_search_finds_every_way_to_name_a_module() {
    let layers: Vec<String> = ["cli", "run", "plan", "spec"].map(String::from).into();
    let found = |text: &str| named(text, &["plan".to_string(), "select".to_string()], &layers).join(" ");
    assert_eq!(found("use crate::run::commit;"), "run");
    assert_eq!(found("let x = crate::cli::run();"), "cli");
    assert_eq!(found("use crate::{error, run::{a, spec}, spec};"), "run spec");
    assert_eq!(found("use crate::{\n    cli::output,\n    plan,\n};"), "cli plan");
    assert_eq!(found("use super::super::run;"), "run");
    assert_eq!(found("use super::run;"), "");
    assert_eq!(found("// crate::run\n/// [`crate::cli`]"), "");
    assert_eq!(found("use mycrate::run;"), "");
}
