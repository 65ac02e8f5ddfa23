//! Named places where a test can have the process die as if it were killed, or wait. Knows nothing of what happens there.

/// Variable that names the place: `after_record`, or `after_record:3` for the third time that it is passed. With `=PIPE`
/// after it, the process waits there, until somebody has opened the named pipe for writing and closed it.
const VARIABLE: &str = "TIDEMILL_FAILPOINT";

/// Dies here at once, without any cleaning up, or waits, if the environment says so. Does nothing in release builds.
pub fn hit(name: &str) {
    #[cfg(debug_assertions)]
    if let Ok(wanted) = std::env::var(VARIABLE) {
        let (wanted, pipe) =
            wanted.split_once('=').map_or((wanted.as_str(), None), |(place, pipe)| (place, Some(pipe)));
        let (place, times) = wanted.split_once(':').unwrap_or((wanted, "1"));
        if place == name && counted(times.parse().unwrap_or(1)) {
            match pipe {
                Some(pipe) => wait(pipe),
                None => std::process::abort(),
            }
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = (name, VARIABLE);
}

/// Waits for a writer of the pipe, and for its end.
#[cfg(debug_assertions)]
fn wait(pipe: &str) {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let read = || drop(std::fs::read(pipe));
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        // A runtime's own thread is replaced meanwhile: it may be the only one that looks for signals and watches the time, and the
        // rest of the process isn't to stand still.
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(read),
        _ => read(),
    }
}

#[cfg(debug_assertions)]
fn counted(times: u64) -> bool {
    use std::sync::atomic::{AtomicU64, Ordering};
    static PASSED: AtomicU64 = AtomicU64::new(0);
    PASSED.fetch_add(1, Ordering::SeqCst) + 1 == times
}
