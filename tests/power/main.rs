//! Power loss and failing disks, simulated: promises 1, 2, 6, 8 and 9 at every durability level. A
//! workload runs on a disk that remembers what was synced; at any call, an image is made of what is
//! in memory and what is on the disk; many mixes of the two are opened, and every key is asked for.
//!
//! `ONCEONLY_POWER_RUNS` (default 30 a test) and `ONCEONLY_SEED` scale it.

#[path = "../common/mod.rs"]
mod common;
mod crash;
mod judge;
mod script;

use common::env_number;
use common::ops::Level;

const MIXES: u64 = 20;

fn runs() -> impl Iterator<Item = u64> {
    let first = env_number("ONCEONLY_SEED", 1) * 1_000_000;
    first..first + env_number("ONCEONLY_POWER_RUNS", 30)
}

#[test]
fn process_survives_kills_and_tells_what_power_loss_took() {
    runs().for_each(|seed| crash::at_any_call(Level::Process, seed, MIXES));
}

#[test]
fn interval_survives_kills_and_tells_what_power_loss_took() {
    runs().for_each(|seed| crash::at_any_call(Level::Interval, seed, MIXES));
}

#[test]
fn sync_loses_nothing_to_power_loss() {
    runs().for_each(|seed| crash::at_any_call(Level::Sync, seed, MIXES));
}

#[test]
fn recovery_may_be_interrupted() {
    runs().for_each(|seed| crash::during_recovery(seed, MIXES));
}

/// Nothing panics, an error marks nothing, what was acknowledged stays, and the store goes on when
/// the disk does.
#[test]
fn any_call_may_fail() {
    for seed in runs() {
        Level::ALL.into_iter().for_each(|level| crash::after_a_failing_call(level, seed));
    }
}
