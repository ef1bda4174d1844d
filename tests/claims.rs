//! Promise 8, "marking is not processing": claims, leases, tokens, and what becomes of them.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{start, without_deadlock};
use onceonly::{
    Builder, Claim, ClaimGuard, ClaimOptions, Dedup, Error, KeyState, ManualClock, Verdict,
};
use tempfile::TempDir;

const LEASE: Duration = Duration::from_secs(30);

fn builder(clock: &ManualClock) -> Builder {
    Dedup::builder().window(Duration::from_secs(3600)).lease(LEASE).clock(clock.clone())
}

fn store() -> (Dedup, ManualClock) {
    let clock = ManualClock::new(start());
    (builder(&clock).in_memory().unwrap(), clock)
}

fn granted(claim: Claim) -> ClaimGuard {
    match claim {
        Claim::Granted(guard) => guard,
        other => panic!("not granted: {other:?}"),
    }
}

/// Only the commit marks: before it the key is not live, after it every call says duplicate.
#[test]
fn a_claim_marks_only_when_it_is_committed() {
    let (store, _) = store();
    let guard = granted(store.claim("a").unwrap());
    assert!(!store.contains("a").unwrap());
    assert!(
        matches!(store.observe("a"), Err(Error::InFlight { lease_left }) if lease_left == LEASE)
    );
    let second = store.claim("a").unwrap();
    assert!(matches!(second, Claim::InFlight { lease_left, .. } if lease_left == LEASE));
    guard.commit().unwrap();
    assert!(store.contains("a").unwrap());
    assert!(matches!(store.claim("a").unwrap(), Claim::Duplicate { .. }));
    assert_eq!(store.observe("a").unwrap(), Verdict::Duplicate);
}

/// A committed key is remembered from the commit on, not from the claim.
#[test]
fn the_window_counts_from_the_commit() {
    let (store, clock) = store();
    let guard = granted(store.claim("a").unwrap());
    clock.advance(Duration::from_secs(7_000));
    guard.commit().unwrap();
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(store.observe("a").unwrap(), Verdict::Duplicate);
}

/// Abandoning, dropping and a panic give the key back at once.
#[test]
fn an_abandoned_or_dropped_claim_is_granted_again_at_once() {
    let (store, _) = store();
    granted(store.claim("a").unwrap()).abandon();
    let guard = granted(store.claim("a").unwrap());
    drop(guard);
    let held = store.clone();
    let crash = thread::spawn(move || {
        let _guard = granted(held.claim("a").unwrap());
        std::panic::resume_unwind(Box::new("the handler failed"));
    });
    assert!(crash.join().is_err());
    granted(store.claim("a").unwrap()).commit().unwrap();
    assert_eq!(store.observe("a").unwrap(), Verdict::Duplicate);
}

/// The fencing: who was taken over can neither commit nor renew nor give the key back.
#[test]
fn a_late_commit_after_a_take_over_is_refused() {
    let (store, clock) = store();
    let late = granted(store.claim("a").unwrap());
    clock.advance(LEASE);
    let owner = granted(store.claim("a").unwrap());
    assert!(owner.token() > late.token());
    assert!(matches!(late.renew(), Err(Error::LeaseLost { token }) if token == late.token()));
    let token = late.token();
    let (late, error) = late.commit().unwrap_err().into_parts();
    assert!(matches!(error, Error::LeaseLost { token: lost } if lost == token));
    late.abandon();
    assert!(matches!(store.claim("a").unwrap(), Claim::InFlight { .. }));
    owner.commit().unwrap();
    assert_eq!(store.observe("a").unwrap(), Verdict::Duplicate);
}

/// A lease that ran out is no loss by itself: without a rival the work counts.
#[test]
fn a_late_commit_that_nobody_took_over_is_good() {
    let (store, clock) = store();
    let guard = granted(store.claim("a").unwrap());
    clock.advance(LEASE * 10);
    guard.commit().unwrap();
    assert_eq!(store.observe("a").unwrap(), Verdict::Duplicate);
}

/// A guard whose commit was attempted is not abandoned by dropping it: the outcome may be unknown.
#[test]
fn dropping_a_guard_after_a_failed_commit_abandons_nothing() {
    let clock = ManualClock::new(start());
    let store = builder(&clock).max_keys(1).in_memory().unwrap();
    let guard = granted(store.claim("a").unwrap());
    assert_eq!(store.observe("other").unwrap(), Verdict::New);
    let (guard, error) = guard.commit().unwrap_err().into_parts();
    assert!(matches!(error, Error::Full { max_keys: 1 }));
    drop(guard);
    assert!(matches!(store.claim("a").unwrap(), Claim::InFlight { .. }));
    // The error marked nothing, and the redelivery is granted when the lease has run out.
    assert!(!store.contains("a").unwrap());
    clock.advance(LEASE);
    granted(store.claim("a").unwrap()).abandon();
}

/// The guard that a failed commit gives back can commit later.
#[test]
fn a_failed_commit_can_be_tried_again() {
    let clock = ManualClock::new(start());
    let store = builder(&clock).max_keys(1).in_memory().unwrap();
    let guard = granted(store.claim("a").unwrap());
    assert_eq!(store.observe("other").unwrap(), Verdict::New);
    let (guard, error) = guard.commit().unwrap_err().into_parts();
    assert!(matches!(error, Error::Full { .. }) && error.is_transient());
    assert!(store.forget("other").unwrap());
    clock.advance(Duration::from_secs(8_000));
    guard.commit().unwrap();
    assert_eq!(store.observe("a").unwrap(), Verdict::Duplicate);
}

/// Renewing starts the lease anew, from now.
#[test]
fn a_renewed_lease_counts_from_now() {
    let (store, clock) = store();
    let guard = granted(store.claim("a").unwrap());
    clock.advance(LEASE / 2);
    guard.renew().unwrap();
    clock.advance(LEASE / 2);
    let rival = store.claim("a").unwrap();
    assert!(matches!(rival, Claim::InFlight { lease_left, .. } if lease_left == LEASE / 2));
    clock.advance(LEASE / 2);
    granted(store.claim("a").unwrap()).abandon();
    assert!(matches!(guard.renew(), Err(Error::LeaseLost { .. })));
}

/// `forget` revokes a claim: its commit is refused, the key is free.
#[test]
fn forget_revokes_the_claim() {
    let (store, _) = store();
    let guard = granted(store.claim("a").unwrap());
    assert!(!store.forget("a").unwrap(), "a claimed key is not live");
    let error = guard.commit().unwrap_err();
    assert!(matches!(error.error(), Error::LeaseLost { .. }));
    assert_eq!(store.observe("a").unwrap(), Verdict::New);
}

/// A repeated key in a batch of claims is in flight: the first occurrence has it.
#[test]
fn a_batch_of_claims_grants_each_key_once() {
    let (store, _) = store();
    assert_eq!(store.observe("seen").unwrap(), Verdict::New);
    let claims = store.claim_batch(&["a", "b", "a", "seen", "b"]).unwrap();
    let mut guards = Vec::new();
    for (n, claim) in claims.into_iter().enumerate() {
        match (n, claim) {
            (0 | 1, Claim::Granted(guard)) => guards.push(guard),
            (2 | 4, Claim::InFlight { lease_left, .. }) => assert_eq!(lease_left, LEASE),
            (3, Claim::Duplicate { .. }) => {}
            (n, other) => panic!("claim {n} is {other:?}"),
        }
    }
    assert_ne!(guards[0].token(), guards[1].token());
    let answers = store.commit_batch(guards);
    assert!(answers.len() == 2 && answers.iter().all(Result::is_ok));
    assert_eq!(store.observe_batch(&["a", "b"]).unwrap(), [Verdict::Duplicate; 2]);
}

/// Each failed commit of a batch brings its own guard back; the others are done.
#[test]
fn a_batch_of_commits_fails_one_by_one() {
    let (store, _) = store();
    let claims = store.claim_batch(&["a", "b", "c"]).unwrap();
    let guards: Vec<_> = claims.into_iter().map(granted).collect();
    let lost = guards[1].token();
    store.forget("b").unwrap();
    let mut answers = store.commit_batch(guards);
    assert!(answers[0].is_ok() && answers[2].is_ok());
    let (guard, error) = answers.remove(1).unwrap_err().into_parts();
    assert!(matches!(error, Error::LeaseLost { token } if token == lost && guard.token() == lost));
    assert_eq!(store.contains_batch(&["a", "b", "c"]).unwrap(), [true, false, true]);
}

/// After a restart the claims in flight are known, with their notes, and are granted again; the
/// tokens go on rising.
#[test]
fn claims_in_flight_are_listed_and_granted_again_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let clock = ManualClock::new(start());
    let store = builder(&clock).open(dir.path()).unwrap();
    let noted = ClaimOptions::new().note("step 3 of 7").lease(Duration::from_secs(1_000_000));
    let first = granted(store.claim_with("a", noted).unwrap());
    let second = granted(store.claim("b").unwrap());
    let highest = second.token();
    store.close().unwrap();
    drop((first, second, store));

    let store = builder(&clock).open(dir.path()).unwrap();
    let listed = store.claims().unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|info| info.orphaned && info.lease_left.is_zero()));
    assert!(listed.iter().any(|info| info.note == b"step 3 of 7"));
    assert_eq!(store.stats().recovery.replayed_claims, 2);
    assert!(!store.contains("a").unwrap());
    let again = granted(store.claim("a").unwrap());
    assert!(again.token() > highest);
    again.commit().unwrap();
    assert_eq!(store.observe("a").unwrap(), Verdict::Duplicate);
}

/// Claims whose lease has run out are handed out with a new token; the old owner is fenced off.
#[test]
fn expired_claims_are_taken_over_before_they_are_handed_out() {
    let (store, clock) = store();
    let options = ClaimOptions::new().note("a");
    let late = granted(store.claim_with("a", options).unwrap());
    clock.advance(LEASE / 2);
    let fresh = granted(store.claim("b").unwrap());
    clock.advance(LEASE / 2);
    let mut expired = store.expired_claims().unwrap();
    assert_eq!(expired.len(), 1);
    let taken = expired.remove(0);
    assert_eq!(taken.note().unwrap(), b"a");
    assert!(taken.token() > fresh.token());
    assert!(store.expired_claims().unwrap().is_empty(), "its lease runs anew");
    assert!(matches!(late.commit().unwrap_err().error(), Error::LeaseLost { .. }));
    let told = store.explain("a").unwrap().state;
    assert_eq!(told, KeyState::InFlight { token: taken.token(), lease_left: LEASE });
    taken.commit().unwrap();
    assert_eq!(store.observe("a").unwrap(), Verdict::Duplicate);
    fresh.commit().unwrap();
}

/// `claim_wait` gets the key as soon as its owner gives it back, and answers at the deadline.
#[test]
fn a_waiter_gets_the_key_when_its_owner_gives_it_back() {
    without_deadlock(|| {
        let (store, _) = store();
        let far = || Instant::now() + Duration::from_secs(100);
        let guard = granted(store.claim("a").unwrap());
        let late = store.claim_wait("a", Instant::now()).unwrap();
        assert!(matches!(late, Claim::InFlight { .. }));
        let waiting = store.clone();
        let waiter = thread::spawn(move || granted(waiting.claim_wait("a", far()).unwrap()));
        guard.abandon();
        waiter.join().unwrap().commit().unwrap();
        assert!(matches!(store.claim_wait("a", far()).unwrap(), Claim::Duplicate { .. }));
    });
}

/// Options out of range are errors that name the field, and claim nothing.
#[test]
fn absurd_claim_options_are_refused() {
    let (store, _) = store();
    let field = |options| match store.claim_with("a", options) {
        Err(Error::Config { field, .. }) => field,
        other => panic!("accepted: {other:?}"),
    };
    assert_eq!(field(ClaimOptions::new().note(vec![0; 2049])), "note");
    assert_eq!(field(ClaimOptions::new().lease(Duration::ZERO)), "lease");
    assert_eq!(field(ClaimOptions::new().lease(Duration::MAX)), "lease");
    let longest = ClaimOptions::new().note(vec![7; 2048]);
    let guard = granted(store.claim_with("a", longest).unwrap());
    assert_eq!(guard.note().unwrap(), vec![7; 2048]);
}

/// A guard that came back from a failed commit is committed by a batch, not only said to be.
#[test]
fn a_failed_commit_may_be_tried_again_in_a_batch() {
    let store = Dedup::builder().window(Duration::from_secs(60)).max_keys(1).in_memory().unwrap();
    let (first, second) = (store.claim("a").unwrap(), store.claim("b").unwrap());
    granted(first).commit().unwrap();
    let (guard, error) = granted(second).commit().unwrap_err().into_parts();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert!(store.forget("a").unwrap());
    assert!(store.commit_batch([guard]).iter().all(Result::is_ok));
    assert!(store.contains("b").unwrap(), "acknowledged, yet not marked");
}
