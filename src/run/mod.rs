//! A project at work: leases, commits, followers, refreshes, history.

pub mod commit;
pub mod failpoint;
pub mod follow;
pub mod history;
pub mod lease;
pub mod process;
