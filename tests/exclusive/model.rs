//! Owners that come and go, with faults, beside a naive model: a map of keys and times.

use std::collections::HashMap;
use std::time::Duration;

use onceonly::authority::memory::Fault;
use onceonly::sim::SimDisk;
use onceonly::{Claim, Dedup, Error, Verdict};
use proptest::prelude::*;

use crate::fixture::{LEASE, SLICE, Site, WINDOW, Wire, eventually, written};

#[derive(Clone, Debug)]
enum Op {
    Observe(u8),
    Batch(Vec<u8>),
    Contains(u8),
    Forget(u8),
    Process(u8),
    Advance(u16),
    WarmUp,
    /// The next calls of the server fail.
    Fail(u8, u8),
    /// The owner closes, and another directory follows.
    Move,
    /// The owner closes, and opens again.
    Reopen,
    /// The owner dies, and its directory is opened again.
    Kill,
    /// The owner dies with everything written, and another directory follows.
    Replace,
    /// The owner dies, cannot write any more, and another directory follows.
    Abandon,
    /// The server loses everything.
    Empty,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..24_u8).prop_map(Op::Observe),
        4 => prop::collection::vec(0..24_u8, 1..12).prop_map(Op::Batch),
        3 => (0..24_u8).prop_map(Op::Contains),
        3 => (0..24_u8).prop_map(Op::Forget),
        3 => (0..24_u8).prop_map(Op::Process),
        4 => (1..250_u16).prop_map(Op::Advance),
        1 => Just(Op::WarmUp),
        2 => (1..3_u8, 0..3_u8).prop_map(|(calls, fault)| Op::Fail(calls, fault)),
        2 => Just(Op::Move),
        1 => Just(Op::Reopen),
        2 => Just(Op::Kill),
        1 => Just(Op::Replace),
        1 => Just(Op::Abandon),
        1 => Just(Op::Empty),
    ]
}

/// What is known of a key.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// When, since the start.
    at: Duration,
}

/// The owner, the server, and what ought to be.
struct World {
    site: Site,
    wire: Wire,
    disk: SimDisk,
    store: Option<Dedup>,
    now: Duration,
    seen: HashMap<u8, Seen>,
    /// Keys of which nobody can know any more: both answers are right.
    open: HashMap<u8, ()>,
}

fn name(key: u8) -> String {
    format!("key {key}")
}

impl World {
    fn new() -> Self {
        let site = Site::new();
        let (wire, disk) = (site.wire(), SimDisk::new());
        let store = Some(World::open(&site, &wire, &disk));
        let (now, seen, open) = (Duration::ZERO, HashMap::new(), HashMap::new());
        World { site, wire, disk, store, now, seen, open }
    }

    fn open(site: &Site, wire: &Wire, disk: &SimDisk) -> Dedup {
        site.server.heal();
        let builder = site.builder_with(wire).expected_keys(200_000).shards(2);
        let deadline = Duration::from_millis(100);
        let builder = builder.authority_deadline(deadline);
        // The breaker may be open still.
        let mut opened = None;
        eventually("it opens", || {
            opened = builder.clone().open_simulated(disk).ok();
            opened.is_some()
        });
        opened.unwrap()
    }

    fn store(&self) -> &Dedup {
        self.store.as_ref().unwrap()
    }

    /// Whether a key may be a duplicate, and whether it may be new.
    fn may(&self, key: u8) -> (bool, bool) {
        if self.open.contains_key(&key) {
            return (true, true);
        }
        let Some(seen) = self.seen.get(&key) else { return (false, true) };
        let age = self.now - seen.at;
        (age < WINDOW + SLICE, age >= WINDOW)
    }

    fn check(&mut self, key: u8, duplicate: bool) {
        let (may_be_duplicate, may_be_new) = self.may(key);
        let fits = if duplicate { may_be_duplicate } else { may_be_new };
        let known = self.seen.get(&key);
        assert!(fits, "key {key}: duplicate {duplicate} at {:?}, {known:?}", self.now);
    }

    fn mark(&mut self, key: u8, duplicate: bool) {
        self.check(key, duplicate);
        if !duplicate {
            self.seen.insert(key, Seen { at: self.now });
            self.open.remove(&key);
        }
    }

    /// An error is one of the server's, and marks nothing.
    fn tolerate(&self, error: &Error) {
        assert!(matches!(error, Error::Authority { transient: true, .. }), "{error:?}");
    }

    fn follow(&mut self) {
        self.wire = self.site.wire();
        self.disk = SimDisk::new();
        self.store = Some(World::open(&self.site, &self.wire, &self.disk));
    }

    fn calls(&mut self, op: &Op) {
        match op {
            Op::Observe(key) => match self.store().observe(name(*key)) {
                Ok(verdict) => self.mark(*key, verdict == Verdict::Duplicate),
                Err(error) => self.tolerate(&error),
            },
            Op::Batch(keys) => {
                let names: Vec<String> = keys.iter().map(|key| name(*key)).collect();
                match self.store().observe_batch(&names) {
                    Ok(verdicts) => {
                        for (key, verdict) in keys.iter().zip(verdicts) {
                            self.mark(*key, verdict == Verdict::Duplicate);
                        }
                    }
                    Err(error) => {
                        let (parts, error) = error.into_parts();
                        assert!(parts.iter().all(Option::is_none));
                        self.tolerate(&error);
                    }
                }
            }
            Op::Contains(key) => match self.store().contains(name(*key)) {
                Ok(live) => self.check(*key, live),
                Err(error) => self.tolerate(&error),
            },
            Op::Forget(key) => match self.store().forget(name(*key)) {
                Ok(live) => {
                    self.check(*key, live);
                    self.seen.remove(key);
                    self.open.remove(key);
                }
                Err(error) => self.tolerate(&error),
            },
            Op::Process(key) => match self.store().claim(name(*key)) {
                Ok(Claim::Granted(guard)) => match guard.commit() {
                    Ok(()) => self.mark(*key, false),
                    Err(error) => self.tolerate(&error.into_parts().1),
                },
                Ok(Claim::Duplicate { .. }) => self.mark(*key, true),
                Ok(other) => panic!("{other:?}"),
                Err(error) => self.tolerate(&error),
            },
            _ => unreachable!("no call"),
        }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Advance(seconds) => {
                let by = Duration::from_secs(u64::from(*seconds));
                self.site.clock.advance(by);
                self.now += by;
            }
            Op::WarmUp => {
                if let Err(error) = self.store().warm_up(|_| {}) {
                    self.tolerate(&error);
                }
            }
            Op::Fail(calls, fault) => {
                let faults = [Fault::Refuse, Fault::LoseRequest, Fault::LoseReply];
                self.site.server.fail_next(usize::from(*calls), faults[usize::from(*fault)]);
            }
            Op::Move => {
                self.site.server.heal();
                self.store().close().unwrap();
                self.follow();
            }
            Op::Reopen => {
                self.site.server.heal();
                self.store().close().unwrap();
                self.store = None;
                self.store = Some(World::open(&self.site, &self.wire, &self.disk));
            }
            Op::Kill => {
                let left = self.disk.snapshot().after_kill();
                self.wire.cut();
                (self.disk, self.wire) = (left, self.site.wire());
                self.store = Some(World::open(&self.site, &self.wire, &self.disk));
            }
            Op::Replace => {
                self.site.server.heal();
                written(self.store());
                self.outlive();
                self.follow();
            }
            Op::Abandon => {
                self.outlive();
                // Of all that was seen it is not known whether it was written.
                self.open = (0..24).map(|key| (key, ())).collect();
                self.follow();
                assert!(self.store().guaranteed_since() >= Site::at(self.now));
            }
            Op::Empty => {
                self.site.server.heal();
                self.site.server.restart(None);
                let owner = self.store().stats().owner.unwrap();
                if owner.parts_loaded < owner.parts {
                    // What was not read yet is lost with it, and the store says so when it reads.
                    self.open = (0..24).map(|key| (key, ())).collect();
                }
            }
            call => self.calls(call),
        }
    }

    /// The owner is not heard of any more until its lease is over, which is longer than any key lives.
    fn outlive(&mut self) {
        self.wire.cut();
        self.site.clock.advance(LEASE);
        self.now += LEASE;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        crate::common::env_number("ONCEONLY_CASES", 32) as u32
    ))]
    #[test]
    fn owners_come_and_go_and_answers_stay_right(ops in prop::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        for op in &ops {
            world.step(op);
        }
    }
}
