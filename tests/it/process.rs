//! Processes that tests start. Nobody waits for one without a bound: what hangs is killed, and the test says what it was.

use std::io::{BufRead, BufReader, Read};
use std::ops::{Deref, DerefMut};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that a test waits for: many times what the slowest takes beside other work.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Commands that are run with a bound.
pub(crate) trait Bounded {
    /// Runs the command to its end, without standard input.
    #[track_caller]
    fn finish(&mut self) -> Output;

    /// Starts the command.
    #[track_caller]
    fn start(&mut self) -> Process;
}

impl Bounded for Command {
    fn finish(&mut self) -> Output {
        self.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).start().finish()
    }

    fn start(&mut self) -> Process {
        let child = self.spawn().unwrap_or_else(|error| panic!("{self:?}: {error}"));
        Process { child, command: format!("{self:?}") }
    }
}

/// A process that is killed when the value goes.
pub(crate) struct Process {
    child: Child,
    command: String,
}

impl Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Waits for its end; what it has written to pipes that nobody took is in the result.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Output {
        let out = self.child.stdout.take().map(Piped::read);
        let err = self.child.stderr.take().map(Piped::read);
        let until = Instant::now() + PATIENCE;
        let status = self.wait_until(until);
        let ends = [&out, &err].into_iter().flatten().all(|pipe| pipe.ends_until(until));
        let [stdout, stderr] = [out, err].map(|pipe| pipe.map(|pipe| pipe.bytes()).unwrap_or_default());
        match status {
            Some(status) if ends => Output { status, stdout, stderr },
            _ => {
                let [out, err] = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                let ended =
                    status.map_or("it still runs".to_string(), |status| format!("{status}, but its pipes are open"));
                panic!("{}\ndoesn't end within {PATIENCE:?}: {ended}\nstdout: {out}\nstderr: {err}", self.command);
            }
        }
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = self.wait_until(Instant::now() + PATIENCE);
        status.unwrap_or_else(|| panic!("{}\ndoesn't end within {PATIENCE:?}", self.command))
    }

    /// How it ended, if it does until then.
    pub(crate) fn wait_until(&mut self, until: Instant) -> Option<ExitStatus> {
        loop {
            let status = self.child.try_wait().unwrap();
            if status.is_some() || Instant::now() >= until {
                return status;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends a signal: `TERM`, `STOP`.
    #[track_caller]
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).finish();
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    }

    /// Kills it, and tells how it ended: it may have done so before.
    #[track_caller]
    pub(crate) fn end(&mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.wait()
    }

    /// The lines that it writes to standard output from now on.
    pub(crate) fn lines(&mut self) -> Lines {
        let (sender, received) = channel();
        let out = BufReader::new(self.child.stdout.take().unwrap());
        // Without a reader the lines are dropped, so that the process doesn't hang on a full pipe.
        thread::spawn(move || out.lines().for_each(|line| drop(sender.send(line.unwrap()))));
        Lines { command: self.command.clone(), received }
    }
}

/// Lines of a process, each waited for with a bound. They end with the process.
pub(crate) struct Lines {
    command: String,
    received: Receiver<String>,
}

impl Iterator for Lines {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.received.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(Disconnected) => None,
            Err(Timeout) => panic!("{}\nwrites no line within {PATIENCE:?}", self.command),
        }
    }
}

/// What comes out of a pipe, read beside.
struct Piped {
    bytes: Arc<Mutex<Vec<u8>>>,
    ended: Receiver<()>,
}

impl Piped {
    fn read(mut pipe: impl Read + Send + 'static) -> Self {
        let (end, ended) = channel::<()>();
        let bytes: Arc<Mutex<Vec<u8>>> = Arc::default();
        let read = Arc::clone(&bytes);
        thread::spawn(move || {
            let mut chunk = [0; 1 << 14];
            while let Ok(length @ 1..) = pipe.read(&mut chunk) {
                read.lock().unwrap().extend_from_slice(&chunk[..length]);
            }
            drop(end);
        });
        Self { bytes, ended }
    }

    fn ends_until(&self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        self.ended.recv_timeout(left) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected)
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }
}
