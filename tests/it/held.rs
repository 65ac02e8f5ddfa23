//! A process that stands still at a named place, until the test lets it go on.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::process::{Bounded, PATIENCE, Process};
use crate::scratch::{Scratch, Seen};

/// It goes on when the pipe is closed.
pub(crate) struct Held {
    run: Process,
    pipe: File,
}

impl Held {
    /// The command, once it is there.
    #[track_caller]
    pub(crate) fn of(shop: &Scratch, args: &[&str], place: &str) -> Self {
        let pipe = shop.path("pipe");
        if !pipe.exists() {
            assert!(Command::new("mkfifo").arg(&pipe).finish().status.success());
        }
        let mut command = shop.command(args);
        command.env("TIDEMILL_FAILPOINT", format!("{place}={}", pipe.display()));
        let mut run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).start();
        let (here, arrived) = mpsc::channel();
        let writer = pipe.clone();
        // Opening for writing waits for the reader: the run at its place.
        std::thread::spawn(move || here.send(File::create(writer).unwrap()));
        let started = Instant::now();
        loop {
            assert!(started.elapsed() < PATIENCE, "{args:?} doesn't come to {place} within {PATIENCE:?}");
            match arrived.recv_timeout(Duration::from_millis(20)) {
                Ok(pipe) => return Self { run, pipe },
                Err(_) if run.try_wait().unwrap().is_none() => {}
                Err(_) => {
                    drop(File::open(&pipe));
                    panic!("the run ended before {place}: {}", shop.seen(run.finish()).err);
                }
            }
        }
    }

    /// Lets another be held at a place of its own meanwhile.
    pub(crate) fn make_room(&self, shop: &Scratch) {
        fs::rename(shop.path("pipe"), shop.path("other pipe")).unwrap();
    }

    #[cfg(feature = "kafka")]
    pub(crate) fn signal(&self, signal: &str) {
        self.run.signal(signal);
    }

    /// Stops the whole process, its heartbeats too, as a machine that goes to sleep does.
    pub(crate) fn stop(&self) {
        self.run.signal("STOP");
    }

    /// Waits for its end, without letting it go on.
    #[cfg(feature = "kafka")]
    #[track_caller]
    pub(crate) fn ends(self, shop: &Scratch) -> Seen {
        let seen = shop.seen(self.run.finish());
        drop(self.pipe);
        seen
    }

    /// Lets it go on to its end, stopped or not.
    #[track_caller]
    pub(crate) fn go_on(self, shop: &Scratch) -> Seen {
        self.run.signal("CONT");
        drop(self.pipe);
        shop.seen(self.run.finish())
    }
}
