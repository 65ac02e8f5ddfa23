//! The command line: one file a command. Reads arguments, calls the layer that decides, prints, maps to exit codes.

/// Prints a line to stdout. Whoever read it may have gone (`| head`): the command still does its work.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod args;
mod generate;
mod init;
mod interrupt;
mod open;
mod selection;
pub mod output;
mod plan;
mod query;
mod run;
mod runs;
mod schema;
mod serve;
mod show;
mod status;
mod test;
mod up;
mod validate;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::error::Result;
use crate::limits;
use args::{Cli, Command};

/// Exit code of a command that ran to its end.
pub(crate) type Exit = u8;

/// Parses `args`, runs the command, and returns the exit code of DESIGN's table.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Printing fails only where the terminal is gone; there is nobody to tell then.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    crate::telemetry::init(cli.global.log_format.into(), cli.global.verbose);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(limits::THREAD_STACK_BYTES).build();
    let code = match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(execute(cli));
            // All is told. What was left in the middle is cut off below, and Delta's threads panic at that.
            std::panic::set_hook(Box::new(|_| {}));
            // Threads that are left alone die amid the process's own end, at times by a segfault; detached reads of a dropped query must
            // not hold it for long.
            runtime.shutdown_timeout(limits::THREADS_END);
            code
        }
        Err(error) => {
            eprintln!("error: can't start the runtime: {error}");
            3
        }
    };
    ExitCode::from(code)
}

async fn execute(cli: Cli) -> Exit {
    let global = cli.global;
    let result: Result<Exit> = match cli.command {
        Command::Init(args) => init::execute(&args),
        Command::Validate(args) => validate::execute(&global, &args).await,
        Command::Show(args) => show::execute(&global, &args).await,
        Command::Plan(args) => plan::execute(&global, &args).await,
        Command::Run(args) => run::execute(&global, &args).await,
        Command::Query(args) => query::execute(&global, &args).await,
        Command::Up(args) => up::execute(&global, &args).await,
        Command::Serve(args) => serve::execute(&global, &args).await,
        Command::Test(args) => test::execute(&global, &args).await,
        Command::Verify(args) => verify::execute(&global, &args).await,
        Command::Runs(args) => runs::execute(&global, &args).await,
        Command::Status(args) => status::execute(&global, &args).await,
        Command::Generate(args) => generate::execute(&args),
        Command::Schema => schema::execute(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        error.exit_code()
    })
}
