//! The nearest name to a wrong one, as a user would have to write it. Knows only strings.

/// The candidate that `wrong` was probably meant to be, written so that SQL reads it: quoted where case or characters need it.
/// None where nothing is near.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let folded = wrong.to_lowercase();
    let allowed = (wrong.chars().count() / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let distance = if candidate.to_lowercase() == folded {
            0
        } else {
            strsim::damerau_levenshtein(&folded, &candidate.to_lowercase())
        };
        let better = best.is_none_or(|(d, name)| (distance, candidate) < (d, name));
        if distance <= allowed && candidate != wrong && better {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, name)| quoted(name))
}

/// `name` as SQL reads it: bare where that is enough, else quoted.
pub fn quoted(name: &str) -> String {
    let mut chars = name.chars();
    let bare = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if bare { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Adds "did you mean" to a fault where there is a near name.
pub fn with_nearest<'a>(
    fault: crate::spec::fault::Fault,
    wrong: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> crate::spec::fault::Fault {
    match nearest(wrong, candidates) {
        Some(name) => fault.hint(format!("did you mean `{name}`?")),
        None => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn case_is_quoted_and_typos_are_found() {
        assert_eq!(nearest("price", ["Price", "prise"]), Some("\"Price\"".into()));
        assert_eq!(nearest("order_statuss", ["order_id", "order_status"]), Some("order_status".into()));
        assert_eq!(nearest("order_stauts", ["order_status"]), Some("order_status".into()));
        assert_eq!(nearest("zebra", ["order_id"]), None);
        assert_eq!(nearest("x", ["a b"]), None);
    }
}
