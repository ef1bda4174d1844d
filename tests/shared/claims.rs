//! Claims across stores: leases by the server's clock, fencing, take-over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use onceonly::authority::memory::Fault;
use onceonly::{Claim, ClaimOptions, Dedup, Error, KeyState, OnOutage, Outcome, Verdict};

use crate::common::{Rng, fast_dir, without_deadlock};
use crate::fixture::{LEASE, SLICE, Site, WINDOW, eventually, granted, is_new};

#[test]
fn a_claim_of_one_store_keeps_the_others_out() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    let guard = granted(a.claim("1").unwrap());
    assert!(
        matches!(b.claim("1").unwrap(), Claim::InFlight { lease_left, .. } if lease_left == LEASE)
    );
    assert!(matches!(b.observe("1"), Err(Error::InFlight { lease_left }) if lease_left == LEASE));
    assert!(matches!(a.observe("1"), Err(Error::InFlight { .. })));
    assert!(!b.contains("1").unwrap());
    guard.commit().unwrap();
    assert!(matches!(b.claim("1").unwrap(), Claim::Duplicate { .. }));
    assert!(!is_new(&a, "1"));
    assert!(matches!(b.process_once("1", |_| Ok::<_, ()>(1)), Ok(Outcome::Duplicate { .. })));
    assert!(matches!(b.process_once("2", |_| Ok::<_, ()>(1)), Ok(Outcome::Done(1))));
    assert!(!is_new(&a, "2"));
}

#[test]
fn a_dropped_guard_gives_the_key_to_all() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    drop(granted(a.claim("1").unwrap()));
    // Here at once; there when the thread came to it.
    granted(a.claim("1").unwrap()).abandon();
    eventually("it is given back", || matches!(b.claim("1").unwrap(), Claim::Granted(_)));
    let failed = a.process_once("2", |_| Err::<(), _>("no"));
    assert!(failed.is_err());
    assert!(is_new(&a, "2"));
}

#[test]
fn who_took_over_wins_and_has_the_higher_token() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    let late = granted(a.claim("1").unwrap());
    site.clock.advance(LEASE - Duration::from_nanos(1));
    assert!(matches!(b.claim("1").unwrap(), Claim::InFlight { .. }));
    site.clock.advance(Duration::from_nanos(1));
    let next = granted(b.claim("1").unwrap());
    assert!(next.token() > late.token());
    assert_eq!(b.claims().unwrap()[0].token, next.token());
    let token = late.token();
    assert!(matches!(late.renew(), Err(Error::LeaseLost { token: lost }) if lost == token));
    let (guard, error) = late.commit().unwrap_err().into_parts();
    assert!(matches!(error, Error::LeaseLost { token: lost } if lost == token), "{error:?}");
    drop(guard);
    next.commit().unwrap();
    assert!(!is_new(&a, "1"));
    assert_eq!(a.stats().claims_held, 0);
}

#[test]
fn a_lease_that_ran_out_is_good_until_somebody_takes_over() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    let guard = granted(a.claim("1").unwrap());
    site.clock.advance(LEASE * 3);
    guard.commit().unwrap();
    assert!(!is_new(&b, "1"));
    let guard = granted(a.claim("2").unwrap());
    site.clock.advance(LEASE - Duration::from_secs(1));
    guard.renew().unwrap();
    site.clock.advance(LEASE - Duration::from_secs(1));
    assert!(matches!(b.claim("2").unwrap(), Claim::InFlight { .. }));
    site.clock.advance(Duration::from_secs(1));
    // An observation takes it over too.
    assert!(is_new(&b, "2"));
    assert!(matches!(guard.commit().unwrap_err().error(), Error::LeaseLost { .. }));
    assert!(!is_new(&a, "2"));
}

/// The window counts from the commit, in all stores.
#[test]
fn a_committed_key_lives_for_a_window_everywhere() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    let guard = granted(a.claim_with("1", ClaimOptions::new().lease(WINDOW)).unwrap());
    site.clock.advance(WINDOW / 2);
    guard.commit().unwrap();
    site.clock.advance(WINDOW);
    assert!(!is_new(&b, "1") && !is_new(&a, "1"));
    site.clock.advance(SLICE);
    assert!(is_new(&b, "1"));
}

/// A claim of a process that died ends with its lease.
#[test]
fn a_dead_owners_claim_is_granted_again_when_its_lease_is_over() {
    let site = Site::new();
    let dir = fast_dir();
    let a = site.builder().open(dir.path().join("a")).unwrap();
    let b = site.store();
    let options = ClaimOptions::new().note("half done");
    let guard = granted(a.claim_with("1", options).unwrap());
    // Nothing is given back: as if the process were killed.
    std::mem::forget(guard);
    a.close().unwrap();
    drop(a);
    let again = site.builder().open(dir.path().join("a")).unwrap();
    assert!(again.claims().unwrap()[0].orphaned);
    assert!(matches!(again.claim("1").unwrap(), Claim::InFlight { .. }));
    assert_eq!(again.expired_claims().unwrap().len(), 0, "its lease runs at the authority");
    site.clock.advance(LEASE);
    let mut taken = again.expired_claims().unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].note().unwrap(), b"half done");
    assert!(matches!(b.claim("1").unwrap(), Claim::InFlight { .. }));
    taken.remove(0).commit().unwrap();
    assert!(!is_new(&b, "1"));
}

#[test]
fn expired_claims_of_others_are_not_ours() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    let first = granted(a.claim("1").unwrap());
    let second = granted(a.claim("2").unwrap());
    site.clock.advance(LEASE);
    let theirs = granted(b.claim("1").unwrap());
    assert!(is_new(&b, "2"));
    assert_eq!(a.expired_claims().unwrap().len(), 0);
    theirs.commit().unwrap();
    assert!(first.commit().is_err() && second.commit().is_err());
}

#[test]
fn a_waiting_claim_is_granted_when_the_other_store_gives_it_back() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    let guard = granted(a.claim("1").unwrap());
    let waiting = thread::spawn(move || {
        b.claim_wait("1", Instant::now() + Duration::from_secs(60)).map(granted).unwrap().commit()
    });
    thread::sleep(Duration::from_millis(20));
    guard.abandon();
    waiting.join().unwrap().unwrap();
    assert!(!is_new(&a, "1"));
}

/// A reply that was lost twice, and a commit that is tried again.
#[test]
fn a_commit_without_a_reply_can_be_repeated() {
    let site = Site::new();
    let (a, b) = (site.quick_store(), site.store());
    let guard = granted(a.claim("1").unwrap());
    site.server.fail_next(2, Fault::LoseReply);
    let (guard, error) = guard.commit().unwrap_err().into_parts();
    assert!(matches!(error, Error::Undecided { .. }), "{error:?}");
    // It is marked there, and not here.
    assert!(!is_new(&b, "1"));
    site.clock.advance(Duration::from_secs(200));
    guard.commit().unwrap();
    // For a window from when it was acknowledged.
    site.clock.advance(WINDOW);
    assert!(!is_new(&a, "1") && !is_new(&b, "1"));
    site.clock.advance(SLICE);
    assert!(is_new(&a, "1"));
}

/// What was forgotten since is not done, however late that is heard.
#[test]
fn a_late_commit_of_a_forgotten_key_is_refused() {
    let site = Site::new();
    let (a, b) = (site.quick_store(), site.store());
    let guard = granted(a.claim("1").unwrap());
    site.server.fail_next(2, Fault::LoseReply);
    let (guard, _) = guard.commit().unwrap_err().into_parts();
    site.clock.advance(SLICE);
    assert!(b.forget("1").unwrap());
    assert!(matches!(guard.commit().unwrap_err().error(), Error::LeaseLost { .. }));
    assert!(is_new(&a, "1"));
}

/// Whoever gives the key back after a commit without a reply takes the mark back too, when he can.
#[test]
fn a_commit_without_a_reply_can_be_taken_back() {
    for outage in [None, Some(Fault::Refuse), Some(Fault::LoseReply)] {
        let site = Site::new();
        let (a, b) = (site.quick_store(), site.store());
        let mut commits = [Fault::LoseReply, Fault::LoseRequest].map(|fault| {
            let key = format!("{fault:?}");
            let guard = granted(a.claim(&key).unwrap());
            site.server.fail_next(2, fault);
            let (guard, error) = guard.commit().unwrap_err().into_parts();
            assert!(matches!(error, Error::Undecided { .. }), "{error:?}");
            (key, Some(guard))
        });
        site.server.outage(outage);
        commits.iter_mut().for_each(|(_, guard)| guard.take().unwrap().abandon());
        site.server.heal();
        for (key, _) in commits {
            eventually("it recovers", || a.contains("nobody").is_ok());
            let mut again = None;
            eventually("its lease is over", || {
                site.clock.advance(LEASE / 10);
                match a.claim(&key).unwrap() {
                    Claim::Granted(guard) => again = Some(guard),
                    Claim::InFlight { .. } => {}
                    other => panic!("{key}, {outage:?}: {other:?}"),
                }
                again.is_some()
            });
            again.unwrap().commit().unwrap();
            assert!(!is_new(&a, &key) && !is_new(&b, &key));
        }
    }
}

#[test]
fn a_claim_without_a_reply_is_granted_to_the_same_store() {
    let site = Site::new();
    let (a, b) = (site.quick_store(), site.store());
    site.server.fail_next(2, Fault::LoseReply);
    assert!(matches!(a.claim("1"), Err(Error::Undecided { .. })));
    assert!(matches!(b.claim("1").unwrap(), Claim::InFlight { .. }));
    granted(a.claim("1").unwrap()).commit().unwrap();
    // An observation instead takes the ghost back first.
    site.server.fail_next(2, Fault::LoseReply);
    assert!(matches!(a.claim("2"), Err(Error::Undecided { .. })));
    assert!(is_new(&a, "2"));
    assert!(!is_new(&b, "2"));
    // And a claim takes back an observation that nobody was told of.
    site.server.fail_next(2, Fault::LoseReply);
    assert!(matches!(a.observe("3"), Err(Error::Undecided { .. })));
    granted(a.claim("3").unwrap()).commit().unwrap();
    assert!(!is_new(&b, "3"));
}

#[test]
fn claims_go_on_in_an_outage_where_that_is_chosen() {
    let site = Site::new();
    let store = site.store_that_assumes();
    let before = granted(store.claim("before").unwrap());
    let renewed = granted(store.claim("renewed").unwrap());
    let strict = granted(store.on_outage(OnOutage::Fail).claim("strict").unwrap());
    site.server.outage(Some(Fault::Refuse));
    before.commit().unwrap();
    renewed.renew().unwrap();
    let during = granted(store.claim("during").unwrap());
    let after = granted(store.claim("after").unwrap());
    during.commit().unwrap();
    let (strict, error) = strict.commit().unwrap_err().into_parts();
    assert!(matches!(error, Error::Authority { .. }));
    assert!(matches!(store.claim("during").unwrap(), Claim::Duplicate { .. }));
    assert_eq!(store.stats().authority.unwrap().assumed_new, 2);
    site.server.outage(None);
    eventually("the breaker closes", || {
        store.contains("before").is_ok_and(|live| live) && {
            store.on_outage(OnOutage::Fail).contains("nobody").is_ok()
        }
    });
    strict.commit().unwrap();
    after.commit().unwrap();
    let other = site.store();
    // What was committed with the authority is known to all.
    assert!(!is_new(&other, "after") && !is_new(&other, "strict"));
    assert_eq!(store.observe("before").unwrap(), Verdict::Duplicate);
    assert!(matches!(store.explain("renewed").unwrap().state, KeyState::InFlight { .. }));
}

/// Threads of several stores that claim, drop, abandon, fail and commit: each key is done once.
#[test]
fn each_key_is_committed_once_among_all_stores() {
    const KEYS: u64 = 60;
    let site = Site::new();
    let stores: Vec<Dedup> = (0..3).map(|_| site.store()).collect();
    let done: Arc<Vec<AtomicU32>> = Arc::new((0..KEYS).map(|_| AtomicU32::new(0)).collect());
    without_deadlock(move || {
        let threads: Vec<_> = (0..6)
            .map(|number| {
                let (store, done) = (stores[number as usize % 3].clone(), Arc::clone(&done));
                thread::spawn(move || work(&store, &done, Rng::new(number)))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 1), "{done:?}");
        let claims: u64 = stores.iter().map(|store| store.stats().claims_held).sum();
        assert_eq!(claims, 0);
    });
}

/// Until every key is done, by whomever.
fn work(store: &Dedup, done: &[AtomicU32], mut rng: Rng) {
    let mut left: Vec<usize> = (0..done.len()).collect();
    while !left.is_empty() {
        let at = rng.below(left.len() as u64) as usize;
        match store.claim(left[at].to_string()).unwrap() {
            Claim::Granted(guard) => match rng.below(4) {
                0 => drop(guard),
                1 => guard.abandon(),
                2 => {
                    guard.renew().unwrap();
                    guard.commit().unwrap();
                    done[left[at]].fetch_add(1, Ordering::Relaxed);
                }
                _ => {
                    store.commit_batch([guard]).remove(0).unwrap();
                    done[left[at]].fetch_add(1, Ordering::Relaxed);
                }
            },
            Claim::Duplicate { .. } => drop(left.swap_remove(at)),
            _ => {}
        }
    }
}
