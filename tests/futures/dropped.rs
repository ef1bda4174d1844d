//! A future that is dropped before it is ready is an `Err`: it has marked nothing, and asking again gives
//! the answer that it should have given.

use std::time::Duration;

use onceonly::authority::memory::{Fault, MemoryAuthority};
use onceonly::{Claim, Error, Verdict};

use crate::executor::{Boxed, block_on, drop_after, poll_once};
use crate::{eventually, granted, shared, synced};

const ROUND_TRIP: Duration = Duration::from_millis(40);

/// Moments of a round trip: before it is made, while it is, when it is over, and when its answer is there.
fn moments() -> impl Iterator<Item = Duration> {
    (0..16).map(|eighth| eighth * ROUND_TRIP / 8)
}

#[test]
fn an_observation_that_waits_for_the_disk_is_taken_back() {
    let (store, dir) = synced();
    for round in 0..200 {
        let (key, lost) = (format!("{round}"), format!("lost-{round}"));
        let wait = Duration::from_micros(round % 20 * 100);
        if drop_after(store.observe_async(&key), wait) {
            assert_eq!(store.observe(&key).unwrap(), Verdict::New, "{round}");
        }
        assert_eq!(store.observe(&key).unwrap(), Verdict::Duplicate, "{round}");
        if !drop_after(store.observe_batch_async(&[&lost, &key, &lost]), wait) {
            assert!(store.forget(&lost).unwrap());
        }
    }
    store.close().unwrap();
    drop(store);
    let builder = onceonly::Builder::stored(dir.path().join("store")).unwrap();
    let store = builder.open(dir.path().join("store")).unwrap();
    for round in 0..200 {
        assert!(store.contains(format!("{round}")).unwrap(), "{round}");
        assert!(!store.contains(format!("lost-{round}")).unwrap(), "{round}");
    }
    assert_eq!(store.stats().keys_live, 200);
}

#[test]
fn a_claim_that_waits_for_the_disk_is_given_back() {
    let (store, _dir) = synced();
    for round in 0..100 {
        let key = format!("{round}");
        drop_after(store.claim_async(&key), Duration::from_micros(round % 20 * 100));
        granted(store.claim(&key).unwrap()).commit().unwrap();
    }
    assert!(store.claims().unwrap().is_empty());
}

#[test]
fn a_commit_goes_on_and_is_never_abandoned() {
    let (store, _dir) = synced();
    let server = MemoryAuthority::new();
    let remote = shared(&server).in_memory().unwrap();
    for store in [&store, &remote] {
        for (round, wait) in moments().enumerate() {
            let key = format!("{round}");
            let guard = granted(store.claim(&key).unwrap());
            server.delay(ROUND_TRIP / 4);
            drop_after(guard.commit_async(), wait / 4);
            server.heal();
            eventually("the commit ends", || match store.claim(&key).unwrap() {
                Claim::Duplicate { .. } => true,
                Claim::InFlight { .. } => false,
                other => panic!("{key}: {other:?}"),
            });
        }
    }
    assert_eq!(store.stats().claims_abandoned + remote.stats().claims_abandoned, 0);
    assert_eq!(remote.stats().claims_committed, 16);
}

#[test]
fn an_observation_at_an_authority_is_taken_back_wherever_it_is() {
    let server = MemoryAuthority::new();
    let (store, other) =
        (shared(&server).in_memory().unwrap(), shared(&server).in_memory().unwrap());
    server.delay(ROUND_TRIP);
    for (round, wait) in moments().enumerate() {
        let key = format!("{round}");
        drop_after(store.observe_async(&key), wait);
        // At once: the answer may not have come yet.
        assert_eq!(store.observe(&key).unwrap(), Verdict::New, "after {wait:?}");
        assert_eq!(store.observe(&key).unwrap(), Verdict::Duplicate, "after {wait:?}");
        assert_eq!(other.observe(&key).unwrap(), Verdict::Duplicate, "after {wait:?}");
    }
    for (round, wait) in moments().enumerate() {
        let key = format!("by another {round}");
        drop_after(store.observe_batch_async(&[&key]), wait);
        server.heal();
        // Who gave up does not come again.
        eventually("it is withdrawn by its token", || {
            other.contains(&key).is_ok_and(|live| !live) && server.calls().rows > 0
        });
        std::thread::sleep(ROUND_TRIP);
        assert_eq!(other.observe(&key).unwrap(), Verdict::New, "after {wait:?}");
        assert_eq!(store.observe(&key).unwrap(), Verdict::Duplicate, "after {wait:?}");
        server.delay(ROUND_TRIP);
    }
}

#[test]
fn a_late_grant_is_withdrawn_by_its_token() {
    let server = MemoryAuthority::new();
    let (store, other) =
        (shared(&server).in_memory().unwrap(), shared(&server).in_memory().unwrap());
    server.delay(ROUND_TRIP);
    for (round, wait) in moments().enumerate() {
        let key = format!("{round}");
        drop_after(store.claim_async(&key), wait);
        let again = granted(store.claim(&key).unwrap());
        again.commit().unwrap();
    }
    for (round, wait) in moments().enumerate() {
        let key = format!("by another {round}");
        drop_after(store.claim_async(&key), wait);
        eventually("it is withdrawn", || match other.claim(&key).unwrap() {
            Claim::Granted(_) => true,
            Claim::InFlight { .. } => false,
            other => panic!("{other:?}"),
        });
    }
    eventually("nothing is held", || store.claims().unwrap().is_empty());
}

#[test]
fn a_lost_reply_and_a_dropped_future_are_settled_by_the_next_call() {
    let server = MemoryAuthority::new();
    let builder = shared(&server).authority_deadline(Duration::from_millis(100));
    let (store, other) = (builder.in_memory().unwrap(), shared(&server).in_memory().unwrap());
    server.outage(Some(Fault::LoseReply));
    assert!(matches!(block_on(store.observe_async("1")), Err(Error::Undecided { .. })));
    drop_after(store.observe_async("2"), Duration::from_millis(1));
    drop_after(store.claim_async("3"), Duration::from_millis(1));
    std::thread::sleep(Duration::from_millis(300));
    server.heal();
    // The breaker may be open still.
    eventually("it answers", || store.contains("4").is_ok());
    assert_eq!(store.observe("1").unwrap(), Verdict::New);
    assert_eq!(store.observe("2").unwrap(), Verdict::New);
    granted(store.claim("3").unwrap()).commit().unwrap();
    for key in ["1", "2", "3"] {
        assert_eq!(other.observe(key).unwrap(), Verdict::Duplicate, "{key}");
    }
}

#[test]
fn a_future_that_was_told_takes_nothing_back() {
    let (store, _dir) = synced();
    let server = MemoryAuthority::new();
    let remote = shared(&server).in_memory().unwrap();
    for store in [&store, &remote] {
        let mut future: Boxed<_> = Box::pin(store.observe_async("1"));
        let told = loop {
            match poll_once(&mut future) {
                std::task::Poll::Ready(told) => break told,
                std::task::Poll::Pending => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        assert_eq!(told.unwrap(), Verdict::New);
        drop(future);
        assert_eq!(store.observe("1").unwrap(), Verdict::Duplicate);
    }
}
