//! Claims: one winner, whoever claims, commits, observes or takes over at the same time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{PREEMPTIONS, both, check, digest, observe, spawn, store};
use crate::claim::{Claim, Manner, claim_wait};
use crate::config::OnOutage;
use crate::engine::{Attempt, Engine, Held, Wish};
use crate::error::Error;
use crate::verdict::Verdict;

const KEY: u64 = 1;

fn claim(engine: &Engine) -> Attempt {
    engine.claim(digest(KEY), None, Wish::default(), OnOutage::Fail).expect("the store works")
}

fn token(attempt: &Attempt) -> Option<u64> {
    match attempt {
        Attempt::Granted(grant) => Some(grant.token),
        _ => None,
    }
}

fn granted(engine: &Engine) -> u64 {
    token(&claim(engine)).expect("nobody has it")
}

/// Whether the commit was accepted.
fn commit(engine: &Engine, token: u64) -> bool {
    match engine.commit(Held { digest: digest(KEY), token, on_outage: OnOutage::Fail }) {
        Ok(()) => true,
        Err(Error::LeaseLost { .. }) => false,
        Err(other) => panic!("{other}"),
    }
}

fn assert_settled(engine: &Engine) {
    assert_eq!(observe(engine, KEY), Verdict::Duplicate);
    assert_eq!(engine.tools.claims_held.sum(), 0);
    assert!(engine.claims().expect("the store works").is_empty());
}

#[test]
fn of_several_who_claim_a_key_one_gets_it() {
    check(PREEMPTIONS, || {
        let (engine, _) = store();
        let work = |engine: Arc<Engine>| {
            move || {
                let token = token(&claim(&engine));
                token.is_some_and(|token| commit(&engine, token))
            }
        };
        let third = spawn(work(Arc::clone(&engine)));
        let (one, other) = both(work(Arc::clone(&engine)), work(Arc::clone(&engine)));
        let third = third.join().expect("the thread ran");
        assert_eq!([one, other, third].into_iter().filter(|done| *done).count(), 1);
        assert_settled(&engine);
    });
}

/// A lease that ran out is good until somebody takes the key over.
#[test]
fn a_late_commit_and_the_next_claim_exclude_each_other() {
    check(PREEMPTIONS, || {
        let (engine, clock) = store();
        let first = granted(&engine);
        clock.advance(Duration::from_secs(2));
        let thread = {
            let engine = Arc::clone(&engine);
            move || commit(&engine, first)
        };
        let (late, next) = both(thread, || {
            let next = token(&claim(&engine));
            next.inspect(|next| {
                assert!(*next > first, "tokens grow");
                assert!(commit(&engine, *next), "its lease runs");
            })
        });
        assert_ne!(late, next.is_some(), "exactly one of them marks the key");
        assert_settled(&engine);
    });
}

#[test]
fn a_late_commit_and_an_observation_exclude_each_other() {
    check(PREEMPTIONS, || {
        let (engine, clock) = store();
        let first = granted(&engine);
        clock.advance(Duration::from_secs(2));
        let thread = {
            let engine = Arc::clone(&engine);
            move || commit(&engine, first)
        };
        let (late, observed) = both(thread, || observe(&engine, KEY));
        assert_ne!(late, observed == Verdict::New, "exactly one of them marks the key");
        assert_settled(&engine);
    });
}

#[test]
fn an_expired_claim_is_taken_over_once() {
    check(PREEMPTIONS, || {
        let (engine, clock) = store();
        let first = granted(&engine);
        clock.advance(Duration::from_secs(2));
        let thread = {
            let engine = Arc::clone(&engine);
            move || {
                let mut tokens = Vec::new();
                let taken_over = engine.take_over_expired(|grant| tokens.push(grant.token));
                taken_over.expect("the store works");
                tokens
            }
        };
        let (mut tokens, other) = both(thread, || token(&claim(&engine)));
        tokens.extend(other);
        assert_eq!(tokens.len(), 1);
        assert!(!commit(&engine, first));
        assert!(commit(&engine, tokens[0]));
        assert_settled(&engine);
    });
}

/// A batch asks whether there are claims before it locks anything.
#[test]
fn a_batch_and_a_claim_exclude_each_other() {
    check(PREEMPTIONS, || {
        let (engine, _) = store();
        let thread = {
            let engine = Arc::clone(&engine);
            move || token(&claim(&engine))
        };
        let (token, observed) = both(thread, || {
            let mut verdicts = Vec::new();
            let observed =
                engine.observe_batch([digest(KEY)].into_iter(), &mut verdicts, OnOutage::Fail);
            observed.is_ok_and(|()| verdicts == [Verdict::New])
        });
        assert_ne!(token.is_some(), observed, "exactly one of them has the key");
    });
}

/// In a model time never passes, so a waiter that nobody wakes is found.
#[test]
fn who_waits_is_woken_when_the_claim_ends() {
    check(PREEMPTIONS, || {
        let (engine, _) = store();
        let first = granted(&engine);
        let thread = {
            let engine = Arc::clone(&engine);
            move || engine.abandon(digest(KEY), first)
        };
        let ((), got) = both(thread, || {
            let deadline = Instant::now() + Duration::from_secs(3_600);
            claim_wait(&engine, digest(KEY), deadline, Manner::of(&engine))
                .expect("the store works")
        });
        match got {
            Claim::Granted(guard) => assert!(commit(&engine, guard.token())),
            other => panic!("{other:?}"),
        }
    });
}
