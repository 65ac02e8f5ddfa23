//! Which process did something, and whether it is still there. Knows nothing of leases and runs.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// A process, told apart from a later one that got the same id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Host name; in a container with the container's own process ids, so that two never look like one.
    pub host: String,
    /// Process id on that host.
    pub pid: u32,
    /// When the process began, seconds since 1970 UTC.
    pub started_at_s: u64,
}

impl ProcessId {
    /// This process.
    pub fn current() -> Self {
        static CURRENT: OnceLock<ProcessId> = OnceLock::new();
        let current = || {
            let pid = std::process::id();
            ProcessId { host: host(), pid, started_at_s: started_at_s(pid).unwrap_or_default() }
        };
        CURRENT.get_or_init(current).clone()
    }

    /// Whether the process is known to be gone. Of another host nothing is known: false.
    pub fn is_dead(&self) -> bool {
        if self.host != Self::current().host {
            return false;
        }
        started_at_s(self.pid).is_none_or(|started| started.abs_diff(self.started_at_s) > 1)
    }
}

fn host() -> String {
    let name = System::host_name().unwrap_or_else(|| "localhost".to_owned());
    match std::fs::read_link("/proc/self/ns/pid") {
        Ok(namespace) => format!("{name} {}", namespace.display()),
        Err(_) => name,
    }
}

/// None if there is no such process. The system's start times differ by a second between looks, as they count from boot.
fn started_at_s(pid: u32) -> Option<u64> {
    let pid = Pid::from_u32(pid);
    let mut system = System::new();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, ProcessRefreshKind::nothing());
    let process = system.process(pid)?;
    (process.status() != sysinfo::ProcessStatus::Zombie).then(|| process.start_time())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_a_finished_one_does_not() {
        let current = ProcessId::current();
        assert!(!current.is_dead());
        assert!(
            ProcessId { started_at_s: current.started_at_s - 100, ..current.clone() }.is_dead(),
            "another of that id"
        );
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let gone = ProcessId { pid: child.id(), ..current.clone() };
        child.wait().unwrap();
        assert!(gone.is_dead());
        assert!(!ProcessId { host: "elsewhere".into(), ..gone }.is_dead(), "nothing is known of other hosts");
    }
}
