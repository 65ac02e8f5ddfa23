//! A real S3 server, versitygw, on a free port of the loopback, over a folder that goes with it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::house::root;
use crate::process::{Bounded, Process};

const BUCKET: &str = "shop";
const KEY: &str = "test";
const SECRET: &str = "testsecret";
const REGION: &str = "us-east-1";

/// How long a server may take to answer; it takes a tenth of a second where nothing else runs.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A server that ends with the value.
pub struct S3Server {
    process: Process,
    port: u16,
    _folder: TempDir,
}

impl S3Server {
    /// Starts a server with one empty bucket.
    pub fn start() -> Self {
        // Somebody else may take a port between our asking for a free one and the server's taking it.
        (0..5).find_map(|_| Self::try_start()).expect("the S3 server ends as soon as it is started, five times")
    }

    fn try_start() -> Option<Self> {
        let program = root().join("target/drivers/versitygw-v1.8.0");
        assert!(program.exists(), "{} is missing: run scripts/install-drivers, which makes it", program.display());
        let folder = tempfile::tempdir().unwrap();
        for name in [&format!("root/{BUCKET}"), "attributes"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(["--port", &format!("127.0.0.1:{port}"), "--region", REGION, "--quiet", "posix"]);
        // Beside the objects: not every file system keeps attributes of files.
        command.arg("--sidecar").arg(folder.path().join("attributes")).arg(folder.path().join("root"));
        command.env("ROOT_ACCESS_KEY", KEY).env("ROOT_SECRET_KEY", SECRET);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).start();
        let mut server = Self { process, port, _folder: folder };
        let started = Instant::now();
        while started.elapsed() < START_LIMIT {
            if server.process.try_wait().unwrap().is_some() {
                return None;
            }
            if server.answers() {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the S3 server doesn't answer within {START_LIMIT:?}");
    }

    /// Whether an S3 server listens: it refuses a request without a signature in its own words.
    fn answers(&self) -> bool {
        let mut answer = String::new();
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        stream.set_read_timeout(Some(START_LIMIT)).unwrap();
        let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.contains("<Error><Code>AccessDenied")
    }

    /// The URL of a place in the bucket.
    pub fn url(&self, path: &str) -> String {
        format!("s3://{BUCKET}/{path}")
    }

    /// The store's options, by the names that environment variables have.
    pub fn options(&self) -> BTreeMap<String, String> {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let options = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_REGION", REGION),
        ];
        options.map(|(name, value)| (name.to_string(), value.to_string())).into()
    }
}
