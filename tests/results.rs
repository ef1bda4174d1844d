//! Results that are kept with marks: for as long as the mark, through everything that the mark survives,
//! and never another's, a forgotten one's, or a damaged one.

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use common::{Rng, fast_dir, start};
use onceonly::{
    Builder, Claim, ClaimGuard, Dedup, Durability, Error, ManualClock, Outcome, Timestamp, Verdict,
    offline,
};

const WINDOW: Duration = Duration::from_secs(60);
const SLICE: Duration = Duration::from_secs(10);
const MOST: usize = 64 << 10;
/// The longest results fill two segments and more with this.
const FILL: usize = 40;

fn builder(clock: &ManualClock) -> Builder {
    Dedup::builder().window(WINDOW).slices(6).expected_keys(300).shards(2).clock(clock.clone())
}

/// In one slice, by the clock of the machine, as the calls of `offline` take it.
fn by_the_clock() -> Builder {
    Dedup::builder().window(WINDOW * 60).slices(6).expected_keys(300).shards(2)
}

fn granted(claim: Claim) -> ClaimGuard {
    match claim {
        Claim::Granted(guard) => guard,
        other => panic!("not granted: {other:?}"),
    }
}

fn commit(store: &Dedup, key: &str, result: &[u8]) {
    granted(store.claim(key).unwrap()).commit_with(result).unwrap();
}

/// The result that a claim is answered with.
fn told(claim: Claim) -> Option<Vec<u8>> {
    match claim {
        Claim::Duplicate { result, .. } => result,
        other => panic!("not a duplicate: {other:?}"),
    }
}

/// A result of any length, which its key and number tell.
fn made(key: &str, number: u64, rng: &mut Rng) -> Vec<u8> {
    let most = [0, 1, 20, 300, 4_025, 4_100, 30_000, MOST as u64][rng.below(8) as usize];
    let len = rng.below(most + 1) as usize;
    let name = format!("{key}#{number}.");
    name.bytes().cycle().take(len).collect()
}

#[test]
fn every_duplicate_is_answered_with_the_result() {
    let store = builder(&ManualClock::new(start())).in_memory().unwrap();
    commit(&store, "a", b"receipt");
    assert_eq!(told(store.claim("a").unwrap()), Some(b"receipt".to_vec()));
    assert_eq!(store.result("a").unwrap(), Some(b"receipt".to_vec()));
    let again = store.process_once("a", |_| -> Result<(), Error> { unreachable!() }).unwrap();
    assert!(matches!(again, Outcome::Duplicate { result: Some(r), .. } if r == b"receipt"));
    // Within work, and where many are committed together.
    let kept = store.process_once("b", |claim| claim.keep("first").and(claim.keep("second")));
    assert!(matches!(kept, Ok(Outcome::Done(()))));
    assert_eq!(store.result("b").unwrap(), Some(b"second".to_vec()));
    let guards: Vec<_> =
        store.claim_batch(&["c", "d", "e"]).unwrap().into_iter().map(granted).collect();
    guards[1].keep("of d").unwrap();
    assert!(store.commit_batch(guards).iter().all(Result::is_ok));
    let results: Vec<_> =
        store.claim_batch(&["a", "c", "d", "e"]).unwrap().into_iter().map(told).collect();
    assert_eq!(results, [Some(b"receipt".to_vec()), None, Some(b"of d".to_vec()), None]);
    // An empty result is one.
    commit(&store, "f", b"");
    assert_eq!(told(store.claim("f").unwrap()), Some(vec![]));
    // Of keys without a result, of unknown keys, and of equal keys elsewhere there is none.
    assert_eq!(store.observe("g").unwrap(), Verdict::New);
    assert_eq!(store.result("g").unwrap(), None);
    assert_eq!(store.result("nobody").unwrap(), None);
    assert_eq!(store.scope("a").result("a").unwrap(), None);
    assert_eq!(store.stats().keys_live, 7);
}

/// A result that is too long is refused, and marks nothing.
#[test]
fn a_result_may_have_64_kib_and_no_more() {
    let store = builder(&ManualClock::new(start())).in_memory().unwrap();
    let longest = vec![7; MOST];
    commit(&store, "a", &longest);
    assert_eq!(store.result("a").unwrap(), Some(longest));
    let guard = granted(store.claim("b").unwrap());
    assert!(matches!(guard.keep(vec![7; MOST + 1]), Err(Error::Config { field: "result", .. })));
    let failed = guard.commit_with(vec![7; MOST + 1]).unwrap_err();
    assert!(matches!(failed.error(), Error::Config { field: "result", .. }));
    assert!(!store.contains("b").unwrap());
    let (guard, _) = failed.into_parts();
    guard.commit_with("shorter").unwrap();
    assert_eq!(store.result("b").unwrap(), Some(b"shorter".to_vec()));
    // No commit was attempted: a dropped guard gives the key back.
    let guard = granted(store.claim("c").unwrap());
    drop(guard.commit_with(vec![7; MOST + 1]));
    granted(store.claim("c").unwrap()).abandon();
}

/// Promise 9: without room neither the mark nor the result is there.
#[test]
fn a_full_store_keeps_nothing() {
    let clock = ManualClock::new(start());
    let store = builder(&clock).max_keys(1).in_memory().unwrap();
    let guard = granted(store.claim("a").unwrap());
    assert_eq!(store.observe("other").unwrap(), Verdict::New);
    let (guard, error) = guard.commit_with("lost").unwrap_err().into_parts();
    assert!(matches!(error, Error::Full { max_keys: 1 }));
    assert!(!store.contains("a").unwrap() && store.result("a").unwrap().is_none());
    guard.abandon();
    assert!(store.forget("other").unwrap());
    assert_eq!(store.observe("a").unwrap(), Verdict::New);
    assert_eq!(store.result("a").unwrap(), None, "of a commit that failed");
    assert!(store.forget("a").unwrap());
    commit(&store, "a", b"kept");
    assert_eq!(store.result("a").unwrap(), Some(b"kept".to_vec()));
}

/// What a forgotten key had is not what it has when it is seen again: in the same slice, sealed or not,
/// before and after a restart.
#[test]
fn a_forgotten_result_never_comes_back() {
    for (seals_before, seals_after, with_result) in
        (0..8).map(|n| (n & 1 > 0, n & 2 > 0, n & 4 > 0))
    {
        let (dir, clock) = (fast_dir(), ManualClock::new(start()));
        let mut store = builder(&clock).open(dir.path()).unwrap();
        commit(&store, "a", b"old");
        if seals_before {
            fill(&store, "before");
        }
        assert!(store.forget("a").unwrap());
        assert_eq!(store.result("a").unwrap(), None);
        let expected = with_result.then(|| b"new".to_vec());
        match &expected {
            Some(result) => commit(&store, "a", result),
            None => assert_eq!(store.observe("a").unwrap(), Verdict::New),
        }
        if seals_after {
            fill(&store, "after");
        }
        for _ in 0..2 {
            assert_eq!(store.result("a").unwrap(), expected);
            assert_eq!(told(store.claim("a").unwrap()), expected);
            store.close().unwrap();
            store = builder(&clock).open(dir.path()).unwrap();
        }
        assert_eq!(offline::verify(dir.path()).unwrap().problems.len(), 0);
    }
}

/// Fills some segments of the journal, so that those before are sealed.
fn fill(store: &Dedup, name: &str) {
    for n in 0..FILL {
        commit(store, &format!("{name}-{n}"), &[n as u8; MOST]);
    }
    store.settle();
}

/// What every key has, and since when.
#[derive(Default)]
struct Model {
    results: HashMap<String, (Duration, Option<Vec<u8>>)>,
}

impl Model {
    fn check(&self, store: &Dedup, now: Duration, refreshes: bool, rng: &mut Rng) {
        for (key, (since, result)) in &self.results {
            let live = store.contains(key).unwrap();
            assert!(live || now > *since + WINDOW, "{key} of {since:?} is lost at {now:?}");
            assert!(!live || now <= *since + WINDOW + SLICE, "{key} has not expired");
            let found = store.result(key).unwrap();
            let expected = if live { result.clone() } else { None };
            assert!(found == expected, "{key}: {} for {}", len(&found), len(&expected));
            // A duplicate of a store that refreshes begins a window of its own.
            if live && !refreshes && rng.below(8) == 0 {
                assert!(told(store.claim(key).unwrap()) == *result, "{key}: another result");
            }
        }
    }
}

fn len(result: &Option<Vec<u8>>) -> String {
    result.as_ref().map_or("none".into(), |result| format!("{} bytes", result.len()))
}

/// Any operations, restarts with another geometry among them, against a map.
fn against_the_model(seed: u64, refreshes: bool, durability: Durability) {
    let (dir, clock) = (fast_dir(), ManualClock::new(start()));
    let mut rng = Rng::new(seed);
    let mut shards = 2;
    let open = |shards: usize| {
        let builder = builder(&clock).shards(shards).durability(durability);
        builder.refresh_on_duplicate(refreshes).open(dir.path()).unwrap()
    };
    let mut store = open(shards);
    let (mut model, mut now) = (Model::default(), Duration::ZERO);
    for step in 0..120 {
        let key = format!("key-{}", rng.below(40));
        let live = store.contains(&key).unwrap();
        match rng.below(16) {
            0..7 if !live => {
                let result = made(&key, step, &mut rng);
                commit(&store, &key, &result);
                model.results.insert(key, (now, Some(result)));
            }
            0..7 if refreshes => {
                let expected = model.results[&key].1.clone();
                assert!(told(store.claim(&key).unwrap()) == expected);
                model.results.insert(key, (now, expected));
            }
            7 | 8 if !live => {
                assert_eq!(store.observe(&key).unwrap(), Verdict::New);
                model.results.insert(key, (now, None));
            }
            9 | 10 => {
                assert_eq!(store.forget(&key).unwrap(), live);
                model.results.remove(&key);
            }
            11 => fill(&store, &format!("fill-{step}")),
            12 | 13 => {
                let by = Duration::from_millis(rng.below(9_000));
                clock.advance(by);
                now += by;
            }
            14 => {
                store.close().unwrap();
                shards = 1 << rng.below(4);
                store = open(shards);
            }
            _ => store.settle(),
        }
        if step % 10 == 0 {
            model.check(&store, now, refreshes, &mut rng);
        }
    }
    model.check(&store, now, refreshes, &mut rng);
    store.close().unwrap();
    let found = offline::verify(dir.path()).unwrap();
    assert!(found.problems.is_empty(), "{found:?}");
}

#[test]
fn results_are_those_of_the_model() {
    (0..12).for_each(|seed| against_the_model(seed, false, Durability::Process));
}

#[test]
fn refreshed_keys_keep_their_results() {
    (100..112).for_each(|seed| against_the_model(seed, true, Durability::Process));
}

#[test]
fn results_are_those_of_the_model_at_sync() {
    (200..204).for_each(|seed| against_the_model(seed, seed % 2 == 0, Durability::Sync));
}

/// In event time a result lives in the slice of its claim's timestamp.
#[test]
fn results_in_event_time_end_with_their_slice() {
    let clock = ManualClock::new(start());
    let store = builder(&clock).event_time(true).max_event_lead(WINDOW * 9).in_memory().unwrap();
    let at = |seconds| Timestamp::from(start() + Duration::from_secs(seconds));
    granted(store.claim_at("late", at(15)).unwrap()).commit_with("l").unwrap();
    granted(store.claim_at("now", at(70)).unwrap()).commit_with("n").unwrap();
    assert_eq!(told(store.claim_at("late", at(71)).unwrap()), Some(b"l".to_vec()));
    let over = granted(store.claim_at("over", at(12)).unwrap());
    assert_eq!(store.observe_at("other", at(95)).unwrap(), Verdict::New);
    over.commit_with("marks nothing").unwrap();
    assert_eq!(store.result("over").unwrap(), None);
    assert_eq!(store.result("late").unwrap(), None);
    assert_eq!(store.result("now").unwrap(), Some(b"n".to_vec()));
}

/// Many files of one slice become few, and say the same.
#[test]
fn files_of_results_are_merged_and_expire_with_their_slice() {
    let (dir, clock) = (fast_dir(), ManualClock::new(start()));
    let store = builder(&clock).open(dir.path()).unwrap();
    let mut expected = HashMap::new();
    for round in 0..20 {
        for n in 0..30 {
            let (key, result) = (format!("{round}-{n}"), format!("result {round} {n}"));
            commit(&store, &key, result.as_bytes());
            expected.insert(key, result);
        }
        if round > 0 {
            assert!(store.forget(format!("{}-0", round - 1)).unwrap());
            expected.remove(&format!("{}-0", round - 1));
        }
        fill(&store, &format!("fill-{round}"));
    }
    let count = || {
        let names = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().starts_with("values-")).count()
    };
    assert!((1..16).contains(&count()), "{} files", count());
    let check = |store: &Dedup| {
        for (key, result) in &expected {
            assert_eq!(store.result(key).unwrap().as_deref(), Some(result.as_bytes()), "{key}");
        }
    };
    check(&store);
    store.close().unwrap();
    let store = builder(&clock).open(dir.path()).unwrap();
    check(&store);
    clock.advance(WINDOW + SLICE * 2);
    assert_eq!(store.observe("next").unwrap(), Verdict::New);
    store.settle();
    assert_eq!(count(), 0, "of a slice that has expired");
    assert!(expected.keys().all(|key| store.result(key).unwrap().is_none()));
}

fn first_values(dir: &Path) -> std::path::PathBuf {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let is_values = |path: &std::path::PathBuf| {
        path.file_name().unwrap().to_str().unwrap().starts_with("values-")
    };
    paths.filter(is_values).min().expect("a values file")
}

/// A damaged result is an error where it is asked for, and the key is a duplicate all the same. Repairing
/// keeps the others.
#[test]
fn a_damaged_result_is_never_told() {
    let dir = fast_dir();
    let store = by_the_clock().open(dir.path()).unwrap();
    for n in 0..20 {
        commit(&store, &format!("key-{n}"), format!("result of {n}").as_bytes());
    }
    fill(&store, "fill");
    store.close().unwrap();
    drop(store);
    let path = first_values(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let text = b"result of 7";
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let found = offline::verify(dir.path()).unwrap();
    assert_eq!(found.problems.len(), 1);
    assert_eq!(found.problems[0].file, path);
    let store = by_the_clock().open(dir.path()).unwrap();
    assert!(matches!(store.result("key-7"), Err(Error::Corrupt { file, .. }) if file == path));
    assert_eq!(told(store.claim("key-7").unwrap()), None);
    assert!(store.stats().last_background_error.is_some());
    assert_eq!(store.result("key-8").unwrap(), Some(b"result of 8".to_vec()));
    store.close().unwrap();
    drop(store);
    let repair = offline::repair(dir.path()).unwrap();
    assert_eq!((repair.values_lost, repair.left.problems.len()), (1, 0));
    let store = by_the_clock().open(dir.path()).unwrap();
    for n in 0..20 {
        assert!(store.contains(format!("key-{n}")).unwrap());
        let expected = (n != 7).then(|| format!("result of {n}").into_bytes());
        assert_eq!(store.result(format!("key-{n}")).unwrap(), expected);
    }
}

/// A file that cannot be relied on takes those before it along: it may have said that what they hold is
/// not kept any more.
#[test]
fn a_lost_file_brings_no_forgotten_result_back() {
    let dir = fast_dir();
    let store = by_the_clock().open(dir.path()).unwrap();
    commit(&store, "a", b"old");
    fill(&store, "one");
    assert!(store.forget("a").unwrap());
    assert_eq!(store.observe("a").unwrap(), Verdict::New);
    commit(&store, "b", b"kept");
    fill(&store, "two");
    store.close().unwrap();
    drop(store);
    let names = |dir: &Path| {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect::<Vec<_>>()
    };
    let mut files = names(dir.path());
    files.retain(|name| name.starts_with("values-"));
    assert!(files.len() >= 2, "{files:?}");
    for (lost, repairs) in files.iter().flat_map(|name| [(name, false), (name, true)]) {
        let copy = fast_dir();
        for name in names(dir.path()).iter().filter(|name| *name != lost) {
            fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
        }
        if repairs {
            assert!(offline::repair(copy.path()).unwrap().left.problems.is_empty());
        }
        let store = by_the_clock().open(copy.path()).unwrap();
        let told = &store.stats().recovery.damage;
        assert!(repairs || told.iter().any(|why| why.contains("results")), "{told:?}");
        assert!(store.contains("a").unwrap() && store.contains("b").unwrap());
        assert_eq!(store.result("a").unwrap(), None, "of before it was forgotten");
    }
}

/// The observations, claims and results of a store are told by one that shares its files.
#[test]
fn inspect_names_the_files_of_results() {
    let (dir, clock) = (fast_dir(), ManualClock::new(start()));
    let store = builder(&clock).open(dir.path()).unwrap();
    commit(&store, "a", b"1");
    fill(&store, "fill");
    let files = offline::inspect(dir.path()).unwrap().files;
    assert!(files.iter().any(|file| file.kind == "kept with sealed keys"));
    assert!(offline::verify(dir.path()).unwrap().problems.is_empty());
}
