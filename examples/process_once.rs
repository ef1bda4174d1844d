//! At least once, deduplicated: a handler that fails, a redelivery, a repetition.
//!
//! `cargo run --example process_once`

use std::error::Error;
use std::io::{self, Write};
use std::time::Duration;

use onceonly::{Dedup, Outcome, ProcessError};

/// The work. One delivery comes at a bad moment.
fn book(delivery: usize) -> Result<usize, io::Error> {
    match delivery {
        1 => Err(io::Error::other("the database is restarting")),
        _ => Ok(delivery),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let mut out = io::stdout().lock();
    let dedup = Dedup::builder()
        .window(Duration::from_secs(3600))
        .lease(Duration::from_secs(30))
        .open(dir.path().join("orders-0"))?;

    // What a queue that promises "at least once" delivers.
    let deliveries = ["order-1001", "order-1002", "order-1001", "order-1002", "order-1002"];
    for (delivery, id) in deliveries.into_iter().enumerate() {
        match dedup.process_once(id, |_claim| book(delivery)) {
            Ok(Outcome::Done(booking)) => writeln!(out, "{id}: done, booking {booking}: ack")?,
            Ok(Outcome::Duplicate { .. }) => writeln!(out, "{id}: done before: ack")?,
            Ok(Outcome::InFlight { lease_left, .. }) => {
                writeln!(out, "{id}: another consumer has it: retry in {lease_left:?}")?;
            }
            Ok(Outcome::Uncommitted { error, .. }) => {
                writeln!(out, "{id}: done, but not marked ({error}): it may come again")?;
            }
            // Nothing is marked, so the redelivery is granted.
            Err(ProcessError::Work(error)) => writeln!(out, "{id}: failed ({error}): nack")?,
            Err(error) => return Err(error.into()),
        }
    }
    dedup.close()?;
    Ok(())
}
