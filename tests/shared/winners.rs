//! One winner, known duplicates stay here, at least a window and at most a slice more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use onceonly::authority::memory::MemoryAuthority;
use onceonly::{Builder, Dedup, Durability, Error, Ownership, Verdict};

use crate::common::{fast_dir, without_deadlock};
use crate::fixture::{SLICE, Site, WINDOW, is_new};

#[test]
fn a_key_is_new_once_among_all_stores() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    assert!(is_new(&a, "1"));
    assert!(!is_new(&b, "1"));
    assert!(!is_new(&a, "1"));
    assert!(is_new(&b, "2"));
    assert!(!is_new(&a, "2"));
    assert!(a.contains("2").unwrap() && b.contains("1").unwrap());
    assert!(!a.contains("3").unwrap());
    assert!(is_new(&a, "3"), "looking does not mark");
    let scope = a.scope("other");
    assert_eq!(scope.observe("1").unwrap(), Verdict::New);
    assert_eq!(b.scope("other").observe("1").unwrap(), Verdict::Duplicate);
    assert_eq!(b.stats().new, 1);
}

#[test]
fn what_is_known_here_is_not_asked_for() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    assert!(is_new(&a, "1"));
    assert!(!is_new(&b, "1"));
    let before = site.calls();
    for _ in 0..100 {
        assert!(!is_new(&a, "1"));
        // It was learned from the authority.
        assert!(!is_new(&b, "1"));
    }
    assert_eq!(site.calls(), before);
    let stats = b.stats();
    let authority = stats.authority.unwrap();
    assert_eq!((authority.answered_here, authority.calls, authority.rows), (100, 1, 1));
    assert_eq!((stats.new, stats.duplicate), (0, 101));
}

/// What is learned late does not live longer than what it was learned from.
#[test]
fn a_learned_duplicate_ends_with_its_mark() {
    for late in [0, 99, 150, 350, 699] {
        let site = Site::new();
        let (a, b) = (site.store(), site.store());
        assert!(is_new(&a, "1"));
        site.clock.advance(Duration::from_secs(late));
        assert!(!is_new(&b, "1"), "{late}");
        site.clock.advance(WINDOW - Duration::from_secs(late));
        assert!(!is_new(&a, "1") && !is_new(&b, "1"), "{late}: at least the window");
        site.clock.advance(SLICE);
        assert!(is_new(&b, "1"), "{late}: at most a slice more");
        assert!(!is_new(&a, "1"));
    }
}

#[test]
fn many_threads_and_stores_have_one_winner_a_key() {
    const KEYS: usize = 400;
    let site = Site::new();
    let stores: Vec<Dedup> = (0..3).map(|_| site.store()).collect();
    let wins: Arc<Vec<AtomicU32>> = Arc::new((0..KEYS).map(|_| AtomicU32::new(0)).collect());
    without_deadlock(move || {
        let threads: Vec<_> = (0..6)
            .map(|number| {
                let (store, wins) = (stores[number % 3].clone(), Arc::clone(&wins));
                thread::spawn(move || {
                    for at in 0..KEYS {
                        let key = if number % 2 == 0 { at } else { KEYS - 1 - at };
                        if store.observe(key.to_string()).unwrap() == Verdict::New {
                            wins[key].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(wins.iter().all(|wins| wins.load(Ordering::Relaxed) == 1));
    });
}

/// One round trip serves all who wait.
#[test]
fn concurrent_callers_share_a_call() {
    let site = Site::new();
    let store = site.store();
    site.server.delay(Duration::from_millis(20));
    let threads: Vec<_> = (0..32)
        .map(|number| {
            let store = store.clone();
            thread::spawn(move || store.observe(format!("key-{number}")).unwrap())
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap() == Verdict::New));
    let stats = store.stats().authority.unwrap();
    assert_eq!(stats.rows, 32);
    assert!(stats.calls <= 16, "{stats:?}");
    assert!(stats.largest_call >= 2, "{stats:?}");
}

/// Stores that were given the same authority are asked for together.
#[test]
fn stores_of_one_authority_share_its_calls() {
    let site = Site::new();
    let shared = Arc::new(site.server.clone());
    let store = |space: &str| {
        let builder = site.builder().authority(Arc::clone(&shared), Ownership::Shared);
        builder.authority_space(space).in_memory().unwrap()
    };
    let stores: Vec<Dedup> = ["orders", "orders", "bills"].map(store).into();
    site.server.delay(Duration::from_millis(30));
    let before = site.calls();
    let threads: Vec<_> = (0..12)
        .map(|number| {
            let store = stores[number % 3].clone();
            thread::spawn(move || store.observe("the same").unwrap())
        })
        .collect();
    let verdicts = threads.into_iter().map(|thread| thread.join().unwrap());
    assert_eq!(verdicts.filter(|verdict| *verdict == Verdict::New).count(), 2);
    let calls = site.calls() - before;
    assert!(calls <= 4, "{calls} calls for three stores");
}

#[test]
fn every_level_of_durability_works_and_what_was_marked_is_there_again() {
    for durability in
        [Durability::Process, Durability::Interval(Duration::from_millis(5)), Durability::Sync]
    {
        let site = Site::new();
        let dir = fast_dir();
        let path = dir.path().join("a");
        let builder = || site.builder().durability(durability);
        let a = builder().open(&path).unwrap();
        let other = site.store();
        assert!(is_new(&a, "1"));
        let keys: Vec<String> = (0..100).map(|number| format!("batch-{number}")).collect();
        assert!(a.observe_batch(&keys).unwrap().iter().all(|v| *v == Verdict::New));
        assert!(!is_new(&other, "1") && !is_new(&other, "batch-7"));
        a.close().unwrap();
        assert!(matches!(a.observe("2"), Err(Error::Closed)));
        // Its secret is in the store.
        let again = builder().open(&path).unwrap();
        let before = site.calls();
        assert!(!is_new(&again, "1") && !is_new(&again, "batch-7"));
        assert_eq!(site.calls(), before, "{durability:?}");
        assert!(is_new(&again, "2"));
    }
}

/// Local knowledge that is lost costs calls, no answers.
#[test]
fn a_lost_directory_is_no_lost_knowledge() {
    let site = Site::new();
    let a = site.store();
    assert!(is_new(&a, "1"));
    let since = a.guaranteed_since();
    drop(a);
    site.clock.advance(Duration::from_secs(60));
    let b = site.store();
    assert!(!is_new(&b, "1"));
    // The authority vouches for more than this store has seen.
    assert_eq!(b.guaranteed_since(), since);
}

/// The limit bounds what is kept here. The authority keeps the rest.
#[test]
fn max_keys_bounds_what_is_kept_here() {
    let site = Site::new();
    let store = site.builder().max_keys(10).in_memory().unwrap();
    for key in 0..50 {
        assert!(is_new(&store, &key.to_string()));
    }
    for key in 0..50 {
        assert!(!is_new(&store, &key.to_string()));
    }
    let stats = store.stats();
    assert_eq!(stats.keys_live, 10);
    assert_eq!(stats.authority.unwrap().not_kept, 80);
}

#[test]
fn another_secret_or_digest_is_a_mismatch() {
    let site = Site::new();
    let _first = site.store();
    let mismatch = |builder: Builder| {
        matches!(builder.in_memory(), Err(Error::Mismatch { field: "secret", .. }))
    };
    assert!(mismatch(site.builder().secret([8; 32])));
    assert!(mismatch(site.builder().digest(onceonly::DigestKind::SipHash13)));
    assert!(!mismatch(site.builder().secret([8; 32]).authority_space("another")));
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let field = |builder: Builder| match builder.in_memory() {
        Err(Error::Config { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let site = Site::new();
    let plain = || Dedup::builder().window(WINDOW);
    let with = || plain().authority(MemoryAuthority::new(), Ownership::Shared);
    assert_eq!(field(with().secret([1; 32])), "authority_space");
    assert_eq!(field(with().authority_space("a")), "secret");
    assert_eq!(field(site.builder().event_time(true)), "event_time");
    assert_eq!(field(site.builder().window(Duration::from_millis(20))), "window");
    assert_eq!(field(site.builder().authority_deadline(Duration::ZERO)), "authority_deadline");
    assert_eq!(field(site.builder().forget_lag(Duration::ZERO)), "forget_lag");
    // Without an authority they would do nothing.
    assert_eq!(field(plain().authority_space("a")), "authority_space");
    assert_eq!(field(plain().on_outage(onceonly::OnOutage::Fail)), "on_outage");
    assert_eq!(field(plain().authority_deadline(WINDOW)), "authority_deadline");
    assert_eq!(field(plain().forget_lag(WINDOW)), "forget_lag");
}

#[test]
fn a_duplicate_is_refreshed_for_all_stores() {
    let site = Site::new();
    let store = || site.builder().refresh_on_duplicate(true).in_memory().unwrap();
    let (a, b) = (store(), store());
    assert!(is_new(&a, "1"));
    for _ in 0..4 {
        site.clock.advance(Duration::from_secs(600));
        assert!(!is_new(&a, "1"));
        // Once a key and slice.
        let before = site.calls();
        assert!(!is_new(&a, "1"));
        assert_eq!(site.calls(), before);
        site.clock.advance(Duration::from_secs(600));
        assert!(!is_new(&b, "1"));
    }
    site.clock.advance(WINDOW + SLICE);
    assert!(is_new(&a, "1"));
    // The others were not known here any more, and refreshed there.
    assert_eq!(a.stats().refreshed, 1);
}

/// What a directory knows is what one process has seen of a space.
#[test]
fn a_store_that_shared_a_space_is_not_opened_alone() {
    let site = Site::new();
    let dir = fast_dir();
    let path = dir.path().join("a");
    let alone =
        || Dedup::builder().window(WINDOW).slices(7).secret([7; 32]).clock(site.clock.clone());
    // A store may begin alone.
    let store = alone().open(&path).unwrap();
    assert!(is_new(&store, "before"));
    drop(store);
    assert!(is_new(&site.builder().open(&path).unwrap(), "1"));
    let mismatch = |builder: Builder| match builder.open(&path).unwrap_err() {
        Error::Mismatch { field, detail } => {
            assert!(detail.contains("`orders`"), "{detail}");
            field
        }
        other => panic!("{other}"),
    };
    assert_eq!(mismatch(alone()), "authority");
    assert_eq!(mismatch(Builder::stored(&path).unwrap().clock(site.clock.clone())), "authority");
    assert_eq!(mismatch(site.builder().authority_space("payments")), "authority_space");
    let again = site.builder().open(&path).unwrap();
    assert!(!is_new(&again, "1") && !is_new(&again, "before"));
    drop(again);
    // Who looks after the directory needs no authority.
    std::fs::write(path.join("what is this"), "?").unwrap();
    assert_eq!(onceonly::offline::repair(&path).unwrap().set_aside, ["what is this"]);
    assert_eq!(mismatch(alone()), "authority");
}
