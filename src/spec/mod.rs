//! YAML to a typed project, with the place of everything; faults; the JSON Schema. Pure: knows no DataFusion.

mod check;
pub mod fault;
mod fields;
mod files;
mod kafka;
mod keys;
mod load;
#[cfg(test)]
mod load_tests;
mod model;
mod names;
mod nested_type;
mod overlay;
mod project;
mod publish;
pub mod render;
mod schema;
mod source;
pub mod sql_text;
pub mod sql_type;
mod test_file;
mod traps;
mod tree;
pub mod types;
mod variables;
mod yaml_syntax;

use std::time::Duration;

pub use fault::sort as sort_faults;
pub use files::{Disk, ProjectFiles, find_project_root};
pub use load::{LoadOptions, load, load_from, load_with};
pub use project::is_address;
pub use schema::json_schema;
pub use source::{HIDDEN_COLUMNS, SINK_COLUMNS};

use fault::Fault;
use fields::Reader;
use types::Located;
use variables::shown;

/// The known name that `name` most likely meant, if any is close: fewest letters changed, case aside.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let changes_max = (lower.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .filter(|candidate| *candidate != name)
        .map(|candidate| {
            let known = candidate.to_lowercase();
            let is_begun = lower.len() >= 3 && known.starts_with(&lower);
            let changes = strsim::damerau_levenshtein(&lower, &known);
            (if is_begun { changes.min(1) } else { changes }, candidate)
        })
        .filter(|(changes, _)| *changes <= changes_max)
        .min_by_key(|(changes, _)| *changes)
        .map(|(_, candidate)| candidate)
}

/// `500ms`, `2s`, `1m`, `1h`, `1d`, and sums such as `1h30m`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let length = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
        let millis = match &rest[..length] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
        rest = rest[length..].trim_start();
    }
    Some(total)
}

/// Whether a name stands unquoted in SQL and in paths: lower-case letters, digits and `_`, no digit first.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Adds the nearest name as hint, if there is one and no better hint.
fn did_you_mean(fault: Fault, near: Option<&str>) -> Fault {
    match near {
        Some(near) if fault.hint.is_none() => fault.hint(format!("did you mean `{near}`?")),
        _ => fault,
    }
}

/// Checks an IANA name, case included: Arrow, which does the arithmetic, knows zones by their exact names.
fn check_zone(reader: &mut Reader<'_>, zone: &Located<String>) {
    if zone.value.parse::<chrono_tz::Tz>().is_ok() {
        return;
    }
    let message = format!("there is no time zone `{}`", shown(&zone.value, &zone.place));
    let near = nearest(&zone.value, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()));
    let fault = did_you_mean(Fault::error("unknown_zone", zone.place.clone(), message), near);
    let hint = fault.hint.clone().unwrap_or_else(|| "IANA names, such as America/Sao_Paulo or UTC".to_string());
    reader.fault(fault.hint(hint));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in
            [("500ms", 500), ("2s", 2_000), ("1m", 60_000), ("1h30m", 5_400_000), ("1d 1ms", 86_400_001), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "2", "s", "2 s", "-1s", "1.5h", "1w", "2S", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn nearest_names() {
        assert_eq!(nearest("Price", ["prize", "price"]), Some("price"));
        assert_eq!(nearest("colums", ["columns", "checks"]), Some("columns"));
        assert_eq!(nearest("frobnicate", ["format", "header"]), None);
        assert_eq!(nearest("kee", ["key", "tags"]), Some("key"));
        assert_eq!(nearest("snap", ["append", "snapshot"]), Some("snapshot"));
        assert_eq!(nearest("x", ["yz"]), None);
    }

    #[test]
    fn names() {
        assert!(is_name("orders_2") && is_name("_x"));
        assert!(!is_name("") && !is_name("2x") && !is_name("Orders") && !is_name("a-b") && !is_name("ção"));
    }
}
