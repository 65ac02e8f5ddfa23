//! The type of objects and lists of JSON by what they hold: structs and lists where all are of one shape, else `json`.

use super::column::{Guess, Kind, fits, guess};
use crate::error::Result;
use crate::limits;
use crate::plan::json_text::{Members, items, text};
use crate::spec::sql_type::SqlType;

/// The type of a column of objects or of lists, or of what stands inside of such.
///
/// # Errors
/// None but bugs of ours.
pub(super) fn guess_nested(cells: &[Option<&str>]) -> Result<Guess> {
    let data_type = find(cells, 0)?;
    let json = || Guess::of(SqlType::Json, Some("of no one shape: `->>` reaches into it".to_string()));
    Ok(match data_type {
        Some(found) if fits(cells, &found, None, '.')? => Guess::of(found, None),
        _ => json(),
    })
}

fn find(cells: &[Option<&str>], depth: usize) -> Result<Option<SqlType>> {
    let mut values = cells.iter().flatten();
    if depth > limits::TYPE_DEPTH {
        return Ok(None);
    }
    Ok(match values.next().and_then(|value| value.as_bytes().first()) {
        Some(b'[') => {
            let lists: Option<Vec<Vec<&str>>> = cells.iter().flatten().map(|cell| items(cell).ok()).collect();
            let Some(values) = lists.map(|lists| lists.concat()) else { return Ok(None) };
            inside(&values, depth)?.map(|item| SqlType::List(Box::new(item)))
        }
        Some(b'{') => {
            let objects: Option<Vec<Members<'_>>> =
                cells.iter().flatten().map(|cell| Members::parse(cell).ok()).collect();
            match objects {
                Some(objects) => structure(&objects, depth)?.map(SqlType::Struct),
                None => None,
            }
        }
        _ => None,
    })
}

fn structure(objects: &[Members<'_>], depth: usize) -> Result<Option<Vec<(String, SqlType)>>> {
    let mut names: Vec<&str> = Vec::new();
    for name in objects.iter().flat_map(|object| object.iter().map(|(name, _)| name)) {
        if !names.contains(&name) {
            names.push(name);
        }
        // Members by which something is looked up are data.
        if names.len() > limits::SAMPLE_FIELDS || name.trim().is_empty() {
            return Ok(None);
        }
    }
    let mut fields = Vec::with_capacity(names.len());
    for name in names {
        let values: Vec<&str> = objects.iter().filter_map(|object| object.get(name)).collect();
        // Of a member that is always null nothing is known.
        let known = values.iter().any(|value| *value != "null");
        let Some(of) = (if known { inside(&values, depth)? } else { Some(SqlType::Json) }) else { return Ok(None) };
        fields.push((name.to_string(), of));
    }
    Ok(Some(fields).filter(|fields| !fields.is_empty()))
}

/// The type of values that stand in one place of an object or list.
fn inside(values: &[&str], depth: usize) -> Result<Option<SqlType>> {
    let known: Vec<&str> = values.iter().copied().filter(|value| *value != "null").collect();
    let kind_of = |value: &&str| match value.as_bytes().first() {
        Some(b'"') => Kind::String,
        Some(b't' | b'f') => Kind::Boolean,
        Some(b'{' | b'[') => Kind::Nested,
        _ => Kind::Number,
    };
    let Some(kind) = known.first().map(kind_of) else { return Ok(None) };
    if known.iter().any(|value| kind_of(value) != kind) {
        return Ok(Some(SqlType::Json));
    }
    if kind == Kind::Nested {
        let cells: Vec<Option<&str>> = known.iter().copied().map(Some).collect();
        return Ok(Some(find(&cells, depth + 1)?.unwrap_or(SqlType::Json)));
    }
    let texts: Vec<_> = known.iter().map(|value| text(value).ok().flatten()).collect();
    let cells: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
    let found = guess(&cells, kind, '.')?;
    // One format can't be given to a part of a column.
    let is_plain = found.timestamp_format.is_none() && found.unclear.is_none() && found.data_type != SqlType::Time;
    Ok(Some(if is_plain { found.data_type } else { SqlType::Text }))
}
