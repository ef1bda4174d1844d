//! The command `onceonly`: exact deduplication of streams and files, and a look into stores.
//!
//! Data goes to stdout, everything else to stderr. Exit code 0 on success, 1 on failure, 2 on wrong
//! usage; a reader that closes the pipe ends the command quietly.

mod args;
mod bench;
mod count;
mod decide;
mod dedup;
mod input;
mod offline;
mod output;
mod plan;
mod progress;
mod reader;
mod recent;
mod record;
mod setup;
mod timestamp;
mod transfer;
mod units;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, Command};
use crate::output::StdoutClosed;
use crate::setup::Usage;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout, where a closed pipe is no failure.
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    let done = match &cli.command {
        Command::Dedup(args) => dedup::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Inspect(args) => offline::inspect(args),
        Command::Verify(args) => offline::verify(args),
        Command::Explain(args) => offline::explain(args),
        Command::Forget(args) => offline::forget(args),
        Command::Export(args) => transfer::export(args),
        Command::Import(args) => transfer::import(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<StdoutClosed>() => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "onceonly: {}", chain(&error));
            if is_usage(&error) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// A setting that the library refuses came from the command line.
fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<Usage>()
        || error
            .chain()
            .any(|cause| matches!(cause.downcast_ref(), Some(onceonly::Error::Config { .. })))
}

/// The error and its causes on one line; a cause that the message before it ends with is not said
/// twice.
fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            let _ = write!(text, ": {cause}");
        }
    }
    text
}
