//! Continuous work: every source is watched, and what comes is taken in, computed and committed within a step; models with a
//! schedule run by it. Delta tables follow the commits now and then; our own readers see each commit at once.
//!
//! Prints nothing: an [`Observer`] is told.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::clocks::Clocks;
use super::commit::{CommitChain, CommitRecord};
use super::due;
use super::durable::Durable;
use super::failing::Failing;
use super::lease::Lease;
use super::looks::Looks;
use super::project::OpenProject;
use super::publishing::Publisher;
use super::refresh::held::HeldStates;
use super::refresh::{self, Observer, Ongoing, RefreshOptions, Report};
use super::schedule;
use super::sinking::Sinking;
use super::sinks;
use tokio::sync::{Notify, watch};

use crate::connect::Position;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::plan::{PlannedModel, PlannedSource};
use crate::spec::types::{ConnectorSpec, Refresh as Schedule};
use crate::table::Warehouse;
use crate::table::garbage::MinAge;

/// The leases of all pipelines of a project.
pub struct Leases {
    warehouse: Warehouse,
    by_pipeline: BTreeMap<String, Lease>,
}

impl Leases {
    /// Takes all of them.
    ///
    /// # Errors
    /// Kind `Lease`: another process works on a pipeline; none is held then. External: the warehouse can't be written.
    pub async fn acquire(open: &OpenProject) -> Result<Self> {
        let mut leases = Self { warehouse: open.warehouse().await?, by_pipeline: BTreeMap::new() };
        for pipeline in &open.project.pipelines {
            let name = pipeline.name.value.clone();
            match Lease::acquire(&leases.warehouse, &name, open.project.lease_ttl, None).await {
                Ok(lease) => drop(leases.by_pipeline.insert(name, lease)),
                Err(error) => {
                    leases.release().await?;
                    return Err(match error.kind() {
                        ErrorKind::Lease => error.with("hint", "end that process, or start again once it has ended"),
                        _ => error,
                    });
                }
            }
        }
        Ok(leases)
    }

    /// Gives them back, for others to take at once.
    ///
    /// # Errors
    /// External: the warehouse can't be written.
    pub async fn release(self) -> Result<()> {
        for (_, lease) in self.by_pipeline {
            lease.release().await?;
        }
        Ok(())
    }
}

/// Works until `stop` resolves; then everything that was taken in is committed and published, and leases are released.
///
/// `committed` is called after each commit, for readers of the same process. A source or model that fails is tried again when
/// something changes, with a pause, and where what made it fail may have passed; the others go on.
///
/// # Errors
/// Kind `Lease`: another process works on a pipeline, or took it over. External: the warehouse can't be written.
pub async fn up(
    open: &OpenProject,
    leases: Leases,
    command: &str,
    observer: &dyn Observer,
    committed: &(dyn Fn() + Send + Sync),
    stop: impl Future<Output = ()>,
) -> Result<()> {
    for pipeline in leases.by_pipeline.keys() {
        sinks::forget_others(open, &leases.warehouse, pipeline).await?;
    }
    let durable = Durable::begin(open, &leases.warehouse, &leases.by_pipeline).await?;
    let mut work = Work {
        open,
        durable: &durable,
        command,
        observer,
        committed,
        leases,
        looks: Looks::default(),
        tried: BTreeMap::new(),
        told: BTreeMap::new(),
        lost: BTreeSet::new(),
        seen: BTreeMap::new(),
        failing: Failing::default(),
        clocks: Clocks::of(&open.plan),
        recovered: BTreeSet::new(),
        heads: BTreeMap::new(),
        missed: BTreeSet::new(),
        states: HeldStates::new(open.memory()),
        commits: None,
    };
    let worked = work.drained(stop).await;
    // Else who comes next makes sure of what is there.
    if worked.is_ok() && !work.is_fenced() {
        durable.end().await?;
    }
    work.leases.release().await?;
    worked
}

struct Work<'a> {
    open: &'a OpenProject,
    durable: &'a Durable,
    leases: Leases,
    command: &'a str,
    observer: &'a dyn Observer,
    committed: &'a (dyn Fn() + Send + Sync),
    looks: Looks,
    /// When each model that isn't continuous was last tried, microseconds since 1970 UTC.
    tried: BTreeMap<String, i64>,
    /// What went wrong with a relation, so that it is told once.
    told: BTreeMap<String, String>,
    /// Sources that answer, and can't be read, which their models' history tells.
    lost: BTreeSet<String>,
    /// What the last look at each source saw.
    seen: BTreeMap<String, String>,
    failing: Failing,
    clocks: Clocks,
    /// Relations that failed until the last step or look, and no longer do.
    recovered: BTreeSet<String>,
    /// The newest record of each pipeline, as far as it was looked for since the last step.
    heads: BTreeMap<String, Option<Arc<CommitRecord>>>,
    /// Sources of which the last step took rows in that some of their continuous models weren't worked on with.
    missed: BTreeSet<String>,
    states: HeldStates,
    /// Tells sinks and tables of commits; none at the end.
    commits: Option<watch::Sender<u64>>,
}

impl<'a> Work<'a> {
    /// Works until `stop` resolves, and then for as long as draining may take. What isn't committed by then is left for the
    /// next start, as it is where a process dies: tables are whole. Tables and sinks follow side by side.
    async fn drained(&mut self, stop: impl Future<Output = ()>) -> Result<()> {
        let (open, durable) = (self.open, self.durable);
        let (observer, warehouse) = (self.observer, self.leases.warehouse.clone());
        let timeout = open.project.pace.shutdown_timeout;
        let (asked, mut is_asked) = watch::channel(false);
        let time_is_up = async move {
            stop.await;
            asked.send_replace(true);
            tokio::time::sleep(timeout).await;
        };
        let sinking = Sinking::new(open, durable, warehouse.clone(), observer);
        let (is_committed, is_followed) = (AtomicBool::new(false), AtomicBool::new(false));
        let work = async {
            let halt = Notify::new();
            let (commits, seen) = watch::channel(0);
            self.commits = Some(commits);
            let stop = async {
                tokio::select! {
                    // A sender that is gone has asked, too.
                    _ = is_asked.wait_for(|asked| *asked) => {}
                    () = halt.notified() => {}
                }
            };
            let working = async {
                let worked = self.followed_by_tables(stop, seen.clone(), &is_committed).await;
                is_followed.store(true, Ordering::Relaxed);
                worked
            };
            let publishing = async {
                let published = sinking.follow(seen.clone()).await;
                if published.is_err() {
                    halt.notify_one();
                }
                published
            };
            let syncing = async {
                let synced = durable.follow(seen.clone()).await;
                if synced.is_err() {
                    halt.notify_one();
                }
                synced
            };
            let (worked, sunk, synced) = tokio::join!(working, publishing, syncing);
            worked.and(sunk).and(synced)
        };
        let (ended, in_time) = tokio::select! {
            biased;
            worked = work => (worked, true),
            () = time_is_up => (Ok(()), false),
        };
        let late = (!in_time).then_some(timeout);
        let left = told_left(late, is_committed.into_inner(), is_followed.into_inner(), sinking.told_behind());
        if let (Ok(()), Some(left)) = (&ended, left) {
            observer.warned(&left);
        }
        ended
    }

    /// Works until `stop` resolves; tables follow the commits that `seen` tells of, and are brought to the last one in the end.
    async fn followed_by_tables(
        &mut self,
        stop: impl Future<Output = ()>,
        seen: watch::Receiver<u64>,
        is_committed: &AtomicBool,
    ) -> Result<()> {
        let warehouse = self.leases.warehouse.clone();
        let mut tables = Publisher::new(self.open, self.durable, warehouse, self.observer);
        let working = async {
            let worked = self.until(stop).await;
            // Sinks and tables are brought to what was committed last, and end.
            self.commits = None;
            worked
        };
        let (worked, ()) = tokio::join!(working, tables.follow(seen));
        is_committed.store(worked.is_ok(), Ordering::Relaxed);
        // What was committed is brought to the tables whatever ended the work; a lost lease leaves that to who holds it.
        if !self.is_fenced() {
            self.states.give_up();
            tables.publish(MinAge::default()).await;
        }
        worked
    }

    async fn until(&mut self, stop: impl Future<Output = ()>) -> Result<()> {
        let mut stop = std::pin::pin!(stop);
        // First what `run --due` works on: definitions may have changed, and what failed is tried again.
        let all: BTreeSet<String> = self.open.plan.models.iter().map(|model| model.name.clone()).collect();
        let due::Asked { models, waiting } =
            due::asked(self.open, &self.leases.warehouse, &all, schedule::wall_clock_us()).await?;
        self.tried = waiting;
        let sources = self.open.plan.sources.iter().map(|source| source.spec.name.value.clone()).collect();
        self.changed(limits::LOOK_PATIENCE.0).await?;
        self.step(Due { models, sources, is_scheduled: true }).await?;
        loop {
            let begun = Instant::now();
            let due = self.due().await?;
            if !due.is_empty() {
                self.step(due).await?;
            }
            self.look_at_clocks().await?;
            let pause = self.open.project.pace.linger.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
            tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Looks at rules that time alone can break, as often as they need it.
    async fn look_at_clocks(&mut self) -> Result<()> {
        let relations = self.clocks.due();
        if relations.is_empty() {
            return Ok(());
        }
        let options = self.options(BTreeSet::new(), BTreeSet::new());
        let observer = Told { inner: self.observer, told: std::sync::Mutex::new(&mut self.told) };
        let ongoing = Ongoing { states: &self.states, failing: &mut self.failing, durable: self.durable };
        let (open, warehouse) = (self.open, &self.leases.warehouse);
        match refresh::look_at_clocks(open, warehouse, &relations, &options, &observer, ongoing).await {
            Err(error) if error.is_retryable() => self.tell("the warehouse", &error),
            looked => looked?,
        }
        Ok(())
    }

    fn options(&self, models: BTreeSet<String>, sources: BTreeSet<String>) -> RefreshOptions {
        RefreshOptions {
            models,
            sources,
            // What can't be read is tried, so that its models are skipped, as in a run.
            silent: self.looks.silent() - &self.lost,
            due: false,
            full_refresh: false,
            now_us: schedule::wall_clock_us(),
            wait: None,
            command: self.command.to_string(),
        }
    }

    /// One refresh, told of in the history where a schedule asked for it, or a model begins to fail or no longer does.
    async fn step(&mut self, Due { models, sources, is_scheduled }: Due) -> Result<()> {
        let options = self.options(models, sources);
        let bystanders = self.bystanders(&options.models).await?;
        let begun = Instant::now();
        let observer = Told { inner: self.observer, told: std::sync::Mutex::new(&mut self.told) };
        let (open, Leases { warehouse, by_pipeline: leases }) = (self.open, &self.leases);
        let before: Vec<String> = self.failing.models().cloned().collect();
        let ongoing = Ongoing { states: &self.states, failing: &mut self.failing, durable: self.durable };
        let report: Result<Report> = match is_scheduled {
            true => refresh::recorded(open, warehouse, &options, &observer, leases, Some(ongoing)).await,
            false => refresh::step(open, warehouse, &options, &observer, leases, ongoing).await,
        };
        self.heads.clear();
        for model in &options.models {
            self.tried.insert(model.clone(), options.now_us);
        }
        match report {
            Ok(report) => {
                self.failing.note_sources(&report.sources, &self.seen);
                self.missed.clear();
                self.recovered = before.into_iter().filter(|model| !self.failing.has(model)).collect();
                for (source, before) in bystanders {
                    let (name, now) = (&source.spec.name.value, self.head(&source.pipeline).await?);
                    let before = before.as_deref().and_then(|record| record.sources.get(name));
                    if now.and_then(|record| record.sources.get(name)) != before {
                        self.missed.insert(name.clone());
                    }
                }
                self.observer.stepped(begun.elapsed().as_secs_f64());
                (self.committed)();
                if let Some(commits) = &self.commits {
                    commits.send_modify(|n| *n += 1);
                }
                for outcome in report.models.iter().filter(|o| matches!(o.status.as_str(), "ok" | "nothing")) {
                    self.told.remove(&outcome.model);
                    for input in self.open.model(&outcome.model).iter().flat_map(|model| &model.inputs) {
                        self.told.remove(input);
                    }
                }
                Ok(())
            }
            // Another process works on the tables now.
            Err(error) if error.kind() == ErrorKind::Lease || self.is_fenced() => Err(error),
            Err(error) if error.is_retryable() => {
                self.tell("the warehouse", &error);
                tokio::time::sleep(limits::RETRY_PAUSE).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Sources that a step with `models` takes in though there are models, not among them, that read them continuously; with the newest
    /// records of their pipelines.
    async fn bystanders(
        &mut self,
        models: &BTreeSet<String>,
    ) -> Result<Vec<(&'a PlannedSource, Option<Arc<CommitRecord>>)>> {
        let open = self.open;
        let mut found = Vec::new();
        for source in &open.plan.sources {
            let name = &source.spec.name.value;
            let readers = open.plan.models.iter().filter(|model| reads(model, name));
            let (asked, others): (Vec<_>, Vec<_>) = readers.partition(|model| models.contains(&model.name));
            if !asked.is_empty() && others.into_iter().any(schedule::is_continuous) {
                self.head(&source.pipeline).await?;
                found.push((source, self.heads.get(&source.pipeline).cloned().flatten()));
            }
        }
        Ok(found)
    }

    /// The newest record of a pipeline; looked for once a step, since nobody else commits while the lease is held.
    async fn head(&mut self, pipeline: &str) -> Result<Option<&CommitRecord>> {
        if !self.heads.contains_key(pipeline) {
            let newest = CommitChain::open(&self.leases.warehouse, pipeline).latest().await?;
            self.heads.insert(pipeline.to_string(), newest);
        }
        Ok(self.heads.get(pipeline).and_then(Option::as_deref))
    }

    fn is_fenced(&self) -> bool {
        self.leases.by_pipeline.values().any(Lease::is_lost)
    }

    /// Sources whose rows changed, or that answer again, or can't be read from now on or any longer; those that don't answer within
    /// `patience` are told of when they do.
    async fn changed(&mut self, patience: Duration) -> Result<BTreeSet<String>> {
        let (open, mut begun) = (self.open, Vec::new());
        for source in &open.plan.sources {
            let name = &source.spec.name.value;
            let pause = match (&source.spec.connector, self.told.contains_key(name)) {
                (_, true) => limits::RETRY_PAUSE,
                (ConnectorSpec::Kafka(_), _) => Duration::ZERO,
                (ConnectorSpec::Files(_), _) => limits::FILES_LOOK,
            };
            if !self.looks.is_due(name, pause) {
                continue;
            }
            let position = match self.head(&source.pipeline).await? {
                Some(record) => Position::from_json(record.sources.get(name))?,
                None => Position::default(),
            };
            self.looks.begin(name, open.connector(name)?, position);
            begun.push(name.clone());
        }
        let mut changed = BTreeSet::new();
        for (name, look, was_silent) in self.looks.ended(&begun, patience).await {
            look.iter().for_each(|look| self.observer.looked(&name, look));
            match look {
                // What reads a source that was silent may have been left out of a step.
                Ok(look) => {
                    let is_back = self.lost.remove(&name);
                    if is_back {
                        self.recovered.insert(name.clone());
                    }
                    let is_stuck = self.failing.is_stuck(&name, &look.seen);
                    self.seen.insert(name.clone(), look.seen);
                    match look.changes.is_some() && !is_stuck || was_silent || is_back {
                        true => drop(changed.insert(name)),
                        false if is_stuck || self.failing.is_stale(&name) => {}
                        false => drop(self.told.remove(&name)),
                    }
                }
                Err(error) => {
                    self.tell(&name, &error);
                    // A step would wait once more for what may come back by itself.
                    if !error.is_retryable() && self.lost.insert(name.clone()) {
                        changed.insert(name);
                    }
                }
            }
        }
        Ok(changed)
    }

    /// What is to be worked on now.
    async fn due(&mut self) -> Result<Due> {
        let mut changed = self.changed(limits::LOOK_PATIENCE.1).await?;
        changed.extend(self.missed.iter().cloned());
        let is_read = |source: &String| self.open.plan.models.iter().any(|model| reads(model, source));
        // What no model reads is taken in for its own sake; the rest comes with its readers, when they are due.
        let sources = changed.iter().filter(|source| !is_read(source)).cloned().collect();
        let mut due = Due { sources, ..Due::default() };
        for model in &self.open.plan.models {
            let is_changed = |input: &String| changed.contains(input) || due.models.contains(input);
            // A rule's other side may break it, too.
            let is_checked_anew = |input: &String| {
                self.open.source(input).is_some_and(|source| source.check_inputs.iter().any(is_changed))
            };
            let mut inputs = model.inputs.iter().chain(&model.check_inputs);
            let reads_changed = inputs.any(|input| is_changed(input) || is_checked_anew(input));
            let is_tried = self.failing.is_worth_a_try(&model.name);
            if schedule::is_continuous(model) {
                if reads_changed || is_tried {
                    due.models.insert(model.name.clone());
                }
            } else if self.is_due(model)? || self.may_go_on(model) || is_tried {
                due.is_scheduled |= !matches!(model.refresh, Schedule::Auto);
                due.models.insert(model.name.clone());
            }
        }
        Ok(due)
    }

    /// Whether the schedule of a model that isn't continuous says so.
    fn is_due(&self, model: &PlannedModel) -> Result<bool> {
        let last = self.tried.get(&model.name).copied();
        schedule::is_due(&model.refresh, last, schedule::wall_clock_us(), &self.open.project.timezone.value)
    }

    /// Whether a model that failed or was skipped reads what failed, too, and no longer does: it doesn't wait for its schedule.
    fn may_go_on(&self, model: &PlannedModel) -> bool {
        self.failing.has(&model.name) && self.recovered.iter().any(|relation| reads(model, relation))
    }

    /// Tells of a failure, unless it is the same as the last of that relation.
    fn tell(&mut self, relation: &str, error: &Error) {
        if is_news(&mut self.told, relation, error) {
            self.observer.failed(relation, error);
        }
    }
}

/// What is to be said of an end that left something; none of one that didn't. `late`: draining took longer than that; `behind`: what
/// is to be said of sinks.
fn told_left(late: Option<Duration>, is_committed: bool, is_followed: bool, behind: Option<String>) -> Option<String> {
    if late.is_none() && behind.is_none() {
        return None;
    }
    let late = late.map(|timeout| format!("draining took longer than `shutdown_timeout` ({timeout:?}): "));
    let left = match (is_committed, is_followed) {
        (false, _) => "what isn't committed is left for the next start",
        (true, false) => "everything that was taken in is committed, and tables follow at the next start",
        (true, true) => "everything that was taken in is committed",
    };
    let behind = behind.map(|behind| format!("; {behind}"));
    Some(format!("{}{left}{}", late.unwrap_or_default(), behind.unwrap_or_default()))
}

/// Whether a model or a check of it reads a relation.
fn reads(model: &PlannedModel, relation: &str) -> bool {
    model.inputs.iter().chain(&model.check_inputs).any(|input| input == relation)
}

/// Whether a failure isn't the one that was told of the relation last; notes it.
fn is_news(told: &mut BTreeMap<String, String>, relation: &str, error: &Error) -> bool {
    let text = error.to_string();
    told.insert(relation.to_string(), text.clone()) != Some(text)
}

/// What to work on.
#[derive(Default)]
struct Due {
    models: BTreeSet<String>,
    /// Sources to take in whether a model reads them or not.
    sources: BTreeSet<String>,
    /// Whether a schedule asked for some of them.
    is_scheduled: bool,
}

impl Due {
    fn is_empty(&self) -> bool {
        self.models.is_empty() && self.sources.is_empty()
    }
}

/// Hands an observer on, failures only where they are new.
struct Told<'a> {
    inner: &'a dyn Observer,
    told: std::sync::Mutex<&'a mut BTreeMap<String, String>>,
}

impl Observer for Told<'_> {
    fn working(&self, what: &str) {
        self.inner.working(what);
    }

    fn finished(&self, outcome: &super::history::ModelOutcome) {
        self.inner.finished(outcome);
    }

    fn warned(&self, text: &str) {
        self.inner.warned(text);
    }

    fn failed(&self, relation: &str, error: &Error) {
        let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if is_news(&mut told, relation, error) {
            self.inner.failed(relation, error);
        }
    }

    fn committed(&self, pipeline: &str, seconds: f64) {
        self.inner.committed(pipeline, seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_tells_truly_what_it_left() {
        let late = Some(Duration::from_secs(25));
        let behind = || Some("the sink `kafka x` of `m` is behind".to_string());
        assert_eq!(told_left(None, true, true, None), None);
        let told =
            |late, is_committed, is_followed, behind| told_left(late, is_committed, is_followed, behind).unwrap();
        assert_eq!(
            told(None, true, true, behind()),
            "everything that was taken in is committed; the sink `kafka x` of `m` is behind"
        );
        let draining = "draining took longer than `shutdown_timeout` (25s): ";
        for (is_committed, is_followed, behind, left) in [
            (false, false, None, "what isn't committed is left for the next start"),
            (true, false, None, "everything that was taken in is committed, and tables follow at the next start"),
            (true, true, behind(), "everything that was taken in is committed; the sink `kafka x` of `m` is behind"),
        ] {
            assert_eq!(told(late, is_committed, is_followed, behind), format!("{draining}{left}"));
        }
    }
}
