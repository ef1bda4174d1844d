//! `verify` finds damage in every kind of file, and names it; `repair` sets aside no more than it has
//! to, notes what may be lost, and leaves a store that works.

#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::Rng;
use onceonly::{
    Builder, Claim, Dedup, Durability, Error, ManualClock, Timestamp, Verdict, offline,
};
use tempfile::TempDir;

const WINDOW: Duration = Duration::from_secs(3600);
const STEPS: u32 = 6;
const KEYS: u32 = 6_000;
const LEVELS: [Durability; 3] =
    [Durability::Process, Durability::Interval(Duration::from_secs(3600)), Durability::Sync];

fn builder(level: Durability, clock: &ManualClock) -> Builder {
    let builder = Dedup::builder().window(WINDOW).slices(STEPS).expected_keys(100).shards(2);
    builder.durability(level).clock(clock.clone())
}

fn key(number: u32) -> String {
    format!("key-{number}")
}

/// When the first key came: what looks at a store goes by the clock of the system.
fn began() -> SystemTime {
    SystemTime::now() - WINDOW * (STEPS - 1) / STEPS - Duration::from_secs(60)
}

/// A closed store with every kind of file, its keys in several slices, sealed and not.
struct Subject {
    dir: TempDir,
    level: Durability,
    clock: ManualClock,
    began: SystemTime,
}

impl Subject {
    fn new(level: Durability) -> Self {
        let (dir, began) = (TempDir::new().unwrap(), began());
        let clock = ManualClock::new(began);
        let store = builder(level, &clock).open(dir.path()).unwrap();
        for step in 0..STEPS {
            let keys: Vec<String> =
                (step * KEYS / STEPS..(step + 1) * KEYS / STEPS).map(key).collect();
            assert!(store.observe_batch(&keys).unwrap().iter().all(|v| *v == Verdict::New));
            assert!(store.forget(&keys[0]).unwrap());
            if step + 1 < STEPS {
                clock.advance(WINDOW / STEPS);
                store.settle();
            }
        }
        store.forget("key-5").unwrap();
        let guard = store.claim("claimed").unwrap();
        store.close().unwrap();
        drop((guard, store));
        let subject = Subject { dir, level, clock, began };
        for kind in ["journal-", "run-", "filter-", "log-"] {
            assert!(
                subject.names().iter().any(|name| name.starts_with(kind)),
                "{level:?}: no {kind}"
            );
        }
        subject
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap().map(Result::unwrap);
        let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
        files.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    fn first(&self, kind: &str) -> String {
        self.names().into_iter().filter(|name| name.starts_with(kind)).min().unwrap()
    }

    fn copy(&self) -> TempDir {
        let copy = TempDir::new().unwrap();
        for name in self.names() {
            fs::copy(self.dir.path().join(&name), copy.path().join(&name)).unwrap();
        }
        copy
    }

    /// Opens a store that was repaired: nothing is a false duplicate, a loss is told, and the rest
    /// is there. Returns how many keys are lost.
    fn check(&self, dir: &Path, what: &str) -> u32 {
        let clock = ManualClock::new(SystemTime::now());
        let store = builder(self.level, &clock).open(dir).unwrap_or_else(|e| panic!("{what}: {e}"));
        let since = store.guaranteed_since();
        let per_step = KEYS / STEPS;
        let mut lost = 0;
        for number in 0..KEYS {
            let live = store.contains(key(number)).unwrap_or_else(|e| panic!("{what}: {e}"));
            if number.is_multiple_of(per_step) || number == 5 {
                assert!(!live, "{what}: {} was forgotten", key(number));
            } else if !live {
                lost += 1;
                let came = Timestamp::from(self.began + WINDOW / STEPS * (number / per_step));
                assert!(since > came, "{what}: {} is lost without a word", key(number));
            }
        }
        for number in 0..50 {
            assert_eq!(store.observe(format!("fresh-{number}")).unwrap(), Verdict::New, "{what}");
        }
        assert!(!matches!(store.claim("claimed").unwrap(), Claim::Duplicate { .. }), "{what}");
        store.close().unwrap();
        lost
    }
}

fn flip(path: &Path, at: u64, mask: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize] ^= mask;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_whole_store_has_no_problems_closed_or_open() {
    for level in LEVELS {
        let subject = Subject::new(level);
        let found = offline::verify(subject.dir.path()).unwrap();
        assert!(found.problems.is_empty(), "{level:?}: {found:?}");
        assert!(found.unknown_files.is_empty() && found.leftovers.is_empty(), "{found:?}");
        assert!(found.keys_checked >= u64::from(KEYS), "{found:?}");
        assert_eq!(found.files_checked as usize, subject.names().len() - 1, "all but the lock");
        let repair = offline::repair(subject.dir.path()).unwrap();
        assert!(repair.set_aside.is_empty() && repair.keys_kept == 0, "{repair:?}");
        let store = builder(level, &subject.clock).open(subject.dir.path()).unwrap();
        assert_eq!(store.observe("another").unwrap(), Verdict::New);
        let found = offline::verify(subject.dir.path()).unwrap();
        assert!(found.problems.is_empty(), "{level:?}, open: {found:?}");
        let refused = offline::repair(subject.dir.path());
        assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
        store.close().unwrap();
        assert_eq!(subject.check(subject.dir.path(), "whole"), 0);
    }
}

/// Bits flipped anywhere: what `verify` finds `repair` mends, and what is lost is told. Where a
/// checksum covers the byte it must be found.
#[test]
fn flipped_bits_are_found_and_mended() {
    let mut rng = Rng::new(common::env_number("ONCEONLY_SEED", 11));
    for level in LEVELS {
        let subject = Subject::new(level);
        for name in subject.names() {
            if name == "LOCK" {
                continue;
            }
            let len = fs::metadata(subject.dir.path().join(&name)).unwrap().len();
            for turn in 0..3 {
                let copy = subject.copy();
                // Headers are small, and matter most.
                let at = if turn < 2 { rng.below(len.min(96)) } else { rng.below(len) };
                flip(&copy.path().join(&name), at, 1 << rng.below(8));
                let what = format!("{level:?}, {name}, byte {at}");
                let found = offline::verify(copy.path()).unwrap_or_default();
                let in_header = at < 80 && !name.starts_with("filter-");
                assert!(!found.problems.is_empty() || !in_header, "{what} is not found");
                let named = |problem: &offline::Problem| problem.file.ends_with(&name);
                let told = found.problems.is_empty() || found.problems.iter().any(named);
                assert!(told || name.starts_with("journal-"), "{what}: {:?}", found.problems);
                match offline::repair(copy.path()) {
                    Ok(repair) => {
                        assert!(repair.left.problems.is_empty(), "{what}: {repair:?}");
                        subject.check(copy.path(), &what);
                    }
                    Err(Error::Corrupt { .. } | Error::Version { .. }) => {
                        assert!(["STORE", "MANIFEST"].contains(&&*name), "{what} is not repaired");
                    }
                    Err(error) => panic!("{what}: {error}"),
                }
            }
        }
    }
}

#[test]
fn a_damaged_page_costs_its_own_keys_alone() {
    let subject = Subject::new(Durability::Process);
    let name = subject.first("run-");
    flip(&subject.dir.path().join(&name), 4096 + 500, 4);
    let found = offline::verify(subject.dir.path()).unwrap();
    assert_eq!(found.problems.len(), 1, "{found:?}");
    assert!(found.problems[0].file.ends_with(&name));
    assert!(found.problems[0].detail.contains("page 1"), "{found:?}");
    let repair = offline::repair(subject.dir.path()).unwrap();
    assert_eq!(repair.set_aside, [name.as_str()]);
    assert!(subject.dir.path().join("set-aside").join(&name).exists());
    assert!(repair.keys_kept > 256 && repair.left.problems.is_empty(), "{repair:?}");
    let lost = subject.check(subject.dir.path(), "repaired");
    assert!((250..=256).contains(&lost), "{lost} lost, and a page has 256 keys");
}

/// Only a sealed file takes keys with it: a filter is rebuilt, and time is known from elsewhere.
#[test]
fn a_missing_file_is_named_and_its_slice_noted() {
    for kind in ["run-", "filter-", "CLOCK"] {
        let subject = Subject::new(Durability::Process);
        let name = subject.first(kind);
        fs::remove_file(subject.dir.path().join(&name)).unwrap();
        let found = offline::verify(subject.dir.path()).unwrap();
        assert!(found.problems.iter().any(|p| p.file.ends_with(&name)), "{name}: {found:?}");
        let repair = offline::repair(subject.dir.path()).unwrap();
        assert!(repair.left.problems.is_empty(), "{name}: {repair:?}");
        let lost = subject.check(subject.dir.path(), &name);
        assert_eq!(lost > 0, kind == "run-", "{name}: {lost} lost");
    }
}

/// A key whose bits are gone from the filter would be `New` again.
#[test]
fn a_filter_that_lacks_keys_is_found_and_rebuilt() {
    let subject = Subject::new(Durability::Process);
    let path = subject.dir.path().join(subject.first("filter-"));
    let mut bytes = fs::read(&path).unwrap();
    // All rows of some blocks, not the epochs.
    for block in bytes.chunks_mut(128).take(4) {
        block[..127].fill(0);
    }
    fs::write(&path, bytes).unwrap();
    let found = offline::verify(subject.dir.path()).unwrap();
    assert_eq!(found.problems.len(), 1, "{found:?}");
    assert!(found.problems[0].file == path && found.problems[0].detail.contains("lacks"));
    let repair = offline::repair(subject.dir.path()).unwrap();
    assert!(repair.recovery.filters_rebuilt > 0 && repair.left.problems.is_empty(), "{repair:?}");
    assert_eq!(subject.check(subject.dir.path(), "rebuilt"), 0);
}

#[test]
fn unknown_files_and_leftovers_are_named_and_removed_from_the_store() {
    let subject = Subject::new(Durability::Process);
    fs::write(subject.dir.path().join("notes.txt"), "mine").unwrap();
    fs::write(subject.dir.path().join("run-00000000000000ff"), "half").unwrap();
    let found = offline::verify(subject.dir.path()).unwrap();
    assert!(found.problems.is_empty(), "{found:?}");
    assert_eq!(found.unknown_files, ["notes.txt"]);
    assert_eq!(found.leftovers, ["run-00000000000000ff"]);
    let repair = offline::repair(subject.dir.path()).unwrap();
    assert_eq!(repair.set_aside, ["notes.txt"]);
    let kept = subject.dir.path().join("set-aside").join("notes.txt");
    assert_eq!(fs::read_to_string(kept).unwrap(), "mine");
    assert!(repair.left.unknown_files.is_empty() && repair.left.leftovers.is_empty());
    assert_eq!(subject.check(subject.dir.path(), "tidied"), 0);
}

#[test]
fn a_directory_that_is_no_store_is_left_alone() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    assert!(matches!(offline::repair(dir.path()), Err(Error::NotAStore { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
