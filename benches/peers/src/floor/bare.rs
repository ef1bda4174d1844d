//! The bare path of a new key: digest it, take a lock, set a bit in the line that the digest names,
//! append the digest to a mapped file, give the lock back. It decides nothing and keeps nothing; no
//! engine that does those can be faster.

use std::fs::File;
use std::hint::black_box;

use crossbeam_utils::CachePadded;
use memmap2::MmapMut;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_128_with_secret;

use super::{BATCH, Memory, WORDS_A_LINE, place, prefetch};
use crate::args::Result;
use crate::keys::{Key, key};

const SHARD_BITS: u32 = 4;
const KEYS: usize = 1 << 21;
/// The log is written over once it is full: its pages are there, as those of an engine that
/// allocates ahead in the background.
const LOG_BYTES: usize = 16 << 20;
const LOG_AHEAD: usize = 256;

pub(crate) struct Path {
    keys: Vec<Key>,
    memory: Memory,
    shards: Box<[CachePadded<Mutex<usize>>]>,
    log: MmapMut,
    secret: [u8; 192],
}

impl Path {
    /// With `bytes` of memory in huge pages.
    pub(crate) fn of_size(bytes: usize, dir: &std::path::Path) -> Result<Self> {
        Path::new(Memory::new(bytes, memmap2::Advice::HugePage)?, dir)
    }

    pub(super) fn new(memory: Memory, dir: &std::path::Path) -> Result<Self> {
        let path = dir.join("floor-log");
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        file.set_len(LOG_BYTES as u64)?;
        // SAFETY: the file is this program's own, and its name is gone before anyone can use it.
        let log = unsafe { MmapMut::map_mut(&file) }?;
        std::fs::remove_file(&path)?;
        let shards = (0..1 << SHARD_BITS).map(|_| CachePadded::new(Mutex::new(0))).collect();
        let secret = std::array::from_fn(|at| at as u8 ^ 0x5a);
        Ok(Path { keys: Vec::new(), memory, shards, log, secret })
    }

    /// Other keys than before, so that no line is in the cache.
    fn next_keys(&mut self) {
        let from = self.memory.counter;
        self.memory.counter += KEYS as u64;
        self.keys.clear();
        self.keys.extend((from..from + KEYS as u64).map(|index| key(3, index)));
    }

    pub(super) fn one_at_a_time(&mut self) -> f64 {
        self.measured(Path::each)
    }

    pub(super) fn batched(&mut self, lines: usize) -> f64 {
        self.measured(|path, keys| path.batches(keys, lines))
    }

    /// One key after the other.
    pub(crate) fn each(&mut self, keys: &[Key]) {
        for key in keys {
            let digest = xxh3_128_with_secret(key, black_box(&self.secret));
            self.record(digest, 1);
        }
    }

    /// Batches: digests and prefetches first.
    pub(crate) fn batches(&mut self, keys: &[Key], lines: usize) {
        let mut digests = [0; BATCH];
        for keys in keys.chunks(BATCH) {
            for (digest, key) in digests.iter_mut().zip(keys) {
                *digest = xxh3_128_with_secret(key, black_box(&self.secret));
                let words = self.memory.words();
                let at = place(*digest as u64, words, lines);
                for next in 0..lines {
                    prefetch(&words[at + next * WORDS_A_LINE]);
                }
            }
            for &digest in &digests[..keys.len()] {
                self.record(digest, lines);
            }
        }
    }

    fn measured(&mut self, run: impl Fn(&mut Self, &[Key])) -> f64 {
        let samples: Vec<f64> = (0..super::REPETITIONS)
            .map(|_| {
                self.next_keys();
                let keys = std::mem::take(&mut self.keys);
                let took = super::once(KEYS as u64, || run(self, &keys));
                self.keys = keys;
                took
            })
            .collect();
        crate::report::median(&samples)
    }

    #[inline]
    fn record(&mut self, digest: u128, lines: usize) {
        let shard = (digest >> (128 - SHARD_BITS)) as usize;
        let mut appended = self.shards[shard].lock();
        let words = self.memory.words();
        let at = place(digest as u64, words, lines);
        for next in 0..lines {
            words[at + next * WORDS_A_LINE] |= 1 << (digest & 63);
        }
        let share = LOG_BYTES >> SHARD_BITS;
        let at = shard * share + *appended % share;
        self.log[at..at + 16].copy_from_slice(&digest.to_ne_bytes());
        // The next lines of the log, or giving the lock back waits for them: the stores before it
        // have to leave the core first. It halves the cost of a batch.
        prefetch(&self.log[(at + LOG_AHEAD) % LOG_BYTES]);
        *appended += 16;
    }
}
