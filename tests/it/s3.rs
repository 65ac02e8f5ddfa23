//! A project whose warehouse, and one whose files too, are in a real object store.

use std::path::Path;

use serde_json::json;
use tidemill::table::Warehouse;

use crate::kill::{PIPELINE, contents, undisturbed, write_day};
use crate::process::Bounded;
use crate::s3_server::S3Server;
use crate::scratch::Scratch;
use crate::tables::read_url_by_others;

/// The project of the kill tests with its warehouse in a bucket.
fn shop(server: &S3Server) -> Scratch {
    let shop = Scratch::new(PIPELINE).with_warehouse(&server.url("warehouse"), server.options());
    write_day(&shop, 0);
    shop
}

#[test]
fn a_project_runs_in_a_bucket_and_goes_on_after_a_kill() {
    let (one, two) = (undisturbed(1), undisturbed(2));
    for (place, published) in [
        ("after_stage", false),
        ("before_record", false),
        ("after_record", true),
        ("before_delta:3", true),
        ("after_delta", true),
    ] {
        let server = S3Server::start();
        let shop = shop(&server);
        shop.exits(0, &["run"]);
        assert_eq!(contents(&shop), one);
        let second = shop.statuses(0, &[]);
        assert_eq!(second, ["kept nothing", "cities nothing", "total nothing"]);

        write_day(&shop, 1);
        let died = shop.command(&["run"]).env("TIDEMILL_FAILPOINT", place).finish();
        assert_eq!(died.status.code(), None, "{place}: the run has to die: {}", String::from_utf8_lossy(&died.stderr));
        assert_eq!(contents(&shop), if published { two.clone() } else { one.clone() }, "{place}: never a mix");
        shop.exits(0, &["run"]);
        assert_eq!(contents(&shop), two, "{place}: after the next run");
        assert_eq!(shop.statuses(0, &[]), second, "{place}");

        let read = read_url_by_others(&server.url("warehouse/kept"), None, &server.options());
        let rows = read["deltalake"].as_array().unwrap();
        assert_eq!(rows.len(), 80, "{place}");
        assert_eq!(rows[79], json!({ "id": 139, "city": "city 5", "amount": "40.25" }), "{place}");
        assert_eq!(read["polars"], read["deltalake"], "{place}");
        assert!(!shop.path("warehouse").exists(), "nothing is written beside the project");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_from_a_bucket() {
    let server = S3Server::start();
    let landing = Warehouse::open(&server.url("in"), Path::new("/"), &server.options()).await.unwrap();
    let text = |id: u32| format!("id,city,amount\n{id},Recife,1.50\n");
    landing.put("a.csv", text(1).into()).await.unwrap();
    let pipeline = PIPELINE.replace("data/*.csv", &server.url("in/*.csv"));
    let shop = Scratch::new(&pipeline).with_warehouse(&server.url("warehouse"), server.options());
    shop.exits(0, &["run"]);
    landing.put("b.csv", text(2).into()).await.unwrap();
    shop.exits(0, &["run"]);
    assert_eq!(
        shop.rows("select id, _source_file from orders order by id"),
        "1,s3://shop/in/a.csv\n2,s3://shop/in/b.csv\n",
        "as they are now"
    );
    landing.delete(vec![landing.path("a.csv")]).await.unwrap();
    landing.put("b.csv", text(3).into()).await.unwrap();
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select id from kept"), "3\n");
    assert_eq!(shop.statuses(0, &[]), ["kept nothing", "cities nothing", "total nothing"]);
}

#[test]
fn a_server_that_refuses_is_named_and_secrets_never_show() {
    let server = S3Server::start();
    let shop = shop(&server);
    let mut options = server.options();
    options.insert("AWS_SECRET_ACCESS_KEY".into(), "another".into());
    let refused = shop.seen(shop.command(&["run"]).envs(&options).finish());
    assert_eq!(refused.code, 3, "{}", refused.err);
    assert!(refused.err.contains("s3://shop/warehouse"), "{}", refused.err);
    assert!(!refused.err.contains("another"), "secrets never show: {}", refused.err);
    shop.exits(0, &["run"]);
    assert_eq!(contents(&shop), undisturbed(1));
}
