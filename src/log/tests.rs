//! Epochs on a disk that fails.

use std::io::ErrorKind;

use super::*;
use crate::format::log::{BlockHead, Entry};
use crate::format::manifest::tests::sample;
use crate::storage::sim::{Fault, SimDisk};

struct Store;

impl Host for Store {
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

    fn withdraw(&self, _last: u64) {}

    fn log_failed(&self, _file: u64, _end: u64) {}

    fn log_ended(&self) {}
}

fn log_on(disk: &SimDisk) -> Log {
    let mut manifest = sample();
    manifest.logs.clear();
    let ledger = Arc::new(Ledger::new(disk.storage(), manifest));
    Log::new(ledger, Level::Sync, 1 << 16)
}

/// The digests that another process would read.
fn on_disk(log: &Log, disk: &SimDisk) -> Vec<Digest> {
    let files = log.files.lock();
    let ledger = files.ledger();
    let (logs, store) = (ledger.read(|manifest| manifest.logs.clone()), ledger.store());
    let entries = read_all(&*disk.storage(), store, &logs).unwrap().entries.into_iter();
    let digests = entries.filter_map(|entry| match entry {
        Entry::Digests(_, digests) => Some(digests),
        Entry::Record(_) | Entry::Count(..) => None,
    });
    digests.flatten().collect()
}

/// Promise 9: who is told an error has nothing on the disk, also where the epoch before, which was
/// being left at the same time, came through.
#[test]
fn a_block_has_no_mark_of_an_epoch_that_may_still_fail() {
    let disk = SimDisk::new();
    let log = log_on(&disk);
    let (first_mark, second_mark) = (Digest::new(1, 1), Digest::new(2, 2));
    let first = log.enter(&Store).unwrap();
    std::thread::scope(|scope| {
        let leader = scope.spawn(|| log.wait(first, &Store));
        // The leader closes the first epoch and waits until it is left.
        let second = loop {
            let epoch = log.enter(&Store).unwrap();
            if epoch > first {
                break epoch;
            }
            log.leave(epoch, &mut Vec::new());
            std::thread::yield_now();
        };
        log.leave(second, &mut vec![(7, second_mark)]);
        log.leave(first, &mut vec![(7, first_mark)]);
        leader.join().unwrap().unwrap();
        assert_eq!(on_disk(&log, &disk), [first_mark]);
        disk.set_fault(Some(Fault { at: 0, for_ever: true, kind: ErrorKind::Other }));
        assert!(log.wait(second, &Store).is_err());
    });
    disk.set_fault(None);
    let third = log.enter(&Store).unwrap();
    let third_mark = Digest::new(3, 3);
    log.leave(third, &mut vec![(7, third_mark)]);
    log.wait(third, &Store).unwrap();
    assert_eq!(on_disk(&log, &disk), [first_mark, third_mark]);
}
