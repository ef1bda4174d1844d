//! The public face as users write it: the examples, the types, and what each call tells.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::start;
use onceonly::{
    Builder, Claim, ClaimGuard, Dedup, DigestKind, Durability, Error, Key, KeyState, ManualClock,
    Outcome, ProcessError, Scope, Tier, Timestamp, Verdict,
};
use tempfile::TempDir;

fn builder() -> Builder {
    Dedup::builder().window(Duration::from_secs(60)).slices(6).clock(ManualClock::new(start()))
}

fn store() -> Dedup {
    builder().in_memory().unwrap()
}

#[derive(Debug, PartialEq)]
enum Delivery {
    Acknowledged,
    RetryAfter(Duration),
    Repeated(String),
}

/// The example of the documentation: the match has no wildcard, so it breaks when an outcome is
/// added.
fn deliver(dedup: &Dedup, id: &str) -> Result<Delivery, ProcessError<std::io::Error>> {
    let handle = |_claim: &ClaimGuard| Ok::<_, std::io::Error>(id.len());
    Ok(match dedup.process_once(id, handle)? {
        Outcome::Done(length) => {
            assert_eq!(length, id.len());
            Delivery::Acknowledged
        }
        Outcome::Duplicate { .. } => Delivery::Acknowledged,
        Outcome::InFlight { lease_left, .. } => Delivery::RetryAfter(lease_left),
        Outcome::Uncommitted { value, error } => Delivery::Repeated(format!("{value}: {error}")),
    })
}

/// The first example, with every setting of the builder.
#[test]
fn the_documented_example_works() {
    let dir = TempDir::new().unwrap();
    let dedup = Dedup::builder()
        .window(Duration::from_secs(3600))
        .slices(6)
        .expected_keys(50_000)
        .false_positive_rate(0.001)
        .durability(Durability::Process)
        .digest(DigestKind::Xxh3)
        .secret([42; 32])
        .max_keys(200_000)
        .refresh_on_duplicate(false)
        .event_time(false)
        .max_event_lead(Duration::from_secs(60))
        .lease(Duration::from_secs(30))
        .lock_wait(Duration::ZERO)
        .open(dir.path().join("state/orders-0"))
        .unwrap();
    assert_eq!(deliver(&dedup, "message-1").unwrap(), Delivery::Acknowledged);
    assert_eq!(deliver(&dedup, "message-1").unwrap(), Delivery::Acknowledged);
    let claim = dedup.claim("message-2").unwrap();
    assert!(matches!(claim, Claim::Granted(_)));
    assert!(matches!(deliver(&dedup, "message-2").unwrap(), Delivery::RetryAfter(_)));
    drop(claim);
    assert_eq!(deliver(&dedup, "message-2").unwrap(), Delivery::Acknowledged);
    if dedup.observe(b"order-1001").unwrap() == Verdict::New {
        assert_eq!(dedup.observe("order-1001").unwrap(), Verdict::Duplicate);
    } else {
        panic!("first time within the window");
    }
}

/// Handles go everywhere; no call needs `&mut`.
#[test]
fn handles_are_clone_send_sync_and_static() {
    fn handle<T: Clone + Send + Sync + 'static>() {}
    fn owned<T: Send + Sync + 'static>() {}
    handle::<Dedup>();
    handle::<Scope>();
    handle::<Builder>();
    handle::<ManualClock>();
    owned::<ClaimGuard>();
    owned::<Claim>();
    owned::<Error>();
    owned::<onceonly::CommitError>();
    owned::<onceonly::BatchError>();
    fn copied<T: Copy + Eq + std::hash::Hash>() {}
    copied::<Verdict>();
    copied::<Timestamp>();
    // Exhaustive for ever.
    let name = |verdict| match verdict {
        Verdict::New => "new",
        Verdict::Duplicate => "duplicate",
        Verdict::TooOld => "too old",
    };
    assert_eq!(name(store().observe("a").unwrap()), "new");
}

/// Promise 8: `Ok` marks, `Err` and a panic do not, and the handler of a duplicate is not called.
#[test]
fn process_once_commits_ok_and_abandons_err_and_panic() {
    let store = store();
    let failed = store.process_once("a", |_| Err::<(), _>("disk full"));
    assert!(matches!(failed, Err(ProcessError::Work("disk full"))));
    let panicking = std::panic::AssertUnwindSafe(|| {
        store.process_once("a", |_| -> Result<(), ()> {
            std::panic::resume_unwind(Box::new("bug"));
        })
    });
    let panic = std::panic::catch_unwind(panicking).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"bug"), "the panic goes on as it was");
    assert!(!store.contains("a").unwrap());
    let done = store.process_once("a", |claim| {
        assert!(claim.token() > 0);
        let rival = store.process_once("a", |_| Ok::<_, ()>(())).unwrap();
        assert!(matches!(rival, Outcome::InFlight { .. }));
        Ok::<_, ()>(7)
    });
    assert!(matches!(done, Ok(Outcome::Done(7))));
    let again = store.process_once("a", |_| -> Result<(), ()> { panic!("called again") });
    assert!(matches!(again, Ok(Outcome::Duplicate { .. })));
}

/// Work that is done but could not be marked is neither error nor success: both parts are told.
#[test]
fn process_once_tells_work_that_was_not_marked() {
    let store = store();
    let outcome = store.process_once("a", |_| {
        // The claim is revoked while the work runs.
        store.forget("a").map(|_| 7)
    });
    let Ok(Outcome::Uncommitted { value, error }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(value, 7);
    assert!(matches!(error, Error::LeaseLost { .. }), "{error}");
    assert!(!store.contains("a").unwrap());
    store.close().unwrap();
    let refused = store.process_once("a", |_| -> Result<(), ()> { panic!("called") });
    assert!(matches!(refused, Err(ProcessError::Claim(Error::Closed))));
}

/// Fields are kept apart, in number and in length.
#[test]
fn composite_keys_keep_their_fields_apart() {
    let store = store();
    let keys: [&[&[u8]]; 7] =
        [&[b"a", b"bc"], &[b"ab", b"c"], &[b"abc"], &[b"abc", b""], &[b"", b"abc"], &[], &[b""]];
    for fields in keys {
        let key = Key::from_fields(fields);
        assert_eq!(store.observe(&key).unwrap(), Verdict::New, "{fields:?}");
        assert_eq!(store.observe(key.as_bytes()).unwrap(), Verdict::Duplicate, "{fields:?}");
    }
}

/// Equal keys of two scopes are different keys; the root is not the scope with the empty name.
#[test]
fn scopes_are_apart_from_each_other_and_from_the_root() {
    let store = store();
    let scopes = [(*store).clone(), store.scope(""), store.scope("a"), store.scope("b")];
    for (n, scope) in scopes.iter().enumerate() {
        assert_eq!(scope.observe("key").unwrap(), Verdict::New, "scope {n}");
    }
    for scope in &scopes {
        assert_eq!(scope.observe("key").unwrap(), Verdict::Duplicate);
    }
    assert_eq!(store.scope("a").observe("key").unwrap(), Verdict::Duplicate, "by name");
    assert!(store.scope("a").forget("key").unwrap());
    assert_eq!(store.observe("key").unwrap(), Verdict::Duplicate);
    assert_eq!(store.scope("b").observe("key").unwrap(), Verdict::Duplicate);
    assert!(!store.scope("a").contains("key").unwrap());
}

/// Promise 3 inside a batch: the first occurrence wins, wherever the repetitions stand.
#[test]
fn the_first_occurrence_in_a_batch_wins() {
    let store = store();
    assert_eq!(store.observe("seen").unwrap(), Verdict::New);
    let verdicts = store.observe_batch(&["a", "seen", "a", "b", "a", "b"]).unwrap();
    use Verdict::{Duplicate, New};
    assert_eq!(verdicts, [New, Duplicate, Duplicate, New, Duplicate, Duplicate]);
    let mut reused = vec![New; 100];
    store.observe_batch_into(&["b", "c"], &mut reused).unwrap();
    assert_eq!(reused, [Duplicate, New], "the vector is cleared first");
    assert_eq!(store.observe_batch(&["same"; 2_000]).unwrap()[1..], [Duplicate; 1_999]);
    assert_eq!(store.contains_batch(&["a", "z", "c"]).unwrap(), [true, false, true]);
    assert!(!store.contains("z").unwrap(), "contains does not mark");
}

/// A batch that fails tells what it had decided, and marks nothing.
#[test]
fn a_failed_batch_tells_its_parts() {
    let store = store();
    assert_eq!(store.observe("seen").unwrap(), Verdict::New);
    let claim = store.claim("claimed").unwrap();
    let mut verdicts = Vec::new();
    let failed = store.observe_batch_into(&["a", "claimed", "seen"], &mut verdicts).unwrap_err();
    assert!(matches!(failed.error(), Error::InFlight { .. }));
    assert!(std::error::Error::source(&failed).is_some());
    let (decided, error) = failed.into_parts();
    assert!(matches!(error, Error::InFlight { .. }));
    assert_eq!(decided.len(), 3);
    assert_eq!(decided[1], None);
    assert_eq!(store.contains("a").unwrap(), decided[0] == Some(Verdict::New));
    drop(claim);
    let verdicts = store.observe_batch(&["a", "claimed", "seen"]).unwrap();
    assert_eq!(verdicts[1..], [Verdict::New, Verdict::Duplicate]);
}

/// `forget`: the next observe is `New`; true only if the key was live.
#[test]
fn forget_makes_the_next_observe_new() {
    let dir = TempDir::new().unwrap();
    for store in [store(), builder().open(dir.path()).unwrap()] {
        assert!(!store.forget("a").unwrap());
        assert_eq!(store.observe("a").unwrap(), Verdict::New);
        assert_eq!(store.observe("b").unwrap(), Verdict::New);
        assert!(store.forget("a").unwrap());
        assert!(!store.forget("a").unwrap());
        assert!(!store.contains("a").unwrap());
        assert_eq!(store.observe("b").unwrap(), Verdict::Duplicate);
        for _ in 0..5 {
            assert_eq!(store.observe("a").unwrap(), Verdict::New);
            assert_eq!(store.observe("a").unwrap(), Verdict::Duplicate);
            assert!(store.forget("a").unwrap());
        }
    }
    let store = builder().open(dir.path()).unwrap();
    assert!(!store.contains("a").unwrap(), "forgotten across a restart");
    assert!(store.contains("b").unwrap());
}

/// `explain` tells each state of a key.
#[test]
fn explain_tells_each_state() {
    let clock = ManualClock::new(start());
    let store = builder().clock(clock.clone()).in_memory().unwrap();
    let state = |key: &str| store.explain(key).unwrap().state;
    assert_eq!(state("a"), KeyState::Unknown);
    let claim = store.claim("a").unwrap();
    let Claim::Granted(guard) = claim else { panic!("{claim:?}") };
    let lease_left = Duration::from_secs(30);
    assert_eq!(state("a"), KeyState::InFlight { token: guard.token(), lease_left });
    clock.advance(Duration::from_secs(3));
    guard.commit().unwrap();
    let told = store.explain("a").unwrap();
    let now = Timestamp::from(start() + Duration::from_secs(3));
    let KeyState::Live { expires } = told.state else { panic!("{told:?}") };
    let left = expires.as_unix_nanos() - now.as_unix_nanos();
    assert!((60_000_000_000..=70_000_000_000).contains(&left), "{left} ns left");
    let [seen] = &told.sightings[..] else { panic!("{told:?}") };
    assert!(seen.not_before <= now && now < seen.before, "{seen:?} at {now}");
    assert!(matches!(seen.tier, Tier::Unsealed | Tier::Sealed));
    assert!(told.suspected_slices.is_some_and(|slices| slices.contains(&seen.slice)));
    assert_eq!(told.digest.len(), 32);
    assert_ne!(told.digest, store.scope("x").explain("a").unwrap().digest);
    assert!(store.forget("a").unwrap());
    assert!(matches!(state("a"), KeyState::Forgotten | KeyState::Unknown));
    clock.advance(Duration::from_secs(1_000));
    assert_eq!(state("a"), KeyState::Unknown);
}

/// `stats` counts by verdict.
#[test]
fn stats_count_what_was_answered() {
    let store = store();
    assert_eq!(store.observe_batch(&["a", "b", "a"]).unwrap().len(), 3);
    let claims = store.claim_batch(&["c", "d", "e"]).unwrap();
    assert!(store.observe("c").is_err());
    assert_eq!(store.stats().claims_held, 3);
    for (n, claim) in claims.into_iter().enumerate() {
        let Claim::Granted(guard) = claim else { panic!("not granted") };
        if n == 0 {
            guard.commit().unwrap();
        }
    }
    assert!(store.forget("a").unwrap());
    let stats = store.stats();
    assert_eq!((stats.new, stats.duplicate, stats.too_old, stats.in_flight), (3, 1, 0, 1));
    assert_eq!((stats.claims_granted, stats.claims_committed, stats.claims_abandoned), (3, 1, 2));
    assert_eq!((stats.claims_held, stats.forgotten, stats.refreshed), (0, 1, 0));
    assert!(stats.memory_bytes > 0 && stats.filter_capacity > 0);
    assert!(stats.slices.iter().all(|slice| slice.complete && slice.start < slice.end));
}

/// A prefetch is a hint: it changes no answer, for known, unknown and odd keys.
#[test]
fn prefetch_changes_nothing() {
    let store = Arc::new(store());
    for key in [&b""[..], b"a", &[0; 100_000]] {
        store.prefetch(key);
        assert_eq!(store.observe(key).unwrap(), Verdict::New);
        store.prefetch(key);
        assert_eq!(store.observe(key).unwrap(), Verdict::Duplicate);
    }
}

/// Errors say what to do, and carry their cause.
#[test]
fn errors_say_what_to_do() {
    let dir = TempDir::new().unwrap();
    let _owner = builder().open(dir.path()).unwrap();
    let locked = builder().open(dir.path()).unwrap_err();
    assert!(locked.to_string().contains("lock_wait"), "{locked}");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = builder().open(file.join("below")).unwrap_err();
    assert!(std::error::Error::source(&error).is_some(), "{error:?}");
}
