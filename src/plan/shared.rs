//! States that models of a pipeline have in common. Knows no rows.

use super::PlannedModel;

impl PlannedModel {
    /// Hashes of its states, where other models may be made of them as well: what this one lets go of, they would miss.
    pub fn shareable_states(&self) -> impl Iterator<Item = &String> {
        self.states.iter().filter(|_| self.retention.is_none())
    }
}

/// Says of each model which one before it in its pipeline is made of the same states.
pub(super) fn explain(models: &mut [PlannedModel]) {
    for at in 1..models.len() {
        let (before, rest) = models.split_at_mut(at);
        let Some(model) = rest.first_mut() else { continue };
        let mut said = Vec::new();
        for state in model.shareable_states() {
            let is_first = |other: &&PlannedModel| {
                other.pipeline == model.pipeline && other.shareable_states().any(|other| other == state)
            };
            let first = before.iter().find(is_first);
            said.extend(first.map(|first| format!("an aggregate's state: the one that {} has", first.name)));
        }
        model.strategy.operators.extend(said);
    }
}
