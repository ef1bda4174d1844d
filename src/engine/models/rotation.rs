//! Rotation: the catalog and its version, the time at which it is due, and the shards that pick it up.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::{
    PREEMPTIONS, SLICE, WINDOW, both, check, clock, digest, observe, open, settings, store,
};
use crate::time::Timestamp;
use crate::verdict::Verdict;

#[test]
fn a_key_of_before_is_seen_and_a_new_key_is_new_once() {
    check(PREEMPTIONS, || {
        let (engine, clock) = store();
        assert_eq!(observe(&engine, 1), Verdict::New);
        clock.advance(SLICE);
        let thread = {
            let engine = Arc::clone(&engine);
            move || {
                assert_eq!(observe(&engine, 1), Verdict::Duplicate);
                observe(&engine, 2)
            }
        };
        let (one, other) = both(thread, || {
            let verdict = observe(&engine, 2);
            assert_eq!(observe(&engine, 1), Verdict::Duplicate);
            verdict
        });
        assert_ne!(one, other, "exactly one of them is the first");
    });
}

/// Whoever finds that no rotation is due any more sees the slice that was begun: a key that went to
/// the one before would be forgotten early.
#[test]
fn a_key_lives_its_window_from_the_time_it_came() {
    check(PREEMPTIONS, || {
        let (engine, clock) = store();
        clock.advance(SLICE);
        let thread = {
            let engine = Arc::clone(&engine);
            move || observe(&engine, 1)
        };
        let verdicts = both(thread, || observe(&engine, 2));
        assert_eq!(verdicts, (Verdict::New, Verdict::New));
        clock.advance(WINDOW);
        for key in [1, 2] {
            assert_eq!(observe(&engine, key), Verdict::Duplicate);
        }
    });
}

#[test]
fn an_event_on_time_is_never_too_old() {
    check(PREEMPTIONS, || {
        let clock = clock();
        let engine = open(settings(&clock).event_time(true));
        let start = Timestamp::from(UNIX_EPOCH + std::time::Duration::from_secs(999_990));
        let later = Timestamp::from_unix_nanos(start.as_unix_nanos() + SLICE.as_nanos() as i64);
        let observe_at = |key, time| engine.observe_at(digest(key), time).expect("the store works");
        assert_eq!(observe_at(1, start), Verdict::New);
        let thread = {
            let engine = Arc::clone(&engine);
            move || engine.observe_at(digest(2), later).expect("the store works")
        };
        let (one, other) = both(thread, || observe_at(3, later));
        assert_eq!((one, other), (Verdict::New, Verdict::New));
        assert_eq!(observe_at(1, later), Verdict::Duplicate);
    });
}
