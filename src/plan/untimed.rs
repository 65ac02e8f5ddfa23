//! Why nothing says how far time is under a model. Reads what sources declare; knows no rows.

use crate::spec::types::SourceSpec;

/// What a model without a watermark reads.
pub(super) enum Untimed {
    /// No topic with an event time.
    NoTopic,
    /// An upsert relation of this name, and no topic with a watermark.
    Upsert(String),
}

impl Untimed {
    /// Of a model over these sources; none: one of them has a watermark.
    pub(super) fn over(sources: &[&SourceSpec]) -> Option<Self> {
        if sources.iter().any(|source| source.has_watermark()) {
            return None;
        }
        let upsert = sources.iter().find(|source| source.is_upsert());
        Some(upsert.map_or(Self::NoTopic, |source| Self::Upsert(source.name.value.clone())))
    }

    /// Why the model `name` has no watermark; a message goes on with what that means.
    pub(super) fn reason(&self, name: &str) -> String {
        match self {
            Self::NoTopic => format!("`{name}` reads no topic that has an `event_time`"),
            Self::Upsert(source) => format!(
                "`{name}` reads `{source}`, an upsert relation, which has no watermark since any row of it may change at any time"
            ),
        }
    }
}
