use std::env;

use anyhow::Result;
use clap::{Parser, Subcommand};
use onceonly_saga::{Options, Work, campaign, work};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Take and cancel orders, kill the workers at random, and check that all adds up.
    Campaign(Options),
    /// The workers alone; a campaign starts and kills them.
    Work(Work),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Campaign(options) => {
            let report = campaign(&env::current_exe()?, &options)?;
            println!("seed {} {report}", options.seed);
            report.check()
        }
        Command::Work(arguments) => work(&arguments),
    }
}
