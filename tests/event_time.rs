//! Event time: the window follows the timestamps that are given, not the clock.

mod common;
mod strategies;

use std::time::Duration;

use common::pair::run;
use common::start;
use onceonly::sim::SimDisk;
use onceonly::{Builder, Claim, Dedup, Error, ManualClock, Timestamp, Verdict};
use proptest::collection::vec;
use proptest::prelude::*;
use strategies::{cases, event_op, shape};
use tempfile::TempDir;

proptest! {
    #![proptest_config(cases(1000))]

    /// Promises 1, 2, 4, 5, 8, 9 in event time, with restarts and changed settings in between.
    #[test]
    fn a_store_on_disk_answers_like_the_model(
        shape in shape(true, true),
        ops in vec(event_op(true), 1..100),
    ) {
        run(shape, &ops);
    }
}

proptest! {
    #![proptest_config(cases(1000))]

    /// Promises 1, 2, 4, 5, 8, 9 in event time, without a disk.
    #[test]
    fn a_store_in_memory_answers_like_the_model(
        shape in shape(false, true),
        ops in vec(event_op(false), 1..100),
    ) {
        run(shape, &ops);
    }
}

const SECOND: i64 = 1_000_000_000;

/// A window of 60 s in slices of 10 s.
fn builder() -> Builder {
    Dedup::builder()
        .window(Duration::from_secs(60))
        .slices(6)
        .event_time(true)
        .max_event_lead(Duration::from_secs(3600))
        .clock(ManualClock::new(start()))
}

/// `seconds` after the start of the clock.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_nanos(Timestamp::from(start()).as_unix_nanos() + seconds * SECOND)
}

/// Promise 4: the window is counted in event time; the clock does not matter.
#[test]
fn the_window_follows_the_timestamps_and_not_the_clock() {
    let clock = ManualClock::new(start());
    let store = builder().clock(clock.clone()).in_memory().unwrap();
    assert_eq!(store.observe_at("a", at(0)).unwrap(), Verdict::New);
    clock.advance(Duration::from_secs(100_000));
    assert_eq!(store.observe_at("a", at(1)).unwrap(), Verdict::Duplicate);
    assert_eq!(store.observe_at("later", at(60)).unwrap(), Verdict::New);
    assert_eq!(store.observe_at("a", at(60)).unwrap(), Verdict::Duplicate);
    assert_eq!(store.observe_at("later still", at(71)).unwrap(), Verdict::New);
    assert_eq!(store.observe_at("a", at(71)).unwrap(), Verdict::New);
}

/// A late timestamp within the window counts from its own time, not from its arrival.
#[test]
fn late_within_the_window_goes_to_its_own_slice() {
    let store = builder().in_memory().unwrap();
    assert_eq!(store.observe_at("now", at(100)).unwrap(), Verdict::New);
    assert_eq!(store.observe_at("late", at(45)).unwrap(), Verdict::New);
    assert_eq!(store.observe_at("late", at(100)).unwrap(), Verdict::Duplicate);
    // 45 + 60 is past, with one slice to spare at 116; "now" is live until 160.
    assert_eq!(store.observe_at("tick", at(116)).unwrap(), Verdict::New);
    assert!(!store.contains("late").unwrap());
    assert!(store.contains("now").unwrap());
}

/// Promise 4: a key that was forgotten and comes again late counts from its own, older time; the
/// newer record that was forgotten stays forgotten.
#[test]
fn a_forgotten_key_that_comes_late_counts_from_its_own_time() {
    let store = builder().in_memory().unwrap();
    assert_eq!(store.observe_at("a", at(100)).unwrap(), Verdict::New);
    assert!(store.forget("a").unwrap());
    assert_eq!(store.observe_at("a", at(50)).unwrap(), Verdict::New);
    assert_eq!(store.observe_at("tick", at(110)).unwrap(), Verdict::New);
    assert_eq!(store.observe_at("a", at(110)).unwrap(), Verdict::Duplicate);
    assert_eq!(store.observe_at("tock", at(121)).unwrap(), Verdict::New);
    assert!(!store.contains("a").unwrap(), "50 + 60, and one slice more at most");
}

/// Older than the window: nothing is known, nothing is marked, nobody is told `New` or `Duplicate`.
#[test]
fn older_than_the_window_is_too_old_and_marks_nothing() {
    let store = builder().in_memory().unwrap();
    assert_eq!(store.observe_at("now", at(1_000)).unwrap(), Verdict::New);
    for _ in 0..2 {
        assert_eq!(store.observe_at("old", at(900)).unwrap(), Verdict::TooOld);
        assert!(matches!(store.claim_at("old", at(900)).unwrap(), Claim::TooOld));
    }
    assert!(!store.contains("old").unwrap());
    assert_eq!(store.observe_at("old", at(1_000)).unwrap(), Verdict::New);
    assert_eq!(store.stats().too_old, 4);
}

/// A batch keeps the order of its keys: the watermark moves with them.
#[test]
fn a_batch_decides_each_key_at_its_own_time() {
    let store = builder().in_memory().unwrap();
    let batch = [("a", at(0)), ("b", at(30)), ("a", at(31)), ("c", at(60)), ("b", at(5))];
    let verdicts = store.observe_batch_at(&batch).unwrap();
    let expected =
        [Verdict::New, Verdict::New, Verdict::Duplicate, Verdict::New, Verdict::Duplicate];
    assert_eq!(verdicts, expected);
}

/// Promise 9: a timestamp too far ahead of the clock is an error; it neither marks nor moves the
/// window, so that one broken producer does not make everything else too old.
#[test]
fn a_timestamp_far_ahead_is_an_error_that_changes_nothing() {
    let store = builder().in_memory().unwrap();
    assert_eq!(store.observe_at("a", at(0)).unwrap(), Verdict::New);
    let far = at(3_601);
    let Err(Error::TimestampAhead { timestamp, max_lead }) = store.observe_at("b", far) else {
        panic!("accepted");
    };
    assert_eq!((timestamp, max_lead), (far, Duration::from_secs(3600)));
    assert!(matches!(store.claim_at("b", far), Err(Error::TimestampAhead { .. })));
    let failed = store.observe_batch_at(&[("c", at(0)), ("b", far)]).unwrap_err();
    assert!(matches!(failed.error(), Error::TimestampAhead { .. }));
    assert_eq!(failed.into_parts().0, [None, None]);
    assert_eq!(store.observe_at("a", at(0)).unwrap(), Verdict::Duplicate);
    assert_eq!(store.observe_at("b", at(0)).unwrap(), Verdict::New);
    assert_eq!(store.observe_at("c", at(0)).unwrap(), Verdict::New);
    assert_eq!(store.observe_at("edge", at(3_600)).unwrap(), Verdict::New);
}

/// Extreme timestamps are answers or typed errors.
#[test]
fn the_ends_of_time_do_not_overflow() {
    let store = builder().in_memory().unwrap();
    for nanos in [i64::MIN, i64::MIN + 1, -1, 0, 1] {
        let time = Timestamp::from_unix_nanos(nanos);
        let first = store.observe_at("a", time).unwrap();
        assert!(matches!(first, Verdict::New | Verdict::TooOld | Verdict::Duplicate));
    }
    let last = Timestamp::from_unix_nanos(i64::MAX);
    assert!(matches!(store.observe_at("b", last), Err(Error::TimestampAhead { .. })));
    assert_eq!(store.observe_at("b", at(0)).unwrap(), Verdict::New);
    assert_eq!(store.observe_at("b", at(0)).unwrap(), Verdict::Duplicate);
}

/// The calls of the other time mode are refused by name, and mark nothing.
#[test]
fn calls_of_the_other_mode_are_refused() {
    let event = builder().in_memory().unwrap();
    let is_mode = |error: &Error, wanted: bool| match error {
        Error::Mode { needs_event_time, .. } => *needs_event_time == wanted,
        _ => false,
    };
    assert!(is_mode(&event.observe("a").unwrap_err(), false));
    assert!(is_mode(event.observe_batch(&["a"]).unwrap_err().error(), false));
    assert!(is_mode(&event.claim("a").unwrap_err(), false));
    assert!(is_mode(&event.claim_batch(&["a"]).unwrap_err(), false));
    assert_eq!(event.observe_at("a", at(0)).unwrap(), Verdict::New);

    let clock = builder().event_time(false).in_memory().unwrap();
    assert!(is_mode(&clock.observe_at("a", at(0)).unwrap_err(), true));
    assert!(is_mode(clock.observe_batch_at(&[("a", at(0))]).unwrap_err().error(), true));
    assert!(is_mode(&clock.claim_at("a", at(0)).unwrap_err(), true));
    assert_eq!(clock.observe("a").unwrap(), Verdict::New);
}

/// Promise 2: the watermark and the keys survive a restart.
#[test]
fn a_restart_goes_on_in_event_time() {
    let dir = TempDir::new().unwrap();
    let store = builder().open(dir.path()).unwrap();
    assert_eq!(store.observe_at("a", at(100)).unwrap(), Verdict::New);
    assert_eq!(store.observe_at("b", at(150)).unwrap(), Verdict::New);
    drop(store);
    let store = builder().open(dir.path()).unwrap();
    assert_eq!(store.observe_at("a", at(150)).unwrap(), Verdict::Duplicate);
    assert_eq!(store.observe_at("old", at(50)).unwrap(), Verdict::TooOld);
    assert_eq!(store.observe_at("a", at(171)).unwrap(), Verdict::New);
    assert_eq!(store.observe_at("b", at(171)).unwrap(), Verdict::Duplicate);
}

/// Promise 8: a commit records the key in the slice of its claim's timestamp.
#[test]
fn a_commit_counts_from_the_timestamp_of_its_claim() {
    let store = builder().in_memory().unwrap();
    let Claim::Granted(guard) = store.claim_at("a", at(0)).unwrap() else { panic!("not granted") };
    assert_eq!(store.observe_at("b", at(30)).unwrap(), Verdict::New);
    guard.commit().unwrap();
    assert_eq!(store.observe_at("a", at(60)).unwrap(), Verdict::Duplicate);
    assert_eq!(store.observe_at("a", at(71)).unwrap(), Verdict::New);
}

/// Promises 4 and 8: also for a claim that is taken over, and after a restart in which it was in
/// flight: its timestamp is journaled with it.
#[test]
fn a_taken_over_claim_counts_from_the_timestamp_of_the_first() {
    for restarts in 0..3 {
        let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(start()));
        let open = || builder().clock(clock.clone()).open(dir.path()).unwrap();
        let mut store = open();
        let claim = store.claim_at("a", at(0)).unwrap();
        let Claim::Granted(guard) = claim else { panic!("not granted") };
        assert_eq!(store.observe_at("b", at(55)).unwrap(), Verdict::New);
        for _ in 0..restarts {
            store.close().unwrap();
            store = open();
        }
        let claims = store.claims().unwrap();
        assert_eq!(claims[0].event_time, Some(at(0)));
        clock.advance(Duration::from_secs(31));
        let mut expired = store.expired_claims().unwrap();
        assert_eq!(store.claims().unwrap()[0].event_time, Some(at(0)));
        expired.pop().unwrap().commit().unwrap();
        assert_eq!(store.observe_at("a", at(60)).unwrap(), Verdict::Duplicate);
        assert_eq!(store.observe_at("a", at(71)).unwrap(), Verdict::New);
        drop(guard);
    }
}

/// Promise 4: a claim whose timestamp had left the window, before that was made longer again, does
/// not count from a later instant: who comes with its timestamp is too old before and after.
#[test]
fn a_commit_does_not_outlive_a_window_that_its_timestamp_had_left() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(start()));
    let open = |builder: Builder| builder.clock(clock.clone()).open(dir.path()).unwrap();
    let store = open(builder());
    let Claim::Granted(guard) = store.claim_at("a", at(0)).unwrap() else { panic!("not granted") };
    assert_eq!(store.observe_at("b", at(30)).unwrap(), Verdict::New);
    store.close().unwrap();
    drop(guard);
    open(builder().window(Duration::from_secs(1)).slices(1)).close().unwrap();
    let store = open(builder());
    assert_eq!(store.observe_at("a", at(0)).unwrap(), Verdict::TooOld);
    store.expired_claims().unwrap().pop().unwrap().commit().unwrap();
    assert!(store.claims().unwrap().is_empty());
    assert_eq!(store.observe_at("a", at(0)).unwrap(), Verdict::TooOld);
    assert!(store.guaranteed_since() > at(0), "nobody vouches for it");
    assert_eq!(store.observe_at("c", at(71)).unwrap(), Verdict::New);
    assert_eq!(store.observe_at("a", at(71)).unwrap(), Verdict::New, "0 + 60 + 10 is past");
    drop(store);
    let store = open(builder());
    assert!(store.claims().unwrap().is_empty(), "a commit ends its claim for ever");
    assert_eq!(store.observe_at("a", at(71)).unwrap(), Verdict::Duplicate);
}

/// Promise 4: a commit whose timestamp has left the window marks nothing.
#[test]
fn a_commit_of_what_has_left_the_window_marks_nothing() {
    let store = builder().in_memory().unwrap();
    let Claim::Granted(guard) = store.claim_at("a", at(0)).unwrap() else { panic!("not granted") };
    assert_eq!(store.observe_at("b", at(100)).unwrap(), Verdict::New);
    guard.commit().unwrap();
    assert!(!store.contains("a").unwrap());
    assert_eq!(store.observe_at("a", at(100)).unwrap(), Verdict::New);
}

/// Promise 2: after a kill the watermark is known only to the slice. A window of other slices does
/// not cut off what was beyond.
#[test]
fn other_slices_after_a_kill_keep_what_was_ahead_of_the_recorded_watermark() {
    let clock = ManualClock::new(start());
    let mut disk = SimDisk::new();
    let mut slices = 6;
    let mut last = 0;
    for round in 0..4 {
        let store = builder().slices(slices).clock(clock.clone()).open_simulated(&disk).unwrap();
        for key in 0..round {
            assert!(store.contains(format!("{key}")).unwrap(), "{key} in round {round}");
        }
        // The first begins a slice, the second is told to nobody but the store.
        assert_eq!(store.observe_at(format!("tick-{round}"), at(last + 1)).unwrap(), Verdict::New);
        last += 3;
        assert_eq!(store.observe_at(format!("{round}"), at(last)).unwrap(), Verdict::New);
        disk = disk.snapshot().after_kill();
        slices = 7 - slices;
    }
    let store = builder().slices(slices).clock(clock).open_simulated(&disk).unwrap();
    assert_eq!(store.observe_at("later", at(last + 60)).unwrap(), Verdict::New);
    let key = "3";
    assert_eq!(store.observe_at(key, at(last + 60)).unwrap(), Verdict::Duplicate);
}

/// A watermark that was reached under a larger limit is accepted from whoever gives it, one key or
/// a batch; beyond it the limit holds.
#[test]
fn a_smaller_lead_after_reopening_refuses_one_key_and_a_batch_alike() {
    let dir = TempDir::new().unwrap();
    let store = builder().open(dir.path()).unwrap();
    assert_eq!(store.observe_at("a", at(3_000)).unwrap(), Verdict::New);
    drop(store);
    let store = builder().max_event_lead(Duration::from_secs(10)).open(dir.path()).unwrap();
    assert_eq!(store.observe_at("one", at(3_000)).unwrap(), Verdict::New);
    let verdicts = store.observe_batch_at(&[("batch", at(3_000)), ("batch", at(2_990))]).unwrap();
    assert_eq!(verdicts, [Verdict::New, Verdict::Duplicate]);
    let ahead = Err(at(3_001));
    let refused = |error: Error| match error {
        Error::TimestampAhead { timestamp, .. } => timestamp,
        other => panic!("{other}"),
    };
    assert_eq!(store.observe_at("b", at(3_001)).map_err(refused), ahead);
    let batch = store.observe_batch_at(&[("b", at(3_000)), ("b", at(3_001))]);
    assert_eq!(batch.map_err(|failed| refused(failed.into_parts().1)).map(|_| Verdict::New), ahead);
    assert_eq!(store.observe_at("b", at(3_000)).unwrap(), Verdict::New);
}

/// Promise 6: in event time the guarantee is told in event time.
#[test]
fn guaranteed_since_follows_the_watermark() {
    let store = builder().in_memory().unwrap();
    assert_eq!(store.observe_at("a", at(1_000)).unwrap(), Verdict::New);
    assert!(store.guaranteed_since() <= at(1_000));
    assert_eq!(store.observe_at("b", at(3_000)).unwrap(), Verdict::New);
    assert!(store.guaranteed_since() <= at(3_000 - 60));
    assert!(store.guaranteed_since() >= at(3_000 - 60 - 10));
}
