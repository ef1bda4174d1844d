//! Small stores of the current format version, kept under `tests/fixtures/`: how each is made, and what
//! it must answer for ever. `cargo run -p onceonly-campaigns -- fixtures` makes those of a version that
//! has none yet.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use onceonly::{
    Builder, Claim, ClaimGuard, ClaimOptions, Dedup, DigestKind, ManualClock, Timestamp, Verdict,
};

use super::ops::Level;
use super::start;

const WINDOW: Duration = Duration::from_secs(600);
/// Spans of the window in which keys come; the first have expired at the end.
const STEPS: u32 = 8;
const KEYS_OF_STEP: u32 = 700;
/// Keys of a step that are committed with results.
const RESULTS: u32 = 48;
/// These are forgotten, and every other one of them seen again.
const FORGOTTEN: u32 = 37;

pub(crate) struct Fixture {
    pub(crate) name: &'static str,
    pub(crate) level: Level,
    event_time: bool,
    slices: u32,
    digest: DigestKind,
    refresh: bool,
    /// Results are kept with keys of the last steps, sealed and not.
    results: bool,
    /// The process died; else the store was closed.
    pub(crate) killed: bool,
}

const PLAIN: Fixture = Fixture {
    name: "process",
    level: Level::Process,
    event_time: false,
    slices: 6,
    digest: DigestKind::Xxh3,
    refresh: false,
    results: false,
    killed: false,
};

/// One of each level, a crash, the other mode of time with the other digest, filters of wide rows, and
/// results.
pub(crate) const ALL: [Fixture; 7] = [
    PLAIN,
    Fixture { name: "interval", level: Level::Interval, slices: 3, ..PLAIN },
    Fixture { name: "sync", level: Level::Sync, slices: 1, ..PLAIN },
    Fixture { name: "sync-killed", level: Level::Sync, killed: true, ..PLAIN },
    Fixture { name: "event-time", event_time: true, digest: DigestKind::SipHash13, ..PLAIN },
    Fixture { name: "refresh", slices: 24, refresh: true, ..PLAIN },
    Fixture { name: "results", results: true, ..PLAIN },
];

fn key(step: u32, number: u32) -> String {
    format!("key-{step}-{number}")
}

fn step_start(step: u32) -> SystemTime {
    start() + WINDOW / (STEPS - 2) * step
}

/// Whether a key is live at the end. Of the first steps some are in slices that have just expired, or
/// are about to: those are not asked for.
fn is_live(step: u32, number: u32) -> Option<bool> {
    match step {
        0 | 1 => None,
        _ if number.is_multiple_of(FORGOTTEN) => Some(number.is_multiple_of(2 * FORGOTTEN)),
        _ => Some(true),
    }
}

fn committed(step: u32, number: u32) -> String {
    format!("committed-{step}-{number}")
}

/// What is kept with a key that was committed: the last ones are long, so that those before are sealed.
/// Those that were forgotten and committed again have none.
fn result(step: u32, number: u32) -> Option<Vec<u8>> {
    let len = if number + 16 < RESULTS { number as usize * 3 } else { 64 << 10 };
    let text = format!("{step}.{number} ");
    (!number.is_multiple_of(5)).then(|| text.bytes().cycle().take(len).collect())
}

fn keep_results(store: &Dedup, step: u32) {
    // Of the last step all are unsealed.
    let count = if step + 1 < STEPS { RESULTS } else { RESULTS - 16 };
    let claim = |number| match store.claim(committed(step, number)).unwrap() {
        Claim::Granted(guard) => guard,
        other => panic!("{other:?}"),
    };
    for number in 0..count {
        match result(step, number) {
            Some(result) => claim(number).commit_with(result).unwrap(),
            None => {
                claim(number).commit_with("forgotten").unwrap();
                assert!(store.forget(committed(step, number)).unwrap());
                claim(number).commit().unwrap();
            }
        }
    }
}

impl Fixture {
    /// Where the stores of a format version are.
    pub(crate) fn directory(version: u32) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = if root.join("tests/common").exists() { root } else { root.parent().unwrap() };
        root.join("tests/fixtures").join(format!("v{version}"))
    }

    fn builder(&self, clock: &ManualClock) -> Builder {
        Dedup::builder()
            .window(WINDOW)
            .slices(self.slices)
            .expected_keys(300)
            .shards(2)
            .digest(self.digest)
            .secret([7; 32])
            .lease(Duration::from_secs(10_000))
            .event_time(self.event_time)
            .refresh_on_duplicate(self.refresh)
            .durability(self.level.durability())
            .clock(clock.clone())
    }

    /// Makes the store, and copies its files to `target`.
    pub(crate) fn make(&self, target: &Path) {
        let (dir, clock) = (super::fast_dir(), ManualClock::new(start()));
        let store = self.builder(&clock).open(dir.path()).unwrap();
        for step in 0..STEPS {
            self.run_step(&store, step);
            if self.results && step + 2 >= STEPS {
                keep_results(&store, step);
            }
            if step + 1 < STEPS {
                clock.advance(WINDOW / (STEPS - 2));
                store.settle();
            }
        }
        let guards = ["claimed-1", "claimed-2"].map(|key| self.claim(&store, key));
        match self.killed {
            // The copy is made file by file: none may go meanwhile.
            true => store.settle(),
            false => store.close().unwrap(),
        }
        fs::create_dir_all(target).unwrap();
        for entry in fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
            if entry.file_name() != "LOCK" {
                fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
            }
        }
        drop(guards);
    }

    fn run_step(&self, store: &Dedup, step: u32) {
        let numbers = 0..KEYS_OF_STEP;
        for number in numbers.clone() {
            assert_eq!(self.observe(store, step, number), Verdict::New);
        }
        for number in numbers.filter(|number| number.is_multiple_of(FORGOTTEN)) {
            assert!(store.forget(key(step, number)).unwrap());
            if number.is_multiple_of(2 * FORGOTTEN) {
                assert_eq!(self.observe(store, step, number), Verdict::New);
            }
        }
        if self.refresh && step > 0 {
            assert_eq!(self.observe(store, step - 1, 1), Verdict::Duplicate);
        }
    }

    fn observe(&self, store: &Dedup, step: u32, number: u32) -> Verdict {
        let key = key(step, number);
        if self.event_time {
            let time = step_start(step) + Duration::from_millis(u64::from(number));
            store.observe_at(key, Timestamp::from(time)).unwrap()
        } else {
            store.observe(key).unwrap()
        }
    }

    fn claim(&self, store: &Dedup, key: &str) -> ClaimGuard {
        let claim = if self.event_time {
            store.claim_at(key, Timestamp::from(step_start(STEPS - 1)))
        } else {
            store.claim_with(key, ClaimOptions::new().note(key))
        };
        match claim.unwrap() {
            Claim::Granted(guard) => guard,
            other => panic!("{key}: {other:?}"),
        }
    }

    /// Opens a copy of the store some seconds later, and asks for everything.
    pub(crate) fn check(&self, dir: &Path) {
        let clock = ManualClock::new(step_start(STEPS - 1) + Duration::from_secs(5));
        let store = self.builder(&clock).open(dir).unwrap();
        let report = store.stats().recovery;
        assert_eq!(report.clean_close, !self.killed, "{}: {report:?}", self.name);
        self.check_keys(&store);
        self.check_claims(&store);
        // What is written now and what was there live together, also after another open.
        store.close().unwrap();
        drop(store);
        let store = self.builder(&clock).open(dir).unwrap();
        self.check_keys(&store);
    }

    fn check_keys(&self, store: &Dedup) {
        for step in 0..STEPS {
            for number in 0..KEYS_OF_STEP {
                let live = store.contains(key(step, number)).unwrap();
                let wanted = is_live(step, number);
                let what = format!("{}: {}", self.name, key(step, number));
                assert!(wanted.is_none_or(|wanted| wanted == live), "{what} is live: {live}");
            }
        }
        for step in STEPS - 2..STEPS {
            for number in 0..RESULTS {
                let there = self.results && (step + 1 < STEPS || number + 16 < RESULTS);
                let expected = result(step, number).filter(|_| there);
                let found = store.result(committed(step, number)).unwrap();
                assert!(found == expected, "{}: result {number} of step {step}", self.name);
            }
        }
        for number in 0..100 {
            assert!(!store.contains(format!("fresh-{number}")).unwrap(), "{}", self.name);
        }
    }

    /// In flight when the process ended: listed, never duplicates, granted again.
    fn check_claims(&self, store: &Dedup) {
        let listed = store.claims().unwrap();
        assert_eq!(listed.len(), 2, "{}: {listed:?}", self.name);
        let notes: BTreeSet<&[u8]> = listed.iter().map(|claim| &claim.note[..]).collect();
        if !self.event_time {
            assert_eq!(notes, BTreeSet::from([&b"claimed-1"[..], b"claimed-2"]));
        }
        assert!(
            listed
                .iter()
                .all(|claim| claim.orphaned && claim.event_time.is_some() == self.event_time)
        );
        let newest = listed.iter().map(|claim| claim.token).max().unwrap();
        let guard = self.claim(store, "claimed-1");
        assert!(guard.token() > newest, "tokens grow");
        guard.commit().unwrap();
        assert!(store.contains("claimed-1").unwrap());
        assert!(!store.contains("claimed-2").unwrap());
    }
}
