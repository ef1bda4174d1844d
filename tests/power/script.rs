//! A workload on a simulated disk, and what it was told: for each key, what it must be when the
//! store is opened again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use onceonly::sim::SimDisk;
use onceonly::{Builder, Claim, ClaimGuard, ClaimOptions, Dedup, ManualClock, Timestamp, Verdict};

use crate::common::ops::Level;
use crate::common::{Rng, start};

pub(crate) const WINDOW: Duration = Duration::from_secs(100);
/// Most batches are small; some fill a segment of the journal, so that it is sealed.
const KEYS: [u64; 4] = [50, 100, 200, 2_500];

/// What a key must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Marked at this instant; true if that has to survive power loss.
    Marked(Timestamp, bool),
    /// Not marked: never, or not any more.
    Unmarked,
    /// Claimed, and not marked.
    Claimed,
    /// Told an error: not marked, unless the power fails before the disk takes writes again.
    Failed,
    /// Its operation was under way.
    Unknown,
}

/// The fate of keys after each operation.
struct Step {
    keys: Vec<String>,
    fate: Fate,
    /// Everything before survives power loss.
    synced: bool,
    /// The result of its key is kept.
    kept: bool,
}

/// The result that a key is committed with, if it is committed with one.
pub(crate) fn result_of(key: &str) -> Vec<u8> {
    let number = key.bytes().fold(7, |sum, byte| sum * 31 % 9_973 + usize::from(byte));
    key.bytes().cycle().take(number).collect()
}

pub(crate) struct Script {
    pub(crate) level: Level,
    pub(crate) clock: ManualClock,
    pub(crate) disk: SimDisk,
    rng: Rng,
    passed: Duration,
    store: Dedup,
    guards: Vec<(String, ClaimGuard)>,
    marked: Vec<String>,
    steps: Vec<Step>,
    fresh: u64,
}

pub(crate) fn builder(level: Level, clock: &ManualClock) -> Builder {
    Dedup::builder()
        .window(WINDOW)
        .slices(5)
        .expected_keys(300)
        .shards(2)
        .lease(Duration::from_secs(10_000))
        .durability(level.durability())
        .clock(clock.clone())
}

impl Script {
    /// A store on an empty disk. `None` when faults do not let it be created.
    pub(crate) fn begin(level: Level, rng: Rng, disk: SimDisk) -> Option<Self> {
        let clock = ManualClock::new(start());
        let store = builder(level, &clock).open_simulated(&disk).ok()?;
        Some(Script {
            level,
            clock,
            disk,
            rng,
            passed: Duration::ZERO,
            store,
            guards: Vec::new(),
            marked: Vec::new(),
            steps: Vec::new(),
            fresh: 0,
        })
    }

    fn now(&self) -> Timestamp {
        Timestamp::from(start() + self.passed)
    }

    pub(crate) fn passed(&self) -> Duration {
        self.passed
    }

    /// Waits for the background, which looks whether the kernel could write back what is in maps.
    pub(crate) fn settle(&self) {
        self.store.settle();
    }

    /// What is in maps may be lost by a kill.
    pub(crate) fn is_distrusted(&self) -> bool {
        self.store.stats().write_back_failed
    }

    fn fresh_keys(&mut self, count: u64) -> Vec<String> {
        let first = self.fresh;
        self.fresh += count;
        (first..self.fresh).map(|n| format!("key-{n}")).collect()
    }

    /// Carries out `count` operations; each is acknowledged to the disk.
    pub(crate) fn run(&mut self, count: usize) {
        for _ in 0..count {
            let step = self.step();
            self.steps.push(step);
            self.disk.acknowledge(self.steps.len() as u64);
        }
    }

    fn step(&mut self) -> Step {
        match self.rng.below(24) {
            0..6 => self.observe(),
            6..11 => self.batch(),
            11..13 => self.claim(),
            13..16 => self.settle_claim(),
            16..19 => self.forget(),
            19 => self.sync(),
            20 => self.again(),
            21 => {
                self.store.settle();
                Step { keys: Vec::new(), fate: Fate::Unmarked, synced: false, kept: false }
            }
            _ => self.advance(),
        }
    }

    fn mark(&mut self, keys: Vec<String>, done: bool) -> Step {
        let fate = if done {
            self.marked.extend_from_slice(&keys);
            Fate::Marked(self.now(), self.level == Level::Sync)
        } else {
            Fate::Failed
        };
        Step { keys, fate, synced: false, kept: false }
    }

    fn observe(&mut self) -> Step {
        let keys = self.fresh_keys(1);
        let verdict = self.store.observe(&keys[0]);
        assert!(!matches!(verdict, Ok(Verdict::Duplicate)), "{} is fresh", keys[0]);
        let done = verdict.is_ok();
        self.mark(keys, done)
    }

    fn batch(&mut self) -> Step {
        let most = KEYS[self.rng.below(KEYS.len() as u64) as usize];
        let count = 1 + self.rng.below(most);
        let keys = self.fresh_keys(count);
        let verdicts = self.store.observe_batch(&keys);
        let done = verdicts.is_ok();
        if let Ok(verdicts) = verdicts {
            assert!(verdicts.iter().all(|verdict| *verdict == Verdict::New));
        }
        self.mark(keys, done)
    }

    fn claim(&mut self) -> Step {
        let keys = self.fresh_keys(1);
        let options = ClaimOptions::new().note(keys[0].as_str());
        let fate = match self.store.claim_with(&keys[0], options) {
            Ok(Claim::Granted(guard)) => {
                self.guards.push((keys[0].clone(), guard));
                Fate::Claimed
            }
            Ok(other) => panic!("{} is fresh: {other:?}", keys[0]),
            Err(_) => Fate::Unmarked,
        };
        Step { keys, fate, synced: false, kept: false }
    }

    fn settle_claim(&mut self) -> Step {
        if self.guards.is_empty() {
            return self.observe();
        }
        let at = self.rng.below(self.guards.len() as u64) as usize;
        let (key, guard) = self.guards.swap_remove(at);
        if self.rng.below(4) == 0 {
            guard.abandon();
            return Step { keys: vec![key], fate: Fate::Unmarked, synced: false, kept: false };
        }
        let kept = self.rng.below(2) == 0;
        let committed = if kept { guard.commit_with(result_of(&key)) } else { guard.commit() };
        let done = match committed {
            Ok(()) => true,
            Err(failed) => {
                let (guard, _) = failed.into_parts();
                self.guards.push((key.clone(), guard));
                false
            }
        };
        // What a commit that failed would have kept, the next one keeps.
        let keeps = done && self.store.result(&key).is_ok_and(|result| result.is_some());
        assert!(!kept || !done || keeps, "{key}: its result is lost");
        Step { kept: keeps, ..self.mark(vec![key], done) }
    }

    fn forget(&mut self) -> Step {
        if self.marked.is_empty() {
            return self.observe();
        }
        let at = self.rng.below(self.marked.len() as u64) as usize;
        let key = self.marked.swap_remove(at);
        match self.store.forget(&key) {
            Ok(was_live) => {
                assert!(was_live, "{key} was marked");
                if self.rng.below(3) > 0 {
                    return Step {
                        keys: vec![key],
                        fate: Fate::Unmarked,
                        synced: false,
                        kept: false,
                    };
                }
                let done = self.store.observe(&key).is_ok();
                self.mark(vec![key], done)
            }
            Err(_) => {
                assert!(self.store.contains(&key).unwrap_or(true), "{key}: forgotten by an error");
                Step { keys: vec![key], fate: Fate::Unknown, synced: false, kept: false }
            }
        }
    }

    fn sync(&mut self) -> Step {
        let synced = self.store.sync().is_ok();
        Step { keys: Vec::new(), fate: Fate::Unmarked, synced, kept: false }
    }

    /// A key that was marked is a duplicate, also when nothing can be marked.
    fn again(&mut self) -> Step {
        if let Some(key) = self.marked.last() {
            assert!(self.store.contains(key).unwrap_or(true), "{key} was marked");
            assert!(!matches!(self.store.observe(key), Ok(Verdict::New)), "{key} was marked");
        }
        Step { keys: Vec::new(), fate: Fate::Unmarked, synced: false, kept: false }
    }

    fn advance(&mut self) -> Step {
        let by = Duration::from_millis(self.rng.below(3_000));
        self.clock.advance(by);
        self.passed += by;
        Step { keys: Vec::new(), fate: Fate::Unmarked, synced: false, kept: false }
    }

    /// Keys whose results are kept when only the first `acknowledged` operations were acknowledged.
    pub(crate) fn kept(&self, acknowledged: u64) -> BTreeSet<String> {
        let mut kept = BTreeSet::new();
        for step in &self.steps[..acknowledged as usize] {
            for key in &step.keys {
                if step.kept {
                    kept.insert(key.clone())
                } else {
                    kept.remove(key)
                };
            }
        }
        kept
    }

    /// What every key must be when only the first `acknowledged` operations were acknowledged.
    pub(crate) fn fates(&self, acknowledged: u64) -> BTreeMap<String, Fate> {
        let (done, open) = self.steps.split_at(acknowledged as usize);
        let synced = done.iter().rposition(|step| step.synced).unwrap_or(0);
        let mut fates = BTreeMap::new();
        for (at, step) in done.iter().enumerate() {
            let fate = match step.fate {
                Fate::Marked(when, durable) => Fate::Marked(when, durable || at < synced),
                other => other,
            };
            fates.extend(step.keys.iter().map(|key| (key.clone(), fate)));
        }
        for step in open {
            fates.extend(step.keys.iter().map(|key| (key.clone(), Fate::Unknown)));
        }
        fates
    }
}
