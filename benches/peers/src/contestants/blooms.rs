//! Two rotating Bloom filters behind 64 locks, as the hash sets are: small and fast, and **not
//! exact**. What a filter suspects wrongly is a message dropped. Sized for one in a thousand, as
//! the engine's filter, which only saves look-ups by it.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use super::{Contestant, digest};
use crate::keys::Key;

const SHARD_BITS: u32 = 6;
const FALSE_POSITIVES: f64 = 0.001;
/// Of a split block filter for that rate: sbbf-rs takes the bits, not the rate.
const SPLIT_BLOCK_BITS: usize = 16;

pub(crate) trait Filter: Send {
    const NAME: &'static str;
    fn new(keys: usize) -> Self;
    fn contains(&self, hash: u64) -> bool;
    /// Whether it was there.
    fn insert(&mut self, hash: u64) -> bool;
    fn clear(&mut self);
}

impl Filter for sbbf_rs_safe::Filter {
    const NAME: &'static str = "sbbf-rs, 2 generations";

    fn new(keys: usize) -> Self {
        sbbf_rs_safe::Filter::new(SPLIT_BLOCK_BITS, keys)
    }

    fn contains(&self, hash: u64) -> bool {
        self.contains_hash(hash)
    }

    fn insert(&mut self, hash: u64) -> bool {
        self.insert_hash(hash)
    }

    fn clear(&mut self) {
        self.reset();
    }
}

impl Filter for fastbloom::BloomFilter {
    const NAME: &'static str = "fastbloom, 2 generations";

    fn new(keys: usize) -> Self {
        fastbloom::BloomFilter::with_false_pos(FALSE_POSITIVES).expected_items(keys)
    }

    fn contains(&self, hash: u64) -> bool {
        self.contains_hash(hash)
    }

    fn insert(&mut self, hash: u64) -> bool {
        self.insert_hash(hash)
    }

    fn clear(&mut self) {
        fastbloom::BloomFilter::clear(self);
    }
}

struct Shard<F> {
    current: F,
    previous: F,
}

pub(crate) struct Blooms<F> {
    shards: Box<[CachePadded<Mutex<Shard<F>>>]>,
    live: u64,
    generation: AtomicU64,
}

impl<F: Filter> Blooms<F> {
    pub(crate) fn new(live: u64) -> Self {
        let share = usize::try_from(live >> SHARD_BITS).expect("fits");
        let filter = || F::new(share + share / 32);
        let shard =
            |_| CachePadded::new(Mutex::new(Shard { current: filter(), previous: filter() }));
        let shards = (0..1 << SHARD_BITS).map(shard).collect();
        Blooms { shards, live, generation: AtomicU64::new(0) }
    }

    #[inline]
    fn observe(&self, digest: u128) -> bool {
        let mut shard = self.shards[(digest >> (128 - SHARD_BITS)) as usize].lock();
        let hash = digest as u64;
        shard.previous.contains(hash) || shard.current.insert(hash)
    }
}

impl<F: Filter> Contestant for Blooms<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn exact(&self) -> bool {
        false
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

    /// All digests first: less stands between one key's miss and the next one's.
    fn observe_batches(&self, keys: &[Key], batch: usize, answers: &mut [bool]) {
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
