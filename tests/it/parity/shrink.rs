//! Fewer changes that still show what is wrong, and their text.

use std::time::{Duration, Instant};

use super::data::{Row, Steps, World, apply};
use super::harness::Case;

/// How long is shrunk at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a row comes or goes: step, relation, whether it comes.
type Place = (usize, usize, bool);

/// Fewer changes that fail too: rows are left out where they can be, many at a time and then one by one.
pub async fn shrunk(case: &Case, mut steps: Steps) -> Steps {
    let end = Instant::now() + PATIENCE;
    let mut size = places(&steps).len();
    while size > 0 && Instant::now() < end {
        let mut from = 0;
        let mut smaller = false;
        while from < places(&steps).len() && Instant::now() < end {
            let fewer = without(&steps, from, size);
            if is_possible(&fewer) && case.check(&fewer).await.is_err_and(|wrong| wrong.differs()) {
                steps = fewer;
                smaller = true;
            } else {
                from += size;
            }
        }
        size = if smaller && size == 1 { 1 } else { size / 2 };
    }
    // The first build stays, even of nothing.
    let mut later = steps.split_off(steps.len().min(1));
    later.retain(|changes| changes.iter().any(|change| !change.added.is_empty() || !change.removed.is_empty()));
    steps.append(&mut later);
    steps
}

/// Every row that comes or goes, last step first.
fn places(steps: &Steps) -> Vec<Place> {
    let mut places = Vec::new();
    for (step, changes) in steps.iter().enumerate().rev() {
        for (relation, change) in changes.iter().enumerate() {
            places.extend(change.removed.iter().map(|_| (step, relation, false)));
            places.extend(change.added.iter().map(|_| (step, relation, true)));
        }
    }
    places
}

/// The steps without `size` of their places.
fn without(steps: &Steps, from: usize, size: usize) -> Steps {
    let mut kept = steps.clone();
    for change in kept.iter_mut().flatten() {
        (change.added, change.removed) = (vec![], vec![]);
    }
    let mut next: std::collections::HashMap<Place, usize> = std::collections::HashMap::new();
    for (at, place) in places(steps).into_iter().enumerate() {
        let (step, relation, comes) = place;
        let row = next.entry(place).or_default();
        let (old, new) = (&steps[step][relation], &mut kept[step][relation]);
        if at < from || at >= from + size {
            let (old, new) = if comes { (&old.added, &mut new.added) } else { (&old.removed, &mut new.removed) };
            new.push(old[*row].clone());
        }
        *row += 1;
    }
    kept
}

/// Whether every row that goes is there.
fn is_possible(steps: &Steps) -> bool {
    let mut tables: Vec<Vec<Row>> = vec![vec![]; steps.first().map_or(0, Vec::len)];
    for changes in steps {
        for (table, change) in tables.iter_mut().zip(changes) {
            let mut left = table.clone();
            for gone in &change.removed {
                let Some(at) = left.iter().position(|row| row == gone) else { return false };
                left.swap_remove(at);
            }
            apply(table, change);
        }
    }
    true
}

pub fn describe(world: &World, steps: &Steps) -> String {
    let mut text = String::new();
    for (step, changes) in steps.iter().enumerate() {
        for (change, relation) in changes.iter().zip(world.relations) {
            let name = relation.name;
            text.extend(change.added.iter().map(|row| format!("\n  {step} {name} + {row:?}")));
            text.extend(change.removed.iter().map(|row| format!("\n  {step} {name} - {row:?}")));
        }
    }
    text
}
