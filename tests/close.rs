//! Closing on a disk that fails: nothing acknowledged is lost by it, and the next open tells.

mod common;

use std::io::ErrorKind;
use std::time::Duration;

use common::start;
use onceonly::sim::{Fault, SimDisk};
use onceonly::{Dedup, Error, ManualClock, Timestamp, Verdict};

const KEYS: u64 = 300;

fn open(disk: &SimDisk, clock: &ManualClock) -> Dedup {
    let builder = Dedup::builder().window(Duration::from_secs(60)).expected_keys(1_000);
    builder.clock(clock.clone()).open_simulated(disk).unwrap()
}

/// What the next open tells of a close whose call number `at` failed, once or for ever; `None` when
/// the close made fewer calls.
fn closed_with_fault(at: u64, for_ever: bool, by_drop: bool) -> Option<(bool, Option<String>)> {
    let (disk, clock) = (SimDisk::new(), ManualClock::new(start()));
    let store = open(&disk, &clock);
    for key in 0..KEYS {
        assert_eq!(store.observe(key.to_le_bytes()).unwrap(), Verdict::New);
    }
    store.settle();
    let before = disk.calls();
    disk.set_fault(Some(Fault { at: before + at, for_ever, kind: ErrorKind::StorageFull }));
    let failed = if by_drop {
        drop(store);
        None
    } else {
        let closed = store.close();
        store.close().expect("closing again does nothing");
        Some(closed.is_err())
    };
    let was_made = disk.calls() >= before + at;
    disk.set_fault(None);
    let store = open(&disk, &clock);
    let keys: Vec<_> = (0..KEYS).map(u64::to_le_bytes).collect();
    assert_eq!(store.contains_batch(&keys).unwrap(), [true; KEYS as usize], "call {at}");
    let report = store.stats().recovery;
    let told = (report.clean_close, report.close_error);
    if let Some(failed) = failed {
        // When the manifest is there and only the sync of its name failed, it tells nothing.
        assert!(failed || told == (true, None), "call {at}: {told:?}");
    }
    was_made.then_some(told)
}

/// An error of `close` is told by `close`, one of the last handle's drop by the next open.
#[test]
fn the_next_open_tells_what_the_last_close_could_not_write() {
    for by_drop in [false, true] {
        for for_ever in [false, true] {
            let told = (1..).map_while(|at| closed_with_fault(at, for_ever, by_drop));
            let told: Vec<_> = told.collect();
            assert!(told.len() > 2, "a close makes only {} calls", told.len());
            assert!(told.iter().any(|(clean, error)| !clean || error.is_some()), "{told:?}");
            // A sync that failed is not repeated: its file is given up, and the close is clean.
            assert!(for_ever || told.iter().any(|(clean, _)| *clean), "{told:?}");
        }
    }
}

/// Where the journal can neither be synced nor sealed, `close` says so, and the next open tells it and
/// vouches for nothing of before.
#[test]
fn a_close_that_can_neither_sync_nor_seal_is_told() {
    let (disk, clock) = (SimDisk::new(), ManualClock::new(start()));
    let store = open(&disk, &clock);
    let keys: Vec<_> = (0..KEYS).map(u64::to_le_bytes).collect();
    assert_eq!(store.observe_batch(&keys).unwrap(), [Verdict::New; KEYS as usize]);
    store.settle();
    disk.fail_write_back(1);
    // Room for a manifest, not for a sealed file.
    disk.set_capacity(Some(store.stats().disk_bytes + 2_048));
    assert!(matches!(store.close(), Err(Error::Poisoned { .. })));
    drop(store);
    disk.set_capacity(None);
    clock.advance(Duration::from_secs(1));
    let store = open(&disk, &clock);
    let report = store.stats().recovery;
    assert!(!report.clean_close && !report.damage.is_empty(), "{report:?}");
    assert!(report.close_error.is_some_and(|error| !error.is_empty()));
    assert!(store.guaranteed_since() > Timestamp::from(start()));
    assert!(!store.stats().write_back_failed);
    assert!(!store.contains("fresh").unwrap());
}
