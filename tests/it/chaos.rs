//! What goes wrong around a run: stores that fail or lie, writers that were paused, two at once, files damaged by hand.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path as StorePath;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use serde_json::{Value, json};
use tidemill::error::{Error, Result};
use tidemill::run::commit::CommitChain;
use tidemill::run::history::ModelOutcome;
use tidemill::run::project::{OpenProject, Opening};
use tidemill::run::refresh::{Observer, RefreshOptions, Report, refresh_in};
use tidemill::spec;
use tidemill::table::Warehouse;

use crate::held::Held;
use crate::kill::{PIPELINE, contents, orphans, undisturbed, write_day};
use crate::process::{Bounded, PATIENCE};
use crate::python;
use crate::scratch::{Scratch, TIDEMILL_YAML};

/// The project of the kill tests, whose leases run out soon.
fn shop() -> Scratch {
    let shop = Scratch::new(PIPELINE);
    shop.write("tidemill.yaml", format!("{TIDEMILL_YAML}lease_ttl: 2s\n"));
    shop
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(std::result::Result::unwrap) {
        let there = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &there);
        } else {
            fs::copy(entry.path(), there).unwrap();
        }
    }
}

/// How a store treats some of its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The call fails and does nothing.
    Before,
    /// The call does what it should and reports a time-out.
    After,
    /// A put reports a time-out, and comes to the store when its writer has given up.
    Late,
}

/// A store whose calls fail from the `at`-th on, `times` of them. Only calls on paths with `on` in them count.
#[derive(Debug)]
struct Faulty {
    inner: Arc<dyn ObjectStore>,
    fault: Fault,
    on: &'static str,
    at: u64,
    times: u64,
    calls: AtomicU64,
    /// Whether calls count only from the first put on.
    past_put: bool,
    has_put: AtomicBool,
    late: Mutex<Vec<(StorePath, PutPayload, PutOptions)>>,
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("faulty")
    }
}

fn timed_out() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "the answer timed out".into() }
}

impl Faulty {
    fn new(inner: Arc<dyn ObjectStore>, fault: Fault, on: &'static str, at: u64, times: u64) -> Self {
        let (calls, has_put) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { inner, fault, on, at, times, calls, past_put: false, has_put, late: Mutex::default() }
    }

    /// Counts calls only from the first put on: others may look for what isn't there yet.
    fn past_put(self) -> Self {
        Self { past_put: true, ..self }
    }

    fn is_struck(&self, path: &str) -> bool {
        path.contains(self.on) && (!self.past_put || self.has_put.load(Ordering::SeqCst)) && {
            let call = self.calls.fetch_add(1, Ordering::SeqCst);
            (self.at..self.at.saturating_add(self.times)).contains(&call)
        }
    }

    async fn call<T>(&self, path: &StorePath, work: impl Future<Output = StoreResult<T>> + Send) -> StoreResult<T> {
        match (self.is_struck(path.as_ref()), self.fault) {
            (false, _) => work.await,
            (true, Fault::Before | Fault::Late) => Err(timed_out()),
            (true, Fault::After) => {
                work.await?;
                Err(timed_out())
            }
        }
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, to: &StorePath, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        if to.as_ref().contains(self.on) {
            self.has_put.store(true, Ordering::SeqCst);
        }
        if self.fault == Fault::Late {
            if !self.is_struck(to.as_ref()) {
                return self.inner.put_opts(to, payload, options).await;
            }
            self.late.lock().unwrap().push((to.clone(), payload, options));
            return Err(timed_out());
        }
        self.call(to, self.inner.put_opts(to, payload, options)).await
    }
    async fn put_multipart_opts(
        &self,
        to: &StorePath,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.call(to, self.inner.put_multipart_opts(to, options)).await
    }
    async fn get_opts(&self, from: &StorePath, options: GetOptions) -> StoreResult<GetResult> {
        self.call(from, self.inner.get_opts(from, options)).await
    }
    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<StorePath>>,
    ) -> BoxStream<'static, StoreResult<StorePath>> {
        match (self.is_struck("delete"), self.fault) {
            (false, _) => self.inner.delete_stream(paths),
            (true, Fault::Before | Fault::Late) => futures::stream::once(async { Err(timed_out()) }).boxed(),
            (true, Fault::After) => self.inner.delete_stream(paths).map(|gone| gone.and(Err(timed_out()))).boxed(),
        }
    }
    fn list(&self, prefix: Option<&StorePath>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        match self.is_struck(prefix.map_or("", |prefix| prefix.as_ref())) {
            false => self.inner.list(prefix),
            true => futures::stream::once(async { Err(timed_out()) }).boxed(),
        }
    }
    async fn list_with_delimiter(&self, prefix: Option<&StorePath>) -> StoreResult<ListResult> {
        match self.is_struck(prefix.map_or("", |prefix| prefix.as_ref())) {
            false => self.inner.list_with_delimiter(prefix).await,
            true => Err(timed_out()),
        }
    }
    async fn copy_opts(&self, from: &StorePath, to: &StorePath, options: CopyOptions) -> StoreResult<()> {
        self.call(to, self.inner.copy_opts(from, to, options)).await
    }
}

struct Silent;

impl Observer for Silent {
    fn working(&self, _: &str) {}
    fn finished(&self, _: &ModelOutcome) {}
    fn warned(&self, _: &str) {}
    fn failed(&self, _: &str, _: &Error) {}
}

/// Runs everything in this process over a store made of the project's own; what came of it.
fn run_in_store(
    shop: &Scratch,
    full_refresh: bool,
    store: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> + Send + 'static,
) -> Result<Report> {
    let root = shop.root().to_path_buf();
    let (project, faults) = spec::load(&spec::LoadOptions { root, overlays: vec![], params: vec![] });
    let work = async move || {
        let open = OpenProject::open(project.unwrap(), faults, Opening::ToWork).await?;
        let mut warehouse: Warehouse = open.warehouse().await?;
        warehouse.store = store(warehouse.store);
        let options = RefreshOptions {
            models: open.plan.models.iter().map(|model| model.name.clone()).collect(),
            sources: BTreeSet::new(),
            silent: BTreeSet::new(),
            due: false,
            full_refresh,
            now_us: 1_577_836_800_000_000,
            wait: Some(Duration::from_secs(10)),
            command: "run".into(),
        };
        refresh_in(&open, warehouse, &options, &Silent).await
    };
    let run = move || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().thread_stack_size(16 << 20).build().unwrap();
        runtime.block_on(work())
    };
    // On a thread with the stack that planning needs.
    let thread = std::thread::Builder::new().stack_size(16 << 20);
    std::thread::scope(|scope| thread.spawn_scoped(scope, run).unwrap().join().unwrap())
}

#[test]
fn a_record_whose_put_times_out_though_it_succeeded_is_gone_on_from_by_the_same_run() {
    let shop = shop();
    write_day(&shop, 0);
    shop.exits(0, &["run"]);
    write_day(&shop, 1);
    let deaf = |inner| -> Arc<dyn ObjectStore> {
        let on = "commits/00000000000000000002.json";
        Arc::new(Faulty::new(inner, Fault::After, on, 0, 1).past_put())
    };
    let report = run_in_store(&shop, false, deaf).unwrap();
    assert_eq!(report.exit_code, 0);
    assert!(report.models.iter().all(|model| model.status == "ok"), "{:?}", report.models);
    assert_eq!(contents(&shop), undisturbed(2));
    assert_eq!(orphans(&shop), [""; 0]);
    // Nobody can tell either when the answer to the second look is lost too: the next run goes on.
    write_day(&shop, 2);
    let mute = |inner| -> Arc<dyn ObjectStore> {
        let on = "commits/00000000000000000003.json";
        Arc::new(Faulty::new(inner, Fault::After, on, 0, u64::MAX).past_put())
    };
    assert_eq!(run_in_store(&shop, false, mute).map(|report| report.exit_code).unwrap_err().exit_code(), 3);
    assert_eq!(contents(&shop), undisturbed(3), "it is committed all the same");
    shop.exits(0, &["run", "--wait"]);
    assert_eq!(contents(&shop), undisturbed(3));
    shop.exits(0, &["verify"]);
}

#[test]
fn a_record_that_lands_when_its_writer_has_given_up_counts_only_where_none_else_does() {
    for other_first in [false, true] {
        let shop = shop();
        write_day(&shop, 0);
        shop.exits(0, &["run"]);
        write_day(&shop, 1);
        let kept: Arc<Mutex<Option<Arc<Faulty>>>> = Arc::default();
        let store = Arc::clone(&kept);
        let wrap = move |inner| -> Arc<dyn ObjectStore> {
            let late = Arc::new(Faulty::new(inner, Fault::Late, "commits/00000000000000000002.json", 0, 1).past_put());
            *store.lock().unwrap() = Some(Arc::clone(&late));
            late
        };
        assert_eq!(run_in_store(&shop, false, wrap).map(|report| report.exit_code).unwrap_err().exit_code(), 3);
        assert_eq!(contents(&shop), undisturbed(1));
        if other_first {
            write_day(&shop, 2);
            shop.exits(0, &["run", "--wait"]);
        }
        let store = kept.lock().unwrap().take().unwrap();
        let (to, payload, options) = store.late.lock().unwrap().pop().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let landed = runtime.block_on(store.inner.put_opts(&to, payload, options));
        assert_eq!(landed.is_ok(), !other_first, "{landed:?}");
        let days = if other_first { 3 } else { 2 };
        assert_eq!(contents(&shop), undisturbed(days));
        shop.exits(0, &["run", "--wait"]);
        assert_eq!(contents(&shop), undisturbed(days));
        shop.exits(0, &["verify"]);
        write_day(&shop, 3);
        if !other_first {
            write_day(&shop, 2);
        }
        shop.exits(0, &["run"]);
        assert_eq!(contents(&shop), undisturbed(4));
        assert_eq!(orphans(&shop), [""; 0]);
    }
}

/// The quarantine is the last that a model enters: what was entered before must not be published without its files.
#[test]
fn a_model_that_fails_at_its_end_leaves_no_trace_in_the_commit() {
    let shop = shop();
    write_day(&shop, 0);
    shop.exits(0, &["run"]);
    let before = shop.rows("select * from kept order by id");
    write_day(&shop, 1);
    let broken = |inner| -> Arc<dyn ObjectStore> {
        Arc::new(Faulty::new(inner, Fault::Before, "/kept_quarantine/c00000001", 0, u64::MAX))
    };
    let report = run_in_store(&shop, true, broken).unwrap();
    let statuses: Vec<&str> = report.models.iter().map(|model| model.status.as_str()).collect();
    assert_eq!((report.exit_code, statuses), (3, vec!["failed", "skipped", "skipped"]), "{:?}", report.models);
    let commits = fs::read_dir(shop.path("warehouse/_tidemill/sales/commits")).unwrap().count();
    assert_eq!(commits, 2, "the source's own quarantine is published");
    assert_eq!(shop.rows("select * from kept order by id"), before);
    shop.exits(0, &["verify"]);
    shop.exits(0, &["run"]);
    assert_eq!(contents(&shop), undisturbed(2));
    shop.exits(0, &["verify"]);
}

#[test]
fn a_store_that_fails_at_any_one_call_leaves_one_commit_or_the_other() {
    let template = shop();
    write_day(&template, 0);
    template.exits(0, &["run"]);
    let begun = || {
        let shop = shop();
        copy_tree(&template.path("warehouse"), &shop.path("warehouse"));
        copy_tree(&template.path("data"), &shop.path("data"));
        write_day(&shop, 1);
        shop
    };
    let counting = begun();
    let faulty = |inner, fault, at| Faulty::new(inner, fault, "", at, 1);
    let total = {
        let store: Arc<Mutex<Option<Arc<Faulty>>>> = Arc::default();
        let kept = Arc::clone(&store);
        let wrap = move |inner| -> Arc<dyn ObjectStore> {
            let counting = Arc::new(faulty(inner, Fault::Before, u64::MAX));
            *kept.lock().unwrap() = Some(Arc::clone(&counting));
            counting
        };
        assert_eq!(run_in_store(&counting, false, wrap).unwrap().exit_code, 0);
        let store = store.lock().unwrap().take().unwrap();
        store.calls.load(Ordering::SeqCst)
    };
    let (one, two, three) = (undisturbed(1), undisturbed(2), undisturbed(3));
    assert_eq!(contents(&counting), two);
    // All of them by `CHAOS_CALLS=0`; else some, others each time.
    let wanted: u64 = std::env::var("CHAOS_CALLS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let stride = total.checked_div(wanted).unwrap_or(1).max(1);
    let first = u64::from(std::process::id()) % stride;
    println!("{total} calls, every {stride}-th from {first} on");
    let mut failed = 0;
    for at in (first..total).step_by(usize::try_from(stride).unwrap()) {
        for fault in [Fault::Before, Fault::After] {
            let what = format!("{fault:?} call {at} of {total}");
            let shop = begun();
            let result = run_in_store(&shop, false, move |inner| Arc::new(faulty(inner, fault, at)));
            let is_done = matches!(&result, Ok(report) if report.exit_code == 0);
            failed += u32::from(!is_done);
            let seen = contents(&shop);
            let is_partial = |seen: &str| seen != one && seen != two;
            if let Ok(report) = &result
                && !is_done
            {
                // A model alone may have failed, and what hangs on it: then others have gone on.
                assert!(report.models.iter().any(|model| model.status == "failed") || !is_partial(&seen), "{what}");
            } else {
                assert!(!is_partial(&seen), "{what}: {:?}: a mix:\n{seen}", result.err());
                assert!(!is_done || seen == two, "{what}: done, but not there");
            }
            shop.exits(0, &["verify"]);
            shop.exits(0, &["run", "--wait"]);
            assert_eq!(contents(&shop), two, "{what}");
            write_day(&shop, 2);
            shop.exits(0, &["run"]);
            assert_eq!(contents(&shop), three, "{what}");
            shop.exits(0, &["verify"]);
            assert_eq!(orphans(&shop), [""; 0], "{what}");
        }
    }
    assert!(failed > 0, "no fault was felt, so that this test shows nothing");
}

#[test]
fn a_writer_paused_past_its_lease_publishes_nothing_and_takes_nothing_away() {
    let (three, four) = (undisturbed(3), undisturbed(4));
    for (place, code) in [
        ("mid_file", 75),
        ("mid_table", 75),
        ("mid_state", 75),
        ("mid_compact", 75),
        ("after_stage", 75),
        ("before_record", 75),
        ("after_record", 0),
        ("before_delta", 0),
        ("before_delta:2", 0),
        ("after_delta", 0),
        ("mid_clean", 0),
        ("mid_clean:3", 0),
    ] {
        let shop = shop();
        write_day(&shop, 0);
        shop.exits(0, &["run"]);
        write_day(&shop, 1);
        let held = Held::of(&shop, &["run"], place);
        held.stop();
        write_day(&shop, 2);
        shop.exits(0, &["run", "--wait"]);
        assert_eq!(contents(&shop), three, "{place}: the other one isn't held up");
        let seen = held.go_on(&shop);
        assert_eq!(seen.code, code, "{place}: {}{}", seen.out, seen.err);
        assert_eq!(contents(&shop), three, "{place}: after the paused one went on");
        shop.exits(0, &["verify"]);
        // Followed once each, however many followers there were.
        let log = fs::read_dir(shop.path("warehouse/kept/_delta_log")).unwrap();
        let versions =
            log.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|e| e == "json")).count();
        assert_eq!(versions, if code == 75 { 2 } else { 3 }, "{place}");
        write_day(&shop, 3);
        let next = shop.exits(0, &["run", "--format", "json"]);
        assert!(
            next.json().iter().all(|model| !model["reason"].as_str().unwrap().contains("gone")),
            "{place}: {}",
            next.out
        );
        assert_eq!(contents(&shop), four, "{place}");
        assert_eq!(orphans(&shop), [""; 0], "{place}");
        shop.exits(0, &["verify"]);
    }
}

/// A paused writer's cleaning meets another's files that no record names yet.
#[test]
fn a_writer_that_cleans_late_leaves_what_another_has_staged() {
    let shop = shop();
    write_day(&shop, 0);
    shop.exits(0, &["run"]);
    write_day(&shop, 1);
    let late = Held::of(&shop, &["run"], "mid_clean");
    late.stop();
    write_day(&shop, 2);
    late.make_room(&shop);
    // Its lease has to run out before the other is let in: asked for until then.
    let begun = Instant::now();
    while shop.tidemill(&["run", "--due"]).code == 75 {
        assert!(begun.elapsed() < PATIENCE, "the lease never runs out");
    }
    write_day(&shop, 3);
    let staged = Held::of(&shop, &["run"], "after_stage");
    let first = late.go_on(&shop);
    assert_eq!(first.code, 0, "{}", first.err);
    let second = staged.go_on(&shop);
    assert_eq!(second.code, 0, "{}", second.err);
    assert_eq!(contents(&shop), undisturbed(4));
    shop.exits(0, &["verify"]);
}

#[test]
fn of_two_runs_at_once_one_works_and_the_other_waits_or_says_so() {
    let shop = shop();
    for day in 0..4 {
        write_day(&shop, day);
        let args: &[&str] = if day % 2 == 0 { &["run", "--wait"] } else { &["run"] };
        let start = || shop.command(args).stdout(Stdio::null()).stderr(Stdio::null()).start();
        let mut codes: Vec<i32> = [start(), start(), start()].map(|mut run| run.wait().code().unwrap()).to_vec();
        codes.sort_unstable();
        assert!(codes[0] == 0 && codes.iter().all(|code| *code == 0 || day % 2 == 1 && *code == 75), "{codes:?}");
        assert_eq!(contents(&shop), undisturbed(day + 1), "day {day}");
    }
    shop.exits(0, &["verify"]);
    assert_eq!(orphans(&shop), [""; 0]);
}

/// What another engine that reads all the time sees of a table, one line a reading.
const POLL: &str = "
import json, os, sys, time
from deltalake import DeltaTable
last = None
while not os.path.exists('stop'):
    seen = {}
    for table in ('kept', 'cities'):
        rows = DeltaTable('warehouse/' + table).to_pyarrow_table().to_pylist()
        amount = sum(row['amount' if table == 'kept' else 'revenue'] for row in rows)
        seen[table] = [len(rows), str(amount)]
    if seen != last:
        print(json.dumps(seen), flush=True)
        last = seen
print('end', flush=True)
";

#[test]
fn a_reader_of_another_engine_sees_committed_states_only() {
    let shop = shop();
    let committed = |table: &str| -> Value {
        let amount = if table == "kept" { "amount" } else { "revenue" };
        let row = shop.rows(&format!("select count(*), sum({amount}) from {table}"));
        let (rows, amount) = row.trim().split_once(',').unwrap();
        json!([rows.parse::<u64>().unwrap(), amount])
    };
    (0..4).for_each(|day| write_day(&shop, day));
    shop.exits(0, &["run"]);
    let mut python = python::code(POLL).current_dir(shop.root()).stdout(Stdio::piped()).start();
    let mut lines = python.lines();
    let first = lines.next().unwrap();
    let mut states = vec![json!({ "kept": committed("kept"), "cities": committed("cities") })];
    assert_eq!(serde_json::from_str::<Value>(&first).unwrap(), states[0]);
    for run in 0..10 {
        match run % 3 {
            0 => write_day(&shop, 4 + run),
            1 => shop.write("data/01.csv", format!("id,city,amount\n100,Natal,{run}.00\n107,city 3,9.00\n")),
            _ => shop.remove(&format!("data/{:02}.csv", 2 + run)),
        }
        shop.exits(0, &["run"]);
        states.push(json!({ "kept": committed("kept"), "cities": committed("cities") }));
    }
    shop.write("stop", "");
    let seen: Vec<Value> =
        lines.take_while(|line| line != "end").map(|line| serde_json::from_str(&line).unwrap()).collect();
    assert!(python.wait().success());
    for table in ["kept", "cities"] {
        let mut at = 0;
        for reading in &seen {
            let found = states[at..].iter().position(|state| state[table] == reading[table]);
            at += found.unwrap_or_else(|| panic!("{table}: {reading} was never committed after {at}: {states:?}"));
        }
    }
    assert!(seen.len() > 4, "the reader saw too little to show anything: {seen:?}");
}

/// A pipeline whose `regions` may lag behind its source, which another one takes in.
const LAGGING: &str = "
pipeline: reports
models:
  regions:
    sql: select city, count(*) as orders, sum(amount) as revenue from orders group by city
    key: [city]
";

const REGIONS: &str = "select * from regions order by city";

fn lagging() -> Scratch {
    let shop = shop();
    shop.write("pipelines/reports.yaml", LAGGING);
    (0..6).for_each(|day| write_day(&shop, day));
    shop.exits(0, &["run"]);
    shop
}

/// Runs everything; the strategy and reason of one model. All tables are right afterwards.
#[track_caller]
fn run_all(shop: &Scratch, model: &str) -> (String, String) {
    let seen = shop.exits(0, &["run", "--format", "json"]);
    let outcome = seen.json().into_iter().find(|outcome| outcome["model"] == model).unwrap();
    assert_eq!(outcome["status"], "ok", "{outcome}");
    let verified = shop.exits(0, &["verify"]).out;
    assert!(!verified.contains("skipped"), "{verified}");
    (outcome["strategy"].as_str().unwrap().into(), outcome["reason"].as_str().unwrap().into())
}

#[test]
fn what_is_no_longer_kept_is_made_anew() {
    let shop = lagging();
    let landed = |shop: &Scratch| -> BTreeSet<PathBuf> {
        let files = fs::read_dir(shop.path("warehouse/_tidemill/sales/landed/orders")).unwrap();
        files.map(|file| file.unwrap().path()).collect()
    };
    let before = landed(&shop);
    let half: String =
        fs::read_to_string(shop.path("data/01.csv")).unwrap().lines().take(20).map(|l| format!("{l}\n")).collect();
    shop.write("data/01.csv", half);
    shop.exits(0, &["run", "-s", "kept"]);
    // As the record names them now; the others' time is over.
    let newest = fs::read_to_string(shop.path("warehouse/_tidemill/sales/commits/00000000000000000002.json")).unwrap();
    let old: Vec<&PathBuf> =
        before.iter().filter(|file| !newest.contains(file.file_name().unwrap().to_str().unwrap())).collect();
    assert_eq!(old.len(), 1);
    old.into_iter().for_each(|file| fs::remove_file(file).unwrap());
    let verified = shop.exits(0, &["verify", "-s", "regions"]).out;
    assert!(verified.contains("skipped: what it was made from isn't kept any more"), "{verified}");
    let (strategy, reason) = run_all(&shop, "regions");
    assert_eq!((strategy.as_str(), reason.as_str()), ("rebuilt", "rows of orders that went can't be read any more"));

    // A record that nobody holds any longer.
    write_day(&shop, 6);
    run_all(&shop, "regions");
    for day in 7..9 {
        write_day(&shop, day);
        shop.exits(0, &["run", "-s", "kept", "cities", "total"]);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let pruned = runtime.block_on(async {
        let warehouse = Warehouse::open("warehouse", shop.root(), &Default::default()).await.unwrap();
        CommitChain::open(&warehouse, "sales").prune(Duration::ZERO, &BTreeSet::new()).await.unwrap()
    });
    assert!(pruned > 0);
    let (strategy, reason) = run_all(&shop, "regions");
    assert_eq!((strategy.as_str(), reason.as_str()), ("rebuilt", "what it last read of orders isn't kept any more"));
    write_day(&shop, 9);
    assert_eq!(run_all(&shop, "regions").0, "incremental", "and goes on from there");
}

/// The one file of a folder that isn't bookkeeping.
fn only_file(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|e| e == "parquet")).collect();
    files.sort();
    files.pop().unwrap()
}

type Spoil = fn(&Path);

/// Ways to spoil a file.
const SPOILING: [(&str, Spoil); 3] = [
    ("gone", |file| fs::remove_file(file).unwrap()),
    ("torn", |file| {
        let bytes = fs::read(file).unwrap();
        fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    }),
    ("garbled", |file| {
        let mut bytes = fs::read(file).unwrap();
        let end = bytes.len();
        bytes[4..end - 8].iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(file, bytes).unwrap();
    }),
];

#[test]
fn a_spoilt_state_is_made_anew_with_a_reason() {
    let shop = lagging();
    for (day, (how, spoil)) in (6..).zip(SPOILING) {
        spoil(&only_file(&shop.path("warehouse/_tidemill/reports/state/regions")));
        write_day(&shop, day);
        let (strategy, reason) = run_all(&shop, "regions");
        assert_eq!(strategy, "rebuilt", "{how}");
        assert!(reason.contains("_tidemill/reports/state/regions/"), "{how}: {reason}");
        println!("{how}: {reason}");
        write_day(&shop, day + 10);
        assert_eq!(run_all(&shop, "regions").0, "incremental", "{how}: and goes on from there");
    }
}

#[test]
fn a_table_changed_by_hand_is_found_and_mended() {
    let shop = lagging();
    let rows = shop.rows(REGIONS);
    for (day, (how, spoil)) in (6..).zip(SPOILING) {
        spoil(&only_file(&shop.path("warehouse/regions")));
        let seen = shop.exits(1, &["verify", "-s", "regions"]);
        assert!(seen.out.contains("regions  differs") && seen.out.contains("regions/c0"), "{how}: {}", seen.out);
        shop.exits(0, &["verify", "-s", "kept"]);
        // A change goes on from the table, so that it makes it anew; without one, the user asks for it.
        if day % 2 == 0 {
            write_day(&shop, day);
            run_all(&shop, "regions");
        } else {
            shop.exits(0, &["run", "--full-refresh", "-s", "regions"]);
        }
        shop.exits(0, &["verify"]);
        assert_ne!(shop.rows(REGIONS), rows, "{how}");
    }
    // Another file's rows, whole and readable.
    let file = only_file(&shop.path("warehouse/regions"));
    let sql = "select city, orders + 1 as orders, revenue from regions";
    shop.exits(0, &["query", sql, "-o", "other.parquet"]);
    fs::copy(shop.path("other.parquet"), file).unwrap();
    let seen = shop.exits(1, &["verify", "-s", "regions"]);
    assert!(seen.out.contains("regions  differs"), "{}", seen.out);
    shop.exits(0, &["run", "--full-refresh", "-s", "regions"]);
    shop.exits(0, &["verify"]);
}
