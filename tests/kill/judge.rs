//! The parent: knows what the child had acknowledged when it was killed, and asks the store.

use std::collections::{BTreeMap, BTreeSet};

use onceonly::{ClaimInfo, Dedup, Verdict};

use crate::board::{Board, WORKERS};
use crate::child::{event, granted};
use crate::plan::{Author, Plan, Time};

/// What a key must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Acknowledged between these two instants.
    Marked(i64, i64),
    /// Acknowledged as claimed, at this instant or later, and never committed.
    InFlight(i64),
    /// Certainly not marked; a claim on it may be in flight.
    Unmarked,
    /// The kill came during its operation, which may have taken effect.
    Unknown,
}

pub(crate) struct Judge {
    time: Time,
    fates: BTreeMap<String, Fate>,
    /// What is kept with keys.
    results: BTreeMap<String, Vec<u8>>,
    fresh: u64,
    /// The greatest timestamp that was acknowledged, and the greatest that was given: between them
    /// stands the time of a store in event time.
    watermark: (i64, i64),
}

impl Judge {
    pub(crate) fn new(time: Time) -> Self {
        let (fates, results) = (BTreeMap::new(), BTreeMap::new());
        Judge { time, fates, results, fresh: 0, watermark: (0, 0) }
    }

    /// Reads from the board what a killed child had done.
    pub(crate) fn note(&mut self, board: &Board, seed: u64, cycle: u64) {
        for number in 0..WORKERS {
            let worker = board.worker(number);
            let author = Author { seed, cycle, worker: number };
            let acknowledged = worker.acknowledged();
            assert!(worker.started() <= acknowledged + 1);
            for op in 0..worker.started() {
                let plan = author.plan(op);
                self.follow_watermark(plan, worker.times(op).0, op < acknowledged);
                let fate = if op < acknowledged {
                    acknowledged_fate(plan, worker.times(op))
                } else {
                    interrupted_fate(plan, worker.may_have_committed(op))
                };
                for (part, key) in author.keys(op).into_iter().enumerate() {
                    let result = author.result(op, part).filter(|_| op < acknowledged);
                    self.results.extend(result.map(|result| (key.clone(), result)));
                    self.fates.insert(key, fate);
                }
            }
        }
    }

    fn follow_watermark(&mut self, plan: Plan, at: i64, acknowledged: bool) {
        if !matches!(plan, Plan::Forget(_)) {
            self.watermark.1 = self.watermark.1.max(at);
            if acknowledged {
                self.watermark.0 = self.watermark.0.max(at);
            }
        }
    }

    /// The greatest timestamp that a child may have given.
    pub(crate) fn newest_event(&self) -> i64 {
        self.watermark.1
    }

    /// [`Judge::judge`] in event time.
    pub(crate) fn judge_events(&mut self, store: &Dedup) {
        let (earliest, latest) = self.watermark;
        // What is asked for moves nothing, what is claimed and observed afterwards is the newest.
        self.judge_between(store, earliest, || latest);
        self.watermark = (latest, latest);
    }

    /// Asks the reopened store, between the instants that `now` tells, for everything.
    pub(crate) fn judge(&mut self, store: &Dedup, now: impl Fn() -> i64) {
        let before = now();
        self.judge_between(store, before, now);
    }

    fn judge_between(&mut self, store: &Dedup, before: i64, now: impl Fn() -> i64) {
        let report = store.stats().recovery;
        assert_eq!(report.set_aside, Vec::<String>::new());
        // After a reboot without a close the store has to assume a power loss; without one, it may
        // not shrug its shoulders.
        if self.time != Time::Manual {
            assert_eq!(report.damage, Vec::<String>::new(), "a kill damages nothing");
        }
        match self.time {
            Time::Event => self.judge_claims_of_events(store),
            _ => self.judge_claims(store),
        }
        let keys: Vec<String> = self.fates.keys().cloned().collect();
        for batch in keys.chunks(500) {
            let live = store.contains_batch(batch).unwrap();
            let after = now();
            for (key, live) in batch.iter().zip(live) {
                self.judge_result(store, key, live, &now);
                self.judge_key(key, live, before, after);
            }
        }
        self.claim_again(store, &now);
        self.judge_fresh(store, now());
    }

    /// A live key has its result, and no other has one.
    fn judge_result(&self, store: &Dedup, key: &str, live: bool, now: &impl Fn() -> i64) {
        let Fate::Marked(earliest, _) = self.fates[key] else { return };
        let found = store.result(key).unwrap();
        let window = i64::try_from(self.time.window().as_nanos()).unwrap();
        // It may expire between two looks.
        let may_have_expired = now() > earliest + window;
        match self.results.get(key).filter(|_| live) {
            Some(_) if found.is_none() && may_have_expired => {}
            expected => assert!(found.as_ref() == expected, "{key} has another result"),
        }
    }

    fn judge_key(&mut self, key: &str, live: bool, before: i64, after: i64) {
        let window = i64::try_from(self.time.window().as_nanos()).unwrap();
        let slice = window / i64::from(self.time.slices()) + 1;
        match self.fates[key] {
            Fate::Marked(earliest, latest) => {
                let must_live = after <= earliest + window;
                let must_be_gone = before >= latest + window + slice;
                assert!(live || !must_live, "{key} was acknowledged and is lost");
                assert!(!live || !must_be_gone, "{key} has expired and is live");
                if must_be_gone {
                    self.fates.remove(key);
                }
            }
            Fate::InFlight(_) | Fate::Unmarked => assert!(!live, "{key} is a false duplicate"),
            Fate::Unknown => {
                self.fates.remove(key);
            }
        }
    }

    /// Every claim in flight is known, and nothing is in flight that never was.
    fn judge_claims(&self, store: &Dedup) {
        let listed = store.claims().unwrap();
        assert!(listed.iter().all(|info| info.orphaned && info.lease_left.is_zero()));
        let notes: Vec<String> =
            listed.into_iter().map(|info| String::from_utf8(info.note).unwrap()).collect();
        for (key, fate) in &self.fates {
            if let Fate::InFlight(_) = fate {
                assert!(notes.contains(key), "the claim on {key} is lost");
            }
        }
        for note in notes.iter().filter(|note| !note.is_empty()) {
            let fate = self.fates.get(note);
            let marked = matches!(fate, Some(Fate::Marked(..)));
            assert!(fate.is_some() && !marked, "{note} is in flight, but {fate:?}");
        }
    }

    /// The same in event time, where claims carry no note but a timestamp: they are recognised by
    /// their digests.
    fn judge_claims_of_events(&self, store: &Dedup) {
        let listed = store.claims().unwrap();
        assert!(listed.iter().all(|info| info.orphaned && info.lease_left.is_zero()));
        let digest = |key: &String| store.explain(key).unwrap().digest;
        let told = |info: &ClaimInfo| (info.digest.clone(), info.event_time);
        let listed: BTreeSet<_> = listed.iter().map(told).collect();
        let mut may_be_listed = BTreeSet::new();
        for (key, fate) in &self.fates {
            if let Fate::InFlight(at) = fate {
                let claim = (digest(key), Some(event(*at)));
                assert!(listed.contains(&claim), "the claim on {key} is lost, or its time");
            }
            if !matches!(fate, Fate::Marked(..)) {
                may_be_listed.insert(digest(key));
            }
        }
        for (digest, _) in &listed {
            assert!(may_be_listed.contains(digest), "{digest} is in flight, but never was claimed");
        }
    }

    /// Grants the unmarked keys again: half of them are committed, half are given back.
    fn claim_again(&mut self, store: &Dedup, now: &impl Fn() -> i64) {
        let open =
            |(_, fate): &(&String, &Fate)| matches!(fate, Fate::InFlight(_) | Fate::Unmarked);
        let keys: Vec<String> =
            self.fates.iter().filter(open).map(|(key, _)| key.clone()).collect();
        for (n, key) in keys.into_iter().enumerate() {
            let before = now();
            let guard = granted(match self.time {
                Time::Event => store.claim_at(&key, event(before)).unwrap(),
                _ => store.claim(&key).unwrap(),
            });
            if n % 2 == 0 {
                guard.commit().unwrap();
                self.fates.insert(key, Fate::Marked(before, now()));
            } else {
                guard.abandon();
                self.fates.remove(&key);
            }
        }
        // What is left was interrupted, and its keys are no longer in the books.
        for guard in store.expired_claims().unwrap() {
            guard.abandon();
        }
        assert_eq!(store.claims().unwrap(), []);
    }

    fn judge_fresh(&mut self, store: &Dedup, now: i64) {
        for _ in 0..20 {
            self.fresh += 1;
            let key = format!("fresh-{}", self.fresh);
            assert!(!store.contains(&key).unwrap(), "{key} is a false duplicate");
            let verdict = match self.time {
                Time::Event => store.observe_at(&key, event(now)),
                _ => store.observe(&key),
            };
            assert_eq!(verdict.unwrap(), Verdict::New);
        }
    }
}

fn acknowledged_fate(plan: Plan, (earliest, latest): (i64, i64)) -> Fate {
    match plan {
        Plan::Hold => Fate::InFlight(earliest),
        Plan::Abandon | Plan::Forget(_) => Fate::Unmarked,
        _ => Fate::Marked(earliest, latest),
    }
}

fn interrupted_fate(plan: Plan, may_have_committed: bool) -> Fate {
    match plan {
        Plan::Hold | Plan::Abandon => Fate::Unmarked,
        // Killed between claim and commit: never a duplicate.
        Plan::ClaimAndCommit | Plan::ClaimAndCommitBatch(_) if !may_have_committed => {
            Fate::Unmarked
        }
        _ => Fate::Unknown,
    }
}
