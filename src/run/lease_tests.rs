//! Who holds a lease, who waits and who takes it over.

use object_store::memory::InMemory;

use super::*;
use crate::table::{Parsed, Seen};

const TTL: Duration = Duration::from_secs(30);

async fn warehouses() -> Vec<(Option<tempfile::TempDir>, Warehouse)> {
    let dir = tempfile::tempdir().unwrap();
    let local = Warehouse::open("w", dir.path(), &Default::default()).await.unwrap();
    let store = Arc::new(InMemory::new());
    let memory = Warehouse {
        store,
        root: object_store::path::Path::from("w"),
        url: "memory:///w".into(),
        is_local: false,
        seen: Seen::default(),
        parsed: Parsed::default(),
    };
    vec![(Some(dir), local), (None, memory)]
}

async fn forge(warehouse: &Warehouse, change: impl FnOnce(&mut Holder)) {
    let mut holder = Holder { writer: "other".into(), process: ProcessId::current(), expires_at_us: after(TTL) };
    change(&mut holder);
    warehouse.put("_tidemill/p/lease.json", serde_json::to_vec(&holder).unwrap().into()).await.unwrap();
}

async fn taken(warehouse: &Warehouse) -> Result<Lease> {
    Lease::acquire(warehouse, "p", TTL, None).await
}

#[tokio::test]
async fn a_held_lease_names_its_holder_and_a_released_one_is_free() {
    for (_dir, warehouse) in warehouses().await {
        let first = taken(&warehouse).await.unwrap();
        let error = taken(&warehouse).await.unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Lease, 75));
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        Lease::acquire(&warehouse, "q", TTL, None).await.unwrap();
        assert!(!first.is_lost());
        first.release().await.unwrap();
        taken(&warehouse).await.unwrap();
    }
}

#[tokio::test]
async fn a_dead_holder_is_followed_at_once_but_one_elsewhere_is_not() {
    for (_dir, warehouse) in warehouses().await {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        forge(&warehouse, |holder| holder.process.pid = pid).await;
        taken(&warehouse).await.unwrap().release().await.unwrap();
        forge(&warehouse, |holder| {
            holder.process.pid = pid;
            holder.process.host = "elsewhere".into();
        })
        .await;
        assert!(taken(&warehouse).await.unwrap_err().to_string().contains("host: elsewhere"));
    }
}

#[tokio::test]
async fn an_expired_lease_is_taken_and_its_holder_notices() {
    for (_dir, warehouse) in warehouses().await {
        let ttl = Duration::from_millis(300);
        let first = Lease::acquire(&warehouse, "p", ttl, None).await.unwrap();
        forge(&warehouse, |holder| holder.expires_at_us = after(Duration::ZERO)).await;
        let second = taken(&warehouse).await.unwrap();
        assert_ne!(first.writer(), second.writer());
        let noticed = async {
            while !first.is_lost() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), noticed).await.unwrap();
        drop(first);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(taken(&warehouse).await.is_err(), "a holder that lost its lease doesn't free the next one's");
    }
}

#[tokio::test]
async fn a_lease_outlives_its_time_while_it_is_renewed_and_waiting_gets_it() {
    for (_dir, warehouse) in warehouses().await {
        let ttl = Duration::from_millis(600);
        let first = Lease::acquire(&warehouse, "p", ttl, None).await.unwrap();
        let begun = first.state.expires_at_us.load(Ordering::Acquire);
        let renewed = async {
            while first.state.expires_at_us.load(Ordering::Acquire) == begun {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), renewed).await.unwrap();
        let waiting = tokio::spawn({
            let warehouse = warehouse.clone();
            async move { Lease::acquire(&warehouse, "p", TTL, Some(Duration::from_secs(60))).await }
        });
        first.release().await.unwrap();
        waiting.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_gets_a_free_lease() {
    for (_dir, warehouse) in warehouses().await {
        let tries = (0..8).map(|_| {
            let warehouse = warehouse.clone();
            tokio::spawn(async move { taken(&warehouse).await })
        });
        let got: Vec<_> = futures::future::join_all(tries).await.into_iter().map(|t| t.unwrap()).collect();
        assert_eq!(got.iter().filter(|lease| lease.is_ok()).count(), 1);
    }
}

/// As a process has it that was stopped amid a change of the lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_never_given_back_holds_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let warehouse = Warehouse::open("w", dir.path(), &Default::default()).await.unwrap();
    taken(&warehouse).await.unwrap().release().await.unwrap();
    let path = dir.path().join("w/_tidemill/p/lease.lock");
    let stopped = locked(&path).unwrap();
    let work = async {
        let first = taken(&warehouse).await.unwrap();
        assert_eq!(taken(&warehouse).await.unwrap_err().kind(), ErrorKind::Lease);
        first.release().await.unwrap();
    };
    let begun = Instant::now();
    tokio::time::timeout(Duration::from_secs(60), work).await.unwrap();
    // Waited for once: the others find a lock of their own.
    assert!(begun.elapsed() >= limits::LEASE_LOCK, "it was locked");
    assert!(!is_at(&stopped, &path).unwrap());
    let there: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(there.len(), 2, "{there:?}");
}
