//! The exact windowed set that a good engineer would write in an afternoon: locked shards, each
//! with the hash set of this window and that of the window before. A key is looked up in both and
//! inserted into the younger; once a window the older is emptied and becomes the younger, so keys
//! are remembered for one to two windows. Nothing is kept over a restart.
//!
//! It gets what helps it: the digest is the hash, and the tables are sized for a window from the
//! start and keep their memory. A batch is a loop over its keys, or, in the second variant, all
//! digests first and then the loop: less stands between one key's miss and the next one's, so more
//! of them overlap.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use hashbrown::HashSet;
use parking_lot::Mutex;

use super::{BuildDigestIsHash, Contestant, digest};
use crate::keys::Key;

const SHARD_BITS: u32 = 6;

type Set = HashSet<u128, BuildDigestIsHash>;

#[derive(Debug)]
struct Shard {
    current: Set,
    previous: Set,
}

#[derive(Debug)]
pub(crate) struct HashSets {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    live: u64,
    digests_first: bool,
    /// Windows that have begun.
    generation: AtomicU64,
}

impl HashSets {
    pub(crate) fn new(live: u64, digests_first: bool) -> Self {
        // Room for the uneven spread of the keys over the shards.
        let share = usize::try_from(live >> SHARD_BITS).expect("fits");
        let capacity = share + share / 32;
        let set = || Set::with_capacity_and_hasher(capacity, BuildDigestIsHash::default());
        let shard = |_| CachePadded::new(Mutex::new(Shard { current: set(), previous: set() }));
        let shards = (0..1 << SHARD_BITS).map(shard).collect();
        HashSets { shards, live, digests_first, generation: AtomicU64::new(0) }
    }

    /// Whether the key was there. The table takes the low bits of the digest, the shard the high.
    #[inline]
    fn observe(&self, digest: u128) -> bool {
        let mut shard = self.shards[(digest >> (128 - SHARD_BITS)) as usize].lock();
        shard.previous.contains(&digest) || !shard.current.insert(digest)
    }
}

impl Contestant for HashSets {
    fn name(&self) -> &'static str {
        match self.digests_first {
            false => "hashbrown, 64 locks, 2 generations",
            true => "hashbrown, digests first",
        }
    }

    fn advance(&self, now: u64) {
        let generation = now / self.live;
        if self.generation.swap(generation, Ordering::Relaxed) == generation {
            return;
        }
        for shard in &self.shards {
            let shard = &mut *shard.lock();
            mem::swap(&mut shard.current, &mut shard.previous);
            shard.current.clear();
        }
    }

    fn observe_each(&self, keys: &[Key], answers: &mut [bool]) {
        for (key, answer) in keys.iter().zip(answers) {
            *answer = self.observe(digest(key));
        }
    }

    fn observe_batches(&self, keys: &[Key], batch: usize, answers: &mut [bool]) {
        if !self.digests_first {
            return self.observe_each(keys, answers);
        }
        let mut digests = Vec::with_capacity(batch);
        for (keys, answers) in keys.chunks(batch).zip(answers.chunks_mut(batch)) {
            digests.clear();
            digests.extend(keys.iter().map(digest));
            for (&digest, answer) in digests.iter().zip(answers) {
                *answer = self.observe(digest);
            }
        }
    }
}
