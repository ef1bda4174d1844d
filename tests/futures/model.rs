//! Futures that are told and futures that are dropped, in any order, beside a model that knows which.

use std::collections::HashSet;
use std::time::Duration;

use onceonly::authority::memory::{Fault, MemoryAuthority};
use onceonly::{Claim, Dedup, Error, Verdict};

use crate::common::{Rng, env_number};
use crate::executor::{Boxed, block_on, poll_once};
use crate::{shared, synced};

/// Polls now and then, and gives up or not.
fn maybe<T>(rng: &mut Rng, future: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let mut future: Boxed<T> = Box::pin(future);
    for _ in 0..rng.below(4) {
        if let std::task::Poll::Ready(told) = poll_once(&mut future) {
            return Some(told);
        }
        std::thread::sleep(Duration::from_micros(rng.below(1_500)));
    }
    (rng.below(2) == 0).then(|| block_on(future))
}

fn verdict(live: bool) -> Verdict {
    if live { Verdict::Duplicate } else { Verdict::New }
}

fn step(rng: &mut Rng, store: &Dedup, live: &mut HashSet<String>) {
    let key = rng.below(30).to_string();
    match rng.below(6) {
        0 | 1 => match maybe(rng, store.observe_async(&key)) {
            Some(Ok(said)) => {
                assert_eq!(said, verdict(!live.insert(key.clone())), "{key}");
            }
            Some(Err(error)) => assert!(error.is_transient(), "{error}"),
            None => {}
        },
        2 => {
            let keys = [&key, "100", "101"];
            if let Some(Ok(said)) = maybe(rng, store.observe_batch_async(&keys)) {
                for (key, said) in keys.iter().zip(said) {
                    assert_eq!(said, verdict(!live.insert((*key).to_owned())), "{key}");
                }
            }
        }
        3 => match maybe(rng, store.claim_async(&key)) {
            Some(Ok(Claim::Granted(guard))) => {
                assert!(!live.contains(&key), "{key}");
                // Dropped after the first poll it goes on; before that it abandons.
                if block_on(guard.commit_async()).is_ok() {
                    live.insert(key);
                }
            }
            Some(Ok(Claim::Duplicate { .. })) => assert!(live.contains(&key), "{key}"),
            Some(Ok(other)) => panic!("{other:?}"),
            Some(Err(error)) => assert!(error.is_transient(), "{error}"),
            None => {}
        },
        4 => match store.observe(&key) {
            Ok(said) => assert_eq!(said, verdict(!live.insert(key.clone())), "{key}"),
            Err(error) => assert!(error.is_transient(), "{error}"),
        },
        _ => {
            if store.forget(&key).is_ok() {
                live.remove(&key);
            } else {
                // It may be forgotten all the same: that is told by doing it again.
                while matches!(store.forget(&key), Err(Error::Authority { .. })) {}
                live.remove(&key);
            }
        }
    }
}

#[test]
fn what_was_told_is_what_a_model_says_and_what_was_dropped_never_happened() {
    let rounds = env_number("ONCEONLY_FUTURES", 400);
    let server = MemoryAuthority::new();
    let (synced, _dir) = synced();
    let remote = shared(&server).authority_deadline(Duration::from_millis(50));
    for (seed, store) in [(1, synced), (2, remote.in_memory().unwrap())] {
        let (mut rng, mut live) = (Rng::new(seed), HashSet::new());
        server.delay(Duration::from_micros(500));
        for round in 0..rounds {
            if round % 50 == 0 {
                server.fail_next(1, [Fault::Refuse, Fault::LoseReply][round as usize / 50 % 2]);
            }
            step(&mut rng, &store, &mut live);
        }
        for key in 0..30 {
            let live = live.contains(&key.to_string());
            assert_eq!(store.observe(key.to_string()).unwrap(), verdict(live), "{key}");
        }
    }
}
