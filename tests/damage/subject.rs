//! A small store of every kind of file, to be damaged, and what must hold of it afterwards.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use onceonly::{Builder, Claim, Dedup, Error, ManualClock, Timestamp, Verdict};
use tempfile::TempDir;

use crate::common::{Rng, fast_dir, start};

/// Whether the store finds itself where and when it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The same files on the same boot: maps are trusted unverified.
    SamePlace,
    /// Other files on another boot: everything is verified.
    Copied,
}

impl Trust {
    pub(crate) fn any(rng: &mut Rng) -> Self {
        if rng.below(2) == 0 { Trust::SamePlace } else { Trust::Copied }
    }
}

const WINDOW: Duration = Duration::from_secs(60);
/// Keys `key-0` and up are live, in several slices, sealed and not; some of them were forgotten.
const KEYS: u32 = 6_000;
const STEPS: u32 = 6;
/// These are asked for after each change; asking for all would take too long.
const ASKED: u32 = 41;

/// Files that tell a store from its copy.
const IN_PLACE: [&str; 2] = ["STORE", "MANIFEST"];

pub(crate) struct Subject {
    clock: ManualClock,
    dir: TempDir,
    /// Has other links to header and manifest, whose inodes tell the store that it is in its own place.
    links: TempDir,
    files: BTreeMap<String, Vec<u8>>,
    copies: RefCell<TempDir>,
}

fn key(number: u32) -> String {
    format!("key-{number}")
}

fn is_forgotten(number: u32) -> bool {
    number.is_multiple_of(2 * ASKED)
}

impl Subject {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::new(start());
        let dir = fast_dir();
        let store = settings(&clock).open(dir.path()).unwrap();
        for step in 0..STEPS {
            let range = step * KEYS / STEPS..(step + 1) * KEYS / STEPS;
            let keys: Vec<String> = range.clone().map(key).collect();
            let verdicts = store.observe_batch(&keys).unwrap();
            assert!(verdicts.iter().all(|verdict| *verdict == Verdict::New));
            for number in range.filter(|number| is_forgotten(*number)) {
                assert!(store.forget(key(number)).unwrap());
            }
            if step + 1 < STEPS {
                clock.advance(WINDOW / STEPS);
                store.settle();
            }
        }
        let guards = store.claim_batch(&["claimed-1", "claimed-2"]).unwrap();
        store.close().unwrap();
        drop(guards);
        let files = read_all(dir.path());
        for kind in ["STORE", "MANIFEST", "CLOCK", "journal-", "run-", "filter-"] {
            assert!(files.keys().any(|name| name.starts_with(kind)), "no {kind} to be damaged");
        }
        let links = fast_dir();
        for name in IN_PLACE {
            fs::hard_link(dir.path().join(name), links.path().join(name)).unwrap();
        }
        Subject { clock, dir, links, files, copies: RefCell::new(fast_dir()) }
    }

    pub(crate) fn builder(&self, trust: Trust) -> Builder {
        match trust {
            Trust::SamePlace => settings(&self.clock),
            // The wall clock goes on where it was, on another boot.
            Trust::Copied => settings(&ManualClock::new(start() + WINDOW * (STEPS - 1) / STEPS)),
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.files.keys().cloned().collect()
    }

    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        &self.files[name]
    }

    /// Makes `dir` hold the store as it was closed, keeping files that exist (and their inodes).
    pub(crate) fn copy_to(&self, dir: &Path) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                fs::remove_dir_all(entry.path()).unwrap();
            } else if !self.files.contains_key(entry.file_name().to_str().unwrap()) {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        for (name, bytes) in &self.files {
            fs::write(dir.join(name), bytes).unwrap();
        }
    }

    /// Opens the store with the bytes of file `name` changed by `harm`.
    pub(crate) fn check(
        &self,
        trust: Trust,
        what: &str,
        name: &str,
        harm: impl FnOnce(&mut Vec<u8>),
    ) {
        self.check_files(trust, what, name, |dir| {
            let mut bytes = self.bytes(name).to_vec();
            harm(&mut bytes);
            fs::write(dir.join(name), bytes).unwrap();
        });
    }

    /// Opens the store with its files changed by `harm`, of which `name` is the most telling.
    pub(crate) fn check_files(
        &self,
        trust: Trust,
        what: &str,
        name: &str,
        harm: impl FnOnce(&Path),
    ) {
        let copies = self.copies.borrow_mut();
        let dir = if trust == Trust::SamePlace { self.dir.path() } else { copies.path() };
        if trust == Trust::SamePlace {
            for name in IN_PLACE {
                let _ = fs::remove_file(dir.join(name));
                fs::hard_link(self.links.path().join(name), dir.join(name)).unwrap();
            }
        }
        self.copy_to(dir);
        harm(dir);
        let what = format!("{trust:?}, {what}");
        match self.builder(trust).open(dir) {
            Ok(store) => check_answers(&store, trust, name, &what),
            Err(error) => check_refusal(&error, &what),
        }
    }
}

fn settings(clock: &ManualClock) -> Builder {
    Dedup::builder().window(WINDOW).slices(STEPS).expected_keys(100).shards(2).clock(clock.clone())
}

fn read_all(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

fn check_refusal(error: &Error, what: &str) {
    let typed = matches!(
        error,
        Error::Corrupt { .. } | Error::Version { .. } | Error::NotAStore { .. } | Error::Io { .. }
    );
    assert!(typed, "{what}: refused with {error:?}");
}

/// Whether a loss in this file must be told. In a filter that is trusted unverified (same boot,
/// same files) it need not: who writes into it is a hostile writer, which the contract excludes. Neither
/// need it in an unsealed journal, whose records claim no checksum.
fn must_be_told(trust: Trust, name: &str) -> bool {
    let trusted = name.starts_with("filter-") && trust == Trust::SamePlace;
    !trusted && !name.starts_with("journal-")
}

fn check_answers(store: &Dedup, trust: Trust, name: &str, what: &str) {
    for number in 0..60 {
        let fresh = format!("fresh-{number}");
        let contained = store.contains(&fresh);
        assert!(!matches!(contained, Ok(true)), "{what}: a fresh key is live");
        match store.observe(&fresh) {
            Ok(verdict) => assert_eq!(verdict, Verdict::New, "{what}: a fresh key"),
            Err(error) => check_refusal(&error, what),
        }
    }
    let asked = || (0..KEYS).step_by(ASKED as usize);
    for number in asked().filter(|number| is_forgotten(*number)) {
        let contained = store.contains(key(number));
        assert!(!matches!(contained, Ok(true)), "{what}: forgotten {} is live", key(number));
    }
    for claimed in ["claimed-1", "claimed-2"] {
        let answer = store.claim(claimed);
        assert!(!matches!(answer, Ok(Claim::Duplicate { .. })), "{what}: {claimed} is a duplicate");
    }
    let newest_lost = asked()
        .filter(|number| !is_forgotten(*number))
        .rfind(|number| matches!(store.contains(key(*number)), Ok(false)));
    if let Some(number) = newest_lost.filter(|_| must_be_told(trust, name)) {
        check_confession(store, number, what);
    }
    // An I/O error here is allowed, a panic or a hang is not.
    let _ = store.close();
}

/// Promise 6: a key is gone, so the store must not vouch for the time in which it came.
fn check_confession(store: &Dedup, lost: u32, what: &str) {
    let report = store.stats().recovery;
    assert!(!report.damage.is_empty(), "{what}: {} lost without a word: {report:?}", key(lost));
    let came = Timestamp::from(start() + WINDOW / STEPS * (lost / (KEYS / STEPS)));
    let since = store.guaranteed_since();
    assert!(since > came, "{what}: {} lost, yet it vouches since {since}", key(lost));
}
