//! Stores on one authority, racing for the same keys.

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use onceonly::authority::Authority;
use onceonly::{Claim, Dedup, Ownership, Verdict};

/// Keys of a race.
pub const KEYS: usize = 300;
const THREADS: usize = 6;

fn store(authority: impl Authority, space: &str) -> Dedup {
    Dedup::builder()
        .window(Duration::from_secs(3_600))
        .expected_keys(10_000)
        .secret([7; 32])
        .authority(authority, Ownership::Shared)
        .authority_space(space)
        .authority_deadline(Duration::from_secs(30))
        .in_memory()
        .unwrap_or_else(|error| panic!("a store does not open: {error:?}"))
}

/// Two stores, each with a client of its own, and threads that observe and claim the same keys in
/// opposite orders: each key has one winner.
pub fn race<A: Authority>(connect: impl Fn() -> A, space: &str) {
    let stores = [store(connect(), space), store(connect(), space)];
    let counters = || (0..KEYS).map(|_| AtomicU32::new(0)).collect::<Vec<_>>();
    let (marked, claimed) = (counters(), counters());
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (store, marked, claimed) = (&stores[number % 2], &marked, &claimed);
            scope.spawn(move || {
                let order = |at: usize| if number % 4 < 2 { at } else { KEYS - 1 - at };
                for at in (0..KEYS).map(order) {
                    let verdict = store.observe(format!("marked-{at}"));
                    if verdict.unwrap_or_else(|error| panic!("{error:?}")) == Verdict::New {
                        marked[at].fetch_add(1, Ordering::Relaxed);
                    }
                    let claim = store.claim(format!("claimed-{at}"));
                    if let Claim::Granted(guard) = claim.unwrap_or_else(|e| panic!("{e:?}")) {
                        guard.commit().unwrap_or_else(|error| panic!("{error:?}"));
                        claimed[at].fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    for (what, wins) in [("marked", marked), ("claimed", claimed)] {
        for (at, wins) in wins.iter().enumerate() {
            assert_eq!(wins.load(Ordering::Relaxed), 1, "winners of {what}-{at}");
        }
    }
    forgotten_keys_are_new_once(&stores);
}

fn forgotten_keys_are_new_once([a, b]: &[Dedup; 2]) {
    let said = |what: onceonly::Result<Verdict>| what.unwrap_or_else(|e| panic!("{e:?}"));
    assert!(a.forget("marked-1").unwrap_or_else(|e| panic!("{e:?}")));
    assert_eq!(said(a.observe("marked-1")), Verdict::New);
    assert_eq!(said(b.observe("marked-1")), Verdict::Duplicate);
}

/// Prints which keys a store of this process won, for [`crate::Children::wins`].
pub fn print_wins_of_a_store(authority: impl Authority, space: &str) {
    let store = store(authority, space);
    // The harness of the tests does not end its line before a test has passed.
    let mut won = String::from("\n");
    for at in 0..KEYS {
        if store.observe(at.to_string()).unwrap_or_else(|e| panic!("{e:?}")) == Verdict::New {
            won += &format!("won {at}\n");
        }
    }
    std::io::stdout().write_all(won.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
}
