//! The `tidemill` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidemill::cli::run(std::env::args_os())
}
