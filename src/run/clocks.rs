//! When rules that time alone can break are looked at while nothing comes. Knows no rows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::limits;
use crate::plan::{CheckTest, Plan, PlannedCheck};

/// Relations that have such rules.
pub(super) struct Clocks {
    looks: BTreeMap<String, Look>,
}

struct Look {
    pause: Duration,
    last: Instant,
}

impl Clocks {
    /// Those of a project; none of them is to be looked at yet.
    pub(super) fn of(plan: &Plan) -> Self {
        let sources = plan.sources.iter().map(|source| (&source.spec.name.value, &source.checks));
        let relations = sources.chain(plan.models.iter().map(|model| (&model.name, &model.checks)));
        let looks = relations.filter_map(|(name, checks)| {
            let pause = checks.iter().filter_map(pause).min()?;
            Some((name.clone(), Look { pause, last: Instant::now() }))
        });
        Self { looks: looks.collect() }
    }

    /// Those that are to be looked at now.
    pub(super) fn due(&mut self) -> BTreeSet<String> {
        let due = self.looks.iter_mut().filter(|(_, look)| look.last.elapsed() >= look.pause);
        due.map(|(name, look)| {
            look.last = Instant::now();
            name.clone()
        })
        .collect()
    }
}

/// A rule that allows hours needn't be looked at each second.
fn pause(check: &PlannedCheck) -> Option<Duration> {
    let CheckTest::Freshness { within_us, .. } = check.test else { return None };
    let (shortest, longest) = limits::CLOCK_LOOKS;
    Some((Duration::from_micros(within_us.unsigned_abs()) / 4).clamp(shortest, longest))
}
