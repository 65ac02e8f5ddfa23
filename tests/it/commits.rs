//! The commit protocol: one winner per number, followers that apply once, recovery between record and tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use serde_json::json;
use tidemill::error::ErrorKind;
use tidemill::run::commit::{CommitChain, CommitRecord, TableEntry, TableKind};
use tidemill::run::follow::{Which, catch_up};
use tidemill::run::lease::Lease;
use tidemill::table::{TableFiles, Warehouse, delta, garbage, types};

use crate::process::Bounded;
use crate::s3_server::S3Server;
use crate::tables::{files_of, ids, read_by_others, warehouse};

fn entry(n: u64, files: &TableFiles) -> TableEntry {
    TableEntry {
        changed_in: n,
        kind: TableKind::Model,
        fingerprint: "f".into(),
        inputs: BTreeMap::new(),
        key: vec!["id".into()],
        serve: true,
        inputs_at: BTreeMap::new(),
        states: Vec::new(),
        refreshed_at_us: 0,
        clock_us: None,
        rows: files.files.iter().map(|file| file.rows).sum(),
        schema: types::schema_to_json(&files.schema).unwrap(),
        partition_by: files.partition_by.clone(),
        files: Some(files.files.clone()),
    }
}

/// A record with the table `t` of these ids.
async fn record(warehouse: &Warehouse, n: u64, writer: &str, rows: &[i64]) -> CommitRecord {
    let files = files_of(warehouse, "t", &ids(rows), &[]).await;
    let mut record = CommitRecord::first("p", writer, "run", 0);
    record.n = n;
    record.sources.insert("s".into(), json!({ "files": n }));
    record.tables.insert("t".into(), entry(n, &files));
    record
}

async fn versions(warehouse: &Warehouse) -> usize {
    delta::history(warehouse, "t", 100).await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_writers_wins_a_number_and_the_other_is_fenced() {
    let (_dir, warehouse) = warehouse().await;
    let chain = CommitChain::open(&warehouse, "p");
    assert_eq!(chain.latest_n().await.unwrap(), None);
    for n in 1..=20 {
        let (a, b) = (record(&warehouse, n, "a", &[1]).await, record(&warehouse, n, "b", &[2]).await);
        let (first, second) = tokio::join!(chain.put(&a), chain.put(&b));
        let winner = match (&first, &second) {
            (Ok(()), Err(e)) | (Err(e), Ok(())) => {
                assert_eq!((e.kind(), e.exit_code()), (ErrorKind::Lease, 75), "{e}");
                if first.is_ok() { &a } else { &b }
            }
            both => panic!("{both:?}"),
        };
        assert_eq!(&*chain.latest().await.unwrap().unwrap(), winner);
        // Put again by its own writer, as after a time-out: still committed.
        chain.put(winner).await.unwrap();
    }
    assert_eq!(chain.latest_n().await.unwrap(), Some(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_or_torn_hint_does_not_hide_commits() {
    let (_dir, warehouse) = warehouse().await;
    let chain = CommitChain::open(&warehouse, "p");
    for n in 1..=12 {
        chain.put(&record(&warehouse, n, "a", &[1]).await).await.unwrap();
    }
    for hint in ["3", "", "torn", "99"] {
        warehouse.put("_tidemill/p/latest.json", hint.into()).await.unwrap();
        assert_eq!(chain.latest_n().await.unwrap(), Some(12), "hint {hint:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_apply_once_however_often_and_however_many() {
    let (_dir, warehouse) = warehouse().await;
    let chain = CommitChain::open(&warehouse, "p");
    for n in 1..=3_u64 {
        let record = record(&warehouse, n, "a", &[n as i64]).await;
        chain.put(&record).await.unwrap();
        let follow = || async { catch_up(&warehouse, "shop", &chain, &record, Which::Changed).await.unwrap() };
        let all = futures::future::join_all((0..6).map(|_| follow())).await;
        assert!(all.iter().all(|versions| versions["t"] == n as i64 - 1), "{all:?}");
        assert_eq!(versions(&warehouse).await, n as usize);
    }
    assert_eq!(read_by_others(&warehouse, "t", None)["deltalake"], json!([{ "id": 3 }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_a_dead_process_left_behind_are_caught_up_from_a_later_record() {
    let (_dir, warehouse) = warehouse().await;
    let chain = CommitChain::open(&warehouse, "p");
    let first = record(&warehouse, 1, "a", &[1]).await;
    chain.put(&first).await.unwrap();
    // Died before its tables followed. The next commit changes another table only.
    let mut second = first.next("b", "run 2", 0);
    assert_eq!((second.n, second.tables["t"].files.is_some()), (2, false));
    let files = files_of(&warehouse, "u", &ids(&[5, 6]), &[]).await;
    second.tables.insert("u".into(), entry(2, &files));
    chain.put(&second).await.unwrap();

    let latest = chain.latest().await.unwrap().unwrap();
    let changed = catch_up(&warehouse, "shop", &chain, &latest, Which::Changed).await.unwrap();
    assert_eq!(changed.keys().collect::<Vec<_>>(), ["u"]);
    let all = catch_up(&warehouse, "shop", &chain, &latest, Which::All).await.unwrap();
    assert_eq!(all, BTreeMap::from([("t".into(), 0), ("u".into(), 0)]));
    assert_eq!(read_by_others(&warehouse, "t", None)["polars"], json!([{ "id": 1 }]));
    assert_eq!(
        chain.table_files("t", &latest.tables["t"]).await.unwrap().files,
        first.tables["t"].files.clone().unwrap()
    );
    // A zombie that comes back with the old record changes nothing.
    catch_up(&warehouse, "shop", &chain, &first, Which::Changed).await.unwrap();
    assert_eq!(versions(&warehouse).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_found_by_time_and_pruned_but_for_those_still_needed() {
    let (_dir, warehouse) = warehouse().await;
    let chain = CommitChain::open(&warehouse, "p");
    let mut latest = record(&warehouse, 1, "a", &[1]).await;
    latest.committed_at_us = 1_000;
    chain.put(&latest).await.unwrap();
    for n in 2..=5_i64 {
        latest = latest.next("a", "run", 0);
        latest.committed_at_us = n * 1_000;
        chain.put(&latest).await.unwrap();
    }
    assert_eq!(chain.at(3_999).await.unwrap().n, 3);
    assert_eq!(chain.at(i64::MAX).await.unwrap().n, 5);
    assert!(chain.at(999).await.is_err());
    assert_eq!(chain.prune(Duration::from_secs(3600), &BTreeSet::new()).await.unwrap(), 0);
    assert_eq!(
        chain.prune(Duration::ZERO, &BTreeSet::new()).await.unwrap(),
        3,
        "the newest and the one that holds its files stay"
    );
    let newest = chain.latest().await.unwrap().unwrap();
    assert_eq!(newest.n, 5);
    assert_eq!(chain.table_files("t", &newest.tables["t"]).await.unwrap().files.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_newer_format_is_refused() {
    let (_dir, warehouse) = warehouse().await;
    let chain = CommitChain::open(&warehouse, "p");
    warehouse.put_new(&format!("_tidemill/p/commits/{:020}.json", 1), r#"{"format":2,"new":[]}"#.into()).await.unwrap();
    let error = chain.latest().await.unwrap_err();
    assert!(error.to_string().contains("written by a newer Tidemill"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_protocol_holds_on_s3() {
    let server = S3Server::start();
    let (url, options) = (server.url("warehouse"), server.options());
    let warehouse = Warehouse::open(&url, std::path::Path::new("/"), &options).await.unwrap();
    Warehouse::open(&url, std::path::Path::new("/"), &options).await.unwrap();
    let lease = Lease::acquire(&warehouse, "p", Duration::from_secs(30), None).await.unwrap();
    let held = Lease::acquire(&warehouse, "p", Duration::from_secs(30), None).await.unwrap_err();
    assert_eq!(held.kind(), ErrorKind::Lease);
    lease.release().await.unwrap();
    run_once(&warehouse, &[1]).await;
    run_once(&warehouse, &[2, 3]).await;
    let chain = CommitChain::open(&warehouse, "p");
    let (a, b) = (record(&warehouse, 3, "a", &[4]).await, record(&warehouse, 3, "b", &[5]).await);
    let (first, second) = tokio::join!(chain.put(&a), chain.put(&b));
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    let latest = chain.latest().await.unwrap().unwrap();
    let follow = || async { catch_up(&warehouse, "shop", &chain, &latest, Which::Changed).await.unwrap()["t"] };
    assert_eq!(tokio::join!(follow(), follow(), follow()), (2, 2, 2));
    let (files, _) = delta::files_at(&warehouse, "t", delta::At::Version(1)).await.unwrap();
    let session = datafusion::prelude::SessionContext::new();
    session.register_table("t", tidemill::table::parquet_table(&warehouse, "t", files, "UTC").unwrap()).unwrap();
    let rows = session.sql("select sum(id) s from t").await.unwrap().collect().await.unwrap();
    assert!(arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string().contains("| 5 |"));
}

/// What a run does, in a process of its own that dies at the fail point that the environment names.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of `a_kill_anywhere_leaves_whole_tables`"]
async fn dying_run() {
    let Ok(folder) = std::env::var("DYING_RUN_WAREHOUSE") else { return };
    let warehouse = Warehouse::open(&folder, std::path::Path::new("/"), &BTreeMap::new()).await.unwrap();
    run_once(&warehouse, &[2, 3]).await;
}

async fn run_once(warehouse: &Warehouse, rows: &[i64]) {
    let lease = Lease::acquire(warehouse, "p", Duration::from_secs(3600), None).await.unwrap();
    let chain = CommitChain::open(warehouse, "p");
    let latest = chain.latest().await.unwrap();
    if let Some(latest) = &latest {
        catch_up(warehouse, "shop", &chain, latest, Which::All).await.unwrap();
    }
    let n = latest.map_or(1, |latest| latest.n + 1);
    let record = record(warehouse, n, lease.writer(), rows).await;
    chain.put(&record).await.unwrap();
    catch_up(warehouse, "shop", &chain, &record, Which::Changed).await.unwrap();
    let keep = record.tables["t"].files.iter().flatten().map(|file| file.path.clone()).collect();
    garbage::collect(warehouse, "t", &keep, n, garbage::MinAge::default()).await.unwrap();
    lease.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_anywhere_leaves_whole_tables() {
    for (place, committed) in
        [("before_record", false), ("after_record", true), ("before_delta", true), ("after_delta", true)]
    {
        let (dir, warehouse) = warehouse().await;
        run_once(&warehouse, &[1]).await;
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "commits::dying_run", "--ignored"]);
        child.env("DYING_RUN_WAREHOUSE", &warehouse.url).env("TIDEMILL_FAILPOINT", place);
        let output = child.finish();
        assert_eq!(output.status.code(), None, "{place}: ended by a signal");

        let chain = CommitChain::open(&warehouse, "p");
        assert_eq!(chain.latest_n().await.unwrap(), Some(if committed { 2 } else { 1 }), "{place}");
        let read = read_by_others(&warehouse, "t", None)["polars"].clone();
        let (old, new) = (json!([{ "id": 1 }]), json!([{ "id": 2 }, { "id": 3 }]));
        assert_eq!(read, if place == "after_delta" { new } else { old }, "{place}");
        // The next run takes the dead one's lease at once, brings its tables up, and takes away what it left behind.
        run_once(&warehouse, &[4]).await;
        let runs = if committed { 3 } else { 2 };
        assert_eq!(versions(&warehouse).await, runs, "{place}");
        let files = walk(&dir.path().join("warehouse/t"));
        assert_eq!(files, runs, "{place}: one file a committed run, none of the uncommitted one");
    }
}

fn walk(folder: &std::path::Path) -> usize {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".parquet")).count()
}

/// A store whose puts of some paths succeed, while the answer is lost.
#[derive(Debug)]
struct Deaf {
    inner: Arc<dyn ObjectStore>,
    lost: AtomicUsize,
}

impl std::fmt::Display for Deaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("deaf")
    }
}

#[async_trait]
impl ObjectStore for Deaf {
    async fn put_opts(&self, to: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        let done = self.inner.put_opts(to, payload, options).await?;
        let decides = to.as_ref().contains("/commits/") || to.as_ref().contains("_delta_log/");
        if decides && !to.as_ref().contains("checkpoint") {
            self.lost.fetch_add(1, Ordering::SeqCst);
            return Err(object_store::Error::Generic { store: "deaf", source: "the answer timed out".into() });
        }
        Ok(done)
    }
    async fn put_multipart_opts(&self, to: &Path, o: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, o).await
    }
    async fn get_opts(&self, from: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.inner.get_opts(from, options).await
    }
    fn delete_stream(&self, paths: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(paths)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_whose_answers_are_lost_count_as_done() {
    let (_dir, mut warehouse) = warehouse().await;
    let deaf = Arc::new(Deaf { inner: Arc::clone(&warehouse.store), lost: AtomicUsize::new(0) });
    warehouse.store = deaf.clone();
    let chain = CommitChain::open(&warehouse, "p");
    for n in 1..=3_u64 {
        let record = record(&warehouse, n, "a", &[n as i64]).await;
        chain.put(&record).await.unwrap();
        let versions = catch_up(&warehouse, "shop", &chain, &record, Which::Changed).await.unwrap();
        assert_eq!(versions["t"], n as i64 - 1);
    }
    assert_eq!(deaf.lost.load(Ordering::SeqCst), 6, "each record and each Delta commit once");
    assert_eq!(versions(&warehouse).await, 3);
}
