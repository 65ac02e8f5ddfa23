//! Models that fail, from step to step of continuous work: what of them is news, and which are worth another try though nothing
//! that they read changed. Knows no work.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::history::ModelOutcome;
use crate::limits;

/// Models that failed or were skipped when they were last worked on.
#[derive(Default)]
pub(in crate::run) struct Failing {
    models: BTreeMap<String, Failure>,
}

struct Failure {
    reason: String,
    may_pass: bool,
    /// How often in a row it was this.
    times: u32,
    last: Instant,
}

impl Failing {
    /// Notes what models came to; whether one of them begins to fail, fails otherwise than before, or no longer does.
    pub(in crate::run) fn note(&mut self, outcomes: &[ModelOutcome]) -> bool {
        let mut is_news = false;
        for outcome in outcomes {
            if !outcome.has_failed() {
                is_news |= self.models.remove(&outcome.model).is_some();
                continue;
            }
            let before = self.models.get(&outcome.model).filter(|before| before.reason == outcome.reason);
            is_news |= before.is_none();
            let times = before.map_or(0, |before| before.times).saturating_add(1);
            let (reason, may_pass) = (outcome.reason.clone(), outcome.may_pass);
            self.models.insert(outcome.model.clone(), Failure { reason, may_pass, times, last: Instant::now() });
        }
        is_news
    }

    /// All of them.
    pub(in crate::run) fn models(&self) -> impl Iterator<Item = &String> {
        self.models.keys()
    }

    /// Whether a model is one of them.
    pub(in crate::run) fn has(&self, model: &str) -> bool {
        self.models.contains_key(model)
    }

    /// Whether what made a model fail may have passed by now: each try that fails doubles the time to the next.
    pub(in crate::run) fn is_worth_a_try(&self, model: &str) -> bool {
        self.models.get(model).is_some_and(|failure| failure.may_pass && failure.last.elapsed() >= pause(failure.times))
    }
}

fn pause(times: u32) -> Duration {
    let doubled = 2u32.saturating_pow(times.saturating_sub(1));
    limits::RETRY_PAUSE.saturating_mul(doubled).min(limits::RETRY_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: &str, reason: &str, may_pass: bool) -> Vec<ModelOutcome> {
        let (status, reason) = (status.to_string(), reason.to_string());
        vec![ModelOutcome { model: "m".into(), status, reason, may_pass, ..ModelOutcome::default() }]
    }

    #[test]
    fn a_failure_is_news_once_and_so_is_its_end() {
        let mut failing = Failing::default();
        for (status, reason, is_news) in [
            ("ok", "", false),
            ("failed", "full", true),
            ("failed", "full", false),
            ("skipped", "other", true),
            ("nothing", "", true),
            ("ok", "", false),
        ] {
            assert_eq!(failing.note(&outcome(status, reason, true)), is_news, "{status} {reason}");
        }
    }

    #[test]
    fn what_may_pass_is_tried_again_and_less_and_less_often() {
        let mut failing = Failing::default();
        failing.note(&outcome("failed", "full", true));
        assert!(failing.has("m") && !failing.is_worth_a_try("m"));
        let ago = Instant::now() - limits::RETRY_PAUSE;
        failing.models.get_mut("m").unwrap().last = ago;
        assert!(failing.is_worth_a_try("m"));
        failing.note(&outcome("failed", "full", true));
        failing.models.get_mut("m").unwrap().last = ago;
        assert!(!failing.is_worth_a_try("m"));
        failing.note(&outcome("failed", "a bad value", false));
        failing.models.get_mut("m").unwrap().last = ago;
        assert!(!failing.is_worth_a_try("m"));
        assert_eq!((pause(1), pause(3)), (limits::RETRY_PAUSE, limits::RETRY_PAUSE * 4));
        assert_eq!(pause(u32::MAX), limits::RETRY_PAUSE_MAX);
    }
}
