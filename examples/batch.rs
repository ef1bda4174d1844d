//! Batches: a table of real flights, 256 rows at a time, with a key of several fields.
//!
//! `cargo run --example batch`

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use onceonly::{Dedup, Key, Verdict};

/// carrier, flight, tailnum, origin, dest
const COLUMNS: std::ops::Range<usize> = 9..14;
const BATCH: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/flights.csv");
    let table = fs::read_to_string(file)?;
    let dedup = Dedup::builder()
        .window(Duration::from_secs(24 * 3600))
        .expected_keys(20_000)
        .in_memory()?;

    let rows: Vec<&str> = table.lines().skip(1).collect();
    // Both vectors are used again for each batch.
    let (mut keys, mut verdicts) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    let (mut new, mut duplicate) = (0, 0);
    for batch in rows.chunks(BATCH) {
        keys.clear();
        keys.extend(batch.iter().map(|row| {
            let fields: Vec<&[u8]> = row.split(',').map(str::as_bytes).collect();
            Key::from_fields(&fields[COLUMNS])
        }));
        dedup.observe_batch_into(&keys, &mut verdicts)?;
        for verdict in &verdicts {
            match verdict {
                Verdict::New => new += 1,
                Verdict::Duplicate => duplicate += 1,
                Verdict::TooOld => {}
            }
        }
    }
    writeln!(io::stdout(), "rows {} new {new} duplicate {duplicate}", rows.len())?;
    Ok(())
}
