//! YAML to a typed project, with the place of everything; faults; the JSON Schema. Pure: knows no DataFusion.

mod check;
pub mod fault;
mod fields;
mod keys;
mod load;
mod model;
mod overlay;
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
pub use load::{LoadOptions, find_project_root, load, load_with};
pub use schema::json_schema;

use fault::Fault;
use fields::Reader;
use types::Located;

/// The known name that `name` most likely meant, if any is close.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
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
        let length = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let millis = match rest[..length].trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
        rest = &rest[length..];
    }
    Some(total)
}

/// Whether a name stands unquoted in SQL and in paths: lower-case letters, digits and `_`, no digit first.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn check_zone(reader: &mut Reader<'_>, zone: &Located<String>) {
    if jiff::tz::TimeZone::get(&zone.value).is_err() {
        let message = format!("there is no time zone `{}`", zone.value);
        let mut fault = Fault::error("unknown_zone", zone.place.clone(), message);
        let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        fault = match nearest(&zone.value, names.iter().map(String::as_str)) {
            Some(near) => fault.hint(format!("did you mean `{near}`?")),
            None => fault.hint("IANA names, such as America/Sao_Paulo or UTC"),
        };
        reader.fault(fault);
    }
}
