//! `onceonly plan`: what a rate and a window take, before anything is written.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use onceonly::Dedup;

use crate::args::PlanArgs;
use crate::output;
use crate::setup::Usage;
use crate::units;

pub(crate) fn run(args: &PlanArgs) -> Result<()> {
    let keys = args.rate.keys_per_second * args.window.as_secs_f64();
    // The library's own limit is far below, so nothing is lost by the conversion.
    if keys > u64::MAX as f64 {
        return Err(Usage(format!("{keys:e} keys are more than any store can hold")).into());
    }
    let keys = (keys.ceil() as u64).max(1);
    let plan = Dedup::builder().window(args.window).expected_keys(keys).plan()?;
    let apart = Duration::from_secs_f64(1.0 / args.rate.keys_per_second);
    let measured = measure(keys)?;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} keys within {}, one every {}",
        units::grouped(keys),
        units::duration(args.window),
        units::short_duration(apart),
    );
    let _ = writeln!(text, "{}", plan.to_string().trim_end());
    let _ = writeln!(
        text,
        "time: {} a new key, {:.2} % of one core (measured now on this machine, in memory, with {} \
         live keys; more of them take longer)",
        units::short_duration(measured.per_key),
        measured.per_key.as_secs_f64() * args.rate.keys_per_second * 100.0,
        units::grouped(measured.keys),
    );
    output::print(&text)
}

struct Measured {
    keys: u64,
    per_key: Duration,
}

/// Takes a fraction of a second, and is large enough not to fit into small caches.
const MEASURED_KEYS: u64 = 2_000_000;
const BATCH_LEN: u64 = 256;

/// What a new key costs this machine: the filling of a store in memory.
fn measure(planned_keys: u64) -> Result<Measured> {
    let keys = planned_keys.clamp(BATCH_LEN, MEASURED_KEYS).next_multiple_of(BATCH_LEN);
    let store =
        Dedup::builder().window(Duration::from_secs(3600)).expected_keys(keys).in_memory()?;
    let mut verdicts = Vec::new();
    let started = Instant::now();
    for first in (0..keys).step_by(BATCH_LEN as usize) {
        let batch: Vec<[u8; 8]> = (first..first + BATCH_LEN).map(u64::to_le_bytes).collect();
        store.observe_batch_into(&batch, &mut verdicts)?;
    }
    let per_key = started.elapsed().div_f64(keys as f64);
    store.close()?;
    Ok(Measured { keys, per_key })
}
