//! Opens what a crash left behind, and asks for every key.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use onceonly::sim::SimDisk;
use onceonly::{Dedup, ManualClock, Timestamp, Verdict};

use crate::common::ops::Level;
use crate::common::{Rng, start};
use crate::script::{Fate, builder, result_of};

/// What happened to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    Kill,
    PowerLoss,
}

pub(crate) struct Judge<'a> {
    pub(crate) level: Level,
    pub(crate) crash: Crash,
    /// The kernel could not write back what is in maps: a kill may lose what a power loss may.
    pub(crate) distrusted: bool,
    pub(crate) fates: &'a BTreeMap<String, Fate>,
    /// Keys whose results are kept.
    pub(crate) kept: &'a BTreeSet<String>,
    /// Time of the store at the crash.
    pub(crate) passed: Duration,
    pub(crate) what: String,
}

impl Judge<'_> {
    /// The clock after the crash: the wall clock goes on, boot time begins anew if it has to.
    pub(crate) fn clock(&self, before: &ManualClock) -> ManualClock {
        match self.crash {
            Crash::Kill => before.clone(),
            Crash::PowerLoss => ManualClock::new(start() + self.passed),
        }
    }

    /// Nothing is lost.
    fn keeps_all(&self) -> bool {
        self.level == Level::Sync || self.crash == Crash::Kill && !self.distrusted
    }

    pub(crate) fn judge(&self, disk: &SimDisk, clock: &ManualClock, rng: &mut Rng) {
        let what = &self.what;
        let store = match builder(self.level, clock).open_simulated(disk) {
            Ok(store) => store,
            Err(error) => panic!("{what}: does not open: {error}"),
        };
        self.judge_keys(&store);
        if rng.below(8) == 0 {
            self.go_on(store, disk, clock);
        }
    }

    fn judge_keys(&self, store: &Dedup) {
        let what = &self.what;
        let damage = store.stats().recovery.damage;
        assert!(damage.iter().all(|why| !why.contains("chain")), "{what}: {damage:?}");
        let since = store.guaranteed_since();
        let keys: Vec<&String> = self.fates.keys().collect();
        let live = store.contains_batch(&keys).unwrap_or_else(|e| panic!("{what}: {e}"));
        for (key, live) in keys.into_iter().zip(live) {
            self.judge_key(key, live, since, store);
            self.judge_result(key, live, store);
        }
        self.judge_claims(store);
        if self.keeps_all() {
            let created = Timestamp::from(start());
            assert!(
                since <= created,
                "{what}: nothing is lost, yet a hole until {since}: {:?}",
                store.stats().recovery
            );
        }
        for n in 0..10 {
            let key = format!("fresh-{n}");
            assert!(!store.contains(&key).unwrap(), "{what}: {key} is a false duplicate");
        }
    }

    /// Where nothing is lost, claims in flight are not either; none is made up.
    fn judge_claims(&self, store: &Dedup) {
        let what = &self.what;
        let listed: Vec<String> = store
            .claims()
            .unwrap()
            .into_iter()
            .map(|claim| String::from_utf8(claim.note).unwrap())
            .collect();
        let keeps = self.keeps_all();
        for (key, fate) in self.fates {
            let is_listed = listed.contains(key);
            match fate {
                Fate::Claimed => assert!(is_listed || !keeps, "{what}: the claim on {key} is lost"),
                Fate::Marked(..) => assert!(!is_listed || !keeps, "{what}: {key} is still claimed"),
                _ => {}
            }
        }
    }

    /// A result is there as long as its mark, and is never another's. `Process` may lose it to a power
    /// loss while the mark reached the disk by chance.
    fn judge_result(&self, key: &str, live: bool, store: &Dedup) {
        let what = &self.what;
        let found = store.result(key).unwrap_or_else(|e| panic!("{what}: result of {key}: {e}"));
        let Some(found) = found else {
            let must = live && (self.level != Level::Process || self.keeps_all());
            assert!(!must || !self.kept.contains(key), "{what}: the result of {key} is lost");
            return;
        };
        assert!(live, "{what}: {key} is not live, and has a result");
        assert!(found == result_of(key), "{what}: the result of {key} is another's");
        let known = !matches!(self.fates[key], Fate::Unknown | Fate::Failed);
        assert!(!known || self.kept.contains(key), "{what}: {key} has a result of before");
    }

    fn judge_key(&self, key: &str, live: bool, since: Timestamp, store: &Dedup) {
        let what = &self.what;
        match self.fates[key] {
            Fate::Marked(at, durable) => {
                let must = durable || self.keeps_all();
                let told = since > at;
                assert!(
                    live || !must,
                    "{what}: {key} was acknowledged at {at} and is lost (since {since}): {:?}",
                    store.stats().recovery,
                );
                assert!(
                    live || told,
                    "{what}: {key} of {at} is lost, yet it vouches since {since}"
                );
            }
            Fate::Unmarked | Fate::Claimed => {
                assert!(!live, "{what}: {key} is a false duplicate");
            }
            Fate::Failed if self.crash == Crash::Kill => {
                assert!(!live, "{what}: {key} got an error, and is marked");
            }
            Fate::Failed | Fate::Unknown => {}
        }
    }

    /// The store works, closes, and opens with all that it has now.
    fn go_on(&self, store: Dedup, disk: &SimDisk, clock: &ManualClock) {
        let what = &self.what;
        let live: Vec<&String> =
            self.fates.keys().filter(|key| store.contains(key).unwrap()).collect();
        let new: Vec<String> = (0..300).map(|n| format!("later-{n}")).collect();
        let verdicts = store.observe_batch(&new).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::New), "{what}");
        store.close().unwrap_or_else(|e| panic!("{what}: {e}"));
        drop(store);
        let store = builder(self.level, clock).open_simulated(disk).unwrap();
        assert!(
            store.contains_batch(&live).unwrap().iter().all(|live| *live),
            "{what}: lost later"
        );
        assert!(store.contains_batch(&new).unwrap().iter().all(|live| *live), "{what}: lost later");
    }
}
