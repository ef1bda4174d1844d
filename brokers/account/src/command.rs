//! The command line that all examples have.

use std::env;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::broker::{Broker, Consume};
use crate::campaign::{self, Options};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send messages and repetitions, kill the consumer at random, and account for all effects.
    Campaign {
        #[command(flatten)]
        options: Options,
        #[arg(long)]
        server: Option<String>,
    },
    /// Processor time of a consumer, and the engine's part of it.
    Measure {
        #[arg(long, default_value_t = 100_000)]
        messages: u64,
        #[arg(long)]
        server: Option<String>,
        /// The process of the server, if it is on this machine: its processor time is told too.
        #[arg(long)]
        server_pid: Option<u32>,
    },
    /// The consumer alone; the other commands start it.
    Consume(Consume),
}

/// Runs an example.
pub fn main<B: Broker>() -> Result<()> {
    let exe = env::current_exe()?;
    let or_default = |server: Option<String>| server.unwrap_or_else(|| B::SERVER.to_owned());
    match Cli::parse().command {
        Command::Campaign { options, server } => {
            let report = campaign::campaign::<B>(&exe, &or_default(server), &options)?;
            println!("seed {} {report}", options.seed);
            report.check()
        }
        Command::Measure { messages, server, server_pid } => {
            campaign::measure::<B>(&exe, &or_default(server), messages, server_pid)
        }
        Command::Consume(consume) => B::consume(&consume),
    }
}
