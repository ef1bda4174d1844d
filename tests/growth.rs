//! Promise 5, "the window never shrinks silently": more keys than planned stay exact, and a hard
//! limit is an error, never an eviction.

mod common;

use std::time::Duration;

use common::start;
use onceonly::{Builder, Claim, Dedup, Error, ManualClock, Verdict};
use tempfile::TempDir;

const WINDOW: Duration = Duration::from_secs(60);
const BATCH: u64 = 500;

fn builder(clock: &ManualClock) -> Builder {
    Dedup::builder().window(WINDOW).slices(6).clock(clock.clone())
}

fn clock() -> ManualClock {
    ManualClock::new(start())
}

fn key(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

fn observe_range(store: &Dedup, range: std::ops::Range<u64>) -> Vec<Verdict> {
    let keys: Vec<_> = range.map(key).collect();
    let mut all = Vec::with_capacity(keys.len());
    for batch in keys.chunks(BATCH as usize) {
        all.extend(store.observe_batch(batch).unwrap());
    }
    all
}

fn count(verdicts: &[Verdict], wanted: Verdict) -> u64 {
    verdicts.iter().filter(|verdict| **verdict == wanted).count() as u64
}

/// Marks `total` keys within one window, then asks for every one of them and for as many others.
fn grow(store: &Dedup, clock: &ManualClock, total: u64) {
    let steps = 10;
    for step in 0..steps {
        let range = step * total / steps..(step + 1) * total / steps;
        let verdicts = observe_range(store, range.clone());
        assert_eq!(count(&verdicts, Verdict::New), range.end - range.start, "false duplicates");
        clock.advance(WINDOW / 10 - Duration::from_nanos(1));
        let again = observe_range(store, range.start..range.start + total / 100);
        assert_eq!(count(&again, Verdict::New), 0, "false new in the middle of growth");
    }
    assert_eq!(count(&observe_range(store, 0..total), Verdict::New), 0, "false new");
    let fresh = observe_range(store, total..total + total / 10);
    assert_eq!(count(&fresh, Verdict::Duplicate), 0, "false duplicates");
}

/// Promises 1, 2, 5 at ten times the plan, in memory.
#[test]
fn ten_times_the_expected_keys_stay_exact() {
    let clock = clock();
    let store = builder(&clock).expected_keys(10_000).in_memory().unwrap();
    grow(&store, &clock, 100_000);
    store.settle();
    assert_eq!(count(&observe_range(&store, 0..110_000), Verdict::New), 0);
}

/// Promises 1, 2, 5 at a hundred times the plan, on disk and across a restart.
#[test]
fn a_hundred_times_the_expected_keys_stay_exact_across_a_restart() {
    let (dir, clock) = (TempDir::new().unwrap(), clock());
    let open = || builder(&clock).expected_keys(2_000).open(dir.path()).unwrap();
    let store = open();
    grow(&store, &clock, 200_000);
    drop(store);
    let store = open();
    assert_eq!(count(&observe_range(&store, 0..220_000), Verdict::New), 0, "false new");
    let fresh = observe_range(&store, 220_000..240_000);
    assert_eq!(count(&fresh, Verdict::Duplicate), 0, "false duplicates");
    store.settle();
    let stats = store.stats();
    assert_eq!(stats.filters_rebuilding, 0);
    assert!(stats.filter_capacity >= 200_000, "sized for {}", stats.filter_capacity);
}

/// Bytes of the largest segment of the journal.
fn segment_bytes(dir: &std::path::Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let segments = files.filter(|file| file.file_name().to_string_lossy().starts_with("journal-"));
    segments.map(|file| file.metadata().unwrap().len()).max().unwrap()
}

/// A large store with the segments of a small one would seal all the time; also after a restart.
#[test]
fn segments_grow_with_the_filter() {
    let (dir, clock) = (TempDir::new().unwrap(), clock());
    let open = || builder(&clock).expected_keys(10_000).open(dir.path()).unwrap();
    let store = open();
    store.settle();
    let planned = segment_bytes(dir.path());
    grow(&store, &clock, 300_000);
    store.settle();
    let grown = segment_bytes(dir.path());
    assert!(grown > planned, "{grown} bytes, planned were {planned}");
    drop(store);
    let store = open();
    store.settle();
    let again = segment_bytes(dir.path());
    assert!(again > planned, "{again} bytes, planned were {planned}");
}

/// Promise 5: the limit is exact, and nothing that lives is evicted for it.
#[test]
fn a_hard_limit_refuses_exactly_the_first_key_past_it() {
    for shards in [1, 8] {
        let clock = clock();
        let store = builder(&clock).max_keys(1_000).shards(shards).in_memory().unwrap();
        for number in 0..1_000 {
            assert_eq!(store.observe(key(number)).unwrap(), Verdict::New);
        }
        for number in 1_000..1_100 {
            let refused = store.observe(key(number));
            assert!(matches!(refused, Err(Error::Full { max_keys: 1_000 })), "{refused:?}");
            assert!(!store.contains(key(number)).unwrap(), "marked by an Err");
        }
        assert_eq!(count(&observe_range(&store, 0..1_000), Verdict::New), 0, "evicted");
        assert_eq!(store.stats().keys_live, 1_000);
    }
}

/// Promise 9: a batch reserves its space before the first mark.
#[test]
fn a_batch_that_would_pass_the_limit_marks_nothing() {
    let clock = clock();
    let store = builder(&clock).max_keys(100).in_memory().unwrap();
    assert_eq!(count(&observe_range(&store, 0..90), Verdict::New), 90);
    let keys: Vec<_> = (80..120).map(key).collect();
    let failed = store.observe_batch(&keys).unwrap_err();
    assert!(matches!(failed.error(), Error::Full { max_keys: 100 }));
    assert!(!failed.into_parts().0.contains(&Some(Verdict::New)), "marked by an Err");
    let live = store.contains_batch(&keys).unwrap();
    assert_eq!(live.iter().filter(|live| **live).count(), 10, "only 80 to 89 were marked");
    // Exactly what is left fits, repeated and known keys not counted.
    let fitting: Vec<_> = (85..100).chain(90..100).map(key).collect();
    let verdicts = store.observe_batch(&fitting).unwrap();
    assert_eq!(count(&verdicts, Verdict::New), 10);
    assert!(matches!(store.observe(key(100)), Err(Error::Full { .. })));
}

/// A full store goes on answering for what it holds, in every call.
#[test]
fn a_full_store_still_answers_for_its_keys() {
    let clock = clock();
    let store = builder(&clock).max_keys(10).in_memory().unwrap();
    assert_eq!(count(&observe_range(&store, 0..10), Verdict::New), 10);
    assert_eq!(count(&observe_range(&store, 0..10), Verdict::Duplicate), 10);
    assert!(matches!(store.claim(key(3)).unwrap(), Claim::Duplicate { .. }));
    let Claim::Granted(guard) = store.claim(key(10)).unwrap() else { panic!("not granted") };
    let (guard, error) = guard.commit().unwrap_err().into_parts();
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    guard.abandon();
    assert!(!store.contains(key(10)).unwrap());
}

/// Room comes back when keys expire, without anybody's help, on disk as in memory.
#[test]
fn room_returns_after_expiry() {
    let (dir, clock) = (TempDir::new().unwrap(), clock());
    let stores = [
        builder(&clock).max_keys(500).open(dir.path()).unwrap(),
        builder(&clock).max_keys(500).in_memory().unwrap(),
    ];
    for round in 0..5 {
        let first = round * 1_000;
        for store in &stores {
            assert_eq!(count(&observe_range(store, first..first + 500), Verdict::New), 500);
            assert!(matches!(store.observe(key(first + 500)), Err(Error::Full { .. })));
        }
        clock.advance(WINDOW + WINDOW / 6);
    }
}

/// The limit may be raised or lowered on reopening; lowering evicts nothing.
#[test]
fn the_limit_may_change_on_reopening() {
    let (dir, clock) = (TempDir::new().unwrap(), clock());
    let open = |limit| builder(&clock).max_keys(limit).open(dir.path()).unwrap();
    let store = open(100);
    assert_eq!(count(&observe_range(&store, 0..100), Verdict::New), 100);
    drop(store);
    let store = open(150);
    assert_eq!(count(&observe_range(&store, 0..150), Verdict::New), 50);
    assert!(matches!(store.observe(key(150)), Err(Error::Full { max_keys: 150 })));
    drop(store);
    let store = open(50);
    assert!(matches!(store.observe(key(150)), Err(Error::Full { max_keys: 50 })));
    assert_eq!(count(&observe_range(&store, 0..150), Verdict::Duplicate), 150, "evicted");
}

/// Forgotten keys make room, and keys that came again count once, also after a restart.
#[test]
fn forgotten_keys_do_not_count_against_the_limit_after_a_restart() {
    let (dir, clock) = (TempDir::new().unwrap(), clock());
    let open = || builder(&clock).max_keys(100).open(dir.path()).unwrap();
    let store = open();
    assert_eq!(count(&observe_range(&store, 0..100), Verdict::New), 100);
    for number in 0..60 {
        assert!(store.forget(key(number)).unwrap());
    }
    assert_eq!(count(&observe_range(&store, 0..10), Verdict::New), 10);
    assert_eq!(store.stats().keys_live, 50);
    for round in 1..=3 {
        store.close().unwrap();
        let store = open();
        assert_eq!(store.stats().keys_live, 50, "after {round} restarts");
    }
    let store = open();
    for number in 1_000..1_050 {
        assert_eq!(store.observe(key(number)).unwrap(), Verdict::New, "room for {number}");
    }
    assert!(matches!(store.observe(key(2_000)), Err(Error::Full { max_keys: 100 })));
    assert_eq!(count(&observe_range(&store, 60..100), Verdict::Duplicate), 40);
}

/// `observe_batch` takes batches of any size, also far larger than the plan.
#[test]
fn one_batch_may_be_larger_than_the_plan() {
    let clock = clock();
    let store = builder(&clock).expected_keys(100).in_memory().unwrap();
    let keys: Vec<_> = (0..50_000).map(key).collect();
    assert_eq!(count(&store.observe_batch(&keys).unwrap(), Verdict::New), 50_000);
    assert_eq!(count(&store.observe_batch(&keys).unwrap(), Verdict::Duplicate), 50_000);
    assert_eq!(store.observe_batch::<&[u8]>(&[]).unwrap(), []);
}
