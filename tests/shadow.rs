//! Shadow mode: everything is let through, what the store would have said is told and counted, and what
//! it keeps is what it would keep without.

mod common;

use std::convert::Infallible;
use std::time::Duration;

use common::{Rng, fast_dir, start};
use onceonly::authority::memory::{Fault, MemoryAuthority};
use onceonly::{
    Builder, Claim, ClaimGuard, ClaimOptions, Dedup, Dialect, Error, ManualClock, Outcome,
    Ownership, ProcessError, Seen, Shadowed, Timestamp, Verdict,
};

const WINDOW: Duration = Duration::from_secs(70);
const LEASE: Duration = Duration::from_secs(3);

fn builder(clock: &ManualClock) -> Builder {
    Dedup::builder().window(WINDOW).lease(LEASE).clock(clock.clone())
}

fn shared(server: &MemoryAuthority, clock: &ManualClock) -> Builder {
    let builder = builder(clock).authority(server.clone(), Ownership::Shared);
    builder.authority_space("orders").secret([7; 32])
}

fn granted(claim: Claim) -> ClaimGuard {
    match claim {
        Claim::Granted(guard) => guard,
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_is_new_and_what_would_have_been_said_is_told() {
    let clock = ManualClock::new(start());
    let store = builder(&clock).shadow(true).in_memory().unwrap();
    for _ in 0..3 {
        assert_eq!(store.observe("1").unwrap(), Verdict::New);
        assert!(!store.contains("1").unwrap(), "nothing is a reason to skip a message");
        assert_eq!(store.contains_batch(&["1", "2"]).unwrap(), [false, false]);
    }
    assert_eq!(store.observe_batch(&["1", "2", "2"]).unwrap(), [Verdict::New; 3]);
    assert_eq!(store.observe_shadow("1").unwrap(), Verdict::Duplicate);
    assert_eq!(store.observe_shadow("3").unwrap(), Verdict::New);
    assert_eq!(store.shadow(false).observe("3").unwrap(), Verdict::Duplicate, "not let through");
    let stats = store.stats();
    assert_eq!((stats.new, stats.duplicate), (3, 6));
    assert_eq!(stats.shadow.duplicate, 5);
    let scope = store.scope("a topic that is cut over").shadow(false);
    assert_eq!(scope.observe("1").unwrap(), Verdict::New);
    assert_eq!(scope.observe("1").unwrap(), Verdict::Duplicate);
    assert!(store.explain("1").unwrap().shadow && !scope.explain("1").unwrap().shadow);
}

#[test]
fn late_and_conflicting_messages_are_let_through() {
    let clock = ManualClock::new(start());
    let store = builder(&clock).event_time(true).shadow(true).in_memory().unwrap();
    let (now, old) = (Timestamp::from(start()), Timestamp::from(start() - 3 * WINDOW));
    assert_eq!(store.observe_at("1", now).unwrap(), Verdict::New);
    assert_eq!(store.observe_at("2", old).unwrap(), Verdict::New);
    let batch = store.observe_batch_at(&[("1", now), ("3", old), ("4", now)]).unwrap();
    assert_eq!(batch, [Verdict::New; 3]);
    let ahead = Timestamp::from(start() + WINDOW * 9);
    assert_eq!(store.observe_at("5", ahead).unwrap(), Verdict::New);
    assert!(matches!(
        granted(store.claim_at("6", old).unwrap()).shadowed(),
        Some(Shadowed::TooOld)
    ));
    let shadow = store.stats().shadow;
    assert_eq!((shadow.too_old, shadow.duplicate, shadow.failed), (3, 1, 1));
    assert!(shadow.last_error.unwrap().contains("max_event_lead"));
    assert!(matches!(store.observe("1"), Err(Error::Mode { .. })), "that call is wrong");

    let store = builder(&clock).shadow(true).in_memory().unwrap();
    assert_eq!(store.observe_with("1", "a").unwrap(), Seen::New);
    assert_eq!(store.observe_with("1", "b").unwrap(), Seen::New);
    let options = ClaimOptions::new().fingerprint("b");
    let ghost = granted(store.claim_with("1", options).unwrap());
    assert!(matches!(ghost.shadowed(), Some(Shadowed::Conflict)));
    assert_eq!(store.stats().shadow.conflict, 2);
}

#[test]
fn a_ghost_does_nothing_whatever_is_done_with_it() {
    let clock = ManualClock::new(start());
    let store = builder(&clock).shadow(true).in_memory().unwrap();
    let real = granted(store.claim("1").unwrap());
    assert!(real.shadowed().is_none());
    let ghost = granted(store.claim("1").unwrap());
    assert!(matches!(ghost.shadowed(), Some(Shadowed::InFlight { .. })));
    assert!(ghost.token() > real.token());
    assert_eq!(ghost.note().unwrap(), b"");
    ghost.renew().unwrap();
    ghost.keep("a result").unwrap();
    ghost.commit().unwrap();
    granted(store.claim("1").unwrap()).abandon();
    drop(store.claim("1").unwrap());
    let later = std::time::Instant::now() + Duration::from_secs(60);
    granted(store.claim_wait("1", later).unwrap()).commit_with("another").unwrap();
    assert_eq!(store.observe("1").unwrap(), Verdict::New, "while it is claimed");
    assert_eq!(store.claims().unwrap().len(), 1, "the claim is where it was");
    assert_eq!(store.stats().shadow.in_flight, 5);

    let ghosts = store.claim_batch(&["1", "2", "2"]).unwrap().into_iter().map(granted);
    let mut guards: Vec<_> = ghosts.collect();
    let would_be: Vec<_> = guards.iter().map(|guard| guard.shadowed().is_some()).collect();
    assert_eq!(would_be, [true, false, true]);
    guards.push(real);
    assert!(store.commit_batch(guards).iter().all(Result::is_ok));
    assert!(store.claims().unwrap().is_empty());
    let says = store.shadow(false);
    for key in ["1", "2"] {
        assert!(matches!(says.claim(key).unwrap(), Claim::Duplicate { .. }), "{key}");
    }
    assert_eq!(says.result("1").unwrap(), None, "the ghost kept nothing");
    assert_eq!(store.stats().claims_committed, 2);
}

#[test]
fn work_is_always_done_and_the_second_time_counts() {
    let clock = ManualClock::new(start());
    let store = builder(&clock).shadow(true).in_memory().unwrap();
    for number in 0..3 {
        let done = store.process_once("1", |claim| {
            assert_eq!(claim.shadowed().is_some(), number > 0);
            Ok::<_, Infallible>(number)
        });
        assert!(matches!(done.unwrap(), Outcome::Done(done) if done == number));
    }
    let failed = store.process_once("1", |_| Err::<(), _>("no"));
    assert!(matches!(failed, Err(ProcessError::Work("no"))));
    assert_eq!(store.stats().shadow.duplicate, 3);
    assert!(store.shadow(false).contains("1").unwrap(), "a ghost's failure takes nothing back");
}

#[test]
fn a_lost_lease_and_a_full_store_keep_nobody_from_going_on() {
    let clock = ManualClock::new(start());
    let store = builder(&clock).max_keys(1).shadow(true).in_memory().unwrap();
    let late = granted(store.claim("1").unwrap());
    clock.advance(LEASE);
    let second = granted(store.claim("1").unwrap());
    assert!(second.shadowed().is_none(), "taken over in earnest");
    late.renew().unwrap();
    late.commit().unwrap();
    second.commit().unwrap();
    assert_eq!(store.observe("2").unwrap(), Verdict::New);
    let full = granted(store.claim("3").unwrap());
    full.commit().unwrap();
    let shadow = store.stats().shadow;
    assert!(shadow.failed >= 3, "{shadow:?}");
    store.close().unwrap();
    assert!(matches!(store.observe("1"), Err(Error::Closed)), "that call is wrong");
}

#[test]
fn an_authority_that_does_not_answer_keeps_nobody_from_going_on() {
    let clock = ManualClock::new(start());
    let server = MemoryAuthority::with_clock(clock.clone());
    let store = shared(&server, &clock).shadow(true).in_memory().unwrap();
    assert_eq!(store.observe("1").unwrap(), Verdict::New);
    server.outage(Some(Fault::Refuse));
    assert_eq!(store.observe("2").unwrap(), Verdict::New);
    assert_eq!(store.observe_batch(&["3", "4"]).unwrap(), [Verdict::New; 2]);
    let ghost = granted(store.claim("5").unwrap());
    assert!(matches!(ghost.shadowed(), Some(Shadowed::Failed(_))));
    let batch = store.claim_batch(&["6", "7"]).unwrap();
    assert!(batch.into_iter().all(|claim| granted(claim).shadowed().is_some()));
    assert!(matches!(store.observe_shadow("8"), Err(Error::Authority { .. })));
    server.heal();
    assert_eq!(store.stats().shadow.failed, 7);
    assert_eq!(
        server.live_rows("orders"),
        1,
        "nothing was marked that the server was not asked for"
    );
}

#[test]
fn the_statement_of_a_ghost_changes_nothing_and_its_transaction_goes_on() {
    let clock = ManualClock::new(start());
    let server = MemoryAuthority::with_clock(clock.clone());
    let store = shared(&server, &clock).shadow(true).in_memory().unwrap();
    let real = granted(store.claim("1").unwrap());
    let ghost = granted(store.claim("1").unwrap());
    assert!(ghost.shadowed().is_some() && ghost.token() >= real.token());
    let statement = ghost.commit_statement(Dialect::Sqlite).unwrap();
    let changed = server.execute(statement.params());
    assert_eq!(changed, 0);
    statement.applied(changed).unwrap().confirm().unwrap();
    let statement = real.commit_statement(Dialect::Sqlite).unwrap();
    let changed = server.execute(statement.params());
    assert_eq!(changed, 1, "the claim was untouched");
    statement.applied(changed).unwrap().confirm().unwrap();
    assert!(store.shadow(false).contains("1").unwrap());
}

/// One step of a script for two stores.
fn step(rng: &mut Rng, stores: [&Dedup; 2]) {
    let key = rng.below(40).to_string();
    let [alone, shadow] = stores;
    match rng.below(8) {
        0..=3 => {
            let says = alone.observe(&key);
            assert_eq!(shadow.observe(&key).unwrap(), Verdict::New);
            drop(says);
        }
        4 => {
            let keys: Vec<String> = (0..5).map(|_| rng.below(40).to_string()).collect();
            // A claimed key refuses a batch; whoever was refused comes with the keys one by one.
            if alone.observe_batch(&keys).is_err() {
                keys.iter().for_each(|key| drop(alone.observe(key)));
            }
            assert_eq!(shadow.observe_batch(&keys).unwrap(), [Verdict::New; 5]);
        }
        5 | 6 => {
            let (says, ghost) = (alone.claim(&key).unwrap(), granted(shadow.claim(&key).unwrap()));
            assert_eq!(matches!(says, Claim::Granted(_)), ghost.shadowed().is_none());
            let commits = rng.below(3);
            if let Claim::Granted(guard) = says {
                match commits {
                    0 => guard.commit().unwrap(),
                    1 => guard.abandon(),
                    _ => std::mem::forget(guard),
                }
            }
            match commits {
                0 => ghost.commit().unwrap(),
                1 => ghost.abandon(),
                _ => std::mem::forget(ghost),
            }
        }
        _ => assert_eq!(alone.forget(&key).unwrap(), shadow.forget(&key).unwrap()),
    }
}

#[test]
fn what_is_kept_is_what_would_be_kept_without() {
    let clock = ManualClock::new(start());
    let dirs = [fast_dir(), fast_dir()];
    let open = |at: usize| {
        let builder = builder(&clock).secret([3; 32]).shadow(at == 1);
        builder.open(dirs[at].path().join("store")).unwrap()
    };
    let mut stores = [open(0), open(1)];
    let mut rng = Rng::new(20);
    for round in 0..3_000 {
        step(&mut rng, [&stores[0], &stores[1]]);
        if rng.below(4) == 0 {
            clock.advance(Duration::from_millis(rng.below(2_000)));
        }
        if round % 500 == 499 {
            stores.iter().for_each(|store| store.close().unwrap());
            stores = [open(0), open(1)];
            for key in 0..40 {
                let says = stores.each_ref().map(|store| store.shadow(false));
                let [alone, shadow] = says.each_ref().map(|says| {
                    let explained = says.explain(key.to_string()).unwrap();
                    (says.contains(key.to_string()).unwrap(), explained.sightings)
                });
                assert_eq!(alone, shadow, "{key}");
            }
        }
        let [alone, shadow] = stores.each_ref().map(Dedup::stats);
        assert_eq!((alone.new, alone.duplicate), (shadow.new, shadow.duplicate), "round {round}");
        assert_eq!(alone.claims_held, shadow.claims_held, "round {round}");
    }
}
