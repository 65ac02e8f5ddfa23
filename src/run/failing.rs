//! Models and sources that fail, from step to step of continuous work: what of them is news, and which are worth another try though nothing
//! that they read changed. Knows no work.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::history::ModelOutcome;
use crate::limits;

/// Models that failed or were skipped when they were last worked on.
#[derive(Default)]
pub(in crate::run) struct Failing {
    models: BTreeMap<String, Failure>,
    stale: BTreeSet<Clocked>,
    /// Sources; the reason is what was seen of them then.
    sources: BTreeMap<String, Failure>,
}

/// A rule that time alone can break: of which relation, and its name.
pub(in crate::run) type Clocked = (String, String);

/// How a source was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::run) enum TakenIn {
    /// All that there was.
    Done,
    /// It failed, of something that may pass by itself or not.
    Failed { may_pass: bool },
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

    /// Notes what rules came to that time alone can break; whether one of them begins to be broken, or no longer is.
    pub(in crate::run) fn note_clocks(&mut self, looked_at: &BTreeMap<Clocked, bool>) -> bool {
        let mut is_news = false;
        for (rule, is_broken) in looked_at {
            is_news |= match is_broken {
                true => self.stale.insert(rule.clone()),
                false => self.stale.remove(rule),
            };
        }
        is_news
    }

    /// Notes how sources were taken in: not, where what made it fail may pass or may not. `seen` is what was last seen of each.
    pub(in crate::run) fn note_sources(
        &mut self,
        sources: &BTreeMap<String, TakenIn>,
        seen: &BTreeMap<String, String>,
    ) {
        for (source, taken_in) in sources {
            let TakenIn::Failed { may_pass } = *taken_in else {
                self.sources.remove(source);
                continue;
            };
            let times = self.sources.get(source).map_or(0, |before| before.times).saturating_add(1);
            let reason = seen.get(source).cloned().unwrap_or_default();
            self.sources.insert(source.clone(), Failure { reason, may_pass, times, last: Instant::now() });
        }
    }

    /// Whether taking a source in failed and needn't be tried yet: what is `seen` of it now is what was seen then, and what made it
    /// fail passes by nothing else; or it failed just now, since a topic has something else each time.
    pub(in crate::run) fn is_stuck(&self, source: &str, seen: &str) -> bool {
        self.sources.get(source).is_some_and(|failure| {
            failure.last.elapsed() < pause(failure.times) || failure.reason == seen && !failure.may_pass
        })
    }

    /// Rules that time has broken, and that was told.
    pub(in crate::run) fn stale(&self) -> &BTreeSet<Clocked> {
        &self.stale
    }

    /// Whether a rule of that relation is one of them.
    pub(in crate::run) fn is_stale(&self, relation: &str) -> bool {
        self.stale.iter().any(|(of, _)| of == relation)
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
    fn a_source_that_failed_waits_for_something_else() {
        let mut failing = Failing::default();
        let note = |failing: &mut Failing, taken_in| {
            let seen = BTreeMap::from([("s".to_string(), "1.csv".to_string())]);
            failing.note_sources(&BTreeMap::from([("s".to_string(), taken_in)]), &seen);
        };
        let ago = |failing: &mut Failing| failing.sources.get_mut("s").unwrap().last -= limits::RETRY_PAUSE_MAX;
        note(&mut failing, TakenIn::Failed { may_pass: false });
        assert!(failing.is_stuck("s", "2.csv") && !failing.is_stuck("t", "1.csv"), "it failed just now");
        ago(&mut failing);
        assert!(failing.is_stuck("s", "1.csv") && !failing.is_stuck("s", "2.csv"));
        note(&mut failing, TakenIn::Failed { may_pass: true });
        assert!(failing.is_stuck("s", "1.csv"));
        ago(&mut failing);
        assert!(!failing.is_stuck("s", "1.csv"));
        note(&mut failing, TakenIn::Done);
        assert!(!failing.is_stuck("s", "1.csv"));
    }

    #[test]
    fn a_rule_that_time_broke_is_news_once_and_so_is_its_end() {
        let mut failing = Failing::default();
        for (is_broken, is_news) in [(false, false), (true, true), (true, false), (false, true), (false, false)] {
            let looked_at = BTreeMap::from([(("m".to_string(), "fresh".to_string()), is_broken)]);
            assert_eq!(failing.note_clocks(&looked_at), is_news, "{is_broken}");
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
