//! A project at work: leases, commits, followers, refreshes, history.

mod clocks;
pub mod commit;
mod due;
mod durable;
mod failing;
pub mod follow;
pub mod history;
mod key_filters;
mod last;
pub mod lease;
pub mod listing;
mod looks;
pub mod metrics;
pub mod outlook;
pub mod preview;
pub mod process;
pub mod project;
mod publishing;
pub mod reader;
pub mod refresh;
pub mod schedule;
mod sinking;
mod sinks;
mod stream_test;
mod synced;
pub mod unit_test;
pub mod up;
pub mod verify;
mod version;
mod watermark;

pub use crate::failpoint;
