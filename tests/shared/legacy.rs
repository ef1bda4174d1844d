//! Keys that something else has marked at the server before: duplicates, until the window is complete.

use std::time::Duration;

use onceonly::authority::memory::Fault;
use onceonly::{Claim, Dedup, Error, OnOutage, Outcome, Ownership, Seen, Verdict};

use crate::fixture::{SLICE, Site, WINDOW, eventually, granted};

const NEW: Verdict = Verdict::New;
const DUPLICATE: Verdict = Verdict::Duplicate;

fn site() -> Site {
    let site = Site::new();
    for key in ["1", "2", "3"] {
        site.server.mark_legacy(key, WINDOW);
    }
    site
}

fn asked(store: &Dedup) -> u64 {
    store.stats().authority.unwrap().legacy_asked
}

#[test]
fn a_key_of_before_is_a_duplicate_that_this_store_has_not_seen() {
    let site = site();
    let store = site.store();
    assert_eq!(store.observe("1").unwrap(), DUPLICATE);
    assert_eq!(store.observe_with("1", "a").unwrap(), Seen::Duplicate);
    match store.claim("2").unwrap() {
        Claim::Duplicate { result, .. } => assert_eq!(result, None),
        other => panic!("{other:?}"),
    }
    let done = store.process_once("3", |_| Ok::<(), ()>(())).unwrap();
    assert!(matches!(done, Outcome::Duplicate { .. }));
    assert!(store.contains("1").unwrap());
    assert_eq!(store.observe_batch(&["4", "1", "4"]).unwrap(), [NEW, DUPLICATE, DUPLICATE]);
    let claims = store.claim_batch(&["5", "1", "5"]).unwrap();
    let granted = claims.iter().map(|claim| matches!(claim, Claim::Granted(_)));
    assert_eq!(granted.collect::<Vec<_>>(), [true, false, false]);
    assert!(matches!(claims[1], Claim::Duplicate { .. }));
    let stats = store.stats();
    assert_eq!(stats.authority.unwrap().legacy_duplicate, 7);
    assert_eq!(site.server.live_rows("orders"), 2, "nothing of before is marked anew");
    assert!(store.explain("1").unwrap().sightings.is_empty());
}

#[test]
fn what_is_known_is_not_asked_for_and_a_batch_is_one_call() {
    let site = site();
    let store = site.store();
    assert_eq!(store.observe("9").unwrap(), NEW);
    let held = granted(store.claim("8").unwrap());
    let (before, calls) = (asked(&store), site.server.calls().legacy);
    assert_eq!(store.observe("9").unwrap(), DUPLICATE);
    assert!(matches!(store.claim("8").unwrap(), Claim::InFlight { .. }));
    held.commit().unwrap();
    assert_eq!(asked(&store), before);
    let keys: Vec<String> = (0..500).map(|key| key.to_string()).collect();
    let verdicts = store.observe_batch(&keys).unwrap();
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == NEW).count(), 495);
    assert_eq!(site.server.calls().legacy, calls + 1);
    assert_eq!(asked(&store), before + 498);
}

#[test]
fn it_ends_by_itself_when_the_window_is_complete() {
    for ownership in [Ownership::Shared, Ownership::Exclusive] {
        let site = site();
        let builder = Dedup::builder().window(WINDOW).slices(7).secret([7; 32]);
        let builder = builder.clock(site.clock.clone()).authority_space("orders");
        let store = builder.authority(site.server.clone(), ownership).in_memory().unwrap();
        site.clock.advance(WINDOW - SLICE);
        site.server.mark_legacy("late", WINDOW);
        assert_eq!(store.observe("late").unwrap(), DUPLICATE);
        let before = asked(&store);
        site.clock.advance(SLICE);
        assert_eq!(store.observe("late").unwrap(), NEW, "whoever marks now is too late");
        assert_eq!(asked(&store), before);
    }
}

#[test]
fn a_key_of_before_ends_when_its_own_time_is_over() {
    let site = site();
    let store = site.store();
    site.server.mark_legacy("short", SLICE);
    assert_eq!(store.observe("short").unwrap(), DUPLICATE);
    site.clock.advance(SLICE);
    assert_eq!(store.observe("short").unwrap(), NEW, "its duplicate did not make it longer");
}

#[test]
fn without_an_answer_nothing_is_said_and_nothing_marked() {
    let site = site();
    let store = site.quick_store();
    for fault in [Fault::Refuse, Fault::LoseReply] {
        site.server.outage(Some(fault));
        assert!(matches!(store.observe("7"), Err(Error::Authority { .. })));
        assert!(matches!(store.claim("7"), Err(Error::Authority { .. })));
        let failed = store.observe_batch(&["7", "1"]).unwrap_err();
        assert_eq!(failed.into_parts().0, [None, None]);
        assert!(store.claim_batch(&["7"]).is_err() && store.forget("2").is_err());
        site.server.heal();
        // The breaker is open for a while.
        eventually("it answers", || store.contains("8").is_ok());
    }
    site.server.fail_next(1, Fault::Refuse);
    assert_eq!(store.on_outage(OnOutage::AssumeNew).observe("6").unwrap(), NEW);
    assert_eq!(store.observe("7").unwrap(), NEW);
    assert_eq!(store.observe("1").unwrap(), DUPLICATE);
}

#[test]
fn forgetting_reaches_the_key_of_before() {
    let site = site();
    let store = site.store();
    assert!(store.forget("1").unwrap());
    assert!(!store.forget("1").unwrap());
    assert_eq!(store.observe("1").unwrap(), NEW);
    assert_eq!(store.observe("1").unwrap(), DUPLICATE);
}

#[test]
fn shadow_mode_lets_keys_of_before_through() {
    let site = site();
    let store = site.builder().shadow(true).in_memory().unwrap();
    assert_eq!(store.observe("1").unwrap(), NEW);
    assert_eq!(store.observe_shadow("1").unwrap(), DUPLICATE);
    assert_eq!(store.observe_batch(&["1", "4"]).unwrap(), [NEW; 2]);
    assert!(granted(store.claim("1").unwrap()).shadowed().is_some());
    let claims = store.claim_batch(&["1", "5"]).unwrap();
    assert!(claims.iter().all(|claim| matches!(claim, Claim::Granted(_))));
    assert_eq!(store.stats().shadow.duplicate, 5);
}

#[test]
fn one_of_many_that_ask_at_once_is_told_new() {
    let site = site();
    let store = site.store();
    site.server.delay(Duration::from_millis(5));
    let won = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                assert_eq!(store.observe("2").unwrap(), DUPLICATE);
                let new = store.observe("new").unwrap() == NEW;
                won.fetch_add(u32::from(new), std::sync::atomic::Ordering::Relaxed);
            });
        }
    });
    assert_eq!(won.into_inner(), 1);
}
