//! A trace of a message: by which claim its key was first taken, and how often its duplicates were refused.

mod common;

use std::collections::HashMap;
use std::time::Duration;

use common::{Rng, fast_dir, start};
use onceonly::{
    Builder, Claim, ClaimGuard, ClaimOptions, Dedup, Durability, KeyTrace, ManualClock, Seen,
    Timestamp, Verdict, offline,
};

const WINDOW: Duration = Duration::from_secs(60);

fn builder(clock: &ManualClock) -> Builder {
    let builder = Dedup::builder().window(WINDOW).slices(6).expected_keys(300).shards(2);
    builder.clock(clock.clone()).trace(true)
}

fn granted(claim: Claim) -> ClaimGuard {
    match claim {
        Claim::Granted(guard) => guard,
        other => panic!("not granted: {other:?}"),
    }
}

fn trace(store: &Dedup, key: &str) -> Option<KeyTrace> {
    store.explain(key).unwrap().trace
}

/// Fills segments of the journal, so that those before are sealed.
fn seal(store: &Dedup, round: u64) {
    for n in 0..40 {
        let guard = granted(store.claim(format!("long-{round}-{n}")).unwrap());
        guard.commit_with(vec![1; 64 << 10]).unwrap();
    }
    store.settle();
}

#[test]
fn a_trace_tells_the_first_claim_and_the_refused_duplicates() {
    let clock = ManualClock::new(start());
    let store = builder(&clock).in_memory().unwrap();
    clock.advance(Duration::from_secs(3));
    let noted = ClaimOptions::new().note("partition 7, offset 12");
    let guard = granted(store.claim_with("a", noted).unwrap());
    let token = guard.token();
    clock.advance(Duration::from_secs(2));
    assert_eq!(trace(&store, "a"), None, "it is not marked yet");
    guard.commit_with("receipt").unwrap();
    assert!(matches!(store.claim("a").unwrap(), Claim::Duplicate { result: Some(_), .. }));
    assert_eq!(store.observe("a").unwrap(), Verdict::Duplicate);
    assert_eq!(store.observe_batch(&["a", "b", "a"]).unwrap()[0], Verdict::Duplicate);
    assert_eq!(store.observe_with("a", "any").unwrap(), Seen::Duplicate);
    let told = trace(&store, "a").unwrap();
    assert_eq!(told.claimed, Some(Timestamp::from(start() + Duration::from_secs(3))));
    assert_eq!((told.token, &told.note[..]), (Some(token), &b"partition 7, offset 12"[..]));
    assert_eq!(told.refused, 5);
    // An observation is told by its sightings alone, until a duplicate is refused.
    assert_eq!(trace(&store, "b"), None);
    assert_eq!(store.observe("b").unwrap(), Verdict::Duplicate);
    let told = trace(&store, "b").unwrap();
    assert_eq!((told.claimed, told.token, told.refused), (None, None, 1));
    let guards: Vec<_> = store.claim_batch(&["c", "d"]).unwrap().into_iter().map(granted).collect();
    let tokens: Vec<_> = guards.iter().map(|guard| Some(guard.token())).collect();
    assert!(store.commit_batch(guards).iter().all(Result::is_ok));
    assert_eq!(["c", "d"].map(|key| trace(&store, key).unwrap().token).to_vec(), tokens);
    // Seen again after it was forgotten, it begins anew.
    assert!(store.forget("a").unwrap());
    assert_eq!(trace(&store, "a"), None);
    assert_eq!(store.observe("a").unwrap(), Verdict::New);
    assert_eq!(trace(&store, "a"), None);
}

#[test]
fn without_it_nothing_is_kept() {
    let clock = ManualClock::new(start());
    let store = builder(&clock).trace(false).in_memory().unwrap();
    granted(store.claim("a").unwrap()).commit().unwrap();
    assert_eq!(store.observe("a").unwrap(), Verdict::Duplicate);
    assert_eq!(trace(&store, "a"), None);
}

/// Any operations, with restarts and sealing, against a map of claims and counts.
fn against_the_model(seed: u64, durability: Durability, refreshes: bool) {
    let (dir, clock) = (fast_dir(), ManualClock::new(start()));
    let mut rng = Rng::new(seed);
    let open = |shards| {
        let builder = builder(&clock).shards(shards).durability(durability);
        builder.refresh_on_duplicate(refreshes).open(dir.path()).unwrap()
    };
    let mut store = open(2);
    let mut model = HashMap::<String, (Option<u64>, u64)>::new();
    for step in 0..300 {
        let key = format!("key-{}", rng.below(20));
        let live = store.contains(&key).unwrap();
        if !live {
            model.remove(&key);
        }
        match rng.below(16) {
            0..5 => match store.claim_with(&key, ClaimOptions::new().note(key.as_str())).unwrap() {
                Claim::Granted(guard) => {
                    model.insert(key, (Some(guard.token()), 0));
                    guard.commit().unwrap();
                }
                Claim::Duplicate { .. } => model.get_mut(&key).unwrap().1 += 1,
                other => panic!("{other:?}"),
            },
            5..10 => match store.observe(&key).unwrap() {
                Verdict::New => drop(model.insert(key, (None, 0))),
                _ => model.get_mut(&key).unwrap().1 += 1,
            },
            10 => {
                assert_eq!(store.forget(&key).unwrap(), live);
                model.remove(&key);
            }
            11 => clock.advance(Duration::from_millis(rng.below(9_000))),
            12 if rng.below(5) == 0 => seal(&store, step),
            13 => {
                store.close().unwrap();
                store = open(1 << rng.below(3));
            }
            _ => store.settle(),
        }
        let key = format!("key-{}", rng.below(20));
        if store.contains(&key).unwrap() {
            let (token, refused) = model[&key];
            let told = trace(&store, &key).unwrap_or_default();
            assert_eq!((told.token, told.refused), (token, refused), "{key} at {step}");
            assert_eq!(told.note, if token.is_some() { key.as_bytes() } else { b"" });
        }
    }
}

#[test]
fn traces_are_those_of_the_model() {
    (0..6).for_each(|seed| against_the_model(seed, Durability::Process, false));
    (6..9).for_each(|seed| against_the_model(seed, Durability::Sync, false));
    (9..12).for_each(|seed| against_the_model(seed, Durability::Process, true));
}

/// `offline::explain`, of which the command prints, tells the same, sealed or not.
#[test]
fn a_trace_is_told_without_owning_the_store() {
    let dir = fast_dir();
    // By the clock of the machine, as who does not own it takes it.
    let builder = Dedup::builder().window(WINDOW * 60).slices(6).expected_keys(300).shards(2);
    let store = builder.trace(true).open(dir.path()).unwrap();
    let noted = ClaimOptions::new().note("first");
    granted(store.claim_with("a", noted).unwrap()).commit().unwrap();
    for sealed in [false, true] {
        if sealed {
            seal(&store, 0);
        }
        assert_eq!(store.observe("a").unwrap(), Verdict::Duplicate);
        let told = offline::explain(dir.path(), None, b"a").unwrap().trace;
        assert_eq!(told, trace(&store, "a"));
        let told = told.unwrap();
        assert_eq!((told.refused, &told.note[..]), (1 + u64::from(sealed), &b"first"[..]));
    }
    assert_eq!(offline::explain(dir.path(), None, b"b").unwrap().trace, None);
}
