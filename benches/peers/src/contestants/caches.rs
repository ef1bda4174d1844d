//! Concurrent maps and caches from the shelf. Those without a clock are bounded by size: one window
//! and a seventh, as the store keeps, so that an eviction for every new key is the steady state.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use dashmap::DashSet;
use lru::LruCache;
use parking_lot::Mutex;

use super::{BuildDigestIsHash, Contestant, digest};
use crate::keys::Key;

/// What a loop over the keys is for peers that have no call for many keys.
macro_rules! one_by_one {
    () => {
        fn observe_each(&self, keys: &[Key], answers: &mut [bool]) {
            for (key, answer) in keys.iter().zip(answers) {
                *answer = self.observe(digest(key));
            }
        }

        fn observe_batches(&self, keys: &[Key], _batch: usize, answers: &mut [bool]) {
            self.observe_each(keys, answers);
        }
    };
}

/// dashmap spreads by the upper bits of a hash and its tables by the lower: both are uniform.
///
/// It has no window, so it gets two generations, as the hash sets.
pub(crate) struct DashSets {
    sets: [DashSet<u128, BuildDigestIsHash>; 2],
    live: u64,
    generation: AtomicU64,
}

impl DashSets {
    pub(crate) fn new(live: u64) -> Self {
        let capacity = usize::try_from(live + live / 32).expect("fits");
        let set = || DashSet::with_capacity_and_hasher(capacity, BuildDigestIsHash::default());
        DashSets { sets: [set(), set()], live, generation: AtomicU64::new(0) }
    }

    #[inline]
    fn observe(&self, digest: u128) -> bool {
        let current = self.generation.load(Ordering::Relaxed) as usize % 2;
        self.sets[1 - current].contains(&digest) || !self.sets[current].insert(digest)
    }
}

impl Contestant for DashSets {
    fn name(&self) -> &'static str {
        "dashmap, 2 generations"
    }

    fn advance(&self, now: u64) {
        let generation = now / self.live;
        if self.generation.swap(generation, Ordering::Relaxed) != generation {
            self.sets[generation as usize % 2].clear();
        }
    }

    one_by_one!();
}

pub(crate) struct QuickCache {
    cache: quick_cache::sync::Cache<
        u128,
        (),
        quick_cache::UnitWeighter,
        BuildDigestIsHash,
        quick_cache::sync::DefaultLifecycle<u128, ()>,
    >,
}

impl QuickCache {
    pub(crate) fn new(live: u64) -> Self {
        let capacity = live + live / 7;
        let cache = quick_cache::sync::Cache::with(
            usize::try_from(capacity).expect("fits"),
            capacity,
            quick_cache::UnitWeighter,
            BuildDigestIsHash::default(),
            quick_cache::sync::DefaultLifecycle::default(),
        );
        QuickCache { cache }
    }

    fn observe(&self, digest: u128) -> bool {
        let mut fresh = false;
        let done = self.cache.get_or_insert_with(&digest, || {
            fresh = true;
            Ok::<(), std::convert::Infallible>(())
        });
        done.is_ok() && !fresh
    }
}

impl Contestant for QuickCache {
    fn name(&self) -> &'static str {
        "quick_cache"
    }

    /// Its policy throws out what was asked for once: here nearly every key.
    fn exact(&self) -> bool {
        false
    }

    fn slow(&self) -> bool {
        true
    }

    fn advance(&self, _now: u64) {}

    one_by_one!();
}

const SHARD_BITS: u32 = 6;

type Lru = LruCache<u128, (), BuildDigestIsHash>;

/// 64 locked LRU lists, in the order of insertion: a duplicate does not renew its key.
pub(crate) struct Lrus {
    shards: Box<[CachePadded<Mutex<Lru>>]>,
}

impl Lrus {
    pub(crate) fn new(live: u64) -> Self {
        // Four deviations of room, or an uneven shard forgets too early.
        let share = (live + live / 7) >> SHARD_BITS;
        let share = NonZeroUsize::new((share + 4 * share.isqrt()) as usize).expect("not zero");
        let shard = |_| {
            let cache = Lru::with_hasher(share, BuildDigestIsHash::default());
            CachePadded::new(Mutex::new(cache))
        };
        Lrus { shards: (0..1 << SHARD_BITS).map(shard).collect() }
    }

    #[inline]
    fn observe(&self, digest: u128) -> bool {
        let mut shard = self.shards[(digest >> (128 - SHARD_BITS)) as usize].lock();
        shard.contains(&digest) || shard.put(digest, ()).is_some()
    }
}

impl Contestant for Lrus {
    fn name(&self) -> &'static str {
        "lru, 64 locks"
    }

    fn slow(&self) -> bool {
        true
    }

    fn advance(&self, _now: u64) {}

    one_by_one!();
}
