//! Stores that refresh on duplicates: whoever meets one, how often it is recorded, what it counts.

mod common;

use std::time::Duration;

use common::start;
use onceonly::{Builder, Claim, Dedup, Error, ManualClock, Timestamp, Verdict};
use tempfile::TempDir;

/// A window of 60 s in slices of 10 s.
fn builder(clock: &ManualClock) -> Builder {
    Dedup::builder()
        .window(Duration::from_secs(60))
        .slices(6)
        .refresh_on_duplicate(true)
        .clock(clock.clone())
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Promise 4: a claim that answers `Duplicate` refreshes as an observation does, once per slice.
#[test]
fn a_claim_of_a_duplicate_refreshes_it() {
    let clock = ManualClock::new(start());
    let store = builder(&clock).in_memory().unwrap();
    for key in ["one", "batch"] {
        assert_eq!(store.observe(key).unwrap(), Verdict::New);
    }
    clock.advance(seconds(50));
    for _ in 0..3 {
        assert!(matches!(store.claim("one").unwrap(), Claim::Duplicate { .. }));
        let claims = store.claim_batch(&["batch"]).unwrap();
        assert!(matches!(claims[0], Claim::Duplicate { .. }));
    }
    assert_eq!(store.stats().refreshed, 2, "once per key and slice");
    clock.advance(seconds(60));
    assert!(store.contains("one").unwrap() && store.contains("batch").unwrap());
    clock.advance(seconds(11));
    assert!(!store.contains("one").unwrap() && !store.contains("batch").unwrap());
}

/// The same in event time: from the timestamp of the claim on.
#[test]
fn a_claim_in_event_time_refreshes_at_its_timestamp() {
    let clock = ManualClock::new(start());
    let store = builder(&clock).event_time(true).max_event_lead(seconds(3600)).in_memory().unwrap();
    let at = |seconds: i64| {
        Timestamp::from_unix_nanos(
            Timestamp::from(start()).as_unix_nanos() + seconds * 1_000_000_000,
        )
    };
    assert_eq!(store.observe_at("a", at(0)).unwrap(), Verdict::New);
    assert!(matches!(store.claim_at("a", at(50)).unwrap(), Claim::Duplicate { .. }));
    assert_eq!(store.stats().refreshed, 1);
    assert_eq!(store.observe_at("later", at(100)).unwrap(), Verdict::New);
    assert!(store.contains("a").unwrap());
    assert!(matches!(store.claim_at("a", at(45)).unwrap(), Claim::Duplicate { .. }));
    assert_eq!(store.stats().refreshed, 1, "an older timestamp refreshes nothing");
}

const KEYS: u32 = 6_000;
const MAX: u32 = 7_000;

fn observe_all(store: &Dedup, keys: std::ops::Range<u32>, expected: Verdict) {
    let keys: Vec<_> = keys.map(u32::to_le_bytes).collect();
    let verdicts = store.observe_batch(&keys).unwrap();
    assert!(verdicts.iter().all(|verdict| *verdict == expected));
}

/// Promises 5 and 11: a key counts once against the hard limit, however often it was refreshed,
/// also when it is read back from files, sealed or not.
#[test]
fn a_refreshed_key_counts_once_also_after_a_restart() {
    for slices_between in [1, 2] {
        let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(start()));
        let builder = builder(&clock).max_keys(MAX.into()).expected_keys(MAX.into());
        let mut store = builder.clone().open(dir.path()).unwrap();
        observe_all(&store, 0..KEYS, Verdict::New);
        for _ in 0..3 {
            store.settle();
            clock.advance(seconds(10 * slices_between));
            observe_all(&store, 0..KEYS, Verdict::Duplicate);
            assert_eq!(store.stats().keys_live, KEYS.into());
            drop(store);
            store = builder.clone().open(dir.path()).unwrap();
            assert_eq!(store.stats().keys_live, KEYS.into());
        }
        let sealed: u64 = store.stats().slices.iter().map(|slice| slice.sealed_keys).sum();
        assert!(sealed > u64::from(MAX), "the test has to reach sealed parts: {sealed}");
        // There is room for so many more, and for no other.
        observe_all(&store, KEYS..MAX, Verdict::New);
        assert!(matches!(store.observe("one more"), Err(Error::Full { .. })));
        assert_eq!(store.observe(0_u32.to_le_bytes()).unwrap(), Verdict::Duplicate);
        // What expires gives its room back, once.
        clock.advance(seconds(100));
        assert_eq!(store.stats().keys_live, 0);
        observe_all(&store, 0..MAX, Verdict::New);
        assert!(matches!(store.observe("one more"), Err(Error::Full { .. })));
    }
}
