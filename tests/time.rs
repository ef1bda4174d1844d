//! Promises 4, 6 and 10: how long a key is remembered, and what the store says it can vouch for.

mod common;

use std::path::Path;
use std::time::{Duration, SystemTime};

use common::start;
use onceonly::{Builder, Dedup, ManualClock, Timestamp, Verdict};
use tempfile::TempDir;

const NANOSECOND: Duration = Duration::from_nanos(1);
const WINDOW: Duration = Duration::from_secs(60);
const SLICE: Duration = Duration::from_secs(10);

fn builder(clock: &ManualClock) -> Builder {
    Dedup::builder().window(WINDOW).slices(6).clock(clock.clone())
}

fn open(dir: &Path, clock: &ManualClock) -> Dedup {
    builder(clock).open(dir).unwrap()
}

fn after(since: Duration) -> SystemTime {
    start() + since
}

fn is_new(store: &Dedup, key: &str) -> bool {
    store.observe(key).unwrap() == Verdict::New
}

/// Promise 4: at least `W`, at most `W + W / slices`, wherever in a slice the key came.
#[test]
fn a_key_lives_at_least_the_window_and_at_most_one_slice_more() {
    for slices in [1, 2, 6, 7, 8, 31, 63] {
        let slice = WINDOW.div_f64(f64::from(slices)) + NANOSECOND;
        for offset in [Duration::ZERO, NANOSECOND, slice / 2, slice - NANOSECOND * 2] {
            let clock = ManualClock::new(start());
            let store = builder(&clock).slices(slices).in_memory().unwrap();
            clock.advance(offset);
            assert!(is_new(&store, "a"));
            clock.advance(WINDOW);
            assert!(!is_new(&store, "a"), "{slices} slices, {offset:?}: forgotten too early");
            clock.advance(slice);
            assert!(is_new(&store, "a"), "{slices} slices, {offset:?}: remembered too long");
        }
    }
}

/// Promise 4: nobody has to ask or sweep in between; a store that slept for years has forgotten.
#[test]
fn expiry_is_decided_when_a_key_is_asked_for() {
    for sleep in [WINDOW + SLICE, WINDOW * 10, Duration::from_secs(86_400 * 3650)] {
        let clock = ManualClock::new(start());
        let store = builder(&clock).in_memory().unwrap();
        assert!(is_new(&store, "a"));
        clock.advance(sleep);
        assert!(!store.contains("a").unwrap());
        assert!(is_new(&store, "a"));
        clock.advance(WINDOW);
        assert!(!is_new(&store, "a"));
    }
}

/// Promise 4: a duplicate does not extend the window …
#[test]
fn a_duplicate_does_not_extend_the_window() {
    let clock = ManualClock::new(start());
    let store = builder(&clock).in_memory().unwrap();
    assert!(is_new(&store, "a"));
    for _ in 0..6 {
        clock.advance(SLICE);
        assert!(!is_new(&store, "a"));
    }
    clock.advance(SLICE);
    assert!(is_new(&store, "a"));
}

/// … unless the store refreshes on duplicates; then at most one record a slice is written for it.
#[test]
fn a_refreshing_store_extends_the_window_once_a_slice() {
    let clock = ManualClock::new(start());
    let store = builder(&clock).refresh_on_duplicate(true).in_memory().unwrap();
    assert!(is_new(&store, "a"));
    for _ in 0..30 {
        clock.advance(SLICE);
        for _ in 0..10 {
            assert!(!is_new(&store, "a"));
        }
    }
    let stats = store.stats();
    assert!((29..=31).contains(&stats.refreshed), "{} refreshes in 30 slices", stats.refreshed);
    assert!(stats.keys_live <= 7, "{} records of one key", stats.keys_live);
    clock.advance(WINDOW);
    assert!(store.contains("a").unwrap());
    clock.advance(SLICE);
    assert!(!store.contains("a").unwrap());
}

/// Promise 10: a restart on the same boot goes on; the time in between counts.
#[test]
fn a_restart_on_the_same_boot_goes_on() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(start()));
    let store = open(dir.path(), &clock);
    assert!(is_new(&store, "a"));
    clock.advance(WINDOW / 2);
    drop(store);
    clock.advance(WINDOW / 2);
    let store = open(dir.path(), &clock);
    assert!(!is_new(&store, "a"), "forgotten too early");
    drop(store);
    clock.advance(SLICE);
    assert!(is_new(&open(dir.path(), &clock), "a"), "remembered too long");
}

/// Promise 10: on the same boot the wall clock does not count, however wrong it is.
#[test]
fn a_restart_on_the_same_boot_ignores_the_wall_clock() {
    for leap in [-86_400_000_000, 86_400_000_000] {
        let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(start()));
        let store = open(dir.path(), &clock);
        assert!(is_new(&store, "a"));
        drop(store);
        clock.leap_wall(leap);
        clock.advance(WINDOW);
        let store = open(dir.path(), &clock);
        assert!(!is_new(&store, "a"));
        clock.advance(SLICE);
        assert!(is_new(&store, "a"));
    }
}

/// Promise 10: across a reboot the window advances by the wall clock.
#[test]
fn a_reboot_advances_by_the_wall_clock() {
    let dir = TempDir::new().unwrap();
    let clock = ManualClock::new(start());
    let store = open(dir.path(), &clock);
    assert!(is_new(&store, "a"));
    clock.advance(WINDOW / 2);
    assert!(is_new(&store, "b"));
    drop(store);

    let clock = ManualClock::new(after(WINDOW));
    let store = open(dir.path(), &clock);
    assert!(store.stats().recovery.rebooted);
    assert!(!is_new(&store, "a"), "exactly one window old");
    clock.advance(SLICE);
    assert!(is_new(&store, "a"));
    assert!(!is_new(&store, "b"));
    drop(store);

    let clock = ManualClock::new(after(WINDOW + WINDOW));
    let store = open(dir.path(), &clock);
    assert!(is_new(&store, "b"));
    assert!(!is_new(&store, "a"));
}

/// Promise 10: a wall clock behind the last recorded one advances by nothing, and does not prolong
/// more than that.
#[test]
fn a_reboot_with_the_wall_clock_behind_advances_by_nothing() {
    let dir = TempDir::new().unwrap();
    let clock = ManualClock::new(start());
    let store = open(dir.path(), &clock);
    assert!(is_new(&store, "a"));
    clock.advance(WINDOW / 2);
    drop(store);
    let clock = ManualClock::new(start() - Duration::from_secs(86_400));
    let store = open(dir.path(), &clock);
    clock.advance(WINDOW / 2);
    assert!(!is_new(&store, "a"), "forgotten too early");
    clock.advance(SLICE);
    assert!(is_new(&store, "a"), "remembered too long");
}

/// Promise 10: leaps of the wall clock while running neither expire nor prolong.
#[test]
fn leaps_while_running_neither_expire_nor_prolong() {
    let clock = ManualClock::new(start());
    let store = builder(&clock).in_memory().unwrap();
    assert!(is_new(&store, "a"));
    for leap in [-3_600_000, 31_536_000_000, -31_536_000_000, 3_600_000] {
        clock.leap_wall(leap);
        assert!(!is_new(&store, "a"));
    }
    clock.leap_wall(31_536_000_000);
    clock.advance(WINDOW);
    assert!(!is_new(&store, "a"));
    clock.leap_wall(-40_000_000_000);
    clock.advance(SLICE);
    assert!(is_new(&store, "a"));
}

/// A leap while running is not counted twice by a later reboot.
#[test]
fn a_leap_before_a_reboot_does_not_expire_keys() {
    let dir = TempDir::new().unwrap();
    let clock = ManualClock::new(start());
    let store = open(dir.path(), &clock);
    assert!(is_new(&store, "a"));
    // The machine was an hour behind and was set right; then it is booted again.
    clock.leap_wall(3_600_000);
    drop(store);
    let clock = ManualClock::new(after(Duration::from_secs(3_600)));
    assert!(!is_new(&open(dir.path(), &clock), "a"));
}

fn nanos(time: Timestamp) -> i64 {
    time.as_unix_nanos()
}

/// Promise 6: `guaranteed_since` lies within the window and one slice; a store that knows of no
/// hole vouches for the whole window.
fn assert_covers_window(store: &Dedup, now: SystemTime) {
    let since = store.guaranteed_since();
    let (oldest, newest) = (Timestamp::from(now - WINDOW - SLICE), Timestamp::from(now - WINDOW));
    assert!(
        oldest <= since && since <= newest,
        "guaranteed since {since}, window {oldest} to {newest}"
    );
}

/// Promise 6: a new store has seen nothing before it was made, and says so.
#[test]
fn a_new_store_vouches_for_no_more_than_its_own_time() {
    let clock = ManualClock::new(start());
    let store = builder(&clock).in_memory().unwrap();
    assert_eq!(store.guaranteed_since(), Timestamp::from(start()), "a cold start is a hole");
    clock.advance(WINDOW / 2);
    assert_eq!(store.guaranteed_since(), Timestamp::from(start()));
    clock.advance(WINDOW);
    assert_covers_window(&store, after(WINDOW * 3 / 2));
}

/// Promise 6: restarts and reboots without loss make no hole.
#[test]
fn a_restart_keeps_the_guarantee() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(start()));
    let store = open(dir.path(), &clock);
    clock.advance(WINDOW * 2);
    assert_covers_window(&store, after(WINDOW * 2));
    drop(store);
    clock.advance(SLICE);
    let store = open(dir.path(), &clock);
    assert_covers_window(&store, after(WINDOW * 2 + SLICE));
    drop(store);
    let rebooted = ManualClock::new(after(WINDOW * 3));
    assert_covers_window(&open(dir.path(), &rebooted), after(WINDOW * 3));
}

/// Promise 6: a larger window does not vouch for what the smaller one had forgotten.
#[test]
fn a_larger_window_vouches_only_for_what_was_kept() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(start()));
    let store = open(dir.path(), &clock);
    assert!(is_new(&store, "expired"));
    clock.advance(WINDOW * 2);
    assert!(is_new(&store, "kept"));
    drop(store);
    let reopened = after(WINDOW * 2);
    let store = builder(&clock).window(WINDOW * 10).open(dir.path()).unwrap();
    let since = store.guaranteed_since();
    assert!(since >= Timestamp::from(reopened - WINDOW - SLICE), "{since} was forgotten");
    assert!(since <= Timestamp::from(reopened - WINDOW), "{since}: kept, yet not vouched for");
    assert!(!store.contains("expired").unwrap(), "what was forgotten came back");
    // What was live stays for the larger window, and the guarantee comes to cover it.
    clock.advance(WINDOW * 10);
    assert!(!is_new(&store, "kept"));
    assert!(nanos(store.guaranteed_since()) <= nanos(Timestamp::from(reopened)));
}

/// Reopening with a smaller window forgets what is older; at most one old slice lives on.
#[test]
fn a_smaller_window_forgets_what_is_older() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(start()));
    let store = open(dir.path(), &clock);
    assert!(is_new(&store, "old"));
    clock.advance(WINDOW / 2);
    assert!(is_new(&store, "young"));
    drop(store);
    let small = Duration::from_secs(12);
    let store = builder(&clock).window(small).slices(3).open(dir.path()).unwrap();
    assert!(store.contains("young").unwrap());
    assert!(!store.contains("old").unwrap(), "30 s old, window 12 s, old slice 10 s");
    clock.advance(small);
    assert!(store.contains("young").unwrap());
    clock.advance(SLICE);
    assert!(!store.contains("young").unwrap());
}
