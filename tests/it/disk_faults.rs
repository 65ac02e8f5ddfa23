//! A disk that is full and one that can't be written: said plainly, nothing half-made, and the next run goes on.
//!
//! Such disks are made in a mount namespace of the test's own, which an ordinary user may have, too: each test starts this
//! binary again in there, for the test that is a part of it.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tidemill::table::{Warehouse, write_files};

use crate::kill::{PIPELINE, contents, undisturbed, write_day};
use crate::process::Bounded;
use crate::scratch::{Scratch, filtered};
use crate::tables::{apply, files_of, ids, read_by_others, read_url_by_others, scattered};

/// Variable with a small file system's folder, for the parts that fill it.
const SMALL_DISK: &str = "SMALL_DISK";
/// Variable that is there where file systems may be mounted.
const MAY_MOUNT: &str = "MAY_MOUNT";
/// The largest file system of others, such as a container's `/dev/shm`, that a test may fill.
const OTHERS_BYTES: u64 = 128 << 20;

/// The options of `unshare` by which file systems can be mounted that nobody else sees, or why they can't.
fn mounting() -> Result<&'static [&'static str], String> {
    let ways: [&'static [&'static str]; 2] = [&["--user", "--map-root-user", "--mount"], &["--mount"]];
    let folder = tempfile::tempdir().unwrap();
    let mut reasons = Vec::new();
    for options in ways {
        let mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs"];
        match Command::new("unshare").args(options).args(mount).arg(folder.path()).output() {
            Ok(output) if output.status.success() => return Ok(options),
            Ok(output) => reasons.push(String::from_utf8_lossy(&output.stderr).trim().to_string()),
            Err(error) => reasons.push(format!("unshare: {error}")),
        }
    }
    Err(reasons.join("; "))
}

/// Runs the ignored test `part` of this binary by itself.
fn run_part(part: &str, options: Option<&[&str]>, variable: (&str, &Path)) {
    let this = std::env::current_exe().unwrap();
    let mut command = match options {
        Some(options) => {
            let mut command = Command::new("unshare");
            command.args(options).arg(this);
            command
        }
        None => Command::new(this),
    };
    let output = command.args(["--exact", part, "--ignored"]).env(variable.0, variable.1).finish();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}{err}");
}

fn mount(arguments: &[&str], folder: &Path) {
    let output = Command::new("mount").args(arguments).arg(folder).finish();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Says on the terminal, past the test harness, which shows nothing of tests that pass.
fn tell(text: &str) {
    std::io::stderr().write_all(format!("\n{text}\n").as_bytes()).unwrap();
}

/// Runs a part on a file system that is small enough to be filled.
fn on_a_small_disk(part: &str) {
    let why = match mounting() {
        Ok(options) => return run_part(part, Some(options), (MAY_MOUNT, Path::new("yes"))),
        Err(why) => why,
    };
    // Without any privilege: shared memory, which is a small file system of its own in most containers.
    let shared = Path::new("/dev/shm");
    let sizes = Command::new("df").args(["--block-size=1", "--output=size"]).arg(shared).output();
    let bytes = sizes.ok().and_then(|o| String::from_utf8_lossy(&o.stdout).lines().last()?.trim().parse::<u64>().ok());
    match bytes {
        Some(bytes) if bytes <= OTHERS_BYTES => {
            let folder = tempfile::tempdir_in(shared).unwrap();
            run_part(part, None, (SMALL_DISK, folder.path()));
        }
        _ => tell(&format!(
            "{part} wasn't run: no file system can be mounted here ({why}), and /dev/shm isn't one below {OTHERS_BYTES} bytes"
        )),
    }
}

/// The folder to fill.
fn small_disk() -> PathBuf {
    if let Some(folder) = std::env::var_os(SMALL_DISK) {
        return folder.into();
    }
    assert!(std::env::var_os(MAY_MOUNT).is_some(), "a part of another test, which runs it");
    // Unmounted with the namespace.
    let folder = tempfile::tempdir().unwrap().keep();
    mount(&["-t", "tmpfs", "-o", "size=4m", "tmpfs"], &folder);
    folder
}

/// Fills the file system of `folder` but for `free` bytes; removing the file makes room again.
fn fill(folder: &Path, free: u64) -> PathBuf {
    let path = folder.join("ballast");
    let mut file = File::create(&path).unwrap();
    let mut written = 0_u64;
    for chunk in [1 << 16, 1 << 12] {
        let zeros = vec![0; chunk];
        loop {
            match file.write(&zeros) {
                Ok(bytes) => written += bytes as u64,
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    file.set_len(written.checked_sub(free).expect("a file system larger than that")).unwrap();
    path
}

#[test]
fn a_full_disk_is_named_and_the_next_run_goes_on() {
    on_a_small_disk("disk_faults::runs_on_a_full_disk");
}

#[test]
#[ignore = "a part of `a_full_disk_is_named_and_the_next_run_goes_on`"]
fn runs_on_a_full_disk() {
    let disk = small_disk();
    let warehouse = disk.join("warehouse");
    let shop = Scratch::new(PIPELINE).with_warehouse(&warehouse.display().to_string(), []);
    let clean = Scratch::new(PIPELINE);
    write_day(&shop, 0);
    shop.exits(0, &["run"]);
    let mut before = undisturbed(1);
    assert_eq!(contents(&shop), before);
    write_day(&clean, 0);
    let (mut full, mut published) = (0, 0);
    for (day, free_kib) in (1..).zip([0, 8, 16, 32, 48, 64, 80, 96, 112, 128]) {
        write_day(&clean, day);
        clean.exits(0, &["run"]);
        let after = contents(&clean);
        write_day(&shop, day);
        let ballast = fill(&disk, free_kib << 10);
        let seen = shop.tidemill(&["run"]);
        let there = contents(&shop);
        if seen.code == 0 {
            assert_eq!(there, after, "{free_kib} KiB");
        } else {
            full += 1;
            assert_eq!(seen.code, 3, "{free_kib} KiB: {}", seen.err);
            assert!(seen.err.contains("the disk is full"), "{free_kib} KiB: {}", seen.err);
            let is_published = there == after;
            published += u32::from(is_published);
            assert!(is_published || there == before, "{free_kib} KiB: a mix:\n{there}");
            assert!(!is_published || !seen.err.contains("nothing was published"), "{free_kib} KiB: {}", seen.err);
        }
        let rows = read_url_by_others(&warehouse.join("kept").display().to_string(), None, &Default::default());
        let rows = rows["deltalake"].as_array().unwrap().len();
        assert!(rows == day as usize * 40 || rows == (day as usize + 1) * 40, "{free_kib} KiB: {rows} rows");
        fs::remove_file(ballast).unwrap();
        shop.exits(0, &["run"]);
        assert_eq!(contents(&shop), after, "{free_kib} KiB: after room was made");
        before = after;
    }
    tell(&format!("{full} runs met the full disk, {published} of them after their commit"));
    assert!(full >= 4, "only {full} runs met the full disk");
}

#[cfg(feature = "kafka")]
#[test]
fn continuous_work_waits_for_room_on_a_full_disk() {
    on_a_small_disk("disk_faults::up_on_a_full_disk");
}

#[cfg(feature = "kafka")]
#[test]
#[ignore = "a part of `continuous_work_waits_for_room_on_a_full_disk`"]
fn up_on_a_full_disk() {
    use crate::kafka_stream::Stream;
    let disk = small_disk();
    let kafka = crate::kafka_server::Kafka::start();
    let mut stream = Stream::new(&kafka, &kafka.brokers(), &kafka.brokers(), 1);
    let warehouse = stream.shop.path("warehouse");
    std::os::unix::fs::symlink(disk.join("warehouse"), &warehouse).unwrap();
    fs::create_dir(disk.join("warehouse")).unwrap();
    let up = crate::kafka::Up::start(&stream.shop);
    stream.send(&kafka, 20);
    stream.wait_while(Stream::is_behind);
    for free_kib in [0, 16, 40] {
        let ballast = fill(&disk, free_kib << 10);
        stream.send(&kafka, 20);
        // Some tries, of which none may end it.
        std::thread::sleep(std::time::Duration::from_secs(3));
        fs::remove_file(ballast).unwrap();
        stream.wait_while(Stream::is_behind);
    }
    up.end();
    stream.assert_whole(&kafka, &kafka);
}

#[test]
fn a_full_disk_leaves_tables_as_they_were() {
    on_a_small_disk("disk_faults::writing_on_a_full_disk");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of `a_full_disk_leaves_tables_as_they_were`"]
async fn writing_on_a_full_disk() {
    let disk = small_disk();
    let warehouse = Warehouse::open("w", &disk, &Default::default()).await.unwrap();
    apply(&warehouse, "t", 1, &files_of(&warehouse, "t", &ids(&[1]), &[]).await).await;
    let used = || warehouse.list("t");
    let before = used().await.unwrap().len();
    let many = ids(&scattered(500_000));
    let stream = futures::stream::iter([Ok(many.clone())]);
    let stream = datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(many.schema(), stream);
    fill(&disk, 300 << 10);
    let error = write_files(&warehouse, "t", &many.schema(), &[], "part", vec![Box::pin(stream)]).await.unwrap_err();
    assert!(error.to_string().contains("the disk is full; a table that could not be written stays"), "{error}");
    assert_eq!(used().await.unwrap().len(), before);
    assert_eq!(read_by_others(&warehouse, "t", None)["polars"], json!([{ "id": 1 }]));
}

#[test]
fn a_warehouse_that_became_read_only_is_named() {
    let part = "disk_faults::runs_on_a_read_only_warehouse";
    match mounting() {
        Ok(options) => run_part(part, Some(options), (MAY_MOUNT, Path::new("yes"))),
        Err(_) if !is_root() => runs_in_a_folder(tempfile::tempdir().unwrap().path(), |folder, writable| {
            let mode = if writable { "u+w" } else { "a-w" };
            assert!(Command::new("chmod").args(["-R", mode]).arg(folder).finish().status.success());
        }),
        Err(why) => tell(&format!(
            "{part} wasn't run: no file system can be mounted here ({why}), and permissions don't stop root"
        )),
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").finish().stdout == b"0\n"
}

#[test]
#[ignore = "a part of `a_warehouse_that_became_read_only_is_named`"]
fn runs_on_a_read_only_warehouse() {
    runs_in_a_folder(&small_disk(), |folder, writable| {
        mount(&["-o", if writable { "remount,rw" } else { "remount,ro" }], folder);
    });
}

/// Runs over a warehouse in `folder` that is made read-only and writable again.
fn runs_in_a_folder(folder: &Path, make: impl Fn(&Path, bool)) {
    let text = folder.display().to_string();
    let shop = Scratch::new(PIPELINE).with_warehouse(&text, []);
    write_day(&shop, 0);
    let check = |name: &str, seen: &crate::scratch::Seen| {
        let shown = format!("{}---\n{}", seen.out, seen.err).replace(&text, "[warehouse]");
        let mut settings = insta::Settings::clone_current();
        // A mount says something else than a permission.
        settings.add_filter(r"because: .* \(os error \d+\)", "because: [read-only]");
        settings.bind(|| filtered(|| insta::assert_snapshot!(name, shown)));
    };
    make(folder, false);
    check("read_only_from_the_start", &shop.exits(3, &["run"]));
    make(folder, true);
    shop.exits(0, &["run"]);
    write_day(&shop, 1);
    make(folder, false);
    check("became_read_only", &shop.exits(3, &["run"]));
    assert_eq!(contents(&shop), undisturbed(1), "tables of a read-only warehouse are read as ever");
    make(folder, true);
    shop.exits(0, &["run"]);
    assert_eq!(contents(&shop), undisturbed(2));
}
