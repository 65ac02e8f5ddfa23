//! Warehouses are opened, refused and told apart; a name is created once.

use object_store::memory::InMemory;

use super::*;
use crate::error::ErrorKind;

async fn open(folder: &FsPath) -> Result<Warehouse> {
    Warehouse::open("w", folder, &BTreeMap::new()).await
}

#[tokio::test]
async fn opens_twice_and_refuses_a_newer_format() {
    let dir = tempfile::tempdir().unwrap();
    let warehouse = open(dir.path()).await.unwrap();
    assert!(warehouse.is_local);
    open(dir.path()).await.unwrap();
    std::fs::write(dir.path().join("w/_tidemill/format.json"), r#"{"format":2}"#).unwrap();
    let error = open(dir.path()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("written by a newer Tidemill (format 2, this one knows 1)"), "{error}");
}

#[tokio::test]
async fn names_a_place_that_cannot_be_created() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("w"), "a file").unwrap();
    let error = open(dir.path()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::External);
    assert!(error.to_string().contains(&dir.path().join("w").display().to_string()), "{error}");
}

#[tokio::test]
async fn create_only_tells_ourselves_from_others() {
    let dir = tempfile::tempdir().unwrap();
    let local = open(dir.path()).await.unwrap();
    let memory = Warehouse {
        store: Arc::new(InMemory::new()),
        root: Path::from("w"),
        url: "memory:///w".into(),
        is_local: false,
        seen: Seen::default(),
        parsed: Parsed::default(),
    };
    for warehouse in [local, memory] {
        assert_eq!(warehouse.put_new("a/1", "mine".into()).await.unwrap(), Put::Created);
        assert_eq!(warehouse.put_new("a/1", "mine".into()).await.unwrap(), Put::Created);
        assert_eq!(warehouse.put_new("a/1", "theirs".into()).await.unwrap(), Put::Exists);
        assert_eq!(warehouse.get("a/1").await.unwrap().unwrap(), "mine");
        assert_eq!(warehouse.list("a").await.unwrap().len(), 1, "no staging file stays");
        warehouse.delete(vec![warehouse.path("a/1"), warehouse.path("a/1")]).await.unwrap();
        assert!(warehouse.get("a/1").await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_racing_creators_wins() {
    let dir = tempfile::tempdir().unwrap();
    let warehouse = open(dir.path()).await.unwrap();
    let tries = (0..16).map(|i| {
        let warehouse = warehouse.clone();
        tokio::spawn(async move { warehouse.put_new("n", format!("writer {i}").into()).await.unwrap() })
    });
    let outcomes = futures::future::join_all(tries).await;
    assert_eq!(outcomes.iter().filter(|o| *o.as_ref().unwrap() == Put::Created).count(), 1);
}

#[test]
fn a_full_disk_and_a_read_only_one_are_told_apart() {
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    let wrapped = object_store::Error::Generic { store: "x", source: Box::new(full) };
    assert!(write_error(&"p", wrapped).to_string().contains("disk is full"));
    let read_only = std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem);
    assert!(write_error(&"p", read_only).to_string().contains("read-only"));
    let dressed = std::io::Error::other(object_store::Error::Generic {
        store: "x",
        source: Box::new(std::io::Error::from(std::io::ErrorKind::StorageFull)),
    });
    assert!(write_error(&"p", dressed).to_string().contains("disk is full"));
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    let after = write_error_after(&"p", full, "the disk is full; it is published").to_string();
    assert!(after.starts_with("the disk is full; it is published\n  path: p\n"), "{after}");
}

#[test]
fn paths_are_taken_from_the_project_folder() {
    let at = |location: &str| Warehouse::locate(location, FsPath::new("/p"), &BTreeMap::new()).unwrap().url;
    assert_eq!(at("./warehouse"), "/p/warehouse");
    assert_eq!(at("../w"), "/w");
    assert_eq!(at("/abs"), "/abs");
    assert_eq!(at("file:///abs/x"), "/abs/x");
}

#[test]
fn an_unknown_scheme_is_refused_and_secrets_do_not_show() {
    let error = Warehouse::locate("ftp://u:secret@h/w?sig=secret", FsPath::new("/p"), &BTreeMap::new()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(!error.to_string().contains("secret"), "{error}");
}
