//! A page shared by parent and child, on which the child publishes what was acknowledged: plain
//! stores to a mapped file, which outlive the process whenever it is killed.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapRaw;

/// Threads of a child that work on the store.
pub(crate) const WORKERS: usize = 2;
/// The most operations of one worker.
pub(crate) const OPS: usize = 1 << 14;

const OPENED: usize = 0;
const TIME_EARLIEST: usize = 1;
const TIME_LATEST: usize = 2;
const FIRST_WORKER: usize = 8;
const STARTED: usize = 0;
const ACKNOWLEDGED: usize = 1;
const COMMITTING: usize = 2;
const TIMES: usize = 8;
const WORKER_WORDS: usize = TIMES + 2 * OPS;
const WORDS: usize = FIRST_WORKER + WORKERS * WORKER_WORDS;

pub(crate) struct Board {
    map: MmapRaw,
}

impl Board {
    /// An empty board in a new file.
    pub(crate) fn create(path: &Path) -> Self {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
        let file = file.expect("board file");
        file.set_len((WORDS * 8) as u64).expect("board length");
        Board { map: MmapRaw::map_raw(&file).expect("map of the board") }
    }

    pub(crate) fn open(path: &Path) -> Self {
        let file = File::options().read(true).write(true).open(path).expect("board file");
        let map = MmapRaw::map_raw(&file).expect("map of the board");
        assert_eq!(map.len(), WORDS * 8);
        Board { map }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at < WORDS);
        // SAFETY: the map is `WORDS` words long, aligned to a page, writable, lives as long as
        // `self`, and both processes access it only through atomics.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().cast::<u64>().add(at)) }
    }

    fn load(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::SeqCst)
    }

    fn store(&self, at: usize, value: u64) {
        self.word(at).store(value, Ordering::SeqCst);
    }

    pub(crate) fn set_opened(&self) {
        self.store(OPENED, 1);
    }

    pub(crate) fn is_opened(&self) -> bool {
        self.load(OPENED) == 1
    }

    /// The clock of the child stands between these two instants.
    pub(crate) fn set_time(&self, earliest: i64, latest: i64) {
        self.store(TIME_LATEST, latest.cast_unsigned());
        self.store(TIME_EARLIEST, earliest.cast_unsigned());
    }

    pub(crate) fn earliest(&self) -> i64 {
        self.load(TIME_EARLIEST).cast_signed()
    }

    pub(crate) fn latest(&self) -> i64 {
        self.load(TIME_LATEST).cast_signed()
    }

    pub(crate) fn worker(&self, number: usize) -> Worker<'_> {
        Worker { board: self, base: FIRST_WORKER + number * WORKER_WORDS }
    }
}

/// The part of the board that one worker writes.
#[derive(Clone, Copy)]
pub(crate) struct Worker<'a> {
    board: &'a Board,
    base: usize,
}

impl Worker<'_> {
    /// Operation `op` begins at `time` (or later).
    pub(crate) fn start(&self, op: usize, time: i64) {
        self.board.store(self.base + TIMES + 2 * op, time.cast_unsigned());
        self.board.store(self.base + STARTED, op as u64 + 1);
    }

    /// The claim of operation `op` is granted, its commit is about to begin.
    pub(crate) fn committing(&self, op: usize) {
        self.board.store(self.base + COMMITTING, op as u64 + 1);
    }

    /// Operation `op` was acknowledged, at `time` (or earlier).
    pub(crate) fn acknowledge(&self, op: usize, time: i64) {
        self.board.store(self.base + TIMES + 2 * op + 1, time.cast_unsigned());
        self.board.store(self.base + ACKNOWLEDGED, op as u64 + 1);
    }

    /// How many operations were begun.
    pub(crate) fn started(&self) -> usize {
        self.board.load(self.base + STARTED) as usize
    }

    /// How many operations were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.board.load(self.base + ACKNOWLEDGED) as usize
    }

    /// Whether the commit of operation `op` may have begun.
    pub(crate) fn may_have_committed(&self, op: usize) -> bool {
        self.board.load(self.base + COMMITTING) as usize > op
    }

    /// Between which instants operation `op` was carried out.
    pub(crate) fn times(&self, op: usize) -> (i64, i64) {
        let at = self.base + TIMES + 2 * op;
        (self.board.load(at).cast_signed(), self.board.load(at + 1).cast_signed())
    }
}
