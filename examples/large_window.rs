//! A window of a billion keys: how fast new keys go in, every five seconds, with a filter of gigabytes
//! (`docs/operations.md`). The first seconds are slow, while the kernel clears its memory.
//!
//! `cargo run --release --example large_window -- DIR 1000000000`

use std::error::Error;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use onceonly::Dedup;

const BATCH: u64 = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("the first argument is a directory for the store")?;
    let keys: u64 = args.next().ok_or("the second one is the number of keys")?.parse()?;

    let window = Duration::from_secs(3600);
    let dedup = Dedup::builder().window(window).expected_keys(keys).open(dir)?;
    let mut out = io::stdout();
    let stats = dedup.stats();
    let place = if stats.filters_in_memory > 0 { "in memory" } else { "in a file" };
    writeln!(out, "memory {} MB, the filter {place}", stats.memory_bytes / 1_000_000)?;
    let (begin, mut number) = (Instant::now(), 0);
    for seconds in (5..=25).step_by(5) {
        while begin.elapsed() < Duration::from_secs(seconds) {
            let batch: Vec<_> = (number..number + BATCH).map(u64::to_le_bytes).collect();
            dedup.observe_batch(&batch)?;
            number += BATCH;
        }
        writeln!(out, "after {seconds} s: {number} keys")?;
    }
    dedup.close()?;
    Ok(())
}
