//! Simulated crash images, with the judge of `tests/power`.

use std::time::Instant;

use anyhow::Result;

use crate::args::Args;
use crate::common::ops::Level;
use crate::crash;

/// Power losses of one image.
const MIXES: u64 = 100;

pub(crate) fn run(args: &Args) -> Result<()> {
    let (runs, seed) = (args.number::<u64>("runs", 10)?, args.number::<u64>("seed", 1)?);
    let first = seed * 1_000_000_000;
    let started = Instant::now();
    for run in first..first + runs {
        for level in Level::ALL {
            crash::at_any_call(level, run, MIXES);
            crash::after_a_failing_call(level, run);
            crash::after_a_failed_write_back(level, run);
        }
        crash::during_recovery(run, MIXES);
    }
    // A kill and the mixes at each level, two crashes before and after the fault, and before and after
    // memory was short, two a recovery.
    let images = runs * (3 * (1 + MIXES) + 3 * 4 + 3 * 4 + 2 * MIXES);
    println!(
        "images: {images} crash images, {} failing calls, seed {seed}, 0 lost, 0 false; {:.0} s",
        runs * 3,
        started.elapsed().as_secs_f64()
    );
    Ok(())
}
