//! Two stores and one authority beside a naive model, operation by operation.
//!
//! Each store is checked against one map of all marks: it does not matter who made them. Between "at
//! least a window" and "at most a slice more" both answers are right, and the model follows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use onceonly::authority::memory::Fault;
use onceonly::{Claim, ClaimGuard, Dedup, Durability, Error, Verdict};
use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::common::fast_dir;
use crate::fixture::{LEASE, SHORT, SLICE, Site, WINDOW};
use crate::strategies::cases;

const LAG: Duration = Duration::from_millis(1);

#[derive(Clone, Debug)]
enum Op {
    Observe(usize, u8),
    Batch(usize, Vec<u8>),
    Contains(usize, u8),
    Forget(usize, u8),
    Claim(usize, u8),
    Commit(usize),
    CommitBatch(usize),
    Abandon(usize),
    Renew(usize),
    /// Seconds.
    Advance(u16),
    /// The replies to the next call and to its repetition are lost.
    Lose(usize, u8, bool),
    Reopen(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let store = || 0_usize..2;
    let key = || prop_oneof![3 => 0_u8..3, 1 => 0_u8..12];
    let seconds = prop_oneof![0_u16..40, Just(30), Just(100), Just(350), Just(699), 690_u16..820];
    prop_oneof![
        6 => (store(), key()).prop_map(|(s, k)| Op::Observe(s, k)),
        2 => (store(), vec(key(), 0..6)).prop_map(|(s, k)| Op::Batch(s, k)),
        2 => (store(), key()).prop_map(|(s, k)| Op::Contains(s, k)),
        1 => (store(), key()).prop_map(|(s, k)| Op::Forget(s, k)),
        4 => (store(), key()).prop_map(|(s, k)| Op::Claim(s, k)),
        3 => (0_usize..4).prop_map(Op::Commit),
        1 => (0_usize..4).prop_map(Op::CommitBatch),
        2 => (0_usize..4).prop_map(Op::Abandon),
        1 => (0_usize..4).prop_map(Op::Renew),
        4 => seconds.prop_map(Op::Advance),
        1 => (store(), key(), any::<bool>()).prop_map(|(s, k, c)| Op::Lose(s, k, c)),
        1 => store().prop_map(Op::Reopen),
    ]
}

/// What the contract says of a key for one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    New,
    Duplicate,
    Either,
}

struct Held {
    store: usize,
    number: u64,
    until: Duration,
}

struct Guard {
    key: u8,
    store: usize,
    number: u64,
    guard: ClaimGuard,
}

#[derive(Default)]
struct Model {
    now: Duration,
    marks: BTreeMap<u8, Duration>,
    claims: BTreeMap<u8, Held>,
    /// Calls of these stores got no reply: what one of them left there nobody was told of.
    ghosts: BTreeMap<u8, BTreeSet<usize>>,
    /// Stores that had no reply about a key at some time.
    unsure: BTreeSet<(usize, u8)>,
    numbers: u64,
}

impl Model {
    fn expect(&self, key: u8) -> Expect {
        match self.marks.get(&key).map(|at| self.now - *at) {
            Some(age) if age <= WINDOW => Expect::Duplicate,
            Some(age) if age < WINDOW + SLICE => Expect::Either,
            _ => Expect::New,
        }
    }

    fn is_held(&self, key: u8) -> Option<Duration> {
        let left = self.claims.get(&key)?.until.checked_sub(self.now)?;
        (!left.is_zero()).then_some(left)
    }

    /// The ghost of another store may answer for it.
    fn may_be_ghost(&self, store: usize, key: u8) -> bool {
        self.ghosts.get(&key).is_some_and(|stores| stores.iter().any(|other| *other != store))
    }

    fn observed(&mut self, store: usize, key: u8, answer: &Result<Verdict, Error>) {
        match answer {
            Ok(Verdict::New) => {
                assert!(self.is_held(key).is_none(), "{key} is claimed");
                assert_ne!(self.expect(key), Expect::Duplicate, "{key} is New twice");
                self.claims.remove(&key);
                self.ghosts.remove(&key);
                self.marks.insert(key, self.now);
            }
            Ok(Verdict::Duplicate) => {
                let by_ghost = self.may_be_ghost(store, key);
                assert!(self.expect(key) != Expect::New || by_ghost, "{key} was never marked");
            }
            Err(Error::InFlight { lease_left }) => {
                let by_ghost = self.may_be_ghost(store, key);
                assert!(self.is_held(key) == Some(*lease_left) || by_ghost, "{key}");
            }
            other => panic!("observe of {key}: {other:?}"),
        }
    }

    fn claimed(&mut self, store: usize, key: u8, claim: &Claim) {
        match claim {
            Claim::Granted(_) => {
                assert!(self.is_held(key).is_none(), "{key} is granted twice");
                assert_ne!(self.expect(key), Expect::Duplicate, "{key} is granted and marked");
                self.ghosts.remove(&key);
                self.numbers += 1;
                let until = self.now + LEASE;
                self.claims.insert(key, Held { store, number: self.numbers, until });
            }
            Claim::InFlight { lease_left, .. } => {
                self.observed(store, key, &Err(Error::InFlight { lease_left: *lease_left }));
            }
            Claim::Duplicate { .. } => self.observed(store, key, &Ok(Verdict::Duplicate)),
            other => panic!("claim of {key}: {other:?}"),
        }
    }

    /// Whether the claim still is this guard's.
    fn owns(&self, guard: &Guard) -> bool {
        self.claims.get(&guard.key).is_some_and(|held| held.number == guard.number)
    }
}

struct World {
    site: Site,
    dir: TempDir,
    levels: [Durability; 2],
    stores: Vec<Dedup>,
    guards: Vec<Guard>,
    model: Model,
}

impl World {
    fn new(levels: [Durability; 2]) -> Self {
        let (site, dir) = (Site::new(), fast_dir());
        let mut world = World {
            site,
            dir,
            levels,
            stores: Vec::new(),
            guards: Vec::new(),
            model: Model::default(),
        };
        world.stores = (0..2).map(|number| world.open(number)).collect();
        world
    }

    fn open(&self, number: usize) -> Dedup {
        let builder = self.site.builder().forget_lag(LAG).durability(self.levels[number]);
        builder
            .authority_deadline(SHORT * 50)
            .open(self.dir.path().join(number.to_string()))
            .unwrap()
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Observe(store, key) => {
                let answer = self.stores[store].observe([key]);
                self.model.observed(store, key, &answer);
            }
            Op::Batch(store, ref keys) => self.batch(store, keys),
            Op::Contains(store, key) => match self.stores[store].contains([key]) {
                Ok(live) => {
                    let by_ghost = live && self.model.may_be_ghost(store, key);
                    let wrong = if live { Expect::New } else { Expect::Duplicate };
                    assert!(self.model.expect(key) != wrong || by_ghost, "contains {key}: {live}");
                }
                Err(Error::Undecided { .. }) => assert!(self.model.unsure.contains(&(store, key))),
                other => panic!("{other:?}"),
            },
            Op::Forget(store, key) => {
                let live = self.stores[store].forget([key]).unwrap();
                let by_ghost = live && self.model.ghosts.contains_key(&key);
                let wrong = if live { Expect::New } else { Expect::Duplicate };
                assert!(self.model.expect(key) != wrong || by_ghost, "forget {key}: {live}");
                self.model.marks.remove(&key);
                self.model.claims.remove(&key);
                self.model.ghosts.remove(&key);
                std::thread::sleep(LAG * 2);
            }
            Op::Claim(store, key) => {
                let claim = self.stores[store].claim([key]).unwrap();
                self.claimed(store, key, claim);
            }
            Op::Advance(seconds) => {
                let by = Duration::from_secs(u64::from(seconds));
                self.site.clock.advance(by);
                self.model.now += by;
            }
            Op::Lose(store, key, claim) => self.lose(store, key, claim),
            Op::Reopen(store) => self.reopen(store),
            Op::Commit(_) | Op::CommitBatch(_) | Op::Abandon(_) | Op::Renew(_) => self.guard(op),
        }
    }

    fn claimed(&mut self, store: usize, key: u8, claim: Claim) {
        if self.model.ghosts.contains_key(&key) {
            // A mark that nobody was told of was forgotten, perhaps.
            std::thread::sleep(LAG * 2);
        }
        self.model.claimed(store, key, &claim);
        if let Claim::Granted(guard) = claim {
            let number = self.model.numbers;
            self.guards.push(Guard { key, store, number, guard });
        }
    }

    fn batch(&mut self, store: usize, keys: &[u8]) {
        let all: Vec<[u8; 1]> = keys.iter().map(|key| [*key]).collect();
        match self.stores[store].observe_batch(&all) {
            Ok(verdicts) => {
                for (key, verdict) in keys.iter().zip(verdicts) {
                    self.model.observed(store, *key, &Ok(verdict));
                }
            }
            Err(failed) => {
                let (parts, error) = failed.into_parts();
                assert!(matches!(error, Error::InFlight { .. }), "{error:?}");
                for (key, part) in keys.iter().zip(parts) {
                    match part {
                        Some(verdict) => self.model.observed(store, *key, &Ok(verdict)),
                        None => assert!(
                            self.model.is_held(*key).is_some()
                                || self.model.ghosts.contains_key(key)
                        ),
                    }
                }
            }
        }
    }

    fn guard(&mut self, op: &Op) {
        let (Op::Commit(at) | Op::CommitBatch(at) | Op::Abandon(at) | Op::Renew(at)) = *op else {
            return;
        };
        if self.guards.is_empty() {
            return;
        }
        let at = at % self.guards.len();
        let owns = self.model.owns(&self.guards[at]);
        if let Op::Renew(_) = op {
            let Guard { key, guard, .. } = &self.guards[at];
            match guard.renew() {
                Ok(()) => {
                    assert!(owns, "renewed a lost claim of {key}");
                    let until = self.model.now + LEASE;
                    self.model.claims.get_mut(key).unwrap().until = until;
                }
                Err(error) => self.lost(&self.guards[at], &error),
            }
            return;
        }
        let guard = self.guards.swap_remove(at);
        let committed = match op {
            Op::Commit(_) => guard.guard.commit(),
            Op::CommitBatch(_) => self.stores[0].commit_batch([guard.guard]).remove(0),
            _ => {
                guard.guard.abandon();
                if owns {
                    self.model.claims.remove(&guard.key);
                }
                // What is asked for after it comes after it.
                self.stores[guard.store].contains("nobody").unwrap();
                return;
            }
        };
        match committed {
            Ok(()) => {
                assert!(owns, "committed a lost claim of {}", guard.key);
                self.model.claims.remove(&guard.key);
                self.model.marks.insert(guard.key, self.model.now);
            }
            Err(failed) => {
                assert!(matches!(failed.error(), Error::LeaseLost { .. }), "{failed:?}");
                let lapsed = self.model.is_held(guard.key).is_none();
                assert!(!owns || lapsed, "{} was lost while it was held", guard.key);
                let key = guard.key;
                if owns {
                    self.model.claims.remove(&key);
                }
            }
        }
    }

    fn lost(&self, guard: &Guard, error: &Error) {
        assert!(matches!(error, Error::LeaseLost { .. }), "{error:?}");
        let lapsed = self.model.is_held(guard.key).is_none();
        assert!(!self.model.owns(guard) || lapsed, "{} was lost while it was held", guard.key);
    }

    fn lose(&mut self, store: usize, key: u8, claim: bool) {
        // So that nothing else gets what is meant for the key.
        let _ = self.stores[store].contains("nobody");
        self.site.server.fail_next(2, Fault::LoseReply);
        // The log of what was forgotten is read meanwhile: then it is that which gets no reply.
        let failed = match claim {
            true => self.stores[store].claim([key]).map(|claim| self.claimed(store, key, claim)),
            false => {
                let answer = self.stores[store].observe([key]);
                match answer {
                    Err(error @ (Error::Undecided { .. } | Error::Authority { .. })) => Err(error),
                    answer => {
                        self.model.observed(store, key, &answer);
                        Ok(())
                    }
                }
            }
        };
        self.site.server.heal();
        std::thread::sleep(LAG * 2);
        if let Err(error) = failed {
            if let Error::Authority { .. } = error {
                // What was forgotten could not be read, and nothing was asked for.
                return;
            }
            assert!(matches!(error, Error::Undecided { .. }), "{error:?}");
            self.model.unsure.insert((store, key));
            self.model.ghosts.entry(key).or_default().insert(store);
        }
    }

    fn reopen(&mut self, store: usize) {
        // Guards go first, and give back what they hold.
        for guard in self.guards.extract_if(.., |guard| guard.store == store) {
            if self.model.claims.get(&guard.key).is_some_and(|held| held.number == guard.number) {
                self.model.claims.remove(&guard.key);
            }
        }
        self.model.claims.retain(|_, held| held.store != store);
        self.stores[store].close().unwrap();
        self.stores[store] = self.open(store);
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn two_stores_agree_with_the_model(
        ops in vec(op(), 1..60),
        sync in any::<bool>(),
    ) {
        let level = if sync { Durability::Sync } else { Durability::Process };
        let mut world = World::new([level, Durability::Process]);
        for op in &ops {
            world.apply(op);
        }
    }
}
