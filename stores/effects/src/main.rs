//! Exactly-once effects: consumers book messages in PostgreSQL, are killed at random places, and every
//! message is booked once, because the mark is in the transaction of the booking.
//!
//! ```sh
//! cargo run --release -p onceonly-effects -- campaign --kills 500 --seed 1 --consumers 8
//! cargo run --release -p onceonly-effects -- campaign --kills 500 --seed 1 --mark outside
//! ```
//!
//! The second marks after the transaction, as any other deduplicator does: then messages are booked
//! twice, which shows that the campaign would notice. The server is `--server`, a database in which a
//! schema may be made; the schema is dropped at the end.
#![expect(clippy::print_stdout, reason = "a command reports on standard output")]
#![allow(missing_docs, reason = "a command, not a library")]

mod args;
mod bank;
mod campaign;
mod consumer;
mod judge;
mod place;
mod store;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let args = args::Args::parse(words)?;
    match command.as_str() {
        "campaign" => campaign::run(&args),
        "consumer" => consumer::run(&args),
        other => bail!("no command {other:?}: campaign"),
    }
}
