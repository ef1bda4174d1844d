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

use common::ops::Level;
use common::{env_number, start};
use onceonly::ManualClock;
use onceonly::sim::SimDisk;

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

/// What the kernel could not write back is not relied on: by the store that runs, and by the next.
#[test]
fn a_failed_write_back_is_not_taken_for_done() {
    for seed in runs() {
        Level::ALL.into_iter().for_each(|level| crash::after_a_failed_write_back(level, seed));
    }
}

/// Promise 1: pages that the kernel could not write back are gone, and it has forgotten the error too.
/// A key that was forgotten stays so: the log counts the tombstones of the journal.
#[test]
fn a_forgotten_key_stays_forgotten_without_the_pages_that_say_so() {
    for keys in 1..60 {
        for level in Level::ALL {
            let (disk, clock) = (SimDisk::new(), ManualClock::new(start()));
            let store = script::builder(level, &clock).open_simulated(&disk).unwrap();
            let keys: Vec<String> = (0..keys).map(|n| format!("key-{n}")).collect();
            store.observe_batch(&keys).unwrap();
            for (number, key) in keys.iter().enumerate() {
                // What the journal counts itself may be as old as its last sync.
                if number > 0 && number == keys.len() / 2 {
                    store.sync().unwrap();
                }
                assert!(store.forget(key).unwrap());
            }
            disk.fail_write_back(keys.len() as u64);
            let disk = disk.snapshot().after_kill();
            disk.drop_caches();
            disk.drop_inodes();
            let store = script::builder(level, &clock).open_simulated(&disk).unwrap();
            let live = store.contains_batch(&keys).unwrap();
            assert!(!live.contains(&true), "{level:?}, {} keys: a false duplicate", keys.len());
        }
    }
}

/// Nothing panics, an error marks nothing, what was acknowledged stays, and the store goes on when
/// the disk does.
#[test]
fn any_call_may_fail() {
    for seed in runs() {
        Level::ALL.into_iter().for_each(|level| crash::after_a_failing_call(level, seed));
    }
}
