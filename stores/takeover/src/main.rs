//! Owners of a space under `Ownership::Exclusive`, in processes that are killed, frozen or closed at random;
//! each next one goes on in the same directory or takes over in another, and is asked for what the ones
//! before had acknowledged.
//!
//! ```sh
//! cargo run --release -p onceonly-takeover -- campaign --kills 500 --seed 1
//! cargo run --release -p onceonly-takeover -- campaign --kills 500 --seed 1 --server redis://127.0.0.1:6379
//! ```
//!
//! The authority is an SQLite file unless a Redis server is named. `--lie forgets-holes` judges as if no owner
//! had ever said that something may be missing, which shows that the campaign would notice.
#![expect(clippy::print_stdout, reason = "a command reports on standard output")]
#![allow(missing_docs, reason = "a command, not a library")]

mod args;
mod book;
mod campaign;
mod judge;
mod owner;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let args = args::Args::parse(words)?;
    match command.as_str() {
        "campaign" => campaign::run(&args),
        "owner" => owner::run(&args),
        other => bail!("no command {other:?}: campaign"),
    }
}
