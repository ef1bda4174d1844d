//! Fingerprints of messages: another message under the same key is a conflict in its own type, for as long
//! as the key is remembered, and never silently a duplicate.

mod common;

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use common::{Rng, fast_dir, start};
use onceonly::{
    Builder, Claim, ClaimGuard, ClaimOptions, Dedup, Durability, Error, ManualClock, Outcome,
    ProcessError, Seen, Verdict,
};

const WINDOW: Duration = Duration::from_secs(60);
const SLICE: Duration = Duration::from_secs(10);

fn builder(clock: &ManualClock) -> Builder {
    Dedup::builder().window(WINDOW).slices(6).expected_keys(300).shards(2).clock(clock.clone())
}

fn granted(claim: Claim) -> ClaimGuard {
    match claim {
        Claim::Granted(guard) => guard,
        other => panic!("not granted: {other:?}"),
    }
}

fn with(fingerprint: &str) -> ClaimOptions {
    ClaimOptions::new().fingerprint(fingerprint)
}

#[test]
fn another_message_under_the_same_key_is_a_conflict() {
    let store = builder(&ManualClock::new(start())).in_memory().unwrap();
    assert_eq!(store.observe_with("a", "pay 10").unwrap(), Seen::New);
    assert_eq!(store.observe_with("a", "pay 10").unwrap(), Seen::Duplicate);
    assert_eq!(store.observe_with("a", "pay 20").unwrap(), Seen::Conflict);
    assert_eq!(store.observe_with("a", "pay 10").unwrap(), Seen::Duplicate, "the first one stays");
    assert!(matches!(store.claim_with("a", with("pay 20")).unwrap(), Claim::Conflict { .. }));
    assert!(matches!(store.claim_with("a", with("pay 10")).unwrap(), Claim::Duplicate { .. }));
    // Who gives none is told as before.
    assert_eq!(store.observe("a").unwrap(), Verdict::Duplicate);
    assert!(matches!(store.claim("a").unwrap(), Claim::Duplicate { .. }));
    // What was marked without one is a duplicate for all.
    assert_eq!(store.observe("b").unwrap(), Verdict::New);
    assert_eq!(store.observe_with("b", "any").unwrap(), Seen::Duplicate);
    assert!(matches!(store.claim_with("b", with("any")).unwrap(), Claim::Duplicate { .. }));
    assert_eq!(store.stats().conflicts, 2);
    assert_eq!(store.scope("other").observe_with("a", "pay 20").unwrap(), Seen::New);
    assert!(matches!(store.observe_with("", "").unwrap(), Seen::New));
    assert_eq!(store.observe_with("", "x").unwrap(), Seen::Conflict);
}

#[test]
fn a_claim_keeps_its_fingerprint_when_it_is_committed() {
    let store = builder(&ManualClock::new(start())).in_memory().unwrap();
    let guard = granted(store.claim_with("a", with("one")).unwrap());
    assert!(matches!(store.claim_with("a", with("two")).unwrap(), Claim::InFlight { .. }));
    assert!(matches!(store.observe_with("a", "two"), Err(Error::InFlight { .. })));
    guard.commit_with("receipt").unwrap();
    assert!(matches!(store.claim_with("a", with("two")).unwrap(), Claim::Conflict { .. }));
    let again = store.claim_with("a", with("one")).unwrap();
    assert!(matches!(again, Claim::Duplicate { result: Some(r), .. } if r == b"receipt"));
    // What is not committed is nobody's.
    granted(store.claim_with("b", with("one")).unwrap()).abandon();
    let done = store.process_once_with("b", with("two"), |_| Ok::<_, Error>(7));
    assert!(matches!(done, Ok(Outcome::Done(7))));
    let refused = store.process_once_with("b", with("one"), |_| -> Result<(), Error> {
        panic!("another message was worked on")
    });
    assert!(matches!(refused, Err(ProcessError::Conflict)));
    let again = store.process_once_with("b", with("two"), |_| Ok::<_, Error>(8));
    assert!(matches!(again, Ok(Outcome::Duplicate { result: None, .. })));
}

/// A claim that is taken over in the same process is still of the same message.
#[test]
fn a_claim_that_was_taken_over_keeps_its_fingerprint() {
    let clock = ManualClock::new(start());
    let store = builder(&clock).lease(SLICE).in_memory().unwrap();
    let late = granted(store.claim_with("a", with("one")).unwrap());
    clock.advance(SLICE);
    for guard in store.expired_claims().unwrap() {
        guard.commit().unwrap();
    }
    assert!(matches!(late.keep("x"), Err(Error::LeaseLost { .. })));
    assert_eq!(store.observe_with("a", "two").unwrap(), Seen::Conflict);
    assert_eq!(store.observe_with("a", "one").unwrap(), Seen::Duplicate);
}

#[test]
fn a_full_store_keeps_no_fingerprint() {
    let clock = ManualClock::new(start());
    let store = builder(&clock).max_keys(1).in_memory().unwrap();
    assert_eq!(store.observe_with("a", "one").unwrap(), Seen::New);
    assert!(matches!(store.observe_with("b", "one"), Err(Error::Full { .. })));
    assert_eq!(store.observe_with("a", "two").unwrap(), Seen::Conflict);
    assert!(store.forget("a").unwrap());
    assert_eq!(store.observe_with("b", "two").unwrap(), Seen::New, "the first one was refused");
    assert_eq!(store.observe_with("b", "one").unwrap(), Seen::Conflict);
}

#[test]
fn event_time_has_no_observations_with_fingerprints() {
    let store = builder(&ManualClock::new(start())).event_time(true).in_memory().unwrap();
    assert!(matches!(store.observe_with("a", "one"), Err(Error::Mode { .. })));
}

/// A fingerprint that is damaged cannot be compared: that is an error, not a duplicate.
#[test]
fn a_damaged_fingerprint_is_an_error() {
    let (dir, clock) = (fast_dir(), ManualClock::new(start()));
    let store = builder(&clock).open(dir.path()).unwrap();
    assert_eq!(store.observe_with("a", "one").unwrap(), Seen::New);
    seal(&store, 0);
    store.close().unwrap();
    drop(store);
    for entry in fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        if entry.file_name().to_str().unwrap().starts_with("values-") {
            let mut bytes = fs::read(entry.path()).unwrap();
            // All values, not the entries that lead to them: the header says how many pages they have.
            let pages = u64::from_le_bytes(bytes[56..64].try_into().unwrap()) as usize;
            bytes[4_096..4_096 * (1 + pages)].fill(9);
            fs::write(entry.path(), bytes).unwrap();
        }
    }
    let store = builder(&clock).open(dir.path()).unwrap();
    for fingerprint in ["one", "two"] {
        assert!(matches!(store.observe_with("a", fingerprint), Err(Error::Corrupt { .. })));
        assert!(matches!(store.claim_with("a", with(fingerprint)), Err(Error::Corrupt { .. })));
    }
    assert_eq!(store.observe("a").unwrap(), Verdict::Duplicate);
    assert!(matches!(store.claim("a").unwrap(), Claim::Duplicate { .. }));
}

/// Fills segments of the journal, so that those before are sealed.
fn seal(store: &Dedup, round: u64) {
    for n in 0..40 {
        let guard = granted(store.claim(format!("long-{round}-{n}")).unwrap());
        guard.commit_with(vec![1; 64 << 10]).unwrap();
    }
    store.settle();
}

/// Any operations, with restarts, against a map of what each key was first seen with.
fn against_the_model(seed: u64, durability: Durability) {
    let (dir, clock) = (fast_dir(), ManualClock::new(start()));
    let mut rng = Rng::new(seed);
    let open =
        |shards| builder(&clock).shards(shards).durability(durability).open(dir.path()).unwrap();
    let mut store = open(2);
    let mut model = HashMap::<String, Option<String>>::new();
    for step in 0..400 {
        let key = format!("key-{}", rng.below(30));
        let fingerprint = format!("fingerprint-{}", rng.below(3));
        let live = store.contains(&key).unwrap();
        if !live {
            model.remove(&key);
        }
        let known = model.get(&key).cloned();
        match rng.below(20) {
            0..9 => {
                let expected = match &known {
                    None => Seen::New,
                    Some(Some(first)) if *first != fingerprint => Seen::Conflict,
                    Some(_) => Seen::Duplicate,
                };
                assert_eq!(store.observe_with(&key, &fingerprint).unwrap(), expected, "{step}");
                model.entry(key).or_insert(Some(fingerprint));
            }
            9..14 => match (store.claim_with(&key, with(&fingerprint)).unwrap(), &known) {
                (Claim::Granted(guard), None) => {
                    if rng.below(2) == 0 {
                        guard.keep("result").unwrap();
                    }
                    guard.commit().unwrap();
                    model.insert(key, Some(fingerprint));
                }
                (Claim::Conflict { .. }, Some(Some(first))) => assert_ne!(*first, fingerprint),
                (Claim::Duplicate { .. }, Some(None)) => {}
                (Claim::Duplicate { .. }, Some(Some(first))) => assert_eq!(*first, fingerprint),
                other => panic!("{step}: {other:?}"),
            },
            14 => {
                let expected = if live { Verdict::Duplicate } else { Verdict::New };
                assert_eq!(store.observe(&key).unwrap(), expected);
                model.entry(key).or_insert(None);
            }
            15 => {
                assert_eq!(store.forget(&key).unwrap(), live);
                model.remove(&key);
            }
            16 => clock.advance(Duration::from_millis(rng.below(9_000))),
            17 if rng.below(6) == 0 => seal(&store, step),
            18 => {
                store.close().unwrap();
                store = open(1 << rng.below(4));
            }
            _ => store.settle(),
        }
    }
}

#[test]
fn answers_are_those_of_the_model() {
    (0..10).for_each(|seed| against_the_model(seed, Durability::Process));
    (10..13).for_each(|seed| against_the_model(seed, Durability::Sync));
}
