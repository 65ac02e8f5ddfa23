//! Runs canonical plans and compares relations. Knows no connector and no warehouse.

pub mod diff;
pub mod execute;
mod failure;
pub mod runtime;

pub use diff::{Changes, diff};
pub use execute::{Execution, RowStream, execute, execute_merged};
pub use failure::failure;
pub use runtime::{default_memory_bytes, runtime};
