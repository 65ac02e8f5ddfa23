//! The `tidemill` binary.

use std::process::ExitCode;

/// What is freed goes back to the system within seconds, whichever thread took it: `up` works for days with buffers of all sizes.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tidemill::cli::run(std::env::args_os())
}
