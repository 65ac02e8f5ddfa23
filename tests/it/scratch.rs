//! A throw-away project and the real program at work on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::process::Bounded;

/// The head of a small project: no waiting for young files.
pub const TIDEMILL_YAML: &str = "version: 1\nname: shop\n";

/// A folder that goes with the value.
pub struct Scratch {
    dir: TempDir,
    env: Vec<(String, String)>,
}

/// What a command came to.
pub struct Seen {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Scratch {
    /// A project whose one pipeline is `pipeline`.
    pub fn new(pipeline: &str) -> Self {
        let scratch = Self { dir: TempDir::new().unwrap(), env: Vec::new() };
        scratch.write("tidemill.yaml", TIDEMILL_YAML);
        scratch.write("pipelines/sales.yaml", pipeline);
        scratch
    }

    /// Puts the warehouse elsewhere, with what every command needs in its environment for that.
    pub fn with_warehouse(mut self, place: &str, env: impl IntoIterator<Item = (String, String)>) -> Self {
        self.write("tidemill.yaml", format!("{TIDEMILL_YAML}warehouse: {place}\n"));
        self.env.extend(env);
        self
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file, and its folders.
    pub fn write(&self, relative: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub fn remove(&self, relative: &str) {
        fs::remove_file(self.path(relative)).unwrap();
    }

    /// The program with `args`, not started yet.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.current_dir(self.root()).args(args).env_remove("TIDEMILL_FAILPOINT").env("NO_COLOR", "1");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the program to its end.
    pub fn tidemill(&self, args: &[&str]) -> Seen {
        self.seen(self.command(args).finish())
    }

    /// Runs the program to its end; it must exit with `code`.
    #[track_caller]
    pub fn exits(&self, code: i32, args: &[&str]) -> Seen {
        let seen = self.tidemill(args);
        assert_eq!(seen.code, code, "{args:?}\nstdout: {}\nstderr: {}", seen.out, seen.err);
        seen
    }

    /// Rows of a query as CSV without the header.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> String {
        let out = self.exits(0, &["query", "--format", "csv", sql]).out;
        out.split_once('\n').unwrap().1.to_string()
    }

    /// `model status` of every line that a run with `--format json` prints.
    #[track_caller]
    pub fn statuses(&self, code: i32, args: &[&str]) -> Vec<String> {
        let args = [&["run", "--format", "json"], args].concat();
        let models = self.exits(code, &args).json();
        models.iter().map(|m| format!("{} {}", m["model"].as_str().unwrap(), m["status"].as_str().unwrap())).collect()
    }

    /// Output with this folder's path, ids and clocks taken out.
    pub fn seen(&self, output: Output) -> Seen {
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            let canonical = self.root().canonicalize().unwrap().display().to_string();
            let text = text.replace(&canonical, "[project]").replace(&self.root().display().to_string(), "[project]");
            // As object stores name it.
            text.replace(canonical.trim_start_matches('/'), "[project]")
        };
        Seen { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Seen {
    /// Every line of stdout as JSON.
    pub fn json(&self) -> Vec<serde_json::Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Runs `check` where ids, clocks and durations read the same every time.
pub fn filtered(check: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"\b[0-9A-HJKMNP-TV-Z]{26}\b", "[ulid]");
    settings.add_filter(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[time]");
    settings.add_filter(r"\b\d+\.\ds\b", "[seconds]");
    settings.add_filter(r"process: \d+", "process: [pid]");
    settings.add_filter(r"host: .*", "host: [host]");
    settings.add_filter(r"c\d{8}-[0-9a-zA-Z-]+\.parquet", "[data file]");
    settings.bind(check);
}
