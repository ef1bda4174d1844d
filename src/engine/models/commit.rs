//! Group commit: whoever is told of a mark finds it on the disk, and whoever gets an error was
//! withdrawn before. The log alone, on a simulated disk.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use super::{PREEMPTIONS, both, check, digest, spawn};
use crate::error::Result;
use crate::format::log::{BlockHead, Entry};
use crate::format::manifest::Manifest;
use crate::format::{PAGE, manifest, names};
use crate::ledger::Ledger;
use crate::log::{Host, Level, Log, read_all};
use crate::storage::sim::{Fault, Mix, SimDisk};
use crate::sync::Mutex;

const SLICE: u64 = 1;

struct Machine {
    disk: SimDisk,
    log: Log,
    /// All epochs up to this one were undone, as far as they are not on the disk.
    withdrawn: AtomicU64,
}

impl Host for Machine {
    fn now_ns(&self) -> i64 {
        0
    }

    fn stamp(&self, _head: &mut BlockHead) {}

    fn boot_id(&self) -> [u8; 16] {
        [0; 16]
    }

    fn unsealed(&self) -> Vec<u64> {
        Vec::new()
    }

    fn withdraw(&self, last: u64) {
        self.withdrawn.fetch_max(last, SeqCst);
    }

    fn log_failed(&self, _file: u64, _end: u64) {}

    fn log_ended(&self) {}
}

impl Machine {
    fn new(level: Level) -> Arc<Self> {
        let disk = SimDisk::new();
        let manifest = Manifest { logs: Vec::new(), ..manifest::tests::sample() };
        let ledger = Arc::new(Ledger::new(disk.storage(), manifest));
        let log = Log::new(ledger, level, 2 * PAGE as u64);
        Arc::new(Machine { disk, log, withdrawn: AtomicU64::new(0) })
    }

    /// Marks a key, without waiting; its epoch.
    fn leave(&self, key: u64) -> Result<u64> {
        let epoch = self.log.enter(self)?;
        self.log.leave(epoch, &mut vec![(SLICE, digest(key))]);
        Ok(epoch)
    }

    /// Marks a key as a call does; whether it was told that this lasts.
    fn mark(&self, key: u64) -> bool {
        let Ok(epoch) = self.leave(key) else { return false };
        let told = self.log.wait(epoch, self).is_ok();
        if told {
            assert!(self.is_on_disk(key), "{key} was acknowledged and is not on the disk");
        } else {
            assert!(self.withdrawn.load(SeqCst) >= epoch, "{key}: the error came too early");
        }
        told
    }

    /// Whether a power loss that takes all that was not synced leaves the key.
    fn is_on_disk(&self, key: u64) -> bool {
        let lost = Mix { seed: 0, unit: PAGE, survive: 0 };
        let storage = self.disk.snapshot().after_power_loss(lost).storage();
        let Some(bytes) = storage.read(names::MANIFEST).expect("it reads") else { return false };
        let store = manifest::tests::sample().store;
        let manifest = Manifest::decode(&bytes, store).expect("it was synced");
        let logged = read_all(&*storage, store, &manifest.logs).expect("what is synced is whole");
        let holds = |entry: &Entry| match entry {
            Entry::Digests(SLICE, digests) => digests.contains(&digest(key)),
            _ => false,
        };
        logged.entries.iter().any(holds)
    }

    /// The next call to the disk fails, or all from there on.
    fn fail(&self, after: u64, for_ever: bool) {
        let at = self.disk.calls() + 1 + after;
        self.disk.set_fault(Some(Fault { at, for_ever, kind: std::io::ErrorKind::Other }));
    }
}

#[test]
fn all_who_share_a_sync_find_their_marks_on_the_disk() {
    check(PREEMPTIONS - 1, || {
        let machine = Machine::new(Level::Sync);
        let marking = |key| {
            let machine = Arc::clone(&machine);
            move || machine.mark(key)
        };
        let third = spawn(marking(3));
        let (one, other) = both(marking(1), marking(2));
        assert!(one && other && third.join().expect("the thread ran"));
        assert_eq!(machine.withdrawn.load(SeqCst), 0);
    });
}

/// A duplicate of a mark that is pending is answered when the mark is on the disk.
#[test]
fn who_asks_for_a_pending_mark_waits_for_it() {
    check(PREEMPTIONS, || {
        let machine = Machine::new(Level::Sync);
        // What a shard knows of its pending marks, under its lock.
        let pending = Arc::new(Mutex::new(None));
        let thread = {
            let (machine, pending) = (Arc::clone(&machine), Arc::clone(&pending));
            move || {
                let epoch = machine.log.enter(&*machine).expect("the disk works");
                *pending.lock() = Some(epoch);
                machine.log.leave(epoch, &mut vec![(SLICE, digest(1))]);
                machine.log.wait(epoch, &*machine).expect("the disk works");
            }
        };
        both(thread, || {
            let seen = *pending.lock();
            if let Some(epoch) = seen {
                machine.log.wait(epoch, &*machine).expect("the disk works");
                assert!(machine.is_on_disk(1), "answered too early");
            }
        });
    });
}

/// A failed sync is not repeated: the block goes to a new file, and nobody notices.
#[test]
fn one_failing_call_is_noticed_by_nobody() {
    for after in 0..2 {
        check(PREEMPTIONS - 1, move || {
            let machine = Machine::new(Level::Sync);
            assert!(machine.mark(7));
            machine.fail(after, false);
            let thread = {
                let machine = Arc::clone(&machine);
                move || machine.mark(1)
            };
            let (one, other) = both(thread, || machine.mark(2));
            assert!(one && other && machine.is_on_disk(7));
        });
    }
}

/// When the disk takes nothing any more, all who wait get the error, after their marks were undone;
/// what was undone does not come back, and the log goes on when the disk does.
#[test]
fn when_the_disk_fails_all_are_withdrawn_before_they_are_told() {
    for after in 0..2 {
        check(PREEMPTIONS - 1, move || {
            let machine = Machine::new(Level::Sync);
            assert!(machine.mark(7));
            machine.fail(after, true);
            let thread = {
                let machine = Arc::clone(&machine);
                move || machine.mark(1)
            };
            let (one, other) = both(thread, || machine.mark(2));
            machine.disk.set_fault(None);
            assert!(machine.mark(3), "the disk works again");
            for (key, told) in [(1, one), (2, other), (7, true)] {
                assert_eq!(machine.is_on_disk(key), told, "{key}");
            }
        });
    }
}

/// At `Interval` the background leads, and nothing that was left is lost to a disk that fails for a
/// while: it was acknowledged.
#[test]
fn what_was_left_before_a_sync_is_on_the_disk_after_it() {
    for fails in [false, true] {
        check(PREEMPTIONS, move || {
            let machine = Machine::new(Level::Interval);
            machine.leave(1).expect("the disk works");
            if fails {
                machine.fail(0, true);
                assert!(machine.log.sync(&*machine).is_err());
                machine.disk.set_fault(None);
            }
            let syncing = {
                let machine = Arc::clone(&machine);
                move || {
                    machine.log.sync(&*machine).expect("the disk works");
                    assert!(machine.is_on_disk(1));
                }
            };
            both(syncing, || {
                let epoch = machine.leave(2).expect("the disk works");
                machine.log.sync(&*machine).expect("the disk works");
                assert!(machine.is_on_disk(1) && machine.is_on_disk(2), "{epoch}");
            });
        });
    }
}
